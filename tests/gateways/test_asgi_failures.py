"""What becomes of the session when something fails, on raw ASGI messages.

The application, the client, the task or the store, before and after the response has started.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from filesession.errors import ConflictError, EncodeError, StoreError

if TYPE_CHECKING:
    from tests.gateways.conftest import RecordingStore, Wire

HEADERS = [(b"content-type", b"text/plain")]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
BODY = {"type": "http.response.body", "body": b"the page"}
PIECE = {"type": "http.response.body", "body": b"the ", "more_body": True}

Connect = Callable[..., "Wire"]
App = Callable[[Any, Any, Any], Awaitable[None]]


def change(scope: Any) -> None:
    scope["session"]["seen"] = True


def says(*messages: Any, before: Callable[[Any], object] = change) -> App:
    """An application that does something with its session, then sends these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        before(scope)
        for message in messages:
            await send(message)

    return app


# -- the application fails ------------------------------------------------------------------------


def leave(scope: Any) -> None:
    scope["session"].destroy()
    scope["session"]["flash"] = "bye"


def take_out(scope: Any) -> None:
    del scope["session"]


@pytest.mark.parametrize(
    ("before", "calls"),
    [(change, ["load", "touch"]), (leave, ["load", "delete"]), (take_out, ["load", "delete"])],
    ids=["changed", "destroyed", "taken out"],
)
def test_an_error_before_the_response_saves_nothing_but_a_destroy(
    connect: Connect, store: RecordingStore, sid: str, before: Callable[[Any], None], calls: Any
) -> None:
    failure = LookupError("the application's")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        before(scope)
        raise failure

    wire = connect(sid=sid)
    with pytest.raises(LookupError) as caught:
        wire.serve(app)
    assert caught.value is failure
    assert (store.calls, wire.sent) == (calls, [])


