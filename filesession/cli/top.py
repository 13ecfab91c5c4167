"""``filesession top``: how a directory is doing, again and again."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, NamedTuple

import rich_click as click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from filesession.cli.ages import histogram
from filesession.cli.directory import directory_argument
from filesession.cli.figures import (
    Line,
    Rates,
    is_news,
    janitor_line,
    reading_lines,
    sessions_line,
    sweep_lines,
)
from filesession.cli.options import number
from filesession.cli.sample import Sample
from filesession.cli.teaching import command
from filesession.cli.terminal import is_terminal, output, printable
from filesession.cli.times import clock_text
from filesession.clock import Clock, system_clock
from filesession.errors import FilesessionError
from filesession.janitor.heartbeat import Heartbeat, State, janitor_state
from filesession.janitor.wording import counted
from filesession.stores.file.layout import Layout

SPAN: Final = 60.0
"""Seconds over which the rates are told: sessions go in sweeps, and most come once a minute."""

EASE: Final = 10.0
"""Times that a sample took pass before the next one is taken, so that a slow disk is left alone."""

LONGEST: Final = 3600.0
"""Seconds between two frames, at most."""

SHORTEST: Final = 0.1

_USUAL: Final = 2.0


class _Moment(NamedTuple):
    """What a heartbeat said of all that came and went until then."""

    at: float
    created: int
    expired: int


class View:
    """What is to be seen of a directory, frame after frame.

    Args:
        directory: its absolute path.
        clock: gives POSIX seconds.
    """

    def __init__(self, directory: str, clock: Clock = system_clock) -> None:
        self._directory = directory
        self._clock = clock
        self._leader: tuple[int, str, float] | None = None
        self._moments: deque[_Moment] = deque()
        self._sample: Sample | None = None
        self._next_sample = 0.0

    def frame(self, width: int | None = None) -> Text:
        """How things stand now, in lines that end at ``width``; None: they are as long as they are.

        What cannot be looked at is said in it.
        """
        now = self._clock()
        lines = [Line("directory", printable(self._directory)).text()]
        lines.append(Line("time", clock_text(now)).text())
        try:
            lines += self._lines(now, width)
        except FilesessionError as error:
            self._sample, self._next_sample = None, 0.0
            lines.append(Line("failing", printable(str(error)), "red").text())
        if width is not None:
            for line in lines:
                line.truncate(width, overflow="crop")
        return Text("\n").join(lines)

    def check(self) -> None:
        """Raises ``FilesessionError`` when there is nothing to look at, or it is not ours."""
        Layout.found(self._directory)

    def _lines(self, now: float, width: int | None) -> Iterator[Text]:
        layout, _ = Layout.found(self._directory)
        state, beat = janitor_state(self._directory, now)
        yield from (line.text() for line in self._figures(state, beat, now))
        sample = self._sampled(layout, now)
        news = is_news(state, beat, now)
        known = beat.reading.sessions if beat is not None and news else None
        yield Text("")
        yield Text(_title(sample, known))
        yield from map(Text, histogram(sample.ages, width))

    def _figures(self, state: State, beat: Heartbeat | None, now: float) -> Iterator[Line]:
        yield janitor_line(self._directory, state, beat, now)
        if beat is None:
            return
        if is_news(state, beat, now):
            yield sessions_line(beat)
            yield from reading_lines(beat, now, self._rates(beat))
        yield from sweep_lines(state, beat, now)

    def _rates(self, beat: Heartbeat) -> Rates | None:
        """What came and went lately; None: that takes a second heartbeat of the same janitor."""
        leader = (beat.pid, beat.host, beat.started_at)
        moments = self._moments
        if leader != self._leader or (moments and beat.heartbeat_at < moments[-1].at):
            moments.clear()
            self._leader = leader
        reading = beat.reading
        if not moments or beat.heartbeat_at > moments[-1].at:
            moments.append(_Moment(beat.heartbeat_at, reading.created, reading.expired))
        last = moments[-1]
        while len(moments) > 1 and moments[1].at <= last.at - SPAN:
            moments.popleft()
        first = moments[0]
        span = last.at - first.at
        if not span:
            return None
        created, expired = last.created - first.created, last.expired - first.expired
        return Rates(created / span, expired / span, span)

    def _sampled(self, layout: Layout, now: float) -> Sample:
        began = time.monotonic()
        if self._sample is None or began >= self._next_sample:
            self._sample = Sample.of(layout, now)
            ended = time.monotonic()
            self._next_sample = ended + EASE * (ended - began)
        return self._sample


@command(
    "top /var/lib/app/sessions",
    "top /var/lib/app/sessions --interval 10",
    codes="0 shown, until Ctrl-C. 2 it could not run.",
)
@directory_argument
@click.option(
    "--interval",
    callback=number("SECONDS is a number from 0.1 to 3600", SHORTEST, LONGEST),
    metavar="SECONDS",
    help="Time between two looks; 2.",
)
def top(directory: str, interval: float | None) -> None:
    """Show how DIR is doing, on a terminal again and again until Ctrl-C, and else once.

    The janitor's figures are those of its last heartbeat, which comes every 5 seconds. How long ago
    sessions were active is told from a sample: some thousand files are looked at, not all.
    """
    view = View(directory)
    view.check()
    console = output()
    if not is_terminal() or console.is_dumb_terminal:
        console.print(view.frame(), soft_wrap=True)
        return
    with suppress(KeyboardInterrupt), _ended_by_sigterm():
        _show(view, console, _USUAL if interval is None else interval)


def _show(view: View, console: Console, interval: float) -> None:
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(view.frame(console.width), refresh=True)
            time.sleep(interval)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have it end like Ctrl-C, or the terminal would be left without its cursor."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _title(sample: Sample, known: int | None) -> str:
    if sample.share == 1 and sample.looked == sample.listed:
        return f"last active, {counted(sample.looked, 'session')}"
    about = sample.estimate if known is None else known
    return f"last active, from a sample of {sample.looked:,} of about {about:,} sessions"
