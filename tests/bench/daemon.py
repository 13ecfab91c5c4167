"""The janitor as people run it, ``filesession janitor DIR``, and what it says of its work."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.errors import TooSlowError
from tests.bench.memory import peak_of
from tests.bench.processes import Children, cpu_of

JANITOR_OPTIONS: Final[tuple[str, ...]] = ()
"""Options of ``filesession janitor``, beside its interval, for every measurement."""

GLANCE: Final = 0.02
"""Seconds between two readings of janitor.json, a file of a few hundred bytes."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a janitor did since it began.

    Attributes:
        expired: sessions deleted.
        seconds: of its sweeps, as it measures them.
        sweeps: how many.
        full_looks: how often it looked at everything.
    """

    expired: int = 0
    seconds: float = 0.0
    sweeps: int = 0
    full_looks: int = 0


class Daemon:
    """A running janitor of one directory."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._heartbeat = directory / "janitor.json"

    def cpu(self) -> float:
        """User and system seconds it has had, its start and imports included."""
        return cpu_of(self.pid)

    def peak(self) -> int:
        """The most bytes it ever had in memory."""
        return peak_of(self.pid)

    def totals(self) -> Totals:
        """What it says that it did."""
        said = self._said()
        reading = said.get("reading")
        if reading is None:
            return Totals()
        return Totals(
            expired=reading["expired"],
            seconds=reading["sweep_seconds"],
            sweeps=reading["sweeps"],
            full_looks=reading["full_looks"],
        )

    def wait(self, until: Callable[[Totals], bool], limit: float, glance: float = GLANCE) -> Totals:
        """Wait for it to have done something.

        Raises:
            TooSlowError: the limit, in seconds, was over before.
        """
        end = time.monotonic() + limit
        while not until(totals := self.totals()):
            if self._process.poll() is not None:
                msg = f"the janitor ended with {self._process.returncode}"
                raise TooSlowError(msg)
            if time.monotonic() > end:
                msg = f"the janitor had done {totals} when the limit was over"
                raise TooSlowError(msg)
            time.sleep(glance)
        return totals

    def _said(self) -> dict[str, Any]:
        try:
            said: dict[str, Any] = json.loads(self._heartbeat.read_bytes())
        except FileNotFoundError:
            return {}
        return said if said["pid"] == self.pid else {}


@contextmanager
def janitor(children: Children, directory: Path, interval: float) -> Iterator[Daemon]:
    """Inside, a janitor runs that sweeps every ``interval`` seconds."""
    (directory / "janitor.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "filesession", "janitor", str(directory)]
    command += ["--interval", f"{interval:g}", *JANITOR_OPTIONS]
    with children.started(command) as process:
        yield Daemon(process, directory)