def test_an_error_before_the_response_leaves_what_was_only_taken_out(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        take_out(scope)
        raise LookupError

    with pytest.raises(LookupError):
        connect(sid=sid).serve(app, unset="keep")
    assert store.calls == ["load", "touch"]


def test_a_new_session_is_not_stored_when_the_application_fails(
    connect: Connect, store: RecordingStore
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        change(scope)
        raise LookupError

    with pytest.raises(LookupError):
        connect().serve(app)
    assert store.calls == []


@pytest.mark.parametrize("started", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [StoreError("the disk is gone"), OSError("the disk is gone")])
def test_a_store_that_fails_too_does_not_hide_the_applications_error(
    connect: Connect,
    store: RecordingStore,
    sid: str,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    *,
    started: bool,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if started:
            await send(START)
        scope["session"].destroy()
        store.failing["delete"] = error
        raise LookupError

    with pytest.raises(LookupError):
        connect(sid=sid).serve(app)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "the disk is gone")


def test_an_error_after_the_response_began_loses_no_change(
    connect: Connect, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(PIECE)
        change(scope)
        raise LookupError

    wire = connect(sid=sid)
    with pytest.raises(LookupError):
        wire.serve(app)
    assert store.journal[-2:] == ["http.response.body", "save"]
    assert stored() == {"user": "ada", "seen": True}


def test_without_a_response_a_change_is_stored_and_the_visit_is_activity(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    connect(sid=sid).serve(says())
    connect(sid=sid).serve(says(before=lambda scope: None))
    assert store.calls == ["load", "save", "load", "touch"]


def test_without_a_response_there_is_no_cookie_so_a_new_session_is_not_stored(
    connect: Connect, store: RecordingStore, caplog: pytest.LogCaptureFixture
) -> None:
    connect().serve(says())
    assert store.calls == []
    assert [record.getMessage() for record in caplog.records] == [
        "the response had begun: the session gets no cookie, so it is not stored"
    ]


def test_what_json_cannot_hold_starts_no_response(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["cart"] = [{"price": float("nan")}]
        try:
            await send(START)
        except EncodeError:
            await send({**START, "status": 500})  # an error page, whose session is no better

    wire = connect(sid=sid)
    with pytest.raises(EncodeError, match=r"cart\[0\]\.price"):
        wire.serve(app)
    assert (store.calls, wire.sent) == (["load", "touch"], [])


# -- the client goes away -------------------------------------------------------------------------


def test_an_application_that_finds_the_client_gone_loses_no_change(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        change(scope)
        while (await receive())["type"] != "http.disconnect":
            pass

    wire = connect(sid=sid)
    wire.incoming.append({"type": "http.disconnect"})
    wire.serve(app)
    assert store.calls == ["load", "save"]


@pytest.mark.parametrize("broken", ["http.response.start", "http.response.body"])
def test_a_client_gone_while_the_response_leaves_is_the_applications_to_know(
    connect: Connect, store: RecordingStore, sid: str, broken: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await says(START, PIECE, BODY)(scope, receive, send)
        finally:
            scope["session"]["gone"] = True

    wire = connect(sid=sid)
    wire.broken = broken
    with pytest.raises(OSError, match="the client is gone"):
        wire.serve(app)
    assert store.calls == ["load", "save", "save"]
    assert store.journal[-2:] == [broken, "save"]


# -- the task is cancelled ------------------------------------------------------------------------


async def cancelled_while_it_waits(wire: Wire, app: Callable[..., Any], **options: Any) -> None:
    """Serve with an application that is cancelled at ``await waiting()``, and see that it ends."""
    reached = asyncio.Event()

    async def waiting() -> None:
        reached.set()
        await asyncio.Event().wait()

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, send, waiting)

    task = asyncio.create_task(wire.serving(stuck, **options))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("before", "calls"),
    [(change, ["load", "touch"]), (leave, ["load", "delete"])],
    ids=["changed", "destroyed"],
)
def test_cancelled_before_the_response_nothing_is_saved_but_a_destroy(
    connect: Connect, store: RecordingStore, sid: str, before: Callable[[Any], None], calls: Any
) -> None:
    async def app(scope: Any, send: Any, waiting: Any) -> None:
        before(scope)
        await waiting()

    wire = connect(sid=sid)
    asyncio.run(cancelled_while_it_waits(wire, app))
    assert (store.calls, wire.sent) == (calls, [])


def test_cancelled_while_the_body_streams_no_change_is_lost(
    connect: Connect, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    async def app(scope: Any, send: Any, waiting: Any) -> None:
        await send(START)
        change(scope)
        await waiting()

    asyncio.run(cancelled_while_it_waits(connect(sid=sid), app))
    assert store.calls == ["load", "touch", "save"]
    assert stored() == {"user": "ada", "seen": True}


def test_cancelled_while_its_save_is_under_way_the_save_ends_and_nothing_is_sent(
    connect: Connect, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    saving, go_on = threading.Event(), threading.Event()

    class Slow:
        """The same store, whose save waits to be let."""

        codec = store.codec
        load, create, touch, delete = store.load, store.create, store.touch, store.delete

        def save(self, *arguments: Any, **keywords: Any) -> Any:
            saving.set()
            assert go_on.wait(20)
            return store.save(*arguments, **keywords)

    async def scenario(wire: Wire) -> None:
        task = asyncio.create_task(wire.serving(says(START, BODY), store=Slow()))
        assert await asyncio.to_thread(saving.wait, 20)
        task.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    wire = connect(sid=sid)
    asyncio.run(scenario(wire))
    assert wire.sent == []
    assert stored() == {"user": "ada", "seen": True}


def test_cancelled_again_and_again_as_anyio_does_a_destroy_is_carried_out(
    connect: Connect, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    deleting, go_on, waiting = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Coroutines:
        """The same store in coroutines, whose delete waits to be let."""

        codec = store.codec

        async def load(self, sid: str) -> Any:
            return store.load(sid)

        async def delete(self, sid: str) -> bool:
            deleting.set()
            await go_on.wait()
            return bool(store.delete(sid))

        create = save = touch = load

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].destroy()
        waiting.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        task = asyncio.create_task(connect(sid=sid).serving(app, store=Coroutines()))
        await waiting.wait()
        task.cancel()
        await deleting.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert stored() is None


# -- the store fails ------------------------------------------------------------------------------


@pytest.fixture(params=["GET", "HEAD"])
def method(request: pytest.FixtureRequest) -> str:
    method: str = request.param
    return method


def unavailable(wire: Wire) -> bool:
    """Whether what was sent is our 503, whole and alone."""
    start, body = wire.sent
    assert dict(start["headers"]) == {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": str(len(body["body"])).encode(),
        b"cache-control": b"no-store",
        b"retry-after": b"5",
    }
    assert body["body"] == b"Sessions are not available at the moment. Please try again."
    assert not body.get("more_body")
    return bool(start["status"] == 503)


def test_a_session_that_cannot_be_loaded_is_a_503_without_the_application(
    connect: Connect,
    store: RecordingStore,
    sid: str,
    method: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.failing["load"] = StoreError("the disk is gone")
    ran: list[object] = []
    wire = connect(sid=sid, method=method)
    wire.serve(says(START, BODY, before=ran.append))
    assert unavailable(wire)
    assert ran == []
    assert store.calls == []
    assert [record.getMessage() for record in caplog.records] == ["the disk is gone"]


def test_a_session_that_cannot_be_saved_is_a_503_in_place_of_all_the_application_says(
    connect: Connect, store: RecordingStore, sid: str, method: str
) -> None:
    store.failing["save"] = StoreError("the disk is full")
    ended: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await says(START, PIECE, START, BODY)(scope, receive, send)
        ended.append(True)

    wire = connect(sid=sid, method=method)
    wire.serve(app)
    assert unavailable(wire)
    assert ended == [True]
    del store.failing["save"]
    assert store.calls == ["load"]


def test_a_new_session_that_cannot_be_stored_sends_no_cookie(
    connect: Connect, store: RecordingStore
) -> None:
    store.failing["create"] = StoreError("the disk is full")
    wire = connect()
    wire.serve(says(START, BODY))
    assert unavailable(wire)


def test_a_conflict_is_a_409(connect: Connect, store: RecordingStore, sid: str) -> None:
    def change_with_another(scope: Any) -> None:
        change(scope)
        store.save(sid, {"user": "bob"})

    wire = connect(sid=sid)
    wire.serve(says(START, BODY, before=change_with_another), conflict="error")
    start, body = wire.sent
    assert start["status"] == 409
    assert (b"retry-after", b"5") not in start["headers"]
    assert body["body"].startswith(b"Another request changed this session")


def test_an_application_that_fails_after_its_response_was_refused_adds_nothing(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await says(START)(scope, receive, send)
        raise LookupError

    store.failing["save"] = StoreError("the disk is full")
    wire = connect(sid=sid)
    with pytest.raises(LookupError):
        wire.serve(app)
    assert unavailable(wire)
    assert store.calls == ["load"]


@pytest.mark.parametrize("error", [StoreError("the disk is full"), ConflictError({}, {})])
def test_a_change_that_cannot_be_saved_while_the_body_streams_cuts_the_body_short(
    connect: Connect, store: RecordingStore, sid: str, error: Exception
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(PIECE)
        change(scope)
        store.failing["save"] = error
        await send(BODY)

    wire = connect(sid=sid)
    with pytest.raises(type(error)):
        wire.serve(app)
    assert wire.sent[1:] == [PIECE]


def test_a_change_that_cannot_be_saved_in_the_background_is_an_error_of_the_application(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await says(START, BODY, before=lambda scope: None)(scope, receive, send)
        change(scope)
        store.failing["save"] = StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        connect(sid=sid).serve(app)


# -- a new id, and a response that is not the application's ---------------------------------------


async def renew_and_save(scope: Any, *_: Any) -> None:
    scope["session"].regenerate()
    await scope["session"].asave()


@pytest.mark.parametrize(
    ("error", "status"), [(StoreError("the disk fails"), 503), (ConflictError({}, {}), 409)]
)
def test_a_refusal_tells_of_the_new_id_that_was_stored_before(
    connect: Connect, store: RecordingStore, sid: str, error: Exception, status: int
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await renew_and_save(scope)
        change(scope)
        store.failing["save"] = error
        await send(START)

    wire = connect(sid=sid)
    wire.serve(app)
    assert wire.sent[0]["status"] == status
    (cookie,) = wire.all(b"set-cookie")
    assert b"Max-Age" not in cookie
    assert wire.all(b"cache-control") == [b"no-store"]
    assert (store.load(sid), store.ids()) == (None, 1)


def test_a_session_stored_by_an_application_that_fails_is_deleted(
    connect: Connect, store: RecordingStore
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        change(scope)
        await scope["session"].asave()
        raise LookupError

    with pytest.raises(LookupError):
        connect().serve(app)
    assert store.calls == ["create", "delete"]
    assert store.ids() == 0


def test_a_new_id_that_an_application_that_fails_cannot_send_is_warned_of(
    connect: Connect, store: RecordingStore, sid: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await renew_and_save(scope)
        raise LookupError

    with pytest.raises(LookupError):
        connect(sid=sid).serve(app)
    assert store.ids() == 1
    (said,) = caplog.records
    assert "a session's new cookie was not sent" in said.getMessage()


class SlowToMove:
    """A store of a user's own, whose regenerate waits in its thread to be let."""

    def __init__(self, store: RecordingStore) -> None:
        self.codec = store.codec
        self.load, self.create, self.save = store.load, store.create, store.save
        self.touch, self.delete = store.touch, store.delete
        self._regenerate = store.regenerate
        self.moving, self.go = threading.Event(), threading.Event()

    def regenerate(self, *arguments: Any, **keywords: Any) -> Any:
        self.moving.set()
        assert self.go.wait(20)
        return self._regenerate(*arguments, **keywords)

    async def out_of_time(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do what regenerates, and have a time limit end it while the store is at it."""

        async def end(limit: asyncio.Timeout) -> None:
            assert await asyncio.to_thread(self.moving.wait, 20)
            limit.reschedule(asyncio.get_running_loop().time())
            for _ in range(20):
                await asyncio.sleep(0)
            self.go.set()

        try:
            async with asyncio.timeout(None) as limit:
                ending = asyncio.create_task(end(limit))
                await work()
        except TimeoutError:
            await ending


@pytest.mark.parametrize("at", ["its save", "its response"])
def test_the_response_after_a_time_limit_tells_of_the_new_id(
    connect: Connect, store: RecordingStore, sid: str, at: str
) -> None:
    slow = SlowToMove(store)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        session.regenerate()
        change(scope)
        work = session.asave if at == "its save" else lambda: send(START)
        await slow.out_of_time(work)
        await send({**START, "status": 504})
        await send(BODY)

    wire = connect(sid=sid)
    wire.serve(app, store=slow)
    assert [message.get("status") for message in wire.sent] == [504, None]
    assert len(wire.all(b"set-cookie")) == 1
    assert (store.load(sid), store.ids()) == (None, 1)
