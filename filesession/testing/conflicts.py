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
        """What we set or deleted since the base is ours; every other top-level key is theirs.

        Two requests of one page load change different things. A store that lets the last one win
        loses the other's: an item in the cart, a message read.
        """
        record = store.create(base)
        store.save(record.id, theirs, base=record)
        saved = store.save(record.id, ours, base=record)
        assert saved.data == merged
        assert repr(sorted(saved.data.items())) == repr(sorted(merged.items()))
        assert store.load(record.id) == saved
        assert saved.version == 3

    def test_a_merged_record_is_the_base_of_the_next_save(self, store: Store) -> None:
        """The record a merge returns knows both sides, so that it can itself be a base.

        A request that saves twice would otherwise, with its second save, delete or bring back what
        the first had merged in.
        """
        record = store.create({"a": 1})
        store.save(record.id, {"a": 1, "b": 2}, base=record)
        merged = store.save(record.id, {"a": 1, "c": 3}, base=record)
        del merged.data["b"]
        store.save(record.id, merged.data, base=merged)
        assert loaded(store, record.id).data == {"a": 1, "c": 3}

    def test_with_a_fresh_base_ours_replaces_all(self, store: Store) -> None:
        """Where nobody saved since the base, the data given is what is stored, in every mode.

        A store that merges then too lets no key be deleted: a logout that clears the session leaves
        the user in it.
        """
        record = store.create({"a": 1, "b": 2})
        for mode in MODES:
            record = store.save(record.id, {"mode": mode}, base=record, conflict=mode)
            assert loaded(store, record.id).data == {"mode": mode}

    def test_without_a_base_there_is_no_conflict(self, store: Store) -> None:
        """A save that names no base replaces all, in every mode, whatever was saved before.

        It is how a tool repairs a session. A store that merges here has nothing to compare with,
        and guesses.
        """
        sid = store.create({"a": 1}).id
        store.save(sid, {"b": 2})
        for mode in MODES:
            store.save(sid, {"mode": mode}, conflict=mode)
            assert loaded(store, sid).data == {"mode": mode}

    def test_a_base_from_a_hundred_saves_ago_is_merged(self, store: Store) -> None:
        """A base is never too old: the record itself holds what was loaded, for the comparison.

        A slow upload ends long after a busy page loaded the same session. A store that compares
        with the last few versions it kept would have the upload undo all that was saved since.
        """
        base = store.create({"upload": None, "text": "x" * 400})
        for n in range(100):
            store.save(base.id, base.data | {"n": n})
        store.save(base.id, base.data | {"upload": "done"}, base=base)
        assert loaded(store, base.id).data == base.data | {"n": 99, "upload": "done"}

    def test_overwrite_replaces_what_they_saved(self, store: Store) -> None:
        """``conflict="overwrite"`` stores our data and nothing of theirs, though the base is stale.

        An app that asked for Express's rule, the last one wins, would otherwise meet keys that it
        had thrown away.
        """
        record = store.create({"a": 1})
        store.save(record.id, {"a": 1, "b": 2}, base=record)
        saved = store.save(record.id, {"c": 3}, base=record, conflict="overwrite")
        assert saved.data == {"c": 3}
        assert store.load(record.id) == saved

    def test_error_refuses_a_stale_save_and_names_both_sides(self, store: Store) -> None:
        """``conflict="error"`` raises ``ConflictError`` with both sides, and leaves theirs stored.

        The middleware answers 409 with it. A store that writes first, or compares outside the lock,
        loses the very update the app asked to be told of.
        """
        record = store.create({"a": 1})
        theirs = store.save(record.id, {"a": 2}, base=record)
        with pytest.raises(ConflictError) as refused:
            store.save(record.id, {"a": 3}, base=record, conflict="error")
        assert refused.value.ours == {"a": 3}
        assert refused.value.theirs == {"a": 2}
        assert store.load(record.id) == theirs

    def test_a_save_of_the_same_data_makes_a_base_stale_too(self, store: Store) -> None:
        """A save is a save, also of what was stored already: who loaded before it is behind.

        A store that skips equal data, or compares data to find conflicts, lets two requests both
        believe that they were the one to spend a voucher.
        """
        record = store.create({"a": 1})
        store.save(record.id, {"a": 1}, base=record)
        with pytest.raises(ConflictError):
            store.save(record.id, {"a": 2}, base=record, conflict="error")

    def test_a_touch_does_not_make_a_base_stale(self, store: Store) -> None:
        """A touch changes no version: who loaded before may still save with ``conflict="error"``.

        Every request touches. If that counted, any two requests at once would be a 409.
        """
        record = store.create({"a": 1})
        store.touch(record.id)
        assert store.save(record.id, {"a": 2}, base=record, conflict="error").data == {"a": 2}

    @pytest.mark.parametrize("mode", MODES)
    def test_a_base_of_an_earlier_session_of_the_same_id_is_gone(
        self, store: Store, mode: Conflict
    ) -> None:
        """A session created anew under an id is another one: a base of the old is ``SessionGone``.

        Versions alone do not tell them apart, ``SessionRecord.lineage`` does. Without it a slow
        request writes the data of a user who logged out into the session of the next.
        """
        old = store.create({"secret": "of the old one"}, sid="chosen")
        store.delete("chosen")
        new = store.create({"a": 1}, sid="chosen")
        with pytest.raises(SessionGone):
            store.save("chosen", old.data, base=old, conflict=mode)
        assert store.load("chosen") == new

    def test_keys_that_threads_add_at_the_same_moment_are_all_kept(self, store: Store) -> None:
        """Saves at the same moment are merged one after the other, and none is lost.

        Loading, merging and writing must be one step under a lock or a compare-and-set. Otherwise
        two tabs at once lose an update now and then, which nobody can reproduce.
        """
        base = store.create({"start": True})

        def add(n: int) -> SessionRecord:
            return store.save(base.id, {"start": True, f"key {n}": n}, base=base)

        outcomes = at_once(8, add)
        assert len(of_type(outcomes, SessionRecord)) == 8
        after = loaded(store, base.id)
        assert after.data == {"start": True} | {f"key {n}": n for n in range(8)}
        assert after.version == 9
