"""What is particular to WSGI, under the standard validator: bodies of each kind, and their end."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from filesession.errors import ConfigurationError
from filesession.stores import MemoryStore
from filesession.wsgi import SessionMiddleware

if TYPE_CHECKING:
    from tests.gateways.conftest import RecordingStore, Server

KEY = "filesession.session"
OK = ("200 OK", [("Content-Type", "text/plain")])

App = Callable[[Any, Any], Iterable[bytes]]
Call = Callable[..., "Server"]


def change(environ: Any) -> None:
    environ[KEY]["seen"] = True


def returning(body: Any) -> App:
    """An application that changes its session and returns this body."""

    def app(environ: Any, start_response: Any) -> Any:
        change(environ)
        start_response(*OK)
        return body

    return app


class Pieces:
    """A body of a class of its own, that counts how often it was closed."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces

    def close(self) -> None:
        self.closed += 1


# -- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [[b"the page"], (b"the page",), [b"the ", b"page"]])
def test_a_list_stays_the_list_it_is_so_that_servers_can_tell_its_length(
    call: Call, store: RecordingStore, sid: str, body: Any
) -> None:
    server = call(sid)
    server.serve(returning(body), validated=False)
    assert server.returned is body
    assert store.journal == ["load", "save", "start_response", "headers", *body]


