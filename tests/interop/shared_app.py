"""The Python app beside ``express_app.js``: the same paths, the same cookie, the same sessions."""

from __future__ import annotations

import json
import os
from typing import Any

from filesession.asgi import SessionMiddleware
from filesession.stores import NodeFileStore


async def answer(scope: Any, receive: Any, send: Any) -> None:
    session = scope["session"]
    verb, _, argument = scope["path"][1:].partition("/")
    if verb == "login":
        session.regenerate(keep_data=False)
        session["user"] = argument
    elif verb == "count":
        session["count"] = session.get("count", 0) + 1
    elif verb == "add":
        session[argument] = True
    elif verb == "logout":
        session.destroy()
    page = {"id": session.id, "session": session}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(page).encode()})


app = SessionMiddleware(
    answer,
    NodeFileStore(os.environ["FILESESSION_DIR"]),
    secret=["new secret", "old secret"],
    name="connect.sid",
)
