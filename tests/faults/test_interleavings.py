"""Any two calls for one session, in every order their system calls take: as one after the other.

What the two returned or raised, and what is stored in the end, must be what ``MemoryStore`` gives
for one of the two orders. So no update is lost, and nothing that was ended comes back, wherever one
of the calls is interrupted by the other.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from filesession.record import SessionRecord, SweepReport
from filesession.stores import FileStore, MemoryStore
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing import ManualClock
from filesession.testing.interleaving import interleavings

AnyStore: TypeAlias = FileStore | MemoryStore

IDLE: Final = 1000
OLD: Final = {"kept": 0, "n": 0}

FILLING: Final = {"text": "x" * (LONGEST_JOURNAL - 600)}
"""Makes the journal so long that the next save replaces the file."""

_numbers = itertools.count()


@dataclass
class Site:
    """A store with one session that two requests have loaded.

    Attributes:
        store: where it is.
        clock: the store's.
        sid: the session's id.
        base: what both loaded.
        others: ids that the session may get.
    """

    store: AnyStore
    clock: ManualClock
    sid: str
    base: SessionRecord
    others: list[str] = field(default_factory=list)

    @classmethod
    def made(cls, store: AnyStore, clock: ManualClock, *, filled: bool) -> Site:
        sid = f"sid-{next(_numbers)}"
        base = store.create(OLD, sid=sid)
        if filled:
            store.save(sid, FILLING)
            base = store.save(sid, OLD)
        clock.advance(IDLE / 2)  # activity from here on is worth writing down
        return cls(store, clock, sid, base)

    def new_id(self, who: str) -> str:
        self.others.append(f"{self.sid}-{who}")
        return self.others[-1]

    def state(self) -> list[Any]:
        """What is stored in the end, by every id."""
        found = [self.store.load(sid) for sid in (self.sid, *sorted(self.others))]
        return [None if record is None else (record.data, record.version) for record in found]


Call: TypeAlias = Callable[[Site, str], Any]
"""A request's part: what it does at the site, and who it is."""


def save(site: Site, who: str) -> Any:
    return site.store.save(site.sid, OLD | {who: 1}, base=site.base)


def save_over(site: Site, who: str) -> Any:
    return site.store.save(site.sid, {who: 1})


def save_or_fail(site: Site, who: str) -> Any:
    return site.store.save(site.sid, OLD | {who: 1}, base=site.base, conflict="error")


def count(site: Site, who: str) -> Any:
    with site.store.lock(site.sid) as record:
        return site.store.save(site.sid, record.data | {"n": record.data["n"] + 1}, base=record)


def touch(site: Site, who: str) -> Any:
    return site.store.touch(site.sid, base=site.base)


def touch_unseen(site: Site, who: str) -> Any:
    return site.store.touch(site.sid)


def regenerate(site: Site, who: str) -> Any:
    new = site.new_id(who)
    return site.store.regenerate(site.sid, OLD | {who: 1}, base=site.base, new_sid=new)


def destroy(site: Site, who: str) -> Any:
    return site.store.delete(site.sid)


def expire(site: Site, who: str) -> Any:
    site.clock.advance(10 * IDLE)


def sweep(site: Site, who: str) -> Any:
    return site.store.sweep()


def load(site: Site, who: str) -> Any:
    return site.store.load(site.sid)


def make_anew(site: Site, who: str) -> Any:
    return site.store.create({who: "new"}, sid=site.sid)


CALLS: Final[list[Call]] = [
    *(save, save_over, save_or_fail, count, touch, touch_unseen, regenerate, destroy, expire),
    *(sweep, load, make_anew),
]

ALL: Final = os.environ.get("FILESESSION_FAULTS") == "all"
"""Take the turn twice from a thread in every pair, which takes a minute."""

PAIRS: Final = list(itertools.combinations_with_replacement(CALLS, 2))


