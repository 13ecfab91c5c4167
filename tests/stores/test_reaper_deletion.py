"""One session after the other is deleted when it is due, under its lock, and told of.

System calls are seen, refused or fatal; what may happen between a look and the lock is done where
the lock is asked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from filesession import locks
from filesession.errors import LockTimeout
from filesession.record import SessionInfo
from filesession.stores.file import reaper as reaper_module
from filesession.stores.file.reaper import LATER, Filing
from filesession.testing import ManualClock
from filesession.testing.base import in_thread
from filesession.testing.faults import LOCK, SystemCall, SystemCalls, each, failing
from tests.stores.reaping import CODES, EVERY, LIFE, MEANWHILE, SID, Kind, Site, counts, free, kinds

if TYPE_CHECKING:
    from tests.stores.conftest import Processes


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestReap:
    def test_what_is_due_goes_under_its_lock(self, site: Site) -> None:
        site.create()
        site.clock.advance(LIFE + 5)
        unlocked: list[bool] = []

        def act(call: SystemCall) -> Any:
            if call.name == "unlink":
                unlocked.append(free(site.path))
            return call.make()

        size = site.path.stat().st_size
        reaper = site.reaper()
        with SystemCalls(act):
            assert reaper.reap(site.handle) is None
        assert unlocked == [False]
        assert site.raw.files() == []
        assert (reaper.tally.expired, reaper.tally.freed) == (1, size)
        assert reaper.last_overdue == reaper.tally.oldest_overdue == pytest.approx(5)

    @pytest.mark.parametrize("event", MEANWHILE, ids=lambda event: event.__name__)
    def test_what_happens_before_the_lock_leaves_it(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, event: Callable[[Site], None]
    ) -> None:
        site.make_long()
        ahead = ManualClock(site.clock.now + 2 * LIFE)  # where the janitor is, it is due
        lock, then = locks.lock, []

        def first(*arguments: Any) -> None:
            monkeypatch.setattr(locks, "lock", lock)
            event(site)
            then.append(site.state())
            lock(*arguments)

        monkeypatch.setattr(locks, "lock", first)
        told: list[SessionInfo] = []
        reaper = site.reaper(ahead, told=told.append)
        assert reaper.reap(site.handle) == Filing(ahead.now + LATER, plain=False)
        assert then == [site.state()]
        assert (counts(reaper.tally), told) == ({}, [])
        assert all(free(path) for path in site.raw.files())

    @pytest.mark.parametrize("field", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_nlink"])
    def test_each_sign_of_a_change_is_enough(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, field: str
    ) -> None:
        # A file system may keep its dates coarsely, or not at all: no sign leans on another.
        site.create()
        site.clock.advance(LIFE + 1)
        real, looks = os.fstat, []

        def fstat(descriptor: int) -> Any:
            status = real(descriptor)
            looks.append(status)
            names = [name for name in dir(status) if name.startswith("st_")]
            told = {name: getattr(status, name) for name in names}
            return SimpleNamespace(**(told | {field: told[field] + (len(looks) > 1)}))

        monkeypatch.setattr(os, "fstat", fstat)
        reaper = site.reaper()
        assert reaper.reap(site.handle) == Filing(site.clock.now + LATER, plain=False)
        assert len(looks) == 2
        assert site.path.exists()

    def test_one_whose_lock_is_held_stays(self, site: Site) -> None:
        site.create()
        held = site.store.lock(SID)
        in_thread(held.__enter__)
        before = site.state()
        reaper = site.reaper(ManualClock(site.clock.now + 2 * LIFE))
        with pytest.raises(LockTimeout):
            reaper.reap(site.handle)
        held.release()
        assert (counts(reaper.tally), site.state()) == ({}, before)
        assert reaper.reap(site.handle) is None
        assert reaper.tally.expired == 1

    @pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
    def test_a_call_that_fails_leaves_one_for_the_next(self, site: Site, code: int) -> None:
        opened = sorted(os.listdir("/proc/self/fd"))
        failures = set()
        for calls in each(lambda nth: failing(OSError(code, os.strerror(code)), nth), EVERY):
            names = [site.raw.name(site.store.create().id) for _ in range(3)]
            infos: list[SessionInfo] = []
            reaper = site.reaper(ManualClock(site.clock.now + 2 * LIFE), told=infos.append)
            with calls:
                for name in names:
                    with suppress(LockTimeout):  # what flock refuses another may have
                        reaper.reap(name)
            told = [info.handle for info in infos]
            left = [path.name for path in site.raw.files()]
            failures |= {call.name for call in calls.calls if not call.is_made}
            assert len(left) <= 1
            assert sorted(told + left) == sorted(names)
            assert reaper.tally.expired == len(told)
            if code != errno.EACCES:
                assert reaper.tally.failed == len(left), calls.names()
            assert sorted(os.listdir("/proc/self/fd")) == opened
            assert all(free(path) for path in site.raw.files())
            for name in left:
                assert reaper.reap(name) is None
            assert site.raw.files() == []
        assert {"open", "fstat", "pread", LOCK, "unlink"} <= failures

    @pytest.mark.parametrize("verb", ["reap", "look"])
    def test_a_child_forked_meanwhile_does_not_keep_the_lock(self, site: Site, verb: str) -> None:
        site.make_long()
        file = site.path.open("r+b")
        clock = ManualClock(site.clock.now + 2 * LIFE) if verb == "reap" else site.clock
        reading, writing = os.pipe()
        children: list[int] = []

        def act(call: SystemCall) -> Any:
            if call.name in {"unlink", "fdatasync"}:
                assert not free(site.path)
                child = os.fork()
                if not child:
                    os.close(writing)
                    os.read(reading, 1)
                    os._exit(0)
                children.append(child)
            return call.make()

        reaper = site.reaper(clock)
        try:
            with SystemCalls(act):
                getattr(reaper, verb)(site.handle)
            assert len(children) == 1
            assert locks.try_lock(file.fileno())
            assert verb == "reap" or free(site.path)
        finally:
            os.close(writing)
            for child in children:
                os.waitpid(child, 0)
            os.close(reading)
            file.close()
        assert counts(reaper.tally) == {"expired" if verb == "reap" else "compacted": 1}

    def test_two_at_once_count_each_once(self, site: Site, processes: Processes) -> None:
        handles = {site.raw.name(site.store.create().id) for _ in range(300)}
        program = """if True:
            import os, signal, sys
            from filesession.errors import LockTimeout
            from filesession.stores.file.layout import Layout
            from filesession.stores.file.reaper import Reaper
            layout, manifest = Layout.found(sys.argv[2])
            told, later = [], sys.argv[5:]
            reaper = Reaper(layout, manifest.lifetime, lambda: float(sys.argv[3]),
                            told=lambda info: told.append(info.handle))
            signal.alarm(60)
            os.open(sys.argv[4], os.O_RDONLY if int(sys.argv[1]) else os.O_WRONLY)  # they meet
            while later:
                handle = later.pop(0)
                try:
                    if reaper.reap(handle) is not None:
                        later.append(handle)
                except LockTimeout:
                    later.append(handle)
            assert reaper.tally.expired == len(told), reaper.tally
            assert reaper.tally.failed == 0, reaper.tally
            print(*told)
        """
        now = site.clock.now + 2 * LIFE
        gate = site.raw.directory.with_name("gate")
        os.mkfifo(gate)
        printed = processes.run(program, site.raw.directory, now, gate, *sorted(handles), count=2)
        told = [handle for one in printed for handle in one.split()]
        assert sorted(told) == sorted(handles)
        assert site.raw.files() == []


class TestTold:
    def test_of_each_that_was_deleted_once(self, site: Site) -> None:
        created = site.create(absolute_timeout=900)
        site.clock.advance(600)
        site.store.save(SID, {"n": 2})
        accessed, size = site.clock.now, site.path.stat().st_size
        told: list[SessionInfo] = []
        reaper = site.reaper(told=told.append)
        reaper.reap(site.handle)
        assert told == []
        site.clock.advance(400)
        reaper.reap(site.handle)
        reaper.reap(site.handle)
        expires = created.created_at + 900
        assert told == [SessionInfo(site.handle, size, created.created_at, accessed, expires)]

    def test_of_none_that_could_not_be_deleted(self, site: Site) -> None:
        site.create()
        site.clock.advance(LIFE + 1)
        told: list[SessionInfo] = []
        reaper = site.reaper(told=told.append)
        error = OSError(errno.EACCES, "Permission denied")
        with SystemCalls(failing(error), only=("unlink",)):
            assert reaper.reap(site.handle) == Filing(site.clock.now + LATER, plain=False)
        assert (told, counts(reaper.tally)) == ([], {"failed": 1})
        assert reaper.tally.failure is not None
        assert reaper.tally.failure.startswith(f"sweeping session {site.handle}: Permission denied")


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestRehearsal:
    @kinds
    @pytest.mark.parametrize("old", [False, True], ids=["young", "old"])
    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_changes_nothing_and_counts_what_would_be_done(
        self,
        site: Site,
        monkeypatch: pytest.MonkeyPatch,
        kind: Kind,
        old: bool,  # noqa: FBT001 - a row of the table
        verb: str,
    ) -> None:
        kind(site)
        if old:
            site.clock.advance(10_000)
            monkeypatch.setattr(reaper_module, "YOUNG", -1.0)
        before = site.state()
        told: list[SessionInfo] = []
        rehearsal, real = site.reaper(dry_run=True, told=told.append), site.reaper()
        filing = getattr(rehearsal, verb)(site.handle)
        assert (site.state(), told) == (before, [])
        assert filing == getattr(real, verb)(site.handle)
        done = counts(real.tally)
        done.pop("compacted", None)  # nobody waits to hear of that
        assert counts(rehearsal.tally) == done
        assert rehearsal.tally.freed == real.tally.freed
