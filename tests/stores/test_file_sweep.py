"""The sweep of a directory: what it deletes, what it leaves, what it clears away."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from filesession import locks
from filesession.stores import FileStore
from filesession.stores.file import sessionfile, sweep
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
        opened = sessionfile.opened

        def deleted_meanwhile(*arguments: Any) -> object:
            found = opened(*arguments)
            store.delete(sid)
            return found

        monkeypatch.setattr(sessionfile, "opened", deleted_meanwhile)
        report = store.sweep()
        assert (report.examined, report.expired, report.busy) == (1, 0, 0)

    def test_sessions_deleted_after_they_were_listed_are_not_counted(
        self, tmp_path: Path, clock: ManualClock
    ) -> None:
        # In one directory the system lists many names at once: the rest is listed, and gone.
        store = FileStore(tmp_path / "flat", shard_depth=0, clock=clock)
        for _ in range(10):
            store.create()
        clock.advance(2000)

        def clear_once(examined: int) -> None:
            if examined == 1:
                store.clear()

        report = store.sweep(progress=clear_once)
        assert (report.examined, report.expired, report.busy) == (10, 1, 0)
        assert len(store) == 0

    @pytest.mark.parametrize("with_what", ["damage", "a directory"])
    def test_one_that_is_no_session_any_more_under_the_lock_is_left_for_the_next(
        self,
        store: FileStore,
        raw: Raw,
        clock: ManualClock,
        monkeypatch: pytest.MonkeyPatch,
        with_what: str,
    ) -> None:
        path = raw.path(store.create(sid="chosen").id)
        clock.advance(2000)
        opened = sessionfile.opened

        def replaced_meanwhile(*arguments: Any) -> object:
            monkeypatch.setattr(sessionfile, "opened", opened)
            found = opened(*arguments)
            path.unlink()
            if with_what == "damage":
                path.write_bytes(b"damage")
            else:
                path.mkdir()
            return found

        monkeypatch.setattr(sessionfile, "opened", replaced_meanwhile)
        report = store.sweep()
        assert (report.examined, report.expired, report.corrupt) == (1, 0, 0)
        assert path.exists()
        monkeypatch.setattr("filesession.stores.file.reaper.YOUNG", -1.0)
        assert store.sweep().corrupt == 1
        assert not path.exists()

    def test_one_whose_lock_is_kept_is_left_for_the_next(
        self, store: FileStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sweep, "PATIENCE", 0)  # it waits for that long at its end
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
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        ids = {raw.name(sid): sid for sid in (store.create().id, store.create().id)}
        held = store.lock(ids[next(store.scan()).handle])  # the one that is looked at first
        in_thread(held.__enter__)
        clock.advance(2000)
        report = store.sweep(limit=1)
        assert (report.examined, report.expired, report.busy) == (2, 1, 1)
        assert report.complete is False
        held.release()

    def test_a_sweep_on_a_full_disk_makes_room(
        self, store: FileStore, clock: ManualClock, faults: Faults
    ) -> None:
        store.create()
        clock.advance(2000)
        with faults.failing(OSError(errno.ENOSPC, "No space left"), only=("write", "mkdir")):
            assert store.sweep().expired == 1

    @pytest.mark.parametrize("call", ["open", "fstat", "pread", "unlink"])
    def test_a_call_that_fails_leaves_one_session_for_the_next_sweep(
        self, store: FileStore, clock: ManualClock, faults: Faults, call: str
    ) -> None:
        for _ in range(3):
            store.create()
        clock.advance(2000)
        nth = 2 if call == "unlink" else 3  # the first looks are at the directory
        with faults.failing(OSError(errno.EIO, "Input/output error"), nth, only=(call,)):
            report = store.sweep()
        assert (report.examined, report.expired, report.failed) == (3, 2, 1)
        assert store.sweep().expired == 1
        assert len(store) == 0

    def test_all_locks_that_are_held_are_waited_for_together(
        self, store: FileStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slept: list[float] = []
        now = [0.0]

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            now[0] += seconds

        held = [store.lock(store.create().id) for _ in range(5)]
        for lock in held:
            in_thread(lock.__enter__)
        clock.advance(2000)
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        monkeypatch.setattr(time, "sleep", sleep)
        assert store.sweep().busy == 5
        assert sum(slept) == pytest.approx(sweep.PATIENCE)
        for lock in held:
            lock.release()


class TestFuture:
    """The clock was set back: what is dated in the future counts from now, once a sweep saw it."""

    @pytest.mark.parametrize("back", [3600, 10 * 365 * 86400], ids=["an hour", "ten years"])
    def test_no_session_ends_before_its_time_and_none_is_kept_for_good(
        self, store: FileStore, clock: ManualClock, back: float
    ) -> None:
        sid = store.create({"n": 1}).id
        clock.advance(10_000)
        touched = store.create({"n": 2}).id
        clock.advance(100)
        store.touch(touched)
        clock.advance(-back)
        assert store.load(touched) is not None
        report = store.sweep()
        assert (report.expired, report.mended) == ((0, 2) if back > 10_100 else (1, 1))
        assert store.sweep().mended == 0
        clock.advance(1800)
        assert store.load(touched) is not None
        clock.advance(61)
        assert store.load(touched) is None
        clock.advance(60)
        store.sweep()
        assert store.load(sid) is None
        assert len(store) == 0

    def test_a_session_is_as_old_as_it_was_when_last_saved(
        self, tmp_path: Path, clock: ManualClock
    ) -> None:
        store = FileStore(tmp_path / "s", idle_timeout=None, absolute_timeout=1000, clock=clock)
        sid = store.create({"n": 1}).id
        clock.advance(600)
        store.save(sid, {"n": 2})
        clock.advance(-(10**6))
        assert store.sweep().mended == 1
        record = store.load(sid)
        assert record is not None
        assert (record.data, record.created_at) == ({"n": 2}, clock.now - 600)
        clock.advance(401)
        assert store.load(sid) is None

    def test_one_whose_mark_alone_is_ahead_keeps_its_file(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        path = raw.path(store.create({"n": 1}).id)
        content = path.read_bytes()
        os.utime(path, (clock.now + 3600, clock.now + 3600))
        assert store.sweep().mended == 1
        assert path.stat().st_mtime == clock.now
        assert path.read_bytes() == content

    def test_a_rehearsal_mends_nothing(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        sid = store.create().id
        clock.advance(-3600)
        before = raw.path(sid).stat().st_mtime, raw.path(sid).read_bytes()
        assert store.sweep(dry_run=True).mended == 1
        assert (raw.path(sid).stat().st_mtime, raw.path(sid).read_bytes()) == before

    def test_clocks_of_two_machines_may_differ_a_little(
        self, store: FileStore, clock: ManualClock
    ) -> None:
        store.create()
        clock.advance(-59)
        assert store.sweep().mended == 0

    def test_one_that_is_saved_meanwhile_needs_no_mending(
        self, store: FileStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sid = store.create({"n": 1}).id
        clock.advance(-3600)
        opened = sessionfile.opened

        def saved_meanwhile(*arguments: Any) -> object:
            found = opened(*arguments)
            store.save(sid, {"n": 2})
            return found

        monkeypatch.setattr(sessionfile, "opened", saved_meanwhile)
        assert store.sweep().mended == 0


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
        report = store.sweep()
        assert (report.corrupt, report.young) == (0, 1)
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
        opened = sessionfile.opened

        def made_good(*arguments: Any) -> object:
            monkeypatch.setattr(sessionfile, "opened", opened)
            found = opened(*arguments)
            store.create({"n": 1}, sid="chosen")
            return found

        monkeypatch.setattr(sessionfile, "opened", made_good)
        assert store.sweep().corrupt == 0
        record = store.load("chosen")
        assert record is not None
        assert record.data == {"n": 1}

    @pytest.mark.usefixtures("grown_old")
    def test_one_that_a_reader_set_aside_after_it_was_looked_at_is_not_counted(
        self, store: FileStore, raw: Raw, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.create(sid="chosen")
        raw.path("chosen").write_bytes(b"damage")
        opened = sessionfile.opened

        def set_aside(*arguments: Any) -> object:
            monkeypatch.setattr(sessionfile, "opened", opened)
            found = opened(*arguments)
            assert store.load("chosen") is None
            return found

        monkeypatch.setattr(sessionfile, "opened", set_aside)
        report = store.sweep()
        assert (report.examined, report.corrupt) == (1, 0)
        assert raw.set_aside() == [b"damage"]

    def test_one_too_large_to_have_been_written_by_us_is_set_aside_unread(
        self, store: FileStore, raw: Raw
    ) -> None:
        store.create(sid="chosen")
        os.truncate(raw.path("chosen"), sessionfile.LARGEST + 1)  # sparse: it takes no space
        assert store.sweep().corrupt == 1
        assert raw.files() == []
        [aside] = raw.corrupt.iterdir()
        assert aside.stat().st_size == sessionfile.LARGEST + 1

    @pytest.mark.usefixtures("grown_old")
    def test_one_whose_lock_is_held_is_left_to_its_holder(self, store: FileStore, raw: Raw) -> None:
        held = store.lock(store.create(sid="chosen").id)
        in_thread(held.__enter__)
        raw.path("chosen").write_bytes(b"damage")
        assert store.sweep().corrupt == 0
        held.release()
        assert store.sweep().corrupt == 1

    @pytest.mark.usefixtures("grown_old")
    def test_one_that_cannot_be_set_aside_is_counted(
        self, store: FileStore, raw: Raw, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.create(sid="chosen")
        raw.path("chosen").write_bytes(b"damage")
        raw.corrupt.write_text("no directory")
        caplog.set_level(logging.DEBUG)
        report = store.sweep()
        assert (report.corrupt, report.failed) == (0, 1)
        doing = f"moving the unreadable {raw.path('chosen')} to {raw.corrupt}, a directory of ours"
        assert report.failure == f"{doing}: Not a directory"
        assert f"{report.failure}; the sweep goes on" in caplog.text


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

    @pytest.mark.usefixtures("grown_old")
    def test_two_sweeps_at_once_remove_each_of_them_once(
        self, store: FileStore, directory: Path, raw: Raw, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = self.make(store, directory, raw)
        lstat, theirs = os.lstat, []

        def swept_meanwhile(path: str) -> os.stat_result:
            monkeypatch.setattr(os, "lstat", lstat)
            theirs.append(FileStore.open(directory).sweep().leftovers)
            return lstat(path)

        monkeypatch.setattr(os, "lstat", swept_meanwhile)
        assert store.sweep().leftovers == 0
        assert theirs == [4]
        assert not any(path.exists() for path in left)

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
    def test_one_that_cannot_be_removed_is_counted(
        self, store: FileStore, directory: Path, raw: Raw, faults: Faults
    ) -> None:
        self.make(store, directory, raw)
        with faults.failing(OSError(errno.EROFS, "Read-only file system"), only=("unlink",)):
            report = store.sweep()
        assert (report.leftovers, report.failed) == (3, 1)

    @pytest.mark.usefixtures("grown_old")
    def test_one_whose_writer_is_at_work_is_left(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        left = self.make(store, directory, raw)[0]
        descriptor = os.open(left, os.O_RDWR)
        assert locks.try_lock(descriptor)
        assert store.sweep().leftovers == 3
        assert left.exists()
        os.close(descriptor)
        assert store.sweep().leftovers == 1
