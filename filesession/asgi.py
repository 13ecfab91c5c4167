"""Sessions for ASGI applications: http and websocket; everything else passes through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

from filesession.errors import ConflictError, StoreError
from filesession.exchange import Exchange, Headers
from filesession.gateway import Gateway
from filesession.runner import LoopRunner, RequestRunner
from filesession.session import Session

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
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
        self._runner = LoopRunner(self.store, self.offload)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if (
            scope["type"] not in {"http", "websocket"}
            or isinstance(scope.get(self.key), Session)
            or not self._covers(scope["path"].encode("utf-8", "surrogateescape"))
        ):
            await self.app(scope, receive, send)
            return
        self._check_alone(scope)
        runner = RequestRunner(self._runner)
        exchange = self._exchange(scope, runner)
        response = _Response(self, runner, exchange, scope, send)
        try:
            scope[self.key] = await runner.arun(exchange.begin())
        except StoreError as error:
            await response.refuse(error)
            return
        try:
            await self.app(scope, receive, response.send)
        except (Exception, asyncio.CancelledError):
            await _to_its_end(response.abandon())
            raise
        await response.finish()

    def _exchange(self, scope: Scope, runner: RequestRunner) -> Exchange:
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
            await self.refuse(error)
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

    async def refuse(self, error: ConflictError | StoreError) -> None:
        """Answer in the application's place."""
        self._refused = self.started = True
        answer = self._exchange.refused(error)
        response = "http.response"
        if self._scope["type"] == "websocket":
            response = "websocket.http.response"
            if response not in (self._scope.get("extensions") or ()):
                await self._send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
                return
        headers = _encoded(answer.headers)
        await self._send({"type": f"{response}.start", "status": answer.status, "headers": headers})
        await self._send({"type": f"{response}.body", "body": answer.body})


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
