"""The watcher with the kernel's own events: what it tells, how it starts and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c

from filesession.janitor import watcher as watcher_module
from filesession.janitor.watcher import Watcher
from filesession.stores.file.layout import is_handle
from filesession.stores.file.store import FileStore
from tests.janitor.watching import (
    StartWatch,
    _numbers,
    descriptor_of,
    handle,
    kernel_watches,
    make,
    threads,
    told,
    told_of_moves,
)
from tests.waiting import PATIENCE, wait_until


@pytest.mark.parametrize("shard", ["", "ab", "ab/cd", "ab/cd/ef"])
def test_a_session_is_told_at_every_depth_in_old_and_new_shards(
    root: Path, watch: StartWatch, shard: str
) -> None:
    before = make(root / shard)
    watcher = watch(root)
    names = [make(root / shard), make(root / shard), make(root / shard.replace("c", "0") / "00")]
    found = told(watcher, *names)
    assert sorted(found) == names
    assert before not in found
    assert watcher.missed() is watcher.failure() is None


def test_names_are_told_in_order_and_each_once(root: Path, watch: StartWatch) -> None:
    watcher = watch(root)
    names = [make(root) for _ in range(100)]
    (root / names[0]).unlink()
    make(root, names[0])
    marker = make(root)
    wait_until(lambda: marker in watcher._arrivals._names)
    assert watcher.take() == [*names, marker]
    assert watcher.take() == []


def test_what_is_no_session_is_not_told(root: Path, watch: StartWatch) -> None:
    watcher = watch(root)
    make(root, ".0123.45.tmp")
    make(root, "notes")
    (root / handle()).mkdir()
    (root / "ab").mkdir()
    assert told_of_moves(watcher, root, root.parent) == []


def test_a_session_that_is_replaced_is_not_new_but_one_with_a_new_handle_is(
    root: Path, watch: StartWatch
) -> None:
    old, new, outside, linked = handle(), handle(), handle(), handle()
    shard = root / "ab"
    make(shard, old)
    make(root.parent, outside)
    watcher = watch(root)
    temporary = shard / f".{old}.0f.tmp"
    temporary.touch()
    temporary.rename(shard / old)
    assert told_of_moves(watcher, root, root.parent) == []
    (shard / old).rename(shard / new)
    assert told(watcher, new) == [new]
    (root.parent / outside).rename(shard / outside)
    assert told(watcher, outside) == [outside]
    os.link(shard / outside, shard / linked)
    assert told(watcher, linked) == [linked]


def test_a_shard_that_is_moved_in_brings_its_sessions_and_is_watched(
    root: Path, watch: StartWatch
) -> None:
    names = {make(root.parent / "old/ab"), make(root.parent / "old/ab/cd")}
    watcher = watch(root)
    (root.parent / "old/ab").rename(root / "ab")
    assert set(told(watcher, *names)) == names
    (root / "ab").rename(root / "ef")
    later = make(root / "ef/cd")
    told(watcher, later)
    assert watcher.failure() is None


def test_saves_and_touches_raise_no_events(
    tmp_path: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "store", idle_timeout=100, touch_interval=0)
    store.create({"n": 0}, sid="sid")
    seen: list[int] = []
    real = inotify_c.InotifyFD.read_events

    def read(self: inotify_c.InotifyFD, **options: Any) -> list[inotify_c.InotifyEvent]:
        events = real(self, **options)
        seen.extend(event.mask for event in events)
        return events

    monkeypatch.setattr(inotify_c.InotifyFD, "read_events", read)
    watcher = watch(tmp_path / "store/sessions")
    for n in range(50):
        store.save("sid", {"n": n})
        store.touch("sid")
        store.load("sid")
    told(watcher, make(tmp_path / "store/sessions"))
    assert seen == [inotify_c.InotifyConstants.IN_CREATE]
    constants = inotify_c.InotifyConstants
    asked = constants.IN_CREATE | constants.IN_MOVE | constants.IN_DELETE_SELF
    flags = constants.IN_DONT_FOLLOW | 0x08000000  # the kernel's own
    for line in kernel_watches(watcher):
        assert not int(line.split("mask:")[1].split()[0], 16) & ~(asked | flags)


def test_new_sessions_go_through_no_queue_without_bounds(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_on: list[inotify_c.InotifyEvent] = []
    (root / "ab").mkdir()
    watcher = watch(root)
    monkeypatch.setattr(
        inotify_c.InotifyFD, "handle_event", lambda _, event: passed_on.append(event)
    )
    names = [make(root / "ab") for _ in range(100)]
    assert told(watcher, *names) == names
    assert passed_on == []


MAKING = """
import os, sys
root, first, depth, rounds = sys.argv[1], *map(int, sys.argv[2:])
for number in range(first, first + rounds):
    shard = os.path.join(root, *[f"{number >> 8 * level & 255:02x}" for level in range(depth)])
    os.makedirs(shard, exist_ok=True)
    os.close(os.open(f"{shard}/{number:032x}", os.O_CREAT | os.O_WRONLY))
