"""Looking through a whole directory: listing its sessions, and deleting those that are due."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from filesession import locks
from filesession.clock import Clock
from filesession.errors import LockTimeout, StoreError, StoreUnavailable, store_error
from filesession.lifetime import Lifetime
from filesession.record import SessionInfo, SweepReport
from filesession.stores.entry import AHEAD, accessed_at
from filesession.stores.file import sessionfile
from filesession.stores.file.documents import OPEN_TO_READ
from filesession.stores.file.journal import line_of, seed_of
from filesession.stores.file.layout import Layout
from filesession.stores.file.sessionfile import YOUNG, NotASessionError, SessionFile, Snapshot

PATIENCE: Final = 1.0
"""Seconds a sweep waits, in all, for sessions whose lock is held; the next one takes the rest."""

_log = logging.getLogger("filesession.store")


def scan(layout: Layout, lifetime: Lifetime, clock: Clock) -> Iterator[SessionInfo]:
    """Every session stored that can be read, expired or not."""
    for handle, path in layout.sessions():
        try:
            found = sessionfile.look(path, handle)
        except StoreUnavailable as error:
            _log.warning("%s", error)
            continue
        if found is not None and found.entry is not None:
            yield info(handle, found, lifetime, clock())


def info(handle: str, found: Snapshot, lifetime: Lifetime, now: float) -> SessionInfo:
    """What can be told of a session file that holds a session."""
    entry = found.entry
    assert entry is not None
    accessed = accessed_at(found.mtime, now)
    expires = entry.lifetime(lifetime).expires_at(entry.created, accessed)
    return SessionInfo(handle, found.size, entry.created, accessed, expires)


@dataclass(slots=True)
class Sweep:
    """One pass over a directory that deletes what is due.

    Each session is looked at without a lock, and once more under its lock before it goes. One whose
    lock is held is tried again at the end. What fails for one session keeps none of the others.
    """

    layout: Layout
    lifetime: Lifetime
    clock: Clock
    dry_run: bool = False
    examined: int = 0
    expired: int = 0
    freed: int = 0
    oldest_overdue: float = 0.0
    busy: int = 0
    corrupt: int = 0
    failed: int = 0
    failure: str | None = None
    young: int = 0
    mended: int = 0
    leftovers: int = 0
    waiting: list[str] = field(default_factory=list)

    def run(
        self, limit: int | None = None, progress: Callable[[int], None] | None = None
    ) -> SweepReport:
        """Sweep, until ``limit`` sessions were deleted; may wait a second for locks at the end.

        Raises:
            StoreUnavailable: the directory has vanished; or a part of it cannot be listed, which is
                told when the rest is swept.
        """
        started, tick = self.clock(), time.monotonic()
        complete, failure = True, None
        try:
            for handle, path in self.layout.sessions():
                if limit is not None and self.expired >= limit:
                    complete = False
                    break
                self._attempt(handle, self._examine, handle, path)
                self.examined += 1
                if progress is not None:
                    progress(self.examined)
        except StoreUnavailable as error:
            failure = error
        if complete and failure is None:
            self._clear_leftovers()
        complete = self._try_again(limit) and complete
        if failure is not None:
            raise failure
        return SweepReport(
            started_at=started,
            seconds=time.monotonic() - tick,
            examined=self.examined,
            expired=self.expired,
            freed=self.freed,
            oldest_overdue=self.oldest_overdue,
            busy=self.busy,
            corrupt=self.corrupt,
            failed=self.failed,
            failure=self.failure,
            young=self.young,
            mended=self.mended,
            leftovers=self.leftovers,
            complete=complete,
            dry_run=self.dry_run,
        )

    def _attempt(self, handle: str, step: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        """What fails here is counted, and keeps no other session."""
        try:
            step(*arguments)
        except FileNotFoundError:
            return  # another was faster
        except LockTimeout:
            self.waiting.append(handle)
        except (StoreError, OSError) as error:
            self.failed += 1
            told = error
            if isinstance(error, OSError):
                told = store_error(error, f"sweeping session {handle}")
            self.failure = self.failure or str(told)
            _log.debug("%s; the sweep goes on", told)

    def _examine(self, handle: str, path: str) -> None:
        try:
            found = sessionfile.read(path, handle)
        except NotASessionError:
            self._set_aside(handle)
            return
        if found is None:
            return
        if found.entry is None:
            if time.time() - found.changed > YOUNG:
                self._set_aside(handle)
            else:
                self.young += 1
            return
        now = self.clock()
        overdue = self._overdue(found, now)
        if overdue is not None:
            if self.dry_run:
                self._count(found, overdue)
            else:
                self._delete(handle, timeout=0)
        elif self._is_ahead(found, now):
            self._mend(handle)

    def _overdue(self, found: Snapshot, now: float) -> float | None:
        """Seconds by which the session is past the moment its file may go; None: it is not."""
        entry = found.entry
        if entry is None:
            return None
        return entry.overdue(self.lifetime, now, accessed_at(found.mtime, now))

    def _is_ahead(self, found: Snapshot, now: float) -> bool:
        """Whether it is dated in the future: the clock was set back since."""
        entry = found.entry
        return entry is not None and max(found.mtime, entry.created) > now + AHEAD

    def _delete(self, handle: str, timeout: float) -> None:
        """Look again under the lock, and delete what still is due."""

        def delete(file: SessionFile) -> None:
            found = file.snapshot()
            overdue = self._overdue(found, self.clock())
            if overdue is not None:
                file.unlink(durable=False)  # a power cut may bring it back, but not to life
                self._count(found, overdue)

        self._under_lock(handle, timeout, delete)

    def _mend(self, handle: str) -> None:
        """Let a session that is dated in the future count from now; else it would outlive that."""

        def mend(file: SessionFile) -> None:
            found, now = file.snapshot(), self.clock()
            entry = found.entry
            if entry is not None and self._is_ahead(found, now):
                if entry.created > now:
                    line = line_of(entry.at(now), seed_of(handle))
                    mark = min(found.mtime, now)  # to be looked at is no activity
                    file.append(line, mark, sync=False, after=found)
                else:
                    file.touch(now)
                self.mended += 1

        if self.dry_run:
            self.mended += 1
        else:
            self._under_lock(handle, 0, mend)

    def _count(self, found: Snapshot, overdue: float) -> None:
        self.expired += 1
        self.freed += found.size
        self.oldest_overdue = max(self.oldest_overdue, overdue)

    def _under_lock(self, handle: str, timeout: float, act: Callable[[SessionFile], None]) -> None:
        """Do something to a session's file with its lock; nothing when there is no such file.

        Raises:
            LockTimeout: another kept it.
            StoreError, OSError: what else went wrong.
        """
        try:
            file = SessionFile.locked(self.layout, handle, timeout)
            if file is None:
                return
            try:
                act(file)
            finally:
                file.close()
        except NotASessionError:
            return  # it changed under our eyes; the next sweep sets it aside

    def _try_again(self, limit: int | None) -> bool:
        """Try those whose lock was held once more; False when the limit left some of them."""
        deadline = time.monotonic() + PATIENCE
        waiting, self.waiting = self.waiting, []
        for number, handle in enumerate(waiting):
            if limit is not None and self.expired >= limit:
                self.busy = len(self.waiting) + len(waiting) - number
                return False
            left = max(0.0, deadline - time.monotonic())
            self._attempt(handle, self._delete, handle, left)
        self.busy = len(self.waiting)
        return True

    def _set_aside(self, handle: str) -> None:
        """Move away what is no session, looked at again under its lock if it has one."""
        if self.dry_run:
            self.corrupt += 1
            return
        try:
            file = SessionFile.locked(self.layout, handle, timeout=0)
        except NotASessionError:
            self.layout.set_aside_odd(handle)
            self.corrupt += 1
            return
        if file is None:
            return
        try:
            if not _holds_session(file):  # else one was made there meanwhile
                self.layout.set_aside(file.path)
                self.corrupt += 1
        finally:
            file.close()

    def _clear_leftovers(self) -> None:
        for path in self.layout.leftovers():
            self._attempt(os.path.basename(path), self._clear, path)
        for path in self.layout.notes():
            self._attempt(os.path.basename(path), self._clear_note, path)

    def _clear_note(self, path: str) -> None:
        """Remove the note of a session that moved, when its grace is long over."""
        if time.time() - os.lstat(path).st_ctime > YOUNG and not self.dry_run:
            os.unlink(path)

    def _clear(self, path: str) -> None:
        """Remove a temporary file, unless its writer is at work: then it is young, or locked.

        What has a temporary file's name and is no file was left by no writer, and is set aside.
        """
        status = os.lstat(path)
        if time.time() - status.st_ctime <= YOUNG:
            return
        if not stat.S_ISREG(status.st_mode):
            if not self.dry_run:
                self.layout.set_aside(path)
            self.corrupt += 1
            return
        descriptor = os.open(path, OPEN_TO_READ)
        try:
            if locks.try_lock(descriptor):
                if not self.dry_run:
                    os.unlink(path)
                self.leftovers += 1
        finally:
            os.close(descriptor)


def _holds_session(file: SessionFile) -> bool:
    try:
        return file.snapshot().entry is not None
    except NotASessionError:
        return False
