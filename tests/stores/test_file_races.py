"""Who does what between another's two system calls; and processes that do it all at once."""

from __future__ import annotations

import contextvars
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession import locks
from filesession.errors import (
    ConfigurationError,
    ConflictError,
    LockTimeout,
    SessionExists,
    SessionGone,
)
from filesession.record import SessionRecord
from filesession.stores import FileStore
from filesession.stores.file.sessionfile import SessionFile
from filesession.testing import ManualClock
from filesession.testing.base import at_once, of_type

if TYPE_CHECKING:
    from tests.stores.conftest import Processes, Raw

LONG: Final = {"text": "x" * 3000}
"""Saved a few times, it has the file replaced."""


def data_of(store: FileStore, sid: str) -> dict[str, Any] | None:
    record = store.load(sid)
    return None if record is None else record.data


class Between:
    """Lets another act once, at a given moment inside a call of ours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.acted = False

    def opening_and_locking(self, other: Callable[[], object]) -> None:
        """After the file was opened, before its lock is asked for."""
        self._once(locks, "lock", other)

    def creating_and_locking(self, other: Callable[[], object]) -> None:
        """After a file was made, empty, before its lock is asked for."""
        self._once(locks, "lock", other)

    def appending_and_moving(self, other: Callable[[], object]) -> None:
        """After a regenerate's line was written, before the file is renamed."""
        self._once(SessionFile, "move_to", other)

    def looking_and_touching(self, other: Callable[[], object]) -> None:
        """Before the modification time is set."""
        self._once(os, "utime", other)

    def _once(self, where: object, name: str, other: Callable[[], object]) -> None:
        real = getattr(where, name)

        def acting(*arguments: Any, **keywords: Any) -> Any:
            self._patch.setattr(where, name, real)
            self.acted = True
            other()
            return real(*arguments, **keywords)

        self._patch.setattr(where, name, acting)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    return Between(monkeypatch)


@pytest.fixture
def other(directory: Path, clock: ManualClock, store: FileStore) -> FileStore:
    """Another process's store of the same directory."""
    return FileStore(directory, clock=clock)


