"""What a request is answered when its session cannot be stored, and what is stored then.

Each error of a commit, before the response starts and after, through both gateways, from a store of
a user's own, which may raise anything: how often it was asked, what the client got, what is stored,
and what the log says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import (
    ConflictError,
    EncodeError,
    LockTimeout,
    SessionExists,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from tests.gateways.conftest import Kind, RecordingStore, Server, Wire

START: Final = {"type": "http.response.start", "status": 200, "headers": []}
PIECE: Final = {"type": "http.response.body", "body": b"the ", "more_body": True}
BODY: Final = {"type": "http.response.body", "body": b"page"}
OK: Final = ("200 OK", [("Content-Type", "text/plain")])

REFUSED: Final = [
    (StoreFull("the disk is full"), 503, logging.ERROR),
    (StoreUnavailable("the disk is gone"), 503, logging.ERROR),
    (LockTimeout("the session is locked"), 503, logging.ERROR),
    (StoreError("a store of one's own"), 503, logging.ERROR),
    (ConflictError({"a": 1}, {"a": 2}), 409, logging.WARNING),
]
"""What the middleware answers itself, with which status, and how it logs it."""

RAISED: Final = [
    RuntimeError("a bug in the store"),
    OSError("an error nobody translated"),
    SessionExists("every id is taken"),
    KeyError("an id"),
]
"""What is an error of the application for whoever serves it."""


class Own:
    """A store of a user's own: five verbs of another, of which saves fail.

    Attributes:
        errors: what the saves to come raise, in order; then they are made.
        asked: every verb, also those that failed.
    """

    def __init__(self, store: RecordingStore) -> None:
        self.codec = store.codec
        self._store = store
        self.errors: list[Exception] = []
        self.asked: list[str] = []

    def load(self, sid: str) -> Any:
        return self._asked("load", sid)

    def create(self, *arguments: Any, **keywords: Any) -> Any:
        return self._asked("create", *arguments, **keywords)

    def save(self, *arguments: Any, **keywords: Any) -> Any:
        return self._asked("save", *arguments, **keywords)

    def touch(self, *arguments: Any, **keywords: Any) -> Any:
        return self._asked("touch", *arguments, **keywords)

    def delete(self, sid: str) -> Any:
        return self._asked("delete", sid)

    def _asked(self, verb: str, *arguments: Any, **keywords: Any) -> Any:
        self.asked.append(verb)
        if verb in {"save", "create"} and self.errors:
            raise self.errors.pop(0)
        return getattr(self._store, verb)(*arguments, **keywords)


class Visit:
    """One request to an application that changes its session early or late, and what came of it.

    Attributes:
        early, late: what is put into the session before the response, and in its middle.
        status, headers, body: what the client got; no status: nothing.
        error: what the server was raised.
    """

    def __init__(self, kind: Kind, own: Own, wire: Wire, server: Server) -> None:
        self._kind, self._own, self._wire, self._server = kind, own, wire, server
        self.early: dict[str, Any] = {}
        self.late: dict[str, Any] = {}
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self.error: Exception | None = None

    def make(self, error: type[Exception] | None = None) -> None:
        """Serve it, to its end or to that error."""
        serve = self._through_asgi if self._kind == "asgi" else self._through_wsgi
        if error is None:
            serve()
            return
        with pytest.raises(error) as caught:
            serve()
        self.error = caught.value

    def _through_asgi(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["session"].update(self.early)
            await send(START)
            await send(PIECE)
            scope["session"].update(self.late)
            await send(BODY)

        wire = self._wire
        try:
            asyncio.run(wire.serving(app, store=self._own))
        finally:
            if wire.sent:
                self.status = wire.sent[0]["status"]
                headers = wire.sent[0]["headers"]
                self.headers = {name.decode().lower(): value.decode() for name, value in headers}
                self.body = b"".join(message["body"] for message in wire.sent[1:])

    def _through_wsgi(self) -> None:
        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            session = environ["filesession.session"]
            session.update(self.early)
            start_response(*OK)
            yield b"the "
            session.update(self.late)
            yield b"page"

        server = self._server
        try:
            server.serve(app, store=self._own, validated=False)
        finally:
            if server.status:
                self.status = int(server.status[:3])
                self.headers = {name.lower(): value for name, value in server.headers}
                self.body = server.body


@pytest.fixture
def own(store: RecordingStore) -> Own:
    return Own(store)


@pytest.fixture
def visit_by(
    kind: Kind, own: Own, connect: Callable[..., Wire], call: Callable[..., Server]
) -> Callable[[str | None], Visit]:
    """A request of the visitor with that session; None: a new one."""
    return lambda sid: Visit(kind, own, connect(sid=sid), call(sid))


@pytest.fixture
def visit(visit_by: Callable[[str | None], Visit], sid: str) -> Visit:
    """A request of the visitor whose session is stored."""
    return visit_by(sid)


@pytest.fixture
def lines(store: RecordingStore, sid: str) -> Callable[[], list[dict[str, Any]]]:
    """Every state the one stored session ever had."""

    def read() -> list[dict[str, Any]]:
        (info,) = store.scan()
        with open(store._layout.path(info.handle), "rb") as file:
            return [store.codec.decode(line.partition(b'"data":')[2][:-2]) for line in file]

    return read


# -- before the response --------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "status", "level"), REFUSED, ids=lambda value: repr(value)[:20])
def test_what_the_store_refuses_is_asked_once_and_answered_once(  # noqa: PLR0917 - a table
    visit: Visit,
    own: Own,
    lines: Callable[[], Any],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    level: int,
) -> None:
    own.errors, visit.early, visit.late = [error], {"seen": True}, {"late": True}
    visit.make()
    assert visit.status == status
    assert own.asked == ["load", "save"]
    assert lines() == [{"user": "ada"}]
    assert "set-cookie" not in visit.headers
    assert visit.headers["cache-control"] == "no-store"
    assert visit.headers["content-length"] == str(len(visit.body))
    assert visit.headers.get("retry-after") == ("5" if status == 503 else None)
    assert b"Please try again" in visit.body
    assert [(said.levelno, said.getMessage()) for said in caplog.records] == [(level, str(error))]


@pytest.mark.parametrize("error", RAISED, ids=lambda value: type(value).__name__)
def test_what_nobody_expects_of_a_store_starts_no_response_and_is_raised_as_it_is(
    visit: Visit,
    own: Own,
    lines: Callable[[], Any],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    own.errors, visit.early = [error], {"seen": True}
    visit.make(type(error))
    assert visit.error is error
    assert (visit.status, visit.body) == (None, b"")
    assert own.asked == ["load", "save", "touch"]
    assert lines() == [{"user": "ada"}]
    assert caplog.messages == []


def test_what_json_cannot_hold_never_gets_to_the_store(
    visit: Visit, own: Own, lines: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    visit.early = {"cart": [{"price": float("nan")}]}
    visit.make(EncodeError)
    assert "cart[0].price" in str(visit.error)
    assert (visit.status, visit.body) == (None, b"")
    assert own.asked == ["load", "touch"]
    assert lines() == [{"user": "ada"}]
    assert caplog.messages == []


@pytest.mark.parametrize(
    "error", [StoreFull("the disk is full"), RuntimeError("a bug")], ids=["refused", "raised"]
)
def test_a_new_session_that_cannot_be_stored_is_none_and_has_no_cookie(
    visit_by: Callable[[str | None], Visit], own: Own, store: RecordingStore, error: Exception
) -> None:
    visit = visit_by(None)
    own.errors, visit.early = [error], {"seen": True}
    visit.make(RuntimeError if isinstance(error, RuntimeError) else None)
    assert own.asked == ["create"]
    assert "set-cookie" not in visit.headers
    assert store.ids() == 0


# -- after it -------------------------------------------------------------------------------------


LATE: Final = [*(error for error, _, _ in REFUSED), *RAISED]


@pytest.mark.parametrize("error", LATE, ids=lambda value: type(value).__name__)
def test_a_late_change_that_cannot_be_stored_breaks_the_response_off(
    kind: Kind, visit: Visit, own: Own, lines: Callable[[], Any], error: Exception
) -> None:
    own.errors, visit.late = [error] * 9, {"late": True}
    visit.make(type(error))
    assert visit.error is error
    assert visit.status == 200
    assert (
        visit.body == {"asgi": b"the ", "wsgi": b"the page"}[kind]
    )  # the last piece is not marked
    assert own.asked == ["load", "touch", "save", "save"]
    assert lines() == [{"user": "ada"}]


def test_it_is_tried_once_more_when_the_request_ends(
    visit: Visit, own: Own, lines: Callable[[], Any]
) -> None:
    own.errors, visit.late = [StoreFull("the disk was full")], {"late": True}
    visit.make(StoreFull)
    assert own.asked == ["load", "touch", "save", "save"]
    assert lines() == [{"user": "ada"}, {"user": "ada", "late": True}]


def test_a_late_change_that_json_cannot_hold_costs_only_itself(
    visit: Visit, own: Own, lines: Callable[[], Any]
) -> None:
    visit.early, visit.late = {"seen": True}, {"cart": [{"price": float("nan")}]}
    visit.make(EncodeError)
    assert visit.status == 200
    assert own.asked == ["load", "save"]
    assert lines() == [{"user": "ada"}, {"user": "ada", "seen": True}]
