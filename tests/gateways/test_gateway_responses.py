"""Responses without a body, and what else an application may send: the same rules for all.

An answer to HEAD, a 304 and their like say of the session what the whole page would say. What comes
before a response, or after its body, is passed on and neither stores nor announces anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, RecordingStore, Server, Site, Wire

START: Final = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Final = {"type": "http.response.body", "body": b"the page"}
OK: Final = ("200 OK", [("Content-Type", "text/plain")])


# -- without a body -------------------------------------------------------------------------------


def ignore(session: Any) -> None: ...


def read(session: Any) -> None:
    session.get("user")


def change(session: Any) -> None:
    session["seen"] = session.get("seen", 0) + 1


def regenerate(session: Any) -> None:
    session.regenerate()


def destroy(session: Any) -> None:
    session.destroy()


DEEDS: Final = [ignore, read, change, regenerate, destroy]
BODILESS: Final = [
    ("HEAD", "200 OK"),
    ("GET", "304 Not Modified"),
    ("GET", "204 No Content"),
]
OWN: Final[list[list[tuple[str, str]]]] = [
    [],
    [("cache-control", "public, max-age=600"), ("vary", "accept-encoding")],
    [("cache-control", "private, max-age=600"), ("vary", "Cookie")],
    [("cache-control", "max-age=600"), ("etag", '"1"'), ("vary", "*")],
]
"""What an application says of its own to caches."""


@pytest.mark.parametrize(("method", "status"), BODILESS, ids=lambda value: value[:4].strip())
@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
@pytest.mark.parametrize("known", [True, False], ids=["loaded", "new"])
def test_a_response_without_a_body_says_of_the_session_what_the_page_would(
    visited: Callable[..., Any], method: str, status: str, deed: Any, *, known: bool
) -> None:
    for own in OWN:
        page = visited("GET", "200 OK", deed, own, known=known)
        assert visited(method, status, deed, own, known=known) == page


@pytest.fixture
def visited(
    site: Site, store: RecordingStore, cookie_of: Callable[..., str]
) -> Callable[..., tuple[Any, ...]]:
    """Makes a request; what its response said, the store calls, and how many sessions are left."""

    def visit(method: str, status: str, deed: Any, own: Any, *, known: bool) -> tuple[Any, ...]:
        def page(here: Here) -> None:
            deed(here.session)
            here.status, here.headers = status, list(own)
            if status[:3] not in {"204", "304"}:
                here.headers.append(("content-type", "text/plain"))
            if (method, status) != ("GET", "200 OK"):
                here.body = []

        sid = store.create({"user": "ada"}).id
        store.calls.clear()
        answer = site.request(page, cookie=cookie_of(sid) if known else None, method=method)
        return told(answer.headers), list(store.calls), store.clear()

    return visit


def told(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a response says of the session, but for the id, and to caches."""
    found = []
    for name, value in headers:
        if name.lower() == "set-cookie":
            cookie, _, attributes = value.partition(";")
            found.append((name, f"{bool(cookie.partition('=')[2])};{attributes}"))
        elif name.lower() in {"cache-control", "vary", "etag"}:
            found.append((name.lower(), value))
    return sorted(found)


def test_not_modified_keeps_a_new_cookie_out_of_shared_caches(site: Site) -> None:
    def page(here: Here) -> None:
        change(here.session)
        here.status, here.body = "304 Not Modified", []
        here.headers = [("cache-control", "public, max-age=600"), ("etag", '"1"')]

    answer = site.request(page)
    assert answer.set_cookie is not None
    assert answer.all("cache-control") == ["no-store"]
    assert answer.all("vary") == ["Cookie"]
    assert answer.all("etag") == ['"1"']


# -- beside the response, under ASGI --------------------------------------------------------------


BEFORE: Final = [
    {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]},
    {"type": "http.response.push", "path": "/style.css", "headers": []},
    {"type": "http.response.debug", "info": {}},
]
TRAILERS: Final = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}


@pytest.mark.parametrize("message", BEFORE, ids=lambda message: message["type"][14:])
def test_what_is_sent_before_the_response_stores_and_announces_nothing(
    connect: Callable[..., Wire], store: RecordingStore, message: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(message)
        change(scope["session"])
        await send(message)
        await send(START)
        await send(BODY)

    wire = connect(extensions={message["type"]: {}})
    wire.serve(app)
    kind = message["type"]
    assert store.journal == [kind, kind, "create", START["type"], BODY["type"]]
    assert wire.sent[0] is message
    assert wire.sent[1] is message
    cookies = [name for name, _ in wire.sent[2]["headers"] if name == b"set-cookie"]
    assert len(cookies) == 1


@pytest.mark.parametrize("when", ["before the body ends", "before the trailers", "after them"])
def test_trailers_follow_the_body_and_what_changes_until_the_end_is_stored_once(
    connect: Callable[..., Wire], store: RecordingStore, sid: str, stored: Any, when: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        def change_if(now: str) -> None:
            if now == when:
                change(scope["session"])

        await send({**START, "trailers": True})
        await send({**BODY, "more_body": True})
        change_if("before the body ends")
        await send(BODY)
        change_if("before the trailers")
        await send({**TRAILERS, "more_trailers": True})
        await send(TRAILERS)
        change_if("after them")

    wire = connect(sid=sid, extensions={TRAILERS["type"]: {}})
    wire.serve(app)
    assert store.calls == ["load", "touch", "save"]
    assert [message["type"] for message in wire.sent] == [
        *(START["type"], BODY["type"], BODY["type"], TRAILERS["type"], TRAILERS["type"])
    ]
    assert wire.sent[0]["trailers"] is True
    assert wire.sent[-1] is TRAILERS
    assert stored() == {"user": "ada", "seen": 1}


# -- beside the response, under WSGI --------------------------------------------------------------


def test_early_hints_of_a_server_store_and_announce_nothing(
    call: Callable[..., Server], store: RecordingStore
) -> None:
    def hint(headers: list[tuple[str, str]]) -> None:
        store.journal.append("hints")

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
        change(environ["filesession.session"])
        start_response(*OK)
        return [b"the page"]

    server = call(**{"wsgi.early_hints": hint})
    server.serve(app)
    assert store.journal == ["hints", "create", "start_response", "headers", b"the page"]
    assert len(server.all("set-cookie")) == 1
