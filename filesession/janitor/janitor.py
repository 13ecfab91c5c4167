"""The janitor of one store: it leads or stands by, sweeps by a schedule, and says how it goes.

Rules:

1. Threads, all of them daemons. The watch looks at leadership, clock and heartbeat every half
   second and never sweeps; the sweeper sweeps and gets to know new sessions, and does nothing else,
   so that a long sweep is no missing heartbeat; apscheduler's only says when.
2. Only a leader sweeps by the schedule. Whoever finds that it leads no more stops its schedule and
   stands by again. Two that lead for a moment do no harm: each deletes under the session's lock.
3. No failure ends the janitor. It is said, and the next look or sweep is another chance.
4. A janitor that was given a path waits for a directory that is not there yet: on a first start it
   may well be up before the application that makes it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from filesession.clock import system_clock
from filesession.errors import ConfigurationError, FilesessionError
from filesession.janitor.complaints import Complaints
from filesession.janitor.daemon import Daemon
from filesession.janitor.fuse import HALF, Fuse
from filesession.janitor.heartbeat import BEAT, Heartbeat, write_heartbeat
from filesession.janitor.leader import Leadership
from filesession.janitor.place import Place, sweepable
from filesession.janitor.reading import Reading
from filesession.janitor.sweeper import Sweeper
from filesession.janitor.wording import counted, path_text, span_text
from filesession.lifetime import UNSET, Timeout, Unsettable
from filesession.record import SessionInfo, SweepReport
from filesession.stores.file.store import FileStore
from filesession.stores.protocol import Sweeps

if TYPE_CHECKING:
    from filesession.janitor.hooks import Hook
    from filesession.janitor.roster import Watch

LOOK: Final = 0.5
"""Seconds between two looks of the watch: a standby takes over within a second."""

CLOCK_STEP: Final = 1.0
"""Seconds. What the wall clock gains or loses between two looks beyond that, it was set."""

FORWARD: Final = 60.0
"""Seconds. A clock that is set forward by more makes a sweep hold back."""

HUNG: Final = 60.0
"""Seconds without a sign of the sweeper, after which it is taken for hung."""

PARTING: Final = 1.0
"""Seconds that a hook has for what it is still to tell when the janitor stops."""

FAREWELL: Final = 60.0
"""Seconds that it has after a single sweep, which nothing else waits for."""

WATCHES: Final = ("auto", "events", "poll", "off")

_LEAD: Final = "cannot lead"
_BEAT: Final = "cannot write the heartbeat"
_ATTEND: Final = "cannot look for new sessions"

_log: Final = logging.getLogger("filesession.janitor")


class Janitor:
    """Removes what has expired from a store, on a schedule; its cost follows what expires.

    What is due goes within an interval and a second. In one session directory one janitor leads and
    any others stand by; when the leader dies another takes over within a second. A store without a
    directory is swept by every janitor it is given to.

    A sweep by the schedule holds back, and says so, when the clock was set forward, when the
    directory or its timeouts were replaced, and when it would delete more than half of 1,000 or
    more sessions; the next one looks again and goes on. A janitor survives the directory vanishing
    and coming back, and a wall clock that is set. The times it writes down are the store's clock's.

    Args:
        store: a store that can be swept, or the path of a session directory, which need not be
            there yet.
        interval: seconds between sweeps, or a ``timedelta``; 60 when neither is given. The first
            sweep comes at once.
        cron: instead of an interval, when to sweep: a crontab text of five fields, in local time.
        watch: how new sessions are noticed: "events" of the file system, or a "poll" of its
            directories with every sweep; "auto" polls where there may be other machines, whose
            changes raise no events. "off" remembers nothing, and every sweep looks at all.
        on_expired: is told of what expired: a function, called once a session in a thread of its
            own, or the text of a command, which gets one JSON object a line. It never keeps a sweep
            waiting; when it falls 10,000 sessions behind it is not told of the rest.
        fuse: the share of all sessions above which a sweep holds back, from 0 to 1; 1: never.

    Attributes:
        progress: called while all of a large directory is looked at for the first time, with the
            share that is done, from 0 to 1; None: a line a minute is logged.

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
        watch: Watch = "auto",
        on_expired: Callable[[SessionInfo], object] | str | None = None,
        fuse: float = HALF,
    ) -> None:
        from filesession.janitor.schedule import Schedule  # noqa: PLC0415 - it loads apscheduler

        if watch not in WATCHES:
            msg = f"watch must be one of {', '.join(WATCHES)}, not {watch!r}"
            raise ConfigurationError(msg)
        swept = sweepable(store, FileStore.open)
        self._schedule = Schedule(
            self.sweep_soon, interval=None if interval is UNSET else interval, cron=cron
        )
        self.progress: Callable[[float], None] | None = None
        self._directory = swept.directory if isinstance(swept, (FileStore, Place)) else None
        self._name = path_text(self._directory or "a store without a directory")
        self._clock = swept.clock if isinstance(swept, FileStore) else system_clock
        self._leadership = None if self._directory is None else Leadership(self._directory)
        self._complaints = Complaints(_log)
        self._hook = _hook(on_expired)
        self._store = swept
        self._sweeper = Sweeper(
            self._sweep_all,
            self._directory,
            self._clock,
            self._complaints,
            watch=watch,
            fuse=Fuse(fuse),
            told=None if self._hook is None else self._hook.put,
            rest=self._rest,
            progress=self._tell_progress,
        )
        self._wall, self._monotonic = system_clock, time.monotonic
        self._life = threading.Lock()  # held while starting and stopping
        self._threads: list[threading.Thread] = []
        self._prepare()

    def _prepare(self) -> None:
        """What a start begins with, also after a fork: no event or lock of an earlier life."""
        self._pid = os.getpid()
        self._due, self._stopping, self._quit = (threading.Event() for _ in range(3))
        self._pen = threading.Lock()
        self._watchmaker = threading.Lock()  # held while the clock is looked at
        self._schedule.forget()
        self._sweeper.forget()
        self._leads: bool | None = None
        self._waits, self._beaten = False, -BEAT
        self._started = self._clock()
        self._pulse = self._told_progress = self._monotonic()
        self._looked: float | None = None
        self._offset: float | None = None

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; then finish the session in hand and return. Blocks.

        SIGHUP reads the manifest and the whole directory anew, or stops it when the terminal that
        it was started from has gone. SIGUSR1 sweeps at once. Call it in the main thread; the
        signals' handlers are as before when it returns.

        Raises:
            ConfigurationError: called in another thread, where Python hands out no signals.
        """
        Daemon([self]).run()

    def start(self) -> None:
        """Work in the background, in threads that do not keep the process alive; returns at once.

        Nothing happens when it works already. In a forked child of a process that started it, it
        does not, and may be started anew.
        """
        if self._pid != os.getpid():
            self._life, self._threads = threading.Lock(), []  # what they were is the parent's
        with self._life:
            if any(thread.is_alive() for thread in self._threads):
                return
            self._prepare()
            if self._hook is not None:
                self._hook.start()
            self._threads = [
                threading.Thread(target=target, name=f"filesession-{name}", daemon=True)
                for name, target in (("sweeper", self._sweep_when_due), ("watch", self._watch))
            ]
            for thread in self._threads:
                thread.start()

    def begin_stop(self) -> None:
        """Have a sweep in hand end with the session in hand; returns at once. ``stop`` waits."""
        self._stopping.set()
        self._due.set()

    def stop(self) -> None:
        """End the work begun by ``start``, and wait for that. May be called at any time.

        A sweep in hand ends with the session in hand; what is left goes with the next start. A
        store without a directory is swept to the end. What a forked child's parent began goes on.
        """
        if self._pid != os.getpid():
            return
        with self._life:
            if not self._threads:
                return
            sweeper, watch = self._threads
            self.begin_stop()
            sweeper.join()  # the watch goes on meanwhile: the leader of a long sweep is not dead
            self._quit.set()
            watch.join()
            self._threads = []
            if self._leads:
                self._step_down()
            self._sweeper.close()
            if self._hook is not None:
                self._hook.stop(PARTING)
            _log.info("%s: the janitor stopped", self._name)

    def sweep_once(self) -> SweepReport:
        """Sweep now, leader or not; everything due at this moment is gone when it returns. Blocks.

        Looks at every session, and never holds back. A hook is told of all that expired; it has a
        minute for that.

        Raises:
            FilesessionError: the store could not be swept.
        """
        idle = not any(thread.is_alive() for thread in self._threads)
        if self._hook is not None and idle:
            self._hook.start()
        try:
            return self._sweeper.sweep_all()
        finally:
            if self._hook is not None and idle:
                self._hook.stop(FAREWELL)

    def sweep_soon(self) -> None:
        """Have a sweep begin now, or when the one in hand has ended; returns at once."""
        self._due.set()

    def reread(self) -> None:
        """Have all that is known of the directory read anew, and sweep then; returns at once."""
        self._sweeper.start_anew()
        self._due.set()

    def is_well(self) -> bool:
        """Whether its threads live, and the sweeper gave a sign within the last minute."""
        alive = bool(self._threads) and all(thread.is_alive() for thread in self._threads)
        return alive and self._monotonic() - self._pulse < HUNG

    def reading(self) -> Reading:
        """How things stand, in figures. Never blocks."""
        dropped = 0 if self._hook is None else self._hook.dropped
        return self._sweeper.reading(leads=bool(self._leads), dropped=dropped)

    def state_text(self) -> str:
        """What it does now, in some words."""
        if not self._leads:
            words = "starting" if self._leads is None else "standing by"
            return "waiting for the directory" if self._waits else words
        if self._looked is not None:
            return f"looking at all sessions, {self._looked:.0%}"
        reading = self.reading()
        known = "" if reading.sessions is None else f" {counted(reading.sessions, 'session')}"
        held = "" if reading.held is None else f", holding back: {reading.held}"
        return f"leading{known}{held}"

    def _sweep_all(self) -> SweepReport:
        if self._hook is not None and isinstance(self._store, (FileStore, Place)):
            return self._store.sweep(on_expired=self._hook.put)
        return self._store.sweep()

    def _rest(self, seconds: float) -> bool:
        """Have others work for a while; True: it is time to stop."""
        self._pulse = self._monotonic()
        return self._stopping.wait(seconds)

    def _tell_progress(self, share: float) -> None:
        self._looked = share if share < 1 else None
        if self.progress is not None:
            self.progress(share)
        elif self._looked is not None and self._monotonic() - self._told_progress >= HUNG:
            self._told_progress = self._monotonic()
            known = counted(self._sweeper.known() or 0, "session")
            _log.info("looking at all of %s: %.0f %% done, %s", self._name, share * 100, known)

    def _sweep_when_due(self) -> None:
        while True:
            due = self._due.wait(LOOK)
            self._pulse = self._monotonic()
            if self._stopping.is_set():
                return
            try:
                if due:
                    self._due.clear()
                if self._leads:
                    self._follow_clock()
                    self._work(due=due)
                else:
                    self._sweeper.close()
            except Exception:  # noqa: BLE001 - dead, it would leave a leader that never sweeps
                _log.exception("the janitor's sweeper failed; going on")

    def _work(self, *, due: bool) -> None:
        if due:
            self._told_progress = self._monotonic()
            self._sweeper.sweep_or_complain()
            self._looked = None
            self._beat()
            return
        try:
            self._sweeper.attend()
        except FilesessionError as error:
            self._complaints.say(_ATTEND, str(error))
        else:
            self._complaints.over(_ATTEND)

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
        if self._leads and not (self._leadership is None or self._leadership.still_leads()):
            _log.warning(
                "%s has vanished or was replaced; standing by for it to be there: if it does not"
                " come back, restart the application to have it made anew",
                self._name,
            )
            self._waits = True
            self._sweeper.start_anew("the directory had vanished or was replaced")
            self._step_down()
        if self._leads:
            self._follow_clock()
            if self._monotonic() - self._beaten >= BEAT:
                self._beat()
        elif not self._stopping.is_set():
            self._try_to_lead()

    def _try_to_lead(self) -> None:
        try:
            if isinstance(self._store, Place) and not self._store.is_ready():
                self._wait()
                return
            leads = self._leadership is None or self._leadership.try_lead()
        except FilesessionError as error:
            self._complaints.say(_LEAD, str(error))
            return
        if leads:
            self._lead()
        elif self._leads is None:
            _log.info("standing by: another janitor leads %s", self._name)
            self._leads = False

    def _wait(self) -> None:
        """The directory is not there, or empty; say so once."""
        if not self._waits:
            _log.warning("waiting for %s: no application has opened its store yet", self._name)
            self._waits = True

    def _lead(self) -> None:
        self._waits = False
        self._complaints.over(_LEAD)
        _log.info("leading %s", self._name)
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
        """See whether the wall clock was set, or stood still while the machine slept."""
        with self._watchmaker:
            offset = self._wall() - self._monotonic()
            moved = 0.0 if self._offset is None else offset - self._offset
            self._offset = offset
        if abs(moved) <= CLOCK_STEP:
            return
        _log.info("the clock moved by %+.0f s; planning the next sweep anew", moved)
        if moved > FORWARD:
            self._sweeper.hold(f"the clock was set forward by {span_text(moved)}")
        elif moved < 0:
            self._sweeper.start_anew()  # there may be sessions that are dated in the future
        self._schedule.clock_moved(moved)

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
            looked=self._looked,
            watch=self._sweeper.watches(),
            last_sweep=self._sweeper.last,
            last_error=self._sweeper.error,
            reading=self.reading(),
        )


def _hook(on_expired: Callable[[SessionInfo], object] | str | None) -> Hook | None:
    if on_expired is None:
        return None
    from filesession.janitor.hooks import Hook, command, each  # noqa: PLC0415 - few have one

    deliver = command(on_expired) if isinstance(on_expired, str) else each(on_expired)
    return Hook(deliver, _log)
