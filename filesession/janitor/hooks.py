"""Telling of sessions that have expired: to a function, or to a command, in a thread of its own.

Rules:

1. A sweep never waits for it. What is told of waits in a queue with an end; what finds that full is
   counted, and never told of.
2. No failure ends it. A failure is said once, and the next session is another chance.
3. The first session is told of at once; what expires meanwhile is told of together.
4. Nothing of a command can hold it up: not what it does not read, not what it writes, not what it
   leaves running, and not its never coming to an end.
"""

from __future__ import annotations

import inspect
import logging
import os
import selectors
import shlex
import signal
import subprocess
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Final, Protocol, TypeAlias, runtime_checkable

from filesession.codec import dump_object
from filesession.errors import ConfigurationError, shown
from filesession.janitor.complaints import Complaints
from filesession.janitor.wording import counted
from filesession.record import SessionInfo

ROOM: Final = 10_000
"""Sessions that may wait to be told of: a few megabytes."""

BATCH: Final = 1000
"""Sessions told of together, at most."""

LONGEST: Final = 60.0
"""Seconds a command may take for one batch."""

GRACE: Final = 0.25
"""Seconds that a command has between being asked to end and being killed."""

NAP: Final = 0.02
"""Seconds between two looks at whether a command that says nothing has ended."""

LINES: Final = 20
"""Lines of a command's output that are logged, of each run and stream."""

TAIL: Final = 4096
"""Bytes of a command's output that are kept, of each run and stream: its end."""

REASONS: Final = 10
"""Reasons for which a command failed that are logged until it works again. A command that names the
session in each of its messages fails for a new reason every time."""

_PIPE: Final = 65536

Deliver: TypeAlias = Callable[[Sequence[SessionInfo]], None]

_log: Final = logging.getLogger("filesession.janitor")


@runtime_checkable
class Interruptible(Protocol):
    """What delivers, and can be told in the middle of it that there is no more time."""

    def tell(self, infos: Sequence[SessionInfo], enough: threading.Event) -> None:
        """Deliver; return early, and soon, once ``enough`` is set. Raises nothing."""


class Hook:
    """Hands on what has expired, without ever keeping waiting who says so.

    In a forked child it does not work until it is started there, and knows of nothing that was put
    into it before.

    Args:
        deliver: what is called with some sessions at a time, in a thread of the hook's own, and may
            block or fail: ``each`` or ``command``, which can be interrupted, or any function.
        log: where it says what went wrong.

    Attributes:
        dropped: sessions that found the queue full, in all; they are never told of.
    """

    def __init__(self, deliver: Deliver, log: logging.Logger) -> None:
        self._deliver = deliver
        self._log = log
        self._complaints = Complaints(log)
        self._begin()

    def _begin(self) -> None:
        """What a process begins with: after a fork no lock or queue of the parent's."""
        self._pid = os.getpid()
        self._turn = threading.Condition()  # held for moments, never while something is delivered
        self._waiting: deque[SessionInfo] = deque()
        self._in_hand = 0
        self._lost = 0
        self.dropped = 0
        self._thread: threading.Thread | None = None
        self._stopping, self._enough = threading.Event(), threading.Event()

    def _follow_fork(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    def start(self) -> None:
        """Begin to deliver, in a daemon thread; returns at once. Nothing happens when it does."""
        self._follow_fork()
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopping, self._enough = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._work,
            args=(self._stopping, self._enough),
            name="filesession-hook",
            daemon=True,
        )
        self._thread.start()

    def stop(self, patience: float) -> None:
        """End it, when all that waits is delivered or after ``patience`` seconds, if that is first.

        Blocks that long and, when a command has to be ended, half a second more. How many were not
        told of is logged; those in hand are among them, though some may have been. A function that
        does not return is left behind, and called no more when it does. What is put from now on
        waits for another start.
        """
        self._follow_fork()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._turn:
            self._stopping.set()
            self._turn.notify_all()
        thread.join(patience)
        if not thread.is_alive():
            return
        with self._turn:
            self._enough.set()
            untold = len(self._waiting) + self._in_hand + self._lost
            self._waiting.clear()
            self._lost = 0
        if untold:
            self._log.warning("stopping: %s not told of", counted(untold, "expired session"))
        thread.join(2 * GRACE)

    def put(self, info: SessionInfo) -> None:
        """Have a session told of. Never blocks and never raises."""
        self._follow_fork()
        with self._turn:
            full = len(self._waiting) >= ROOM
            news = full and not self._lost
            if full:
                self.dropped += 1
                self._lost += 1
            else:
                self._waiting.append(info)
                self._turn.notify()
        if news:
            self._log.warning(
                "%s wait to be told of; until there is room no more are",
                counted(ROOM, "expired session"),
            )

    def _work(self, stopping: threading.Event, enough: threading.Event) -> None:
        while batch := self._next(stopping, enough):
            try:
                if isinstance(self._deliver, Interruptible):
                    self._deliver.tell(batch, enough)
                else:
                    self._deliver(batch)
            except BaseException as error:  # noqa: BLE001 - also sys.exit(): the thread must live
                _complain(self._complaints, self._log, "telling of expired sessions", error)

    def _next(self, stopping: threading.Event, enough: threading.Event) -> list[SessionInfo]:
        """What is to be told of next; blocks until there is something. Empty: it is over."""
        with self._turn:
            if not enough.is_set():  # else what is in hand is another thread's
                self._in_hand = 0
            while not self._waiting and not stopping.is_set():
                self._turn.wait()
            if enough.is_set():
                return []
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._in_hand = len(batch)
            lost = 0 if self._waiting else self._lost  # not sooner, or a slow one says it every run
            self._lost -= lost
        if lost:
            self._log.warning("there is room again: %s not told of", counted(lost, "session"))
        return batch


