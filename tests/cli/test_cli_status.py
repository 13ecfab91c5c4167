"""How a directory is doing, for people and for programs."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.janitor.heartbeat import HEARTBEAT, Heartbeat, write_heartbeat
from filesession.janitor.leader import Leadership
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=7200)


@pytest.fixture
def beat() -> Heartbeat:
    now = time.time()
    return Heartbeat(
        pid=4242,
        host="here",
        started_at=now - 500,
        heartbeat_at=now,
        interval=60.0,
        cron=None,
        next_sweep_at=now + 30.5,
        sweeping_since=None,
        last_sweep=SweepReport(started_at=now - 29.5, seconds=0.1, examined=7),
        last_error=None,
    )


def status(store: FileStore, *options: str) -> Result:
    return CliRunner().invoke(commands, ["status", store.directory, *options])


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
    monkeypatch.setattr("filesession.stores.file.sweep.YOUNG", -1.0)
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
    leader = Leadership(store.directory)
    leader.try_lead()
    write_heartbeat(store.directory, beat)
    result = status(store)
    assert result.exit_code == 0
    assert line(result, "janitor") == "alive: process 4242 on here, sweeps every 60 s"
    assert line(result, "last sweep").endswith(": swept 7 sessions in 0.10 s: none expired")
    assert line(result, "next sweep").endswith(", in 30 s")
    assert line(result, "last error") == ""


def test_a_janitor_that_has_not_swept_yet_is_alive_and_has_nothing_to_tell(
    store: FileStore, beat: Heartbeat
) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    write_heartbeat(store.directory, replace(beat, last_sweep=None))
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


def test_json_has_all_of_it(store: FileStore, beat: Heartbeat) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    write_heartbeat(store.directory, beat)
    age(store, 0, 100_000)
    result = status(store, "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["sessions"], told["expired"], told["corrupt"]) == (2, 1, 0)
    assert told["directory"] == store.directory
    assert told["bytes"] == sum(info.size for info in store.scan())
    assert 0 < told["expired_bytes"] < told["bytes"]
    assert told["oldest_overdue"] == pytest.approx(100_000 - 7200 - 120, abs=60)
    assert sum(told["last_active"].values()) == 2
    assert told["janitor"]["state"] == "alive"
    assert told["janitor"]["last_sweep"]["examined"] == 7


def test_json_without_a_janitor_has_its_state_and_the_exit_code(store: FileStore) -> None:
    result = status(store, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["janitor"] == {"state": "absent"}


def test_a_heartbeat_of_nonsense_is_as_good_as_none(store: FileStore) -> None:
    Path(store.directory, HEARTBEAT).write_bytes(b"nonsense")
    assert json.loads(status(store, "--json").stdout)["janitor"] == {"state": "absent"}
