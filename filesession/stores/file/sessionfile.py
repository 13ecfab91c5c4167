"""One session file: read without a lock, or held open with its lock to be changed.

Rules:

1. The lock is on the open file. What was opened by name may have been replaced or deleted before
   the lock came free, so the name is looked up again under the lock: another inode, and the file is
   opened anew; none, and the session is gone.
2. A file is replaced only under its lock, by one whose lock the same holder already has.
3. Only regular files are sessions. Anything else at a session's name is refused before it is read,
   and opening it never waits (a FIFO would).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from filesession import locks
from filesession.stores.entry import Entry
from filesession.stores.file.documents import sync_directory, write_all
from filesession.stores.file.journal import last_entry, seed_of
from filesession.stores.file.layout import Layout

LARGEST: Final = 1 << 26
"""Bytes, 64 MiB: what is larger was not written by us and is not read."""

_COMMON: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ: Final = os.O_RDONLY | _COMMON
_CHANGE: Final = os.O_RDWR | os.O_APPEND | _COMMON
_CREATE: Final = _CHANGE | os.O_CREAT | os.O_EXCL

_WRONG_KIND: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV})


class NotASessionError(Exception):
    """What lies at a session's name is no file that could hold one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session file as a reader found it.

    Attributes:
        entry: the session; None when the file holds no whole line.
        mtime: the touch mark, POSIX seconds; exactly the time it was set to, where by way of
            nanoseconds it would now and then be a moment later, and so in the future.
        size: bytes.
        clean: it ends where a line ends.
        changed: POSIX seconds of the last change of any kind, by the kernel's clock.
    """

    entry: Entry | None
    mtime: float
    size: int
    clean: bool
    changed: float


def read(path: str, handle: str) -> Snapshot | None:
    """The session file as it is; takes no lock and never waits for one. None: there is none.

    Raises:
        NotASessionError: something else lies there.
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _WRONG_KIND:
            raise NotASessionError from error
        raise
    try:
        return _snapshot(descriptor, handle)
    finally:
        os.close(descriptor)


def _snapshot(descriptor: int, handle: str) -> Snapshot:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
        raise NotASessionError
    content = os.pread(descriptor, status.st_size, 0)
    while len(content) < status.st_size:
        more = os.pread(descriptor, status.st_size - len(content), len(content))
        if not more:
            break  # cut short by its writer, whose write failed
        content += more
    entry = last_entry(content, seed_of(handle))
    clean = not content or content.endswith(b"\n")
    return Snapshot(entry, status.st_mtime, len(content), clean, status.st_ctime)


