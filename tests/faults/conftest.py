"""A session directory that can be set back to how it was, and is read by hand; disks of our own."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from filesession.stores import FileStore
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing import ManualClock
from filesession.testing.faults import CALLS, LISTING, LOCK, Act, SystemCall, SystemCalls

EVERY: Final = (*CALLS, LISTING, LOCK)
"""All that can fail."""

ROOT: Final = 0
NOBODY: Final = 65534

NEW_USERS: Final = 0x10000000
NEW_MOUNTS: Final = 0x00020000

PATIENCE: Final = 60
"""Seconds until a child that does not come to its end is killed."""

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

OLD: Final = {"n": 1}
NEW: Final = {"n": 2, "text": "x" * 300}
OTHER: Final = {"other": 1}
PLAIN, LONG, DUE, DAMAGED, LED, MOVED, THERE, FRESH, RANDOM = IDS = (
    *("id-plain", "id-long", "id-due", "id-damaged", "id-led", "id-moved"),
    *("id-there", "id-fresh", "id-random"),
)
BYSTANDER: Final = "id-bystander"
GRACE: Final = 5

Tree: TypeAlias = dict[str, tuple[bytes | None, int, int]]
"""Path below the directory: content (None: a directory), mode, and time of change in ns."""


def handle_of(sid: str) -> str:
    return hashlib.sha256(sid.encode()).hexdigest()[:32]


def tree_of(directory: str, below: str = "") -> Tree:
    """All that is in a directory."""
    found: Tree = {}
    with os.scandir(os.path.join(directory, below)) as listing:
        for entry in listing:
            path, status = os.path.join(below, entry.name), entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                found[path] = (None, status.st_mode, 0)
                found |= tree_of(directory, path)
            else:
                descriptor = os.open(entry.path, os.O_RDONLY)
                content = os.read(descriptor, status.st_size + 1)
                os.close(descriptor)
                found[path] = (content, status.st_mode, status.st_mtime_ns)
    return found


def data_in(content: bytes, name: str) -> Any:
    """The data in the last whole line of a session's file, as the README says; None: there is none.

    A reader of its own, so that no load is proved with a load.
    """
    for line in reversed(content.split(b"\n")[:-1]):
        if line[:8] == b"%08x" % zlib.crc32(name.encode() + line[9:]):
            return json.loads(line[9:])["data"]
    return None


class Ground:
    """A session directory that is set back to how it was after every fault.

    Attributes:
        directory: the session directory.
        ids: the ids of the sessions that tests speak of.
    """

    def __init__(self, directory: Path, ids: tuple[str, ...]) -> None:
        self.directory = directory
        self.ids = ids
        self._sid = {handle_of(sid): sid for sid in ids}
        self._kept: Tree = {}

    def tree(self) -> Tree:
        return tree_of(str(self.directory))

    def keep(self) -> None:
        """Remember what there is now."""
        self._kept = self.tree()

    def restore(self) -> None:
        """Have it again as it was when it was kept."""
        now = self.tree()
        for path in sorted(now.keys() - self._kept.keys(), reverse=True):
            target = self.directory / path
            target.rmdir() if now[path][0] is None else target.unlink()
        for path, (content, mode, mtime) in sorted(self._kept.items()):
            if now.get(path) == (content, mode, mtime):
                continue
            target = self.directory / path
            if content is None:
                target.mkdir(exist_ok=True)
            else:
                target.unlink(missing_ok=True)
                target.write_bytes(content)
                os.utime(target, ns=(mtime, mtime))
            target.chmod(mode & 0o7777)

    def sessions(self, tree: Tree) -> dict[str, Any]:
        """The data of every stored session, by its id; by its handle, if we do not know its id."""
        found = {}
        for path, (content, _, _) in tree.items():
            name = os.path.basename(path)
            if content is not None and path.startswith("sessions/") and not name.startswith("."):
                data = data_in(content, name)
                if data is not None:
                    found[self._sid.get(name, name)] = data
        return found

    def live(self, tree: Tree | None = None) -> dict[str, Any]:
        """``sessions`` but for the one that has ended, which may go at any time."""
        found = self.sessions(self.tree() if tree is None else tree)
        return {sid: data for sid, data in found.items() if (sid, data) != (DUE, OLD)}

    def temporary(self, tree: Tree) -> set[str]:
        """What writers have left over: temporary files, and session files that hold no session."""
        return {
            path
            for path, (content, _, _) in tree.items()
            if path.endswith(".tmp") or (path.startswith("sessions/") and content == b"")
        }

    def is_free(self, sid: str) -> bool:
        """Whether another could take the lock of a session's file, if there is one."""
        handle = handle_of(sid)
        try:
            descriptor = os.open(
                self.directory / "sessions" / handle[:2] / handle, os.O_RDWR | os.O_CLOEXEC
            )
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True


