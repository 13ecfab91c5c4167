"""What ``filesession doctor`` has to say: findings, and how they are told."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from rich.console import Console
from rich.text import Text

from filesession.cli.terminal import printable

Level: TypeAlias = Literal["ok", "note", "wrong"]
"""ok: looked at and well; note: good to know, nothing to mend; wrong: mend it."""

MOST_NAMED: Final = 3
"""Paths named in one finding; the rest are counted."""

_STYLES: Final = {"ok": "green", "note": "cyan", "wrong": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a directory.

    Attributes:
        check: which look found it.
        level: how bad it is.
        what: it, in words.
        mend: the command or step that mends it; None when there is nothing to do.
    """

    check: str
    level: Level
    what: str
    mend: str | None = None


def tell(findings: list[Finding], console: Console) -> None:
    """Print findings, each with what mends it below."""
    for finding in findings:
        head = Text(f"{finding.level:<6}", style=_STYLES[finding.level])
        head.append(f"{finding.check:<13}", style="default")
        head.append(printable(finding.what), style="default")
        console.print(head, soft_wrap=True)
        if finding.mend is not None:
            console.print(f"{'':<19}mend: {printable(finding.mend)}", soft_wrap=True)


def some(paths: list[str], directory: str) -> str:
    """A few paths by their names inside the directory, and how many more there are."""
    named = ", ".join(os.path.relpath(path, directory) for path in paths[:MOST_NAMED])
    more = len(paths) - MOST_NAMED
    return f"{named} and {more:,} more" if more > 0 else named
