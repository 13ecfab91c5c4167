"""What every subcommand's help has: what it does, examples, and the exit codes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final

import rich_click as click

STYLE: Final = {
    "text_paragraph_linebreaks": "\n\n",
    "padding_helptext_first_line": (0, 0, 1, 0),
}
"""For rich-click: an empty line between paragraphs, as they were written."""

_AS_IT_IS: Final = "\b\n"
"""Click's mark for a paragraph that is not to be filled."""


def command(*examples: str, codes: str) -> Callable[[Callable[..., None]], click.RichCommand]:
    """A subcommand whose help is its docstring, then its examples, then its exit codes.

    Args:
        examples: what follows ``filesession`` on the line.
        codes: what its exit codes mean.
    """

    def decorated(function: Callable[..., None]) -> click.RichCommand:
        words = inspect.getdoc(function) or ""
        return click.command(
            help=f"{words}\n\n{as_it_is(*(f'$ filesession {each}' for each in examples))}",
            epilog=f"Exit codes: {codes}",
            context_settings={"rich_help_config": STYLE},
        )(function)

    return decorated


def as_it_is(*lines: str) -> str:
    """A paragraph of lines that the help prints as they are."""
    return _AS_IT_IS + "\n".join(lines)
