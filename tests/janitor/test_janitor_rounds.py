"""Sweeps of real directories with a clock that is passed in: what goes, what stays, what it costs.

Where a sweep is to rest, the clock of its batches is one of the test that runs on with every look
at it; what others do meanwhile is done in the rest.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesession.errors import SessionGone, StoreUnavailable
from filesession.janitor import roster as roster_module
from filesession.janitor import rounds as module
from filesession.janitor.complaints import Complaints
from filesession.janitor.fuse import Fuse
from filesession.janitor.roster import Watch
from filesession.janitor.rounds import LEEWAY, REST, Rounds
from filesession.record import SessionInfo, SweepReport
from filesession.stores import FileStore
from filesession.stores.file.reaper import LATER, Reaper
from filesession.stores.file.sessionfile import SessionFile
from filesession.testing.faults import SystemCalls, watching
from tests.janitor.conftest import (
    CLOSE,
    LOG,
    Ground,
    ToldWatcher,
    broken,
    directory_in_memory,
    filed,
    handle_of,
    told_watchers,
)

DAY = 86_400
Make = Callable[..., Ground]
Open = Callable[..., Rounds]
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


@pytest.fixture
def open_rounds() -> Iterator[Open]:
    """Begins rounds, and ends them."""
    made: list[Rounds] = []

    def make(ground: Ground, watch: Watch = "poll", **options: Any) -> Rounds:
        made.append(rounds_of(ground, watch, **options))
        return made[-1]

    yield make
    for rounds in made:
        rounds.close()


def hurrying() -> SimpleNamespace:
    """A clock of batches that shows 4 ms more each time: two sessions or so, and one is over."""
    ticks = itertools.count()
    return SimpleNamespace(monotonic=lambda: 1000 + next(ticks) * 0.004)


@pytest.fixture
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", hurrying())


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the reaper's looks at sessions, in order."""
    names: list[str] = []

    def counting(name: str) -> None:
        real = getattr(Reaper, name)

        def called(*arguments: Any) -> Any:
            names.append(name)
            return real(*arguments)

        monkeypatch.setattr(Reaper, name, called)

    for name in ("glance", "look", "reap"):
        counting(name)
    return names


def age(ground: Ground, sids: list[str], seconds: float) -> None:
    """Have them last been used so long ago."""
    for sid in sids:
        os.utime(ground.path(sid), (ground.clock.now - seconds,) * 2)


