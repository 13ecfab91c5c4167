"""What every subcommand's help has: what it does, examples, and the exit codes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import rich_click as click

from filesession.cli.directory import NO_HANDLE
from filesession.janitor.wording import counted

STYLE: Final = {
    "text_paragraph_linebreaks": "\n\n",
    "padding_helptext_first_line": (0, 0, 1, 0),
}
"""For rich-click: an empty line between paragraphs, as they were written."""

_AS_IT_IS: Final = "\b\n"
"""Click's mark for a paragraph that is not to be filled."""


class Subcommand(click.RichCommand):
    """A command that does not repeat what it was given: it may be a session's id, pasted there."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line.

        Raises:
            click.UsageError: it cannot be understood.
        """
        with discreetly(self, ctx):
            rest = super().parse_args(ctx, args)
        if rest:
            ctx.fail(f"{counted(len(rest), 'argument')} too many")
        return rest


@contextmanager
def discreetly(command: click.Command, ctx: click.Context) -> Iterator[None]:
    """Tell of an option that there is not without repeating it; an id may begin with a hyphen."""
    try:
        yield
    except click.NoSuchOption as error:
        near = "".join(f"; is it {name}?" for name in (error.possibilities or ())[:1])
        takes_handle = any(each.name == "handle" for each in command.params)
        ctx.fail(f"there is no such option{near or (f', and {NO_HANDLE}' if takes_handle else '')}")


def command(*examples: str, codes: str) -> Callable[[Callable[..., None]], click.RichCommand]:
    """A subcommand whose help is its docstring, then its examples, then its exit codes.

    Args:
        examples: what follows ``filesession`` on the line.
        codes: what its exit codes mean.
    """

    def decorated(function: Callable[..., None]) -> click.RichCommand:
        words = inspect.getdoc(function) or ""
        return click.command(
            cls=Subcommand,
            help=f"{words}\n\n{as_it_is(*(f'$ filesession {each}' for each in examples))}",
            epilog=f"Exit codes: {codes}",
            context_settings={"rich_help_config": STYLE, "allow_extra_args": True},
        )(function)

    return decorated


def as_it_is(*lines: str) -> str:
    """A paragraph of lines that the help prints as they are."""
    return _AS_IT_IS + "\n".join(lines)
