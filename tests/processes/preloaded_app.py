"""What the servers of these tests serve: the application of the other real servers, and more.

The store has been used when a server that preloads it forks its workers. Of the paths,
``/inside/PORT`` is held inside the session's lock: it has told its process to whoever listens at
that port of this machine, and waits until it is hung up on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any

from filesession.asgi import SessionMiddleware as ASGISessions
from filesession.wsgi import SessionMiddleware as WSGISessions
from tests.gateways.server_app import PATIENCE, on_asgi, on_wsgi, store

warm = store.create({"n": 0})
with store.lock(warm.id) as record:
    store.save(warm.id, {"n": 1}, base=record)
store.delete(store.regenerate(warm.id).id)


async def _on_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"].startswith("/inside/"):
        async with scope["session"].alock():
            scope["session"]["inside"] = True
            await asyncio.to_thread(_tell_and_wait, scope["path"])
    await on_asgi(scope, receive, send)


def _on_wsgi(environ: Any, start_response: Any) -> Iterator[bytes]:
    session, path = environ["filesession.session"], environ["PATH_INFO"]
    if path.startswith("/inside/"):
        with session.lock():
            session["inside"] = True
            _tell_and_wait(path)
    yield from on_wsgi(environ, start_response)


def _tell_and_wait(path: str) -> None:
    address = ("127.0.0.1", int(path.rpartition("/")[2]))
    with socket.create_connection(address, PATIENCE) as connection:
        connection.sendall(f"{os.getpid()}\n".encode())
        assert connection.recv(1) == b""


asgi = ASGISessions(_on_asgi, store)
wsgi = WSGISessions(_on_wsgi, store)
