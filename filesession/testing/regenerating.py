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
        """The store, for tests of ``regenerate``; they are skipped for a store without."""
        return able_to_regenerate(store)

    def test_a_regenerated_session_has_a_new_id_and_the_old_one_is_dead(
        self, moving: RegeneratingStore
    ) -> None:
        """The session is found under a fresh random id, with its data, and no longer under the old.

        Regenerating at login is what stops session fixation: an attacker who planted the old id
        must hold nothing.
        """
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
        """No save, touch or regenerate by one who still has the old id revives it.

        Requests under way when the user logged in end with such a save. It must be ``SessionGone``,
        not a second session that the attacker's id opens.
        """
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
        """``created_at`` and the session's own timeouts go with it; the version counts on.

        A login must not turn "remember me" off. The move itself is activity.
        """
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
        """The absolute timeout counts from the first creation, however often the id changed.

        An app that regenerates often, as it should, would otherwise never end a session; nor would
        one who stole it.
        """
        sid = moving.create(absolute_timeout=300).id
        for _ in range(3):
            clock.advance(100)
            sid = moving.regenerate(sid).id
        clock.advance(0.001)
        assert moving.load(sid) is None

    def test_regenerate_may_replace_the_data(self, moving: RegeneratingStore) -> None:
        """The data given is what the session has from then on; an empty mapping empties it.

        ``regenerate(keep_data=False)`` at logout stores ``{}``: a store that takes it for "no data
        given" leaves the user logged in.
        """
        old = moving.create({"a": 1, "b": 2})
        assert moving.regenerate(old.id, {"c": 3}, base=old).data == {"c": 3}
        again = moving.create({"a": 1})
        assert moving.regenerate(again.id, {}).data == {}

    def test_regenerate_may_change_the_idle_timeout(self, moving: RegeneratingStore) -> None:
        """``idle_timeout`` is taken as in a save: given, it replaces; None is the store's again.

        The login that regenerates is also where "remember me" is set; it is one call, and both must
        hold.
        """
        new = moving.regenerate(moving.create().id, idle_timeout=100)
        assert new.idle_timeout == 100
        assert moving.load(new.id) == new
        assert moving.regenerate(new.id, idle_timeout=None).idle_timeout == 1800

    def test_regenerate_merges_with_what_was_saved_meanwhile(
        self, moving: RegeneratingStore
    ) -> None:
        """With a stale base the data is merged as in a save, and stored under the new id.

        The cart filled in another tab during the login is not to be lost by it.
        """
        base = moving.create({"a": 1})
        moving.save(base.id, {"a": 1, "b": 2}, base=base)
        new = moving.regenerate(base.id, {"a": 9}, base=base)
        assert new.data == {"a": 9, "b": 2}
        assert moving.load(new.id) == new

    def test_regenerate_without_data_keeps_what_was_saved_meanwhile(
        self, moving: RegeneratingStore
    ) -> None:
        """Without data the stored content moves as it is now, not as the base had it.

        Copying ``base.data`` to the new id loses what was saved since it was loaded.
        """
        base = moving.create({"a": 1})
        moving.save(base.id, {"a": 1, "b": 2}, base=base)
        assert moving.regenerate(base.id, base=base).data == {"a": 1, "b": 2}

    def test_regenerate_honours_the_conflict_mode(self, moving: RegeneratingStore) -> None:
        """``conflict`` means what it means to a save, and a refusal moves nothing.

        After a 409 the browser still has the old cookie: a session moved all the same would be lost
        to it.
        """
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
        """It is the same session: what was loaded under the old id can be merged under the new.

        A record's ``lineage`` must move along. Otherwise a second save of the request that logged
        in is ``SessionGone``.
        """
        base = moving.create({"a": 1})
        new = moving.regenerate(base.id, {"a": 1, "b": 2}, base=base)
        moving.save(new.id, {"a": 1, "c": 3}, base=base)
        assert loaded(moving, new.id).data == {"a": 1, "b": 2, "c": 3}

    def test_regenerate_with_a_base_of_an_earlier_session_of_the_same_id_is_gone(
        self, moving: RegeneratingStore
    ) -> None:
        """A base of another session that had the id is ``SessionGone``; the session there stays.

        Otherwise a late request takes the session away from whoever has that id now.
        """
        old = moving.create(sid="chosen")
        moving.delete("chosen")
        now = moving.create({"a": 1}, sid="chosen")
        with pytest.raises(SessionGone):
            moving.regenerate("chosen", base=old)
        assert moving.load("chosen") == now

    def test_regenerate_takes_a_chosen_id(self, moving: RegeneratingStore) -> None:
        """``new_sid`` is the id the session gets.

        An app with ``genid`` chooses its ids, and has put this one into the cookie.
        """
        old = moving.create({"a": 1})
        assert moving.regenerate(old.id, new_sid="chosen").id == "chosen"
        assert loaded(moving, "chosen").data == {"a": 1}

    def test_regenerate_refuses_an_id_that_is_taken(self, moving: RegeneratingStore) -> None:
        """The id of a live session is ``SessionExists``, its own too, and both stay as they were.

        A store that moves onto it destroys another user's session, or puts two users into one.
        """
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
        """An expired session no longer takes up its id, swept or not.

        Otherwise it depends on the janitor's timetable whether a login fails.
        """
        moving.create({"n": 1}, sid="one", idle_timeout=10)
        sid = moving.create({"n": 2}).id
        clock.advance(100)
        moving.regenerate(sid, new_sid="one")
        assert loaded(moving, "one").data == {"n": 2}

    @pytest.mark.parametrize("sid", MALFORMED, ids=lambda sid: ascii(sid)[:20])
    def test_regenerate_takes_no_malformed_id(self, moving: RegeneratingStore, sid: Any) -> None:  # noqa: ANN401
        """A malformed old id is ``SessionGone``, a malformed new one a ``ConfigurationError``.

        The old one comes from a cookie and is anybody's; the new one comes from the app and is its
        mistake.
        """
        before = moving.create({"a": 1})
        with pytest.raises(SessionGone):
            moving.regenerate(sid)
        with pytest.raises(ConfigurationError):
            moving.regenerate(before.id, new_sid=sid)
        assert moving.load(before.id) == before

    def test_a_regenerate_that_is_refused_changes_nothing(self, moving: RegeneratingStore) -> None:
        """Whatever is refused is refused before anything is written, under either id.

        Half a regenerate leaves a user with a cookie for a session that is not there, or two that
        are.
        """
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
        """One of several at the same moment gets the session, the others ``SessionGone``.

        With two winners one session has become two, and the user's next change is in one of them
        only. A double click on "log in" does it.
        """
        sid = moving.create({"a": 1}).id
        outcomes = at_once(4, lambda _: moving.regenerate(sid))
        assert len(of_type(outcomes, SessionGone)) == 3
        [winner] = of_type(outcomes, SessionRecord)
        assert moving.load(winner.id) == winner
        assert moving.load(sid) is None

    def test_a_save_beside_a_regenerate_goes_with_it_or_is_refused(
        self, moving: RegeneratingStore
    ) -> None:
        """What a save returned for is in the session under its new id; else it is ``SessionGone``.

        A store that loads, creates a copy and deletes loses what was saved between: the user logs
        in, and the cart filled in another tab is gone without an error.
        """
        for _ in range(10):
            base = moving.create({})

            def act(n: int, base: SessionRecord = base) -> SessionRecord:
                if n == 0:
                    return moving.regenerate(base.id)
                return moving.save(base.id, {f"key {n}": n}, base=base)

            [new, *saves] = at_once(4, act)
            assert isinstance(new, SessionRecord)
            assert {type(outcome) for outcome in saves} <= {SessionRecord, SessionGone}
            kept = {
                f"key {n}": n
                for n, outcome in enumerate(saves, 1)
                if isinstance(outcome, SessionRecord)
            }
            assert loaded(moving, new.id).data == kept

    def test_a_session_can_be_regenerated_over_and_over(self, moving: RegeneratingStore) -> None:
        """Thirty moves on, the session is whole and its latest data is there.

        Whatever a store keeps of the moves, old ids or old data, must not pile up or be taken for
        the session.
        """
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
