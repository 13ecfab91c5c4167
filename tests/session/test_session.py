"""The session an application holds, on real stores and under both runners."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import logging
import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from filesession.codec import JSONCodec
from filesession.cookies.policy import CookiePolicy
from filesession.errors import (
    ConfigurationError,
    ConflictError,
    EncodeError,
    SessionExists,
    SessionGone,
    StoreUnavailable,
)
from filesession.record import SessionRecord
from filesession.runner import BlockingRunner, LoopRunner
from filesession.session import Session
from filesession.stores import MemoryStore
from filesession.testing import ManualClock
from filesession.testing.base import loaded
from tests.session.conftest import START, AnyStore, Way, a_session, save, stored


def reload(session: Session, way: Way) -> None:
    if way == "blocking":
        session.reload()
    else:
        asyncio.run(session.areload())


def data_of(store: AnyStore, session: Session) -> dict[str, Any]:
    """What is stored of it."""
    return record_of(store, session).data


def record_of(store: AnyStore, session: Session) -> SessionRecord:
    assert session.id is not None
    return loaded(store, session.id)


class Encrypting:
    """A codec that writes one thing in another way each time, and reads only what it wrote."""

    def __init__(self) -> None:
        self._count = 0

    def encode(self, data: Any) -> bytes:
        self._count += 1
        text = b"%08d%s" % (self._count, JSONCodec().encode(data))
        return json.dumps(base64.b85encode(text).decode()).encode()

    def decode(self, text: bytes) -> dict[str, Any]:
        value = json.loads(text)
        if not isinstance(value, str):
            raise ValueError(value)  # noqa: TRY004 - what a codec raises
        return JSONCodec().decode(base64.b85decode(value)[8:])


class Moody(MemoryStore):
    """A store whose verbs fail when told to."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.failing: set[str] = set()

    def _check(self, verb: str) -> None:
        if verb in self.failing:
            raise StoreUnavailable(verb)

    def load(self, sid: str) -> SessionRecord | None:
        self._check("load")
        return super().load(sid)

    def save(self, sid: str, data: Any, **keywords: Any) -> SessionRecord:
        self._check("save")
        return super().save(sid, data, **keywords)

    def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:
        self._check("touch")
        return super().touch(sid, base=base)

    def delete(self, sid: str) -> bool:
        self._check("delete")
        return super().delete(sid)


# -- a dict ---------------------------------------------------------------------------------------

LOOKS: dict[str, Callable[[Session], object]] = {
    "[]": lambda session: session["cart"],
    "in": lambda session: "user" in session,
    "for": lambda session: [*session],
    "len": len,
    "bool": bool,
    "==": lambda session: session == {},
    "!=": lambda session: session != {},
    "| other": lambda session: session | {"a": 1},
    "other |": lambda session: {"a": 1} | session,
    "reversed": lambda session: [*reversed(session)],
    "get": lambda session: session.get("user"),
    "keys": lambda session: [*session.keys()],
    "values": lambda session: [*session.values()],
    "items": lambda session: sorted(session.items()),
    "copy": lambda session: session.copy(),
    "dict()": dict,
    "**": lambda session: {**session},
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "setdefault": lambda session: session.setdefault("user", "eve"),
    "pop of nothing": lambda session: session.pop("nothing", None),
    "mark_accessed": lambda session: session.mark_accessed(),
}


def change_by_match(session: Session) -> None:
    match session:
        case {"cart": [*_, last]}:
            last["count"] = 2


CHANGES: dict[str, Callable[[Session], object]] = {
    "[] =": lambda session: session.__setitem__("user", "eve"),
    "del": lambda session: session.__delitem__("user"),
    "|=": lambda session: session.__ior__({"a": 1}),
    "update": lambda session: session.update(a=1),
    "pop": lambda session: session.pop("user"),
    "popitem": lambda session: session.popitem(),
    "setdefault": lambda session: session.setdefault("a", 1),
    "clear": lambda session: session.clear(),
    "append to what it holds": lambda session: session["cart"].append("tea"),
    "change deep inside": lambda session: session["cart"][0].update(count=2),
    "delete deep inside": lambda session: session["cart"][0].pop("name"),
    "change through get": lambda session: session.get("cart", []).clear(),
    "change through values": lambda session: [*session.values()][1].clear(),
    "change through setdefault": lambda session: session.setdefault("cart", []).append(1),
    "change through match": change_by_match,
}

CART: Final = {"user": "ada", "cart": [{"name": "tea", "count": 1}]}


def test_it_is_a_dict_of_what_was_stored(store: AnyStore) -> None:
    session = stored(store, CART)
    assert isinstance(session, dict)
    assert session == CART
    assert a_session(store) == {}


