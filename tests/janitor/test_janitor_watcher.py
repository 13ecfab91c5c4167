"""The watcher on real directories and the kernel's real events; faults at inotify's own boundary.

Events come by two ways (a new file's by a short one), so a test that waits for a thing that must
not be told waits for a later one that goes by the same way.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c

from filesession.janitor import watcher as module
from filesession.janitor.watcher import EventsUnavailable, Watcher, doubt
from filesession.stores.file.layout import is_handle
from filesession.stores.file.store import FileStore
from tests.waiting import wait_until

PATIENCE = 30
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
Watch = Callable[[Path], Watcher]

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
    return [thread for thread in threading.enumerate() if thread.name == module._THREAD]


def descriptor_of(watcher: Watcher) -> int:
    assert watcher._reading is not None
    return watcher._reading._inotify_fd


def kernel_watches(watcher: Watcher) -> list[str]:
    lines = Path(f"/proc/self/fdinfo/{descriptor_of(watcher)}").read_text().splitlines()
    return [line for line in lines if line.startswith("inotify wd:")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "sessions"
    root.mkdir()
    return root


@pytest.fixture
def quick_root() -> Iterator[Path]:
    """In memory where there is such a file system: making many files is not what is tested."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="filesession-", dir=memory))
    yield root
    shutil.rmtree(root)


@pytest.fixture
def watch() -> Iterator[Watch]:
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


@pytest.mark.parametrize("shard", ["", "ab", "ab/cd", "ab/cd/ef"])
def test_a_session_is_told_at_every_depth_in_old_and_new_shards(
    root: Path, watch: Watch, shard: str
) -> None:
    before = make(root / shard)
    watcher = watch(root)
    names = [make(root / shard), make(root / shard), make(root / shard.replace("c", "0") / "00")]
    found = told(watcher, *names)
    assert sorted(found) == names
    assert before not in found
    assert watcher.missed() is watcher.failure() is None


def test_names_are_told_in_order_and_each_once(root: Path, watch: Watch) -> None:
    watcher = watch(root)
    names = [make(root) for _ in range(100)]
    (root / names[0]).unlink()
    make(root, names[0])
    marker = make(root)
    wait_until(lambda: marker in watcher._arrivals._names)
    assert watcher.take() == [*names, marker]
    assert watcher.take() == []


def test_what_is_no_session_is_not_told(root: Path, watch: Watch) -> None:
    watcher = watch(root)
    make(root, ".0123.45.tmp")
    make(root, "notes")
    (root / handle()).mkdir()
    (root / "ab").mkdir()
    assert told_of_moves(watcher, root, root.parent) == []


def test_a_session_that_is_replaced_is_not_new_but_one_with_a_new_handle_is(
    root: Path, watch: Watch
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
    root: Path, watch: Watch
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
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
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
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
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
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
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
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 3)
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
    monkeypatch.setattr(module, "LIMIT", 100)
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
    watch: Watch,
    making: Callable[[Path, int], subprocess.Popen[bytes]],
    depth: int,
) -> None:
    watcher = watch(quick_root)
    process = making(quick_root, depth)
    names: set[str] = set()
    wait_until(all_known(watcher, names))
    assert process.wait(PATIENCE) == 0


def test_a_directory_that_is_added_twice_is_watched_once(root: Path, watch: Watch) -> None:
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
    quick_root: Path, watch: Watch, making: Callable[[Path, int], subprocess.Popen[bytes]]
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
    root: Path, watch: Watch
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
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang, hanging = threading.Event(), threading.Event()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if threading.current_thread().name == module._THREAD:
            hanging.set()
            assert hang.wait(PATIENCE)
        return real(path)

    watcher = watch(root)
    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    (root / "ab").mkdir()
    assert hanging.wait(PATIENCE)
    watcher.stop()
    assert threads()
    hang.set()
    wait_until(lambda: not threads())


