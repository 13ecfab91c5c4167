"""A process that is forked from one that uses the store, at whatever moment: nothing is shared.

The store was opened and used before the fork, and at the moment of the fork a thread of the parent
may hold a lock, wait for one, or be anywhere in a save. The child has none of these threads.
"""

from __future__ import annotations

import contextvars
import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import pytest

from filesession.errors import LockTimeout, StoreError
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing.faults import SystemCall, SystemCalls
from tests.processes.conftest import (
    EVERY,
    PATIENCE,
    SID,
    Child,
    Fork,
    Gate,
    Place,
    held,
    in_background,
    request_wsgi,
    result_of,
    under_wsgi,
)


def assert_locked(place: Place) -> None:
    """It is somebody else's."""
    with pytest.raises(LockTimeout):
        place.store.without_waiting().save(SID, {"n": "theirs"})


def test_a_child_of_a_thread_beside_the_holder_waits_and_gets_its_turn(
    place: Place, fork: Fork, gate: Callable[[], Gate]
) -> None:
    asked = gate()

    def child() -> None:
        assert_locked(place)
        asked.open()
        with place.store.lock(SID, timeout=PATIENCE):
            place.store.save(SID, {"child": True})

    with held(place):
        children = [fork(child), fork(lambda: assert_locked(place))]
        children[1].join()  # which gives nothing back that was its parent's
        asked.wait()
        assert not place.is_free()
        assert place.data() == {}
    children[0].join()
    assert place.data() == {"child": True}
    assert place.is_free()


def test_neither_a_child_nor_a_grandchild_takes_the_lock_along_or_gives_it_back(
    place: Place, fork: Fork
) -> None:
    def child() -> None:
        assert_locked(place)
        grandchild = Child(lambda: assert_locked(place))
        grandchild.join()
        assert_locked(place)

    with held(place):
        fork(child).join()
        assert not place.is_free()
    assert place.is_free()


def test_a_lock_is_free_when_its_holder_ends_though_its_children_live(
    place: Place, fork: Fork, gate: Callable[[], Gate]
) -> None:
    forked, go = gate(), gate()

    def stay() -> None:
        forked.open()
        go.wait()

    def parent() -> None:
        with place.store.lock(SID):
            Child(stay)  # it inherited the open file
            gate().wait()

    holder = fork(parent)
    try:
        forked.wait()
        assert not place.is_free()
        holder.kill()
        assert place.is_free()
    finally:
        go.open()


def test_a_session_that_was_locked_around_the_fork_says_so_in_the_child(
    place: Place, fork: Fork
) -> None:
    def act(session: Any, _: str) -> None:
        def child() -> None:
            session["child"] = True
            with pytest.raises(StoreError, match="forked inside the block"):
                session.save()
            with (
                pytest.raises(StoreError, match="forked inside the block"),
                session.lock(timeout=0),
            ):
                pytest.fail("it has the lock")

        with session.lock():
            fork(child).join()
            session["parent"] = True
            assert not place.is_free()

    request_wsgi(under_wsgi(act, place.store))
    assert place.data() == {"parent": True}
    assert place.is_free()


class Stopped:
    """A thread that makes a call and stops before its ``nth`` system call, until it is let go on.

    Attributes:
        is_there: it stands before that call; else it came to its end before.
    """

    def __init__(self, nth: int, call: Callable[[], object]) -> None:
        self._reached, self._go = threading.Event(), threading.Event()
        self._nth = nth
        self._call = call
        self.is_there = False
        self._working = in_background(self._work)
        assert self._reached.wait(PATIENCE)

    def _act(self, call: SystemCall) -> Any:
        if call.number == self._nth:
            self.is_there = True
            self._reached.set()
            assert self._go.wait(PATIENCE)
        return call.make()

    def _work(self) -> None:
        try:
            with SystemCalls(self._act, only=EVERY):
                self._call()
        finally:
            self._reached.set()

    def go_on(self) -> None:
        self._go.set()
        result_of(self._working)


@pytest.mark.parametrize("grown", [0, LONGEST_JOURNAL - 300], ids=["appended", "replaced"])
@pytest.mark.parametrize("inside", [False, True], ids=["", "inside the lock"])
def test_a_fork_while_another_thread_is_anywhere_in_a_save_costs_neither(
    place: Place, fork: Fork, grown: int, *, inside: bool
) -> None:
    store, nth, met = place.store, 0, True
    while met:
        nth += 1
        store.delete(SID)
        store.create(sid=SID)
        base = store.save(SID, {"text": "x" * grown} if grown else {})

        def save(base: Any = base) -> None:
            store.save(SID, {**base.data, "thread": "y" * 400}, base=base)

        def child(base: Any = base) -> None:
            store.save(SID, {**base.data, "child": True}, base=base)

        if inside:
            met = _forked_inside_the_lock(place, fork, save, nth)
        else:
            saving = Stopped(nth, save)
            met = saving.is_there
            forked = fork(child)
            saving.go_on()
            forked.join()
            fork(child).join()
            assert place.data() == {**base.data, "thread": "y" * 400, "child": True}
        assert place.is_free()
        assert not place.temporary()
    assert nth > 5


def _forked_inside_the_lock(place: Place, fork: Fork, save: Callable[[], object], nth: int) -> bool:
    """Fork while a thread that inherited the lock is in a save; whether it was."""
    store = place.store

    def child() -> None:
        with pytest.raises(StoreError, match="forked inside the block"):
            store.save(SID, {})
        with pytest.raises(StoreError, match="forked inside the block"):
            store.lock(SID, timeout=0).acquire()

    with store.lock(SID):
        inherited = contextvars.copy_context()
        saving = Stopped(nth, lambda: inherited.run(save))
        fork(child).join()
        saving.go_on()
        assert not place.is_free()
    assert place.data()["thread"]
    return saving.is_there


def test_a_fork_beside_a_guest_of_the_lock_leaves_no_one_waiting_for_it_in_the_child(
    place: Place, fork: Fork
) -> None:
    lock, inside, go = place.store.lock(SID), threading.Event(), threading.Event()

    def guest() -> None:
        with place.store.lock(SID), lock._door:  # at the moment at which it comes or goes
            inside.set()
            assert go.wait(PATIENCE)

    def another() -> None:
        place.store.lock(SID, timeout=0).acquire()

    def child() -> None:
        inherited = contextvars.copy_context()
        with pytest.raises(StoreError, match="forked inside the block"):
            result_of(in_background(lambda: inherited.run(another)))
        lock.release()

    with lock:
        inherited = contextvars.copy_context()
        visiting = in_background(lambda: inherited.run(guest))
        assert inside.wait(PATIENCE)
        forked = fork(child)
        try:
            forked.join()
        finally:
            go.set()
        result_of(visiting)
        assert not place.is_free()
    assert place.is_free()


def _count(place: Place, number: int) -> None:
    for n in range(10):
        with place.store.lock(SID, timeout=PATIENCE) as record:
            place.store.save(SID, {**record.data, "n": record.data["n"] + 1, f"{number}.{n}": 1})


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_workers_of_multiprocessing_work_with_the_store_of_their_parent(
    place: Place,
) -> None:
    place.store.save(SID, {"n": 0})
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count, args=(place, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join(PATIENCE)
            assert worker.exitcode == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    assert place.data() == {"n": 40, **{f"{i}.{n}": 1 for i in range(4) for n in range(10)}}
    assert place.is_free()
