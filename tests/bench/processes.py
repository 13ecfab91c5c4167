"""Child processes of the bench: what they take, and an end to each of them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.deletions import Deletions
from tests.bench.errors import ChildFailedError
from tests.bench.memory import peak_of
from tests.bench.undertaker import ROOT, Undertaker

PATIENCE: Final = 20
"""Seconds until a process that was told to end is killed."""

FINE: Final = 0.001
COARSE: Final = 0.02
"""Seconds between two looks at a process's memory: in its first tenth of a second, and later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a process took for its work.

    Attributes:
        seconds: of the work; of the whole process where it does not tell.
        cpu: user and system seconds of the same.
        peak: bytes, the most that it ever had in memory.
        first: seconds from the start of the process to the first deletion; None: there was none.
        stopped: it was not done at the limit, and killed.
    """

    seconds: float
    cpu: float
    peak: int
    first: float | None
    stopped: bool = False


class Children:
    """Starts processes in a scratch directory; none outlives the bench."""

    def __init__(self, place: Path, undertaker: Undertaker) -> None:
        self.place = place
        self._undertaker = undertaker

    @contextmanager
    def started(self, command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Inside, it runs; afterwards it was told to end, and has."""
        with tempfile.TemporaryFile(dir=self.place) as complaints:
            process = subprocess.Popen(command, cwd=ROOT, stderr=complaints, **options)
            self._undertaker.began(process.pid)
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.terminate()
                    try:
                        process.wait(PATIENCE)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
                self._undertaker.ended(process.pid)
            if process.returncode not in {0, -signal.SIGTERM, -signal.SIGKILL}:
                complaints.seek(0)
                msg = f"{' '.join(command)}: {complaints.read().decode(errors='replace')[-2000:]}"
                raise ChildFailedError(msg)

    def told(self, *arguments: str) -> Any:
        """What one of the bench's programs prints, in JSON; waits for its end."""
        with self.started(program(*arguments), stdout=subprocess.PIPE) as process:
            printed, _ = process.communicate()
        return json.loads(printed)

    def cost(self, command: Sequence[str], folders: Iterable[str], limit: float) -> Cost:
        """Run a cleaner to its end, ``limit`` seconds at most.

        A child that prints a JSON object knows its seconds, CPU and peak better than can be told
        from here.
        """
        with (
            tempfile.TemporaryFile(dir=self.place) as printed,
            Deletions(folders, first=True) as log,
        ):
            began = time.perf_counter()
            with self.started(command, stdout=printed) as process:
                seen = _watched(process, log, began, limit)
            printed.seek(0)
            text = printed.read()
        if seen.stopped or not text:
            return seen
        told = json.loads(text)
        return Cost(seconds=told["seconds"], cpu=told["cpu"], peak=told["peak"], first=seen.first)


def program(module: str, *arguments: str) -> list[str]:
    """The command of one of the bench's modules."""
    return [sys.executable, "-m", f"tests.bench.{module}", *arguments]


def cpu_of(pid: int) -> float:
    """User and system seconds a running process has had, to the microsecond.

    ``/proc/PID/stat`` counts in hundredths of a second, as much as some sweeps take. This is its
    CPU clock, as clock_getcpuclockid(3) would name it.
    """
    return time.clock_gettime((~pid << 3) | 2)


def _watched(process: subprocess.Popen[bytes], log: Deletions, began: float, limit: float) -> Cost:
    """Wait for its end, or the limit, looking at its memory and for its first deletion."""
    first, peak, stopped = None, 0, False
    ended = os.pidfd_open(process.pid)
    events = select.poll()
    events.register(ended, select.POLLIN)
    events.register(log.fileno(), select.POLLIN)
    try:
        while True:
            passed = time.perf_counter() - began
            ready = {
                descriptor
                for descriptor, _ in events.poll(1000 * (FINE if passed < 0.1 else COARSE))
            }
            passed = time.perf_counter() - began
            if log.fileno() in ready:
                first = passed
                events.unregister(log.fileno())
            if ended in ready:
                break
            peak = max(peak, peak_of(process.pid))
            if passed > limit and not stopped:
                process.kill()
                stopped = True
    finally:
        os.close(ended)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = used.ru_utime + used.ru_stime
    return Cost(seconds=passed, cpu=cpu, peak=peak, first=first, stopped=stopped)
