"""The store as a whole: listed, swept, counted, emptied, closed."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol

import pytest

from filesession.record import SessionInfo
from filesession.stores.protocol import Store, Sweeps
from filesession.testing.base import ContractTests, in_thread, loaded
from filesession.testing.clock import ManualClock
from filesession.testing.locking import able_to_lock
from filesession.testing.regenerating import able_to_regenerate


class SweepingStore(Store, Sweeps, Protocol):
    """A store that can be inspected and cleaned."""


class WholeStoreTests(ContractTests):
    """``scan``, ``sweep``, ``clear``, ``len`` and ``close``; skipped for a store without."""

    @pytest.fixture
    def sweeping(self, clock: ManualClock) -> SweepingStore:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        if not isinstance(store, Sweeps):
            pytest.skip("the store cannot be scanned and swept (stores.protocol.Sweeps)")
        return store

    def test_a_scan_lists_all_that_is_stored(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
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
        sid = sweeping.create({"a": 1}).id
        clock.advance(100_000)
        assert sweeping.load(sid) is None
        [info] = sweeping.scan()
        assert info.expires_at == info.created_at + 100

    def test_a_scan_knows_the_timeouts_a_session_has_of_its_own(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        sweeping.create(idle_timeout=10)
        sweeping.create(idle_timeout=float("inf"))
        sweeping.create(absolute_timeout=20)
        expected = {clock.now + 10, None, clock.now + 20}
        assert {info.expires_at for info in sweeping.scan()} == expected

    def test_a_scan_shows_no_id(self, sweeping: SweepingStore) -> None:
        sid = sweeping.create().id
        [info] = sweeping.scan()
        assert info.handle != sid
        assert sid not in repr(info)
        assert sweeping.load(info.handle) is None

    def test_a_session_keeps_its_handle(self, sweeping: SweepingStore) -> None:
        sid = sweeping.create({"a": 1}).id
        [before] = sweeping.scan()
        sweeping.save(sid, {"a": 2})
        [after] = sweeping.scan()
        assert before.handle == after.handle

    def test_a_scan_bears_with_changes_made_meanwhile(self, sweeping: SweepingStore) -> None:
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
        assert len(list(sweeping.scan())) == 3
        assert sweeping.load(due) is None
        assert sweeping.load(expired) is None
        assert loaded(sweeping, fresh).data == {}
        assert loaded(sweeping, lasting).data == {}

    def test_a_sweep_leaves_a_session_for_two_touch_intervals_past_its_deadline(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        sweeping.create()
        clock.advance(120)
        assert sweeping.sweep().expired == 0
        clock.advance(0.001)
        assert sweeping.sweep().expired == 1

    def test_a_sweep_leaves_what_was_touched(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        sid = sweeping.create().id
        clock.advance(90)
        sweeping.touch(sid)
        clock.advance(90)
        assert sweeping.sweep().expired == 0
        assert loaded(sweeping, sid).version == 1

    def test_a_sweep_heeds_the_absolute_timeout(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        sid = sweeping.create(idle_timeout=float("inf"), absolute_timeout=50).id
        clock.advance(45)
        sweeping.save(sid, {})
        clock.advance(10)
        assert sweeping.load(sid) is None
        clock.advance(100)
        assert sweeping.sweep().expired == 1

    def test_a_sweep_of_an_empty_store_finds_nothing(self, sweeping: SweepingStore) -> None:
        report = sweeping.sweep(limit=0)
        assert (report.examined, report.expired, report.freed) == (0, 0, 0)
        assert report.complete

    def test_a_dry_run_only_counts(self, sweeping: SweepingStore, clock: ManualClock) -> None:
        for n in range(3):
            sweeping.create({"n": n})
        clock.advance(1000)
        sweeping.create()
        rehearsed = sweeping.sweep(dry_run=True)
        assert (rehearsed.examined, rehearsed.expired, rehearsed.dry_run) == (4, 3, True)
        assert len(list(sweeping.scan())) == 4
        report = sweeping.sweep()
        assert (report.expired, report.freed) == (rehearsed.expired, rehearsed.freed)

    def test_a_sweep_deletes_no_more_than_its_limit(
        self, sweeping: SweepingStore, clock: ManualClock
    ) -> None:
        for n in range(5):
            sweeping.create({"n": n})
        clock.advance(1000)
        first = sweeping.sweep(limit=2)
        assert (first.expired, first.complete) == (2, False)
        assert len(list(sweeping.scan())) == 3
        second = sweeping.sweep(limit=10)
        assert (second.expired, second.complete) == (3, True)

    def test_a_sweep_tells_how_far_it_is(self, sweeping: SweepingStore, clock: ManualClock) -> None:
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
        moving = able_to_regenerate(sweeping)
        sid = sweeping.create().id
        [before] = sweeping.scan()
        new = moving.regenerate(sid)
        [after] = sweeping.scan()
        assert before.handle != after.handle
        sweeping.delete(new.id)
        assert list(sweeping.scan()) == []

    def test_clear_removes_everything_and_counts_the_live(self, clock: ManualClock) -> None:
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

    def test_a_store_is_true_also_when_it_is_empty(self, store: Store) -> None:
        assert bool(store) is True

    def test_a_store_may_be_closed_twice(self, store: Store) -> None:
        store.create()
        closing = with_method(store, "close")
        closing.close()
        closing.close()


def with_method(store: Store, name: str) -> Any:  # noqa: ANN401 - the store, known to have more
    """The store, if it has that method; the test is skipped if not."""
    if not hasattr(store, name):
        pytest.skip(f"the store has no {name}()")
    return store
