"""Sessions as an application holds them, on both stores and under both runners."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import pytest

from filesession.cookies.policy import CookiePolicy
from filesession.runner import BlockingRunner, LoopRunner
from filesession.session import Session
from filesession.stores import FileStore, MemoryStore
from filesession.testing import ManualClock
from filesession.testing.base import loaded
from filesession.visit import Visit

AnyStore: TypeAlias = MemoryStore | FileStore
Way: TypeAlias = Literal["blocking", "loop", "coroutine"]

START: Final = ManualClock().now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AnyStore:
    if request.param == "memory":
        return MemoryStore(clock=clock)
    return FileStore(tmp_path / "sessions", clock=clock)


@pytest.fixture(params=["blocking", "loop", "coroutine"])
def way(request: pytest.FixtureRequest) -> Way:
    """Blocking verbs, verbs awaited on an event loop, and verbs awaited where there is none."""
    way: Way = request.param
    return way


def a_session(store: Any, sid: str | None = None, way: Way = "blocking", **options: Any) -> Session:
    """What a request is given: the stored session of that id, or a new one."""
    options = {"policy": CookiePolicy(), "codec": store.codec, **options}
    runner = LoopRunner(store, offload=None) if way == "loop" else BlockingRunner(store)
    return Session(Visit(runner, **options), None if sid is None else loaded(store, sid))


def stored(store: AnyStore, data: dict[str, Any], way: Way = "blocking", **options: Any) -> Session:
    """A session that was stored before this request."""
    return a_session(store, store.create(data).id, way, **options)


def save(session: Session, way: Way) -> None:
    if way == "blocking":
        session.save()
    else:
        asyncio.run(session.asave())
