"""Getting at a session's file: with its lock, through a lock already held, or to set it aside."""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from filesession import locks
from filesession.clock import Clock
from filesession.codec import Codec, bound
from filesession.errors import FilesessionError, SessionExists, StoreError, store_error
from filesession.lifetime import Lifetime, Timeout
from filesession.record import SessionRecord
from filesession.stores.entry import Entry, accessed_at, gone
from filesession.stores.file.journal import line_of, seed_of
from filesession.stores.file.layout import Layout
from filesession.stores.file.sessionfile import NotASessionError, SessionFile, Snapshot, look, read
from filesession.stores.held import HeldLock, HeldLocks

_log = logging.getLogger("filesession.store")


class translated:  # noqa: N801 - a context manager reads as a verb
    """Every ``OSError`` inside becomes the ``StoreError`` that says what was tried."""

    __slots__ = ("_doing", "_handle")  # a generator would cost as much as the calls it guards

    def __init__(self, doing: str, handle: str) -> None:
        self._doing = doing
        self._handle = handle

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, FilesessionError):
            raise store_error(error, f"{self._doing} session {self._handle}") from error


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
    def exclusive(self, handle: str, timeout: float | None = None) -> Iterator[SessionFile | None]:
        """The session's file with its lock; None when there is none. Waits for the lock.

        ``timeout`` None is the store's own, in seconds.

        Raises:
            LockTimeout: another kept it.
            OSError: the file cannot be opened or locked.
        """
        held = self.held.get(handle)
        if held is not None:
            with held.mutex:
                if held.file is not None and held.file.handle == handle:
                    yield held.file if held.file.is_named() else None
                    return
        try:
            file = SessionFile.locked(
                self.layout, handle, self.timeout if timeout is None else timeout
            )
        except NotASessionError:
            self.layout.set_aside_odd(handle)
            file = None
        if file is None:
            yield None
            return
        try:
            yield file
        finally:
            file.close()

    @contextmanager
    def changing(
        self, doing: str, handle: str
    ) -> Iterator[tuple[SessionFile, Snapshot, Entry, float]]:
        """A live session's file with its lock, what it holds, and the time at which it was live.

        Raises:
            SessionGone: it was deleted or has expired.
            LockTimeout: another kept its lock.
            StoreError: anything else that went wrong, inside too.
        """
        with translated(doing, handle), self.exclusive(handle) as file:
            found, entry, now = self.live(file)
            assert file is not None
            yield file, found, entry, now

    def live(self, file: SessionFile | None) -> tuple[Snapshot, Entry, float]:
        """What a locked file holds, and the time at which it is live. Raises ``SessionGone``."""
        found = None if file is None else self.readable(file)
        if found is None or found.entry is None:
            self.layout.check_present()
            raise gone()
        now = self.clock()
        if self.is_over(found, now):
            assert file is not None
            self._note_end(file, found)
            raise gone()
        return found, found.entry, now

    def readable(self, file: SessionFile) -> Snapshot | None:
        """What a locked file holds; None when that is no session, and then it is set aside.

        But not an empty file whose maker may be about to write.
        """
        try:
            found = file.snapshot()
        except NotASessionError:
            self._move_aside(file)
            return None
        if found.entry is None:
            if not found.may_be_in_the_making():
                self._move_aside(file)
            return None
        return found

    def load(self, handle: str, sid: str) -> SessionRecord | None:
        """The live session of that handle, as the record of that id; None when there is none.

        Raises:
            StoreError, OSError: it could not be read.
        """
        try:
            found = read(self.layout.path(handle), handle)
        except NotASessionError:
            self.set_aside(handle)
            return None
        if found is None:
            self.layout.check_present()
            return None
        if found.entry is None:
            if not found.may_be_in_the_making():
                self.set_aside(handle)
            return None
        now = self.clock()
        if self.is_over(found, now):
            if not found.entry.ended:
                self.end(handle)
            return None
        accessed = accessed_at(found.mtime, now)
        return found.entry.record(sid, accessed, self.lifetime, bound(self.codec, handle))

    def is_over(self, found: Snapshot, now: float) -> bool:
        """Whether the session a file holds has expired, or there is none."""
        entry = found.entry
        return entry is None or entry.is_over(self.lifetime, now, accessed_at(found.mtime, now))

    def touch(self, handle: str, base: SessionRecord | None) -> bool:
        """Set the touch mark, unless the last one is young enough; False when the session is gone.

        With the loaded record as ``base``: nothing, or one look at the mark and one call to set it.
        """
        if base is not None and base.forwarded:
            return False
        path, now = self.layout.path(handle), self.clock()
        try:
            wanted = self._wants_touch_since(base, path, now)
            if wanted is None:
                found = look(path, handle)
                if found is None:
                    self.layout.check_present()
                if found is None or found.entry is None:
                    return False
                if self.is_over(found, now):
                    self.end(handle)
                    return False
                entry = found.entry
                if base is not None and entry.lineage != base.lineage:
                    return False
                wanted = entry.lifetime(self.lifetime).wants_touch(now, found.mtime)
            if wanted:
                os.utime(path, (now, now), follow_symlinks=False)
        except FileNotFoundError:
            self.layout.check_present()
            return False
        return True

    def _wants_touch_since(self, base: SessionRecord | None, path: str, now: float) -> bool | None:
        """Whether activity now is worth a new mark, by what was loaded; None: that cannot tell."""
        if base is None:
            return None
        lifetime = self.lifetime.overridden(base.idle_timeout, base.absolute_timeout)
        if lifetime.is_over(now, base.created_at, base.accessed_at):
            return None
        if not lifetime.wants_touch(now, base.accessed_at):
            return False
        # The same mark: nobody saved it since, and what was loaded still is all there is.
        mark = os.stat(path, follow_symlinks=False).st_mtime
        return True if mark == base.accessed_at else None

    def make_way(self, handle: str) -> None:
        """Remove what lies where a session of a chosen id is to be.

        Raises:
            SessionExists: that is a live session.
            LockTimeout: another kept its lock.
        """
        with self.exclusive(handle) as file:
            if file is None:
                return
            found = self.readable(file)
            if found is not None and not self.is_over(found, self.clock()):
                msg = f"the id of session {handle} is taken by a live one; choose another"
                raise SessionExists(msg)
            if file.handle is not None:
                file.unlink(durable=False)

    def end(self, handle: str) -> None:
        """Write down that an expired session was refused, so that no clock brings it back.

        Never waits. Nothing depends on it while the clock goes on, so no failure is raised.
        """
        try:
            with self.exclusive(handle, timeout=0) as file:
                found = None if file is None else self.readable(file)
                if file is not None and found is not None and self.is_over(found, self.clock()):
                    self._note_end(file, found)
        except (OSError, StoreError) as error:  # also LockTimeout: it is being used
            _log.debug("session %s has expired, which was not written down: %s", handle, error)

    def _note_end(self, file: SessionFile, found: Snapshot) -> None:
        entry, handle = found.entry, file.handle
        if entry is None or entry.ended or handle is None:
            return
        try:
            line = line_of(entry.as_ended(), seed_of(handle))
            file.append(line, found.mtime, sync=False, after=found)
        except OSError as error:
            _log.debug("session %s has expired, which was not written down: %s", handle, error)

    def set_aside(self, handle: str) -> None:
        """Move a session's file to ``corrupt/`` if, under its lock, it cannot be read either.

        Never waits. Nothing depends on it, so no failure is raised: it is tried again with the next
        reader.
        """
        try:
            with self.exclusive(handle, timeout=0) as file:
                if file is not None:
                    self.readable(file)
        except (OSError, StoreError) as error:
            _log.warning("session %s cannot be read, nor be set aside: %s", handle, error)

    def _move_aside(self, file: SessionFile) -> None:
        self.layout.set_aside(file.path)
        file.handle = None


