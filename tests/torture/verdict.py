"""What the judge found, and how often it looked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.torture.history import Op

KINDS: Final = {
    "lost": "what was saved, or removed, is not so in what was seen later",
    "foreign": "what is seen was never saved into this life, or is another life's",
    "revived": "an id works, or a life is seen, after its end was known",
    "two winners": "of two that cannot both succeed, both did",
    "vanished": "a session is not there, though it was used a moment ago and nobody ended it",
    "counted": "the counter is not what the increments under the lock make it",
    "two holders": "two were inside the lock of one session at once",
    "order": "a version is seen that is older than one seen before",
    "torn": "a file or a value is no whole one, or a call failed that had no reason to",
    "leaked": "files or descriptors are left",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must not be, and the lines of the history that prove it."""

    kind: str
    words: str
    lines: tuple[int, ...] = ()


@dataclass(slots=True)
class Verdict:
    """Of a whole history.

    Attributes:
        violations: all that was found.
        checks: by kind, how often it was looked for.
        told: by verb and what it told, how many calls.
        happened: kills, stops, and other events.
    """

    violations: list[Violation] = field(default_factory=list)
    checks: Counter[str] = field(default_factory=Counter)
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)

    def check(self, kind: str, *, holds: bool, words: str, proof: Iterable[Op] = ()) -> None:
        """Note that it was looked for, and what was found when it does not hold."""
        self.checks[kind] += 1
        if not holds:
            lines = tuple(sorted({line for op in proof for line in op.lines}))
            self.violations.append(Violation(kind, words, lines))
