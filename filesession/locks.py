"""Exclusive locks on open files: the one module that knows filelock.

The lock belongs to the open file description, so two threads that each opened the file exclude each
other as two processes do, and the kernel drops it when the holder dies. Nothing is left behind to
break.
"""

from __future__ import annotations

import time
from typing import Final

from filelock import lock_descriptor, unlock_descriptor

from filesession.errors import LockTimeout

FIRST_PAUSE: Final = 0.001
"""Seconds before the second try. A save holds the lock for some 20 us."""

LONGEST_PAUSE: Final = 0.05
"""Seconds between tries in a long wait: cheap, and no one waits much longer than need be."""

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds a caller waits for a session's lock unless it says otherwise."""


class Patience:
    """How long a caller waits for a lock, on however many files it must be taken meanwhile.

    Args:
        timeout: seconds from the first moment it has to wait.
        what: names what is locked, in the message.
    """

    __slots__ = ("_deadline", "_timeout", "_what")

    def __init__(self, timeout: float, what: str) -> None:
        self._timeout = timeout
        self._what = what
        self._deadline: float | None = None

    def left(self) -> float:
        """Seconds until it ends.

        Raises:
            LockTimeout: it has ended.
        """
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._timeout
        left = self._deadline - now
        if left <= 0:
            raise lock_timeout(self._timeout, self._what)
        return left


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file if it is free; never waits.

    Raises:
        OSError: the file system cannot lock.
    """
    return lock_descriptor(descriptor, blocking=False)


def lock(descriptor: int, patience: Patience) -> None:
    """Take the exclusive lock of an open file, waiting for it as long as the caller's patience.

    Raises:
        LockTimeout: someone else kept it.
        OSError: the file system cannot lock.
    """
    if lock_descriptor(descriptor, blocking=False):
        return
    pause = FIRST_PAUSE
    while True:
        time.sleep(min(pause, patience.left()))
        if lock_descriptor(descriptor, blocking=False):
            return
        pause = min(pause * 2, LONGEST_PAUSE)


def unlock(descriptor: int) -> None:
    """Give a lock back.

    Closing the descriptor is not enough: a child forked while the lock was held has a copy of it,
    and would keep the lock for as long as it lives.

    Raises:
        OSError: the file system could not.
    """
    unlock_descriptor(descriptor)


def lock_timeout(timeout: float, what: str) -> LockTimeout:
    """The error for a lock that did not come free."""
    return LockTimeout(f"{what} is locked by another request; gave up after {timeout:g} s")
