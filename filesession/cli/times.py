"""Points in time as a person reads them: by the wall clock, and from now."""

from __future__ import annotations

import time

from filesession.janitor.wording import span_text

NEVER = "never"


def clock_text(at: float) -> str:
    """A moment in local time, to the second: ``2026-11-24 01:36:12``."""
    return _local("%Y-%m-%d %H:%M:%S", at)


def distance_text(at: float, now: float) -> str:
    """A moment as seen from now: ``3 h ago``, ``in 27 min``, ``now``."""
    away = at - now
    if abs(away) < 1:
        return "now"
    return f"in {span_text(away)}" if away > 0 else f"{span_text(-away)} ago"


def moment_text(at: float | None, now: float) -> str:
    """Both, with the zone's offset: ``2026-11-24 01:36:12 +0100, 3 h ago``; None is ``never``."""
    if at is None:
        return NEVER
    return f"{_local('%Y-%m-%d %H:%M:%S %z', at)}, {distance_text(at, now)}"


def _local(form: str, at: float) -> str:
    try:
        return time.strftime(form, time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return f"{at:g} s"  # a moment that no calendar has, from a clock gone mad
