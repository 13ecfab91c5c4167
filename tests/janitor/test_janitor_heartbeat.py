"""What the leader says of itself, and what is made of it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from filesession.errors import StoreUnavailable
from filesession.janitor.heartbeat import (
    FRESH,
    HEARTBEAT,
    Heartbeat,
    janitor_state,
    read_heartbeat,
    write_heartbeat,
)
from filesession.janitor.leader import Leadership
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore
from tests import heartbeats

NOW = 1_800_000_000.0

REPORT = SweepReport(started_at=NOW - 60, seconds=0.5, examined=10, expired=2, freed=300)

BEAT = replace(
    heartbeats.BEAT,
    pid=os.getpid(),
    started_at=NOW - 100,
    heartbeat_at=NOW,
    next_sweep_at=NOW + 60,
    last_sweep=REPORT,
)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return FileStore(tmp_path / "sessions").directory


@pytest.mark.parametrize(
    "beat",
    [
        BEAT,
        replace(BEAT, interval=None, cron="*/5 * * * *", next_sweep_at=None, last_sweep=None),
        replace(BEAT, sweeping_since=NOW - 3, last_error="the disk fails"),
    ],
)
def test_a_heartbeat_is_read_as_it_was_written(directory: str, beat: Heartbeat) -> None:
    write_heartbeat(directory, beat)
    assert read_heartbeat(directory) == beat


def test_a_path_in_it_that_is_no_utf_8_is_spelled_out(directory: str) -> None:
    write_heartbeat(directory, replace(BEAT, last_error="reading /s\udce9/x: Permission denied"))
    beat = read_heartbeat(directory)
    assert beat is not None
    assert beat.last_error == "reading /s\\udce9/x: Permission denied"


def test_a_heartbeat_replaces_the_one_before_and_is_ours_alone(directory: str) -> None:
    write_heartbeat(directory, BEAT)
    write_heartbeat(directory, replace(BEAT, heartbeat_at=NOW + 5))
    beat = read_heartbeat(directory)
    assert beat is not None
    assert beat.heartbeat_at == NOW + 5
    path = Path(directory, HEARTBEAT)
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(directory)) == ["filesession.json", HEARTBEAT]


def test_without_a_heartbeat_there_is_none(directory: str) -> None:
    assert read_heartbeat(directory) is None


def test_a_heartbeat_for_a_directory_that_vanished_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"writing .*janitor\.json"):
        write_heartbeat(str(tmp_path / "gone"), BEAT)


def changed(**members: Any) -> bytes:
    return json.dumps({**asdict(BEAT), **members}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        changed(pid="many"),
        changed(heartbeat_at=None),
        changed(last_sweep={"examined": 3}),
        changed(last_sweep={**asdict(REPORT), "expired": "some"}),
        changed(last_sweep={**asdict(REPORT), "more": 1}),
        changed(last_sweep=[1]),
        changed(reading=None),
        changed(reading={**asdict(BEAT.reading), "created": None}),
        changed(reading={**asdict(BEAT.reading), "bytes": "many"}),
    ],
)
def test_a_heartbeat_that_makes_no_sense_is_none(directory: str, content: bytes) -> None:
    Path(directory, HEARTBEAT).write_bytes(content)
    assert read_heartbeat(directory) is None


def test_a_heartbeat_ages() -> None:
    assert BEAT.is_fresh(NOW)
    assert BEAT.is_fresh(NOW + FRESH)
    assert not BEAT.is_fresh(NOW + FRESH + 0.1)


def test_a_heartbeat_from_before_the_clock_was_set_back_is_fresh() -> None:
    assert BEAT.is_fresh(NOW - 3600)


def test_without_a_leader_no_janitor_is_there_however_fresh_its_heartbeat(directory: str) -> None:
    assert janitor_state(directory, NOW) == ("absent", None)
    write_heartbeat(directory, BEAT)
    assert janitor_state(directory, NOW) == ("absent", BEAT)


def test_a_leader_with_a_fresh_heartbeat_is_alive(directory: str) -> None:
    leader = Leadership(directory)
    leader.try_lead()
    write_heartbeat(directory, BEAT)
    assert janitor_state(directory, NOW + 1) == ("alive", BEAT)


def test_a_leader_that_gave_a_sign_lately_does_not_hang_whatever_its_heartbeat(
    directory: str,
) -> None:
    leader = Leadership(directory)
    leader.try_lead()
    leader.mark(NOW)
    assert janitor_state(directory, NOW + FRESH) == ("alive", None)
    assert janitor_state(directory, NOW + FRESH + 1) == ("hung", None)
    write_heartbeat(directory, BEAT)
    leader.mark(NOW + 600)
    assert janitor_state(directory, NOW + 600) == ("alive", BEAT)
    leader.resign()
    assert janitor_state(directory, NOW + 600) == ("absent", BEAT)


def test_a_leader_that_says_nothing_hangs(directory: str) -> None:
    leader = Leadership(directory)
    leader.try_lead()
    assert janitor_state(directory, NOW) == ("hung", None)
    write_heartbeat(directory, BEAT)
    assert janitor_state(directory, NOW + FRESH + 1) == ("hung", BEAT)
