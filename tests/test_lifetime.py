"""When a session ends: the rules, at their boundaries and as laws."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.errors import ConfigurationError
from filesession.lifetime import LONGEST_TOUCH_INTERVAL, UNSET, Lifetime, seconds, waiting
from filesession.testing.clock import START

limits = st.none() | st.floats(1e-3, 1e8)
intervals = st.none() | st.floats(0, 1e6)
lifetimes = st.builds(Lifetime, limits, limits, intervals)
times = st.floats(1e9, 2e9)

BAD: Final[list[Any]] = [0, 0.0, -1, math.nan, -math.inf, True, "60", Decimal(60), timedelta(0)]


class TestSeconds:
    @pytest.mark.parametrize(
        ("given_value", "expected"),
        [(60, 60.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (None, None), (math.inf, None)],
    )
    def test_a_timeout_is_seconds_or_a_timedelta_or_none(
        self, given_value: Any, expected: float | None
    ) -> None:
        found = seconds("idle_timeout", given_value)
        assert found == expected
        assert found is None or type(found) is float

    @pytest.mark.parametrize("value", BAD, ids=repr)
    def test_what_is_no_positive_time_is_refused_by_name(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="idle_timeout must be a positive number"):
            seconds("idle_timeout", value)
        for position in range(2):
            wanted = [60, 60, 60]
            wanted[position] = value
            with pytest.raises(ConfigurationError):
                Lifetime.of(*wanted)

    @pytest.mark.parametrize("value", [0, 0.0, timedelta(0)], ids=repr)
    def test_a_touch_interval_may_be_zero(self, value: Any) -> None:
        assert Lifetime.of(60, None, value).slack == 0

    @pytest.mark.parametrize("value", [-1, False, math.nan, "0"], ids=repr)
    def test_a_touch_interval_may_not_be_anything(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="touch_interval"):
            Lifetime.of(60, None, value)


class TestSlack:
    @pytest.mark.parametrize(
        ("idle", "interval", "expected"),
        [
            (100, None, 5),
            (1200, None, 60),
            (1800, None, 60),
            (86400, None, 60),
            (None, None, 60),
            (100, 30.0, 30),
            (None, 30.0, 30),
            (100, 0.0, 0),
        ],
    )
    def test_it_is_a_twentieth_of_the_idle_timeout_a_minute_at_most(
        self, idle: float | None, interval: float | None, expected: float
    ) -> None:
        assert Lifetime(idle, None, interval).slack == expected

    def test_a_session_with_a_timeout_of_its_own_has_a_slack_of_its_own(self) -> None:
        store = Lifetime(1800.0, None, None)
        assert store.overridden(100.0, UNSET).slack == 5
        assert store.overridden(None, UNSET).slack == LONGEST_TOUCH_INTERVAL


class TestOverridden:
    def test_what_is_unset_is_the_stores(self) -> None:
        store = Lifetime(1800.0, 86400.0, 7.0)
        assert store.overridden(UNSET, UNSET) is store
        assert store.overridden(60.0, UNSET) == Lifetime(60.0, 86400.0, 7.0)
        assert store.overridden(UNSET, 60.0) == Lifetime(1800.0, 60.0, 7.0)
        assert store.overridden(None, None) == Lifetime(None, None, 7.0)


class TestBoundaries:
    """At the deadline a session lives; a moment past it, it does not."""

    def test_of_the_idle_timeout(self) -> None:
        lifetime = Lifetime(100.0, None, 10.0)
        last = START + 110
        assert lifetime.expires_at(START, START) == START + 100
        assert not lifetime.is_over(last, START, START)
        assert lifetime.is_over(math.nextafter(last, math.inf), START, START)
        assert lifetime.due_at(START, START) == START + 120

    def test_of_the_absolute_timeout(self) -> None:
        lifetime = Lifetime(None, 100.0, 10.0)
        last = START + 100
        assert lifetime.expires_at(START, START + 99) == last
        assert not lifetime.is_over(last, START, START + 99)
        assert lifetime.is_over(math.nextafter(last, math.inf), START, START + 99)
        assert lifetime.due_at(START, START + 99) == START + 110

    def test_of_a_touch(self) -> None:
        lifetime = Lifetime(100.0, None, 10.0)
        later = START + 10
        assert lifetime.wants_touch(later, START)
        assert not lifetime.wants_touch(math.nextafter(later, 0), START)
        assert not lifetime.wants_touch(START, START)
        assert lifetime.wants_touch(math.nextafter(START, 0), START)  # the clock was set back

    def test_with_an_interval_of_zero_every_touch_is_wanted(self) -> None:
        assert Lifetime(100.0, None, 0.0).wants_touch(START, START)


class TestLaws:
    @given(lifetimes, times, st.floats(0, 1e8), st.floats(0, 1e8))
    def test_what_is_over_stays_over(
        self, lifetime: Lifetime, created: float, first: float, more: float
    ) -> None:
        now = created + first
        if lifetime.is_over(now, created, created):
            assert lifetime.is_over(now + more, created, created)

    @given(lifetimes, times, st.floats(0, 1e8), st.floats(0, 1e8))
    def test_activity_never_ends_a_session_sooner(
        self, lifetime: Lifetime, created: float, accessed: float, now: float
    ) -> None:
        active = created + accessed
        if not lifetime.is_over(created + now, created, created):
            assert not lifetime.is_over(created + now, created, active)

    @given(lifetimes, times, st.floats(0, 1e8), st.floats(0, 1e8))
    def test_nothing_ends_before_it_expires(
        self, lifetime: Lifetime, created: float, accessed: float, now: float
    ) -> None:
        expires = lifetime.expires_at(created, created + accessed)
        if expires is None or created + now <= expires:
            assert not lifetime.is_over(created + now, created, created + accessed)

    @given(lifetimes, times, st.floats(0, 1e8), st.floats(0, 1e8))
    def test_the_janitor_takes_nothing_that_a_reader_would_get(
        self, lifetime: Lifetime, created: float, accessed: float, now: float
    ) -> None:
        due = lifetime.due_at(created, created + accessed)
        if due is not None and created + now > due:
            assert lifetime.is_over(created + now, created, created + accessed)

    @given(lifetimes, times, st.floats(0, 1e8), st.floats(0, 1))
    def test_a_skipped_touch_costs_no_time(
        self, lifetime: Lifetime, created: float, accessed: float, fraction: float
    ) -> None:
        active = created + accessed
        used = active + lifetime.slack * fraction
        if lifetime.wants_touch(used, active) or lifetime.idle_timeout is None:
            return
        idle = Lifetime(lifetime.idle_timeout, None, lifetime.touch_interval)
        end = math.nextafter(used + lifetime.idle_timeout, 0)
        assert not idle.is_over(end, created, active)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (0.5, 0.5),
        (timedelta(0), 0),
        (timedelta(minutes=1), 60),
        (math.inf, math.inf),
        (10**400, math.inf),
    ],
    ids=["0", "half a second", "timedelta 0", "a minute", "for ever", "ages"],
)
def test_a_wait_is_any_time_from_none_to_for_ever(value: Any, expected: float) -> None:
    assert waiting("timeout", value) == expected


@pytest.mark.parametrize(
    "value",
    [-1, -(10**400), timedelta(seconds=-1), math.nan, None, "1", True],
    ids=lambda value: repr(value)[:20],
)
def test_a_wait_that_is_no_time_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^timeout must be a number of seconds from 0"):
        waiting("timeout", value)


def test_a_timeout_beyond_all_numbers_is_none() -> None:
    assert seconds("idle_timeout", 10**400) is None
    with pytest.raises(ConfigurationError):
        seconds("idle_timeout", -(10**400))


def test_a_touch_interval_without_end_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="touch_interval must have an end"):
        Lifetime.of(1800, None, math.inf)
