"""The examples as real processes: on a free port, awaited with a deadline, ended in any case."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 20

Launch = Callable[..., AbstractContextManager["subprocess.Popen[bytes]"]]
Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def port() -> int:
    return _free_port()


@pytest.fixture(scope="session")
def is_open() -> Callable[[int], bool]:
    """Whether something listens at the port."""
    return _is_open


@pytest.fixture(scope="session")
def alive() -> Callable[[int], set[int]]:
    """The processes that descend from one, itself included, and are no zombies."""
    return _family


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Start ``python ARGUMENTS`` in the project's root; all it started is ended afterwards."""

    @contextmanager
    def launched(
        *arguments: str, log: Path, **environment: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            family = _family(process.pid)
            process.terminate()
            try:
                process.wait(DEADLINE)
            finally:
                for pid in family:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()

    return launched


@pytest.fixture(scope="session")
def serve(launch: Launch) -> Serve:
    """Start ``python ARGUMENTS`` with a free port for ``{port}``; the server's address."""

    @contextmanager
    def serving(*arguments: str, log: Path, **environment: str) -> Iterator[str]:
        port = _free_port()
        words = [argument.format(port=port) for argument in arguments]
        with launch(*words, log=log, **environment) as process:
            wait_until(lambda: _is_open(port) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"

    return serving


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _family(pid: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(path.parent.name)] = int(parent)
    family = {pid} & parents.keys()
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family