def each(on_expired: Callable[[SessionInfo], object]) -> Each:
    """What calls a function once for every session; see ``Each``."""
    return Each(on_expired)


class Each:
    """Calls a function once for every session; an exception is logged, and the next one's turn.

    Each kind of failure, an exception's type and where it was raised, is logged once.

    Raises:
        ConfigurationError: it is not a function, or a coroutine's, which nobody would await.
    """

    def __init__(self, on_expired: Callable[[SessionInfo], object]) -> None:
        if not callable(on_expired) or inspect.iscoroutinefunction(on_expired):
            msg = (
                "on_expired takes a plain function of one SessionInfo, which is called in a thread;"
                f" this is {shown(on_expired)}"
            )
            raise ConfigurationError(msg)
        self._on_expired = on_expired
        self._complaints = Complaints(_log)

    def __call__(self, infos: Sequence[SessionInfo]) -> None:
        """Call it for each of them. Blocks as long as it does."""
        self.tell(infos, threading.Event())

    def tell(self, infos: Sequence[SessionInfo], enough: threading.Event) -> None:
        """As a call, but for no more of them once ``enough`` is set."""
        for info in infos:
            if enough.is_set():
                return
            try:
                self._on_expired(info)
            except BaseException as error:  # noqa: BLE001 - also sys.exit(): the next one's turn
                _complain(self._complaints, _log, "on_expired", error)


def command(text: str) -> Command:
    """What runs a command for some sessions at a time; see ``Command``."""
    return Command(text)


class Command:
    """Runs a command for each batch, with one JSON object a session on a line of its input.

    What it writes is logged when it ends well, the last lines of it; else the last line of its
    errors is in the complaint. It runs in a session of its own, and with all that it started is
    ended after a minute. What it leaves running when it ends by itself is its own affair.

    Args:
        text: the program and its arguments, split as a shell would; no shell runs it.

    Raises:
        ConfigurationError: it is empty, or cannot be split.
    """

    def __init__(self, text: str) -> None:
        self._words = _split(text)
        self._what = f"the on-expired command {os.path.basename(self._words[0])}"
        self._complaints = Complaints(_log)
        self._reasons: set[str] = set()

    def __call__(self, infos: Sequence[SessionInfo]) -> None:
        """Run it once for them. Blocks until it has ended."""
        self.tell(infos, threading.Event())

    def tell(self, infos: Sequence[SessionInfo], enough: threading.Event) -> None:
        """As a call, but it is ended once ``enough`` is set."""
        if enough.is_set():
            return
        lines = b"".join(dump_object(asdict(info)) + b"\n" for info in infos)
        try:
            run = _Run(self._words, lines)
        except OSError as error:
            self._complain(f"cannot be started: {error.strerror}")
            return
        reason = run.finish(enough)
        for line in run.said():
            _log.log(logging.DEBUG if reason else logging.INFO, "%s: %s", self._what, line)
        if enough.is_set():
            return  # it is the janitor that ends, and says so
        if reason is None:
            self._complaints.over(self._what, f"{self._what} works again")
            self._reasons.clear()
        else:
            self._complain(reason)

    def _complain(self, reason: str) -> None:
        if len(self._reasons) < REASONS:
            self._reasons.add(reason)
        if reason in self._reasons:
            self._complaints.say(self._what, reason)
        else:
            _log.debug("%s: %s", self._what, reason)