"""
ROUNDS = 800


@pytest.fixture
def making() -> Iterator[Callable[[Path, int], subprocess.Popen[bytes]]]:
    """Starts a process that makes shards with a session in each as fast as it can."""
    started: list[subprocess.Popen[bytes]] = []

    def making(root: Path, depth: int) -> subprocess.Popen[bytes]:
        first = next(_numbers) << 64
        code = [sys.executable, "-I", "-S", "-c", MAKING, str(root), str(first)]
        started.append(subprocess.Popen([*code, str(depth), str(ROUNDS)]))
        return started[-1]

    yield making
    for process in started:
        process.kill()
        process.wait(PATIENCE)


def all_known(watcher: Watcher, names: set[str]) -> Callable[[], bool]:
    def known() -> bool:
        names.update(watcher.take())
        assert watcher.missed() is watcher.failure() is None
        return len(names) == ROUNDS

    return known


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_session_in_a_shard_made_just_before_is_lost(
    quick_root: Path,
    watch: StartWatch,
    making: Callable[[Path, int], subprocess.Popen[bytes]],
    depth: int,
) -> None:
    watcher = watch(quick_root)
    process = making(quick_root, depth)
    names: set[str] = set()
    wait_until(all_known(watcher, names))
    assert process.wait(PATIENCE) == 0


def test_a_directory_that_is_added_twice_is_watched_once(root: Path, watch: StartWatch) -> None:
    (root / "ab").mkdir()
    watcher = watch(root)
    assert watcher._reading is not None
    watches = watcher._reading._watch_for_wd
    group = next(iter(next(iter(watches.values())).callbacks.values()))
    mask = inotify_c.InotifyConstants.IN_CREATE
    for _ in range(2):
        watcher._reading.add_callback(
            os.fsencode(root / "ab"), mask, group, inotify_c.CallbackId(id(group))
        )
    assert [len(one.callbacks) for one in watches.values()] == [1, 1]
    assert len(watcher._reading.registered) == len(kernel_watches(watcher)) == 2


def test_no_session_made_while_it_starts_is_lost(
    quick_root: Path, watch: StartWatch, making: Callable[[Path, int], subprocess.Popen[bytes]]
) -> None:
    process = making(quick_root, 2)
    watchers: list[tuple[Watcher, set[str]]] = []
    while process.poll() is None and len(watchers) < 20:
        watcher = watch(quick_root)
        there = {path.name for path in quick_root.rglob("*") if is_handle(path.name)}
        watchers.append((watcher, there))
    assert len(watchers) > 1
    for watcher, names in watchers:
        wait_until(all_known(watcher, names))


def test_a_watcher_that_was_stopped_leaves_nothing_open_and_nothing_running(
    root: Path, watch: StartWatch
) -> None:
    make(root / "ab")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        watcher = watch(root)
        assert [thread.daemon for thread in threads()] == [True] * 3
        assert not os.get_inheritable(descriptor_of(watcher))
        waiting = make(root)
        wait_until(partial(watcher._arrivals._names.__contains__, waiting))
        watcher.stop()
        assert not threads()
        watcher.stop()
        assert watcher.take() == [waiting]
        assert watcher.failure() == "it is not running"
    assert os.listdir("/proc/self/fd") == before
    Watcher(str(root), is_handle).stop()


def test_stopping_does_not_wait_for_ever_for_a_thread_that_hangs(
    root: Path, watch: StartWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang, hanging = threading.Event(), threading.Event()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if threading.current_thread().name == watcher_module._THREAD:
            hanging.set()
            assert hang.wait(PATIENCE)
        return real(path)

    watcher = watch(root)
    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(watcher_module, "_PATIENCE", 0.05)
    (root / "ab").mkdir()
    assert hanging.wait(PATIENCE)
    watcher.stop()
    assert threads()
    hang.set()
    wait_until(lambda: not threads())


def test_two_watchers_in_one_process_have_nothing_to_do_with_each_other(
    root: Path, tmp_path: Path, watch: StartWatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    first, second = watch(root), watch(other)
    here, there = make(root), make(other)
    assert told(first, here) == [here]
    assert told(second, there) == [there]
    first.stop()
    there = make(other)
    assert told(second, there) == [there]
    assert second.failure() is None


FORKING = """
import os, select, signal, sys
from filesession.janitor.watcher import Watcher
from filesession.stores.file.layout import is_handle
from tests.janitor.watching import told
root, old, new = sys.argv[1:]
watcher = Watcher(root, is_handle)
watcher.start()
open(f"{root}/ab/{old}", "w").close()
descriptors = [watcher._reading._inotify_fd, watcher._reading._kill_r, watcher._reading._kill_w]
watcher._arrivals._lock.acquire()  # as one of its threads may have at that moment
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    code = 1
    try:
        for descriptor in descriptors:
            try:
                os.fstat(descriptor)
            except OSError:
                continue
            raise AssertionError("a copy is open")
        other = os.open(f"{root}/other", os.O_RDWR | os.O_CREAT)
        for descriptor in set(descriptors) - {other}:
            os.dup2(other, descriptor)  # the numbers are another's by now
        assert watcher.failure() is not None
        assert watcher.take() == [] and watcher.missed() is None
        watcher.stop()
        assert os.fstat(other).st_size == 0
        assert watcher.take() == []
        anew = Watcher(root, is_handle)
        anew.start()
        open(f"{root}/ab/{new}", "w").close()
        told(anew, new)
        assert anew.failure() is None
        anew.stop()
        code = 0
    finally:
        os._exit(code)
watcher._arrivals._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
told(watcher, old, new)
assert watcher.failure() is None and watcher.missed() is None
assert select.select(descriptors[1:2], [], [], 0)[0] == []  # nobody told it to end
with open(f"/proc/self/fdinfo/{descriptors[0]}") as lines:
    assert sum(line.startswith("inotify wd:") for line in lines) == 2
watcher.stop()
"""


def test_a_forked_child_watches_anew_and_takes_nothing_from_its_parent(root: Path) -> None:
    (root / "ab").mkdir()
    code = [sys.executable, "-c", FORKING, str(root), handle(), handle()]
    run = subprocess.run(code, capture_output=True, text=True, check=False, timeout=3 * PATIENCE)
    assert run.returncode == 0, run.stderr


def test_a_root_behind_a_link_is_watched_where_it_leads(root: Path, watch: StartWatch) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    watcher = watch(link)
    names = [make(root), make(root / "ab")]
    assert sorted(told(watcher, *names)) == names
    assert watcher.failure() is None
