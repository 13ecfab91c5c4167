"""Disks that are really full, read-only, away or another's, and a process out of descriptors.

The disks are small file systems in memory, mounted by root, or by anybody in a user namespace.
"""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import FilesessionError, SessionGone, StoreFull, StoreUnavailable
from filesession.stores import FileStore
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing import ManualClock
from tests.faults.conftest import Ground, handle_of, in_child, nothing_left_open

if TYPE_CHECKING:
    from tests.faults.conftest import Disk

OLD: Final = {"n": 1}
NEW: Final = {"n": 2, "text": "x" * 300}
LARGE: Final = {"text": "x" * 2000}

MakeDisk = Callable[[str], "Disk"]


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    with nothing_left_open():
        yield


def data_of(store: FileStore, sid: str) -> Any:
    record = store.load(sid)
    return None if record is None else record.data


def is_absent(store: FileStore, sid: str) -> bool:
    return store.load(sid) is None


def grow(store: FileStore, sid: str) -> None:
    """Leave a session as it is, but its file so long that the next large save replaces it."""
    data = data_of(store, sid)
    store.save(sid, {"text": "x" * (LONGEST_JOURNAL - 700)})
    store.save(sid, data)


def fill_with_sessions(store: FileStore) -> int:
    """Create sessions until no more can be; how many could."""
    for count in range(1000):
        try:
            store.create({"text": "x" * 100})
        except StoreFull:
            return count
    pytest.fail("the disk is never full")


# -- full -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [False, True], ids=["", "durable"])
@pytest.mark.parametrize("options", ["size=64k", "size=4m,nr_inodes=24"], ids=["bytes", "inodes"])
def test_on_a_full_disk_sessions_are_read_touched_and_deleted_until_there_is_room(
    make_disk: MakeDisk,
    clock: ManualClock,
    durable: bool,  # noqa: FBT001 - a row of the table
    options: str,
) -> None:
    disk = make_disk(options)
    store = FileStore(disk.path / "sessions", clock=clock, durable=durable)
    store.create(OLD, sid="going")
    clock.advance(1000)
    for sid in ("kept", "deleted"):
        store.create(OLD, sid=sid)
    grow(store, "kept")
    assert fill_with_sessions(store) > 0
    ground = Ground(Path(store.directory), ("kept", "deleted", "going"))
    before = ground.sessions(ground.tree())
    for call in (
        lambda: store.create(OLD),
        lambda: store.create(OLD, sid="new"),
        lambda: store.save("kept", LARGE),
        lambda: store.regenerate("kept", LARGE),
        store.signing_key,
    ):
        with pytest.raises(StoreFull, match=r"No space left on device; free some space"):
            call()
    assert ground.sessions(ground.tree()) == before
    assert not ground.temporary(ground.tree())
    clock.advance(100)
    assert data_of(store, "kept") == OLD
    assert store.touch("kept") is True
    assert store.delete("deleted") is True
    clock.advance(830)  # what was created first has ended
    assert is_absent(store, "going")
    assert store.sweep().expired == 1
    clock.advance(1000)
    store.touch("kept")
    clock.advance(900)
    assert store.sweep().expired > 0
    assert data_of(store, "kept") == OLD
    assert store.save("kept", LARGE).version == 4
    assert store.create(OLD, sid="new").data == OLD


def test_a_save_that_half_fits_leaves_the_stored_session(make_disk: MakeDisk) -> None:
    disk = make_disk("size=128k")
    store = FileStore(disk.path / "sessions")
    store.create(OLD, sid="sid")
    path = Path(store.directory) / "sessions" / handle_of("sid")[:2] / handle_of("sid")
    before = path.read_bytes()
    filling = disk.fill(leaving=4096)
    for _ in range(3):
        with pytest.raises(StoreFull):
            store.save("sid", {"text": "x" * 10000})
        assert path.read_bytes() == before
    filling.unlink()
    assert store.save("sid", NEW).version == 2


def test_on_a_full_disk_an_ended_session_stays_ended(
    make_disk: MakeDisk, clock: ManualClock
) -> None:
    disk = make_disk("size=128k")
    store = FileStore(disk.path / "sessions", clock=clock, idle_timeout=1800)
    store.create({"text": "x" * 3800}, sid="sid")
    clock.advance(2000)
    disk.fill()
    for _ in range(3):
        assert is_absent(store, "sid")
    with pytest.raises(SessionGone):
        store.save("sid", OLD)


def test_a_directory_on_a_full_disk_can_be_opened_when_there_is_room(make_disk: MakeDisk) -> None:
    disk = make_disk("size=64k")
    filling = disk.fill()
    directory = disk.path / "sessions"
    with pytest.raises(StoreFull, match="free some space"):
        FileStore(directory)
    filling.unlink()
    store = FileStore(directory)
    disk.fill()
    with pytest.raises(StoreFull, match="free some space"):
        store.signing_key()
    with pytest.raises(StoreFull, match="free some space"):
        FileStore(directory, idle_timeout=60)
    assert sorted(os.listdir(directory)) == ["filesession.json"]
    (disk.path / "somebody's").unlink()
    assert len(store.signing_key()) == 64
    assert FileStore(directory, idle_timeout=60).lifetime.idle_timeout == 60