def test_two_watchers_in_one_process_have_nothing_to_do_with_each_other(
    root: Path, tmp_path: Path, watch: Watch
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
from tests.waiting import wait_until
root, old, new = sys.argv[1:]

def told(watcher, *wanted):
    names = set()
    wait_until(lambda: names.update(watcher.take()) or names >= set(wanted))

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
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, number: int, mending: str
) -> None:
    def inotify_init() -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(inotify_c, "inotify_init", inotify_init)
    with pytest.raises(EventsUnavailable, match=mending):
        watch(root)


def test_no_more_threads_are_said_and_leave_nothing_open(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
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
    root: Path, watch: Watch, refuse: Callable[[Path, int], None], shard: str
) -> None:
    (root / "ab/cd").mkdir(parents=True)
    refuse(root / shard, errno.ENOSPC)
    with pytest.raises(EventsUnavailable, match="max_user_watches") as caught:
        watch(root)
    assert str(root / shard) in str(caught.value)
    assert not threads()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOMEM])
def test_a_new_shard_that_cannot_be_watched_is_a_loss_and_a_failure(
    root: Path, watch: Watch, refuse: Callable[[Path, int], None], number: int
) -> None:
    watcher = watch(root)
    refuse(root / "ab", number)
    (root / "ab").mkdir()
    wait_until(lambda: watcher.failure() is not None)
    assert str(root / "ab") in (watcher.failure() or "")
    assert str(root / "ab") in (watcher.missed() or "")
    assert watcher.missed() is None


def test_a_shard_that_is_gone_before_it_is_watched_is_no_loss(
    root: Path, watch: Watch, refuse: Callable[[Path, int], None]
) -> None:
    watcher = watch(root)
    refuse(root / "ab", errno.ENOENT)
    (root / "ab").mkdir()
    told_of_moves(watcher, root, root.parent)
    (root / "ab").rmdir()
    assert watcher.missed() is watcher.failure() is None


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_directory_is_said(root: Path, watch: Watch, kind: str) -> None:
    if kind == "file":
        (root / kind).touch()
    with pytest.raises(EventsUnavailable, match=str(root / kind)):
        watch(root / kind)


def test_a_root_behind_a_link_is_watched_where_it_leads(root: Path, watch: Watch) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    watcher = watch(link)
    names = [make(root), make(root / "ab")]
    assert sorted(told(watcher, *names)) == names
    assert watcher.failure() is None


@pytest.mark.parametrize("replaced", [False, True])
def test_a_root_that_is_gone_or_another_is_a_failure(
    root: Path, watch: Watch, *, replaced: bool
) -> None:
    watcher = watch(root)
    root.rename(root.parent / "old")
    if replaced:
        root.mkdir()
    assert ("replaced" if replaced else "No such file") in (watcher.failure() or "")


def test_a_root_that_was_removed_and_made_again_is_a_failure(root: Path, watch: Watch) -> None:
    watcher = watch(root)
    root.rmdir()
    root.mkdir()  # it may get the same inode
    wait_until(lambda: watcher.failure() is not None)


