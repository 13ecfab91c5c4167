"""Sessions and the ways a FastAPI application answers, fails, and works on after its answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import (
    BackgroundTasks,
    Depends,
    FastAPI,
    HTTPException,
    Request,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse

from filesession import FileStore, Session
from filesession.contrib.fastapi import SessionDep

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from tests.contrib.conftest import Visit

Stored = Callable[[], list[dict[str, Any]]]

TOO_LATE = "the response had begun: the session gets no cookie, so it is not stored"


@pytest.fixture
def known(app: FastAPI, visit: Visit) -> Callable[[], TestClient]:
    """A browser that has a session, with nobody in it."""

    @app.get("/begin")
    async def begin(session: SessionDep) -> None:
        session["user"] = None

    def come() -> TestClient:
        client = visit()
        client.get("/begin")
        return client

    return come


# -- errors that are answered ---------------------------------------------------------------------


class Sold(Exception):  # noqa: N818 - what happened
    """An application's own."""


async def flash(request: Request, error: Exception) -> RedirectResponse:
    """What an application does with its errors: a message for the next page."""
    request.session["flash"] = type(error).__name__
    return RedirectResponse("/", 303)


def flash_in_a_thread(request: Request, error: Exception) -> RedirectResponse:
    request.session["flash"] = type(error).__name__
    return RedirectResponse("/", 303)


@pytest.mark.parametrize("handler", [flash, flash_in_a_thread])
@pytest.mark.parametrize("kind", [Sold, HTTPException, RequestValidationError])
def test_a_handler_of_errors_may_change_the_session(
    app: FastAPI, visit: Visit, stored: Stored, handler: Any, kind: type[Exception]
) -> None:
    @app.post("/")
    async def buy(session: SessionDep, number: int = 0) -> None:
        session["tries"] = 1
        raise HTTPException(409) if kind is HTTPException else Sold

    app.add_exception_handler(kind, handler)
    client = visit()
    answer = client.post("/", params={"number": "x"} if kind is RequestValidationError else None)
    assert answer.status_code == 303
    assert "set-cookie" in answer.headers
    tried = {} if kind is RequestValidationError else {"tries": 1}
    assert stored() == [{**tried, "flash": kind.__name__}]


def test_an_http_exception_is_an_answer_and_stores_what_was_changed(
    app: FastAPI, visit: Visit, stored: Stored
) -> None:
    @app.post("/")
    def log_in(session: SessionDep) -> None:
        session["tries"] = 1
        raise HTTPException(401, "wrong", {"www-authenticate": "Basic"})

    answer = visit().post("/")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Basic")
    assert "set-cookie" in answer.headers
    assert stored() == [{"tries": 1}]


def test_the_handler_of_all_other_errors_is_outside_and_what_it_changes_it_must_save(
    app: FastAPI, known: Any, stored: Stored
) -> None:
    saves: list[bool] = []

    @app.get("/")
    async def fail(session: SessionDep) -> None:
        session["half"] = True
        raise Sold

    @app.exception_handler(Exception)
    async def apologise(request: Request, _error: Exception) -> PlainTextResponse:
        session: Any = request.session
        await session.areload()
        session["flash"] = "sorry"
        if saves:
            await session.asave()
        return PlainTextResponse("sorry", HTTPStatus.INTERNAL_SERVER_ERROR)

    client = known()
    assert client.get("/").text == "sorry"
    assert stored() == [{"user": None}]
    saves.append(True)
    assert client.get("/").text == "sorry"
    assert stored() == [{"user": None, "flash": "sorry"}]


