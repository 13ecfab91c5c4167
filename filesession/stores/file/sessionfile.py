"""One session file: read without a lock, or held open with its lock to be changed.

Rules:

1. The lock is on the open file. What was opened by name may have been replaced or deleted before
   the lock came free, so the name is looked up again under the lock: another inode, and the file is
   opened anew; none, and the session is gone.
2. A file is made, replaced or moved only under its lock: by a file whose lock the same holder has.
3. A lock is given back before its file is closed, and a forked child closes the copies it got
   without giving anything back: no child keeps a lock of its parent's, nor takes one away.
4. Only regular files are sessions. Anything else at a session's name is refused before it is read,
   and opening it never waits (a FIFO would).
5. Another user's file is neither read nor written: its owner may have made it up, and would get to
   see what is saved. It is an error and no damage, as a restored backup is all of that kind until
   it is given to whom it belongs.
6. A signal's handler may raise between any two steps of the interpreter, also between a system
   call and the line that was to keep what it gave. So a file is opened by one step into the object
   that owns it, and who forgets that object has given the lock back.
7. A file with a second name is a session like any other: it is no stranger's, or its checksum would
   not be right, and a backup may be made of such names.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from weakref import ref

from filesession import locks
from filesession.errors import StoreError, StoreUnavailable, store_error
from filesession.lifetime import Lifetime
from filesession.locks import Patience
from filesession.record import SessionInfo
from filesession.stores.entry import Entry, accessed_at
from filesession.stores.file.documents import surviving, write_all
from filesession.stores.file.journal import NewerFormatError, last_entry, seed_of
from filesession.stores.file.layout import Layout
from filesession.stores.file.ownership import anothers_file

LARGEST: Final = 1 << 26
"""Bytes, 64 MiB: what is larger was not written by us and is not read."""

YOUNG: Final = 60.0
"""Seconds for which a file that holds nothing, or a temporary one, may be a writer's work."""

_COMMON: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ: Final = os.O_RDONLY | _COMMON
CHANGE: Final = os.O_RDWR | os.O_APPEND | _COMMON
"""How a file is opened to be locked and changed: a lock over NFS wants it open for writing."""

_CREATE: Final = CHANGE | os.O_CREAT | os.O_EXCL

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
        names: how many names the file has; a second one is none of ours.
    """

    entry: Entry | None
    mtime: float
    size: int
    clean: bool
    changed: float
    names: int = 1

    @property
    def lineage(self) -> str | None:
        """Of the session; None when there is none."""
        return None if self.entry is None else self.entry.lineage

    def info(self, handle: str, store: Lifetime, now: float) -> SessionInfo:
        """What can be told of the session it holds, by the timeouts of its store."""
        assert self.entry is not None
        created, accessed = self.entry.created, accessed_at(self.mtime, now)
        expires = self.entry.lifetime(store).expires_at(created, accessed)
        return SessionInfo(handle, self.size, created, accessed, expires)

    def may_be_in_the_making(self) -> bool:
        """Whether it is empty and so new that its maker may be about to write."""
        return self.size == 0 and time.time() - self.changed < YOUNG


def read(path: str, handle: str) -> Snapshot | None:
    """The session file as it is; takes no lock and never waits for one. None: there is none.

    Raises:
        NotASessionError: something else lies there.
        StoreUnavailable: a newer version of filesession wrote it, or it is another user's.
        OSError: it cannot be read.
    """
    descriptors: list[int] = []
    try:
        found, _ = opened(descriptors, path, handle)
        return found
    finally:
        if descriptors:
            os.close(descriptors[0])


def opened(
    descriptors: list[int], path: str, handle: str, flags: int = _READ
) -> tuple[Snapshot | None, os.stat_result | None]:
    """Open a session file into ``descriptors``, for the caller to close, and read it.

    Nothing is in there when there is none. Raises as ``read`` does.
    """
    try:
        descriptors.extend(map(os.open, (path,), (flags,)))  # one step (rule 6)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        if error.errno in _WRONG_KIND:
            raise NotASessionError from error
        raise
    status = os.fstat(descriptors[0])
    return _snapshot(descriptors[0], status, path, handle), status


def look(path: str, handle: str) -> Snapshot | None:
    """The file at ``path``, None when it is gone or no session's kind of file.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        return read(path, handle)
    except NotASessionError:
        return None
    except OSError as error:
        raise store_error(error, f"reading session {handle}") from error


