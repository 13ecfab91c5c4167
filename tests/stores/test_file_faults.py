"""System calls that fail, each in turn: a typed error, and the session whole, old or new."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import StoreError, StoreFull, StoreUnavailable
from filesession.stores import FileStore
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing import ManualClock

if TYPE_CHECKING:
    from tests.stores.conftest import Faults, Raw

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")

BROKEN: Final = OSError(errno.EIO, "Input/output error")
FULL: Final = OSError(errno.ENOSPC, "No space left on device")

OLD: Final = {"n": 1}
NEW: Final = {"n": 2, "text": "x" * 300}

Verb = Callable[[FileStore], Any]


def data_of(store: FileStore, sid: str) -> dict[str, Any] | None:
    record = store.load(sid)
    return None if record is None else record.data


@contextmanager
def refusing(path: Path, error: OSError) -> Iterator[None]:
    """Inside, that file cannot be opened."""
    real = os.open

    def opened(name: str, *arguments: Any) -> int:
        if name == str(path):
            raise error
        return real(name, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        yield


def clean(raw: Raw) -> None:
    """An empty directory again, but for its shards."""
    for path in raw.files():
        path.unlink()


@pytest.fixture(params=[False, True], ids=["", "durable"])
def either(request: pytest.FixtureRequest, directory: Path, clock: ManualClock) -> FileStore:
    """A store, durable or not."""
    return FileStore(directory, durable=request.param, clock=clock)


@pytest.mark.parametrize("error", [BROKEN, FULL, KeyboardInterrupt()], ids=repr)
class TestEachCall:
    def test_of_create_leaves_nothing(
        self, either: FileStore, raw: Raw, faults: Faults, error: BaseException
    ) -> None:
        for sid in ("chosen", None):
            for failing in faults.each(error):
                try:
                    with failing:
                        record = either.create(NEW, sid=sid)
                except (StoreError, KeyboardInterrupt):
                    assert raw.files() == []
                else:
                    assert data_of(either, record.id) == NEW
                clean(raw)

    def test_of_save_leaves_the_old_state_or_the_new(
        self, either: FileStore, raw: Raw, faults: Faults, error: BaseException
    ) -> None:
        for filling in (0, LONGEST_JOURNAL - 400):
            for failing in faults.each(error):
                clean(raw)
                base = either.create(OLD, sid="chosen")
                if filling:
                    either.save("chosen", {"text": "x" * filling})
                    base = either.save("chosen", OLD)
                try:
                    with failing:
                        either.save("chosen", NEW, base=base)
                except (StoreError, KeyboardInterrupt):
                    assert data_of(either, "chosen") in (OLD, NEW)
                else:
                    assert data_of(either, "chosen") == NEW
                assert raw.files() == [raw.path("chosen")]
                assert either.save("chosen", {"n": 3}).version == either.load("chosen").version  # type: ignore[union-attr]

    def test_of_regenerate_leaves_exactly_one_of_the_ids(
        self, either: FileStore, raw: Raw, faults: Faults, error: BaseException
    ) -> None:
        for filling in (0, LONGEST_JOURNAL - 400):
            for failing in faults.each(error):
                clean(raw)
                either.create(OLD, sid="old")
                if filling:
                    either.save("old", {"text": "x" * filling})
                    either.save("old", OLD)
                try:
                    with failing:
                        either.regenerate("old", NEW, new_sid="new")
                except (StoreError, KeyboardInterrupt):
                    states = (data_of(either, "old"), data_of(either, "new"))
                    assert states in ((OLD, None), (None, NEW))
                else:
                    assert data_of(either, "old") is None
                    assert data_of(either, "new") == NEW
                assert len(raw.files()) == 1

    def test_of_regenerate_costs_no_other_session(
        self, either: FileStore, raw: Raw, faults: Faults, error: BaseException
    ) -> None:
        either.create(OLD, sid="old")
        either.create({"other": 1}, sid="taken")
        for failing in faults.each(error):
            with failing, pytest.raises(BaseException):  # noqa: B017, PT011 - whichever came first
                either.regenerate("old", NEW, new_sid="taken")
            assert data_of(either, "old") == OLD
            assert data_of(either, "taken") == {"other": 1}

    def test_of_delete_leaves_the_session_or_none(
        self, either: FileStore, raw: Raw, faults: Faults, error: BaseException
    ) -> None:
        for failing in faults.each(error):
            clean(raw)
            either.create(OLD, sid="chosen")
            try:
                with failing:
                    assert either.delete("chosen") is True
            except (StoreError, KeyboardInterrupt):
                assert data_of(either, "chosen") in (OLD, None)
            else:
                assert raw.files() == []

    def test_of_touch_leaves_the_data(
        self, either: FileStore, faults: Faults, error: BaseException, clock: ManualClock
    ) -> None:
        either.create(OLD, sid="chosen")
        for failing in faults.each(error):
            clock.advance(100)
            try:
                with failing:
                    assert either.touch("chosen") is True
            except (StoreError, KeyboardInterrupt):
                assert data_of(either, "chosen") == OLD

    def test_of_a_lock_releases_it(
        self, either: FileStore, faults: Faults, error: BaseException
    ) -> None:
        either.create(OLD, sid="chosen")
        for failing in faults.each(error):
            try:
                with failing, either.lock("chosen", timeout=0):
                    pass
            except (StoreError, KeyboardInterrupt):
                pass
            with either.lock("chosen", timeout=0) as record:
                assert record.data == OLD


class TestNoSession:
    """What could not be read is never taken for what is not there."""

    @pytest.mark.parametrize(
        "code", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE, errno.ENOMEM]
    )
    @pytest.mark.parametrize(
        "verb",
        [
            lambda store: store.load("chosen"),
            lambda store: store.touch("chosen"),
            lambda store: store.save("chosen", NEW),
            lambda store: store.delete("chosen"),
            lambda store: store.regenerate("chosen"),
            lambda store: store.lock("chosen").__enter__(),
            lambda store: store.create(NEW, sid="chosen"),
        ],
        ids="load touch save delete regenerate lock create".split(),  # noqa: SIM905
    )
    def test_a_file_that_cannot_be_opened_is_an_error(
        self, store: FileStore, raw: Raw, verb: Verb, code: int
    ) -> None:
        store.create(OLD, sid="chosen")
        error = OSError(code, os.strerror(code))
        with refusing(raw.path("chosen"), error), pytest.raises(StoreUnavailable) as told:
            verb(store)
        assert os.strerror(code) in str(told.value)
        assert "chosen" not in str(told.value)
        assert raw.name("chosen") in str(told.value)
        assert data_of(store, "chosen") == OLD

    @pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
    def test_one_that_cannot_be_opened_keeps_no_other_from_being_listed_and_swept(
        self,
        store: FileStore,
        raw: Raw,
        clock: ManualClock,
        caplog: pytest.LogCaptureFixture,
        code: int,
    ) -> None:
        for sid in ("chosen", "one", "another"):
            store.create(OLD, sid=sid)
        clock.advance(2000)
        error = OSError(code, os.strerror(code))
        with refusing(raw.path("chosen"), error):
            assert {info.handle for info in store.scan()} == {raw.name("one"), raw.name("another")}
            report = store.sweep()
            assert (report.examined, report.expired, report.failed) == (3, 2, 1)
            with pytest.raises(StoreUnavailable, match=os.strerror(code)):
                store.clear()
        assert raw.files() == [raw.path("chosen")]
        assert report.failure == f"sweeping session {raw.name('chosen')}: {os.strerror(code)}"
        assert f"reading session {raw.name('chosen')}: {os.strerror(code)}" in caplog.text
        assert store.clear() == 0
        assert raw.files() == []

    def test_a_shard_that_cannot_be_listed_is_told_when_the_rest_is_done(
        self, store: FileStore, raw: Raw, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for n in range(20):
            store.create(OLD, sid=f"sid-{n}")
        clock.advance(2000)
        shard, scandir = str(raw.path("sid-3").parent), os.scandir

        def refused(path: str) -> Any:
            if path == shard:
                raise BROKEN
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refused)
        with pytest.raises(StoreUnavailable, match=r"listing .*: Input/output error"):
            store.sweep()
        assert {path.parent for path in raw.files()} == {raw.path("sid-3").parent}

    def test_a_directory_that_cannot_be_looked_for_is_an_error(
        self, store: FileStore, faults: Faults
    ) -> None:
        with (
            faults.failing(BROKEN, only=("stat",)),
            pytest.raises(StoreUnavailable, match=r"looking for .*filesession\.json"),
        ):
            store.load("unknown")


class TestFull:
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk_says_what_to_do(
        self, store: FileStore, raw: Raw, faults: Faults, code: int
    ) -> None:
        store.create(OLD, sid="chosen")
        error = OSError(code, os.strerror(code))
        with (
            faults.failing(error, only=("write",)),
            pytest.raises(StoreFull, match="free some space or raise the quota"),
        ):
            store.save("chosen", NEW)
        with faults.failing(error, only=("write",)), pytest.raises(StoreFull):
            store.create(NEW, sid="another")
        assert raw.files() == [raw.path("chosen")]
        assert data_of(store, "chosen") == OLD

    def test_on_a_full_disk_sessions_are_read_touched_and_deleted(
        self, store: FileStore, faults: Faults, clock: ManualClock
    ) -> None:
        store.create(OLD, sid="chosen")
        clock.advance(100)
        with faults.failing(FULL, only=("write",)):
            assert data_of(store, "chosen") == OLD
            assert store.touch("chosen") is True
            assert store.delete("chosen") is True

    @pytest.mark.parametrize("room", [0, 1, 9, 40, 100])
    def test_a_write_the_system_cuts_short_leaves_the_stored_session(
        self, directory: Path, raw: Raw, room: int
    ) -> None:
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
        store = FileStore(directory)
        store.create(OLD, sid="chosen")
        before = raw.path("chosen").read_bytes()
        # The limit would cut the file short in which a child that is measured leaves its coverage.
        unmeasured = {name: os.environ[name] for name in os.environ if "COVERAGE" not in name}
        told = subprocess.run(
            [sys.executable, "-c", program, str(directory), str(len(before) + room)],
            check=True,
            capture_output=True,
            text=True,
            env=unmeasured,
        )
        assert told.stdout.count("File too large") == 3
        assert raw.path("chosen").read_bytes() == before
        assert raw.files() == [raw.path("chosen")]
        assert data_of(store, "chosen") == OLD
