"""What the command finds around it: the environment of a user's shell, janitors, a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from filesession.janitor.heartbeat import Heartbeat
from filesession.record import SweepReport
from tests.heartbeats import BEAT, READING

DEADLINE = 20


@pytest.fixture(autouse=True)
def _a_users_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is buffered, so that it may fail late; and the command is found by its name."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")


@pytest.fixture
def beat() -> Heartbeat:
    """What a janitor with a million sessions said just now."""
    now = time.time()
    reading = replace(
        READING,
        directory="/elsewhere",
        sessions=1_000_000,
        bytes=312_000_000,
        created=5000,
        expired=4000,
        freed=1_200_000,
        corrupt=0,
        failed=0,
        sweeps=12,
        lag=0.0,
        full_looks=1,
        overflows=0,
        dropped=0,
    )
    return replace(
        BEAT,
        started_at=now - 500,
        heartbeat_at=now,
        next_sweep_at=now + 30.5,
        last_sweep=SweepReport(started_at=now - 29.5, seconds=0.1, examined=7),
        reading=reading,
    )


class Running:
    """The command as a process, at a terminal of its own or with its output piped."""

    def __init__(self, *arguments: str, at_terminal: bool, width: int, **environment: str) -> None:
        ours, theirs = pty.openpty() if at_terminal else os.pipe()
        if at_terminal:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        usual = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "filesession", *arguments],
            stdin=theirs if at_terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**usual, "TERM": "xterm", **environment},
            start_new_session=True,
        )
        os.close(theirs)
        self._ours = ours
        self._said = b""
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._ours, 65536)
            except OSError:  # how a terminal says that nobody is there any more
                chunk = b""
            with self._news:
                self._said += chunk
                self._ended = not chunk
                self._news.notify_all()
            if not chunk:
                return

    @property
    def said(self) -> str:
        """All that was written so far."""
        return self._said.decode()

    def expect(self, pattern: str) -> str:
        """All that was written so far, once the pattern is in it."""
        with self._news:
            self._news.wait_for(lambda: self._ended or re.search(pattern, self.said), DEADLINE)
        if not re.search(pattern, self.said):
            pytest.fail(f"no {pattern!r} in {self.said!r}")
        return self.said

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal if one is given; the exit code, and then all was read."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def clean_up(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        os.close(self._ours)


Run = Callable[..., Running]


@pytest.fixture
def run() -> Iterator[Run]:
    """Start the command: ``run("top", DIR, at_terminal=True)``."""
    running: list[Running] = []

    def run(
        *arguments: str, at_terminal: bool = False, width: int = 80, **environment: str
    ) -> Running:
        running.append(Running(*arguments, at_terminal=at_terminal, width=width, **environment))
        return running[-1]

    yield run
    for each in running:
        each.clean_up()
