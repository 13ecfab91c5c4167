"""The example applications in this process: what takes more than a browser to see."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.validate import validator

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent

Ask = Callable[..., httpx.Response]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], ModuleType]:
    """Import a module of the examples, fresh, for a directory of its own."""
    monkeypatch.setenv("FILESESSION_DIR", str(tmp_path / "sessions"))
    monkeypatch.syspath_prepend(ROOT / "examples")

    def loaded(name: str) -> ModuleType:
        for module in ("shop", "page", name):
            monkeypatch.delitem(sys.modules, module, raising=False)
        return importlib.import_module(name)

    return loaded


@pytest.fixture(params=["starlette_app", "wsgi_app"])
def module(request: pytest.FixtureRequest, load: Callable[[str], ModuleType]) -> ModuleType:
    return load(request.param)


@pytest.fixture
def ask(module: ModuleType) -> Iterator[Ask]:
    """A browser's request to the application; WSGI is watched by the standard validator."""
    with ExitStack() as stack:
        if not inspect.iscoroutinefunction(type(module.app).__call__):
            transport = httpx.WSGITransport(validator(module.app))
            client = httpx.Client(transport=transport, base_url="http://shop")
            yield stack.enter_context(client).request
            return
        runner = stack.enter_context(asyncio.Runner())
        visitor = httpx.AsyncClient(
            transport=httpx.ASGITransport(module.app), base_url="http://shop"
        )
        stack.callback(lambda: runner.run(visitor.aclose()))
        yield lambda *what, **more: runner.run(visitor.request(*what, **more))


def token(page: httpx.Response) -> str:
    found = re.search('name="csrf" value="(.+?)"', page.text)
    assert found
    return found[1]


def test_a_visit_a_login_and_a_logout_obey_the_protocol(ask: Ask) -> None:
    for path, fields in (("/login", {"name": "Ada"}), ("/logout", {})):
        page = ask("GET", "/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["vary"] == "Cookie"
        assert ask("POST", path, data={"csrf": token(page), **fields}).status_code == 303
    assert "You are logged out" in ask("GET", "/").text


def test_a_head_request_is_answered_without_a_body(ask: Ask) -> None:
    answer = ask("HEAD", "/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 1000


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_what_the_page_cannot_do_is_refused_and_counts_for_no_visit(
    ask: Ask, module: ModuleType, method: str
) -> None:
    answer = ask(method, "/")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert len(module.store) == 0


@pytest.mark.parametrize("path", ["/", "/cart/add"])
def test_who_logged_out_in_another_tab_while_waiting_is_sent_home_and_stays_logged_out(
    ask: Ask, module: ModuleType, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    form = {"csrf": token(ask("GET", "/")), "sku": "assam"}
    lock = module.store.lock

    def lock_too_late(sid: str, **options: Any) -> Any:
        module.store.delete(sid)
        return lock(sid, **options)

    monkeypatch.setattr(module.store, "lock", lock_too_late)
    answer = ask("GET", path) if path == "/" else ask("POST", path, data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "set-cookie" not in answer.headers
    assert len(module.store) == 0


def test_more_than_a_form_is_not_read(load: Callable[[str], ModuleType]) -> None:
    transport = httpx.WSGITransport(validator(load("wsgi_app").app))
    with httpx.Client(transport=transport, base_url="http://shop") as client:
        assert client.post("/login", data={"name": "A" * 5000}).status_code == 413


@pytest.mark.parametrize(
    ("named", "directory"),
    [
        ("", ROOT / "var" / "sessions"),
        ("elsewhere", ROOT / "elsewhere"),
        ("/srv/sessions", Path("/srv/sessions")),
    ],
)
def test_the_sessions_are_where_the_environment_says_or_below_the_project(
    load: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    directory: Path,
) -> None:
    monkeypatch.setenv("FILESESSION_DIR", named)
    assert directory == Path(load("shop").DIRECTORY)