def test_before_it_is_looked_at_it_counts_as_not_accessed(store: AnyStore) -> None:
    session = stored(store, CART)
    session.save()
    session.reload()
    _ = session.id, session.is_new, session.modified, session.created_at, session.cookie.path
    assert not session.accessed


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_look_is_noticed_and_no_change(store: AnyStore, look: Callable[[Session], Any]) -> None:
    session = stored(store, CART)
    look(session)
    assert session.accessed
    assert not session.modified
    session.save()
    assert record_of(store, session).version == 1


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_noticed_and_saved(store: AnyStore, change: Callable[[Session], Any]) -> None:
    session = stored(store, CART)
    change(session)
    assert session.accessed
    assert session.modified
    session.save()
    assert not session.modified
    assert data_of(store, session) == session
    assert data_of(store, session) != CART


@pytest.mark.parametrize(
    ("was", "becomes", "changed"),
    [
        ([1, 2], [1, 2], False),
        ([1, 2], (1, 2), False),
        (1, True, True),
        (0, False, True),
        (1, 1.0, True),
        (0.0, -0.0, True),
        ("1", 1, True),
        (None, False, True),
        ({"a": 1}, {"a": 1}, False),
        ({}, [], True),
    ],
)
def test_it_is_changed_when_it_would_come_back_as_something_else(
    store: AnyStore,
    was: object,
    becomes: object,
    changed: bool,  # noqa: FBT001 - a row of the table
) -> None:
    session = stored(store, {"a": was})
    session["a"] = becomes
    assert session.modified == changed
    session.save()
    found = data_of(store, session)["a"]
    assert repr(found) == repr(list(becomes) if isinstance(becomes, tuple) else becomes)


