"""Starlette's ``request.session``, and what its own middlewares, mounts and test client expect."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from filesession.asgi import SessionMiddleware
from filesession.errors import StoreError

with warnings.catch_warnings(action="ignore"):  # it would rather have httpx2
    from starlette.testclient import TestClient

if TYPE_CHECKING:
    from tests.gateways.conftest import RecordingStore

SECRET = "the newest secret"

Visit = Callable[..., TestClient]
Endpoint = Callable[[Request], Any]


@pytest.fixture
def visit(store: RecordingStore) -> Iterator[Visit]:
    """A browser of an application with these routes; its lifespan is over when the test is."""
    clients: list[TestClient] = []

    def opened(*routes: BaseRoute, inner: Any = (), **options: Any) -> TestClient:
        ours = Middleware(SessionMiddleware, store, SECRET, **options)
        app = Starlette(routes=list(routes), middleware=[ours, *inner])
        client = TestClient(app, follow_redirects=False)
        client.__enter__()
        clients.append(client)
        return client

    yield opened
    for client in clients:
        client.__exit__()


def stored(store: RecordingStore) -> list[dict[str, Any]]:
    """The data of all sessions."""
    found = (store.inspect(info.handle) for info in store.scan())
    return [data for _, data in filter(None, found)]


async def page(request: Request) -> Response:
    return JSONResponse(request.session)


async def login(request: Request) -> Response:
    request.session.regenerate()  # type: ignore[attr-defined]  # Starlette takes it for any dict
    request.session["user"] = "ada"
    return RedirectResponse("/", 303)


async def logout(request: Request) -> Response:
    request.session.destroy()  # type: ignore[attr-defined]
    request.session["flash"] = "bye"
    return RedirectResponse("/", 303)


async def add(request: Request) -> Response:
    request.session.setdefault("cart", []).append("tea")
    return PlainTextResponse("added")


SHOP = (
    Route("/", page),
    Route("/add", add),
    Route("/login", login, methods=["POST"]),
    Route("/logout", logout, methods=["POST"]),
)


def test_a_visitor_logs_in_and_out(visit: Visit, store: RecordingStore) -> None:
    client = visit(*SHOP)
    assert client.get("/").json() == {}
    assert "sid" not in client.cookies
    client.get("/add")
    before = client.cookies["sid"]
    answer = client.post("/login")
    assert (answer.status_code, answer.headers["cache-control"]) == (303, "no-store")
    assert client.cookies["sid"] != before
    assert client.get("/").json() == {"cart": ["tea"], "user": "ada"}
    who_knew_the_id_before = TestClient(client.app, cookies={"sid": before})
    assert who_knew_the_id_before.get("/").json() == {}
    inside = client.cookies["sid"]
    client.post("/logout")
    assert client.cookies["sid"] != inside
    assert client.get("/").json() == {"flash": "bye"}
    assert stored(store) == [{"flash": "bye"}]


def test_a_page_whose_session_starlette_handed_out_varies_by_cookie(visit: Visit) -> None:
    async def look(request: Request) -> Response:
        assert request.session is not None
        return PlainTextResponse("")

    async def ignore(request: Request) -> Response:
        return PlainTextResponse("")

    client = visit(Route("/look", look), Route("/ignore", ignore))
    assert client.get("/look").headers["vary"] == "Cookie"
    assert "vary" not in client.get("/ignore").headers


def test_outside_the_path_starlette_says_that_there_is_no_session(visit: Visit) -> None:
    client = visit(*SHOP, Route("/shop", page), path="/shop")
    assert client.get("/shop").json() == {}
    with pytest.raises(AssertionError, match="SessionMiddleware must be installed"):
        client.get("/")


# -- mounts ---------------------------------------------------------------------------------------


def test_a_mounted_application_has_the_session_of_the_whole(visit: Visit) -> None:
    client = visit(*SHOP, Mount("/part", Starlette(routes=SHOP)))
    client.get("/part/add")
    assert client.get("/").json() == {"cart": ["tea"]}


def test_a_middleware_inside_a_mount_is_limited_by_the_whole_path(
    visit: Visit, store: RecordingStore
) -> None:
    part = SessionMiddleware(Starlette(routes=SHOP), store, SECRET, path="/part", name="part")
    client = TestClient(Starlette(routes=[Mount("/part", part), Mount("/other", part)]))
    assert "; Path=/part;" in client.get("/part/add").headers["set-cookie"]
    assert client.get("/part/").json() == {"cart": ["tea"]}
    with pytest.raises(AssertionError, match="SessionMiddleware must be installed"):
        client.get("/other/")


def test_a_mounted_application_with_our_middleware_of_its_own_shares_the_outer_session(
    visit: Visit, store: RecordingStore
) -> None:
    inner = SessionMiddleware(Starlette(routes=SHOP), store, "another", name="inner")
    client = visit(*SHOP, Mount("/part", inner))
    client.get("/part/add")
    assert list(client.cookies) == ["sid"]
    assert client.get("/").json() == {"cart": ["tea"]}


# -- beside other middlewares ---------------------------------------------------------------------


class OtherSessions:
    """Another's session middleware: puts a dict where Starlette looks for one."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["session"] = {}
        await self.app(scope, receive, send)


