"""The roster on real directories: what it gets to know, by events, by dates, by looks at all names.

Events are the kernel's own where that is said, else those of a watcher that the test tells. What
each session's entry says is compared with what the store says of the session.
"""

from __future__ import annotations

import itertools
import os
import shutil
from types import SimpleNamespace

import pytest

from filesession.janitor.roster import NEWS, ROUND, SETTLED, Watch
from filesession.janitor.wheel import GROUPS, group_of
from filesession.stores.file import reaper as reaper_module
from filesession.testing.faults import SystemCalls, watching
from tests.janitor.grounds import Ground, ToldWatcher, assert_knows_all, exhaust, filed, handle_of
from tests.janitor.sweeps import (
    Make,
    OpenRoster,
    begin_look,
    learn,
    stop_inside_a_group,
    until_known,
)


def listings(calls: SystemCalls) -> int:
    """How many directories of sessions were listed."""
    shards = [str(call.arguments[0]) for call in calls.calls]
    return sum(len(os.path.basename(path)) == 2 for path in shards)


class TestFirstLook:
    @pytest.mark.parametrize("depth", [0, 1, 2])
    @pytest.mark.parametrize("watch", ["events", "poll", "off"])
    def test_all_that_is_stored_is_known_after_it(
        self, make_ground: Make, open_roster: OpenRoster, depth: int, watch: Watch
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
        self, ground: Ground, open_roster: OpenRoster
    ) -> None:
        ground.create(50)
        shares = list(open_roster(ground).look())
        assert shares == sorted(shares)
        assert (shares[0] < 0.1, shares[-1], len(shares)) == (True, 1.0, 50 + GROUPS)

    @pytest.mark.parametrize("depth", [0, 1, 2])
    def test_in_a_directory_without_a_session_new_ones_are_known_by_events_from_the_first_on(
        self, make_ground: Make, open_roster: OpenRoster, depth: int
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
        self, ground: Ground, open_roster: OpenRoster, monkeypatch: pytest.MonkeyPatch
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

    def test_it_pauses_between_notes_that_it_clears_away(
        self, ground: Ground, open_roster: OpenRoster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ground.create()
        (ground.directory / "moved").mkdir()
        for number in range(50):
            (ground.directory / "moved" / f"{number:032x}").touch()
        monkeypatch.setattr(reaper_module, "YOUNG", -1.0)
        left = [
            len(list((ground.directory / "moved").iterdir())) for _ in open_roster(ground).look()
        ]
        assert left[-50:] == list(range(49, -1, -1))

    def test_damage_is_set_aside_and_a_young_empty_file_looked_at_again(
        self, ground: Ground, open_roster: OpenRoster, monkeypatch: pytest.MonkeyPatch
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
        self, make_ground: Make, open_roster: OpenRoster, depth: int, watch: Watch
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
        self, ground: Ground, open_roster: OpenRoster
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
        self, ground: Ground, open_roster: OpenRoster, told: object, watch: Watch
    ) -> None:
        sid, *_ = ground.create(3)
        roster = open_roster(ground, watch)
        learn(roster)
        ground.store.save(sid, {}, idle_timeout=5)
        learn(roster)
        assert filed(roster)[handle_of(sid)][0] <= ground.clock.now + 6
        assert list((ground.directory / "sooner").iterdir()) == []

    def test_what_happens_in_a_look_waits_for_the_end_of_the_group(
        self, ground: Ground, open_roster: OpenRoster, told: type[ToldWatcher]
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
        self, ground: Ground, open_roster: OpenRoster, ticks: SimpleNamespace
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
        self, make_ground: Make, open_roster: OpenRoster, ticks: SimpleNamespace, depth: int
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

    def test_of_many_notes_that_sessions_end_sooner_some_are_seen_to_in_one_go(
        self, ground: Ground, open_roster: OpenRoster
    ) -> None:
        (sid,) = ground.create()
        roster = open_roster(ground)
        learn(roster)
        (ground.directory / "sooner").mkdir()
        for number in range(2 * NEWS + 1):
            (ground.directory / "sooner" / f"{number:032x}").touch()
        left = []
        while roster.attend():
            left.append(len(list((ground.directory / "sooner").iterdir())))
        assert left == [NEWS + 1, 1]
        assert not list((ground.directory / "sooner").iterdir())
        assert filed(roster).keys() == {handle_of(sid)}

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
        self, ground: Ground, open_roster: OpenRoster, told: object, new: int
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
        self, ground: Ground, open_roster: OpenRoster
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
        self, ground: Ground, open_roster: OpenRoster, told: type[ToldWatcher]
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
        self, ground: Ground, open_roster: OpenRoster, ticks: SimpleNamespace
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
        self, ground: Ground, open_roster: OpenRoster
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


def test_a_group_is_a_part_of_all_handles() -> None:
    sizes = [0] * GROUPS
    for first in range(256):
        sizes[group_of(bytes([first, *bytes(15)]))] += 1
    assert set(sizes) == {256 // GROUPS}
