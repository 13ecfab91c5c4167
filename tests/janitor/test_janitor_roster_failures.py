"""The roster where something fails: what cannot be listed, a loss, a watcher that works no more."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from filesession.errors import StoreUnavailable
from filesession.janitor.roster import RETRY, SETTLED, Watch
from tests.janitor.grounds import Ground, ToldWatcher, assert_knows_all, broken, filed, handle_of
from tests.janitor.sweeps import OpenRoster, begin_look, learn, stop_inside_a_group


class TestFailures:
    @pytest.mark.parametrize("watch", ["events", "poll"])
    def test_what_can_be_listed_is_known_and_the_rest_when_it_can(
        self, ground: Ground, open_roster: OpenRoster, told: object, watch: Watch
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
        self, ground: Ground, open_roster: OpenRoster, told: object
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
        self, ground: Ground, open_roster: OpenRoster, ticks: SimpleNamespace
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
        self, ground: Ground, open_roster: OpenRoster, ticks: SimpleNamespace
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
        open_roster: OpenRoster,
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
        self, ground: Ground, open_roster: OpenRoster, told: type[ToldWatcher]
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
        open_roster: OpenRoster,
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
        self, ground: Ground, open_roster: OpenRoster, told: object, watch: Watch
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
