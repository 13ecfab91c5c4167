"""A process that is stopped or killed anywhere in a save, also in one that replaces the file.

A stopped process keeps its locks, and whoever only reads does not wait. A killed one keeps nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from filesession.errors import LockTimeout
from filesession.stores.file.size import LONGEST_JOURNAL
from tests.processes.conftest import (
    PATIENCE,
    SID,
    SOON,
    Asking,
    Fork,
    Place,
    acting_before,
    in_background,
    result_of,
)

OLD: Final = {"n": 1}
NEW: Final = {"n": 2, "text": "x" * 300}


def stopping(nth: int, call: Callable[[], object]) -> None:
    """Make a call, and stop before its ``nth`` system call until told to go on."""
    signal.alarm(int(PATIENCE))  # it does not outlive its test, whatever it waits for
    acting_before(nth, lambda _: os.kill(os.getpid(), signal.SIGSTOP), call)


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
        met = child.is_stopped()
        record = place.store.load(SID)
        assert record is not None
        assert record.data in (OLD, NEW)
        try:
            with place.store.lock(SID, timeout=0):
                place.store.save(SID, {**record.data, "other": True}, base=record)
        except LockTimeout:
            refused += 1
        if met:
            child.go_on()
        child.join()
        assert place.data() in (NEW, {**NEW, "other": True}), nth
        assert place.is_free()
        assert place.is_whole()
        assert not place.temporary()
    assert refused > 2


@pytest.mark.parametrize("grown", [0, LONGEST_JOURNAL - 400], ids=["appended", "replaced"])
def test_who_waits_for_a_process_that_is_killed_anywhere_in_a_save_goes_on(
    place: Place, fork: Fork, asking: Asking, grown: int
) -> None:
    def hold(nth: int) -> None:
        with place.store.lock(SID) as record:
            stopping(nth, lambda: place.store.save(SID, NEW, base=record))

    def wait() -> Any:
        with place.store.lock(SID, timeout=SOON) as record:
            place.store.save(SID, {**record.data, "waited": True}, base=record)
        return record.data

    nth, met = 0, True
    while met:
        nth += 1
        renew(place, grown)
        child = fork(partial(hold, nth))
        met = child.is_stopped()
        if not met:
            child.join()
            break
        asking.forget()
        waiting = in_background(wait)
        asking.wait()
        child.kill()
        assert result_of(waiting) in (OLD, NEW)
        assert place.data()["waited"]
        assert place.is_free()
    assert nth > 3
