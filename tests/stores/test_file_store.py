"""What each verb of the file store leaves on the disk, read there by hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.codec import JSONCodec
from filesession.errors import EncodeError, StoreUnavailable, WouldSync
from filesession.stores import FileStore
from filesession.stores.file import sessionfile, size
from filesession.stores.file.size import LARGEST_DATA, LINES_KEPT, LONGEST_JOURNAL
from filesession.testing import ManualClock

if TYPE_CHECKING:
    from tests.stores.conftest import Faults, Raw

NOTHING: Final = OSError("never raised")
NEVER: Final = 10**9


def number(record: Any) -> Any:
    assert record is not None
    return record.data["n"]


class TestOnDisk:
    def test_a_created_session_is_one_line(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        record = store.create({"user": "ada", "n": 1})
        [line] = raw.lines(record.id)
        assert line == {
            "format": 1,
            "version": 1,
            "lineage": record.lineage,
            "created": clock.now,
            "saved": clock.now,
            "data": {"user": "ada", "n": 1},
        }
        assert len(record.lineage) == 16
        assert raw.path(record.id).stat().st_mtime == clock.now
        assert raw.files() == [raw.path(record.id)]

    def test_what_a_session_has_of_its_own_is_in_its_line(self, store: FileStore, raw: Raw) -> None:
        record = store.create(
            idle_timeout=timedelta(minutes=1), absolute_timeout=float("inf"), cookie={"max_age": 5}
        )
        [line] = raw.lines(record.id)
        assert (line["idle"], line["absolute"], line["cookie"]) == (60, None, {"max_age": 5})
        store.save(record.id, {}, idle_timeout=None, cookie={})
        assert raw.lines(record.id)[1].keys() == line.keys() - {"idle", "cookie"}

    def test_a_save_adds_a_line_and_changes_none(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        record = store.create({"n": 1})
        before = raw.path(record.id).read_bytes()
        clock.advance(100)
        store.save(record.id, {"n": 2})
        assert raw.path(record.id).read_bytes().startswith(before)
        first, second = raw.lines(record.id)
        assert second == first | {"version": 2, "saved": clock.now, "data": {"n": 2}}
        assert raw.path(record.id).stat().st_mtime == clock.now

    def test_a_touch_sets_the_modification_time_and_nothing_else(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        record = store.create({"n": 1})
        before = raw.path(record.id).read_bytes()
        clock.advance(100)
        store.touch(record.id, base=record)
        assert raw.path(record.id).read_bytes() == before
        assert raw.path(record.id).stat().st_mtime == clock.now

    def test_a_deleted_session_leaves_nothing(self, store: FileStore, raw: Raw) -> None:
        store.delete(store.create({"n": 1}).id)
        assert raw.files() == []

    def test_a_regenerated_session_is_the_same_file_under_another_name(
        self, store: FileStore, raw: Raw
    ) -> None:
        old = store.create({"n": 1})
        inode = raw.path(old.id).stat().st_ino
        new = store.regenerate(old.id, {"n": 2})
        assert raw.files() == [raw.path(new.id)]
        assert raw.path(new.id).stat().st_ino == inode
        # The line of the old name is whole only under that.
        assert len(raw.path(new.id).read_bytes().splitlines()) == 2
        with pytest.raises(AssertionError):
            raw.lines(new.id)
        store.save(new.id, {"n": 3})
        assert number(store.load(new.id)) == 3

    def test_no_id_is_anywhere_on_the_disk(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        store.signing_key()
        ids = [store.create({"n": n}).id for n in range(3)]
        ids.append(store.regenerate(ids[0]).id)
        raw.path(ids[1]).write_bytes(b"damage")
        store.load(ids[1])
        stored = b"".join(
            os.fsencode(path) + (path.read_bytes() if path.is_file() else b"")
            for path in directory.rglob("*")
        )
        for sid in ids:
            assert sid.encode() not in stored
            assert sid[:8].encode() not in stored

    def test_a_file_made_by_hand_is_a_session(
        self, store: FileStore, raw: Raw, clock: ManualClock, make_line: Callable[..., bytes]
    ) -> None:
        path = raw.path("by hand")
        path.parent.mkdir(0o700, parents=True)
        path.write_bytes(
            make_line(path.name, version=7, created=clock.now - 5, saved=clock.now, data={"n": 9})
        )
        os.utime(path, (clock.now, clock.now))
        record = store.load("by hand")
        assert record is not None
        assert (record.version, record.created_at, record.data) == (7, clock.now - 5, {"n": 9})
        assert number(store.save("by hand", {"n": 10}, base=record)) == 10

    def test_a_past_modification_time_is_believed_whatever_set_it(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        sid = store.create({"n": 1}).id
        clock.advance(1000)
        os.utime(raw.path(sid), (clock.now - 10, clock.now - 10))
        record = store.load(sid)
        assert record is not None
        assert record.accessed_at == clock.now - 10
        os.utime(raw.path(sid), (clock.now - 3600, clock.now - 3600))
        assert store.load(sid) is None

    def test_a_future_modification_time_counts_as_now(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        record = store.create({"n": 1})
        os.utime(raw.path(record.id), (clock.now + 10**6, clock.now + 10**6))
        assert store.load(record.id) == record
        clock.advance(1861)
        later = store.load(record.id)
        assert later is not None
        assert later.accessed_at == clock.now

    def test_the_janitor_for_emergencies_removes_what_is_idle(
        self, directory: Path, raw: Raw
    ) -> None:
        store = FileStore(directory)
        idle, fresh = store.create().id, store.create().id
        path = raw.path(idle)
        os.utime(path, (path.stat().st_mtime - 1860,) * 2)
        find = ["find", f"{directory}/sessions", "-type", "f", "-mmin", "+30", "-delete"]
        subprocess.run(find, check=True)
        assert raw.files() == [raw.path(fresh)]
        assert store.load(idle) is None

    def test_sessions_lie_in_as_many_levels_as_wanted(
        self, tmp_path: Path, raw: Raw, clock: ManualClock
    ) -> None:
        for depth in range(4):
            store = FileStore(tmp_path / str(depth), shard_depth=depth, clock=clock)
            store.create({"n": depth}, sid="chosen")
            raw.sessions, raw.depth = tmp_path / str(depth) / "sessions", depth
            assert raw.files() == [raw.path("chosen")]
            assert number(store.load("chosen")) == depth
            assert [info.handle for info in store.scan()] == [raw.name("chosen")]

    def test_a_codec_of_ones_own_decides_what_is_written(
        self, directory: Path, raw: Raw, clock: ManualClock
    ) -> None:
        store = FileStore(directory, codec=Reversed(), clock=clock)
        record = store.create({"secret": "abc"})
        assert b"abc" not in raw.path(record.id).read_bytes()
        assert raw.lines(record.id)[0]["data"] == '}"cba":"terces"{'
        assert store.load(record.id) == record
        [info] = store.scan()
        found = store.inspect(info.handle)
        assert found == (info, {"secret": "abc"})

    def test_what_a_codec_seals_is_swept_by_one_who_cannot_read_it(
        self, directory: Path, raw: Raw, clock: ManualClock
    ) -> None:
        sealing = FileStore(directory, codec=Reversed(), clock=clock)
        sealing.create({"n": 1})
        clock.advance(1000)
        fresh = sealing.create({"n": 2}).id
        clock.advance(1000)
        report = FileStore.open(directory, clock=clock).sweep()
        assert (report.expired, raw.files()) == (1, [raw.path(fresh)])
        assert number(sealing.load(fresh)) == 2

    def test_a_codec_that_encrypts_does_not_make_every_key_ours(
        self, directory: Path, clock: ManualClock
    ) -> None:
        # No two encodings of one value are alike.
        store = FileStore(directory, codec=Salted(), clock=clock)
        base = store.create({"a": 1, "b": 1})
        store.save(base.id, {"a": 1, "b": 2}, base=base)
        assert store.save(base.id, {"a": 2, "b": 1}, base=base).data == {"a": 2, "b": 2}


class TestCost:
    """The system calls of each verb: what the speed rests on."""

    def test_a_load_is_one_read_and_no_lock(self, store: FileStore, faults: Faults) -> None:
        sid = store.create({"n": 1}).id
        with faults.failing(NOTHING, NEVER) as calls:
            store.load(sid)
        assert calls == ["open", "fstat", "pread"]

    def test_an_unknown_id_costs_a_failed_open_and_a_look_for_the_directory(
        self, store: FileStore, faults: Faults
    ) -> None:
        with faults.failing(NOTHING, NEVER) as calls:
            store.load("unknown")
        assert calls == ["open", "stat"]

    def test_a_malformed_id_costs_nothing(self, store: FileStore, faults: Faults) -> None:
        with faults.failing(NOTHING, NEVER) as calls:
            store.load("a\0b")
            store.touch("")
            store.delete("x" * 257)
        assert calls == []

    def test_a_touch_with_its_record_is_one_look_and_one_mark(
        self, store: FileStore, clock: ManualClock, faults: Faults
    ) -> None:
        record = store.create({"n": 1})
        clock.advance(100)
        with faults.failing(NOTHING, NEVER) as calls:
            store.touch(record.id, base=record)
        assert calls == ["stat", "utime"]

    def test_a_touch_soon_after_the_last_is_none(
        self, store: FileStore, clock: ManualClock, faults: Faults
    ) -> None:
        record = store.create({"n": 1})
        clock.advance(59.9)
        with faults.failing(NOTHING, NEVER) as calls:
            assert store.touch(record.id, base=record) is True
        assert calls == []

    def test_a_touch_without_a_record_reads_and_is_skipped_as_well(
        self, store: FileStore, clock: ManualClock, faults: Faults
    ) -> None:
        sid = store.create({"n": 1}).id
        clock.advance(59.9)
        with faults.failing(NOTHING, NEVER) as calls:
            assert store.touch(sid) is True
        assert calls == ["open", "fstat", "pread"]

    def test_a_save_is_one_write_and_waits_for_no_disk(
        self, store: FileStore, faults: Faults
    ) -> None:
        record = store.create({"n": 1})
        with faults.failing(NOTHING, NEVER) as calls:
            store.save(record.id, {"n": 2}, base=record)
        assert calls.count("write") == 1
        assert "fsync" not in calls
        assert "fdatasync" not in calls


class TestGrowth:
    def test_a_file_stays_short_however_often_it_is_saved(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        record = store.create({"n": 0})
        path = raw.path(record.id)
        inodes = set()
        for n in range(500):
            clock.advance(1)
            record = store.save(record.id, {"n": n, "text": "x" * 300}, base=record)
            status = path.stat()
            inodes.add(status.st_ino)
            assert status.st_size <= LONGEST_JOURNAL
            assert status.st_mtime == clock.now
            assert store.load(record.id) == record
        assert raw.lines(record.id)[-1]["data"]["n"] == 499
        assert len(inodes) > 1
        assert raw.files() == [path]
        assert raw.mode(path) == 0o600

    def test_a_large_session_is_not_replaced_each_time(self, store: FileStore, raw: Raw) -> None:
        record = store.create({"n": 0, "text": "x" * 40_000})
        path = raw.path(record.id)
        inodes = []
        for n in range(12):
            record = store.save(record.id, record.data | {"n": n}, base=record)
            inodes.append(path.stat().st_ino)
            assert path.stat().st_size <= LINES_KEPT * 41_000
        changes = sum(one != other for one, other in pairwise(inodes))
        assert 1 < changes < 5

    def test_a_session_that_became_small_gets_a_small_file(
        self, store: FileStore, raw: Raw
    ) -> None:
        sid = store.create({"text": "x" * 100_000}).id
        store.save(sid, {"n": 1})
        assert raw.path(sid).stat().st_size < 300

    def test_a_file_stays_short_however_often_it_is_regenerated(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        record = store.create({"text": "x" * 300})
        for n in range(100):
            record = store.regenerate(record.id, record.data | {"n": n}, base=record)
            path = raw.path(record.id)
            assert raw.files() == [path]
            assert path.stat().st_size <= LONGEST_JOURNAL + 2000
        assert number(store.load(record.id)) == 99
        assert raw.mode(path) == 0o600

    def test_a_file_of_the_largest_sessions_can_be_read(self) -> None:
        assert 2 * LINES_KEPT * LARGEST_DATA <= sessionfile.LARGEST

    def test_what_is_too_large_is_refused_with_its_largest_key(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(size, "LARGEST_DATA", 1000)
        before = store.create({"n": 1})
        large = {"a": "x" * 300, "b": "x" * 500, "c": "x" * 200}
        refusals: list[Callable[[], object]] = [
            lambda: store.create(large, sid="chosen"),
            lambda: store.save(before.id, large),
            lambda: store.regenerate(before.id, large, new_sid="chosen"),
        ]
        for refused in refusals:
            with pytest.raises(EncodeError, match="larger than") as error:
                refused()
            assert error.value.path == "b"
        assert store.load(before.id) == before
        assert store.load("chosen") is None

    def test_cookie_attributes_that_are_too_large_are_refused(
        self, store: FileStore, raw: Raw
    ) -> None:
        with pytest.raises(EncodeError, match=r"cookie: .* of its own exceed 64 kB"):
            store.create(cookie={"path": "/" + "x" * 70_000})
        assert raw.files() == []

    def test_what_a_merge_makes_too_large_is_refused(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(size, "LARGEST_DATA", 1000)
        base = store.create()
        theirs = store.save(base.id, {"theirs": "x" * 700}, base=base)
        with pytest.raises(EncodeError, match="theirs: the session is larger"):
            store.save(base.id, {"ours": "x" * 600}, base=base)
        with pytest.raises(EncodeError, match="theirs: the session is larger"):
            store.regenerate(base.id, {"ours": "x" * 600}, base=base)
        assert store.load(base.id) == theirs

    def test_the_largest_session_is_saved_and_regenerated_over_and_over(
        self, store: FileStore, raw: Raw, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(size, "LARGEST_DATA", 40_000)
        monkeypatch.setattr(sessionfile, "LARGEST", 2 * LINES_KEPT * 40_000)
        record = store.create({"text": "x" * 39_900})
        for n in range(30):
            record = store.save(record.id, record.data | {"n": n}, base=record)
            record = store.regenerate(record.id, record.data, base=record)
        assert number(store.load(record.id)) == 29


class TestDurable:
    @pytest.fixture
    def durable(self, directory: Path, clock: ManualClock) -> FileStore:
        return FileStore(directory, durable=True, clock=clock)

    @staticmethod
    def syncs(faults: Faults, call: Callable[[], Any]) -> list[str]:
        """The calls that make a change last, and those that it must come after."""
        telling = {"write", "rename", "unlink", "mkdir", "fsync", "fdatasync"}
        with faults.failing(NOTHING, NEVER) as calls:
            call()
        return [name for name in calls if name in telling]

    def test_a_created_session_and_its_name_are_on_the_disk(
        self, durable: FileStore, faults: Faults
    ) -> None:
        durable.create(sid="first of its shard")
        calls = self.syncs(faults, lambda: durable.create(sid="chosen"))
        assert calls == ["mkdir", "fsync", "write", "fdatasync", "fsync"]

    def test_the_directories_made_for_the_first_session_are_on_the_disk(
        self, durable: FileStore, faults: Faults
    ) -> None:
        calls = self.syncs(faults, lambda: durable.create(sid="chosen"))
        assert calls == ["mkdir", "fsync", "mkdir", "fsync", "write", "fdatasync", "fsync"]

    def test_a_saved_session_is_on_the_disk(self, durable: FileStore, faults: Faults) -> None:
        sid = durable.create().id
        assert self.syncs(faults, lambda: durable.save(sid, {})) == ["write", "fdatasync"]

    def test_a_regenerated_session_and_both_names_are_on_the_disk(
        self, durable: FileStore, faults: Faults
    ) -> None:
        durable.create(sid="one")
        durable.delete(durable.create(sid="two").id)  # makes its shard
        calls = self.syncs(faults, lambda: durable.regenerate("one", new_sid="two"))
        assert calls == ["write", "fdatasync", "rename", "fsync", "fsync"]

    def test_a_deletion_is_on_the_disk(self, durable: FileStore, faults: Faults) -> None:
        sid = durable.create().id
        assert self.syncs(faults, lambda: durable.delete(sid)) == ["unlink", "fsync"]

    def test_a_touch_never_waits(
        self, durable: FileStore, faults: Faults, clock: ManualClock
    ) -> None:
        sid = durable.create().id
        clock.advance(100)
        assert self.syncs(faults, lambda: durable.touch(sid)) == []

    def test_without_it_only_regenerate_waits(self, store: FileStore, faults: Faults) -> None:
        store.delete(store.create(sid="chosen").id)  # its shard is there: making one waits too
        sid = store.create().id
        assert self.syncs(faults, lambda: store.save(sid, {})) == ["write"]
        calls = self.syncs(faults, lambda: store.regenerate(sid, new_sid="chosen"))
        assert calls[:2] == ["write", "fdatasync"]
        assert "fsync" not in calls
        assert self.syncs(faults, lambda: store.delete("chosen")) == ["unlink"]

    def test_without_waiting_nothing_is_done_that_waits(
        self, durable: FileStore, faults: Faults
    ) -> None:
        record = durable.create({"n": 1})
        impatient = durable.without_waiting()
        with faults.failing(NOTHING, NEVER) as calls:
            for call in (
                impatient.create,
                lambda: impatient.save(record.id, {"n": 2}),
                lambda: impatient.delete(record.id),
                lambda: impatient.regenerate(record.id),
            ):
                with pytest.raises(WouldSync):
                    call()
        assert calls == []
        assert durable.load(record.id) == record

    def test_without_waiting_a_file_is_not_replaced(self, store: FileStore, raw: Raw) -> None:
        impatient = store.without_waiting()
        with pytest.raises(WouldSync):
            impatient.create({"n": 0}, sid="chosen")  # the shard is to be made
        store.delete(store.create(sid="chosen").id)
        record = impatient.create({"n": 0}, sid="chosen")
        data = {"text": "x" * 300}
        while raw.path(record.id).stat().st_size < LONGEST_JOURNAL - 500:
            record = impatient.save(record.id, data, base=record)
        before = raw.path(record.id).read_bytes()
        with pytest.raises(WouldSync):
            impatient.save(record.id, data | {"more": "x" * 300}, base=record)
        assert raw.path(record.id).read_bytes() == before
        assert store.load(record.id) == record
        saved = store.save(record.id, {"n": -1}, base=record)
        assert impatient.load(record.id) == saved


class TestVanished:
    """The directory goes while the store is in use: unmounted, moved, removed."""

    @pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
    def test_every_call_says_so_and_makes_nothing(
        self, store: FileStore, directory: Path, raw: Raw, clock: ManualClock, left: str
    ) -> None:
        record = store.create({"n": 1})
        handle = raw.name(record.id)
        shutil.rmtree(directory)
        if left != "nothing":
            directory.mkdir()
        clock.advance(100)
        calls: list[Callable[[], object]] = [
            lambda: store.load(record.id),
            lambda: store.create({"n": 2}),
            lambda: store.create({"n": 2}, sid="chosen"),
            lambda: store.save(record.id, {"n": 2}),
            lambda: store.save(record.id, {"n": 2}, base=record),
            lambda: store.touch(record.id),
            lambda: store.touch(record.id, base=record),
            lambda: store.delete(record.id),
            lambda: store.regenerate(record.id),
            lambda: store.lock(record.id).__enter__(),
            lambda: list(store.scan()),
            store.sweep,
            store.clear,
            lambda: len(store),
            lambda: store.inspect(handle),
            lambda: store.evict(handle),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable, match=f"{directory} has vanished"):
                call()
        assert not directory.exists() if left == "nothing" else not any(directory.iterdir())

    def test_when_it_comes_back_all_is_as_it_was(
        self, store: FileStore, directory: Path, tmp_path: Path
    ) -> None:
        record = store.create({"n": 1})
        directory.rename(tmp_path / "away")
        with pytest.raises(StoreUnavailable):
            store.load(record.id)
        (tmp_path / "away").rename(directory)
        assert store.load(record.id) == record

    def test_a_shard_that_was_removed_is_made_again(self, store: FileStore, raw: Raw) -> None:
        store.create(sid="chosen")
        shutil.rmtree(raw.sessions)
        assert store.load("chosen") is None
        assert len(store) == 0
        store.create({"n": 1}, sid="chosen")
        assert number(store.load("chosen")) == 1
        shutil.rmtree(raw.path("chosen").parent)
        store.create({"n": 2}, sid="chosen")
        assert raw.mode(raw.path("chosen").parent) == 0o700


class TestRegenerateCutShort:
    def test_one_that_cannot_rename_leaves_exactly_the_old_session(
        self, store: FileStore, raw: Raw, faults: Faults
    ) -> None:
        before = store.create({"n": 1}, sid="old")
        with (
            faults.failing(OSError(5, "Input/output error"), only=("rename",)),
            pytest.raises(StoreUnavailable),
        ):
            store.regenerate("old", {"n": 2}, new_sid="new")
        assert store.load("new") is None
        assert raw.files() == [raw.path("old")]
        assert number(store.load("old")) == 1
        saved = store.save("old", {"n": 3}, base=before, conflict="error")
        assert number(store.load("old")) == 3
        assert saved.version == 2
        assert number(store.regenerate("old", new_sid="new")) == 3
        assert number(store.load("new")) == 3

    @pytest.mark.parametrize("filling", [0, LONGEST_JOURNAL - 300], ids=["short", "long"])
    def test_a_process_killed_before_the_rename_leaves_exactly_the_old_session(
        self, store: FileStore, directory: Path, raw: Raw, filling: int
    ) -> None:
        # A long file is replaced first, by one that holds both: the second rename is the move.
        program = """
