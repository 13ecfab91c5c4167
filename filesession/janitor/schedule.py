"""When sweeps are due: the one module that knows apscheduler.

Rules:

1. The first sweep is due at once, whatever the plan: what expired while no janitor ran has waited
   long enough.
2. Runs missed while the machine slept, or was busy, become one run, at once. Their number is not
   counted run by run: a clock that starts in 1970 and is then set right has missed millions. After
   it a whole interval passes: a sweep that held back leaves that time to whoever is to look.
3. apscheduler plans by the wall clock and waits by another. When the wall clock is set back it
   would wait until the old time comes again, so whoever notices calls ``clock_moved``.
4. To start loads no module: of a process that is forked while a thread does, no child ever gets
   past that import. (Left alone, apscheduler makes a pool of threads, and asks for the time zone.)
5. A crontab text means what cron makes of it, where apscheduler differs (its week starts on Monday
   with 0, and it wants both the day of the month and the day of the week to match).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from apscheduler.executors.debug import DebugExecutor
from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from filesession.errors import ConfigurationError
from filesession.lifetime import Timeout

DEFAULT_INTERVAL: Final = 60.0
"""Seconds between sweeps."""

SHORTEST_INTERVAL: Final = 0.1
"""Seconds. Below it a janitor would do nothing but sweep."""

LONGEST_INTERVAL: Final = 31 * 86400.0
"""Seconds, a month. More is a mistyped number, or a disk that fills."""

_EXECUTOR: Final = "filesession"

_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAYS_PART: Final = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?\Z")
_DAY_FIELD: Final = 2
_WEEKDAY_FIELD: Final = 4
_FIELDS: Final = 5


class Schedule:
    """Calls ``due`` whenever a sweep is due, from a thread of its own; ``due`` must not block.

    Args:
        due: called without arguments.
        interval: seconds or ``timedelta`` between sweeps.
        cron: a crontab text instead, in local time: minute, hour, day of month, month, day of week.

    Raises:
        ConfigurationError: both are given, or one that cannot be used.
    """

    def __init__(
        self, due: Callable[[], None], *, interval: Timeout | None, cron: str | None
    ) -> None:
        if interval is not None and cron is not None:
            msg = "give an interval or a cron text, not both"
            raise ConfigurationError(msg)
        self.cron = cron
        self.interval = None if cron is not None else _checked(interval)
        self._due = due
        self._scheduler: BackgroundScheduler | None = None
        self._job: Job | None = None
        self._trigger()

    def start(self) -> None:
        """Begin: the first sweep is due at once. A schedule that was stopped may start again."""
        scheduler = BackgroundScheduler(
            daemon=True,
            timezone=UTC,
            # In the scheduler's own thread: no pool to join. It wants a default, used or not.
            executors={_EXECUTOR: DebugExecutor(), "default": DebugExecutor()},
            logger=_quiet("filesession.janitor.schedule"),
        )
        _quiet(f"apscheduler.executors.{_EXECUTOR}")
        self._job = scheduler.add_job(
            self._due,
            self._trigger(),
            next_run_time=datetime.now(UTC),
            executor=_EXECUTOR,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
        scheduler.start()
        self._scheduler = scheduler

    def stop(self) -> None:
        """End it; ``due`` is not called once this returned. May be called at any time."""
        scheduler, self._scheduler, self._job = self._scheduler, None, None
        if scheduler is not None:
            scheduler.shutdown()

    def forget(self) -> None:
        """Drop what a fork left of a schedule: its thread stayed with the parent."""
        self._scheduler = self._job = None

    def next_at(self) -> float | None:
        """When the next sweep is due, in POSIX seconds; None when it is not started."""
        planned = None if self._job is None else self._job.next_run_time
        return None if planned is None else float(planned.timestamp())

    def clock_moved(self, seconds: float) -> None:
        """The wall clock was set by that much: what is due by the new time is due now."""
        if self._scheduler is None or self._job is None:
            return
        if seconds < 0:
            self._job.reschedule(self._trigger())
        self._scheduler.wakeup()

    def _trigger(self) -> BaseTrigger:
        if self.cron is None:
            zone = UTC  # intervals know no daylight saving
            return _Coalesced(IntervalTrigger(seconds=self.interval, timezone=zone))
        try:
            trigger = _cron_trigger(self.cron)
        except (ValueError, LookupError, AttributeError) as error:
            msg = (
                f"cron {self.cron!r} cannot be read: {error}; it has the five fields of crontab(5),"
                ' for example "*/5 * * * *" for every five minutes'
            )
            raise ConfigurationError(msg) from error
        if trigger.get_next_fire_time(None, datetime.now(UTC)) is None:
            msg = f"cron {self.cron!r} names a time that never comes"
            raise ConfigurationError(msg)
        return _Coalesced(trigger)


class _Coalesced(BaseTrigger):
    """A trigger that passes over the times it missed in one step (rule 2)."""

    __slots__ = ("_trigger",)

    def __init__(self, trigger: BaseTrigger) -> None:
        self._trigger = trigger

    def get_next_fire_time(
        self, previous_fire_time: datetime | None, now: datetime
    ) -> datetime | None:
        coming: datetime | None = self._trigger.get_next_fire_time(previous_fire_time, now)
        if previous_fire_time is not None and coming is not None and coming <= now:
            coming = self._trigger.get_next_fire_time(now, now)
        return coming


def _checked(interval: Any) -> float:  # noqa: ANN401 - it is what a user gave
    if interval is None:
        return DEFAULT_INTERVAL
    if isinstance(interval, timedelta):
        interval = interval.total_seconds()
    number = isinstance(interval, (int, float)) and not isinstance(interval, bool)
    if number and SHORTEST_INTERVAL <= interval <= LONGEST_INTERVAL:
        return float(interval)
    msg = (
        f"interval must be from {SHORTEST_INTERVAL} to {LONGEST_INTERVAL:.0f} seconds (31 days),"
        f" not {interval!r}"
    )
    raise ConfigurationError(msg)


def _cron_trigger(text: str) -> BaseTrigger:
    fields = text.split()
    if len(fields) != _FIELDS:
        msg = f"{len(fields)} fields, not {_FIELDS}"
        raise ValueError(msg)
    both = not (fields[_DAY_FIELD].startswith("*") or fields[_WEEKDAY_FIELD].startswith("*"))
    fields[_WEEKDAY_FIELD] = _weekdays(fields[_WEEKDAY_FIELD])
    if not both:
        return CronTrigger.from_crontab(" ".join(fields))
    by_day, by_weekday = list(fields), list(fields)
    by_day[_WEEKDAY_FIELD] = by_weekday[_DAY_FIELD] = "*"
    return OrTrigger([CronTrigger.from_crontab(" ".join(each)) for each in (by_day, by_weekday)])


def _weekdays(field: str) -> str:
    """Cron's days of the week by name: numbers count from Sunday, which is 0 and 7."""
    if field == "*":
        return field
    days: set[str] = set()
    for part in field.lower().split(","):
        found = _DAYS_PART.match(part)
        if found is None:
            msg = f"day of week {part!r}"
            raise ValueError(msg)
        first, last = _day(found["first"] or "sun"), _day(found["last"] or found["first"] or "sat")
        if found["step"] and not found["last"]:
            last = _day("sat")
        if last < first:
            last += 7  # over the weekend: fri-mon, or sat-sun
        days.update(_DAYS[day % 7] for day in range(first, last + 1, int(found["step"] or 1)))
    return ",".join(sorted(days))


def _day(text: str) -> int:
    if text in {"0", "1", "2", "3", "4", "5", "6", "7"}:
        return int(text)
    if text not in _DAYS:
        msg = f"day of week {text!r}"
        raise ValueError(msg)
    return _DAYS.index(text)


def _quiet(name: str) -> logging.Logger:
    """A logger for warnings only: what apscheduler says of every run, the janitor says better."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.WARNING)
    return logger
