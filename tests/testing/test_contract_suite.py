"""The suite itself: that it fails broken stores, skips what a store cannot do, and says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from filesession.testing import ManualClock
from filesession.testing.base import at_once, in_thread, of_type

SUITE: Final = """
import contextlib
from filesession.errors import SessionGone
from filesession.stores import MemoryStore
from filesession.testing import StoreContract

class Suite(StoreContract):
    def make_store(self, clock, **timeouts):
        return self.kind(clock=clock, **timeouts)

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
class Hasty(MemoryStore):
    def sweep(self, **how):
        report = super().sweep(**how)
        for info in list(self.scan()):
            if info.expires_at is not None and info.expires_at < self.clock():
                self.evict(info.handle)
        return report

class TestHasty(Suite):
    kind = Hasty
""",
}


def run(directory: Path, store: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The suite, over a store in a file of its own."""
    path = directory / "test_it.py"
    path.write_text(SUITE + store)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(path)]
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


def test_broken_stores_fail_the_tests_of_what_they_break(tmp_path: Path) -> None:
    told = run(tmp_path, "".join(BROKEN.values()), "-k", " or ".join(BROKEN))
    assert told.returncode == 1, told.stdout
    for test, store in BROKEN.items():
        name = store.split()[1].partition("(")[0]
        assert f"FAILED test_it.py::Test{name}::{test}" in told.stdout
    # And the failure shows what was compared.
    assert "assert \"{'value': 1}\" == \"{'value': True}\"" in told.stdout


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
