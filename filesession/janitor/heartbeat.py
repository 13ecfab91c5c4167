"""``janitor.json``: what the leader says of itself, for those who want to know whether it works."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar

from filesession.codec import dump_document, load_object
from filesession.janitor.leader import is_led, marked_at
from filesession.janitor.reading import Reading
from filesession.record import SweepReport
from filesession.stores.file.documents import read_document, write_document

HEARTBEAT: Final = "janitor.json"

BEAT: Final = 5.0
"""Seconds between two heartbeats of a leader, at most."""

FRESH: Final = 3 * BEAT
"""Seconds after which a leader that gave no sign is taken for hung: two may come late."""

T = TypeVar("T")

State: TypeAlias = Literal["alive", "hung", "absent"]
"""alive: leads and gives a sign; hung: holds the lock and gives none; absent: nobody leads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a leader last said. Times are POSIX seconds.

    Attributes:
        pid: its process.
        host: the machine that process runs on.
        started_at: when it began to work.
        heartbeat_at: when it said so.
        interval: seconds between sweeps; None: they come by ``cron``.
        cron: the crontab text, in local time; None: they come by ``interval``.
        next_sweep_at: when the next sweep is planned.
        sweeping_since: when the sweep in hand began; None: there is none.
        looked: the share of all sessions it has looked at, if it does so for the first time.
        watch: how it notices new sessions: "events", "poll" or "off"; None: it has not begun.
        last_sweep: the last one that came to its end.
        last_error: why the last one failed; None: it did not.
        reading: what it knows and has done, in figures.
    """

    pid: int
    host: str
    started_at: float
    heartbeat_at: float
    interval: float | None
    cron: str | None
    next_sweep_at: float | None
    sweeping_since: float | None
    looked: float | None
    watch: str | None
    last_sweep: SweepReport | None
    last_error: str | None
    reading: Reading

    def is_fresh(self, now: float) -> bool:
        """Whether it was written lately."""
        return _is_fresh(self.heartbeat_at, now)


def write_heartbeat(directory: str, heartbeat: Heartbeat) -> None:
    """Replace the directory's heartbeat, in one step.

    Raises:
        StoreError: it could not be written; the old one is intact.
    """
    write_document(os.path.join(directory, HEARTBEAT), dump_document(asdict(heartbeat)))


def read_heartbeat(directory: str) -> Heartbeat | None:
    """The directory's heartbeat; None when there is none, or none that can be understood.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    content = read_document(os.path.join(directory, HEARTBEAT))
    if content is None:
        return None
    try:
        return _heartbeat_of(load_object(content))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def janitor_state(directory: str, now: float) -> tuple[State, Heartbeat | None]:
    """Whether a janitor works there, and what it said last.

    One that is alive and cannot write its heartbeat, as on a full disk, is told by the date of its
    lock; what it said last may then be old, another's, or missing.

    Raises:
        StoreUnavailable: ``janitor.lock`` or ``janitor.json`` is there and cannot be read.
    """
    led = is_led(directory)
    heartbeat = read_heartbeat(directory)
    if not led:
        return "absent", heartbeat
    signs = [marked_at(directory), None if heartbeat is None else heartbeat.heartbeat_at]
    alive = any(_is_fresh(sign, now) for sign in signs if sign is not None)
    return "alive" if alive else "hung", heartbeat


def _is_fresh(sign: float, now: float) -> bool:
    """Whether it was given lately; one in the future was, before the clock was set back."""
    return now - sign <= FRESH


def _heartbeat_of(members: dict[str, Any]) -> Heartbeat:
    last = members["last_sweep"]
    return Heartbeat(
        pid=_pid(members["pid"]),
        host=str(members["host"]),
        started_at=float(members["started_at"]),
        heartbeat_at=float(members["heartbeat_at"]),
        interval=_maybe(float, members["interval"]),
        cron=_maybe(str, members["cron"]),
        next_sweep_at=_maybe(float, members["next_sweep_at"]),
        sweeping_since=_maybe(float, members["sweeping_since"]),
        looked=_maybe(float, members["looked"]),
        watch=_maybe(str, members["watch"]),
        last_sweep=None if last is None else _report_of(last),
        last_error=_maybe(str, members["last_error"]),
        reading=_reading_of(members["reading"]),
    )


def _pid(value: object) -> int:
    if type(value) is not int:
        msg = "a process is told by its number"
        raise ValueError(msg)
    return value


def _maybe(kind: Callable[[Any], T], value: object) -> T | None:
    return None if value is None else kind(value)


def _reading_of(members: dict[str, Any]) -> Reading:
    directory = _maybe(str, members.pop("directory"))
    held = _maybe(str, members.pop("held"))
    if not all(
        isinstance(value, (int, float)) or (value is None and name in {"sessions", "bytes"})
        for name, value in members.items()
    ):
        msg = "a reading is made of numbers"
        raise ValueError(msg)
    return Reading(directory=directory, held=held, **members)


def _report_of(members: dict[str, Any]) -> SweepReport:
    failure = _maybe(str, members.pop("failure"))
    if not all(isinstance(value, (int, float)) for value in members.values()):
        msg = "a sweep is reported in numbers"
        raise ValueError(msg)
    return SweepReport(failure=failure, **members)
