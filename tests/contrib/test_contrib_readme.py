"""What the README shows of FastAPI, and of the way from Express, runs as it stands there."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from filesession import FileStore
from filesession.asgi import SessionMiddleware

with warnings.catch_warnings(action="ignore"):  # it would rather have httpx2
    from fastapi.testclient import TestClient

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def shown(section: str) -> str:
    """The code in a section, which has one piece of it."""
    text = re.split(r"\n## ", README.partition(f"\n## {section}\n")[2])[0]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(code)


SHOWN, EXPRESS = shown("FastAPI"), shown("Coming from Express, NestJS or Fastify")


def test_its_application_logs_in_and_fills_a_cart(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(SHOWN.replace("/var/lib/myapp/sessions", str(tmp_path / "sessions")), names)  # noqa: S102 - it is the README's
    with TestClient(names["app"]) as client:
        client.post("/login/ada")
        client.post("/cart/assam")
        assert client.post("/cart/sencha").json() == {"cart": ["assam", "sencha"]}
    store = FileStore(tmp_path / "sessions")
    (info,) = store.scan()
    found = store.inspect(info.handle)
    assert found is not None
    assert found[1] == {"user": "ada", "cart": ["assam", "sencha"]}


def test_what_express_is_told_has_its_counterpart(tmp_path: Path) -> None:
    names: dict[str, Any] = {"path": tmp_path / "sessions", "secret": "keyboard cat"}
    names |= {"app": FastAPI(), "FileStore": FileStore, "SessionMiddleware": SessionMiddleware}
    exec(EXPRESS, names)  # noqa: S102 - likewise

    async def begin(request: Request) -> None:
        request.session["user"] = "ada"

    names["app"].add_api_route("/", begin)
    with TestClient(names["app"]) as client:
        cookie = client.get("/").headers["set-cookie"]
    assert cookie.startswith("connect.sid=s%3A")
    assert "; Max-Age=86400;" in cookie