def descriptors() -> set[str]:
    """The open files of this process."""
    return set(os.listdir("/proc/self/fd"))


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Fails when a file that was opened inside stays open."""
    before = descriptors()
    yield
    assert descriptors() == before


def error_of(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@dataclass(frozen=True)
class Fault:
    """What is to happen at the ``nth`` call, and with ``sticky`` at all from there on.

    Attributes:
        code: the error's; None: an interruption.
        second: another call that it happens to.
    """

    code: int | None
    nth: int
    sticky: bool = False
    second: int | None = None

    def act(self, call: SystemCall) -> Any:
        met = call.number in (self.nth, self.second) or (self.sticky and call.number > self.nth)
        if met and (call.name, self.code) != (LOCK, errno.EACCES):
            raise KeyboardInterrupt if self.code is None else error_of(self.code)
        return call.make()


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        fault: what happened to it.
        at: the name of the system call; None: it made fewer, and was let be.
        calls: the names of all it made.
        gave: its result.
        error: what it raised.
    """

    fault: Fault
    at: str | None
    calls: list[str]
    gave: Any
    error: BaseException | None

    def __str__(self) -> str:
        code = "interrupt" if self.fault.code is None else errno.errorcode[self.fault.code]
        sticky = " and on" if self.fault.sticky else f" and {self.fault.second}"
        return f"{code} at call {self.fault.nth} ({self.at}){sticky}: {self.gave!r} {self.error!r}"


def outcome_of(call: Callable[[], Any], fault: Fault) -> Outcome:
    """Make a call with a fault; nothing is left open by it."""
    gave, error = None, None
    before = descriptors()
    with SystemCalls(fault.act, only=EVERY) as calls:
        try:
            gave = call()
        except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - to be judged
            error = raised
    names = calls.names()
    at = names[fault.nth - 1] if len(names) >= fault.nth else None
    outcome = Outcome(fault, at, names, gave, error)
    assert descriptors() == before, outcome
    return outcome


def refusing(code: int, *paths: Path) -> Act:
    """An act: every call on one of these paths fails, as on a bad block."""
    names = {str(path) for path in paths}

    def act(call: SystemCall) -> Any:
        if call.arguments and str(call.arguments[0]) in names:
            raise error_of(code)
        return call.make()

    return act