def warnings_in(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


class TestCost:
    def test_it_follows_what_expires(
        self, ground: Ground, open_rounds: Open, told: object, looked: list[str]
    ) -> None:
        age(ground, ground.create(5), 1700)
        ground.create(3000)
        rounds = open_rounds(ground, "events")
        assert rounds.sweep().examined == 3005
        looked.clear()
        ground.clock.advance(150)
        with SystemCalls(watching) as calls:
            report = rounds.sweep()
        assert (report.expired, report.examined) == (5, 5)
        assert sorted(looked) == ["glance"] * 5 + ["reap"] * 5
        assert len(calls.calls) < 100
        assert len(ground.names()) == 3000

    def test_one_that_was_touched_costs_a_glance_and_is_filed_anew(
        self, ground: Ground, open_rounds: Open, told: object, looked: list[str]
    ) -> None:
        sids = ground.create(50)
        rounds = open_rounds(ground, "events")
        rounds.sweep()
        ground.clock.advance(1000)
        for sid in sids:
            ground.store.touch(sid)
        looked.clear()
        ground.clock.advance(1000)
        with SystemCalls(watching, only=("open",)) as calls:
            assert rounds.sweep().expired == 0
        assert (looked, calls.calls) == (["glance"] * 50, [])
        assert len(rounds.roster) == 50
        ground.clock.advance(802)
        assert rounds.sweep().expired == 50

    def test_a_rest_follows_every_batch_in_proportion(
        self, ground: Ground, open_rounds: Open, short_batches: None
    ) -> None:
        age(ground, ground.create(100), DAY)
        rests = Rests()
        open_rounds(ground, rest=rests).sweep()
        assert len(rests.seconds) > 40
        assert all(0.01 * REST < seconds < 0.05 * REST for seconds in rests.seconds)


class TestDue:
    @pytest.mark.parametrize(
        ("store", "own", "life"),
        [
            ({}, {}, 1800),
            ({}, {"idle_timeout": 300}, 300),
            ({}, {"idle_timeout": 9000}, 9000),
            ({}, {"absolute_timeout": 700}, 700),
            ({"absolute_timeout": 900}, {}, 900),
            ({"absolute_timeout": 900}, {"absolute_timeout": 7000}, 1800),
            ({"touch_interval": 60}, {}, 1920),
            ({"idle_timeout": None}, {}, math.inf),
            ({}, {"idle_timeout": math.inf}, math.inf),
        ],
    )
    def test_each_goes_with_the_first_sweep_a_second_after_its_moment_and_not_before(
        self,
        make_ground: Make,
        open_rounds: Open,
        store: dict[str, Any],
        own: dict[str, Any],
        life: float,
    ) -> None:
        ground = make_ground(**store)
        ground.create(5, **own)
        rounds, began = open_rounds(ground), ground.clock.now
        for seconds in sorted((0, 100, 400, 650, life - 60, life, life + 1, life + DAY)):
            ground.clock.now = began + min(seconds, 40 * DAY)
            rounds.sweep()
            assert len(ground.names()) == (5 if seconds <= life else 0), seconds

    def test_the_longest_overdue_goes_first(
        self, ground: Ground, open_rounds: Open, short_batches: None
    ) -> None:
        for number, sid in enumerate(ground.create(20)):
            age(ground, [sid], 1800 + 20 * (1 + number * 7 % 20))
        gone: list[SessionInfo] = []
        report = open_rounds(ground, told=gone.append).sweep()
        moments = [info.accessed_at for info in gone]
        assert (len(moments), moments) == (20, sorted(moments))
        assert report.oldest_overdue == pytest.approx(400)

    def test_each_that_is_deleted_is_told_of_once_as_it_was(
        self, ground: Ground, open_rounds: Open
    ) -> None:
        due = ground.create(3, data={"n": 1}) + ground.create(3, idle_timeout=60)
        ground.create(4, idle_timeout=9000)
        ground.clock.advance(2000)
        wanted = {info.handle: info for info in ground.store.scan()}
        gone: list[SessionInfo] = []
        rounds = open_rounds(ground, told=gone.append)
        for _ in range(3):
            rounds.sweep()
        assert sorted(info.handle for info in gone) == sorted(handle_of(s).hex() for s in due)
        assert all(info == wanted[info.handle] for info in gone)

    def test_a_locked_session_is_left_for_the_next_sweep(
        self, ground: Ground, open_rounds: Open, told: object
    ) -> None:
        sid, *_ = ground.create(3)
        ground.clock.advance(2000)
        rounds = open_rounds(ground, "events")
        lock = SessionFile.locked(ground.store._layout, handle_of(sid).hex(), 0)
        assert lock is not None
        report = rounds.sweep()
        assert (report.expired, report.busy, report.complete) == (2, 1, True)
        lock.close()
        ground.clock.advance(LATER + 1)
        report = rounds.sweep()
        assert (report.expired, report.busy) == (1, 0)

    @pytest.mark.parametrize("watch", ["events", "poll", "off"])
    def test_what_is_new_or_ends_sooner_is_swept_in_time(
        self, ground: Ground, open_rounds: Open, told: type[ToldWatcher], watch: Watch
    ) -> None:
        (sid,) = ground.create()
        rounds = open_rounds(ground, watch)
        rounds.sweep()
        new = ground.create(3, idle_timeout=30)
        if told.made:
            told.made[0].names += [handle_of(each).hex() for each in new]
        ground.store.save(sid, {}, idle_timeout=40)
        expired = []
        for _ in range(3):
            expired.append(rounds.sweep().expired)
            ground.clock.advance(35)
        assert expired == [0, 3, 1]
        assert rounds.roster.looks == (4 if watch == "off" else 1)


class TestStopping:
    def test_the_rest_stays_filed_and_the_next_sweep_goes_on(
        self, ground: Ground, open_rounds: Open, short_batches: None, told: object
    ) -> None:
        ground.create(120)
        rests = Rests()
        rounds = open_rounds(ground, "events", rest=rests)
        rounds.sweep()
        ground.clock.advance(2000)
        rests.act = lambda: len(rests.seconds) % 5 == 0
        reports: list[SweepReport] = []
        while not reports or not reports[-1].complete:
            reports.append(rounds.sweep())
            assert filed(rounds.roster).keys() == ground.names()
        assert len(reports) > 5
        assert max(report.expired for report in reports) < 20
        assert ground.names() == set()

    def test_it_ends_with_the_session_in_hand(
        self, ground: Ground, open_rounds: Open, short_batches: None, told: object
    ) -> None:
        ground.create(200)
        for sid in itertools.islice(CLOSE, 30):  # many in one bucket
            ground.create(sid=sid)
        rests = Rests()
        rounds = open_rounds(ground, "events", rest=rests)
        rounds.sweep()
        ground.clock.advance(2000)
        rests.act = lambda: True
        for _ in range(5):
            report = rounds.sweep()
            assert (report.complete, report.expired <= 2) == (False, True)

    def test_a_first_look_that_was_stopped_goes_on_where_it_was(
        self, ground: Ground, open_rounds: Open, short_batches: None, looked: list[str]
    ) -> None:
        ground.create(100)
        rests = Rests()
        rests.act = lambda: len(rests.seconds) % 10 == 0
        rounds = open_rounds(ground, rest=rests)
        assert sum(not rounds.sweep().complete for _ in range(20)) > 2
        assert looked == ["look"] * 100
        assert (rounds.roster.whole, rounds.roster.looks) == (True, 1)

    def test_without_watching_each_sweep_begins_with_a_whole_look(
        self, ground: Ground, open_rounds: Open, short_batches: None
    ) -> None:
        ground.create(100)
        rests = Rests()
        rests.act = lambda: len(rests.seconds) == 10
        rounds = open_rounds(ground, "off", rest=rests)
        assert not rounds.sweep().complete
        ground.clock.advance(2000)
        assert rounds.sweep().expired == 100


class TestHoldingBack:
    def test_for_a_reason_nothing_goes_and_the_next_sweep_goes_on(
        self, ground: Ground, open_rounds: Open, caplog: pytest.LogCaptureFixture
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
        self, ground: Ground, open_rounds: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        ground.create(5)
        rounds = open_rounds(ground)
        rounds.hold("a test")
        rounds.sweep()
        assert (rounds.held, warnings_in(caplog)) == (None, [])

    def test_one_that_was_stopped_before_it_could_hold_back_leaves_that_to_the_next(
        self, ground: Ground, open_rounds: Open, short_batches: None
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
        open_rounds: Open,
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
        self, make_ground: Make, open_rounds: Open
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
        self, make_ground: Make, open_rounds: Open
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
        self, make_ground: Make, open_rounds: Open, short_batches: None
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
        self, make_ground: Make, open_rounds: Open, told: object
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
        self, make_ground: Make, open_rounds: Open, short_batches: None
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
        self, make_ground: Make, open_rounds: Open, short_batches: None
    ) -> None:
        ground = make_ground(shard_depth=0)
        sids = ground.create(2000)
        age(ground, [sid for number, sid in enumerate(sids) if number % 3], 2000)
        rounds = open_rounds(ground)
        report = rounds.sweep()
        assert (report.expired, report.held) == (0, 1333)
        assert rounds.sweep().expired == 1333

    def test_of_fewer_than_a_thousand_none_goes_before_all_are_known(
        self, ground: Ground, open_rounds: Open, short_batches: None
    ) -> None:
        age(ground, ground.create(300), 2000)
        known: list[bool] = []
        rounds: Rounds = open_rounds(ground, told=lambda _info: known.append(rounds.roster.whole))
        assert rounds.sweep().expired == 300
        assert set(known) == {True}

    def test_nothing_goes_meanwhile_when_it_is_to_hold_back(
        self, make_ground: Make, open_rounds: Open, short_batches: None
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
        open_rounds: Open,
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
        self, ground: Ground, open_rounds: Open, short_batches: None
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
        self, ground: Ground, open_rounds: Open
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


class TestDirectory:
    def test_what_was_changed_is_told(self, ground: Ground, open_rounds: Open) -> None:
        rounds = open_rounds(ground)
        rounds.sweep()
        assert rounds.changed() is None
        FileStore(ground.directory, clock=ground.clock, touch_interval=0)
        assert rounds.changed() is None
        FileStore(ground.directory, clock=ground.clock, touch_interval=0, idle_timeout=60)
        assert rounds.changed() == (
            "the manifest was changed: idle_timeout is now 60.0, and was 1800.0"
        )

    def test_one_restored_from_a_copy_is_another(self, ground: Ground, open_rounds: Open) -> None:
        ground.create(3)
        copy = ground.directory.with_name("copy")
        shutil.copytree(ground.directory, copy)
        rounds = open_rounds(ground)
        rounds.sweep()
        shutil.rmtree(ground.directory)
        with pytest.raises(StoreUnavailable, match="vanished"):
            rounds.changed()
        copy.rename(ground.directory)
        assert "restored or replaced" in str(rounds.changed())

    @pytest.mark.parametrize("watch", ["events", "poll", "off"])
    def test_one_that_vanishes_in_the_midst_of_a_sweep_is_swept_when_it_is_back(
        self, ground: Ground, open_rounds: Open, short_batches: None, told: object, watch: Watch
    ) -> None:
        ground.create(100)
        rests = Rests()
        rounds = open_rounds(ground, watch, rest=rests)
        rounds.sweep()
        ground.clock.advance(2000)
        away = ground.directory.with_name("away")

        def vanish() -> None:
            if rounds._reaper.tally.expired >= 10 and not away.exists():
                ground.directory.rename(away)

        rests.act = vanish
        with pytest.raises(StoreUnavailable, match="vanished"):
            rounds.sweep()
        away.rename(ground.directory)
        rests.act = NEVER_STOPPED
        left = len(ground.names())
        assert left > 80
        rounds.sweep()
        assert ground.names() == set()


class TestBetweenSweeps:
    def test_the_hourly_look_is_made_in_pieces_and_deletes_nothing(
        self,
        ground: Ground,
        open_rounds: Open,
        short_batches: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        ground.create(100)
        rounds = open_rounds(ground)
        rounds.sweep()
        ground.clock.advance(2000)
        for _ in range(5):
            rounds.attend()
        assert rounds.roster.looks == 1
        monkeypatch.setattr(roster_module, "ROUND", 0.0)
        pieces = 0
        while rounds.roster.looks == 1:
            rounds.attend()
            pieces += 1
        assert pieces > 10
        assert len(ground.names()) == 100

    def test_before_the_first_sweep_nothing_is_looked_through(
        self, ground: Ground, open_rounds: Open, looked: list[str]
    ) -> None:
        ground.create(10)
        open_rounds(ground).attend()
        assert looked == []


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
        patch.setattr(module, "time", hurrying())
        both = Beside(Ground(path / "ground", shard_depth=depth), watchers, watch)
        for step, how in [*steps, ("sweep", 0), ("sweep", 0)]:
            both.take(step, how)
