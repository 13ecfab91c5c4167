"""What the watcher missed is said: the kernel's queue, its own buffer, what cannot be listed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c

from filesession.janitor import watcher as watcher_module
from filesession.janitor.watcher import Watcher
from filesession.stores.file.layout import is_handle
from tests.janitor.watching import StartWatch, handle, loss, make, told, told_of_moves
from tests.waiting import PATIENCE, wait_until

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


OVERFLOWING = """
import json, logging, sys
from filesession.janitor.watcher import Watcher
from filesession.stores.file.layout import is_handle
logging.basicConfig(level=logging.DEBUG)
watcher = Watcher(sys.argv[1], is_handle)
watcher.start()
print("ready", flush=True)
for _ in sys.stdin:
    print(json.dumps([watcher.take(), watcher.missed(), watcher.failure()]), flush=True)
"""


class Overflowing:
    """A process that watches, and is asked what it was told."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OVERFLOWING, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.names: set[str] = set()
        self.missed: list[str] = []
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ask(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        names, missed, failure = json.loads(self.process.stdout.readline())
        assert failure is None
        self.names.update(names)
        self.missed += [missed] if missed else []

    def hold(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")

    def told(self, *wanted: str) -> bool:
        self.ask()
        return set(wanted) <= self.names

    def overflowed(self) -> bool:
        self.ask()
        return bool(self.missed)


@pytest.fixture
def overflowing(quick_root: Path) -> Iterator[Overflowing]:
    for shard in range(4):
        (quick_root / f"{shard:02x}").mkdir()
    watching = Overflowing(quick_root)
    yield watching
    watching.process.send_signal(signal.SIGCONT)
    watching.process.kill()
    watching.process.communicate(timeout=PATIENCE)


def test_an_overflow_of_the_kernels_queue_is_said_once_and_all_is_watched_again(
    quick_root: Path, overflowing: Overflowing
) -> None:
    root = quick_root
    overflowing.hold()
    made = {handle() for _ in range(int(QUEUE.read_text()) + 500)}
    for number, name in enumerate(made):
        os.mknod(root / f"{number % 4:02x}" / name)
    in_new_shard = make(root / "ff/00")
    overflowing.process.send_signal(signal.SIGCONT)
    wait_until(overflowing.overflowed)
    assert len(overflowing.missed) == 1
    assert "overflowed" in overflowing.missed[0]
    assert made - overflowing.names  # without the words they were unknown in silence
    later = [make(root / "03"), make(root / "ff/00"), make(root / "fe/00")]
    wait_until(lambda: overflowing.told(*later))
    assert overflowing.names <= {*made, *later, in_new_shard}
    assert len(overflowing.missed) == 1
    _, errors = overflowing.process.communicate(timeout=PATIENCE)
    assert errors == ""
    assert overflowing.process.returncode == 0


def test_an_overflow_is_said_only_when_all_is_watched_again(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watch(root)
    said = []
    real = inotify_c.InotifyFD.handle_event

    def handle_event(self: inotify_c.InotifyFD, event: inotify_c.InotifyEvent) -> None:
        real(self, event)
        said.append(watcher.missed())

    monkeypatch.setattr(inotify_c.InotifyFD, "handle_event", handle_event)
    assert watcher._reading is not None
    overflow = inotify_c.InotifyConstants.IN_Q_OVERFLOW
    watcher._reading.handle_event(
        inotify_c.InotifyEvent(inotify_c.WatchDescriptor(-1), overflow, 0, b"")
    )
    assert said[0] is None
    assert "overflowed" in (watcher.missed() or "")
    assert watcher.missed() is None


def test_a_full_buffer_is_a_loss_that_is_said_and_ends(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "LIMIT", 3)
    watcher = watch(root)
    for _ in range(10):
        make(root)
    assert "waited to be taken" in loss(watcher)
    assert len(watcher.take()) == 3
    for _ in range(5):
        make(root.parent / "old/ab")
    (root.parent / "old/ab").rename(root / "ab")
    assert "waited to be taken" in loss(watcher)
    assert len(watcher.take()) == 3
    monkeypatch.setattr(watcher_module, "LIMIT", 100)
    told(watcher, make(root))


def test_a_name_told_while_others_are_taken_is_not_lost(root: Path) -> None:
    arrivals = Watcher(str(root), is_handle)._arrivals
    taken: list[str] = []

    class LateLock:
        """Lets another be first."""

        def __enter__(self) -> None:
            arrivals._lock = threading.Lock()
            taken.extend(arrivals.take()[0])

        def __exit__(self, *_: object) -> None:
            pass

    arrivals._lock = LateLock()  # type: ignore[assignment]
    arrivals.tell(name := handle())
    assert [*taken, *arrivals.take()[0]] == [name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOMEM])
def test_a_new_shard_that_cannot_be_watched_is_a_loss_and_a_failure(
    root: Path, watch: StartWatch, refuse: Callable[[Path, int], None], number: int
) -> None:
    watcher = watch(root)
    refuse(root / "ab", number)
    (root / "ab").mkdir()
    wait_until(lambda: watcher.failure() is not None)
    assert str(root / "ab") in (watcher.failure() or "")
    assert str(root / "ab") in (watcher.missed() or "")
    assert watcher.missed() is None


def test_a_shard_that_is_gone_before_it_is_watched_is_no_loss(
    root: Path, watch: StartWatch, refuse: Callable[[Path, int], None]
) -> None:
    watcher = watch(root)
    refuse(root / "ab", errno.ENOENT)
    (root / "ab").mkdir()
    told_of_moves(watcher, root, root.parent)
    (root / "ab").rmdir()
    assert watcher.missed() is watcher.failure() is None


@pytest.mark.parametrize("hidden", [True, False])
def test_a_new_shard_that_watchdog_could_not_list_is_listed_or_a_loss(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch, *, hidden: bool
) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if os.fsdecode(path) == str(root / "ab") and (
            hidden or threading.current_thread().name == watcher_module._THREAD
        ):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path)

    watcher = watch(root)
    monkeypatch.setattr(os, "scandir", scandir)
    name = make(root.parent / "new/ab")
    (root.parent / "new/ab").rename(root / "ab")
    if hidden:
        assert told_of_moves(watcher, root, root.parent) == []
        assert str(root / "ab") in (watcher.missed() or "")
    else:
        assert told(watcher, name) == [name]
        assert watcher.missed() is None
