"""What stands behind nginx: one application, for ASGI and for WSGI, under several middlewares.

A path is ``/OPTIONS/VERB/ARGUMENT``: which middleware's options count, and what is done with the
session; ``blind`` does not look at it. The page tells, as JSON, what the session holds and who the
server takes the client for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from filesession import FileStore
from filesession.asgi import SessionMiddleware as ASGISessions
from filesession.session import Session
from filesession.wsgi import SessionMiddleware as WSGISessions

LONGEST: Final = "\N{LEAF FLUTTERING IN WIND}" * 255
"""All of an id but its last character: in a cookie no other of its length is longer."""

OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Nginx comes from 127.0.0.2, clients that pass it by from 127.0.0.1.
    "untrusting": {},
    "trusting": {"trust_proxy": True},
    "listing": {"trust_proxy": ["127.0.0.2"]},
    "secure": {"trust_proxy": ["127.0.0.2"], "secure": True},
    "withheld": {"secure": True},
    "long": {"genid": lambda _source: LONGEST + os.urandom(1).hex()[0]},
}

Headers = list[tuple[str, str]]

store = FileStore(os.environ["FILESESSION_DIR"])


def answer(path: str, session: Session, client: Any, scheme: str) -> tuple[Headers, bytes]:
    """Do what the path says; the headers and the page."""
    _, _, verb, argument = path.split("/")
    headers = [("content-type", "application/json")]
    if verb == "add":
        session[argument] = True
    elif verb == "login":
        session.regenerate()
        session["user"] = argument
    elif verb == "logout":
        session.destroy()
    elif verb == "public":
        headers.append(("cache-control", "public, max-age=60"))
        session["user"] = argument
    elif verb == "large":
        headers.append(("set-cookie", f"own={'x' * int(argument)}"))
        session["large"] = True
    page: dict[str, Any] = {"client": client, "scheme": scheme, "verb": verb}
    if verb != "blind":
        page["session"] = session
    return headers, json.dumps(page).encode()


async def on_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await talk(scope, receive, send)
        return
    headers, page = answer(scope["path"], scope["session"], scope["client"], scope["scheme"])
    raw = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    await send({"type": "http.response.body", "body": page})


async def talk(scope: Any, receive: Any, send: Any) -> None:
    """Answer the handshake as a request, then every message with what it said."""
    assert (await receive())["type"] == "websocket.connect"
    _, page = answer(scope["path"], scope["session"], scope["client"], scope["scheme"])
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": page.decode()})
    while (message := await receive())["type"] == "websocket.receive":
        scope["session"][message["text"]] = True
        await scope["session"].asave()
        await send({"type": "websocket.send", "text": message["text"]})


def on_wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    client = [environ["REMOTE_ADDR"], int(environ.get("REMOTE_PORT") or 0)]
    scheme = environ["wsgi.url_scheme"]
    headers, page = answer(environ["PATH_INFO"], environ["filesession.session"], client, scheme)
    start_response("200 OK", headers)
    return [page]


def chosen(apps: Mapping[str, Any], path: str) -> Any:
    return apps[path.split("/")[1]]


def under_each(middleware: Callable[..., Any], app: Any) -> dict[str, Any]:
    return {name: middleware(app, store, **options) for name, options in OPTIONS.items()}


_asgi = under_each(ASGISessions, on_asgi)
_wsgi = under_each(WSGISessions, on_wsgi)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] != "lifespan"  # uvicorn goes on without
    await chosen(_asgi, scope["path"])(scope, receive, send)


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    found: Iterable[bytes] = chosen(_wsgi, environ["PATH_INFO"])(environ, start_response)
    return found
