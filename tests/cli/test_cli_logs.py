"""What the janitor's command logs: lines for people, JSON for programs, and both for terminals."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from click.testing import CliRunner
from rich.console import Console

from filesession.cli.command import commands
from filesession.cli.logs import logging_to

_log = logging.getLogger("filesession.janitor")

NASTY = "one\ntwo\x1b[31m\x9b31m\u202e\udce9"


@contextmanager
def logged(form: str, level: int = logging.INFO) -> Iterator[list[str]]:
    """The lines that are logged meanwhile, on a terminal, where they go through rich."""
    screen = io.StringIO()
    lines: list[str] = []
    root = logging.getLogger()
    # A test run keeps log lines and sends them on, and that cannot take half a surrogate.
    others, root.handlers = root.handlers, []
    try:
        with logging_to(Console(file=screen, force_terminal=True, width=40), level, form):
            yield lines
    finally:
        root.handlers = others
    lines += screen.getvalue().splitlines()


def raise_nasty() -> None:
    raise ValueError(NASTY)


def test_a_record_is_an_object_in_a_line() -> None:
    before = time.time()
    with logged("json") as lines:
        _log.info("%s sessions %s", 3, "x" * 200)
    (line,) = lines
    record = json.loads(line)
    at = record.pop("time")
    assert record == {
        "level": "INFO",
        "logger": "filesession.janitor",
        "message": f"3 sessions {'x' * 200}",
    }
    assert at.endswith("Z")
    assert len(at) == len("2026-11-24T01:36:12.123Z")
    assert before - 0.001 <= datetime.fromisoformat(at).timestamp() <= time.time()


def test_what_could_break_a_line_or_take_over_a_terminal_is_escaped_in_json() -> None:
    with logged("json") as lines:
        _log.warning("%s", NASTY)
    (line,) = lines
    assert line.isprintable()
    assert json.loads(line)["message"] == NASTY.replace("\udce9", "\\udce9")


def test_what_could_break_a_line_or_take_over_a_terminal_is_spelled_out_in_text() -> None:
    with logged("text") as lines:
        _log.warning("%s [bold]", NASTY)
    (line,) = lines
    said = "one\\u000atwo\\u001b[31m\\u009b31m\\u202e\\udce9 [bold]"
    assert line.partition(" WARNING ")[2] == said


def test_an_exception_is_told_with_its_traceback() -> None:
    for form in ("json", "text"):
        with logged(form) as lines:
            try:
                raise_nasty()
            except ValueError:
                _log.exception("it failed")
        text = json.loads(lines[0])["exception"] if form == "json" else "\n".join(lines[1:])
        assert text.startswith("Traceback (most recent call last):\n")
        assert "in raise_nasty" in text
        assert "\n".join(lines).replace("\n", "").isprintable()
        assert len(lines) == 1 if form == "json" else lines[0].endswith("ERROR it failed")


def test_a_warning_is_a_record() -> None:
    with logged("json") as lines:
        warnings.simplefilter("always")
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
    (record,) = map(json.loads, lines)
    assert record["message"].startswith("UserWarning: mind the gap (")
    assert (record["level"], record["logger"]) == ("WARNING", "py.warnings")


def test_so_is_what_ends_a_thread() -> None:
    with logged("json") as lines:
        for target in (raise_nasty, lambda: (_ for _ in ()).throw(SystemExit)):
            thread = threading.Thread(target=target, name="worker")
            thread.start()
            thread.join()
    (record,) = map(json.loads, lines)
    assert record["message"] == "the thread worker ended by a failure"
    assert record["level"] == "CRITICAL"
    assert "in raise_nasty" in record["exception"]


def test_others_are_heard_when_they_warn() -> None:
    with logged("json", logging.DEBUG) as lines:
        logging.getLogger("elsewhere").info("chatter")
        logging.getLogger("elsewhere").warning("beware")
        _log.debug("detail")
    assert [json.loads(line)["message"] for line in lines] == ["beware", "detail"]


def test_logging_is_as_it_was_afterwards(tmp_path: object) -> None:
    ours, root = logging.getLogger("filesession"), logging.getLogger()
    before = (ours.level, [*ours.handlers], [*root.handlers], threading.excepthook)
    shown = warnings.showwarning
    CliRunner().invoke(commands, ["janitor", f"{tmp_path}/missing", "--once", "-v"])
    assert (ours.level, ours.handlers, root.handlers, threading.excepthook) == before
    assert warnings.showwarning is shown
    assert "filesession" not in threading.excepthook.__module__


def test_a_terminal_that_has_gone_is_no_reason_to_fail(capsys: pytest.CaptureFixture[str]) -> None:
    screen = io.StringIO()
    with logging_to(Console(file=screen, force_terminal=True), logging.INFO, "text"):
        screen.close()
        _log.info("is anybody there?")
    assert "is anybody there?" in capsys.readouterr().err  # as every handler tells of it
