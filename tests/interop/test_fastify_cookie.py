"""One session shared with a Fastify application, over HTTP, with the real npm packages."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest

from filesession.cookies import EncryptedCookie
from filesession.testing import ManualClock
from filesession.wsgi import SessionMiddleware
from tests.interop.npm import PATIENCE, node, npm_packages
from tests.serving import ROOT
from tests.serving import serving as web_server

HERE: Final = Path(__file__).parent

PACKAGES: Final = {
    "fastify": "5.12.8",
    "@fastify/cookie": "11.1.5",
    "@fastify/secure-session": "8.4.0",
}

KEY: Final = bytes(range(1, 33))
OLD: Final = b"\x5a" * 32
SECRET: Final = "a secret that both servers know, in UTF-8: пароль"
SALT: Final = bytes(range(16))

DATA: Final = {
    "user": {"id": 1, "name": "Zoë 日本 😀"},
    "list": [1, 2.5, None, True, '</script>"\\\n'],
    "big": 2**53 - 1,
}

FASTIFYS: Final[list[dict[str, Any]]] = [
    {"sessionName": "key", "key": [KEY.hex()], "expiry": 900},
    {"sessionName": "secret", "secret": SECRET, "salt": SALT.hex()},
    {"sessionName": "before", "key": [OLD.hex()], "cookieName": "rotated"},
    {"sessionName": "after", "key": [KEY.hex(), OLD.hex()], "cookieName": "rotated"},
    # Of several sessions the last one's key signs.
    {"sessionName": "signed", "key": [KEY.hex()], "cookie": {"signed": True, "path": "/"}},
]

SHARED: Final = ["key", "secret", "signed"]


@dataclass
class Browser:
    """What holds the cookies of one host, whatever the port, and sends them with each request."""

    cookies: dict[str, str] = field(default_factory=dict)
    set_cookie: str | None = None

    def ask(self, port: int, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a page; keeps the cookie it sets, and forgets one that it expires."""
        headers = {"Cookie": "; ".join(f"{name}={self.cookies[name]}" for name in self.cookies)}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            page = response.read()
        finally:
            connection.close()
        assert response.status == 200, page
        self.set_cookie = response.headers["Set-Cookie"]
        if self.set_cookie is not None:
            name, _, value = self.set_cookie.partition(";")[0].partition("=")
            if "Max-Age=0" in self.set_cookie:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return json.loads(page)


@dataclass(frozen=True)
class Server:
    """One of the two, which answer the same requests."""

    port: int

    def read(self, browser: Browser, name: str) -> Any:
        return browser.ask(self.port, "GET", f"/{name}")

    def write(self, browser: Browser, name: str, data: Any) -> Any:
        return browser.ask(self.port, "POST", f"/{name}/set", data)

    def end(self, browser: Browser, name: str) -> None:
        browser.ask(self.port, "POST", f"/{name}/delete", {})


@pytest.fixture(scope="module")
def fastify() -> Iterator[Server]:
    packages = npm_packages(PACKAGES)
    env = {"SESSIONS": json.dumps(FASTIFYS)}
    with node(HERE / "fastify_app.js", packages=packages, env=env) as app:
        yield Server(app.port)


@pytest.fixture(scope="module")
def ours() -> Iterator[Server]:
    """Our application, with the same sessions under the same names."""
    app: Any = _app
    cookies = {
        "key": EncryptedCookie(KEY, expiry=900),
        "secret": EncryptedCookie(secret=SECRET, salt=SALT),
        "rotated": EncryptedCookie([KEY, OLD]),
        "signed": EncryptedCookie(KEY),
    }
    for name, cookie in cookies.items():
        app = SessionMiddleware(app, cookie, name=name, key=name)
    with serving(app) as port:
        yield Server(port)


