"""Progress bars of janitors that look at all sessions of a large directory for the first time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.progress import TimeRemainingColumn as TimeColumn

from filesession.cli.terminal import printable

PAUSE: Final = 0.1
"""Seconds between two moves of a bar, at least: its owner has sessions to look at."""

STILL: Final = 5.0
"""Seconds after which a bar that does not move is taken away: the look may have failed."""


@dataclass(slots=True)
class _Bar:
    task: TaskID
    moved: float


class Bars:
    """A bar for each directory, on a terminal, and only while there is a look to tell of.

    All of it may be called in any thread.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._turn = threading.Lock()
        self._progress: Progress | None = None
        self._bars: dict[str, _Bar] = {}
        self._closed = False

    def of(self, directory: str) -> Callable[[float], None]:
        """What moves the bar of a directory, to a share from 0 to 1; with 1 the bar goes."""

        def move(share: float) -> None:
            bar = self._bars.get(directory)
            now = time.monotonic()
            if share < 1 and bar is not None and now - bar.moved < PAUSE:
                return
            with self._turn:
                if share < 1:
                    self._move(directory, share, now)
                else:
                    self._take_away(directory)

        return move

    def tidy(self) -> None:
        """Take the bars away that have not moved for long."""
        with self._turn:
            now = time.monotonic()
            for directory in [name for name, bar in self._bars.items() if now - bar.moved > STILL]:
                self._take_away(directory)

    def close(self) -> None:
        """Take all away, for good."""
        with self._turn:
            self._closed = True
            for directory in list(self._bars):
                self._take_away(directory)

    def _move(self, directory: str, share: float, now: float) -> None:
        if self._closed:
            return
        if self._progress is None:
            self._progress = _progress(self._console)
            self._progress.start()
        bar = self._bars.get(directory)
        if bar is None:
            name = f"looking at {printable(directory)}"
            bar = self._bars[directory] = _Bar(self._progress.add_task(name, total=1.0), now)
        bar.moved = now
        self._progress.update(bar.task, completed=share)
        self._progress.refresh()

    def _take_away(self, directory: str) -> None:
        bar = self._bars.pop(directory, None)
        if bar is None or self._progress is None:
            return
        self._progress.remove_task(bar.task)
        if self._bars:
            self._progress.refresh()
        else:
            self._progress.stop()
            self._progress = None


def _progress(console: Console) -> Progress:
    """Nothing of it moves by itself: no thread of its own is woken ten times a second."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    return Progress(
        *columns,
        TimeColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