import os, signal, sys
from filesession.stores import FileStore
rename, last = os.rename, int(sys.argv[2])
def killing(source, target):
    global last
    last -= 1
    if last == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.rename = killing
FileStore.open(sys.argv[1]).regenerate("old", {"n": 2}, new_sid="new")
"""
        store = FileStore(directory)
        store.create({"n": 1}, sid="old")
        for _ in range(1 if filling else 0):
            store.save("old", {"n": 1, "text": "x" * filling})
        for renames in (1, 2) if filling else (1,):
            killed = subprocess.run(
                [sys.executable, "-c", program, str(directory), str(renames)], check=False
            )
            assert killed.returncode == -signal.SIGKILL
            assert store.load("new") is None
            assert number(store.load("old")) == 1
        assert number(store.save("old", {"n": 3})) == 3
        assert number(store.regenerate("old", new_sid="new")) == 3
        assert store.load("old") is None


class Reversed(JSONCodec):
    """JSON backwards, in a JSON string: stands for a codec that seals what it writes."""

    __slots__ = ()

    def encode(self, data: Any) -> bytes:
        return json.dumps(super().encode(data).decode()[::-1]).encode()

    def decode(self, text: bytes) -> dict[str, Any]:
        return super().decode(json.loads(text)[::-1].encode())


class Salted(JSONCodec):
    """Never the same text twice."""

    __slots__ = ()

    def encode(self, data: Any) -> bytes:
        return super().encode({"salt": os.urandom(4).hex(), "data": dict(data)})

    def decode(self, text: bytes) -> dict[str, Any]:
        data = super().decode(text)["data"]
        assert isinstance(data, dict)
        return data
