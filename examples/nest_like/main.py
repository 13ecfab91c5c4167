"""The application: its modules, and the sessions they share."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from filesession import FileStore, SessionGone
from filesession.asgi import SessionMiddleware
from nest_like import auth, cart, chat, health
from nest_like.settings import ROOT, Settings


def create_app(settings: Settings) -> FastAPI:
    """Put the modules together."""
    app = FastAPI(title="Tea shop")
    app.add_middleware(
        SessionMiddleware,
        store=FileStore(ROOT / settings.directory, idle_timeout=settings.idle_timeout),
        secret=settings.secrets,
        exclude=["/health"],  # who watches the application is no visitor
    )
    for module in (auth, cart, chat, health):
        app.include_router(module.router)
    app.add_exception_handler(SessionGone, gone)
    return app


async def gone(_request: Request, _error: Exception) -> JSONResponse:
    """The visitor logged out in another tab while this request waited for the lock."""
    return JSONResponse({"detail": "Your session has ended."}, 401)


app = create_app(Settings.from_environment())
