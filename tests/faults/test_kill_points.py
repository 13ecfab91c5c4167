"""A process that dies at any system call of any verb: the session is whole, old or new, and usable.

Each verb runs in a forked child that is killed, as by ``kill -9``, before its first system call,
before its second, and so on until it comes to its end; a write is half done when it kills.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from filesession.stores import FileStore
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing import ManualClock
from filesession.testing.faults import CALLS, LOCK, SystemCalls, deadly

OLD: Final = {"n": 1}
NEW: Final = {"n": 2, "text": "x" * 300}
OTHER: Final = {"other": 1}

Verb = Callable[[FileStore], object]


def died(call: Callable[[], object], nth: int) -> bool:
    """Whether a child that makes a call was killed at its ``nth`` system call."""
    calls = SystemCalls(deadly(nth), only=(*CALLS, LOCK))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with calls:
                call()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def each_death(prepare: Callable[[], object], call: Callable[[], object]) -> Iterator[bool]:
    """Prepare and call, killed ever later; gives whether it died, False the last time."""
    nth, alive = 0, False
    while not alive:
        nth += 1
        prepare()
        alive = not died(call, nth)
        yield not alive
    assert nth > 1


def data_of(store: FileStore, sid: str) -> dict[str, Any] | None:
    record = store.load(sid)
    return None if record is None else record.data


def files(directory: Path) -> list[Path]:
    return sorted(path for path in (directory / "sessions").rglob("*") if not path.is_dir())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=[False, True], ids=["", "durable"])
def store(request: pytest.FixtureRequest, directory: Path, clock: ManualClock) -> FileStore:
    return FileStore(directory, durable=request.param, clock=clock)


@pytest.fixture(params=[0, LONGEST_JOURNAL - 500], ids=["short", "long"])
def prepare(request: pytest.FixtureRequest, store: FileStore) -> Callable[[], None]:
    """One session to work on, whose file may be about to be replaced, and another."""

    def prepared() -> None:
        store.clear()
        store.create(OTHER, sid="other")
        store.create(OLD, sid="sid")
        if request.param:
            store.save("sid", {"text": "x" * request.param})
            store.save("sid", OLD)

    return prepared


@pytest.fixture
def grown_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies about is no writer's work in progress any more."""
    monkeypatch.setattr("filesession.stores.file.sessionfile.YOUNG", -1.0)
    monkeypatch.setattr("filesession.stores.file.reaper.YOUNG", -1.0)


@pytest.fixture
def check(store: FileStore, directory: Path, grown_old: None) -> Callable[..., None]:
    """Everything else is as it was, what is left over is swept, and work goes on."""

    def checked(*live: str) -> None:
        assert data_of(store, "other") == OTHER
        for sid in live:
            record = store.save(sid, {"n": 3})
            assert data_of(store, sid) == {"n": 3}
            assert record == store.load(sid)
        store.sweep()
        assert len(files(directory)) == len(live) + 1
        assert store.sweep().leftovers == 0

    return checked


@pytest.mark.parametrize("sid", ["new", None], ids=["chosen", "random"])
def test_create(
    store: FileStore, prepare: Callable[[], None], check: Callable[..., None], sid: str | None
) -> None:
    for killed in each_death(prepare, lambda: store.create(NEW, sid=sid)):
        found = data_of(store, "new") if sid else None
        assert found in ((NEW, None) if killed or not sid else (NEW,))
        others = [info.handle for info in store.scan()]
        if found is None and len(others) == 3:  # made under an id that died with its maker
            store.evict(next(h for h in others if store.inspect(h)[1] == NEW))  # type: ignore[index]
        check("sid", *(["new"] if found else []))


def lock_and_save(store: FileStore) -> None:
    with store.lock("sid") as record:
        store.save("sid", NEW, base=record)


@pytest.mark.parametrize(
    "verb",
    [
        lambda store: store.save("sid", NEW),
        lambda store: store.save("sid", NEW, base=store.load("sid")),
        lock_and_save,
    ],
    ids=["save", "save with its base", "save under the lock"],
)
def test_save(
    store: FileStore, prepare: Callable[[], None], check: Callable[..., None], verb: Verb
) -> None:
    for killed in each_death(prepare, lambda: verb(store)):
        assert data_of(store, "sid") in ((OLD, NEW) if killed else (NEW,))
        check("sid")


