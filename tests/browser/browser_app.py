"""What Chromium visits: one site that answers to every host name, with a session of each kind.

All sessions are in one store. The path says what to do with those that the request has; every page
but the numbered one shows what they hold then, as JSON, by their key.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from filesession import FileStore, Session
from filesession.asgi import SessionMiddleware as ASGISessions
from filesession.wsgi import SessionMiddleware as WSGISessions

PATIENCE: Final = 20
"""Seconds that a request is held at most."""

MONTH: Final = 30 * 86400

SESSIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "session": {},
    "strict": {"name": "strict", "same_site": "strict"},
    "none": {"name": "none", "same_site": "none", "secure": True},
    "host": {"secure": True},
    "chips": {
        "name": "__Host-chips",
        "same_site": "none",
        "secure": True,
        "partitioned": True,
    },
    "narrow": {"name": "narrow", "path": "/narrow"},
    "wide": {"name": "wide", "domain": "shop.test"},
}
"""The options of each session's middleware, by key; ``session`` has the defaults."""

store = FileStore(os.environ["FILESESSION_DIR"])
pages = itertools.count(1)


def act(session: Session, verb: str, argument: str) -> None:
    """Do what a path says, as far as that is the same for both servers."""
    if verb == "add":
        session[argument] = True
    elif verb in {"login", "remember"}:
        session.regenerate()
        session["user"] = argument
        if verb == "remember":
            session.idle_timeout = session.cookie.max_age = MONTH
    elif verb == "logout":
        session.destroy()
    elif verb == "count":
        session["count"] = session.get("count", 0) + 1


def shown(sessions: Mapping[str, Session]) -> str:
    """Those that hold something."""
    return json.dumps({key: session for key, session in sessions.items() if session})


def sessions_of(scope: Mapping[str, Any]) -> dict[str, Session]:
    return {key: scope[key] for key in SESSIONS if key in scope}


async def page(_request: Request) -> Response:
    """An empty one, for the scripts of tests; it looks at no session."""
    return HTMLResponse("<!doctype html><title>A page</title>")


async def verb(request: Request) -> Response:
    """Do one thing to every session there is, and show them."""
    sessions = sessions_of(request.scope)
    for session in sessions.values():
        act(session, request.path_params["verb"], request.path_params.get("argument", ""))
    return PlainTextResponse(shown(sessions))


async def count(request: Request) -> Response:
    """Post, redirect, get."""
    act(request.scope["session"], "count", "")
    return RedirectResponse("/see", status_code=303)


async def meet(request: Request) -> Response:
    """Write a key, when another request that does so has its session, too."""
    request.scope["session"]["waited"] = True
    async with asyncio.timeout(PATIENCE):
        await request.app.state.meeting.wait()
    request.scope["session"][request.path_params["argument"]] = True
    return RedirectResponse("/see", status_code=303)


async def stream(request: Request) -> Response:
    """Write before the answer begins and before it ends, which ``/go`` lets it."""
    session: Session = request.scope["session"]
    session["early"] = True
    gone_on: asyncio.Event = request.app.state.gone_on
    gone_on.clear()

    async def pieces() -> AsyncIterator[str]:
        yield "the first"
        await asyncio.wait_for(gone_on.wait(), PATIENCE)
        session["late"] = True
        yield " and the last"

    return StreamingResponse(pieces(), media_type="text/plain")


async def go(request: Request) -> Response:
    request.app.state.gone_on.set()
    return PlainTextResponse("gone on")


async def events(request: Request) -> Response:
    """One event, then the end: a browser comes again, after a millisecond."""
    data = shown(sessions_of(request.scope))
    return Response(f"retry: 1\ndata: {data}\n\n", media_type="text/event-stream")


async def talk(websocket: WebSocket) -> None:
    """Do what each message says, a path without its slash, and show the session."""
    session: Session = websocket.scope["session"]
    await websocket.accept()
    async for message in websocket.iter_text():
        action, _, argument = message.partition("/")
        act(session, action, argument)
        await session.asave()
        await websocket.send_text(shown({"session": session}))


async def numbered(request: Request) -> Response:
    """A page that browsers may keep, unless it is private; with a name it logs in.

    Its number tells one that was kept from one that was made anew.
    """
    session: Session = request.scope["session"]
    if argument := request.path_params.get("argument"):
        act(session, "login", argument)
    text = json.dumps({"number": next(pages), "user": session.get("user")})
    keep = "no-store" if "private" in request.query_params else "max-age=600"
    return PlainTextResponse(text, headers={"Cache-Control": keep})


def with_sessions(app: Any) -> Any:
    for key, options in SESSIONS.items():
        app = ASGISessions(app, store, key=key, **options)
    return app


site = Starlette(
    routes=[
        Route("/page", page),
        Route("/count", count, methods=["POST"]),
        Route("/meet/{argument}", meet),
        Route("/stream", stream),
        Route("/go", go),
        Route("/events", events),
        WebSocketRoute("/talk", talk),
        Route("/numbered", numbered),
        Route("/numbered/{argument}", numbered),
        Route("/narrow/{verb}/{argument}", verb),
        Route("/{verb}", verb, methods=["GET", "POST"]),
        Route("/{verb}/{argument}", verb, methods=["GET", "POST"]),
    ],
    middleware=[
        Middleware(CORSMiddleware, allow_origin_regex=".*", allow_credentials=True),
    ],
)
site.state.meeting = asyncio.Barrier(2)
site.state.gone_on = asyncio.Event()
asgi = with_sessions(site)


def on_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The same, as far as it has no need to wait."""
    session: Session = environ["filesession.session"]
    action, _, argument = environ["PATH_INFO"][1:].partition("/")
    if action == "page":
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<!doctype html><title>A page</title>"]
    act(session, action, argument)
    status = "303 See Other" if action == "count" else "200 OK"
    start_response(status, [("Content-Type", "text/plain"), ("Location", "/see")])
    return [shown({"session": session}).encode()]


wsgi = WSGISessions(on_wsgi, store)
