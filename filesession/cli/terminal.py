"""What reaches a terminal: consoles, and texts that cannot take it over.

Data and file names come from strangers. A control character in one could move the cursor, recolour
or retitle the terminal of whoever looks at it, so none is printed as it is.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import Final, NoReturn, TextIO

import rich_click as click
from rich.console import Console

from filesession.errors import FilesessionError

PIPED_WIDTH: Final = 160
"""Columns of output that goes to a file or a pipe: nothing is folded there, a line stays a line."""

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class OutputError(FilesessionError):
    """What the command was asked for cannot be written where it should go."""


class _QuietConsole(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Let the command decide what a reader that went away means."""
        raise BrokenPipeError


def is_terminal() -> bool:
    """Whether a person reads what the command is asked for. Its output may also be closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def output() -> Console:
    """The console for what the command is asked for."""
    width = None if is_terminal() else PIPED_WIDTH
    return _QuietConsole(width=width, highlight=False, markup=False, emoji=False)


def notices() -> Console:
    """The console for what is said beside it, on stderr."""
    return _QuietConsole(stderr=True, highlight=False, markup=False, emoji=False)


def deliver() -> None:
    """Have all that was printed reach its reader; else Python would try only at its end.

    Raises:
        BrokenPipeError: the reader has gone.
        OutputError: it cannot be written.
    """
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr)  # its terminal has gone, and with it who would read of that
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up(sys.stdout)
        raise
    except OSError as error:
        _give_up(sys.stdout)
        msg = f"the output cannot be written: {error.strerror or error}"
        raise OutputError(msg) from error


def _give_up(stream: TextIO) -> None:
    """Let what is still to be written go nowhere, or Python would fail with it at its end."""
    with suppress(OSError):  # a file in memory has no descriptor
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def printable(text: str) -> str:
    """The text with its control characters spelled out, also those of bidirectional writing."""
    return _UNPRINTABLE.sub(_spelled, text)


def say_error(message: str) -> None:
    """One line on stderr: ``error: ...``."""
    click.echo(f"error: {printable(message)}", err=True)


def _spelled(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
