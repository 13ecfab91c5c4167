"""Sessions for WSGI applications (PEP 3333)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from inspect import isawaitable
from types import TracebackType
from typing import Any, TypeAlias

from filesession.errors import ConfigurationError, ConflictError, StoreError
from filesession.exchange import Exchange, Headers
from filesession.gateway import Factory, Gateway, checked_factory, checked_options
from filesession.runner import BlockingRunner, is_async
from filesession.session import Session

Environ: TypeAlias = dict[str, Any]
ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]

_log = logging.getLogger("filesession.wsgi")


class SessionMiddleware(Gateway):
    """Gives every request its session, at ``environ["filesession.session"]``.

    The session is saved when the response starts, which under WSGI is the first piece of its body,
    once more if it changed while the body was sent, and once more when the response is closed.
    ``key`` without a dot is put below ``filesession.``; with one it is taken as it is, so that
    ``key="beaker.session"`` serves a Beaker application.
    """

    __doc__ = f"{__doc__}\n{Gateway.__doc__}"

    _runner: BlockingRunner

    def _prepare(self) -> None:
        if is_async(self.store):
            msg = "a store of coroutines cannot serve WSGI; use filesession.asgi"
            raise ConfigurationError(msg)
        self._runner = BlockingRunner(self.store, self._retries)  # type: ignore[arg-type]  # is_async

    @classmethod
    def configure(cls, app: Any, factory: Factory) -> SessionMiddleware:  # noqa: ANN401 - as above
        """The middleware for an application, with the keywords that a factory gives.

        It is called once, here, as WSGI knows no other start: where the server imports the module,
        which fails with it.

        Args:
            app: the application.
            factory: gives a mapping of this class's keywords, ``store`` and ``secret`` included; a
                function, or a coroutine function, which gets an event loop of its own.

        Raises:
            ConfigurationError: it is no function, or gives no such mapping.
        """
        given: Any = checked_factory(factory)()
        if isawaitable(given):
            given = _awaited(given)
        return cls(app, **checked_options(given))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        key = self.key if "." in self.key else f"filesession.{self.key}"
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        path = path.encode("latin-1").decode("utf-8", "surrogateescape")
        if isinstance(environ.get(key), Session) or not (
            policy := self._policy_of(environ, path, environ["REQUEST_METHOD"])
        ):
            return self.app(environ, start_response)  # type: ignore[no-any-return]
        self._check_alone(environ)
        runner = self._runner
        exchange = Exchange(
            self.rules,
            runner,
            cookies=environ.get("HTTP_COOKIE", ""),
            https=self.rules.proxies.is_https(
                environ["wsgi.url_scheme"],
                environ.get("REMOTE_ADDR"),
                environ.get("HTTP_X_FORWARDED_PROTO", ""),
            ),
            source=environ,
            policy=policy,
        )
        response = _Response(runner, exchange, environ, key, start_response)
        try:
            environ[key] = runner.run(exchange.begin())
        except StoreError as error:
            body = response.refuse(error)
            return self.app(environ, start_response) if body is None else [body]
        try:
            return response.answered(self.app(environ, response.start))
        except BaseException:
            response.abandon()
            raise


class _Response:
    """The way out: the session is committed before the first piece of the body leaves."""

    def __init__(
        self,
        runner: BlockingRunner,
        exchange: Exchange,
        environ: Environ,
        key: str,
        start_response: StartResponse,
    ) -> None:
        self._runner = runner
        self._exchange = exchange
        self._environ = environ
        self._key = key
        self._start_response = start_response
        self._head: tuple[str, Headers] | None = None
        self._write: Callable[[bytes], object] | None = None
        self._refused: bytes | None = None
        self._failed = False

    def start(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """The application's ``start_response``: noted, and passed on with the body."""
        try:
            if self._write is not None:
                if exc_info is None:
                    msg = "start_response was called again after the response had started"
                    raise RuntimeError(msg)
                self._start_response(status, headers, exc_info)  # raises it: headers have left
            elif self._head is not None and exc_info is None:
                msg = "start_response was called twice without exc_info"
                raise RuntimeError(msg)
            self._head = (status, list(headers))
        finally:
            exc_info = None  # it would keep this frame alive, and the frame it
        return self._written

    def _written(self, data: bytes) -> None:
        """The ``write`` of PEP 3333; as with a body, nothing begins before there is something."""
        if data:
            self.begin()
        if self._write is not None:
            self._write(data)

    def begin(self) -> None:
        """Commit the session and start the response, once."""
        if self._write is not None or self._refused is not None:
            return
        if self._head is None:
            msg = "the application returned a body without having called start_response"
            raise RuntimeError(msg)
        try:
            self._runner.run(self._exchange.commit(self._environ.get(self._key)))
        except (ConflictError, StoreError) as error:
            if self.refuse(error) is not None:
                return
        status, headers = self._head
        self._write = self._start_response(status, self._exchange.headers(headers))

    def answered(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """The body to return for the application's."""
        if not isinstance(body, (list, tuple)) and not self._is_file(body):
            return _Body(self, body)
        # It stays what it is: a server takes the length of a list, and sends a file by itself.
        try:
            self.begin()
            self.finish()
        except BaseException:
            with suppress(Exception):  # the first failure is the one to raise
                _close(body)
            raise
        if self._refused is not None:
            _close(body)
            return [self._refused]
        return body

    def _is_file(self, body: object) -> bool:
        wrapper = self._environ.get("wsgi.file_wrapper")
        return isinstance(wrapper, type) and isinstance(body, wrapper)

    def pieces(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The body, piece by piece; nothing leaves before the session is stored."""
        try:
            for piece in body:
                if not piece and self._write is None:
                    continue
                self.begin()
                if self._refused is not None:
                    yield self._refused
                    return
                yield piece
            self.begin()
            if self._refused is not None:
                yield self._refused
        except Exception:
            self._failed = True
            self.abandon()
            raise
        self.finish()

    def finish(self) -> None:
        """Save what changed since the response started; nothing for one that never did."""
        if self._write is not None:
            self._runner.run(self._exchange.finish(self._environ.get(self._key)))

    def abandon(self) -> None:
        """The application raised: what it did since its response started is saved all the same."""
        if self._refused is not None:
            return
        try:
            if self._write is None:
                self._runner.run(self._exchange.abandon(self._environ.get(self._key)))
            else:
                self.finish()
        except Exception as error:  # noqa: BLE001 - the application's own is the one to raise
            _log.error("%s", error)

    def close(self) -> None:
        """The server is done: save what is left, or give up what never started."""
        if self._write is None or self._failed:
            self.abandon()
        else:
            self.finish()

    def refuse(self, error: ConflictError | StoreError) -> bytes | None:
        """Start a response in the application's place; its body. None: its own is to go out.

        Or raise the error.
        """
        if self._exchange.goes_on(error):
            return None
        answer = self._exchange.refused(error)
        self._refused = b"" if self._environ["REQUEST_METHOD"] == "HEAD" else answer.body
        self._start_response(f"{answer.status} {answer.reason}", answer.headers)
        return self._refused


class _Body:
    """The application's body on its way out, closed when the server closes it."""

    def __init__(self, response: _Response, body: Iterable[bytes]) -> None:
        self._response = response
        self._body = body
        self._pieces = response.pieces(body)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Close the application's body, and save what that or an early end left to save."""
        try:
            _close(self._body)
        except BaseException:
            self._response.abandon()
            raise
        self._response.close()


def _awaited(given: Awaitable[Any]) -> Any:  # noqa: ANN401 - what it gives
    """What it gives, on an event loop of its own, also where one runs already."""

    async def waiting() -> Any:  # noqa: ANN401
        return await given

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, waiting()).result()


def _close(body: object) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()
