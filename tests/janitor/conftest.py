"""What tests of the janitor begin with: directories, watchers, rosters, rounds, janitors."""

from __future__ import annotations

import ctypes
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from watchdog.observers import inotify_c

from filesession.janitor import Janitor
from filesession.janitor import roster as roster_module
from filesession.janitor import rounds as rounds_module
from filesession.janitor.hooks import Hook
from filesession.janitor.roster import Roster, Watch
from filesession.janitor.rounds import Rounds
from filesession.janitor.watcher import Watcher
from filesession.record import SessionInfo
from filesession.stores.file.layout import is_handle
from filesession.stores.file.reaper import Reaper
from filesession.stores.file.store import FileStore
from filesession.testing import ManualClock
from tests.janitor.grounds import LOG, Ground, ToldWatcher, directory_in_memory, told_watchers
from tests.janitor.janitors import Hooked
from tests.janitor.processes import Manager, Start, processes
from tests.janitor.sweeps import OpenRoster, OpenRounds, hurrying, roster_of, rounds_of
from tests.janitor.watching import StartWatch, threads


@pytest.fixture
def told() -> Iterator[type[ToldWatcher]]:
    with told_watchers() as watchers:
        yield watchers


@pytest.fixture
def memory() -> Iterator[Path]:
    with directory_in_memory() as path:
        yield path


@pytest.fixture
def make_ground(memory: Path) -> Callable[..., Ground]:
    """Makes session directories, with these options of the store."""
    return lambda name="ground", **options: Ground(memory / name, **options)


@pytest.fixture
def ground(make_ground: Callable[..., Ground]) -> Ground:
    return make_ground()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "sessions"
    root.mkdir()
    return root


@pytest.fixture
def quick_root() -> Iterator[Path]:
    """In memory where there is such a file system: making many files is not what is tested."""
    with directory_in_memory() as root:
        yield root


@pytest.fixture
def watch() -> Iterator[StartWatch]:
    started: list[Watcher] = []

    def watch(root: Path) -> Watcher:
        watcher = Watcher(str(root), is_handle)
        started.append(watcher)
        watcher.start()
        return watcher

    yield watch
    for watcher in started:
        watcher.stop()
    assert not threads()


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """From now on the kernel refuses to watch that directory."""

    def refuse(refused: Path, number: int) -> None:
        real = inotify_c.inotify_add_watch

        def add(descriptor: int, path: bytes, mask: int) -> int:
            if os.fsdecode(path) != str(refused):
                return real(descriptor, path, mask)
            ctypes.set_errno(number)
            return -1

        monkeypatch.setattr(inotify_c, "inotify_add_watch", add)

    return refuse


@pytest.fixture
def open_rounds() -> Iterator[OpenRounds]:
    """Begins rounds, and ends them."""
    made: list[Rounds] = []

    def make(ground: Ground, watch: Watch = "poll", **options: Any) -> Rounds:
        made.append(rounds_of(ground, watch, **options))
        return made[-1]

    yield make
    for rounds in made:
        rounds.close()


@pytest.fixture
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds_module, "time", hurrying())


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the reaper's looks at sessions, in order."""
    names: list[str] = []

    def counting(name: str) -> None:
        real = getattr(Reaper, name)

        def called(*arguments: Any) -> Any:
            names.append(name)
            return real(*arguments)

        monkeypatch.setattr(Reaper, name, called)

    for name in ("glance", "look", "reap"):
        counting(name)
    return names


@pytest.fixture
def open_roster() -> Iterator[OpenRoster]:
    """Makes rosters, and closes them."""
    made: list[Roster] = []

    def make(ground: Ground, watch: Watch = "poll") -> Roster:
        made.append(roster_of(ground, watch))
        return made[-1]

    yield make
    for roster in made:
        roster.close()


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The roster's own clocks, which stand still: seconds, and nanoseconds since 1970."""
    times = SimpleNamespace(now=1000.0, wall=time.time_ns())
    fake = SimpleNamespace(monotonic=lambda: times.now, time_ns=lambda: times.wall)
    monkeypatch.setattr(roster_module, "time", fake)
    return times


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=100, clock=clock)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "filesession.janitor")
    return caplog


@pytest.fixture
def looks(store: FileStore) -> Iterator[Callable[[], Janitor]]:
    """Makes janitors that do not run: a test takes each of their looks itself."""
    made: list[Janitor] = []

    def make() -> Janitor:
        janitor = Janitor(store, interval=3600)
        made.append(janitor)
        return janitor

    yield make
    for janitor in made:
        if janitor._leads:
            janitor._step_down()


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    with closing(manager.door):
        yield manager


@pytest.fixture
def start() -> Iterator[Start]:
    with processes() as start:
        yield start


@pytest.fixture
def hooked() -> Iterator[Hooked]:
    """A hook that was started, and does not outlive the test."""
    made: list[Hook] = []

    def start(deliver: Callable[[Sequence[SessionInfo]], None]) -> Hook:
        made.append(Hook(deliver, LOG))
        made[-1].start()
        return made[-1]

    yield start
    for hook in made:
        hook.stop(0)
