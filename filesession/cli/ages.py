"""How long ago sessions were active last, as a histogram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

AGES: Final = (
    ("under a minute", 60),
    ("under 10 min", 600),
    ("under 1 h", 3600),
    ("under 6 h", 6 * 3600),
    ("under 1 d", 86400),
    ("under 7 d", 7 * 86400),
    ("longer ago", float("inf")),
)
"""Since the last activity: what a bar is called, and the seconds it ends at."""

BAR: Final = 40
"""Characters of the longest bar."""

_BESIDE: Final = 28
"""Characters that stand left of the bars."""


def no_ages() -> list[int]:
    """A count of 0 for each of ``AGES``."""
    return [0] * len(AGES)


def count_age(ages: list[int], age: float) -> None:
    """Count a session that was active so many seconds ago."""
    ages[next((i for i, (_, end) in enumerate(AGES) if age < end), -1)] += 1


def histogram(ages: Sequence[int], width: int | None = None) -> Iterator[str]:
    """A bar for every age, up to the last that has any; made for lines of ``width``."""
    most = max(ages)
    longest = BAR if width is None else max(1, min(BAR, width - _BESIDE))
    last = max((number for number, count in enumerate(ages) if count), default=-1)
    for (name, _), count in list(zip(AGES, ages, strict=True))[: last + 1]:
        bar = "#" * max(round(longest * count / most), 1 if count else 0)
        yield f"  {name:<14}{count:>10,}  {bar}".rstrip()