class TestBetweenOpeningAndLocking:
    @pytest.mark.parametrize(
        "end",
        [lambda other: other.delete("chosen"), lambda other: other.regenerate("chosen")],
        ids=["deleted", "regenerated"],
    )
    @pytest.mark.parametrize(
        "verb",
        [
            lambda store: store.save("chosen", {"n": 2}),
            lambda store: store.regenerate("chosen", new_sid="new"),
            lambda store: store.lock("chosen").__enter__(),
        ],
        ids=["save", "regenerate", "lock"],
    )
    def test_a_session_that_ends_is_gone(
        self,
        store: FileStore,
        other: FileStore,
        between: Between,
        verb: Callable[[FileStore], object],
        end: Callable[[FileStore], object],
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        between.opening_and_locking(lambda: end(other))
        with pytest.raises(SessionGone):
            verb(store)
        assert between.acted
        assert store.load("chosen") is None
        assert store.load("new") is None

    def test_a_session_that_another_deleted_is_not_deleted_again(
        self, store: FileStore, other: FileStore, between: Between
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        between.opening_and_locking(lambda: other.delete("chosen"))
        assert store.delete("chosen") is False

    def test_a_session_of_the_same_id_made_meanwhile_is_not_saved_over(
        self, store: FileStore, other: FileStore, between: Between
    ) -> None:
        base = store.create({"n": 1}, sid="chosen")

        def make_anew() -> None:
            other.delete("chosen")
            other.create({"n": "new"}, sid="chosen")

        between.opening_and_locking(make_anew)
        with pytest.raises(SessionGone):
            store.save("chosen", {"n": 2}, base=base)
        assert data_of(store, "chosen") == {"n": "new"}

    @pytest.mark.parametrize("data", [{"n": 2}, LONG], ids=["appended", "replaced"])
    def test_what_another_saved_is_merged(
        self, store: FileStore, other: FileStore, raw: Raw, between: Between, data: dict[str, Any]
    ) -> None:
        base = store.create({"n": 1}, sid="chosen")
        inode = raw.path("chosen").stat().st_ino

        def save() -> None:
            for n in range(8):
                other.save("chosen", data | {"theirs": n})

        between.opening_and_locking(save)
        saved = store.save("chosen", {"n": 1, "ours": 1}, base=base)
        assert saved.data == data | {"theirs": 7, "ours": 1} | (
            {"n": 2} if data is not LONG else {}
        )
        assert store.load("chosen") == saved
        assert (raw.path("chosen").stat().st_ino == inode) is (data is not LONG)

    def test_a_conflict_is_found_under_the_lock(
        self, store: FileStore, other: FileStore, between: Between
    ) -> None:
        base = store.create({"n": 1}, sid="chosen")
        between.opening_and_locking(lambda: other.save("chosen", {"n": 2}))
        with pytest.raises(ConflictError):
            store.save("chosen", {"n": 3}, base=base, conflict="error")
        assert data_of(store, "chosen") == {"n": 2}

    def test_a_session_that_expires_is_gone(
        self, store: FileStore, between: Between, clock: ManualClock
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        between.opening_and_locking(lambda: clock.advance(10_000))
        with pytest.raises(SessionGone):
            store.save("chosen", {"n": 2})
        assert store.load("chosen") is None


class TestBetweenCreatingAndLocking:
    def test_a_reader_who_takes_the_empty_file_for_damage_costs_nothing(
        self, store: FileStore, other: FileStore, raw: Raw, between: Between
    ) -> None:
        between.creating_and_locking(lambda: other.load("chosen"))
        store.create({"n": 1}, sid="chosen")
        assert between.acted
        assert data_of(store, "chosen") == {"n": 1}
        assert raw.set_aside() == []

    def test_another_who_creates_the_same_id_wins_or_loses_whole(
        self, store: FileStore, other: FileStore, raw: Raw, between: Between
    ) -> None:
        between.creating_and_locking(lambda: other.create({"n": "theirs"}, sid="chosen"))
        with pytest.raises(SessionExists):
            store.create({"n": "ours"}, sid="chosen")
        assert data_of(store, "chosen") == {"n": "theirs"}
        assert raw.files() == [raw.path("chosen")]

    def test_another_who_deletes_it_deleted_nothing_that_was_there(
        self, store: FileStore, other: FileStore, between: Between
    ) -> None:
        answers: list[bool] = []
        between.creating_and_locking(lambda: answers.append(other.delete("chosen")))
        store.create({"n": 1}, sid="chosen")
        assert answers == [False]
        assert data_of(store, "chosen") == {"n": 1}


class TestBetweenAppendingAndMoving:
    def test_a_reader_sees_the_old_session_alone(
        self, store: FileStore, other: FileStore, between: Between
    ) -> None:
        store.create({"n": 1}, sid="old")
        seen: list[object] = []
        between.appending_and_moving(
            lambda: seen.extend([data_of(other, "old"), data_of(other, "new")])
        )
        store.regenerate("old", {"n": 2}, new_sid="new")
        assert seen == [{"n": 1}, None]
        assert (data_of(store, "old"), data_of(store, "new")) == (None, {"n": 2})

    def test_a_touch_of_the_old_id_is_no_error(
        self, store: FileStore, other: FileStore, between: Between, clock: ManualClock
    ) -> None:
        base = store.create({"n": 1}, sid="old")
        clock.advance(100)
        between.appending_and_moving(lambda: other.touch("old", base=base))
        store.regenerate("old", {"n": 2}, new_sid="new")
        assert data_of(store, "new") == {"n": 2}


class TestBetweenLookingAndTouching:
    def test_a_session_that_is_deleted_is_not_touched_to_life(
        self, store: FileStore, other: FileStore, raw: Raw, between: Between, clock: ManualClock
    ) -> None:
        base = store.create({"n": 1}, sid="chosen")
        clock.advance(100)
        between.looking_and_touching(lambda: other.delete("chosen"))
        assert store.touch("chosen", base=base) is False
        assert raw.files() == []

    def test_what_is_saved_is_not_undone(
        self, store: FileStore, other: FileStore, between: Between, clock: ManualClock
    ) -> None:
        base = store.create({"n": 1}, sid="chosen")
        clock.advance(100)
        between.looking_and_touching(lambda: other.save("chosen", {"n": 2}))
        assert store.touch("chosen", base=base) is True
        assert data_of(store, "chosen") == {"n": 2}


class TestProcesses:
    def test_keys_added_by_eight_processes_are_all_there(
        self, directory: Path, processes: Processes
    ) -> None:
        program = """
import sys
from filesession import FileStore
me, store = sys.argv[1], FileStore.open(sys.argv[2])
base = store.load("chosen")
for n in range(50):
    base = store.save("chosen", base.data | {f"{me}.{n}": n}, base=base)
"""
        store = FileStore(directory)
        store.create({"start": True}, sid="chosen")
        processes.run(program, directory, count=8)
        record = store.load("chosen")
        assert record is not None
        expected = {f"{process}.{n}": n for process in range(8) for n in range(50)}
        assert record.data == {"start": True} | expected
        assert record.version == 401

    def test_increments_under_the_lock_are_exact_across_processes_and_threads(
        self, directory: Path, processes: Processes
    ) -> None:
        program = """
import sys, threading
from filesession import FileStore
store = FileStore.open(sys.argv[2])
def increment():
    for _ in range(50):
        with store.lock("chosen", timeout=60) as record:
            store.save("chosen", {"n": record.data["n"] + 1})
threads = [threading.Thread(target=increment) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
        store = FileStore(directory)
        store.create({"n": 0}, sid="chosen")
        processes.run(program, directory, count=4)
        record = store.load("chosen")
        assert record is not None
        # Two detectors: what was counted, and how often it was saved.
        assert (record.data, record.version) == ({"n": 400}, 401)

    def test_readers_see_whole_states_and_never_older_ones(
        self, directory: Path, processes: Processes
    ) -> None:
        program = """
import sys
from filesession import FileStore
me, store = int(sys.argv[1]), FileStore.open(sys.argv[2])
if me < 2:
    for n in range(150):
        store.save("chosen", {"one": [me, n], "text": "x" * 1000, "two": [me, n]})
else:
    seen = 0
    while seen < 300:
        record = store.load("chosen")
        assert record is not None
        assert record.data["one"] == record.data["two"]
        assert record.version >= seen
        seen = record.version
"""
        store = FileStore(directory)
        store.create({"one": 0, "two": 0}, sid="chosen")
        processes.run(program, directory, count=4)
        assert not (directory / "corrupt").exists()

    def test_a_session_deleted_under_the_hands_of_savers_stays_deleted(
        self, directory: Path, raw: Raw, processes: Processes
    ) -> None:
        program = """
import sys
from filesession import FileStore, SessionGone
me, store = int(sys.argv[1]), FileStore.open(sys.argv[2])
for n in range(40):
    sid = f"session {n}"
    try:
        if me == 0:
            print(store.delete(sid))
        elif me == 1:
            store.regenerate(sid, new_sid=f"moved {n}")
            store.delete(f"moved {n}")
            print(True)
        else:
            for k in range(5):
                store.save(sid, {"k": k, "text": "x" * 4000})
    except SessionGone:
        pass
"""
        store = FileStore(directory)
        for n in range(40):
            store.create(sid=f"session {n}")
        printed = "".join(processes.run(program, directory, count=4))
        assert printed.count("True") == 40
        assert raw.files() == []

    def test_of_processes_that_create_the_same_id_one_wins(
        self, directory: Path, raw: Raw, processes: Processes
    ) -> None:
        program = """
import sys
from filesession import FileStore, SessionExists
me, store = sys.argv[1], FileStore.open(sys.argv[2])
for n in range(40):
    try:
        store.create({"by": me}, sid=f"session {n}")
        print("won", n, me)
    except SessionExists:
        pass
    assert store.load(f"session {n}") is not None
"""
        store = FileStore(directory)
        printed = "".join(processes.run(program, directory, count=4)).split("\n")
        won = dict(line.split()[1:] for line in printed if line)
        assert len(won) == len([line for line in printed if line]) == 40
        for n, winner in won.items():
            assert data_of(store, f"session {n}") == {"by": winner}
        assert len(raw.files()) == 40

    def test_a_killed_holder_keeps_nobody_waiting(self, directory: Path) -> None:
        program = """
import sys, time
from filesession import FileStore
with FileStore.open(sys.argv[1]).lock("chosen"):
    print("held", flush=True)
    input()
"""
        store = FileStore(directory)
        store.create({"n": 1}, sid="chosen")
        with subprocess.Popen(
            [sys.executable, "-c", program, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(LockTimeout):
                store.without_waiting().save("chosen", {"n": 2})
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            store.without_waiting().save("chosen", {"n": 2})
        assert data_of(store, "chosen") == {"n": 2}

    def test_a_store_made_before_a_fork_serves_both_sides(
        self, directory: Path, processes: Processes
    ) -> None:
        program = """
import os, sys
from filesession import FileStore
store = FileStore.open(sys.argv[2])
base = store.load("chosen")
children = []
for me in range(4):
    child = os.fork()
    if child == 0:
        for n in range(25):
            base = store.save("chosen", base.data | {f"{me}.{n}": n}, base=base)
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
        store = FileStore(directory)
        store.create(sid="chosen")
        processes.run(program, directory, count=1)
        record = store.load("chosen")
        assert record is not None
        assert (len(record.data), record.version) == (100, 101)


class TestThreads:
    def test_two_stores_of_one_directory_exclude_each_other_in_one_process(
        self, store: FileStore, other: FileStore
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        with (
            store.lock("chosen"),
            pytest.raises(LockTimeout),
            other.lock("chosen", timeout=0),
        ):
            raise AssertionError

    def test_saves_by_many_threads_are_all_kept(self, store: FileStore) -> None:
        base = store.create({}, sid="chosen")

        def save(thread: int) -> SessionRecord:
            mine = base
            for n in range(25):
                mine = store.save("chosen", mine.data | {f"{thread}.{n}": n}, base=mine)
            return mine

        at_once(8, save)
        record = store.load("chosen")
        assert record is not None
        assert (len(record.data), record.version) == (200, 201)

    def test_threads_that_share_a_lock_take_turns(self, store: FileStore) -> None:
        # As work that the holder of the lock hands to worker threads does.
        base = store.create({}, sid="chosen")
        with store.lock("chosen"):
            contexts = [contextvars.copy_context() for _ in range(4)]

            def save(n: int) -> SessionRecord:
                return contexts[n].run(store.save, "chosen", {f"key {n}": n}, base=base)

            assert len(of_type(at_once(4, save), SessionRecord)) == 4
        assert data_of(store, "chosen") == {f"key {n}": n for n in range(4)}


class TestRemovedByHand:
    """Files that are removed or replaced beside all locks, by ``find -delete`` or a restore."""

    @pytest.mark.parametrize("left", ["nothing", "another file"])
    @pytest.mark.parametrize(
        "verb",
        [
            lambda store, record: store.save("chosen", {"n": 2}, base=record),
            lambda store, record: store.regenerate("chosen", base=record),
            lambda store, record: store.lock("chosen").__enter__(),
        ],
        ids=["save", "regenerate", "lock"],
    )
    def test_a_session_removed_under_its_lock_is_gone(
        self,
        store: FileStore,
        raw: Raw,
        left: str,
        verb: Callable[[FileStore, Any], object],
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        with store.lock("chosen") as record:
            path.unlink()
            if left == "another file":
                path.write_bytes(b"restored")
            with pytest.raises(SessionGone):
                verb(store, record)
        assert len(raw.files()) == (left == "another file")

    def test_a_session_removed_while_it_is_regenerated_is_gone(
        self, store: FileStore, raw: Raw, between: Between
    ) -> None:
        store.create({"n": 1}, sid="old")
        between.appending_and_moving(lambda: raw.path("old").unlink())
        with pytest.raises(SessionGone):
            store.regenerate("old", {"n": 2}, new_sid="new")
        assert raw.files() == []

    def test_the_lock_of_a_session_that_was_never_there_is_gone(self, store: FileStore) -> None:
        with pytest.raises(SessionGone):
            store.lock("unknown").acquire()


class TestTwoIdsForOne:
    def test_of_two_that_regenerate_to_one_id_one_gets_it(
        self, store: FileStore, other: FileStore, between: Between
    ) -> None:
        store.create({"user": "ada"}, sid="a")
        store.create({"user": "eve"}, sid="b")
        told: list[Exception] = []

        def regenerate_too() -> None:
            other._access.timeout = 0
            with pytest.raises(LockTimeout) as error:
                other.regenerate("b", new_sid="new")
            told.append(error.value)

        between.appending_and_moving(regenerate_too)
        store.regenerate("a", new_sid="new")
        assert told
        with pytest.raises(SessionExists):
            other.regenerate("b", new_sid="new")
        assert data_of(store, "new") == {"user": "ada"}
        assert data_of(store, "b") == {"user": "eve"}

    def test_a_session_cannot_be_made_where_another_is_about_to_move(
        self, store: FileStore, other: FileStore, between: Between
    ) -> None:
        store.create({"user": "ada"}, sid="a")

        def create_there() -> None:
            with pytest.raises(LockTimeout):
                other.without_waiting().create({"user": "eve"}, sid="new")

        between.appending_and_moving(create_there)
        store.regenerate("a", new_sid="new")
        assert data_of(store, "new") == {"user": "ada"}

    def test_one_that_fails_gives_the_id_back(self, store: FileStore, raw: Raw) -> None:
        with pytest.raises(SessionGone):
            store.regenerate("unknown", new_sid="new")
        assert raw.files() == []
        store.create({"n": 1}, sid="new")
        with pytest.raises(SessionExists):
            store.regenerate("new", new_sid="new")


def test_a_store_opened_at_the_same_moment_with_another_shard_depth_is_refused(
    directory: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def second_was_first(source: str, target: str) -> None:
        monkeypatch.setattr(os, "link", link)
        FileStore(directory, shard_depth=2, clock=clock)
        link(source, target)

    monkeypatch.setattr(os, "link", second_was_first)
    with pytest.raises(ConfigurationError, match="was made with shard_depth=2, not 1"):
        FileStore(directory, shard_depth=1, clock=clock)
    assert FileStore(directory, clock=clock).create(sid="chosen").id == "chosen"
    assert not list(directory.glob("*.tmp"))


def test_other_timeouts_are_told_of(
    directory: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    FileStore(directory, idle_timeout=86_400, clock=clock)
    assert caplog.records == []
    FileStore(directory, clock=clock)
    assert f"{directory}: idle_timeout is now 1800.0, and was 86400.0" in caplog.text


def test_what_is_no_file_and_was_made_one_meanwhile_is_left(
    store: FileStore, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create({"n": 1}, sid="chosen")
    assert not store._layout.set_aside_odd(raw.name("chosen"))
    raw.path("other").parent.mkdir(exist_ok=True)
    assert not store._layout.set_aside_odd(raw.name("other"))
    assert raw.files() == [raw.path("chosen")]


def test_what_is_no_file_is_set_aside_and_counted_once(store: FileStore, raw: Raw) -> None:
    raw.path("odd").mkdir(parents=True)
    assert store._layout.set_aside_odd(raw.name("odd"))
    assert not store._layout.set_aside_odd(raw.name("odd"))
    assert not raw.path("odd").exists()
