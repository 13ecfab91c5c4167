"""Sessions for ASGI applications: http and websocket; everything else passes through."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from typing import Any, Final, TypeAlias

from filesession.cookies.policy import CookiePolicy
from filesession.errors import ConflictError, StoreError
from filesession.exchange import Exchange, Headers
from filesession.gateway import Factory, Gateway, checked_factory, checked_options
from filesession.runner import LoopRunner, RequestRunner
from filesession.session import Session

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

_log = logging.getLogger("filesession.asgi")

_STARTS: Final = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start"}
)
_BODIES: Final = frozenset(
    {"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"}
)
_ENDS: Final = frozenset({"http.response.pathsend", "websocket.close"})

TRY_AGAIN_LATER: Final = 1013
"""The WebSocket close code for a server that cannot serve at the moment (IANA registry)."""


class SessionMiddleware(Gateway):
    """Gives every request its session, at ``scope["session"]``: ``request.session`` in Starlette.

    The session is saved before the response starts, once more if it changed while the body was
    sent, and once more when the application is done, for background tasks. A websocket's is saved
    when it is accepted and when it ends; the cookie goes with the acceptance.
    """

    __doc__ = f"{__doc__}\n{Gateway.__doc__}"

    _runner: LoopRunner

    def _prepare(self) -> None:
        self._runner = LoopRunner(self.store, self.offload, self._retries)

    @classmethod
    def configure(cls, app: App, factory: Factory) -> App:
        """The middleware for an application, with keywords that are known when the server starts.

        ``factory`` is called once, at the start-up that the server tells of (lifespan), which fails
        with it, before the application's own; where it tells of none, before the first request.
        There a factory that fails is called again for the next one.

        Args:
            app: the application.
            factory: gives a mapping of this class's keywords, ``store`` and ``secret`` included; a
                function or a coroutine function.

        Raises:
            ConfigurationError: the factory is no function. What it gives is looked at when it is
                called.
        """
        return _Configured(app, partial(cls, app), checked_factory(factory))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if (
            scope["type"] not in {"http", "websocket"}
            or isinstance(scope.get(self.key), Session)
            or not (policy := self._policy_of(scope, scope["path"], scope.get("method", "GET")))
        ):
            await self.app(scope, receive, send)
            return
        self._check_alone(scope)
        runner = RequestRunner(self._runner)
        exchange = self._exchange(scope, runner, policy)
        response = _Response(self, runner, exchange, scope, send)
        try:
            scope[self.key] = await runner.arun(exchange.begin())
        except StoreError as error:
            if not await response.refuse(error):
                await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, response.send)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError):
                runner.hurry()
            await _to_its_end(response.abandon())
            raise
        await response.finish()

    def _exchange(self, scope: Scope, runner: RequestRunner, policy: CookiePolicy) -> Exchange:
        cookies, forwarded = b"", None
        for name, value in scope["headers"]:
            if name == b"cookie":
                cookies = cookies + b"; " + value if cookies else value
            elif name == b"x-forwarded-proto" and forwarded is None:
                forwarded = value
        client = scope.get("client")
        return Exchange(
            self.rules,
            runner,
            cookies=cookies.decode("latin-1"),
            https=self.rules.proxies.is_https(
                scope.get("scheme", "http"),
                client[0] if client else None,
                (forwarded or b"").decode("latin-1"),
            ),
            source=scope,
            policy=policy,
        )


class _Response:
    """The way out: the session is committed before the first message leaves."""

    __slots__ = (
        *("_exchange", "_finished", "_key", "_refused", "_runner", "_scope", "_send"),
        "started",
    )

    def __init__(
        self,
        gateway: SessionMiddleware,
        runner: RequestRunner,
        exchange: Exchange,
        scope: Scope,
        send: Send,
    ) -> None:
        self._key = gateway.key
        self._runner = runner
        self._exchange = exchange
        self._scope = scope
        self._send = send
        self._refused = self._finished = False
        self.started = False

    async def send(self, message: Message) -> None:
        """Pass a message on; blocks it until what it must wait for is stored."""
        if self._refused:
            return  # ours has been sent in its place
        kind = message["type"]
        if kind in _STARTS and not self.started:
            if not await self._commit():
                return
            headers = _decoded(message.get("headers", ()))
            message = {**message, "headers": _encoded(self._exchange.headers(headers))}
        elif kind in _ENDS or (kind in _BODIES and not message.get("more_body", False)):
            await self.finish()
        await self._send(message)

    async def _commit(self) -> bool:
        present = self._scope.get(self._key)
        try:
            await self._runner.arun(self._exchange.commit(present))
        except (ConflictError, StoreError) as error:
            if await self.refuse(error):
                return False
        self.started = True
        return True

    async def finish(self) -> None:
        """Save what changed since the response started; nothing for one that was refused."""
        if self._refused:
            return
        talked = self._scope["type"] == "websocket" and not self._finished
        touch = not self.started or talked
        self.started = self._finished = True
        present = self._scope.get(self._key)
        await self._runner.arun(self._exchange.finish(present, touch=touch))

    async def abandon(self) -> None:
        """The application raised: what it did since its response started is saved all the same."""
        try:
            if self.started:
                await self.finish()
            else:
                present = self._scope.get(self._key)
                await self._runner.arun(self._exchange.abandon(present))
        except Exception as error:  # noqa: BLE001 - the application's own is the one to raise
            _log.error("%s", error)

    async def refuse(self, error: ConflictError | StoreError) -> bool:
        """Answer in the application's place; False: it is to answer itself. Or raise the error."""
        if self._exchange.goes_on(error):
            return False
        self._refused = self.started = True
        answer = self._exchange.refused(error)
        response = "http.response"
        if self._scope["type"] == "websocket":
            response = "websocket.http.response"
            if response not in (self._scope.get("extensions") or ()):
                await self._send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
                return True
        headers = _encoded(answer.headers)
        await self._send({"type": f"{response}.start", "status": answer.status, "headers": headers})
        await self._send({"type": f"{response}.body", "body": answer.body})
        return True


