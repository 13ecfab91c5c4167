"""A janitor at work in its threads or in the foreground: how it begins, fails and ends.

Nothing waits for time to pass.
"""

from __future__ import annotations

import os
import signal
import threading

import pytest

from filesession.errors import ConfigurationError, StoreUnavailable
from filesession.janitor import Janitor
from filesession.janitor.leader import Leadership, is_led
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore
from filesession.stores.memory import MemoryStore
from filesession.testing import ManualClock
from tests.janitor.janitors import DEADLINE, GatedStore, beat_of, messages, threads
from tests.waiting import wait_until


def test_in_the_background_it_sweeps_at_once_and_stops_without_a_trace_of_its_threads(
    store: FileStore, clock: ManualClock, log: pytest.LogCaptureFixture
) -> None:
    store.create()
    clock.now += 1000
    janitor = Janitor(store, interval=3600)
    before = threads()
    janitor.start()
    janitor.start()
    ours = [thread for thread in threading.enumerate() if thread.name not in before]
    assert all(thread.daemon for thread in ours if thread.name != "MainThread")
    assert len([thread for thread in ours if thread.name.startswith("filesession-")]) >= 2
    wait_until(lambda: beat_of(store).get("last_sweep") is not None)
    janitor.stop()
    janitor.stop()
    assert threads() == before
    assert len(store) == 0
    assert not is_led(store.directory)
    assert "swept 1 session in" in messages(log)[1]
    assert messages(log)[-1] == f"{store.directory}: the janitor stopped"


def test_stopping_a_janitor_that_never_started_does_nothing(store: FileStore) -> None:
    Janitor(store).stop()


def test_a_janitor_that_stopped_may_start_again(store: FileStore) -> None:
    janitor = Janitor(store, interval=3600)
    for _ in range(2):
        janitor.start()
        wait_until(lambda: janitor._sweeper.last is not None)
        janitor.stop()
        janitor._sweeper.last = None


def test_stopping_waits_for_the_sweep_in_hand_and_begins_no_other() -> None:
    store = GatedStore()
    janitor = Janitor(store, interval=3600)
    janitor.start()
    assert store.began.wait(DEADLINE)
    ended = stop_elsewhere(janitor)
    assert janitor._stopping.wait(DEADLINE)
    janitor.sweep_soon()
    assert not ended.wait(0.2)
    assert janitor._sweeper.since is not None
    store.gate.set()
    assert ended.wait(DEADLINE)
    assert store.swept == 1


