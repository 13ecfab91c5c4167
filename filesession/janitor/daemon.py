"""Janitors in the foreground, until a signal ends them."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final, Protocol

from filesession.errors import ConfigurationError
from filesession.janitor.notify import Notifier

REPORT: Final = 5.0
"""Seconds between two reports of how it goes."""

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_HEARD: Final = (*_STOP, signal.SIGHUP, signal.SIGUSR1)

_TERMINAL: Final = "/dev/tty"

_log: Final = logging.getLogger("filesession.janitor")


class Worker(Protocol):
    """What the daemon runs: a ``Janitor``."""

    def start(self) -> None:
        """Begin to work in the background."""

    def begin_stop(self) -> None:
        """End soon; returns at once."""

    def stop(self) -> None:
        """End, and wait for that."""

    def sweep_soon(self) -> None:
        """Have a sweep begin."""

    def reread(self) -> None:
        """Read anew what there is."""

    def is_well(self) -> bool:
        """Whether it goes on working."""

    def state_text(self) -> str:
        """What it does."""


class Daemon:
    """Runs janitors in this process and speaks with who supervises it.

    Args:
        janitors: what is to run; each in threads of its own.
        notifier: whom to tell; None: systemd, if that started us.
        report: called every five seconds, and at the end; may block for I/O.
        last: the process ends next: a signal that comes when all have stopped is passed over, or
            whoever sends SIGTERM twice would see it killed instead of done.
    """

    def __init__(
        self,
        janitors: Sequence[Worker],
        *,
        notifier: Notifier | None = None,
        report: Callable[[], None] | None = None,
        last: bool = False,
    ) -> None:
        self._janitors = janitors
        self._notifier = Notifier.from_environment() if notifier is None else notifier
        self._report = report
        self._last = last
        # An Event may not be set from a signal's handler.
        self._asked: SimpleQueue[int] = SimpleQueue()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then have each finish the session in hand, and return.

        Blocks. SIGHUP has all read anew; when the terminal that this was started from has gone, it
        ends it, but below nohup, which wants it ignored. SIGUSR1 sweeps at once. Call it in the
        main thread; the signals' handlers are as before when it returns, unless it is the last.

        Raises:
            ConfigurationError: called in another thread, where Python hands out no signals.
        """
        if threading.current_thread() is not threading.main_thread():
            msg = (
                "run() waits for signals and works in the main thread only; use start() and stop()"
            )
            raise ConfigurationError(msg)
        had_terminal = _has_terminal()
        heard = [each for each in _HEARD if not _is_ignored_hangup(each)]
        previous = {number: signal.signal(number, self._ask) for number in heard}
        try:
            for janitor in self._janitors:
                janitor.start()
            self._notifier.ready(self._status())
            self._serve(had_terminal=had_terminal)
        finally:
            self._stop()
            for number, handler in previous.items():
                then = signal.SIG_DFL if handler is None else handler
                signal.signal(number, signal.SIG_IGN if self._last else then)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self._asked.put(number)

    def _serve(self, *, had_terminal: bool) -> None:
        pause = min(REPORT, self._notifier.watchdog_interval or REPORT)
        reported = time.monotonic()
        while True:
            try:
                number = self._asked.get(timeout=pause)
            except Empty:
                number = None
            if number in _STOP or (number == signal.SIGHUP and had_terminal > _has_terminal()):
                assert number is not None
                _log.info("%s: stopping", signal.Signals(number).name)
                return
            if number == signal.SIGHUP:
                self._reread()
            elif number == signal.SIGUSR1:
                _log.info("SIGUSR1: sweeping now")
                for janitor in self._janitors:
                    janitor.sweep_soon()
            if all(janitor.is_well() for janitor in self._janitors):
                self._notifier.alive()
            if time.monotonic() - reported >= REPORT:
                reported = time.monotonic()
                self._tell()

    def _reread(self) -> None:
        _log.info("SIGHUP: reading the manifest anew, and all sessions")
        self._notifier.reloading()
        for janitor in self._janitors:
            janitor.reread()
        self._notifier.ready(self._status())

    def _tell(self) -> None:
        self._notifier.status(self._status())
        if self._report is not None:
            self._report()

    def _status(self) -> str:
        return "; ".join(janitor.state_text() for janitor in self._janitors)

    def _stop(self) -> None:
        self._notifier.stopping()
        for janitor in self._janitors:
            janitor.begin_stop()
        # At once: a hook that hangs takes a second, and several directories have one each.
        stops = [threading.Thread(target=_end, args=(janitor,)) for janitor in self._janitors]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()
        if self._report is not None:
            self._report()


def _end(janitor: Worker) -> None:
    try:
        janitor.stop()
    except Exception:  # noqa: BLE001 - the others are to end all the same
        _log.exception("a janitor failed while it stopped")


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _is_ignored_hangup(number: signal.Signals) -> bool:
    """Whether it is the hangup, and whoever started us wants it to pass us by."""
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
