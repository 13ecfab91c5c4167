"""What the real servers of the tests serve: one application, for ASGI and for WSGI.

The path says what to do: ``/see``, ``/add/KEY``, ``/count``, ``/logout``; ``/slow/PORT``, which is
held before it answers; and ``/redirect/PORT``, which is held in the middle of its answer. What is
held has connected to that port of this machine and waits until it is hung up on.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from filesession import FileStore
from filesession.asgi import SessionMiddleware as ASGISessions
from filesession.session import Session
from filesession.wsgi import SessionMiddleware as WSGISessions

PATIENCE = 20.0  # seconds

store = FileStore(os.environ["FILESESSION_DIR"])


def act(session: Session, path: str) -> None:
    """Do what the path says, as far as that is the same for both."""
    verb, _, argument = path[1:].partition("/")
    if verb == "add":
        session[argument] = True
    elif verb in {"slow", "redirect"}:
        session[verb] = True
    elif verb == "logout":
        session.destroy()
    elif verb == "count":
        session["count"] = session.get("count", 0) + 1


def page(session: Session) -> bytes:
    return json.dumps({"worker": os.getpid(), "session": session}).encode()


async def on_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await talk(scope["session"], receive, send)
        return
    session, path = scope["session"], scope["path"]
    if path == "/count":
        async with session.alock():
            act(session, path)
    else:
        act(session, path)
    if path.startswith("/slow/"):
        await hold(path)
        session["after"] = True
    status = 303 if path.startswith("/redirect/") else 200
    headers = [(b"content-type", b"application/json"), (b"location", b"/see")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": page(session), "more_body": True})
    if status == 303:
        await hold(path)
    await send({"type": "http.response.body"})


async def hold(path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(path.rpartition("/")[2]))
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    writer.close()
    await writer.wait_closed()


async def talk(session: Session, receive: Any, send: Any) -> None:
    """Do what each message says, a path, and answer with the page; ``/bye`` ends it."""
    assert (await receive())["type"] == "websocket.connect"
    act(session, "/add/connected")
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        act(session, message["text"])
        if message["text"] == "/save":
            await session.asave()
        if message["text"] == "/bye":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.send", "text": page(session).decode()})


def on_wsgi(environ: Any, start_response: Any) -> Iterator[bytes]:
    session, path = environ["filesession.session"], environ["PATH_INFO"]
    if path == "/count":
        with session.lock():
            act(session, path)
    else:
        act(session, path)
    if path.startswith("/slow/"):
        hold_blocking(path)
        session["after"] = True
    status = "303 See Other" if path.startswith("/redirect/") else "200 OK"
    start_response(status, [("Content-Type", "application/json"), ("Location", "/see")])
    yield page(session)
    if status.startswith("303"):
        hold_blocking(path)


def hold_blocking(path: str) -> None:
    address = ("127.0.0.1", int(path.rpartition("/")[2]))
    with socket.create_connection(address, PATIENCE) as connection:
        assert connection.recv(1) == b""


asgi = ASGISessions(on_asgi, store)
wsgi = WSGISessions(on_wsgi, store)