@pytest.mark.parametrize("name", ["reading", "emitting", "observing"])
def test_a_thread_that_ended_is_a_failure(root: Path, watch: Watch, name: str) -> None:
    watcher = watch(root)
    assert watcher._observer is not None
    assert watcher._reading is not None
    (emitter,) = watcher._observer.emitters
    ending = {"reading": watcher._reading, "emitting": emitter, "observing": watcher._observer}
    ending[name].stop()
    wait_until(lambda: watcher.failure() == "a thread of it has ended")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_fewer_watches_than_directories_are_a_failure_when_it_lasts(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    now = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    make(root / "ab/cd/ef"[: 3 * depth - 1])
    watcher = watch(root)
    last = kernel_watches(watcher)[0]  # the newest is listed first
    number = inotify_c.WatchDescriptor(int(last.split()[1].partition(":")[2]))
    assert inotify_c.inotify_rm_watch(descriptor_of(watcher), number) == 0
    told(watcher, make(root))
    assert watcher.failure() is None
    now[0] += module._GRACE
    assert watcher.failure() == f"only {depth} of {depth + 1} directories are watched"


def test_directories_are_counted_only_when_something_changed_or_a_minute_has_passed(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    counted: list[int] = []
    real = module._directories
    monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def count(path: str, level: int) -> int:
        counted.append(level)
        return real(path, level)

    monkeypatch.setattr(module, "_directories", count)
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
    now[0] += module._RECOUNT
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
    assert module._directories(str(root), 1) == 3
    seen: list[str] = []
    real = os.scandir

    @contextmanager
    def scandir(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with real(path) as entries:
            yield (seen.append(entry.name) or entry for entry in entries)  # type: ignore[func-returns-value]

    monkeypatch.setattr(os, "scandir", scandir)
    assert module._directories(str(root / "ab"), 2) == 0  # as where links are not counted
    assert len(seen) == module._STRAYS + 1


@pytest.mark.parametrize("hidden", [True, False])
def test_a_new_shard_that_watchdog_could_not_list_is_listed_or_a_loss(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, *, hidden: bool
) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if os.fsdecode(path) == str(root / "ab") and (
            hidden or threading.current_thread().name == module._THREAD
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


MOUNTS = r"""21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:31 / /srv rw - nfs4 server:/srv rw
23 22 0:32 / /srv/local\040disk rw shared:2 master:3 - xfs /dev/sdb1 rw
24 21 0:33 / /host rw - 9p host rw
25 21 0:34 / /twice rw - tmpfs tmpfs rw
26 21 0:35 / /twice rw - fuse.sshfs me@there: rw
27 21 0:36 / /odd\134name rw - virtiofs shared rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib/sessions", None),
        ("/srv", "nfs4"),
        ("/srv/sessions", "nfs4"),
        ("/srvother", None),
        ("/srv/local disk/sessions", None),
        ("/srv/local", "nfs4"),
        ("/host/a/b", "9p"),
        ("/twice/a", "fuse.sshfs"),
        ("/odd\\name/a", "virtiofs"),
        ("/", None),
    ],
)
def test_a_file_system_that_others_change_is_doubted_by_its_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, kind: str | None
) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(module, "_MOUNTS", str(tmp_path / "mountinfo"))
    said = doubt(directory)
    assert said == (
        kind and f"it lies on {kind}, where changes made elsewhere raise no events here"
    )


@pytest.mark.parametrize("content", [None, "", "21 1 8:1\n"])
def test_mounts_that_cannot_be_read_are_a_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "mountinfo").write_text(content)
    monkeypatch.setattr(module, "_MOUNTS", str(tmp_path / "mountinfo"))
    assert "file system is not known" in (doubt("/srv") or "")


def test_a_system_without_inotify_is_a_doubt_and_starts_nothing(
    root: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert doubt(str(root)) == "darwin has no inotify"
    with pytest.raises(EventsUnavailable, match="no inotify"):
        watch(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_real_mount_is_found_behind_a_link_and_with_a_space_in_its_name(root: Path) -> None:
    mounted = root / "a b"
    mounted.mkdir()
    (root / "link").symlink_to(mounted)
    code = (
        "import sys; from filesession.janitor import watcher;"
        "watcher._REMOTE = {'ramfs'}; print(*map(watcher.doubt, sys.argv[1:]))"
    )
    script = 'mount -t ramfs ramfs "$1" && exec "$2" -c "$3" "$4" "$5"'
    run = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", script, "sh", str(mounted)),
            *(sys.executable, code, str(root / "link/sessions"), str(root)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert run.returncode == 0, run.stderr
    assert "it lies on ramfs" in run.stdout
    assert run.stdout.endswith(" None\n")
