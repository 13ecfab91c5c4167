"""What is the memory store's own."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from filesession.errors import ConfigurationError, LockTimeout
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


@pytest.mark.parametrize("timeout", [float("inf"), 10**12, 0, -1])
def test_any_number_is_a_timeout_of_a_lock(timeout: float) -> None:
    store = MemoryStore()
    sid = store.create().id
    with store.lock(sid, timeout=timeout):
        with pytest.raises(LockTimeout, match="gave up after 0 s"):
            in_thread(store.without_waiting().lock(sid, timeout=timeout).acquire)
        if timeout <= 0:
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
