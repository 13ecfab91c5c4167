"""Sweeps of one session directory, whose cost follows what expires.

Rules:

1. A sweep looks at the sessions whose moment has come, the longest overdue first; those that are
   due go, under their lock and after another look, the others are filed anew.
2. The work is done in batches of some milliseconds, with a rest after each. Whoever is to stop does
   so after the session in hand; what is left is filed and not forgotten.
3. A sweep holds back, deleting nothing, when the clock was set forward, when the directory or its
   timeouts are others than before, and when too large a share would go at once. The next sweep
   looks again, and deletes what still is due.
4. A sweep trusts the wall clock no further than its own has gone since it began: one that is set
   while it works makes nothing due.
5. While not every session is known, a sample tells the share: handles are hashes, so the first
   sessions that are looked at are as good as any.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from math import inf
from typing import Final

from filesession.clock import Clock
from filesession.errors import LockTimeout, StoreUnavailable
from filesession.janitor.complaints import Complaints
from filesession.janitor.fuse import FEWEST, Fuse
from filesession.janitor.roster import Roster, Watch
from filesession.janitor.wording import counted, path_text
from filesession.record import SessionInfo, SweepReport
from filesession.stores.file.layout import Layout
from filesession.stores.file.reaper import LATER, Filing, Reaper, Tally

BATCH: Final = 64
"""Sessions taken out of the wheel at once, at most."""

WORK: Final = 0.01
"""Seconds of one batch, at most, but for the session in hand."""

REST: Final = 0.25
"""Of the time a batch took, how much follows in which nothing is done."""

LEEWAY: Final = 1.0
"""Seconds that a wall clock which is slewed may gain while a sweep is at work."""

_log = logging.getLogger("filesession.janitor")


class Rounds:
    """Sweeps a directory that exists, as its manifest describes it; for one thread.

    Args:
        directory: the absolute path of a session directory.
        clock: gives POSIX seconds.
        watch: how new sessions are noticed: "auto", "events", "poll" or "off".
        fuse: how much one sweep may delete.
        complaints: where it is said what fails.
        rest: waits so many seconds, and says whether to stop.
        told: called with every session deleted; must not block.
        progress: called with the share of the first look that is done, from 0 to 1.

    Attributes:
        roster: what is known of the sessions.
        held: why nothing was deleted by the last sweep though it is due; None: it was.
        overdue: seconds by which the oldest that goes now, or went last, was late.

    Raises:
        ConfigurationError: the directory is not ours to use.
        StoreUnavailable: it has vanished, or cannot be read.
    """

    def __init__(
        self,
        directory: str,
        clock: Clock,
        *,
        watch: Watch,
        fuse: Fuse,
        complaints: Complaints,
        rest: Callable[[float], bool],
        told: Callable[[SessionInfo], None] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        Layout(directory, 0).check_present()
        self._layout, self._manifest = Layout.found(directory)
        self._identity = _identity(self._layout)
        self._wall = clock
        self._began: tuple[float, float] | None = None
        self._reaper = Reaper(self._layout, self._manifest.lifetime, self._clock, told=told)
        self.roster = Roster(self._reaper, watch, complaints)
        self.held: str | None = None
        self.overdue = 0.0
        self._fuse = fuse
        self._rest = rest
        self._progress = progress
        self._reason: str | None = None
        self._confirmed = False
        self._busy = 0
        self._known_before = False
        self._expired_before = 0

    def _clock(self) -> float:
        now = self._wall()
        if self._began is None:
            return now
        started, tick = self._began
        return min(now, started + time.monotonic() - tick + LEEWAY)

    @property
    def usual_size(self) -> float:
        """Bytes of a session file: the mean of the thousands looked at last."""
        return self._reaper.usual_size

    def close(self) -> None:
        """Stop watching; to be called once it sweeps no more."""
        self.roster.close()

    def hold(self, reason: str) -> None:
        """Have the next sweep delete nothing, for that reason, and the one after it go on."""
        self._reason = reason

    def changed(self) -> str | None:
        """What is not as it was when this was made, so that all is to be begun anew; None: nothing.

        Raises:
            ConfigurationError, StoreUnavailable: the manifest is gone, or cannot be read.
        """
        identity = _identity(self._layout)
        if identity == self._identity:
            return None
        _, manifest = Layout.found(self._layout.directory)
        if manifest == self._manifest:
            return "the directory was restored or replaced: its manifest is another file"
        return f"the manifest was changed: {manifest.differing_from(self._manifest)}"

    def attend(self) -> None:
        """Between two sweeps: get to know what is new, and now and then look through all names.

        Takes some milliseconds at most, and deletes nothing.

        Raises:
            StoreUnavailable: the directory has vanished, or cannot be listed.
        """
        self.roster.attend()
        if self.roster.whole and self.roster.wants_look():
            end = time.monotonic() + WORK
            for _ in self.roster.look():
                if time.monotonic() > end:
                    break

    def sweep(self) -> SweepReport:
        """Delete what is due at this moment, unless it holds back. Blocks until it is done.

        Raises:
            StoreUnavailable: the directory has vanished, or a part of it cannot be listed, which is
                told when the rest is swept.
        """
        self._began = started, tick = self._wall(), time.monotonic()
        try:
            return self._sweep(started, tick)
        finally:
            self._began = None

    def _sweep(self, started: float, tick: float) -> SweepReport:
        self.roster.begin()
        self._known_before = self.roster.whole  # else each was counted when it was met
        self._expired_before = self._reaper.tally.expired
        reason, self._reason = self._reason, None
        free, self._confirmed = self._confirmed and reason is None, False
        failure = None
        try:
            complete = self._get_to_know(started, free=free, held=reason is not None)
        except StoreUnavailable as error:
            failure, complete = error, True
        if complete and reason is None and not free and self._blows(self.roster.due(started)):
            complete = self._sift(started)  # of those that may be due, most may have been touched
            reason = self._too_many() if complete else None
        if complete:
            if reason is None:
                complete = self._reap_all(started)
            self._note_hold(reason, started)
        if not complete:
            self._reason, self._confirmed = reason, free
        failure = failure or self._vanished()
        if failure is not None:
            raise failure
        return self._report(started, time.monotonic() - tick, complete=complete)

    def _get_to_know(self, now: float, *, free: bool, held: bool) -> bool:
        """Look at what may be new, and meanwhile delete what may go; False: to be broken off."""
        first = not self.roster.whole
        batch = _Batch(self._rest)
        for share in self._looks():
            if batch.is_over():
                if not self.roster.whole and self._progress is not None:
                    self._progress(share)
                if not held and (free or self._may_begin(now)):
                    self._reap(now, batch)
                if not batch.rest():
                    return False
        if first and self._progress is not None:
            self._progress(1.0)
        return True

    def _looks(self) -> Iterator[float]:
        yield from self.roster.to_group_end()
        while self.roster.attend():
            yield 0.0
        while self.roster.is_look_urgent():
            yield from self.roster.look()
        yield from self.roster.poll()

    def _may_begin(self, now: float) -> bool:
        """Whether what is known so far says that the sweep will not be too large."""
        known = self._gone + len(self.roster)
        return known >= FEWEST and not self._blows(self.roster.due(now))

    @property
    def _gone(self) -> int:
        """How many this sweep has deleted; the tally goes on where one before it failed."""
        return self._reaper.tally.expired - self._expired_before

    def _blows(self, due: int) -> bool:
        """Whether to delete so many more would be too much."""
        return self._fuse.blows(self._gone + due, self._gone + len(self.roster))

    def _too_many(self) -> str | None:
        """Why to delete all that is overdue would be too much; None: it would not."""
        overdue = len(self.roster.overdue)
        if not self._blows(overdue):
            return None
        due, known = self._gone + overdue, self._gone + len(self.roster)
        return (
            f"{due:,} of {counted(known, 'session')} are due at once, more than"
            f" {self._fuse.share:.0%}"
        )

    def _vanished(self) -> StoreUnavailable | None:
        """Why what was not found may come back; None: the directory is there."""
        try:
            self._layout.check_present()
        except StoreUnavailable as error:
            self.roster.distrust(str(error))
            return error
        return None

    def _sift(self, now: float) -> bool:
        """Tell apart what is due from what only may be; False: to be broken off."""
        batch = _Batch(self._rest)
        while True:
            handles, plain = self.roster.wheel.take(min(now, self._clock()), BATCH)
            if not handles:
                return True
            for handle in handles:
                filing = self._looked_at(handle, plain=plain)
                # By the clock that files it: what falls due meanwhile would come up for ever.
                if filing is not None and filing.due < self._clock():
                    self.roster.overdue.add(handle, filing.due, now, plain=plain)
                else:
                    self.roster.file(handle, filing)
            if batch.is_over() and not batch.rest():
                return False

    def _reap_all(self, now: float) -> bool:
        """Delete all that is due; False: to be broken off."""
        batch = _Batch(self._rest)
        while self._reap(now, batch):
            if not batch.rest():
                return False
        return True

    def _reap(self, now: float, batch: _Batch) -> bool:
        """Delete what is due until the batch is over; False: nothing is left."""
        batch.renew()
        while not batch.is_over():
            for wheel in (self.roster.overdue, self.roster.wheel):
                moment = wheel.first()
                handles, plain = wheel.take(min(now, self._clock()), BATCH)
                if handles:
                    break
            else:
                return False
            try:
                while handles:
                    self._end(handles.pop(), plain=plain)
                    if batch.is_over():
                        break
            finally:
                due = -inf if moment is None else moment
                for handle in handles:
                    wheel.add(handle, due, now + 1, plain=plain)  # a second: it has come up before
        return True

    def _end(self, handle: bytes, *, plain: bool) -> None:
        name = handle.hex()
        before = self._reaper.tally.expired
        filing = self._looked_at(handle, plain=True) if plain else Filing(0.0, plain)
        if filing is not None and filing.due < self._clock():
            try:
                filing = self._reaper.reap(name)
            except LockTimeout:
                self._busy += 1
                filing = self._later()
        self.roster.file(handle, filing)
        if self._reaper.tally.expired > before:
            self.overdue = self._reaper.last_overdue

    def _looked_at(self, handle: bytes, *, plain: bool) -> Filing | None:
        look = self._reaper.glance if plain else self._reaper.look
        self._reaper.tally.examined += self._known_before
        try:
            return look(handle.hex())
        except LockTimeout:
            return self._later()

    def _later(self) -> Filing:
        return Filing(self._clock() + LATER, plain=False)

    def _note_hold(self, reason: str | None, now: float) -> None:
        due = self.roster.due(now)
        self.held = None
        if reason is None:
            self.overdue = self._reaper.tally.oldest_overdue
            return
        if due:
            self._confirmed = True
            self.held = reason
            first = self._first_overdue()
            self.overdue = 0.0 if first is None else max(0.0, now - first)
            _log.warning(
                "holding back: %s; %s may go. The next sweep looks again and goes on. If it should"
                " not, stop the janitor now; to delete at once: filesession sweep %s",
                reason,
                counted(due, "session"),
                path_text(self._layout.directory),
            )

    def _first_overdue(self) -> float | None:
        moments = (self.roster.overdue.first(), self.roster.wheel.first())
        return min((moment for moment in moments if moment is not None), default=None)

    def _report(self, started: float, seconds: float, *, complete: bool) -> SweepReport:
        tally, self._reaper.tally = self._reaper.tally, Tally()
        busy, self._busy = self._busy, 0
        held = 0 if self.held is None else self.roster.due(started)
        return SweepReport(
            started_at=started,
            seconds=seconds,
            busy=busy,
            held=held,
            complete=complete,
            **asdict(tally),
        )


class _Batch:
    """A few milliseconds of work, and the rest after them."""

    __slots__ = ("_began", "_renewed", "_rest")

    def __init__(self, rest: Callable[[float], bool]) -> None:
        self._rest = rest
        self._began = self._renewed = time.monotonic()

    def renew(self) -> None:
        """Begin another, with one rest for both."""
        self._renewed = time.monotonic()

    def is_over(self) -> bool:
        return time.monotonic() - self._renewed > WORK

    def rest(self) -> bool:
        """Do nothing for a while; False: it is time to stop."""
        stop = self._rest(REST * (time.monotonic() - self._began))
        self._began = self._renewed = time.monotonic()
        return not stop


def _identity(layout: Layout) -> tuple[int, int, int]:
    """What tells one manifest file from another that took its place."""
    layout.check_present()
    status = os.stat(layout.manifest)
    return status.st_dev, status.st_ino, status.st_mtime_ns
