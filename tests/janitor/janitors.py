"""Janitors in this process: what they log, write and run, and a store whose sweep has a gate."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from filesession.janitor.heartbeat import HEARTBEAT
from filesession.janitor.hooks import Hook
from filesession.record import SessionInfo, SweepReport
from filesession.stores.file.store import FileStore

DEADLINE = 10

Hooked = Callable[[Callable[[Sequence[SessionInfo]], None]], Hook]


class GatedStore:
    """A sweep of it waits to be let through, and says when it began."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.gate = threading.Event()
        self.swept = 0

    def scan(self) -> Iterator[SessionInfo]:
        return iter(())

    def sweep(
        self,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> SweepReport:
        self.began.set()
        assert self.gate.wait(DEADLINE)
        self.swept += 1
        return SweepReport(started_at=0.0, seconds=0.0)


def messages(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records]


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name != "MainThread"}


def beat_of(store: FileStore) -> dict[str, Any]:
    try:
        found = json.loads(Path(store.directory, HEARTBEAT).read_text())
    except FileNotFoundError:
        return {}
    assert isinstance(found, dict)
    return found


class Told:
    """Where what has expired is told of.

    Attributes:
        handles: so far.
    """

    def __init__(self, *, fails: bool = False) -> None:
        self.handles: list[str] = []
        self._fails = fails

    def __call__(self, info: SessionInfo) -> None:
        assert isinstance(info, SessionInfo)
        self.handles.append(info.handle)
        if self._fails:
            msg = "the hook fails"
            raise ValueError(msg)


def handles(store: FileStore) -> list[str]:
    return sorted(info.handle for info in store.scan())


def reading_of(store: FileStore) -> dict[str, Any]:
    reading = beat_of(store).get("reading", {})
    assert isinstance(reading, dict)
    return reading


INFO: Final = SessionInfo(
    handle="0" * 32, size=200, created_at=1.5, accessed_at=2.5, expires_at=None
)


def infos(number: int, first: int = 0) -> list[SessionInfo]:
    return [replace(INFO, handle=f"{each:032x}") for each in range(first, first + number)]


def said(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno == level]
