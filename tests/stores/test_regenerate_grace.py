"""The grace after a regenerate: for some seconds the old id opens the session, to be read only."""

from __future__ import annotations

import errno
import itertools
import math
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from filesession import ConfigurationError, FileStore, MemoryStore, SessionGone
from filesession.errors import StoreUnavailable
from filesession.record import SessionRecord
from filesession.stores.file.journal import sealed, seed_of
from filesession.stores.forwarding import MOST_STEPS
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCalls, failing

GRACE: Final = 5.0

AnyStore = FileStore | MemoryStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture(params=["file", "memory"])
def make(
    request: pytest.FixtureRequest, directory: Path, clock: ManualClock
) -> Callable[..., AnyStore]:
    """Makes a store with that grace."""

    def made(grace: Any = GRACE, **options: Any) -> AnyStore:
        if request.param == "file":
            return FileStore(directory, clock=clock, regenerate_grace=grace, **options)
        return MemoryStore(clock=clock, regenerate_grace=grace, **options)

    return made


@pytest.fixture
def store(make: Callable[..., AnyStore]) -> AnyStore:
    return make()


@pytest.fixture
def old(store: AnyStore) -> SessionRecord:
    """A session as it was loaded before it got its new id."""
    return store.create({"n": 1}, sid="old")


@pytest.fixture
def new(store: AnyStore, old: SessionRecord) -> SessionRecord:
    """The same session under its new id."""
    return store.regenerate("old", {"n": 2}, base=old, new_sid="new")


@pytest.fixture
def disk(directory: Path, clock: ManualClock) -> FileStore:
    """A file store, for what only files can do."""
    return FileStore(directory, clock=clock, regenerate_grace=GRACE)


@pytest.fixture
def note(disk: FileStore, directory: Path) -> Path:
    """Where the note lies of a session that went from "old" to "new"."""
    disk.create({"n": 1}, sid="old")
    disk.regenerate("old", new_sid="new")
    (path,) = (directory / "moved").iterdir()
    return path


def test_the_old_id_leads_to_the_session_as_it_is_now(store: AnyStore, new: SessionRecord) -> None:
    store.save("new", {"n": 3})
    found = store.load("old")
    assert found is not None
    assert (found.data, found.id, found.forwarded) == ({"n": 3}, "old", True)
    current = store.load("new")
    assert current is not None
    assert not current.forwarded
    assert (found.version, found.expires_at) == (current.version, current.expires_at)


def test_it_does_so_to_the_end_of_the_grace(
    store: AnyStore, new: SessionRecord, clock: ManualClock
) -> None:
    clock.advance(GRACE)
    assert store.load("old") is not None
    clock.advance(0.001)
    assert store.load("old") is None
    assert store.delete("old") is False
    assert store.load("new") is not None


@pytest.mark.parametrize("base", ["none", "old", "forwarded"])
def test_by_the_old_id_nothing_is_written_and_nothing_prolonged(
    make: Callable[..., AnyStore], clock: ManualClock, base: str
) -> None:
    store = make(touch_interval=1)
    old = store.create({"n": 1}, sid="old")
    store.regenerate("old", base=old, new_sid="new")
    before = store.load("new")
    given = {"none": None, "old": old, "forwarded": store.load("old")}[base]
    assert (given is None) is (base == "none")
    for after in (0, GRACE):
        clock.advance(after)
        if after or base != "old":  # too soon for one who knows of no new id to be worth a look
            assert store.touch("old", base=given) is False
        with pytest.raises(SessionGone, match="has a new id"):
            store.save("old", {"n": 9}, base=given)
        with pytest.raises(SessionGone):
            store.regenerate("old", base=given)
        with pytest.raises(SessionGone), store.lock("old"):
            pytest.fail("a session was locked by an id it has no more")
    assert store.load("new") == before
    assert len(store) == 1


def test_reading_by_the_old_id_keeps_no_session_alive(
    make: Callable[..., AnyStore], clock: ManualClock
) -> None:
    store = make(idle_timeout=3, touch_interval=0)
    store.create(sid="old")
    store.regenerate("old", new_sid="new")
    clock.advance(3)
    assert store.load("old") is not None
    clock.advance(0.5)
    assert store.load("old") is None
    assert store.load("new") is None


def test_without_a_grace_the_old_id_is_dead_at_once(
    make: Callable[..., AnyStore], directory: Path
) -> None:
    store = make(None)
    store.create(sid="old")
    store.regenerate("old", new_sid="new")
    assert store.load("old") is None
    assert store.delete("old") is False
    assert not (directory / "moved").exists()