def test_a_generator_is_passed_on_piece_by_piece_after_the_save(
    call: Call, store: RecordingStore, sid: str
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        change(environ)
        start_response(*OK)
        store.journal.append("first")
        yield b"the "
        store.journal.append("second")
        yield b"page"
        store.journal.append("end")

    call(sid).serve(app)
    assert store.journal == [
        *("load", "first", "save", "start_response", "headers", b"the "),
        *("second", b"page", "end"),
    ]


def test_any_other_iterable_is_closed_once(call: Call) -> None:
    body = Pieces(b"the ", b"page")
    server = call()
    server.serve(returning(body))
    assert (server.body, body.closed) == (b"the page", 1)
    assert len(server.all("set-cookie")) == 1


@pytest.mark.parametrize(
    "make",
    [list, lambda: iter(()), Pieces, lambda: Pieces(b"", b"")],
    ids=["list", "iterator", "none", "empty"],
)
@pytest.mark.parametrize("validated", [True, False])
def test_a_response_without_a_body_starts_too(
    call: Call, store: RecordingStore, sid: str, make: Callable[[], Any], *, validated: bool
) -> None:
    call(sid).serve(returning(make()), validated=validated)
    assert store.journal == ["load", "save", "start_response", "headers"]


def test_nothing_starts_before_there_is_something_to_send(
    call: Call, store: RecordingStore, sid: str
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(*OK)
        yield b""
        change(environ)
        yield b""
        yield b"the page"
        yield b""

    call(sid).serve(app)
    assert store.journal == ["load", "save", "start_response", "headers", b"the page"]


def test_a_session_changed_while_the_body_streams_is_saved_at_its_end(
    call: Call, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(*OK)
        yield b"the "
        change(environ)
        yield b"page"

    call(sid).serve(app)
    assert store.journal[-2:] == [b"page", "save"]
    assert stored() == {"user": "ada", "seen": True}


def test_a_new_session_first_changed_while_the_body_streams_is_not_stored_and_a_warning_says_so(
    call: Call, store: RecordingStore, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(*OK)
        yield b"the "
        change(environ)
        yield b"page"

    server = call()
    server.serve(app)
    assert store.calls == []
    assert server.all("set-cookie") == []
    assert caplog.messages == [
        "the response had begun: the session gets no cookie, so it is not stored"
    ]


def test_a_session_changed_when_the_body_is_closed_is_saved(
    call: Call, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    class Body(Pieces):
        def close(self) -> None:
            super().close()
            environ[KEY]["closed"] = self.closed

    body = Body(b"the page")
    server = call(sid)
    environ = server.environ
    server.serve(returning(body))
    assert store.calls == ["load", "save", "save"]
    assert stored() == {"user": "ada", "seen": True, "closed": 1}


def test_a_caller_that_forgets_to_close_the_body_loses_no_change(
    call: Call, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(*OK)
        yield b"the page"
        change(environ)

    middleware = SessionMiddleware(app, store, "the newest secret")
    assert list(middleware(call(sid).environ, lambda *_: lambda data: None)) == [b"the page"]
    assert stored() == {"user": "ada", "seen": True}


# -- files ----------------------------------------------------------------------------------------


def download(environ: Any, start_response: Any) -> Any:
    change(environ)
    start_response(*OK)
    return environ["wsgi.file_wrapper"](environ["test.file"])


def test_a_file_stays_what_it_is_so_that_servers_can_send_it_by_themselves(
    call: Call, store: RecordingStore, sid: str
) -> None:
    file = io.BytesIO(b"the file")
    server = call(sid, **{"wsgi.file_wrapper": FileWrapper, "test.file": file})
    server.serve(download, validated=False)
    assert type(server.returned) is FileWrapper
    assert store.journal == ["load", "save", "start_response", "headers", b"the file"]
    assert file.closed


def test_the_standard_librarys_server_sends_a_file_by_itself(
    call: Call, store: RecordingStore, sid: str
) -> None:
    class Handler(SimpleHandler):
        def sendfile(self) -> bool:
            self.send_headers()
            self._write(self.result.filelike.read())  # type: ignore[attr-defined]
            store.journal.append("sendfile")
            return True

    out = io.BytesIO()
    environ = call(sid, **{"test.file": io.BytesIO(b"the file")}).environ
    handler = Handler(io.BytesIO(), out, sys.stderr, environ, multithread=False)
    handler.run(SessionMiddleware(download, store, "the newest secret"))
    assert store.journal == ["load", "save", "sendfile"]
    assert out.getvalue().endswith(b"\r\n\r\nthe file")


def test_where_the_file_wrapper_is_a_function_a_file_is_a_body_like_any_other(
    call: Call, store: RecordingStore, sid: str
) -> None:
    def wrapped(file: Any) -> Any:
        return FileWrapper(file, blksize=4)

    file = io.BytesIO(b"the file")
    call(sid, **{"wsgi.file_wrapper": wrapped, "test.file": file}).serve(download)
    assert store.journal == ["load", "save", "start_response", "headers", b"the ", b"file"]
    assert file.closed


# -- write() --------------------------------------------------------------------------------------


@pytest.mark.parametrize("validated", [True, False], ids=["", "and a list"])
def test_what_is_written_leaves_after_the_save_and_what_changes_then_is_saved(
    call: Call, store: RecordingStore, sid: str, *, validated: bool
) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response(*OK)
        write(b"")
        change(environ)
        write(b"the ")
        write(b"")
        environ[KEY]["late"] = True
        return [b"page"]

    call(sid).serve(app, validated=validated)
    assert store.journal[:5] == ["load", "save", "start_response", "headers", b"the "]
    assert set(store.journal[5:]) == {b"page", "save"}  # a list is seen through in advance


# -- start_response -------------------------------------------------------------------------------


def test_start_response_may_be_called_in_the_first_step_of_the_body(
    call: Call, store: RecordingStore
) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        def body() -> Iterator[bytes]:
            change(environ)
            start_response("201 Created", OK[1])
            yield b"the page"

        return body()

    server = call()
    server.serve(app)
    assert server.status == "201 Created"
    assert len(server.all("set-cookie")) == 1


def test_start_response_may_even_be_called_after_an_empty_first_piece(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response(*OK)
        yield b"the page"

    server = call()
    server.serve(app, validated=False)
    assert server.body == b"the page"


@pytest.mark.parametrize(
    "body", [[b"the page"], Pieces(b"the page"), []], ids=["list", "pieces", "none"]
)
def test_a_body_without_start_response_is_an_error(
    call: Call, store: RecordingStore, body: Any
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        change(environ)
        return body

    with pytest.raises(RuntimeError, match="without having called start_response"):
        call().serve(app, validated=False)
    assert store.calls == []


def test_headers_the_application_changes_afterwards_do_not_count(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        headers = list(OK[1])
        start_response("200 OK", headers)
        headers.append(("X-Late", "1"))
        return [b"the page"]

    server = call()
    server.serve(app)
    assert server.headers == OK[1]


def fail() -> None:
    raise LookupError


def error_page(start_response: Any) -> Iterable[bytes]:
    start_response("500 Oh", [("Content-Type", "text/html")], sys.exc_info())
    return [b"sorry"]


def test_an_error_page_replaces_a_response_that_has_not_started(
    call: Call, store: RecordingStore
) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        change(environ)
        start_response(*OK)
        try:
            fail()
        except LookupError:
            return error_page(start_response)
        return []

    server = call()
    server.serve(app)
    assert (server.status, server.body) == ("500 Oh", b"sorry")
    assert store.journal == ["create", "start_response", "headers", b"sorry"]
    assert server.headers[0] == ("Content-Type", "text/html")
    assert len(server.all("set-cookie")) == 1


def test_an_error_page_after_the_response_has_started_raises_the_error(
    call: Call, store: RecordingStore, sid: str
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(*OK)
        yield b"the "
        change(environ)
        try:
            fail()
        except LookupError:
            yield from error_page(start_response)

    server = call(sid)
    with pytest.raises(LookupError):
        server.serve(app)
    assert (server.status, server.body) == ("200 OK", b"the ")
    assert store.journal[-2:] == [b"the ", "save"]


@pytest.mark.parametrize("started", [False, True], ids=["before", "after"])
def test_start_response_called_twice_without_an_error_is_an_error(
    call: Call, store: RecordingStore, sid: str, *, started: bool
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        write = start_response(*OK)
        if started:
            write(b"the ")
        start_response(*OK)
        yield b"page"

    with pytest.raises(RuntimeError, match=r"called (again|twice)"):
        call(sid).serve(app)
    assert set(store.calls) == {"load", "touch"}


# -- several middlewares --------------------------------------------------------------------------


def test_of_two_with_the_same_key_the_outer_one_works(
    call: Call, store: RecordingStore, sid: str
) -> None:
    other = MemoryStore()
    server = call(sid)
    server.serve(SessionMiddleware(validator(returning([b"the page"])), other, "another secret"))
    assert store.journal == ["load", "save", "start_response", "headers", b"the page"]
    assert len(other) == 0
    assert server.all("set-cookie") == []


def test_two_of_one_cookie_are_refused_by_the_keys_of_both(
    call: Call, store: RecordingStore
) -> None:
    server = call()
    app = returning([b"the page"])
    inner = SessionMiddleware(app, MemoryStore(), "another secret", key="beaker.session")
    with pytest.raises(
        ConfigurationError,
        match=r"key='session' and key='beaker\.session', use one cookie, 'sid'",
    ):
        server.serve(inner, validated=False)
    assert (server.status, store.ids()) == ("", 0)


@pytest.mark.parametrize("body", [[b"the page"], Pieces(b"the ", b"page")], ids=["list", "pieces"])
def test_two_with_different_keys_both_work(call: Call, store: RecordingStore, body: Any) -> None:
    other = MemoryStore()

    def app(environ: Any, start_response: Any) -> Any:
        environ["beaker.session"]["model"] = "phone"
        return returning(body)(environ, start_response)

    server = call()
    inner = SessionMiddleware(app, other, "another secret", name="device", key="beaker.session")
    server.serve(inner, validated=False)
    assert server.body == b"the page"
    assert [cookie.partition("=")[0] for cookie in server.all("set-cookie")] == ["device", "sid"]
    assert server.all("vary") == ["Cookie"]
    assert (len(other), store.ids()) == (1, 1)


def test_a_key_with_a_dot_is_taken_as_it_is(call: Call, store: RecordingStore) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        assert KEY not in environ
        environ["beaker.session"]["seen"] = True
        start_response(*OK)
        return [b"the page"]

    call().serve(app, key="beaker.session")
    assert store.calls == ["create"]


# -- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "path", "covered"),
    [
        ("/shop", "/cart", True),
        ("", "/shop", True),
        ("/shop", "", True),
        ("/other", "/shop", False),
    ],
)
def test_the_path_is_the_whole_one_wherever_the_application_is_mounted(
    call: Call, script: str, path: str, *, covered: bool
) -> None:
    found: list[bool] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        found.append(KEY in environ)
        start_response(*OK)
        return [b"the page"]

    call(SCRIPT_NAME=script, PATH_INFO=path).serve(app, path="/shop")
    assert found == [covered]


def test_a_store_of_coroutines_is_refused() -> None:
    class Coroutines:
        async def load(self, sid: str) -> None: ...

        create = save = touch = delete = load

    with pytest.raises(ConfigurationError, match=r"use filesession\.asgi"):
        SessionMiddleware(returning([]), Coroutines(), "secret")  # type: ignore[arg-type]


def test_threads_that_change_one_session_at_the_same_time_lose_nothing(
    call: Call, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    threads = 8
    together = threading.Barrier(threads, timeout=20)

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        together.wait()  # all have loaded, none has saved
        environ[KEY][environ["PATH_INFO"]] = True
        start_response(*OK)
        yield environ["PATH_INFO"].encode()
        with environ[KEY].lock():
            environ[KEY]["count"] = environ[KEY].get("count", 0) + 1

    middleware = validator(SessionMiddleware(validator(app), store, "the newest secret"))

    def visit(number: int) -> bytes:
        server = call(sid, PATH_INFO=f"/{number}")
        body: Any = middleware(server.environ, lambda *_: lambda data: None)
        try:
            return b"".join(body)
        finally:
            body.close()

    with ThreadPoolExecutor(threads) as pool:
        bodies = list(pool.map(visit, range(threads)))
    assert bodies == [b"/%d" % number for number in range(threads)]
    assert stored() == {"user": "ada", "count": threads} | {f"/{n}": True for n in range(threads)}
