"""The store as a whole: listed, swept, counted, emptied, closed."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol

import pytest

from filesession.record import SessionInfo
from filesession.stores.protocol import KeepsSecret, Store, Sweeps
from filesession.testing.base import ContractTests, at_once, in_thread, loaded
from filesession.testing.clock import ManualClock
from filesession.testing.locking import able_to_lock
from filesession.testing.regenerating import able_to_regenerate


class SweepingStore(Store, Sweeps, Protocol):
    """A store that can be inspected and cleaned."""


class WholeStoreTests(ContractTests):
    """``scan``, ``sweep``, ``clear``, ``len``, ``close``, the key; skipped for a store without."""

    @pytest.fixture
    def sweeping(self, clock: ManualClock) -> SweepingStore:
        """A store with short timeouts, for tests of scan and sweep; skipped for a store without."""
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        if not isinstance(store, Sweeps):
            pytest.skip("the store cannot be scanned and swept (stores.protocol.Sweeps)")
        return store

    def test_a_scan_lists_all_that_is_stored(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """A scan gives each stored session once, with its size and its times, and no deleted one.

        ``filesession ls`` and ``status`` show it: an operator who looks for the disk's contents
        must find all of it.
        """
        start = clock.now
        ids = [sweeping.create({"text": "x" * 100 * n}).id for n in range(3)]
        clock.advance(50)
        sweeping.save(ids[0], {"a": 1})
        sweeping.delete(ids[2])
        found = sorted(sweeping.scan(), key=lambda info: info.accessed_at)
        assert [info.created_at for info in found] == [start, start]
        assert [info.accessed_at for info in found] == [start, start + 50]
        assert [info.expires_at for info in found] == [start + 100, start + 150]
        assert found[0].size > 100
        assert len({info.handle for info in found}) == 2

    def test_a_scan_lists_what_has_expired(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """What is over but not swept is listed too, with the ``expires_at`` it had.

        It takes up space. A scan that hides it hides that no janitor runs.
        """
        sid = sweeping.create({"a": 1}).id
        clock.advance(100_000)
        assert sweeping.load(sid) is None
        [info] = sweeping.scan()
        assert info.expires_at == info.created_at + 100

    def test_a_scan_knows_when_a_session_was_touched(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """``accessed_at`` and ``expires_at`` of a scan are those of a load, touches included.

        ``filesession ls`` and ``status`` show them: a store that shows the last save has a user who
        is at work look idle, and an operator end the session.
        """
        sid = sweeping.create().id
        clock.advance(50)
        sweeping.touch(sid)
        [info] = sweeping.scan()
        assert (info.accessed_at, info.expires_at) == (clock.now, clock.now + 100)

    def test_a_scan_knows_the_timeouts_a_session_has_of_its_own(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """``expires_at`` is each session's own: its shorter, longer or absent timeouts count.

        The janitor files sessions by it: with the store's timeout for all, short ones stay too long
        and endless ones are looked at for ever.
        """
        sweeping.create(idle_timeout=10)
        sweeping.create(idle_timeout=float("inf"))
        sweeping.create(absolute_timeout=20)
        expected = {clock.now + 10, None, clock.now + 20}
        assert {info.expires_at for info in sweeping.scan()} == expected

    def test_a_scan_shows_no_id(self, sweeping: SweepingStore) -> None:
        """A scan names sessions by a handle from which the id cannot be told, nor a session loaded.

        A listing ends up in tickets and terminals: with ids in it, it is a list of logins.
        """
        sid = sweeping.create().id
        [info] = sweeping.scan()
        assert info.handle != sid
        assert sid not in repr(info)
        assert sweeping.load(info.handle) is None

    def test_a_session_keeps_its_handle(self, sweeping: SweepingStore) -> None:
        """The handle of a session stays the same over its saves.

        ``filesession show`` and ``destroy`` take the handle that ``ls`` printed a minute ago.
        """
        sid = sweeping.create({"a": 1}).id
        [before] = sweeping.scan()
        sweeping.save(sid, {"a": 2})
        [after] = sweeping.scan()
        assert before.handle == after.handle

    def test_a_scan_bears_with_changes_made_meanwhile(self, sweeping: SweepingStore) -> None:
        """Sessions may come and go while a scan is under way; it goes on.

        A live store never stands still: a scan that raises, as looping over a changing dict does,
        is one that never works in production.
        """
        ids = [sweeping.create().id for _ in range(10)]
        seen: list[SessionInfo] = []
        for info in sweeping.scan():
            seen.append(info)
            sweeping.delete(ids.pop())
            sweeping.create()
        assert len(seen) >= 1

    def test_a_sweep_deletes_what_is_due_and_nothing_else(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """A sweep removes what is past its end and the grace, and reports what it saw and freed.

        One session too many logs a user out; one too few fills the disk. The janitor's metrics and
        warnings are this report.
        """
        due, expired = sweeping.create({"n": 1}).id, sweeping.create({"n": 2}).id
        clock.advance(50)
        sweeping.save(expired, {"n": 2})
        clock.advance(70.001)
        fresh, lasting = sweeping.create().id, sweeping.create(idle_timeout=10_000).id
        sizes = {info.created_at + info.accessed_at: info.size for info in sweeping.scan()}
        clock.advance(45)
        report = sweeping.sweep()
        assert (report.examined, report.expired) == (4, 1)
        assert report.freed in sizes.values()
        assert report.oldest_overdue == pytest.approx(45.001, abs=1e-5)
        assert report.started_at == clock.now
        assert (report.complete, report.dry_run, report.busy) == (True, False, 0)
        assert (report.corrupt, report.leftovers) == (0, 0)
        assert report.seconds >= 0
        assert len(list(sweeping.scan())) == 3
        assert sweeping.load(due) is None
        assert sweeping.load(expired) is None
        assert loaded(sweeping, fresh).data == {}
        assert loaded(sweeping, lasting).data == {}

    def test_a_sweep_leaves_a_session_for_two_touch_intervals_past_its_deadline(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """A session is due two touch intervals past its deadline: one for load, one for requests.

        A request that loaded it at the last moment may still touch or save it: swept earlier, that
        user's work is ``SessionGone``.
        """
        sweeping.create()
        clock.advance(120)
        assert sweeping.sweep().expired == 0
        clock.advance(0.001)
        assert sweeping.sweep().expired == 1

    def test_a_sweep_heeds_a_shorter_timeout_of_a_sessions_own(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """A session's own timeout decides when it is due, also one shorter than the store's.

        A store that sweeps by its own timeout alone keeps what an app meant to be short-lived, one
        session for each visit of a crawler, on the disk.
        """
        sweeping.create(idle_timeout=20)
        clock.advance(40)
        assert sweeping.sweep().expired == 0
        clock.advance(0.001)
        assert sweeping.sweep().expired == 1

    def test_a_sweep_under_a_clock_set_back_deletes_nothing(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """A session last active in the future is not old: no sweep may delete it.

        A server whose clock ran ahead is corrected while people are logged in. A store that takes
        the distance for an age logs all of them out.
        """
        sid = sweeping.create({"a": 1}).id
        clock.advance(-100_000)
        assert sweeping.sweep().expired == 0
        assert loaded(sweeping, sid).data == {"a": 1}

    def test_a_sweep_leaves_what_was_touched(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """A touch puts a session off for the sweep as it does for a load.

        A store that sweeps by the last save deletes the sessions of people who only read.
        """
        sid = sweeping.create().id
        clock.advance(90)
        sweeping.touch(sid)
        clock.advance(90)
        assert sweeping.sweep().expired == 0
        assert loaded(sweeping, sid).version == 1

    def test_a_sweep_heeds_the_absolute_timeout(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """A session past its absolute timeout and one touch interval is due, whatever was saved.

        Otherwise sessions without an idle timeout, though over, are never removed.
        """
        sid = sweeping.create(idle_timeout=float("inf"), absolute_timeout=50).id
        clock.advance(45)
        sweeping.save(sid, {})
        clock.advance(15)
        assert sweeping.load(sid) is None
        assert sweeping.sweep().expired == 0
        clock.advance(0.001)
        assert sweeping.sweep().expired == 1

    def test_a_sweep_of_an_empty_store_finds_nothing(self, sweeping: SweepingStore) -> None:
        """An empty store is swept without error, with a report of zeros that is complete.

        The janitor starts before the first visitor comes.
        """
        report = sweeping.sweep(limit=0)
        assert (report.examined, report.expired, report.freed) == (0, 0, 0)
        assert report.complete

    def test_a_dry_run_only_counts(self, sweeping: SweepingStore, clock: ManualClock) -> None:
        """``dry_run`` reports what a sweep would do, up to its limit, and deletes nothing.

        ``filesession status`` asks it every time: it must not log anybody out.
        """
        for n in range(3):
            sweeping.create({"n": n})
        clock.advance(1000)
        sweeping.create()
        rehearsed = sweeping.sweep(dry_run=True)
        assert (rehearsed.examined, rehearsed.expired, rehearsed.dry_run) == (4, 3, True)
        assert sweeping.sweep(dry_run=True, limit=2).expired == 2
        assert len(list(sweeping.scan())) == 4
        report = sweeping.sweep()
        assert (report.expired, report.freed) == (rehearsed.expired, rehearsed.freed)

    def test_a_sweep_deletes_no_more_than_its_limit(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """``limit`` bounds how many go; a sweep that it ended early is not ``complete``.

        The janitor works off a backlog in portions. Over the limit it slows the app, and if it
        claims to be done it stops too soon.
        """
        for n in range(5):
            sweeping.create({"n": n})
        clock.advance(1000)
        first = sweeping.sweep(limit=2)
        assert (first.expired, first.complete) == (2, False)
        assert len(list(sweeping.scan())) == 3
        second = sweeping.sweep(limit=10)
        assert (second.expired, second.complete) == (3, True)

    def test_a_sweep_tells_how_far_it_is(self, sweeping: SweepingStore, clock: ManualClock) -> None:
        """``progress`` is called with the number of sessions looked at, after each of them.

        The bar of ``filesession sweep`` hangs on it: without it a long sweep is taken for one that
        hangs, and ended halfway.
        """
        for _ in range(3):
            sweeping.create()
        clock.advance(1000)
        sweeping.create()
        told: list[int] = []
        sweeping.sweep(progress=told.append)
        assert told == [1, 2, 3, 4]

    def test_a_sweep_takes_no_session_from_the_holder_of_its_lock(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        """A due session whose lock is held stays, and is ``busy`` or waited for.

        Its holder is a request at work. Deleted under its hands, what it saves next is lost.
        """
        locking = able_to_lock(sweeping)
        held = locking.lock(sweeping.create({"a": 1}).id)
        in_thread(held.__enter__)
        clock.advance(1000)
        stored_while_held: list[int] = []

        def release(_: int) -> None:
            stored_while_held.append(len(list(sweeping.scan())))
            held.__exit__(None, None, None)

        report = sweeping.sweep(progress=release)
        assert stored_while_held == [1]
        assert report.expired + report.busy == 1
        assert report.expired + sweeping.sweep().expired == 1
        assert list(sweeping.scan()) == []

    def test_a_session_that_was_deleted_or_moved_is_not_listed(
        self, sweeping: SweepingStore
    ) -> None:
        """After a regenerate a scan lists the new handle alone, and after a delete none.

        An entry left behind is a session that nobody can end and no janitor expires.
        """
        moving = able_to_regenerate(sweeping)
        sid = sweeping.create().id
        [before] = sweeping.scan()
        new = moving.regenerate(sid)
        [after] = sweeping.scan()
        assert before.handle != after.handle
        sweeping.delete(new.id)
        assert list(sweeping.scan()) == []

    def test_clear_removes_everything_and_counts_the_live(self, clock: ManualClock) -> None:
        """``clear`` leaves nothing and gives the number that were live; ids are free again.

        It is what logs everybody out after a breach: one session left is one too many.
        """
        store = with_method(self.make_store(clock, idle_timeout=100), "clear")
        expired = store.create().id
        clock.advance(1000)
        live = [store.create(sid=f"live {n}").id for n in range(3)]
        assert store.clear() == 3
        assert [store.load(sid) for sid in [expired, *live]] == [None] * 4
        assert store.clear() == 0
        store.create(sid="live 0")
        assert loaded(store, "live 0").version == 1

    def test_the_length_is_what_is_stored(self, clock: ManualClock) -> None:
        """``len`` counts what is stored, the expired that are not yet swept included.

        It is the number to watch on a disk: without the expired ones a janitor that died goes
        unseen.
        """
        store = self.make_store(clock, idle_timeout=100)
        if not isinstance(store, Sized):
            pytest.skip("the store has no length (collections.abc.Sized)")
        assert len(store) == 0
        store.create()
        sid = store.create().id
        assert len(store) == 2
        store.delete(sid)
        assert len(store) == 1
        clock.advance(1000)
        assert len(store) == 1

    def test_a_key_is_made_once_and_stays(self, store: Store) -> None:
        """``signing_key`` gives 32 random bytes or more, the same to every caller from then on.

        It signs the cookies: two workers with different keys, or one that makes a new key when it
        starts, log every user out at every other request.
        """
        if not isinstance(store, KeepsSecret):
            pytest.skip("the store keeps no key (stores.protocol.KeepsSecret)")
        keys = at_once(4, lambda _: store.signing_key())
        assert keys == [store.signing_key()] * 4
        assert len(store.signing_key()) >= 32
        assert len(set(store.signing_key())) > 8

    def test_a_store_is_true_also_when_it_is_empty(self, store: Store) -> None:
        """A store with a length is true even when that is zero.

        ``store or default`` in an app would otherwise pick another store until the first session is
        stored.
        """
        assert bool(store) is True

    def test_a_store_may_be_closed_twice(self, store: Store) -> None:
        """Closing again does nothing.

        Servers and test clients both call it at the end: an error there hides the one that
        mattered.
        """
        store.create()
        closing = with_method(store, "close")
        closing.close()
        closing.close()


def with_method(store: Store, name: str) -> Any:  # noqa: ANN401 - the store, known to have more
    """The store, if it has that method; the test is skipped if not."""
    if not hasattr(store, name):
        pytest.skip(f"the store has no {name}()")
    return store