def told(outcome: Any) -> Any:
    """What a caller gets to know, comparable between stores."""
    if isinstance(outcome, Exception):
        return type(outcome).__name__
    if isinstance(outcome, SessionRecord):
        return outcome.data, outcome.version
    if isinstance(outcome, SweepReport):
        return outcome.expired, outcome.busy, outcome.corrupt
    return outcome


def attempted(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - it is an outcome like any other
        return error


def in_turn(
    first: Call, second: Call, *, filled: bool, reverse: bool, grace: float | None = None
) -> Any:
    """The outcomes and the end when one comes after the other, by the model."""
    clock = ManualClock()
    store = MemoryStore(IDLE, clock=clock, regenerate_grace=grace)
    site = Site.made(store, clock, filled=filled)
    calls = [lambda: first(site, "a"), lambda: second(site, "b")]
    if reverse:
        outcomes = [attempted(call) for call in calls[::-1]][::-1]
    else:
        outcomes = [attempted(call) for call in calls]
    return [told(outcome) for outcome in outcomes], site.state(), len(site.store)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interleavings") / "sessions"


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the disk when is tested elsewhere; here it would only take time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)


@pytest.fixture
def sites(directory: Path, quick_disk: None) -> Iterator[Callable[..., Site]]:
    def made(filled: bool, grace: float | None = None) -> Site:  # noqa: FBT001 - a row of the table
        clock = ManualClock()
        store = FileStore(
            directory, idle_timeout=IDLE, clock=clock, shard_depth=0, regenerate_grace=grace
        )
        store.clear()
        for note in (directory / "moved").glob("*"):
            note.unlink()
        return Site.made(store, clock, filled=filled)

    yield made
    FileStore(directory).clear()


@pytest.mark.parametrize("filled", [False, True], ids=["append", "replace"])
@pytest.mark.parametrize(
    ("first", "second"), PAIRS, ids=[f"{one.__name__}-{two.__name__}" for one, two in PAIRS]
)
def test_two_calls_at_once_are_one_after_the_other(
    sites: Callable[..., Site],
    directory: Path,
    first: Call,
    second: Call,
    filled: bool,  # noqa: FBT001 - a row of the table
) -> None:
    allowed = [in_turn(first, second, filled=filled, reverse=reverse) for reverse in (False, True)]
    latest: list[Site] = []

    def calls() -> list[Callable[[], Any]]:
        site = sites(filled)
        latest[:] = [site]
        return [lambda: first(site, "a"), lambda: second(site, "b")]

    runs = 0
    fateful = {first, second} <= {save, regenerate, destroy} and not filled
    for run in interleavings(calls, preemptions=2 if fateful or ALL else 1):
        runs += 1
        site = latest[0]
        outcomes = [told(outcome) for outcome in run.outcomes]
        assert (outcomes, site.state(), len(site.store)) in allowed, [
            choice for choice, _, _ in run.taken
        ]
        assert not (directory / "corrupt").exists()
    assert runs > 1


@pytest.mark.parametrize("other", CALLS, ids=[call.__name__ for call in CALLS])
def test_beside_a_regenerate_with_a_grace_too(
    sites: Callable[..., Site], directory: Path, other: Call
) -> None:
    sites(filled=False)
    (directory / "moved").mkdir(exist_ok=True)  # for the calls to be the same each time
    allowed = [
        in_turn(regenerate, other, filled=False, reverse=reverse, grace=10)
        for reverse in (False, True)
    ]
    latest: list[Site] = []

    def calls() -> list[Callable[[], Any]]:
        site = sites(filled=False, grace=10)
        latest[:] = [site]
        return [lambda: regenerate(site, "a"), lambda: other(site, "b")]

    for run in interleavings(calls, preemptions=1):
        outcomes = [told(outcome) for outcome in run.outcomes]
        state = outcomes, latest[0].state(), len(latest[0].store)
        assert state in allowed, [choice for choice, _, _ in run.taken]
