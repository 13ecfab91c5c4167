"""The suite itself: that it fails broken stores, skips what a store cannot do, and says why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from filesession.testing import ManualClock
from filesession.testing.base import at_once, in_thread, of_type

SUITE: Final = """
import contextlib, dataclasses, math, os, threading, time
import pytest
from filesession.errors import LockTimeout, SessionGone
from filesession.lifetime import UNSET
from filesession.stores import MemoryStore
from filesession.stores.entry import Entry, handle_of
from filesession.testing import StoreContract, base

class Suite(StoreContract):
    def make_store(self, clock, **timeouts):
        there.clear()
        return self.kind(clock=clock, **timeouts)

there = threading.Event()  # what breaks the store was done: the race is lost for certain

"""

FIVE_VERBS: Final = """
class FiveVerbs:
    def __init__(self, **options):
        store = MemoryStore(**options)
        self.create, self.load, self.save = store.create, store.load, store.save
        self.touch, self.delete = store.touch, store.delete

class TestFiveVerbs(Suite):
    kind = FiveVerbs
"""

COOKIELESS: Final = """
class Cookieless(MemoryStore):
    def create(self, data=None, *, cookie=None, **how):
        return super().create(data, **how)

    def save(self, sid, data, *, cookie=None, **how):
        return super().save(sid, data, **how)

    def regenerate(self, sid, data=None, *, cookie=None, **how):
        return super().regenerate(sid, data, **how)

    def without_waiting(self):
        return Quick(super().without_waiting())

class Quick:
    def __init__(self, store):
        self.create, self.load, self.save = store.create, store.load, store.save
        self.touch, self.delete = store.touch, store.delete

class TestCookieless(Suite):
    kind = Cookieless
    keeps_cookie = False
"""

BROKEN: Final = {
    "test_what_was_deleted_never_comes_back": """
class Reviving(MemoryStore):
    def save(self, sid, data, **how):
        try:
            return super().save(sid, data, **how)
        except SessionGone:
            return self.create(data, sid=sid)

class TestReviving(Suite):
    kind = Reviving
""",
    "test_a_stale_save_is_merged_by_key": """
class Overwriting(MemoryStore):
    def save(self, sid, data, **how):
        return super().save(sid, data, **how | {"conflict": "overwrite"})

class TestOverwriting(Suite):
    kind = Overwriting
""",
    "test_a_value_comes_back_as_it_was": """
class Loose(MemoryStore):
    def load(self, sid):
        record = super().load(sid)
        if record is not None:
            record.data.update({key: 1 for key, value in record.data.items() if value is True})
        return record

class TestLoose(Suite):
    kind = Loose
""",
    "test_a_lock_is_exclusive": """
class Unlocked(MemoryStore):
    def lock(self, sid, *, timeout=10):
        return contextlib.nullcontext(self.load(sid))

class TestUnlocked(Suite):
    kind = Unlocked
""",
    "test_an_unknown_id_is_never_adopted": """
class Adopting(MemoryStore):
    def load(self, sid):
        return super().load(sid) or (self.create(sid=sid) if sid == "unknown" else None)

class TestAdopting(Suite):
    kind = Adopting
""",
    "test_an_idle_session_is_over_a_touch_interval_past_its_deadline": """
class Lingering(MemoryStore):
    def __init__(self, **options):
        super().__init__(**options | {"touch_interval": 60})

class TestLingering(Suite):
    kind = Lingering
""",
    "test_a_sweep_deletes_what_is_due_and_nothing_else": """
class Eager(MemoryStore):
    def sweep(self, **how):
        report = super().sweep(**how)
        for info in list(self.scan()):
            if info.expires_at is not None and info.expires_at < self.clock():
                self.evict(info.handle)
        return report

class TestEager(Suite):
    kind = Eager
""",
    "test_a_base_from_a_hundred_saves_ago_is_merged": """
class Forgetful(MemoryStore):
    def save(self, sid, data, *, base=None, **how):
        forgotten = base is not None and self.load(sid).version > base.version + 10
        return super().save(sid, data, base=None if forgotten else base, **how)

class TestForgetful(Suite):
    kind = Forgetful
""",
    "test_the_touch_interval_is_a_twentieth_of_the_idle_timeout_and_a_minute_at_most": """