@pytest.mark.parametrize("new_sid", ["new", None], ids=["chosen", "random"])
def test_regenerate_leaves_one_id_that_works(
    store: FileStore, prepare: Callable[[], None], check: Callable[..., None], new_sid: str | None
) -> None:
    for killed in each_death(prepare, lambda: store.regenerate("sid", NEW, new_sid=new_sid)):
        states = data_of(store, "sid"), data_of(store, "new")
        assert len([info for info in store.scan() if info.size]) == 2
        if new_sid is None:
            assert states in (((OLD, None), (None, None)) if killed else ((None, None),))
            if states[0] is None:
                (handle,) = [
                    info.handle
                    for info in store.scan()
                    if store.inspect(info.handle)[1] == NEW  # type: ignore[index]
                ]
                store.evict(handle)
        else:
            assert states in (((OLD, None), (None, NEW)) if killed else ((None, NEW),))
        check(*(sid for sid, state in zip(("sid", "new"), states, strict=True) if state))


def test_in_a_grace_the_old_id_always_opens_the_session(
    store: FileStore,
    directory: Path,
    clock: ManualClock,
    prepare: Callable[[], None],
    check: Callable[..., None],
) -> None:
    kind = FileStore(directory, durable=store._durable, clock=clock, regenerate_grace=5)
    for killed in each_death(prepare, lambda: kind.regenerate("sid", NEW, new_sid="new")):
        found, moved = kind.load("sid"), data_of(store, "new")
        assert found is not None
        assert (found.data, found.forwarded) == ((NEW, True) if moved else (OLD, False))
        assert moved == (NEW if not killed or moved else None)
        assert data_of(store, "sid") == (None if moved else OLD)
        check("new" if moved else "sid")
        assert not list((directory / "moved").glob("*"))


def test_delete(store: FileStore, prepare: Callable[[], None], check: Callable[..., None]) -> None:
    for killed in each_death(prepare, lambda: store.delete("sid")):
        found = data_of(store, "sid")
        assert found in ((OLD, None) if killed else (None,))
        check(*(["sid"] if found else []))


def test_touch(
    store: FileStore, prepare: Callable[[], None], check: Callable[..., None], clock: ManualClock
) -> None:
    def touched() -> None:
        assert store.touch("sid", base=None)

    def prepared() -> None:
        prepare()
        clock.advance(100)

    for _ in each_death(prepared, touched):
        assert data_of(store, "sid") == OLD
        check("sid")


def test_a_sweep_loses_nothing_but_what_was_due(
    store: FileStore, directory: Path, check: Callable[..., None], clock: ManualClock
) -> None:
    def prepared() -> None:
        store.clear()
        for n in range(3):
            store.create({"due": n}, sid=f"due {n}")
        clock.advance(2000)
        store.create(OTHER, sid="other")
        store.create(OLD, sid="sid")
        shard = directory / "sessions" / "ab"
        shard.mkdir(0o700, exist_ok=True)
        (shard / ("ab" * 16)).write_bytes(b"damage")
        (shard / f".{'ab' * 16}.0123.tmp").write_bytes(b"left over")

    for killed in each_death(prepared, store.sweep):
        if not killed:
            assert len(store) == 2
        assert all(data_of(store, f"due {n}") is None for n in range(3))
        assert data_of(store, "sid") == OLD
        check("sid")


def test_the_directory_can_be_opened_however_far_it_was_made(tmp_path: Path) -> None:
    number, alive = 0, False
    while not alive:
        number += 1
        directory = tmp_path / str(number)
        alive = not died(lambda: FileStore(directory, shard_depth=2), number)  # noqa: B023
        store = FileStore(directory)
        assert store.create(OLD).id
        assert (directory.stat().st_mode & 0o777) == 0o700
        assert store._layout.shard_depth in ((1, 2) if not alive else (2,))
    assert number > 5


def test_the_signing_key_is_whole_or_not_there(tmp_path: Path) -> None:
    number, alive = 0, False
    while not alive:
        number += 1
        store = FileStore(tmp_path / str(number))
        alive = not died(store.signing_key, number)
        assert len(store.signing_key()) == 64
        assert store.signing_key() == FileStore(tmp_path / str(number)).signing_key()