@pytest.mark.parametrize("room", [0, 1, 9, 40, 100])
def test_a_write_the_system_cuts_short_leaves_the_stored_session(tmp_path: Path, room: int) -> None:
    # The kernel takes what fits below the limit, and refuses the rest: a true short write.
    program = """
import resource, signal, sys
from filesession import FileStore, StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store, limit = FileStore.open(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for call in (
    lambda: store.save("chosen", {"n": 2, "text": "x" * 300}),
    lambda: store.regenerate("chosen", {"n": 2, "text": "x" * 300}, new_sid="new"),
    lambda: store.create({"text": "x" * 2000}),
):
    try:
        call()
    except StoreError as error:
        print(error)
"""
    store = FileStore(tmp_path / "sessions")
    store.create(OLD, sid="chosen")
    ground = Ground(Path(store.directory), ("chosen",))
    (path,) = (path for path in ground.tree() if handle_of("chosen") in path)
    before = ground.tree()[path][0]
    assert before is not None
    # The limit would cut the file short in which a child that is measured leaves its coverage.
    unmeasured = {name: os.environ[name] for name in os.environ if "COVERAGE" not in name}
    told = subprocess.run(
        [sys.executable, "-c", program, store.directory, str(len(before) + room)],
        check=True,
        capture_output=True,
        text=True,
        env=unmeasured,
    )
    assert told.stdout.count("File too large") == 3
    assert ground.tree()[path][0] == before
    assert ground.sessions(ground.tree()) == {"chosen": OLD}
    assert data_of(store, "chosen") == OLD


# -- read-only, away, replaced --------------------------------------------------------------------


