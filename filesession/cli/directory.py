"""The arguments DIR and HANDLE: a session directory, and a session in it by its stored name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import rich_click as click

from filesession.errors import FilesessionError
from filesession.stores.entry import HANDLE_LENGTH
from filesession.stores.file.layout import Layout
from filesession.stores.file.ownership import absolute

if TYPE_CHECKING:
    from filesession.stores.file.store import FileStore

SHORTEST_PREFIX: Final = 4
"""Hex digits of a handle that a person must give."""

MOST_NAMED: Final = 5
"""Handles listed when a prefix fits several."""

NO_HANDLE: Final = (
    f"a handle is {SHORTEST_PREFIX} to {HANDLE_LENGTH} hex digits, as `filesession ls DIR` prints"
    " them; a session's id is none"
)
"""What is said to those who give something else."""

_PREFIX: Final = re.compile(rf"[0-9a-f]{{{SHORTEST_PREFIX},{HANDLE_LENGTH}}}\Z")

F = TypeVar("F", bound=Callable[..., Any])


class NoSuchSessionError(FilesessionError):
    """No session, or more than one, goes by the handle that was given."""


def directory_argument(function: F) -> F:
    """The argument DIR of a command, as an absolute path."""
    return click.argument("directory", metavar="DIR", callback=_check_directory)(function)


def _check_directory(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    return absolute(value)


def layout_of(store: FileStore) -> Layout:
    """The paths of a store's directory."""
    layout, _ = Layout.found(store.directory)
    return layout


def is_stored(store: FileStore, handle: str) -> bool:
    """Whether there is a file for the session of that handle, readable or not."""
    return os.path.lexists(layout_of(store).path(handle))


def resolve(store: FileStore, prefix: str) -> str:
    """The one handle that begins with ``prefix``; lists the directory unless it is a whole handle.

    Raises:
        NoSuchSessionError: there is none, or there are several.
    """
    if len(prefix) == HANDLE_LENGTH:
        return prefix
    found = [handle for handle, _ in layout_of(store).sessions() if handle.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found:
        msg = f"no session in {store.directory} has a handle that begins with {prefix}"
        raise NoSuchSessionError(msg)
    named = ", ".join(sorted(found)[:MOST_NAMED])
    more = ", ..." if len(found) > MOST_NAMED else ""
    msg = f"{len(found)} sessions have a handle that begins with {prefix}: {named}{more}"
    raise NoSuchSessionError(msg)


def check_handle(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    """The argument HANDLE in lower case.

    Raises:
        click.BadParameter: it can be none.
    """
    if value is None or _PREFIX.match(value.lower()):
        return None if value is None else value.lower()
    # What was given is not repeated: it may be a session's id, pasted here by mistake.
    raise click.BadParameter(NO_HANDLE)
