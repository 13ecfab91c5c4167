"""The one source of time: a callable that gives POSIX seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Gives the time now in POSIX seconds. Never called with arguments, never blocks."""

system_clock: Final[Clock] = time.time
