"""What a janitor tells at work: its hook, the figures of its heartbeat, if it is well, its log."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from filesession.janitor import Janitor, rounds
from filesession.janitor.heartbeat import HEARTBEAT
from filesession.janitor.leader import Leadership
from filesession.janitor.watcher import EventsUnavailable, Watcher
from filesession.stores.file.store import FileStore
from filesession.testing import ManualClock
from tests.janitor.janitors import (
    DEADLINE,
    GatedStore,
    Told,
    beat_of,
    handles,
    messages,
    reading_of,
    threads,
)
from tests.waiting import wait_until


def test_no_log_line_holds_a_session_id(
    store: FileStore, clock: ManualClock, log: pytest.LogCaptureFixture
) -> None:
    sids = [store.create({"n": n}).id for n in range(5)]
    broken = next(Path(store.directory, "sessions").glob("*/*"))
    broken.write_bytes(b"garbage")
    clock.now += 1000
    janitor = Janitor(store, interval=3600)
    janitor.start()
    wait_until(lambda: janitor._sweeper.last is not None)
    janitor.stop()
    said = "\n".join(messages(log)) + Path(store.directory, HEARTBEAT).read_text()
    assert not any(sid in said for sid in sids)


@pytest.mark.parametrize("fails", [False, True])
def test_a_function_is_told_of_each_session_that_expired_and_may_fail(
    store: FileStore, clock: ManualClock, log: pytest.LogCaptureFixture, *, fails: bool
) -> None:
    for _ in range(20):
        store.create()
    expired = handles(store)
    clock.now += 1000
    lives = store.create().id
    told = Told(fails=fails)
    janitor = Janitor(store, interval=3600, on_expired=told)
    janitor.start()
    try:
        wait_until(lambda: len(told.handles) == 20)
        clock.now += 90
        assert store.load(lives) is not None
    finally:
        janitor.stop()
    assert sorted(told.handles) == expired
    assert janitor.reading().expired == 20
    assert sum("the hook fails" in line for line in messages(log)) == fails


@pytest.mark.parametrize("fails", [False, True])
def test_a_single_sweep_returns_when_a_function_was_told_of_all(
    store: FileStore, clock: ManualClock, *, fails: bool
) -> None:
    for _ in range(3):
        store.create()
    expired = handles(store)
    clock.now += 1000
    told = Told(fails=fails)
    before = threads()
    assert Janitor(store, on_expired=told).sweep_once().expired == 3
    assert sorted(told.handles) == expired
    assert threads() == before


def test_a_single_sweep_returns_when_a_command_has_read_all(
    store: FileStore, clock: ManualClock, tmp_path: Path
) -> None:
    for _ in range(3):
        store.create()
    expired = handles(store)
    clock.now += 1000
    lines = tmp_path / "lines"
    Janitor(store, on_expired=f"tee -a {lines}").sweep_once()
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted(each["handle"] for each in told) == expired
    assert {each["created_at"] for each in told} == {clock.now - 1000}


def test_a_single_sweep_beside_the_schedule_leaves_the_hook_at_work(
    store: FileStore, clock: ManualClock
) -> None:
    told = Told()
    janitor = Janitor(store, interval=3600, on_expired=told)
    janitor.start()
    try:
        wait_until(lambda: janitor._sweeper.last is not None)
        for number in (1, 2):
            store.create()
            clock.now += 1000
            assert janitor.sweep_once().expired == 1
            wait_until(lambda number=number: len(told.handles) == number)  # type: ignore[misc]
    finally:
        janitor.stop()


def test_the_heartbeat_tells_what_is_known_and_was_done(
    store: FileStore, clock: ManualClock
) -> None:
    for _ in range(3):
        store.create()
    clock.now += 1000
    store.create()
    janitor = Janitor(store, interval=3600)
    assert janitor.reading().sessions is None
    janitor.start()
    try:
        wait_until(lambda: reading_of(store).get("sweeps") == 1)
        first = reading_of(store)
        store.create()
        wait_until(lambda: janitor.reading().created == 1)
        janitor._beat()
        second = reading_of(store)
    finally:
        janitor.stop()
    assert beat_of(store)["watch"] in {"events", "poll"}
    wanted = {
        "directory": store.directory,
        "leads": True,
        "sessions": 1,
        "created": 0,
        "expired": 3,
        "corrupt": 0,
        "failed": 0,
        "full_looks": 1,
        "overflows": 0,
        "held": None,
        "lag": 890.0,  # a touch may have been kept back for 10 seconds
    }
    assert {name: first[name] for name in wanted} == wanted
    assert (second["sessions"], second["created"], second["expired"]) == (2, 1, 3)
    assert not janitor.reading().leads
    assert janitor.reading().expired == 3


def test_one_whose_sweeper_hangs_for_a_minute_is_not_well() -> None:
    store = GatedStore()
    janitor = Janitor(store, interval=3600)
    ticks = ManualClock(0.0)
    janitor._monotonic = ticks
    janitor._wall = lambda: ticks.now
    assert not janitor.is_well()
    janitor.start()
    try:
        assert store.began.wait(DEADLINE)
        assert janitor.is_well()
        ticks.now += 59
        assert janitor.is_well()
        ticks.now += 2
        assert not janitor.is_well()
        store.gate.set()
        wait_until(janitor.is_well)
    finally:
        store.gate.set()
        janitor.stop()
    assert not janitor.is_well()


def test_one_that_stands_by_is_well_however_long(store: FileStore) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    janitor = Janitor(store, interval=3600)
    ticks = ManualClock(0.0)
    janitor._monotonic = ticks
    janitor._wall = lambda: ticks.now
    janitor.start()
    try:
        for _ in range(2):
            wait_until(janitor.is_well)
            ticks.now += 61
    finally:
        janitor.stop()
        leader.resign()


def test_where_events_cannot_be_had_it_polls_and_says_so_once(
    store: FileStore,
    clock: ManualClock,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(watcher: Watcher) -> None:
        msg = "no watches are left"
        raise EventsUnavailable(msg)

    monkeypatch.setattr(Watcher, "start", refuse)
    store.create()
    janitor = Janitor(store, interval=3600, watch="events")
    janitor.start()
    try:
        wait_until(lambda: janitor.reading().sweeps == 1)
        for number in (2, 3):
            store.create()
            clock.now += 1000
            janitor.sweep_soon()
            wait_until(lambda number=number: janitor.reading().sweeps == number)  # type: ignore[misc]
    finally:
        watches = beat_of(store)["watch"]
        janitor.stop()
    assert watches == "poll"
    assert janitor.reading().expired == 3
    assert sum("no watches are left" in line for line in messages(log)) == 1


def look_at_many(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, progress: Callable[[float], None] | None
) -> None:
    """A first look at 150 sessions, with a pause after each, between which a second goes by."""
    monkeypatch.setattr(rounds, "WORK", 5e-6)  # to look at one takes longer
    for _ in range(150):
        store.create()
    janitor = Janitor(store, interval=3600)
    ticks = itertools.count()
    janitor._monotonic = lambda: float(next(ticks))
    janitor.progress = progress
    janitor._work(due=True)
    janitor._sweeper.close()


def test_a_long_first_look_is_logged_once_a_minute(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    look_at_many(store, monkeypatch, None)
    lines = [line for line in messages(log) if "looking at all of" in line]
    assert 2 <= len(lines) <= 8  # 406 pauses, and a look at the clock or two in each
    shares = [int(re.findall(r"(\d+) % done", line)[0]) for line in lines]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 100


def test_the_share_of_a_long_first_look_rises_to_one(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    shares: list[float] = []
    look_at_many(store, monkeypatch, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len({*shares}) > 50
    assert not any("looking at all of" in line for line in messages(log))
