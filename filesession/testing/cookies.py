"""Cookie attributes that one session has of its own: "remember me" for this browser alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from filesession.errors import EncodeError
from filesession.record import SessionRecord
from filesession.stores.protocol import Store
from filesession.testing.base import ContractTests, loaded
from filesession.testing.regenerating import able_to_regenerate


class CookieTests(ContractTests):
    """What ``cookie`` keeps; skipped for a store with ``keeps_cookie = False``."""

    def with_cookie(self, store: Store) -> SessionRecord:
        """A session with cookie attributes; the test is skipped where the store keeps none."""
        if not self.keeps_cookie:
            pytest.skip("the store keeps no cookie attributes (keeps_cookie)")
        return store.create({"a": 1}, cookie={"max_age": 86400, "same_site": "strict"})

    def test_cookie_attributes_are_kept(self, store: Store) -> None:
        """The cookie attributes a session overrode are loaded with it, and survive a save.

        The middleware writes them into every cookie it sends: lost, a "remember me" cookie becomes
        one that ends with the browser.
        """
        record = self.with_cookie(store)
        assert record.cookie == {"max_age": 86400, "same_site": "strict"}
        assert store.load(record.id) == record
        store.save(record.id, {"a": 2}, base=record)
        assert loaded(store, record.id).cookie == record.cookie

    def test_a_stale_save_keeps_the_cookie_attributes_set_meanwhile(self, store: Store) -> None:
        """A save that is given no ``cookie`` leaves the stored attributes, not those of its base.

        Else a request that ran beside the one that ticked "remember me" turns the cookie back into
        one that ends with the browser.
        """
        base = self.with_cookie(store)
        store.save(base.id, {"a": 1}, base=base, cookie={"max_age": 5})
        assert store.save(base.id, {"a": 2}, base=base).cookie == {"max_age": 5}
        assert loaded(store, base.id).cookie == {"max_age": 5}

    def test_two_that_set_different_cookie_attributes_both_keep_theirs(self, store: Store) -> None:
        """Saved with a ``base``, the attributes are merged by name as the data are by key.

        One request ticks "remember me" while another makes the cookie strict: replaced as a whole,
        the first of them is lost and no error says so.
        """
        base = self.with_cookie(store)
        store.save(base.id, {"a": 1}, base=base, cookie={**base.cookie, "max_age": 5})
        ours = {"max_age": 86400, "priority": "high"}
        saved = store.save(base.id, {"a": 1}, base=base, cookie=ours)
        assert saved.cookie == {"max_age": 5, "priority": "high"}
        assert loaded(store, base.id).cookie == saved.cookie

    def test_with_overwrite_the_cookie_attributes_are_ours_alone(self, store: Store) -> None:
        """``conflict="overwrite"`` and a save without ``base`` replace the attributes too.

        Emptying a session at login takes back what it had of its own, whoever set it meanwhile.
        """
        base = self.with_cookie(store)
        store.save(base.id, {"a": 1}, base=base, cookie={"max_age": 5})
        ours = {"priority": "high"}
        saved = store.save(base.id, {}, base=base, conflict="overwrite", cookie=ours)
        assert saved.cookie == ours
        assert loaded(store, base.id).cookie == ours

    def test_a_session_that_moves_keeps_the_cookie_attributes_of_both(self, store: Store) -> None:
        """``regenerate`` with a ``base`` merges the attributes as a save does.

        A login that sets one of them would otherwise take back those of the request beside it.
        """
        moving, base = able_to_regenerate(store), self.with_cookie(store)
        store.save(base.id, {"a": 1}, base=base, cookie={**base.cookie, "max_age": 5})
        ours = {**base.cookie, "priority": "high"}
        new = moving.regenerate(base.id, {"a": 1}, base=base, cookie=ours)
        assert new.cookie == {"max_age": 5, "same_site": "strict", "priority": "high"}
        assert loaded(store, new.id).cookie == new.cookie

    def test_a_regenerated_session_keeps_its_cookie_attributes(self, store: Store) -> None:
        """``regenerate`` moves the attributes with the session, or replaces them when given some.

        Apps regenerate at login, where "remember me" is ticked: lost here, it never works.
        """
        moving, old = able_to_regenerate(store), self.with_cookie(store)
        new = moving.regenerate(old.id, {"a": 2}, base=old)
        assert new.cookie == old.cookie
        assert moving.load(new.id) == new
        again = moving.regenerate(new.id, cookie={"max_age": 2})
        assert again.cookie == {"max_age": 2}
        assert moving.load(again.id) == again
        assert moving.regenerate(again.id, cookie={}).cookie == {}

    def test_cookie_attributes_are_replaced_as_a_whole(self, store: Store) -> None:
        """``save(cookie=...)`` replaces all attributes; nothing is merged into the old ones.

        An attribute the app took back would otherwise stay in every cookie from then on.
        """
        record = self.with_cookie(store)
        saved = store.save(record.id, {"a": 1}, cookie={"secure": True})
        assert saved.cookie == {"secure": True}
        assert store.load(record.id) == saved

    def test_cookie_attributes_are_cleared_by_an_empty_mapping(self, store: Store) -> None:
        """An empty mapping clears them, where UNSET would leave them.

        A store that asks ``if cookie:`` cannot take "remember me" back at logout.
        """
        record = self.with_cookie(store)
        assert store.save(record.id, {"a": 1}, cookie={}).cookie == {}
        assert loaded(store, record.id).cookie == {}

    def test_cookie_attributes_may_have_any_name(self, store: Store) -> None:
        """Attributes may have any name and any JSON value, also one the store uses itself.

        They must not be mixed up with the store's own fields or the data: that would let one
        overwrite the other.
        """
        self.with_cookie(store)
        attributes = {"a": 1, "data": {"data": None}, "": ',"data":{}', "z": [True]}
        record = store.create({"data": 1}, cookie=attributes)
        assert record.cookie == attributes
        assert store.load(record.id) == record

    def test_a_cookie_attribute_that_would_change_is_refused(self, store: Store) -> None:
        """What JSON cannot hold is an ``EncodeError`` that names the attribute; nothing is stored.

        A ``timedelta`` that comes back as a text breaks every later response of that session.
        """
        before = self.with_cookie(store)
        with pytest.raises(EncodeError, match=r"cookie\.max_age"):
            store.create(sid="chosen", cookie={"max_age": timedelta(1)})
        with pytest.raises(EncodeError, match=r"cookie\.max_age"):
            store.save(before.id, {"a": 2}, cookie={"max_age": timedelta(1)})
        assert store.load("chosen") is None
        assert store.load(before.id) == before

    def test_changing_what_was_given_as_cookie_changes_nothing_stored(self, store: Store) -> None:
        """The mapping given as ``cookie`` stays the caller's: the store keeps a copy.

        An app that keeps one dict of attributes and changes it for the next user would change the
        cookies of all before.
        """
        given = {"max_age": 1}
        self.with_cookie(store)
        record = store.create(cookie=given)
        given["max_age"] = 2
        assert loaded(store, record.id).cookie == {"max_age": 1}
        given["max_age"] = 1
        store.save(record.id, {}, cookie=given)
        given["max_age"] = 2
        assert loaded(store, record.id).cookie == {"max_age": 1}
