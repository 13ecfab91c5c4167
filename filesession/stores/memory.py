"""Sessions in this process's memory: for tests, development, and as the model of the file store.

What is kept is encoded, so that no caller shares a list with the store.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from filesession import locks
from filesession.clock import Clock, system_clock
from filesession.codec import Codec, JSONCodec
from filesession.errors import LockTimeout, SessionExists
from filesession.lifetime import UNSET, Lifetime, Timeout, Unsettable
from filesession.record import SessionInfo, SessionRecord, SweepReport
from filesession.stores.entry import (
    AHEAD,
    Conflict,
    Entry,
    check_conflict,
    decoded,
    gone,
    handle_of,
    new_handle,
    new_id,
)
from filesession.stores.forwarding import LONGEST_GRACE, Forwarding, followed, grace_of, reached
from filesession.stores.slots import Slot, SlotLock, Slots, refused


class MemoryStore:
    """Keeps sessions in the memory of this process: gone when it ends, unknown to any other.

    Safe across threads. It does what ``FileStore`` does and raises what it raises, but for errors
    of a disk, and has no key of its own to sign cookies with.

    Args:
        idle_timeout: seconds or ``timedelta`` without activity after which a session ends; None: no
            such limit.
        absolute_timeout: likewise, counted from the session's creation.
        durable: of no effect: taken so that it can stand in for a ``FileStore``.
        touch_interval: seconds; a twentieth of the idle timeout, 60 at most, when None.
        codec: turns data into JSON text and back; plain JSON when None.
        shard_depth: of no effect, as ``durable``.
        regenerate_grace: seconds, 10 at most, for which a replaced id still opens its session, to
            be read; None: it is dead at once.
        clock: gives POSIX seconds.

    Raises:
        ConfigurationError: a timeout is not a positive time, or the grace longer than 10 seconds.
    """

    def __init__(
        self,
        idle_timeout: Timeout | None = 1800,
        *,
        absolute_timeout: Timeout | None = None,
        durable: bool = False,  # noqa: ARG002 - of no effect, see above
        touch_interval: Timeout | None = None,
        codec: Codec | None = None,
        shard_depth: int | None = None,  # noqa: ARG002 - of no effect, see above
        regenerate_grace: Timeout | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.codec: Codec = JSONCodec() if codec is None else codec
        self._lifetime = Lifetime.of(idle_timeout, absolute_timeout, touch_interval)
        self._clock = system_clock if clock is None else clock
        self._slots = Slots()
        self._grace = grace_of(regenerate_grace)
        self._patience = locks.DEFAULT_TIMEOUT

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def lifetime(self) -> Lifetime:
        """The timeouts of sessions that have none of their own."""
        return self._lifetime

    @property
    def clock(self) -> Clock:
        """What gives the store the time, in POSIX seconds."""
        return self._clock

    def without_waiting(self) -> MemoryStore:
        """The same sessions, but ``LockTimeout`` at once where a lock is held by another."""
        store = copy.copy(self)
        store._patience = 0  # noqa: SLF001 - one of ours
        return store

    def load(self, sid: str) -> SessionRecord | None:
        """The live session of that id; None when absent, expired or malformed. Never waits.

        For an id that ``regenerate`` replaced, within the grace, the session as it is now,
        ``forwarded``.
        """
        handle = handle_of(sid) or ""
        record = self._loaded(handle, sid)
        if record is None:
            record = reached(lambda moved: self._loaded(moved, sid), self._followed(handle))
        return record

    def _loaded(self, handle: str, sid: str) -> SessionRecord | None:
        """The live session of that handle, as the record of that id."""
        slot, now = self._slots.named.get(handle), self._clock()
        if slot is None:
            return None
        if slot.is_live(self._lifetime, now):
            return self._record(sid, slot, now)
        self._end(handle, slot)
        return None

    def _followed(self, handle: str) -> Iterator[Forwarding]:
        """Where a session may be that was just given a new id, the nearest first."""
        if self._grace is not None:
            yield from followed(self._slots.moved.get, handle, self._clock(), self._grace)

    def create(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        sid: str | None = None,
        idle_timeout: Timeout | None = None,
        absolute_timeout: Timeout | None = None,
        cookie: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Store a new session, under a fresh random id unless one is given; as ``Store.create``.

        Raises:
            SessionExists: ``sid`` is the id of a live session.
            EncodeError: the data cannot be stored exactly.
        """
        encoded = self.codec.encode({} if data is None else data)
        chosen = new_id() if sid is None else sid
        handle = new_handle(chosen)
        now = self._clock()
        entry = Entry.created_now(
            encoded,
            now,
            idle_timeout=idle_timeout,
            absolute_timeout=absolute_timeout,
            cookie=cookie,
        )
        slot = Slot(entry, now)
        while self._slots.named.setdefault(handle, slot) is not slot:
            self._make_way(handle)
        return entry.record(chosen, now, self._lifetime, self.codec)

    def save(
        self,
        sid: str,
        data: Mapping[str, Any],
        *,
        base: SessionRecord | None = None,
        conflict: Conflict = "merge",
        idle_timeout: Timeout | Unsettable | None = UNSET,
        cookie: Mapping[str, Any] | Unsettable = UNSET,
    ) -> SessionRecord:
        """Store the data of a session that exists; as ``Store.save``.

        Raises:
            SessionGone: it was deleted or has expired; nothing was written.
            ConflictError: with ``conflict="error"``; nothing was written.
            EncodeError: the data cannot be stored exactly.
            LockTimeout: another kept its lock for 10 seconds.
        """
        check_conflict(conflict)
        encoded = self.codec.encode(data)
        with self._changing(handle_of(sid) or "") as (slot, now):
            slot.entry = slot.entry.saved_as(
                data,
                encoded,
                now,
                codec=self.codec,
                base=base,
                conflict=conflict,
                idle_timeout=idle_timeout,
                cookie=cookie,
            )
            slot.mark = now
            return self._record(sid, slot, now)

    def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:
        """Note that the session was used now; False when it is gone.

        One that follows the last activity by less than the touch interval is skipped. ``base`` only
        tells the session from another of the same id: what is stored is at hand.
        """
        handle = handle_of(sid) or ""
        slot, now = self._slots.named.get(handle), self._clock()
        if slot is None:
            return False
        if not slot.is_live(self._lifetime, now):
            self._end(handle, slot)
            return False
        if base is not None and base.lineage != slot.entry.lineage:
            return False
        if slot.mark > now or slot.entry.lifetime(self._lifetime).wants_touch(
            now, slot.accessed(now)
        ):
            slot.mark = now
        return True

    def delete(self, sid: str) -> bool:
        """Remove a session for good; False when there was no live one.

        Raises:
            LockTimeout: another kept its lock for 10 seconds.
        """
        handle = handle_of(sid) or ""
        return self.evict(handle) or any(
            self.evict(forwarding.handle, lineage=forwarding.lineage)
            for forwarding in self._followed(handle)
        )

    def evict(self, handle: str, *, lineage: str | None = None) -> bool:
        """``delete`` by the stored name; with ``lineage`` only of the session created with it."""
        with self._slots.exclusive(handle, self._patience) as slot:
            if slot is None or lineage not in (None, slot.entry.lineage):
                return False
            del self._slots.named[handle]
            return slot.is_live(self._lifetime, self._clock())

    def regenerate(
        self,
        sid: str,
        data: Mapping[str, Any] | None = None,
        *,
        base: SessionRecord | None = None,
        new_sid: str | None = None,
        conflict: Conflict = "merge",
        idle_timeout: Timeout | Unsettable | None = UNSET,
        cookie: Mapping[str, Any] | Unsettable = UNSET,
    ) -> SessionRecord:
        """Give the session a new id; as ``Regenerates.regenerate``.

        Raises:
            SessionGone: it was deleted or has expired; nothing was written.
            SessionExists: ``new_sid`` is taken.
            ConflictError, EncodeError, LockTimeout: as in ``save``.
        """
        check_conflict(conflict)
        handle = handle_of(sid)
        encoded = None if data is None else self.codec.encode(data)
        chosen = new_id() if new_sid is None else new_sid
        target = new_handle(chosen)
        if handle is None:
            raise gone()
        self._make_way(target)
        with self._changing(handle) as (slot, now):
            following = slot.entry.saved_as(
                data,
                encoded,
                now,
                codec=self.codec,
                base=base,
                conflict=conflict,
                idle_timeout=idle_timeout,
                cookie=cookie,
            )
            forwarding = Forwarding(target, slot.entry.lineage, now)
            if not self._slots.move(handle, forwarding, noted=self._grace is not None):
                raise _taken(target)
            slot.entry, slot.mark = following, now
            return self._record(chosen, slot, now)

    def lock(self, sid: str, *, timeout: Timeout = locks.DEFAULT_TIMEOUT) -> SlotLock:
        """A context manager: the session, fresh, and for nobody else to change; as ``Locks.lock``.

        Raises on entering:
            LockTimeout: another kept it for ``timeout``, seconds or a ``timedelta``.
            SessionGone: there is no such session.
        """
        return SlotLock(self._slots, self._opened, sid, timeout if self._patience else 0)

    def scan(self) -> Iterator[SessionInfo]:
        """All that is stored, also what has expired but was not swept; in no order."""
        for handle, slot in list(self._slots.named.items()):
            yield self._info(handle, slot)

    def sweep(
        self,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> SweepReport:
        """Delete what is due, ``limit`` sessions at most; ``dry_run`` only counts it.

        Looks at every session, and leaves those whose lock is held. ``progress`` is called with the
        number examined so far.
        """
        started, tick = self._clock(), time.monotonic()
        tally = _Tally()
        complete = True
        for examined, (handle, slot) in enumerate(list(self._slots.named.items()), 1):
            if limit is not None and tally.expired >= limit:
                complete = False
                break
            self._examine(handle, slot, tally, dry_run=dry_run)
            tally.examined = examined
            if progress is not None:
                progress(examined)
        if not dry_run:
            self._slots.forget(self._clock() - LONGEST_GRACE)
        return SweepReport(
            started_at=started,
            seconds=time.monotonic() - tick,
            complete=complete,
            dry_run=dry_run,
            **asdict(tally),
        )

    def _examine(self, handle: str, slot: Slot, tally: _Tally, *, dry_run: bool) -> None:
        now = self._clock()
        overdue = slot.overdue(self._lifetime, now)
        ahead = max(slot.mark, slot.entry.created) > now + AHEAD
        try:
            if overdue is not None and not dry_run:
                overdue = self._delete_due(handle)
            elif overdue is None and ahead and not dry_run:
                ahead = self._mend(handle)
        except LockTimeout:
            tally.busy += 1
            return
        if overdue is not None:
            tally.expired += 1
            tally.freed += len(slot.entry.data)
            tally.oldest_overdue = max(tally.oldest_overdue, overdue)
        elif ahead:
            tally.mended += 1

    def inspect(self, handle: str) -> tuple[SessionInfo, dict[str, Any]] | None:
        """What is known of a stored session, by its stored name, and its data; expired or not."""
        slot = self._slots.named.get(handle)
        if slot is None:
            return None
        return self._info(handle, slot), decoded(slot.entry.data, self.codec)

    def clear(self) -> int:
        """Remove every session; the number that were live.

        Raises:
            LockTimeout: some are left.
        """
        return sum(self.evict(handle) for handle in list(self._slots.named))

    def __len__(self) -> int:
        """How many sessions are stored, also those that expired and were not swept."""
        return len(self._slots.named)

    def __bool__(self) -> bool:
        """True: a store is one also when it is empty."""
        return True

    def close(self) -> None:
        """Release what the store holds: nothing but its sessions, which stay."""

    @contextmanager
    def _changing(self, handle: str) -> Iterator[tuple[Slot, float]]:
        """A live session with its lock, and the time at which it was live.

        Raises:
            SessionGone: it is none.
        """
        with self._slots.exclusive(handle, self._patience) as slot:
            now = self._clock()
            if slot is None or not slot.is_live(self._lifetime, now):
                raise refused(slot)
            yield slot, now

    def _opened(self, sid: str, slot: Slot | None) -> SessionRecord:
        """What a holder of its lock gets to see. Raises ``SessionGone`` when that is nothing."""
        now = self._clock()
        if slot is None or not slot.is_live(self._lifetime, now):
            raise refused(slot)
        return self._record(sid, slot, now)

    def _end(self, handle: str, slot: Slot) -> None:
        """Note that an expired session was refused: no clock brings it back. Never waits."""
        with suppress(LockTimeout), self._slots.exclusive(handle, timeout=0) as locked:
            if locked is slot and not slot.is_live(self._lifetime, self._clock()):
                refused(slot)

    def _make_way(self, handle: str) -> None:
        """Remove an expired session; raises ``SessionExists`` for a live one."""
        with self._slots.exclusive(handle, self._patience) as slot:
            if slot is not None and slot.is_live(self._lifetime, self._clock()):
                raise _taken(handle)
            if slot is not None:
                del self._slots.named[handle]

    def _delete_due(self, handle: str) -> float | None:
        """Delete the session if, under its lock, it still is due; never waits for the lock."""
        slot = self._slots.locked(handle, timeout=0)
        if slot is None:
            return None
        try:
            overdue = slot.overdue(self._lifetime, self._clock())
            if overdue is not None:
                del self._slots.named[handle]
            return overdue
        finally:
            slot.lock.release()

    def _mend(self, handle: str) -> bool:
        """Let a session that is dated in the future count from now; never waits for the lock."""
        slot = self._slots.locked(handle, timeout=0)
        if slot is None:
            return False
        try:
            now = self._clock()
            slot.entry, slot.mark = slot.entry.at(now), min(slot.mark, now)
            return True
        finally:
            slot.lock.release()

    def _record(self, sid: str, slot: Slot, now: float) -> SessionRecord:
        return slot.entry.record(sid, slot.accessed(now), self._lifetime, self.codec)

    def _info(self, handle: str, slot: Slot) -> SessionInfo:
        entry, accessed = slot.entry, slot.accessed(self._clock())
        expires = entry.lifetime(self._lifetime).expires_at(entry.created, accessed)
        return SessionInfo(handle, len(entry.data), entry.created, accessed, expires)


@dataclass(slots=True)
class _Tally:
    """What a sweep has counted so far; as in ``SweepReport``."""

    examined: int = 0
    expired: int = 0
    freed: int = 0
    oldest_overdue: float = 0.0
    busy: int = 0
    mended: int = 0


def _taken(handle: str) -> SessionExists:
    return SessionExists(f"the id of session {handle} is taken by a live one; choose another")
