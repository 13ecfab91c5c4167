"""The wheel: laws as properties, a state machine beside a plain model, memory measured in a child.

The model is a dictionary: of each handle the moments at which it could expire. Where a handle was
filed twice it forgets the earlier moment first, so it never asks for more than the wheel promises.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from filesession.janitor.wheel import FINENESS, NEVER, Wheel, group_of
from filesession.testing.clock import START

DAY = 86_400.0
YEAR = 365.25 * DAY

STEPS = st.one_of(
    st.floats(-3, 3),
    st.floats(-100_000, 100_000),
    st.floats(-100 * YEAR, 100 * YEAR),
    st.floats(-1e14, 1e14),
    st.sampled_from([0.0, 0.5, 1.0, -1.0, 59.0, 1800.0]),
)
"""How far a moment is away from the clock, and how far that is set."""

ODD = st.sampled_from([math.inf, -math.inf, math.nan, float(NEVER), 1e300, -1e300, 5e-324, 0.0])

HANDLES = st.sampled_from(
    [bytes([first, *bytes(14), n]) for first in (0, 3, 4, 127, 255) for n in range(3)]
)
SOME_GROUPS = [0, 1, 31, 63]
"""Those of these handles."""


def handle(number: int) -> bytes:
    """Those of successive numbers lie in different groups."""
    return bytes([number % 256]) + number.to_bytes(15, "big")


def drained(wheel: Wheel, now: float, most: int = 5) -> list[bytes]:
    """All that has come up, in order."""
    found: list[bytes] = []
    while taken := wheel.take(now, most)[0]:
        found += taken
    return found


class Beside(RuleBasedStateMachine):
    """A wheel beside its model: nothing due is missed, nothing is lost or made up."""

    def __init__(self) -> None:
        super().__init__()
        self.wheel = Wheel()
        self.now = START
        self.model: dict[tuple[bytes, bool], list[float]] = {}

    @rule(step=STEPS)
    def set_clock(self, step: float) -> None:
        self.now = max(-1e14, min(1e14, self.now + step))

    @rule(name=HANDLES, away=STEPS, plain=st.booleans())
    def add(self, name: bytes, away: float, plain: bool) -> None:  # noqa: FBT001 - hypothesis's
        self.file(name, self.now + away, plain=plain)

    @rule(name=HANDLES, due=ODD, plain=st.booleans())
    def add_odd(self, name: bytes, due: float, plain: bool) -> None:  # noqa: FBT001 - likewise
        self.file(name, due, plain=plain)

    def file(self, name: bytes, due: float, *, plain: bool) -> None:
        self.wheel.add(name, due, self.now, plain=plain)
        self.model.setdefault((name, plain), []).append(math.inf if math.isnan(due) else due)

    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        self.taken(most)

    @rule(most=st.integers(1, 40))
    def drain(self, most: int) -> None:
        counted, before = self.wheel.due(self.now), len(self.wheel)
        moments = [-math.inf]
        while True:
            first = self.wheel.first()
            if not self.taken(most):
                break
            moments.append(moments[-1] if first is None else first)
        assert moments == sorted(moments), "the longest overdue comes first"
        assert before - len(self.wheel) == counted
        for dues in self.model.values():
            assert not any(due <= self.now - 1 or due < math.floor(self.now) for due in dues)

    def taken(self, most: int) -> bool:
        before = self.entries()
        names, plain = self.wheel.take(self.now, most)
        gone = before - self.entries()
        assert names == list(dict.fromkeys(names))
        assert gone.keys() == set(names), "taken out and given, each once"
        assert gone.total() <= most
        for name in names:
            dues = self.model[name, plain]
            dues.sort()
            del dues[: gone[name]]
        return bool(names)

    @rule(group=st.sampled_from(SOME_GROUPS), data=st.data())
    def keep(self, group: int, data: st.DataObject) -> None:
        names = sorted({name for name, _ in self.model if group_of(name) == group})
        wanted = data.draw(st.sets(st.sampled_from(names))) if names else set()
        self.wheel.keep(group, wanted)
        left = Counter(self.wheel.handles(group))
        for name in names:
            present = [key for key in ((name, False), (name, True)) if self.model.get(key)]
            assert left[name] == (name in wanted and bool(present))
            earliest = min((min(self.model[key]) for key in present), default=math.inf)
            for key in present:
                self.model[key] = []
            if left[name]:
                self.model[name, self.is_plain(name)] = [earliest]

    def is_plain(self, name: bytes) -> bool:
        (key,) = [key for key, bucket in self.wheel._buckets.items() if name in bucket]
        return bool(key % 2)

    def entries(self) -> Counter[bytes]:
        return Counter(name for group in SOME_GROUPS for name in self.wheel.handles(group))

    @rule()
    def clear(self) -> None:
        self.wheel.clear()
        self.model.clear()
        assert self.wheel.first() is None

    @invariant()
    def nothing_is_lost_or_made_up(self) -> None:
        counts: Counter[bytes] = Counter()
        for (name, _), dues in self.model.items():
            counts[name] += len(dues)
        assert self.entries() == +counts
        assert len(self.wheel) == counts.total()

    @invariant()
    def what_is_due_is_counted(self) -> None:
        due = sum(due < math.floor(self.now) for dues in self.model.values() for due in dues)
        assert due <= self.wheel.due(self.now) <= len(self.wheel)


Beside.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestBesideAModel = Beside.TestCase


@given(step=STEPS, now=st.floats(-1e12, 1e12))
@settings(max_examples=300, deadline=None)
def test_an_entry_comes_up_no_later_than_a_second_after_its_moment_and_not_much_too_early(
    step: float, now: float
) -> None:
    wheel, due = Wheel(), now + step
    wheel.add(handle(7), due, now, plain=True)
    moment = wheel.first()
    assert moment is not None
    assert due - abs(due - now) / FINENESS - 1 <= moment <= due + 1
    if due >= now:
        assert moment > now, "what is not due does not come up at once"
    else:
        assert wheel.due(now) == 1, "what is overdue is counted"


@pytest.mark.parametrize("due", [math.inf, math.nan, 1e300, float(NEVER)])
def test_what_never_expires_never_comes_up_and_is_an_entry_all_the_same(due: float) -> None:
    wheel = Wheel()
    wheel.add(handle(1), due, START, plain=False)
    assert drained(wheel, START + 10_000 * YEAR) == []
    assert (len(wheel), wheel.first(), wheel.due(1e15)) == (1, None, 0)
    assert wheel.handles(group_of(handle(1))) == [handle(1)]
    wheel.add(handle(2), START, START, plain=False)
    assert wheel.first() == math.floor(START) + 1


def test_what_was_due_at_any_time_comes_first() -> None:
    wheel = Wheel()
    for number, due in enumerate([START - 5, 0.0, -math.inf, START - 70]):
        wheel.add(handle(number), due, START, plain=False)
    assert wheel.first() is None
    assert drained(wheel, START) == [handle(number) for number in (2, 1, 3, 0)]


@given(aways=st.lists(st.floats(0.001, 30), max_size=40), most=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_the_longest_overdue_comes_first_to_the_second(aways: list[float], most: int) -> None:
    wheel = Wheel()
    for number, away in enumerate(aways):
        wheel.add(handle(number), START - away, START, plain=True)
    assert wheel.due(START) == len(aways)
    seconds = [
        math.floor(START - aways[int.from_bytes(each[1:], "big")])
        for each in drained(wheel, START, most)
    ]
    assert seconds == sorted(math.floor(START - away) for away in aways)


@given(away=st.floats(0, 3), most=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_what_is_filed_anew_as_due_now_or_later_does_not_come_up_while_the_clock_stands(
    away: float, most: int
) -> None:
    wheel = Wheel()
    for number in range(9):
        wheel.add(handle(number), START - 1, START, plain=True)
    rounds = 0
    while taken := wheel.take(START, most)[0]:
        rounds += 1
        assert rounds <= 9
        for each in taken:
            wheel.add(each, START + away, START, plain=True)
    assert len(wheel) == 9


@pytest.mark.parametrize("now", [float(math.floor(START)), -12.0, 0.0])
def test_a_whole_second_is_no_exception(now: float) -> None:
    wheel = Wheel()
    wheel.add(handle(1), now, now, plain=True)
    assert drained(wheel, now) == [], "a moment equal to the deadline is still alive"
    assert drained(wheel, now + 1) == [handle(1)]


def test_plain_entries_and_others_are_given_back_as_they_were_filed() -> None:
    wheel = Wheel()
    for number in range(40):
        wheel.add(handle(number), START - 10, START, plain=number % 3 == 0)
    told: dict[bytes, bool] = {}
    while (taken := wheel.take(START, 4))[0]:
        told.update(dict.fromkeys(taken[0], taken[1]))
    assert told == {handle(number): number % 3 == 0 for number in range(40)}


def test_no_more_are_taken_than_are_wanted_and_the_rest_stays() -> None:
    wheel = Wheel()
    for number in range(100):
        wheel.add(handle(256 * number), START - 10, START, plain=True)
    sizes = [len(wheel.take(START, 30)[0]) for _ in range(4)]
    assert sizes == [30, 30, 30, 10]
    assert len(wheel) == 0


def test_one_that_was_filed_twice_comes_up_twice_but_once_of_one_bucket() -> None:
    wheel = Wheel()
    for due in (START - 10, START - 10, START - 5):
        wheel.add(handle(1), due, START, plain=True)
    assert len(wheel) == 3
    assert [wheel.take(START, 9)[0] for _ in range(3)] == [[handle(1)], [handle(1)], []]


def test_the_earliest_of_those_that_are_filed_twice_is_kept() -> None:
    wheel = Wheel()
    for due in (START + 500, START - 5, math.inf):
        wheel.add(handle(1), due, START, plain=due < START)
    wheel.keep(group_of(handle(1)), [handle(1)])
    assert len(wheel) == 1
    assert wheel.take(START, 9) == ([handle(1)], True)


def test_to_keep_some_of_a_group_touches_no_other_group() -> None:
    wheel = Wheel()
    for number in range(512):
        wheel.add(handle(number), START + number, START, plain=False)
    wheel.keep(5, [])
    assert wheel.handles(5) == []
    assert len(wheel) == 512 - 8
    assert set(drained(wheel, START + YEAR)) == {
        handle(number) for number in range(512) if group_of(handle(number)) != 5
    }


def looks_at(life: float, began: float) -> int:
    """How often a session that nobody touches is looked at, with a sweep every minute."""
    wheel, now, due, looks = Wheel(), began, began + life, 0
    wheel.add(handle(1), due, now, plain=True)
    while now <= due:
        first = wheel.first()
        assert first is not None
        now = math.ceil(first / 60) * 60
        assert wheel.take(now, 1)[0] == [handle(1)]
        wheel.add(handle(1), due, now, plain=True)
        looks += 1
    return looks


@pytest.mark.parametrize(("life", "usual"), [(1980.0, 2), (30 * DAY, 4)])
def test_a_session_that_nobody_touches_is_looked_at_a_few_times(life: float, usual: int) -> None:
    counts = [looks_at(life, START + 17.3 * number) for number in range(200)]
    assert max(counts) <= usual + 1
    assert sum(counts) <= usual * len(counts)


def test_there_are_few_buckets_however_long_sessions_live() -> None:
    wheel, octaves = Wheel(), 31
    for number in range(50_000):  # from a second to 68 years, in the same number each octave
        away = 2.0 ** (octaves * number / 50_000)
        wheel.add(handle(4 * (number % 4)), START + away, START, plain=True)
    assert len(wheel._buckets) < octaves * FINENESS * 4


MILLION = """
import os, random
from filesession.janitor.wheel import Wheel

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

wheel, now, moments = Wheel(), 1_760_000_000.5, random.Random(4)
before = resident()
for _ in range(1_000_000):
    wheel.add(os.urandom(16), now + 1980 * moments.random(), now, plain=True)
print(resident() - before, len(wheel), len(wheel._buckets))
"""


def test_a_million_sessions_of_half_an_hour_take_less_than_25_mib() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MILLION], check=True, capture_output=True, text=True, timeout=60
    )
    kib, entries, buckets = map(int, ran.stdout.split())
    assert entries == 1_000_000
    assert kib < 25 * 1024, (kib, buckets)