class _Run:
    """One run of a command: fed, read, and ended when its time is over. One thread does it all.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, words: Sequence[str], lines: bytes) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - what the user of the janitor asked for
            words,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
        names = ("stdin", "stdout", "stderr")
        self._streams: dict[str, IO[bytes]] = {name: getattr(self._process, name) for name in names}
        self._lines = memoryview(lines)
        self._tails = {"stdout": b"", "stderr": b""}
        self._selector: selectors.BaseSelector | None = None

    def finish(self, enough: threading.Event) -> str | None:
        """See it to its end, or make one; why it failed, None: it did not. Blocks."""
        deadline = time.monotonic() + LONGEST
        try:
            self._listen()
            while not (ended := self._has_ended()) and not enough.is_set():
                if time.monotonic() >= deadline:
                    break
                self._exchange(NAP)
            if not ended:
                self._end()
                return f"did not end within {LONGEST:.0f} s"
            self._exchange(0)  # what it wrote last; whoever else has its streams is not waited for
        finally:
            self._close()
        return self._failure(self._process.returncode)

    def _listen(self) -> None:
        self._selector = selectors.DefaultSelector()
        for name, stream in self._streams.items():
            os.set_blocking(stream.fileno(), False)
            event = selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ
            self._selector.register(stream, event, name)

    def said(self) -> list[str]:
        """The last lines it wrote."""
        return [line for tail in self._tails.values() for line in _lines(tail)[-LINES:]]

    def _failure(self, code: int) -> str | None:
        if code == 0:
            return None
        how = f"ended with exit code {code}" if code > 0 else f"was ended by {_name_of(-code)}"
        last = _lines(self._tails["stderr"])[-1:]
        return ": ".join((how, *last))

    def _has_ended(self) -> bool:
        """Whether it has; not asked with ``poll``, after which its number may be another's."""
        try:
            how = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, how) is not None
        except ChildProcessError:
            return True  # somebody took its exit code

    def _end(self) -> None:
        """End it and all that it started, first by asking."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while not self._has_ended() and time.monotonic() < deadline:
            self._exchange(NAP)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # it made itself another user's
            os.killpg(self._process.pid, number)

    def _exchange(self, patience: float) -> None:
        """Write what it reads and read what it writes, for at most ``patience`` seconds."""
        assert self._selector is not None
        for key, _ in self._selector.select(patience):
            if self._feed(key.fd) if key.data == "stdin" else self._read(key.fd, key.data):
                self._selector.unregister(key.fd)
                self._streams[key.data].close()

    def _feed(self, descriptor: int) -> bool:
        """Write what it takes; whether that was all, or it wants no more."""
        try:
            self._lines = self._lines[os.write(descriptor, self._lines) :]
        except BrokenPipeError:
            return True
        return not self._lines

    def _read(self, descriptor: int, name: str) -> bool:
        """Read what is there; whether there will be no more."""
        more = os.read(descriptor, _PIPE)
        self._tails[name] = (self._tails[name] + more)[-TAIL:]
        return not more

    def _close(self) -> None:
        if not self._has_ended():
            self._signal(signal.SIGKILL)
        if self._selector is not None:
            self._selector.close()
        for stream in self._streams.values():
            stream.close()
        self._process.wait()


def _split(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        msg = f"the on-expired command {text!r} cannot be split into words: {error}"
        raise ConfigurationError(msg) from None
    if not any(words[:1]) or "\0" in text:
        msg = f"an on-expired command is a program and its arguments; this is {text!r}"
        raise ConfigurationError(msg)
    return words


def _environment() -> dict[str, str]:
    """Ours, but for what the service manager told us alone: a child may not speak in our name."""
    ours = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
    return {name: value for name, value in os.environ.items() if name not in ours}


def _lines(tail: bytes) -> list[str]:
    """The lines in it that say something, without what would move a terminal's cursor."""
    text = tail.decode("utf-8", "backslashreplace")
    lines = ("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())
    return [line.strip() for line in lines if line.strip()]


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time one


def _complain(complaints: Complaints, log: logging.Logger, what: str, error: BaseException) -> None:
    """Say it once for each type and place; what it says of itself may differ every time."""
    (place,) = traceback.extract_tb(error.__traceback__, limit=-1)
    kind = f"{type(error).__name__} at {place.filename}:{place.lineno}"
    complaints.say(f"{what} failed with {shown(error)[:200]}", kind)
    log.debug("%s failed", what, exc_info=error)
