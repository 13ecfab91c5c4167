"""What is done to one stored session after the other by whoever cleans up.

Rules:

1. What ends a session is what its file says under its lock, looked at then. What was known of it
   before only leads there.
2. What fails for one session is counted, and keeps none of the others.
3. A session that is to be kept is read without a lock, and written to only where it is dated in the
   future, or its file is long and has been quiet for a while.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any, Final, NamedTuple

from filesession import locks
from filesession.clock import Clock
from filesession.errors import LockTimeout, StoreError, store_error
from filesession.lifetime import UNSET, Lifetime
from filesession.record import SessionInfo
from filesession.stores.entry import AHEAD, Entry, accessed_at
from filesession.stores.file import sessionfile
from filesession.stores.file.documents import OPEN_TO_READ
from filesession.stores.file.journal import line_of, seed_of
from filesession.stores.file.layout import Layout
from filesession.stores.file.sessionfile import YOUNG, NotASessionError, SessionFile, Snapshot

LATER: Final = 1.0
"""Seconds after which a session that could not be dealt with may be tried again."""

LONG: Final = 4096
"""Bytes, a block of most file systems: a file no longer than that takes no less when shortened."""

QUIET: Final = 60.0
"""Seconds without activity after which a long file is shortened: its lock is held meanwhile, and
the disk waited for."""

MANY: Final = 10_000
"""Sessions whose sizes tell what is usual."""

_log = logging.getLogger("filesession.store")


class Filing(NamedTuple):
    """When a session that is stored is to be looked at again.

    Attributes:
        due: POSIX seconds after which it may be deleted if nothing happens; ``math.inf``: never.
        plain: that is told by its touch mark and the store's timeouts alone, so that a ``glance``
            will do.
    """

    due: float
    plain: bool


@dataclass(slots=True)
class Tally:
    """What was done so far; as in ``SweepReport``."""

    examined: int = 0
    expired: int = 0
    freed: int = 0
    oldest_overdue: float = 0.0
    corrupt: int = 0
    failed: int = 0
    failure: str | None = None
    young: int = 0
    mended: int = 0
    compacted: int = 0
    leftovers: int = 0


class Reaper:
    """Looks at sessions, deletes those that are due, and mends what it comes across.

    Args:
        layout: where they are.
        lifetime: the timeouts of sessions that have none of their own.
        clock: gives POSIX seconds.
        dry_run: only count what would be done.
        told: called with each session that was deleted; must not block.

    Attributes:
        tally: what was done so far.
        last_overdue: seconds by which the session that was deleted last was late.
    """

    def __init__(
        self,
        layout: Layout,
        lifetime: Lifetime,
        clock: Clock,
        *,
        dry_run: bool = False,
        told: Callable[[SessionInfo], None] | None = None,
    ) -> None:
        self.layout = layout
        self.lifetime = lifetime
        self.clock = clock
        self.tally = Tally()
        self.last_overdue = 0.0
        self._looked = self._sizes = 0
        self._dry_run = dry_run
        self._told = told
        idle = lifetime.idle_timeout
        self._idle, self._slack = inf if idle is None else idle, 2 * lifetime.slack

    @property
    def usual_size(self) -> float:
        """Bytes of a session file: the mean of the thousands looked at last; 0: of none yet."""
        return self._sizes / self._looked if self._looked else 0.0

    def _weigh(self, size: int) -> None:
        if self._looked >= MANY:  # let what was looked at long ago count less and less
            self._looked, self._sizes = self._looked // 2, self._sizes // 2
        self._looked += 1
        self._sizes += size

    def glance(self, handle: str) -> Filing | None:
        """Look at a plain session's touch mark, and at more only when that calls for it.

        None: there is no such session.

        Raises:
            LockTimeout: it is to be mended, and another has its lock.
        """
        return self._attempt(handle, self._glance)

    def look(self, handle: str) -> Filing | None:
        """Read a session, and see to what is wrong with it; what is due stays.

        None: there is no such session, or none that can be read.

        Raises:
            LockTimeout: it is to be mended or set aside, and another has its lock.
        """
        return self._attempt(handle, self._look)

    def reap(self, handle: str, timeout: float = 0) -> Filing | None:
        """Look at a session, and delete it if it is due under its lock, too.

        Waits ``timeout`` seconds for the lock. None: it is gone.

        Raises:
            LockTimeout: another kept the lock.
        """
        return self._attempt(handle, self._reap, timeout)

    def _attempt(self, name: str, step: Callable[..., Filing | None], *more: Any) -> Filing | None:  # noqa: ANN401 - what the step takes
        """What fails here is counted, and keeps no other session."""
        try:
            return step(name, *more)
        except FileNotFoundError:
            return None  # another was faster
        except LockTimeout:
            raise
        except (StoreError, OSError) as error:
            told = error
            if isinstance(error, OSError):
                told = store_error(error, f"sweeping session {name}")
            self.tally.failed += 1
            self.tally.failure = self.tally.failure or str(told)
            _log.debug("%s; the sweep goes on", told)
            return self._later()

    def _later(self) -> Filing:
        return Filing(self.clock() + LATER, plain=False)

    def _glance(self, handle: str) -> Filing | None:
        status = os.lstat(self.layout.path(handle))
        now, mark = self.clock(), status.st_mtime
        sound = stat.S_ISREG(status.st_mode) and status.st_size <= sessionfile.LARGEST
        if not sound or not mark <= now + AHEAD:
            return self._look(handle)
        self._weigh(status.st_size)
        if status.st_size > LONG and now - mark > QUIET:
            self._attempt(handle, self._compact)
        return Filing(accessed_at(mark, now) + self._idle + self._slack, plain=True)

    def _look(self, handle: str) -> Filing | None:
        try:
            found = sessionfile.read(self.layout.path(handle), handle)
        except NotASessionError:
            self._set_aside(handle)
            return None
        return None if found is None else self._tended(handle, found, timeout=0)

    def _reap(self, handle: str, timeout: float) -> Filing | None:
        path = self.layout.path(handle)
        try:
            if self._dry_run:
                found, removed = sessionfile.read(path, handle), False
            else:
                found, removed = _unlink_if(path, handle, self._is_due, timeout)
        except NotASessionError:
            self._set_aside(handle)
            return None
        if found is None:
            return None
        due = removed or self._is_due(found)
        if removed or (due and self._dry_run):  # a power cut may bring it back, but not to life
            self._count(handle, found)
            return None
        if not due:
            return self._tended(handle, found, timeout)
        return self._later()  # it was changed meanwhile

    def _tended(self, handle: str, found: Snapshot, timeout: float) -> Filing | None:
        """See to what is wrong with a session file, other than that it is due.

        Waits ``timeout`` seconds for the lock of one that is to be mended.
        """
        self._weigh(found.size)
        entry, now = found.entry, self.clock()
        if entry is None:
            if time.time() - found.changed > YOUNG:
                self._set_aside(handle)
                return None
            self.tally.young += 1
            return self._later()
        if found.size > LONG and now - found.mtime > QUIET:
            self._attempt(handle, self._compact)
        filing = self._filing(entry, found.mtime, now)
        if not filing.due < now and _is_ahead(found, now):
            self._mend(handle, timeout)
            return self._later()
        return filing

    def _filing(self, entry: Entry, mark: float, now: float) -> Filing:
        due = entry.due_at(self.lifetime, now, accessed_at(mark, now))
        own = entry.idle is not UNSET or entry.absolute is not UNSET or entry.ended
        plain = not own and self.lifetime.absolute_timeout is None
        return Filing(inf if due is None else due, plain)

    def _overdue(self, found: Snapshot) -> float | None:
        """Seconds by which a session is past the moment its file may go; None: it is not."""
        if found.entry is None:
            return None
        now = self.clock()
        return found.entry.overdue(self.lifetime, now, accessed_at(found.mtime, now))

    def _is_due(self, found: Snapshot) -> bool:
        return self._overdue(found) is not None

    def _count(self, handle: str, found: Snapshot) -> None:
        self.tally.expired += 1
        self.tally.freed += found.size
        self.last_overdue = self._overdue(found) or 0.0
        self.tally.oldest_overdue = max(self.tally.oldest_overdue, self.last_overdue)
        if self._told is not None and not self._dry_run:
            self._told(found.info(handle, self.lifetime, self.clock()))

    def _mend(self, handle: str, timeout: float) -> None:
        """Let a session that is dated in the future count from now; else it would outlive that."""

        def mend(file: SessionFile) -> None:
            found, now = file.snapshot(), self.clock()
            entry = found.entry
            if entry is not None and _is_ahead(found, now):
                if entry.created > now:
                    line = line_of(entry.at(now), seed_of(handle))
                    mark = min(found.mtime, now)  # to be looked at is no activity
                    file.append(line, mark, sync=False, after=found)
                else:
                    file.touch(now)
                self.tally.mended += 1

        if self._dry_run:
            self.tally.mended += 1
        else:
            self._under_lock(handle, mend, timeout)

    def _compact(self, handle: str) -> Filing | None:
        """Replace a long file by one that holds the session's last line alone; waits for the disk.

        Nothing happens to one in use, to one that would be no shorter, or to one that has a second
        name, which may be a backup's.
        """

        def compact(file: SessionFile) -> None:
            found = file.snapshot()
            if found.entry is None or found.names > 1:
                return
            line = line_of(found.entry, seed_of(handle))
            if 2 * len(line) < found.size and self.clock() - found.mtime > QUIET:
                self._replace(file, line, found.mtime)
                self.tally.compacted += 1

        if not self._dry_run:
            with suppress(LockTimeout):  # it is in use, and not quiet
                self._under_lock(handle, compact, 0)
        return None

    def _replace(self, file: SessionFile, line: bytes, mark: float) -> None:
        old: list[int] = []
        try:
            old.extend(map(os.open, (file.path,), (OPEN_TO_READ,)))  # one step, as for any file
            file.replace(self.layout, line, mark, durable=False)
            with suppress(OSError):  # it is replaced
                last = os.fstat(old[0]).st_mtime
                if last != mark:  # a touch waits for no lock, and may just have met the old file
                    file.touch(last)
        finally:
            if old:
                os.close(old[0])

    def _under_lock(self, handle: str, act: Callable[[SessionFile], None], timeout: float) -> None:
        """Do something to a session's file with its lock; nothing when there is no such file.

        Raises:
            LockTimeout: another has it.
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
            return  # it changed under our eyes; the next look sets it aside

    def _set_aside(self, handle: str) -> None:
        """Move away what is no session, looked at again under its lock if it has one."""
        if self._dry_run:
            self.tally.corrupt += 1
            return
        try:
            file = SessionFile.locked(self.layout, handle, timeout=0)
        except NotASessionError:
            self.tally.corrupt += self.layout.set_aside_odd(handle)
            return
        if file is None:
            return
        try:
            if not _holds_session(file):  # else one was made there meanwhile
                self.layout.set_aside(file.path)
                self.tally.corrupt += 1
        finally:
            file.close()

    def clear(self, path: str) -> None:
        """Remove a temporary file, unless its writer is at work: then it is young, or locked.

        What has a temporary file's name and is no file was left by no writer, and is set aside.
        """
        self._attempt(os.path.basename(path), self._clear, path)

    def _clear(self, _name: str, path: str) -> None:
        status = os.lstat(path)
        if time.time() - status.st_ctime <= YOUNG:
            return
        if not stat.S_ISREG(status.st_mode):
            if not self._dry_run:
                self.layout.set_aside(path)
            self.tally.corrupt += 1
            return
        descriptor = os.open(path, OPEN_TO_READ)
        try:
            if locks.try_lock(descriptor):
                if not self._dry_run:
                    os.unlink(path)
                self.tally.leftovers += 1
        finally:
            os.close(descriptor)

    def clear_note(self, path: str) -> None:
        """Remove a note that led to a session, when it has not been needed for long."""
        self._attempt(os.path.basename(path), self._clear_note, path)

    def _clear_note(self, _name: str, path: str) -> None:
        if time.time() - os.lstat(path).st_ctime > YOUNG and not self._dry_run:
            os.unlink(path)


