"""A session's file, open, and what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filesession.stores.entry import handle_of
from filesession.stores.file.access import translated
from filesession.stores.node.document import Document
from filesession.stores.node.folder import Folder, Seen


@contextmanager
def opened(folder: Folder, doing: str, sid: str) -> Iterator[tuple[Seen | None, Document | None]]:
    """The file of an id, open while inside, and the session in it, where there is a readable one.

    Raises:
        StoreUnavailable: it cannot be read, which says nothing about whether there is one.
        StoreError: for every ``OSError`` inside; ``doing`` names what was tried.
    """
    path = folder.path(sid)
    if path is None:
        yield None, None
        return
    with translated(doing, handle_of(sid) or ""), folder.seen(path) as seen:
        yield seen, None if seen is None else Document.read(seen.content)
