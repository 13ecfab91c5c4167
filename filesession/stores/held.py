"""Session locks: held by a thread or task, so that its own calls for the session go through them.

A context variable follows both threads and tasks, and work handed to a worker thread with
``asyncio.to_thread`` takes it along. Rules:

1. Calls for a session made where its lock is held go through that lock: also those of a task or
   thread that was started inside the block, which inherits it.
2. Who holds the lock may lock the session again inside, as often as it likes.
3. A task that inherited the lock and locks the session itself is a guest. Guests take turns, so
   that each has the session for itself. The lock is given back with the last of its holders and
   guests: a guest that stays longer than the block it was started in keeps it.
"""

from __future__ import annotations

import os
import sys
import threading
from abc import ABC, abstractmethod
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Generic, TypeVar
from weakref import ref

from filesession import locks
from filesession.lifetime import Timeout, waiting
from filesession.record import SessionRecord
from filesession.stores.entry import gone, handle_of


def current_owner() -> tuple[int, int]:
    """What tells the running thread or task from others, as long as it runs."""
    asyncio = sys.modules.get("asyncio")  # not imported for those who have no use for it
    task = None
    if asyncio is not None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None  # no event loop runs in this thread
    return threading.get_ident(), 0 if task is None else id(task)


class HeldLock(ABC):
    """A context manager that keeps one session for its holder.

    ``with`` is ``acquire``, ``bind`` and, at the end, ``release``. They are apart so that a lock
    acquired in a worker thread can be bound to the task that asked for it.

    Args:
        held: where it is found while it is held.
        sid: the session's id.
        timeout: seconds or ``timedelta`` to wait for it.

    Raises:
        ConfigurationError: the timeout is no time.
    """

    def __init__(self, held: HeldLocks[Any], sid: str, timeout: Timeout) -> None:
        self.handle = handle_of(sid) or ""
        self._held = held
        self._timeout = waiting("timeout", timeout)
        self._owner = current_owner()
        self._outer: HeldLock | None = None
        self._door = threading.Condition()
        self._inside = 0
        self._guest: tuple[int, int] | None = None
        self._guest_depth = 0

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

    def acquire(self) -> SessionRecord:
        """Take the lock, waiting up to the timeout, and read the session.

        Raises:
            LockTimeout: another kept it.
            SessionGone: there is no such session.
            StoreError: it cannot be read.
            RuntimeError: this very lock is held already; ask the store for another.
        """
        if not self.handle:
            raise gone()
        if self._inside or self._outer is not None:
            msg = "this lock is held already; ask the store for another: store.lock(sid)"
            raise RuntimeError(msg)
        outer = self._held.get(self.handle)
        if outer is not None and outer.admit(self.handle, self._owner, self._timeout):
            self._outer = outer
        else:
            self._take(self._timeout)
            self._inside = 1
            _taken[id(self)] = ref(self)
        try:
            return self._record()
        except BaseException:
            self.release()
            raise

    def bind(self) -> None:
        """From here on, in this thread or task, calls for the session go through this lock."""
        if self._outer is None:
            self._held.add(self)

    def release(self) -> None:
        """Give the lock back; may be called from another thread than ``acquire``."""
        outer, self._outer = self._outer, None
        if outer is not None:
            outer.leave(self._owner)
            return
        self.leave(self._owner)
        self._held.remove(self)

    def admit(self, handle: str, owner: tuple[int, int], timeout: float) -> bool:
        """Let another in beside the holder (rules 2 and 3); False when the lock is given back.

        Raises:
            LockTimeout: another guest kept it.
        """
        with self._door:
            if owner != self._owner:
                free = self._door.wait_for(
                    lambda: self._guest in (None, owner), min(timeout, threading.TIMEOUT_MAX)
                )
                if not free:
                    raise locks.lock_timeout(timeout, f"session {handle}")
            if not self._inside or not self.holds(handle):
                return False
            if owner != self._owner:
                self._guest = owner
                self._guest_depth += 1
            self._inside += 1
            return True

    def leave(self, owner: tuple[int, int]) -> None:
        """One that was let in, or the holder, is done; with the last the lock is given back."""
        with self._door:
            if owner != self._owner:
                self._guest_depth -= 1
                if not self._guest_depth:
                    self._guest = None
                    self._door.notify_all()
            self._inside -= 1
            last = not self._inside
        if last:
            _taken.pop(id(self), None)
            self._drop()

    def forget_threads(self) -> None:
        """In a forked child: no thread of the parent will ever leave what it was in."""
        self._door = threading.Condition()
        if self._guest != current_owner():
            self._guest, self._guest_depth = None, 0

    @abstractmethod
    def holds(self, handle: str) -> bool:
        """Whether it is held, and on the session that is stored under that name now."""

    @abstractmethod
    def _take(self, timeout: float) -> None:
        """Take the lock of the session. Raises ``LockTimeout``, ``SessionGone``, ``StoreError``."""

    @abstractmethod
    def _record(self) -> SessionRecord:
        """The session, which is held by this lock or the outer one. Raises ``SessionGone``."""

    @abstractmethod
    def _drop(self) -> None:
        """Give back what ``_take`` took."""


L = TypeVar("L", bound=HeldLock)


class HeldLocks(Generic[L]):
    """The locks held here. One instance a store.

    A lock released in another thread, or found in a task that outlives the block it was started in,
    is still listed here: it holds nothing then, and is passed over. That it is listed keeps no lock
    alive: one whose block a signal's handler broke off at its very edge is forgotten, and with it
    given back.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: Final[ContextVar[tuple[ref[L], ...]]] = ContextVar("held", default=())

    def get(self, handle: str) -> L | None:
        """The lock on that session, or None."""
        for listed in self._held.get():
            lock = listed()
            if lock is not None and lock.holds(handle):
                return lock
        return None

    def add(self, lock: L) -> None:
        """From here on, in this thread or task, calls for the session go through ``lock``."""
        self._held.set((*self._held.get(), ref(lock)))

    def remove(self, lock: L) -> None:
        """The lock is released."""
        held = self._held.get()
        left = tuple(listed for listed in held if listed() not in (lock, None))
        if len(left) < len(held):
            self._held.set(left)


_taken: Final[dict[int, ref[HeldLock]]] = {}
"""Every lock taken in this process, by ``id``; and for a while some that were forgotten."""


def _forget_threads_in_child() -> None:
    for found in list(_taken.values()):
        lock = found()
        if lock is not None:
            lock.forget_threads()


os.register_at_fork(after_in_child=_forget_threads_in_child)
