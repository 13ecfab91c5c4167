"""Session directories in memory, what lies in them and when it is due, and a watcher to be told."""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from filesession.janitor import roster as roster_module
from filesession.janitor.roster import Roster
from filesession.janitor.watcher import EventsUnavailable
from filesession.janitor.wheel import NEVER, Wheel
from filesession.stores.file.store import FileStore
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCall, SystemCalls

LOG: Final = logging.getLogger("filesession.janitor")


def handle_of(sid: str) -> bytes:
    return hashlib.sha256(sid.encode()).digest()[:16]


CLOSE: Final = [f"id-{n}" for n in range(30_000) if handle_of(f"id-{n}")[0] in {0, 1, 3, 255}]
"""Ids whose sessions lie in four directories of two groups: there, much happens at once."""


def exhaust(steps: Iterable[object]) -> int:
    """Take all steps; the number of them."""
    return sum(1 for _ in steps)


@contextmanager
def directory_in_memory() -> Iterator[Path]:
    """A directory where the disk is waited for in no time, if there is one."""
    fast = "/dev/shm"
    usable = os.path.isdir(fast) and os.access(fast, os.W_OK)
    path = Path(tempfile.mkdtemp(prefix="filesession-", dir=fast if usable else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Ground:
    """A session directory whose touches are all written down: a session is due when it ends.

    Attributes:
        clock: the store's.
        store: an idle timeout of 1800 seconds, unless others are given.
    """

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.clock: ManualClock = options.pop("clock", None) or ManualClock()
        options = {"touch_interval": 0, **options}
        self.store = FileStore(directory, clock=self.clock, **options)
        self.root = directory / "sessions"

    def create(self, number: int = 1, **options: Any) -> list[str]:
        """So many sessions; their ids."""
        return [self.store.create(**options).id for _ in range(number)]

    def path(self, sid: str) -> Path:
        return Path(self.store._layout.path(handle_of(sid).hex()))

    def names(self) -> set[bytes]:
        """The handles of all session files."""
        return {bytes.fromhex(path.name) for path in self.root.rglob("[0-9a-f]" * 32)}

    def dues(self) -> dict[bytes, float]:
        """When each stored session may be deleted."""
        return {
            bytes.fromhex(info.handle): math.inf if info.expires_at is None else info.expires_at
            for info in self.store.scan()
        }

    def shards(self) -> list[Path]:
        return [path for path in (self.root, *self.root.rglob("*")) if path.is_dir()]

    def age_shards(self, number: Iterator[int]) -> None:
        """Date what has changed since as long ago, each time otherwise: no two changes coincide."""
        for shard in self.shards():
            if shard.stat().st_mtime_ns > 10**18:
                date = 10**17 + next(number)
                os.utime(shard, ns=(date, date))


def broken(path: str, *, times: int = 1 << 30) -> SystemCalls:
    """A disk on which a directory cannot be listed, so many times."""
    left = itertools.count(1)

    def act(call: SystemCall) -> Any:
        if str(call.arguments[0]) == path and next(left) <= times:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return call.make()

    return SystemCalls(act, only=("scandir",))


def moments_in(*wheels: Wheel) -> dict[bytes, list[float]]:
    """When each entry comes up, of what was filed twice the earlier first."""
    found: dict[bytes, list[float]] = {}
    for wheel in wheels:
        for key, bucket in wheel._buckets.items():
            for start in range(0, len(bucket), 16):
                found.setdefault(bytes(bucket[start : start + 16]), []).append(key // 128)
    return {handle: sorted(moments) for handle, moments in found.items()}


def filed(roster: Roster) -> dict[bytes, list[float]]:
    return moments_in(roster.wheel, roster.overdue)


def assert_knows_all(roster: Roster, ground: Ground) -> None:
    """Every stored session comes up no later than a second after it is due."""
    moments = filed(roster)
    for handle, due in ground.dues().items():
        assert handle in moments, "a session of which nothing is known"
        assert moments[handle][0] <= (NEVER if math.isinf(due) else due + 1)


class ToldWatcher:
    """Stands in for the watcher: tells what the test tells it.

    Attributes:
        names: what appeared and was not taken.
        loss: what it says was missed, once.
        end: why it does not work any more.
        stopped: it was stopped.
    """

    refusal: str | None = None
    made: list[ToldWatcher]

    def __init__(self, root: str, wanted: Callable[[str], bool]) -> None:
        self.names: list[str] = []
        self.loss: str | None = None
        self.end: str | None = None
        self.stopped = False

    def start(self) -> None:
        if self.refusal is not None:
            raise EventsUnavailable(self.refusal)
        self.made.append(self)

    def stop(self) -> None:
        self.stopped = True

    def take(self) -> list[str]:
        names, self.names = self.names, []
        return names

    def missed(self) -> str | None:
        loss, self.loss = self.loss, None
        return loss

    def failure(self) -> str | None:
        return self.end


@contextmanager
def told_watchers() -> Iterator[type[ToldWatcher]]:
    """Inside, watchers are those of the test, which keeps those that were started in ``made``."""

    class Watchers(ToldWatcher):
        made: list[ToldWatcher] = []  # noqa: RUF012 - of this test's class alone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roster_module, "Watcher", Watchers)
        yield Watchers
