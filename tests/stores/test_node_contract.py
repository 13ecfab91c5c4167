"""The store shared with an Express app, through the suite that every store passes.

The parts for what it cannot do (regenerate in one step, lock, refuse to wait) and for the expiry of
a ``FileStore``, which is another than Express's, are left out; ``DIFFERENT`` says what else is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from filesession.clock import Clock
from filesession.errors import ConfigurationError
from filesession.record import SessionRecord
from filesession.stores import NodeFileStore
from filesession.stores.protocol import Store
from filesession.testing import ManualClock
from filesession.testing.base import ContractTests, at_once, loaded, of_type
from filesession.testing.conflicts import MERGES, ConflictTests
from filesession.testing.cookies import CookieTests
from filesession.testing.exactness import EXACT, ExactnessTests
from filesession.testing.verbs import ODD, TWINS, VerbTests
from filesession.testing.whole import WholeStoreTests

NO_VERSION: Final = "an Express session has no count of its saves"
NO_CREATION: Final = "an Express session does not tell when it was created"
NO_LINEAGE: Final = "an Express session has nothing but its id to be known by"
NO_SLACK: Final = "Express writes every touch, and nothing lives longer for it"

DIFFERENT: Final = {
    "test_the_version_counts_the_saves": NO_VERSION,
    "test_a_save_of_the_same_data_is_a_save": NO_VERSION,
    "test_a_hundred_saves_of_one_session_leave_the_last": NO_VERSION,
    "test_a_save_of_the_same_data_makes_a_base_stale_too": NO_VERSION,
    "test_a_save_gives_what_is_loaded_next": NO_CREATION,
    "test_a_scan_lists_all_that_is_stored": NO_CREATION,
    "test_a_sweep_deletes_what_is_due_and_nothing_else": NO_SLACK,
    "test_a_sweep_leaves_a_session_for_two_touch_intervals_past_its_deadline": NO_SLACK,
    "test_a_sweep_heeds_a_shorter_timeout_of_a_sessions_own": NO_SLACK,
    "test_a_base_of_an_earlier_session_of_the_same_id_is_gone": NO_LINEAGE,
    "test_a_scan_knows_the_timeouts_a_session_has_of_its_own": "all Express sessions end",
    "test_a_sweep_heeds_the_absolute_timeout": "Express has no absolute timeout",
    "test_cookie_attributes_may_have_any_name": "Express's cookies have eight",
}

TOO_LONG: Final = 220
"""Bytes of an id for which a file has no name."""


def names_a_file(sid: str) -> bool:
    return not sid.startswith(".") and not set("/\\") & set(sid) and len(sid.encode()) < TOO_LONG


def survives(value: object) -> bool:
    """Whether JavaScript keeps it as it is: 1.0 is 1 there, and "0" the first key."""
    return repr(value) not in {"0.0", "-0.0", "1.0"} and not (
        (type(value) is int and abs(value) > 2**53)
        or (isinstance(value, list) and "1.0" in repr(value))
        or (isinstance(value, dict) and "0" in value)
    )


class TestNodeFileStore(
    VerbTests, ExactnessTests, ConflictTests, CookieTests, WholeStoreTests, ContractTests
):
    directory: Path

    @pytest.fixture(autouse=True)
    def _applies(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.directory = tmp_path / "sessions"
        reason = DIFFERENT.get(request.function.__name__)
        if reason is not None:
            pytest.skip(reason)

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock(1_760_000_000.0)  # the file has milliseconds

    def make_store(self, clock: Clock, **timeouts: Any) -> NodeFileStore:
        return NodeFileStore(self.directory, clock=clock, ttl=timeouts.get("idle_timeout", 1800))

    @pytest.mark.parametrize(
        "value", [value for value in EXACT if survives(value)], ids=lambda value: ascii(value)[:30]
    )
    def test_a_value_comes_back_as_it_was(self, store: Store, value: Any) -> None:
        super().test_a_value_comes_back_as_it_was(store, value)

    @pytest.mark.parametrize("sid", ODD, ids=lambda sid: ascii(sid)[:30])
    def test_an_id_may_be_any_text(self, store: Store, clock: ManualClock, sid: str) -> None:
        if names_a_file(sid):
            super().test_an_id_may_be_any_text(store, clock, sid)
            return
        with pytest.raises(ConfigurationError):
            store.create({"a": 1}, sid=sid)
        assert (store.load(sid), store.touch(sid), store.delete(sid)) == (None, False, False)
        assert list(self.directory.parent.iterdir()) == [self.directory]

    @pytest.mark.parametrize(
        ("one", "other"), [twins for twins in TWINS if all(map(names_a_file, twins))], ids=ascii
    )
    def test_ids_that_look_alike_are_different_sessions(
        self, store: Store, one: str, other: str
    ) -> None:
        super().test_ids_that_look_alike_are_different_sessions(store, one, other)

    @pytest.mark.parametrize(
        ("base", "theirs", "ours", "merged"),
        [case for case in MERGES.values() if "0.0" not in repr(case) and "1.0" not in repr(case)],
    )
    def test_a_stale_save_is_merged_by_key(
        self,
        store: Store,
        base: dict[str, Any],
        theirs: dict[str, Any],
        ours: dict[str, Any],
        merged: dict[str, Any],
    ) -> None:
        record = store.create(base)
        store.save(record.id, theirs, base=record)
        saved = store.save(record.id, ours, base=record)
        assert repr(sorted(saved.data.items())) == repr(sorted(merged.items()))
        assert store.load(record.id) == saved

    def test_keys_that_threads_add_at_the_same_moment_are_all_kept(self, store: Store) -> None:
        base = store.create({"start": True})

        def add(n: int) -> SessionRecord:
            return store.save(base.id, {"start": True, f"key {n}": n}, base=base)

        outcomes = at_once(8, add)
        assert len(of_type(outcomes, SessionRecord)) == 8
        assert loaded(store, base.id).data == {"start": True} | {f"key {n}": n for n in range(8)}


def test_what_is_left_out_is_in_the_suite() -> None:
    assert all(hasattr(TestNodeFileStore, name) for name in DIFFERENT)
