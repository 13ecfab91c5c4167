"""Janitors as processes, the lines they write, and directories full of what has expired."""

from __future__ import annotations

import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from filesession.stores.entry import Entry
from filesession.stores.file.journal import line_of, seed_of
from filesession.stores.file.store import FileStore

DEADLINE: Final = 20
"""Seconds until what does not come fails the test."""

COMMAND: Final = ("-m", "filesession", "janitor")


class Process:
    """A janitor's process and the lines it wrote."""

    def __init__(
        self, *arguments: str, before: Sequence[str] = (), environment: dict[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, *arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def expect(self, words: str) -> str:
        """The next line with these words in it; those before it are passed over."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                pytest.fail(f"no line with {words!r} in {self.said}")
            self.said.append(line)
            if words in line:
                return line

    def rest(self) -> list[str]:
        """All lines, once it has ended."""
        self._reader.join(DEADLINE)
        while not self._lines.empty():
            if (line := self._lines.get()) is not None:
                self.said.append(line)
        return self.said

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def tell(self, text: str) -> None:
        """Write to its input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal if one is given; the exit code."""
        if number is not None:
            self.send(number)
        return self.process.wait(DEADLINE)

    def clean_up(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self.process.stdin is not None
        self.process.stdin.close()


Start: TypeAlias = Callable[..., Process]


@contextmanager
def processes() -> Iterator[Start]:
    """Inside, Python is started with arguments; all that still runs in the end is killed."""
    started: list[Process] = []

    def start(*arguments: str, **how: object) -> Process:
        process = Process(*arguments, **how)  # type: ignore[arg-type]
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.clean_up()


def fill(store: FileStore, number: int) -> list[Path]:
    """So many sessions that have expired, written past the store to be quick; their files."""
    made: list[Path] = []
    root = Path(store.directory, "sessions")
    for n in range(256):
        (root / f"{n:02x}").mkdir(0o700, parents=True, exist_ok=True)
    for n in range(number):
        handle = f"{n * 0x9E3779B1 % 2**32:08x}{n:024x}"  # spread over all directories
        entry = Entry(1, f"{n:016x}", 1.0, 1.0, b'{"n":1}')
        path = root / handle[:2] / handle
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, line_of(entry, seed_of(handle)))
            os.utime(descriptor, (1, 1))
        finally:
            os.close(descriptor)
        made.append(path)
    return made


def create_expired(store: FileStore) -> None:
    """One more session, which has expired before it is seen."""
    FileStore.open(store.directory, clock=lambda: time.time() - 1_000_000).create({"n": 1})


class Manager:
    """Receives what a service manager would be told.

    Attributes:
        told: the fields of each message so far.
    """

    def __init__(self) -> None:
        self.address = f"@filesession-test-{secrets.token_hex(8)}"
        self.told: list[dict[str, str]] = []
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.door.bind("\0" + self.address[1:])
        self.door.settimeout(0)

    def all(self) -> list[dict[str, str]]:
        with suppress(BlockingIOError):
            while True:
                lines = self.door.recv(65536).decode().split("\n")
                self.told.append(dict(line.split("=", 1) for line in lines))
        return self.told

    def has(self, name: str, *, after: int = 0) -> bool:
        return any(name in message for message in self.all()[after:])
