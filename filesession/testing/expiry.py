"""When a session ends, and that it then stays ended."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Final

import pytest

from filesession.errors import ConfigurationError, SessionGone
from filesession.lifetime import Timeout
from filesession.stores.protocol import Regenerates, Store
from filesession.testing.base import ContractTests, loaded
from filesession.testing.clock import ManualClock

CENTURY: Final = 100 * 365 * 86400

BAD_TIMEOUTS: Final[list[Any]] = [0, -1, math.nan, True, "5", timedelta(0), timedelta(-1)]


class ExpiryTests(ContractTests):
    """Idle and absolute timeouts, of the store and of one session; touches and saves."""

    def test_an_idle_session_lives_to_its_deadline(self, clock: ManualClock) -> None:
        """A session is alive up to and at ``accessed_at + idle_timeout``: never early.

        A user who comes back in the last second of the half hour is still logged in. Look at ``>``
        and ``>=``, and at times cut to whole seconds.
        """
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        record = store.create({"a": 1})
        clock.advance(100)
        assert store.load(record.id) == record

    def test_an_idle_session_is_over_a_touch_interval_past_its_deadline(
        self, clock: ManualClock
    ) -> None:
        """Past the idle timeout and one touch interval ``load`` gives None, swept or not.

        The timeout is what protects a session left open on a shared machine. It must not wait for
        the janitor, or for the store's own clean-up.
        """
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        clock.advance(110.001)
        assert store.load(sid) is None

    def test_a_touch_that_was_not_written_never_ends_a_session_early(
        self, clock: ManualClock
    ) -> None:
        """A touch skipped as too close to the last still counts: the session lives on for it.

        Skipping is paid for with one touch interval of grace on load. Without that a user who
        clicks all the time is logged out early.
        """
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        clock.advance(9.99)
        assert store.touch(sid) is True
        clock.advance(100)
        assert store.load(sid) is not None

    def test_touches_keep_a_session_alive(self, clock: ManualClock) -> None:
        """Each touch makes the session last another idle timeout, and the record says so.

        Requests that only read are activity: without it people are logged out while they read.
        """
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        record = store.create()
        for _ in range(10):
            clock.advance(90)
            assert store.touch(record.id, base=record) is True
            record = loaded(store, record.id)
            assert record.accessed_at == clock.now
            assert record.expires_at == clock.now + 100

    def test_many_touches_close_together_keep_a_session_alive(self, clock: ManualClock) -> None:
        """Of touches close together at least one an interval is written down.

        A store that measures from the last touch it skipped, not from the last it wrote, never
        writes one, and ends the session of the busiest user.
        """
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        for _ in range(100):
            clock.advance(3)
            record = loaded(store, sid)
            assert store.touch(sid, base=record) is True
        assert clock.now - loaded(store, sid).accessed_at <= 10

    def test_with_a_touch_interval_of_zero_every_touch_is_written(self, clock: ManualClock) -> None:
        """``touch_interval=0`` writes every touch, and the idle timeout is then exact.

        It is for those whose rules allow no grace: a session that is said to end after 100 seconds
        ends after 100.
        """
        store = self.make_store(clock, idle_timeout=100, touch_interval=0)
        sid = store.create().id
        for _ in range(3):
            clock.advance(0.001)
            store.touch(sid)
            assert loaded(store, sid).accessed_at == clock.now
        clock.advance(100.001)
        assert store.load(sid) is None

    @pytest.mark.parametrize(("idle", "interval"), [(100, 5), (86_400, 60)])
    def test_the_touch_interval_is_a_twentieth_of_the_idle_timeout_and_a_minute_at_most(
        self, clock: ManualClock, idle: int, interval: int
    ) -> None:
        """Without ``touch_interval`` a session ends at most that much late, and never early.

        An idle timeout is a promise to an auditor: "logged out after fifteen minutes" may become
        sixteen, not thirty, and not fourteen for the user who is at work.
        """
        store = self.make_store(clock, idle_timeout=idle)
        active, idling = store.create().id, store.create().id
        clock.advance(interval - 0.01)
        assert store.touch(active) is True
        clock.advance(idle)
        assert store.load(active) is not None
        clock.advance(0.02)
        assert store.load(idling) is None

    def test_a_save_extends_a_session(self, clock: ManualClock) -> None:
        """A save is activity like a touch.

        The middleware does not touch a session that it saved: where a save does not extend, the
        users who do most are logged out first.
        """
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        for n in range(5):
            clock.advance(90)
            store.save(sid, {"n": n})
        assert loaded(store, sid).expires_at == clock.now + 100

    def test_a_load_does_not_extend_a_session(self, clock: ManualClock) -> None:
        """Looking at a session is no activity.

        A monitor or ``filesession show`` loads sessions too; a store that extends on load, as a
        cache with sliding expiry does, keeps them open for ever.
        """
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        sid = store.create().id
        clock.advance(90)
        store.load(sid)
        clock.advance(90)
        assert store.load(sid) is None

    def test_the_absolute_timeout_counts_from_the_creation(self, clock: ManualClock) -> None:
        """However often it is touched, a session ends ``absolute_timeout`` after its creation.

        It bounds how long a stolen cookie is good. ``expires_at`` has to show the nearer of the two
        ends.
        """
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
        """No activity moves the absolute end, with an idle timeout or without one.

        A store that sets one time-to-live anew with every write turns the absolute timeout into
        another idle one.
        """
        store = self.make_store(clock, idle_timeout=None, absolute_timeout=300)
        record = store.create()
        clock.advance(299)
        saved = store.save(record.id, {"a": 1}, base=record)
        assert store.touch(record.id, base=saved) is True
        assert saved.expires_at == record.created_at + 300
        clock.advance(1.001)
        assert store.load(record.id) is None

    def test_without_timeouts_a_session_lives_for_ever(self, clock: ManualClock) -> None:
        """None is no limit: not the default, not zero, not some years.

        Sessions without end are chosen for devices and kiosks. An expiry that the store sets all
        the same logs them out when nobody is there to log in.
        """
        store = self.make_store(clock, idle_timeout=None, absolute_timeout=None)
        record = store.create({"a": 1})
        assert (record.idle_timeout, record.absolute_timeout) == (None, None)
        assert record.expires_at is None
        clock.advance(CENTURY)
        assert store.load(record.id) == record

    def test_timeouts_may_be_timedeltas(self, clock: ManualClock) -> None:
        """A timeout may be a ``timedelta`` wherever it may be seconds; records give seconds.

        An app moves between stores by changing one line, and the timeouts stand in that line.
        """
        store = self.make_store(
            clock, idle_timeout=timedelta(minutes=30), absolute_timeout=timedelta(days=1)
        )
        record = store.create(idle_timeout=timedelta(hours=1))
        assert (record.idle_timeout, record.absolute_timeout) == (3600, 86400)

    def test_what_has_expired_never_comes_back(self, clock: ManualClock) -> None:
        """After its end every verb treats a session as absent, and none revives it.

        A late request of the user who left must not open the session again for the next at that
        machine. Check under the lock that it is alive, before writing.
        """
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
        """A touch whose base looks expired asks the store: others may have kept the session alive.

        A long download ends with a touch. A store that believes its old record tells the middleware
        that a live session is gone.
        """
        store = self.make_store(clock, idle_timeout=100, touch_interval=10)
        old = store.create()
        clock.advance(90)
        store.save(old.id, {"a": 1})
        clock.advance(90)
        assert store.touch(old.id, base=old) is True
        assert loaded(store, old.id).accessed_at == clock.now

    def test_a_clock_set_back_loses_no_session(self, store: Store, clock: ManualClock) -> None:
        """When the clock goes back a session lies in the future, and is alive and usable.

        Clocks are corrected on running servers. A store that takes negative ages for large ones, or
        refuses such writes, logs everybody out.
        """
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
        """``create(idle_timeout=...)`` overrides the store's: the record shows it, ``load`` obeys.

        Apps give anonymous visitors a short life. Without it a crawler fills the store for the
        whole timeout.
        """
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
        """A session's own longer timeout holds, and touches extend by it and not by the store's.

        "Remember me" for a month must not become half an hour with the first request after the
        login.
        """
        record = store.create(idle_timeout=timedelta(days=30))
        clock.advance(29 * 86400)
        assert store.touch(record.id, base=record) is True
        clock.advance(29 * 86400)
        assert loaded(store, record.id).idle_timeout == 30 * 86400

    def test_a_session_may_have_no_timeouts_where_the_store_has(self, clock: ManualClock) -> None:
        """``math.inf`` for a session is no limit, where None would be the store's own.

        One device that stays logged in must not need a store of its own.
        """
        store = self.make_store(clock, idle_timeout=100, absolute_timeout=300)
        record = store.create(idle_timeout=math.inf, absolute_timeout=math.inf)
        assert (record.idle_timeout, record.absolute_timeout) == (None, None)
        clock.advance(CENTURY)
        assert store.load(record.id) == record
        assert store.touch(record.id, base=record) is True

    def test_a_session_may_have_an_absolute_timeout_of_its_own(
        self, store: Store, clock: ManualClock
    ) -> None:
        """A session's own absolute timeout ends it, whatever was saved meanwhile.

        Apps bound a login as administrator so; a store that forgets it leaves that login open as
        long as somebody clicks.
        """
        record = store.create(absolute_timeout=60)
        assert record.absolute_timeout == 60
        clock.advance(50)
        store.save(record.id, {"a": 1})
        clock.advance(10.001)
        assert store.load(record.id) is None

    def test_a_save_leaves_a_sessions_own_timeouts(self, store: Store) -> None:
        """A save that names no timeout leaves those that the session has.

        Nearly every save is such a one: a store that resets them there makes "remember me" last for
        one page.
        """
        record = store.create(idle_timeout=100, absolute_timeout=500)
        store.save(record.id, {"a": 1}, base=record)
        after = loaded(store, record.id)
        assert (after.idle_timeout, after.absolute_timeout) == (100, 500)

    def test_one_timeout_of_its_own_leaves_a_session_the_other(self, clock: ManualClock) -> None:
        """A session with an idle timeout of its own still has the store's absolute one, and so on.

        "Remember me" lengthens the idle timeout; it must not take away the day after which
        everybody has to log in again.
        """
        store = self.make_store(clock, idle_timeout=100, absolute_timeout=300, touch_interval=10)
        idling, ageing = store.create(idle_timeout=1000), store.create(absolute_timeout=1000)
        assert (idling.idle_timeout, idling.absolute_timeout) == (1000, 300)
        assert (ageing.idle_timeout, ageing.absolute_timeout) == (100, 1000)
        clock.advance(110.001)
        assert store.load(ageing.id) is None
        assert loaded(store, idling.id).expires_at == idling.created_at + 300
        clock.advance(190)
        assert store.load(idling.id) is None

    def test_a_stale_save_keeps_the_idle_timeout_set_meanwhile(self, store: Store) -> None:
        """A save that is given no ``idle_timeout`` leaves the stored one, not that of its base.

        Another request ticked "remember me" while this one ran. A store that writes back what it
        loaded takes the tick away again.
        """
        base = store.create({"a": 1})
        store.save(base.id, {"a": 1}, base=base, idle_timeout=timedelta(days=30))
        assert store.save(base.id, {"a": 2}, base=base).idle_timeout == 30 * 86_400
        assert loaded(store, base.id).idle_timeout == 30 * 86_400

    def test_an_idle_timeout_given_to_a_save_is_what_ends_the_session(
        self, store: Store, clock: ManualClock
    ) -> None:
        """From the save on the session ends after the new time, not only says so.

        An app shortens the timeout when a user enters the administration. A store that goes on with
        the expiry it set at creation leaves that session open for the rest of the half hour.
        """
        sid = store.create().id
        store.save(sid, {}, idle_timeout=100)
        clock.advance(160.001)
        assert store.load(sid) is None

    def test_a_save_may_change_the_idle_timeout(self, store: Store, clock: ManualClock) -> None:
        """``save(idle_timeout=...)`` replaces the session's own; None gives it the store's again.

        ``session.idle_timeout`` is settable, and this is how it is kept. UNSET, not None, says that
        it did not change.
        """
        sid = store.create().id
        changes: list[tuple[Timeout | None, float | None]] = [
            (100, 100),
            (math.inf, None),
            (timedelta(minutes=5), 300),
            (None, 1800),
        ]
        for given, expected in changes:
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
        """A timeout that is not a positive time is a ``ConfigurationError``, and nothing is stored.

        Zero or NaN from a settings file would make sessions that are over at once, or never: better
        an error at the first of them.
        """
        record = store.create({"a": 1})
        with pytest.raises(ConfigurationError):
            store.create(sid="chosen", idle_timeout=timeout)
        with pytest.raises(ConfigurationError):
            store.create(sid="chosen", absolute_timeout=timeout)
        with pytest.raises(ConfigurationError):
            store.save(record.id, {"a": 2}, idle_timeout=timeout)
        assert store.load("chosen") is None
        assert store.load(record.id) == record
