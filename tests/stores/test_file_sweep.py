"""The sweep of a directory: what it deletes, what it leaves, what it clears away."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from filesession import locks
from filesession.errors import StoreUnavailable
from filesession.stores import FileStore
from filesession.stores.file import sessionfile
from filesession.testing import ManualClock
from filesession.testing.base import in_thread

if TYPE_CHECKING:
    from tests.stores.conftest import Faults, Raw


@pytest.fixture
def grown_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything on the disk was last changed more than a minute ago."""
    now = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: now)


class TestDue:
    def test_what_is_due_is_gone_and_the_rest_is_as_it_was(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        old = [store.create({"n": n, "text": "x" * n}).id for n in range(20)]
        size = sum(raw.path(sid).stat().st_size for sid in old)
        clock.advance(1000)
        fresh = [store.create({"n": n}).id for n in range(20)]
        before = {path: path.read_bytes() for path in map(raw.path, fresh)}
        clock.advance(1000)
        report = store.sweep()
        assert (report.examined, report.expired, report.freed) == (40, 20, size)
        assert report.oldest_overdue == pytest.approx(2000 - 1800 - 120)
        assert {path: path.read_bytes() for path in raw.files()} == before

    def test_the_touch_mark_alone_decides_for_a_live_file(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        sid = store.create().id
        clock.advance(3000)
        os.utime(raw.path(sid), (clock.now - 10, clock.now - 10))
        assert store.sweep().expired == 0
        os.utime(raw.path(sid), (0, 0))
        assert store.sweep().expired == 1

    def test_the_timeouts_are_those_of_the_store_opened_last(
        self, store: FileStore, directory: Path, clock: ManualClock
    ) -> None:
        store.create()
        clock.advance(300)
        FileStore(directory, idle_timeout=100, clock=clock)
        assert store.sweep(dry_run=True).expired == 1
        FileStore(directory, idle_timeout=None, clock=clock)
        assert store.sweep().expired == 0

    def test_a_session_touched_after_it_was_looked_at_is_left(
        self,
        store: FileStore,
        raw: Raw,
        clock: ManualClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        sid = store.create({"n": 1}).id
        clock.advance(2000)
        lock = locks.lock

        def touched_meanwhile(*arguments: Any) -> None:
            os.utime(raw.path(sid), (clock.now, clock.now))
            lock(*arguments)

        monkeypatch.setattr(locks, "lock", touched_meanwhile)
        report = store.sweep()
        assert (report.examined, report.expired, report.busy) == (1, 0, 0)
        assert store.load(sid) is not None

    def test_a_session_deleted_after_it_was_looked_at_is_not_counted(
        self, store: FileStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sid = store.create().id
        clock.advance(2000)
        read = sessionfile.read

        def deleted_meanwhile(path: str, handle: str) -> object:
            found = read(path, handle)
            store.delete(sid)
            return found

        monkeypatch.setattr(sessionfile, "read", deleted_meanwhile)
        report = store.sweep()
        assert (report.examined, report.expired, report.busy) == (1, 0, 0)

    def test_one_whose_lock_is_kept_is_left_for_the_next(
        self, store: FileStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "DEFAULT_TIMEOUT", 0)  # it waits for that long at its end
        held = store.lock(store.create({"n": 1}).id)
        in_thread(held.__enter__)
        for n in range(3):
            store.create({"n": n})
        clock.advance(2000)
        report = store.sweep()
        assert (report.expired, report.busy, report.complete) == (3, 1, True)
        assert len(store) == 1
        held.release()
        assert store.sweep().expired == 1

    def test_busy_ones_beyond_the_limit_are_not_waited_for(
        self, store: FileStore, clock: ManualClock
    ) -> None:
        held = store.lock(store.create().id)
        in_thread(held.__enter__)
        store.create()
        clock.advance(2000)
        report = store.sweep(limit=1)
        assert (report.expired, report.busy) == (1, 0)
        held.release()

    def test_a_sweep_on_a_full_disk_makes_room(
        self, store: FileStore, clock: ManualClock, faults: Faults
    ) -> None:
        store.create()
        clock.advance(2000)
        with faults.failing(OSError(errno.ENOSPC, "No space left"), only=("write", "mkdir")):
            assert store.sweep().expired == 1

    @pytest.mark.parametrize("call", ["open", "fstat", "pread", "unlink", "scandir", "stat"])
    def test_a_call_that_fails_is_an_error_and_the_next_sweep_goes_on(
        self, store: FileStore, clock: ManualClock, faults: Faults, call: str
    ) -> None:
        for _ in range(3):
            store.create()
        clock.advance(2000)
        with (
            faults.failing(OSError(errno.EIO, "Input/output error"), 2, only=(call,)),
            pytest.raises(StoreUnavailable, match="Input/output error"),
        ):
            store.sweep()
        store.sweep()
        assert len(store) == 0


class TestDamage:
    @pytest.mark.usefixtures("grown_old")
    def test_a_damaged_file_is_set_aside(self, store: FileStore, raw: Raw) -> None:
        store.create(sid="whole")
        for sid, content in (("empty", b""), ("garbage", b"garbage")):
            store.create(sid=sid)
            raw.path(sid).write_bytes(content)
        rehearsed = store.sweep(dry_run=True)
        assert (rehearsed.corrupt, raw.set_aside()) == (2, [])
        report = store.sweep()
        assert (report.examined, report.corrupt, report.expired) == (3, 2, 0)
        assert sorted(raw.set_aside()) == [b"", b"garbage"]
        assert raw.files() == [raw.path("whole")]
        assert store.sweep().corrupt == 0

    def test_a_young_one_may_be_a_writers_work_in_progress(
        self, store: FileStore, raw: Raw
    ) -> None:
        store.create(sid="chosen")
        raw.path("chosen").write_bytes(b"")
        assert store.sweep().corrupt == 0
        assert raw.files() == [raw.path("chosen")]

    def test_what_is_no_file_is_set_aside_at_once(
        self, store: FileStore, raw: Raw, tmp_path: Path
    ) -> None:
        for sid in ("symlink", "directory"):
            store.delete(store.create(sid=sid).id)
        raw.path("symlink").symlink_to(tmp_path)
        raw.path("directory").mkdir()
        assert store.sweep().corrupt == 2
        assert raw.files() == []
        assert len(list(raw.corrupt.iterdir())) == 2
        assert tmp_path.is_dir()

    @pytest.mark.usefixtures("grown_old")
    def test_one_that_was_made_good_after_it_was_looked_at_is_left(
        self, store: FileStore, raw: Raw, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.create(sid="chosen")
        raw.path("chosen").write_bytes(b"damage")
        read = sessionfile.read

        def made_good(path: str, handle: str) -> object:
            monkeypatch.setattr(sessionfile, "read", read)
            found = read(path, handle)
            store.create({"n": 1}, sid="chosen")
            return found

        monkeypatch.setattr(sessionfile, "read", made_good)
        assert store.sweep().corrupt == 0
        record = store.load("chosen")
        assert record is not None
        assert record.data == {"n": 1}

    @pytest.mark.usefixtures("grown_old")
    def test_one_whose_lock_is_held_is_left_to_its_holder(self, store: FileStore, raw: Raw) -> None:
        held = store.lock(store.create(sid="chosen").id)
        in_thread(held.__enter__)
        raw.path("chosen").write_bytes(b"damage")
        assert store.sweep().corrupt == 0
        held.release()
        assert store.sweep().corrupt == 1

    @pytest.mark.usefixtures("grown_old")
    def test_one_that_cannot_be_set_aside_is_an_error(
        self, store: FileStore, raw: Raw, faults: Faults
    ) -> None:
        store.create(sid="chosen")
        raw.path("chosen").write_bytes(b"damage")
        with (
            faults.failing(OSError(errno.EROFS, "Read-only file system"), only=("rename",)),
            pytest.raises(StoreUnavailable, match=r"setting .* aside: Read-only"),
        ):
            store.sweep()


class TestLeftovers:
    def make(self, store: FileStore, directory: Path, raw: Raw) -> list[Path]:
        path = raw.path(store.create(sid="chosen").id)
        left = [
            path.with_name(f".{path.name}.0123456789ab.tmp"),
            directory / "secret.0123456789ab.tmp",
            directory / "filesession.json.0123456789ab.tmp",
            directory / "janitor.json.0123456789ab.tmp",
        ]
        for one in left:
            one.touch()
        return left

    @pytest.mark.usefixtures("grown_old")
    def test_what_dead_writers_left_is_removed(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        left = self.make(store, directory, raw)
        assert store.sweep(dry_run=True).leftovers == 4
        assert all(path.exists() for path in left)
        assert store.sweep().leftovers == 4
        assert not any(path.exists() for path in left)
        assert raw.files() == [raw.path("chosen")]
        assert store.sweep().leftovers == 0

    def test_young_ones_may_be_a_writers_work_in_progress(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        left = self.make(store, directory, raw)
        assert store.sweep().leftovers == 0
        assert all(path.exists() for path in left)

    @pytest.mark.usefixtures("grown_old")
    def test_an_incomplete_sweep_leaves_them(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        left = self.make(store, directory, raw)
        assert store.sweep(limit=0).complete is False
        assert all(path.exists() for path in left)

    @pytest.mark.usefixtures("grown_old")
    def test_strangers_files_are_never_touched(
        self, store: FileStore, directory: Path, raw: Raw, clock: ManualClock
    ) -> None:
        path = raw.path(store.create(sid="chosen").id)
        strangers = [
            path.with_name(path.name + "~"),
            path.with_name(".nfs0000000000000001"),
            raw.sessions / path.name,
            directory / "notes.tmp",
            directory / "backup.json",
        ]
        for one in strangers:
            one.write_text("precious")
        clock.advance(10_000)
        report = store.sweep()
        assert (report.examined, report.expired, report.leftovers) == (1, 1, 0)
        assert all(one.read_text() == "precious" for one in strangers)

    @pytest.mark.usefixtures("grown_old")
    def test_one_that_cannot_be_removed_is_an_error(
        self, store: FileStore, directory: Path, raw: Raw, faults: Faults
    ) -> None:
        self.make(store, directory, raw)
        with (
            faults.failing(OSError(errno.EROFS, "Read-only file system"), only=("unlink",)),
            pytest.raises(StoreUnavailable, match=r"removing .*: Read-only"),
        ):
            store.sweep()
