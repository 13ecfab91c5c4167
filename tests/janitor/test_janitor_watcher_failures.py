"""A watcher that cannot start, or works no more, says so: faults at inotify's own boundary."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from watchdog.observers import inotify_c

from filesession.janitor import watcher as watcher_module
from filesession.janitor.watcher import EventsUnavailable
from tests.janitor.watching import StartWatch, descriptor_of, kernel_watches, make, threads, told
from tests.waiting import PATIENCE, wait_until

SCARCE = """
import os, resource, sys
from filesession.janitor.watcher import EventsUnavailable, Watcher
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

def opened():
    return os.listdir("/proc/self/fd")

before = opened()
first = max(map(int, before))  # that of the listing, closed by now
words = []
for more in range(8):
    watcher = Watcher(sys.argv[1], str.isalnum)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + more, hard))
    try:
        watcher.start()
    except EventsUnavailable as error:
        words.append(str(error))
    else:
        assert watcher.failure() is None
        watcher.stop()
        words.append("")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert opened() == before, (more, opened(), before)
print(*words, sep="|")
"""


def test_too_few_descriptors_are_said_wherever_they_run_out_and_none_is_lost(root: Path) -> None:
    make(root / "ab")
    code = [sys.executable, "-W", "error", "-c", SCARCE, str(root)]
    run = subprocess.run(code, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr
    words = run.stdout.rstrip("\n").split("|")
    refused = [line for line in words if line]
    assert len(refused) >= 4  # an instance, a pipe's two ends, a listing
    assert all("limit of open files" in line for line in refused)
    assert words[-1] == ""


@pytest.mark.parametrize(
    ("number", "mending"), [(errno.EMFILE, "max_user_instances"), (errno.ENOSYS, "no inotify")]
)
def test_no_inotify_instance_is_said_with_what_would_mend_it(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch, number: int, mending: str
) -> None:
    def inotify_init() -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(inotify_c, "inotify_init", inotify_init)
    with pytest.raises(EventsUnavailable, match=mending):
        watch(root)


def test_no_more_threads_are_said_and_leave_nothing_open(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start
    before = os.listdir("/proc/self/fd")
    for allowed in range(3):
        left = itertools.count(1 - allowed)

        def start(self: threading.Thread, left: Iterator[int] = left) -> None:
            if next(left) > 0:
                msg = "can't start new thread"
                raise RuntimeError(msg)
            real(self)

        with monkeypatch.context() as scarce:
            scarce.setattr(threading.Thread, "start", start)
            with pytest.raises(EventsUnavailable, match="can't start new thread"):
                watch(root)
        assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("shard", ["", "ab", "ab/cd"])
def test_a_directory_that_cannot_be_watched_at_the_start_is_said(
    root: Path, watch: StartWatch, refuse: Callable[[Path, int], None], shard: str
) -> None:
    (root / "ab/cd").mkdir(parents=True)
    refuse(root / shard, errno.ENOSPC)
    with pytest.raises(EventsUnavailable, match="max_user_watches") as caught:
        watch(root)
    assert str(root / shard) in str(caught.value)
    assert not threads()


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_directory_is_said(root: Path, watch: StartWatch, kind: str) -> None:
    if kind == "file":
        (root / kind).touch()
    with pytest.raises(EventsUnavailable, match=str(root / kind)):
        watch(root / kind)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_root_that_is_gone_or_another_is_a_failure(
    root: Path, watch: StartWatch, *, replaced: bool
) -> None:
    watcher = watch(root)
    root.rename(root.parent / "old")
    if replaced:
        root.mkdir()
    assert ("replaced" if replaced else "No such file") in (watcher.failure() or "")


def test_a_root_that_was_removed_and_made_again_is_a_failure(root: Path, watch: StartWatch) -> None:
    watcher = watch(root)
    root.rmdir()
    root.mkdir()  # it may get the same inode
    wait_until(lambda: watcher.failure() is not None)


@pytest.mark.parametrize("name", ["reading", "emitting", "observing"])
def test_a_thread_that_ended_is_a_failure(root: Path, watch: StartWatch, name: str) -> None:
    watcher = watch(root)
    assert watcher._observer is not None
    assert watcher._reading is not None
    (emitter,) = watcher._observer.emitters
    ending = {"reading": watcher._reading, "emitting": emitter, "observing": watcher._observer}
    ending[name].stop()
    wait_until(lambda: watcher.failure() == "a thread of it has ended")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_fewer_watches_than_directories_are_a_failure_when_it_lasts(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    now = [0.0]
    monkeypatch.setattr(watcher_module, "monotonic", lambda: now[0])
    make(root / "ab/cd/ef"[: 3 * depth - 1])
    watcher = watch(root)
    last = kernel_watches(watcher)[0]  # the newest is listed first
    number = inotify_c.WatchDescriptor(int(last.split()[1].partition(":")[2]))
    assert inotify_c.inotify_rm_watch(descriptor_of(watcher), number) == 0
    told(watcher, make(root))
    assert watcher.failure() is None
    now[0] += watcher_module._GRACE
    assert watcher.failure() == f"only {depth} of {depth + 1} directories are watched"


def test_directories_are_counted_only_when_something_changed_or_a_minute_has_passed(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    counted: list[int] = []
    real = watcher_module._directories
    monkeypatch.setattr(watcher_module, "monotonic", lambda: now[0])

    def count(path: str, level: int) -> int:
        counted.append(level)
        return real(path, level)

    monkeypatch.setattr(watcher_module, "_directories", count)
    make(root / "ab/cd")
    watcher = watch(root)

    def counts() -> int:
        for _ in range(3):
            assert watcher.failure() is None
        tops = counted.count(1)
        counted.clear()
        return tops

    assert counts() == 1  # at the start
    told(watcher, make(root / "ab/cd"))
    assert counts() == 0
    now[0] += watcher_module._RECOUNT
    assert counts() == 1
    told(watcher, make(root / "ab/ef"))
    assert counts() == 1
    (root / "ab/00").mkdir()
    wait_until(lambda: watcher._arrivals.stirred)
    assert counts() == 1


def test_counting_passes_over_strays_but_does_not_list_sessions(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        make(root / "ab", f"{number:032x}")
    (root / "cd/ef").mkdir(parents=True)
    for number in range(10):
        make(root, f"stray{number}")
    assert watcher_module._directories(str(root), 1) == 3
    seen: list[str] = []
    real = os.scandir

    @contextmanager
    def scandir(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with real(path) as entries:
            yield (seen.append(entry.name) or entry for entry in entries)  # type: ignore[func-returns-value]

    monkeypatch.setattr(os, "scandir", scandir)
    assert watcher_module._directories(str(root / "ab"), 2) == 0  # as where links are not counted
    assert len(seen) == watcher_module._STRAYS + 1
