"""The two halves of one site, started as they say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.interop.npm import node, npm_packages

EXPRESS: Final = Path(__file__).parents[2] / "examples" / "express"

VERSIONS: Final = {
    "express": "5.3.0",
    "express-session": "1.19.0",
    "session-file-store": "1.5.0",
}


def stored_cookie(directory: Path) -> dict[str, Any]:
    """What all sessions there say of their cookie, but for the moment at which it expires."""
    found = [json.loads(path.read_text())["cookie"] for path in directory.glob("*.json")]
    [cookie] = {json.dumps(each | {"expires": None}, sort_keys=True) for each in found}
    members: dict[str, Any] = json.loads(cookie)
    del members["expires"]
    return members


def test_a_login_at_either_half_is_one_at_the_other(
    serve: Callable[..., AbstractContextManager[str]], tmp_path: Path
) -> None:
    packages = npm_packages(VERSIONS)
    shared = {"SESSIONS": str(tmp_path / "shared"), "SECRET": "keyboard cat"}
    uvicorn = ("-m", "uvicorn", "app:app", "--app-dir", os.fspath(EXPRESS), "--port", "{port}")
    with (
        serve(*uvicorn, log=tmp_path / "log", **shared) as python,
        node(EXPRESS / "server.js", packages=packages, env={**shared, "PORT": "0"}) as running,
    ):
        express = f"http://127.0.0.1:{running.port}"
        for first, second in ((express, python), (python, express)):
            with httpx.Client(follow_redirects=True, timeout=20) as browser:
                assert "who are you? Visits: 1" in browser.get(first).text
                assert "who are you? Visits: 2" in browser.get(second).text
                assert "hello ada Visits: 1" in browser.post(f"{first}/login").text
                assert "hello ada Visits: 2" in browser.get(second).text
                assert "hello ada Visits: 3" in browser.get(first).text
                assert stored_cookie(tmp_path / "shared") == {
                    "originalMaxAge": 86_400_000,
                    "httpOnly": True,
                    "path": "/",
                    "sameSite": "lax",
                }
                assert {cookie.expires is None for cookie in browser.cookies.jar} == {False}
                assert "who are you? Visits: 1" in browser.post(f"{second}/logout").text
                assert "who are you? Visits: 2" in browser.get(first).text
