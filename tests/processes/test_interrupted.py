"""An exception out of nowhere in the middle of a store call, and signals while one is made.

The first part raises at every system call, before it is made and after, what a signal's handler, an
exhausted memory or a closed generator may raise there. The second has a real timer interrupt a
child's calls at random moments: also those between two system calls.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from filesession.stores import FileStore
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCall, SystemCalls
from tests.processes.conftest import EVERY, SID, Fork, Place, held, nothing_left
from tests.session.conftest import a_session

OLD: Final = {"n": 1}
NEW: Final = {"n": 2}
MOVED: Final = "id-moved"
FRESH: Final = "id-fresh"

ERRORS: Final = [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit]

Verb = Callable[[FileStore], object]


def save_inside(store: FileStore) -> None:
    with store.lock(SID) as record:
        store.save(SID, NEW, base=record)


def lock_the_session(store: FileStore) -> None:
    session = a_session(store, SID)
    with session.lock():
        session["n"] += 1


def lock_twice(store: FileStore) -> None:
    with store.lock(SID), store.lock(SID, timeout=0) as record:
        store.save(SID, NEW, base=record)


VERBS: Final[dict[str, Verb]] = {
    "create": lambda store: store.create(NEW, sid=FRESH),
    "save": lambda store: store.save(SID, NEW),
    "touch": lambda store: store.touch(SID),
    "delete": lambda store: store.delete(SID),
    "regenerate": lambda store: store.regenerate(SID, NEW, new_sid=MOVED),
    "lock and save": save_inside,
    "lock the session": lock_the_session,
    "lock twice": lock_twice,
}


def raising(error: BaseException, nth: int, *, after: bool) -> Callable[[SystemCall], Any]:
    """An act: raise at the ``nth`` call, before it is made or after.

    Not after an open: what it gave is nobody's then, which is for the second part of this module.
    """

    def act(call: SystemCall) -> Any:
        if call.number != nth:
            return call.make()
        if after and call.name != "open":
            call.make()
        raise error

    return act


def renew(place: Place, *, grown: bool) -> None:
    """There is one session; if it has grown, its next save replaces the file."""
    place.store.clear()
    place.store.create({"text": "x" * (LONGEST_JOURNAL - 350)} if grown else OLD, sid=SID)
    if grown:
        place.store.save(SID, OLD)


def states(place: Place) -> tuple[Any, ...]:
    return tuple(place.data(sid) for sid in (SID, MOVED, FRESH))


AFTER: Final[dict[str, tuple[Any, ...]]] = {
    "touch": (OLD, None, None),
    "create": (OLD, None, NEW),
    "delete": (None, None, None),
    "regenerate": (None, NEW, None),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("grown", [False, True], ids=["", "grown"])
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_raised_at_any_system_call_leaves_all_old_or_all_new(
    place: Place, verb: str, error: type[BaseException], *, grown: bool, after: bool
) -> None:
    nth, met = 0, True
    clock = ManualClock(time.time() + 600)  # so that a touch is due
    store = FileStore(place.directory, clock=clock)
    old, new = (OLD, None, None), AFTER.get(verb, (NEW, None, None))
    while met:
        nth += 1
        renew(place, grown=grown)
        raised = None
        with nothing_left():
            with SystemCalls(raising(error(), nth, after=after), only=EVERY) as calls:
                try:
                    VERBS[verb](store)
                except error as given:
                    raised = given
            del raised
        met = len(calls.calls) >= nth
        at = f"{calls.names()[nth - 1] if met else None}, call {nth}"
        assert states(place) in (old, new), at
        for sid, data in zip((SID, MOVED, FRESH), states(place), strict=True):
            assert data is None or place.is_free(sid), at
        assert len(place.files()) == sum(data is not None for data in states(place)), at
    assert states(place) == new
    assert verb != "save" or ("rename" in calls.names()) is grown
    assert nth > 2


@pytest.mark.parametrize("error", ERRORS)
def test_a_regenerate_that_is_broken_off_when_the_file_has_moved_is_undone(
    place: Place, error: type[BaseException]
) -> None:
    renew(place, grown=False)

    def act(call: SystemCall) -> Any:
        made = call.make()
        if call.name == "rename":
            raise error
        return made

    with SystemCalls(act, only=EVERY), pytest.raises(error):
        place.store.regenerate(SID, NEW)
    assert place.data() == OLD
    assert place.files() == [place.path().name]
    assert place.store.save(SID, NEW).data == NEW


# -- real signals ---------------------------------------------------------------------------------


class RungError(BaseException):
    """What the handler raises."""


class Storm:
    """A timer that rings at random moments, once for each call.

    Args:
        raises: its handler raises; else it returns, as if nothing had been.
    """

    RINGS: Final = 400
    SECONDS: Final = 10

    def __init__(self, *, raises: bool) -> None:
        self._raises = raises
        self._is_on = False
        self._random = random.Random(1)  # noqa: S311 - no secret
        self.calls = self.hits = self.rings = 0

    def ring(self, *_: object) -> None:
        self.rings += 1
        if self._raises and self._is_on:
            self._is_on = False
            raise RungError

    def blow(self, call: Callable[[int], object], check: Callable[[], object]) -> None:
        """Make calls, one after the other, and check each time that one was broken off."""
        signal.signal(signal.SIGALRM, self.ring)
        ends = time.monotonic() + self.SECONDS
        while self.rings < self.RINGS and time.monotonic() < ends:
            self.calls += 1
            longest = 150e-6 * self._random.choice((1, 1, 4))
            try:
                self._is_on = True
                signal.setitimer(signal.ITIMER_REAL, self._random.uniform(1e-6, longest))
                call(self.calls)
                self._is_on = False
            except RungError:
                self.hits += 1
            self._is_on = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            check()


def files_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def create_and_delete(store: FileStore, n: int) -> None:
    store.create({"n": n}, sid=FRESH)
    store.delete(FRESH)


def to_and_fro(store: FileStore, n: int) -> None:
    there, back = (SID, MOVED) if store.load(SID) else (MOVED, SID)
    store.regenerate(there, {"n": n}, new_sid=back)
    store.regenerate(back, {"n": n}, new_sid=there)


def lock_and_count(store: FileStore, n: int) -> None:
    with store.lock(SID, timeout=0) as record:
        store.save(SID, {"n": n}, base=record)


def lock_twice_and_count(store: FileStore, n: int) -> None:
    session = a_session(store, SID)
    with session.lock(timeout=0), session.lock(timeout=0):
        session["n"] = n


CALLED: Final[dict[str, Callable[[FileStore, int], object]]] = {
    "load": lambda store, _: store.load(SID),
    "save": lambda store, n: store.save(SID, {"n": n}),
    "save much": lambda store, n: store.save(SID, {"n": n, "text": "x" * 3000}),
    "create and delete": create_and_delete,
    "regenerate": to_and_fro,
    "lock": lock_and_count,
    "lock twice": lock_twice_and_count,
}


@pytest.mark.parametrize("name", CALLED)
def test_calls_that_a_signals_handler_breaks_off_at_random_leave_nothing_held(
    place: Place, fork: Fork, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store, fresh = place.store, place.path(FRESH)
    store.save(SID, {"n": 0})

    def child() -> None:
        newest = 0

        def check() -> None:
            nonlocal newest
            (kept,) = (sid for sid in (SID, MOVED) if place.data(sid) is not None)
            now = place.data(kept)["n"]
            assert newest <= now <= storm.calls
            newest = now
            assert place.is_free(kept)
            assert files_open() == opened, "a file stayed open"
            if fresh.exists():
                assert place.is_free(FRESH)
                fresh.unlink()

        sys.settrace(None)  # with a tracer no call would come to its end between two rings
        gc.freeze()  # what is the parent's
        storm = Storm(raises=True)
        opened = files_open()
        storm.blow(lambda n: CALLED[name](store, n), check)
        assert storm.hits > 50
        assert len(place.temporary()) <= storm.hits

    fork(child).join()
    for module in ("reaper", "sessionfile"):  # what lies about is nobody's work in progress
        monkeypatch.setattr(f"filesession.stores.file.{module}.YOUNG", -1.0)
    store.sweep()
    (kept,) = (sid for sid in (SID, MOVED) if place.data(sid) is not None)
    assert place.files() == [place.path(kept).name]
    assert store.save(kept, NEW) == store.load(kept)


def test_a_save_that_signals_interrupt_is_made_all_the_same(place: Place, fork: Fork) -> None:
    def child() -> None:
        storm = Storm(raises=False)
        with place.store.lock(SID):
            storm.blow(lambda n: place.store.save(SID, {"n": n, "text": "x" * 2000}), lambda: None)
        assert storm.rings > 50
        assert place.data()["n"] == storm.calls

    fork(child).join()
    assert place.is_free()
    assert not place.temporary()


def test_a_wait_for_a_lock_that_signals_interrupt_goes_on(
    place: Place, fork: Fork, gate: Callable[[], Any]
) -> None:
    asked = gate()

    def child() -> None:
        rings = 0

        def ring(*_: object) -> None:
            nonlocal rings
            rings += 1
            if rings == 50:
                asked.open()

        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        place.store.save(SID, NEW)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert rings >= 50

    with held(place):
        waiting = fork(child)
        asked.wait()
        assert place.data() == {}
    waiting.join()
    assert place.data() == NEW
