"""The session as a parameter of FastAPI's endpoints: as it is, and as a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import orjson
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel

from filesession import ConfigurationError, FileStore, MemoryStore, Session, SessionInvalid
from filesession.asgi import SessionMiddleware
from filesession.contrib.fastapi import SessionDep, SessionModel, get_session, session_dependency
from filesession.contrib.typed import SessionView

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from tests.contrib.conftest import Visit

Stored = Callable[[], list[dict[str, Any]]]


class Visitor(BaseModel):
    user: str | None = None
    visits: int = 0
    cart: list[str] = []


VisitorDep = Annotated[Visitor, SessionModel(Visitor)]
LockedDep = Annotated[Visitor, SessionModel(Visitor, lock=True)]
AdminDep = Annotated[Session, Depends(session_dependency("admin"))]


# -- the session ----------------------------------------------------------------------------------


def test_it_is_the_requests_session_in_coroutines_functions_and_websockets(
    app: FastAPI, client: TestClient, stored: Stored
) -> None:
    @app.get("/coroutine")
    async def coroutine(session: SessionDep) -> bool:
        session["coroutine"] = True
        await session.asave()
        return type(session) is Session

    @app.get("/function")
    def function(session: SessionDep, request: Request) -> bool:
        session["function"] = True
        session.save()
        return session is request.session

    @app.websocket("/websocket")
    async def websocket(websocket: WebSocket, session: SessionDep) -> None:
        await websocket.accept()
        session["websocket"] = True
        await session.asave()
        await websocket.send_json(session is websocket.session)
        await websocket.close()

    assert client.get("/coroutine").json() is True
    assert client.get("/function").json() is True
    with client.websocket_connect("/websocket") as connection:
        assert connection.receive_json() is True
    assert stored() == [{"coroutine": True, "function": True, "websocket": True}]


def test_in_a_plain_function_all_verbs_work(
    app: FastAPI, visit: Visit, store: FileStore, stored: Stored
) -> None:
    @app.post("/login")
    def login(session: SessionDep) -> None:
        session.regenerate()
        session["user"] = "ada"

    @app.post("/save")
    def save(session: SessionDep) -> list[Any]:
        session["saved"] = True
        session.save()
        return stored()

    @app.post("/reload")
    def reload(session: SessionDep) -> Any:
        assert session.id is not None
        store.save(session.id, {"user": "theirs"})
        session.reload()
        return session.copy()

    @app.post("/lock")
    def lock(session: SessionDep) -> list[Any]:
        assert session.id is not None
        store.save(session.id, {"visits": 1})
        with session.lock():
            session["visits"] += 1
        return stored()

    @app.post("/logout")
    def logout(session: SessionDep) -> None:
        session.destroy()
        session["flash"] = "bye"
        session.save()

    client = visit()
    client.post("/login")
    before = client.cookies["sid"]
    client.post("/login")
    assert client.cookies["sid"] != before
    assert client.post("/save").json() == [{"user": "ada", "saved": True}]
    assert client.post("/reload").json() == {"user": "theirs"}
    assert client.post("/lock").json() == [{"visits": 2}]
    client.post("/logout")
    assert stored() == [{"flash": "bye"}]


def test_in_a_coroutine_what_would_block_says_what_to_use(app: FastAPI, client: TestClient) -> None:
    told: list[str] = []

    @app.post("/save")
    async def save(session: SessionDep) -> None:
        session["a"] = 1
        with pytest.raises(RuntimeError) as caught:
            session.save()
        told.append(str(caught.value))

    assert client.post("/save").status_code == 200
    assert told == ["this would block the event loop: await session.asave(), areload() or alock()"]


def test_what_is_handed_out_counts_as_read_also_by_what_reads_it_unseen(
    app: FastAPI, client: TestClient
) -> None:
    @app.get("/")
    async def page(session: SessionDep) -> PlainTextResponse:
        return PlainTextResponse(orjson.dumps(session))  # which asks none of its methods

    assert client.get("/").headers["vary"] == "Cookie"


@pytest.mark.parametrize(
    ("middleware", "told"),
    [
        (None, 'no session at scope["session"]: app.add_middleware(SessionMiddleware, store=...)'),
        ({"path": "/shop"}, "where it is mounted, this path is outside what it covers"),
        ({"key": "other"}, 'no session at scope["session"]'),
    ],
)
def test_where_there_is_no_session_the_error_says_what_to_add(
    middleware: dict[str, Any] | None, told: str
) -> None:
    app = FastAPI()
    if middleware is not None:
        app.add_middleware(SessionMiddleware, MemoryStore(), "a secret of the test", **middleware)

    @app.get("/")
    async def page(session: SessionDep) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(asked(app, "/"))
    assert told in str(caught.value)


def test_the_dict_of_another_middleware_is_told_from_a_session() -> None:
    app = FastAPI()

    @app.middleware("http")
    async def another(request: Request, call_next: Any) -> Any:
        request.scope["session"] = {}
        return await call_next(request)

    @app.get("/")
    async def page(session: SessionDep) -> None: ...

    with pytest.raises(ConfigurationError, match=r"is a builtins\.dict of another middleware"):
        asyncio.run(asked(app, "/"))


async def asked(app: FastAPI, path: str) -> httpx.Response:
    """One request, to which an error of the application is raised."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return await client.get(path)