def test_what_such_a_handler_saves_goes_to_the_session_the_browser_can_reach(
    app: FastAPI, known: Any, visit: Visit, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/")
    async def fail(session: SessionDep) -> None:
        session.regenerate()
        raise Sold

    @app.get("/see")
    async def see(session: SessionDep) -> dict[str, Any]:
        return session

    @app.exception_handler(Exception)
    async def apologise(request: Request, _error: Exception) -> PlainTextResponse:
        session: Any = request.session
        session["flash"] = "sorry"
        await session.asave()
        return PlainTextResponse("sorry", HTTPStatus.INTERNAL_SERVER_ERROR)

    assert visit().get("/").text == "sorry"
    assert stored() == []
    client = known()
    assert client.get("/").text == "sorry"
    assert client.get("/see").json() == {"user": None, "flash": "sorry"}
    told = [each.getMessage() for each in caplog.records if each.name == "filesession.session"]
    assert told == [
        TOO_LATE,
        "the response had begun: the session gets no new id and keeps the old one",
    ]


# -- after the answer -----------------------------------------------------------------------------


def remember(session: Session) -> None:
    session["later"] = True


async def remember_in_a_coroutine(session: Session) -> None:
    session["later"] = True
    await session.asave()


async def until_the_end(session: SessionDep) -> AsyncIterator[None]:
    yield
    session["later"] = True


def until_the_end_in_threads(session: SessionDep) -> Iterator[None]:
    yield
    session["later"] = True
    session.save()


@pytest.fixture(
    params=["task", "coroutine task", "dependency", "plain dependency", "stream", "plain stream"]
)
def late(request: pytest.FixtureRequest, app: FastAPI) -> str:
    """The path of an endpoint that changes the session after its response has started."""

    @app.get("/task")
    def task(session: SessionDep, tasks: BackgroundTasks) -> None:
        tasks.add_task(remember, session)

    @app.get("/coroutine task")
    async def coroutine_task(session: SessionDep, tasks: BackgroundTasks) -> None:
        tasks.add_task(remember_in_a_coroutine, session)

    @app.get("/dependency", dependencies=[Depends(until_the_end)])
    async def dependency() -> None: ...

    @app.get("/plain dependency", dependencies=[Depends(until_the_end_in_threads)])
    def plain_dependency() -> None: ...

    @app.get("/stream")
    async def stream(session: SessionDep) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            remember(session)

        return StreamingResponse(body())

    @app.get("/plain stream")
    def plain_stream(session: SessionDep) -> StreamingResponse:
        def body() -> Iterator[bytes]:
            yield b"a"
            remember(session)
            session.save()

        return StreamingResponse(body())

    path: str = request.param
    return f"/{path}"


def test_what_is_changed_after_the_response_has_started_is_stored(
    late: str, known: Any, stored: Stored
) -> None:
    assert known().get(late).status_code == 200
    assert stored() == [{"user": None, "later": True}]


def test_a_session_that_begins_then_is_not_stored_and_that_is_told(
    late: str, client: TestClient, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get(late).status_code == 200
    assert stored() == []
    ours = [each for each in caplog.records if each.name.startswith("filesession")]
    assert [each.getMessage() for each in ours] == [TOO_LATE]
    assert ours[0].levelno == logging.WARNING


# -- websockets -----------------------------------------------------------------------------------


async def logged_in(session: SessionDep) -> str:
    """A guard for requests and websockets alike, as an HTTP exception denies both."""
    session["knocks"] = session.get("knocks", 0) + 1
    if session.get("user") is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED)
    return str(session["user"])


async def logged_in_or_closed(session: SessionDep) -> str:
    session["knocks"] = session.get("knocks", 0) + 1
    if session.get("user") is None:
        raise WebSocketException(1008, "log in first")
    return str(session["user"])


@pytest.mark.parametrize("guard", [logged_in, logged_in_or_closed])
def test_a_guard_turns_a_websocket_away_and_its_change_is_stored(
    app: FastAPI, known: Any, stored: Stored, guard: Any
) -> None:
    @app.websocket("/", dependencies=[Depends(guard)])
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()

    client = known()
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass
    assert stored() == [{"user": None, "knocks": 1}]


def test_a_long_talk_sees_what_others_changed_when_it_reads_anew(
    app: FastAPI, known: Any, store: FileStore
) -> None:
    @app.get("/login")
    async def log_in(session: SessionDep) -> None:
        session["user"] = "ada"

    @app.websocket("/")
    async def talk(websocket: WebSocket, session: SessionDep) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            before = session["user"]
            await session.areload()
            await websocket.send_json([before, session["user"]])

    client = known()
    with client.websocket_connect("/") as connection:
        client.get("/login")
        connection.send_text("who")
        assert connection.receive_json() == [None, "ada"]


def test_what_is_said_until_the_client_leaves_is_stored(
    app: FastAPI, known: Any, stored: Stored
) -> None:
    @app.websocket("/")
    async def talk(websocket: WebSocket, session: SessionDep) -> None:
        await websocket.accept()
        while True:
            session["said"] = await websocket.receive_text()
            await websocket.send_text("heard")

    client = known()
    with suppress(WebSocketDisconnect), client.websocket_connect("/") as connection:
        connection.send_text("hello")
        connection.receive_text()
    assert stored() == [{"user": None, "said": "hello"}]
