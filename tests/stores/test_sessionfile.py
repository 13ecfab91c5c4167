"""One session file: what is read, whose lock it is, and what each failed call leaves."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession import locks
from filesession.errors import LockTimeout, StoreError, StoreUnavailable
from filesession.stores import FileStore
from filesession.stores.entry import Entry
from filesession.stores.file import sessionfile
from filesession.stores.file.journal import line_of, seed_of
from filesession.stores.file.layout import Layout
from filesession.stores.file.sessionfile import NotASessionError, SessionFile

if TYPE_CHECKING:
    from tests.stores.conftest import Faults

NAME: Final = "ab" + "0" * 30
OTHER: Final = "cd" + "1" * 30
FULL: Final = OSError(errno.ENOSPC, "No space left on device")


def line(number: int, name: str = NAME) -> bytes:
    data = b'{"n":%d}' % number
    return line_of(Entry(number, "aa", 100.25, 100.25, data), seed_of(name))


@pytest.fixture
def layout(store: FileStore, directory: Path) -> Layout:
    return Layout(str(directory), 1)


@pytest.fixture
def path(layout: Layout) -> Path:
    """A file of one line."""
    file = created(layout)
    file.append(line(1), 100.25, sync=False, after=None)
    file.close()
    return Path(layout.path(NAME))


def created(layout: Layout) -> SessionFile:
    layout.make_shard(layout.path(NAME))
    file = SessionFile.created(layout, NAME, 0)
    assert file is not None
    return file


@contextmanager
def locked(layout: Layout, timeout: float = 0) -> Iterator[SessionFile]:
    file = SessionFile.locked(layout, NAME, timeout)
    assert file is not None
    try:
        yield file
    finally:
        file.close()


def number_in(path: Path, name: str = NAME) -> int | None:
    """What a reader finds: the version; None when it finds no session."""
    found = sessionfile.read(str(path), name)
    return None if found is None or found.entry is None else found.entry.version


class Waiter:
    """A thread that waits for the lock, and is told when to look again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
        self._waits, self._again = threading.Event(), threading.Event()
        self._layout = layout
        monkeypatch.setattr(time, "sleep", self._sleep)  # between its tries

    def _sleep(self, _: float) -> None:
        self._waits.set()
        assert self._again.wait(30)

    def after(self, change: Callable[[], None]) -> tuple[bytes | None, bool]:
        """Have it wait, make a change, and let it go on; what it then holds."""

        def wait() -> tuple[bytes | None, bool]:
            file = SessionFile.locked(self._layout, NAME, 30)
            if file is None:
                return None, False
            entry = file.snapshot().entry
            alone = not can_lock(self._layout)
            file.close()
            assert entry is not None
            return entry.data, alone

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait)
            assert self._waits.wait(30)
            change()
            self._again.set()
            return waiting.result(30)


def can_lock(layout: Layout) -> bool:
    try:
        with locked(layout):
            return True
    except LockTimeout:
        return False