class SessionFile:
    """An open session file and its lock, until ``close``.

    After ``unlink`` or ``move_to`` the file is no longer the session of its old handle: ``handle``
    is None, or the new one.
    """

    __slots__ = ("_descriptor", "handle", "path")

    def __init__(self, descriptor: int, path: str, handle: str) -> None:
        self._descriptor = descriptor
        self.path = path
        self.handle: str | None = handle

    @classmethod
    def locked(cls, layout: Layout, handle: str, timeout: float) -> SessionFile | None:
        """Open a session's file and take its lock; None when there is no such file.

        Waits up to ``timeout`` seconds.

        Raises:
            LockTimeout: the lock did not come free.
            NotASessionError: something else lies there.
            OSError: it cannot be opened or locked.
        """
        path = layout.path(handle)
        while True:
            try:
                descriptor = os.open(path, _CHANGE)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in _WRONG_KIND:
                    raise NotASessionError from error
                raise
            try:
                locks.lock(descriptor, timeout, f"session {handle}")
                if is_named(descriptor, path):
                    return cls(descriptor, path, handle)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    @classmethod
    def created(cls, layout: Layout, handle: str, *, durable: bool) -> SessionFile:
        """Make a session's file, 0600 whatever the umask, empty and not locked.

        Raises:
            FileExistsError: the name is taken.
            StoreUnavailable: the session directory has vanished.
            OSError: it cannot be made.
        """
        path = layout.path(handle)
        try:
            descriptor = os.open(path, _CREATE, 0o600)
        except FileNotFoundError:
            layout.make_shard(path, durable=durable)
            descriptor = os.open(path, _CREATE, 0o600)
        file = cls(descriptor, path, handle)
        try:
            os.fchmod(descriptor, 0o600)
        except BaseException:
            file.discard()
            raise
        return file

    def snapshot(self) -> Snapshot:
        """What it holds now. Raises ``NotASessionError`` when that is no session's kind of file."""
        if self.handle is None:
            raise NotASessionError
        return _snapshot(self._descriptor, self.handle)

    def lock(self) -> bool:
        """Take the lock of a file just created; False when another already moved it away."""
        locks.lock(self._descriptor, locks.DEFAULT_TIMEOUT, f"session {self.handle}")
        return is_named(self._descriptor, self.path)

    def append(self, line: bytes, now: float, *, sync: bool, after: Snapshot | None = None) -> None:
        """Add a line in one write and set the touch mark; with ``sync``, wait for the disk.

        ``after`` is what it holds now, None for a file just created.

        Raises:
            OSError: it could not be written; the file is as it was, or ends in a part of a line,
                which every reader passes over.
        """
        if after is not None and not after.clean:
            line = b"\n" + line  # a tail that was cut short must not swallow ours
        try:
            write_all(self._descriptor, line)
            if sync:
                os.fdatasync(self._descriptor)
        except OSError:
            self._shorten(0 if after is None else after.size)
            raise
        self.touch(now)

    def _shorten(self, size: int) -> None:
        with suppress(OSError):  # the first failure is the one to tell; readers pass the tail over
            os.ftruncate(self._descriptor, size)

    def touch(self, now: float) -> None:
        """Set the touch mark: ``now`` as the modification time."""
        os.utime(self._descriptor, (now, now))

    def replace(self, layout: Layout, line: bytes, now: float, *, durable: bool) -> None:
        """Replace the whole file by one of that line; waits for the disk.

        The data is on the disk before the name points to it: a rename alone may survive a power cut
        that the data does not, and leave an empty file.

        Raises:
            OSError: the old file is intact.
        """
        assert self.handle is not None
        temporary = layout.temporary(self.path)
        new = SessionFile(os.open(temporary, _CREATE, 0o600), temporary, self.handle)
        try:
            os.fchmod(new._descriptor, 0o600)
            locks.try_lock(new._descriptor)
            write_all(new._descriptor, line)
            new.touch(now)
            os.fdatasync(new._descriptor)
            os.rename(temporary, self.path)
        except BaseException:
            new.discard()
            raise
        self._descriptor, old = new._descriptor, self._descriptor
        os.close(old)  # who waits for the lock of the old file finds it replaced
        if durable:
            sync_directory(os.path.dirname(self.path))

    def move_to(self, layout: Layout, handle: str, *, durable: bool) -> None:
        """Give the file the name of another handle. One step: it is never under both or neither."""
        path = layout.path(handle)
        try:
            os.rename(self.path, path)
        except FileNotFoundError:
            layout.make_shard(path, durable=durable)
            os.rename(self.path, path)
        old, self.path, self.handle = self.path, path, handle
        if durable:
            sync_directory(os.path.dirname(path))
            sync_directory(os.path.dirname(old))

    def unlink(self, *, durable: bool) -> None:
        """Remove the session's name; final."""
        os.unlink(self.path)
        self.handle = None
        if durable:
            sync_directory(os.path.dirname(self.path))

    def discard(self) -> None:
        """Remove a file that never became a session, and close it."""
        with suppress(OSError):  # a sweep clears it; the failure under way is the one to tell
            os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Close the file, and so release its lock."""
        os.close(self._descriptor)


def is_named(descriptor: int, path: str) -> bool:
    """Whether ``path`` still is the open file's name."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return named.st_ino == opened.st_ino and named.st_dev == opened.st_dev