class SessionLock(HeldLock):
    """The lock of one session's file, kept open while it is held."""

    def __init__(self, access: Access, sid: str, timeout: Timeout) -> None:
        super().__init__(access.held, sid, timeout)
        self._access = access
        self._sid = sid
        self.file: SessionFile | None = None
        self.mutex = threading.RLock()

    def holds(self, handle: str) -> bool:
        """Whether it is held, and on the session that is stored under that name now."""
        file = self.file
        return file is not None and file.handle == handle

    def forget_threads(self) -> None:
        """In a forked child: nor will any thread end a change that it was making."""
        super().forget_threads()
        self.mutex = threading.RLock()

    def _take(self, timeout: float) -> None:
        with translated("locking", self.handle):
            try:
                self.file = SessionFile.locked(self._access.layout, self.handle, timeout)
            except NotASessionError:
                raise gone() from None
            if self.file is None:
                self._access.layout.check_present()
                raise gone()

    def _record(self) -> SessionRecord:
        access, outer = self._access, self._outer
        holder = outer if isinstance(outer, SessionLock) else self
        with translated("locking", self.handle), holder.mutex:
            file = holder.file
            if file is not None and not file.is_named():
                file = None
            found, entry, now = access.live(file)
            accessed = accessed_at(found.mtime, now)
            codec = bound(access.codec, self.handle)
            return entry.record(self._sid, accessed, access.lifetime, codec)

    def _drop(self) -> None:
        with self.mutex:
            file, self.file = self.file, None
            assert file is not None
            file.close()
