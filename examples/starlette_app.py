"""The tea shop on Starlette; FastAPI's ``request.session`` is used the same way.

    uvicorn starlette_app:app --app-dir examples --workers 2
    filesession janitor var/sessions

Sessions are kept in ``var/sessions`` beside ``examples``, or in ``$FILESESSION_DIR``. The workers
share them, and the key that signs the cookie, through that directory alone.
"""

from __future__ import annotations

import page
import shop
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from filesession import FileStore, Session, SessionGone
from filesession.asgi import SessionMiddleware


async def home(request: Request) -> Response:
    """The shop's one page."""
    session = session_of(request)
    async with session.alock():  # exact, however many requests run in however many workers
        message = shop.visit(session)
    return HTMLResponse(page.shop_page(session, message))


async def log_in(request: Request) -> Response:
    """Log in, with a new session id."""
    shop.log_in(session_of(request), await checked_form(request))
    return back_home()


async def log_out(request: Request) -> Response:
    """Log out, for good: the session is deleted, and its cookie worthless wherever it is."""
    await checked_form(request)
    shop.log_out(session_of(request))
    return back_home()


async def cart(request: Request) -> Response:
    """Add, change or remove."""
    session, form = session_of(request), await checked_form(request)
    async with session.alock():  # two clicks at once are two teas
        shop.change_cart(session, request.path_params["action"], form)
    return back_home()


def session_of(request: Request) -> Session:
    """It is ``request.session``; from the scope type checkers take it for what it is."""
    session: Session = request.scope["session"]
    return session


async def checked_form(request: Request) -> shop.Form:
    """The posted fields, when the form came from this session's own page."""
    fields = await request.form(max_files=0)
    form = {name: value for name, value in fields.items() if isinstance(value, str)}
    shop.check_csrf(session_of(request), form)
    return form


def back_home() -> Response:
    """See the result with a GET, so that reloading the page posts nothing again."""
    return RedirectResponse("/", status_code=303)


async def refused(_request: Request, error: Exception) -> Response:
    """What the visitor did wrong."""
    assert isinstance(error, shop.Refused)
    return HTMLResponse(page.refusal_page(error.reason), error.status)


async def gone(_request: Request, _error: Exception) -> Response:
    """The visitor logged out in another tab while this request waited for the lock."""
    return back_home()


store = FileStore(shop.DIRECTORY, idle_timeout=shop.IDLE_TIMEOUT)
app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
        Route("/cart/{action}", cart, methods=["POST"]),
    ],
    middleware=[Middleware(SessionMiddleware, store=store)],
    exception_handlers={shop.Refused: refused, SessionGone: gone},
)
