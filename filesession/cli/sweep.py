"""``filesession sweep``: remove what is due, now."""

from __future__ import annotations

import re
import sys
from typing import Final

import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from filesession.cli.directory import directory_argument
from filesession.cli.teaching import command
from filesession.cli.terminal import notices
from filesession.janitor.wording import sweep_text
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore

STRIDE: Final = 100
"""Sessions between two moves of the bar: moving it takes as long as looking at a session."""

NOT_TO_ITS_END: Final = 2

_WHOLE: Final = re.compile(r"[1-9][0-9]{0,17}\Z")


def _whole(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is not None and not _WHOLE.match(value):
        msg = "N is a whole number, 1 or more"
        raise click.BadParameter(msg)
    return None if value is None else int(value)


@command(
    "sweep /var/lib/app/sessions",
    "sweep /var/lib/app/sessions --dry-run",
    codes="0 swept. 2 it could not run, or not to its end.",
)
@directory_argument
@click.option("--dry-run", is_flag=True, help="Change nothing; only say what would be done.")
@click.option("--limit", callback=_whole, metavar="N", help="Remove N sessions at most.")
def sweep(directory: str, limit: int | None, *, dry_run: bool) -> None:
    """Remove the expired sessions from DIR, now.

    Also moves unreadable files to DIR/corrupt, and removes what writers that died left behind. Safe
    beside a janitor and a running application.
    """
    store = FileStore.open(directory)
    console = notices()
    if console.is_terminal:
        columns = (TextColumn("looking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            report = _swept(store, limit, progress, dry_run=dry_run)
    else:
        report = store.sweep(limit=limit, dry_run=dry_run)
    click.echo(sweep_text(report))
    if report.failed:
        sys.exit(NOT_TO_ITS_END)


def _swept(
    store: FileStore, limit: int | None, progress: Progress, *, dry_run: bool
) -> SweepReport:
    task = progress.add_task("", total=len(store))

    def move(examined: int) -> None:
        if examined % STRIDE == 0:
            progress.update(task, completed=examined)

    return store.sweep(limit=limit, dry_run=dry_run, progress=move)
