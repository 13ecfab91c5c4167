"""A websocket stores what it did once, and one that outlives its session brings nothing back.

On raw ASGI messages: whatever is tried through the socket when the session has been deleted, has
expired, or has got a new id by another request, the talk goes on and nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import SessionGone

if TYPE_CHECKING:
    from tests.gateways.conftest import RecordingStore, Wire

ACCEPT: Final = {"type": "websocket.accept", "headers": [(b"x-own", b"1")]}
HELLO: Final = {"type": "websocket.send", "text": "hello"}
CLOSE: Final = {"type": "websocket.close", "code": 1000}
DENIAL: Final = {"type": "websocket.http.response.start", "status": 401, "headers": []}
DENIAL_BODY: Final = {"type": "websocket.http.response.body", "body": b"log in first"}

GONE: Final = "the session was deleted, has expired, or has a new id by now; nothing was written"
NO_NEW_ID: Final = "the response had begun: the session gets no new id and keeps the old one"
NOT_SENT: Final = "the session's cookie changed after the response had begun: it is not sent"


@pytest.fixture
def wire(connect: Callable[..., Wire], sid: str) -> Wire:
    """The socket of a visitor whose session is stored."""
    return connect(
        sid=sid, kind="websocket", scheme="ws", extensions={"websocket.http.response": {}}
    )


# -- once -----------------------------------------------------------------------------------------


def nothing(session: Any) -> None: ...


def change(session: Any) -> None:
    session["seen"] = True


def regenerate(session: Any) -> None:
    session.regenerate()


def destroy(session: Any) -> None:
    session.destroy()


@pytest.mark.parametrize("closing", [[CLOSE], []], ids=["closed by it", "closed by the client"])
@pytest.mark.parametrize(
    ("deed", "calls", "said"),
    [
        (nothing, ["touch", "touch"], []),  # a talk is activity when it begins and when it ends
        (change, ["touch", "save"], []),
        (regenerate, ["touch", "touch"], [NO_NEW_ID]),
        (destroy, ["touch", "delete"], [NOT_SENT]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_done_in_a_talk_is_stored_by_one_call_at_its_end(  # noqa: PLR0917 - a table
    wire: Wire,
    store: RecordingStore,
    caplog: pytest.LogCaptureFixture,
    closing: list[Any],
    deed: Callable[[Any], None],
    calls: list[str],
    said: list[str],
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        deed(scope["session"])
        for message in closing:
            await send(message)

    wire.serve(app)
    assert store.calls == ["load", *calls]
    assert wire.sent == [ACCEPT, *closing]
    assert caplog.messages == said


@pytest.mark.parametrize(
    ("deed", "calls", "cookies"),
    [(nothing, ["touch"], 0), (change, ["save"], 0), (regenerate, ["regenerate"], 1)],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("message", [ACCEPT, DENIAL], ids=["accepted", "denied"])
def test_what_is_done_before_it_is_stored_by_one_call_and_announced_with_the_handshake(  # noqa: PLR0917
    wire: Wire,
    store: RecordingStore,
    deed: Callable[[Any], None],
    calls: list[str],
    cookies: int,
    message: dict[str, Any],
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        deed(scope["session"])
        await send(message)
        if message is DENIAL:
            await send(DENIAL_BODY)

    wire.serve(app)
    assert store.calls == ["load", *calls, "touch"]
    assert len(wire.all(b"set-cookie")) == cookies
    assert wire.all(b"x-own") == ([b"1"] if message is ACCEPT else [])
    assert wire.sent[1:] == ([DENIAL_BODY] if message is DENIAL else [])


# -- outliving its session ------------------------------------------------------------------------


@pytest.fixture(params=["destroyed", "expired", "expired and swept", "regenerated"])
def end(request: pytest.FixtureRequest, store: RecordingStore, sid: str) -> Callable[[], object]:
    """Ends the session, as another request, the time or the janitor does."""

    def expire() -> None:
        store.now.advance(1800 + 61)

    def sweep() -> None:
        store.now.advance(1800 + 121)
        assert store.sweep().expired == 1

    ends: dict[str, Callable[[], object]] = {
        "destroyed": partial(store.delete, sid),
        "expired": expire,
        "expired and swept": sweep,
        "regenerated": partial(store.regenerate, sid, {"user": "ada"}, new_sid="new"),
    }
    return ends[request.param]


async def save(session: Any) -> None:
    change(session)
    await session.asave()


async def save_unchanged(session: Any) -> None:
    await session.asave()


async def prolong(session: Any) -> None:
    session.touch()
    await session.asave()


async def move(session: Any) -> None:
    session.regenerate()
    await session.asave()


async def lock(session: Any) -> None:
    async with session.alock():
        pytest.fail("a session was locked that had ended")


async def lock_blocking(session: Any) -> None:
    def enter() -> None:
        with session.lock():
            pytest.fail("a session was locked that had ended")

    await asyncio.to_thread(enter)


async def read_anew(session: Any) -> None:
    await session.areload()


VERBS: Final = [save, save_unchanged, prolong, move, lock, lock_blocking, read_anew]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_every_verb_says_that_the_session_is_gone_however_often_it_is_tried(
    wire: Wire,
    store: RecordingStore,
    end: Callable[[], object],
    caplog: pytest.LogCaptureFixture,
    verb: Callable[[Any], Awaitable[None]],
) -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        end()
        left.append(sessions(store))
        store.calls.clear()
        for _ in range(3):
            with pytest.raises(SessionGone):
                await verb(scope["session"])
            await send(HELLO)
        await send(CLOSE)

    wire.serve(app)
    assert wire.sent == [ACCEPT, HELLO, HELLO, HELLO, CLOSE]
    assert not {"create", "delete"} & set(store.calls)
    assert [sessions(store)] == left
    assert caplog.messages == ([NO_NEW_ID] if verb is move else [])


def test_what_was_changed_and_not_saved_is_lost_and_that_is_said_once(
    wire: Wire, store: RecordingStore, end: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        end()
        left.append(sessions(store))
        change(scope["session"])
        await send(CLOSE)

    wire.serve(app)
    assert wire.sent == [ACCEPT, CLOSE]
    assert [sessions(store)] == left
    assert caplog.messages == [GONE]


def sessions(store: RecordingStore) -> list[Any]:
    """What is stored and alive, by all that is known of it."""
    return [
        store.inspect(info.handle)
        for info in store.scan()
        if info.expires_at is None or info.expires_at > store.now()
    ]
