"""Rounds and rosters that a test drives step by step, with clocks that are passed in.

Where a sweep is to rest, the clock of its batches is one of the test that runs on with every look
at it; what others do meanwhile is done in the rest.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from filesession.janitor.complaints import Complaints
from filesession.janitor.fuse import Fuse
from filesession.janitor.roster import Roster, Watch
from filesession.janitor.rounds import Rounds
from filesession.stores.file.reaper import Reaper
from tests.janitor.grounds import LOG, Ground, exhaust, filed
from tests.waiting import wait_until

DAY = 86_400
Make = Callable[..., Ground]
OpenRounds = Callable[..., Rounds]
OpenRoster = Callable[..., Roster]
NEVER_STOPPED: Callable[[], bool] = lambda: False  # noqa: E731


@dataclass
class Rests:
    """What happens while a sweep rests, and how long it is to.

    Attributes:
        act: done in each rest; says whether to stop.
        seconds: of each rest.
    """

    act: Callable[[], object] = NEVER_STOPPED
    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return bool(self.act())


def rounds_of(ground: Ground, watch: Watch = "poll", **options: Any) -> Rounds:
    options = {"fuse": Fuse(), "rest": Rests(), "complaints": Complaints(LOG), **options}
    return Rounds(str(ground.directory), ground.clock, watch=watch, **options)


def hurrying() -> SimpleNamespace:
    """A clock of batches that shows 4 ms more each time: two sessions or so, and one is over."""
    ticks = itertools.count()
    return SimpleNamespace(monotonic=lambda: 1000 + next(ticks) * 0.004)


def age(ground: Ground, sids: list[str], seconds: float) -> None:
    """Have them last been used so long ago."""
    for sid in sids:
        os.utime(ground.path(sid), (ground.clock.now - seconds,) * 2)


def warnings_in(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


def roster_of(ground: Ground, watch: Watch) -> Roster:
    layout, lifetime = ground.store._layout, ground.store.lifetime
    return Roster(Reaper(layout, lifetime, ground.clock), watch, Complaints(LOG))


def learn(roster: Roster) -> None:
    """What a sweep does before it deletes."""
    exhaust(roster.to_group_end())
    roster.attend()
    while roster.is_look_urgent():
        exhaust(roster.look())
    exhaust(roster.poll())


def begin_look(roster: Roster, pieces: int) -> None:
    """Take some steps of a look, and leave it there."""
    for number, _ in enumerate(roster.look(), 1):
        if number >= pieces:
            return


def stop_inside_a_group(roster: Roster, steps: Iterator[float], least: int = 10) -> None:
    """Take so many steps and some more, until some of a group's sessions are listed, some not."""
    for number, _ in enumerate(steps, 1):
        if number >= least and not roster._between:
            return
    raise AssertionError


def until_known(roster: Roster, handle: bytes) -> None:
    def known() -> bool:
        roster.attend()
        return handle in filed(roster)

    wait_until(known)
