"""Notes of sessions that are to end sooner: which saves leave one, and who takes it away.

The directory of the notes is read by hand.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.errors import StoreUnavailable
from filesession.lifetime import UNSET, Lifetime
from filesession.stores import FileStore, MemoryStore
from filesession.stores.entry import Entry
from filesession.stores.file import sooner
from filesession.stores.file.layout import Layout
from filesession.stores.file.sooner import is_brought_forward, note, noted
from filesession.testing import ManualClock
from filesession.testing.base import in_thread
from filesession.testing.faults import SystemCall, SystemCalls, each, failing

if TYPE_CHECKING:
    from tests.stores.conftest import Raw

SID: Final = "chosen"
HANDLES: Final = [f"{n:032x}" for n in range(20)]


@pytest.fixture
def notes(directory: Path) -> Path:
    """Where they lie."""
    return directory / "sooner"


@pytest.fixture
def layout(store: FileStore, directory: Path) -> Layout:
    return Layout(str(directory), 1)


def names(notes: Path) -> list[str]:
    return sorted(os.listdir(notes)) if notes.exists() else []


SHORTER: Final[list[tuple[Any, Any]]] = [
    (100, 99),
    (100, timedelta(seconds=99)),
    (math.inf, 10**9),
    (None, 1799),
    (1801, None),
    (math.inf, None),
]
LONGER: Final[list[tuple[Any, Any]]] = [
    (100, 101),
    (100, math.inf),
    (100, 100),
    (100, UNSET),
    (math.inf, math.inf),
    (math.inf, UNSET),
    (None, UNSET),
    (None, None),
    (None, 1800),
    (None, 1801),
    (None, math.inf),
    (1800, None),
    (1799, None),
]
"""The session's own timeout, and that of the save; the store's is 1800."""


class TestWhich:
    @pytest.mark.parametrize(("before", "after"), SHORTER, ids=repr)
    def test_a_save_with_a_shorter_timeout_leaves_one(
        self, store: FileStore, raw: Raw, notes: Path, before: Any, after: Any
    ) -> None:
        store.create(sid=SID, idle_timeout=before)
        assert names(notes) == []
        store.save(SID, {"n": 1}, idle_timeout=after)
        assert names(notes) == [raw.name(SID)]
        path = notes / raw.name(SID)
        assert (raw.mode(notes), raw.mode(path)) == (0o700, 0o600)
        assert path.read_bytes() == b""

    @pytest.mark.parametrize(("before", "after"), LONGER, ids=repr)
    def test_no_other_save_leaves_one(
        self, store: FileStore, notes: Path, before: Any, after: Any
    ) -> None:
        store.create(sid=SID, idle_timeout=before)
        store.save(SID, {"n": 1}, idle_timeout=after)
        store.save(SID, {"n": 2}, cookie={"secure": True})
        assert not notes.exists()

    def test_one_that_replaces_the_file_leaves_one_too(
        self, store: FileStore, raw: Raw, notes: Path
    ) -> None:
        store.create(sid=SID)
        inode = raw.path(SID).stat().st_ino
        for _ in range(2):
            store.save(SID, {"text": "x" * 8200})
        store.save(SID, {}, idle_timeout=60)
        assert raw.path(SID).stat().st_ino != inode
        assert names(notes) == [raw.name(SID)]

    def test_one_that_is_refused_leaves_none(
        self, store: FileStore, notes: Path, clock: ManualClock
    ) -> None:
        store.create(sid=SID)
        clock.advance(10_000)
        with pytest.raises(LookupError):
            store.save(SID, {}, idle_timeout=60)
        assert not notes.exists()

    def test_nothing_but_a_save_leaves_one(
        self, store: FileStore, notes: Path, clock: ManualClock
    ) -> None:
        store.create(sid=SID, idle_timeout=60)
        clock.advance(30)
        store.touch(SID)
        store.regenerate(SID, new_sid="new", idle_timeout=10)  # its new name is an event
        store.delete("new")
        assert not notes.exists()

    def test_a_store_in_memory_does_nothing_of_the_kind(
        self, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store = MemoryStore(clock=clock)
        store.create(sid=SID)
        with SystemCalls() as calls:
            store.save(SID, {}, idle_timeout=1)
        assert calls.names() == []
        assert list(tmp_path.iterdir()) == []

    @given(
        store=st.builds(Lifetime, st.none() | st.integers(1, 5)),
        one=st.sampled_from([UNSET, None, 1.0, 2, 3.0, 4]),
        other=st.sampled_from([UNSET, None, 1, 2.0, 3, 4.0]),
    )
    def test_is_brought_forward_where_it_would_be_due_earlier(
        self, store: Lifetime, one: Any, other: Any
    ) -> None:
        before, after = (Entry(1, "aa", 0.0, 0.0, b"{}", idle) for idle in (one, other))
        old, new = (entry.due_at(store, 100.0, 100.0) for entry in (before, after))
        earlier = (math.inf if new is None else new) < (math.inf if old is None else old)
        assert is_brought_forward(before, after, store) is earlier


class TestNote:
    def test_to_note_twice_is_to_note_once(self, layout: Layout, notes: Path) -> None:
        note(layout, HANDLES[0])
        note(layout, HANDLES[0])
        assert names(notes) == HANDLES[:1]

    def test_the_disk_is_not_waited_for(self, layout: Layout) -> None:
        with SystemCalls() as calls:
            note(layout, HANDLES[0])
        assert not {"fsync", "fdatasync"} & set(calls.names())

    @pytest.mark.parametrize("what", ["symlink", "dangling", "directory", "fifo"])
    @pytest.mark.usefixtures("no_descriptor_leaks")
    def test_what_lies_in_its_place_is_let_be(
        self, layout: Layout, notes: Path, tmp_path: Path, what: str
    ) -> None:
        precious = tmp_path / "precious"
        if what != "dangling":
            precious.write_text("precious")
        notes.mkdir(0o700)
        path = notes / HANDLES[0]
        if what in {"symlink", "dangling"}:
            path.symlink_to(precious)
        elif what == "directory":
            path.mkdir()
        else:
            os.mkfifo(path)
        before = path.lstat()
        note(layout, HANDLES[0])
        assert path.lstat() == before
        assert precious.exists() is (what != "dangling")
        assert what == "dangling" or precious.read_text() == "precious"

    @pytest.mark.parametrize("what", ["symlink", "file"])
    def test_what_lies_in_the_directorys_place_is_let_be(
        self, store: FileStore, layout: Layout, notes: Path, tmp_path: Path, what: str
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / HANDLES[1]).touch()
        if what == "symlink":
            notes.symlink_to(elsewhere)
        else:
            notes.write_text("precious")
        store.create(sid=SID)
        assert store.save(SID, {"n": 1}, idle_timeout=5).idle_timeout == 5
        assert os.listdir(elsewhere) == [HANDLES[1]]
        if what == "symlink":
            assert list(noted(layout)) == []
        else:
            assert notes.read_text() == "precious"

    @pytest.mark.parametrize("code", ["EROFS", "ENOSPC", "EACCES", "EIO", "EDQUOT"])
    @pytest.mark.usefixtures("no_descriptor_leaks")
    def test_a_disk_that_refuses_it_never_fails_the_save(
        self, store: FileStore, layout: Layout, code: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        number = getattr(errno, code)
        error = OSError(number, os.strerror(number))
        store.create(sid=SID, idle_timeout=100)
        saves = 0
        for calls in each(lambda nth: failing(error, nth, sticky=True)):
            real = sooner.note

            def refused(layout: Layout, handle: str) -> None:
                with calls:  # noqa: B023 - called within the round
                    real(layout, handle)  # noqa: B023

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("filesession.stores.file.store.note", refused)
                saves += 1
                record = store.save(SID, {"n": saves}, idle_timeout=100 - saves)
            assert store.load(SID) == record
        assert saves >= 3
        assert "ends sooner, which could not be noted" in caplog.text
        assert "WARNING" not in caplog.text


class TestNoted:
    def test_each_is_removed_before_it_is_given(self, layout: Layout, notes: Path) -> None:
        for handle in HANDLES:
            note(layout, handle)
        given_ones = []
        for handle in noted(layout):
            assert handle not in names(notes)
            given_ones.append(handle)
        assert sorted(given_ones) == HANDLES
        assert names(notes) == []
        assert list(noted(layout)) == []

    def test_one_made_meanwhile_is_given_next_time(self, layout: Layout, notes: Path) -> None:
        note(layout, HANDLES[0])
        for handle in noted(layout):
            note(layout, handle)
            break
        assert list(noted(layout)) == HANDLES[:1]

    def test_what_was_not_taken_is_there_the_next_time(self, layout: Layout) -> None:
        for handle in HANDLES:
            note(layout, handle)
        first = next(noted(layout))
        assert sorted([first, *noted(layout)]) == HANDLES

    def test_there_are_none(self, layout: Layout, notes: Path) -> None:
        assert list(noted(layout)) == []
        assert not notes.exists()

    def test_a_strangers_file_is_neither_given_nor_removed(
        self, layout: Layout, notes: Path
    ) -> None:
        note(layout, HANDLES[0])
        strangers = ["README", HANDLES[1].replace("1", "X"), HANDLES[2][:-1], f"{HANDLES[3]}~"]
        for name in strangers:
            (notes / name).touch()
        assert list(noted(layout)) == HANDLES[:1]
        assert names(notes) == sorted(strangers)

    def test_one_that_cannot_be_removed_keeps_none_of_the_others(
        self, layout: Layout, notes: Path
    ) -> None:
        for handle in HANDLES[:3]:
            note(layout, handle)
        error = OSError(errno.EACCES, "Permission denied")
        with SystemCalls(failing(error, 2), only=("unlink",)):
            first = list(noted(layout))
        assert len(first) == 2
        assert names(notes) == sorted(set(HANDLES[:3]) - set(first))
        assert sorted(first + list(noted(layout))) == HANDLES[:3]

    def test_two_who_take_them_get_each_once(self, layout: Layout) -> None:
        for handle in HANDLES:
            note(layout, handle)
        one, other = noted(layout), noted(layout)
        taken = []
        for _ in HANDLES:
            taken += [next(one, None), next(other, None)]
        assert sorted(handle for handle in taken if handle) == HANDLES

    def test_where_they_cannot_be_listed_is_an_error(self, layout: Layout, notes: Path) -> None:
        note(layout, HANDLES[0])
        error = OSError(errno.EIO, "Input/output error")
        with (
            SystemCalls(failing(error), only=("scandir",)),
            pytest.raises(StoreUnavailable, match=r"listing .*sooner: Input/output error"),
        ):
            list(noted(layout))


class TestSweep:
    def test_clears_those_that_are_older_than_a_minute(
        self,
        store: FileStore,
        layout: Layout,
        notes: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        store.create()
        note(layout, HANDLES[0])
        (notes / "README").touch()
        store.sweep()
        assert names(notes) == [HANDLES[0], "README"]
        now = time.time() + 61
        monkeypatch.setattr(time, "time", lambda: now)
        store.sweep(dry_run=True)
        assert names(notes) == [HANDLES[0], "README"]
        report = store.sweep()
        assert names(notes) == ["README"]
        assert (report.leftovers, report.failed, report.corrupt) == (0, 0, 0)

    def test_what_a_symlink_leads_to_is_not_cleared(
        self, store: FileStore, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / HANDLES[0]).touch()
        notes.symlink_to(elsewhere)
        now = time.time() + 61
        monkeypatch.setattr(time, "time", lambda: now)
        assert store.sweep().failed == 0
        assert os.listdir(elsewhere) == [HANDLES[0]]
        assert stat.S_ISLNK(notes.lstat().st_mode)

    def test_where_they_cannot_be_listed_the_rest_is_swept_before_that_is_told(
        self, store: FileStore, clock: ManualClock, notes: Path
    ) -> None:
        notes.mkdir()
        held = store.lock(store.create(sid=SID).id)
        in_thread(held.__enter__)
        clock.advance(10_000)

        def act(call: SystemCall) -> Any:
            if call.arguments[0] != str(notes):
                return call.make()
            held.release()  # whose lock was held is tried again at the end
            raise OSError(errno.EIO, "Input/output error")

        with (
            SystemCalls(act, only=("scandir",)),
            pytest.raises(StoreUnavailable, match=r"listing .*sooner: Input/output error"),
        ):
            store.sweep()
        assert len(store) == 0
