"""Sweeps that hold back: for a reason, for a share, in a first look, when a clock is set."""

from __future__ import annotations

import itertools
import math

import pytest

from filesession.errors import StoreUnavailable
from filesession.janitor.roster import Watch
from filesession.janitor.rounds import LEEWAY, Rounds
from tests.janitor.grounds import CLOSE, Ground, broken, filed, handle_of
from tests.janitor.sweeps import DAY, NEVER_STOPPED, Make, OpenRounds, Rests, age, warnings_in


class TestHoldingBack:
    def test_for_a_reason_nothing_goes_and_the_next_sweep_goes_on(
        self, ground: Ground, open_rounds: OpenRounds, caplog: pytest.LogCaptureFixture
    ) -> None:
        ground.create(5)
        ground.clock.advance(2000)
        rounds = open_rounds(ground)
        rounds.hold("the clock was set forward by 1 h")
        report = rounds.sweep()
        assert (report.expired, report.held, rounds.held) == (
            *(0, 5),
            "the clock was set forward by 1 h",
        )
        assert rounds.overdue == pytest.approx(200, abs=200 / 16 + 1)
        (said,) = warnings_in(caplog)
        assert "holding back: the clock was set forward by 1 h; 5 sessions may go" in said
        report = rounds.sweep()
        assert (report.expired, report.held, rounds.held) == (5, 0, None)
        assert len(warnings_in(caplog)) == 1

    def test_where_nothing_is_due_nothing_is_said(
        self, ground: Ground, open_rounds: OpenRounds, caplog: pytest.LogCaptureFixture
    ) -> None:
        ground.create(5)
        rounds = open_rounds(ground)
        rounds.hold("a test")
        rounds.sweep()
        assert (rounds.held, warnings_in(caplog)) == (None, [])

    def test_one_that_was_stopped_before_it_could_hold_back_leaves_that_to_the_next(
        self, ground: Ground, open_rounds: OpenRounds, short_batches: None
    ) -> None:
        ground.create(50)
        ground.clock.advance(2000)
        rests = Rests()
        rests.act = lambda: len(rests.seconds) == 3
        rounds = open_rounds(ground, rest=rests)
        rounds.hold("a test")
        assert not rounds.sweep().complete
        report = rounds.sweep()
        assert (report.complete, report.expired, report.held) == (True, 0, 50)
        assert rounds.sweep().expired == 50

    @pytest.mark.parametrize(
        ("stored", "due", "held"), [(1000, 501, True), (1000, 500, False), (999, 999, False)]
    )
    def test_more_than_half_of_a_thousand_wait_for_a_second_sweep(  # noqa: PLR0917 - fixtures
        self,
        make_ground: Make,
        open_rounds: OpenRounds,
        caplog: pytest.LogCaptureFixture,
        stored: int,
        due: int,
        held: bool,  # noqa: FBT001 - pytest's
    ) -> None:
        ground = make_ground(shard_depth=0)
        sids = ground.create(stored)
        age(ground, sids[:due], 2000)
        rounds = open_rounds(ground)
        report = rounds.sweep()
        assert (report.expired, report.held) == ((0, due) if held else (due, 0))
        assert (rounds.held is not None) is held
        if held:
            (said,) = warnings_in(caplog)
            assert "501 of 1,000 sessions are due at once, more than 50%" in said
            for sid in sids[:100]:  # they are used after all
                age(ground, [sid], 0)
            assert rounds.sweep().expired == due - 100
            assert len(ground.names()) == stored - due + 100

    def test_what_was_touched_does_not_count_for_the_share(
        self, make_ground: Make, open_rounds: OpenRounds
    ) -> None:
        ground = make_ground(shard_depth=0)
        sids = ground.create(1000)
        rounds = open_rounds(ground)
        rounds.sweep()
        ground.clock.advance(2000)
        age(ground, sids[:600], 10)
        report = rounds.sweep()
        assert (report.expired, report.held) == (400, 0)

    def test_what_falls_due_while_it_counts_does_not_come_up_for_ever(
        self, make_ground: Make, open_rounds: OpenRounds
    ) -> None:
        ground = make_ground(shard_depth=0)
        sids = ground.create(1000)
        rounds = open_rounds(ground)
        rounds.sweep()
        whole = math.floor(ground.clock.now) + 5000
        ground.clock.advance(whole - ground.clock.now)
        age(ground, sids[:900], 2000)
        age(ground, sids[900:950], 1800 - 0.3)  # due within the second in which the sweep begins
        ticks = itertools.count()

        def ticking() -> float:
            assert next(ticks) < 100_000, "it spins"
            return whole + min(0.9, next(ticks) * 0.0005)

        rounds._wall = ticking
        assert rounds.sweep().expired == 0
        assert rounds.held is not None
        assert rounds.sweep().expired == 950

    def test_one_that_is_stopped_while_it_counts_deletes_nothing(
        self, make_ground: Make, open_rounds: OpenRounds, short_batches: None
    ) -> None:
        ground = make_ground(shard_depth=0)
        ground.create(1000)
        rests = Rests()
        rounds = open_rounds(ground, rest=rests)
        rounds.sweep()
        ground.clock.advance(2000)
        rests.act = lambda: len(rounds.roster.overdue) > 0
        report = rounds.sweep()
        assert (report.complete, report.expired, report.held) == (False, 0, 0)
        rests.act = NEVER_STOPPED
        assert [rounds.sweep().held, rounds.sweep().expired] == [1000, 1000]

    def test_what_earlier_sweeps_deleted_that_failed_does_not_count(
        self, make_ground: Make, open_rounds: OpenRounds, told: object
    ) -> None:
        ground = make_ground(shard_depth=1)
        sids = [ground.create(sid=sid)[0] for sid in itertools.islice(CLOSE, 300)]
        sids += ground.create(1200)
        hidden = ground.path(CLOSE[0]).parent
        seen = [sid for sid in sids if ground.path(sid).parent != hidden]
        age(ground, seen[:500], 2000)
        rounds = open_rounds(ground, "events")
        with broken(str(hidden)):
            with pytest.raises(StoreUnavailable, match="listing"):
                rounds.sweep()
            assert len(rounds.roster) == len(seen) - 500
            ground.clock.advance(2000)
            age(ground, seen[800:], 10)
            with pytest.raises(StoreUnavailable, match="listing"):
                rounds.sweep()
        assert rounds.held is None
        assert not any(ground.path(sid).exists() for sid in seen[:800])


