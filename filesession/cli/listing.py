"""``filesession ls``: what is stored, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Final

import rich_click as click
from rich.table import Table
from rich.text import Text

from filesession.cli.directory import directory_argument
from filesession.cli.teaching import command
from filesession.cli.terminal import output, printable
from filesession.cli.times import NEVER, distance_text, moment_text
from filesession.codec import dump_object
from filesession.janitor.wording import size_text
from filesession.record import SessionInfo
from filesession.stores.entry import HANDLE_LENGTH
from filesession.stores.file.store import FileStore

PAGE: Final = 500
"""Sessions held in memory at once. The columns' widths are fixed, so the pages make one table."""

_SIZE: Final = 8
_DISTANCE: Final = 11
_MOMENT: Final = 32
_EXPIRED: Final = "expired "
_OVER: Final = "! "
"""The same on a narrow terminal, where colour may be missing too."""

_WIDE: Final = HANDLE_LENGTH + _SIZE + 3 * _MOMENT + len(_EXPIRED) + 4
"""Columns from which there is room for the wall clock's time beside the time from now."""


@command(
    "ls /var/lib/app/sessions",
    "ls /var/lib/app/sessions --json | jq .handle",
    codes="0 listed, also when there is nothing. 2 it could not run.",
)
@directory_argument
@click.option("--json", "as_json", is_flag=True, help="An object a line, times in POSIX seconds.")
def ls(directory: str, *, as_json: bool) -> None:
    """List the sessions in DIR, in no order, also those that have expired and are not yet removed.

    Reads every session's file and holds 500 of them in memory at most. A wide terminal, or a pipe,
    gets local times; a narrow one only how long ago or ahead they are.
    """
    store = FileStore.open(directory)
    if as_json:
        for info in store.scan():
            click.echo(dump_object(asdict(info)))
        return
    console = output()
    wide = console.width >= _WIDE
    number = 0
    for page in _pages(store.scan()):
        console.print(_table(page, store.clock(), first=number == 0, wide=wide))
        number += len(page)
    if number == 0:
        click.echo(printable(f"no sessions in {store.directory}"), err=True)


def _pages(infos: Iterable[SessionInfo]) -> Iterator[list[SessionInfo]]:
    infos = iter(infos)
    while page := list(islice(infos, PAGE)):
        yield page


def _table(page: list[SessionInfo], now: float, *, first: bool, wide: bool) -> Table:
    table = Table(box=None, show_header=first, padding=(0, 1, 0, 0), pad_edge=False)
    time, mark = (_MOMENT, _EXPIRED) if wide else (_DISTANCE, _OVER)
    table.add_column("handle", width=HANDLE_LENGTH, no_wrap=True)
    table.add_column("size", width=_SIZE, no_wrap=True, justify="right")
    table.add_column("created", width=time, no_wrap=True)
    table.add_column("last active", width=time, no_wrap=True)
    table.add_column("expires", width=time + len(mark), no_wrap=True)
    for info in page:
        table.add_row(
            info.handle,
            size_text(info.size),
            _when(info.created_at, now, wide=wide),
            _when(info.accessed_at, now, wide=wide),
            _expiry(info.expires_at, now, wide=wide),
        )
    return table


def _when(at: float | None, now: float, *, wide: bool) -> str:
    if at is None:
        return NEVER
    return moment_text(at, now) if wide else distance_text(at, now)


def _expiry(at: float | None, now: float, *, wide: bool) -> Text:
    """When it expires; past tense, and coloured, when it has."""
    if at is None or at >= now:
        return Text(_when(at, now, wide=wide))
    words = (_EXPIRED if wide else _OVER) + _when(at, now, wide=wide)
    return Text(words, style="red")