class TestReading:
    def test_a_file_that_is_not_there_is_none(self, layout: Layout) -> None:
        assert sessionfile.read(layout.path(NAME), NAME) is None
        assert SessionFile.locked(layout, NAME, 0) is None

    def test_a_reader_learns_what_is_there(self, path: Path) -> None:
        found = sessionfile.read(str(path), NAME)
        assert found is not None
        assert found.entry is not None
        assert found.entry.data == b'{"n":1}'
        assert (found.mtime, found.size, found.clean) == (100.25, len(line(1)), True)
        assert found.changed == path.stat().st_ctime

    def test_a_tail_that_was_cut_short_is_not_clean(self, path: Path) -> None:
        with path.open("ab") as file:
            file.write(line(2)[:-3])
        found = sessionfile.read(str(path), NAME)
        assert found is not None
        assert found.clean is False
        assert number_in(path) == 1

    def test_the_touch_mark_comes_back_exactly(self, layout: Layout, path: Path) -> None:
        now = 1_760_000_000.123456
        for step in range(1000):
            now += step / 1024
            with locked(layout) as file:
                file.touch(now)
                assert file.snapshot().mtime == now

    @pytest.mark.parametrize(
        "kind", ["directory", "symlink", "symlink to nowhere", "fifo", "socket", "device", "huge"]
    )
    def test_what_is_no_file_of_ours_is_refused_and_not_waited_for(
        self,
        layout: Layout,
        tmp_path: Path,
        kind: str,
        monkeypatch: pytest.MonkeyPatch,
        no_descriptor_leaks: None,
    ) -> None:
        layout.make_shard(layout.path(NAME))
        path = Path(layout.path(NAME))
        elsewhere = tmp_path / "elsewhere"
        if kind == "directory":
            path.mkdir()
        elif kind == "symlink":
            elsewhere.write_bytes(line(1))
            path.symlink_to(elsewhere)
        elif kind == "symlink to nowhere":
            path.symlink_to(elsewhere)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            monkeypatch.chdir(path.parent)  # a socket's path must be short
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(path.name)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            path.write_bytes(line(1))
            os.truncate(path, sessionfile.LARGEST + 1)
        with pytest.raises(NotASessionError):
            sessionfile.read(str(path), NAME)
        with pytest.raises(NotASessionError), locked(layout) as file:
            file.snapshot()
        assert path.is_symlink() or path.exists()

    def test_the_largest_file_is_read(self, layout: Layout, path: Path) -> None:
        size = 1 << 20
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sessionfile, "LARGEST", size)
            os.truncate(path, size)
            assert number_in(path) == 1
            os.truncate(path, size + 1)
            with pytest.raises(NotASessionError):
                number_in(path)

    def test_a_read_that_comes_in_pieces_is_put_together(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pread = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 7), at))
        assert number_in(path) == 1

    def test_a_file_cut_short_while_it_is_read_is_what_is_left(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with path.open("ab") as file:
            file.write(line(2))
        pread = os.pread

        def cut(descriptor: int, size: int, at: int) -> bytes:
            os.truncate(path, len(line(1)))
            return pread(descriptor, size, at)

        monkeypatch.setattr(os, "pread", cut)
        assert number_in(path) == 1


class TestLocking:
    def test_one_that_could_not_be_opened_is_not_remembered(self, layout: Layout) -> None:
        sessionfile._open.clear()
        for _ in range(3):
            assert SessionFile.locked(layout, "0" * 32, timeout=0) is None
        assert sessionfile._open == {}

    def test_two_that_opened_the_file_exclude_each_other(
        self, layout: Layout, path: Path, no_descriptor_leaks: None
    ) -> None:
        with locked(layout):
            assert not can_lock(layout)
        assert can_lock(layout)

    def test_one_who_waited_gets_the_file(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiter = Waiter(monkeypatch, layout)
        holder = SessionFile.locked(layout, NAME, 0)
        assert holder is not None

        def append() -> None:
            holder.append(line(2), 100.25, sync=False, after=holder.snapshot())
            holder.close()

        assert waiter.after(append) == (b'{"n":2}', True)

    def test_one_who_waited_for_a_file_that_was_replaced_gets_the_new_one(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch, no_descriptor_leaks: None
    ) -> None:
        waiter = Waiter(monkeypatch, layout)
        holder = SessionFile.locked(layout, NAME, 0)
        assert holder is not None
        before = path.stat().st_ino

        def replace() -> None:
            holder.replace(layout, line(2), 100.25, durable=False)
            assert not can_lock(layout)  # the new file's lock is the holder's from the start
            holder.close()

        assert waiter.after(replace) == (b'{"n":2}', True)
        assert path.stat().st_ino != before
        assert path.read_bytes() == line(2)

    def test_one_who_waited_for_a_file_that_was_deleted_gets_none(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch, no_descriptor_leaks: None
    ) -> None:
        waiter = Waiter(monkeypatch, layout)
        holder = SessionFile.locked(layout, NAME, 0)
        assert holder is not None

        def delete() -> None:
            holder.unlink(durable=False)
            holder.close()

        assert waiter.after(delete) == (None, False)
        assert not path.exists()

    def test_one_who_waited_for_a_file_that_was_moved_gets_none(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiter = Waiter(monkeypatch, layout)
        holder = SessionFile.locked(layout, NAME, 0)
        assert holder is not None

        def move() -> None:
            holder.move_to(layout, OTHER, durable=False)
            holder.close()

        assert waiter.after(move) == (None, False)

    def test_one_who_waited_for_a_file_made_anew_gets_the_new_one(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiter = Waiter(monkeypatch, layout)
        holder = SessionFile.locked(layout, NAME, 0)
        assert holder is not None

        def make_anew() -> None:
            holder.unlink(durable=False)
            made = created(layout)
            made.append(line(9), 100.25, sync=False, after=None)
            made.close()
            holder.close()

        assert waiter.after(make_anew) == (b'{"n":9}', True)

    def test_what_is_created_is_locked(self, layout: Layout, no_descriptor_leaks: None) -> None:
        file = created(layout)
        assert not can_lock(layout)
        file.close()
        assert can_lock(layout)

    def test_what_is_created_and_taken_away_before_it_is_locked_is_none(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch, no_descriptor_leaks: None
    ) -> None:
        layout.make_shard(layout.path(NAME))

        def taken_away(descriptor: int, patience: Any) -> None:
            os.unlink(layout.path(NAME))

        monkeypatch.setattr(locks, "lock", taken_away)
        assert SessionFile.created(layout, NAME, 0) is None

    def test_a_lock_is_given_back_though_a_child_was_forked_meanwhile(
        self, layout: Layout, path: Path, no_descriptor_leaks: None
    ) -> None:
        read, write = os.pipe()
        with locked(layout):
            child = os.fork()
            if child == 0:  # pragma: no cover - coverage ends with the fork
                os.close(write)
                os.read(read, 1)
                os._exit(0)
        os.close(read)
        assert can_lock(layout)
        os.close(write)
        assert os.waitpid(child, 0)[1] == 0

    def test_a_child_that_was_forked_inside_does_not_hold_it(
        self, layout: Layout, path: Path
    ) -> None:
        with locked(layout) as file:
            child = os.fork()
            if child == 0:  # pragma: no cover - coverage ends with the fork
                try:
                    file.is_named()
                except StoreError as error:
                    file.close()
                    os._exit(0 if "forked inside the block" in str(error) else 1)
                os._exit(2)
            assert os.waitpid(child, 0)[1] == 0
            assert not can_lock(layout)


class TestWriting:
    def test_a_line_is_added_below_the_others(self, layout: Layout, path: Path) -> None:
        with locked(layout) as file:
            file.append(line(2), 200.5, sync=True, after=file.snapshot())
        assert path.read_bytes() == line(1) + line(2)
        assert path.stat().st_mtime == 200.5

    def test_a_line_is_one_write(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writes: list[bytes] = []
        write = os.write

        def counted(descriptor: int, content: bytes) -> int:
            writes.append(content)
            return write(descriptor, content)

        monkeypatch.setattr(os, "write", counted)
        with locked(layout) as file:
            file.append(line(2), 200.5, sync=False, after=file.snapshot())
        assert writes == [line(2)]

    def test_a_line_starts_on_a_line_of_its_own_below_a_cut_tail(
        self, layout: Layout, path: Path
    ) -> None:
        with path.open("ab") as file:
            file.write(line(2)[:10])
        with locked(layout) as session:
            session.append(line(3), 200.5, sync=False, after=session.snapshot())
        assert path.read_bytes() == line(1) + line(2)[:10] + b"\n" + line(3)
        assert number_in(path) == 3

    def test_a_write_that_comes_in_pieces_is_continued(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write
        monkeypatch.setattr(os, "write", lambda fd, content: write(fd, content[:7]))
        with locked(layout) as file:
            file.append(line(2), 200.5, sync=False, after=file.snapshot())
        assert path.read_bytes() == line(1) + line(2)

    def test_a_write_that_breaks_off_leaves_the_file_as_it_was(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "write", breaking_off(os.write))
        with locked(layout) as file, pytest.raises(OSError, match="No space left"):
            file.append(line(2), 200.5, sync=False, after=file.snapshot())
        assert path.read_bytes() == line(1)

    def test_a_write_that_breaks_off_for_good_leaves_a_tail_that_readers_pass_over(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch, faults: Faults
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", breaking_off(os.write))
            with (
                locked(layout) as file,
                faults.failing(OSError(errno.EIO, "Input/output error"), only=("ftruncate",)),
                pytest.raises(OSError, match="No space left"),
            ):
                file.append(line(2), 200.5, sync=False, after=file.snapshot())
        assert path.read_bytes() == line(1) + line(2)[:10]
        assert number_in(path) == 1
        with locked(layout) as file:
            file.append(line(3), 200.5, sync=False, after=file.snapshot())
        assert number_in(path) == 3

    def test_a_file_that_could_not_be_made_leaves_nothing(
        self, layout: Layout, faults: Faults, no_descriptor_leaks: None
    ) -> None:
        layout.make_shard(layout.path(NAME))
        with faults.failing(FULL, only=("fchmod",)), pytest.raises(OSError, match="No space"):
            SessionFile.created(layout, NAME, 0)
        assert not Path(layout.path(NAME)).exists()

    def test_a_discarded_file_leaves_nothing(
        self, layout: Layout, no_descriptor_leaks: None
    ) -> None:
        file = created(layout)
        file.discard()
        assert not Path(file.path).exists()
        gone = created(layout)
        os.unlink(gone.path)
        gone.discard()

    def test_a_discarded_file_takes_no_other_with_it(self, layout: Layout, path: Path) -> None:
        with locked(layout) as file:
            path.rename(path.with_name("elsewhere"))
            path.write_bytes(line(9))
            file.discard()
        assert path.read_bytes() == line(9)

    def test_no_shard_is_made_in_a_directory_that_vanished(
        self, layout: Layout, directory: Path
    ) -> None:
        (directory / "filesession.json").unlink()
        with pytest.raises(StoreUnavailable, match="has vanished"):
            layout.make_shard(layout.path(NAME))
        assert os.listdir(directory) == []


class TestReplacing:
    def test_a_replaced_file_has_the_line_alone(
        self, layout: Layout, path: Path, no_descriptor_leaks: None
    ) -> None:
        with locked(layout) as file:
            file.replace(layout, line(2), 200.5, durable=True)
            assert not can_lock(layout)
            file.append(line(3), 300.5, sync=False, after=file.snapshot())
        assert path.read_bytes() == line(2) + line(3)
        assert path.stat().st_mtime == 300.5
        assert path.stat().st_mode & 0o777 == 0o600
        assert os.listdir(path.parent) == [NAME]

    def test_one_who_reads_the_old_file_still_reads_it(self, layout: Layout, path: Path) -> None:
        with path.open("rb") as reader:
            with locked(layout) as file:
                file.replace(layout, line(2), 200.5, durable=False)
            assert reader.read() == line(1)

    def test_the_data_is_on_the_disk_before_the_name_leads_to_it(
        self, layout: Layout, path: Path, faults: Faults
    ) -> None:
        with locked(layout) as file, faults.failing(FULL, 99) as calls:
            file.replace(layout, line(2), 200.5, durable=True)
        order = [call for call in calls if call in {"write", "fdatasync", "rename", "fsync"}]
        assert order == ["write", "fdatasync", "rename", "fsync"]

    def test_no_failed_call_costs_the_old_file(
        self, layout: Layout, path: Path, faults: Faults, no_descriptor_leaks: None
    ) -> None:
        for failing in faults.each(FULL):
            path.write_bytes(line(1))
            try:
                with locked(layout) as file, failing as calls:
                    file.replace(layout, line(2), 200.5, durable=False)
            except OSError:
                assert path.read_bytes() == line(1)
            else:
                assert path.read_bytes() == line(2)
            assert os.listdir(path.parent) == [NAME]
        assert calls[-1] == "rename"

    def test_a_touch_while_the_disk_is_waited_for_is_kept(
        self, layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fdatasync", lambda _: os.utime(path, (300.5, 300.5)))
        with locked(layout) as file:
            file.replace(layout, line(2), 200.5, durable=False)
        assert path.stat().st_mtime == 300.5
        with locked(layout) as file:
            file.append(line(3), 250.5, sync=True, after=file.snapshot())
        assert path.stat().st_mtime == 300.5

    def test_one_that_is_interrupted_leaves_the_old_file(
        self, layout: Layout, path: Path, faults: Faults, no_descriptor_leaks: None
    ) -> None:
        for failing in faults.each(KeyboardInterrupt()):
            path.write_bytes(line(1))
            try:
                with locked(layout) as file, failing:
                    file.replace(layout, line(2), 200.5, durable=False)
            except KeyboardInterrupt:
                assert path.read_bytes() == line(1)
            assert os.listdir(path.parent) == [NAME]
        assert path.read_bytes() == line(2)


class TestMoving:
    def test_a_moved_file_is_the_session_of_the_other_handle(
        self, layout: Layout, path: Path
    ) -> None:
        with locked(layout) as file:
            file.append(line(2, OTHER), 200.5, sync=False, after=file.snapshot())
            file.move_to(layout, OTHER, durable=True)
            assert file.handle == OTHER
            assert file.snapshot().entry is not None
        assert not path.exists()
        assert number_in(Path(layout.path(OTHER)), OTHER) == 2

    def test_what_is_written_for_the_new_name_is_none_of_the_old_ones(
        self, layout: Layout, path: Path
    ) -> None:
        with locked(layout) as file:
            file.append(line(2, OTHER), 200.5, sync=False, after=file.snapshot())
        assert number_in(path) == 1

    def test_both_directories_are_on_the_disk_when_it_is_durable(
        self, layout: Layout, path: Path, faults: Faults
    ) -> None:
        Path(layout.path(OTHER)).parent.mkdir(exist_ok=True)
        with locked(layout) as file, faults.failing(FULL, 99) as calls:
            file.move_to(layout, OTHER, durable=True)
        assert calls == ["lstat", "lstat", "open", "open", "rename", "fsync", "fsync"]

    def test_one_that_the_disk_refuses_has_the_name_it_had(
        self, layout: Layout, path: Path, faults: Faults, no_descriptor_leaks: None
    ) -> None:
        for failing in faults.each(FULL):
            with suppress(OSError, StoreError), locked(layout) as file, failing:
                file.move_to(layout, OTHER, durable=True)
            if path.exists():
                assert number_in(path) == 1
                assert not Path(layout.path(OTHER)).exists()
            else:
                os.rename(layout.path(OTHER), path)
                break  # the last run, in which nothing failed

    def test_a_file_that_lost_its_name_cannot_be_moved(self, layout: Layout, path: Path) -> None:
        with locked(layout) as file:
            path.unlink()
            with pytest.raises(FileNotFoundError):
                file.move_to(layout, OTHER, durable=False)

    def test_a_deleted_file_holds_no_session(self, layout: Layout, path: Path) -> None:
        with locked(layout) as file:
            file.unlink(durable=False)
            assert file.handle is None
            with pytest.raises(NotASessionError):
                file.snapshot()


def breaking_off(write: Callable[[int, bytes], int]) -> Callable[[int, bytes], int]:
    """A write that takes ten bytes, and then no more: how a disk fills up."""
    taken: list[int] = []

    def half(descriptor: int, content: bytes) -> int:
        if taken:
            raise FULL
        taken.append(write(descriptor, content[:10]))
        return taken[0]

    return half
