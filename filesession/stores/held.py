"""Which session locks the running thread or task holds, so that calls inside go through them.

A context variable follows both threads and tasks, and work handed to a worker thread with
``asyncio.to_thread`` takes it along.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, Generic, TypeVar

T = TypeVar("T")


class HeldLocks(Generic[T]):
    """The locks held here, by handle. One instance a store.

    A lock that was released elsewhere, or outlives its block in a task started inside, is not
    forgotten here: the holder marks it released, and who finds it looks.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: Final[ContextVar[dict[str, T] | None]] = ContextVar("held", default=None)

    def get(self, handle: str) -> T | None:
        """The lock held on that session, or None."""
        held = self._held.get()
        return None if held is None else held.get(handle)

    def add(self, handle: str, lock: T) -> None:
        """From here on, in this thread or task, calls for the session go through ``lock``."""
        self._held.set({**(self._held.get() or {}), handle: lock})

    def remove(self, handle: str) -> None:
        """The lock is released."""
        held = self._held.get()
        if held is not None and handle in held:
            self._held.set({key: lock for key, lock in held.items() if key != handle} or None)
