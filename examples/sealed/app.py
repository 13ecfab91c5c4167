"""The shop: a Starlette application that knows who logged in at the Fastify one, app.js.

    uvicorn app:app --app-dir examples/sealed

How to run both is said there: they take one ``SESSION_KEY``. Each sees what the other puts into the
session, which is in the visitor's cookie, encrypted; there is no store. Behind one host, or at two
ports of one, a browser sends the cookie to both. It is SameSite=Lax, so no other site can post a
form with it.
"""

from __future__ import annotations

import os
from html import escape

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from filesession.asgi import SessionMiddleware
from filesession.cookies import EncryptedCookie


async def home(request: Request) -> Response:
    """Who is there, and what is in the cart."""
    user = request.session.get("user")
    if user is None:
        return HTMLResponse("<p>You are not logged in; that is done next door.</p>")
    cart = escape(", ".join(request.session.get("cart", [])))
    return HTMLResponse(
        f"""<p>{escape(user)}'s cart: {cart or "empty"}</p>
        <form method="post" action="/tea"><button>Add tea</button></form>
        <form method="post" action="/logout"><button>Log out</button></form>"""
    )


async def add_tea(request: Request) -> Response:
    """A nested change: it is noticed, and a new cookie sent."""
    if "user" in request.session:
        request.session.setdefault("cart", []).append("tea")
    return RedirectResponse("/", status_code=303)


async def log_out(request: Request) -> Response:
    """Out of both: the cookie is expired."""
    request.scope["session"].destroy()
    return RedirectResponse("/", status_code=303)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/tea", add_tea, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
    ],
    middleware=[Middleware(SessionMiddleware, store=EncryptedCookie(os.environ["SESSION_KEY"]))],
)
