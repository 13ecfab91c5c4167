"""Server-side HTTP sessions, one file each, for Python web apps on one machine.

    store = FileStore("/var/lib/myapp/sessions", idle_timeout=1800)   # point at a directory
    app = SessionMiddleware(app, store, secret=SECRET)                # mount the middleware
    $ filesession janitor /var/lib/myapp/sessions                     # run the janitor

``SessionMiddleware`` is in ``filesession.asgi`` and, with the same keywords, in
``filesession.wsgi``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from filesession.errors import (
    ConfigurationError,
    ConflictError,
    CookieTooLarge,
    EncodeError,
    FilesessionError,
    LockTimeout,
    SessionExists,
    SessionGone,
    SessionInvalid,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from filesession.record import SessionInfo, SessionRecord, SweepReport
from filesession.session import Session
from filesession.stores.file.store import FileStore
from filesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from filesession.janitor.janitor import Janitor

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "CookieTooLarge",
    "EncodeError",
    "FileStore",
    "FilesessionError",
    "Janitor",
    "LockTimeout",
    "MemoryStore",
    "Session",
    "SessionExists",
    "SessionGone",
    "SessionInfo",
    "SessionInvalid",
    "SessionRecord",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "SweepReport",
]


def __getattr__(name: str) -> object:
    """``Janitor`` on first use: a web application that runs none does not load its scheduler."""
    if name == "Janitor":
        from filesession.janitor.janitor import Janitor  # noqa: PLC0415 - see above

        return Janitor
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
