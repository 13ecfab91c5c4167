"""``filesession ls``: what is stored, a line each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import rich_click as click

from filesession.cli.directory import directory_argument
from filesession.cli.teaching import command
from filesession.cli.terminal import output, printable
from filesession.cli.times import NEVER, clock_text, distance_text
from filesession.codec import dump_object
from filesession.janitor.wording import size_text
from filesession.record import SessionInfo
from filesession.stores.entry import HANDLE_LENGTH
from filesession.stores.file.store import FileStore

_SIZE: Final = 8
_DISTANCE: Final = 11
_MOMENT: Final = 32
_EXPIRED: Final = "expired "
_OVER: Final = "! "
"""The same on a narrow terminal, where colour may be missing too."""

_WIDE: Final = HANDLE_LENGTH + _SIZE + 3 * _MOMENT + len(_EXPIRED) + 4
"""Columns from which there is room for the wall clock's time beside the time from now."""

_RED: Final = "\x1b[31m{}\x1b[0m"


@command(
    "ls /var/lib/app/sessions",
    "ls /var/lib/app/sessions --json | jq .handle",
    codes="0 listed, also when there is nothing. 2 it could not run.",
)
@directory_argument
@click.option("--json", "as_json", is_flag=True, help="An object a line, times in POSIX seconds.")
def ls(directory: str, *, as_json: bool) -> None:
    """List the sessions in DIR, in no order, also those that have expired and are not yet removed.

    Reads every session's file, and prints its line at once. A wide terminal, or a pipe, gets local
    times; a narrow one only how long ago or ahead they are.
    """
    store = FileStore.open(directory)
    if as_json:
        for info in store.scan():
            click.echo(dump_object(asdict(info)))
        return
    console = output()
    wide = console.width >= _WIDE
    # A line is put together here: rich takes seven times as long for its tables of them.
    form = _RED if console.color_system and not console.no_color else "{}"
    empty = True
    for info in store.scan():
        if empty:
            click.echo(_head(wide=wide))
            empty = False
        click.echo(_line(info, store.clock(), form, wide=wide), color=True)
    if empty:
        click.echo(printable(f"no sessions in {store.directory}"), err=True)


def _head(*, wide: bool) -> str:
    zone = ", local time" if wide else ""
    return _columns("handle", "size", f"created{zone}", f"last active{zone}", "expires", wide=wide)


def _line(info: SessionInfo, now: float, form: str, *, wide: bool) -> str:
    """One session; when it expires comes last, in the past tense, and coloured, when it has."""
    expires = _when(info.expires_at, now, wide=wide)
    if info.expires_at is not None and info.expires_at < now:
        expires = form.format((_EXPIRED if wide else _OVER) + expires)
    created = _when(info.created_at, now, wide=wide)
    accessed = _when(info.accessed_at, now, wide=wide)
    return _columns(info.handle, size_text(info.size), created, accessed, expires, wide=wide)


def _columns(handle: str, size: str, created: str, accessed: str, last: str, *, wide: bool) -> str:
    width = _MOMENT if wide else _DISTANCE
    times = f"{created:<{width}} {accessed:<{width}} {last}"
    return f"{handle:<{HANDLE_LENGTH}} {size:>{_SIZE}} {times}"


def _when(at: float | None, now: float, *, wide: bool) -> str:
    if at is None:
        return NEVER
    distance = distance_text(at, now)
    return f"{clock_text(at)}, {distance}" if wide else distance