class Slack(MemoryStore):
    def __init__(self, **options):
        super().__init__(**{"touch_interval": 60} | options)

class TestSlack(Suite):
    kind = Slack
""",
    "test_one_timeout_of_its_own_leaves_a_session_the_other": """
class Exempting(MemoryStore):
    def create(self, data=None, *, idle_timeout=None, absolute_timeout=None, **how):
        if idle_timeout is not None and absolute_timeout is None:
            absolute_timeout = math.inf
        timeouts = {"idle_timeout": idle_timeout, "absolute_timeout": absolute_timeout}
        return super().create(data, **timeouts, **how)

class TestExempting(Suite):
    kind = Exempting
""",
    "test_a_stale_save_keeps_the_idle_timeout_set_meanwhile": """
class WritingBack(MemoryStore):
    def save(self, sid, data, *, base=None, **how):
        if base is not None:
            how.setdefault("idle_timeout", base.idle_timeout)
        return super().save(sid, data, base=base, **how)

class TestWritingBack(Suite):
    kind = WritingBack
""",
    "test_an_idle_timeout_given_to_a_save_is_what_ends_the_session": """
class Pretending(MemoryStore):
    def save(self, sid, data, *, idle_timeout=None, **how):
        record = super().save(sid, data, **how)
        return dataclasses.replace(record, idle_timeout=idle_timeout)

class TestPretending(Suite):
    kind = Pretending
""",
    "test_a_stale_save_keeps_the_cookie_attributes_set_meanwhile": """
class WritingCookiesBack(MemoryStore):
    def save(self, sid, data, *, base=None, **how):
        saved = super().save(sid, data, base=base, **how)
        if base is None or "cookie" in how:
            return saved
        return super().save(sid, saved.data, cookie=base.cookie)

class TestWritingCookiesBack(Suite):
    kind = WritingCookiesBack
""",
    "test_two_that_set_different_cookie_attributes_both_keep_theirs": """
class ReplacingCookies(MemoryStore):
    def save(self, sid, data, **how):
        saved = super().save(sid, data, **how)
        return super().save(sid, saved.data, cookie=how.get("cookie", UNSET))

class TestReplacingCookies(Suite):
    kind = ReplacingCookies
""",
    "test_with_overwrite_the_cookie_attributes_are_ours_alone": """
class KeepingCookies(MemoryStore):
    def save(self, sid, data, *, conflict="merge", **how):
        if conflict == "overwrite":
            how["cookie"] = {**self.load(sid).cookie, **how["cookie"]}
        return super().save(sid, data, conflict=conflict, **how)

class TestKeepingCookies(Suite):
    kind = KeepingCookies
""",
    "test_a_session_that_moves_keeps_the_cookie_attributes_of_both": """
class ReplacingAsItMoves(MemoryStore):
    def regenerate(self, sid, data=None, *, cookie=UNSET, **how):
        new = super().regenerate(sid, data, **how)
        return self.save(new.id, new.data, cookie=cookie)

class TestReplacingAsItMoves(Suite):
    kind = ReplacingAsItMoves
""",
    "test_a_regenerated_session_keeps_its_cookie_attributes": """
class Stripping(MemoryStore):
    def regenerate(self, sid, data=None, *, cookie=(), **how):
        return super().regenerate(sid, data, cookie=dict(cookie), **how)

class TestStripping(Suite):
    kind = Stripping
""",
    "test_a_save_beside_a_regenerate_goes_with_it_or_is_refused": """
class Copying(MemoryStore):
    def regenerate(self, sid, data=None, **how):
        record = self.load(sid)
        while self.load(sid).version == record.version:
            time.sleep(0)  # until another saved
        copy = self.create(record.data)
        self.delete(sid)
        return copy

class TestCopying(Suite):
    kind = Copying
""",
    "test_anothers_save_waits_for_the_lock": """
class Barging(MemoryStore):
    def save(self, sid, data, **how):
        if self._slots.mine(handle_of(sid)) is not None:
            there.wait(10)
            return super().save(sid, data, **how)
        slot = self._slots.named[handle_of(sid)]
        slot.entry = dataclasses.replace(slot.entry, data=self.codec.encode(data))
        there.set()
        return self.load(sid)

