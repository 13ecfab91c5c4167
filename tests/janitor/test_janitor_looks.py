"""The looks of a janitor's watch, one by one: to lead, to stand by, to say that it lives.

A test takes each look itself; nothing runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from filesession.errors import StoreFull, StoreUnavailable
from filesession.janitor import Janitor
from filesession.janitor.heartbeat import BEAT, FRESH, janitor_state, read_heartbeat
from filesession.janitor.leader import LOCK, Leadership, is_led
from filesession.stores.file.store import FileStore
from filesession.testing import ManualClock
from tests.janitor.janitors import DEADLINE, messages


def test_the_first_look_leads_says_so_and_makes_a_sweep_due(
    looks: Callable[[], Janitor], store: FileStore, log: pytest.LogCaptureFixture
) -> None:
    janitor = looks()
    janitor._tick()
    assert is_led(store.directory)
    assert messages(log) == [f"leading {store.directory}"]
    assert janitor._due.wait(DEADLINE)
    state, beat = janitor_state(store.directory, store.clock())
    assert state == "alive"
    assert beat is not None
    assert (beat.pid, beat.heartbeat_at, beat.interval) == (os.getpid(), store.clock(), 3600)


def test_a_standby_says_so_once_and_takes_over_with_its_first_look_after_the_leader_left(
    looks: Callable[[], Janitor], store: FileStore, log: pytest.LogCaptureFixture
) -> None:
    first, second = looks(), looks()
    first._tick()
    second._tick()
    second._tick()
    assert messages(log)[1:] == [f"standing by: another janitor leads {store.directory}"]
    assert not second._due.is_set()
    first._step_down()
    second._tick()
    assert messages(log)[2:] == [f"leading {store.directory}"]
    assert second._due.wait(DEADLINE)


def test_a_leader_says_that_it_lives_every_few_seconds_and_not_with_every_look(
    looks: Callable[[], Janitor], store: FileStore, clock: ManualClock
) -> None:
    janitor = looks()
    ticks = ManualClock(0.0)
    janitor._monotonic = ticks
    janitor._wall = lambda: ticks.now
    janitor._tick()

    def look_after(seconds: float) -> float:
        ticks.now += seconds
        clock.now += seconds
        janitor._tick()
        beat = read_heartbeat(store.directory)
        assert beat is not None
        return clock.now - beat.heartbeat_at

    assert look_after(0.5) == 0.5
    assert look_after(BEAT - 1) == BEAT - 0.5
    assert look_after(0.5) == 0
    assert look_after(0.5) == 0.5


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_leader_whose_lock_file_is_not_its_own_any_more_steps_down_and_is_elected_anew(
    looks: Callable[[], Janitor], store: FileStore, log: pytest.LogCaptureFixture, how: str
) -> None:
    janitor = looks()
    janitor._tick()
    lock = Path(store.directory, LOCK)
    lock.unlink()
    usurper = Leadership(store.directory)
    if how == "replaced":
        usurper.try_lead()
    janitor._tick()
    assert "vanished or was replaced" in messages(log)[1]
    if how == "replaced":
        assert not janitor._leads
        assert janitor._schedule.next_at() is None
        usurper.resign()
        janitor._tick()
    assert janitor._leads
    assert janitor._leadership is not None
    assert janitor._leadership.still_leads()


def test_a_directory_that_vanishes_is_told_once_and_swept_again_when_it_is_back(
    looks: Callable[[], Janitor], store: FileStore, log: pytest.LogCaptureFixture
) -> None:
    janitor = looks()
    janitor._tick()
    away = store.directory + ".away"
    Path(store.directory).rename(away)
    for _ in range(5):
        janitor._tick()
        janitor._sweeper.sweep_or_complain()
        janitor._beat()
    told = messages(log)[1:]
    assert [line.split(":")[0] for line in told] == [
        f"{store.directory} has vanished or was replaced; standing by for it to be there",
        "cannot lead",
    ]
    assert not Path(store.directory).exists()
    Path(away).rename(store.directory)
    janitor._tick()
    assert messages(log)[-1] == f"leading {store.directory}"
    assert janitor._due.wait(DEADLINE)


def test_a_heartbeat_that_cannot_be_written_is_told_once_and_ends_nothing(
    looks: Callable[[], Janitor], monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def full(directory: str, beat: object) -> None:
        msg = "no space left"
        raise StoreUnavailable(msg)

    monkeypatch.setattr("filesession.janitor.janitor.write_heartbeat", full)
    janitor = looks()
    janitor._tick()
    janitor._beat()
    assert messages(log)[1:] == ["cannot write the heartbeat: no space left"]
    assert janitor._leads


def test_on_a_full_disk_a_leader_is_alive_and_says_once_what_fails_and_once_that_it_is_over(
    looks: Callable[[], Janitor],
    store: FileStore,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    def full(directory: str, beat: object) -> None:
        msg = "no space left"
        raise StoreFull(msg)

    monkeypatch.setattr("filesession.janitor.janitor.write_heartbeat", full)
    janitor = looks()
    janitor._tick()
    for _ in range(3):
        clock.now += FRESH
        janitor._sweeper.sweep_or_complain()  # which goes well, and is no end to that
        janitor._beat()
        assert janitor_state(store.directory, clock.now) == ("alive", None)
    monkeypatch.undo()
    log.set_level(logging.INFO, "filesession.janitor")
    janitor._beat()
    janitor._beat()
    told = [line for line in messages(log)[1:] if ": swept" not in line]
    assert told == ["cannot write the heartbeat: no space left", "the heartbeat is written again"]


def test_a_lock_that_cannot_be_dated_is_told_like_a_heartbeat_that_cannot_be_written(
    looks: Callable[[], Janitor], monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def fail(target: object, times: object) -> None:
        raise OSError(5, "Input/output error")

    janitor = looks()
    monkeypatch.setattr("filesession.janitor.leader.os.utime", fail)
    janitor._tick()
    assert messages(log)[1].startswith("cannot write the heartbeat: dating ")


def test_a_leader_whose_schedule_cannot_start_lets_another_lead(
    looks: Callable[[], Janitor], store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    janitor = looks()
    monkeypatch.setattr(janitor._schedule, "start", refuse)
    with pytest.raises(RuntimeError):
        janitor._tick()
    assert not is_led(store.directory)


def test_a_janitor_that_was_told_to_stop_does_not_begin_to_lead(
    looks: Callable[[], Janitor], store: FileStore
) -> None:
    janitor = looks()
    janitor._stopping.set()
    janitor._tick()
    assert not is_led(store.directory)


def test_a_sweep_that_was_due_to_a_leader_is_not_due_to_who_leads_no_more(
    looks: Callable[[], Janitor],
) -> None:
    janitor = looks()
    janitor._tick()
    assert janitor._due.wait(DEADLINE)
    janitor._step_down()
    assert not janitor._due.is_set()


def test_a_directory_made_anew_gets_no_heartbeat_of_the_old_ones_leader(
    looks: Callable[[], Janitor], store: FileStore
) -> None:
    janitor = looks()
    janitor._tick()
    Path(store.directory).rename(store.directory + ".old")
    FileStore(store.directory)
    janitor._beat()
    assert read_heartbeat(store.directory) is None
