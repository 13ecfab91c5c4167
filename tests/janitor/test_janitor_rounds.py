"""Sweeps of real directories, with a clock to set: what goes, what stays, what it costs."""

from __future__ import annotations

import itertools
import math
import shutil
from typing import Any

import pytest

from filesession.errors import StoreUnavailable
from filesession.janitor import roster as roster_module
from filesession.janitor.roster import Watch
from filesession.janitor.rounds import REST
from filesession.record import SessionInfo, SweepReport
from filesession.stores import FileStore
from filesession.stores.file.reaper import LATER
from filesession.stores.file.sessionfile import SessionFile
from filesession.testing.faults import SystemCalls, watching
from tests.janitor.grounds import CLOSE, Ground, ToldWatcher, filed, handle_of
from tests.janitor.sweeps import DAY, NEVER_STOPPED, Make, OpenRounds, Rests, age


class TestCost:
    def test_it_follows_what_expires(
        self, ground: Ground, open_rounds: OpenRounds, told: object, looked: list[str]
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
        self, ground: Ground, open_rounds: OpenRounds, told: object, looked: list[str]
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
        self, ground: Ground, open_rounds: OpenRounds, short_batches: None
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
        open_rounds: OpenRounds,
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
        self, ground: Ground, open_rounds: OpenRounds, short_batches: None
    ) -> None:
        for number, sid in enumerate(ground.create(20)):
            age(ground, [sid], 1800 + 20 * (1 + number * 7 % 20))
        gone: list[SessionInfo] = []
        report = open_rounds(ground, told=gone.append).sweep()
        moments = [info.accessed_at for info in gone]
        assert (len(moments), moments) == (20, sorted(moments))
        assert report.oldest_overdue == pytest.approx(400)

    def test_each_that_is_deleted_is_told_of_once_as_it_was(
        self, ground: Ground, open_rounds: OpenRounds
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
        self, ground: Ground, open_rounds: OpenRounds, told: object
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
        self, ground: Ground, open_rounds: OpenRounds, told: type[ToldWatcher], watch: Watch
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
        self, ground: Ground, open_rounds: OpenRounds, short_batches: None, told: object
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
        self, ground: Ground, open_rounds: OpenRounds, short_batches: None, told: object
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
        self, ground: Ground, open_rounds: OpenRounds, short_batches: None, looked: list[str]
    ) -> None:
        ground.create(100)
        rests = Rests()
        rests.act = lambda: len(rests.seconds) % 10 == 0
        rounds = open_rounds(ground, rest=rests)
        assert sum(not rounds.sweep().complete for _ in range(20)) > 2
        assert looked == ["look"] * 100
        assert (rounds.roster.whole, rounds.roster.looks) == (True, 1)

    def test_without_watching_each_sweep_begins_with_a_whole_look(
        self, ground: Ground, open_rounds: OpenRounds, short_batches: None
    ) -> None:
        ground.create(100)
        rests = Rests()
        rests.act = lambda: len(rests.seconds) == 10
        rounds = open_rounds(ground, "off", rest=rests)
        assert not rounds.sweep().complete
        ground.clock.advance(2000)
        assert rounds.sweep().expired == 100


class TestDirectory:
    def test_what_was_changed_is_told(self, ground: Ground, open_rounds: OpenRounds) -> None:
        rounds = open_rounds(ground)
        rounds.sweep()
        assert rounds.changed() is None
        FileStore(ground.directory, clock=ground.clock, touch_interval=0)
        assert rounds.changed() is None
        FileStore(ground.directory, clock=ground.clock, touch_interval=0, idle_timeout=60)
        assert rounds.changed() == (
            "the manifest was changed: idle_timeout is now 60.0, and was 1800.0"
        )

    def test_one_restored_from_a_copy_is_another(
        self, ground: Ground, open_rounds: OpenRounds
    ) -> None:
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
        self,
        ground: Ground,
        open_rounds: OpenRounds,
        short_batches: None,
        told: object,
        watch: Watch,
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
        open_rounds: OpenRounds,
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
        self, ground: Ground, open_rounds: OpenRounds, looked: list[str]
    ) -> None:
        ground.create(10)
        open_rounds(ground).attend()
        assert looked == []
