"""What becomes of the session when something fails under WSGI, under the standard validator.

The application, the client or the store, before and after the response has started.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

import pytest

from filesession.errors import ConflictError, EncodeError, StoreError

if TYPE_CHECKING:
    from tests.gateways.conftest import RecordingStore, Server

KEY = "filesession.session"
OK = ("200 OK", [("Content-Type", "text/plain")])

App = Callable[[Any, Any], Iterable[bytes]]
Call = Callable[..., "Server"]


def change(environ: Any) -> None:
    environ[KEY]["seen"] = True


def leave(environ: Any) -> None:
    environ[KEY].destroy()
    environ[KEY]["flash"] = "bye"


def take_out(environ: Any) -> None:
    del environ[KEY]


class Body:
    """A body that counts how often it was closed; steps that are functions are called."""

    def __init__(self, *steps: Any, end: Callable[[], object] = lambda: None) -> None:
        self._steps = steps
        self._end = end
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for step in self._steps:
            if callable(step):
                step()
            else:
                yield step

    def close(self) -> None:
        self.closed += 1
        self._end()


def answering(body: Any, before: Callable[[Any], object] = change) -> App:
    """An application that does something with its session and returns this body."""

    def app(environ: Any, start_response: Any) -> Any:
        before(environ)
        start_response(*OK)
        return body

    return app


def fail() -> None:
    msg = "the application's"
    raise LookupError(msg)


# -- the application fails ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "calls"),
    [(change, {"load", "touch"}), (leave, {"load", "delete"}), (take_out, {"load", "delete"})],
    ids=["changed", "destroyed", "taken out"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["called", "streamed"])
def test_an_error_before_the_response_saves_nothing_but_a_destroy(
    call: Call,
    store: RecordingStore,
    sid: str,
    before: Callable[[Any], None],
    calls: set[str],
    *,
    streamed: bool,
) -> None:
    body = Body(b"", fail)

    def app(environ: Any, start_response: Any) -> Any:
        if streamed:
            return answering(body, before)(environ, start_response)
        before(environ)
        raise LookupError

    server = call(sid)
    with pytest.raises(LookupError):
        server.serve(app)
    assert set(store.calls) == calls
    assert store.calls.count("delete") == ("delete" in calls)
    assert server.status == ""
    assert body.closed == int(streamed)


def test_an_error_after_the_response_began_loses_no_change(
    call: Call, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    server = call(sid)

    def change_and_fail() -> None:
        server.environ[KEY]["late"] = True
        fail()

    body = Body(b"the ", change_and_fail)
    with pytest.raises(LookupError):
        server.serve(answering(body))
    assert (server.body, body.closed) == (b"the ", 1)
    assert store.journal[-2:] == [b"the ", "save"]
    assert stored() == {"user": "ada", "seen": True, "late": True}


def test_an_error_of_the_bodys_close_loses_no_change(
    call: Call, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    server = call(sid)

    def change_and_fail() -> None:
        server.environ[KEY]["late"] = True
        fail()

    with pytest.raises(LookupError):
        server.serve(answering(Body(b"the page", end=change_and_fail)))
    assert server.body == b"the page"
    assert stored() == {"user": "ada", "seen": True, "late": True}


@pytest.mark.parametrize("when", ["called", "before", "after", "closed"])
@pytest.mark.parametrize("error", [StoreError("the disk is gone"), OSError("the disk is gone")])
def test_a_store_that_fails_too_does_not_hide_the_applications_error(  # noqa: PLR0917 - a table
    call: Call,
    store: RecordingStore,
    sid: str,
    caplog: pytest.LogCaptureFixture,
    when: str,
    error: Exception,
) -> None:
    server = call(sid)

    def fail_too() -> None:
        server.environ[KEY].destroy()
        store.failing["delete"] = error
        fail()

    bodies = {
        "called": None,
        "before": Body(fail_too),
        "after": Body(b"the ", fail_too),
        "closed": Body(b"the page", end=fail_too),
    }
    app = answering(bodies[when], lambda environ: fail_too() if when == "called" else None)
    with pytest.raises(LookupError, match="the application's"):
        server.serve(app)
    assert {(record.levelno, record.getMessage()) for record in caplog.records} == {
        (logging.ERROR, "the disk is gone"),
    }


@pytest.mark.parametrize("body", [[b"the page"], Body(b"the page")], ids=["a list", "streamed"])
def test_what_json_cannot_hold_starts_no_response(
    call: Call, store: RecordingStore, sid: str, body: Any
) -> None:
    def spoil(environ: Any) -> None:
        environ[KEY]["cart"] = [{"price": float("nan")}]

    server = call(sid)
    with pytest.raises(EncodeError, match=r"cart\[0\]\.price"):
        server.serve(answering(body, spoil), validated=False)
    assert set(store.calls) == {"load", "touch"}
    assert server.status == ""


@pytest.mark.parametrize("broken", [False, True], ids=["closed", "failing to close"])
def test_a_file_of_a_session_that_cannot_be_stored_is_closed_and_hides_no_error(
    call: Call, store: RecordingStore, sid: str, *, broken: bool
) -> None:
    class File(FileWrapper):
        closed = 0

        def close(self) -> None:
            File.closed += 1
            if broken:
                fail()

    def app(environ: Any, start_response: Any) -> Any:
        environ[KEY]["price"] = float("nan")
        start_response(*OK)
        return environ["wsgi.file_wrapper"](None)

    with pytest.raises(EncodeError):
        call(sid, **{"wsgi.file_wrapper": File}).serve(app, validated=False)
    assert File.closed == 1


# -- the client goes away -------------------------------------------------------------------------


def test_a_client_gone_in_the_middle_of_the_body_loses_no_change(
    call: Call, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    ends: list[str] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(*OK)
        yield b"the "
        try:
            change(environ)
            yield b"long "
            yield b"page"
        finally:
            environ[KEY]["cut"] = True
            ends.append("closed")

    server = call(sid)
    server.serve(app, pieces=2)
    assert (server.body, ends) == (b"the long ", ["closed"])
    assert store.journal[-2:] == [b"long ", "save"]
    assert stored() == {"user": "ada", "seen": True, "cut": True}


@pytest.mark.parametrize(
    ("before", "calls"),
    [(change, ["load", "touch"]), (leave, ["load", "delete"])],
    ids=["changed", "destroyed"],
)
def test_a_client_gone_before_the_body_saves_nothing_but_a_destroy(
    call: Call, store: RecordingStore, sid: str, before: Callable[[Any], None], calls: list[str]
) -> None:
    body = Body(b"the page")
    call(sid).serve(answering(body, before), pieces=0)
    assert store.calls == calls
    assert body.closed == 1


# -- the store fails ------------------------------------------------------------------------------


def unavailable(server: Server, *, method: str = "GET") -> bool:
    """Whether what the client got is our 503, whole and alone."""
    page = b"Sessions are not available at the moment. Please try again."
    assert server.headers == [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(page))),
        ("cache-control", "no-store"),
        ("retry-after", "5"),
    ]
    assert server.body == (b"" if method == "HEAD" else page)
    return server.status == "503 Service Unavailable"


@pytest.fixture(params=["GET", "HEAD"])
def method(request: pytest.FixtureRequest) -> str:
    method: str = request.param
    return method


def test_a_session_that_cannot_be_loaded_is_a_503_without_the_application(
    call: Call, store: RecordingStore, sid: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.failing["load"] = StoreError("the disk is gone")
    ran: list[object] = []
    server = call(sid, REQUEST_METHOD=method)
    server.serve(answering([b"the page"], ran.append))
    assert unavailable(server, method=method)
    assert (ran, store.calls) == ([], [])
    assert caplog.messages == ["the disk is gone"]


@pytest.mark.parametrize("body", [[b"the page"], [b"the ", b"page"], []], ids=str)
@pytest.mark.parametrize("streamed", [False, True], ids=["a list", "streamed"])
def test_a_session_that_cannot_be_saved_is_a_503_in_place_of_the_applications_response(
    call: Call, store: RecordingStore, sid: str, method: str, body: list[bytes], *, streamed: bool
) -> None:
    store.failing["save"] = StoreError("the disk is full")
    pieces = Body(*body)
    server = call(sid, REQUEST_METHOD=method)
    server.serve(answering(pieces if streamed else body), validated=streamed)
    assert unavailable(server, method=method)
    assert store.journal[:2] == ["load", "start_response"]
    assert store.calls == ["load"]
    assert pieces.closed == int(streamed)


def test_a_file_is_closed_when_the_answer_is_a_503(
    call: Call, store: RecordingStore, sid: str
) -> None:
    store.failing["save"] = StoreError("the disk is full")
    ends: list[str] = []

    class File(FileWrapper):
        def close(self) -> None:
            ends.append("closed")

    server = call(sid, **{"wsgi.file_wrapper": File})
    server.serve(answering(File(None)), validated=False)  # type: ignore[arg-type]  # never read
    assert unavailable(server)
    assert ends == ["closed"]


def test_what_is_written_after_a_refusal_is_dropped(
    call: Call, store: RecordingStore, sid: str, method: str
) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        change(environ)
        write = start_response(*OK)
        write(b"the ")
        write(b"whole ")
        return [b"page"]

    store.failing["save"] = StoreError("the disk is full")
    server = call(sid, REQUEST_METHOD=method)
    server.serve(app)
    assert unavailable(server, method=method)


def test_an_application_that_fails_after_a_refusal_adds_nothing(
    call: Call, store: RecordingStore, sid: str
) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        change(environ)
        start_response(*OK)(b"the ")
        raise LookupError

    store.failing["save"] = StoreError("the disk is full")
    server = call(sid)
    with pytest.raises(LookupError):
        server.serve(app)
    assert server.status == "503 Service Unavailable"
    assert store.calls == ["load"]


@pytest.mark.parametrize("body", [[b"the page"], Body(b"the page")], ids=["a list", "streamed"])
def test_a_conflict_is_a_409(call: Call, store: RecordingStore, sid: str, body: Any) -> None:
    def change_with_another(environ: Any) -> None:
        change(environ)
        store.save(sid, {"user": "bob"})

    server = call(sid)
    server.serve(answering(body, change_with_another), validated=False, conflict="error")
    assert server.status == "409 Conflict"
    assert server.body.startswith(b"Another request changed this session")
    assert server.all("retry-after") == []


@pytest.mark.parametrize("error", [StoreError("the disk is full"), ConflictError({}, {})])
def test_a_change_that_cannot_be_saved_while_the_body_streams_is_an_error_for_the_server(
    call: Call, store: RecordingStore, sid: str, error: Exception
) -> None:
    server = call(sid)

    def change_in_vain() -> None:
        change(server.environ)
        store.failing["save"] = error

    body = Body(b"the ", change_in_vain, b"page")
    with pytest.raises(type(error)):
        server.serve(answering(body, lambda environ: None))
    assert body.closed == 1


# -- a new id, and a response that is not the application's ---------------------------------------


@pytest.mark.parametrize(
    ("error", "status"), [(StoreError("the disk fails"), "503"), (ConflictError({}, {}), "409")]
)
def test_a_refusal_tells_of_the_new_id_that_was_stored_before(
    call: Call, store: RecordingStore, sid: str, error: Exception, status: str
) -> None:
    def renew_save_and_change(environ: Any) -> None:
        environ[KEY].regenerate()
        environ[KEY].save()
        change(environ)
        store.failing["save"] = error

    server = call(sid)
    server.serve(answering([b"the page"], renew_save_and_change))
    assert server.status.startswith(status)
    (cookie,) = server.all("set-cookie")
    assert "Max-Age" not in cookie
    assert server.all("cache-control") == ["no-store"]
    assert (store.load(sid), store.ids()) == (None, 1)


def test_a_session_stored_by_an_application_that_fails_is_deleted(
    call: Call, store: RecordingStore
) -> None:
    def store_and_fail(environ: Any) -> None:
        change(environ)
        environ[KEY].save()
        fail()

    with pytest.raises(LookupError):
        call().serve(answering([b"the page"], store_and_fail), validated=False)
    assert store.calls == ["create", "delete"]
    assert store.ids() == 0


def test_a_new_id_that_an_application_that_fails_cannot_send_is_warned_of(
    call: Call, store: RecordingStore, sid: str, caplog: pytest.LogCaptureFixture
) -> None:
    def renew_and_fail(environ: Any) -> None:
        environ[KEY].regenerate()
        environ[KEY].save()
        fail()

    with pytest.raises(LookupError):
        call(sid).serve(answering([b"the page"], renew_and_fail), validated=False)
    assert store.ids() == 1
    (said,) = caplog.records
    assert "a session's new cookie was not sent" in said.getMessage()
