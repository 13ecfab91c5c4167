"""A clock that is set back or forward: nobody is logged out before time, and nobody comes back.

At the end random steps are taken, and what both stores answer is held against the true time.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesession.errors import ConflictError, SessionExists, SessionGone
from filesession.record import SessionRecord
from filesession.stores import FileStore, MemoryStore
from filesession.testing import ManualClock
from filesession.testing.base import in_thread

if TYPE_CHECKING:
    from tests.stores.conftest import Faults, Raw

AnyStore: TypeAlias = FileStore | MemoryStore
Make: TypeAlias = Callable[..., AnyStore]

HOUR = 3600.0
YEAR = 365 * 86400.0


@pytest.fixture(params=["file", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Make:
    def made(**timeouts: Any) -> AnyStore:
        if request.param == "file":
            return FileStore(tmp_path / "sessions", clock=clock, **timeouts)
        return MemoryStore(clock=clock, **timeouts)

    return made


@pytest.mark.parametrize("back", [HOUR, 10 * YEAR], ids=["an hour", "ten years"])
class TestBack:
    def test_a_session_in_use_lives_on(self, make: Make, clock: ManualClock, back: float) -> None:
        store = make()
        sid = store.create({"n": 1}).id
        clock.advance(3 * HOUR)
        again = store.create({"n": 2}).id
        clock.advance(100)
        store.touch(again)
        clock.advance(-back)
        for _ in range(5):
            record = store.load(again)
            assert record is not None
            assert record.accessed_at <= clock.now
            assert store.touch(again, base=record) is True
            clock.advance(1700)
        assert store.save(again, {"n": 3}).data == {"n": 3}
        assert (store.load(sid) is None) is (back == HOUR)

    def test_what_was_refused_as_expired_stays_refused(
        self, make: Make, clock: ManualClock, back: float
    ) -> None:
        store = make()
        base = store.create({"n": 1}, sid="chosen")
        clock.advance(1900)
        assert store.load("chosen") is None
        clock.advance(-back)
        assert store.load("chosen") is None
        assert store.touch("chosen") is False
        with pytest.raises(SessionGone):
            store.save("chosen", {"n": 2}, base=base)
        with pytest.raises(SessionGone):
            store.regenerate("chosen", base=base)
        with pytest.raises(SessionGone):
            store.lock("chosen").acquire()
        assert [info.accessed_at <= clock.now for info in store.scan()] == [True]
        assert store.sweep().expired == 1
        assert len(store) == 0

    @pytest.mark.parametrize("verb", ["save", "touch", "regenerate", "lock"])
    def test_what_another_verb_refused_stays_refused_as_well(
        self, make: Make, clock: ManualClock, back: float, verb: str
    ) -> None:
        store = make()
        base = store.create({"n": 1}, sid="chosen")
        clock.advance(1900)
        if verb == "touch":
            assert store.touch("chosen", base=base) is False
        else:
            with pytest.raises(SessionGone):
                refusing(store, verb, base)
        clock.advance(-back)
        assert store.load("chosen") is None
        assert len(store) == 1

    def test_its_id_is_free_again(self, make: Make, clock: ManualClock, back: float) -> None:
        store = make()
        store.create({"n": 1}, sid="chosen")
        clock.advance(1900)
        assert store.load("chosen") is None
        clock.advance(-back)
        store.create({"n": 2}, sid="chosen")
        record = store.load("chosen")
        assert record is not None
        assert record.data == {"n": 2}
        with pytest.raises(SessionExists):
            store.create(sid="chosen")

    def test_the_absolute_timeout_counts_on(
        self, make: Make, clock: ManualClock, back: float
    ) -> None:
        store = make(idle_timeout=None, absolute_timeout=5 * HOUR)
        sid = store.create({"n": 1}).id
        clock.advance(HOUR + 1)
        store.save(sid, {"n": 2})
        clock.advance(-back)
        store.save(sid, {"n": 3})
        clock.advance(5 * HOUR + 1)
        assert store.load(sid) is None


def test_a_sweep_that_dates_a_session_anew_brings_none_back(make: Make, clock: ManualClock) -> None:
    store = make()
    sid = store.create({"n": 1}).id
    clock.advance(-2 * HOUR)
    store.touch(sid)
    clock.advance(1870)  # over for a reader, not yet due for a sweep
    assert store.sweep().mended == 1  # it was created in the future
    assert store.load(sid) is None


def test_forward_a_day_and_back_costs_nobody_who_was_not_refused(
    make: Make, clock: ManualClock
) -> None:
    store = make(absolute_timeout=5 * HOUR)
    sid = store.create({"n": 1}).id
    refused = store.create({"n": 2}).id
    clock.advance(86_400)
    made_meanwhile = store.create({"n": 3}).id
    assert store.load(refused) is None
    clock.advance(-86_400)
    assert store.load(sid) is not None
    assert store.load(refused) is None
    assert store.load(made_meanwhile) is not None


def refusing(store: AnyStore, verb: str, base: SessionRecord) -> object:
    """Call a verb that needs the session to be alive."""
    if verb == "save":
        return store.save(base.id, {"n": 2}, base=base)
    return store.regenerate(base.id) if verb == "regenerate" else store.lock(base.id).acquire()


class TestSameTick:
    """The clock stands still, as it does between two ticks: no time tells two changes apart."""

    def test_a_thousand_saves_are_a_thousand_versions_each_seen(self, make: Make) -> None:
        store = make()
        base = store.create({"n": 0}, sid="chosen")
        for n in range(1, 1001):
            saved = store.save("chosen", {"n": n}, base=base)
            assert (saved.version, saved.data) == (n + 1, {"n": n})
            base = store.load("chosen") or pytest.fail("it is gone")
            assert base == saved

    def test_changes_are_merged_by_what_was_loaded_and_not_by_time(self, make: Make) -> None:
        store = make()
        base = store.create({"a": 1, "b": 1}, sid="chosen")
        store.save("chosen", {"a": 2, "b": 1}, base=base)
        assert store.save("chosen", {"a": 1, "b": 2}, base=base).data == {"a": 2, "b": 2}
        with pytest.raises(ConflictError):
            store.save("chosen", {"a": 3, "b": 1}, base=base, conflict="error")

    def test_a_touch_by_one_who_loaded_before_a_save_is_none_that_undoes_it(
        self, make: Make, clock: ManualClock
    ) -> None:
        store = make(touch_interval=0)
        base = store.create({"n": 1}, sid="chosen")
        saved = store.save("chosen", {"n": 2}, base=base)
        assert store.touch("chosen", base=base) is True
        assert store.load("chosen") == saved
        store.delete("chosen")
        clock.advance(1)
        store.create({"n": 3}, sid="chosen")
        clock.advance(1)
        assert store.touch("chosen", base=base) is False  # another session of the same id

    def test_many_made_at_once_end_at_once(self, make: Make, clock: ManualClock) -> None:
        store = make()
        ids = [store.create({"n": n}).id for n in range(100)]
        assert len(set(ids)) == 100
        clock.advance(1860)
        assert all(store.load(sid) is not None for sid in ids)
        clock.advance(61)
        assert store.sweep().expired == 100


class TestWrittenDown:
    """How a file store keeps in mind that it refused a session."""

    def test_it_is_a_line_in_its_file_and_no_activity(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        before = path.stat().st_mtime
        clock.advance(1900)
        for _ in range(2):
            assert store.load("chosen") is None
        first, second = raw.lines("chosen")
        assert second == first | {"version": 2, "ended": True}
        assert path.stat().st_mtime == before

    @pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
    def test_where_nothing_can_be_written_it_is_refused_all_the_same(  # noqa: PLR0917 - fixtures
        self,
        store: FileStore,
        raw: Raw,
        clock: ManualClock,
        faults: Faults,
        caplog: pytest.LogCaptureFixture,
        code: int,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        store.create({"n": 1}, sid="chosen")
        clock.advance(1900)
        with faults.failing(OSError(code, os.strerror(code)), only=("write",)):
            assert store.load("chosen") is None
        assert os.strerror(code) in caplog.text
        assert len(raw.lines("chosen")) == 1

    def test_one_that_is_in_use_is_left_to_who_uses_it(
        self, make: Make, clock: ManualClock
    ) -> None:
        store = make()
        sid = store.create({"n": 1}).id
        lock = store.lock(sid)
        in_thread(lock.acquire)
        clock.advance(1900)
        assert store.load(sid) is None
        clock.advance(-1900)
        assert store.load(sid) is not None
        lock.release()

    def test_one_saved_meanwhile_is_not_ended(
        self, store: FileStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sid = store.create({"n": 1}).id
        clock.advance(1900)
        end = store._access.end

        def saved_meanwhile(handle: str) -> None:
            clock.advance(-1900)
            store.save(sid, {"n": 2})
            end(handle)

        monkeypatch.setattr(type(store._access), "end", lambda _, handle: saved_meanwhile(handle))
        assert store.load(sid) is None
        monkeypatch.undo()
        record = store.load(sid)
        assert record is not None
        assert record.data == {"n": 2}

    def test_one_deleted_meanwhile_is_not_made_anew(
        self, store: FileStore, raw: Raw, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sid = store.create({"n": 1}).id
        clock.advance(1900)
        end = store._access.end

        def deleted_meanwhile(handle: str) -> None:
            store.delete(sid)
            end(handle)

        monkeypatch.setattr(type(store._access), "end", lambda _, handle: deleted_meanwhile(handle))
        assert store.load(sid) is None
        assert raw.files() == []


IDLE: Final = 600.0
SLACK: Final = 30.0
ABSOLUTE: Final = 3000.0
APART: Final = 60.0
"""Seconds. What is ahead by less a sweep leaves: two machines' clocks may differ by that."""

