"""Looking through a whole directory: listing its sessions, and deleting those that are due."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from filesession import locks
from filesession.clock import Clock
from filesession.errors import LockTimeout, store_error
from filesession.lifetime import Lifetime
from filesession.record import SessionInfo, SweepReport
from filesession.stores.file import sessionfile
from filesession.stores.file.layout import Layout
from filesession.stores.file.sessionfile import NotASessionError, SessionFile, Snapshot

YOUNG: Final = 60.0
"""Seconds for which an unreadable file or a temporary one may be a writer's work in progress."""


def scan(layout: Layout, lifetime: Lifetime, clock: Clock) -> Iterator[SessionInfo]:
    """Every session stored that can be read, expired or not."""
    for handle, path in layout.sessions():
        found = look(path, handle)
        if found is not None and found.entry is not None:
            yield info(handle, found, lifetime, clock())


def info(handle: str, found: Snapshot, lifetime: Lifetime, now: float) -> SessionInfo:
    """What can be told of a session file that holds a session."""
    entry = found.entry
    assert entry is not None
    accessed = entry.accessed(found.mtime, now)
    expires = entry.lifetime(lifetime).expires_at(entry.created, accessed)
    return SessionInfo(handle, found.size, entry.created, accessed, expires)


def look(path: str, handle: str) -> Snapshot | None:
    """The file at ``path``, None when it is gone or no session's kind of file.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        return sessionfile.read(path, handle)
    except NotASessionError:
        return None
    except OSError as error:
        raise store_error(error, f"reading session {handle}") from error


@dataclass(slots=True)
class Sweep:
    """One pass over a directory that deletes what is due.

    Each session is looked at without a lock, and once more under its lock before it goes. One whose
    lock is held is tried again at the end, for as long as a request may hold it.
    """

    layout: Layout
    lifetime: Lifetime
    clock: Clock
    dry_run: bool = False
    examined: int = 0
    expired: int = 0
    freed: int = 0
    oldest_overdue: float = 0.0
    corrupt: int = 0
    leftovers: int = 0
    waiting: list[str] = field(default_factory=list)

    def run(
        self, limit: int | None = None, progress: Callable[[int], None] | None = None
    ) -> SweepReport:
        """Sweep, until ``limit`` sessions were deleted; may wait for locks at the end.

        Raises:
            StoreUnavailable: the directory has vanished, or cannot be read.
        """
        started, tick = self.clock(), time.monotonic()
        complete = True
        for handle, path in self.layout.sessions():
            if limit is not None and self.expired >= limit:
                complete = False
                break
            self._examine(handle, path)
            self.examined += 1
            if progress is not None:
                progress(self.examined)
        if complete:
            self._clear_leftovers()
        busy = self._try_again(limit)
        return SweepReport(
            started_at=started,
            seconds=time.monotonic() - tick,
            examined=self.examined,
            expired=self.expired,
            freed=self.freed,
            oldest_overdue=self.oldest_overdue,
            busy=busy,
            corrupt=self.corrupt,
            leftovers=self.leftovers,
            complete=complete,
            dry_run=self.dry_run,
        )

    def _examine(self, handle: str, path: str) -> None:
        try:
            found = sessionfile.read(path, handle)
        except NotASessionError:
            self._set_aside(handle, path)
            return
        except OSError as error:
            raise store_error(error, f"reading session {handle}") from error
        if found is None:
            return
        if found.entry is None:
            if time.time() - found.changed > YOUNG:
                self._set_aside(handle, path)
            return
        overdue = self._overdue(found)
        if overdue is None:
            return
        if self.dry_run:
            self._count(found, overdue)
            return
        try:
            self._delete(handle, timeout=0)
        except LockTimeout:
            self.waiting.append(handle)

    def _overdue(self, found: Snapshot) -> float | None:
        """Seconds by which the session is past the moment its file may go; None: it is not."""
        entry = found.entry
        if entry is None:
            return None
        now = self.clock()
        accessed = entry.accessed(found.mtime, now)
        due = entry.lifetime(self.lifetime).due_at(entry.created, accessed)
        return now - due if due is not None and now > due else None

    def _delete(self, handle: str, timeout: float) -> None:
        """Look again under the lock, and delete what still is due."""
        try:
            file = SessionFile.locked(self.layout, handle, timeout)
            if file is None:
                return
            try:
                found = file.snapshot()
                overdue = self._overdue(found)
                if overdue is not None:
                    file.unlink(durable=False)  # a power cut may bring it back, but not to life
                    self._count(found, overdue)
            finally:
                file.close()
        except NotASessionError:
            return  # it changed under our eyes; the next sweep sets it aside
        except OSError as error:
            if isinstance(error, LockTimeout):
                raise
            raise store_error(error, f"deleting session {handle}") from error

    def _count(self, found: Snapshot, overdue: float) -> None:
        self.expired += 1
        self.freed += found.size
        self.oldest_overdue = max(self.oldest_overdue, overdue)

    def _try_again(self, limit: int | None) -> int:
        busy = 0
        for handle in self.waiting:
            if limit is not None and self.expired >= limit:
                break
            try:
                self._delete(handle, timeout=locks.DEFAULT_TIMEOUT)
            except LockTimeout:
                busy += 1
        return busy

    def _set_aside(self, handle: str, path: str) -> None:
        try:
            if self.dry_run or self._moved_aside(handle, path):
                self.corrupt += 1
        except (FileNotFoundError, LockTimeout):
            return  # gone, or in use: the next sweep looks again
        except OSError as error:
            raise store_error(error, f"setting {path} aside") from error

    def _moved_aside(self, handle: str, path: str) -> bool:
        """Look again under the lock: a session may have been made there meanwhile."""
        try:
            file = SessionFile.locked(self.layout, handle, timeout=0)
        except NotASessionError:
            self.layout.set_aside(path)
            return True
        if file is None:
            return False
        try:
            try:
                readable = file.snapshot().entry is not None
            except NotASessionError:
                readable = False
            if not readable:
                self.layout.set_aside(path)
            return not readable
        finally:
            file.close()

    def _clear_leftovers(self) -> None:
        for path in self.layout.leftovers():
            try:
                if time.time() - os.lstat(path).st_ctime > YOUNG:
                    if not self.dry_run:
                        os.unlink(path)
                    self.leftovers += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                raise store_error(error, f"removing {path}") from error
