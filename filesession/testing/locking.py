"""A session kept for one holder."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from filesession.errors import LockTimeout, SessionGone, StoreError, WouldSync
from filesession.stores.protocol import Impatient, Locks, Store
from filesession.testing.base import PATIENCE, ContractTests, at_once, in_thread, loaded
from filesession.testing.clock import ManualClock
from filesession.testing.regenerating import able_to_regenerate


class LockingStore(Store, Locks, Protocol):
    """A store that can lock a session."""


class LockingTests(ContractTests):
    """``lock`` and ``without_waiting``; skipped for a store without."""

    @pytest.fixture
    def locking(self, store: Store) -> LockingStore:
        return able_to_lock(store)

    def test_a_lock_gives_the_fresh_record(self, locking: LockingStore) -> None:
        sid = locking.create({"a": 1}).id
        saved = locking.save(sid, {"a": 2})
        with locking.lock(sid) as record:
            assert record == saved
            assert record.id == sid

    @pytest.mark.parametrize("sid", ["unknown", "", "x" * 257, "a\nb"], ids=ascii)
    def test_there_is_no_lock_on_a_session_that_is_not_there(
        self, locking: LockingStore, sid: str
    ) -> None:
        with pytest.raises(SessionGone), locking.lock(sid):
            raise AssertionError
        assert locking.load(sid) is None

    def test_there_is_no_lock_on_a_session_that_has_expired(
        self, locking: LockingStore, clock: ManualClock
    ) -> None:
        sid = locking.create(idle_timeout=10).id
        clock.advance(100)
        with pytest.raises(SessionGone), locking.lock(sid):
            raise AssertionError
        assert locking.delete(sid) is False

    def test_a_lock_is_exclusive(self, locking: LockingStore) -> None:
        sid = locking.create().id
        with locking.lock(sid):
            error = in_thread(lambda: refusal(locking, sid))
        assert isinstance(error, StoreError)
        assert isinstance(error, TimeoutError)
        assert sid not in str(error)
        in_thread(lambda: take(locking, sid))

    def test_a_lock_keeps_no_other_session(self, locking: LockingStore) -> None:
        one, two = locking.create().id, locking.create().id
        with locking.lock(one):
            in_thread(lambda: take(locking, two))
            in_thread(lambda: locking.save(two, {"a": 1}))
            with locking.lock(two):
                in_thread(lambda: refusal(locking, one))

    def test_anothers_save_waits_for_the_lock(self, locking: LockingStore) -> None:
        sid = locking.create({"n": 0}).id
        asked = threading.Event()

        def save() -> list[int]:
            asked.set()
            locking.save(sid, {"n": "theirs"})
            return list(done)

        done: list[int] = []
        with ThreadPoolExecutor(1) as pool:
            with locking.lock(sid):
                saving = pool.submit(save)
                assert asked.wait(PATIENCE)
                for n in range(3):
                    locking.save(sid, {"n": n})
                    done.append(n)
            assert saving.result(PATIENCE) == [0, 1, 2]
        assert loaded(locking, sid).data == {"n": "theirs"}

    def test_anothers_load_and_touch_do_not_wait(
        self, locking: LockingStore, clock: ManualClock
    ) -> None:
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
        sid = locking.create({"a": 1}).id
        with pytest.raises(ZeroDivisionError), locking.lock(sid):
            raise ZeroDivisionError
        in_thread(lambda: take(locking, sid))
        take(locking, sid)

    def test_a_lock_inside_a_lock_is_the_outer_ones(self, locking: LockingStore) -> None:
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
        sid = locking.create({"a": 1}).id
        with locking.lock(sid) as record:
            assert locking.delete(sid) is True
            assert locking.load(sid) is None
            with pytest.raises(SessionGone):
                locking.save(sid, {"a": 2}, base=record)
            with pytest.raises(SessionGone), locking.lock(sid):
                raise AssertionError
            assert locking.delete(sid) is False
        assert locking.load(sid) is None

    def test_a_session_deleted_inside_may_be_created_anew(self, locking: LockingStore) -> None:
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
        sid = locking.create().id
        asked = threading.Event()

        def save() -> None:
            asked.set()
            with pytest.raises(SessionGone):
                locking.save(sid, {"a": 2})

        with ThreadPoolExecutor(1) as pool:
            with locking.lock(sid):
                saving = pool.submit(save)
                assert asked.wait(PATIENCE)
                locking.delete(sid)
            saving.result(PATIENCE)
        assert locking.load(sid) is None

    def test_a_session_regenerated_inside_stays_locked(self, locking: LockingStore) -> None:
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
            with pytest.raises(SessionGone), locking.lock(old):
                raise AssertionError
        assert loaded(locking, new.id).data == {"a": 3}
        in_thread(lambda: take(locking, new.id))

    def test_a_lock_may_be_released_in_another_thread(self, locking: LockingStore) -> None:
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
        sid = locking.create({"a": 1}).id
        held, theirs = locking.lock(sid), locking.lock(sid)
        held.__enter__()
        in_thread(lambda: held.__exit__(None, None, None))
        in_thread(theirs.__enter__)
        refusal(locking, sid)
        in_thread(lambda: theirs.__exit__(None, None, None))
        take(locking, sid)

    def test_increments_under_the_lock_are_exact(self, locking: LockingStore) -> None:
        sid = locking.create({"n": 0}).id

        def increment(_: int) -> None:
            for _ in range(25):
                with locking.lock(sid) as record:
                    locking.save(sid, {"n": record.data["n"] + 1}, base=record, conflict="error")

        assert at_once(4, increment) == [None] * 4
        assert loaded(locking, sid).data == {"n": 100}

    def test_without_waiting_a_held_lock_is_refused_at_once(self, locking: LockingStore) -> None:
        impatient = without_waiting(locking)
        record = locking.create({"a": 1})
        with locking.lock(record.id):
            in_thread(lambda: refused_at_once(impatient, record.id))
            assert locking.load(record.id) == record

    def test_without_waiting_a_call_inside_the_lock_goes_through_or_would_sync(
        self, locking: LockingStore
    ) -> None:
        impatient = without_waiting(locking)
        sid = locking.create({"a": 1}).id
        with locking.lock(sid):
            try:
                impatient.save(sid, {"a": 2})
            except WouldSync:
                locking.save(sid, {"a": 2})
        assert loaded(locking, sid).data == {"a": 2}
        assert loaded(locking, sid).version == 2

    def test_without_waiting_the_sessions_are_the_same(self, store: Store) -> None:
        impatient = without_waiting(store)
        try:
            record = impatient.create({"a": 1})
        except WouldSync:
            record = store.create({"a": 1})
        assert store.load(record.id) == record
        saved = store.save(record.id, {"a": 2})
        assert impatient.load(record.id) == saved
        assert impatient.touch(record.id) is True
        try:
            assert impatient.delete(record.id) is True
        except WouldSync:
            assert impatient.load(record.id) == saved
        else:
            assert store.load(record.id) is None


def able_to_lock(store: Store) -> LockingStore:
    """The store, if it can; the test is skipped if not."""
    if not isinstance(store, Locks):
        pytest.skip("the store cannot lock a session (stores.protocol.Locks)")
    return store


def without_waiting(store: Store) -> Store:
    """The store's form that never waits, if it has one; the test is skipped if not."""
    if not isinstance(store, Impatient):
        pytest.skip("the store has no form that never waits (stores.protocol.Impatient)")
    return store.without_waiting()


def take(store: LockingStore, sid: str) -> None:
    """Take the lock without waiting, and give it back."""
    with store.lock(sid, timeout=0):
        pass


def refusal(store: LockingStore, sid: str) -> LockTimeout:
    """The error for a lock that is held by another."""
    with pytest.raises(LockTimeout) as refused:
        take(store, sid)
    return refused.value


def refused_at_once(impatient: Store, sid: str) -> None:
    """A save and a delete, refused because another holds the lock, or the disk is slow."""
    with pytest.raises((LockTimeout, WouldSync)):
        impatient.save(sid, {"a": 2})
    with pytest.raises((LockTimeout, WouldSync)):
        impatient.delete(sid)
    if isinstance(impatient, Locks):
        with pytest.raises(LockTimeout), impatient.lock(sid):
            raise AssertionError
