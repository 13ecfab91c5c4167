"""One sweep after the other, and what is said and remembered of each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from filesession.clock import Clock
from filesession.errors import FilesessionError
from filesession.janitor.complaints import Complaints
from filesession.janitor.fuse import Fuse
from filesession.janitor.reading import Reading
from filesession.janitor.wording import failure_text, is_uneventful, path_text, sweep_text
from filesession.record import SessionInfo, SweepReport

if TYPE_CHECKING:
    from filesession.janitor.roster import Watch
    from filesession.janitor.rounds import Rounds

_SWEEP: Final = "cannot sweep"
_SWEEP_ALL: Final = "cannot sweep every session"

_log: Final = logging.getLogger("filesession.janitor")


@dataclass(slots=True)
class _Totals:
    """What all sweeps did together, and the rounds that were begun anew since."""

    expired: int = 0
    freed: int = 0
    corrupt: int = 0
    failed: int = 0
    sweeps: int = 0
    seconds: float = 0.0
    noticed: int = 0
    looks: int = 0
    losses: int = 0

    def add(self, report: SweepReport) -> None:
        self.expired += report.expired
        self.freed += report.freed
        self.corrupt += report.corrupt
        self.failed += report.failed
        self.sweeps += 1
        self.seconds += report.seconds


class Sweeper:
    """Sweeps a store for a janitor: a session directory in rounds, any other as the store can.

    Args:
        sweep: sweeps all of the store, and returns when that is done.
        directory: the session directory; None: the store has none.
        clock: the store's.
        complaints: where it is said what fails.
        watch: how new sessions of a directory are noticed.
        fuse: how much one sweep of a directory may delete.
        told: called with every session of a directory that was deleted.
        rest: waits so many seconds, and says whether to stop.
        progress: called with the share of a first look that is done.

    Attributes:
        last: the last sweep that came to its end; None: none did.
        error: why the last one failed, or left something undone; None: it did not.
        since: POSIX seconds at which the sweep in hand began; None: there is none.
    """

    def __init__(
        self,
        sweep: Callable[[], SweepReport],
        directory: str | None,
        clock: Clock,
        complaints: Complaints,
        *,
        watch: Watch,
        fuse: Fuse,
        told: Callable[[SessionInfo], None] | None,
        rest: Callable[[float], bool],
        progress: Callable[[float], None],
    ) -> None:
        # Now, not when it is needed: in a process that is forked while a thread imports, nobody can
        # import that any more. Not above: it loads watchdog, and who reads a heartbeat needs none.
        from filesession.janitor.rounds import Rounds  # noqa: PLC0415

        self._begin = Rounds
        self._sweep = sweep
        self._directory = directory
        self._clock = clock
        self._complaints = complaints
        self._watch: Watch = watch
        self._fuse = fuse
        self._told = told
        self._rest = rest
        self._progress = progress
        self.last: SweepReport | None = None
        self.error: str | None = None
        self.since: float | None = None
        self.forget()

    def forget(self) -> None:
        """Know nothing, as at the beginning or in a forked child, where nothing is watched."""
        self._rounds: Rounds | None = None
        self._totals = _Totals()
        self._anew = False
        self._reason: str | None = None

    def close(self) -> None:
        """Stop watching; the next sweep begins anew."""
        rounds, self._rounds = self._rounds, None
        if rounds is not None:
            rounds.close()
            self._totals.noticed += rounds.roster.noticed
            self._totals.looks += rounds.roster.looks
            self._totals.losses += rounds.roster.losses

    def start_anew(self, reason: str | None = None) -> None:
        """Have the next sweep forget all that is known; with a reason it deletes nothing."""
        self._reason = reason or self._reason
        self._anew = True

    def hold(self, reason: str) -> None:
        """Have the next sweep delete nothing, for that reason, and the one after it go on."""
        self._reason = reason

    def attend(self) -> None:
        """What is to be done between two sweeps; takes milliseconds.

        Raises:
            FilesessionError: the directory has vanished, or cannot be listed.
        """
        if self._rounds is not None and not self._anew:
            self._rounds.attend()

    def sweep_all(self) -> SweepReport:
        """Look at every session and delete what is due; blocks until all of that is gone.

        Raises:
            FilesessionError: the store could not be swept.
        """
        return self._noted(self._sweep)

    def sweep_or_complain(self) -> None:
        """Sweep as the schedule wants it; a failure is logged, the next sweep is another chance."""
        try:
            report = self._noted(self._sweep if self._directory is None else self._sweep_in_rounds)
        except FilesessionError as error:
            self.error = str(error)
            self._complaints.say(_SWEEP, str(error))
        except Exception as error:  # noqa: BLE001 - one that dies of a bad sweep cleans nothing more
            self.error = f"{type(error).__name__}: {error}"
            _log.exception("a sweep failed; going on with the next")
        else:
            if report.failure is not None:
                self._complaints.say(_SWEEP_ALL, f"{report.failure}; the rest was swept")

    def _sweep_in_rounds(self) -> SweepReport:
        assert self._directory is not None
        changed = None if self._rounds is None else self._rounds.changed()
        if changed is not None or self._anew:
            self._reason = changed or self._reason
            self._anew = False
            self.close()
        if self._rounds is None:
            self._rounds = self._begin(
                self._directory,
                self._clock,
                watch=self._watch,
                fuse=self._fuse,
                complaints=self._complaints,
                rest=self._rest,
                told=self._told,
                progress=self._progress,
            )
        reason, self._reason = self._reason, None
        if reason is not None:
            self._rounds.hold(reason)
        return self._rounds.sweep()

    def _noted(self, sweep: Callable[[], SweepReport]) -> SweepReport:
        self.since = self._clock()
        try:
            report = sweep()
        finally:
            self.since = None
        level = logging.DEBUG if is_uneventful(report) else logging.INFO
        where = "" if self._directory is None else f"{path_text(self._directory)}: "
        _log.log(level, "%s%s", where, sweep_text(report))
        self.last, self.error = report, failure_text(report)
        self._totals.add(report)
        self._complaints.over(_SWEEP, "sweeping works again")
        if self.error is None:
            self._complaints.over(_SWEEP_ALL, "every session can be swept again")
        return report

    def known(self) -> int | None:
        """How many sessions are known; None: that cannot be told."""
        rounds, last = self._rounds, self.last
        if rounds is not None:
            return len(rounds.roster)
        return None if last is None or self._directory is not None else last.examined - last.expired

    def watches(self) -> Watch | None:
        """How new sessions are noticed now; None: nothing was swept yet, or no directory is."""
        return None if self._rounds is None else self._rounds.roster.watches

    def reading(self, *, leads: bool, dropped: int) -> Reading:
        """The figures so far."""
        rounds, last, totals = self._rounds, self.last, self._totals
        roster = None if rounds is None else rounds.roster
        known = self.known()
        return Reading(
            directory=self._directory,
            leads=leads,
            sessions=known,
            bytes=None if known is None or rounds is None else round(known * rounds.usual_size),
            created=totals.noticed + (0 if roster is None else roster.noticed),
            expired=totals.expired,
            freed=totals.freed,
            corrupt=totals.corrupt,
            failed=totals.failed,
            sweeps=totals.sweeps,
            sweep_seconds=totals.seconds,
            lag=rounds.overdue
            if rounds is not None
            else 0.0
            if last is None
            else last.oldest_overdue,
            full_looks=totals.looks + (0 if roster is None else roster.looks),
            overflows=totals.losses + (0 if roster is None else roster.losses),
            held=None if rounds is None else rounds.held,
            dropped=dropped,
        )
