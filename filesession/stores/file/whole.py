"""What is done to a whole session directory, or to a session known by its handle alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from filesession.codec import Codec, bound
from filesession.errors import StoreError, StoreUnavailable, WouldSync
from filesession.record import SessionInfo, SweepReport
from filesession.stores.entry import decoded
from filesession.stores.file.access import Access, translated
from filesession.stores.file.layout import is_handle
from filesession.stores.file.sessionfile import NotASessionError, look

_log = logging.getLogger("filesession.store")


class WholeDirectory:
    """The verbs of a file store that need no session id."""

    codec: Codec
    _access: Access
    _durable: bool
    _may_wait: bool

    def evict(self, handle: str, *, lineage: str | None = None) -> bool:
        """``delete`` by the stored name, for those who do not know the id.

        With ``lineage`` only the session that was created with it.

        Raises:
            LockTimeout: another kept its lock.
            StoreUnavailable: it could not be removed.
        """
        if not is_handle(handle):
            return False
        self._check_may_sync(needed=self._durable)
        with translated("deleting", handle), self._access.exclusive(handle) as file:
            if file is None:
                self._access.layout.check_present()
                return False
            try:
                found = file.snapshot()
                live = not self._access.is_over(found, self._access.clock())
                if lineage is not None and found.lineage != lineage:
                    return False
            except NotASessionError:
                self._access.layout.set_aside(file.path)
                return False
            except StoreUnavailable:
                if lineage is not None:
                    raise
                live = True  # of a newer version, and as good a session as any
            file.unlink(durable=self._durable)
            return live

    def scan(self) -> Iterator[SessionInfo]:
        """All that is stored, also what has expired but was not swept; one at a time, in no order.

        A session that cannot be read is left out, which is logged.

        Raises:
            StoreUnavailable: the directory has vanished, or a part of it cannot be listed, which is
                told when the rest is.
        """
        access = self._access
        for handle, path in access.layout.sessions():
            try:
                found = look(path, handle)
            except StoreUnavailable as error:
                _log.warning("%s", error)
                continue
            if found is not None and found.entry is not None:
                yield found.info(handle, access.lifetime, access.clock())

    def sweep(
        self,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        on_expired: Callable[[SessionInfo], None] | None = None,
    ) -> SweepReport:
        """Delete what is due, ``limit`` sessions at most; ``dry_run`` only counts it.

        Looks at every session. ``progress`` is called with the number examined so far, and
        ``on_expired`` with each session that was deleted; neither may raise. The timeouts
        are those the directory's store was last opened with. May wait a second for sessions that
        are in use. What fails for one session is counted, and the sweep goes on.

        Raises:
            StoreUnavailable: the directory has vanished, or a part of it cannot be listed, which is
                told when the rest is swept.
        """
        from filesession.stores.file.sweep import Sweep  # noqa: PLC0415 - no web application sweeps

        manifest = self._access.layout.read_manifest()
        lifetime = self._access.lifetime if manifest is None else manifest.lifetime
        return Sweep(
            self._access.layout, lifetime, self._access.clock, dry_run=dry_run, told=on_expired
        ).run(limit, progress)

    def inspect(self, handle: str) -> tuple[SessionInfo, dict[str, Any]] | None:
        """A stored session by its stored name, expired or not: what is known of it, and its data.

        None when there is none, or what is there is none.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        if not is_handle(handle):
            return None
        found = look(self._access.layout.path(handle), handle)
        if found is None or found.entry is None:
            self._access.layout.check_present()
            return None
        data = decoded(found.entry.data, bound(self.codec, handle))
        return found.info(handle, self._access.lifetime, self._access.clock()), data

    def clear(self) -> int:
        """Remove every session; the number that were live.

        Raises:
            LockTimeout, StoreUnavailable: some are left, those that could be removed are not; it is
                why the first was not.
        """
        live, failure = 0, None
        for handle, _ in self._access.layout.sessions():
            try:
                live += self.evict(handle)
            except StoreError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return live

    def __len__(self) -> int:
        """How many sessions are stored, also expired ones not yet swept; lists them all."""
        return sum(1 for _ in self._access.layout.sessions())

    def __bool__(self) -> bool:
        """True: a store is one also when it is empty."""
        return True

    def _check_may_sync(self, *, needed: bool) -> None:
        if needed and not self._may_wait:
            msg = "this call waits for the disk; make it off the event loop"
            raise WouldSync(msg)
