"""The ways to a session that open only when another is faster, each at its one moment."""

from __future__ import annotations

import contextvars
import threading
from pathlib import Path
from typing import Any, Self

import pytest

from filesession.errors import ConfigurationError, StoreUnavailable
from filesession.stores import FileStore, MemoryStore
from filesession.stores.entry import handle_of
from filesession.stores.file.layout import Layout
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCalls, meanwhile
from tests.stores.conftest import line_for


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


class Turnstile:
    """Stands for a lock's mutex, and lets something happen before who asked for it passes."""

    def __init__(self, step: Any) -> None:
        self._step = step
        self._mutex = threading.RLock()

    def __enter__(self) -> Self:
        step, self._step = self._step, lambda: None
        step()
        self._mutex.acquire()
        return self

    def __exit__(self, *reason: object) -> None:
        self._mutex.release()


def test_one_who_inherited_a_lock_that_is_given_back_meanwhile_takes_it_itself(
    directory: Path,
) -> None:
    store = FileStore(directory)
    store.create(sid="sid")
    lock = store.lock("sid")
    record = lock.__enter__()
    inherited = contextvars.copy_context()
    lock.mutex = Turnstile(lock.release)  # type: ignore[assignment]
    saved: list[Any] = []
    saver = threading.Thread(
        target=inherited.run, args=(lambda: saved.append(store.save("sid", {"n": 1})),)
    )
    saver.start()
    saver.join(30)
    assert saved[0].version == record.version + 1
    with store.lock("sid", timeout=0) as fresh:
        assert fresh.data == {"n": 1}


def test_a_touch_is_not_of_another_session_that_got_the_same_id(
    directory: Path, clock: ManualClock
) -> None:
    store = FileStore(directory, clock=clock)
    base = store.create(sid="sid")
    store.delete("sid")
    clock.advance(100)
    store.create(sid="sid")
    clock.advance(100)
    before = store.load("sid")
    assert store.touch("sid", base=base) is False
    assert store.load("sid") == before


def test_a_logout_by_an_old_id_ends_nothing_it_cannot_read(
    directory: Path, clock: ManualClock
) -> None:
    store = FileStore(directory, clock=clock, regenerate_grace=5)
    store.create(sid="old")
    store.regenerate("old", new_sid="new")
    handle = handle_of("new")
    assert handle is not None
    path = directory / "sessions" / handle[:2] / handle
    with path.open("ab") as file:
        file.write(line_for(handle, format=99, data={}))
    with pytest.raises(StoreUnavailable, match="newer version"):
        store.delete("old")
    assert path.exists()
    assert store.delete("new") is True


def test_a_directory_of_ours_without_a_manifest_is_none_to_open(directory: Path) -> None:
    directory.mkdir(0o700)
    with pytest.raises(ConfigurationError, match=r"it has no filesession\.json"):
        FileStore.open(directory)


def test_a_directory_whose_manifest_goes_while_it_is_opened_is_none_to_open(
    directory: Path,
) -> None:
    FileStore(directory)
    manifest = directory / "filesession.json"
    with (
        SystemCalls(meanwhile(manifest.unlink), only=("open",)),
        pytest.raises(ConfigurationError, match=r"it has no filesession\.json"),
    ):
        FileStore.open(directory)
    assert not manifest.exists()


def test_what_another_set_aside_first_is_gone(directory: Path) -> None:
    FileStore(directory)
    with pytest.raises(FileNotFoundError):
        Layout(str(directory), 1).set_aside(str(directory / "sessions" / "gone"))


class TestMemory:
    """What changes between a look without the lock and the next with it."""

    def test_a_session_that_is_saved_before_its_end_is_noted_lives(
        self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = MemoryStore(100, touch_interval=0, clock=clock)
        store.create(sid="sid")
        clock.advance(101)
        end = store._end

        def end_late(handle: str, slot: Any) -> None:
            slot.mark = clock.now  # a touch takes no lock
            end(handle, slot)

        monkeypatch.setattr(store, "_end", end_late)
        assert store.load("sid") is None
        assert store.load("sid") is not None

    def test_a_session_that_is_deleted_before_it_is_mended_is_not(
        self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = MemoryStore(clock=clock)
        store.create(sid="sid")
        clock.advance(-1000)
        mend = store._mend

        def mend_late(handle: str) -> bool:
            store.delete("sid")
            return mend(handle)

        monkeypatch.setattr(store, "_mend", mend_late)
        assert store.sweep().mended == 0
