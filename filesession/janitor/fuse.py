"""The fuse: how much a sweep may delete before somebody looks a second time.

A clock that was set forward, a directory that was swapped for an old copy, a store that was opened
once with a short timeout: each makes most sessions look expired. A sweep that would delete more
than a share of them holds back and says so; the next one, which looks again, goes on.
"""

from __future__ import annotations

from typing import Final

from filesession.errors import ConfigurationError, shown

FEWEST: Final = 1000
"""Sessions from which on the fuse counts. Of fewer, half may well expire between two sweeps."""

HALF: Final = 0.5


class Fuse:
    """Says of a sweep whether it would delete too much.

    Args:
        share: of all sessions, above which a sweep holds back; from 0 to 1. 1: none does.

    Raises:
        ConfigurationError: it is no such share.
    """

    __slots__ = ("share",)

    def __init__(self, share: float = HALF) -> None:
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not (number and 0 <= share <= 1):
            msg = (
                "fuse must be the share of all sessions that one sweep may delete, from 0 to 1,"
                f" not {shown(share)}; 1 lets it delete all"
            )
            raise ConfigurationError(msg)
        self.share = float(share)

    def blows(self, due: int, of: int) -> bool:
        """Whether to delete ``due`` sessions of so many is too much."""
        return of >= FEWEST and due > self.share * of