def test_a_worker_without_a_grace_follows_no_one_elses(
    disk: FileStore, note: Path, directory: Path, clock: ManualClock
) -> None:
    for other in (FileStore(directory, clock=clock), FileStore.open(directory, clock=clock)):
        assert other.load("old") is None
        assert other.delete("old") is False
    assert disk.load("old") is not None


def test_each_old_id_leads_to_the_latest(store: AnyStore, new: SessionRecord) -> None:
    store.regenerate("new", {"n": 3}, new_sid="newest")
    for sid in ("old", "new"):
        found = store.load(sid)
        assert found is not None
        assert (found.data, found.forwarded) == ({"n": 3}, True)


def test_it_is_not_followed_for_ever(store: AnyStore, old: SessionRecord) -> None:
    sids = ["old", *(f"new {n}" for n in range(MOST_STEPS + 1))]
    for sid, following in itertools.pairwise(sids):
        store.regenerate(sid, new_sid=following)
    assert store.load("old") is None
    assert store.load(sids[1]) is not None


def test_a_logout_by_the_old_id_is_one(store: AnyStore, new: SessionRecord) -> None:
    store.regenerate("new", new_sid="newest")
    assert store.delete("old") is True
    assert [store.load(sid) for sid in ("old", "new", "newest")] == [None] * 3
    assert store.delete("old") is False
    assert len(store) == 0


def test_a_session_that_was_ended_is_led_to_by_none_of_its_ids(
    store: AnyStore, new: SessionRecord
) -> None:
    assert store.delete("new") is True
    assert store.load("old") is None


def test_another_session_that_gets_the_new_id_is_not_led_to(
    store: AnyStore, new: SessionRecord
) -> None:
    store.delete("new")
    store.create({"foreign": True}, sid="new")
    assert store.load("old") is None
    assert store.delete("old") is False
    assert store.load("new") is not None


def test_another_session_that_gets_the_old_id_has_it_for_itself(
    store: AnyStore, new: SessionRecord
) -> None:
    store.create({"foreign": True}, sid="old")
    found = store.load("old")
    assert found is not None
    assert (found.data, found.forwarded) == ({"foreign": True}, False)
    assert store.delete("old") is True
    assert store.load("new") is not None


def test_another_session_that_left_an_id_on_the_way_is_not_led_to(store: AnyStore) -> None:
    store.create({"of": "ada"}, sid="a")
    store.regenerate("a", new_sid="b")
    store.regenerate("b", new_sid="c")
    store.create({"of": "eve"}, sid="b")
    store.regenerate("b", new_sid="d")
    assert store.load("a") is None
    assert store.delete("a") is False
    assert store.load("d") is not None


@pytest.mark.parametrize("back", [0.001, 3600])
def test_a_clock_that_was_set_back_gives_no_longer_grace(
    store: AnyStore, new: SessionRecord, clock: ManualClock, back: float
) -> None:
    clock.advance(-back)
    assert store.load("old") is None
    assert store.delete("old") is False


def test_notes_that_lead_in_a_circle_end(disk: FileStore) -> None:
    disk.create(sid="a")
    disk.regenerate("a", new_sid="b")
    disk.regenerate("b", new_sid="a")
    disk.regenerate("a", new_sid="c")
    disk.regenerate("c", new_sid="b")
    disk.delete("b")
    assert [disk.load(sid) for sid in "abc"] == [None] * 3


@pytest.mark.parametrize("grace", [0, -1, 10.001, math.inf, math.nan, True, "5"])
def test_a_grace_is_a_time_of_at_most_ten_seconds(
    make: Callable[..., AnyStore], grace: object, directory: Path
) -> None:
    with pytest.raises(ConfigurationError, match="regenerate_grace must be"):
        make(grace)
    assert not directory.exists()


def test_a_grace_may_be_a_timedelta(make: Callable[..., AnyStore], clock: ManualClock) -> None:
    store = make(timedelta(seconds=10))
    store.create(sid="old")
    store.regenerate("old")
    clock.advance(10)
    assert store.load("old") is not None


# -- the notes ------------------------------------------------------------------------------------


def test_a_note_names_no_id(note: Path, disk: FileStore) -> None:
    first = disk.create().id
    second = disk.regenerate(first).id
    for path in note.parent.iterdir():
        for sid in (first, second):
            assert sid not in path.name
            assert sid.encode() not in path.read_bytes()


