"""What real servers serve in tests of a store that is away: below ``/respond`` and ``/skip``.

``/health`` has no session. ``/add/KEY`` below one of them adds a key; the page is what the session
holds, or null where there is none. The middleware is made by a factory when the server starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, Literal

from filesession import FileStore
from filesession.asgi import SessionMiddleware as ASGISessions
from filesession.wsgi import SessionMiddleware as WSGISessions

Unavailable = Literal["respond", "skip"]


def options(unavailable: Unavailable) -> dict[str, Any]:
    """The keywords of the middleware that does that."""
    return {
        "store": FileStore(os.environ["FILESESSION_DIR"]),
        "unavailable": unavailable,
        "include": [f"/{unavailable}/**"],
        "exclude": ["/**/health"],
        "name": unavailable,
        "key": unavailable,
        "retries": 1,
        "retry_delay": lambda attempt: 0.01 * attempt,
    }


async def later(unavailable: Unavailable) -> dict[str, Any]:
    return options(unavailable)


def page(found: Iterable[Any], path: str) -> bytes:
    session = next((each for each in found if each is not None), None)
    if session is not None and "/add/" in path:
        session[path.rpartition("/")[2]] = True
    return json.dumps(session).encode()


KINDS: tuple[Unavailable, ...] = ("respond", "skip")


async def on_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    body = page((scope.get(kind) for kind in KINDS), scope["path"])
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": body.decode()})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def on_wsgi(environ: Any, start_response: Any) -> list[bytes]:
    body = page((environ.get(f"filesession.{kind}") for kind in KINDS), environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]


asgi: Any = on_asgi
wsgi: Any = on_wsgi
for _kind in KINDS:
    asgi = ASGISessions.configure(asgi, lambda kind=_kind: later(kind))  # type: ignore[misc]
    wsgi = WSGISessions.configure(wsgi, lambda kind=_kind: later(kind))  # type: ignore[misc]