def _snapshot(descriptor: int, status: os.stat_result, path: str, handle: str) -> Snapshot:
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
        raise NotASessionError
    if status.st_uid != os.geteuid():
        raise StoreUnavailable(anothers_file(path, status.st_uid))
    content = os.pread(descriptor, status.st_size, 0)
    while len(content) < status.st_size:
        more = os.pread(descriptor, status.st_size - len(content), len(content))
        if not more:
            break  # cut short by its writer, whose write failed
        content += more
    try:
        entry = last_entry(content, seed_of(handle))
    except NewerFormatError:
        msg = f"session {handle} was saved by a newer version of filesession; update this one"
        raise StoreUnavailable(msg) from None
    clean = not content or content.endswith(b"\n")
    mtime, changed = status.st_mtime, status.st_ctime
    return Snapshot(entry, mtime, len(content), clean, changed, status.st_nlink)


class SessionFile:
    """An open session file and its lock, until ``close``, or until it is forgotten.

    After ``unlink`` or ``move_to`` the file is no longer the session of its old handle: ``handle``
    is None, or the new one.
    """

    __slots__ = ("__weakref__", "_descriptors", "handle", "path")

    def __init__(self, path: str, handle: str, flags: int) -> None:
        self.path = path
        self.handle: str | None = handle
        self._descriptors: list[int] = []  # one; none when it is closed
        _open[id(self)] = ref(self)
        self._descriptors.extend(map(os.open, (path,), (flags,), (0o600,)))  # one step (rule 6)

    def __del__(self) -> None:
        if getattr(self, "_descriptors", None):  # it may be broken off before it has any
            self.close()
        else:
            _open.pop(id(self), None)

    @property
    def _descriptor(self) -> int:
        """-1 when it is closed."""
        return self._descriptors[0] if self._descriptors else -1

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
        patience = Patience(timeout, f"session {handle}")
        while True:
            try:
                file = cls(path, handle, CHANGE)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in _WRONG_KIND:
                    raise NotASessionError from error
                raise
            try:
                if file._is_locked(patience):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    @classmethod
    def created(cls, layout: Layout, handle: str, timeout: float) -> SessionFile | None:
        """Make a session's file, 0600 whatever the umask, empty and locked.

        None when another took the empty file away before it was locked.

        Raises:
            FileExistsError: the name is taken.
            FileNotFoundError: there is no shard to make it in.
            StoreUnavailable: there is a symlink in the shard's place.
            LockTimeout: another, who looks at the empty file, kept its lock.
            OSError: it cannot be made.
        """
        path = layout.path(handle)
        layout.check_shards(path)
        file = cls(path, handle, _CREATE)
        try:
            os.fchmod(file._descriptor, 0o600)
            if file._is_locked(Patience(timeout, f"session {handle}")):
                return file
        except BaseException:
            file.discard()
            raise
        file.close()
        return None

    def _is_locked(self, patience: Patience) -> bool:
        """Take the lock; False when the file has lost its name meanwhile."""
        locks.lock(self._descriptor, patience)
        return self.is_named()

    def is_named(self) -> bool:
        """Whether it still is the file of its name: another program may have removed it.

        Raises:
            StoreError: the lock stayed with the process from which this one was forked.
            OSError: it cannot be looked up.
        """
        if self._descriptor < 0:
            msg = (
                "the lock of this session stayed with the process that took it, and this one was"
                " forked inside the block; lock the session here, outside of it"
            )
            raise StoreError(msg)
        return is_named(self._descriptor, self.path)

    def snapshot(self) -> Snapshot:
        """What it holds now.

        Raises:
            NotASessionError: that is no session's kind of file.
            StoreUnavailable: a newer version of filesession wrote it, or it is another user's.
        """
        if self.handle is None:
            raise NotASessionError
        status = os.fstat(self._descriptor)
        return _snapshot(self._descriptor, status, self.path, self.handle)

    def append(self, line: bytes, mark: float, *, sync: bool, after: Snapshot | None) -> None:
        """Add a line in one write and set the touch mark; with ``sync``, wait for the disk.

        ``after`` is what it holds now, None for a file just created.

        Raises:
            OSError: it could not be written, and is as it was, or ends in a part of a line, which
                every reader passes over; or it was written, and could not be brought to the disk.
        """
        if after is not None and not after.clean:
            line = b"\n" + line  # a tail that was cut short must not swallow ours
        try:
            write_all(self._descriptor, line)
        except OSError:
            self._shorten(0 if after is None else after.size, mark)
            raise
        with suppress(OSError):  # it is saved, and the write itself has set the mark to about now
            self.touch(mark)  # before the disk is waited for: a touch meanwhile is later than this
        if sync:
            os.fdatasync(self._descriptor)

    def _shorten(self, size: int, mark: float) -> None:
        """Cut off what was written of a line.

        To write and to cut sets the mark to now, which must not bring a session to life that ended.
        """
        with suppress(OSError):  # the first failure is the one to tell; readers pass the tail over
            if os.fstat(self._descriptor).st_size > size:
                try:
                    os.ftruncate(self._descriptor, size)
                finally:
                    self.touch(mark)

    def touch(self, mark: float) -> None:
        """Set the touch mark, POSIX seconds, as the modification time."""
        os.utime(self._descriptor, (mark, mark))

    def replace(self, layout: Layout, line: bytes, mark: float, *, durable: bool) -> None:
        """Replace the whole file by one of that line; waits for the disk.

        The data is on the disk before the name points to it: a rename alone may survive a power cut
        that the data does not, and leave an empty file.

        Raises:
            OSError: the old file is intact; or it was replaced, and it is not known whether that
                survives a power cut.
        """
        assert self.handle is not None
        temporary = layout.temporary(self.path)
        before = os.fstat(self._descriptor).st_mtime
        new = SessionFile(temporary, self.handle, _CREATE)
        try:
            os.fchmod(new._descriptor, 0o600)
            locks.lock(new._descriptor, Patience(locks.DEFAULT_TIMEOUT, temporary))
            write_all(new._descriptor, line)
            new.touch(mark)
            os.fdatasync(new._descriptor)
            touched = os.fstat(self._descriptor).st_mtime
            if touched != before:  # while the disk was waited for
                new.touch(touched)
            with surviving(*((os.path.dirname(self.path),) if durable else ())):
                os.rename(temporary, self.path)
                self._descriptors, new._descriptors = new._descriptors, self._descriptors
                new.close()  # who waits for the lock of the old file finds it replaced
        except BaseException:
            new.discard()
            raise

    def move_to(self, layout: Layout, handle: str, *, durable: bool) -> None:
        """Give the file the name of another handle. One step: it is never under both or neither.

        What lies under that name is replaced: the caller has seen to it that it is nobody's.

        Raises:
            FileNotFoundError: the file has lost its own name.
            StoreUnavailable: there is a symlink in the shard's place.
            OSError: it has the name it had.
        """
        path, old = layout.path(handle), self.path
        layout.check_shards(path)
        shards = (os.path.dirname(path), os.path.dirname(old)) if durable else ()
        try:
            try:
                with surviving(*shards):
                    os.rename(old, path)
            except FileNotFoundError:
                layout.make_shard(path)
                with surviving(*shards):
                    os.rename(old, path)
        except BaseException:
            with suppress(OSError):
                # Back: nobody knows the new name, and the old one's state is still whole.
                if is_named(self._descriptor, path):
                    os.link(path, old)
                    os.unlink(path)
            raise
        self.path, self.handle = path, handle

    def unlink(self, *, durable: bool) -> None:
        """Remove the session's name; final."""
        with surviving(*((os.path.dirname(self.path),) if durable else ())):
            os.unlink(self.path)
            self.handle = None

    def discard(self) -> None:
        """Remove a file that never became a session, and close it."""
        try:
            with suppress(OSError):  # a sweep clears it; the failure under way is the one to tell
                if self._descriptor >= 0 and is_named(self._descriptor, self.path):
                    os.unlink(self.path)
        finally:
            self.close()

    def close(self) -> None:
        """Give the lock back and close the file. May be called again."""
        try:
            if self._descriptors:
                with suppress(OSError):  # what was done is done, and closing it gives it back too
                    locks.unlock(self._descriptor)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file and leave the lock alone: in a forked child it is the parent's."""
        if self._descriptors:
            list(map(os.close, map(self._descriptors.pop, (0,))))  # one step (rule 6)
        _open.pop(id(self), None)


_open: Final[dict[int, ref[SessionFile]]] = {}
"""Every open session file of this process, by ``id``."""


def _close_in_child() -> None:
    for found in list(_open.values()):
        file = found()
        if file is not None:
            file.abandon()
    _open.clear()


os.register_at_fork(after_in_child=_close_in_child)


def is_named(descriptor: int, path: str) -> bool:
    """Whether ``path`` still is the open file's name."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return named.st_ino == opened.st_ino and named.st_dev == opened.st_dev
