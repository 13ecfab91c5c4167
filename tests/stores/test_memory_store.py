"""What is the memory store's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from filesession.errors import ConfigurationError, LockTimeout, SessionExists
from filesession.lifetime import Lifetime
from filesession.stores import FileStore, MemoryStore
from filesession.stores.protocol import (
    Impatient,
    KeepsSecret,
    Locks,
    Regenerates,
    Store,
    Sweeps,
)
from filesession.testing import ManualClock
from filesession.testing.base import in_thread


def test_it_takes_the_keywords_of_a_file_store_without_its_directory() -> None:
    theirs = dict(inspect.signature(FileStore).parameters)
    del theirs["directory"]
    ours = inspect.signature(MemoryStore).parameters
    assert {name: one.default for name, one in ours.items()} == {
        name: one.default for name, one in theirs.items()
    }


def test_it_has_the_verbs_of_a_file_store_but_a_directory_and_a_key() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    missing = public(FileStore) - public(MemoryStore)
    assert missing == {"directory", "open", "signing_key"}
    assert public(MemoryStore) <= public(FileStore)


def test_it_can_do_all_but_keep_a_key() -> None:
    store = MemoryStore()
    for capability in (Store, Regenerates, Locks, Impatient, Sweeps):
        assert isinstance(store, capability)
    assert not isinstance(store, KeepsSecret)


def test_what_concerns_a_disk_has_no_effect() -> None:
    store = MemoryStore(600, durable=True, shard_depth=3)
    record = store.without_waiting().create({"a": 1})
    assert record.idle_timeout == 600
    assert store.load(record.id) == record


@pytest.mark.parametrize("name", ["idle_timeout", "absolute_timeout", "touch_interval"])
def test_a_timeout_that_is_none_is_refused(name: str) -> None:
    options: dict[str, Any] = {name: -1}
    with pytest.raises(ConfigurationError, match=name):
        MemoryStore(**options)


def test_the_size_of_a_session_is_that_of_its_data() -> None:
    store = MemoryStore()
    store.create({"a": "x" * 10})
    [info] = store.scan()
    assert info.size == len('{"a":"xxxxxxxxxx"}')


def test_a_session_can_be_looked_at_and_evicted_by_its_handle(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock)
    sid = store.create({"a": 1}).id
    [info] = store.scan()
    assert store.inspect(info.handle) == (info, {"a": 1})
    assert store.inspect("unknown") is None
    assert store.evict("unknown") is False
    assert store.evict(info.handle) is True
    assert store.load(sid) is None
    store.create()
    clock.advance(10_000)
    [expired] = store.scan()
    assert store.inspect(expired.handle) == (expired, {})
    assert store.evict(expired.handle) is False
    assert len(store) == 0


class Interrupted(ManualClock):
    """A clock at whose next readings another thread comes in between, each acting once."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[], object]] = []

    def __call__(self) -> float:
        if self.others:
            self.others.pop(0)()
        return super().__call__()


class TestBetween:
    """What another does after we looked and before we act."""

    def test_an_id_taken_while_a_session_moves_to_it_is_refused(self) -> None:
        clock = Interrupted()
        store = MemoryStore(clock=clock)
        before = store.create({"n": 1}, sid="one")
        clock.others = [lambda: store.create({"n": 2}, sid="two")]
        with pytest.raises(SessionExists):
            store.regenerate("one", {"n": 3}, base=before, new_sid="two")
        two = store.load("two")
        assert store.load("one") == before
        assert two is not None
        assert two.data == {"n": 2}

    def test_a_session_deleted_while_it_is_swept_is_not_counted(self) -> None:
        clock = Interrupted()
        store = MemoryStore(clock=clock)
        sid = store.create().id
        clock.advance(10_000)
        clock.others = [lambda: None, lambda: store.delete(sid)]  # the first is the sweep's start
        report = store.sweep()
        assert (report.examined, report.expired, report.freed) == (1, 0, 0)

    def test_a_session_made_anew_while_the_old_one_is_swept_is_left(self) -> None:
        clock = Interrupted()
        store = MemoryStore(clock=clock)
        store.create({"n": 1}, sid="chosen")
        clock.advance(10_000)
        clock.others = [lambda: None, lambda: store.create({"n": 2}, sid="chosen")]
        assert store.sweep().expired == 0
        record = store.load("chosen")
        assert record is not None
        assert record.data == {"n": 2}

    def test_a_clock_that_is_set_right_during_a_sweep_costs_no_session(self) -> None:
        clock = Interrupted()
        store = MemoryStore(clock=clock)
        before = store.create({"n": 1})
        clock.advance(10_000)
        clock.others = [lambda: None, lambda: None, lambda: clock.advance(-10_000)]
        assert store.sweep().expired == 0
        assert store.load(before.id) == before


def test_its_timeouts_can_be_asked_for_in_seconds() -> None:
    store = MemoryStore(timedelta(minutes=10), absolute_timeout=86_400, touch_interval=0)
    assert store.lifetime == Lifetime(600, 86_400, 0)
    assert MemoryStore().lifetime == Lifetime(1800, None, None)


@pytest.mark.parametrize("timeout", [float("inf"), 10**12, 0])
def test_any_number_is_a_timeout_of_a_lock(timeout: float) -> None:
    store = MemoryStore()
    sid = store.create().id
    with store.lock(sid, timeout=timeout):
        with pytest.raises(LockTimeout, match="gave up after 0 s"):
            in_thread(store.without_waiting().lock(sid, timeout=timeout).acquire)
        if timeout == 0:
            with pytest.raises(LockTimeout):
                in_thread(store.lock(sid, timeout=timeout).acquire)


def test_stores_share_nothing() -> None:
    one, two = MemoryStore(), MemoryStore()
    sid = one.create().id
    assert two.load(sid) is None
    with one.lock(sid):
        two.create(sid=sid)
        two.save(sid, {"a": 1})


def test_a_closed_store_still_has_its_sessions() -> None:
    store = MemoryStore()
    sid = store.create({"a": 1}).id
    store.close()
    assert store.load(sid) is not None
    assert repr(store) == "MemoryStore()"


def test_a_touch_of_an_earlier_session_of_that_id_is_none(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock)
    base = store.create({"n": 1}, sid="chosen")
    store.delete("chosen")
    store.create({"n": 2}, sid="chosen")
    clock.advance(100)
    assert store.touch("chosen", base=base) is False


def test_a_sweep_mends_what_is_dated_in_the_future(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock)
    sid = store.create({"n": 1}).id
    clock.advance(-3600)
    assert store.sweep(dry_run=True).mended == 1
    lock = store.lock(sid)
    in_thread(lock.acquire)
    report = store.sweep()
    assert (report.busy, report.mended) == (1, 0)
    lock.release()
    assert store.sweep().mended == 1
    assert store.sweep().mended == 0
    record = store.load(sid)
    assert record is not None
    assert record.created_at == clock.now