def test_stopping_waits_for_the_look_in_hand(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, gate = threading.Event(), threading.Event()

    def look() -> None:
        looking.set()
        assert gate.wait(DEADLINE)

    janitor = Janitor(store, interval=3600)
    monkeypatch.setattr(janitor, "_tick", look)
    janitor.start()
    assert looking.wait(DEADLINE)
    ended = stop_elsewhere(janitor)
    assert not ended.wait(0.2)
    gate.set()
    assert ended.wait(DEADLINE)


def stop_elsewhere(janitor: Janitor) -> threading.Event:
    """Stop it in another thread; set when that returned."""
    ended = threading.Event()

    def stop() -> None:
        janitor.stop()
        ended.set()

    threading.Thread(target=stop).start()
    return ended


def test_a_standby_does_not_sweep(store: FileStore) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    janitor = Janitor(store, interval=3600)
    janitor.start()
    janitor.sweep_soon()
    wait_until(lambda: not janitor._due.is_set())
    janitor.stop()
    assert janitor._sweeper.last is None


def test_a_long_sweep_is_no_missing_heartbeat(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = GatedStore()
    janitor = Janitor(store, interval=3600)
    monkeypatch.setattr(janitor._sweeper, "_sweep_in_rounds", gated.sweep)
    janitor.start()
    try:
        assert gated.began.wait(DEADLINE)
        janitor._beat()
        assert beat_of(store)["sweeping_since"] == store.clock()
    finally:
        gated.gate.set()
        janitor.stop()
    assert beat_of(store)["sweeping_since"] is None
    assert beat_of(store)["last_sweep"] is not None


def test_a_failed_sweep_stands_in_the_heartbeat_and_the_next_one_is_tried(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> SweepReport:
        msg = "the disk fails"
        raise StoreUnavailable(msg)

    janitor = Janitor(store, interval=3600)
    monkeypatch.setattr(janitor._sweeper, "_sweep_in_rounds", fail)
    janitor.start()
    try:
        wait_until(lambda: beat_of(store).get("last_error") == "the disk fails")
        monkeypatch.undo()
        janitor.sweep_soon()
        wait_until(lambda: beat_of(store).get("last_sweep") is not None)
        assert beat_of(store)["last_error"] is None
    finally:
        janitor.stop()


def test_a_look_that_fails_for_no_known_reason_is_told_and_the_next_one_taken(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    janitor = Janitor(store, interval=3600)
    failed = threading.Event()

    try_lead = Leadership.try_lead

    def fail_once(claim: Leadership) -> bool:
        if failed.is_set():
            return try_lead(claim)
        failed.set()
        msg = "a bug"
        raise RuntimeError(msg)

    monkeypatch.setattr(Leadership, "try_lead", fail_once)
    janitor.start()
    try:
        wait_until(lambda: bool(janitor._leads))
    finally:
        janitor.stop()
    assert messages(log)[0] == "the janitor's watch failed; going on"


def test_a_sweep_that_fails_for_no_known_reason_is_told_and_the_next_one_made(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    janitor = Janitor(store, interval=3600)
    sweep, swept = janitor._sweeper.sweep_or_complain, threading.Event()
    reasons = [RuntimeError("a bug")]

    def fail_once() -> None:
        if reasons:
            raise reasons.pop()
        sweep()
        swept.set()

    monkeypatch.setattr(janitor._sweeper, "sweep_or_complain", fail_once)
    janitor.start()
    try:
        wait_until(lambda: not reasons)
        janitor.sweep_soon()
        assert swept.wait(30)
    finally:
        janitor.stop()
    assert "the janitor's sweeper failed; going on" in messages(log)


def test_a_store_without_a_directory_is_swept_by_everyone_it_is_given_to(
    clock: ManualClock,
) -> None:
    store = MemoryStore(idle_timeout=100, clock=clock)
    store.create()
    clock.now += 1000
    first, second = Janitor(store, interval=3600), Janitor(store, interval=3600)
    first.start()
    second.start()
    wait_until(lambda: None not in (first._sweeper.last, second._sweeper.last))
    first.stop()
    second.stop()
    assert len(store) == 0


def test_running_outside_the_main_thread_is_refused(store: FileStore) -> None:
    errors: list[ConfigurationError] = []

    def run() -> None:
        try:
            Janitor(store).run()
        except ConfigurationError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE)
    assert "main thread" in str(errors[0])
    assert not is_led(store.directory)


def test_a_hangup_that_whoever_started_it_wants_ignored_stays_so(store: FileStore) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        janitor = Janitor(store, interval=3600)

        def send() -> None:
            wait_until(lambda: janitor._sweeper.last is not None)
            os.kill(os.getpid(), signal.SIGHUP)
            ignored.append(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGTERM)

        ignored: list[bool] = []
        threading.Thread(target=send).start()
        janitor.run()
        assert ignored == [True]
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_ends_with_a_signal_and_gives_the_handlers_back(
    store: FileStore, log: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    def own_handler(number: int, frame: object) -> None:
        pytest.fail("the signal was the janitor's")

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.signal(each, own_handler) for each in numbers]
    try:
        janitor = Janitor(store, interval=3600)

        def send() -> None:
            wait_until(lambda: janitor._sweeper.last is not None)
            os.kill(os.getpid(), number)

        threading.Thread(target=send).start()
        janitor.run()
        assert [signal.getsignal(each) for each in numbers] == [own_handler] * 4
    finally:
        for each, handler in zip(numbers, before, strict=True):
            signal.signal(each, handler)
    assert f"{number.name}: stopping" in messages(log)
    assert not is_led(store.directory)
