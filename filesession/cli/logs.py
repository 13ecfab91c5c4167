"""What the janitor's command logs to stderr: a line for people, or a JSON object, each record."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from rich.console import Console

from filesession.cli.terminal import printable
from filesession.codec import dump_object

FORMATS: Final = ("text", "json")

_TEXT: Final = "%(asctime)s %(levelname)s %(message)s"

_log: Final = logging.getLogger("filesession.janitor")


class TextLines(logging.Formatter):
    """The time, the level and the message in one line; an exception's traceback below it."""

    def __init__(self) -> None:
        super().__init__(_TEXT, "%F %T")

    def format(self, record: logging.LogRecord) -> str:
        """The lines, whatever the message and the exception have in them."""
        record.message = record.getMessage()
        record.asctime = self.formatTime(record, self.datefmt)
        lines = [self.formatMessage(record)]
        if record.exc_info:
            lines += self.formatException(record.exc_info).split("\n")
        return "\n".join(map(printable, lines))


class JSONLines(logging.Formatter):
    """An object in one line: time, level, logger, message, and of an exception the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The object. All that could take over a terminal is escaped in it."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        members = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        # A lone surrogate, a byte of a file's name that is no UTF-8, is nothing that JSON has.
        plain = {name: text.encode("utf-8", "backslashreplace") for name, text in members.items()}
        return printable(
            dump_object({name: text.decode() for name, text in plain.items()}).decode()
        )


class _Above(logging.Handler):
    """Prints above what moves at the bottom of a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._console.out(self.format(record), highlight=False)
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)


@contextmanager
def logging_to(console: Console, level: int, form: str) -> Iterator[None]:
    """Log to stderr for as long as it lasts, also warnings, and what ends a thread.

    Args:
        console: stderr's.
        level: of our own lines; of all others warnings are told.
        form: one of ``FORMATS``.
    """
    handler = _Above(console) if console.is_terminal else logging.StreamHandler()
    handler.setFormatter(JSONLines() if form == "json" else TextLines())
    ours, root = logging.getLogger("filesession"), logging.getLogger()
    before, hook = ours.level, threading.excepthook
    root.addHandler(handler)
    ours.setLevel(level)
    threading.excepthook = _log_failure
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _log_warning
            yield
    finally:
        threading.excepthook = hook
        ours.setLevel(before)
        root.removeHandler(handler)


def _log_failure(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is None or isinstance(failed.exc_value, SystemExit):
        return
    name = "" if failed.thread is None else failed.thread.name
    failure = (failed.exc_type, failed.exc_value, failed.exc_traceback)
    _log.critical("the thread %s ended by a failure", name, exc_info=failure)


def _log_warning(  # noqa: PLR0917 - as warnings calls it
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,  # noqa: ARG001 - likewise
    line: str | None = None,  # noqa: ARG001 - likewise
) -> None:
    logging.getLogger("py.warnings").warning(
        "%s: %s (%s:%d)", category.__name__, message, filename, lineno
    )
