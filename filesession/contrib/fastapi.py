"""Sessions in FastAPI's endpoints: the one module that knows FastAPI.

    @app.get("/")
    async def home(session: SessionDep) -> str:
        return session.get("user", "nobody")

``SessionDep`` is the request's ``filesession.Session`` in coroutines, plain functions and
websockets. In a coroutine use ``await session.asave()``, ``areload()`` and ``alock()``; in a plain
function, which FastAPI runs in a thread, ``session.save()``, ``reload()`` and ``lock()``. A
dependency with ``yield`` that locks must be a coroutine: the halves of a plain one run in different
threads, neither of which is the endpoint's, and a lock belongs to one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from functools import cache
from typing import Annotated, Any, TypeAlias

from filesession.errors import ConfigurationError
from filesession.session import Session

try:
    from fastapi import Depends
    from fastapi.requests import HTTPConnection
except ImportError as error:
    _need = "filesession.contrib.fastapi needs FastAPI: pip install 'filesession[fastapi]'"
    raise ImportError(_need) from error

from filesession.contrib.typed import SessionView  # later, for who lacks both to read the above


def session_dependency(key: str = "session") -> Callable[[HTTPConnection], Awaitable[Session]]:
    """What ``Depends`` takes for the session of a middleware with another ``key``.

        AdminSession = Annotated[Session, Depends(session_dependency("admin"))]

    The same key gives the same function, so that ``app.dependency_overrides`` finds it.
    """
    return _session_at(key)


@cache
def _session_at(key: str) -> Callable[[HTTPConnection], Awaitable[Session]]:
    async def get_session(connection: HTTPConnection) -> Session:
        """The request's session."""
        found = connection.scope.get(key)
        if not isinstance(found, Session):
            raise _no_session(key, found)
        found.mark_accessed()  # what is handed out may be read unseen, by code in C
        return found

    return get_session


get_session = session_dependency()
"""The request's session; a key for ``app.dependency_overrides``.

Raises:
    ConfigurationError: there is none, as the middleware is not mounted or does not cover the path.
"""

SessionDep: TypeAlias = Annotated[Session, Depends(get_session)]


def SessionModel(model: Any, *, key: str = "session", lock: bool = False) -> Any:  # noqa: ANN401, N802 - named and typed as FastAPI's own
    """What makes a parameter the session as a model, where ``Annotated`` has it.

        VisitorDep = Annotated[Visitor, SessionModel(Visitor)]

    It is read before the endpoint runs; what that changed is written when it returns, before the
    response starts. An endpoint that raises changes nothing. What is changed later is not written:
    while a response streams, or in a background task. For those, and for websockets, whose endpoint
    returns when all is said, there is ``filesession.contrib.typed.SessionView``.

    Args:
        model: a pydantic model, a dataclass or a TypedDict; see ``SessionView``.
        key: the middleware's.
        lock: hold the session's lock meanwhile, so that of requests at the same time each sees what
            the one before it changed. Not for websockets.

    Raises:
        ConfigurationError: the model cannot be used.
    """
    return Depends(_model_at(model, key, lock), scope="function")


@cache
def _model_at(model: Any, key: str, lock: bool) -> Callable[..., AsyncIterator[Any]]:  # noqa: ANN401, FBT001
    """The same function for the same arguments, so that all of a request share one model."""
    view: SessionView[Any] = SessionView(model)
    its_session = Depends(session_dependency(key))

    async def get_model(session: Session = its_session) -> AsyncIterator[Any]:
        async with session.alock() if lock else nullcontext():
            with view.edit(session) as value:
                yield value

    return get_model


def _no_session(key: str, found: object) -> ConfigurationError:
    if found is not None:
        kind = f"{type(found).__module__}.{type(found).__qualname__}"
        return ConfigurationError(
            f'scope["{key}"] is a {kind} of another middleware; take that away, or give'
            " filesession.asgi.SessionMiddleware and session_dependency() another key"
        )
    return ConfigurationError(
        f'no session at scope["{key}"]: app.add_middleware(SessionMiddleware, store=...), from'
        " filesession.asgi; where it is mounted, this path is outside what it covers, or the"
        " session was taken out of the scope"
    )
