"""The janitor's bench itself: its arithmetic, its trees, a tiny run, and that nothing stays."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bench import janitor
from tests.bench.daemon import Daemon, Totals
from tests.bench.deletions import Deletions
from tests.bench.errors import ChildFailedError
from tests.bench.figures import Size, seconds_text
from tests.bench.ours import quantile
from tests.bench.processes import Children, program
from tests.bench.trees import TREES, OurTree, Tree
from tests.bench.undertaker import ROOT, Undertaker

PROGRAM: Final = Path(janitor.__file__)

PATIENCE: Final = 60.0

SMALL: Final = 40

KILLED: Final = """
import os, signal, sys
from pathlib import Path
from tests.bench.processes import Children
from tests.bench.undertaker import Undertaker

place = Path(sys.argv[1])
place.mkdir()
with Undertaker(place) as undertaker:
    with Children(place, undertaker).started(["sleep", "600"], stdout=2) as sleeping:
        print(sleeping.pid, flush=True)
        signal.pause()
"""

NEEDED: Final = {"django": "django", "cachelib": "cachelib", "litestar": "litestar"}


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    place = tmp_path / "scratch"
    place.mkdir()
    with Undertaker(place) as undertaker:
        yield Children(place, undertaker)


@pytest.fixture
def tree(tmp_path: Path) -> OurTree:
    tree = OurTree(tmp_path / "sessions", SMALL)
    tree.build()
    return tree


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 us"),
        (8.25e-7, "0.825 us"),
        (0.000_123_4, "123 us"),
        (0.004_18, "4.18 ms"),
        (1.0, "1.00 s"),
        (123.4, "123 s"),
        (4321.0, "4,321 s"),
    ],
)
def test_a_time_is_told_in_three_digits(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_a_quantile_is_one_of_the_values_and_the_last_is_the_most() -> None:
    values = list(range(1, 101))
    assert [quantile(values, part) for part in (0, 0.5, 0.99, 1)] == [1, 51, 100, 100]
    assert quantile(values, 0.989) == 99
    assert quantile([7.0], 0.5) == 7


def test_half_of_the_sessions_are_half_and_few_are_a_hundred() -> None:
    size = Size(10_000, 100)
    assert (size.expired("few"), size.expired("half")) == (100, 5000)


class TestTrees:
    """Of every library that is installed."""

    @pytest.fixture(params=TREES)
    def any_tree(self, request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
        if request.param in NEEDED:
            pytest.importorskip(NEEDED[request.param], reason="a peer; pip install '.[bench]'")
        tree = TREES[request.param](tmp_path / "tree", SMALL)
        tree.build()
        return tree

    def test_its_files_are_as_the_library_would_make_them(self, any_tree: Tree) -> None:
        any_tree.check()
        assert any_tree.remaining() == SMALL

    def test_what_is_expired_is_what_the_librarys_cleaner_deletes(
        self, any_tree: Tree, children: Children, tmp_path: Path
    ) -> None:
        name = next(name for name, kind in TREES.items() if type(any_tree) is kind)
        cleaner = "sweep" if name == "ours" else name
        arguments = [str(SMALL - 1)] if name == "cachelib" else []
        for expired in (SMALL // 2, 3):
            any_tree.expire(expired)
            command = program("cleaners", cleaner, str(any_tree.place), *arguments)
            cost = children.cost(command, any_tree.folders(), PATIENCE)
            any_tree.tidy()
            gone = {number for number in range(SMALL) if not os.path.exists(any_tree.path(number))}
            assert gone == set(range(expired))
            assert cost.first is not None
            assert cost.first > cost.seconds > 0 < cost.peak


def test_a_session_of_our_tree_falls_due_at_the_moment_it_was_told(tree: OurTree) -> None:
    moment = 2_000_000_000.0
    tree.fall_due(2, moment)
    assert tree.store.lifetime.due_at(0, os.stat(tree.path(0)).st_mtime) == moment
    tree.fall_due_in_turn(moment)
    due = [tree.store.lifetime.due_at(0, os.stat(tree.path(n)).st_mtime) for n in range(SMALL)]
    assert due == sorted(due, key=lambda each: each or 0)
    assert due[0] == moment
    assert due[SMALL // 2] == moment + 900


class TestCost:
    """What is known of a process that cleans."""

    def test_a_process_that_is_not_done_at_the_limit_is_killed_and_reported_so(
        self, children: Children, tree: OurTree
    ) -> None:
        cost = children.cost(["sleep", "600"], tree.folders(), 0.05)
        assert cost.stopped
        assert 0.05 < cost.seconds < PATIENCE
        assert cost.first is None

    def test_of_a_foreign_program_time_memory_and_first_deletion_are_seen_from_outside(
        self, children: Children, tree: OurTree
    ) -> None:
        words = f"rm {tree.path(0)}; exec sleep 0.2"
        cost = children.cost(["sh", "-c", words], tree.folders(), PATIENCE)
        assert not cost.stopped
        assert cost.first is not None
        assert cost.first < cost.seconds
        assert cost.peak > 100_000

    def test_what_a_failing_program_wrote_is_told(self, children: Children, tree: OurTree) -> None:
        with pytest.raises(ChildFailedError, match="there is no such cleaner"):
            children.cost(["sh", "-c", "echo there is no such cleaner >&2; exit 3"], [], PATIENCE)


def test_deletions_are_told_by_name_and_with_first_only_the_first_of_each(tree: OurTree) -> None:
    with Deletions(tree.folders()) as each, Deletions([*tree.folders()], first=True) as first:
        names = []
        for number in range(SMALL):
            os.unlink(tree.path(number))
            names.append(os.path.basename(tree.path(number)))
        assert [name for name, _ in each.wait(PATIENCE)] == names
        shards = [name[:2] for name, _ in first.wait(PATIENCE)]
    assert len(shards) == len(set(shards)) == len({name[:2] for name in names})
    assert len(shards) < SMALL


class TestDaemon:
    """What is understood of a heartbeat."""

    @pytest.fixture
    def say(self, tmp_path: Path) -> Callable[..., Totals]:
        process = subprocess.Popen(["true"])
        process.wait()
        daemon = Daemon(process, tmp_path)

        def said(**members: Any) -> Totals:
            text = json.dumps({"pid": process.pid} | members)
            (tmp_path / "janitor.json").write_text(text)
            return daemon.totals()

        return said

    def test_before_it_says_anything_it_has_done_nothing(self, say: Callable[..., Totals]) -> None:
        assert say() == Totals()

    def test_what_it_did_in_all_is_understood(self, say: Callable[..., Totals]) -> None:
        reading = {"expired": 9, "sweeps": 4, "sweep_seconds": 0.5, "full_looks": 1, "lag": 0}
        assert say(reading=reading) == Totals(9, 0.5, 4, 1)

    def test_what_an_earlier_janitor_said_does_not_count(self, say: Callable[..., Totals]) -> None:
        reading = {"expired": 9, "sweeps": 4, "sweep_seconds": 0.5, "full_looks": 1, "lag": 0}
        assert say(pid=1, reading=reading) == Totals()


class TestRun:
    """The program."""

    def test_a_tiny_run_measures_every_cleaner_it_is_told_to(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        only = ("unlink", "find", "scan", "sweep", "cold")
        found = self.run(tmp_path, ",".join(only))
        rows = found["sizes"][0]["rows"]
        assert sorted(rows) == sorted(only)
        for name, row in rows.items():
            for case in ("few", "half"):
                (cost,) = row["costs"][case]
                assert cost["seconds"] > 0 < cost["cpu"], name
                assert row["why"] == {}, name
        printed = capsys.readouterr().out
        assert "bare unlink loop" in printed
        assert "filesession janitor, cold start" in printed
        assert os.listdir(tmp_path) == ["figures.json"]

    def test_a_cleaner_that_left_what_had_expired_is_told_of(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(janitor.Bench, "_command", lambda *_: ["true"])
        self.run(tmp_path, "find", code=1)
        assert "half: deleted 0, not 20" in capsys.readouterr().err

    def test_a_cleaner_that_fails_is_told_of_and_the_others_are_measured(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = janitor.Bench._command

        def command(bench: janitor.Bench, name: str, tree: Tree, expired: int) -> list[str]:
            failing = ["sh", "-c", "echo a broken disk >&2; exit 3"]
            return failing if name == "find" else made(bench, name, tree, expired)

        monkeypatch.setattr(janitor.Bench, "_command", command)
        rows = self.run(tmp_path, "find,unlink", code=1)["sizes"][0]["rows"]
        assert rows["find"]["why"] == {"few": "not measured", "half": "not measured"}
        assert len(rows["unlink"]["costs"]["half"]) == 1
        assert "a broken disk" in capsys.readouterr().err

    def test_a_peer_that_is_not_installed_is_told_of(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(_place: Path, _count: int) -> Tree:
            raise ModuleNotFoundError(name="django")

        monkeypatch.setitem(TREES, "django", missing)
        row = self.run(tmp_path, "django")["sizes"][0]["rows"]["django"]
        assert row["why"] == {"few": "django is not installed"}

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_nothing_is_left_of_a_run_that_is_ended(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        options = ["--sessions", "2000", "--dir", str(tmp_path), "--only", "unlink,janitor"]
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "janitor, few" in line:
                    break
            assert os.listdir(tmp_path)
            process.send_signal(number)
            printed, told = process.communicate(
                timeout=PATIENCE
            )  # also until the undertaker is done
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in told
        killed = number == signal.SIGKILL
        assert process.returncode == (-signal.SIGKILL if killed else 130)
        assert ("bare unlink loop" in printed) != killed  # what there is, who interrupts it gets
        assert os.listdir(tmp_path) == []

    def test_what_a_killed_run_had_started_is_ended(self, tmp_path: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "scratch")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            started = os.pidfd_open(int(process.stdout.readline()))
        finally:
            process.kill()
            process.communicate()
        try:
            assert select.select([started], [], [], PATIENCE)[0]
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(started, signal.SIGKILL)
            os.close(started)

    def test_where_there_is_no_room_nothing_is_begun(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            janitor.main(["--sessions", f"{10**12}", "--dir", str(tmp_path)])
        assert ended.value.code == 2
        assert "1,000,000,000,000 sessions take 4915200.0 GB" in capsys.readouterr().err
        assert os.listdir(tmp_path) == []

    def run(self, place: Path, only: str, code: int = 0) -> Any:
        figures = place / "figures.json"
        options = ["--sessions", f"{SMALL}", "--rounds", "1", "--dir", str(place), "--only", only]
        handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
        try:
            assert janitor.main([*options, "--json", str(figures)]) == code
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)
        return json.loads(figures.read_text())
