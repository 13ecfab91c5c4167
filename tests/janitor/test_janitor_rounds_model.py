"""Whatever is done in between, each sweep takes what is due and nothing that lives.

Rounds and a store work beside a model, in the rests of sweeps too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesession.errors import SessionGone
from filesession.janitor import rounds as rounds_module
from filesession.janitor.roster import Watch
from tests.janitor.grounds import (
    CLOSE,
    Ground,
    ToldWatcher,
    directory_in_memory,
    handle_of,
    told_watchers,
)
from tests.janitor.sweeps import DAY, NEVER_STOPPED, Rests, hurrying, rounds_of

STEPS = st.one_of(
    st.tuples(
        st.just("create"),
        st.tuples(
            st.integers(1, 5),
            st.sampled_from([None, 5, 700, math.inf]),
            st.sampled_from([None, 60, 3000]),
        ),
    ),
    st.tuples(st.sampled_from(["delete", "regenerate", "touch"]), st.integers(0, 99)),
    st.tuples(st.just("save"), st.tuples(st.integers(0, 99), st.sampled_from([1, 90, 4000, None]))),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 1, 30, 59.9, 600, 1801, 5000, 40 * DAY])),
    st.tuples(st.sampled_from(["sweep", "hold", "attend"]), st.just(0)),
    st.tuples(st.sampled_from(["stopped", "meanwhile"]), st.integers(1, 12)),
)


class Beside:
    """Rounds and a store beside a model: of each session when it may be deleted."""

    def __init__(self, ground: Ground, watchers: type[ToldWatcher], watch: Watch) -> None:
        self.ground = ground
        self.watchers = watchers
        self.fresh = iter(CLOSE)
        self.numbers = itertools.count()
        self.model: dict[str, dict[str, float]] = {}
        self.rests = Rests()
        self.rounds = rounds_of(ground, watch, rest=self.rests)

    def take(self, step: str, how: Any) -> None:
        getattr(self, step)(how)
        self.ground.age_shards(self.numbers)

    def pick(self, which: int) -> str:
        return list(self.model)[which % len(self.model)] if self.model else "nobody"

    def due(self, sid: str) -> float:
        known = self.model[sid]
        return min(known["used"] + known["idle"], known["created"] + known["absolute"])

    def tell(self, sid: str) -> None:
        for watcher in self.watchers.made[-1:]:
            watcher.names.append(handle_of(sid).hex())

    def create(self, how: tuple[int, float | None, float | None]) -> None:
        number, idle, absolute = how
        for sid in itertools.islice(self.fresh, number):
            self.ground.create(sid=sid, idle_timeout=idle, absolute_timeout=absolute)
            now = self.ground.clock.now
            self.model[sid] = {
                "created": now,
                "used": now,
                "idle": idle or 1800,
                "absolute": absolute or math.inf,
            }
            self.tell(sid)

    def delete(self, which: int) -> None:
        sid = self.pick(which)
        self.ground.store.delete(sid)
        self.model.pop(sid, None)

    def touch(self, which: int) -> None:
        if self.ground.store.touch(sid := self.pick(which)):
            self.model[sid]["used"] = self.ground.clock.now

    def save(self, how: tuple[int, float | None]) -> None:
        which, idle = how
        try:
            self.ground.store.save(sid := self.pick(which), {}, idle_timeout=idle)
        except SessionGone:
            return
        self.model[sid] |= {"used": self.ground.clock.now, "idle": idle or 1800}

    def regenerate(self, which: int) -> None:
        new = next(self.fresh)
        try:
            self.ground.store.regenerate(sid := self.pick(which), new_sid=new)
        except SessionGone:
            return
        self.model[new] = self.model.pop(sid) | {"used": self.ground.clock.now}
        self.tell(new)

    def advance(self, seconds: float) -> None:
        self.ground.clock.advance(seconds)

    def attend(self, _: int) -> None:
        self.rounds.attend()
        self.check(swept=False)

    def sweep(self, _: int) -> None:
        report = self.rounds.sweep()
        self.check(swept=report.complete and self.rounds.held is None)

    def hold(self, _: int) -> None:
        self.rounds.hold("a test")
        before = self.ground.names()
        self.rounds.sweep()
        assert self.ground.names() == before

    def stopped(self, rests: int) -> None:
        self.rests.seconds.clear()
        self.rests.act = lambda: len(self.rests.seconds) == rests
        self.sweep(0)
        self.rests.act = NEVER_STOPPED

    def meanwhile(self, which: int) -> None:
        """A sweep, in whose rests the sessions are used and made."""
        wanted = {sid for sid in self.model if self.due(sid) < self.ground.clock.now - 1}
        steps: Iterator[Callable[[], None]] = itertools.cycle(
            [
                lambda: self.touch(which),
                lambda: self.regenerate(which),
                lambda: self.delete(which + 1),
                lambda: self.save((which + 2, 1)),
                lambda: self.create((1, 5, None)),
            ]
        )
        left = itertools.count()
        self.rests.act = lambda: next(left) < 30 and next(steps)()
        report = self.rounds.sweep()
        self.rests.act = NEVER_STOPPED
        assert report.complete
        self.check(swept=False)
        if self.rounds.held is None:
            assert not any(self.ground.path(sid).exists() for sid in wanted)

    def check(self, *, swept: bool) -> None:
        """What lives is there; after a sweep, what was due a second ago is not."""
        now, names = self.ground.clock.now, self.ground.names()
        for sid in list(self.model):
            stored = handle_of(sid) in names
            if self.due(sid) >= now:
                assert stored, "one that lives was deleted"
            elif swept and self.due(sid) < now - 1:
                assert not stored, "one that was due was missed"
            if not stored:
                del self.model[sid]
        assert names == {handle_of(sid) for sid in self.model}


@pytest.mark.parametrize("watch", ["events", "poll", "off"])
@given(steps=st.lists(STEPS, max_size=40), depth=st.sampled_from([0, 1]))
@settings(max_examples=40, deadline=None)
def test_after_each_sweep_everything_due_is_gone_and_nothing_that_lives(
    watch: Watch, steps: list[tuple[str, Any]], depth: int
) -> None:
    with (
        directory_in_memory() as path,
        told_watchers() as watchers,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(rounds_module, "time", hurrying())
        both = Beside(Ground(path / "ground", shard_depth=depth), watchers, watch)
        for step, how in [*steps, ("sweep", 0), ("sweep", 0)]:
            both.take(step, how)
