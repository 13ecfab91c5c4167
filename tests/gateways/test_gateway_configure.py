"""The middleware of a factory: its keywords are asked for once, when the application starts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from filesession import asgi, wsgi
from filesession.errors import ConfigurationError
from filesession.stores import MemoryStore

with warnings.catch_warnings(action="ignore"):  # it would rather have httpx2
    from starlette.testclient import TestClient

PATIENCE: Final = 20  # seconds
ROOT: Final = Path(__file__).parents[2]


class Factory:
    """Gives the keywords of a middleware, and counts how often.

    Attributes:
        errors: what it raises, one after the other, before it gives any.
        started: notes what was done, in order.
    """

    def __init__(self, **options: Any) -> None:
        self.options = {"store": MemoryStore(), "secret": "a secret", **options}
        self.errors: list[Exception] = []
        self.started: list[str] = []

    def __call__(self) -> dict[str, Any]:
        self.started.append("factory")
        if self.errors:
            raise self.errors.pop(0)
        return self.options

    async def later(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        return self()


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest.fixture(params=["plain", "coroutine"])
def ask(request: pytest.FixtureRequest, factory: Factory) -> Any:
    """The factory, as a function of either kind."""
    return factory if request.param == "plain" else factory.later


def run(main: Any) -> Any:
    return asyncio.run(asyncio.wait_for(main, PATIENCE))


# -- ASGI -----------------------------------------------------------------------------------------


class App:
    """An application that notes its start and its end, and tells whether there is a session."""

    def __init__(self, factory: Factory) -> None:
        self.started = factory.started
        self.sessions: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            self.sessions.append(scope.get("session"))
            return
        for phase in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{phase}"
            self.started.append(phase)
            await send({"type": f"lifespan.{phase}.complete"})


def scope() -> dict[str, Any]:
    return {"type": "http", "path": "/", "method": "GET", "headers": []}


async def nothing(*_: Any) -> Any:
    """Neither a message nor one who waits for any."""


class Lifespan:
    """The server's part in an application's start and end."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self._messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive(self) -> Any:
        return self._messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def test_at_the_servers_start_the_factory_comes_before_the_application(
    ask: Any, factory: Factory
) -> None:
    app = App(factory)
    configured = asgi.SessionMiddleware.configure(app, ask)
    assert factory.started == []
    lifespan = Lifespan()

    async def live() -> None:
        await configured({"type": "lifespan"}, lifespan.receive, lifespan.send)
        for _ in range(2):
            await configured(scope(), nothing, nothing)

    run(live())
    assert factory.started == ["factory", "startup", "shutdown"]
    assert [message["type"] for message in lifespan.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert [session.is_new for session in app.sessions] == [True, True]


@pytest.mark.parametrize(
    "error", [LookupError("no such setting"), ConfigurationError("key must be text")]
)
def test_a_factory_that_fails_is_a_failed_start_and_the_application_is_not_started(
    ask: Any, factory: Factory, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    factory.errors.append(error)
    lifespan = Lifespan()
    configured = asgi.SessionMiddleware.configure(App(factory), ask)
    run(configured({"type": "lifespan"}, lifespan.receive, lifespan.send))
    assert lifespan.sent == [{"type": "lifespan.startup.failed", "message": str(error)}]
    assert factory.started == ["factory"]
    (line,) = caplog.records
    assert line.exc_info is not None
    assert line.exc_info[1] is error


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        (
            None,
            ConfigurationError,
            "must give a mapping of the middleware's keywords, not NoneType",
        ),
        ({}, ConfigurationError, "not one without 'store'"),
        ({"store": MemoryStore(), "secrets": "x"}, TypeError, "secrets"),
        ({"store": MemoryStore(), "secret": "x", "app": 1}, TypeError, "app"),
        ({"store": MemoryStore()}, ConfigurationError, "secret is needed"),
        ({"store": MemoryStore(), "secret": "x", "max_age": 0}, ConfigurationError, "max_age"),
    ],
)
def test_what_the_factory_gives_is_checked_as_what_is_written(
    given: Any, error: type[Exception], why: str
) -> None:
    lifespan = Lifespan()
    configured = asgi.SessionMiddleware.configure(nothing, lambda: given)
    run(configured({"type": "lifespan"}, lifespan.receive, lifespan.send))
    assert why in lifespan.sent[0]["message"]
    with pytest.raises(error, match=why):
        wsgi.SessionMiddleware.configure(lambda *_: [], lambda: given)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("wrong", [None, {"store": MemoryStore(), "secret": "x"}, "store"])
def test_what_is_no_function_is_refused_at_once(kind: str, wrong: Any) -> None:
    middleware: Any = {"asgi": asgi, "wsgi": wsgi}[kind].SessionMiddleware
    with pytest.raises(ConfigurationError, match="configure needs a function") as caught:
        middleware.configure(nothing, wrong)
    assert "secret': 'x" not in str(caught.value)


def test_a_server_that_tells_of_no_start_has_it_before_the_first_of_many_requests(
    ask: Any, factory: Factory
) -> None:
    app = App(factory)
    configured = asgi.SessionMiddleware.configure(app, ask)

    async def many() -> None:
        await asyncio.gather(*(configured(scope(), nothing, nothing) for _ in range(20)))

    run(many())
    assert factory.started == ["factory"]
    assert len(app.sessions) == 20
    run(many())
    assert factory.started == ["factory"]


