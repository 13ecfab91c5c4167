"""Values of options, checked; what was given is not repeated: it may be a session's id."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import rich_click as click

Number: TypeAlias = Callable[[click.Context, click.Parameter, str | None], float | None]
Word: TypeAlias = Callable[[click.Context, click.Parameter, str | None], str | None]


def number(wanted: str, least: float = -math.inf, most: float = math.inf) -> Number:
    """A number within bounds; for any other it is said what is wanted."""

    def check(
        _context: click.Context, _parameter: click.Parameter, value: str | None
    ) -> float | None:
        if value is None:
            return None
        try:
            found = float(value)
        except ValueError:
            raise click.BadParameter(wanted) from None
        if found < least or found > most or (math.isnan(found) and math.isfinite(most)):
            raise click.BadParameter(wanted)
        return found

    return check


def word(*words: str) -> Word:
    """One of some words."""

    def check(
        _context: click.Context, _parameter: click.Parameter, value: str | None
    ) -> str | None:
        if value is not None and value not in words:
            msg = f"it is one of {', '.join(words)}"
            raise click.BadParameter(msg)
        return value

    return check
