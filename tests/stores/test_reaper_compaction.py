"""A long, quiet journal is shortened to one line: on a full disk, killed, beside other calls."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from filesession import locks
from filesession.record import SessionRecord
from filesession.stores import FileStore
from filesession.stores.file import reaper as reaper_module
from filesession.stores.file.reaper import LONG, QUIET, Filing
from filesession.testing import ManualClock
from filesession.testing.base import in_thread
from filesession.testing.faults import SystemCalls, deadly, each, failing
from filesession.testing.interleaving import interleavings
from tests.stores.reaping import (
    CODES,
    EVERY,
    LIFE,
    SHORTENED,
    SID,
    Site,
    counts,
    deleted,
    free,
    linked,
    regenerated,
    saved,
    touched,
)


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestCompaction:
    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_a_long_quiet_file_becomes_one_line(self, site: Site, verb: str) -> None:
        before = site.make_long(
            idle_timeout=7000.0, absolute_timeout=80_000, cookie={"secure": True}
        )
        lines, mark = site.raw.lines(SID), site.path.stat().st_mtime_ns
        reaper = site.reaper()
        filing = getattr(reaper, verb)(site.handle)
        assert counts(reaper.tally) == SHORTENED
        assert site.raw.lines(SID) == lines[-1:]
        assert site.path.stat().st_mtime_ns == mark
        assert site.raw.mode(site.path) == 0o600
        assert site.record() == before
        assert before.version == 4
        assert filing is not None
        assert getattr(reaper, verb)(site.handle) == filing
        assert counts(reaper.tally) == SHORTENED
        assert free(site.path)

    def test_one_that_was_refused_stays_refused(self, site: Site) -> None:
        site.make_long()
        site.clock.advance(1800)
        assert site.store.load(SID) is None
        reaper = site.reaper()
        reaper.look(site.handle)
        assert counts(reaper.tally) == SHORTENED
        site.clock.now -= 1800
        assert site.store.load(SID) is None

    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    @pytest.mark.parametrize("why", ["in use", "not quiet", "linked", "no shorter", "rehearsal"])
    def test_not_of_one(self, site: Site, verb: str, why: str) -> None:
        site.make_long()
        held = site.store.lock(SID)
        if why == "in use":
            in_thread(held.__enter__)
        elif why == "not quiet":
            site.clock.advance(-1)
        elif why == "linked":
            linked(site)
        elif why == "no shorter":
            site.store.save(SID, {"text": "x" * 7000})
            site.clock.advance(QUIET + 1)
        before = site.state()
        reaper = site.reaper(dry_run=why == "rehearsal")
        assert getattr(reaper, verb)(site.handle) is not None
        if why == "in use":
            held.release()
        assert (site.state(), counts(reaper.tally)) == (before, {})

    def test_not_of_one_that_is_used_before_its_lock_is_there(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.make_long()
        lock = locks.lock

        def first(*arguments: Any) -> None:
            monkeypatch.setattr(locks, "lock", lock)
            touched(site)
            site.clock.advance(-100)
            lock(*arguments)

        monkeypatch.setattr(locks, "lock", first)
        reaper = site.reaper()
        reaper.look(site.handle)
        assert counts(reaper.tally) == {}
        assert len(site.raw.lines(SID)) == 4

    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_on_a_full_disk_the_session_stays_and_it_is_told_once(
        self, site: Site, verb: str
    ) -> None:
        before = site.make_long()
        content, files = site.path.read_bytes(), site.raw.files()
        reaper = site.reaper()
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with SystemCalls(failing(error, sticky=True), only=("write",)):
            filing = getattr(reaper, verb)(site.handle)
        assert filing == Filing(before.accessed_at + LIFE, plain=True)
        assert counts(reaper.tally) == {"failed": 1}
        assert reaper.tally.failure is not None
        assert reaper.tally.failure.startswith(f"sweeping session {site.handle}")
        assert (site.path.read_bytes(), site.raw.files()) == (content, files)
        assert site.record() == before

    @pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
    @pytest.mark.usefixtures("quick_disk")
    def test_wherever_it_fails_the_session_is_whole(self, site: Site, code: int) -> None:
        opened = sorted(os.listdir("/proc/self/fd"))
        for calls in each(lambda nth: failing(OSError(code, os.strerror(code)), nth), EVERY):
            site.store.clear()
            before = site.make_long()
            reaper = site.reaper()
            with calls:
                reaper.look(site.handle)
            assert site.record() == before, calls.names()
            assert reaper.tally.failed + reaper.tally.compacted <= 1
            assert sorted(os.listdir("/proc/self/fd")) == opened
            assert all(free(path) for path in site.raw.files())
            assert site.store.save(SID, {"n": 3}).version == before.version + 1
        assert reaper.tally.compacted == 1

    def test_wherever_it_is_killed_the_session_is_whole(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reaper_module, "YOUNG", -1.0)
        nth, killed = 0, True
        while killed:
            nth += 1
            site.store.clear()
            before = site.make_long()
            child = os.fork()
            if not child:
                with suppress(BaseException), SystemCalls(deadly(nth), only=EVERY):
                    site.reaper().look(site.handle)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            killed = os.WIFSIGNALED(status)
            assert status == (signal.SIGKILL if killed else 0)
            assert site.record() == before
            assert free(site.path)
            site.store.sweep()
            assert site.raw.files() == [site.path]
            assert site.raw.lines(SID)[-1]["data"] == {"n": 2}
        assert nth > 12
        assert len(site.raw.lines(SID)) == 1


def load(site: Site) -> Any:
    return site.record()


def reap_too(site: Site) -> Any:
    other = site.reaper()
    return other.look(site.handle), other.tally.failed


def touch(site: Site) -> Any:
    return site.store.touch(SID)


@pytest.mark.usefixtures("quick_disk")
class TestAtOnce:
    """Shortening a file beside another call, in every order of their system calls."""

    @pytest.mark.parametrize(
        "call", [saved, touch, regenerated, deleted, load, reap_too], ids=lambda call: call.__name__
    )
    def test_nothing_is_lost(
        self,
        tmp_path: Path,
        clock: ManualClock,
        make_line: Callable[..., bytes],
        call: Callable[[Site], Any],
    ) -> None:
        from tests.stores.conftest import Raw  # noqa: PLC0415 - needed when it runs

        directory = tmp_path / "flat"
        store = FileStore(directory, clock=clock, shard_depth=0)
        site = Site(store, Raw(directory, depth=0), clock, make_line)
        before: list[SessionRecord] = []

        def calls() -> list[Callable[[], Any]]:
            site.store.clear()
            clock.now = time.time()  # a write sets the mark by the system's clock for a moment
            before[:] = [site.make_long()]
            return [lambda: site.reaper().look(site.handle), lambda: call(site)]

        runs = shortened = 0
        for run in interleavings(calls, preemptions=1):
            runs += 1
            mine, theirs = run.outcomes
            order = [choice for choice, _, _ in run.taken]
            assert mine is None or isinstance(mine, Filing), (mine, order)
            assert not isinstance(theirs, Exception), (theirs, order)
            found, old = site.store.load(SID), before[0]
            if call in {deleted, regenerated}:
                assert found is None, order
                assert len(site.raw.files()) == (call is regenerated), order
                found = site.store.load("new")
                assert (call is deleted) is (found is None), order
            if call is not deleted:
                assert found is not None, order
                assert found.lineage == old.lineage
                assert found.data == ({"n": 2}), order
                assert found.version == old.version + (call in {saved, regenerated}), order
            if call is touch:
                assert (theirs, found and found.accessed_at) == (True, clock.now), order
            if call is load:
                assert theirs == old, order
            if call is reap_too:
                assert theirs == (Filing(old.accessed_at + LIFE, plain=True), 0), order
            shortened += any(path.stat().st_size < LONG for path in site.raw.files())
        assert runs > 10
        assert shortened or call is deleted
