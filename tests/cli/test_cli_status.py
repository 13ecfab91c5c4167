"""How a directory is doing, for people and for programs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.cli.figures import Line, reading_lines
from filesession.janitor.heartbeat import HEARTBEAT, Heartbeat, write_heartbeat
from filesession.janitor.leader import Leadership
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=7200)


def status(store: FileStore, *options: str) -> Result:
    return CliRunner().invoke(commands, ["status", store.directory, *options])


@pytest.fixture(autouse=True)
def _nobody_leads_afterwards() -> Iterator[None]:
    yield
    while _leaders:
        _leaders.pop().resign()


_leaders: list[Leadership] = []


def lead(store: FileStore, beat: Heartbeat) -> None:
    """Have a janitor that leads in the store's directory and says so."""
    leader = Leadership(store.directory)
    leader.try_lead()
    _leaders.append(leader)
    write_heartbeat(store.directory, beat)


def line(result: Result, name: str) -> str:
    """What stands after a name; empty when it does not stand there."""
    found = [text for text in result.stdout.splitlines() if text.startswith(name)]
    assert len(found) <= 1
    return found[0].removeprefix(name).strip() if found else ""


def age(store: FileStore, *seconds: float) -> None:
    """Store sessions last active that long ago."""
    for idle in seconds:
        known = {info.handle for info in store.scan()}
        store.create()
        (handle,) = {info.handle for info in store.scan()} - known
        mtime = time.time() - idle
        os.utime(Path(store.directory, "sessions", handle[:2], handle), (mtime, mtime))


def test_of_an_empty_directory_there_is_little_to_tell(store: FileStore) -> None:
    result = status(store)
    assert result.exit_code == 3
    assert line(result, "sessions") == "0 (0 B)"
    assert line(result, "to be removed") == "none"
    assert "last active" not in result.stdout


def test_sessions_are_counted_and_so_is_what_waits_to_be_removed(store: FileStore) -> None:
    age(store, 0, 0, 100_000, 90_000)
    result = status(store)
    size = sum(info.size for info in store.scan())
    assert line(result, "sessions") == f"4 ({size} B)"
    waiting = line(result, "to be removed")
    assert waiting.startswith("2 expired (")
    assert waiting.endswith("the oldest 26 h overdue")
    assert len(store) == 4