def test_another_session_middleware_inside_is_an_error(visit: Visit, store: RecordingStore) -> None:
    client = visit(*SHOP, inner=[Middleware(OtherSessions)])
    with pytest.raises(TypeError, match="the session was replaced by a dict; change it in place"):
        client.get("/add")
    assert stored(store) == []


def test_under_another_key_both_work(visit: Visit, store: RecordingStore) -> None:
    async def both(request: Request) -> Response:
        request.session["a"] = 1
        request.scope["server_side"]["b"] = 2
        return PlainTextResponse("")

    client = visit(Route("/", both), inner=[Middleware(OtherSessions)], key="server_side")
    assert client.get("/").status_code == 200
    assert stored(store) == [{"b": 2}]


@contextmanager
def no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert caplog.messages == []


def test_a_middleware_that_copies_the_scope_and_streams_the_response_changes_nothing(
    visit: Visit, store: RecordingStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            request.session["outer"] = 1
            response: Response = await call_next(request)
            request.session["after"] = 2  # its body has not left
            return response

    with no_warnings(caplog):
        client = visit(*SHOP, inner=[Middleware(Passing)])
        client.get("/add")
    assert stored(store) == [{"outer": 1, "cart": ["tea"], "after": 2}]


# -- kinds of responses ---------------------------------------------------------------------------


def test_a_background_task_and_a_stream_may_change_the_session(
    visit: Visit, store: RecordingStore
) -> None:
    def remember(request: Request, key: str) -> None:
        request.session[key] = True

    async def background(request: Request) -> Response:
        return PlainTextResponse("", background=BackgroundTask(remember, request, "background"))

    async def stream(request: Request) -> Response:
        async def pieces() -> Any:
            yield b"a"
            remember(request, "stream")
            yield b"b"

        return StreamingResponse(pieces())

    client = visit(*SHOP, Route("/background", background), Route("/stream", stream))
    client.get("/add")
    client.get("/background")
    assert client.get("/stream").text == "ab"
    assert stored(store) == [{"cart": ["tea"], "background": True, "stream": True}]


def test_a_file_is_sent_with_the_cookie(visit: Visit, store: RecordingStore) -> None:
    async def download(request: Request) -> Response:
        request.session["downloads"] = 1
        return FileResponse(__file__, media_type="text/plain")

    client = visit(Route("/", download))
    answer = client.get("/")
    assert answer.text.startswith('"""Starlette')
    assert "set-cookie" in answer.headers
    assert client.head("/").status_code == 200
    assert len(stored(store)) == 1


@pytest.mark.parametrize("wrapped", [False, True], ids=["as its middleware", "around it"])
def test_an_error_is_a_clean_500_and_saves_nothing(
    visit: Visit, store: RecordingStore, *, wrapped: bool
) -> None:
    async def fail(request: Request) -> Response:
        request.session["half"] = 1
        raise LookupError

    async def unstorable(request: Request) -> Response:
        request.session["half"] = object()
        return PlainTextResponse("done")

    routes = [Route("/fail", fail), Route("/unstorable", unstorable)]
    app: Any = Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, store, SECRET)])
    if wrapped:
        app = SessionMiddleware(Starlette(routes=routes), store, SECRET)
    client = TestClient(app, raise_server_exceptions=False)
    for path in ("/fail", "/unstorable"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert answer.text in {"Internal Server Error", ""}
    # Starlette's error page, inside, is a response like any other: what was changed is saved.
    assert len(stored(store)) == int(wrapped)


def test_when_the_store_fails_the_answer_is_503(visit: Visit, store: RecordingStore) -> None:
    client = visit(*SHOP)
    client.get("/add")
    store.failing["save"] = StoreError("the disk is full")
    answer = client.get("/add")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    store.failing["load"] = StoreError("the disk is gone")
    assert client.get("/").status_code == 503
    store.failing.clear()
    assert client.get("/").json() == {"cart": ["tea"]}


# -- websockets -----------------------------------------------------------------------------------


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    websocket.session["said"] = await websocket.receive_text()
    await websocket.send_json(websocket.session)
    await websocket.close()


def test_a_websocket_sees_and_changes_the_session(visit: Visit, store: RecordingStore) -> None:
    client = visit(*SHOP, WebSocketRoute("/talk", talk))
    client.get("/add")
    with client.websocket_connect("/talk") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_json() == {"cart": ["tea"], "said": "hello"}
        with pytest.raises(WebSocketDisconnect):
            websocket.receive_text()
    assert client.get("/").json() == {"cart": ["tea"], "said": "hello"}


def test_a_websocket_is_denied_when_the_store_fails(visit: Visit, store: RecordingStore) -> None:
    client = visit(*SHOP, WebSocketRoute("/talk", talk))
    client.get("/add")
    store.failing["load"] = StoreError("the disk is gone")
    with pytest.raises(WebSocketDisconnect) as denied, client.websocket_connect("/talk"):
        pass
    response: Any = denied.value
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