def _app(environ: Any, start_response: Any) -> list[bytes]:
    _, name, *verb = environ["PATH_INFO"].split("/")
    session = environ[f"filesession.{name}"]
    if verb == ["set"]:
        session.update(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
    elif verb == ["delete"]:
        session.destroy()
    elif verb == ["remember"]:
        session.cookie.max_age = 600
    page = json.dumps(dict(session)).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [page]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Requests are no news."""


@contextmanager
def serving(app: Any) -> Iterator[int]:
    """A server of an application in this process; gives its port."""
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(PATIENCE)


# -- the same session -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHARED)
def test_what_fastify_writes_is_read_here_and_back(
    fastify: Server, ours: Server, name: str
) -> None:
    browser = Browser()
    fastify.write(browser, name, DATA)
    assert ours.read(browser, name) == DATA
    assert browser.set_cookie is None
    ours.write(browser, name, {"cart": ["tea"]})
    assert browser.set_cookie is not None
    assert fastify.read(browser, name) == {**DATA, "cart": ["tea"]}
    assert browser.set_cookie is None
    fastify.write(browser, name, {"cart": []})
    assert ours.read(browser, name) == {**DATA, "cart": []}


@pytest.mark.parametrize("name", SHARED)
def test_what_is_begun_here_is_read_by_fastify(fastify: Server, ours: Server, name: str) -> None:
    browser = Browser()
    ours.write(browser, name, DATA)
    assert fastify.read(browser, name) == DATA


def test_who_logs_out_of_one_is_logged_out_of_both(fastify: Server, ours: Server) -> None:
    for one, other in ((fastify, ours), (ours, fastify)):
        browser = Browser()
        one.write(browser, "key", DATA)
        other.end(browser, "key")
        assert browser.cookies == {}
        assert (one.read(browser, "key"), other.read(browser, "key")) == ({}, {})


def test_each_opens_only_what_is_under_its_name(fastify: Server, ours: Server) -> None:
    browser = Browser()
    fastify.write(browser, "key", {"in": "key"})
    ours.write(browser, "secret", {"in": "secret"})
    for server in (fastify, ours):
        assert server.read(browser, "key") == {"in": "key"}
        assert server.read(browser, "secret") == {"in": "secret"}
    browser.cookies["key"], browser.cookies["secret"] = (
        browser.cookies["secret"],
        browser.cookies["key"],
    )
    for server in (fastify, ours):
        assert (server.read(browser, "key"), server.read(browser, "secret")) == ({}, {})


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["key", "signed"])
def test_both_refuse_what_was_tampered_with(fastify: Server, ours: Server, name: str) -> None:
    for maker in (fastify, ours):
        browser = Browser()
        maker.write(browser, name, DATA)
        good = browser.cookies[name]
        for at in (0, len(good) // 2, len(good) - 2):
            other = "A" if good[at] != "A" else "B"
            browser.cookies[name] = good[:at] + other + good[at + 1 :]
            assert (fastify.read(browser, name), ours.read(browser, name)) == ({}, {})


def test_both_hold_it_for_over_at_the_same_age(fastify: Server, ours: Server) -> None:
    for age, expected in ((840, DATA), (901, {})):
        value = EncryptedCookie(KEY, clock=ManualClock(time.time() - age)).seal(DATA)
        browser = Browser({"key": value.replace(";", "%3B")})
        assert (fastify.read(browser, "key"), ours.read(browser, "key")) == (expected, expected)


# -- rotation -------------------------------------------------------------------------------------


def test_what_fastify_sealed_with_the_old_key_is_sealed_anew_here(
    fastify: Server, ours: Server
) -> None:
    browser = Browser()
    fastify.write(browser, "before", DATA)
    assert ours.read(browser, "rotated") == DATA
    assert browser.set_cookie is not None
    assert fastify.read(browser, "before") == {}  # it has the old key alone
    assert fastify.read(browser, "after") == DATA
    assert browser.set_cookie is None


def test_what_was_sealed_with_the_old_key_here_is_sealed_anew_by_fastify(
    fastify: Server, ours: Server
) -> None:
    value = EncryptedCookie(OLD).seal(DATA)
    browser = Browser({"rotated": value.replace(";", "%3B")})
    assert fastify.read(browser, "after") == DATA
    assert browser.set_cookie is not None
    assert ours.read(browser, "rotated") == DATA
    assert browser.set_cookie is None


# -- what only one of them knows ------------------------------------------------------------------


def test_attributes_a_session_has_of_its_own_here_outlive_a_change_by_fastify(
    fastify: Server, ours: Server
) -> None:
    browser = Browser()
    ours.write(browser, "key", {"user": "ada"})
    browser.ask(ours.port, "POST", "/key/remember", {})
    fastify.write(browser, "key", {"n": 1})
    assert ours.write(browser, "key", {"n": 2}) == {"user": "ada", "n": 2}
    assert browser.set_cookie is not None
    assert "; Max-Age=600;" in browser.set_cookie


# -- the example ----------------------------------------------------------------------------------


def test_the_example_shares_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_KEY", base64.b64encode(KEY).decode())
    monkeypatch.setenv("PORT", "0")
    packages, folder = npm_packages(PACKAGES), ROOT / "examples" / "sealed"
    command = f"uvicorn --fd {{fd}} --app-dir {folder} app:app"
    with (
        node(folder / "app.js", packages=packages) as door,
        web_server(command, tmp_path) as shop,
        httpx.Client(timeout=PATIENCE, follow_redirects=True) as visitor,
    ):
        at_the_door, at_the_shop = (f"http://127.0.0.1:{port}" for port in (door.port, shop.port))
        assert "not logged in" in visitor.get(at_the_shop).text
        visitor.post(f"{at_the_door}/login", data={"name": "<ada>"})
        assert "&lt;ada&gt;'s cart: empty" in visitor.get(at_the_shop).text
        assert "cart: tea<" in visitor.post(f"{at_the_shop}/tea").text
        assert "&#60;ada&#62;: 1 in your cart" in visitor.get(at_the_door).text
        visitor.post(f"{at_the_shop}/logout")
        assert 'action="/login"' in visitor.get(at_the_door).text
        assert dict(visitor.cookies) == {}
