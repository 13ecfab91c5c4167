"""A FastAPI application with sessions, and browsers that visit it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from filesession import FileStore
from filesession.asgi import SessionMiddleware

with warnings.catch_warnings(action="ignore"):  # it would rather have httpx2
    from fastapi.testclient import TestClient

Visit = Callable[[], TestClient]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions")


@pytest.fixture
def app(store: FileStore) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, store=store)
    return app


@pytest.fixture
def visit(app: FastAPI) -> Iterator[Visit]:
    """A new browser; it follows no redirects, and an error of the application is a 500 to it."""
    with ExitStack() as stack:

        def come() -> TestClient:
            client = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
            return stack.enter_context(client)

        yield come


@pytest.fixture
def client(visit: Visit) -> TestClient:
    return visit()


@pytest.fixture
def stored(store: FileStore) -> Callable[[], list[dict[str, Any]]]:
    """The data of all sessions, read by another store than the application's."""

    def read() -> list[dict[str, Any]]:
        fresh = FileStore(store.directory)
        found = (fresh.inspect(info.handle) for info in fresh.scan())
        return [data for _, data in filter(None, found)]

    return read
