"""Servers of a test's own, which it may kill, and a place where their requests are held."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.gateways.test_real_servers import PATIENCE, Site

ROOT: Final = Path(__file__).parents[2]


@dataclass
class OwnSite(Site):
    """A running server.

    Attributes:
        process: the one that was started, whose children do the work.
    """

    process: subprocess.Popen[bytes]


@contextmanager
def serving(command: str, place: Path) -> Iterator[OwnSite]:
    """A server, which takes over a socket that listens already: nobody waits until it is up.

    Args:
        command: a Python module and its arguments, with ``{fd}`` for the socket.
        place: where its sessions and its log are to be.
    """
    directory, log = place / "sessions", place / "log"
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listening,
        log.open("wb") as writing,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", *command.format(fd=listening.fileno()).split()],
            cwd=ROOT,
            env={**os.environ, "FILESESSION_DIR": str(directory)},
            stdout=writing,
            stderr=writing,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )
        port = listening.getsockname()[1]
    try:
        yield OwnSite(port, directory, log, process)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Door:
    """Where requests connect to, to be held."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.port = listening.getsockname()[1]

    @contextmanager
    def opened(self) -> Iterator[str]:
        """Inside, a request is held; gives what it told. Afterwards it goes on."""
        connection, _ = self._listening.accept()
        with connection:
            connection.settimeout(PATIENCE)
            yield connection.makefile().readline()


@contextmanager
def a_door() -> Iterator[Door]:
    """A door at a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield Door(listening)