def test_on_a_disk_that_becomes_read_only_sessions_are_read(
    make_disk: MakeDisk, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    disk = make_disk("size=1m")
    store = FileStore(disk.path / "sessions", clock=clock)
    store.create(OLD, sid="ended")
    clock.advance(1000)
    base = store.create(OLD, sid="sid")
    clock.advance(950)
    tree = Ground(Path(store.directory), ()).tree()
    disk.remount("ro")
    for _ in range(2):
        assert data_of(store, "sid") == OLD
        assert is_absent(store, "ended")
        assert is_absent(store, "unknown")
    assert data_of(FileStore.open(store.directory, clock=clock), "sid") == OLD
    assert data_of(FileStore(store.directory, clock=clock), "sid") == OLD
    assert store.sweep(dry_run=True).expired == 1
    for call in (
        lambda: store.create(OLD),
        lambda: store.save("sid", NEW, base=base),
        lambda: store.touch("sid"),
        lambda: store.touch("sid", base=base),
        lambda: store.regenerate("sid"),
        lambda: store.delete("sid"),
        lambda: store.lock("sid").acquire(),
        store.signing_key,
        store.clear,
        lambda: FileStore(store.directory, idle_timeout=60),
    ):
        with pytest.raises(StoreUnavailable, match="Read-only file system"):
            call()
    report = store.sweep()
    assert (report.expired, report.failed) == (0, 1)
    assert Ground(Path(store.directory), ()).tree() == tree
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    disk.remount("rw")
    assert is_absent(store, "ended")
    assert store.touch("sid") is True
    assert store.save("sid", NEW, base=base).data == NEW
    assert store.sweep().failed == 0


def refuses_as_vanished(store: FileStore) -> None:
    """Every verb says that the directory has vanished, and none makes it."""
    for call in (
        lambda: store.load("sid"),
        lambda: store.touch("sid"),
        lambda: store.create(OLD),
        lambda: store.create(OLD, sid="new"),
        lambda: store.save("sid", NEW),
        lambda: store.regenerate("sid", new_sid="new"),
        lambda: store.delete("sid"),
        lambda: store.lock("sid").acquire(),
        lambda: list(store.scan()),
        lambda: len(store),
        store.sweep,
        store.clear,
        store.signing_key,
        lambda: store.inspect(handle_of("sid")),
    ):
        with pytest.raises(StoreUnavailable, match=r"has vanished .*bring it back, or restart"):
            call()


def test_a_directory_that_vanishes_is_not_made_anew_and_works_when_it_is_back(
    tmp_path: Path,
) -> None:
    store = FileStore(tmp_path / "sessions")
    store.create(OLD, sid="sid")
    (tmp_path / "sessions").rename(tmp_path / "away")
    refuses_as_vanished(store)
    assert os.listdir(tmp_path) == ["away"]
    (tmp_path / "away").rename(tmp_path / "sessions")
    assert data_of(store, "sid") == OLD
    assert store.save("sid", NEW).data == NEW
    assert len(store) == 1


def test_nothing_is_written_into_the_mount_point_of_a_disk_that_is_away(
    make_disk: MakeDisk, tmp_path: Path
) -> None:
    disk, point = make_disk("size=1m"), tmp_path / "sessions"
    point.mkdir(0o700)
    with disk.shown_at(point):
        store = FileStore(point)
        store.create(OLD, sid="sid")
    refuses_as_vanished(store)
    assert os.listdir(point) == []
    with disk.shown_at(point):
        assert data_of(store, "sid") == OLD
        assert store.save("sid", NEW).data == NEW


def test_an_empty_disk_mounted_over_the_directory_is_not_taken_for_it(
    make_disk: MakeDisk, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "sessions")
    store.create(OLD, sid="sid")
    with make_disk("size=1m").shown_at(tmp_path / "sessions"):
        refuses_as_vanished(store)
        assert os.listdir(store.directory) == []
    assert data_of(store, "sid") == OLD


def test_another_session_directory_in_its_place_is_used_as_it_is(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "sessions")
    base = store.create(OLD, sid="sid")
    restored = FileStore(tmp_path / "restored")
    restored.create({"restored": True}, sid="theirs")
    (tmp_path / "sessions").rename(tmp_path / "old")
    (tmp_path / "restored").rename(tmp_path / "sessions")
    assert data_of(store, "theirs") == {"restored": True}
    assert is_absent(store, "sid")
    with pytest.raises(SessionGone):
        store.save("sid", NEW, base=base)
    assert store.create(NEW, sid="sid").data == NEW
    assert data_of(FileStore.open(tmp_path / "old"), "sid") == OLD


def test_a_lock_held_while_the_directory_is_replaced_writes_nothing_into_the_other(
    tmp_path: Path,
) -> None:
    store = FileStore(tmp_path / "sessions")
    store.create(OLD, sid="sid")
    FileStore(tmp_path / "other").create({"other": True}, sid="sid")
    with store.lock("sid") as record:
        (tmp_path / "sessions").rename(tmp_path / "old")
        (tmp_path / "other").rename(tmp_path / "sessions")
        with pytest.raises(SessionGone):
            store.save("sid", NEW, base=record)
        assert store.delete("sid") is False
    assert data_of(store, "sid") == {"other": True}
    assert data_of(FileStore.open(tmp_path / "old"), "sid") == OLD


# -- permissions, descriptors ---------------------------------------------------------------------


def test_a_process_out_of_descriptors_says_so_and_goes_on_when_it_has_some_again(
    tmp_path: Path, clock: ManualClock
) -> None:
    def starve() -> None:
        store = FileStore(tmp_path / "sessions", clock=clock, regenerate_grace=5)
        base = store.create(OLD, sid="sid")
        grow(store, "sid")
        clock.advance(100)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        taken: list[int] = []
        for spare in (0, 1):
            with suppress(OSError):
                while True:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
            for _ in range(spare):
                os.close(taken.pop())
            calls: list[Callable[[], object]] = [
                lambda: store.save("sid", LARGE),
                lambda: store.regenerate("sid", LARGE),
            ]
            if not spare:
                calls += [
                    lambda: store.create(OLD, sid="new"),
                    lambda: store.load("sid"),
                    lambda: store.save("sid", NEW, base=base),
                    lambda: store.touch("sid"),
                    lambda: store.delete("sid"),
                    lambda: store.lock("sid").acquire(),
                    lambda: len(store),
                    store.sweep,
                    store.signing_key,
                    lambda: FileStore(store.directory),
                ]
            for call in calls:
                with pytest.raises(StoreUnavailable, match=r"Too many open files; .*ulimit -n"):
                    call()
        for descriptor in taken:
            os.close(descriptor)
        assert data_of(store, "sid") == OLD
        assert store.save("sid", NEW, base=base).data == NEW
        assert store.create(OLD, sid="new").data == OLD
        assert len(store) == 2

    in_child(starve)


@pytest.mark.parametrize("closed", [".", "sessions", "shard", "file"])
def test_what_became_unreadable_to_this_user_is_an_error_that_says_what_to_do(
    public_path: Path, closed: str
) -> None:
    public_path.chmod(0o777)
    directory = public_path / "sessions"

    def use() -> None:
        store = FileStore(directory)
        store.create(OLD, sid="sid")
        shard = directory / "sessions" / handle_of("sid")[:2]
        paths = {"shard": shard, "file": shard / handle_of("sid")}
        path = paths.get(closed, directory / closed)
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(0)
        for call in (
            lambda: store.load("sid"),
            lambda: store.save("sid", NEW),
            lambda: store.delete("sid"),
            lambda: store.regenerate("sid"),
            lambda: store.create(NEW, sid="sid"),
        ):
            with pytest.raises(StoreUnavailable, match="Permission denied") as told:
                call()
            assert handle_of("sid") in str(told.value)
            assert "filesession doctor" in str(told.value)
        path.chmod(mode)
        assert data_of(store, "sid") == OLD
        assert os.listdir(public_path) == ["sessions"]
        assert store.save("sid", NEW).data == NEW

    in_child(use, as_nobody=True)


def test_a_directory_that_this_user_cannot_reach_is_not_said_to_be_missing(
    public_path: Path,
) -> None:
    above = public_path / "above"
    FileStore(above / "sessions")
    above.chmod(0)

    def use() -> None:
        for call in (FileStore.open, FileStore):
            with pytest.raises(FilesessionError, match="Permission denied"):
                call(above / "sessions")

    in_child(use, as_nobody=True)
    above.chmod(0o700)