def test_middlewares_with_keys_of_their_own_have_dependencies_of_their_own(
    app: FastAPI, visit: Visit, tmp_path: Path
) -> None:
    app.add_middleware(SessionMiddleware, tmp_path / "admin", key="admin", name="admin")

    @app.get("/")
    async def page(session: SessionDep, admin: AdminDep) -> list[Any]:
        session["visitor"] = admin["admin"] = True
        return [session.copy(), admin.copy()]

    client = visit()
    assert client.get("/").json() == [{"visitor": True}, {"admin": True}]
    assert set(client.cookies) == {"sid", "admin"}
    assert session_dependency(key="admin") is session_dependency("admin")
    assert session_dependency("session") is get_session


def test_a_test_may_put_what_it_likes_in_its_place(app: FastAPI, client: TestClient) -> None:
    @app.get("/")
    async def page(session: SessionDep, visitor: VisitorDep) -> list[Any]:
        return [session["user"], visitor.user]

    app.dependency_overrides[get_session] = lambda: {"user": "ada"}
    assert client.get("/").json() == ["ada", "ada"]


def test_the_documentation_of_the_interface_knows_nothing_of_it(app: FastAPI) -> None:
    plain = FastAPI()

    @plain.get("/", name="page", operation_id="page", response_model=None)
    async def without(number: int) -> None: ...

    @app.get("/", name="page", operation_id="page", response_model=None)
    async def within(
        number: int, session: SessionDep, visitor: VisitorDep, locked: LockedDep
    ) -> None: ...

    assert app.openapi() == plain.openapi()


# -- as a model -----------------------------------------------------------------------------------


def test_a_model_is_read_from_the_session_and_its_changes_are_stored(
    app: FastAPI, client: TestClient, stored: Stored
) -> None:
    @app.get("/")
    async def see(visitor: VisitorDep) -> Visitor:
        return visitor

    @app.post("/add/{what}")
    def add(visitor: VisitorDep, what: str) -> None:
        visitor.cart.append(what)

    assert client.get("/").json() == {"user": None, "visits": 0, "cart": []}
    assert stored() == []
    assert "sid" not in client.cookies
    client.post("/add/tea")
    client.post("/add/milk")
    assert client.get("/").json()["cart"] == ["tea", "milk"]
    assert stored() == [{"cart": ["tea", "milk"]}]


def test_its_changes_are_stored_before_the_response_starts(
    app: FastAPI, client: TestClient, stored: Stored
) -> None:
    @app.get("/")
    async def stream(visitor: VisitorDep) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield str(stored())

        visitor.user = "ada"
        return StreamingResponse(body())

    answer = client.get("/")
    assert answer.text == "[{'user': 'ada'}]"
    assert "set-cookie" in answer.headers


def test_an_endpoint_that_raises_changes_nothing_through_it(
    app: FastAPI, client: TestClient, stored: Stored
) -> None:
    @app.post("/")
    async def buy(session: SessionDep, visitor: VisitorDep) -> None:
        session["tries"] = 1
        visitor.cart.append("tea")
        raise HTTPException(409, "sold out")

    assert client.post("/").status_code == 409
    assert stored() == [{"tries": 1}]


async def greeted(visitor: VisitorDep) -> None:
    visitor.visits += 1


async def greeted_again(visitor: Annotated[Visitor, SessionModel(Visitor)]) -> None:
    visitor.visits += 1


def test_the_dependencies_of_a_request_share_one_model(
    app: FastAPI, client: TestClient, stored: Stored
) -> None:
    @app.get("/", dependencies=[Depends(greeted), Depends(greeted_again)])
    async def page(visitor: VisitorDep) -> int:
        visitor.visits += 1
        return visitor.visits

    assert client.get("/").json() == 3
    assert stored() == [{"visits": 3}]


