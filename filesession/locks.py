"""Exclusive locks on open files: the one module that knows filelock.

The lock belongs to the open file description, so two threads that each opened the file exclude each
other as two processes do, and the kernel drops it when the holder dies. Nothing is left behind to
break.
"""

from __future__ import annotations

import time
from typing import Final

from filelock import lock_descriptor

from filesession.errors import LockTimeout

FIRST_PAUSE: Final = 0.001
"""Seconds before the second try. A save holds the lock for some 20 us."""

LONGEST_PAUSE: Final = 0.05
"""Seconds between tries in a long wait: cheap, and no one waits much longer than need be."""

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds a caller waits for a session's lock unless it says otherwise."""


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file if it is free; never waits.

    Raises:
        OSError: the file system cannot lock.
    """
    return lock_descriptor(descriptor, blocking=False)


def lock(descriptor: int, timeout: float, what: str) -> None:
    """Take the exclusive lock of an open file, waiting up to ``timeout`` seconds for it.

    It is released with the descriptor, by closing it.

    Raises:
        LockTimeout: someone else kept it; ``what`` names it in the message.
        OSError: the file system cannot lock.
    """
    if lock_descriptor(descriptor, blocking=False):
        return
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise lock_timeout(timeout, what)
        time.sleep(min(pause, left))
        if lock_descriptor(descriptor, blocking=False):
            return
        pause = min(pause * 2, LONGEST_PAUSE)


def lock_timeout(timeout: float, what: str) -> LockTimeout:
    """The error for a lock that did not come free."""
    return LockTimeout(f"{what} is locked by another request; gave up after {timeout:g} s")
