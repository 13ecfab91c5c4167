"""When sweeps are due. Real seconds pass in none of these: the triggers are asked, not awaited."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from filesession.errors import ConfigurationError
from filesession.janitor.schedule import DEFAULT_INTERVAL, Schedule

DEADLINE = 10
MONDAY = datetime(2026, 11, 23, 0, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    local_zone(monkeypatch, "UTC")


def local_zone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("apscheduler.triggers.cron.get_localzone", lambda: ZoneInfo(name))


def nothing() -> None:
    pass


def schedule(**plan: Any) -> Schedule:
    return Schedule(nothing, **{"interval": None, "cron": None, **plan})


def times(cron: str, count: int, start: datetime = MONDAY) -> list[datetime]:
    """The next ``count`` times of a crontab text."""
    trigger = schedule(cron=cron)._trigger()
    found: list[datetime] = []
    moment = start
    for _ in range(count):
        coming = trigger.get_next_fire_time(None, moment)
        assert coming is not None
        found.append(coming)
        moment = coming + timedelta(microseconds=1)
    return found


def days(cron: str, count: int = 7) -> list[str]:
    return [f"{moment:%a}" for moment in times(cron, count)]


class Running:
    """A schedule at work, and how often it called."""

    def __init__(self, **plan: Any) -> None:
        self.calls = 0
        self._called = threading.Condition()
        self.schedule = Schedule(self._call, **{"interval": None, "cron": None, **plan})

    def _call(self) -> None:
        with self._called:
            self.calls += 1
            self._called.notify_all()

    def wait_for(self, calls: int) -> None:
        with self._called:
            assert self._called.wait_for(lambda: self.calls >= calls, DEADLINE)


@pytest.fixture
def hourly() -> Iterator[Running]:
    running = Running(interval=3600)
    running.schedule.start()
    running.wait_for(1)
    yield running
    running.schedule.stop()


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [(None, DEFAULT_INTERVAL), (5, 5.0), (0.5, 0.5), (timedelta(minutes=2), 120.0)],
)
def test_an_interval_is_seconds_or_a_timedelta(interval: Any, seconds: float) -> None:
    assert schedule(interval=interval).interval == seconds


@pytest.mark.parametrize(
    "interval",
    [
        0,
        -5,
        0.01,
        float("nan"),
        float("inf"),
        1e12,
        True,
        "60",
        timedelta(0),
        timedelta(days=40),
        object(),
    ],
)
def test_an_interval_that_cannot_be_is_refused(interval: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"interval must be from 0\.1 to \d+ seconds"):
        schedule(interval=interval)


def test_interval_and_cron_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        schedule(interval=60, cron="* * * * *")


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "hello",
        "* * * *",
        "* * * * * *",
        "61 * * * *",
        "* 24 * * *",
        "*/0 * * * *",
        "* * * * 8",
        "* * * * someday",
        "* * * * 1/0",
        "* * * * 1-",
        "@hourly",
        5,
    ],
)
def test_a_cron_text_that_cannot_be_read_is_refused(cron: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read.*five fields"):
        schedule(cron=cron)


def test_a_cron_text_that_never_comes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="never comes"):
        schedule(cron="0 0 31 2 *")


def test_a_cron_text_names_minutes_and_hours() -> None:
    found = times("*/20 4 * * *", 4)
    assert [f"{moment:%a %H:%M}" for moment in found] == [
        "Mon 04:00",
        "Mon 04:20",
        "Mon 04:40",
        "Tue 04:00",
    ]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("0", ["Sun"]),
        ("7", ["Sun"]),
        ("1", ["Mon"]),
        ("sun", ["Sun"]),
        ("SAT", ["Sat"]),
        ("1-5", ["Mon", "Tue", "Wed", "Thu", "Fri"]),
        ("5-7", ["Fri", "Sat", "Sun"]),
        ("0-2", ["Mon", "Tue", "Sun"]),
        ("fri-mon", ["Mon", "Fri", "Sat", "Sun"]),
        ("1,3", ["Mon", "Wed"]),
        ("*/2", ["Tue", "Thu", "Sat", "Sun"]),
        ("1-5/2", ["Mon", "Wed", "Fri"]),
        ("3/2", ["Wed", "Fri"]),
        ("0-7", ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]),
    ],
)
def test_weekdays_are_those_of_cron_whose_week_starts_on_sunday(
    field: str, expected: list[str]
) -> None:
    assert days(f"0 0 * * {field}", len(expected)) == expected


def test_a_day_of_the_month_and_a_weekday_both_count_as_cron_has_it() -> None:
    found = times("0 0 25 * 5", 3)
    assert [f"{moment:%a %d}" for moment in found] == ["Wed 25", "Fri 27", "Fri 04"]


def test_cron_is_in_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    local_zone(monkeypatch, "Asia/Tokyo")
    (found,) = times("0 3 * * *", 1)
    assert found.astimezone(UTC).hour == 18


@pytest.mark.parametrize("plan", [{"interval": 3600}, {"cron": "0 0 1 1 *"}])
def test_the_first_sweep_is_due_at_once(plan: dict[str, Any]) -> None:
    running = Running(**plan)
    running.schedule.start()
    try:
        running.wait_for(1)
    finally:
        running.schedule.stop()


def test_sweeps_follow_each_other_by_the_interval() -> None:
    running = Running(interval=0.1)
    running.schedule.start()
    try:
        running.wait_for(3)
    finally:
        running.schedule.stop()


def test_the_next_sweep_is_known_while_it_runs(hourly: Running) -> None:
    planned = hourly.schedule.next_at()
    assert planned is not None
    assert 3500 < planned - datetime.now(UTC).timestamp() <= 3600
    hourly.schedule.stop()
    assert hourly.schedule.next_at() is None


def test_a_schedule_that_stopped_calls_no_more_and_may_start_again(hourly: Running) -> None:
    hourly.schedule.stop()
    hourly.schedule.stop()
    hourly.schedule.clock_moved(100)
    assert hourly.calls == 1
    hourly.schedule.start()
    hourly.wait_for(2)


def test_when_the_clock_is_set_back_the_next_sweep_is_an_interval_away(hourly: Running) -> None:
    job = hourly.schedule._job
    assert job is not None
    job.modify(next_run_time=datetime.now(UTC) + timedelta(days=400))
    hourly.schedule.clock_moved(-400 * 86400)
    planned = hourly.schedule.next_at()
    assert planned is not None
    assert planned - datetime.now(UTC).timestamp() <= 3600


def test_when_the_clock_is_set_forward_what_is_due_comes_at_once(hourly: Running) -> None:
    job = hourly.schedule._job
    assert job is not None
    job.next_run_time = datetime.now(UTC) - timedelta(seconds=1)  # behind the scheduler's back
    hourly.schedule._scheduler._jobstores["default"].update_job(job)  # type: ignore[union-attr]
    hourly.schedule.clock_moved(3600)
    hourly.wait_for(2)


@pytest.mark.parametrize("plan", [{"interval": 0.1}, {"cron": "* * * * *"}])
def test_half_a_century_of_missed_sweeps_is_passed_over_in_a_step(plan: dict[str, Any]) -> None:
    trigger = schedule(**plan)._trigger()
    now = datetime.now(UTC)
    coming = trigger.get_next_fire_time(now - timedelta(days=20_000), now)
    assert coming is not None
    assert timedelta(0) < coming - now <= timedelta(minutes=1)


def test_after_missed_sweeps_a_whole_interval_passes_for_who_looks_into_a_hold() -> None:
    trigger = schedule(interval=60)._trigger()
    missed = datetime.now(UTC)
    for late in (86_401, 86_430, 86_459):
        now = missed + timedelta(seconds=late)
        assert trigger.get_next_fire_time(missed, now) == now + timedelta(seconds=60)


def test_the_scheduler_says_nothing_of_its_usual_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    running = Running(interval=0.1)
    running.schedule.start()
    running.wait_for(2)
    running.schedule.stop()
    assert caplog.records == []


STARTS = """
import sys, threading
from filesession.janitor.schedule import Schedule
due = threading.Event()
cron = sys.argv[1] or None
schedule = Schedule(due.set, interval=None, cron=cron)
before = set(sys.modules)
schedule.start()
assert due.wait(20)
schedule.stop()
print(*sys.modules.keys() - before)
"""


@pytest.mark.parametrize("cron", ["", "0 0 1 1 *"])
def test_to_start_loads_no_module_which_a_child_forked_meanwhile_could_never_load(
    cron: str,
) -> None:
    code = [sys.executable, "-c", STARTS, cron]
    run = subprocess.run(code, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []
