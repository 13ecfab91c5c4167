"""Learning from the kernel when files are deleted, whoever deletes them."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from tests.bench.errors import OverflowedError

IN_DELETE: Final = 0x200
IN_Q_OVERFLOW: Final = 0x4000
IN_ONESHOT: Final = 0x80000000

_EVENT: Final = struct.Struct("iIII")

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Deletions:
    """What is deleted in some directories, as it happens.

    Args:
        folders: the directories; not what is below them.
        first: tell of the first one in each only, so that the others cost nobody anything.
    """

    def __init__(self, folders: Iterable[str], *, first: bool = False) -> None:
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        mask = IN_DELETE | (IN_ONESHOT if first else 0)
        for folder in folders:
            if _libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask) < 0:
                self.close()
                raise OSError(ctypes.get_errno(), "inotify_add_watch", folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """What can be read when something was deleted."""
        return self._descriptor

    def close(self) -> None:
        """Watch no more. May be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def wait(self, seconds: float) -> list[tuple[str, float]]:
        """The names of what was deleted, with the moment we heard of it; waits for the first.

        Raises:
            OverflowedError: there are more than were told.
        """
        if not select.select([self], [], [], seconds)[0]:
            return []
        events = os.read(self._descriptor, 1 << 16)
        now, names, start = time.time(), [], 0
        while start < len(events):
            _, mask, _, length = _EVENT.unpack_from(events, start)
            start += _EVENT.size
            name = events[start : start + length].rstrip(b"\0")
            start += length
            if mask & IN_Q_OVERFLOW:
                msg = "there were more deletions than the kernel remembers"
                raise OverflowedError(msg)
            if mask & IN_DELETE:
                names.append((os.fsdecode(name), now))
        return names
