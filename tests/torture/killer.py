"""The process that starts the others, kills and stops them, and looks at what they leave.

Workers are forked: a new one is at work in a few milliseconds. The janitor is the real command. All
of them end with this process, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from filesession import FileStore
from tests.torture.history import Scribe
from tests.torture.worker import SLOTS, THREADS, Board, Ground, Player, work

ROUND: Final = 15.0
"""Seconds. The judge has one round in memory at a time."""

PATIENCE: Final = 30.0
"""Seconds within which workers whose time is over end: longer than any of them waits for a lock."""

SPARED: Final = 0.9
"""How often the oldest worker is not among those of whom one is killed or stopped."""

FEW: Final = 5
"""Looks at a janitor's descriptors, the fewest of which are those it keeps open."""

HOUR: Final = 3600.0

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is: times in seconds; ``grace`` None is a store without."""

    directory: Path
    seed: int
    seconds: float = 120.0
    workers: int = 4
    idle: float = 1.5
    durable: bool = False
    grace: float | None = None
    round: float = ROUND
    make: Callable[..., FileStore] = FileStore

    @property
    def sessions(self) -> Path:
        return self.directory / "sessions"

    @property
    def history(self) -> Path:
        return self.directory / "history.jsonl"

    def store(self) -> FileStore:
        return self.make(
            self.sessions,
            idle_timeout=self.idle,
            durable=self.durable,
            **({} if self.grace is None else {"regenerate_grace": self.grace}),
        )


@dataclass(slots=True)
class Child:
    """A process of ours."""

    pid: int
    number: int
    wakes: float = 0.0
    open: list[int] = field(default_factory=list)


class Killer:
    """One run, from the first round to the last look."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.zero = time.monotonic()
        self.scribe = Scribe(settings.history, self.zero)
        self.random = random.Random(settings.seed)  # noqa: S311 - a game that can be played again
        self.workers: dict[int, Child] = {}
        self.janitor: Child | None = None
        self.numbers = 0
        self.offset = time.time() - self.zero
        self.drift = 0.0
        self.ending = False

    def end(self, *_: object) -> None:
        """Come to an end soon; for a signal's handler, whose exception might be lost in a fork."""
        self.ending = True

    def run(self) -> None:
        """Everything; no child is left when it returns or raises."""
        end = self.zero + self.settings.seconds
        try:
            self.settings.store()
            while not self.ending and (not self.numbers or time.monotonic() < end):
                until = min(end, time.monotonic() + self.settings.round)
                if end - until < self.settings.round / 3:
                    until = end
                self._round(until)
            if not self.ending:
                self._end_janitor()
                self._tell_what_is_left()
        finally:
            self._end_all()
            self.scribe.close()

    def _round(self, until: float) -> None:
        settings, board = self.settings, Board()
        self.scribe.write(
            event="round",
            at=self.scribe.now(),
            seed=settings.seed,
            idle=settings.idle,
            grace=settings.grace,
        )
        if self.janitor is None:
            self._start_janitor()
        for _ in range(settings.workers):
            self._start_worker(board, until)
        while time.monotonic() < until:
            if self.ending:
                return
            time.sleep(min(self.random.uniform(0.02, 0.2), max(0.0, until - time.monotonic())))
            self._wake()
            self._act()
            self._reap()
            while len(self.workers) < settings.workers and time.monotonic() < until:
                self._start_worker(board, until)
            self._look()
        self._await_workers()
        self._last_look(board)
        self.scribe.write(event="clock", drift=self.drift)

    def _act(self) -> None:
        """Kill one, stop one, or the janitor; or nobody."""
        (what,) = self.random.choices(("kill", "stop", "janitor", "none"), (10, 4, 0.4, 4))
        if what == "janitor":
            self._end_janitor()
            self._start_janitor()
        elif what != "none" and self.workers:
            first, *others = sorted(self.workers.values(), key=lambda child: child.number)
            spared = self.random.random() < SPARED  # one that lives on sees sessions expire
            child = self.random.choice(others if spared and others else [first, *others])
            if what == "kill":
                self._kill(child)
            elif not child.wakes:
                child.wakes = time.monotonic() + self.random.uniform(0.01, 0.6)
                self.scribe.write(event="stop", worker=child.number, at=self.scribe.now())
                os.kill(child.pid, signal.SIGSTOP)

    def _kill(self, child: Child) -> None:
        self.scribe.write(event="kill", worker=child.number, at=self.scribe.now())
        with suppress(ChildProcessError):  # we were told to end just after it had
            os.kill(child.pid, signal.SIGKILL)
            self._gone(child, os.waitpid(child.pid, 0)[1])

    def _wake(self, *, all_of_them: bool = False) -> None:
        for child in self.workers.values():
            if child.wakes and (all_of_them or time.monotonic() >= child.wakes):
                child.wakes = 0.0
                os.kill(child.pid, signal.SIGCONT)
                self.scribe.write(event="go", worker=child.number, at=self.scribe.now())

    def _reap(self) -> None:
        for child in list(self.workers.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._gone(child, status)

    def _gone(self, child: Child, status: int) -> None:
        del self.workers[child.pid]
        code = os.waitstatus_to_exitcode(status)
        self.scribe.write(event="ended", worker=child.number, at=self.scribe.now(), code=code)

    def _await_workers(self) -> None:
        self._wake(all_of_them=True)
        deadline = time.monotonic() + PATIENCE
        while self.workers and (left := deadline - time.monotonic()) > 0:
            self._until_one_ends(left)
            self._reap()
        for child in list(self.workers.values()):
            self.scribe.write(event="stuck", worker=child.number)
            self._kill(child)

    def _until_one_ends(self, seconds: float) -> None:
        ends = [os.pidfd_open(pid) for pid in self.workers]
        try:
            select.select(ends, [], [], seconds)
        finally:
            for end in ends:
                os.close(end)

    def _start_worker(self, board: Board, until: float) -> None:
        self.numbers += 1
        number, seed = self.numbers, self.settings.seed
        self.scribe.write(event="start", worker=number, at=self.scribe.now())
        pid = self._forked(lambda: work(self._ground(board), seed, number, until))
        self.workers[pid] = Child(pid, number)

    def _last_look(self, board: Board) -> None:
        """By a process that nobody kills: what is in the slots."""
        self.numbers += 1
        number = self.numbers
        seed = f"{self.settings.seed} {number}"
        pid = self._forked(lambda: Player(self._ground(board), seed, number, 0).last_look())
        self.workers[pid] = Child(pid, number)
        self._await_workers()

    def _ground(self, board: Board) -> Ground:
        """For a process that was just forked: a store and a pen of its own."""
        settings = self.settings
        scribe = Scribe(settings.history, self.zero)
        return Ground(settings.store(), scribe, board, settings.idle)

    def _forked(self, act: Callable[[], object]) -> int:
        """The id of a new process that does this and ends; with 70 when it could not."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if os.getppid() == parent:
                act()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - nothing may go on as if it were the parent
            sys.excepthook(*sys.exc_info())
            os._exit(70)

    # -- the janitor --------------------------------------------------------------------------

    def _start_janitor(self) -> None:
        sessions, log = str(self.settings.sessions), self.settings.directory / "janitor.log"
        command = [sys.executable, "-m", "filesession", "janitor", sessions, "--interval", "1"]

        def become_it() -> None:
            words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(words, 1)
            os.dup2(words, 2)
            os.execv(command[0], command)  # noqa: S606 - it is to be this very process

        self.janitor = Child(self._forked(become_it), 0)
        self.scribe.write(event="janitor", at=self.scribe.now())

    def _end_janitor(self) -> None:
        child, self.janitor = self.janitor, None
        if child is None:
            return
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid:
            self.scribe.write(event="janitor ended", code=os.waitstatus_to_exitcode(status))
            return
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        if len(child.open) >= 2 * FEW:
            before, after = min(child.open[:FEW]), min(child.open[-FEW:])
            self.scribe.write(event="descriptors", of="janitor", before=before, after=after)

    def _look(self) -> None:
        """How many descriptors the janitor has, and how far the two clocks went apart."""
        self.drift = max(self.drift, abs(time.time() - time.monotonic() - self.offset))
        if self.janitor is None:
            return
        open_now = _open_files(self.janitor.pid)
        if any(name.endswith("/janitor.lock") for name in open_now):  # else it is still starting
            self.janitor.open.append(len(open_now))

    # -- the end ------------------------------------------------------------------------------

    def _tell_what_is_left(self) -> None:
        """After a sweep to which all has expired: files, and what the janitor complained of."""
        sessions = self.settings.sessions
        store = FileStore.open(sessions, clock=lambda: time.time() + HOUR)
        store.sweep()
        files = [path for path in (sessions / "sessions").rglob("*") if path.is_file()]
        aside = list((sessions / "corrupt").glob("*"))
        temporary = [*sessions.glob("*.tmp"), *sessions.glob("moved/*.tmp")]
        temporary += [path for path in files if path.suffix == ".tmp"]
        log = self.settings.directory / "janitor.log"
        words = log.read_text(errors="replace").splitlines() if log.exists() else []
        self.scribe.write(
            event="left",
            temporary=len(temporary),
            begun=sum(1 for path in files if path.suffix != ".tmp" and not _has_line(path)),
            whole=[path.name for path in files if path.suffix != ".tmp" and _has_line(path)],
            aside=len(aside),
            torn=[path.name for path in aside if _has_line(path)],
            complaints=[line for line in words if "Traceback" in line or " ERROR " in line],
            threads=THREADS,
            slots=SLOTS,
        )

    def _end_all(self) -> None:
        for child in list(self.workers.values()):
            self._kill(child)
        self._end_janitor()


def _open_files(pid: int) -> list[str]:
    """What a process has open; some may be missing that it closes or opens just now."""
    found = []
    with suppress(FileNotFoundError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def _has_line(path: Path) -> bool:
    """Whether more is in a file than what its maker began and never ended."""
    return b"\n" in path.read_bytes()
