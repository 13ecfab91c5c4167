"""What a janitor says of itself in ``janitor.json``, in lines for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final, NamedTuple

from rich.text import Text

from filesession.cli.terminal import printable
from filesession.cli.times import distance_text, moment_text
from filesession.janitor.heartbeat import Heartbeat, State
from filesession.janitor.reading import Reading
from filesession.janitor.wording import counted, size_text, span_text, sweep_text

_NAME: Final = 16
"""Characters of a line's name."""

_LATE: Final = 3
"""Intervals; what is overdue for longer should have gone."""

_USUAL: Final = 60.0
"""Seconds between sweeps where a cron plan does not tell."""

_ROUNDED: Final = 10.0
"""Seconds from which on an interval is told in whole ones."""

_WATCHES: Final = {
    "events": "by events of the file system",
    "poll": "by a look at the directories with every sweep",
    "off": "never, each sweep looks at every session",
}


class Line(NamedTuple):
    """A line: what it is of, the words, and the style to print them in."""

    name: str
    words: str
    style: str = ""

    def text(self) -> Text:
        """The line as it is printed, never folded."""
        line = f"{self.name:<{_NAME}}{self.words}"
        return Text(line, style=self.style, no_wrap=True, overflow="ignore")


class Rates(NamedTuple):
    """How many sessions came and expired a second, in the last so many seconds."""

    created: float
    expired: float
    seconds: float


def is_news(state: State, heartbeat: Heartbeat | None, now: float) -> bool:
    """Whether a janitor is alive and its heartbeat tells how things stand now."""
    return state == "alive" and heartbeat is not None and heartbeat.is_fresh(now)


def sessions_line(heartbeat: Heartbeat) -> Line:
    """How many sessions a janitor knows of."""
    reading = heartbeat.reading
    if reading.sessions is None:
        return Line("sessions", "not known yet: the janitor has just begun")
    words = f"{reading.sessions:,}"
    if reading.bytes is not None:
        words += f" (about {size_text(reading.bytes)})"
    if heartbeat.looked is not None:
        words += f" so far: it has looked at {heartbeat.looked:.0%} of the directory"
    return Line("sessions", words)


def janitor_line(directory: str, state: State, heartbeat: Heartbeat | None, now: float) -> Line:
    """Whether a janitor works there, and how."""
    return Line("janitor", *_janitor(directory, state, heartbeat, now))


def reading_lines(heartbeat: Heartbeat, now: float, rates: Rates | None = None) -> Iterator[Line]:
    """What a janitor that is alive knows and has done."""
    reading = heartbeat.reading
    since = f"since {moment_text(heartbeat.started_at, now)}"
    watch = heartbeat.watch
    if watch is not None:
        yield Line("new sessions", f"noticed {_WATCHES.get(watch, printable(watch))}")
    created, expired = ("", "") if rates is None else _rates(rates)
    yield Line("created", f"{created}{reading.created:,} {since}")
    freed, sweeps = size_text(reading.freed), counted(reading.sweeps, "sweep")
    yield Line("expired", f"{expired}{reading.expired:,} ({freed}) in {sweeps}")
    yield _lag_line(heartbeat)
    if reading.held is not None:
        yield _held_line(heartbeat)
    lost = f", as events were lost {_times(reading.overflows)}" if reading.overflows else ""
    style = "yellow" if reading.overflows else ""
    yield Line("full looks", f"{reading.full_looks:,}{lost}", style)
    yield from _faults(reading)


def sweep_lines(state: State, heartbeat: Heartbeat, now: float) -> Iterator[Line]:
    """The last sweep, what went wrong with it, and the next."""
    last = heartbeat.last_sweep
    if last is not None:
        yield Line("last sweep", f"{moment_text(last.started_at, now)}: {sweep_text(last)}")
    if heartbeat.last_error is not None:
        yield Line("last error", printable(heartbeat.last_error), "red")
    if is_news(state, heartbeat, now) and heartbeat.next_sweep_at is not None:
        yield Line("next sweep", moment_text(heartbeat.next_sweep_at, now))


def _lag_line(heartbeat: Heartbeat) -> Line:
    lag = heartbeat.reading.lag
    if lag < 1:
        return Line("lag", "none: all went in time")
    late = lag > _LATE * (heartbeat.interval or _USUAL)
    return Line("lag", f"{span_text(lag)}, of the longest overdue", "yellow" if late else "")


def _held_line(heartbeat: Heartbeat) -> Line:
    """Red where most of the sessions would go: that is hardly what anybody wants."""
    reading, last = heartbeat.reading, heartbeat.last_sweep
    held = 0 if last is None else last.held
    count = f"{counted(held, 'session')} may go" if held else "nothing goes"
    words = f"{printable(reading.held or '')}; {count}, the next sweep looks again and goes on"
    return Line("holding back", words, "red" if 2 * held > (reading.sessions or 0) else "yellow")


def _faults(reading: Reading) -> Iterator[Line]:
    if reading.failed:
        words = f"{counted(reading.failed, 'attempt')}; filesession doctor tells more"
        yield Line("failed", words, "red")
    if reading.corrupt:
        words = f"{counted(reading.corrupt, 'unreadable file')} since it began, to corrupt/"
        yield Line("moved away", words, "yellow")
    if reading.dropped:
        words = f"{counted(reading.dropped, 'session')} it was never told of, as it was too slow"
        yield Line("hook", words, "red")


def _rates(rates: Rates) -> Iterator[str]:
    span = span_text(rates.seconds)
    for rate in (rates.created, rates.expired):
        yield f"{rate:,.1f} a second in the last {span}; "


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _janitor(
    directory: str, state: State, heartbeat: Heartbeat | None, now: float
) -> tuple[str, str]:
    """How the janitor is, and the style to say it in."""
    if state == "absent":
        since = "" if heartbeat is None else f", the last one spoke {_since(heartbeat, now)}"
        run = printable(f"filesession janitor {shlex.quote(directory)}")
        return f"none is running{since}; run: {run}", "red"
    if state == "alive" and (heartbeat is None or not heartbeat.is_fresh(now)):
        words = "its heartbeat is not written: it has just begun, or the disk is full"
        return f"alive, but {words}", "red"
    if heartbeat is None:
        return "hangs: one leads and has never spoken; end it, and another takes over", "red"
    process = f"process {heartbeat.pid} on {printable(heartbeat.host)}"
    if state == "hung":
        words = f"hangs: {process} leads and last spoke {_since(heartbeat, now)}"
        return f"{words}; end it, and another takes over", "red"
    plan = (
        f"by cron {printable(heartbeat.cron)!r}"
        if heartbeat.cron is not None
        else f"every {_interval_text(heartbeat.interval or 0)}"
    )
    busy = heartbeat.sweeping_since
    sweeping = "" if busy is None else f", sweeping for {span_text(now - busy)}"
    return f"alive: {process}, sweeps {plan}{sweeping}", "green"


def _interval_text(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < _ROUNDED else span_text(seconds)


def _since(heartbeat: Heartbeat, now: float) -> str:
    distance = distance_text(heartbeat.heartbeat_at, now)
    return "just now" if distance == "now" else distance
