"""Waiting for what tells nobody that it has come; whatever can tell is waited for as it tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 30.0
"""Seconds until what does not come fails the test, however slow the machine is."""


def wait_until(is_so: Callable[[], object]) -> None:
    """Look again and again until it is so; fails when it is not in time."""
    pause = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"it did not come to pass within {PATIENCE:g} s"
        pause.wait(0.01)
