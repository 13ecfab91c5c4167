"""One sweep after the other, and what is said and remembered of each."""

from __future__ import annotations

import logging
from typing import Final

from filesession.clock import Clock
from filesession.errors import FilesessionError
from filesession.janitor.complaints import Complaints
from filesession.janitor.wording import failure_text, is_uneventful, sweep_text
from filesession.record import SweepReport
from filesession.stores.protocol import Sweeps

_SWEEP: Final = "cannot sweep"
_SWEEP_ALL: Final = "cannot sweep every session"


class Sweeper:
    """Sweeps a store for a janitor.

    Attributes:
        last: the last sweep that came to its end; None: none did.
        error: why the last one failed, or left something undone; None: it did not.
        since: POSIX seconds at which the sweep in hand began; None: there is none.
    """

    def __init__(
        self, store: Sweeps, clock: Clock, log: logging.Logger, complaints: Complaints
    ) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._complaints = complaints
        self.last: SweepReport | None = None
        self.error: str | None = None
        self.since: float | None = None

    def sweep(self) -> SweepReport:
        """Sweep and log what was done; blocks until all that was due is gone.

        Raises:
            FilesessionError: the store could not be swept.
        """
        self.since = self._clock()
        try:
            report = self._store.sweep()
        finally:
            self.since = None
        level = logging.DEBUG if is_uneventful(report) else logging.INFO
        self._log.log(level, "%s", sweep_text(report))
        self.last, self.error = report, failure_text(report)
        self._complaints.over(_SWEEP, "sweeping works again")
        if self.error is None:
            self._complaints.over(_SWEEP_ALL, "every session can be swept again")
        return report

    def sweep_or_complain(self) -> None:
        """Sweep; a failure is logged, the next sweep is another chance."""
        try:
            report = self.sweep()
        except FilesessionError as error:
            self.error = str(error)
            self._complaints.say(_SWEEP, str(error))
        except Exception as error:  # noqa: BLE001 - one that dies of a bad sweep cleans nothing more
            self.error = f"{type(error).__name__}: {error}"
            self._log.exception("a sweep failed; going on with the next")
        else:
            if report.failure is not None:
                self._complaints.say(_SWEEP_ALL, f"{report.failure}; the rest was swept")
