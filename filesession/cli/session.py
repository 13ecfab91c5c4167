"""``filesession show`` and ``filesession destroy``: one session, by its handle, or all of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import rich_click as click
from rich.highlighter import JSONHighlighter
from rich.text import Text

from filesession.cli.directory import (
    NoSuchSessionError,
    check_handle,
    directory_argument,
    is_stored,
    layout_of,
    resolve,
)
from filesession.cli.teaching import command
from filesession.cli.terminal import is_terminal, output, printable
from filesession.cli.times import moment_text
from filesession.codec import dump_object
from filesession.errors import ConfigurationError, StoreUnavailable
from filesession.janitor.wording import counted, size_text, span_text
from filesession.record import SessionInfo
from filesession.stores.file.sessionfile import look
from filesession.stores.file.store import FileStore


@command(
    "show /var/lib/app/sessions 9f86",
    "show /var/lib/app/sessions 9f86 | jq .data",
    codes="0 shown. 1 there is no such session. 2 it could not run.",
)
@directory_argument
@click.argument("handle", metavar="HANDLE", callback=check_handle)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as when piped.")
def show(directory: str, handle: str, *, as_json: bool) -> None:
    """Show a session of DIR: what is known of it, and its data.

    Also one that has expired and is not yet removed. Its id cannot be shown: it is not stored.
    """
    store = FileStore.open(directory)
    whole = resolve(store, handle)
    found = _inspected(store, whole)
    if found is None:
        if is_stored(store, whole):
            msg = (
                f"session {whole} is stored, but cannot be read as plain JSON: its file is damaged,"
                " or the application has a codec of its own"
            )
            raise StoreUnavailable(msg)
        msg = f"there is no session {whole} in {store.directory}"
        raise NoSuchSessionError(msg)
    info, data = found
    own = _own(store, whole)
    if as_json or not is_terminal():
        members = {**asdict(info), **own, "data": data}
        click.echo(printable(dump_object(members).decode("utf-8")))
    else:
        _print(info, own, data, store.clock())


@command(
    "destroy /var/lib/app/sessions 9f86",
    "destroy /var/lib/app/sessions --all",
    codes="0 destroyed. 1 there is no such session. 2 it could not run, or you said no.",
)
@directory_argument
@click.argument("handle", metavar="[HANDLE]", required=False, callback=check_handle)
@click.option("--all", "every", is_flag=True, help="Every session in DIR: everybody is logged out.")
@click.option("--yes", is_flag=True, help="With --all: do not ask.")
def destroy(directory: str, handle: str | None, *, every: bool, yes: bool) -> None:
    """Destroy a session of DIR, for good: no request under way brings it back.

    Its user is logged out with the next request. Asks only before it destroys all.
    """
    if every == (handle is not None):
        msg = "name one session by its HANDLE, or all with --all"
        raise click.UsageError(msg)
    if yes and not every:
        msg = "--yes goes with --all; a single session is destroyed without a question"
        raise click.UsageError(msg)
    store = FileStore.open(directory)
    if handle is None:
        if not yes:
            _ask(store)
        click.echo(f"destroyed {counted(store.clear(), 'live session')}")
        return
    whole = resolve(store, handle)
    stored = is_stored(store, whole)
    if store.evict(whole):
        click.echo(f"destroyed {whole}")
    elif stored:
        click.echo(f"removed {whole}, which had expired or could not be read")
    else:
        msg = f"there is no session {whole} in {store.directory}"
        raise NoSuchSessionError(msg)


def _ask(store: FileStore) -> None:
    """Go on only if a person says so.

    Raises:
        ConfigurationError: nobody is there to ask, or the answer is no.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        msg = "--all destroys every session and nobody is here to ask; add --yes if it is meant"
        raise ConfigurationError(msg)
    question = f"Destroy all of {counted(len(store), 'session')} in {store.directory}?"
    if not click.confirm(printable(question), err=True):
        msg = "nothing was destroyed"
        raise ConfigurationError(msg)


def _inspected(store: FileStore, handle: str) -> tuple[SessionInfo, dict[str, Any]] | None:
    """What is known of a session, and its data.

    Raises:
        StoreUnavailable: the data is encrypted, or it cannot be read.
    """
    try:
        return store.inspect(handle)
    except StoreUnavailable:
        found = look(layout_of(store).path(handle), handle)
        if found is None or found.entry is None or found.entry.data[:1] != b'"':
            raise
        msg = (
            f"the data of session {handle} is encrypted: to show it needs the key, which only the"
            " application has; all else of it is in: filesession ls"
        )
        raise StoreUnavailable(msg) from None


def _own(store: FileStore, handle: str) -> dict[str, Any]:
    """The timeouts in force for a session, and the cookie attributes it overrode."""
    found = look(layout_of(store).path(handle), handle)
    if found is None or found.entry is None:
        return {}  # gone since it was read
    lifetime = found.entry.lifetime(store.lifetime)
    return {
        "idle_timeout": lifetime.idle_timeout,
        "absolute_timeout": lifetime.absolute_timeout,
        "cookie": dict(found.entry.cookie),
    }


def _print(info: SessionInfo, own: dict[str, Any], data: dict[str, Any], now: float) -> None:
    console = output()
    expired = info.expires_at is not None and info.expires_at < now
    console.print(f"handle       {info.handle}")
    console.print(f"size         {size_text(info.size)}")
    console.print(f"created      {moment_text(info.created_at, now)}")
    console.print(f"last active  {moment_text(info.accessed_at, now)}")
    words = f"{'expired' if expired else 'expires'}      {moment_text(info.expires_at, now)}"
    console.print(Text(words, style="red" if expired else ""))
    if own.get("idle_timeout") is not None:
        console.print(f"idle         ends after {span_text(own['idle_timeout'])} without activity")
    if own.get("absolute_timeout") is not None:
        console.print(f"absolute     ends {span_text(own['absolute_timeout'])} after its creation")
    if own.get("cookie"):
        console.print(printable(f"cookie       {json.dumps(own['cookie'])}"), soft_wrap=True)
    lines = json.dumps(data, ensure_ascii=False, indent=2).split("\n")
    text = Text("\n".join(printable(line) for line in lines))
    JSONHighlighter().highlight(text)
    console.print(text, soft_wrap=True)