def test_what_is_changed_back_is_unchanged(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    session["n"] = 2
    assert session.modified
    session["n"] = 1
    assert not session.modified
    new = a_session(store)
    new["n"] = 1
    del new["n"]
    assert not new.modified


def test_marked_as_modified_it_is_saved_as_it_is(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    session.modified = True
    assert session.modified
    session.save()
    assert not session.modified
    assert record_of(store, session).version == 2


def test_the_mark_can_be_taken_off_but_hides_no_change(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    session.modified = True
    session.modified = False
    assert not session.modified
    session["n"] = 2
    session.modified = False
    assert session.modified


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, Session.copy], ids=["", "deep", "."])
def test_a_copy_is_a_plain_dict(store: AnyStore, copied: Callable[[Session], Any]) -> None:
    session = stored(store, CART)
    found = copied(session)
    assert type(found) is dict
    assert found == session
    found["user"] = "eve"
    assert session["user"] == "ada"


def test_a_deep_copy_shares_nothing_with_it(store: AnyStore) -> None:
    session = stored(store, CART)
    copy.deepcopy(session)["cart"].clear()
    assert session == CART


def test_pickled_it_is_a_plain_dict_without_the_id(store: AnyStore) -> None:
    session = stored(store, CART)
    text = pickle.dumps(session)
    assert session.id is not None
    assert session.id.encode() not in text
    found = pickle.loads(text)  # noqa: S301 - our own
    assert type(found) is dict
    assert found == CART


def test_its_repr_shows_what_it_holds_but_not_the_id(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    assert repr(session) == "<Session {'n': 1}>"
    assert session.id is not None
    assert session.id not in f"{session!r}{session}"
    new = a_session(store)
    assert new.id is not None
    assert new.id not in repr(new)


def test_what_cannot_be_stored_is_named_at_the_save_and_nothing_is_written(
    store: AnyStore, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    session["n"] = 2
    session["cart"] = [{"price": math.nan}]
    assert session.modified
    with pytest.raises(EncodeError, match=r"cart\[0\]\.price"):
        save(session, way)
    assert data_of(store, session) == {"n": 1}
    session["cart"][0]["price"] = 3.5
    save(session, way)
    assert data_of(store, session) == session


def test_a_new_session_with_what_cannot_be_stored_is_not_stored(store: AnyStore) -> None:
    session = a_session(store)
    session["made"] = object()
    with pytest.raises(EncodeError, match="made"):
        session.save()
    assert session.is_new
    assert len(store) == 0


# -- with a codec that encrypts -------------------------------------------------------------------


def test_a_look_at_encrypted_data_is_no_change(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock, codec=Encrypting())
    session = stored(store, CART)
    assert session["user"] == "ada"
    assert not session.modified
    session["cart"][0]["count"] = 2
    assert session.modified


def test_a_look_at_a_new_session_under_such_a_codec_is_no_change(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock, codec=Encrypting())
    session = a_session(store)
    assert session.get("user") is None
    assert not session.modified
    session["user"] = "ada"
    session.save()
    assert data_of(store, session) == {"user": "ada"}
    assert not session.modified
    session.destroy()
    assert session == {}
    assert not session.modified


def test_encrypted_data_are_merged_and_undone_as_any(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock, codec=Encrypting())
    session = stored(store, CART)
    assert session.id is not None
    store.save(session.id, {**CART, "theirs": 1})
    cart = session["cart"]
    session["ours"] = 2
    with pytest.raises(ZeroDivisionError), session.lock():
        session["ours"] = 1 / 0
    assert session == {**CART, "theirs": 1, "ours": 2}
    assert session["cart"] is cart
    session.save()
    assert data_of(store, session) == session


# -- what it tells --------------------------------------------------------------------------------


def test_of_a_new_session_nothing_is_known_but_the_id_it_will_have(
    store: AnyStore, way: Way
) -> None:
    session = a_session(store, way=way)
    assert session.is_new
    assert (session.created_at, session.accessed_at, session.expires_at) == (None, None, None)
    assert session.idle_timeout is None
    sid = session.id
    assert sid is not None
    assert len(sid) == 43
    assert session.id == sid
    session["n"] = 1
    save(session, way)
    assert not session.is_new
    assert session.id == sid
    assert loaded(store, sid).data == {"n": 1}


def test_the_times_are_those_of_the_stored_session(store: AnyStore, clock: ManualClock) -> None:
    sid = store.create({}).id
    clock.advance(100)
    assert store.touch(sid)
    clock.advance(100)
    session = a_session(store, sid)
    assert session.created_at == START
    assert session.accessed_at == pytest.approx(START + 100, abs=1e-5)
    assert session.expires_at == pytest.approx(START + 100 + 1800, abs=1e-5)
    assert session.idle_timeout == 1800
    session["n"] = 1
    session.save()
    assert session.created_at == START
    assert session.accessed_at == clock()
    assert session.expires_at == clock() + 1800


def test_an_id_is_asked_of_genid_when_it_is_needed_and_once(store: AnyStore) -> None:
    asked: list[str] = []

    def genid() -> str:
        asked.append("id")
        return f"chosen-{len(asked)}"

    session = a_session(store, genid=genid)
    session.get("n")
    assert asked == []
    assert session.id == "chosen-1"
    session["n"] = 1
    session.save()
    assert session.id == "chosen-1"
    assert asked == ["id"]
    assert loaded(store, "chosen-1").data == {"n": 1}


# -- its timeout ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [(99, 99.0), (timedelta(days=30), 2_592_000.0), (None, None), (math.inf, None)],
    ids=str,
)
@pytest.mark.parametrize("new", [True, False], ids=["new", "stored"])
def test_it_may_have_an_idle_timeout_of_its_own(
    store: AnyStore, given: float | timedelta | None, kept: float | None, *, new: bool
) -> None:
    session = a_session(store) if new else stored(store, {})
    session.idle_timeout = given
    assert session.idle_timeout == kept
    assert session.modified
    session.save()
    assert not session.modified
    assert session.idle_timeout == kept
    assert record_of(store, session).idle_timeout == kept


@pytest.mark.parametrize("wrong", [0, -1, "60", True, math.nan], ids=repr)
def test_a_wrong_idle_timeout_is_refused_at_once(store: AnyStore, wrong: Any) -> None:
    session = stored(store, {})
    with pytest.raises(ConfigurationError, match="idle_timeout"):
        session.idle_timeout = wrong
    assert session.idle_timeout == 1800
    assert not session.modified


# -- its cookie -----------------------------------------------------------------------------------


def test_its_cookie_has_the_policys_attributes_until_it_is_given_its_own(store: AnyStore) -> None:
    policy = CookiePolicy(path="/shop", max_age=60)
    session = stored(store, {}, policy=policy)
    cookie = session.cookie
    assert (cookie.path, cookie.max_age, cookie.http_only) == ("/shop", 60, True)
    assert cookie.policy is policy
    assert cookie.overrides == {}
    cookie.max_age = timedelta(days=1)
    cookie.http_only = False
    assert cookie.overrides == {"max_age": 86400, "http_only": False}
    assert cookie.policy == CookiePolicy(path="/shop", max_age=86400, http_only=False)
    assert session.modified


def test_an_attribute_of_its_own_is_stored_and_there_in_the_next_request(store: AnyStore) -> None:
    session = stored(store, {})
    session.cookie.same_site = True
    session.save()
    assert not session.modified
    assert record_of(store, session).cookie == {"same_site": "strict"}
    again = a_session(store, session.id)
    assert again.cookie.same_site == "strict"
    assert again.cookie.overrides == {"same_site": "strict"}
    again.cookie.same_site = "strict"
    assert not again.modified
    again.cookie.same_site = "lax"
    assert again.modified


def test_a_new_session_is_stored_with_its_cookie_and_timeout(store: AnyStore) -> None:
    session = a_session(store)
    session.cookie.priority = "high"
    session.idle_timeout = 60
    assert session.modified
    session.save()
    record = record_of(store, session)
    assert (record.cookie, record.idle_timeout) == ({"priority": "high"}, 60)


def test_an_attribute_no_browser_would_take_is_refused_and_changes_nothing(store: AnyStore) -> None:
    session = stored(store, {})
    with pytest.raises(ConfigurationError, match="secure=True"):
        session.cookie.same_site = "none"
    assert session.cookie.same_site == "lax"
    assert not session.modified


@pytest.mark.parametrize("name", ["name", "expires", "_policy", "maxage"])
def test_a_cookie_has_no_other_attributes(store: AnyStore, name: str) -> None:
    cookie = stored(store, {}).cookie
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        setattr(cookie, name, "x")
    if name != "_policy":
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(cookie, name)


def remember(session: Session) -> None:
    session.cookie.max_age = 60


def harden(session: Session) -> None:
    session.cookie.same_site = "strict"


def test_two_requests_that_override_different_attributes_both_keep_theirs(
    store: AnyStore, way: Way
) -> None:
    ours = stored(store, {"n": 1}, way)
    theirs = a_session(store, ours.id)
    remember(theirs)
    theirs.save()
    harden(ours)
    save(ours, way)
    both = {"max_age": 60, "same_site": "strict"}
    assert record_of(store, ours).cookie == both == ours.cookie.overrides
    assert (ours.cookie.max_age, ours.modified) == (60, False)
    save(ours, way)
    assert record_of(store, ours).version == 3


def test_of_one_attribute_that_both_override_the_later_counts(store: AnyStore, way: Way) -> None:
    ours = stored(store, {"n": 1}, way)
    theirs = a_session(store, ours.id)
    remember(theirs)
    theirs.save()
    ours.cookie.max_age = 99
    save(ours, way)
    assert record_of(store, ours).cookie == {"max_age": 99} == ours.cookie.overrides


def test_an_attribute_that_was_taken_back_is_not_brought_back(store: AnyStore) -> None:
    sid = store.create({}, cookie={"max_age": 60, "priority": "high"}).id
    ours = a_session(store, sid)
    store.save(sid, {}, cookie={"priority": "high"})
    harden(ours)
    ours.save()
    assert record_of(store, ours).cookie == {"priority": "high", "same_site": "strict"}
    assert ours.cookie.max_age is None


def test_an_override_of_another_request_is_there_after_any_save(store: AnyStore, way: Way) -> None:
    ours = stored(store, {"n": 1}, way)
    theirs = a_session(store, ours.id)
    remember(theirs)
    theirs.save()
    ours["n"] = 2
    save(ours, way)
    assert ours.cookie.max_age == 60
    assert not ours.modified
    assert record_of(store, ours).cookie == {"max_age": 60}


def test_regenerated_it_keeps_the_overrides_of_both(store: AnyStore, way: Way) -> None:
    ours = stored(store, {"n": 1}, way)
    theirs = a_session(store, ours.id)
    remember(theirs)
    theirs.save()
    harden(ours)
    ours.regenerate()
    save(ours, way)
    both = {"max_age": 60, "same_site": "strict"}
    assert record_of(store, ours).cookie == both == ours.cookie.overrides


def test_with_overwrite_data_are_overwritten_and_overrides_with_them(store: AnyStore) -> None:
    ours = stored(store, {"n": 1}, conflict="overwrite")
    theirs = a_session(store, ours.id)
    theirs["theirs"] = 1
    remember(theirs)
    theirs.save()
    ours["n"] = 2
    harden(ours)
    ours.save()
    record = record_of(store, ours)
    assert (record.data, record.cookie) == ({"n": 2}, {"same_site": "strict"})
    assert ours.cookie.overrides == {"same_site": "strict"}


def test_stored_attributes_that_the_policy_has_come_to_refuse_are_left_out_with_a_warning(
    store: AnyStore, caplog: pytest.LogCaptureFixture
) -> None:
    stays = {"same_site": "none", "secure": True}
    sid = store.create({"n": 1}, cookie=stays).id
    assert a_session(store, sid).cookie.overrides == stays
    named = a_session(store, sid, policy=CookiePolicy(name="__Secure-x", secure=True))
    named.cookie.path = "/shop"
    named.save()
    assert caplog.records == []
    session = a_session(store, sid, policy=CookiePolicy(secure=True))  # __Host-sid, so path="/"
    assert session == {"n": 1}
    assert session.cookie.overrides == {}
    assert session.cookie.policy == CookiePolicy(secure=True)
    assert not session.modified
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert "left out: browsers refuse a cookie named '__Host-sid'" in said.getMessage()
    assert sid not in said.getMessage()


def test_stored_attributes_that_are_none_of_ours_are_passed_over(store: AnyStore) -> None:
    sid = store.create({}, cookie={"max_age": 60, "expires": "never", "name": "x"}).id
    session = a_session(store, sid)
    assert session.cookie.overrides == {"max_age": 60}
    assert not session.modified


# -- regenerate -----------------------------------------------------------------------------------


def test_regenerated_it_has_a_new_id_from_the_save_on_and_the_old_one_is_dead(
    store: AnyStore, clock: ManualClock, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    old = session.id
    assert old is not None
    clock.advance(10)
    session.regenerate()
    session["m"] = 2
    assert session.id == old
    assert store.load(old) is not None
    save(session, way)
    assert session.id != old
    assert store.load(old) is None
    assert data_of(store, session) == {"n": 1, "m": 2}
    assert session.created_at == START
    assert session.announce
    assert not session.modified
    new = session.id
    save(session, way)
    assert session.id == new


def test_regenerated_it_keeps_what_another_request_wrote_meanwhile(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    assert session.id is not None
    store.save(session.id, {"n": 1, "theirs": 1})
    session.regenerate()
    session["ours"] = 2
    session.save()
    assert data_of(store, session) == {"n": 1, "theirs": 1, "ours": 2} == session


def test_regenerated_without_its_data_it_starts_empty_whatever_others_wrote(
    store: AnyStore,
) -> None:
    sid = store.create({"n": 1}, idle_timeout=60, cookie={"max_age": 60}).id
    session = a_session(store, sid)
    session.idle_timeout = 99
    store.save(sid, {"n": 1, "admin": True})
    session.regenerate(keep_data=False)
    assert session == {}
    assert session.modified
    session["user"] = "ada"
    session.save()
    record = record_of(store, session)
    assert record.id != sid
    assert record.data == {"user": "ada"} == session
    assert (record.idle_timeout, record.cookie) == (1800, {})
    assert not session.modified


def test_regenerated_without_its_data_it_may_get_a_timeout_and_a_cookie_anew(
    store: AnyStore,
) -> None:
    session = a_session(store, store.create({}, idle_timeout=60, cookie={"max_age": 60}).id)
    session.regenerate(keep_data=False)
    assert session.idle_timeout is None
    assert session.cookie.max_age is None
    session.idle_timeout = 99
    session.cookie.max_age = 99
    session.save()
    record = record_of(store, session)
    assert (record.idle_timeout, record.cookie) == (99, {"max_age": 99})


def test_a_new_session_is_stored_when_it_is_regenerated(store: AnyStore) -> None:
    session = a_session(store)
    shown = session.id
    session.regenerate(keep_data=False)
    assert session.id != shown
    session.save()
    record = record_of(store, session)
    assert (record.data, record.idle_timeout) == ({}, 1800)
    assert record.id != shown
    assert session.announce


@pytest.mark.parametrize("regenerated", [False, True], ids=["new", "regenerated"])
def test_genid_is_asked_again_for_an_id_that_is_taken_and_in_the_end_it_is_an_error(
    store: AnyStore, *, regenerated: bool
) -> None:
    for sid in ("one", "two", "three", "four"):
        store.create({"whose": sid}, sid=sid)
    ids = iter(["one", "two", "free", "one", "two", "three", "four"])

    def change() -> Session:
        session = stored(store, {}, genid=lambda: next(ids)) if regenerated else fresh()
        session["n"] = 1
        if regenerated:
            session.regenerate()
        return session

    def fresh() -> Session:
        return a_session(store, genid=lambda: next(ids))

    session = change()
    session.save()
    assert session.id == "free"
    assert data_of(store, session) == {"n": 1}
    session = change()
    with pytest.raises(SessionExists):
        session.save()
    assert next(ids) == "four"
    for sid in ("one", "two", "three", "four"):
        assert loaded(store, sid).data == {"whose": sid}


def test_an_id_that_was_shown_and_is_taken_gives_way_to_another(store: AnyStore) -> None:
    store.create({"whose": "another's"}, sid="taken")
    ids = iter(["taken", "free"])
    session = a_session(store, genid=lambda: next(ids))
    assert session.id == "taken"
    session["n"] = 1
    session.save()
    assert session.id == "free"
    assert loaded(store, "taken").data == {"whose": "another's"}


# -- destroy --------------------------------------------------------------------------------------


def test_destroyed_it_is_empty_and_new_and_deleted_at_the_save(store: AnyStore, way: Way) -> None:
    sid = store.create({"n": 1}, idle_timeout=60, cookie={"max_age": 60}).id
    session = a_session(store, sid, way)
    session.regenerate()
    session.destroy()
    assert (session, session.is_new, session.destroyed) == ({}, True, True)
    assert (session.idle_timeout, session.cookie.max_age, session.created_at) == (None, None, None)
    assert not session.modified
    assert store.load(sid) is not None
    assert session.id != sid
    asyncio.run(LoopRunner(store, offload=None).arun(session.commit()))
    assert store.load(sid) is None
    assert len(store) == 0


def test_destroyed_and_saved_it_is_not_stored_again(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    session.destroy()
    for _ in range(2):
        save(session, way)
    assert len(store) == 0
    assert (session.is_new, session.announce, session.destroyed) == (True, False, True)


def test_a_new_session_destroyed_and_saved_is_not_stored_either(store: AnyStore, way: Way) -> None:
    session = a_session(store, way=way)
    session["n"] = 1
    session.destroy()
    save(session, way)
    assert len(store) == 0


def test_what_is_written_after_a_destroy_is_another_session(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    old = session.id
    assert old is not None
    session.destroy()
    session["flash"] = "bye"
    save(session, way)
    assert store.load(old) is None
    assert session.id != old
    assert data_of(store, session) == {"flash": "bye"}


def test_what_was_written_after_a_destroy_can_be_destroyed_too(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    session.destroy()
    session["flash"] = "bye"
    session.save()
    assert session.announce
    session.destroy()
    session.destroy()
    assert not session.announce
    session["last"] = 1
    session.save()
    assert len(store) == 1
    assert data_of(store, session) == {"last": 1}


def test_a_delete_that_failed_is_made_again(clock: ManualClock) -> None:
    store = Moody(clock=clock)
    session = stored(store, {"n": 1})
    old = session.id
    assert old is not None
    session.destroy()
    session["flash"] = "bye"
    store.failing.add("delete")
    with pytest.raises(StoreUnavailable):
        session.save()
    assert loaded(store, old).data == {"n": 1}
    store.failing.clear()
    session.save()
    assert store.load(old) is None
    assert data_of(store, session) == {"flash": "bye"}


def test_a_session_that_is_gone_may_be_destroyed_and_followed_by_another(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    old = session.id
    assert old is not None
    store.delete(old)
    with pytest.raises(SessionGone):
        session.save()
    assert session.gone
    session.destroy()
    session["n"] = 2
    session.save()
    assert not session.gone
    assert session.id != old
    assert data_of(store, session) == {"n": 2}


# -- touch ----------------------------------------------------------------------------------------


def test_a_save_of_an_unchanged_session_and_a_touch_are_activity(
    store: AnyStore, clock: ManualClock, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    for count in (1, 2):
        clock.advance(600)
        if count == 1:
            session.touch()
            assert session.extended
        save(session, way)
        record = record_of(store, session)
        assert record.accessed_at == pytest.approx(START + 600 * count, abs=1e-5)
        assert record.version == 1


def test_touch_writes_nothing_of_a_new_session(store: AnyStore) -> None:
    session = a_session(store)
    session.touch()
    BlockingRunner(store).run(session.commit())
    assert len(store) == 0


def test_a_touch_that_fails_is_only_logged(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Moody(clock=clock)
    session = stored(store, {"n": 1})
    store.failing.add("touch")
    session.save()
    assert not session.gone
    (said,) = caplog.records
    assert (said.levelno, said.getMessage()) == (logging.WARNING, "touch")


# -- save -----------------------------------------------------------------------------------------


def test_a_new_session_is_saved_even_when_it_is_empty(store: AnyStore, way: Way) -> None:
    session = a_session(store, way=way)
    save(session, way)
    assert data_of(store, session) == {}
    assert session.announce


def test_two_requests_that_change_different_keys_both_keep_their_change(
    store: AnyStore, way: Way
) -> None:
    ours = stored(store, {"a": 1, "b": 1, "c": 1, "d": 1}, way)
    theirs = a_session(store, ours.id)
    theirs["b"] = 2
    theirs["new"] = 2
    del theirs["c"]
    theirs.save()
    ours["a"] = 3
    ours["own"] = 3
    del ours["d"]
    save(ours, way)
    assert data_of(store, ours) == {"a": 3, "b": 2, "new": 2, "own": 3} == ours


def test_a_session_that_was_merged_is_not_saved_again(store: AnyStore) -> None:
    session = stored(store, {"a": 1})
    assert session.id is not None
    store.save(session.id, {"a": 1, "theirs": 2})
    session["ours"] = 3
    session.save()
    assert not session.modified
    session.save()
    assert record_of(store, session).version == 3


def test_what_the_application_holds_stays_part_of_the_session_through_a_merge(
    store: AnyStore,
) -> None:
    session = stored(store, {"cart": ["tea"], "n": 1})
    assert session.id is not None
    store.save(session.id, {"cart": ["tea"], "n": 2})
    cart = session["cart"]
    session["ours"] = 3
    session.save()
    assert session["n"] == 2
    cart.append("milk")
    session.save()
    assert data_of(store, session)["cart"] == ["tea", "milk"]


def test_so_does_what_another_request_changed_too(store: AnyStore, way: Way) -> None:
    session = stored(store, {"cart": ["tea"]}, way)
    assert session.id is not None
    store.save(session.id, {"cart": ["tea", "milk"]})
    cart = session["cart"]
    session["ours"] = 1
    save(session, way)
    assert cart == ["tea", "milk"]
    cart.append("honey")
    assert session.modified
    save(session, way)
    assert data_of(store, session) == {"cart": ["tea", "milk", "honey"], "ours": 1}


def test_what_was_merged_in_can_be_changed_like_the_rest(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    assert session.id is not None
    store.save(session.id, {"n": 1, "cart": ["tea"]})
    session["n"] = 2
    session.save()
    session["cart"].append("milk")
    assert session.modified
    session.save()
    assert data_of(store, session) == {"n": 2, "cart": ["tea", "milk"]}


def test_with_overwrite_ours_replaces_all(store: AnyStore) -> None:
    session = stored(store, {"a": 1}, conflict="overwrite")
    assert session.id is not None
    store.save(session.id, {"a": 1, "theirs": 2})
    session["ours"] = 3
    session.save()
    assert data_of(store, session) == {"a": 1, "ours": 3} == session


def test_with_error_a_conflict_holds_both_sides_and_nothing_is_written(
    store: AnyStore, way: Way
) -> None:
    session = stored(store, {"a": 1}, way, conflict="error")
    assert session.id is not None
    store.save(session.id, {"a": 2})
    session["a"] = 3
    with pytest.raises(ConflictError) as raised:
        save(session, way)
    assert (raised.value.ours, raised.value.theirs) == ({"a": 3}, {"a": 2})
    assert data_of(store, session) == {"a": 2}
    assert session == {"a": 3}
    reload(session, way)
    session["a"] = 4
    save(session, way)
    assert data_of(store, session) == {"a": 4}


def mark(session: Session) -> None:
    session.modified = True


def new_timeout(session: Session) -> None:
    session.idle_timeout = 60


@pytest.mark.parametrize("conflict", ["merge", "overwrite", "error"])
@pytest.mark.parametrize("act", [mark, new_timeout, remember, Session.regenerate])
def test_a_session_whose_data_did_not_change_neither_conflicts_nor_overwrites(
    store: AnyStore, way: Way, conflict: str, act: Callable[[Session], object]
) -> None:
    session = stored(store, {"n": 1}, way, conflict=conflict)
    assert session.id is not None
    store.save(session.id, {"n": 2, "theirs": 1})
    assert session["n"] == 1
    act(session)
    save(session, way)
    assert data_of(store, session) == {"n": 2, "theirs": 1} == session
    assert not session.modified


@pytest.mark.parametrize("conflict", ["overwrite", "error"])
def test_nor_does_one_that_is_saved_again_as_it_is(store: AnyStore, conflict: str) -> None:
    session = stored(store, {"n": 1}, conflict=conflict)
    assert session.id is not None
    store.save(session.id, {"n": 2})
    BlockingRunner(store).run(session.commit(resave=True))
    assert data_of(store, session) == {"n": 2} == session
    assert record_of(store, session).version == 3


@pytest.mark.parametrize(
    "act",
    [lambda session: None, lambda session: session.update(n=2), Session.regenerate],
    ids=["touched", "changed", "regenerated"],
)
@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_a_session_that_is_gone_is_not_brought_back(
    store: AnyStore, clock: ManualClock, way: Way, how: str, act: Callable[[Session], object]
) -> None:
    session = stored(store, {"n": 1}, way)
    assert session.id is not None
    if how == "deleted":
        store.delete(session.id)
    else:
        clock.advance(1800 + 61)
    act(session)
    for _ in range(2):
        with pytest.raises(SessionGone):
            save(session, way)
        assert session.gone
    BlockingRunner(store).run(session.commit())
    session["n"] = 3
    BlockingRunner(store).run(session.abandon())
    with pytest.raises(SessionGone):
        reload(session, way)
    assert store.load(session.id) is None


def test_a_save_the_store_could_not_make_can_be_made_again(clock: ManualClock) -> None:
    store = Moody(clock=clock)
    session = stored(store, {"n": 1})
    session["n"] = 2
    session.cookie.max_age = 60
    store.failing.add("save")
    with pytest.raises(StoreUnavailable):
        session.save()
    assert session.modified
    store.failing.clear()
    session.save()
    record = record_of(store, session)
    assert (record.data, record.cookie) == ({"n": 2}, {"max_age": 60})


@pytest.mark.parametrize("reason", ["the response had begun", "over plain HTTP"])
def test_a_new_session_that_can_get_no_cookie_is_not_stored_and_one_warning_says_so(
    store: AnyStore, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    begun = reason == "the response had begun"
    policy = CookiePolicy(secure="auto" if begun else True)
    session = a_session(store, policy=policy, headers_sent=begun)
    session.regenerate()
    for n in range(3):
        session["n"] = n
        session.save()
    assert session.is_new
    assert len(store) == 0
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert said.getMessage().startswith(reason)
    assert said.getMessage().endswith(": the session gets no cookie, so it is not stored")


def test_a_session_that_can_get_no_new_id_keeps_its_old_one_and_what_was_changed(
    store: AnyStore, caplog: pytest.LogCaptureFixture
) -> None:
    session = stored(store, {"n": 1}, headers_sent=True)
    old = session.id
    session.regenerate(keep_data=False)
    session["m"] = 2
    for _ in range(2):
        session.save()
    assert session.id == old
    assert data_of(store, session) == {"m": 2}
    (said,) = caplog.records
    assert said.getMessage() == (
        "the response had begun: the session gets no new id and keeps the old one"
    )


def test_a_new_id_that_was_given_up_does_not_come_later_without_being_asked_for(
    store: AnyStore,
) -> None:
    session = stored(store, {"n": 1}, policy=CookiePolicy(name="sid", secure=True))
    old = session.id
    session.regenerate()
    session.save()
    session.cookie.secure = False
    session.save()
    assert session.id == old
    session.regenerate()
    session.save()
    assert session.id != old


# -- reload ---------------------------------------------------------------------------------------


def test_reloaded_it_is_what_is_stored_now(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1, "cart": ["tea"]}, way)
    sid = session.id
    assert sid is not None
    theirs = a_session(store, sid)
    theirs["n"] = 2
    theirs.cookie.max_age = 60
    theirs.save()
    session["n"] = 3
    session["cart"].append("milk")
    session.idle_timeout = 60
    session.cookie.http_only = False
    session.modified = True
    session.regenerate()
    reload(session, way)
    assert session == {"n": 2, "cart": ["tea"]}
    assert session.cookie.overrides == {"max_age": 60}
    assert session.idle_timeout == 1800
    assert not session.modified
    save(session, way)
    assert session.id == sid
    assert record_of(store, session).version == 2


def test_there_is_nothing_to_reload_of_what_was_never_stored(store: AnyStore, way: Way) -> None:
    session = a_session(store, way=way)
    session["n"] = 1
    with pytest.raises(SessionGone):
        reload(session, way)
    assert session == {"n": 1}
    assert not session.gone
    save(session, way)
    assert data_of(store, session) == {"n": 1}


def test_reloading_what_was_destroyed_is_session_gone(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    session.destroy()
    with pytest.raises(SessionGone):
        reload(session, way)


def test_a_session_that_is_gone_is_found_so_by_a_reload(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    assert session.id is not None
    store.delete(session.id)
    with pytest.raises(SessionGone):
        reload(session, way)
    assert session.gone
    assert session == {"n": 1}


def test_what_was_made_anew_under_its_id_can_be_loaded_and_then_changed(
    store: AnyStore, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    sid = session.id
    assert sid is not None
    store.delete(sid)
    store.create({"whose": "another's"}, sid=sid)
    session["n"] = 2
    with pytest.raises(SessionGone):
        save(session, way)
    assert loaded(store, sid).data == {"whose": "another's"}
    reload(session, way)
    assert session == {"whose": "another's"}
    session["n"] = 3
    save(session, way)
    assert loaded(store, sid).data == {"whose": "another's", "n": 3}


def test_a_reload_that_fails_leaves_the_session_as_it_was(clock: ManualClock, way: Way) -> None:
    store = Moody(clock=clock)
    session = stored(store, {"n": 1}, way)
    session["n"] = 2
    store.failing.add("load")
    with pytest.raises(StoreUnavailable):
        reload(session, way)
    assert session == {"n": 2}
    assert not session.gone
    assert session.modified


# -- a store that keeps no text of what it gave ---------------------------------------------------


class Textless(MemoryStore):
    """As a store of a user's own: its records hold the data and nothing beside it."""

    def load(self, sid: str) -> SessionRecord | None:
        record = super().load(sid)
        return None if record is None else _textless(record)

    def save(self, sid: str, data: Any, **keywords: Any) -> SessionRecord:
        return _textless(super().save(sid, data, **{**keywords, "base": None}))


def _textless(record: SessionRecord) -> SessionRecord:
    return SessionRecord(
        *(record.id, record.data, record.version, record.created_at, record.accessed_at),
        *(record.expires_at, record.idle_timeout, record.absolute_timeout, record.cookie),
    )


def test_changes_are_noticed_and_undone_without_the_stores_text(clock: ManualClock) -> None:
    store = Textless(clock=clock)
    session = stored(store, CART)
    session["cart"][0]["count"] = 2
    assert session.modified
    session.save()
    assert not session.modified
    assert data_of(store, session) == {**CART, "cart": [{"name": "tea", "count": 2}]}

    def fail_inside() -> None:
        with session.lock():
            session.reload()
            session["cart"].clear()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert session["cart"] == [{"name": "tea", "count": 2}]
    assert not session.modified


def test_emptied_it_has_none_of_the_cookie_attributes_another_gave_it(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    assert session.id is not None
    store.save(session.id, {"n": 2}, cookie={"max_age": 999_999}, idle_timeout=999_999)
    session.regenerate(keep_data=False)
    session["user"] = "ada"
    session.save()
    record = loaded(store, session.id)
    assert (record.data, dict(record.cookie)) == ({"user": "ada"}, {})
    assert record.idle_timeout == store.lifetime.idle_timeout
    assert session.cookie.max_age is None


def test_cookie_attributes_that_do_not_go_together_cost_no_change(store: AnyStore) -> None:
    sid = store.create({"n": 1}, cookie={"secure": True}).id
    session = a_session(store, sid)
    store.save(sid, {"n": 1}, cookie={"secure": True, "same_site": "none"})
    session.cookie.secure = False
    with session.lock():
        session["n"] = 2
    assert loaded(store, sid).data == {"n": 2}
    assert session.cookie.secure is False
