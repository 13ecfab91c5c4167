"""Watchers on real directories: what they tell, what they say they missed, what they hold open.

Events come by two ways (a new file's by a short one), so a test that waits for a thing that must
not be told waits for a later one that goes by the same way.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

from filesession.janitor import watcher as watcher_module
from filesession.janitor.watcher import Watcher
from tests.waiting import wait_until

StartWatch = Callable[[Path], Watcher]

_numbers = itertools.count()


def handle() -> str:
    return f"{next(_numbers):032x}"


def told(watcher: Watcher, *wanted: str) -> list[str]:
    """All that is told until those that are wanted were, each once."""
    names: dict[str, None] = {}

    def arrived() -> bool:
        names.update(dict.fromkeys(watcher.take()))
        return set(wanted) <= set(names)

    wait_until(arrived)
    return list(names)


def told_of_moves(watcher: Watcher, root: Path, outside: Path) -> list[str]:
    """All that is told until a file, moved in now, is; without that."""
    last = handle()
    (outside / last).touch()
    (outside / last).rename(root / last)
    return [name for name in told(watcher, last) if name != last]


def loss(watcher: Watcher) -> str:
    """What is said to be missed, when it is."""
    losses: list[str] = []

    def said() -> bool:
        losses.append(watcher.missed() or "")
        return losses[-1] != ""

    wait_until(said)
    return losses[-1]


def make(directory: Path, name: str | None = None) -> str:
    name = name or handle()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).touch()
    return name


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == watcher_module._THREAD]


def descriptor_of(watcher: Watcher) -> int:
    assert watcher._reading is not None
    return watcher._reading._inotify_fd


def kernel_watches(watcher: Watcher) -> list[str]:
    lines = Path(f"/proc/self/fdinfo/{descriptor_of(watcher)}").read_text().splitlines()
    return [line for line in lines if line.startswith("inotify wd:")]
