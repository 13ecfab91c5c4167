"""Time that passes when it is told to."""

from __future__ import annotations

from typing import Final

START: Final = 1_760_000_000.123456
"""POSIX seconds, October 2025. Not a whole second, as no real time is."""


class ManualClock:
    """A clock for stores under test: it stands still until it is moved.

    Attributes:
        now: POSIX seconds; may be set, also to an earlier time.
    """

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time, POSIX seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.now += seconds
