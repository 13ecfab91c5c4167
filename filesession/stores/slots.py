"""What the memory store keeps: a slot is what a file is on a disk, and ``Slots`` the directory.

Rules, as for files:

1. Who changes a slot holds its lock, and looks under the lock whether it still has its name:
   another may have deleted or moved it meanwhile.
2. A reader takes no lock, and a touch none either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from filesession import locks
from filesession.errors import SessionGone
from filesession.lifetime import Lifetime, Timeout
from filesession.record import SessionRecord
from filesession.stores.entry import Entry, accessed_at, gone
from filesession.stores.forwarding import Forwarding
from filesession.stores.held import HeldLock, HeldLocks


@dataclass(slots=True, eq=False)
class Slot:
    """One session.

    Attributes:
        entry: what is stored.
        mark: the touch mark, POSIX seconds.
        lock: the session's lock.
        changing: held for each single change, as several threads may share one held lock.
    """

    entry: Entry
    mark: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    changing: threading.Lock = field(default_factory=threading.Lock)

    def accessed(self, now: float) -> float:
        """The last activity, POSIX seconds."""
        return accessed_at(self.mark, now)

    def is_live(self, store: Lifetime, now: float) -> bool:
        """Whether a reader gets to see it."""
        return not self.entry.is_over(store, now, self.accessed(now))

    def overdue(self, store: Lifetime, now: float) -> float | None:
        """Seconds by which it is past the moment it may be deleted; None: it is not."""
        return self.entry.overdue(store, now, self.accessed(now))


def refused(slot: Slot | None) -> SessionGone:
    """The error for what is over, whose lock is held: from here on it stays so."""
    if slot is not None and not slot.entry.ended:
        slot.entry = slot.entry.as_ended()
    return gone()


class Slots:
    """The sessions of one store by handle, and the locks held on them."""

    def __init__(self) -> None:
        self.named: dict[str, Slot] = {}
        self.moved: dict[str, Forwarding] = {}
        self.held: HeldLocks[SlotLock] = HeldLocks()

    def mine(self, handle: str) -> Slot | None:
        """The session, when this thread or task holds its lock."""
        lock = self.held.get(handle)
        slot = None if lock is None else lock.slot
        return slot if slot is not None and self.named.get(handle) is slot else None

    def locked(self, handle: str, timeout: float) -> Slot | None:
        """The session with its lock, for the caller to release; None when there is none.

        Raises:
            LockTimeout: another kept it for ``timeout`` seconds.
        """
        while (slot := self.named.get(handle)) is not None:
            if not slot.lock.acquire(timeout=max(0, min(timeout, threading.TIMEOUT_MAX))):
                raise locks.lock_timeout(timeout, f"session {handle}")
            if self.named.get(handle) is slot:
                return slot
            slot.lock.release()
        return None

    @contextmanager
    def exclusive(self, handle: str, timeout: float) -> Iterator[Slot | None]:
        """The session with its lock, held already or taken for this; None when there is none."""
        slot = self.mine(handle)
        if slot is not None:
            with slot.changing:
                yield slot if self.named.get(handle) is slot else None
            return
        slot = self.locked(handle, timeout)
        if slot is None:
            yield None
            return
        try:
            with slot.changing:
                yield slot
        finally:
            slot.lock.release()

    def move(self, handle: str, forwarding: Forwarding, *, noted: bool) -> bool:
        """Give a session whose lock is held another handle; False when that one is taken.

        With ``noted``, have the old one lead there.
        """
        slot = self.named[handle]
        if self.named.setdefault(forwarding.handle, slot) is not slot:
            return False
        if noted:
            self.moved[handle] = forwarding
        del self.named[handle]
        return True

    def forget(self, until: float) -> None:
        """Drop the notes of sessions that moved up to then, POSIX seconds."""
        for handle, forwarding in list(self.moved.items()):
            if forwarding.at < until:
                self.moved.pop(handle, None)


class SlotLock(HeldLock):
    """The lock of one session in memory.

    Args:
        slots: where the session is.
        opened: gives the record of a live session, and raises for one that is not.
        sid: the session's id.
        timeout: seconds or ``timedelta`` to wait for it.
    """

    def __init__(
        self,
        slots: Slots,
        opened: Callable[[str, Slot | None], SessionRecord],
        sid: str,
        timeout: Timeout,
    ) -> None:
        super().__init__(slots.held, sid, timeout)
        self._slots = slots
        self._opened = opened
        self._sid = sid
        self.slot: Slot | None = None

    def holds(self, handle: str) -> bool:
        """Whether it is held, and on the session that is stored under that name now."""
        slot = self.slot
        return slot is not None and self._slots.named.get(handle) is slot

    def _take(self, timeout: float) -> None:
        self.slot = self._slots.locked(self.handle, timeout)

    def _record(self) -> SessionRecord:
        outer = self._outer
        holder = outer if isinstance(outer, SlotLock) else self
        return self._opened(self._sid, holder.slot)

    def _drop(self) -> None:
        slot, self.slot = self.slot, None
        if slot is not None:
            slot.lock.release()
