"""The janitor at work: in the foreground until a signal, or in the background of an application.

Rules:

1. Three threads, all of them daemons. The watch looks at leadership, clock and heartbeat every half
   second and never sweeps; the sweeper sweeps and does nothing else, so that a long sweep is no
   missing heartbeat; apscheduler's only says when.
2. Only a leader sweeps by the schedule. Whoever finds that it leads no more stops its schedule and
   stands by again. Two that lead for a moment do no harm: each deletes under the session's lock.
3. No failure ends the janitor. It is said, and the next look or sweep is another chance.
4. A janitor that was given a path waits for a directory that is not there yet: on a first start it
   may well be up before the application that makes it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from queue import SimpleQueue
from types import FrameType
from typing import Final

from filesession.clock import system_clock
from filesession.errors import ConfigurationError, FilesessionError
from filesession.janitor.complaints import Complaints
from filesession.janitor.heartbeat import BEAT, Heartbeat, write_heartbeat
from filesession.janitor.leader import Leadership
from filesession.janitor.place import Place
from filesession.janitor.sweeper import Sweeper
from filesession.lifetime import UNSET, Timeout, Unsettable
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore
from filesession.stores.protocol import Sweeps

LOOK: Final = 0.5
"""Seconds between two looks of the watch: a standby takes over within a second."""

CLOCK_STEP: Final = 1.0
"""Seconds. What the wall clock gains or loses between two looks beyond that, it was set."""

_STOP: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_LEAD: Final = "cannot lead"
_BEAT: Final = "cannot write the heartbeat"

_log: Final = logging.getLogger("filesession.janitor")


class Janitor:
    """Removes what has expired from a store, on a schedule.

    What is due goes within an interval and a second. In one session directory one janitor leads and
    any others stand by; when the leader dies another takes over within a second. A store without a
    directory is swept by every janitor it is given to.

    A janitor survives the directory vanishing and coming back, and a wall clock that is set. The
    times it writes down are the store's clock's.

    Args:
        store: a store that can be swept, or the path of a session directory, which need not be
            there yet.
        interval: seconds between sweeps, or a ``timedelta``; 60 when neither is given. The first
            sweep comes at once.
        cron: instead of an interval, when to sweep: a crontab text of five fields, in local time.

    Raises:
        ConfigurationError: a value, or the directory, cannot be used; the message says how to mend
            it.
    """

    def __init__(
        self,
        store: Sweeps | str | os.PathLike[str],
        *,
        interval: Timeout | Unsettable = UNSET,
        cron: str | None = None,
    ) -> None:
        # Here, not above: who only reads a heartbeat need not wait for apscheduler to be imported.
        from filesession.janitor.schedule import Schedule  # noqa: PLC0415

        swept = _sweepable(store)
        self._schedule = Schedule(
            self._set_due, interval=None if interval is UNSET else interval, cron=cron
        )
        self._place = swept if isinstance(swept, Place) else None
        self._directory = swept.directory if isinstance(swept, (FileStore, Place)) else None
        self._clock = swept.clock if isinstance(swept, FileStore) else system_clock
        self._leadership = None if self._directory is None else Leadership(self._directory)
        self._complaints = Complaints(_log)
        self._sweeper = Sweeper(swept, self._clock, _log, self._complaints)
        self._wall, self._monotonic = system_clock, time.monotonic
        self._life = threading.Lock()  # held while starting and stopping
        self._threads: list[threading.Thread] = []
        self._prepare()

    def _prepare(self) -> None:
        """What a start begins with, also after a fork: no event or lock of an earlier life."""
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._quit = threading.Event()
        self._pen = threading.Lock()
        self._schedule.forget()
        self._leads: bool | None = None
        self._waits = False
        self._started = self._clock()
        self._beaten = -BEAT
        self._offset: float | None = None

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or SIGHUP; then finish the sweep in hand and return.

        Blocks. A SIGHUP that is ignored, as below nohup, stays so. The signals' handlers are as
        before when it returns. Call it in the main thread.

        Raises:
            ConfigurationError: called in another thread, where Python hands out no signals.
        """
        if threading.current_thread() is not threading.main_thread():
            msg = (
                "run() waits for signals and works in the main thread only; use start() and stop()"
            )
            raise ConfigurationError(msg)
        asked: SimpleQueue[int] = SimpleQueue()  # an Event may not be set from a signal's handler

        def ask(number: int, _frame: FrameType | None) -> None:
            asked.put(number)

        heard = [each for each in _STOP if not _is_ignored_hangup(each)]
        previous = {number: signal.signal(number, ask) for number in heard}
        try:
            self.start()
            number = asked.get()
            after = " after the sweep in hand" if self._sweeper.since is not None else ""
            _log.info("%s: stopping%s", signal.Signals(number).name, after)
        finally:
            self.stop()
            for number, handler in previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def start(self) -> None:
        """Work in the background, in threads that do not keep the process alive; returns at once.

        Nothing happens when it works already. In a forked child of a process that started it, it
        does not, and may be started anew.
        """
        with self._life:
            if any(thread.is_alive() for thread in self._threads):
                return
            self._prepare()
            self._threads = [
                threading.Thread(target=target, name=f"filesession-{name}", daemon=True)
                for name, target in (("sweeper", self._sweep_when_due), ("watch", self._watch))
            ]
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        """End the work begun by ``start``; waits for a sweep in hand. May be called at any time."""
        with self._life:
            if not self._threads:
                return
            sweeper, watch = self._threads
            self._stopping.set()
            self._due.set()
            sweeper.join()  # the watch goes on meanwhile: the leader of a long sweep is not dead
            self._quit.set()
            watch.join()
            self._threads = []
            if self._leads:
                self._step_down()
            _log.info("the janitor stopped")

    def sweep_once(self) -> SweepReport:
        """Sweep now, leader or not; everything due at this moment is gone when it returns. Blocks.

        Raises:
            FilesessionError: the store could not be swept.
        """
        return self._sweeper.sweep()

    def _set_due(self) -> None:
        self._due.set()

    def _sweep_when_due(self) -> None:
        while True:
            self._due.wait()
            if self._stopping.is_set():
                return
            self._due.clear()
            if self._leads:
                try:
                    self._sweeper.sweep_or_complain()
                    self._beat()
                except Exception:  # noqa: BLE001 - dead, it would leave a leader that never sweeps
                    _log.exception("the janitor's sweeper failed; going on")

    def _watch(self) -> None:
        while True:
            try:
                self._tick()
            except Exception:  # noqa: BLE001 - a watch that died would leave a leader nobody replaces
                _log.exception("the janitor's watch failed; going on")
            if self._quit.wait(LOOK):
                return

    def _tick(self) -> None:
        """One look: do we lead, was the clock set, is a heartbeat due?"""
        if self._leads and not self._still_leads():
            _log.warning(
                "%s has vanished or was replaced; standing by for it to be there: if it does not"
                " come back, restart the application to have it made anew",
                self._directory,
            )
            self._waits = True
            self._step_down()
        if self._leads:
            self._follow_clock()
            if self._monotonic() - self._beaten >= BEAT:
                self._beat()
        elif not self._stopping.is_set():
            self._try_to_lead()

    def _still_leads(self) -> bool:
        return self._leadership is None or self._leadership.still_leads()

    def _try_to_lead(self) -> None:
        try:
            if self._place is not None and not self._place.is_ready():
                self._wait()
                return
            leads = self._leadership is None or self._leadership.try_lead()
        except FilesessionError as error:
            self._complaints.say(_LEAD, str(error))
            return
        if leads:
            self._lead()
        elif self._leads is None:
            _log.info("standing by: another janitor leads %s", self._directory)
            self._leads = False

    def _wait(self) -> None:
        """The directory is not there, or empty; say so once."""
        if not self._waits:
            _log.warning("waiting for %s: no application has opened its store yet", self._directory)
            self._waits = True

    def _lead(self) -> None:
        self._waits = False
        self._complaints.over(_LEAD)
        _log.info("leading %s", self._directory or "a store without a directory")
        self._leads = True
        self._offset = None
        self._beat()  # before there is anything to see of the new leader but its lock
        try:
            self._schedule.start()
        except BaseException:
            self._step_down()  # a leader without a schedule would keep others from the work
            raise

    def _step_down(self) -> None:
        with self._pen:
            self._leads = False
        self._schedule.stop()
        self._due.clear()
        if self._leadership is not None:
            self._leadership.resign()

    def _follow_clock(self) -> None:
        """Tell the schedule when the wall clock was set, or stood still while the machine slept."""
        offset = self._wall() - self._monotonic()
        if self._offset is not None and abs(offset - self._offset) > CLOCK_STEP:
            moved = offset - self._offset
            _log.info("the clock moved by %+.0f s; planning the next sweep anew", moved)
            self._schedule.clock_moved(moved)
        self._offset = offset

    def _beat(self) -> None:
        """Write the heartbeat, unless we lead no more; a failure is said once."""
        with self._pen:
            if not self._leads or self._directory is None or self._leadership is None:
                return
            if not self._leadership.still_leads():
                return  # the directory may be another's by now
            self._beaten = self._monotonic()
            try:
                self._leadership.mark(self._clock())  # first: it needs no room
                write_heartbeat(self._directory, self._heartbeat())
            except FilesessionError as error:
                self._complaints.say(_BEAT, str(error))
            else:
                self._complaints.over(_BEAT, "the heartbeat is written again")

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=self._started,
            heartbeat_at=self._clock(),
            interval=self._schedule.interval,
            cron=self._schedule.cron,
            next_sweep_at=self._schedule.next_at(),
            sweeping_since=self._sweeper.since,
            last_sweep=self._sweeper.last,
            last_error=self._sweeper.error,
        )


def _sweepable(store: object) -> Sweeps:
    if isinstance(store, (str, os.PathLike)):
        return Place(store, FileStore.open)
    if not isinstance(store, Sweeps):
        msg = (
            f"a {type(store).__name__} cannot be swept: it has no sweep(); a janitor takes a"
            " FileStore, a MemoryStore or the path of a session directory"
        )
        raise ConfigurationError(msg)
    return store


def _is_ignored_hangup(number: signal.Signals) -> bool:
    """Whether it is the hangup, and whoever started us wants it to pass us by."""
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
