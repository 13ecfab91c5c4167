"""Notes of where sessions went that were just given a new id: ``DIR/moved/<old handle>``.

Rules:

1. A note is written before its session moves, and read only when there is none under the old
   handle: there is no moment at which a request with the old id finds neither.
2. A note is one line, whole or nothing, whose checksum covers its name. It is never waited for: one
   that a power cut takes is of requests that are lost as well.
3. Nothing depends on a note being there. One that cannot be written is a warning, and the old id
   is dead at once, as without a grace. But one that is there and cannot be read is an error: the
   session may be alive, and a logout by the old id would be none. A sweep removes those that are
   over.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from filesession.codec import dump_object, load_object
from filesession.errors import StoreError
from filesession.stores.file.documents import read_document, unlink_if_there, write_document
from filesession.stores.file.journal import sealed, seed_of, unsealed
from filesession.stores.file.layout import Layout, is_handle, make_beside
from filesession.stores.forwarding import Forwarding, followed

_NO_NOTE: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENOTDIR})
"""What lies there is not of our making."""

_log = logging.getLogger("filesession.store")


class Forwards:
    """The notes of one directory.

    Args:
        layout: the directory.
        grace: seconds for which they are followed; None: none is written, and none read.
    """

    __slots__ = ("_grace", "_layout")

    def __init__(self, layout: Layout, grace: float | None) -> None:
        self._layout = layout
        self._grace = grace

    def followed(self, handle: str, now: float) -> Iterator[Forwarding]:
        """Where a session may be that is not there any more, the nearest first."""
        if self._grace is not None:
            yield from followed(self._noted, handle, now, self._grace)

    @contextmanager
    def noting(self, handle: str, forwarding: Forwarding) -> Iterator[None]:
        """Have a note say where the session goes that is moved inside; none when that fails."""
        if self._grace is None:
            yield
            return
        self._note(handle, forwarding)
        try:
            yield
        except BaseException:
            unlink_if_there(self._path(handle))
            raise

    def _note(self, handle: str, forwarding: Forwarding) -> None:
        members = {"to": forwarding.handle, "lineage": forwarding.lineage, "at": forwarding.at}
        line = sealed(dump_object(members), seed_of(handle))
        try:
            make_beside(self._layout.moved)
            write_document(self._path(handle), line)
        except (OSError, StoreError) as error:
            _log.warning("session %s is given a new id without a grace: %s", handle, error)

    def _path(self, handle: str) -> str:
        return os.path.join(self._layout.moved, handle)

    def _noted(self, handle: str) -> Forwarding | None:
        try:
            line = read_document(self._path(handle))
        except StoreError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _NO_NOTE:
                raise
            _log.warning("where session %s went cannot be told: %s", handle, error)
            return None
        return None if line is None else _forwarding(unsealed(line, seed_of(handle)))


def _forwarding(body: bytes | None) -> Forwarding | None:
    try:
        members = load_object(body or b"")
        forwarding = Forwarding(members["to"], members["lineage"], members["at"])
    except (ValueError, KeyError):
        return None
    kinds = type(forwarding.handle), type(forwarding.lineage)
    plain = kinds == (str, str) and isinstance(forwarding.at, (float, int))
    return forwarding if plain and is_handle(forwarding.handle) else None