IDS: Final = ("one", "two", "three")

# Steps to each side of every deadline, and enough of those that end a session or take it back.
durations = st.sampled_from([0.5, 29.5, 31.0, 300.0, 599.0, 601.0, 631.0, 640.0, 640.0, 1500.0])
steps_back = st.sampled_from([1.0, 59.0, 61.0, 600.0, 700.0, HOUR, HOUR, 86_400.0, 10 * YEAR])
steps_forward = st.sampled_from([1.0, 61.0, 600.0, HOUR, 86_400.0])
verbs = st.sampled_from(["load", "save", "touch", "touch as loaded", "regenerate", "create"])
moves = st.one_of(
    st.tuples(verbs, st.sampled_from(["one", "one", "two", "three"])),
    st.tuples(verbs, st.just("one")),
    st.tuples(st.just("pass"), durations),
    st.tuples(st.just("back"), steps_back),
    st.tuples(st.sampled_from(["forward", "back"]), steps_forward),
    st.tuples(st.sampled_from(["sweep", "look and sweep"]), st.none()),
)


class Moment(NamedTuple):
    """True time, and by how much the clock was set forward and back until then, in seconds."""

    true: float = 0.0
    forward: float = 0.0
    back: float = 0.0

    def since(self, earlier: Moment) -> float:
        """What has passed by a clock that was never set back."""
        return self.true - earlier.true + self.forward - earlier.forward


