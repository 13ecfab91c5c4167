"""Two who save one session, both having loaded it before."""

from __future__ import annotations

from typing import Any, Final

import pytest

from filesession.errors import ConflictError, SessionGone
from filesession.record import SessionRecord
from filesession.stores.entry import Conflict
from filesession.stores.protocol import Store
from filesession.testing.base import ContractTests, at_once, loaded, of_type

MODES: Final[list[Conflict]] = ["merge", "overwrite", "error"]

MERGES: Final[dict[str, list[dict[str, Any]]]] = {
    # In this order: the base, what they made of it, what we did, and the two merged.
    "each sets another key": [{}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}],
    "each changes another key": [
        {"a": 1, "b": 1},
        {"a": 2, "b": 1},
        {"a": 1, "b": 2},
        {"a": 2, "b": 2},
    ],
    "both change one key": [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}],
    "both set one key": [{}, {"a": 2}, {"a": 3}, {"a": 3}],
    "both set it alike": [{}, {"a": 2}, {"a": 2}, {"a": 2}],
    "they delete": [{"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2}],
    "we delete": [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"b": 1}, {"b": 2}],
    "both delete": [{"a": 1, "b": 1}, {"b": 2}, {"b": 1}, {"b": 2}],
    "they delete what we change": [{"a": 1}, {}, {"a": 2}, {"a": 2}],
    "they change what we delete": [{"a": 1}, {"a": 2}, {}, {}],
    "they put back what we delete": [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {}, {}],
    "they empty it": [{"a": 1, "b": 1}, {}, {"a": 1, "b": 1, "c": 1}, {"c": 1}],
    "True becomes 1": [{"a": True}, {"a": True, "b": 1}, {"a": 1}, {"a": 1, "b": 1}],
    "1 becomes 1.0": [{"a": 1}, {"a": 1, "b": 1}, {"a": 1.0}, {"a": 1.0, "b": 1}],
    "0 becomes False, nested": [
        {"a": [{"x": 0}]},
        {"a": [{"x": 0}], "b": 1},
        {"a": [{"x": False}]},
        {"a": [{"x": False}], "b": 1},
    ],
    "0.0 becomes -0.0": [{"a": 0.0}, {"a": 0.0, "b": 1}, {"a": -0.0}, {"a": -0.0, "b": 1}],
    "null becomes missing": [{"a": None}, {"a": None, "b": 1}, {}, {"b": 1}],
    "a nested value is one value": [
        {"cart": {"tea": 1}},
        {"cart": {"tea": 1, "jam": 1}},
        {"cart": {"tea": 2}},
        {"cart": {"tea": 2}},
    ],
    "a nested value we left alone is theirs": [
        {"cart": {"tea": 1}, "b": 1},
        {"cart": {"tea": 1, "jam": 1}, "b": 1},
        {"cart": {"tea": 1}, "b": 2},
        {"cart": {"tea": 1, "jam": 1}, "b": 2},
    ],
    "a tuple of ours is the list that is stored": [
        {"pair": [1, 2]},
        {"pair": [3, 4]},
        {"pair": (1, 2), "b": 1},
        {"pair": [3, 4], "b": 1},
    ],
}


class ConflictTests(ContractTests):
    """What ``base`` and ``conflict`` decide."""

    @pytest.mark.parametrize(
        ("base", "theirs", "ours", "merged"), MERGES.values(), ids=MERGES.keys()
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
        assert saved.data == merged
        assert repr(sorted(saved.data.items())) == repr(sorted(merged.items()))
        assert store.load(record.id) == saved
        assert saved.version == 3

    def test_a_merged_record_is_the_base_of_the_next_save(self, store: Store) -> None:
        record = store.create({"a": 1})
        store.save(record.id, {"a": 1, "b": 2}, base=record)
        merged = store.save(record.id, {"a": 1, "c": 3}, base=record)
        del merged.data["b"]
        store.save(record.id, merged.data, base=merged)
        assert loaded(store, record.id).data == {"a": 1, "c": 3}

    def test_with_a_fresh_base_ours_replaces_all(self, store: Store) -> None:
        record = store.create({"a": 1, "b": 2})
        for mode in MODES:
            record = store.save(record.id, {"mode": mode}, base=record, conflict=mode)
            assert loaded(store, record.id).data == {"mode": mode}

    def test_without_a_base_there_is_no_conflict(self, store: Store) -> None:
        sid = store.create({"a": 1}).id
        store.save(sid, {"b": 2})
        for mode in MODES:
            store.save(sid, {"mode": mode}, conflict=mode)
            assert loaded(store, sid).data == {"mode": mode}

    def test_overwrite_replaces_what_they_saved(self, store: Store) -> None:
        record = store.create({"a": 1})
        store.save(record.id, {"a": 1, "b": 2}, base=record)
        saved = store.save(record.id, {"c": 3}, base=record, conflict="overwrite")
        assert saved.data == {"c": 3}
        assert store.load(record.id) == saved

    def test_error_refuses_a_stale_save_and_names_both_sides(self, store: Store) -> None:
        record = store.create({"a": 1})
        theirs = store.save(record.id, {"a": 2}, base=record)
        with pytest.raises(ConflictError) as refused:
            store.save(record.id, {"a": 3}, base=record, conflict="error")
        assert refused.value.ours == {"a": 3}
        assert refused.value.theirs == {"a": 2}
        assert store.load(record.id) == theirs

    def test_a_save_of_the_same_data_makes_a_base_stale_too(self, store: Store) -> None:
        record = store.create({"a": 1})
        store.save(record.id, {"a": 1}, base=record)
        with pytest.raises(ConflictError):
            store.save(record.id, {"a": 2}, base=record, conflict="error")

    def test_a_touch_does_not_make_a_base_stale(self, store: Store) -> None:
        record = store.create({"a": 1})
        store.touch(record.id)
        assert store.save(record.id, {"a": 2}, base=record, conflict="error").data == {"a": 2}

    @pytest.mark.parametrize("mode", MODES)
    def test_a_base_of_an_earlier_session_of_the_same_id_is_gone(
        self, store: Store, mode: Conflict
    ) -> None:
        old = store.create({"secret": "of the old one"}, sid="chosen")
        store.delete("chosen")
        new = store.create({"a": 1}, sid="chosen")
        with pytest.raises(SessionGone):
            store.save("chosen", old.data, base=old, conflict=mode)
        assert store.load("chosen") == new

    def test_keys_that_threads_add_at_the_same_moment_are_all_kept(self, store: Store) -> None:
        base = store.create({"start": True})

        def add(n: int) -> SessionRecord:
            return store.save(base.id, {"start": True, f"key {n}": n}, base=base)

        outcomes = at_once(8, add)
        assert len(of_type(outcomes, SessionRecord)) == 8
        after = loaded(store, base.id)
        assert after.data == {"start": True} | {f"key {n}": n for n in range(8)}
        assert after.version == 9
