"""Looking through a whole directory and deleting what is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from filesession.clock import Clock
from filesession.errors import LockTimeout, StoreUnavailable
from filesession.lifetime import Lifetime
from filesession.record import SessionInfo, SweepReport
from filesession.stores.file.layout import Layout
from filesession.stores.file.reaper import Reaper

PATIENCE: Final = 1.0
"""Seconds a sweep waits, in all, for sessions whose lock is held; the next one takes the rest."""


class Sweep:
    """One pass over a directory that deletes what is due.

    Each session is looked at without a lock, and once more under its lock before it goes. One whose
    lock is held is tried again at the end. What fails for one session keeps none of the others.

    Args:
        layout: the directory.
        lifetime: the timeouts of sessions that have none of their own.
        clock: gives POSIX seconds.
        dry_run: change nothing.
        told: called with each session that was deleted.
    """

    def __init__(
        self,
        layout: Layout,
        lifetime: Lifetime,
        clock: Clock,
        *,
        dry_run: bool = False,
        told: Callable[[SessionInfo], None] | None = None,
    ) -> None:
        self._layout = layout
        self._clock = clock
        self._dry_run = dry_run
        self._reaper = Reaper(layout, lifetime, clock, dry_run=dry_run, told=told)
        self._waiting: list[str] = []

    def run(
        self, limit: int | None = None, progress: Callable[[int], None] | None = None
    ) -> SweepReport:
        """Sweep, until ``limit`` sessions were deleted; may wait a second for locks at the end.

        Raises:
            StoreUnavailable: the directory has vanished; or a part of it cannot be listed, which is
                told when the rest is swept.
        """
        started, tick = self._clock(), time.monotonic()
        tally = self._reaper.tally
        complete, failure = True, None
        try:
            for handle, _ in self._layout.sessions():
                if limit is not None and tally.expired >= limit:
                    complete = False
                    break
                self._examine(handle)
                tally.examined += 1
                if progress is not None:
                    progress(tally.examined)
            if complete:
                self._clear_leftovers()
        except StoreUnavailable as error:
            failure = error
        complete = self._try_again(limit) and complete
        if failure is not None:
            raise failure
        return SweepReport(
            started_at=started,
            seconds=time.monotonic() - tick,
            busy=len(self._waiting),
            complete=complete,
            dry_run=self._dry_run,
            **asdict(tally),
        )

    def _examine(self, handle: str) -> None:
        try:
            self._reaper.reap(handle)
        except LockTimeout:
            self._waiting.append(handle)

    def _try_again(self, limit: int | None) -> bool:
        """Try those whose lock was held once more; False when the limit left some of them."""
        deadline = time.monotonic() + PATIENCE
        waiting, self._waiting = self._waiting, []
        for number, handle in enumerate(waiting):
            if limit is not None and self._reaper.tally.expired >= limit:
                self._waiting += waiting[number:]
                return False
            try:
                self._reaper.reap(handle, max(0.0, deadline - time.monotonic()))
            except LockTimeout:
                self._waiting.append(handle)
        return True

    def _clear_leftovers(self) -> None:
        for path in self._layout.leftovers():
            self._reaper.clear(path)
        for directory in (self._layout.moved, self._layout.sooner):
            for path in self._layout.notes(directory):
                self._reaper.clear_note(path)
