"""The command itself: its help, and what becomes of the errors of every subcommand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final

import rich_click as click
from click.exceptions import Exit

from filesession.cli.directory import NoSuchSessionError
from filesession.cli.teaching import STYLE, as_it_is, discreetly
from filesession.cli.terminal import deliver, say_error
from filesession.errors import FilesessionError

NOT_FOUND: Final = 1
COULD_NOT_RUN: Final = 2

_INTERRUPTED: Final = 128 + 2
_BROKEN_PIPE: Final = 128 + 13
"""As the shell tells the death by SIGINT and SIGPIPE: ended from outside, nothing is amiss."""


_MODULES: Final = {
    "janitor": "janitor",
    "status": "status",
    "top": "top",
    "doctor": "doctor",
    "ls": "listing",
    "show": "session",
    "destroy": "session",
    "sweep": "sweep",
    "migrate": "migrate",
    "genkey": "genkey",
}
"""Where each subcommand is, what is needed first coming first. Only the one asked for is loaded."""


class Commands(click.RichGroup):
    """The subcommands, with one way to fail for all of them: a line on stderr and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names; loads them all, as a help page shows them all."""
        for name in _MODULES:
            self.get_command(ctx, name)
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of that name, None when there is none."""
        if cmd_name in _MODULES and cmd_name not in self.commands:
            module = import_module(f"filesession.cli.{_MODULES[cmd_name]}")
            self.add_command(getattr(module, cmd_name))
        return super().get_command(ctx, cmd_name)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's word
    ) -> click.Context:
        """Read what stands before the subcommand; prints the help and the version."""
        with _told():
            return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; what is wrong with them is told without repeating it."""
        with discreetly(self, ctx):
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand; one that there is not is not repeated, it may be a session's id."""
        if args[0] not in _MODULES:
            near = "".join(f"; is it {name}?" for name in get_close_matches(args[0], _MODULES, 1))
            ctx.fail(f"there is no such command{near}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's word
        """Run the subcommand; every error of ours becomes its exit code."""
        with _told():
            return super().invoke(ctx)


@contextmanager
def _told() -> Iterator[None]:
    """See that all output arrives; what fails becomes a line on stderr and an exit code."""
    try:
        try:
            yield
        finally:
            deliver()
    except BrokenPipeError:
        code = _BROKEN_PIPE
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except NoSuchSessionError as error:
        say_error(str(error))
        code = NOT_FOUND
    except (FilesessionError, OSError) as error:
        say_error(str(error))
        code = COULD_NOT_RUN
    else:
        return
    raise Exit(code)


_MOVES: Final = (
    'store = FileStore("/var/lib/app/sessions")',
    "app = SessionMiddleware(app, store)",
    "$ filesession janitor /var/lib/app/sessions",
    "$ filesession status /var/lib/app/sessions",
    "$ filesession doctor /var/lib/app/sessions",
    "$ filesession ls /var/lib/app/sessions",
)

HELP: Final = f"""Look after a directory of server-side HTTP sessions.

Three moves, and a web app has sessions: point at a directory, mount the middleware, run the
janitor. Then see how it is doing, what is wrong and what mends it, and what is stored.

A session goes by its handle, the name it is stored under. Its id, the secret in the browser's
cookie, is not on the disk and cannot be told from it.

{as_it_is(*_MOVES)}
"""


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "rich_help_config": STYLE},
    help=HELP,
    epilog=(
        "Exit codes: 0 done, and all is well. 1 something is wrong (doctor) or was not found (show,"
        " destroy). 2 it could not run. 3 no janitor is alive (status)."
    ),
)
@click.version_option(package_name="filesession", message="filesession %(version)s")
def commands() -> None:
    """Everything ``filesession`` does."""


def main() -> None:
    """Run the command with the process's arguments; ends the process."""
    commands(prog_name="filesession")