class TestColdLook:
    def test_deletion_begins_before_it_is_over_when_few_are_due(
        self, make_ground: Make, open_rounds: OpenRounds, short_batches: None
    ) -> None:
        ground = make_ground(shard_depth=0)
        age(ground, ground.create(2000)[::20], 2000)
        shares: list[float] = []
        told_at: list[float] = []
        rounds = open_rounds(
            ground, progress=shares.append, told=lambda _info: told_at.append(shares[-1])
        )
        report = rounds.sweep()
        assert (report.expired, report.held, len(told_at)) == (100, 0, 100)
        assert 0.4 < told_at[0] < 0.8, "a thousand tell the share"
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        progressed = len(shares)
        rounds.sweep()
        assert len(shares) == progressed

    def test_nothing_goes_in_the_first_sweep_when_most_are_due(
        self, make_ground: Make, open_rounds: OpenRounds, short_batches: None
    ) -> None:
        ground = make_ground(shard_depth=0)
        sids = ground.create(2000)
        age(ground, [sid for number, sid in enumerate(sids) if number % 3], 2000)
        rounds = open_rounds(ground)
        report = rounds.sweep()
        assert (report.expired, report.held) == (0, 1333)
        assert rounds.sweep().expired == 1333

    def test_of_fewer_than_a_thousand_none_goes_before_all_are_known(
        self, ground: Ground, open_rounds: OpenRounds, short_batches: None
    ) -> None:
        age(ground, ground.create(300), 2000)
        known: list[bool] = []
        rounds: Rounds = open_rounds(ground, told=lambda _info: known.append(rounds.roster.whole))
        assert rounds.sweep().expired == 300
        assert set(known) == {True}

    def test_nothing_goes_meanwhile_when_it_is_to_hold_back(
        self, make_ground: Make, open_rounds: OpenRounds, short_batches: None
    ) -> None:
        ground = make_ground(shard_depth=0)
        age(ground, ground.create(1500)[:50], 2000)
        rounds = open_rounds(ground)
        rounds.hold("a test")
        report = rounds.sweep()
        assert (report.expired, report.held) == (0, 50)
        assert rounds.sweep().expired == 50


class TestClocks:
    @pytest.mark.parametrize("watch", ["events", "poll"])
    @pytest.mark.parametrize("known", [True, False])
    def test_a_clock_set_forward_in_the_midst_of_a_sweep_makes_nothing_due(  # noqa: PLR0917 - fixtures
        self,
        ground: Ground,
        open_rounds: OpenRounds,
        short_batches: None,
        told: object,
        watch: Watch,
        known: bool,  # noqa: FBT001 - pytest's
    ) -> None:
        due, live = ground.create(100), ground.create(100)
        rests = Rests()
        rounds = open_rounds(ground, watch, rest=rests)
        if known:
            rounds.sweep()
        ground.clock.advance(2000)
        age(ground, live, 1800 - LEEWAY - 60)  # they have a minute left
        began = ground.clock.now
        rests.act = lambda: setattr(ground.clock, "now", began + DAY)
        report = rounds.sweep()
        assert len(rests.seconds) > 10
        assert report.expired == 100
        assert ground.names() == {handle_of(sid) for sid in live}
        assert not any(ground.path(sid).exists() for sid in due)
        assert set(filed(rounds.roster)) == ground.names()

    def test_a_clock_set_back_in_the_midst_of_a_sweep_deletes_nothing_that_lives(
        self, ground: Ground, open_rounds: OpenRounds, short_batches: None
    ) -> None:
        ground.create(100)
        rests = Rests()
        rounds = open_rounds(ground, rest=rests)
        rounds.sweep()
        ground.clock.advance(2000)
        live = {handle_of(sid) for sid in ground.create(100)}
        began = ground.clock.now
        rests.act = lambda: setattr(ground.clock, "now", began - 30)
        rounds.sweep()
        assert live <= ground.names()
        assert set(filed(rounds.roster)) == ground.names()
        rests.act, ground.clock.now = NEVER_STOPPED, began
        rounds.sweep()
        assert ground.names() == live

    def test_rounds_that_begin_anew_after_a_clock_was_set_back_let_all_count_from_then(
        self, ground: Ground, open_rounds: OpenRounds
    ) -> None:
        ground.create(10)
        rounds = open_rounds(ground)
        rounds.sweep()
        ground.clock.advance(-DAY)
        assert rounds.sweep().expired == 0
        anew = open_rounds(ground)
        assert anew.sweep().mended == 10
        ground.clock.advance(1790)
        assert anew.sweep().expired == 0
        ground.clock.advance(20)
        assert anew.sweep().expired == 10
