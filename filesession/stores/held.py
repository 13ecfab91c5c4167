"""Session locks: held by a thread or task, so that its own calls for the session go through them.

A context variable follows both threads and tasks, and work handed to a worker thread with
``asyncio.to_thread`` takes it along.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from filesession.record import SessionRecord


class HeldLock(ABC):
    """A context manager that keeps one session for its holder.

    ``with`` is ``acquire``, ``bind`` and, at the end, ``release``. They are apart so that a lock
    acquired in a worker thread can be bound to the task that asked for it.
    """

    handle: str

    def __init__(self, held: HeldLocks[Any]) -> None:
        self._held = held

    def __enter__(self) -> SessionRecord:
        record = self.acquire()
        self.bind()
        return record

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @abstractmethod
    def acquire(self) -> SessionRecord:
        """Take the lock, waiting up to the timeout it was made with, and read the session."""

    def bind(self) -> None:
        """From here on, in this thread or task, calls for the session go through this lock."""
        self._held.add(self.handle, self)

    @abstractmethod
    def release(self) -> None:
        """Give the lock back; may be called from another thread than ``acquire``."""


L = TypeVar("L", bound=HeldLock)


class HeldLocks(Generic[L]):
    """The locks held here, by handle. One instance a store.

    A lock released in another thread, or found in a task that outlives the block it was started in,
    is still listed here: who finds one looks whether it is held.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: Final[ContextVar[dict[str, L] | None]] = ContextVar("held", default=None)

    def get(self, handle: str) -> L | None:
        """The lock on that session, or None."""
        held = self._held.get()
        return None if held is None else held.get(handle)

    def add(self, handle: str, lock: L) -> None:
        """From here on, in this thread or task, calls for the session go through ``lock``."""
        self._held.set({**(self._held.get() or {}), handle: lock})

    def remove(self, lock: L) -> None:
        """The lock is released, under every handle its session had."""
        held = self._held.get()
        if held is not None:
            self._held.set({key: other for key, other in held.items() if other is not lock} or None)
