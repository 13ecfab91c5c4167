"""One leader per directory: who holds the lock on ``janitor.lock`` sweeps, the others stand by.

Rules:

1. The lock is the kernel's and ends with its holder, however that dies. There is no stale lock to
   break and no time to wait out.
2. The file is never unlinked by us: a second file of that name would be a second lock. Others may
   (a directory wiped, or moved away and made anew), so a leader looks whether what it holds still
   bears the name.
3. A forked child inherits the open file and the lock with it. It closes its copy, or a leader that
   dies would go on leading through a worker that knows nothing of it. So nobody forks while a file
   is open that may be locked, and that no claim has as its own yet, or no more.
4. A leader that is alive dates the file anew with every heartbeat: that needs no room on a disk
   that is full, where the heartbeat cannot be written.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Final
from weakref import WeakSet

from filesession import locks
from filesession.errors import store_error
from filesession.stores.file.layout import Layout
from filesession.stores.file.sessionfile import is_named

LOCK: Final = "janitor.lock"

_COMMON: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OPEN: Final = os.O_RDWR | _COMMON


class Leadership:
    """The claim of one janitor to lead in a directory. Nothing in it waits for another janitor.

    Not for several threads at once.
    """

    __slots__ = ("__weakref__", "_descriptor", "_layout", "_path")

    def __init__(self, directory: str) -> None:
        self._layout = Layout(directory, 0)  # only asked whether the directory is there
        self._path = os.path.join(directory, LOCK)
        self._descriptor: int | None = None
        _claims.add(self)

    def try_lead(self) -> bool:
        """Become the leader if nobody is, and say whether we are.

        Raises:
            StoreUnavailable: the directory has vanished, or cannot lock.
        """
        if self.still_leads():
            return True
        self.resign()
        self._layout.check_present()  # an empty mount point must not get a lock file
        with _unforked:
            self._try_to_lock()
        return self._descriptor is not None

    def _try_to_lock(self) -> None:
        try:
            descriptor = os.open(self._path, _OPEN | os.O_CREAT, 0o600)
        except OSError as error:
            raise store_error(error, f"opening {self._path}") from error
        try:
            if locks.try_lock(descriptor) and is_named(descriptor, self._path):
                os.fchmod(descriptor, 0o600)
                self._descriptor, descriptor = descriptor, -1
        except OSError as error:
            raise store_error(error, f"locking {self._path}") from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def still_leads(self) -> bool:
        """Whether the lock is ours and its file still is the one named ``janitor.lock``."""
        if self._descriptor is None:
            return False
        try:
            return is_named(self._descriptor, self._path)
        except OSError:
            return False  # a file that cannot be looked up is no proof of anything

    def mark(self, now: float) -> None:
        """Note on the lock's file that its holder was alive then.

        Raises:
            StoreUnavailable: the file system does not take it.
        """
        if self._descriptor is not None:
            try:
                os.utime(self._descriptor, (now, now))
            except OSError as error:
                raise store_error(error, f"dating {self._path}") from error

    def resign(self) -> None:
        """Let another lead; nothing happens when we do not."""
        with _unforked:
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)


def is_led(directory: str) -> bool:
    """Whether someone leads there now. Makes nothing and never waits.

    Raises:
        StoreUnavailable: ``janitor.lock`` is there and cannot be opened or locked.
    """
    path = os.path.join(directory, LOCK)
    try:
        descriptor = _opened(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise store_error(error, f"opening {path}") from error
    try:
        return not locks.try_lock(descriptor)
    except OSError as error:
        raise store_error(error, f"locking {path}") from error
    finally:
        os.close(descriptor)


def marked_at(directory: str) -> float | None:
    """When the last to lead there was alive, in POSIX seconds; None: nobody ever led."""
    path = os.path.join(directory, LOCK)
    try:
        return os.lstat(path).st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        raise store_error(error, f"looking at {path}") from error


def _opened(path: str) -> int:
    """A descriptor to try the lock with: for writing, which a lock over NFS needs, if it may be."""
    try:
        return os.open(path, _OPEN)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | _COMMON)


_claims: Final[WeakSet[Leadership]] = WeakSet()

_unforked: Final = threading.RLock()
"""Held while a lock's file is opened or closed, and while this process forks (rule 3)."""


def _resign_in_child() -> None:
    for claim in list(_claims):
        claim.resign()  # closes the child's copy; the parent's keeps the lock
    _unforked.release()


os.register_at_fork(
    before=_unforked.acquire,
    after_in_parent=_unforked.release,
    after_in_child=_resign_in_child,
)
