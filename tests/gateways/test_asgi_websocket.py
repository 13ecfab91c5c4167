"""The session of a websocket, on raw ASGI messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from filesession.asgi import TRY_AGAIN_LATER
from filesession.errors import ConflictError, SessionGone, StoreError

if TYPE_CHECKING:
    from tests.gateways.conftest import RecordingStore, Wire

ACCEPT = {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-own", b"1")]}
CLOSE = {"type": "websocket.close", "code": 1000}
DENIAL = {"type": "websocket.http.response.start", "status": 401, "headers": []}
DENIAL_BODY = {"type": "websocket.http.response.body", "body": b"log in first"}
MAY_DENY: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}

App = Callable[[Any, Any, Any], Awaitable[None]]
Connect = Callable[..., "Wire"]


@pytest.fixture
def sid(store: RecordingStore) -> str:
    """A stored session."""
    sid: str = store.create({"user": "ada"}).id
    store.calls.clear()
    store.journal.clear()
    return sid


@pytest.fixture
def connect(connect: Connect) -> Connect:
    """Opens a websocket; with the cookie of ``sid``."""

    def opened(*headers: Any, **scope: Any) -> Wire:
        return connect(*headers, kind="websocket", **{"scheme": "ws", **scope})

    return opened


def talk(
    during: Callable[[Any], object] = lambda session: None,
    before: Callable[[Any], object] = lambda session: None,
    end: Any = None,
) -> App:
    """An application that accepts, and does something with the session before and during."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        before(scope["session"])
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "hello"})
        during(scope["session"])
        if end is not None:
            await send(end)

    return app


def change(session: Any) -> None:
    session["seen"] = True


# -- accepted -------------------------------------------------------------------------------------


