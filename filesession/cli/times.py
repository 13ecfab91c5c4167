"""Points in time as a person reads them: by the wall clock, and from now."""

from __future__ import annotations

from datetime import datetime

from filesession.janitor.wording import span_text

NEVER = "never"


def clock_text(at: float) -> str:
    """A moment in local time, to the second: ``2026-11-24 01:36:12``."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{at:g} s"  # a moment that no calendar has, from a clock gone mad


def distance_text(at: float, now: float) -> str:
    """A moment as seen from now: ``3 h ago``, ``in 27 min``, ``now``."""
    away = at - now
    if abs(away) < 1:
        return "now"
    return f"in {span_text(away)}" if away > 0 else f"{span_text(-away)} ago"


def moment_text(at: float | None, now: float) -> str:
    """Both: ``2026-11-24 01:36:12, 3 h ago``; None is ``never``."""
    return NEVER if at is None else f"{clock_text(at)}, {distance_text(at, now)}"
