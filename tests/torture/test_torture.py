"""The torture run itself, in its short form, and that it notices a store which breaks its promises.

Real processes on a real directory: workers that are killed and stopped, and the janitor's command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

from tests.torture.judge import judged
from tests.torture.planted import FOUND, history
from tests.torture.torture import main
from tests.torture.verdict import KINDS, Verdict

ROOT: Final = Path(__file__).parents[2]

PROGRAM: Final = Path(__file__).with_name("torture.py")

DEADLINE: Final = 60.0

BROKEN: Final = {
    "that saves over what others saved": (
        "lost",
        """
        def save(self, sid, data, *, base=None, conflict="merge", **more):
            return super().save(sid, data, base=base, conflict="overwrite", **more)
        """,
    ),
    "that makes a deleted session anew": (
        "revived",
        """
        def save(self, sid, data, *, base=None, **more):
            try:
                return super().save(sid, data, base=base, **more)
            except SessionGone:
                return self.create(data, sid=sid)
        """,
    ),
    "whose lock lets everyone in": (
        "two holders",
        """
        @contextmanager
        def lock(self, sid, *, timeout=10):
            record = self.load(sid)
            if record is None:
                raise SessionGone
            yield record
        """,
    ),
}
"""What a store does wrong, as what it must be found, and how it does it."""

BREAKING: Final = """
import sys
from contextlib import contextmanager
from filesession import FileStore, SessionGone
from tests.torture.torture import main

class Broken(FileStore):
    {body}

sys.exit(main(sys.argv[1:], make=Broken))
"""


@dataclass
class Ran:
    """A run that is over."""

    code: int
    said: str
    directory: Path

    @property
    def history(self) -> Path:
        return self.directory / "history.jsonl"

    @cached_property
    def verdict(self) -> Verdict:
        with self.history.open() as lines:
            return judged(lines)


def started(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments, "--dir", str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ran(directory: Path, *arguments: str) -> Ran:
    process = started(directory, *arguments)
    try:
        said, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    return Ran(process.returncode, said, directory)


def at_work(directory: Path) -> list[int]:
    """The processes that work on a directory: it is among the words they were started with."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", name, "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(directory) in words:
            found.append(int(name))
    return found


@pytest.fixture(scope="module", params=["--seconds=2", "--seconds=1.5 --grace"])
def short(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The short form, of both kinds of store."""
    directory = tmp_path_factory.mktemp("torture") / "run"
    words = (*request.param.split(), "--workers", "3", "--seed", "1791")
    return ran(directory, str(PROGRAM), *words)


def test_nothing_is_found_in_the_short_form(short: Ran) -> None:
    assert short.code == 0, short.said
    assert "nothing found (seed 1791)" in short.said


def test_the_short_form_did_a_lot_and_was_killed_often(short: Ran) -> None:
    verdict = short.verdict
    assert sum(verdict.told.values()) > 500
    assert verdict.happened["kill"] >= 3
    assert verdict.happened["stop"] >= 1
    assert verdict.happened["janitor"] >= 1
    verbs = {verb for verb, told in verdict.told if told == "ok"}
    assert verbs >= {"add", "create", "count", "delete", "load", "overwrite", "regenerate", "touch"}
    assert {kind for kind in KINDS if not verdict.checks[kind]} == set()


def test_a_run_ends_all_it_started(short: Ran) -> None:
    assert at_work(short.directory) == []


def test_the_table_tells_what_was_done_and_checked(short: Ran) -> None:
    verdict = short.verdict
    assert f"{sum(verdict.told.values())} calls" in short.said
    assert f"{verdict.happened['kill']} killed" in short.said
    assert all(f"checked: {kind:12} {verdict.checks[kind]:>10}" in short.said for kind in KINDS)


def test_a_kept_history_is_judged_again(short: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--judge", str(short.history)]) == 0
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize("how", BROKEN)
def test_it_notices_a_store(how: str, tmp_path: Path) -> None:
    kind, body = BROKEN[how]
    program = BREAKING.format(body=body.replace("\n        ", "\n    ").strip())
    for seconds in ("0.7", "3", "9"):  # longer only where the machine is busy with other things
        words = ("--seconds", seconds, "--workers", "2", "--seed", "3")
        broken = ran(tmp_path / seconds, "-c", program, *words)
        if kind in {each.kind for each in broken.verdict.violations}:
            break
    assert broken.code == 1, broken.said
    assert f"{kind}: {KINDS[kind]}" in broken.said
    assert f"(seed 3); the history is {broken.history}" in broken.said
    assert f"--judge {broken.history}" in broken.said


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has begun, and would go on for a minute."""
    process = started(tmp_path / "run", str(PROGRAM), "--seconds", "60", "--workers", "2")
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def await_work(directory: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while len(at_work(directory)) < 4:  # itself, two workers, the janitor
        assert time.monotonic() < deadline


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_however_a_run_ends_its_processes_end_with_it(
    number: signal.Signals, running: subprocess.Popen[str], tmp_path: Path
) -> None:
    await_work(tmp_path / "run")
    running.send_signal(number)
    running.wait(DEADLINE)
    deadline = time.monotonic() + DEADLINE
    while at_work(tmp_path / "run"):
        assert time.monotonic() < deadline


def test_a_planted_violation_is_told_with_the_lines_that_prove_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.jsonl"
    kind, calls = FOUND["a load after a delete"]
    lines = history(calls)
    path.write_text("".join(lines))
    assert main(["--judge", str(path)]) == 1
    said = capsys.readouterr().out
    assert f"{kind}: {KINDS[kind]}" in said
    for number, line in enumerate(lines, 1):
        assert (f"    {number}: {line.strip()}" in said) == ('"delete' in line or '"load' in line)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--seconds", "soon"],
        ["--workers", "0"],
        ["--seed", "x"],
        ["--judge", "/nowhere/history.jsonl"],
        ["--dir", str(ROOT)],
        ["more"],
    ],
)
def test_a_wrong_call_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "no history\n", '{"mark":"m1","ended":1}\n'])
def test_what_is_no_history_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(text)
    assert main(["--judge", str(path)]) == 2
    assert "is no history" in capsys.readouterr().out


def test_without_a_seed_one_is_drawn_and_told(tmp_path: Path) -> None:
    process = started(tmp_path / "run", str(PROGRAM), "--seconds", "0.01")
    try:
        said, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    seed = said.split()[1].rstrip(",")
    assert seed.isdigit()
    assert f"(seed {seed})" in said