class TestBarging(Suite):
    kind = Barging
""",
    "test_anothers_delete_waits_for_the_lock": """
class Evicting(MemoryStore):
    def delete(self, sid):
        found = self._slots.named.pop(handle_of(sid), None)
        there.set()
        return found is not None

    def save(self, sid, data, **how):
        there.wait(10)
        return super().save(sid, data, **how)

class TestEvicting(Suite):
    kind = Evicting
""",
    "test_anothers_regenerate_waits_for_the_lock": """
class Moving(MemoryStore):
    def regenerate(self, sid, data=None, **how):
        new = self.create(self.load(sid).data)
        del self._slots.named[handle_of(sid)]
        there.set()
        return new

    def save(self, sid, data, **how):
        there.wait(10)
        return super().save(sid, data, **how)

class TestMoving(Suite):
    kind = Moving
""",
    "test_a_lock_is_waited_for_no_longer_than_asked": """
class Patient(MemoryStore):
    def lock(self, sid, *, timeout=10):
        return super().lock(sid, timeout=1e6 if timeout else 0)

class TestPatient(Suite):
    kind = Patient

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch):
        monkeypatch.setattr(base, "PATIENCE", 0.2)
""",
    "test_a_lock_keeps_out_another_task_of_the_same_thread": """
class Threaded(MemoryStore):
    def __init__(self, **options):
        super().__init__(**options)
        self.mutex = threading.RLock()

    @contextlib.contextmanager
    def lock(self, sid, *, timeout=10):
        if not self.mutex.acquire(timeout=timeout):
            raise LockTimeout
        try:
            yield self.load(sid)
        finally:
            self.mutex.release()

class TestThreaded(Suite):
    kind = Threaded
""",
    "test_work_the_holder_hands_to_a_thread_goes_through_the_lock": """
class ThreadBound(MemoryStore):
    def save(self, sid, data, **how):
        slot = self._slots.named[handle_of(sid)]
        if slot.lock.locked() and threading.current_thread() is not threading.main_thread():
            raise LockTimeout
        return super().save(sid, data, **how)

class TestThreadBound(Suite):
    kind = ThreadBound
""",
    "test_without_waiting_a_held_lock_is_refused_at_once": """
class Hasty(MemoryStore):
    def without_waiting(self):
        impatient = super().without_waiting()
        impatient.regenerate = lambda sid: self.load(sid)
        return impatient

class TestHasty(Suite):
    kind = Hasty
""",
    "test_a_scan_knows_when_a_session_was_touched": """
class Stale(MemoryStore):
    def _info(self, handle, slot):
        return super()._info(handle, dataclasses.replace(slot, mark=slot.entry.saved))

class TestStale(Suite):
    kind = Stale
""",
    "test_a_sweep_heeds_a_shorter_timeout_of_a_sessions_own": """
class Uniform(MemoryStore):
    def sweep(self, **how):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Entry, "lifetime", lambda entry, store: store)
            return super().sweep(**how)

class TestUniform(Suite):
    kind = Uniform
""",
    "test_a_sweep_under_a_clock_set_back_deletes_nothing": """
class Absolute(MemoryStore):
    def sweep(self, **how):
        for info in self.scan():
            if abs(self.clock() - info.created_at) > 1000:
                self.evict(info.handle)
        return super().sweep(**how)

class TestAbsolute(Suite):
    kind = Absolute
""",
    "test_a_sweep_heeds_the_absolute_timeout": """
class Prompt(MemoryStore):
    def sweep(self, **how):
        for info in self.scan():
            if info.expires_at < self.clock():
                self.evict(info.handle)
        return super().sweep(**how)

class TestPrompt(Suite):
    kind = Prompt
""",
    "test_a_dry_run_only_counts": """
class Unlimited(MemoryStore):
    def sweep(self, *, limit=None, dry_run=False, **how):
        return super().sweep(limit=None if dry_run else limit, dry_run=dry_run, **how)

class TestUnlimited(Suite):
    kind = Unlimited
""",
    "test_a_key_is_made_once_and_stays": """
class Rekeying(MemoryStore):
    def signing_key(self):
        return os.urandom(32)

class TestRekeying(Suite):
    kind = Rekeying
