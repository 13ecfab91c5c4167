"""``filesession migrate``: move the sessions of an Express app into a session directory."""

from __future__ import annotations

import time
from typing import Final

import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from filesession.cli.options import number
from filesession.cli.sweep import STRIDE
from filesession.cli.teaching import command
from filesession.cli.terminal import notices, printable
from filesession.errors import ConfigurationError
from filesession.janitor.wording import counted
from filesession.stores.file.ownership import absolute
from filesession.stores.node.migration import Migration, Moves

LONGEST_TTL: Final = 10 * 365 * 86_400.0
"""Seconds: what is more is meant as milliseconds."""


@command(
    "migrate /srv/express/sessions /var/lib/app/sessions --dry-run",
    "migrate /srv/express/sessions /var/lib/app/sessions --ttl 86400",
    codes="0 moved, or nothing to move. 2 it could not run, or not to its end.",
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--ttl",
    default="3600",
    show_default=True,
    metavar="SECONDS",
    callback=number(
        "SECONDS is the ttl of the Express app's store: a positive number of seconds, not"
        " milliseconds, and ten years at most",
        0.001,
        LONGEST_TTL,
    ),
    help="The ttl of the Express app's store, for sessions that have no maxAge.",
)
@click.option(
    "--extension",
    default=".json",
    show_default=True,
    metavar="TEXT",
    help="The fileExtension of the Express app's store.",
)
@click.option(
    "--secret-file",
    metavar="FILE",
    help="Holds the secret with which the Express app's store encrypts, if it does.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing; only say what would be done.")
def migrate(
    source: str, target: str, ttl: float, extension: str, secret_file: str | None, *, dry_run: bool
) -> None:
    """Move the live sessions of an Express app from FROM to TO.

    FROM is the directory of its session-file-store. Every session keeps its id, so the cookies
    in the browsers go on working: SessionMiddleware(app, TO, name="connect.sid", secret=the
    same). It keeps its data, its maxAge and the time it was used last.

    Stop the Express app first. What was moved is named .migrated there, which Express does not
    read: it is nobody else's any more. Remove those files when all is well; to take a session back,
    rename its file. A second run moves what is new, and never writes over what TO has.
    """
    started = time.monotonic()
    migration = Migration(
        source,
        target,
        ttl=ttl,
        file_extension=extension,
        secret=None if secret_file is None else _secret_in(secret_file),
        dry_run=dry_run,
    )
    console = notices()
    if console.is_terminal:
        columns = (TextColumn("moving"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            moves = _moved(migration, progress)
    else:
        moves = migration.run()
    seconds = time.monotonic() - started
    click.echo(printable(moves_text(moves, absolute(target), seconds, dry_run=dry_run)))


def moves_text(moves: Moves, target: str, seconds: float, *, dry_run: bool) -> str:
    """What was done, in a line: ``moved 12 sessions to TO in 0.31 s; left 3 that expired``."""
    verb = "would move" if dry_run else "moved"
    text = f"{verb} {counted(moves.moved, 'session')} to {target} in {seconds:.2f} s"
    left = [
        f"{count:,} {what}"
        for count, what in (
            (moves.expired, "expired"),
            (moves.unreadable, "unreadable"),
            (moves.taken, "there already"),
        )
        if count
    ]
    return f"{text}; left in place: {', '.join(left)}" if left else text


def _secret_in(path: str) -> bytes:
    """The text in a file, without the line break that editors put at its end."""
    try:
        with open(path, "rb") as file:
            return file.read().removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        msg = f"the secret cannot be read from {path}: {error.strerror}"
        raise ConfigurationError(msg) from error


def _moved(migration: Migration, progress: Progress) -> Moves:
    task = progress.add_task("", total=None)

    def move(looked: int, total: int) -> None:
        if looked % STRIDE == 0:
            progress.update(task, completed=looked, total=total)

    return migration.run(move)
