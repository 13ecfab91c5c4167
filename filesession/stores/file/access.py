"""Getting at a session's file: with its lock, through a lock already held, or to set it aside."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from filesession import locks
from filesession.clock import Clock
from filesession.codec import Codec
from filesession.errors import (
    FilesessionError,
    SessionExists,
    StoreUnavailable,
    store_error,
)
from filesession.lifetime import Lifetime
from filesession.record import SessionRecord
from filesession.stores.entry import Entry, gone, handle_of
from filesession.stores.file.layout import Layout
from filesession.stores.file.sessionfile import NotASessionError, SessionFile, Snapshot
from filesession.stores.held import HeldLock, HeldLocks

_log = logging.getLogger("filesession.store")


@contextmanager
def translated(doing: str, handle: str) -> Iterator[None]:
    """Every ``OSError`` inside becomes the ``StoreError`` that says what was tried."""
    try:
        yield
    except FilesessionError:
        raise
    except OSError as error:
        raise store_error(error, f"{doing} session {handle}") from error
    except ValueError as error:
        msg = f"{doing} session {handle}: the codec cannot read what is stored ({error})"
        raise StoreUnavailable(msg) from error


class Access:
    """The way to the session files of one directory, shared by a store and its locks."""

    __slots__ = ("clock", "codec", "held", "layout", "lifetime", "timeout")

    def __init__(self, layout: Layout, lifetime: Lifetime, clock: Clock, codec: Codec) -> None:
        self.layout = layout
        self.lifetime = lifetime
        self.clock = clock
        self.codec = codec
        self.held: HeldLocks[SessionLock] = HeldLocks()
        self.timeout = locks.DEFAULT_TIMEOUT

    def without_waiting(self) -> Access:
        """The same, but ``LockTimeout`` at once where a lock is held by another."""
        access = copy.copy(self)
        access.timeout = 0
        return access

    @contextmanager
    def exclusive(self, handle: str) -> Iterator[SessionFile | None]:
        """The session's file with its lock; None when there is none. Waits for the lock.

        Raises:
            LockTimeout: another kept it.
            OSError: the file cannot be opened or locked.
        """
        held = self.held.get(handle)
        if held is not None:
            with held.mutex:
                if held.file is not None and held.file.handle == handle:
                    yield held.file
                    return
        try:
            file = SessionFile.locked(self.layout, handle, self.timeout)
        except NotASessionError:
            self._move_aside(self.layout.path(handle))
            file = None
        if file is None:
            yield None
            return
        try:
            yield file
        finally:
            file.close()

    @contextmanager
    def changing(self, doing: str, handle: str) -> Iterator[tuple[SessionFile, Snapshot, Entry]]:
        """A live session's file with its lock, and what it holds.

        Raises:
            SessionGone: it was deleted or has expired.
            LockTimeout: another kept its lock.
            StoreError: anything else that went wrong, inside too.
        """
        with translated(doing, handle), self.exclusive(handle) as file:
            found = None if file is None else self.readable(file)
            entry = None if found is None else self.live(found)
            if file is None or found is None:
                self.layout.check_present()
                raise gone()
            if entry is None:
                raise gone()
            yield file, found, entry

    def readable(self, file: SessionFile) -> Snapshot | None:
        """What a locked file holds; None, and it is set aside, when that is no session."""
        try:
            found = file.snapshot()
        except NotASessionError:
            found = None
        if found is None or found.entry is None:
            self._move_aside(file.path)
            file.handle = None
            return None
        return found

    def live(self, found: Snapshot) -> Entry | None:
        """The session a file holds, unless it has expired."""
        entry = found.entry
        if entry is None:
            return None
        now = self.clock()
        over = entry.is_over(self.lifetime, now, entry.accessed(found.mtime, now))
        return None if over else entry

    def make_way(self, handle: str) -> None:
        """Remove what lies where a session of a chosen id is to be.

        Raises:
            SessionExists: that is a live session.
        """
        with self.exclusive(handle) as file:
            found = None if file is None else self.readable(file)
            if file is None or found is None:
                return
            if self.live(found) is not None:
                msg = f"the id of session {handle} is taken by a live one; choose another"
                raise SessionExists(msg)
            file.unlink(durable=False)

    def set_aside(self, handle: str) -> None:
        """Move a session's file to ``corrupt/`` if, under its lock, it cannot be read either.

        Nothing depends on it, so no failure is raised: it is tried again with the next reader.
        """
        try:
            with self.exclusive(handle) as file:
                found = None if file is None else self.readable(file)
                if file is None or found is None or found.entry is None:
                    return
                try:
                    self.codec.decode(found.entry.data)
                except ValueError:
                    self._move_aside(file.path)
                    file.handle = None
        except OSError as error:  # also LockTimeout
            _log.warning("session %s cannot be read, nor be set aside: %s", handle, error)

    def _move_aside(self, path: str) -> None:
        self.layout.set_aside(path)
        _log.warning("%s cannot be read and was moved to %s", path, self.layout.corrupt)

    def follow(self, handle: str, target: str) -> None:
        """A session held here got another handle: calls for that one go through its lock too."""
        held = self.held.get(handle)
        if held is not None:
            self.held.add(target, held)


class SessionLock(HeldLock):
    """The lock of one session's file, kept open while it is held."""

    def __init__(self, access: Access, sid: str, timeout: float) -> None:
        super().__init__(access.held)
        self._access = access
        self._sid = sid
        self._timeout = timeout
        self._nested = False
        self.handle = handle_of(sid) or ""
        self.file: SessionFile | None = None
        self.mutex = threading.RLock()

    def acquire(self) -> SessionRecord:
        """Take the lock, waiting up to the timeout, and read the session.

        Raises:
            LockTimeout: another kept it.
            SessionGone: there is no such session.
            StoreUnavailable: it cannot be read.
        """
        access = self._access
        if not self.handle:
            raise gone()
        outer = access.held.get(self.handle)
        if outer is not None and not outer.has(self.handle):
            outer = None  # released, or its session was deleted or moved under it
        self._nested = outer is not None
        if outer is None:
            with translated("locking", self.handle):
                try:
                    self.file = SessionFile.locked(access.layout, self.handle, self._timeout)
                except NotASessionError:
                    raise gone() from None
        try:
            return self._record(self if outer is None else outer)
        except BaseException:
            self.release()
            raise

    def has(self, handle: str) -> bool:
        """Whether it is held, and on the session that is stored under that name."""
        file = self.file
        return file is not None and file.handle == handle

    def _record(self, lock: SessionLock) -> SessionRecord:
        access = self._access
        with translated("locking", self.handle), lock.mutex:
            file = lock.file if lock.has(self.handle) else None
            found = None if file is None else access.readable(file)
            entry = None if found is None else access.live(found)
            if found is None or entry is None:
                access.layout.check_present()
                raise gone()
            accessed = entry.accessed(found.mtime, access.clock())
            return entry.record(self._sid, accessed, access.lifetime, access.codec)

    def bind(self) -> None:
        """From here on, in this thread or task, calls for the session go through this lock."""
        if not self._nested:
            super().bind()

    def release(self) -> None:
        """Give the lock back; of a lock inside a lock, the outer one does."""
        with self.mutex:
            if self.file is not None:
                self.file.close()
                self.file = None
        if not self._nested:
            self._held.remove(self)
