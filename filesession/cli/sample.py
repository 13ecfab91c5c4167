"""How old the sessions of a directory are, from a sample.

A session's file is named by a hash, so those of any directory of sessions, and those whose names
come first, are as good a sample as any: what they are like all are like.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Final

from filesession.cli.ages import count_age, no_ages
from filesession.errors import store_error
from filesession.stores.file.layout import Layout

ENOUGH: Final = 2000
"""Sessions that a sample has, unless there are fewer: a tenth of all is told to within 1.3 points,
nineteen times of twenty."""

MOST: Final = 5000
"""Sessions looked at for one sample, at most."""


@dataclass(slots=True)
class Sample:
    """Some of a directory's sessions, for all of them.

    Attributes:
        listed: sessions seen by their names.
        share: of all names there could be, how many were covered; 1.0: the whole directory.
        looked: of those seen, how many were looked at.
        ages: of those looked at, how many belong to each of ``AGES``.
    """

    listed: int = 0
    share: float = 0.0
    looked: int = 0
    ages: list[int] = field(default_factory=no_ages)

    @classmethod
    def of(cls, layout: Layout, now: float) -> Sample:
        """Look at some sessions' dates, at nothing else of them.

        Raises:
            StoreUnavailable: the directory has vanished, or a part of it cannot be looked at.
        """
        sample = cls()
        for shard in layout.shards():
            room = MOST - sample.looked
            for handle in nsmallest(room, sample._names(layout, shard)):
                sample._look(layout.path(handle), now)
            if sample.listed >= ENOUGH:
                sample.share = _reached(layout, shard)
                return sample
        sample.share = 1.0
        return sample

    @property
    def estimate(self) -> int:
        """About how many sessions there are in all."""
        return round(self.listed / self.share) if self.share else 0

    def _names(self, layout: Layout, shard: str) -> Iterator[str]:
        for name, leftover in layout.listed(shard):
            if leftover is None:
                self.listed += 1
                yield name

    def _look(self, path: str, now: float) -> None:
        try:
            changed = os.stat(path, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return  # it expired meanwhile
        except OSError as error:
            raise store_error(error, f"looking at {path}") from error
        self.looked += 1
        count_age(self.ages, now - changed)


def _reached(layout: Layout, shard: str) -> float:
    """The share of all names that come before those of the next directory, in order of names."""
    digits = os.path.relpath(shard, layout.root).replace(os.sep, "")
    return 1.0 if not layout.shard_depth else (int(digits, 16) + 1) / 16 ** len(digits)