def test_what_cannot_be_read_is_counted_before_and_after_it_is_set_aside(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(store, 0)
    (file,) = Path(store.directory, "sessions").glob("*/*")
    file.write_bytes(b"garbage")
    assert line(status(store), "unreadable") == ""  # it may be a writer's work in progress
    monkeypatch.setattr("filesession.stores.file.reaper.YOUNG", -1.0)
    assert line(status(store), "unreadable") == "1, for the next sweep to set aside"
    store.sweep()
    result = status(store)
    assert line(result, "unreadable") == ""
    assert line(result, "set aside") == "1 unreadable file in corrupt/"


def test_what_a_sweep_could_not_do_or_would_mend_is_told(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = SweepReport(started_at=0.0, seconds=0.0, failed=2, mended=1, dry_run=True)
    monkeypatch.setattr(FileStore, "sweep", lambda store, **options: report)
    result = status(store)
    assert line(result, "failing").startswith("2 sessions could not be read")
    assert line(result, "wrong times").startswith("1 dated in the future")
    told = json.loads(status(store, "--json").stdout)
    assert (told["failed"], told["dated_ahead"]) == (2, 1)


def test_ages_are_bars(store: FileStore) -> None:
    age(store, 0, 0, 0, 0, 30, 3000, 3000)
    bars = status(store).stdout.split("last active\n")[1].splitlines()
    assert [bar.split() for bar in bars] == [
        ["under", "a", "minute", "5", "#" * 40],
        ["under", "10", "min", "0"],
        ["under", "1", "h", "2", "#" * 16],
    ]


def test_without_a_janitor_it_says_how_to_run_one(store: FileStore) -> None:
    result = status(store)
    assert result.exit_code == 3
    words = line(result, "janitor")
    assert words == f"none is running; run: filesession janitor {store.directory}"


def test_a_janitor_that_ended_is_told_of(store: FileStore, beat: Heartbeat) -> None:
    write_heartbeat(store.directory, replace(beat, heartbeat_at=time.time() - 600))
    result = status(store)
    assert result.exit_code == 3
    assert "the last one spoke 10 min ago" in line(result, "janitor")
    assert "swept 7 sessions" in line(result, "last sweep")
    assert line(result, "next sweep") == ""
    write_heartbeat(store.directory, replace(beat, heartbeat_at=time.time()))
    assert "the last one spoke just now" in line(status(store), "janitor")


def test_a_janitor_that_leads_and_says_so_is_alive(store: FileStore, beat: Heartbeat) -> None:
    lead(store, beat)
    result = status(store)
    assert result.exit_code == 0
    assert line(result, "janitor") == "alive: process 4242 on here, sweeps every 60 s"
    assert line(result, "last sweep").endswith(": swept 7 sessions in 0.10 s: none expired")
    assert line(result, "next sweep").endswith(", in 30 s")
    assert line(result, "last error") == ""


def test_a_janitor_that_has_not_swept_yet_is_alive_and_has_nothing_to_tell(
    store: FileStore, beat: Heartbeat
) -> None:
    lead(store, replace(beat, last_sweep=None))
    result = status(store)
    assert result.exit_code == 0
    assert "last sweep" not in result.stdout
    assert line(result, "next sweep").endswith(", in 30 s")


def test_what_a_janitor_is_busy_with_is_told(store: FileStore, beat: Heartbeat) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    busy = replace(
        beat,
        interval=None,
        cron="*/5 * * * *",
        sweeping_since=time.time() - 3.2,
        last_error="the disk\x1b[31m fails",
    )
    write_heartbeat(store.directory, busy)
    result = status(store)
    assert line(result, "janitor").endswith("sweeps by cron '*/5 * * * *', sweeping for 3 s")
    assert line(result, "last error") == "the disk\\u001b[31m fails"


def test_a_janitor_that_says_nothing_hangs_and_is_not_alive(
    store: FileStore, beat: Heartbeat
) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    leader.mark(time.time() - 60)
    assert "has never spoken" in line(status(store), "janitor")
    assert status(store).exit_code == 3
    write_heartbeat(store.directory, replace(beat, heartbeat_at=time.time() - 60))
    result = status(store)
    assert result.exit_code == 3
    assert "hangs: process 4242 on here" in line(result, "janitor")


@pytest.mark.parametrize("spoke", [None, 600])
def test_a_janitor_that_cannot_write_its_heartbeat_is_alive_and_does_not_hang(
    store: FileStore, beat: Heartbeat, spoke: float | None
) -> None:
    if spoke is not None:
        write_heartbeat(store.directory, replace(beat, heartbeat_at=time.time() - spoke))
    leader = Leadership(store.directory)
    leader.try_lead()
    leader.mark(time.time())
    result = status(store)
    assert result.exit_code == 0
    words = line(result, "janitor")
    assert words.startswith("alive, but its heartbeat is not written")
    assert "the disk is full" in words


def test_full_json_has_all_of_it(store: FileStore, beat: Heartbeat) -> None:
    lead(store, beat)
    age(store, 0, 100_000)
    result = status(store, "--json", "--full")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["full"] is True
    assert (told["sessions"], told["expired"], told["corrupt"]) == (2, 1, 0)
    assert told["directory"] == store.directory
    assert told["bytes"] == sum(info.size for info in store.scan())
    assert 0 < told["expired_bytes"] < told["bytes"]
    assert told["oldest_overdue"] == pytest.approx(100_000 - 7200 - 120, abs=60)
    assert sum(told["last_active"].values()) == 2
    assert told["janitor"]["state"] == "alive"
    assert told["janitor"]["last_sweep"]["examined"] == 7
    assert told["janitor"]["reading"]["created"] == 5000


def test_json_without_a_janitor_has_its_state_and_the_exit_code(store: FileStore) -> None:
    result = status(store, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["janitor"] == {"state": "absent"}


def test_a_heartbeat_of_nonsense_is_as_good_as_none(store: FileStore) -> None:
    Path(store.directory, HEARTBEAT).write_bytes(b"nonsense")
    assert json.loads(status(store, "--json").stdout)["janitor"] == {"state": "absent"}


class TestWithoutALook:
    """Where a janitor is alive it is asked, and no session is looked at."""

    @pytest.fixture(autouse=True)
    def _no_session_may_be_listed(self, store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("scandir", "listdir"):
            real = getattr(os, name)

            def listed(path: str, real: Any = real) -> Any:
                assert path == store.directory, f"{path} was listed"
                return real(path)

            monkeypatch.setattr(os, name, listed)

    def test_the_janitor_tells_how_things_stand(self, store: FileStore, beat: Heartbeat) -> None:
        lead(store, beat)
        result = status(store)
        assert result.exit_code == 0
        assert line(result, "sessions") == "1,000,000 (about 312 MB)"
        assert line(result, "new sessions") == "noticed by events of the file system"
        assert line(result, "created").startswith("5,000 since ")
        assert line(result, "created").endswith(", 8 min ago")
        assert line(result, "expired") == "4,000 (1.2 MB) in 12 sweeps"
        assert line(result, "lag") == "none: all went in time"
        assert line(result, "full looks") == "1"
        for name in ("holding back", "failed", "moved away", "hook", "to be removed"):
            assert line(result, name) == ""
        assert "last active" not in result.stdout

    def test_what_is_not_well_is_told(self, store: FileStore, beat: Heartbeat) -> None:
        assert beat.last_sweep is not None
        reading = replace(
            beat.reading,
            lag=300.0,
            overflows=2,
            held="the clock\x1b[31m was set",
            failed=3,
            corrupt=1,
            dropped=17,
        )
        last = replace(beat.last_sweep, held=9000)
        lead(store, replace(beat, reading=reading, last_sweep=last, watch="poll\x1b[31m"))
        result = status(store)
        assert line(result, "lag") == "5 min, of the longest overdue"
        assert line(result, "full looks") == "1, as events were lost 2 times"
        held = "the clock\\u001b[31m was set; 9,000 sessions may go, the next sweep looks again"
        assert line(result, "holding back") == f"{held} and goes on"
        assert line(result, "failed") == "3 attempts; filesession doctor tells more"
        assert line(result, "moved away") == "1 unreadable file since it began, to corrupt/"
        assert line(result, "hook").startswith("17 sessions it was never told of")
        assert line(result, "new sessions") == "noticed poll\\u001b[31m"

    def test_what_holds_back_is_red_where_most_would_go(self, beat: Heartbeat) -> None:
        assert beat.last_sweep is not None
        reading = replace(beat.reading, held="the clock was set", lag=170.0)
        for held, style in ((500_000, "yellow"), (500_001, "red")):
            told = replace(beat, reading=reading, last_sweep=replace(beat.last_sweep, held=held))
            styles = {name: style for name, _, style in reading_lines(told, time.time())}
            assert (styles["holding back"], styles["lag"]) == (style, "")
        late = replace(beat, reading=replace(reading, lag=181.0))
        assert Line("lag", "3 min, of the longest overdue", "yellow") in [
            *reading_lines(late, time.time())
        ]

    def test_a_first_look_in_hand_is_told(self, store: FileStore, beat: Heartbeat) -> None:
        lead(store, replace(beat, looked=0.414, last_sweep=None))
        words = "1,000,000 (about 312 MB) so far: it has looked at 41% of the directory"
        assert line(status(store), "sessions") == words

    def test_one_that_has_just_begun_knows_nothing(self, store: FileStore, beat: Heartbeat) -> None:
        reading = replace(beat.reading, sessions=None, bytes=None)
        lead(store, replace(beat, reading=reading, watch=None, last_sweep=None))
        result = status(store)
        assert line(result, "sessions") == "not known yet: the janitor has just begun"
        assert line(result, "new sessions") == ""
        told = json.loads(status(store, "--json").stdout)
        assert (told["sessions"], told["bytes"]) == (None, None)

    def test_json_has_the_same_as_an_object(self, store: FileStore, beat: Heartbeat) -> None:
        lead(store, beat)
        result = status(store, "--json")
        assert result.exit_code == 0
        told = json.loads(result.stdout)
        assert told == {
            "directory": store.directory,
            "full": False,
            "sessions": 1_000_000,
            "bytes": 312_000_000,
            "janitor": {"state": "alive", **asdict(beat)},
        }


def test_a_full_look_is_taken_when_it_is_wanted(store: FileStore, beat: Heartbeat) -> None:
    lead(store, beat)
    age(store, 0, 100_000)
    result = status(store, "--full")
    assert result.exit_code == 0
    assert line(result, "sessions").startswith("2 (")
    assert line(result, "to be removed").startswith("1 expired")
    assert line(result, "expired").startswith("4,000 (")
    assert "last active" in result.stdout


@pytest.mark.parametrize("ago", [16, 600])
def test_what_a_janitor_said_long_ago_is_not_how_things_stand(
    store: FileStore, beat: Heartbeat, ago: float
) -> None:
    age(store, 0)
    lead(store, replace(beat, heartbeat_at=time.time() - ago))
    _leaders[-1].mark(time.time() - ago)
    for state in ("hung", "alive", "absent"):  # alive: the heartbeat cannot be written
        if state == "alive":
            _leaders[-1].mark(time.time())
        elif state == "absent":
            _leaders.pop().resign()
        result = status(store)
        assert line(result, "sessions").startswith("1 (")
        assert line(result, "created") == ""
        assert line(result, "next sweep") == ""
        assert json.loads(status(store, "--json").stdout)["janitor"]["state"] == state


@pytest.mark.parametrize(("interval", "words"), [(0.5, "0.5 s"), (60.0, "60 s"), (7200.0, "2 h")])
def test_an_interval_is_told_as_it_is(
    store: FileStore, beat: Heartbeat, interval: float, words: str
) -> None:
    lead(store, replace(beat, interval=interval))
    assert line(status(store), "janitor").endswith(f"sweeps every {words}")