@pytest.mark.parametrize("handled", [False, True])
def test_what_does_not_fit_stays_unless_the_application_begins_anew(
    app: FastAPI, visit: Visit, stored: Stored, *, handled: bool
) -> None:
    @app.get("/old")
    async def old(session: SessionDep) -> None:
        session["visits"] = "many"

    @app.get("/")
    async def page(visitor: VisitorDep) -> int:
        return visitor.visits

    async def begin_anew(request: Request, _error: Exception) -> RedirectResponse:
        request.session.clear()
        return RedirectResponse("/")

    if handled:
        app.add_exception_handler(SessionInvalid, begin_anew)
    client = visit()
    client.get("/old")
    assert client.get("/").status_code == (307 if handled else 500)
    assert stored() == [{} if handled else {"visits": "many"}]
    assert client.get("/").status_code == (200 if handled else 500)


def test_what_a_stream_or_a_background_task_changes_is_written_by_a_view(
    app: FastAPI, client: TestClient, stored: Stored
) -> None:
    visitors = SessionView(Visitor)

    def remember(session: Session, visitor: Visitor) -> None:
        visitor.cart.append("lost")
        with visitors.edit(session) as now:
            now.cart.append("kept")

    @app.get("/")
    async def page(session: SessionDep, visitor: VisitorDep, tasks: BackgroundTasks) -> None:
        visitor.user = "ada"
        tasks.add_task(remember, session, visitor)

    client.get("/")
    assert stored() == [{"user": "ada", "cart": ["kept"]}]


def test_in_a_websocket_its_changes_are_stored_at_the_end_and_by_a_view_at_once(
    app: FastAPI, client: TestClient, stored: Stored
) -> None:
    visitors = SessionView(Visitor)

    @app.get("/")
    async def begin(session: SessionDep) -> None:
        session["user"] = "ada"

    @app.websocket("/")
    async def talk(websocket: WebSocket, session: SessionDep, visitor: VisitorDep) -> None:
        await websocket.accept()
        visitor.visits = 1
        with visitors.edit(session) as now:
            now.cart.append("tea")
        await session.asave()
        await websocket.send_json(stored())
        await websocket.close()

    client.get("/")
    with client.websocket_connect("/") as connection:
        assert connection.receive_json() == [{"user": "ada", "cart": ["tea"]}]
    assert stored() == [{"user": "ada", "cart": ["tea"], "visits": 1}]


class Turnstile:
    """An ASGI middleware that tells when the third request has come as far as its session."""

    def __init__(self, app: Any, third: asyncio.Event) -> None:
        self.app = app
        self.third = third
        self.count = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.count += 1
        if self.count == 3:
            self.third.set()
        await self.app(scope, receive, send)


@pytest.mark.parametrize("locked", [True, False])
def test_of_two_requests_at_once_both_count_when_they_lock(
    store: FileStore, stored: Stored, *, locked: bool
) -> None:
    app, third, inside = FastAPI(), asyncio.Event(), asyncio.Event()
    app.add_middleware(Turnstile, third=third)
    app.add_middleware(SessionMiddleware, store=store)

    async def count(visitor: Visitor) -> None:
        visitor.visits += 1
        if visitor.visits == 2 and not inside.is_set():
            inside.set()
            await third.wait()

    @app.get("/True")
    async def count_locked(visitor: LockedDep) -> None:
        await count(visitor)

    @app.get("/False")
    async def count_unlocked(visitor: VisitorDep) -> None:
        await count(visitor)

    async def scenario() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            await client.get(f"/{locked}")
            first = asyncio.create_task(client.get(f"/{locked}"))
            await inside.wait()
            await client.get(f"/{locked}")
            await first

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert stored() == [{"visits": 3 if locked else 2}]


# -- locked by a dependency -----------------------------------------------------------------------


async def locked(session: SessionDep) -> AsyncIterator[Session]:
    async with session.alock():
        yield session


InScope = Annotated[Session, Depends(locked, scope="function")]
InRequest = Annotated[Session, Depends(locked)]


def test_a_dependency_may_hold_the_lock_for_its_endpoint(
    app: FastAPI, client: TestClient, store: FileStore, stored: Stored
) -> None:
    @app.get("/function")
    def function(session: InScope) -> None:
        session["visits"] = session.get("visits", 0) + 1
        session.save()

    @app.get("/coroutine")
    async def coroutine(session: InScope) -> None:
        session["visits"] = session.get("visits", 0) + 1
        await session.asave()

    @app.get("/function/longer")
    def until_after_the_response(session: InRequest) -> None:
        function(session)

    @app.get("/coroutine/longer")
    async def also_until_after_the_response(session: InRequest) -> None:
        await coroutine(session)

    paths = ["/function", "/coroutine", "/function/longer", "/coroutine/longer"] * 2
    assert [client.get(path).status_code for path in paths] == [200] * 8
    assert stored() == [{"visits": 8}]
