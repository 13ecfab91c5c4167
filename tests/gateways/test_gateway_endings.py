"""However a request ends, what it did to its session is stored as documented, and once.

A table through both gateways: what the application did, before the response or while its body left,
by how the request ended: answered, the application failing at any point, the client gone at any
point. Each case asserts all that is stored, every store call, the cookie, and the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from filesession.stores.entry import handle_of

if TYPE_CHECKING:
    from tests.gateways.conftest import Kind, RecordingStore, Server, Wire

KEY: Final = {"asgi": "session", "wsgi": "filesession.session"}
OK: Final = ("200 OK", [("Content-Type", "text/plain")])
START: Final = {"type": "http.response.start", "status": 200, "headers": []}
PIECE: Final = {"type": "http.response.body", "body": b"the ", "more_body": True}
BODY: Final = {"type": "http.response.body", "body": b"page"}

NO_COOKIE: Final = "the response had begun: the session gets no cookie, so it is not stored"
NO_NEW_ID: Final = "the response had begun: the session gets no new id and keeps the old one"
UNSENT: Final = "a session's new cookie was not sent: its browser has only the old one"
NOT_SENT: Final = "the session's cookie changed after the response had begun: it is not sent"

Deed = Callable[[Any], None]


def nothing(session: Any) -> None: ...


def change(session: Any) -> None:
    session["seen"] = True


def regenerate(session: Any) -> None:
    session.regenerate()


def regenerate_and_save(session: Any) -> None:
    session.regenerate()
    session.save()


def destroy(session: Any) -> None:
    session.destroy()


STARTED: Final = {
    "answered": "both",
    "the body fails": "both",
    "the end fails": "both",
    "the client goes in the body": "both",
}
"""Endings of a request whose response has begun."""

LOST: Final = {
    "the call fails": "both",
    "the first step fails": "wsgi",
    "the client is gone at once": "wsgi",
}
"""Endings of one whose response never does. Under ASGI a client is found gone by a response that
has begun."""


@dataclass
class Plan:
    """A request: what its application does, and how it ends.

    Attributes:
        early: what it does before its response.
        late: what it does when the first piece of the body has left.
    """

    ending: str
    early: Deed = nothing
    late: Deed = nothing

    def fail_if(self, point: str) -> None:
        if self.ending == point:
            msg = "the application's"
            raise LookupError(msg)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        await asyncio.to_thread(self.early, session)  # where a save may block
        self.fail_if("the call fails")
        await send(START)
        try:
            await send(PIECE)
        finally:
            self.late(session)
        self.fail_if("the body fails")
        await send(BODY)
        self.fail_if("the end fails")

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        self.early(environ[KEY["wsgi"]])
        self.fail_if("the call fails")
        start_response(*OK)
        return _Pieces(self, environ[KEY["wsgi"]])


class _Pieces:
    """The body of a plan under WSGI."""

    def __init__(self, plan: Plan, session: Any) -> None:
        self._plan = plan
        self._pieces = self._made(session)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def _made(self, session: Any) -> Iterator[bytes]:
        self._plan.fail_if("the first step fails")
        try:
            yield b"the "
        finally:
            self._plan.late(session)
        self._plan.fail_if("the body fails")
        yield b"page"

    def close(self) -> None:
        self._pieces.close()  # type: ignore[attr-defined]  # it is a generator
        self._plan.fail_if("the end fails")


@dataclass
class Outcome:
    """What the client got, what the server was raised, and what the log says."""

    body: bytes
    cookies: list[str]
    error: BaseException | None
    said: list[str]


@pytest.fixture
def serve(
    kind: Kind,
    store: RecordingStore,
    connect: Callable[..., Wire],
    call: Callable[..., Server],
    caplog: pytest.LogCaptureFixture,
) -> Callable[..., Outcome]:
    """Serves a plan to the visitor with that session; None: a new one."""

    def through_asgi(plan: Plan, sid: str | None) -> Outcome:
        wire = connect(sid=sid)
        if plan.ending == "the client goes in the body":
            wire.broken = "http.response.body"
        error = _raised(partial(wire.serve, plan.asgi))
        body = b"".join(message.get("body", b"") for message in wire.sent)
        cookies = [value.decode() for value in wire.all(b"set-cookie")] if wire.sent else []
        return Outcome(body, cookies, error, caplog.messages)

    def through_wsgi(plan: Plan, sid: str | None) -> Outcome:
        server = call(sid)
        pieces = {"the client goes in the body": 1, "the client is gone at once": 0}
        error = _raised(partial(server.serve, plan.wsgi, pieces=pieces.get(plan.ending)))
        return Outcome(server.body, server.all("set-cookie"), error, caplog.messages)

    return through_asgi if kind == "asgi" else through_wsgi


def _raised(serving: Callable[[], object]) -> BaseException | None:
    try:
        serving()
    except (LookupError, OSError) as error:
        return error
    return None


def whole(store: RecordingStore) -> list[tuple[str, dict[str, Any], int]]:
    """All that is stored: of each session its name, its data and how many lines it has."""
    found = []
    for info in store.scan():
        seen = store.inspect(info.handle)
        assert seen is not None
        with open(store._layout.path(info.handle), "rb") as file:
            found.append((info.handle, seen[1], len(file.readlines())))
    assert list(store._layout.leftovers()) == []
    assert store._layout.set_aside_count() == 0
    return found


def ends_for(endings: dict[str, str], *deeds: Deed) -> pytest.MarkDecorator:
    """A case for each ending, in each gateway where there is such an ending, and each deed."""
    cases = [
        pytest.param(kind, ending, deed, id=f"{kind}: {deed.__name__}, {ending}")
        for (ending, where), kind, deed in product(endings.items(), ("asgi", "wsgi"), deeds)
        if where in {"both", kind}
    ]
    return pytest.mark.parametrize(("kind", "ending", "deed"), cases)


# -- a loaded session -----------------------------------------------------------------------------


@ends_for(STARTED, nothing, change, regenerate, destroy)
def test_done_before_the_response_it_is_stored_by_one_call_however_the_rest_goes(
    serve: Callable[..., Outcome],
    store: RecordingStore,
    sid: str,
    ending: str,
    deed: Deed,
) -> None:
    outcome = serve(Plan(ending, early=deed), sid)
    calls: dict[Deed, str] = {
        nothing: "touch",
        change: "save",
        regenerate: "regenerate",
        destroy: "delete",
    }
    assert store.calls == ["load", calls[deed]]
    sessions = whole(store)
    handle = handle_of(sid)
    if deed is nothing:
        assert sessions == [(handle, {"user": "ada"}, 1)]
    elif deed is change:
        assert sessions == [(handle, {"user": "ada", "seen": True}, 2)]
    elif deed is destroy:
        assert sessions == []
    else:
        ((new, data, lines),) = sessions
        assert new != handle
        assert (data, lines) == ({"user": "ada"}, 2)
    assert len(outcome.cookies) == (deed in {regenerate, destroy})
    assert all(("Max-Age=0" in cookie) == (deed is destroy) for cookie in outcome.cookies)
    assert (outcome.error is None) == (ending == "answered" or _left_quietly(outcome, ending))
    assert outcome.said == []


def _left_quietly(outcome: Outcome, ending: str) -> bool:
    """A WSGI server tells nobody that the client is gone: it closes the body."""
    return ending == "the client goes in the body" and outcome.body != b""


@ends_for(STARTED, change, regenerate, destroy)
def test_done_while_the_body_leaves_it_is_stored_by_one_more(
    serve: Callable[..., Outcome],
    store: RecordingStore,
    sid: str,
    ending: str,
    deed: Deed,
) -> None:
    outcome = serve(Plan(ending, late=deed), sid)
    calls: dict[Deed, list[str]] = {change: ["save"], regenerate: [], destroy: ["delete"]}
    assert store.calls == ["load", "touch", *calls[deed]]
    handle = handle_of(sid)
    stored: dict[Deed, list[Any]] = {
        change: [(handle, {"user": "ada", "seen": True}, 2)],
        regenerate: [(handle, {"user": "ada"}, 1)],
        destroy: [],
    }
    assert whole(store) == stored[deed]
    assert outcome.cookies == []
    said: dict[Deed, list[str]] = {change: [], regenerate: [NO_NEW_ID], destroy: [NOT_SENT]}
    assert outcome.said == said[deed]


@ends_for(LOST, nothing, change, regenerate, destroy)
def test_without_a_response_nothing_is_stored_but_a_destroy_and_it_was_activity(
    serve: Callable[..., Outcome],
    store: RecordingStore,
    sid: str,
    ending: str,
    deed: Deed,
) -> None:
    outcome = serve(Plan(ending, early=deed), sid)
    assert store.calls == ["load", "delete" if deed is destroy else "touch"]
    assert whole(store) == ([] if deed is destroy else [(handle_of(sid), {"user": "ada"}, 1)])
    assert (outcome.body, outcome.cookies) == (b"", [])
    assert outcome.said == []


@ends_for(LOST, regenerate_and_save)
def test_without_a_response_a_new_id_that_is_stored_is_warned_of_once(
    serve: Callable[..., Outcome],
    store: RecordingStore,
    sid: str,
    ending: str,
    deed: Deed,
) -> None:
    outcome = serve(Plan(ending, early=deed), sid)
    assert store.calls == ["load", "regenerate", "touch"]
    ((new, data, lines),) = whole(store)
    assert new != handle_of(sid)
    assert (data, lines) == ({"user": "ada"}, 2)
    assert outcome.said == [UNSENT]


# -- a new one ------------------------------------------------------------------------------------


@ends_for(STARTED, change)
def test_a_new_session_is_stored_once_and_announced_however_the_rest_goes(
    serve: Callable[..., Outcome], store: RecordingStore, ending: str, deed: Deed
) -> None:
    outcome = serve(Plan(ending, early=deed), None)
    assert store.calls == ["create"]
    ((_, data, lines),) = whole(store)
    assert (data, lines) == ({"seen": True}, 1)
    assert len(outcome.cookies) == 1


@ends_for(STARTED, change)
def test_one_that_is_new_when_the_body_leaves_is_not_stored_and_that_is_said_once(
    serve: Callable[..., Outcome],
    store: RecordingStore,
    ending: str,
    deed: Deed,
) -> None:
    outcome = serve(Plan(ending, late=deed), None)
    assert (store.calls, whole(store), outcome.cookies) == ([], [], [])
    assert outcome.said == [NO_COOKIE]


@ends_for(LOST, nothing, change, regenerate, destroy)
def test_a_new_session_without_a_response_is_none(
    serve: Callable[..., Outcome],
    store: RecordingStore,
    ending: str,
    deed: Deed,
) -> None:
    outcome = serve(Plan(ending, early=deed), None)
    assert (store.calls, whole(store), outcome.said) == ([], [], [])


# -- Starlette, which finds out in its own ways ---------------------------------------------------


def test_a_client_gone_while_starlette_streams_loses_no_change_and_ends_the_stream(
    connect: Callable[..., Wire], store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        gone, session = asyncio.Event(), scope["session"]

        async def pieces() -> AsyncIterator[bytes]:
            try:
                change(session)
                yield b"the "
                gone.set()
                await asyncio.Event().wait()
                yield b"page"
            finally:
                session["cut"] = True

        async def until_gone() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        await StreamingResponse(pieces())(scope, until_gone, send)

    wire = connect(sid=sid, asgi={"version": "3.0", "spec_version": "2.3"})
    wire.serve(app)
    assert store.calls == ["load", "touch", "save"]
    assert whole(store) == [(handle_of(sid), {"user": "ada", "seen": True, "cut": True}, 2)]


def test_a_send_that_fails_under_starlette_loses_no_change(
    connect: Callable[..., Wire], store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            change(scope["session"])
            yield b"the "

        await StreamingResponse(pieces())(scope, receive, send)

    wire = connect(sid=sid, asgi={"version": "3.0", "spec_version": "2.4"})
    wire.broken = "http.response.body"
    with pytest.raises(ClientDisconnect):
        wire.serve(app)
    assert store.calls == ["load", "touch", "save"]
    assert whole(store) == [(handle_of(sid), {"user": "ada", "seen": True}, 2)]


def test_a_client_gone_while_starlette_reads_its_body_saves_nothing(
    connect: Callable[..., Wire], store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        change(scope["session"])
        await Request(scope, receive).body()
        pytest.fail("half a body was taken for a whole one")

    wire = connect(sid=sid, method="POST")
    wire.incoming[0]["more_body"] = True
    wire.incoming.append({"type": "http.disconnect"})
    with pytest.raises(ClientDisconnect):
        wire.serve(app)
    assert (store.calls, wire.sent) == (["load", "touch"], [])
    assert whole(store) == [(handle_of(sid), {"user": "ada"}, 1)]
