"""A process that is stopped or killed anywhere in a save, also in one that replaces the file.

A stopped process keeps its locks, and whoever only reads does not wait. A killed one keeps nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from filesession.errors import LockTimeout
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing.faults import CALLS, LOCK, SystemCall, SystemCalls
from tests.processes.conftest import (
    PATIENCE,
    SID,
    Child,
    Place,
    in_background,
    result_of,
)

Fork = Callable[[Callable[[], object]], Child]

EVERY: Final = (*CALLS, LOCK)

OLD: Final = {"n": 1}
NEW: Final = {"n": 2, "text": "x" * 300}

SOON: Final = 5.0
"""Seconds: less than who waits for as long as a store does by itself, whatever the machine does."""


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def is_stopped(child: Child) -> bool:
    """Wait until it has stopped, or ended."""
    told = os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return told is not None and told.si_code == os.CLD_STOPPED


def stopping(nth: int, call: Callable[[], object]) -> None:
    """Make a call, and stop before its ``nth`` system call until told to go on."""

    def act(system_call: SystemCall) -> Any:
        if system_call.number == nth:
            stop()
        return system_call.make()

    signal.alarm(int(PATIENCE))  # it does not outlive its test, whatever it waits for
    with SystemCalls(act, only=EVERY):
        call()


def renew(place: Place, grown: int = 0) -> None:
    """There is one session; if it has grown, its next save replaces the file."""
    place.store.clear()
    place.store.create({"text": "x" * grown} if grown else OLD, sid=SID)
    if grown:
        place.store.save(SID, OLD)


@pytest.mark.parametrize("grown", [0, LONGEST_JOURNAL - 400], ids=["appended", "replaced"])
def test_a_process_stopped_anywhere_in_a_save_blocks_no_reader_and_ends_its_save_later(
    place: Place, fork: Fork, grown: int
) -> None:
    nth, met, refused = 0, True, 0
    while met:
        nth += 1
        renew(place, grown)
        child = fork(partial(stopping, nth, lambda: place.store.save(SID, NEW)))
        met = is_stopped(child)
        record = place.store.load(SID)
        assert record is not None
        assert record.data in (OLD, NEW)
        try:
            with place.store.lock(SID, timeout=0):
                place.store.save(SID, {**record.data, "other": True}, base=record)
        except LockTimeout:
            refused += 1
        if met:
            os.kill(child.pid, signal.SIGCONT)
        child.join()
        assert place.data() in (NEW, {**NEW, "other": True}), nth
        assert place.is_free()
        assert place.is_whole()
        assert not place.temporary()
    assert refused > 2


@pytest.mark.parametrize("grown", [0, LONGEST_JOURNAL - 400], ids=["appended", "replaced"])
def test_who_waits_for_a_process_that_is_killed_anywhere_in_a_save_goes_on(
    place: Place, fork: Fork, grown: int
) -> None:
    def hold(nth: int) -> None:
        with place.store.lock(SID) as record:
            stopping(nth, lambda: place.store.save(SID, NEW, base=record))

    nth, met = 0, True
    while met:
        nth += 1
        renew(place, grown)
        child = fork(partial(hold, nth))
        met = is_stopped(child)
        if not met:
            child.join()
            break
        waiting = Waiter(place)
        child.kill()
        assert waiting.found() in (OLD, NEW)
        assert place.data()["waited"]
        assert place.is_free()
    assert nth > 3


class Waiter:
    """A thread that has found a session's lock taken, waits for it, and saves."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._refused = threading.Event()
        self._waiting = in_background(self._wait)
        assert self._refused.wait(PATIENCE)

    def _act(self, call: SystemCall) -> Any:
        try:
            return call.make()
        except BlockingIOError:
            self._refused.set()
            raise

    def _wait(self) -> Any:
        with (
            SystemCalls(self._act, only=(LOCK,)),
            self._place.store.lock(SID, timeout=SOON) as record,
        ):
            self._place.store.save(SID, {**record.data, "waited": True}, base=record)
        return record.data

    def found(self) -> Any:
        """What was stored when it got the lock."""
        return result_of(self._waiting)
