"""Notes of sessions that are to end sooner than they were: ``DIR/sooner/<handle>``, empty files.

Rules:

1. Who cleans up knows when a session could end at the earliest, and looks at it no sooner: to save
   or touch it only ever puts that off. The one thing that brings it forward is a save with a
   shorter timeout, which is noted when it is done.
2. A note is removed before its session is looked at, so that one made meanwhile stays.
3. Nothing depends on a note but when the space is freed: the session is refused in time without.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from filesession.errors import StoreError
from filesession.lifetime import Lifetime
from filesession.stores.entry import Entry
from filesession.stores.file.layout import Layout, is_handle, make_beside

_NOTE: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_log = logging.getLogger("filesession.store")


def is_brought_forward(before: Entry, after: Entry, store: Lifetime) -> bool:
    """Whether a session's idle timeout is shorter than it was."""
    if after.idle == before.idle:
        return False
    old, new = before.lifetime(store).idle_timeout, after.lifetime(store).idle_timeout
    return (math.inf if new is None else new) < (math.inf if old is None else old)


def note(layout: Layout, handle: str) -> None:
    """Note that a session is to be looked at; never waits for the disk, and never fails."""
    path = os.path.join(layout.sooner, handle)
    try:
        make_beside(layout.sooner)
        os.close(os.open(path, _NOTE, 0o600))
    except OSError as error:
        _log.debug("session %s ends sooner, which could not be noted: %s", handle, error)


def noted(layout: Layout) -> Iterator[str]:
    """The handles of the notes there are; each note is removed before its handle is given.

    Raises:
        StoreUnavailable: they cannot be listed.
    """
    for path in layout.notes(layout.sooner):
        with suppress(OSError, StoreError):
            os.unlink(path)
            if is_handle(name := os.path.basename(path)):
                yield name
