"""The progress of a first look: on a terminal, below the log lines, and gone when it is done."""

from __future__ import annotations

import io
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from filesession.cli import bars as bars_module
from filesession.cli.bars import Bars
from filesession.stores.file.store import FileStore

if TYPE_CHECKING:
    from tests.cli.conftest import Run


class Now:
    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    now = Now()
    monkeypatch.setattr(bars_module, "time", now)
    return now


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def bars(screen: io.StringIO) -> Bars:
    return Bars(Console(file=screen, force_terminal=True, width=80, color_system=None))


def shares(screen: io.StringIO) -> list[int]:
    """What the bars showed since this was asked before."""
    text = screen.getvalue()
    screen.seek(0)
    screen.truncate()
    return [int(share) for share in re.findall(r"(\d+)%", text)]


def test_a_bar_moves_no_more_than_ten_times_a_second(
    bars: Bars, screen: io.StringIO, now: Now
) -> None:
    move = bars.of("/sessions")
    for number in range(1000):
        now.seconds = 100 + number / 1000
        move(number / 1000)
    shown = dict.fromkeys(shares(screen))
    assert [share // 10 for share in shown] == [*range(10)]


def test_a_bar_is_gone_when_it_is_done_and_comes_again(
    bars: Bars, screen: io.StringIO, now: Now
) -> None:
    move = bars.of("/sessions")
    move(0.5)
    assert "looking at /sessions" in screen.getvalue()
    assert "\x1b[?25l" in screen.getvalue()
    move(1.0)
    assert screen.getvalue().endswith("\r\x1b[2K") or "\x1b[?25h" in screen.getvalue()
    screen.truncate(0)
    move(1.0)
    assert screen.getvalue() == ""
    move(0.2)
    assert 20 in shares(screen)
    bars.close()


def test_every_directory_has_its_own(bars: Bars, screen: io.StringIO, now: Now) -> None:
    first, second = bars.of("/first\x1b[31m[bold]"), bars.of("/second")
    first(0.25)
    second(0.75)
    shown = screen.getvalue()
    assert "looking at /first\\u001b[31m[bold]" in shown
    assert shares(screen)[-2:] == [25, 75]
    first(1.0)
    assert shares(screen)[-1:] == [75]
    bars.close()


def test_one_that_stands_still_is_taken_away_and_comes_back_when_it_moves(
    bars: Bars, screen: io.StringIO, now: Now
) -> None:
    move = bars.of("/sessions")
    move(0.5)
    now.seconds += 4
    bars.tidy()
    assert "\x1b[?25h" not in screen.getvalue()
    now.seconds += 2
    bars.tidy()
    assert "\x1b[?25h" in screen.getvalue()
    shares(screen)
    move(0.6)
    assert 60 in shares(screen)
    bars.close()


def test_what_was_closed_shows_nothing_more(bars: Bars, screen: io.StringIO, now: Now) -> None:
    move = bars.of("/sessions")
    move(0.5)
    bars.close()
    assert "\x1b[?25h" in screen.getvalue()
    shares(screen)
    now.seconds += 1
    move(0.6)
    assert screen.getvalue() == ""


@pytest.fixture
def large(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path / "sessions")
    for _ in range(600):
        store.create()
    return store


def test_a_terminal_gets_a_bar_below_whole_lines(large: FileStore, run: Run) -> None:
    process = run("janitor", large.directory, "-v", at_terminal=True, width=120)
    process.expect("swept 600 sessions in")
    assert process.end(signal.SIGINT) == 0
    assert re.search(r"looking at .*%", process.said)
    assert process.said.rindex("\x1b[?25h") > process.said.rindex("\x1b[?25l")
    left = re.sub(
        r"\x1b\[[0-9;?]*[A-Za-z]", "", re.sub(r"[^\r\n]*\r(\x1b\[2K)", r"\1", process.said)
    )
    logged = [line.strip("\r") for line in left.strip().split("\r\n")]
    assert all(re.match(r"\d{4}-\d\d-\d\d [\d:]{8} [A-Z]+ ", line) for line in logged), logged
    assert "swept 600 sessions in" in left


def test_a_pipe_gets_none(large: FileStore, run: Run) -> None:
    process = run("janitor", large.directory, "-v")
    process.expect("swept 600 sessions in")
    assert process.end(signal.SIGTERM) == 0
    assert "looking at" not in process.said
    assert "\x1b" not in process.said
