"""A clock that is set back or forward: nobody is logged out before time, and nobody comes back."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from filesession.errors import SessionExists, SessionGone
from filesession.stores import FileStore, MemoryStore
from filesession.testing import ManualClock
from filesession.testing.base import in_thread

if TYPE_CHECKING:
    from tests.stores.conftest import Faults, Raw

AnyStore: TypeAlias = FileStore | MemoryStore
Make: TypeAlias = Callable[..., AnyStore]

HOUR = 3600.0
YEAR = 365 * 86400.0


@pytest.fixture(params=["file", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Make:
    def made(**timeouts: Any) -> AnyStore:
        if request.param == "file":
            return FileStore(tmp_path / "sessions", clock=clock, **timeouts)
        return MemoryStore(clock=clock, **timeouts)

    return made


@pytest.mark.parametrize("back", [HOUR, 10 * YEAR], ids=["an hour", "ten years"])
class TestBack:
    def test_a_session_in_use_lives_on(self, make: Make, clock: ManualClock, back: float) -> None:
        store = make()
        sid = store.create({"n": 1}).id
        clock.advance(3 * HOUR)
        again = store.create({"n": 2}).id
        clock.advance(100)
        store.touch(again)
        clock.advance(-back)
        for _ in range(5):
            record = store.load(again)
            assert record is not None
            assert record.accessed_at <= clock.now
            assert store.touch(again, base=record) is True
            clock.advance(1700)
        assert store.save(again, {"n": 3}).data == {"n": 3}
        assert (store.load(sid) is None) is (back == HOUR)

    def test_what_was_refused_as_expired_stays_refused(
        self, make: Make, clock: ManualClock, back: float
    ) -> None:
        store = make()
        base = store.create({"n": 1}, sid="chosen")
        clock.advance(1900)
        assert store.load("chosen") is None
        clock.advance(-back)
        assert store.load("chosen") is None
        assert store.touch("chosen") is False
        with pytest.raises(SessionGone):
            store.save("chosen", {"n": 2}, base=base)
        with pytest.raises(SessionGone):
            store.regenerate("chosen", base=base)
        with pytest.raises(SessionGone):
            store.lock("chosen").acquire()
        assert [info.accessed_at <= clock.now for info in store.scan()] == [True]
        assert store.sweep().expired == 1
        assert len(store) == 0

    def test_its_id_is_free_again(self, make: Make, clock: ManualClock, back: float) -> None:
        store = make()
        store.create({"n": 1}, sid="chosen")
        clock.advance(1900)
        assert store.load("chosen") is None
        clock.advance(-back)
        store.create({"n": 2}, sid="chosen")
        record = store.load("chosen")
        assert record is not None
        assert record.data == {"n": 2}
        with pytest.raises(SessionExists):
            store.create(sid="chosen")

    def test_the_absolute_timeout_counts_on(
        self, make: Make, clock: ManualClock, back: float
    ) -> None:
        store = make(idle_timeout=None, absolute_timeout=5 * HOUR)
        sid = store.create({"n": 1}).id
        clock.advance(HOUR + 1)
        store.save(sid, {"n": 2})
        clock.advance(-back)
        store.save(sid, {"n": 3})
        clock.advance(5 * HOUR + 1)
        assert store.load(sid) is None


def test_forward_a_day_and_back_costs_nobody_who_was_not_refused(
    make: Make, clock: ManualClock
) -> None:
    store = make(absolute_timeout=5 * HOUR)
    sid = store.create({"n": 1}).id
    refused = store.create({"n": 2}).id
    clock.advance(86_400)
    made_meanwhile = store.create({"n": 3}).id
    assert store.load(refused) is None
    clock.advance(-86_400)
    assert store.load(sid) is not None
    assert store.load(refused) is None
    assert store.load(made_meanwhile) is not None


class TestWrittenDown:
    """How a file store keeps in mind that it refused a session."""

    def test_it_is_a_line_in_its_file_and_no_activity(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        before = path.stat().st_mtime
        clock.advance(1900)
        for _ in range(2):
            assert store.load("chosen") is None
        first, second = raw.lines("chosen")
        assert second == first | {"version": 2, "ended": True}
        assert path.stat().st_mtime == before

    @pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
    def test_where_nothing_can_be_written_it_is_refused_all_the_same(  # noqa: PLR0917 - fixtures
        self,
        store: FileStore,
        raw: Raw,
        clock: ManualClock,
        faults: Faults,
        caplog: pytest.LogCaptureFixture,
        code: int,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        store.create({"n": 1}, sid="chosen")
        clock.advance(1900)
        with faults.failing(OSError(code, os.strerror(code)), only=("write",)):
            assert store.load("chosen") is None
        assert os.strerror(code) in caplog.text
        assert len(raw.lines("chosen")) == 1

    def test_one_that_is_in_use_is_left_to_who_uses_it(
        self, make: Make, clock: ManualClock
    ) -> None:
        store = make()
        sid = store.create({"n": 1}).id
        lock = store.lock(sid)
        in_thread(lock.acquire)
        clock.advance(1900)
        assert store.load(sid) is None
        clock.advance(-1900)
        assert store.load(sid) is not None
        lock.release()

    def test_one_saved_meanwhile_is_not_ended(
        self, store: FileStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sid = store.create({"n": 1}).id
        clock.advance(1900)
        end = store._access.end

        def saved_meanwhile(handle: str) -> None:
            clock.advance(-1900)
            store.save(sid, {"n": 2})
            end(handle)

        monkeypatch.setattr(type(store._access), "end", lambda _, handle: saved_meanwhile(handle))
        assert store.load(sid) is None
        monkeypatch.undo()
        record = store.load(sid)
        assert record is not None
        assert record.data == {"n": 2}

    def test_one_deleted_meanwhile_is_not_made_anew(
        self, store: FileStore, raw: Raw, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sid = store.create({"n": 1}).id
        clock.advance(1900)
        end = store._access.end

        def deleted_meanwhile(handle: str) -> None:
            store.delete(sid)
            end(handle)

        monkeypatch.setattr(type(store._access), "end", lambda _, handle: deleted_meanwhile(handle))
        assert store.load(sid) is None
        assert raw.files() == []