def test_the_session_is_loaded_and_the_talk_is_activity(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    users: list[object] = []
    store.now.advance(600)
    wire = connect(sid=sid)

    def during(session: Any) -> None:
        users.append(session["user"])
        store.now.advance(1500)

    wire.serve(talk(during))
    assert users == ["ada"]
    assert store.journal[:3] == ["load", "touch", "websocket.accept"]
    record = store.load(sid)
    assert record is not None
    assert record.accessed_at == store.now()


def test_a_new_session_is_stored_before_the_acceptance_that_carries_its_cookie(
    connect: Connect, store: RecordingStore
) -> None:
    wire = connect(scheme="wss")
    wire.serve(talk(before=change))
    assert store.journal[:2] == ["create", "websocket.accept"]
    (cookie,) = wire.all(b"set-cookie")
    assert cookie.startswith(b"sid=s%3A")
    assert b"; Secure" in cookie
    assert {**wire.sent[0], "headers": wire.sent[0]["headers"][:1]} == ACCEPT


@pytest.mark.parametrize("end", [CLOSE, None], ids=["closed by it", "closed by the client"])
def test_a_change_is_stored_at_the_end(
    connect: Connect, store: RecordingStore, sid: str, end: Any
) -> None:
    wire = connect(sid=sid)
    wire.serve(talk(change, end=end))
    assert store.journal.count("save") == 1
    if end is not None:
        assert store.journal.index("save") < store.journal.index("websocket.close")
    record = store.load(sid)
    assert record is not None
    assert record.data == {"user": "ada", "seen": True}


def test_what_is_saved_during_the_talk_is_there_for_others(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        session = scope["session"]
        change(session)
        await session.asave()
        record = store.load(sid)
        assert record is not None
        store.save(sid, {**record.data, "theirs": 1})
        await session.areload()
        seen.append(dict(session))

    connect(sid=sid).serve(app)
    assert seen == [{"user": "ada", "seen": True, "theirs": 1}]


def test_an_error_during_the_talk_loses_no_change(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    def fail(session: Any) -> None:
        change(session)
        raise LookupError

    with pytest.raises(LookupError):
        connect(sid=sid).serve(talk(fail))
    assert store.calls == ["load", "touch", "save"]


def test_a_new_session_first_changed_during_the_talk_can_get_no_cookie(
    connect: Connect, store: RecordingStore, caplog: pytest.LogCaptureFixture
) -> None:
    connect().serve(talk(change, end=CLOSE))
    assert store.ids() == 0
    assert [record.getMessage() for record in caplog.records] == [
        "the response had begun: the session gets no cookie, so it is not stored"
    ]


def test_outside_the_path_a_websocket_has_no_session(connect: Connect, sid: str) -> None:
    found: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append("session" in scope)

    for path in ("/chat", "/other"):
        connect(sid=sid, path=path).serve(app, path="/chat")
    assert found == [True, False]


# -- a talk that outlives its session -------------------------------------------------------------


@pytest.mark.parametrize("end", [CLOSE, None], ids=["closed by it", "closed by the client"])
@pytest.mark.parametrize("changes", [True, False], ids=["changed", "unchanged"])
@pytest.mark.parametrize("expired", [True, False], ids=["expired", "deleted"])
def test_a_session_that_ended_during_the_talk_stays_gone(
    connect: Connect, store: RecordingStore, sid: str, *, end: Any, changes: bool, expired: bool
) -> None:
    def outlive(session: Any) -> None:
        if expired:
            store.now.advance(1800 + 61)
        else:
            store.delete(sid)
        if changes:
            change(session)

    wire = connect(sid=sid)
    wire.serve(talk(outlive, end=end))
    assert store.load(sid) is None
    assert "create" not in store.calls
    assert wire.sent[-1] == (end or {"type": "websocket.send", "text": "hello"})


def test_who_saves_in_a_talk_that_outlives_its_session_is_told(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        store.delete(sid)
        change(scope["session"])
        with pytest.raises(SessionGone):
            await scope["session"].asave()
        with pytest.raises(SessionGone):
            await scope["session"].areload()

    connect(sid=sid).serve(app)
    assert store.ids() == 0


# -- turned away by the application ---------------------------------------------------------------


def test_closed_before_it_was_accepted_a_change_is_stored_and_the_visit_is_activity(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    def closing(before: Callable[[Any], object]) -> App:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            before(scope["session"])
            await send(CLOSE)

        return app

    wire = connect(sid=sid)
    wire.serve(closing(change))
    assert wire.sent == [CLOSE]
    assert store.journal[:3] == ["load", "save", "websocket.close"]
    store.journal.clear()
    connect(sid=sid).serve(closing(len))
    assert store.journal[:3] == ["load", "touch", "websocket.close"]


def test_an_error_before_the_acceptance_saves_nothing_but_a_destroy(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    def failing(before: Callable[[Any], object]) -> App:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            before(scope["session"])
            raise LookupError

        return app

    for before in (change, lambda session: session.destroy()):
        with pytest.raises(LookupError):
            connect(sid=sid).serve(failing(before))
    assert store.calls == ["load", "touch", "load", "delete"]


def test_a_denial_carries_the_cookie_of_a_session_stored_before_it(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        change(scope["session"])
        await send(DENIAL)
        scope["session"]["late"] = True
        await send({**DENIAL_BODY, "more_body": True})
        await send(DENIAL_BODY)

    wire = connect(sid=sid, **MAY_DENY)
    wire.serve(app, rolling=True)
    assert len(wire.all(b"set-cookie")) == 1
    body = DENIAL_BODY["type"]
    assert store.journal[:6] == ["load", "save", DENIAL["type"], body, "save", body]


# -- turned away by us ----------------------------------------------------------------------------


@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {"tls": {}}}])
def test_a_session_that_cannot_be_loaded_closes_the_websocket_without_the_application(
    connect: Connect, store: RecordingStore, sid: str, extensions: Any
) -> None:
    store.failing["load"] = StoreError("the disk is gone")
    ran: list[object] = []
    wire = connect(sid=sid, **extensions)
    wire.serve(talk(before=ran.append))
    assert wire.sent == [{"type": "websocket.close", "code": TRY_AGAIN_LATER}]
    assert TRY_AGAIN_LATER == 1013
    assert ran == []


def test_a_session_that_cannot_be_saved_closes_the_websocket_in_place_of_all_that_is_said(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    store.failing["save"] = StoreError("the disk is full")
    wire = connect(sid=sid)
    wire.serve(talk(before=change, end=CLOSE))
    assert wire.sent == [{"type": "websocket.close", "code": 1013}]


@pytest.mark.parametrize(
    ("verb", "error", "status"),
    [
        ("load", StoreError("the disk is gone"), 503),
        ("save", StoreError("the disk is full"), 503),
        ("save", ConflictError({}, {}), 409),
    ],
)
def test_where_the_server_can_send_a_denial_it_says_why(  # noqa: PLR0917 - a row of the table
    connect: Connect, store: RecordingStore, sid: str, verb: str, error: Exception, status: int
) -> None:
    store.failing[verb] = error
    wire = connect(sid=sid, **MAY_DENY)
    wire.serve(talk(before=change))
    start, body = wire.sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert body["type"] == "websocket.http.response.body"
    assert ((b"retry-after", b"5") in start["headers"]) == (status == 503)


def test_a_change_that_cannot_be_saved_at_the_end_is_an_error(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    def change_in_vain(session: Any) -> None:
        change(session)
        store.failing["save"] = StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        connect(sid=sid).serve(talk(change_in_vain))


def test_a_failed_touch_does_not_disturb_the_talk(
    connect: Connect, store: RecordingStore, sid: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.failing["touch"] = StoreError("the disk is gone")
    wire = connect(sid=sid)
    wire.serve(talk(end=CLOSE))
    assert [message["type"] for message in wire.sent] == [
        *("websocket.accept", "websocket.send", "websocket.close"),
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_cancelled_during_the_talk_no_change_is_lost(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def scenario() -> None:
        accepted = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            change(scope["session"])
            accepted.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(connect(sid=sid).serving(app))
        await accepted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    record = store.load(sid)
    assert record is not None
    assert record.data == {"user": "ada", "seen": True}
