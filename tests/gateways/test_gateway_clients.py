"""Clients of real servers that hang up, and slow requests whose session ends, over sockets.

What the tests on bare messages assume of a server is seen here on uvicorn and on gunicorn: where a
client is gone, the application goes on or is told, and its session is stored, once; where a session
ended meanwhile, nothing brings it back.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from filesession import FileStore
from tests.serving import PATIENCE, Door, Site, serving
from tests.waiting import wait_until

SERVERS = {
    "uvicorn": "uvicorn tests.gateways.client_app:asgi --fd {fd}",
    "gunicorn": "gunicorn tests.gateways.client_app:wsgi -b fd://{fd} --no-control-socket"
    " -k gthread --threads 4",
}


@pytest.fixture(scope="module", params=SERVERS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with serving(SERVERS[request.param], tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def cookie(site: Site) -> str:
    """The cookie of the one visitor who is logged in."""
    FileStore(site.directory).clear()
    cookie = site.ask("/login").cookie
    assert cookie is not None
    return cookie


def states(site: Site) -> list[bytes]:
    """Every state of the one stored session, as its file has them, the first one first."""
    store = FileStore.open(site.directory)
    (info,) = store.scan()
    content = Path(store._layout.path(info.handle)).read_bytes()
    return [line.partition(b'"data":')[2][:-1] for line in content.splitlines()]


@contextmanager
def asking(site: Site, request: str, cookie: str, body: bytes = b"") -> Iterator[socket.socket]:
    """A client that has sent this much of a request."""
    with socket.create_connection(("127.0.0.1", site.port), PATIENCE) as client:
        head = f"{request} HTTP/1.1\r\nHost: here\r\nCookie: {cookie}\r\n"
        if body:
            head += "Content-Length: 1000\r\n"
        client.sendall(f"{head}\r\n".encode() + body)
        yield client


# -- the client hangs up --------------------------------------------------------------------------


def test_a_client_gone_before_the_answer_loses_no_change(
    site: Site, cookie: str, door: Door
) -> None:
    with asking(site, f"GET /write/{door.port}", cookie) as client:
        door.let_go_after(client.close)
    wait_until(lambda: len(states(site)) > 1)
    assert site.ask("/see", cookie).session == {"user": "ada", "written": True}
    assert states(site) == [b'{"user":"ada"}', b'{"user":"ada","written":true}']


def test_a_client_gone_in_the_middle_of_the_answer_loses_no_change(
    site: Site, cookie: str, door: Door
) -> None:
    with asking(site, f"GET /stream/{door.port}", cookie) as client:

        def hang_up() -> None:
            assert client.recv(1) == b"H"
            client.close()

        door.let_go_after(hang_up)
    wait_until(lambda: len(states(site)) > 1)
    assert site.ask("/see", cookie).session == {"user": "ada", "streamed": True}
    assert states(site) == [b'{"user":"ada"}', b'{"user":"ada","streamed":true}']


def test_a_client_gone_in_the_middle_of_its_own_body_loses_no_change(
    site: Site, cookie: str, door: Door
) -> None:
    with asking(site, f"POST /upload/{door.port}", cookie, b"the first of it") as client:
        door.let_go_after(client.close)
    wait_until(lambda: len(states(site)) > 1)
    assert site.ask("/see", cookie).session == {"user": "ada", "cut": True}
    assert states(site) == [b'{"user":"ada"}', b'{"user":"ada","cut":true}']


def test_an_answer_to_head_has_the_cookie_and_no_body(site: Site, cookie: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)
    try:
        connection.request("HEAD", "/login")
        answer = connection.getresponse()
        assert answer.read() == b""
    finally:
        connection.close()
    assert answer.headers["Set-Cookie"].startswith("sid=s%3A")
    assert answer.headers["Cache-Control"] == "no-store"


# -- the session ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["read", "write"])
def test_out_and_in_again_beside_a_slow_request_leaves_the_fresh_session_alone(
    site: Site, cookie: str, door: Door, verb: str
) -> None:
    fresh: list[Any] = []

    def out_and_in() -> None:
        site.ask("/logout", cookie)
        fresh.append(site.ask("/login").cookie)

    slow = slowly(site, f"/{verb}/{door.port}", cookie, lambda: door.let_go_after(out_and_in))
    assert (slow.status, slow.headers["Set-Cookie"]) == (200, None)
    assert site.ask("/see", fresh[0]).session == {"user": "ada"}
    assert site.ask("/see", cookie).session == {}
    assert states(site) == [b'{"user":"ada"}']


@pytest.mark.parametrize("verb", ["read", "write"])
def test_swept_beside_a_slow_request_a_session_stays_gone(
    site: Site, cookie: str, door: Door, verb: str
) -> None:
    store = FileStore.open(site.directory)

    def expire_and_sweep() -> None:
        (info,) = store.scan()
        os.utime(store._layout.path(info.handle), (0, 0))
        assert store.sweep().expired == 1

    slow = slowly(site, f"/{verb}/{door.port}", cookie, lambda: door.let_go_after(expire_and_sweep))
    assert (slow.status, slow.headers["Set-Cookie"]) == (200, None)
    assert site.ask("/see", cookie).session == {}
    assert list(store.scan()) == []


def slowly(
    site: Site, path: str, cookie: str, meanwhile: Callable[[], object]
) -> http.client.HTTPResponse:
    """The answer to a request, while which something is done."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Cookie": cookie})
        meanwhile()
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    return answer
