"""Half of a site, on Starlette; the other half is ``server.js`` beside it. They share the login.

How to run both is said there. ``filesession migrate`` is for the day when there is no Express left.
"""

from __future__ import annotations

import os
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from filesession.asgi import SessionMiddleware
from filesession.session import Session
from filesession.stores import NodeFileStore

DAY: Final = 86400
"""Seconds."""


async def home(request: Request) -> Response:
    """Who is there, and how often; both sides count the same visits."""
    session = session_of(request)
    session["visits"] = session.get("visits", 0) + 1
    user, visits = session.get("user"), session["visits"]
    return HTMLResponse(
        f"<p>Python: {f'hello {user}' if user else 'who are you?'} Visits: {visits}"
        '<form method="post" action="/login"><button>Log in</button></form>'
        '<form method="post" action="/logout"><button>Log out</button></form>'
    )


async def log_in(request: Request) -> Response:
    """Log in, with a new session id."""
    session = session_of(request)
    session.regenerate(keep_data=False)
    session["user"] = "ada"
    return RedirectResponse("/", status_code=303)


async def log_out(request: Request) -> Response:
    """Log out, on both sides."""
    session_of(request).destroy()
    return RedirectResponse("/", status_code=303)


def session_of(request: Request) -> Session:
    """It is ``request.session``; from the scope type checkers take it for what it is."""
    session: Session = request.scope["session"]
    return session


store = NodeFileStore(os.environ["SESSIONS"], ttl=3600, cookie={"max_age": DAY, "same_site": "lax"})
app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
    ],
    middleware=[
        Middleware(
            SessionMiddleware,
            store=store,
            secret=os.environ["SECRET"],
            name="connect.sid",
            max_age=DAY,
        )
    ],
)
