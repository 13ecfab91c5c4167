"""Looking through the sessions shared with an Express app, and deleting what has expired."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from filesession.clock import Clock
from filesession.errors import StoreError
from filesession.record import SweepReport
from filesession.stores.node.folder import Folder
from filesession.stores.node.opened import opened


@dataclass(slots=True)
class _Tally:
    """What a sweep has counted so far; as in ``SweepReport``."""

    examined: int = 0
    expired: int = 0
    freed: int = 0
    oldest_overdue: float = 0.0
    failed: int = 0
    failure: str | None = None


class NodeSweep:
    """One pass over the directory. A session that somebody writes meanwhile stays.

    Args:
        folder: the directory.
        ttl: the timeout of sessions that have none of their own, in milliseconds.
        clock: gives POSIX seconds.
        dry_run: change nothing.
    """

    def __init__(self, folder: Folder, ttl: int, clock: Clock, *, dry_run: bool) -> None:
        self._folder = folder
        self._ttl = ttl
        self._clock = clock
        self._dry_run = dry_run
        self._tally = _Tally()

    def run(
        self, limit: int | None = None, progress: Callable[[int], None] | None = None
    ) -> SweepReport:
        """Sweep, until ``limit`` sessions were deleted.

        Raises:
            StoreError: the directory has vanished, or cannot be listed.
        """
        started, tick = self._clock(), time.monotonic()
        tally, complete = self._tally, True
        for sid in self._folder.ids():
            if limit is not None and tally.expired >= limit:
                complete = False
                break
            try:
                self._reap(sid)
            except StoreError as error:
                self._folder.check_present()
                tally.failed += 1
                tally.failure = tally.failure or str(error)
            tally.examined += 1
            if progress is not None:
                progress(tally.examined)
        leftovers = 0 if self._dry_run or not complete else self._folder.clear_leftovers()
        return SweepReport(
            started_at=started,
            seconds=time.monotonic() - tick,
            leftovers=leftovers,
            complete=complete,
            dry_run=self._dry_run,
            **asdict(tally),
        )

    def _reap(self, sid: str) -> None:
        tally = self._tally
        with opened(self._folder, "sweeping", sid) as (seen, document):
            now = round(self._clock() * 1000)
            if seen is None or document is None or not document.is_over(self._ttl, now):
                return
            if self._dry_run or self._folder.remove(seen):
                tally.expired += 1
                tally.freed += seen.status.st_size
                overdue = (now - (document.ends_at(self._ttl) or now)) / 1000
                tally.oldest_overdue = max(tally.oldest_overdue, overdue)
