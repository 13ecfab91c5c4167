"""What a store must do, and what more it may offer.

The rules every store keeps, and ``filesession.testing`` checks:

- Absent, expired, corrupt and malformed are one to a reader: ``load`` gives None.
- Whatever else goes wrong is a ``StoreError``; never an empty session, and nothing is lost by it.
- ``save``, ``touch`` and ``regenerate`` never bring back what was deleted or has expired.
- An id is any text of 1 to 256 characters without control characters.
- Safe to call from several threads and processes at once.

A store of a user's own needs the methods of ``Store`` and no others. The rest are capabilities,
which the middleware, the janitor and the command detect by ``isinstance``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from filesession.lifetime import UNSET, Timeout, Unsettable
from filesession.record import SessionInfo, SessionRecord, SweepReport
from filesession.stores.entry import Conflict


@runtime_checkable
class Store(Protocol):
    """Keeps sessions; synchronous. Every method may block for the store's I/O."""

    def load(self, sid: str) -> SessionRecord | None:
        """The live session of that id; None when it is absent, expired, corrupt or malformed."""

    def create(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        sid: str | None = None,
        idle_timeout: Timeout | None = None,
        absolute_timeout: Timeout | None = None,
        cookie: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Store a new session, under a fresh random id unless one is given.

        A timeout of None is the store's own, ``math.inf`` none at all.

        Raises:
            SessionExists: ``sid`` is the id of a live session.
            EncodeError: the data cannot be stored exactly.
        """

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
        """Store the data of a session that exists.

        ``base`` is the record the caller loaded; when the session was saved since then,
        ``conflict`` decides. Without it, ours replaces all. ``idle_timeout`` and ``cookie`` stay as
        they are unless given.

        Raises:
            SessionGone: it was deleted or has expired.
            ConflictError: with ``conflict="error"``.
            EncodeError: the data cannot be stored exactly.
        """

    def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:
        """Note that the session was used now; False when it is gone. Never writes data.

        With the loaded record as ``base`` the store may trust it for what it needs to know, and
        skip a touch that follows the last one too closely.
        """

    def delete(self, sid: str) -> bool:
        """Remove a session for good; False when there was no live one."""


@runtime_checkable
class AsyncStore(Protocol):
    """``Store`` in coroutines."""

    async def load(self, sid: str) -> SessionRecord | None:
        """As ``Store.load``."""

    async def create(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        sid: str | None = None,
        idle_timeout: Timeout | None = None,
        absolute_timeout: Timeout | None = None,
        cookie: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """As ``Store.create``."""

    async def save(
        self,
        sid: str,
        data: Mapping[str, Any],
        *,
        base: SessionRecord | None = None,
        conflict: Conflict = "merge",
        idle_timeout: Timeout | Unsettable | None = UNSET,
        cookie: Mapping[str, Any] | Unsettable = UNSET,
    ) -> SessionRecord:
        """As ``Store.save``."""

    async def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:
        """As ``Store.touch``."""

    async def delete(self, sid: str) -> bool:
        """As ``Store.delete``."""


@runtime_checkable
class Regenerates(Protocol):
    """Can move a session to a new id in one step."""

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
        """Give the session a new id; the old one is dead when this returns.

        ``data`` None keeps the content. ``created_at`` is kept, so that the absolute timeout is not
        reset. The rest is as in ``Store.save``.

        Raises:
            SessionGone: it was deleted or has expired.
            SessionExists: ``new_sid`` is taken.
        """


@runtime_checkable
class Locks(Protocol):
    """Can keep a session for one holder."""

    def lock(self, sid: str, *, timeout: float = ...) -> AbstractContextManager[SessionRecord]:
        """Exclusive across threads and processes; gives the fresh record.

        Calls for the same session made inside, in the same thread or task, go through the lock.

        Raises:
            LockTimeout: it did not come free within ``timeout`` seconds.
            SessionGone: there is no such session.
        """


@runtime_checkable
class Impatient(Protocol):
    """Can do its work without ever waiting, for callers on an event loop."""

    def without_waiting(self) -> Store:
        """The same store, whose calls raise rather than wait, having done nothing.

        ``LockTimeout`` where a lock is held by another, ``WouldSync`` where the call would wait for
        the disk.
        """


@runtime_checkable
class Sweeps(Protocol):
    """Can be inspected and cleaned as a whole."""

    def scan(self) -> Iterator[SessionInfo]:
        """All that is stored, also what has expired but was not swept; one at a time."""

    def sweep(
        self,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> SweepReport:
        """Delete what is due, ``limit`` sessions at most.

        ``progress`` is called with the number of sessions examined so far.
        """


@runtime_checkable
class KeepsSecret(Protocol):
    """Can keep the key that signs its sessions' cookies, shared by all who use the store."""

    def signing_key(self) -> bytes:
        """The key, at least 32 random bytes; made at the first call, the same ever after."""