@dataclass
class Known:
    """What is true of a session.

    Attributes:
        made: when it was created.
        used: the last activity.
        aged: when it last was certain that the store dates its creation in no future, and by how
            many seconds it might all the same.
        marked: likewise for its last activity.
        refused: a caller was told that it is gone.
    """

    made: Moment
    used: Moment
    aged: tuple[Moment, float]
    marked: tuple[Moment, float]
    refused: bool = False


@dataclass
class Told:
    """A store, a clock that is set now and then, and what the store may say by the true time."""

    store: AnyStore
    clock: ManualClock
    now: Moment = field(default_factory=Moment)
    known: dict[str, Known] = field(default_factory=dict)
    loaded: dict[str, SessionRecord] = field(default_factory=dict)
    refusals: int = 0

    def move(self, what: str, by: Any) -> None:
        if what in {"pass", "back", "forward"}:
            true, forward, back = self.now
            self.clock.advance(-by if what == "back" else by)
            self.now = Moment(
                true + by * (what == "pass"),
                forward + by * (what == "forward"),
                back + by * (what == "back"),
            )
        elif by is None:
            self.sweep(look=what != "sweep")
        else:
            getattr(self, what.replace(" ", "_"))(by)

    def served(self, sid: str) -> Known:
        """The session was there: it was not refused before, and is not past its time."""
        known = self.known[sid]
        assert not known.refused
        late = self.now.back - known.made.back  # what is set back is not told from time not passed
        assert self.now.since(known.made) <= ABSOLUTE + late
        assert self.behind(known.aged) <= ABSOLUTE
        assert min(self.behind(known.marked), self.behind((known.used, 0.0))) <= IDLE + SLACK
        return known

    def gone(self, sid: str) -> None:
        """The session was not there: it is past its time, or was refused before."""
        known = self.known.get(sid)
        if known is None or known.refused:
            return
        idle, age = self.now.since(known.used), self.now.since(known.made)
        assert idle > IDLE or age > ABSOLUTE
        known.refused = True
        self.refusals += 1

    def load(self, sid: str) -> None:
        record = self.store.load(sid)
        if record is None:
            self.gone(sid)
        else:
            self.served(sid)
            self.loaded[sid] = record

    def save(self, sid: str) -> None:
        try:
            self.loaded[sid] = self.store.save(sid, {"n": self.now.true})
        except SessionGone:
            self.gone(sid)
        else:
            known = self.served(sid)
            known.used = self.now
            known.aged = known.marked = self.now, 0.0

    def touch(self, sid: str) -> None:
        if self.store.touch(sid):
            known = self.served(sid)
            known.used, known.marked = self.now, (self.now, 0.0)
        else:
            self.gone(sid)

    def touch_as_loaded(self, sid: str) -> None:
        base = self.loaded.get(sid)
        if base is not None and self.store.touch(sid, base=base):
            self.known[sid].used = self.now
        elif base is not None:
            self.gone(sid)

    def regenerate(self, sid: str) -> None:
        target = next((one for one in IDS if one not in self.known), None)
        if target is None or sid not in self.known:
            return
        try:
            self.loaded[target] = self.store.regenerate(sid, new_sid=target)
        except SessionGone:
            self.gone(sid)
        else:
            known = self.served(sid)
            known.used = self.now
            known.aged = known.marked = self.now, 0.0
            self.known[target] = self.known.pop(sid)
            self.loaded.pop(sid, None)
            assert self.store.load(sid) is None

    def create(self, sid: str) -> None:
        try:
            self.loaded[sid] = self.store.create({"n": self.now.true}, sid=sid)
        except SessionExists:
            self.served(sid)
        else:
            self.gone(sid)
            self.known[sid] = Known(self.now, self.now, (self.now, 0.0), (self.now, 0.0))

    def sweep(self, *, look: bool) -> None:
        """With a look first: what a reader gets, it gets after the sweep as well."""
        for sid in self.known if look else ():
            self.load(sid)
        self.store.sweep()
        for known in self.known.values():
            known.aged = max(known.aged, (self.now, APART), key=self.behind)
            known.marked = max(known.marked, (self.now, APART), key=self.behind)
        live = [sid for sid, known in self.known.items() if look and not known.refused]
        assert [sid for sid in live if self.store.load(sid) is None] == []

    def behind(self, dated: tuple[Moment, float]) -> float:
        """How old it is at least by the store's clock, when it was dated then, or ahead by that."""
        moment, ahead = dated
        return self.now.since(moment) - (self.now.back - moment.back) - ahead


@pytest.mark.parametrize("kind", ["file", "memory"])
@settings(max_examples=120, deadline=None)
@given(walk=st.lists(moves, min_size=10, max_size=40))
def test_whatever_the_clock_does_no_session_ends_early_lives_too_long_or_comes_back(
    kind: str, walk: list[tuple[str, Any]]
) -> None:
    clock = ManualClock()
    limits: dict[str, Any] = {"idle_timeout": IDLE, "absolute_timeout": ABSOLUTE, "clock": clock}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, "sessions")
        store = MemoryStore(**limits) if kind == "memory" else FileStore(directory, **limits)
        told = Told(store, clock)
        told.create("one")
        for what, by in walk:
            told.move(what, by)
        for sid in IDS:
            told.load(sid)