def test_a_note_is_ours_alone(disk: FileStore, directory: Path) -> None:
    before = os.umask(0)
    try:
        disk.create(sid="old")
        disk.regenerate("old")
    finally:
        os.umask(before)
    moved = directory / "moved"
    assert [path.stat().st_mode & 0o777 for path in (moved, *moved.iterdir())] == [0o700, 0o600]


def test_a_note_that_is_not_whole_leads_nowhere(note: Path, disk: FileStore) -> None:
    whole = note.read_bytes()
    for size in range(len(whole)):
        note.write_bytes(whole[:size])
        assert disk.load("old") is None
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        note.write_bytes(flipped)
        assert disk.load("old") is None
    note.write_bytes(whole)
    assert disk.load("old") is not None


def test_a_note_under_another_name_leads_nowhere(
    note: Path, disk: FileStore, directory: Path
) -> None:
    disk.create(sid="another")
    disk.regenerate("another", new_sid="elsewhere")
    (other,) = set(note.parent.iterdir()) - {note}
    note.write_bytes(other.read_bytes())
    assert disk.load("old") is None


@pytest.mark.parametrize(
    "members",
    [
        b"{}",
        b"[]",
        b"no JSON",
        b'{"to":7,"lineage":"ab","at":1.0}',
        b'{"to":"../../secret","lineage":"ab","at":1.0}',
        b'{"to":"%s","lineage":7,"at":1.0}' % (b"a" * 32),
        b'{"to":"%s","lineage":"ab","at":"now"}' % (b"a" * 32),
    ],
)
def test_a_whole_note_of_another_kind_leads_nowhere(
    note: Path, disk: FileStore, members: bytes
) -> None:
    note.write_bytes(sealed(members, seed_of(note.name)))
    assert disk.load("old") is None


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_no_note_leads_nowhere(
    note: Path, disk: FileStore, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "target").write_bytes(note.read_bytes())
    note.unlink()
    if kind == "symlink":
        note.symlink_to(tmp_path / "target")
    elif kind == "fifo":
        os.mkfifo(note)
    else:
        note.mkdir()
    assert disk.load("old") is None
    assert disk.load("new") is not None
    assert kind == "fifo" or "cannot be told" in caplog.text


def test_a_note_that_cannot_be_written_stops_no_regenerate(
    disk: FileStore, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / "moved").write_text("in the way")
    disk.create({"n": 1}, sid="old")
    assert disk.regenerate("old", new_sid="new").data == {"n": 1}
    assert "is given a new id without a grace" in caplog.text
    assert disk.load("old") is None
    assert disk.load("new") is not None


def test_a_session_that_did_not_move_leaves_no_note(disk: FileStore, directory: Path) -> None:
    disk.create({"n": 1}, sid="old")
    error = OSError(errno.EIO, "Input/output error")
    renames = 2  # the note, the session
    with (
        pytest.raises(StoreUnavailable, match="Input/output error"),
        SystemCalls(failing(error, renames), only=("rename",)),
    ):
        disk.regenerate("old", new_sid="new")
    assert list((directory / "moved").iterdir()) == []
    found = disk.load("old")
    assert found is not None
    assert (found.data, found.forwarded) == ({"n": 1}, False)
    assert disk.load("new") is None


def test_a_sweep_removes_the_notes_of_the_past(
    note: Path, disk: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = note.parent / "what.is.this"
    stranger.touch()
    left = note.with_name(f"{note.name}.ab12.tmp")
    left.touch()
    disk.sweep()
    assert note.exists()
    monkeypatch.setattr("filesession.stores.file.reaper.YOUNG", -1.0)
    disk.sweep(dry_run=True)
    assert note.exists()
    report = disk.sweep()
    assert list(note.parent.iterdir()) == [stranger]
    assert (report.leftovers, report.failed) == (0, 0)


def test_no_link_to_notes_is_followed(
    disk: FileStore, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ("a" * 32)).touch()
    (directory / "moved").symlink_to(elsewhere)
    monkeypatch.setattr("filesession.stores.file.reaper.YOUNG", -1.0)
    disk.sweep()
    disk.create(sid="old")
    disk.regenerate("old")
    assert [path.name for path in elsewhere.iterdir()] == ["a" * 32]


def test_a_sweep_of_the_memory_store_forgets_them_too(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock, regenerate_grace=10)
    store.create(sid="old")
    store.regenerate("old")
    clock.advance(10)
    store.sweep()
    assert store.load("old") is not None
    clock.advance(0.001)
    store.sweep(dry_run=True)
    assert store._slots.moved
    store.sweep()
    assert not store._slots.moved
