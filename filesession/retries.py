"""Trying a store call again that failed: how often, after what pause, and what may have come of it.

Rules:

1. Only a ``StoreError`` is tried again, as it may pass; not ``LockTimeout``, which has waited long
   enough. A touch is not: the next request of the session touches it anyway.
2. A call that failed may have been done all the same, when it was its answer that was lost. A load,
   a save or a delete says again what it said. A create that finds its own id taken does not take
   that session for its own: it could be another's. A regenerate that finds its session gone looks
   whether it is under the new id, and is done then. A save with ``conflict="error"`` that meets the
   very data it wrote goes on from there.
3. So a session may be left that nobody can reach, until it expires. None is given to another, and
   none that was deleted comes back.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from filesession.calls import StoreCall
from filesession.errors import (
    ConfigurationError,
    ConflictError,
    LockTimeout,
    SessionExists,
    SessionGone,
    StoreError,
    shown,
)
from filesession.record import SessionRecord
from filesession.stores.entry import new_id

RetryDelay: TypeAlias = Callable[[int], float]
"""Seconds before another try, by its number, from 1."""

FIRST_DELAY: Final = 0.05
"""Seconds before the first of them: what a store needs to be found again after a hiccup."""

LONGEST_DELAY: Final = 1.0
"""Seconds. A visitor waits for all of them."""

LONGEST_ALLOWED: Final = 60.0
"""Seconds a ``retry_delay`` may ask for; the client has given up by then."""

_log = logging.getLogger("filesession.retries")


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is to be done for so many seconds."""

    seconds: float


def doubling(attempt: int) -> float:
    """50 ms before the first more try, twice as long before each that follows, 1 s at most."""
    return min(math.ldexp(FIRST_DELAY, min(attempt - 1, 10)), LONGEST_DELAY)


class Retries:
    """How often a failed store call is tried again, and when; no I/O, no waiting.

    Args:
        retries: more tries for one call; 0: none.
        retry_delay: gives the seconds, from 0 to 60, before a further try by its number, from 1;
            None: 0.05 s, then twice as long each time, 1 s at most.

    Raises:
        ConfigurationError: a value is wrong.
    """

    __slots__ = ("_delay", "_more")

    def __init__(self, retries: int = 0, retry_delay: RetryDelay | None = None) -> None:
        if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
            msg = f"retries must be a number of tries from 0, not {shown(retries)}"
            raise ConfigurationError(msg)
        if retry_delay is not None and (
            not callable(retry_delay) or inspect.iscoroutinefunction(retry_delay)
        ):
            msg = (
                "retry_delay must be a plain function that gives the seconds before a try by its"
                f" number, from 1, or None, not {shown(retry_delay)}"
            )
            raise ConfigurationError(msg)
        self._more = retries
        self._delay = doubling if retry_delay is None else retry_delay

    def __bool__(self) -> bool:
        """Whether there is more than one try."""
        return self._more > 0

    def tries(self, call: StoreCall) -> Generator[StoreCall | Pause, Any, Any]:
        """One call until it is done, as calls and pauses to be made; its result.

        Raises what the call raised: at once, or when its tries are used up.
        """
        if call.verb == "touch":
            return (yield call)
        made_here = call.verb == "regenerate" and call.keywords.get("new_sid") is None
        if made_here:  # so that it can be looked for
            call = replace(call, keywords={**call.keywords, "new_sid": new_id()})
        attempt = 0
        while True:
            try:
                return (yield call)
            except StoreError as error:
                attempt += 1
                pause = self._pause(attempt, error)
                if pause is None:
                    raise
            except (SessionGone, SessionExists, ConflictError) as error:
                if not attempt:
                    raise
                return (yield from self._found_done(call, error, made_here=made_here))
            yield Pause(pause)

    def _found_done(
        self, call: StoreCall, error: Exception, *, made_here: bool
    ) -> Generator[StoreCall | Pause, Any, SessionRecord]:
        """What an earlier try has made of it, or the error (rule 2)."""
        record: SessionRecord | None
        if call.verb == "regenerate" and not isinstance(error, ConflictError):
            lineage = getattr(call.keywords.get("base"), "lineage", "")
            record = yield from self.tries(StoreCall("load", (call.keywords["new_sid"],)))
            if record is not None and (made_here or (lineage and record.lineage == lineage)):
                return record
        elif isinstance(error, ConflictError) and repr(error.ours) == repr(error.theirs):
            record = yield from self.tries(StoreCall("load", call.arguments[:1]))
            if record is not None and repr(record.data) == repr(error.ours):
                saved: SessionRecord = yield replace(
                    call, keywords={**call.keywords, "base": record}
                )
                return saved
        raise error

    def _pause(self, attempt: int, error: StoreError) -> float | None:
        """Seconds before that further try; None: there is none."""
        if attempt > self._more or isinstance(error, LockTimeout):
            return None
        try:
            delay: Any = self._delay(attempt)
        except Exception:  # noqa: BLE001 - the store's own error is the one to raise
            _log.exception("retry_delay(%d) failed, so there are no more tries", attempt)
            return None
        if isinstance(delay, (int, float)) and not isinstance(delay, bool):
            if 0 <= delay <= LONGEST_ALLOWED:
                return float(delay)
        elif inspect.iscoroutine(delay):
            delay.close()  # it would be told that nobody awaited it
        _log.error(
            "retry_delay(%d) gave %s, not seconds from 0 to %g, so there are no more tries",
            *(attempt, shown(delay), LONGEST_ALLOWED),
        )
        return None
