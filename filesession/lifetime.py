"""When a session ends, and when its file may go: arithmetic on POSIX seconds, no I/O.

Rules, for a session last active at ``accessed`` with a touch interval ``t``:

1. Touches closer together than ``t`` are skipped, so the last activity may be up to ``t`` later
   than ``accessed`` says. A session is over for a reader only past ``accessed + idle_timeout + t``:
   never early, at most ``t`` late.
2. The absolute timeout counts from the creation, which is known exactly: over past
   ``created + absolute_timeout``.
3. The janitor leaves the file another ``t`` in both cases, so that what a request loaded at the
   last moment it may still touch.
4. A moment equal to the deadline is still alive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias

from filesession.errors import ConfigurationError, shown

Timeout: TypeAlias = float | timedelta
"""Seconds or a ``timedelta``; positive. ``math.inf`` is "no such limit" for a single session."""


class Unset(Enum):
    """The type of ``UNSET``."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""Not given, where None would say something: the value that is there stays."""

Unsettable: TypeAlias = Literal[Unset.UNSET]

TOUCH_FRACTION: Final = 20
"""A touch interval is this part of the idle timeout: what a session may live too long, 5 %."""

LONGEST_TOUCH_INTERVAL: Final = 60.0
"""Seconds. A day-long idle timeout is still known to the minute."""


def seconds(name: str, value: Timeout | None) -> float | None:
    """A timeout in seconds, None for no limit.

    Raises:
        ConfigurationError: it is not a positive number or ``timedelta``.
    """
    if value is None:
        return None
    number = _number(value)
    if number is None or not number > 0:
        allowed = "a positive number of seconds, a timedelta or None"
        msg = f"{name} must be {allowed}, not {shown(value)}"
        raise ConfigurationError(msg)
    return None if number == math.inf else number


def waiting(name: str, value: Timeout) -> float:
    """How long to wait, in seconds: 0 not at all, ``math.inf`` for ever.

    Raises:
        ConfigurationError: it is neither a number of seconds from 0 nor such a ``timedelta``.
    """
    number = _number(value)
    if number is None or not number >= 0:
        msg = f"{name} must be a number of seconds from 0, or a timedelta, not {shown(value)}"
        raise ConfigurationError(msg)
    return number


def _number(value: object) -> float | None:
    """Seconds, or None for what is no time; an integer too large for a float is infinite."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The timeouts in force, in seconds; None for no such limit.

    ``touch_interval=None`` is a twentieth of the idle timeout, a minute at most.
    """

    idle_timeout: float | None = 1800.0
    absolute_timeout: float | None = None
    touch_interval: float | None = None

    @classmethod
    def of(
        cls,
        idle_timeout: Timeout | None,
        absolute_timeout: Timeout | None,
        touch_interval: Timeout | None,
    ) -> Lifetime:
        """Checked and in seconds; a touch interval of 0 writes every touch.

        Raises:
            ConfigurationError: a value is not a positive time.
        """
        interval = None if touch_interval is None else waiting("touch_interval", touch_interval)
        if interval == math.inf:
            msg = "touch_interval must have an end: a session would never expire"
            raise ConfigurationError(msg)
        return cls(
            seconds("idle_timeout", idle_timeout),
            seconds("absolute_timeout", absolute_timeout),
            interval,
        )

    def overridden(
        self, idle: float | Unsettable | None, absolute: float | Unsettable | None
    ) -> Lifetime:
        """The lifetime of a session that has timeouts of its own."""
        if idle is UNSET and absolute is UNSET:
            return self
        own = self
        if idle is not UNSET:
            own = replace(own, idle_timeout=idle)
        if absolute is not UNSET:
            own = replace(own, absolute_timeout=absolute)
        return own

    @property
    def slack(self) -> float:
        """The touch interval in force, in seconds."""
        if self.touch_interval is not None:
            return self.touch_interval
        if self.idle_timeout is None:
            return LONGEST_TOUCH_INTERVAL
        return min(self.idle_timeout / TOUCH_FRACTION, LONGEST_TOUCH_INTERVAL)

    def expires_at(self, created: float, accessed: float) -> float | None:
        """When the session ends if nothing more happens, without the slack; None: never."""
        idle = None if self.idle_timeout is None else accessed + self.idle_timeout
        if self.absolute_timeout is None:
            return idle
        absolute = created + self.absolute_timeout
        return absolute if idle is None else min(idle, absolute)

    def is_over(self, now: float, created: float, accessed: float) -> bool:
        """Whether a reader must be told that there is no such session (rules 1 and 2)."""
        if self.idle_timeout is not None and now > accessed + self.idle_timeout + self.slack:
            return True
        return self.absolute_timeout is not None and now > created + self.absolute_timeout

    def due_at(self, created: float, accessed: float) -> float | None:
        """The moment after which the janitor may delete the file (rule 3); None: never."""
        slack = self.slack
        idle = None if self.idle_timeout is None else accessed + self.idle_timeout + 2 * slack
        if self.absolute_timeout is None:
            return idle
        absolute = created + self.absolute_timeout + slack
        return absolute if idle is None else min(idle, absolute)

    def wants_touch(self, now: float, accessed: float) -> bool:
        """Whether activity now is worth writing down; a last activity in the future always is."""
        return not 0 <= now - accessed < self.slack
