"""Requests that include and exclude leave without a session, under both gateways."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from filesession import asgi, wsgi
from filesession.stores import MemoryStore

if TYPE_CHECKING:
    from tests.gateways.conftest import Kind, RecordingStore, Server, Site, Wire


@pytest.fixture
def visit(
    make_site: Callable[..., Site], sid: str, cookie_of: Callable[..., str]
) -> Callable[..., bool]:
    """Asks for a path with the cookie of ``sid``; whether there was a session."""

    def visited(url: str, method: str = "GET", **options: Any) -> bool:
        found: list[bool] = []
        make_site(**options).request(
            lambda here: found.append(here.key in here.place),
            cookie=cookie_of(sid),
            path=url,
            method=method,
        )
        (session,) = found
        return session

    return visited


def test_outside_what_is_included_there_is_no_session_and_the_store_is_not_asked(
    visit: Callable[..., bool], store: RecordingStore
) -> None:
    include = ["/shop/**", ("/login", "POST")]
    assert visit("/shop/cart", include=include)
    assert visit("/login", "POST", include=include)
    store.calls.clear()
    assert not visit("/other", include=include)
    assert not visit("/login", include=include)
    assert store.calls == []


def test_an_excluded_request_has_none_and_its_response_is_left_as_it_is(
    make_site: Callable[..., Site], store: RecordingStore, sid: str, cookie_of: Callable[..., str]
) -> None:
    site = make_site(exclude="/static/**", rolling=True, save_uninitialized=True, resave=True)
    for cookie in (cookie_of(sid), cookie_of(sid, secret="another"), "sid=forged", None):
        answer = site.request(path="/static/a.css", cookie=cookie)
        assert (answer.status, answer.headers) == (200, [("content-type", "text/plain")])
    assert store.calls == []


def test_an_exclude_wins_in_one_middleware_and_is_nothing_to_another(
    kind: Kind, visit: Callable[..., bool]
) -> None:
    options = {"include": "/shop/**", "exclude": [re.compile(r"/shop/\d+\.png")]}
    assert not visit("/shop/7.png", **options)
    assert visit("/shop/7.html", **options)


@pytest.mark.parametrize(
    "spelled", ["/shop/../account", "//account", "/SHOP/..\\account", "/shop/a%2Fb"]
)
def test_no_spelling_takes_the_session_from_a_path_that_others_read_otherwise(
    visit: Callable[..., bool], spelled: str
) -> None:
    assert visit(spelled, exclude="/shop/**")
    assert visit(spelled, include="/account")


def test_the_cookies_path_limits_sessions_all_the_same(visit: Callable[..., bool]) -> None:
    assert not visit("/other/cart", path="/shop", include="/**/cart")
    assert visit("/shop/cart", path="/shop", include="/**/cart")


def test_a_path_that_is_no_ascii_is_compared_decoded(visit: Callable[..., bool]) -> None:
    assert not visit("/café/menü", exclude="/café/*")
    assert visit("/cafe/menü", exclude="/café/*")


def test_under_wsgi_the_whole_path_counts_and_a_method_in_any_case(
    call: Callable[..., Server], store: RecordingStore, sid: str
) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"yes" if "filesession.session" in environ else b"no"]

    def asked(method: str, **options: Any) -> bytes:
        server = call(sid, SCRIPT_NAME="/shop", PATH_INFO="/cart", REQUEST_METHOD=method)
        server.serve(app, validated=False, **options)
        return server.body

    assert asked("GET", exclude="/shop/cart") == b"no"
    assert asked("GET", exclude="/cart") == b"yes"
    assert asked("GET", include=("/shop/cart",)) == b"yes"


@pytest.mark.parametrize("method", ["post", "Post", "POST"])
def test_under_wsgi_a_method_that_frameworks_read_in_capitals_is_read_so(method: str) -> None:
    found: list[bool] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        found.append("filesession.session" in environ)
        start_response("200 OK", [])
        return []

    gateway = wsgi.SessionMiddleware(app, MemoryStore(), "secret", include=[("/", "POST")])
    environ = {"PATH_INFO": "/", "REQUEST_METHOD": method, "wsgi.url_scheme": "http"}
    gateway(environ, lambda *_: lambda _: None)
    assert found == [True]


@pytest.mark.parametrize(
    ("option", "covered"),
    [
        ({"exclude": ["/chat"]}, False),
        ({"exclude": [("/chat", "GET")]}, False),
        ({"exclude": [("/chat", "POST")]}, True),
        ({"include": [("/chat", ["GET", "POST"])]}, True),
        ({"include": [("/chat", "POST")]}, False),
    ],
    ids=str,
)
def test_a_websocket_counts_as_a_get(
    connect: Callable[..., Wire],
    store: RecordingStore,
    sid: str,
    option: dict[str, Any],
    *,
    covered: bool,
) -> None:
    found: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append("session" in scope)
        await send({"type": "websocket.accept"})

    connect(sid=sid, kind="websocket", scheme="ws", path="/chat").serve(app, **option)
    assert found == [covered]
    assert ("load" in store.calls) == covered


def calls_of(act: Callable[[], object]) -> int:
    """How many Python functions are called by it."""
    calls = 0

    def note(frame: Any, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls


async def serve_nothing(scope: Any, receive: Any, send: Any) -> None: ...


def test_an_excluded_request_costs_a_handful_of_calls_and_nothing_of_it_is_read(
    kind: Kind,
) -> None:
    options: dict[str, Any] = {"exclude": ["/health", ("/static/**", ["GET", "HEAD"])]}
    if kind == "asgi":
        app = asgi.SessionMiddleware(serve_nothing, MemoryStore(), "secret", **options)
        scope = {"type": "http", "path": "/static/a", "method": "GET"}  # no headers to look at

        def serve() -> None:
            with suppress(StopIteration):
                app(scope, no_receive, no_send).send(None)

        assert calls_of(serve) < 12
        assert list(scope) == ["type", "path", "method"]
        return
    gateway = wsgi.SessionMiddleware(lambda *_: [], MemoryStore(), "secret", **options)
    environ = {"PATH_INFO": "/static/a", "REQUEST_METHOD": "GET"}
    assert calls_of(lambda: gateway(environ, lambda *_: print)) < 12
    assert list(environ) == ["PATH_INFO", "REQUEST_METHOD"]


async def no_receive() -> Any:
    """Never called."""


async def no_send(*_: Any) -> Any:
    """Never called."""