def _unlink_if(
    path: str, handle: str, wanted: Callable[[Snapshot], bool], timeout: float
) -> tuple[Snapshot | None, bool]:
    """Read a session file, and remove it if that is wanted; waits ``timeout`` s for its lock then.

    Returns:
        What it was, None: there was none; and whether it was removed. One that was changed before
        the lock was ours is not, whatever it is now.

    Raises:
        LockTimeout: it was to be removed, and the lock did not come free.
        NotASessionError, StoreUnavailable, OSError: as in ``sessionfile.read``.
    """
    descriptors: list[int] = []
    try:
        try:
            found, before = sessionfile.opened(descriptors, path, handle, sessionfile.CHANGE)
        except OSError as error:
            if error.errno != errno.EROFS or descriptors:
                raise
            found, before = sessionfile.opened(descriptors, path, handle)
        if found is None or before is None or not wanted(found):
            return found, False
        try:
            locks.lock(descriptors[0], locks.Patience(timeout, f"session {handle}"))
            if _is_unchanged(before, os.fstat(descriptors[0])):
                os.unlink(path)
                return found, True
            return found, False
        finally:
            with suppress(OSError):  # what was done is done, and closing it gives it back too
                locks.unlock(descriptors[0])  # also what was not taken: a signal may have us here
    finally:
        if descriptors:
            os.close(descriptors[0])


def _is_unchanged(before: os.stat_result, now: os.stat_result) -> bool:
    """Whether nobody saved, touched, replaced, moved or removed the file between the two looks.

    A save is longer, a touch has another time, and what was replaced or removed has one name less;
    what is moved was saved before.
    """
    return (
        now.st_size == before.st_size
        and now.st_mtime_ns == before.st_mtime_ns
        and now.st_ctime_ns == before.st_ctime_ns
        and now.st_nlink == before.st_nlink
    )


def _is_ahead(found: Snapshot, now: float) -> bool:
    """Whether it is dated in the future: the clock was set back since."""
    entry = found.entry
    return entry is not None and max(found.mtime, entry.created) > now + AHEAD


def _holds_session(file: SessionFile) -> bool:
    try:
        return file.snapshot().entry is not None
    except NotASessionError:
        return False
