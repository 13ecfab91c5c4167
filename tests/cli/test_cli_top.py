"""The live view: the janitor's figures and a sample of ages, on a terminal again and again."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from filesession.cli.ages import AGES, count_age, histogram, no_ages
from filesession.cli.command import commands
from filesession.cli.sample import ENOUGH, MOST, Sample
from filesession.cli.top import View
from filesession.errors import StoreUnavailable
from filesession.janitor.heartbeat import Heartbeat, write_heartbeat
from filesession.janitor.leader import Leadership
from filesession.stores.file.layout import Layout
from filesession.stores.file.store import FileStore

if TYPE_CHECKING:
    from tests.cli.conftest import Run


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=7200)


@pytest.fixture
def leader(store: FileStore) -> Iterator[Leadership]:
    """A janitor that leads in the store's directory."""
    leader = Leadership(store.directory)
    leader.try_lead()
    yield leader
    leader.resign()


def fill(directory: str, shards: int, each: int, depth: int = 1) -> None:
    """Make empty files of sessions: so many in each of so many directories."""
    for shard in range(shards):
        first = f"{shard:0{2 * depth}x}" if depth else ""
        parts = [first[2 * level : 2 * level + 2] for level in range(depth)]
        path = Path(directory, "sessions", *parts)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(each):
            rest = hashlib.sha256(f"{shard}/{number}".encode()).hexdigest()[len(first) : 32]
            file = path / f"{first}{rest}"
            file.touch()
            os.utime(file, (0, 1000 - number % 2 * 900))


def layout_of(store: FileStore) -> Layout:
    return Layout.found(store.directory)[0]


def at(moment: float) -> Callable[[], float]:
    return lambda: moment


def top(store: FileStore, *options: str) -> Result:
    return CliRunner().invoke(commands, ["top", store.directory, *options])


def row(text: str, name: str) -> str:
    """What stands after a name; empty when it does not stand there."""
    return next((line[16:] for line in text.splitlines() if line.startswith(f"{name} ")), "")