""",
}


def run(
    directory: Path, store: str, *options: str, tests: Sequence[str] = ("",)
) -> subprocess.CompletedProcess[str]:
    """The suite, or some tests of it, over a store in a file of its own."""
    path = directory / "test_it.py"
    path.write_text(SUITE + store)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    command += [f"{path}{test}" for test in tests]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=directory)


def test_a_store_of_five_verbs_passes_and_what_it_cannot_do_is_skipped(tmp_path: Path) -> None:
    told = run(tmp_path, FIVE_VERBS, "-rs")
    assert told.returncode == 0, told.stdout
    for reason in (
        "the store cannot regenerate (stores.protocol.Regenerates)",
        "the store cannot lock a session (stores.protocol.Locks)",
        "the store has no form that never waits (stores.protocol.Impatient)",
        "the store cannot be scanned and swept (stores.protocol.Sweeps)",
        "the store has no length (collections.abc.Sized)",
        "the store keeps no key (stores.protocol.KeepsSecret)",
        "the store has no clear()",
        "the store has no close()",
    ):
        assert reason in told.stdout
    assert "keeps_cookie" not in told.stdout


def test_a_store_that_keeps_no_cookie_attributes_says_so_itself(tmp_path: Path) -> None:
    told = run(tmp_path, f"{FIVE_VERBS}    keeps_cookie = False\n", "-rs", "-k", "cookie")
    assert told.returncode == 0
    assert "the store keeps no cookie attributes (keeps_cookie)" in told.stdout
    assert "passed" not in told.stdout


def test_a_store_may_regenerate_without_cookies_and_be_quick_without_locks(tmp_path: Path) -> None:
    told = run(tmp_path, COOKIELESS, "-rs")
    assert told.returncode == 0, told.stdout
    assert "keeps_cookie" in told.stdout
    assert "Regenerates" not in told.stdout
    assert "Impatient" not in told.stdout


def test_broken_stores_fail_the_tests_of_what_they_break(tmp_path: Path) -> None:
    names = {test: store.split()[1].partition("(")[0] for test, store in BROKEN.items()}
    tests = [f"::Test{name}::{test}" for test, name in names.items()]
    told = run(tmp_path, "".join(BROKEN.values()), tests=tests)
    assert told.returncode == 1, told.stdout
    for test in tests:
        assert f"FAILED test_it.py{test}" in told.stdout
    # And the failure shows what was compared, or that it would have waited for ever.
    assert "assert \"{'value': 1}\" == \"{'value': True}\"" in told.stdout
    assert "waits after 0.2 s for what never comes" in told.stdout


def test_a_suite_that_makes_no_store_says_what_it_must_define(tmp_path: Path) -> None:
    told = run(tmp_path, "class TestNone(StoreContract):\n    pass\n", "-k", "hundred_saves_of")
    assert told.returncode == 1
    assert "NotImplementedError: TestNone must define make_store()" in told.stdout


def test_without_pytest_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['pytest'] = None; import filesession.testing"
    told = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert told.returncode == 1
    assert "ImportError: filesession.testing needs pytest" in told.stderr
    assert "pip install 'filesession[testing]'" in told.stderr


class TestManualClock:
    def test_it_stands_still_until_it_is_moved(self) -> None:
        clock = ManualClock()
        start = clock()
        assert clock() == start == clock.now
        clock.advance(0.25)
        assert clock() == start + 0.25
        clock.now = 5
        assert clock() == 5

    def test_it_starts_where_real_time_is_and_between_seconds(self) -> None:
        assert 1.7e9 < ManualClock().now < 2e9
        assert ManualClock().now % 1 != 0
        assert ManualClock(7).now == 7

    def test_whole_seconds_are_added_exactly(self) -> None:
        clock = ManualClock()
        start = clock.now
        for _ in range(1000):
            clock.advance(90)
        assert clock.now - start == 90_000


class TestThreads:
    def test_a_call_in_a_thread_gives_its_result_or_raises_its_error(self) -> None:
        assert in_thread(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            in_thread(lambda: 1 // 0)

    def test_calls_at_once_give_what_each_returned_or_raised_in_order(self) -> None:
        outcomes = at_once(3, lambda n: 6 // n)
        assert of_type(outcomes, int) == [6, 3]
        assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, int, int]
