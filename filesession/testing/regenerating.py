"""A new id for a session: what is kept, and that the old id is dead."""

from __future__ import annotations

from typing import Any, Final, Protocol

import pytest

from filesession.errors import (
    ConfigurationError,
    ConflictError,
    EncodeError,
    SessionExists,
    SessionGone,
)
from filesession.record import SessionRecord
from filesession.stores.protocol import Regenerates, Store
from filesession.testing.base import ContractTests, at_once, loaded, of_type
from filesession.testing.clock import ManualClock


class RegeneratingStore(Store, Regenerates, Protocol):
    """A store that can move a session to a new id."""


MALFORMED: Final[list[Any]] = ["", "x" * 257, "a\nb", "\ud800", 7]


class RegeneratingTests(ContractTests):
    """``regenerate``; skipped for a store without."""

    @pytest.fixture
    def moving(self, store: Store) -> RegeneratingStore:
        return able_to_regenerate(store)

    def test_a_regenerated_session_has_a_new_id_and_the_old_one_is_dead(
        self, moving: RegeneratingStore
    ) -> None:
        old = moving.create({"user": "ada"})
        new = moving.regenerate(old.id)
        assert new.id != old.id
        assert len(new.id) >= 22
        assert new.data == {"user": "ada"}
        assert moving.load(new.id) == new
        assert moving.load(old.id) is None
        assert moving.delete(old.id) is False

    def test_the_old_id_never_comes_back(
        self, moving: RegeneratingStore, clock: ManualClock
    ) -> None:
        old = moving.create({"a": 1})
        new = moving.regenerate(old.id)
        clock.advance(100)
        with pytest.raises(SessionGone):
            moving.save(old.id, {"a": 2}, base=old)
        with pytest.raises(SessionGone):
            moving.regenerate(old.id)
        assert moving.touch(old.id) is False
        assert moving.touch(old.id, base=old) is False
        assert moving.load(old.id) is None
        assert moving.load(new.id) == new

    def test_a_regenerated_session_keeps_what_is_its_own(
        self, moving: RegeneratingStore, clock: ManualClock
    ) -> None:
        old = moving.create({"a": 1}, idle_timeout=500, absolute_timeout=900)
        clock.advance(100)
        new = moving.regenerate(old.id)
        assert new.created_at == old.created_at
        assert new.accessed_at == clock.now
        assert (new.idle_timeout, new.absolute_timeout) == (500, 900)
        assert new.expires_at == clock.now + 500
        assert new.version == old.version + 1

    def test_regenerate_does_not_extend_the_absolute_timeout(
        self, moving: RegeneratingStore, clock: ManualClock
    ) -> None:
        sid = moving.create(absolute_timeout=300).id
        for _ in range(3):
            clock.advance(100)
            sid = moving.regenerate(sid).id
        clock.advance(0.001)
        assert moving.load(sid) is None

    def test_regenerate_may_replace_the_data(self, moving: RegeneratingStore) -> None:
        old = moving.create({"a": 1, "b": 2})
        assert moving.regenerate(old.id, {"c": 3}, base=old).data == {"c": 3}
        again = moving.create({"a": 1})
        assert moving.regenerate(again.id, {}).data == {}

    def test_regenerate_may_change_the_idle_timeout_and_the_cookie(
        self, moving: RegeneratingStore
    ) -> None:
        old = moving.create(cookie={"max_age": 1})
        new = moving.regenerate(old.id, idle_timeout=100, cookie={"max_age": 2})
        assert new.idle_timeout == 100
        assert moving.load(new.id) == new
        back = moving.regenerate(new.id, idle_timeout=None, cookie={})
        assert (back.idle_timeout, back.cookie) == (1800, {})

    def test_regenerate_merges_with_what_was_saved_meanwhile(
        self, moving: RegeneratingStore
    ) -> None:
        base = moving.create({"a": 1})
        moving.save(base.id, {"a": 1, "b": 2}, base=base)
        new = moving.regenerate(base.id, {"a": 9}, base=base)
        assert new.data == {"a": 9, "b": 2}
        assert moving.load(new.id) == new

    def test_regenerate_without_data_keeps_what_was_saved_meanwhile(
        self, moving: RegeneratingStore
    ) -> None:
        base = moving.create({"a": 1})
        moving.save(base.id, {"a": 1, "b": 2}, base=base)
        assert moving.regenerate(base.id, base=base).data == {"a": 1, "b": 2}

    def test_regenerate_honours_the_conflict_mode(self, moving: RegeneratingStore) -> None:
        base = moving.create({"a": 1})
        theirs = moving.save(base.id, {"a": 2}, base=base)
        with pytest.raises(ConflictError):
            moving.regenerate(base.id, {"a": 3}, base=base, conflict="error")
        assert moving.load(base.id) == theirs
        with pytest.raises(ConfigurationError):
            moving.regenerate(base.id, {"a": 3}, conflict="newest")  # type: ignore[arg-type]
        new = moving.regenerate(base.id, {"c": 3}, base=base, conflict="overwrite")
        assert new.data == {"c": 3}

    def test_a_record_from_before_still_is_a_base_under_the_new_id(
        self, moving: RegeneratingStore
    ) -> None:
        base = moving.create({"a": 1})
        new = moving.regenerate(base.id, {"a": 1, "b": 2}, base=base)
        moving.save(new.id, {"a": 1, "c": 3}, base=base)
        assert loaded(moving, new.id).data == {"a": 1, "b": 2, "c": 3}

    def test_regenerate_with_a_base_of_an_earlier_session_of_the_same_id_is_gone(
        self, moving: RegeneratingStore
    ) -> None:
        old = moving.create(sid="chosen")
        moving.delete("chosen")
        now = moving.create({"a": 1}, sid="chosen")
        with pytest.raises(SessionGone):
            moving.regenerate("chosen", base=old)
        assert moving.load("chosen") == now

    def test_regenerate_takes_a_chosen_id(self, moving: RegeneratingStore) -> None:
        old = moving.create({"a": 1})
        assert moving.regenerate(old.id, new_sid="chosen").id == "chosen"
        assert loaded(moving, "chosen").data == {"a": 1}

    def test_regenerate_refuses_an_id_that_is_taken(self, moving: RegeneratingStore) -> None:
        one = moving.create({"n": 1}, sid="one")
        two = moving.create({"n": 2}, sid="two")
        with pytest.raises(SessionExists):
            moving.regenerate("one", {"n": 3}, new_sid="two")
        with pytest.raises(SessionExists):
            moving.regenerate("one", {"n": 3}, new_sid="one")
        assert (moving.load("one"), moving.load("two")) == (one, two)

    def test_regenerate_takes_the_id_of_an_expired_session(
        self, moving: RegeneratingStore, clock: ManualClock
    ) -> None:
        moving.create({"n": 1}, sid="one", idle_timeout=10)
        sid = moving.create({"n": 2}).id
        clock.advance(100)
        moving.regenerate(sid, new_sid="one")
        assert loaded(moving, "one").data == {"n": 2}

    @pytest.mark.parametrize("sid", MALFORMED, ids=lambda sid: ascii(sid)[:20])
    def test_regenerate_takes_no_malformed_id(self, moving: RegeneratingStore, sid: Any) -> None:  # noqa: ANN401
        before = moving.create({"a": 1})
        with pytest.raises(SessionGone):
            moving.regenerate(sid)
        with pytest.raises(ConfigurationError):
            moving.regenerate(before.id, new_sid=sid)
        assert moving.load(before.id) == before

    def test_a_regenerate_that_is_refused_changes_nothing(self, moving: RegeneratingStore) -> None:
        before = moving.create({"a": 1})
        with pytest.raises(EncodeError):
            moving.regenerate(before.id, {"a": {1}}, new_sid="chosen")
        with pytest.raises(ConfigurationError):
            moving.regenerate(before.id, idle_timeout=-1, new_sid="chosen")
        with pytest.raises(SessionGone):
            moving.regenerate("unknown", new_sid="chosen")
        assert moving.load("chosen") is None
        assert moving.load(before.id) == before

    def test_of_several_who_regenerate_a_session_one_wins(self, moving: RegeneratingStore) -> None:
        sid = moving.create({"a": 1}).id
        outcomes = at_once(4, lambda _: moving.regenerate(sid))
        assert len(of_type(outcomes, SessionGone)) == 3
        [winner] = of_type(outcomes, SessionRecord)
        assert moving.load(winner.id) == winner
        assert moving.load(sid) is None

    def test_a_session_can_be_regenerated_over_and_over(self, moving: RegeneratingStore) -> None:
        record = moving.create({"text": "x" * 1000})
        for n in range(30):
            record = moving.regenerate(record.id, record.data | {"n": n}, base=record)
        assert moving.load(record.id) == record
        assert record.data["n"] == 29


def able_to_regenerate(store: Store) -> RegeneratingStore:
    """The store, if it can; the test is skipped if not."""
    if not isinstance(store, Regenerates):
        pytest.skip("the store cannot regenerate (stores.protocol.Regenerates)")
    return store
