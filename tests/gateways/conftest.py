"""One application under either middleware, driven without a server or a framework.

A request says what the application does with it, in words that both gateways know: before the
response, between two pieces of its body, and when it is out.
"""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from filesession import asgi, wsgi
from filesession.cookies.header import cookie_values, encode_value
from filesession.cookies.signing import Signer
from filesession.errors import WouldSync
from filesession.session import Session
from filesession.stores import FileStore
from filesession.testing import ManualClock

SECRET: Final = "the newest secret"

Kind: TypeAlias = Literal["asgi", "wsgi"]
Handler: TypeAlias = Callable[["Here"], object]
Headers: TypeAlias = list[tuple[str, str]]


@dataclass
class Here:
    """A request as the application sees it, and the response it makes.

    Attributes:
        place: the scope or environ.
        key: where in it the session is.
        late: called when the first piece of the body has left.
        after: called when the response is out.
    """

    place: MutableMapping[str, Any]
    key: str
    status: str = "200 OK"
    headers: Headers = field(default_factory=lambda: [("content-type", "text/plain")])
    body: list[bytes] = field(default_factory=lambda: [b"the ", b"page"])
    late: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None

    @property
    def session(self) -> Session:
        session = self.place[self.key]
        assert isinstance(session, Session)
        return session


@dataclass
class Answer:
    """What came out, and when what was stored."""

    status: int
    headers: Headers
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def set_cookie(self) -> str | None:
        """The one Set-Cookie header; None: there is none."""
        found = self.all("set-cookie")
        assert len(found) < 2
        return found[0] if found else None

    @property
    def cookie(self) -> str:
        """The cookie a browser would send back."""
        assert self.set_cookie is not None
        return self.set_cookie.partition(";")[0]

    @property
    def sid(self) -> str:
        """The id in that cookie, which we signed."""
        name, _, _ = self.cookie.partition("=")
        (value,) = cookie_values(self.cookie, name)
        found = Signer(SECRET).unsign(value)
        assert found is not None
        sid, _ = found
        return sid

    @property
    def expires_the_cookie(self) -> bool:
        return self.set_cookie is not None and "; Max-Age=0" in self.set_cookie