@dataclass(frozen=True)
class Disk:
    """A small file system of its own, mounted for one test."""

    path: Path

    def fill(self, *, leaving: int = 0) -> Path:
        """Take all room but so many bytes, as some other program does; gives the file to remove."""
        path = self.path / "somebody's"
        with path.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        os.truncate(path, max(0, path.stat().st_size - leaving))
        return path

    def remount(self, option: str) -> None:
        """Have it read-only ("ro") or not ("rw") from here on."""
        subprocess.run(["mount", "-o", f"remount,bind,{option}", str(self.path)], check=True)

    @contextmanager
    def shown_at(self, path: Path) -> Iterator[None]:
        """Inside, what lies at ``path`` is hidden by this disk, as by one mounted there."""
        subprocess.run(["mount", "--bind", str(self.path), str(path)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


def mounted(path: Path, options: str) -> bool:
    """Whether a small file system could be mounted there."""
    command = ["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "none", str(path)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    """Mounts a file system in memory, with these options, for the time of the test."""
    made: list[Path] = []

    def make(options: str) -> Disk:
        path = tmp_path / f"disk-{len(made)}"
        path.mkdir()
        if not mounted(path, options):
            pytest.skip("needs to mount: root, or user namespaces (unshare -Urm)")
        made.append(path)
        return Disk(path)

    yield make
    for path in made:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def in_child(call: Callable[[], object], *, as_nobody: bool = False) -> None:
    """Make a call in a forked child, which has its own limits and user; it fails here as there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = b""
        signal.alarm(PATIENCE)
        try:
            os.close(reading)
            if as_nobody and os.geteuid() == ROOT:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            call()
        except BaseException as error:  # noqa: BLE001 - told to the parent
            told = "".join(traceback.format_exception(error)).encode()
        finally:
            os.write(writing, told[-4000:])
            os._exit(bool(told))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        failure = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, failure or status


def leave_for_own_mounts() -> None:
    """Have this process, and no other, see what it mounts from here on; it may, as root there."""
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_USERS | NEW_MOUNTS):
        raise error_of(ctypes.get_errno())
    for name, content in (
        ("setgroups", "deny"),
        ("uid_map", f"{ROOT} {user} 1"),
        ("gid_map", f"{ROOT} {group} 1"),
    ):
        Path("/proc/self", name).write_text(content)


def mount_once() -> None:
    """Raises when a file system cannot be mounted."""
    path = Path(tempfile.mkdtemp(prefix="filesession-"))
    try:
        assert mounted(path, "size=64k")
        subprocess.run(["umount", str(path)], check=True)
    finally:
        path.rmdir()


def mount_apart() -> None:
    leave_for_own_mounts()
    mount_once()


@functools.cache
def is_able(call: Callable[[], None]) -> bool:
    """Whether a child can do that."""
    try:
        in_child(call)
    except AssertionError:
        return False
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that mounts is run by who may not in a child with mounts of its own."""
    if "make_disk" not in pyfuncitem.fixturenames or is_able(mount_once):
        return None
    if not is_able(mount_apart):
        return None  # the fixture says what is missing

    def apart() -> None:
        leave_for_own_mounts()
        names = pyfuncitem._fixtureinfo.argnames
        pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})

    in_child(apart)
    return True


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory where the disk is waited for in no time, if there is one."""
    fast = "/dev/shm"
    usable = os.path.isdir(fast) and os.access(fast, os.W_OK)
    path = Path(tempfile.mkdtemp(prefix="filesession-", dir=fast if usable else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ground(memory: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """Sessions in every condition that a verb may find one in."""
    for module in ("reaper", "sessionfile"):  # what lies about is nobody's work in progress
        monkeypatch.setattr(f"filesession.stores.file.{module}.YOUNG", -1.0)
    monkeypatch.setattr("filesession.stores.file.store.new_id", lambda: RANDOM)
    ground = Ground(memory / "sessions", (*IDS, BYSTANDER))
    store = FileStore(ground.directory, clock=clock, regenerate_grace=GRACE)
    store.create(OLD, sid=DUE)
    clock.advance(2000)
    for sid, data in ((PLAIN, OLD), (LONG, OLD), (BYSTANDER, OTHER), (LED, OLD)):
        store.create(data, sid=sid)
    store.save(LONG, {"text": "x" * (LONGEST_JOURNAL - 600)})
    store.save(LONG, OLD)
    clock.advance(100)
    store.regenerate(LED, new_sid=MOVED)
    for sid in (THERE, RANDOM, DAMAGED):
        store.create(sid=sid)
        store.delete(sid)
    damaged = ground.directory / "sessions" / handle_of(DAMAGED)[:2] / handle_of(DAMAGED)
    damaged.write_bytes(b"no session\n")
    damaged.chmod(0o600)
    ground.keep()
    return ground
