"""Real servers, started by tests, and a place where their requests are held."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from websockets.sync.client import ClientConnection, connect

PATIENCE: Final = 20
"""Seconds until what does not come fails the test."""

ROOT: Final = Path(__file__).parents[1]


@dataclass
class Answer:
    """What a browser that follows no redirects got."""

    status: int
    cookie: str | None
    worker: int
    session: dict[str, Any]


@dataclass
class Site:
    """A running server.

    Attributes:
        port: of this machine, where it listens; 0: not at one.
        directory: of its sessions.
        log: what it wrote.
        process: the one that was started, whose children may do the work.
    """

    port: int
    directory: Path
    log: Path
    process: subprocess.Popen[bytes]

    def ask(
        self,
        path: str,
        cookie: str | None = None,
        *,
        before_the_page: Callable[[], object] = lambda: None,
    ) -> Answer:
        """One request, on a connection of its own; does something when its headers have come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={} if cookie is None else {"Cookie": cookie})
            response = connection.getresponse()
            before_the_page()
            page = json.loads(response.read())
        finally:
            connection.close()
        found = response.headers["Set-Cookie"]
        cookie = None if found is None else found.partition(";")[0]
        return Answer(response.status, cookie, page["worker"], page["session"])

    def start(self) -> str:
        """The cookie of a new session."""
        cookie = self.ask("/add/started").cookie
        assert cookie is not None
        return cookie

    def talk(self, cookie: str) -> ClientConnection:
        """A websocket."""
        return connect(
            f"ws://127.0.0.1:{self.port}/",
            additional_headers={"Cookie": cookie},
            open_timeout=PATIENCE,
            proxy=None,
        )


@contextmanager
def serving(command: str, place: Path, *, unix: Path | None = None) -> Iterator[Site]:
    """A server, which takes over a socket that listens already: nobody waits until it is up.

    It must not have written a traceback in the end.

    Args:
        command: a Python module and its arguments, with ``{fd}`` for the socket.
        place: where its sessions and its log are to be.
        unix: a path where it is to listen; None: at a port of this machine.
    """
    directory, log = place / "sessions", place / "log"
    with _listening(unix) as listening, log.open("wb") as writing:
        process = subprocess.Popen(
            [sys.executable, "-m", *command.format(fd=listening.fileno()).split()],
            cwd=ROOT,
            env={**os.environ, "FILESESSION_DIR": str(directory)},
            stdout=writing,
            stderr=writing,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )
        port = 0 if unix else listening.getsockname()[1]
    try:
        yield Site(port, directory, log, process)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "Traceback" not in log.read_text()


def _listening(unix: Path | None) -> socket.socket:
    if unix is None:
        return socket.create_server(("127.0.0.1", 0), backlog=128)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(unix))
    listening.listen(128)
    return listening


class Door:
    """Where requests connect to, to be held."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.port = listening.getsockname()[1]

    @contextmanager
    def opened(self) -> Iterator[TextIO]:
        """Inside, a request is held; gives what it tells. Afterwards it goes on."""
        connection, _ = self._listening.accept()
        connection.settimeout(PATIENCE)
        with connection, connection.makefile() as told:
            yield told

    def let_go_after(self, act: Callable[[], object]) -> None:
        """Wait for a request to come, do something, and let it go on."""
        with self.opened():
            act()
