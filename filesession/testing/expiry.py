"""When a session ends, and that it then stays ended."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Final

import pytest

from filesession.errors import ConfigurationError, EncodeError, SessionGone
from filesession.record import SessionRecord
from filesession.stores.protocol import Regenerates, Store
from filesession.testing.base import ContractTests, loaded
from filesession.testing.clock import ManualClock

CENTURY: Final = 100 * 365 * 86400

BAD_TIMEOUTS: Final[list[Any]] = [0, -1, math.nan, True, "5", timedelta(0), timedelta(-1)]


class ExpiryTests(ContractTests):
    """Idle and absolute timeouts, touches, and what one session has of its own."""

    keeps_cookie = True
    """Whether the store keeps cookie attributes; False skips their tests."""

    def test_an_idle_session_lives_to_its_deadline(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        record = store.create({"a": 1})
        clock.advance(100)
        assert store.load(record.id) == record

    def test_an_idle_session_is_over_a_touch_interval_past_its_deadline(
        self, clock: ManualClock
    ) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        clock.advance(110.001)
        assert store.load(sid) is None

    def test_a_touch_that_was_not_written_never_ends_a_session_early(
        self, clock: ManualClock
    ) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        clock.advance(9.99)
        assert store.touch(sid) is True
        clock.advance(100)
        assert store.load(sid) is not None

    def test_touches_keep_a_session_alive(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        record = store.create()
        for _ in range(10):
            clock.advance(90)
            assert store.touch(record.id, base=record) is True
            record = loaded(store, record.id)
            assert record.accessed_at == clock.now
            assert record.expires_at == clock.now + 100

    def test_many_touches_close_together_keep_a_session_alive(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        for _ in range(100):
            clock.advance(3)
            record = loaded(store, sid)
            assert store.touch(sid, base=record) is True
        assert clock.now - loaded(store, sid).accessed_at <= 10

    def test_with_a_touch_interval_of_zero_every_touch_is_written(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=0)
        sid = store.create().id
        for _ in range(3):
            clock.advance(0.001)
            store.touch(sid)
            assert loaded(store, sid).accessed_at == clock.now
        clock.advance(100.001)
        assert store.load(sid) is None

    def test_a_save_extends_a_session(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        for n in range(5):
            clock.advance(90)
            store.save(sid, {"n": n})
        assert loaded(store, sid).expires_at == clock.now + 100

    def test_a_load_does_not_extend_a_session(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        clock.advance(90)
        store.load(sid)
        clock.advance(90)
        assert store.load(sid) is None

    def test_the_absolute_timeout_counts_from_the_creation(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, absolute_timeout=300, touch_interval=10)
        record = store.create()
        assert record.expires_at == clock.now + 100
        for _ in range(4):
            clock.advance(75)
            assert store.touch(record.id) is True
        assert clock.now == record.created_at + 300
        assert loaded(store, record.id).expires_at == clock.now
        clock.advance(0.001)
        assert store.load(record.id) is None

    def test_neither_saves_nor_touches_extend_the_absolute_timeout(
        self, clock: ManualClock
    ) -> None:
        store = self.make_store(clock, idle_timeout=None, absolute_timeout=300)
        record = store.create()
        clock.advance(299)
        saved = store.save(record.id, {"a": 1}, base=record)
        assert store.touch(record.id, base=saved) is True
        assert saved.expires_at == record.created_at + 300
        clock.advance(1.001)
        assert store.load(record.id) is None

    def test_without_timeouts_a_session_lives_for_ever(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=None, absolute_timeout=None)
        record = store.create({"a": 1})
        assert (record.idle_timeout, record.absolute_timeout) == (None, None)
        assert record.expires_at is None
        clock.advance(CENTURY)
        assert store.load(record.id) == record

    def test_timeouts_may_be_timedeltas(self, clock: ManualClock) -> None:
        store = self.make_store(
            clock, idle_timeout=timedelta(minutes=30), absolute_timeout=timedelta(days=1)
        )
        record = store.create(idle_timeout=timedelta(hours=1))
        assert (record.idle_timeout, record.absolute_timeout) == (3600, 86400)

    def test_what_has_expired_never_comes_back(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        record = store.create({"a": 1})
        clock.advance(110.001)
        with pytest.raises(SessionGone):
            store.save(record.id, {"a": 2})
        with pytest.raises(SessionGone):
            store.save(record.id, {"a": 2}, base=record, conflict="overwrite")
        if isinstance(store, Regenerates):
            with pytest.raises(SessionGone):
                store.regenerate(record.id, base=record)
        assert store.touch(record.id) is False
        assert store.touch(record.id, base=record) is False
        assert store.load(record.id) is None
        assert store.delete(record.id) is False
        assert store.load(record.id) is None

    def test_a_touch_by_one_who_loaded_long_ago_extends(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        old = store.create()
        clock.advance(90)
        store.save(old.id, {"a": 1})
        clock.advance(90)
        assert store.touch(old.id, base=old) is True
        assert loaded(store, old.id).accessed_at == clock.now

    def test_a_clock_set_back_loses_no_session(self, store: Store, clock: ManualClock) -> None:
        record = store.create({"a": 1})
        clock.advance(-3600)
        assert loaded(store, record.id).data == {"a": 1}
        assert store.touch(record.id) is True
        assert loaded(store, record.id).data == {"a": 1}
        store.save(record.id, {"a": 2})
        assert loaded(store, record.id).data == {"a": 2}

    def test_a_session_may_have_a_shorter_idle_timeout(
        self, store: Store, clock: ManualClock
    ) -> None:
        record = store.create(idle_timeout=100)
        assert record.idle_timeout == 100
        assert record.expires_at == clock.now + 100
        clock.advance(100)
        assert store.load(record.id) == record
        clock.advance(60.001)
        assert store.load(record.id) is None

    def test_a_session_may_have_a_longer_idle_timeout(
        self, store: Store, clock: ManualClock
    ) -> None:
        record = store.create(idle_timeout=timedelta(days=30))
        clock.advance(29 * 86400)
        assert store.touch(record.id, base=record) is True
        clock.advance(29 * 86400)
        assert loaded(store, record.id).idle_timeout == 30 * 86400

    def test_a_session_may_have_no_timeouts_where_the_store_has(self, clock: ManualClock) -> None:
        store = self.make_store(clock, idle_timeout=100, absolute_timeout=300)
        record = store.create(idle_timeout=math.inf, absolute_timeout=math.inf)
        assert (record.idle_timeout, record.absolute_timeout) == (None, None)
        clock.advance(CENTURY)
        assert store.load(record.id) == record
        assert store.touch(record.id, base=record) is True

    def test_a_session_may_have_an_absolute_timeout_of_its_own(
        self, store: Store, clock: ManualClock
    ) -> None:
        record = store.create(absolute_timeout=60)
        assert record.absolute_timeout == 60
        clock.advance(50)
        store.save(record.id, {"a": 1})
        clock.advance(10.001)
        assert store.load(record.id) is None

    def test_a_save_leaves_a_sessions_own_timeouts(self, store: Store) -> None:
        record = store.create(idle_timeout=100, absolute_timeout=500)
        store.save(record.id, {"a": 1}, base=record)
        after = loaded(store, record.id)
        assert (after.idle_timeout, after.absolute_timeout) == (100, 500)

    def test_a_save_may_change_the_idle_timeout(self, store: Store, clock: ManualClock) -> None:
        sid = store.create().id
        for given, expected in [(100, 100), (math.inf, None), (None, 1800)]:
            saved = store.save(sid, {}, idle_timeout=given)
            assert saved.idle_timeout == expected
            assert store.load(sid) == saved
        clock.advance(1000)
        assert store.load(sid) is not None

    @pytest.mark.parametrize("timeout", BAD_TIMEOUTS, ids=repr)
    def test_a_timeout_that_is_no_positive_time_is_refused(
        self,
        store: Store,
        timeout: Any,  # noqa: ANN401
    ) -> None:
        record = store.create({"a": 1})
        with pytest.raises(ConfigurationError):
            store.create(sid="chosen", idle_timeout=timeout)
        with pytest.raises(ConfigurationError):
            store.create(sid="chosen", absolute_timeout=timeout)
        with pytest.raises(ConfigurationError):
            store.save(record.id, {"a": 2}, idle_timeout=timeout)
        assert store.load("chosen") is None
        assert store.load(record.id) == record

    def with_cookie(self, store: Store) -> SessionRecord:
        if not self.keeps_cookie:
            pytest.skip("the store keeps no cookie attributes (keeps_cookie)")
        return store.create({"a": 1}, cookie={"max_age": 86400, "same_site": "strict"})

    def test_cookie_attributes_are_kept(self, store: Store) -> None:
        record = self.with_cookie(store)
        assert record.cookie == {"max_age": 86400, "same_site": "strict"}
        assert store.load(record.id) == record
        store.save(record.id, {"a": 2}, base=record)
        assert loaded(store, record.id).cookie == record.cookie

    def test_cookie_attributes_are_replaced_as_a_whole(self, store: Store) -> None:
        record = self.with_cookie(store)
        saved = store.save(record.id, {"a": 1}, cookie={"secure": True})
        assert saved.cookie == {"secure": True}
        assert store.load(record.id) == saved

    def test_cookie_attributes_are_cleared_by_an_empty_mapping(self, store: Store) -> None:
        record = self.with_cookie(store)
        assert store.save(record.id, {"a": 1}, cookie={}).cookie == {}
        assert loaded(store, record.id).cookie == {}

    def test_cookie_attributes_may_have_any_name(self, store: Store) -> None:
        self.with_cookie(store)
        attributes = {"a": 1, "data": {"data": None}, "": ',"data":{}', "z": [True]}
        record = store.create({"data": 1}, cookie=attributes)
        assert record.cookie == attributes
        assert store.load(record.id) == record

    def test_a_cookie_attribute_that_would_change_is_refused(self, store: Store) -> None:
        before = self.with_cookie(store)
        with pytest.raises(EncodeError, match=r"cookie\.max_age"):
            store.create(sid="chosen", cookie={"max_age": timedelta(1)})
        with pytest.raises(EncodeError, match=r"cookie\.max_age"):
            store.save(before.id, {"a": 2}, cookie={"max_age": timedelta(1)})
        assert store.load("chosen") is None
        assert store.load(before.id) == before

    def test_changing_what_was_given_as_cookie_changes_nothing_stored(self, store: Store) -> None:
        given = {"max_age": 1}
        self.with_cookie(store)
        record = store.create(cookie=given)
        given["max_age"] = 2
        assert loaded(store, record.id).cookie == {"max_age": 1}
        given["max_age"] = 1
        store.save(record.id, {}, cookie=given)
        given["max_age"] = 2
        assert loaded(store, record.id).cookie == {"max_age": 1}
