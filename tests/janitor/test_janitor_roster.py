"""The roster on real directories: what it gets to know, by events, by dates, by looks at all names.

Events are the kernel's own where that is said, else those of a watcher that the test tells. What
each session's entry says is compared with what the store says of the session.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesession.errors import SessionGone, StoreUnavailable
from filesession.janitor import roster as module
from filesession.janitor.complaints import Complaints
from filesession.janitor.roster import RETRY, ROUND, SETTLED, Roster, Watch
from filesession.janitor.wheel import GROUPS, group_of
from filesession.stores.file import reaper as reaper_module
from filesession.stores.file.reaper import Reaper
from filesession.testing.faults import SystemCalls, watching
from tests.janitor.conftest import (
    CLOSE,
    LOG,
    Ground,
    ToldWatcher,
    assert_knows_all,
    broken,
    directory_in_memory,
    exhaust,
    filed,
    handle_of,
    told_watchers,
)
from tests.waiting import wait_until

Make = Callable[..., Ground]
Open = Callable[..., Roster]


def roster_of(ground: Ground, watch: Watch) -> Roster:
    layout, lifetime = ground.store._layout, ground.store.lifetime
    return Roster(Reaper(layout, lifetime, ground.clock), watch, Complaints(LOG))


@pytest.fixture
def open_roster() -> Iterator[Open]:
    """Makes rosters, and closes them."""
    made: list[Roster] = []

    def make(ground: Ground, watch: Watch = "poll") -> Roster:
        made.append(roster_of(ground, watch))
        return made[-1]

    yield make
    for roster in made:
        roster.close()


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


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The roster's own clocks, which stand still: seconds, and nanoseconds since 1970."""
    times = SimpleNamespace(now=1000.0, wall=time.time_ns())
    fake = SimpleNamespace(monotonic=lambda: times.now, time_ns=lambda: times.wall)
    monkeypatch.setattr(module, "time", fake)
    return times


def listings(calls: SystemCalls) -> int:
    """How many directories of sessions were listed."""
    shards = [str(call.arguments[0]) for call in calls.calls]
    return sum(len(os.path.basename(path)) == 2 for path in shards)


