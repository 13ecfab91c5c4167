"""Calls that raise rather than wait, for an event loop that must never stand still."""

from __future__ import annotations

import pytest

from filesession.errors import LockTimeout, WouldSync
from filesession.stores.protocol import Impatient, Locks, Regenerates, Store
from filesession.testing.base import PATIENCE, ContractTests, in_thread, loaded
from filesession.testing.locking import able_to_lock, refusal


class WaitingTests(ContractTests):
    """``without_waiting``; skipped for a store without."""

    def test_without_waiting_a_held_lock_is_refused_at_once(self, store: Store) -> None:
        """A verb that needs a lock another holds raises ``LockTimeout`` at once; a load goes on.

        It runs on the event loop: a call that waits there stops every request of the process, the
        holder's too, and nobody ever gets on.
        """
        locking, impatient = able_to_lock(store), without_waiting(store)
        record = locking.create({"a": 1})
        with locking.lock(record.id):
            in_thread(lambda: refused_at_once(impatient, record.id))
            assert locking.load(record.id) == record

    def test_without_waiting_a_call_inside_the_lock_goes_through_or_would_sync(
        self, store: Store
    ) -> None:
        """The form that never waits knows the locks its store's callers hold.

        Under ``session.alock()`` the middleware saves through it. If it took its own holder for
        another, no such save would ever succeed.
        """
        locking, impatient = able_to_lock(store), without_waiting(store)
        sid = locking.create({"a": 1}).id
        with locking.lock(sid):
            try:
                impatient.save(sid, {"a": 2})
            except WouldSync:
                locking.save(sid, {"a": 2})
        assert loaded(locking, sid).data == {"a": 2}
        assert loaded(locking, sid).version == 2

    def test_without_waiting_the_sessions_are_the_same(self, store: Store) -> None:
        """It is a second way to the same sessions; what has to wait for a disk is ``WouldSync``.

        The middleware then makes the call in a thread. A store that waits all the same stops the
        event loop; one that does half of it does it twice.
        """
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


def without_waiting(store: Store) -> Store:
    """The store's form that never waits, if it has one; the test is skipped if not."""
    if not isinstance(store, Impatient):
        pytest.skip("the store has no form that never waits (stores.protocol.Impatient)")
    return store.without_waiting()


def refused_at_once(impatient: Store, sid: str) -> None:
    """Whatever needs the lock, refused because another holds it, or the disk is slow."""
    with pytest.raises((LockTimeout, WouldSync)):
        impatient.save(sid, {"a": 2})
    with pytest.raises((LockTimeout, WouldSync)):
        impatient.delete(sid)
    if isinstance(impatient, Regenerates):
        with pytest.raises((LockTimeout, WouldSync)):
            impatient.regenerate(sid)
    if isinstance(impatient, Locks):
        refusal(impatient, sid, timeout=PATIENCE)
