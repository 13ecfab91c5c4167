"""An exception out of nowhere in the middle of a store call, and signals while one is made.

The first part raises at every system call, before it is made and after, what a signal's handler, an
exhausted memory or a closed generator may raise there. The second has a real timer interrupt a
child's calls, whose handler raises nothing.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from filesession.stores import FileStore
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing import ManualClock
from filesession.testing.faults import CALLS, LOCK, SystemCall, SystemCalls
from tests.processes.conftest import SID, Child, Place, held, nothing_left
from tests.test_session_lock import a_session

EVERY: Final = (*CALLS, LOCK)

OLD: Final = {"n": 1}
NEW: Final = {"n": 2}
MOVED: Final = "id-moved"
FRESH: Final = "id-fresh"

ERRORS: Final = [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit]

Verb = Callable[[FileStore], object]
Fork = Callable[[Callable[[], object]], Child]


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


class Storm:
    """A timer that rings at random moments, once for each call; its handler does nothing."""

    RINGS: Final = 400
    SECONDS: Final = 10

    def __init__(self) -> None:
        self._random = random.Random(1)  # noqa: S311 - no secret
        self.calls = self.rings = 0

    def ring(self, *_: object) -> None:
        self.rings += 1

    def blow(self, call: Callable[[int], object], check: Callable[[], object]) -> None:
        """Make calls, one after the other, and check after each."""
        signal.signal(signal.SIGALRM, self.ring)
        ends = time.monotonic() + self.SECONDS
        while self.rings < self.RINGS and time.monotonic() < ends:
            self.calls += 1
            longest = 150e-6 * self._random.choice((1, 1, 4))
            signal.setitimer(signal.ITIMER_REAL, self._random.uniform(1e-6, longest))
            call(self.calls)
            signal.setitimer(signal.ITIMER_REAL, 0)
            check()


def test_a_save_that_signals_interrupt_is_made_all_the_same(place: Place, fork: Fork) -> None:
    def child() -> None:
        storm = Storm()
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
