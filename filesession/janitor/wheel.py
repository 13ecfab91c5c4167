"""The expiry wheel: when each session is to be looked at again. Nothing in it does I/O.

Rules:

1. An entry is a session's handle, 16 bytes, in the bucket of the moment at which the session could
   first expire. A touch does nothing to it: whoever takes an entry looks at the session, and files
   it anew when that is still alive. So a session costs a look whenever it could have expired, and
   nothing in between.
2. An entry comes up no later than a second after its moment. It may come up early: buckets are the
   wider the further away they are, as those of the Linux kernel's timers, and one that comes up
   early is filed anew in a narrower one. For a session that nobody touches that is two looks in
   half an hour, four in a month.
3. The moment is no promise that the session has expired, and nothing is deleted for having come up.
4. What a handle begins with is part of the bucket's key: the entries of one group of handles can be
   had without touching the others.
5. A session that was filed twice comes up twice, which costs a look. ``keep`` makes it one again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heappush
from struct import iter_unpack
from typing import Final

GROUPS: Final = 64
"""So many parts a look takes one after the other: each fits into a megabyte or two."""

_SHIFT: Final = 2  # bits of the first byte that do not tell the group

ENTRY: Final = 16
"""Bytes of an entry."""

FINENESS: Final = 16
"""A bucket further away than a second is at most this part of the distance wide."""

NEVER: Final = 1 << 62
"""The moment of what never expires, and of what no calendar has. An entry all the same: who looks
through a directory wants to know which sessions are new."""

_SLOTS: Final = 2 * GROUPS
"""Buckets of one moment: for each group one of plain entries and one of the others."""


class Wheel:
    """Entries in the order of their moments. Not for several threads at once.

    A million entries take some 21 MiB. Times are POSIX seconds.
    """

    __slots__ = ("_buckets", "_order", "_size")

    def __init__(self) -> None:
        self._buckets: dict[int, bytearray] = {}  # by moment and slot, which make one number
        self._order: list[int] = []  # a heap of the keys
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, handle: bytes, due: float, now: float, *, plain: bool) -> None:
        """File a session that could first expire at ``due``, ``math.inf``: never.

        ``plain`` comes back with the entry; what it means is the caller's.
        """
        key = _moment(due, now) * _SLOTS + group_of(handle) * 2 + plain
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = bytearray()
            heappush(self._order, key)
        bucket += handle
        self._size += 1

    def take(self, now: float, most: int) -> tuple[list[bytes], bool]:
        """Up to ``most`` entries whose moment has come, of the longest overdue bucket, taken out.

        Returns:
            Their handles, each once, and whether they are plain. None at all: none is due.
        """
        while self._order and self._order[0] // _SLOTS <= now:
            key = self._order[0]
            bucket = self._buckets[key]
            taken = bytes(bucket[-ENTRY * most :])
            del bucket[-ENTRY * most :]
            self._size -= len(taken) // ENTRY
            if not bucket:
                del self._buckets[key]
                heappop(self._order)
            if taken:
                return list(dict.fromkeys(_handles(taken))), bool(key % 2)
        return [], False

    def due(self, now: float) -> int:
        """How many entries' moments have come."""
        limit = math.floor(now) * _SLOTS + _SLOTS
        return sum(len(each) for key, each in self._buckets.items() if key < limit) // ENTRY

    def first(self) -> float | None:
        """The earliest moment that a calendar has; None: there is none, or it is none of those."""
        moment = self._order[0] // _SLOTS if self._order else NEVER
        return float(moment) if abs(moment) < NEVER else None

    def handles(self, group: int) -> list[bytes]:
        """The handles of a group's entries, in no order; of what was filed twice, twice."""
        return [handle for key in self._keys(group) for handle in _handles(self._buckets[key])]

    def keep(self, group: int, wanted: Collection[bytes]) -> None:
        """Of the entries of that group keep those that are wanted, the earliest of each."""
        left = set(wanted)
        for key in sorted(self._keys(group)):
            before = self._buckets[key]
            kept = bytearray()
            for handle in _handles(before):
                if handle in left:
                    left.discard(handle)
                    kept += handle
            self._buckets[key] = kept
            self._size -= (len(before) - len(kept)) // ENTRY
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket}
        self._order = list(self._buckets)
        heapify(self._order)

    def clear(self) -> None:
        """Forget all of them."""
        self.__init__()  # type: ignore[misc]

    def _keys(self, group: int) -> list[int]:
        return [key for key in self._buckets if key % _SLOTS // 2 == group]


def group_of(handle: bytes) -> int:
    """The group of a handle, which is told by its first byte."""
    return handle[0] >> _SHIFT


def _handles(entries: bytes | bytearray) -> Iterator[bytes]:
    return (handle for (handle,) in iter_unpack(f"{ENTRY}s", entries))


def _moment(due: float, now: float) -> int:
    """When an entry comes up: a whole second, so far away from ``now`` as its bucket is wide."""
    if not -NEVER < due < NEVER:
        return -NEVER if due < 0 else NEVER
    width = 1 << int(abs(due - now) / FINENESS).bit_length() >> 1
    if width <= 1:
        return math.floor(due) + (due >= now)
    return math.floor(due) // width * width
