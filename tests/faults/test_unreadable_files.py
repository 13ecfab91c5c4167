"""One file, shard or line that cannot be read or written: what could not be read is never taken for
what is not there, and nothing else suffers by it.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from filesession.errors import SessionGone, StoreUnavailable
from filesession.janitor import Janitor
from filesession.stores import FileStore
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCall, SystemCalls, meanwhile
from tests.faults.conftest import error_of, handle_of, nothing_left_open, refusing

OLD: Final = {"n": 1}
NEW: Final = {"n": 2}


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    with nothing_left_open():
        yield


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def store(directory: Path, clock: ManualClock) -> FileStore:
    return FileStore(directory, clock=clock)


@pytest.fixture
def path(directory: Path) -> Callable[[str], Path]:
    """Where a session lies."""
    return lambda sid: directory / "sessions" / handle_of(sid)[:2] / handle_of(sid)


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE, errno.ENOMEM]
)
@pytest.mark.parametrize(
    "verb",
    [
        lambda store: store.load("the id"),
        lambda store: store.touch("the id"),
        lambda store: store.save("the id", NEW),
        lambda store: store.delete("the id"),
        lambda store: store.regenerate("the id"),
        lambda store: store.lock("the id").__enter__(),
        lambda store: store.create(NEW, sid="the id"),
        lambda store: store.inspect(handle_of("the id")),
    ],
    ids=["load", "touch", "save", "delete", "regenerate", "lock", "create", "inspect"],
)
def test_a_file_that_cannot_be_opened_is_an_error_and_stays_where_it_is(
    store: FileStore, path: Callable[[str], Path], verb: Callable[[FileStore], Any], code: int
) -> None:
    store.create(OLD, sid="the id")
    with (
        SystemCalls(refusing(code, path("the id"))),
        pytest.raises(StoreUnavailable, match=os.strerror(code)) as told,
    ):
        verb(store)
    assert "the id" not in str(told.value)
    assert handle_of("the id") in str(told.value)
    record = store.load("the id")
    assert record is not None
    assert record.data == OLD


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_one_that_cannot_be_opened_keeps_no_other_from_being_listed_and_swept(  # noqa: PLR0917
    store: FileStore,
    directory: Path,
    path: Callable[[str], Path],
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    for sid in ("bad", "one", "another"):
        store.create(OLD, sid=sid)
    clock.advance(2000)
    with SystemCalls(refusing(code, path("bad"))):
        assert {info.handle for info in store.scan()} == {handle_of("one"), handle_of("another")}
        report = Janitor(store).sweep_once()
        assert (report.examined, report.expired, report.failed) == (3, 2, 1)
        with pytest.raises(StoreUnavailable, match=os.strerror(code)):
            store.clear()
    assert [found for found in (directory / "sessions").rglob("*") if found.is_file()] == [
        path("bad")
    ]
    assert report.failure is not None
    assert report.failure.startswith(f"sweeping session {handle_of('bad')}: {os.strerror(code)}")
    assert f"reading session {handle_of('bad')}: {os.strerror(code)}" in caplog.text
    assert store.clear() == 0
    assert len(store) == 0


def test_a_shard_that_cannot_be_listed_is_told_when_the_rest_is_done(
    store: FileStore, path: Callable[[str], Path], clock: ManualClock
) -> None:
    for n in range(20):
        store.create(OLD, sid=f"sid-{n}")
    clock.advance(2000)
    shard = path("sid-3").parent
    with (
        SystemCalls(refusing(errno.EIO, shard)),
        pytest.raises(StoreUnavailable, match=rf"listing {shard}: Input/output error"),
    ):
        store.sweep()
    assert len(store) == len(list(shard.iterdir()))


@pytest.mark.parametrize("written", [0, 1, 20])
def test_an_ended_session_is_not_brought_back_by_a_disk_too_full_to_say_so(
    store: FileStore, path: Callable[[str], Path], clock: ManualClock, written: int
) -> None:
    store.create(OLD, sid="ended")
    clock.advance(2000)

    def full(call: SystemCall) -> Any:
        descriptor, line = call.arguments
        if written:
            call.function(descriptor, line[:written])
        raise error_of(errno.ENOSPC)

    for _ in range(3):
        with SystemCalls(full, only=("write",)):
            assert store.load("ended") is None
    assert store.load("ended") is None
    with pytest.raises(SessionGone):
        store.save("ended", NEW)


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_shard_whose_name_may_not_last_is_not_built_upon(
    directory: Path, path: Callable[[str], Path], call: str
) -> None:
    store = FileStore(directory, durable=True)
    store.create(sid="first")  # makes the directory of all shards

    def refuse(asked: SystemCall) -> Any:
        if asked.name == call and (call == "fsync" or asked.arguments[0] == str(parent)):
            raise error_of(errno.EMFILE)
        return asked.make()

    parent = path("sid").parent.parent
    with SystemCalls(refuse), pytest.raises(StoreUnavailable, match="Too many open files"):
        store.create(OLD, sid="sid")
    with SystemCalls() as calls:
        store.create(OLD, sid="sid")
    synced = {made.arguments[0] for made in calls.calls if made.name == "fsync"}
    opened = {
        made.arguments[0] for made in calls.calls if made.name == "open" and made.result in synced
    }
    assert {str(parent), str(path("sid").parent)} <= opened


@pytest.mark.parametrize("nth", range(1, 8))
@pytest.mark.parametrize("durable", [False, True], ids=["", "durable"])
def test_a_shard_that_is_removed_while_a_session_is_made_is_made_anew(
    directory: Path,
    path: Callable[[str], Path],
    durable: bool,  # noqa: FBT001 - a row of the table
    nth: int,
) -> None:
    store = FileStore(directory, durable=durable)
    store.create(sid="first")
    shard = path("sid").parent

    def remove() -> None:
        shutil.rmtree(shard, ignore_errors=True)

    with SystemCalls(meanwhile(remove, nth)) as calls, suppress(StoreUnavailable):
        store.create(OLD, sid="sid")
    assert calls.names().count("mkdir") <= 2
    record = store.load("sid")
    if record is None:
        assert store.create(OLD, sid="sid").data == OLD
    assert stat.S_IMODE(shard.stat().st_mode) == 0o700


def test_sessions_deleted_before_their_shard_vanished_stay_deleted(
    store: FileStore, directory: Path, path: Callable[[str], Path]
) -> None:
    store.create(OLD, sid="deleted")
    base = store.create(OLD, sid="removed")
    store.delete("deleted")
    shutil.rmtree(directory / "sessions")
    for sid in ("deleted", "removed"):
        assert store.load(sid) is None
        assert store.touch(sid) is False
        assert store.delete(sid) is False
        for call in (store.save, store.regenerate):
            with pytest.raises(SessionGone):
                call(sid, NEW, base=base)
    assert not (directory / "sessions").exists()
    assert store.create(NEW, sid="new").data == NEW
    assert stat.S_IMODE((directory / "sessions").stat().st_mode) == 0o700
    assert len(store) == 1


def test_a_shard_that_is_removed_while_a_session_moves_there_is_made_anew(
    store: FileStore, path: Callable[[str], Path]
) -> None:
    def remove() -> None:
        shutil.rmtree(path("new").parent, ignore_errors=True)

    nth, reached = 0, True
    while reached:
        nth += 1
        store.create(OLD, sid="old")
        with SystemCalls(meanwhile(remove, nth)) as calls:
            assert store.regenerate("old", NEW, new_sid="new").data == NEW
        reached = len(calls.calls) >= nth
        store.delete("new")
