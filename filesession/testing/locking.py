"""A session kept for one holder."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

import pytest

from filesession.errors import LockTimeout, SessionGone, StoreError
from filesession.stores.protocol import Locks, Store
from filesession.testing.base import (
    PATIENCE,
    ContractTests,
    at_once,
    ended,
    in_thread,
    loaded,
    started,
)
from filesession.testing.clock import ManualClock
from filesession.testing.regenerating import able_to_regenerate

T = TypeVar("T")


class LockingStore(Store, Locks, Protocol):
    """A store that can lock a session."""


class LockingTests(ContractTests):
    """``lock``; skipped for a store without."""

    @pytest.fixture
    def locking(self, store: Store) -> LockingStore:
        """The store, for tests of ``lock``; they are skipped for a store without."""
        return able_to_lock(store)

    def test_a_lock_gives_the_fresh_record(self, locking: LockingStore) -> None:
        """Entering gives the session as it is stored at that moment, not as it was loaded before.

        A counter is read, raised and saved under the lock: with an older record two requests give
        the same number.
        """
        sid = locking.create({"a": 1}).id
        saved = locking.save(sid, {"a": 2})
        with locking.lock(sid) as record:
            assert record == saved
            assert record.id == sid

    @pytest.mark.parametrize("sid", ["unknown", "", "x" * 257, "a\nb"], ids=ascii)
    def test_there_is_no_lock_on_a_session_that_is_not_there(
        self, locking: LockingStore, sid: str
    ) -> None:
        """Locking what is absent or malformed is ``SessionGone``, and makes no session.

        A store that keeps its locks apart from its sessions lets an attacker fill it with locks of
        made-up ids.
        """
        with pytest.raises(SessionGone):
            take(locking, sid)
        assert locking.load(sid) is None

    def test_there_is_no_lock_on_a_session_that_has_expired(
        self, locking: LockingStore, clock: ManualClock
    ) -> None:
        """An expired session cannot be locked, and trying keeps nothing of it alive.

        The holder would work on a session whose save is then refused, or worse, is not.
        """
        sid = locking.create(idle_timeout=10).id
        clock.advance(100)
        with pytest.raises(SessionGone):
            take(locking, sid)
        assert locking.delete(sid) is False

    def test_a_lock_is_exclusive(self, locking: LockingStore) -> None:
        """While it is held every other thread gets ``LockTimeout``; afterwards it is free.

        The error is a ``StoreError`` and a ``TimeoutError`` and does not show the id. Without
        exclusion a voucher is spent twice.
        """
        sid = locking.create().id
        with locking.lock(sid):
            error = in_thread(lambda: refusal(locking, sid))
        assert isinstance(error, StoreError)
        assert isinstance(error, TimeoutError)
        assert sid not in str(error)
        in_thread(lambda: take(locking, sid))

    def test_a_lock_keeps_no_other_session(self, locking: LockingStore) -> None:
        """Holding one session delays no other, and several may be held at once.

        One lock for the whole store makes every user wait for the slowest.
        """
        one, two = locking.create().id, locking.create().id
        with locking.lock(one):
            in_thread(lambda: take(locking, two))
            in_thread(lambda: locking.save(two, {"a": 1}))
            with locking.lock(two):
                in_thread(lambda: refusal(locking, one))

    def test_anothers_save_waits_for_the_lock(self, locking: LockingStore) -> None:
        """A save by another waits until the holder is done, and then is made.

        A lock that only other lockers respect does not protect from the ordinary request in the
        next tab.
        """
        sid = locking.create({"n": 0}).id
        saved = after_the_holder(locking, sid, lambda: locking.save(sid, {"n": "theirs"}))
        assert loaded(locking, sid) == saved
        assert saved.data == {"n": "theirs"}

    def test_anothers_delete_waits_for_the_lock(self, locking: LockingStore) -> None:
        """A delete waits for the holder as a save does, and then ends what the holder saved.

        A logout in another tab would otherwise pull the session from under a payment half done.
        """
        sid = locking.create({"n": 0}).id
        assert after_the_holder(locking, sid, lambda: locking.delete(sid)) is True
        assert locking.load(sid) is None

    def test_anothers_regenerate_waits_for_the_lock(self, locking: LockingStore) -> None:
        """A regenerate waits for the holder, and takes along all that the holder saved.

        A login that runs beside a locked request would otherwise leave that request's work behind
        under the dead id.
        """
        moving = able_to_regenerate(locking)
        sid = locking.create({"n": 0}).id
        new = after_the_holder(locking, sid, lambda: moving.regenerate(sid))
        assert new.data == {"n": 2}
        assert locking.load(sid) is None

    def test_a_lock_is_waited_for_no_longer_than_asked(self, locking: LockingStore) -> None:
        """A lock that does not come free is a ``LockTimeout`` after ``timeout`` seconds, not later.

        One request that hangs while it holds a session would otherwise hang every worker that is
        asked for the same page.
        """
        sid = locking.create().id
        with locking.lock(sid):
            error = in_thread(lambda: refusal(locking, sid, timeout=0.01))
        assert sid not in str(error)

    def test_a_lock_keeps_out_another_task_of_the_same_thread(self, locking: LockingStore) -> None:
        """Held is held by a task: another one in the same thread is refused like another thread.

        All requests of an ASGI server share one thread. A lock that knows its holder by the thread,
        as ``threading.RLock`` does, lets all of them in at once.
        """
        sid = locking.create({"a": 1}).id
        with locking.lock(sid):
            contextvars.Context().run(refusal, locking, sid)
        contextvars.Context().run(take, locking, sid)

    def test_work_the_holder_hands_to_a_thread_goes_through_the_lock(
        self, locking: LockingStore
    ) -> None:
        """Whoever runs in a copy of the holder's context, in whatever thread, is the holder.

        ``asyncio.to_thread`` works so, and the ASGI middleware saves with it: a lock that is known
        to one thread alone would have a request wait for itself.
        """
        record = locking.create({"a": 1})
        with locking.lock(record.id):
            inside = contextvars.copy_context()
            saved = in_thread(lambda: inside.run(locking.save, record.id, {"a": 2}, base=record))
        assert locking.load(record.id) == saved

    def test_anothers_load_and_touch_do_not_wait(
        self, locking: LockingStore, clock: ManualClock
    ) -> None:
        """Reading and touching a locked session go through at once.

        A page that only reads would otherwise hang behind every long request of the same user, and
        after ten seconds fail.
        """
        record = locking.create({"a": 1})
        with locking.lock(record.id):
            assert in_thread(lambda: locking.load(record.id)) == record
            clock.advance(100)
            assert in_thread(lambda: locking.touch(record.id, base=record)) is True
            locking.save(record.id, {"a": 2})
            assert in_thread(lambda: loaded(locking, record.id)).data == {"a": 2}

    def test_calls_inside_go_through_the_lock(
        self, locking: LockingStore, clock: ManualClock
    ) -> None:
        """The holder's own save, touch and load do not wait for its lock, nor release it.

        A store that takes the lock for each save has the holder wait for itself, and the request
        end in a ``LockTimeout``.
        """
        sid = locking.create({"n": 0}).id
        with locking.lock(sid) as record:
            for n in range(3):
                record = locking.save(sid, {"n": n}, base=record, conflict="error")  # noqa: PLW2901
            clock.advance(100)
            assert locking.touch(sid) is True
            assert loaded(locking, sid).data == {"n": 2}
            in_thread(lambda: refusal(locking, sid))
        assert loaded(locking, sid).version == 4

    def test_an_error_inside_releases_the_lock(self, locking: LockingStore) -> None:
        """An exception leaves the block with the lock released, and is not swallowed.

        One bug in one request would otherwise lock a user out until the process is restarted.
        """
        sid = locking.create({"a": 1}).id
        with pytest.raises(ZeroDivisionError), locking.lock(sid):
            raise ZeroDivisionError
        in_thread(lambda: take(locking, sid))
        take(locking, sid)

    def test_a_lock_inside_a_lock_is_the_outer_ones(self, locking: LockingStore) -> None:
        """Locking again what one holds succeeds at once, and the inner end releases nothing.

        A library called under the lock may lock too. Released early, the rest of the outer block
        runs without.
        """
        sid = locking.create({"a": 1}).id
        with locking.lock(sid):
            locking.save(sid, {"a": 2})
            with locking.lock(sid, timeout=0) as record:
                assert record.data == {"a": 2}
                locking.save(sid, {"a": 3})
            in_thread(lambda: refusal(locking, sid))
            locking.save(sid, {"a": 4})
        assert loaded(locking, sid).data == {"a": 4}
        in_thread(lambda: take(locking, sid))

    def test_a_session_deleted_inside_is_gone(self, locking: LockingStore) -> None:
        """After a delete under the lock the session is absent for everybody, the holder too.

        A lock that keeps a session's data at hand would bring it back with the holder's next save.
        """
        sid = locking.create({"a": 1}).id
        with locking.lock(sid) as record:
            assert locking.delete(sid) is True
            assert locking.load(sid) is None
            with pytest.raises(SessionGone):
                locking.save(sid, {"a": 2}, base=record)
            with pytest.raises(SessionGone):
                take(locking, sid)
            assert locking.delete(sid) is False
        assert locking.load(sid) is None

    def test_a_session_deleted_inside_may_be_created_anew(self, locking: LockingStore) -> None:
        """A session created under the same id inside is a new one, which may be saved and locked.

        A lock that still stands for the old session would write the new one's data where nobody
        finds it.
        """
        locking.create({"a": 1}, sid="chosen")
        with locking.lock("chosen"):
            locking.delete("chosen")
            record = locking.create({"b": 1}, sid="chosen")
            locking.save("chosen", {"b": 2}, base=record)
            with locking.lock("chosen", timeout=0) as fresh:
                assert fresh.data == {"b": 2}
        assert loaded(locking, "chosen").data == {"b": 2}

    def test_one_who_waited_for_a_session_that_was_deleted_finds_it_gone(
        self, locking: LockingStore
    ) -> None:
        """Who waited for the lock looks again when it comes: the session may be gone.

        A save that goes on with what it knew before it waited undoes the logout it waited for.
        """
        sid = locking.create().id
        asked = threading.Event()

        def save() -> None:
            asked.set()
            with pytest.raises(SessionGone):
                locking.save(sid, {"a": 2})

        with locking.lock(sid):
            saving = started(save)
            assert asked.wait(PATIENCE)
            locking.delete(sid)
        ended(saving)
        assert locking.load(sid) is None

    def test_a_session_regenerated_inside_stays_locked(self, locking: LockingStore) -> None:
        """The lock moves with the session to its new id; the old one is gone for all.

        Logging in under the lock must not open the session to the next request halfway through.
        """
        moving = able_to_regenerate(locking)
        old = locking.create({"a": 1}).id
        with locking.lock(old) as record:
            new = moving.regenerate(old, {"a": 2}, base=record)
            in_thread(lambda: refusal(locking, new.id))
            locking.save(new.id, {"a": 3}, base=new)
            with locking.lock(new.id, timeout=0) as fresh:
                assert fresh.data == {"a": 3}
            assert locking.load(old) is None
            with pytest.raises(SessionGone):
                locking.save(old, {"a": 4})
            with pytest.raises(SessionGone):
                take(locking, old)
        assert loaded(locking, new.id).data == {"a": 3}
        in_thread(lambda: take(locking, new.id))

    def test_a_lock_may_be_released_in_another_thread(self, locking: LockingStore) -> None:
        """``__exit__`` may run in another thread than ``__enter__``, and frees the lock for all.

        An ASGI app enters and leaves in worker threads, not always the same. ``threading.RLock``
        refuses that.
        """
        sid = locking.create({"a": 1}).id
        held = locking.lock(sid)
        held.__enter__()
        in_thread(lambda: held.__exit__(None, None, None))
        in_thread(lambda: take(locking, sid))
        take(locking, sid)
        locking.save(sid, {"a": 2})
        assert loaded(locking, sid).data == {"a": 2}

    def test_who_released_in_another_thread_is_kept_out_by_the_next(
        self, locking: LockingStore
    ) -> None:
        """After that the first thread holds nothing: the next holder keeps it out as well.

        A store that remembers a holder by its thread, and forgets it in that thread only, lets two
        into one session.
        """
        sid = locking.create({"a": 1}).id
        held, theirs = locking.lock(sid), locking.lock(sid)
        held.__enter__()
        in_thread(lambda: held.__exit__(None, None, None))
        in_thread(theirs.__enter__)
        refusal(locking, sid)
        in_thread(lambda: theirs.__exit__(None, None, None))
        take(locking, sid)

    def test_increments_under_the_lock_are_exact(self, locking: LockingStore) -> None:
        """A hundred read-modify-writes under the lock by four threads give a hundred.

        It fails when the lock is taken after the read, is not the same for all threads, or is not
        waited for.
        """
        sid = locking.create({"n": 0}).id

        def increment(_: int) -> None:
            for _ in range(25):
                with locking.lock(sid) as record:
                    locking.save(sid, {"n": record.data["n"] + 1}, base=record, conflict="error")

        assert at_once(4, increment) == [None] * 4
        assert loaded(locking, sid).data == {"n": 100}


def able_to_lock(store: Store) -> LockingStore:
    """The store, if it can; the test is skipped if not."""
    if not isinstance(store, Locks):
        pytest.skip("the store cannot lock a session (stores.protocol.Locks)")
    return store


def take(store: LockingStore, sid: str, timeout: float = 0) -> None:
    """Take the lock, without waiting unless told to, and give it back."""
    with store.lock(sid, timeout=timeout):
        pass


def refusal(store: LockingStore, sid: str, timeout: float = 0) -> LockTimeout:
    """The error for a lock that is held by another."""
    with pytest.raises(LockTimeout) as refused:
        take(store, sid, timeout)
    return refused.value


def after_the_holder(store: LockingStore, sid: str, call: Callable[[], T]) -> T:
    """What the call of another gives, made while we hold the lock and save three times under it.

    It must have waited until the last of them was done.
    """
    asked, saved = threading.Event(), list[int]()

    def ask() -> tuple[T, list[int]]:
        asked.set()
        return call(), list(saved)

    with store.lock(sid):
        asking = started(ask)
        assert asked.wait(PATIENCE)
        for n in range(3):
            store.save(sid, {"n": n})
            saved.append(n)
    given, saved_before = ended(asking)
    assert saved_before == [0, 1, 2]
    return given