class TestSample:
    def test_of_few_sessions_it_has_all(self, store: FileStore) -> None:
        fill(store.directory, shards=100, each=2)
        sample = Sample.of(layout_of(store), 1000.0)
        assert (sample.listed, sample.looked, sample.share, sample.estimate) == (200, 200, 1.0, 200)
        assert sample.ages == [100, 0, 100, 0, 0, 0, 0]

    def test_of_many_it_has_whole_directories_until_it_has_enough(self, store: FileStore) -> None:
        fill(store.directory, shards=6, each=500)
        sample = Sample.of(layout_of(store), 1000.0)
        assert (sample.listed, sample.looked, sample.share) == (2000, 2000, 4 / 256)
        assert sample.estimate == 500 * 256

    def test_it_looks_at_so_many_and_no_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FileStore(tmp_path / "flat", shard_depth=0)
        fill(store.directory, shards=1, each=6000, depth=0)
        layout = layout_of(store)
        looked = []
        real = os.stat

        def stat(path: Any, **options: Any) -> os.stat_result:
            looked.append(path)
            return real(path, **options)

        monkeypatch.setattr(os, "stat", stat)
        sample = Sample.of(layout, 1000.0)
        assert len(looked) == MOST + 1  # and the manifest, to see that the directory is there
        assert (sample.listed, sample.looked, sample.estimate) == (6000, MOST, 6000)
        assert sample.share == 1.0
        assert abs(sample.ages[0] - MOST / 2) < 200

    def test_directories_in_directories_are_counted_by_their_names(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path / "deep", shard_depth=2)
        fill(store.directory, shards=3, each=700, depth=2)
        sample = Sample.of(layout_of(store), 1000.0)
        assert (sample.listed, sample.share) == (2100, 3 / 65536)

    def test_what_goes_while_it_looks_is_left_out(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(store.directory, shards=1, each=4)
        real = Layout.listed

        def listed(layout: Layout, shard: str) -> Iterator[tuple[str, str | None]]:
            for number, found in enumerate(list(real(layout, shard))):
                if number == 1:
                    os.unlink(layout.path(found[0]))
                yield found

        monkeypatch.setattr(Layout, "listed", listed)
        sample = Sample.of(layout_of(store), 1000.0)
        assert (sample.listed, sample.looked, sum(sample.ages)) == (4, 3, 3)

    def test_what_cannot_be_looked_at_is_an_error(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(store.directory, shards=1, each=1)
        layout = layout_of(store)
        real = os.stat

        def stat(path: Any, **options: Any) -> os.stat_result:
            if path.endswith(".json"):
                return real(path, **options)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "stat", stat)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            Sample.of(layout, 1000.0)

    def test_a_directory_that_has_vanished_is_an_error(self, store: FileStore) -> None:
        layout = layout_of(store)
        Path(store.directory).rename(store.directory + ".away")
        with pytest.raises(StoreUnavailable, match="has vanished"):
            Sample.of(layout, 1000.0)


class TestHistogram:
    def test_every_age_has_its_bar(self) -> None:
        ages = no_ages()
        for age in (-5.0, 0.0, 59.9, 60.0, 3599.0, 1e9, float("inf")):
            count_age(ages, age)
        assert ages == [3, 1, 1, 0, 0, 0, 2]
        assert sum(ages) == 7
        assert len(ages) == len(AGES)

    @pytest.mark.parametrize("width", [20, 29, 40, 68, 200])
    def test_it_fits_where_there_is_room_and_shows_what_there_is(self, width: int) -> None:
        ages = [1_000_000, 1, 0, 0, 0, 0, 0]
        first, second = histogram(ages, width)
        assert first.count("#") == max(1, min(40, width - 28))
        assert second.count("#") == 1
        assert len(first) <= max(width, 29)

    def test_of_nothing_there_is_none(self) -> None:
        assert list(histogram(no_ages())) == []


class TestFrame:
    def test_a_janitor_that_is_alive_tells_its_figures(
        self, store: FileStore, leader: Leadership, beat: Heartbeat
    ) -> None:
        fill(store.directory, shards=5, each=500)
        write_heartbeat(store.directory, beat)
        text = View(store.directory).frame().plain
        assert row(text, "janitor") == "alive: process 4242 on here, sweeps every 60 s"
        assert row(text, "sessions") == "1,000,000 (about 312 MB)"
        assert row(text, "created").startswith("5,000 since ")
        assert "last active, from a sample of 2,000 of about 1,000,000 sessions\n" in text
        assert "  longer ago         2,000  " in text

    def test_without_one_it_says_so_in_red_and_has_the_sample_alone(self, store: FileStore) -> None:
        fill(store.directory, shards=5, each=500)
        frame = View(store.directory).frame()
        assert row(frame.plain, "janitor").startswith("none is running; run: filesession janitor")
        assert any("red" in str(span.style) for span in frame.spans)
        assert "last active, from a sample of 2,000 of about 128,000 sessions\n" in frame.plain
        assert row(frame.plain, "sessions") == row(frame.plain, "created") == ""

    def test_an_empty_directory_is_one(self, store: FileStore) -> None:
        assert View(store.directory).frame().plain.endswith("last active, 0 sessions")

    def test_what_comes_and_goes_is_told_by_the_second_over_the_last_minute(
        self, store: FileStore, leader: Leadership, beat: Heartbeat
    ) -> None:
        view = View(store.directory)
        now = beat.heartbeat_at

        def said(after: float, created: int, expired: int, pid: int = 4242) -> tuple[str, str]:
            reading = replace(beat.reading, created=created, expired=expired)
            told = replace(beat, pid=pid, heartbeat_at=now + after, reading=reading)
            write_heartbeat(store.directory, told)
            text = view.frame().plain
            return row(text, "created"), row(text, "expired")

        assert said(0, 100, 50)[0].startswith("100 since")
        assert said(0, 100, 50)[0].startswith("100 since")  # the same heartbeat once more
        created, expired = said(5, 150, 50)
        assert created.startswith("10.0 a second in the last 5 s; 150 since")
        assert expired.startswith("0.0 a second in the last 5 s; 50 (")
        created, expired = said(60, 700, 350)
        assert created.startswith("10.0 a second in the last 60 s; ")
        assert expired.startswith("5.0 a second in the last 60 s; ")
        assert said(70, 700, 350)[0].startswith("8.5 a second in the last 65 s; ")
        assert said(75, 0, 0, pid=4243)[0].startswith("0 since")
        assert said(40, 0, 0, pid=4243)[0].startswith("0 since")  # its clock was set back
        assert said(45, 5, 0, pid=4243)[0].startswith("1.0 a second in the last 5 s; ")

    @pytest.mark.parametrize("width", [10, 40, 80])
    def test_no_line_is_wider_than_there_is_room(
        self, store: FileStore, leader: Leadership, beat: Heartbeat, width: int
    ) -> None:
        fill(store.directory, shards=1, each=10)
        write_heartbeat(store.directory, beat)
        lines = View(store.directory).frame(width).plain.splitlines()
        assert max(map(len, lines)) == width
        assert len(lines) <= 23

    def test_a_directory_may_vanish_and_come_back(self, store: FileStore) -> None:
        fill(store.directory, shards=1, each=3)
        view = View(store.directory)
        assert "last active, 3 sessions" in view.frame().plain
        Path(store.directory).rename(store.directory + ".away")
        frame = view.frame()
        assert row(frame.plain, "failing").startswith(f"there is no directory {store.directory}")
        assert "last active" not in frame.plain
        Path(store.directory + ".away").rename(store.directory)
        assert "last active, 3 sessions" in view.frame().plain

    def test_a_slow_disk_is_left_alone_for_a_while(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moment = 0.0
        taken: list[float] = []

        def of(layout: Layout, now: float) -> Sample:
            nonlocal moment
            taken.append(moment)
            moment += 2.0
            return Sample(listed=ENOUGH, share=0.5, looked=ENOUGH)

        monkeypatch.setattr(Sample, "of", of)
        monkeypatch.setattr(time, "monotonic", lambda: moment)
        view = View(store.directory, at(1000.0))
        for _ in range(60):
            view.frame()
            moment += 1.0
        assert taken == [0.0, 22.0, 44.0]

    def test_no_control_character_of_others_reaches_the_terminal(
        self, tmp_path: Path, beat: Heartbeat
    ) -> None:
        store = FileStore(tmp_path / "odd\x1b[31m")
        leader = Leadership(store.directory)
        leader.try_lead()
        nasty = "\x1b]0;owned\x07\x9b"
        reading = replace(beat.reading, held=nasty)
        write_heartbeat(
            store.directory,
            replace(beat, host=nasty, watch=nasty, last_error=nasty, cron=nasty, reading=reading),
        )
        try:
            text = View(store.directory).frame().plain
        finally:
            leader.resign()
        assert text.replace("\n", "").isprintable()


class TestCommand:
    def test_a_pipe_gets_one_frame(self, store: FileStore) -> None:
        fill(store.directory, shards=1, each=3)
        result = top(store)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"directory       {store.directory}\n")
        assert result.stdout.count("last active") == 1
        assert "\x1b" not in result.stdout

    @pytest.mark.parametrize("value", ["0", "0.05", "-1", "nan", "inf", "often", "3601"])
    def test_a_pause_that_can_be_none_is_refused(self, store: FileStore, value: str) -> None:
        result = top(store, "--interval", value)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "SECONDS is a number from 0.1 to 3600" in result.stderr

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_terminal_is_shown_frame_after_frame_and_left_as_it_was(
        self, store: FileStore, run: Run, number: signal.Signals
    ) -> None:
        process = run("top", store.directory, "--interval", "0.1", at_terminal=True)
        process.expect("last active, 0 sessions")
        fill(store.directory, shards=1, each=3)
        process.expect("last active, 3 sessions")
        away = Path(store.directory + ".away")
        Path(store.directory).rename(away)
        process.expect("there is no directory")
        away.rename(store.directory)
        told = time.monotonic()
        assert process.end(number) == 0
        assert time.monotonic() - told < 2
        assert process.said.startswith("\x1b[?1049h")
        assert process.said.endswith("\x1b[?25h\x1b[?1049l")
        assert "Traceback" not in process.said
        assert "\x1b[31m" in process.said

    def test_a_narrow_terminal_without_colours_gets_what_fits(
        self, store: FileStore, run: Run
    ) -> None:
        process = run("top", store.directory, at_terminal=True, width=40, NO_COLOR="1")
        process.expect("last active")
        assert process.end(signal.SIGINT) == 0
        assert "\x1b[31m" not in process.said
        frame = process.said.partition("\x1b[?25l\x1b[H")[2].split("\x1b")[0]
        assert {len(line) for line in frame.rstrip("\r\n").split("\r\n")} == {40}

    def test_a_terminal_that_can_do_nothing_gets_one_frame(
        self, store: FileStore, run: Run
    ) -> None:
        process = run("top", store.directory, at_terminal=True, TERM="dumb")
        assert process.end() == 0
        assert process.said.count("last active") == 1
        assert not re.search(r"\x1b", process.said)
