"""What a bench leaves behind is cleared when it is gone, however it went.

    python -m tests.bench.undertaker DIR

Reads from its input what the bench starts ("+PID") and ends ("-PID"). When that is closed, which a
kill does too, it kills what still runs and removes the directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]

PATIENCE: Final = 120
"""Seconds for removing a million files."""


class Undertaker:
    """Removes a directory, and ends processes, when the block ends or this process dies."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.undertaker", str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is not meant for it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)

    def began(self, pid: int) -> None:
        """That process is the bench's."""
        self._tell(f"+{pid}")

    def ended(self, pid: int) -> None:
        """That process is no more: its number may be another's."""
        self._tell(f"-{pid}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def bury(directory: str, lines: Iterable[str]) -> None:
    """Wait until nothing more is told; then end what runs and remove the directory."""
    running: set[int] = set()
    for line in lines:
        pid = int(line[1:])
        (running.add if line[0] == "+" else running.discard)(pid)
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while os.path.lexists(directory):  # one that was just killed may have made another file
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    bury(sys.argv[1], sys.stdin)