class Site:
    """The application, under one of the two middlewares.

    Attributes:
        events: what the response did, in order: "start", then each piece of its body.
        here: the last request, as the application saw it.
    """

    def __init__(self, kind: Kind, store: Any, secret: Any = SECRET, **options: Any) -> None:
        self.kind = kind
        self.store = store
        self.events: list[object] = []
        self.here: Here | None = None
        self._handler: Handler = lambda here: None
        self.middleware: Any
        if kind == "asgi":
            self.middleware = asgi.SessionMiddleware(self._asgi, store, secret, **options)
        else:
            self.middleware = wsgi.SessionMiddleware(
                validator(self._wsgi),
                store,
                secret,
                **options,
            )
        key = self.middleware.key
        self.key = key if kind == "asgi" or "." in key else f"filesession.{key}"

    def request(
        self,
        handler: Handler | None = None,
        *,
        cookie: str | None = None,
        path: str = "/",
        method: str = "GET",
        https: bool = False,
        client: str = "127.0.0.1",
        forwarded: str | None = None,
    ) -> Answer:
        """Let the application serve one request as ``handler`` says."""
        self._handler = handler or (lambda here: None)
        self.events.clear()
        scheme = "https" if https else "http"
        if self.kind == "asgi":
            headers = [
                (name, value.encode("latin-1"))
                for name, value in ((b"cookie", cookie), (b"x-forwarded-proto", forwarded))
                if value is not None
            ]
            scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "method": method}
            scope |= {"path": path, "scheme": scheme, "headers": headers, "client": (client, 50000)}
            return asyncio.run(self._exchange(scope))
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": "",
            "SCRIPT_NAME": "",
            "REMOTE_ADDR": client,
            "wsgi.url_scheme": scheme,
            "wsgi.input": io.BytesIO(),
        }
        if cookie is not None:
            environ["HTTP_COOKIE"] = cookie
        if forwarded is not None:
            environ["HTTP_X_FORWARDED_PROTO"] = forwarded
        return self._respond(environ)

    async def _exchange(self, scope: dict[str, Any]) -> Answer:
        messages: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            start = message["type"] == "http.response.start"
            self.events.append("start" if start else message["body"])
            messages.append(message)

        await self.middleware(scope, receive, send)
        start, *bodies = messages
        assert start["type"] == "http.response.start"
        assert [message.get("more_body", False) for message in bodies] == [
            *[True] * (len(bodies) - 1),
            False,
        ]
        headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
        return Answer(start["status"], headers, b"".join(message["body"] for message in bodies))

    async def _asgi(self, scope: Any, receive: Any, send: Any) -> None:
        here = self.here = Here(scope, self.key)
        await asyncio.to_thread(self._handler, here)  # as frameworks run what is no coroutine
        headers = [(name.encode(), value.encode()) for name, value in here.headers]
        status = int(here.status[:3])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        pieces = here.body or [b""]
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            here.late()
        await send({"type": "http.response.body", "body": pieces[-1]})
        here.after()

    def _respond(self, environ: dict[str, Any]) -> Answer:
        setup_testing_defaults(environ)
        started: list[tuple[str, Headers]] = []

        def start_response(status: str, headers: Headers, exc_info: Any = None) -> Any:
            if exc_info is not None and self.events[1:]:
                raise exc_info[1]
            self.events.append("start")
            started.append((status, headers))
            return self.events.append

        body = validator(self.middleware)(environ, start_response)
        pieces = []
        try:
            for piece in body:
                self.events.append(piece)
                pieces.append(piece)
        finally:
            body.close()  # type: ignore[attr-defined]  # the validator's
        status, headers = started[-1]
        return Answer(int(status[:3]), headers, b"".join(pieces))

    def _wsgi(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        here = self.here = Here(environ, self.key)
        self._handler(here)
        start_response(here.status, here.headers)
        return Body(here)


class Body:
    """The pieces of a response under WSGI, with what happens between and after them."""

    def __init__(self, here: Here) -> None:
        self.here = here

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.here.body[:-1]:
            yield piece
            self.here.late()
        yield from self.here.body[-1:]

    def close(self) -> None:
        self.here.after()


class Wire:
    """One ASGI connection as the server sees it, message by message.

    What is sent is noted in the store's journal, between the calls the store got.

    Attributes:
        scope: the connection's; keywords add to it.
        incoming: what the client will have sent.
        sent: what the server was given.
        broken: the type of message at which the server finds the client gone.
    """

    def __init__(
        self, store: RecordingStore, *headers: tuple[bytes, bytes], kind: str = "http", **scope: Any
    ) -> None:
        self.store = store
        self.scope: dict[str, Any] = {"type": kind, "asgi": {"version": "3.0"}, "path": "/"}
        if kind == "http":
            self.scope["method"] = "GET"
        self.scope |= {"headers": list(headers), "client": ("127.0.0.1", 50000), **scope}
        first = {"type": "http.request", "body": b"", "more_body": False}
        self.incoming: list[Any] = [first if kind == "http" else {"type": "websocket.connect"}]
        self.sent: list[Any] = []
        self.broken: str | None = None

    async def receive(self) -> Any:
        return self.incoming.pop(0)

    async def send(self, message: Any) -> None:
        self.store.journal.append(message["type"])
        if message["type"] == self.broken:
            msg = "the client is gone"
            raise OSError(msg)
        self.sent.append(message)

    async def serving(self, app: Any, **options: Any) -> None:
        """Let an application serve the connection, under a middleware with these options."""
        middleware = asgi.SessionMiddleware(
            app, options.pop("store", self.store), SECRET, **options
        )
        await middleware(self.scope, self.receive, self.send)

    def serve(self, app: Any, **options: Any) -> None:
        asyncio.run(self.serving(app, **options))

    def all(self, name: bytes) -> list[bytes]:
        """The values of a header of the first message sent."""
        return [value for key, value in self.sent[0]["headers"] if key.lower() == name]


class Server:
    """A server that keeps to PEP 3333 and is strict about it, for one request.

    The headers leave with the first piece of the body that is not empty. What leaves, and the calls
    of start_response, are noted in the store's journal, between the calls the store got.

    Attributes:
        environ: the request's.
        returned: what the middleware returned.
        status, headers, body: what the client got.
    """

    def __init__(self, store: RecordingStore, sid: str | None = None, **environ: Any) -> None:
        self.store = store
        self.environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": ""}
        self.environ |= {"REMOTE_ADDR": "127.0.0.1", **environ}
        if sid is not None:
            self.environ["HTTP_COOKIE"] = signed(sid)
        setup_testing_defaults(self.environ)
        self.returned: Any = None
        self.status = ""
        self.headers: Headers = []
        self.body = b""
        self._headers_sent = False

    def serve(
        self, app: Any, *, validated: bool = True, pieces: int | None = None, **options: Any
    ) -> None:
        """Let an application serve the request, under a middleware with these options.

        Args:
            app: a WSGI application.
            validated: watch it with the standard validator, which lets nobody see what its body is.
            pieces: as many of the body are asked for before the client is gone; None: all.
            options: the middleware's.
        """
        inner = validator(app) if validated else app
        store = options.pop("store", self.store)
        middleware = wsgi.SessionMiddleware(inner, store, SECRET, **options)

        def noting(environ: Any, start_response: Any) -> Any:
            self.returned = middleware(environ, start_response)
            return self.returned

        body: Any = validator(noting)(self.environ, self._start_response)
        try:
            for piece in itertools.islice(body, pieces):
                self._write(piece)
            self._send_headers()
        finally:
            body.close()

    def all(self, name: str) -> list[str]:
        """The values of a header that the client got."""
        return [value for key, value in self.headers if key.lower() == name]

    def _start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Any:
        if exc_info is not None and self._headers_sent:
            raise exc_info[1]
        assert exc_info is not None or not self.status
        self.store.journal.append("start_response")
        self.status, self.headers = status, headers
        return self._write

    def _write(self, data: bytes) -> None:
        if data:
            self._send_headers()
            self.store.journal.append(data)
            self.body += data

    def _send_headers(self) -> None:
        if not self._headers_sent:
            self.store.journal.append("headers")
        self._headers_sent = True


def _recorded(verb: str) -> Callable[..., Any]:
    def call(self: RecordingStore, *arguments: Any, **keywords: Any) -> Any:
        if verb in self.failing:
            raise self.failing[verb]
        try:
            result = getattr(FileStore, verb)(self, *arguments, **keywords)
        except WouldSync:
            raise  # it is called again, in a thread
        except Exception:
            self.calls.append(verb)
            raise
        self.calls.append(verb)
        self.journal.append(verb)
        return result

    return call


class RecordingStore(FileStore):
    """A file store that notes what was asked of it, and fails when told to.

    Attributes:
        now: its clock, which stands still.
        calls: the verbs, in order.
        journal: the same, and whatever a test writes between them.
        failing: the error each verb raises instead of doing anything.
    """

    def __init__(self, directory: Path, **options: Any) -> None:
        self.now = ManualClock()
        super().__init__(directory, clock=self.now, **options)
        self.calls: list[str] = []
        self.journal: list[object] = []
        self.failing: dict[str, Exception] = {}

    def ids(self) -> int:
        """How many sessions are stored."""
        return sum(1 for _ in self.scan())

    load = _recorded("load")
    create = _recorded("create")
    save = _recorded("save")
    touch = _recorded("touch")
    delete = _recorded("delete")
    regenerate = _recorded("regenerate")


def signed(sid: str, secret: str = SECRET, name: str = "sid") -> str:
    """The cookie a browser holds for a session."""
    return f"{name}={encode_value(Signer(secret).sign(sid))}"


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Which gateway."""
    kind: Kind = request.param
    return kind


@pytest.fixture
def store(tmp_path: Path) -> RecordingStore:
    return RecordingStore(tmp_path / "sessions")


@pytest.fixture
def sid(store: RecordingStore) -> str:
    """A stored session."""
    sid: str = store.create({"user": "ada"}).id
    store.calls.clear()
    store.journal.clear()
    return sid


@pytest.fixture
def stored(store: RecordingStore, sid: str) -> Callable[[], Any]:
    """What is stored of it now; None: it is gone."""

    def read() -> Any:
        record = store.load(sid)
        return None if record is None else record.data

    return read


@pytest.fixture
def connect(store: RecordingStore) -> Callable[..., Wire]:
    """Opens an ASGI connection: headers, and keywords for its scope; with the cookie of ``sid``."""

    def opened(*headers: tuple[bytes, bytes], sid: str | None = None, **scope: Any) -> Wire:
        cookie = [] if sid is None else [(b"cookie", signed(sid).encode())]
        return Wire(store, *cookie, *headers, **scope)

    return opened


@pytest.fixture
def call(store: RecordingStore) -> Callable[..., Server]:
    """Makes a WSGI request, with the cookie of ``sid``; keywords for its environ."""

    def called(sid: str | None = None, **environ: Any) -> Server:
        return Server(store, sid, **environ)

    return called


@pytest.fixture
def make_site(kind: Kind, store: RecordingStore) -> Callable[..., Site]:
    """Makes an application with options of its own."""

    def make(**options: Any) -> Site:
        return Site(kind, options.pop("store", store), **options)

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """The application with the default options."""
    return make_site()


@pytest.fixture
def cookie_of() -> Callable[..., str]:
    return signed
