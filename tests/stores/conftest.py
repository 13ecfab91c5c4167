"""The session directory as it is on the disk, read by hand, and system calls that fail."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from filesession.stores import FileStore
from filesession.testing import ManualClock
from filesession.testing.faults import CALLS, SystemCall, SystemCalls, failing
from tests.stores.reaping import Site


class Raw:
    """A session directory, without the package's help.

    What is said here of names and lines is what the README promises.
    """

    def __init__(self, directory: Path, depth: int = 1) -> None:
        self.directory = directory
        self.sessions = directory / "sessions"
        self.corrupt = directory / "corrupt"
        self.depth = depth

    def name(self, sid: str) -> str:
        return hashlib.sha256(sid.encode()).hexdigest()[:32]

    def path(self, sid: str) -> Path:
        name = self.name(sid)
        return Path(self.sessions, *(name[2 * n : 2 * n + 2] for n in range(self.depth)), name)

    def lines(self, sid: str) -> list[dict[str, Any]]:
        """Every whole line of a session's file; all must be whole."""
        path = self.path(sid)
        *lines, tail = path.read_bytes().split(b"\n")
        assert tail == b""
        return [members(line, path.name) for line in lines]

    def files(self) -> list[Path]:
        """All that is stored, session or not."""
        return sorted(path for path in self.sessions.rglob("*") if not path.is_dir())

    def set_aside(self) -> list[bytes]:
        """What was moved to ``corrupt/``."""
        return [path.read_bytes() for path in sorted(self.corrupt.glob("*"))]

    def mode(self, path: Path) -> int:
        return path.lstat().st_mode & 0o7777


def members(line: bytes, name: str) -> dict[str, Any]:
    """What a line says, once its checksum is found right for a file of that name."""
    checksum, blank, body = line[:8], line[8:9], line[9:]
    assert blank == b" "
    assert checksum == f"{zlib.crc32(name.encode() + body):08x}".encode()
    found = json.loads(body)
    assert list(found)[-1] == "data"
    assert isinstance(found, dict)
    return found


def line_for(name: str, **said: Any) -> bytes:
    """A whole line, made by hand, for a file of that name."""
    header = {"format": 1, "version": 1, "lineage": "ab", "created": 1.5, "saved": 1.5}
    body = json.dumps(header | said, separators=(",", ":"))
    return f"{zlib.crc32((name + body).encode()):08x} {body}\n".encode()


class Faults:
    """Makes the n-th system call of some code fail, and gives the names of all that it made."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @contextmanager
    def failing(
        self, error: BaseException, nth: int = 1, only: tuple[str, ...] = CALLS
    ) -> Iterator[list[str]]:
        """Inside, the ``nth`` call of those named raises; gives the names of all that were made."""
        self.calls = []
        act = failing(error, nth)

        def noted(call: SystemCall) -> Any:
            self.calls.append(call.name)
            return act(call)

        with SystemCalls(noted, only=only):
            yield self.calls

    def each(
        self, error: BaseException, only: tuple[str, ...] = CALLS
    ) -> Iterator[AbstractContextManager[list[str]]]:
        """``failing`` for the first call, the second and so on; the last time none fails."""
        nth, reached = 0, True
        while reached:
            nth += 1
            yield self.failing(error, nth, only)
            reached = len(self.calls) >= nth


class Processes:
    """Python programs that all begin at the same moment."""

    def run(self, program: str, *arguments: object, count: int) -> list[str]:
        """What each of them printed; fails when one of them did."""
        # Each says that it is ready and waits for its line of input, so that none has a start.
        started = [
            subprocess.Popen(
                [sys.executable, "-c", "print(flush=True); input()\n" + program]
                + [str(argument) for argument in (n, *arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for n in range(count)
        ]
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        printed = []
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in started:
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            printed.append(output)
        return printed


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def store(directory: Path, clock: ManualClock) -> FileStore:
    return FileStore(directory, clock=clock)


@pytest.fixture
def raw(directory: Path) -> Raw:
    return Raw(directory)


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def processes() -> Processes:
    return Processes()


@pytest.fixture
def make_line() -> Callable[..., bytes]:
    return line_for


@pytest.fixture
def no_descriptor_leaks() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def site(store: FileStore, raw: Raw, clock: ManualClock, make_line: Callable[..., bytes]) -> Site:
    return Site(store, raw, clock, make_line)


@pytest.fixture
def grown_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything on the disk was last changed more than a minute ago."""
    now = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the disk when is tested elsewhere; here it would only take time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)


@pytest.fixture(params=[0, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """Whatever the process was started with."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def manifest(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "filesession.json").read_bytes())
    assert isinstance(found, dict)
    return found
