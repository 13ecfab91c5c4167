"""Who is inside a lock: its holder, and the tasks and threads that inherited it from the holder."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from filesession.errors import LockTimeout, SessionGone
from filesession.runner import LoopRunner
from filesession.stores import FileStore, MemoryStore
from filesession.stores.entry import handle_of
from filesession.stores.held import current_owner
from filesession.testing.base import PATIENCE, ended, in_thread, loaded, started

if TYPE_CHECKING:
    from pathlib import Path

    from filesession.testing import ManualClock

AnyStore: TypeAlias = MemoryStore | FileStore


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, directory: Path, clock: ManualClock) -> AnyStore:
    if request.param == "memory":
        return MemoryStore(clock=clock)
    return FileStore(directory, clock=clock)


@pytest.fixture
def sid(store: AnyStore) -> str:
    return store.create({"n": 0}).id


def inheriting(call: Callable[[], Any]) -> Future[Any]:
    """Begin a call in a thread that inherits the locks held here."""
    context = contextvars.copy_context()
    return started(lambda: context.run(call))


def take(store: AnyStore, sid: str, timeout: float = 0) -> None:
    with store.lock(sid, timeout=timeout):
        pass


def assert_kept(store: AnyStore, sid: str) -> None:
    """A stranger cannot have the lock."""
    with pytest.raises(LockTimeout):
        in_thread(lambda: take(store, sid))


class Guest:
    """A thread that inherited the lock and locks the session itself, until it is sent away.

    Attributes:
        inside: it has the lock.
        asked: it is about to ask for it.
    """

    def __init__(self, store: AnyStore, sid: str, act: Callable[[], object] = lambda: None) -> None:
        self.asked, self.inside, self._go = threading.Event(), threading.Event(), threading.Event()

        def stay() -> None:
            self.asked.set()
            with store.lock(sid, timeout=PATIENCE):
                self.inside.set()
                assert self._go.wait(PATIENCE)
                act()

        self._staying = inheriting(stay)

    def enter(self) -> Guest:
        assert self.inside.wait(PATIENCE)
        return self

    def leave(self) -> None:
        self._go.set()
        ended(self._staying)


@contextmanager
def visited(store: AnyStore, sid: str) -> Iterator[Guest]:
    """Inside the lock, with a guest that has it too."""
    with store.lock(sid):
        guest = Guest(store, sid).enter()
        try:
            yield guest
        finally:
            guest.leave()


# -- guests take turns ----------------------------------------------------------------------------


def test_threads_that_inherited_the_lock_and_lock_again_take_turns(
    store: AnyStore, sid: str
) -> None:
    ready = threading.Barrier(4)
    inside: list[int] = []

    def count(number: int) -> None:
        ready.wait(PATIENCE)
        for _ in range(10):
            with store.lock(sid, timeout=PATIENCE) as record:
                inside.append(number)
                assert inside == [number]
                store.save(sid, {"n": record.data["n"] + 1}, base=record, conflict="error")
                inside.remove(number)

    with store.lock(sid):
        counting = [inheriting(partial(count, n)) for n in range(4)]
        for each in counting:
            ended(each)
        assert_kept(store, sid)
    assert loaded(store, sid).data == {"n": 40}
    in_thread(lambda: take(store, sid))


@pytest.mark.parametrize("offload", [None, True, False])
def test_tasks_that_inherited_the_lock_and_lock_again_take_turns(
    store: AnyStore, sid: str, *, offload: bool | None
) -> None:
    runner = LoopRunner(store, offload)

    async def count() -> None:
        async with runner.alock(sid, PATIENCE) as record:
            await asyncio.sleep(0)
            store.save(sid, {"n": record.data["n"] + 1}, base=record, conflict="error")

    async def main() -> None:
        async with runner.alock(sid, PATIENCE):
            await asyncio.gather(*(count() for _ in range(5)))
            assert_kept(store, sid)

    asyncio.run(main())
    assert loaded(store, sid).data == {"n": 5}
    take(store, sid)


def test_a_guest_that_does_not_get_its_turn_in_time_is_told_so(store: AnyStore, sid: str) -> None:
    with visited(store, sid), pytest.raises(LockTimeout) as refused:
        ended(inheriting(lambda: take(store, sid)))
    assert str(refused.value).startswith(f"session {handle_of(sid)} is locked")
    assert sid not in str(refused.value)
    take(store, sid)


def test_a_guest_may_wait_for_as_long_as_it_likes(store: AnyStore, sid: str) -> None:
    with store.lock(sid):
        guest = Guest(store, sid).enter()
        asked = threading.Event()

        def wait() -> None:
            asked.set()
            take(store, sid, timeout=threading.TIMEOUT_MAX * 2)

        waiting = inheriting(wait)
        assert asked.wait(PATIENCE)
        guest.leave()
        ended(waiting)


def test_the_next_guest_comes_when_the_one_before_has_gone(store: AnyStore, sid: str) -> None:
    with store.lock(sid):
        first = Guest(store, sid).enter()
        second = Guest(store, sid)
        assert second.asked.wait(PATIENCE)
        assert not second.inside.is_set()
        first.leave()
        second.enter().leave()
    take(store, sid)


# -- locking again what one has -------------------------------------------------------------------


def test_the_holder_locks_again_whoever_visits(store: AnyStore, sid: str) -> None:
    with visited(store, sid):
        with store.lock(sid, timeout=0), store.lock(sid, timeout=0) as record:
            assert record.data == {"n": 0}
        assert_kept(store, sid)
    take(store, sid)


def test_a_guest_locks_again_and_keeps_others_out_until_its_last_block_ends(
    store: AnyStore, sid: str
) -> None:
    with store.lock(sid):
        another, later = contextvars.copy_context(), contextvars.copy_context()

        def nest() -> None:
            with store.lock(sid, timeout=0):
                with store.lock(sid, timeout=0):
                    pass
                with pytest.raises(LockTimeout):
                    in_thread(lambda: another.run(take, store, sid))
            in_thread(lambda: later.run(take, store, sid))

        ended(inheriting(nest))
    take(store, sid)


@pytest.mark.parametrize("nested", [False, True], ids=["", "inside another"])
def test_one_lock_cannot_be_entered_twice(store: AnyStore, sid: str, *, nested: bool) -> None:
    outer, lock = store.lock(sid), store.lock(sid)
    if nested:
        outer.__enter__()
    with lock:
        with pytest.raises(RuntimeError, match=r"held already; ask the store for another"):
            lock.__enter__()
        assert_kept(store, sid)
    if nested:
        assert_kept(store, sid)
        outer.__exit__(None, None, None)
    take(store, sid)


def test_given_back_it_may_be_taken_again(store: AnyStore, sid: str) -> None:
    lock = store.lock(sid)
    for n in range(2):
        with lock as record:
            assert record.data == {"n": n}
            store.save(sid, {"n": n + 1})
            assert_kept(store, sid)
    take(store, sid)


# -- who stays longer -----------------------------------------------------------------------------


def test_the_lock_is_given_back_with_the_last_of_them(store: AnyStore, sid: str) -> None:
    def save() -> None:
        with pytest.raises(LockTimeout):
            in_thread(lambda: take(store, sid))
        store.save(sid, {"n": 7})

    with store.lock(sid):
        guest = Guest(store, sid, save).enter()
    assert_kept(store, sid)
    with pytest.raises(LockTimeout):  # the holder's thread is a stranger too by now
        contextvars.Context().run(take, store, sid)
    guest.leave()
    assert loaded(store, sid).data == {"n": 7}
    in_thread(lambda: take(store, sid))
    take(store, sid)


def test_a_guest_whose_turn_comes_when_the_lock_is_given_back_takes_it_itself(
    store: AnyStore, sid: str
) -> None:
    with store.lock(sid):
        first = Guest(store, sid).enter()
        second = Guest(store, sid)
        assert second.asked.wait(PATIENCE)
    first.leave()
    second.enter()
    assert_kept(store, sid)
    second.leave()
    in_thread(lambda: take(store, sid))


def test_a_thread_that_asks_after_the_end_has_inherited_nothing(store: AnyStore, sid: str) -> None:
    go = threading.Event()

    def ask() -> None:
        assert go.wait(PATIENCE)
        with store.lock(sid, timeout=0):
            assert_kept(store, sid)

    with store.lock(sid):
        asking = inheriting(ask)
    go.set()
    ended(asking)
    with store.lock(sid):
        assert_kept(store, sid)


# -- what goes wrong ------------------------------------------------------------------------------


def test_a_guest_that_finds_the_session_expired_keeps_nothing(
    store: AnyStore, sid: str, clock: ManualClock
) -> None:
    with store.lock(sid):
        another = contextvars.copy_context()

        def ask() -> None:
            with pytest.raises(SessionGone):
                take(store, sid)
            with pytest.raises(SessionGone):  # and no LockTimeout, as if it were inside
                in_thread(lambda: another.run(take, store, sid))

        clock.advance(1800 + 61)
        ended(inheriting(ask))
        with pytest.raises(SessionGone):
            take(store, sid)
    assert store.load(sid) is None


def test_a_guest_that_finds_the_session_deleted_is_told_so(store: AnyStore, sid: str) -> None:
    with store.lock(sid):
        store.delete(sid)
        with pytest.raises(SessionGone):
            ended(inheriting(lambda: take(store, sid)))


def test_a_guest_of_a_session_that_moved_finds_it_under_its_new_id(
    store: AnyStore, sid: str
) -> None:
    with store.lock(sid):
        new = store.regenerate(sid).id
        guest = Guest(store, new).enter()
    assert_kept(store, new)
    guest.leave()
    take(store, new)


# -- who one is -----------------------------------------------------------------------------------


def test_an_owner_is_a_thread_and_in_a_loop_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = threading.get_ident()

    async def owners() -> set[tuple[int, int]]:
        async def owner() -> tuple[int, int]:
            return current_owner()

        return {current_owner(), *await asyncio.gather(owner(), owner())}

    assert current_owner() == (thread, 0)
    assert in_thread(current_owner) != (thread, 0)
    found = asyncio.run(owners())
    assert len(found) == 3
    assert {ident for ident, _ in found} == {thread}
    monkeypatch.delitem(sys.modules, "asyncio")
    assert current_owner() == (thread, 0)