class TestFirstLook:
    @pytest.mark.parametrize("depth", [0, 1, 2])
    @pytest.mark.parametrize("watch", ["events", "poll", "off"])
    def test_all_that_is_stored_is_known_after_it(
        self, make_ground: Make, open_roster: Open, depth: int, watch: Watch
    ) -> None:
        ground = make_ground(shard_depth=depth, absolute_timeout=5000)
        for options in ({}, {"idle_timeout": 10}, {"idle_timeout": float("inf")}):
            ground.create(30, **options)
        ground.clock.advance(100)
        roster = open_roster(ground, watch)
        assert (roster.whole, len(roster)) == (False, 0)
        learn(roster)
        assert_knows_all(roster, ground)
        assert (roster.whole, len(roster), roster.looks, roster.noticed) == (True, 90, 1, 0)
        assert roster.due(ground.clock.now) == 30
        assert roster.watches == watch

    def test_its_share_grows_to_one_and_every_session_is_a_step(
        self, ground: Ground, open_roster: Open
    ) -> None:
        ground.create(50)
        shares = list(open_roster(ground).look())
        assert shares == sorted(shares)
        assert (shares[0] < 0.1, shares[-1], len(shares)) == (True, 1.0, 50 + GROUPS)

    @pytest.mark.parametrize("depth", [0, 1, 2])
    def test_in_a_directory_without_a_session_new_ones_are_known_by_events_from_the_first_on(
        self, make_ground: Make, open_roster: Open, depth: int
    ) -> None:
        ground = make_ground(shard_depth=depth)
        roster = open_roster(ground, "events")
        learn(roster)
        assert (roster.whole, len(roster), roster.watches) == (True, 0, "poll")
        (first,) = ground.create()
        learn(roster)
        assert handle_of(first) in filed(roster)
        assert (roster.watches, roster.looks) == ("events", 2)
        for sid in ground.create(3):
            until_known(roster, handle_of(sid))
        assert roster.looks == 2

    def test_it_clears_away_what_dead_writers_left_and_nothing_young(
        self, ground: Ground, open_roster: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = ground.path(ground.create()[0])
        leftovers = [
            path.with_name(f".{path.name}.0123456789ab.tmp"),
            ground.directory / "filesession.json.0123456789ab.tmp",
        ]
        for leftover in leftovers:
            leftover.write_bytes(b"half")
        (ground.directory / "moved").mkdir()
        leftovers.append(ground.directory / "moved" / path.name)
        leftovers[-1].write_bytes(b"")
        roster = open_roster(ground)
        learn(roster)
        assert all(leftover.exists() for leftover in leftovers)
        monkeypatch.setattr(reaper_module, "YOUNG", -1.0)
        roster.distrust("a test")
        learn(roster)
        assert not any(leftover.exists() for leftover in leftovers)
        assert path.exists()
        assert_knows_all(roster, ground)

    def test_damage_is_set_aside_and_a_young_empty_file_looked_at_again(
        self, ground: Ground, open_roster: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sid, *_ = ground.create(3)
        path = ground.path(sid)
        path.write_bytes(b"")
        roster = open_roster(ground)
        learn(roster)
        assert path.exists()
        assert filed(roster)[handle_of(sid)][0] <= ground.clock.now + 2, "soon"
        monkeypatch.setattr(reaper_module, "YOUNG", -1.0)
        other = ground.path(ground.create()[0])
        other.write_bytes(b"damage\n")
        learn(roster)
        assert not other.exists()
        assert path.exists(), "it is not due for a look"
        assert roster._reaper.look(path.name) is None
        assert len(list((ground.directory / "corrupt").iterdir())) == 2


class TestNews:
    @pytest.mark.parametrize("depth", [0, 1, 2])
    @pytest.mark.parametrize("watch", ["events", "poll"])
    def test_new_moved_and_regenerated_sessions_are_known(
        self, make_ground: Make, open_roster: Open, depth: int, watch: Watch
    ) -> None:
        ground = make_ground(shard_depth=depth)
        elsewhere = make_ground("elsewhere", shard_depth=depth, clock=ground.clock)
        old, *_ = ground.create(20)
        roster = open_roster(ground, watch)
        learn(roster)
        new = [*ground.create(2, idle_timeout=60), ground.store.regenerate(old).id]
        (moved,) = elsewhere.create()
        ground.path(moved).parent.mkdir(parents=True, exist_ok=True)
        elsewhere.path(moved).rename(ground.path(moved))
        for sid in [*new, moved]:
            if watch == "events":
                until_known(roster, handle_of(sid))
            else:
                learn(roster)
        assert_knows_all(roster, ground)
        assert roster.looks == 1
        # The watcher tells of a session in a new directory by two ways, and perhaps twice.
        assert roster.noticed >= 4 if watch == "events" else roster.noticed == 4

    def test_a_file_that_is_replaced_is_not_filed_twice(
        self, ground: Ground, open_roster: Open
    ) -> None:
        sid, *_ = ground.create(2)
        rosters = [open_roster(ground, "events"), open_roster(ground, "poll")]
        for roster in rosters:
            learn(roster)
        inode = ground.path(sid).stat().st_ino
        while ground.path(sid).stat().st_ino == inode:
            ground.store.save(sid, {"text": "x" * 3000})
        (last,) = ground.create()
        until_known(rosters[0], handle_of(last))
        learn(rosters[1])
        for roster in rosters:
            assert len(filed(roster)[handle_of(sid)]) == 1

    @pytest.mark.parametrize("watch", ["events", "poll", "off"])
    def test_a_save_with_a_shorter_timeout_is_noticed(
        self, ground: Ground, open_roster: Open, told: object, watch: Watch
    ) -> None:
        sid, *_ = ground.create(3)
        roster = open_roster(ground, watch)
        learn(roster)
        ground.store.save(sid, {}, idle_timeout=5)
        learn(roster)
        assert filed(roster)[handle_of(sid)][0] <= ground.clock.now + 6
        assert list((ground.directory / "sooner").iterdir()) == []

    def test_what_happens_in_a_look_waits_for_the_end_of_the_group(
        self, ground: Ground, open_roster: Open, told: type[ToldWatcher]
    ) -> None:
        known = ground.create(100)
        roster = open_roster(ground, "events")
        stop_inside_a_group(roster, roster.look())
        before = filed(roster)
        for sid in known:
            ground.store.save(sid, {}, idle_timeout=5)
        told.made[0].names += [handle_of(sid).hex() for sid in known]
        roster.attend()
        assert filed(roster) == before
        learn(roster)
        assert all(filed(roster)[handle_of(sid)][0] <= ground.clock.now + 6 for sid in known)

    def test_without_events_a_directory_whose_date_is_the_same_is_not_listed_again(
        self, ground: Ground, open_roster: Open, ticks: SimpleNamespace
    ) -> None:
        ground.create(200)
        roster = open_roster(ground)
        ticks.wall += 2 * SETTLED
        learn(roster)
        with SystemCalls(watching, only=("scandir",)) as calls:
            learn(roster)
        assert listings(calls) == 0
        (sid,) = ground.create()
        with SystemCalls(watching, only=("scandir",)) as calls:
            learn(roster)
        assert listings(calls) == 1
        assert handle_of(sid) in filed(roster)

    @pytest.mark.parametrize("depth", [0, 1])
    def test_two_sessions_of_the_same_moment_are_both_known(
        self, make_ground: Make, open_roster: Open, ticks: SimpleNamespace, depth: int
    ) -> None:
        ground = make_ground(shard_depth=depth)
        first, second = self.neighbours()
        ground.create(sid=first)
        roster = open_roster(ground)
        learn(roster)
        shard = ground.path(first).parent
        date = shard.stat().st_mtime_ns
        ticks.wall = date + SETTLED
        learn(roster)
        ground.create(sid=second)
        os.utime(shard, ns=(date, date))
        learn(roster)
        assert handle_of(second) in filed(roster)

    def neighbours(self) -> tuple[str, str]:
        """Two ids whose sessions lie in the same directory."""
        seen: dict[bytes, str] = {}
        for number in itertools.count():
            sid = f"id-{number}"
            other = seen.setdefault(handle_of(sid)[:1], sid)
            if other != sid:
                return other, sid
        raise AssertionError


class TestLooks:
    @pytest.mark.parametrize("new", [0, 10, 30])
    def test_what_others_deleted_is_forgotten_however_many_are_new(
        self, ground: Ground, open_roster: Open, told: object, new: int
    ) -> None:
        sids = ground.create(40, idle_timeout=float("inf"))
        roster = open_roster(ground, "events")
        learn(roster)
        for sid in sids[:10]:
            ground.store.delete(sid)
        ground.create(new)
        roster.distrust("a test")
        learn(roster)
        assert filed(roster).keys() == ground.names()
        assert len(roster) == 30 + new

    def test_nothing_is_known_any_more_of_sessions_whose_directories_were_removed(
        self, ground: Ground, open_roster: Open
    ) -> None:
        ground.create(40, idle_timeout=float("inf"))
        roster = open_roster(ground)
        learn(roster)
        for shard in ground.shards()[1:]:
            shutil.rmtree(shard)
        roster.distrust("a test")
        learn(roster)
        assert len(roster) == 0

    def test_one_that_was_filed_twice_is_one_again_as_the_earlier(
        self, ground: Ground, open_roster: Open, told: type[ToldWatcher]
    ) -> None:
        sids = ground.create(9)
        roster = open_roster(ground, "events")
        learn(roster)
        ground.clock.advance(500)
        for sid in sids:
            ground.store.touch(sid)
        told.made[0].names += [handle_of(sid).hex() for sid in sids]
        roster.attend()
        earlier = filed(roster)
        assert len(roster) == 18
        roster.distrust("a test")
        learn(roster)
        assert filed(roster) == {handle: moments[:1] for handle, moments in earlier.items()}

    def test_one_comes_every_hour(
        self, ground: Ground, open_roster: Open, ticks: SimpleNamespace
    ) -> None:
        ground.create(3)
        roster = open_roster(ground)
        learn(roster)
        ticks.now += ROUND - 1
        assert not roster.wants_look()
        ticks.now += 1
        assert roster.wants_look()
        assert not roster.is_look_urgent(), "a sweep does not wait for it"
        begin_look(roster, 5)
        ticks.now += 1
        assert roster.wants_look(), "it goes on"
        exhaust(roster.look())
        assert (roster.looks, roster.wants_look()) == (2, False)

    def test_without_watching_nothing_is_taken_for_known_at_the_next_sweep(
        self, ground: Ground, open_roster: Open
    ) -> None:
        ground.create(100)
        roster = open_roster(ground, "off")
        learn(roster)
        roster.begin()
        assert (len(roster), roster.whole) == (0, False)
        begin_look(roster, 60)
        roster.begin()
        learn(roster)
        assert len(roster) == 100, "the half of a look that was broken off is no whole one"


class TestFailures:
    @pytest.mark.parametrize("watch", ["events", "poll"])
    def test_what_can_be_listed_is_known_and_the_rest_when_it_can(
        self, ground: Ground, open_roster: Open, told: object, watch: Watch
    ) -> None:
        sids = ground.create(300)
        first = next(
            sid for sid in sids if handle_of(sid)[0] % 4 == 0
        )  # others of its group follow
        shard = ground.path(first).parent
        roster = open_roster(ground, watch)
        with broken(str(shard)):
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match=f"listing {shard}"):
                    learn(roster)
                assert (roster.whole, roster.is_look_urgent()) == (False, True)
        hidden = {bytes.fromhex(path.name) for path in shard.iterdir()}
        assert filed(roster).keys() == ground.names() - hidden
        learn(roster)
        assert_knows_all(roster, ground)
        assert (roster.whole, roster.looks, len(roster)) == (True, 1, 300)

    def test_a_look_that_fails_drops_nothing(
        self, ground: Ground, open_roster: Open, told: object
    ) -> None:
        sids = ground.create(300)
        roster = open_roster(ground, "events")
        learn(roster)
        roster.distrust("a test")
        with broken(str(ground.path(sids[0]).parent)), pytest.raises(StoreUnavailable):
            learn(roster)
        assert len(roster) == 300
        with broken(str(ground.root)), pytest.raises(StoreUnavailable):
            learn(roster)
        assert len(roster) == 300

    def test_without_events_a_directory_that_could_not_be_listed_is_tried_again(
        self, ground: Ground, open_roster: Open, ticks: SimpleNamespace
    ) -> None:
        roster = open_roster(ground)
        learn(roster)
        sid, *_ = ground.create(100)
        ticks.wall += 2 * SETTLED
        with broken(str(ground.path(sid).parent)), pytest.raises(StoreUnavailable):
            learn(roster)
        assert handle_of(sid) not in filed(roster)
        learn(roster)
        assert_knows_all(roster, ground)

    def test_without_events_what_was_broken_off_is_done_anew(
        self, ground: Ground, open_roster: Open, ticks: SimpleNamespace
    ) -> None:
        roster = open_roster(ground)
        learn(roster)
        sids = ground.create(400)
        ticks.wall += 2 * SETTLED
        stop_inside_a_group(roster, roster.poll())
        ground.store.save(sids[0], {}, idle_timeout=5)
        roster.attend()
        assert list((ground.directory / "sooner").iterdir()) == [], "it is not in a group's midst"
        learn(roster)
        assert_knows_all(roster, ground)

    def test_a_loss_is_said_and_answered_by_a_look(
        self,
        ground: Ground,
        open_roster: Open,
        told: type[ToldWatcher],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        ground.create(9)
        roster = open_roster(ground, "events")
        learn(roster)
        ground.create(5)  # without a word
        told.made[0].loss = "the queue overflowed"
        for _ in range(3):
            learn(roster)
        assert_knows_all(roster, ground)
        assert (roster.looks, roster.losses, roster.noticed) == (2, 1, 5)
        said = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.getMessage().split(";")[0] for record in said] == ["the queue overflowed"]

    def test_a_loss_in_the_midst_of_a_look_is_answered_by_another(
        self, ground: Ground, open_roster: Open, told: type[ToldWatcher]
    ) -> None:
        ground.create(50)
        roster = open_roster(ground, "events")
        begin_look(roster, 60)
        ground.create(100)  # without a word, most where the look has been
        told.made[0].loss = "the queue overflowed"
        learn(roster)
        assert_knows_all(roster, ground)
        assert roster.looks == 2

    def test_a_watcher_that_failed_is_said_once_and_replaced_by_dates_until_another_works(
        self,
        ground: Ground,
        open_roster: Open,
        told: type[ToldWatcher],
        ticks: SimpleNamespace,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        ground.create(9)
        roster = open_roster(ground, "events")
        learn(roster)
        (watcher,) = told.made
        told.refusal = watcher.end = "no more watches"
        for number in range(3):
            ground.create(5)
            learn(roster)
            assert_knows_all(roster, ground)
            assert (roster.watches, watcher.stopped, roster.looks) == ("poll", True, 2)
            assert len(told.made) == 1
            ticks.now += RETRY if number else 0
        told.refusal = None
        ticks.now += RETRY
        learn(roster)
        assert (roster.watches, len(told.made), roster.looks) == ("events", 2, 3)
        said = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len([record for record in said if "no more watches" in record.getMessage()]) == 2

    @pytest.mark.parametrize("watch", ["events", "poll"])
    def test_a_directory_that_has_vanished_is_told_and_looked_through_when_it_is_back(
        self, ground: Ground, open_roster: Open, told: object, watch: Watch
    ) -> None:
        ground.create(20)
        roster = open_roster(ground, watch)
        away = ground.directory.with_name("away")
        ground.directory.rename(away)
        with pytest.raises(StoreUnavailable, match="vanished"):
            learn(roster)
        away.rename(ground.directory)
        learn(roster)
        assert_knows_all(roster, ground)


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


def test_a_group_is_a_part_of_all_handles() -> None:
    sizes = [0] * GROUPS
    for first in range(256):
        sizes[group_of(bytes([first, *bytes(15)]))] += 1
    assert set(sizes) == {256 // GROUPS}
