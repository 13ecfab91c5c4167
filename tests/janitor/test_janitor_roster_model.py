"""Whatever happens between the pieces of a look, the roster knows every session afterwards."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesession.errors import SessionGone
from filesession.janitor.roster import Watch
from tests.janitor.grounds import (
    CLOSE,
    Ground,
    ToldWatcher,
    assert_knows_all,
    directory_in_memory,
    filed,
    handle_of,
    told_watchers,
)
from tests.janitor.sweeps import begin_look, learn, roster_of

STEPS = st.one_of(
    st.tuples(
        st.just("create"),
        st.tuples(st.integers(1, 6), st.sampled_from([None, 5, 700, float("inf")])),
    ),
    st.tuples(st.sampled_from(["delete", "regenerate", "touch"]), st.integers(0, 99)),
    st.tuples(st.just("save"), st.tuples(st.integers(0, 99), st.sampled_from([1, 90, 4000, None]))),
    st.tuples(st.just("pieces"), st.integers(1, 80)),
    st.tuples(st.just("advance"), st.floats(0, 300)),
    st.tuples(st.just("poll"), st.integers(1, 6)),
    st.tuples(st.sampled_from(["attend", "refile", "lose", "learn"]), st.integers(1, 30)),
)


class Interleaved:
    """A roster and a store that work in turns."""

    def __init__(self, ground: Ground, watch: Watch, watchers: type[ToldWatcher]) -> None:
        self.ground = ground
        self.watchers = watchers
        self.fresh = iter(CLOSE)
        self.sids = [ground.store.create(sid=next(self.fresh)).id for _ in range(12)]
        self.numbers = itertools.count()
        ground.age_shards(self.numbers)
        self.roster = roster_of(ground, watch)

    def take(self, step: str, how: Any) -> None:
        getattr(self, step)(how)
        self.ground.age_shards(self.numbers)

    def tell(self, sid: str) -> None:
        self.sids.append(sid)
        if self.watchers.made:
            self.watchers.made[-1].names.append(handle_of(sid).hex())

    def create(self, how: tuple[int, float | None]) -> None:
        number, idle = how
        for _ in range(number):
            self.tell(self.ground.store.create(sid=next(self.fresh), idle_timeout=idle).id)

    def delete(self, which: int) -> None:
        if self.sids:
            self.ground.store.delete(self.sids.pop(which % len(self.sids)))

    def regenerate(self, which: int) -> None:
        if self.sids:
            sid = self.sids.pop(which % len(self.sids))
            try:
                self.tell(self.ground.store.regenerate(sid, new_sid=next(self.fresh)).id)
            except SessionGone:
                self.sids.append(sid)

    def touch(self, which: int) -> None:
        if self.sids:
            self.ground.store.touch(self.sids[which % len(self.sids)])

    def save(self, how: tuple[int, float | None]) -> None:
        which, idle = how
        if self.sids:
            try:
                sid = self.sids[which % len(self.sids)]
                self.ground.store.save(sid, {}, idle_timeout=idle)
            except SessionGone:
                pass

    def pieces(self, number: int) -> None:
        begin_look(self.roster, number)

    def poll(self, number: int) -> None:
        for _ in itertools.islice(self.roster.poll(), number):
            pass

    def lose(self, _: int) -> None:
        self.roster.distrust("a test")

    def attend(self, _: int) -> None:
        self.roster.attend()

    def learn(self, _: int) -> None:
        learn(self.roster)
        assert_knows_all(self.roster, self.ground)

    def advance(self, seconds: float) -> None:
        self.ground.clock.advance(seconds)

    def refile(self, most: int) -> None:
        """What a sweep does with what has come up."""
        for handle in self.roster.wheel.take(self.ground.clock.now, most)[0]:
            self.roster.file(handle, self.roster._reaper.look(handle.hex()))


@pytest.mark.parametrize("watch", ["events", "poll"])
@given(steps=st.lists(STEPS, max_size=40), depth=st.sampled_from([0, 1]), learned=st.booleans())
@settings(max_examples=60, deadline=None)
def test_whatever_happens_between_the_pieces_of_a_look_every_session_is_known(
    watch: Watch,
    steps: list[tuple[str, Any]],
    depth: int,
    learned: bool,  # noqa: FBT001 - hypothesis's
) -> None:
    with directory_in_memory() as path, told_watchers() as watchers:
        both = Interleaved(Ground(path / "ground", shard_depth=depth), watch, watchers)
        for step, how in [("learn", 1)] * learned + steps:
            both.take(step, how)
        learn(both.roster)
        assert_knows_all(both.roster, both.ground)
        both.roster.distrust("a test")
        learn(both.roster)
        assert_knows_all(both.roster, both.ground)
        assert filed(both.roster).keys() == both.ground.names()