def test_a_first_request_that_is_cancelled_takes_it_from_no_other(factory: Factory) -> None:
    async def scenario() -> None:
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> dict[str, Any]:
            entered.set()
            await go_on.wait()
            return factory()

        app = App(factory)
        configured = asgi.SessionMiddleware.configure(app, slow)
        first = asyncio.ensure_future(configured(scope(), nothing, nothing))
        await entered.wait()
        second = asyncio.ensure_future(configured(scope(), nothing, nothing))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        await second
        assert len(app.sessions) == 1

    run(scenario())
    assert factory.started == ["factory"]


def test_without_a_start_a_factory_that_failed_is_asked_again_by_the_next_request(
    ask: Any, factory: Factory
) -> None:
    factory.errors.append(LookupError("not yet"))
    app = App(factory)
    configured = asgi.SessionMiddleware.configure(app, ask)

    async def two() -> list[Any]:
        requests = (configured(scope(), nothing, nothing) for _ in range(2))
        return await asyncio.gather(*requests, return_exceptions=True)

    assert [type(failed) for failed in run(two())] == [LookupError, LookupError]
    assert (factory.started, app.sessions) == (["factory"], [])
    run(configured(scope(), nothing, nothing))
    assert (factory.started, len(app.sessions)) == (["factory"] * 2, 1)


def test_event_loops_of_two_threads_share_what_one_of_them_made(factory: Factory) -> None:
    entered, go_on = threading.Event(), threading.Event()

    async def slow() -> dict[str, Any]:
        entered.set()
        await asyncio.to_thread(go_on.wait, PATIENCE)
        return factory()

    app = App(factory)
    configured = asgi.SessionMiddleware.configure(app, slow)
    threads = [threading.Thread(target=lambda: run(configured(scope(), nothing, nothing)))]
    threads[0].start()
    assert entered.wait(PATIENCE)
    waiting = threading.Event()

    async def wait_too() -> None:
        asyncio.get_running_loop().call_later(0, waiting.set)
        await configured(scope(), nothing, nothing)

    threads.append(threading.Thread(target=lambda: run(wait_too())))
    threads[1].start()
    assert waiting.wait(PATIENCE)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert (factory.started, len(app.sessions)) == (["factory"], 2)


async def page(request: Request) -> PlainTextResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return PlainTextResponse(str(request.session["visits"]))


def test_starlette_takes_it_for_a_middleware(ask: Any, factory: Factory) -> None:
    app = Starlette(routes=[Route("/", page)])
    app.add_middleware(asgi.SessionMiddleware.configure, factory=ask)
    with TestClient(app) as client:
        assert factory.started == ["factory"]
        assert [client.get("/").text for _ in range(2)] == ["1", "2"]
    assert factory.started == ["factory"]


FAILING: Final = """
from filesession.asgi import SessionMiddleware

async def app(scope, receive, send):
    raise AssertionError

async def factory():
    raise LookupError("no such setting")

app = SessionMiddleware.configure(app, factory)
"""


def test_a_real_server_does_not_start_with_a_factory_that_fails(tmp_path: Path) -> None:
    (tmp_path / "failing_app.py").write_text(FAILING)
    command = [sys.executable, "-m", "uvicorn", "failing_app:app", "--port", "0"]
    ended = subprocess.run(
        [*command, "--app-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 3  # uvicorn's for a failed start-up
    assert "no such setting" in ended.stderr


# -- WSGI -----------------------------------------------------------------------------------------


def serve(environ: Any, start_response: Callable[..., Any]) -> Iterator[bytes]:
    environ["filesession.session"]["seen"] = True
    start_response("200 OK", [])
    yield b"the page"


def test_under_wsgi_the_factory_is_asked_when_the_application_is_built(
    ask: Any, factory: Factory
) -> None:
    configured = wsgi.SessionMiddleware.configure(serve, ask)
    assert factory.started == ["factory"]
    assert isinstance(configured, wsgi.SessionMiddleware)
    started: list[Any] = []

    def start_response(status: str, headers: Any, *_: Any) -> Any:
        started.append(headers)
        return print

    for _ in range(2):
        environ = {"PATH_INFO": "/", "REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}
        assert b"".join(configured(environ, start_response)) == b"the page"
    assert ["set-cookie" in dict(headers) for headers in started] == [True, True]
    assert factory.started == ["factory"]


def test_under_wsgi_it_may_be_built_where_an_event_loop_runs(ask: Any, factory: Factory) -> None:
    async def build() -> Any:
        return wsgi.SessionMiddleware.configure(serve, ask)

    assert isinstance(run(build()), wsgi.SessionMiddleware)
    assert factory.started == ["factory"]


def test_under_wsgi_a_factory_that_fails_fails_where_it_is_built(
    ask: Any, factory: Factory
) -> None:
    factory.errors.append(LookupError("no such setting"))
    with pytest.raises(LookupError, match="no such setting"):
        wsgi.SessionMiddleware.configure(serve, ask)
