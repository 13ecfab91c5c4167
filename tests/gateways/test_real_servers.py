"""Sessions under real servers with several workers, on sockets of this machine."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import ClientConnection, connect

from filesession import FileStore

PATIENCE = 20  # seconds
SERVERS = {
    "uvicorn": "uvicorn server_app:asgi --workers 2 --fd {fd}",
    "gunicorn": "gunicorn server_app:wsgi -w 2 -b fd://{fd} --no-control-socket",
    "gthread": "gunicorn server_app:wsgi -w 2 -b fd://{fd} --no-control-socket"
    " -k gthread --threads 4",
}


@dataclass
class Answer:
    """What a browser that follows no redirects got."""

    status: int
    cookie: str | None
    worker: int
    session: dict[str, Any]


@dataclass
class Site:
    """A running server and the directory of its sessions."""

    port: int
    directory: Path
    log: Path

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


@pytest.fixture(scope="module", params=SERVERS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A server, which takes over a socket that listens already: nobody waits until it is up."""
    place = tmp_path_factory.mktemp("site")
    site = Site(0, place / "sessions", place / "log")
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listening,
        site.log.open("wb") as log,
    ):
        site.port = listening.getsockname()[1]
        command = SERVERS[request.param].format(fd=listening.fileno())
        process = subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            cwd=Path(__file__).parent,
            env={**os.environ, "FILESESSION_DIR": str(site.directory)},
            stdout=log,
            stderr=log,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )
    try:
        yield site
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "Traceback" not in site.log.read_text()


uvicorn = pytest.mark.parametrize("site", ["uvicorn"], indirect=True)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_the_workers_share_the_key_that_the_directory_keeps(
    site: Site, pool: ThreadPoolExecutor
) -> None:
    cookie = site.start()
    workers: set[int] = set()
    for _ in range(100):
        answers = list(pool.map(site.ask, ["/see"] * 8, [cookie] * 8))
        assert all(answer.session == {"started": True} for answer in answers)
        workers |= {answer.worker for answer in answers}
        if len(workers) == 2:
            return
    pytest.fail("only one worker answered")


def test_parallel_requests_that_add_to_one_session_lose_nothing(
    site: Site, pool: ThreadPoolExecutor
) -> None:
    cookie = site.start()
    keys = [f"key{number}" for number in range(64)]
    answers = list(pool.map(site.ask, [f"/add/{key}" for key in keys], [cookie] * len(keys)))
    assert {(answer.status, answer.cookie) for answer in answers} == {(200, None)}
    assert site.ask("/see", cookie).session == dict.fromkeys(["started", *keys], True)


def test_a_counter_under_the_sessions_lock_is_exact(site: Site, pool: ThreadPoolExecutor) -> None:
    cookie = site.start()
    answers = list(pool.map(site.ask, ["/count"] * 64, [cookie] * 64))
    assert sorted(answer.session["count"] for answer in answers) == list(range(1, 65))
    assert site.ask("/see", cookie).session["count"] == 64


class Door:
    """Holds a request that connects to it, until it is opened."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.port = listening.getsockname()[1]

    def let_go_after(self, act: Callable[[], object]) -> None:
        """Wait for a request to come, do something, and let it go on."""
        connection, _ = self._listening.accept()
        with connection:
            act()


@pytest.fixture
def door() -> Iterator[Door]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield Door(listening)


def test_a_redirect_never_outruns_the_save(site: Site, door: Door) -> None:
    cookie = site.start()
    seen: list[dict[str, Any]] = []

    def follow() -> None:
        door.let_go_after(lambda: seen.append(site.ask("/see", cookie).session))

    answer = site.ask(f"/redirect/{door.port}", cookie, before_the_page=follow)
    assert answer.status == 303
    assert seen == [{"started": True, "redirect": True}]


def test_a_session_logged_out_while_a_slow_request_is_under_way_stays_gone(
    site: Site, pool: ThreadPoolExecutor, door: Door
) -> None:
    cookie = site.start()
    before = len(FileStore(site.directory))
    answer = pool.submit(site.ask, f"/slow/{door.port}", cookie)
    door.let_go_after(lambda: site.ask("/logout", cookie))
    slow = answer.result(PATIENCE)
    assert (slow.status, slow.cookie) == (200, None)
    assert slow.session["after"]  # it wrote, and in vain
    assert site.ask("/see", cookie).session == {}
    assert len(FileStore(site.directory)) == before - 1


def test_a_slow_request_keeps_what_others_added_meanwhile(
    site: Site, pool: ThreadPoolExecutor, door: Door
) -> None:
    cookie = site.start()
    answer = pool.submit(site.ask, f"/slow/{door.port}", cookie)
    door.let_go_after(lambda: site.ask("/add/meanwhile", cookie))
    assert answer.result(PATIENCE).status == 200
    keys = ["started", "meanwhile", "slow", "after"]
    assert site.ask("/see", cookie).session == dict.fromkeys(keys, True)


@uvicorn
def test_a_websocket_sees_and_changes_the_session(site: Site) -> None:
    cookie = site.start()
    with site.talk(cookie) as websocket:
        assert site.ask("/see", cookie).session == {"started": True, "connected": True}
        websocket.send("/add/said")
        assert json.loads(websocket.recv(PATIENCE))["session"]["said"]
        websocket.send("/save")
        websocket.recv(PATIENCE)
        assert site.ask("/see", cookie).session["said"]
        websocket.send("/add/last")
        websocket.recv(PATIENCE)
        websocket.send("/bye")
        with pytest.raises(ConnectionClosedOK):
            websocket.recv(PATIENCE)
        assert site.ask("/see", cookie).session["last"]


@uvicorn
def test_a_new_session_of_a_websocket_gets_its_cookie_with_the_handshake(site: Site) -> None:
    with site.talk("unrelated=1") as websocket:
        assert websocket.response is not None
        cookie = websocket.response.headers["Set-Cookie"].partition(";")[0]
        assert site.ask("/see", cookie).session == {"connected": True}


@uvicorn
def test_a_session_logged_out_while_its_websocket_is_open_stays_gone(site: Site) -> None:
    cookie = site.start()
    with site.talk(cookie) as websocket:
        site.ask("/logout", cookie)
        websocket.send("/add/late")
        websocket.recv(PATIENCE)
        websocket.send("/bye")
        with pytest.raises(ConnectionClosedOK):
            websocket.recv(PATIENCE)
    assert site.ask("/see", cookie).session == {}
