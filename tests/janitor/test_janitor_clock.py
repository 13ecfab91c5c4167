"""A wall clock that is set under a janitor: the schedule, what is held back, what is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from filesession.janitor import Janitor
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore
from filesession.testing import ManualClock
from tests.janitor.janitors import handles, messages, reading_of


@pytest.mark.parametrize(("jump", "moves"), [(0.5, []), (3600.0, [3600.0]), (-60.0, [-60.0])])
def test_a_wall_clock_that_is_set_makes_the_schedule_think_anew(
    looks: Callable[[], Janitor],
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    jump: float,
    moves: list[float],
) -> None:
    janitor = looks()
    wall = ManualClock()
    told: list[float] = []
    janitor._wall = wall
    janitor._monotonic = lambda: 50.0
    janitor._tick()
    monkeypatch.setattr(janitor._schedule, "clock_moved", told.append)
    janitor._tick()
    wall.now += jump
    janitor._tick()
    janitor._tick()
    assert told == moves
    assert any("the clock moved" in line for line in messages(log)) == bool(moves)


class SetClock:
    """A janitor whose wall clock is set by the test, and whose looks and sweeps it makes itself."""

    def __init__(self, store: FileStore, clock: ManualClock) -> None:
        self.janitor = Janitor(store, interval=3600)
        self.clock = clock
        self._ticks = ManualClock(50.0)
        self.janitor._wall = clock
        self.janitor._monotonic = self._ticks
        self.janitor._tick()
        self.sweep()

    def move(self, seconds: float) -> None:
        self.clock.now += seconds
        self.janitor._tick()

    def wait(self, seconds: float) -> None:
        self._ticks.now += seconds
        self.move(seconds)

    def sweep(self) -> SweepReport:
        self.janitor._follow_clock()
        self.janitor._work(due=True)
        report = self.janitor._sweeper.last
        assert report is not None
        return report


@pytest.fixture
def set_clock(store: FileStore, clock: ManualClock) -> Iterator[SetClock]:
    for _ in range(3):
        store.create()
    made = SetClock(store, clock)
    yield made
    made.janitor._step_down()
    made.janitor._sweeper.close()


def test_a_clock_set_forward_holds_back_one_sweep(
    set_clock: SetClock, store: FileStore, log: pytest.LogCaptureFixture
) -> None:
    set_clock.move(3600)
    report = set_clock.sweep()
    assert (report.expired, report.held) == (0, 3)
    assert reading_of(store)["held"] == "the clock was set forward by 60 min"
    assert "holding back" in set_clock.janitor.state_text()
    assert set_clock.sweep().expired == 3
    assert reading_of(store)["held"] is None
    assert sum("holding back: the clock was set" in line for line in messages(log)) == 1


def test_a_clock_that_is_set_while_it_holds_back_holds_back_again(set_clock: SetClock) -> None:
    for _ in range(2):
        set_clock.move(3600)
        assert set_clock.sweep().held == 3
    assert set_clock.sweep().expired == 3


def test_small_steps_of_the_clock_hold_nothing_back(set_clock: SetClock) -> None:
    for _ in range(4):
        set_clock.move(30)
    assert set_clock.sweep().expired == 3


def test_a_clock_set_back_has_all_looked_at_anew(set_clock: SetClock, store: FileStore) -> None:
    set_clock.move(-7200)
    report = set_clock.sweep()
    assert (report.examined, report.mended, report.expired) == (3, 3, 0)
    assert set_clock.janitor.reading().full_looks == 2
    set_clock.wait(50)
    assert set_clock.sweep().expired == 0
    set_clock.wait(61)
    assert set_clock.sweep().expired == 3
    assert handles(store) == []
