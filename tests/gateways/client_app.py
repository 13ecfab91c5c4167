"""What the real servers of ``test_gateway_clients`` serve: one application, for ASGI and for WSGI.

The path says what to do: ``/see``, ``/login``, ``/logout``; ``/read/PORT`` and ``/write/PORT``,
which are held before they answer; ``/stream/PORT``, held in the middle of its answer; and
``/upload/PORT``, held in the middle of the request's body. What is held has connected to that port
of this machine and waits until it is hung up on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from filesession import FileStore
from filesession.asgi import SessionMiddleware as ASGISessions
from filesession.session import Session
from filesession.wsgi import SessionMiddleware as WSGISessions
from tests.gateways.server_app import hold, hold_blocking

store = FileStore(os.environ["FILESESSION_DIR"])


def act(session: Session, path: str) -> None:
    """Do what is done before the answer."""
    verb = path.split("/")[1]
    if verb == "login":
        session.regenerate()
        session["user"] = "ada"
    elif verb == "logout":
        session.destroy()
    elif verb == "write":
        session["written"] = True
    elif verb == "read":
        session.get("user")


def page(session: Session) -> bytes:
    return json.dumps({"worker": os.getpid(), "session": session}).encode()


async def on_asgi(scope: Any, receive: Any, send: Any) -> None:
    session, path = scope["session"], scope["path"]
    verb = path.split("/")[1]
    if verb in {"read", "write"}:
        await hold(path)
    act(session, path)
    if verb == "upload":
        await hold(path)
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        if message["type"] == "http.disconnect":
            session["cut"] = True
            return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": page(session), "more_body": True})
    if verb == "stream":
        await hold(path)
        session["streamed"] = True
    await send({"type": "http.response.body", "body": b" "})


def on_wsgi(environ: Any, start_response: Any) -> Iterator[bytes]:
    session, path = environ["filesession.session"], environ["PATH_INFO"]
    verb = path.split("/")[1]
    if verb in {"read", "write"}:
        hold_blocking(path)
    act(session, path)
    if verb == "upload":
        hold_blocking(path)
        length = int(environ["CONTENT_LENGTH"])
        if len(environ["wsgi.input"].read(length)) < length:
            session["cut"] = True
    start_response("200 OK", [("Content-Type", "application/json")])
    yield page(session)
    if verb == "stream":
        hold_blocking(path)
        session["streamed"] = True
    yield b" "


asgi = ASGISessions(on_asgi, store)
wsgi = WSGISessions(on_wsgi, store)
