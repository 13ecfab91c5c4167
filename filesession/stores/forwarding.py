"""The grace after a regenerate: where requests are led that still carry the old id. No I/O.

Rules:

1. The old id is dead for every writer from the first moment. Only a reader who finds nothing under
   it looks for where the session went.
2. The grace counts from the regenerate, by the reader's own setting. A moment before that, by a
   clock that was set back, is not within it.
3. What is noted is the new handle, never the new id, and the session's lineage: another session
   that comes to lie under that handle is not where the old id leads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from filesession.errors import ConfigurationError, shown
from filesession.lifetime import Timeout, seconds
from filesession.record import SessionRecord

LONGEST_GRACE: Final = 10.0
"""Seconds. Whoever has the old id can read the session for that long, an attacker who planted it
too: enough for requests that are under way, and no more."""

MOST_STEPS: Final = 8
"""Notes followed from one old id: a session is given new ids that often in a grace by no one, and
notes that lead in a circle end."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Where a session went.

    Attributes:
        handle: its new stored name.
        lineage: that of the session.
        at: POSIX seconds of the regenerate.
    """

    handle: str
    lineage: str
    at: float


def grace_of(value: Timeout | None) -> float | None:
    """The grace in seconds; None: there is none.

    Raises:
        ConfigurationError: it is no positive time, or longer than 10 seconds.
    """
    grace = seconds("regenerate_grace", value)
    if value is not None and (grace is None or grace > LONGEST_GRACE):
        msg = (
            f"regenerate_grace must be at most {LONGEST_GRACE:g} seconds, not {shown(value)}:"
            " for so long the old id opens the session to whoever has it"
        )
        raise ConfigurationError(msg)
    return grace


def followed(
    noted: Callable[[str], Forwarding | None], handle: str, now: float, grace: float
) -> Iterator[Forwarding]:
    """Where the session of ``handle`` may be now: one note after the other, the nearest first.

    A note of another session that had an id on the way, and left it, leads to that one: it ends it.
    """
    lineage = None
    for _ in range(MOST_STEPS):
        forwarding = noted(handle)
        if forwarding is None or not 0 <= now - forwarding.at <= grace:
            return
        if lineage not in {None, forwarding.lineage}:
            return
        lineage = forwarding.lineage
        yield forwarding
        handle = forwarding.handle


def reached(
    load: Callable[[str], SessionRecord | None], forwardings: Iterator[Forwarding]
) -> SessionRecord | None:
    """The session where an old id leads, to be read; None when there is none any more."""
    for forwarding in forwardings:
        record = load(forwarding.handle)
        if record is not None and record.lineage == forwarding.lineage:
            return replace(record, forwarded=True)
    return None