class _Configured:
    """A middleware that is made when the server starts, once, whoever comes first."""

    __slots__ = ("_app", "_guard", "_make", "_making", "_options", "_task")

    def __init__(
        self,
        app: App,
        make: Callable[..., SessionMiddleware],
        options: Factory,
    ) -> None:
        self._app = app
        self._make = make
        self._options = options
        self._guard = threading.Lock()
        self._making: Future[SessionMiddleware] | None = None
        self._task: asyncio.Future[None] | None = None  # kept, or it might be collected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the server's start and end."""
        if scope["type"] != "lifespan":
            await (await self._made())(scope, receive, send)
            return
        told = [await receive()]
        try:
            await self._made()
        except Exception as error:  # noqa: BLE001 - the server is told of it
            _log.exception("the session middleware could not be configured")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return

        async def once_more() -> Message:
            return told.pop() if told else await receive()

        await self._app(scope, once_more, send)

    async def _made(self) -> SessionMiddleware:
        making = self._making
        if making is None or not making.done():
            with self._guard:  # requests may come on the loops of several threads
                making = self._making
                if making is None:
                    making = self._making = Future()
                    self._task = asyncio.ensure_future(self._configure(making))
            await asyncio.shield(asyncio.wrap_future(making))  # one that gives up stops no other
        return making.result()

    async def _configure(self, making: Future[SessionMiddleware]) -> None:
        try:
            given = self._options()
            options = checked_options(await given if isawaitable(given) else given)
            made = self._make(**options)
        except BaseException as error:  # noqa: BLE001 - it is for who waits for it
            self._making = None  # for the next request to try
            making.set_exception(error)
        else:
            making.set_result(made)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do it also in a task that is being cancelled, which anyio's scopes do again and again."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])


def _decoded(headers: Any) -> Headers:  # noqa: ANN401 - any iterable of pairs
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _encoded(headers: Headers) -> RawHeaders:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
