"""The lock of the session an application holds: fresh inside, saved or undone at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest

from filesession.errors import EncodeError, LockTimeout, SessionGone
from filesession.record import SessionRecord
from filesession.session import Session
from filesession.testing import ManualClock
from filesession.testing.base import in_thread, loaded
from tests.session.conftest import START, AnyStore, Way, a_session, save, stored

CART: Final = {"user": "ada", "cart": [{"name": "tea", "count": 1}]}


def inside(
    session: Session, way: Way, body: Callable[[], object] = lambda: None, timeout: float = 10
) -> None:
    """Do something inside the session's lock."""
    if way == "blocking":
        with session.lock(timeout=timeout):
            body()
        return

    async def locked() -> None:
        async with session.alock(timeout=timeout):
            body()

    asyncio.run(locked())


def data_of(store: AnyStore, session: Session) -> dict[str, Any]:
    """What is stored of it."""
    return record_of(store, session).data


def record_of(store: AnyStore, session: Session) -> SessionRecord:
    assert session.id is not None
    return loaded(store, session.id)


# -- lock -----------------------------------------------------------------------------------------


def test_inside_the_lock_it_is_fresh_and_saved_at_the_end(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    sid = session.id
    assert sid is not None
    store.save(sid, {"n": 41})

    def count() -> None:
        session["n"] += 1
        with pytest.raises(LockTimeout):
            in_thread(lambda: a_session(store, sid).lock(timeout=0).__enter__())

    inside(session, way, count)
    assert loaded(store, sid).data == {"n": 42}
    assert not session.modified
    in_thread(lambda: a_session(store, sid).lock(timeout=0).__enter__())


def test_what_was_changed_before_is_kept_on_top_of_what_is_fresh(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1, "m": 1, "gone": 1}, way)
    assert session.id is not None
    store.save(session.id, {"n": 1, "m": 2, "gone": 1, "theirs": 2})
    session["n"] = 3
    del session["gone"]
    seen: list[object] = []
    inside(session, way, lambda: seen.append(session.copy()))
    assert seen == [{"n": 3, "m": 2, "theirs": 2}]
    assert data_of(store, session) == {"n": 3, "m": 2, "theirs": 2}


def test_a_list_that_was_held_before_is_the_fresh_one_inside(store: AnyStore, way: Way) -> None:
    session = stored(store, {"cart": ["tea"]}, way)
    assert session.id is not None
    cart = session["cart"]
    store.save(session.id, {"cart": ["tea", "milk"]})
    inside(session, way, lambda: cart.append("honey"))
    assert data_of(store, session) == {"cart": ["tea", "milk", "honey"]}


def test_its_cookie_is_fresh_inside_with_what_was_set_before_on_top(
    store: AnyStore, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    theirs = a_session(store, session.id)
    theirs.cookie.max_age = 60
    theirs.cookie.priority = "high"
    theirs.save()
    session.cookie.priority = "low"
    seen: list[object] = []
    inside(session, way, lambda: seen.append(session.cookie.overrides))
    assert seen == [{"max_age": 60, "priority": "low"}]
    assert record_of(store, session).cookie == {"max_age": 60, "priority": "low"}
    assert not session.modified


def test_an_error_inside_leaves_its_cookie_fresh(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    theirs = a_session(store, session.id)
    theirs.cookie.priority = "high"
    theirs.save()
    with pytest.raises(ZeroDivisionError):
        inside(session, way, fail_after(new_cookie)(session))
    assert session.cookie.overrides == {"priority": "high"}
    assert not session.modified


def test_a_lock_without_a_change_writes_nothing(
    store: AnyStore, clock: ManualClock, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    clock.advance(600)
    inside(session, way, lambda: session["n"])
    record = record_of(store, session)
    assert (record.version, record.accessed_at) == (1, START)


def fail_after(*acts: Callable[[Session], object]) -> Callable[[Session], Callable[[], None]]:
    def failing(session: Session) -> Callable[[], None]:
        def body() -> None:
            for act in acts:
                act(session)
            raise ZeroDivisionError

        return body

    return failing


def new_cookie(session: Session) -> None:
    session.cookie.max_age = 60


def new_timeout(session: Session) -> None:
    session.idle_timeout = 60


def mark(session: Session) -> None:
    session.modified = True


ACTS: Final[dict[str, Callable[[Session], object]]] = {
    "a key set": lambda session: session.update(user="eve"),
    "a key added": lambda session: session.update(a=1),
    "a key deleted": lambda session: session.pop("user"),
    "all deleted": lambda session: session.clear(),
    "a value of another type": lambda session: session.update(cart={"tea": 1}),
    "append to what it holds": lambda session: session["cart"].append("tea"),
    "clear what it holds": lambda session: session["cart"].clear(),
    "change deep inside": lambda session: session["cart"][0].update(count=2),
    "delete deep inside": lambda session: session["cart"][0].pop("name"),
    "what cannot be stored": lambda session: session["cart"].append(object()),
    "what cannot be stored, in a key's place": lambda session: session.update(user=object()),
    "cookie": new_cookie,
    "timeout": new_timeout,
    "mark": mark,
    "regenerate": Session.regenerate,
    "regenerate empty": lambda session: session.regenerate(keep_data=False),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_error_inside_undoes_what_was_changed_inside(
    store: AnyStore, way: Way, act: Callable[[Session], object]
) -> None:
    session = stored(store, CART, way)
    sid = session.id
    with pytest.raises(ZeroDivisionError):
        inside(session, way, fail_after(act)(session))
    assert session == CART
    assert session.id == sid
    assert not session.modified
    save(session, way)
    record = record_of(store, session)
    assert (record.version, record.data, record.cookie) == (1, CART, {})


def test_the_lock_brings_nothing_back_that_regenerate_was_told_to_drop(
    store: AnyStore, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    assert session.id is not None
    store.save(session.id, {"n": 1, "admin": True})
    session.regenerate(keep_data=False)
    inside(session, way, lambda: session.update(user="ada"))
    assert data_of(store, session) == {"user": "ada"} == session


def test_what_was_destroyed_is_new_and_needs_no_lock(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    assert session.id is not None
    store.delete(session.id)
    session.destroy()
    inside(session, way, lambda: session.update(flash="bye"))
    assert (session, session.is_new) == ({"flash": "bye"}, True)
    assert len(store) == 0


def test_there_is_no_lock_on_a_session_that_is_gone(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    assert session.id is not None
    store.delete(session.id)
    session["n"] = 2
    with pytest.raises(SessionGone):
        inside(session, way, pytest.fail)
    assert store.load(session.id) is None


def test_an_error_inside_leaves_what_was_changed_before(store: AnyStore, way: Way) -> None:
    session = stored(store, CART, way)
    old = session.id
    session["user"] = "bob"
    session["cart"].append("milk")
    session.cookie.max_age = 99
    session.idle_timeout = 99
    session.regenerate()
    act = fail_after(lambda it: it.clear(), new_cookie, new_timeout, Session.destroy)
    with pytest.raises(ZeroDivisionError):
        inside(session, way, fail_after(lambda it: it.clear(), new_cookie, new_timeout)(session))
    expected = {"user": "bob", "cart": [*CART["cart"], "milk"]}
    assert session == expected
    save(session, way)
    record = record_of(store, session)
    assert record.id != old
    assert (record.data, record.cookie, record.idle_timeout) == (expected, {"max_age": 99}, 99)
    with pytest.raises(ZeroDivisionError):
        inside(session, way, act(session))
    assert session == {}


def test_what_an_error_does_not_concern_stays_the_very_object_it_was(
    store: AnyStore, way: Way
) -> None:
    session = stored(store, CART, way)
    cart = session["cart"]
    with pytest.raises(ZeroDivisionError):
        inside(session, way, fail_after(lambda it: it.update(user="eve"))(session))
    assert session["cart"] is cart


def test_what_was_saved_inside_stays_saved_when_an_error_follows(store: AnyStore) -> None:
    session = stored(store, {"n": 1, "cart": []})
    session.regenerate()
    saved: list[str | None] = []
    body = fail_after(
        lambda it: it.update(n=2),
        new_timeout,
        Session.save,
        lambda it: saved.append(it.id),
        lambda it: it.update(n=3),
        lambda it: it["cart"].append("tea"),
        new_cookie,
    )
    with pytest.raises(ZeroDivisionError):
        inside(session, "blocking", body(session))
    assert session == {"n": 2, "cart": []}
    assert not session.modified
    session.save()
    record = record_of(store, session)
    assert [record.id] == saved
    assert (record.data, record.cookie, record.idle_timeout) == ({"n": 2, "cart": []}, {}, 60)


def test_what_was_changed_after_a_reload_inside_is_undone_to_what_was_loaded(
    store: AnyStore,
) -> None:
    session = stored(store, {"n": 1, "cart": []})
    session["n"] = 2
    body = fail_after(
        Session.reload, lambda it: it.update(n=3), lambda it: it["cart"].append("tea")
    )
    with pytest.raises(ZeroDivisionError):
        inside(session, "blocking", body(session))
    assert session == {"n": 1, "cart": []}
    assert not session.modified


def test_a_session_destroyed_inside_stays_so_when_an_error_follows(
    store: AnyStore, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    sid = session.id
    assert sid is not None
    body = fail_after(Session.destroy, lambda it: it.update(flash="bye"))(session)
    with pytest.raises(ZeroDivisionError):
        inside(session, way, body)
    assert session == {}
    assert session.destroyed
    save(session, way)
    assert store.load(sid) is None


def test_a_session_destroyed_inside_is_deleted_at_the_end(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    sid = session.id
    assert sid is not None
    inside(session, way, session.destroy)
    assert store.load(sid) is None
    assert len(store) == 0


def test_a_session_regenerated_inside_has_its_new_id_at_the_end(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    sid = session.id
    assert sid is not None
    inside(session, way, session.regenerate)
    assert session.id != sid
    assert store.load(sid) is None
    assert data_of(store, session) == {"n": 1}


def test_a_new_session_needs_no_lock_but_an_error_undoes_what_was_changed_inside(
    store: AnyStore, way: Way
) -> None:
    session = a_session(store, way=way)
    session["n"] = 1
    shown = session.id
    inside(session, way, lambda: session.update(m=2))
    assert session == {"n": 1, "m": 2}
    assert session.is_new
    body = fail_after(lambda it: it.clear(), Session.regenerate, new_cookie)(session)
    with pytest.raises(ZeroDivisionError):
        inside(session, way, body)
    assert session == {"n": 1, "m": 2}
    save(session, way)
    record = record_of(store, session)
    assert (record.id, record.data, record.cookie) == (shown, {"n": 1, "m": 2}, {})


def test_a_new_session_destroyed_inside_stays_empty_when_an_error_follows(
    store: AnyStore, way: Way
) -> None:
    session = a_session(store, way=way)
    session["n"] = 1
    with pytest.raises(ZeroDivisionError):
        inside(session, way, fail_after(Session.destroy)(session))
    assert session == {}


def test_a_lock_inside_its_own_lock_saves_and_undoes_what_is_its_own(store: AnyStore) -> None:
    session = stored(store, {"n": 1})
    with session.lock(timeout=0):
        session["n"] = 2
        with session.lock(timeout=0):
            session["m"] = 2
        assert data_of(store, session) == {"n": 2, "m": 2}
        with pytest.raises(ZeroDivisionError):
            inside(session, "blocking", fail_after(lambda it: it.update(m=3))(session), timeout=0)
        session["k"] = 4
        with pytest.raises(LockTimeout):
            in_thread(lambda: a_session(store, session.id).lock(timeout=0).__enter__())
    assert data_of(store, session) == {"n": 2, "m": 2, "k": 4} == session


def test_the_same_in_coroutines(store: AnyStore) -> None:
    session = stored(store, {"n": 1}, "loop")

    async def nested() -> None:
        async with session.alock(timeout=0):
            session["n"] = 2
            async with session.alock(timeout=0):
                session["m"] = 2
            assert data_of(store, session) == {"n": 2, "m": 2}
            session.regenerate()
            await session.asave()
            async with session.alock(timeout=0):
                session["m"] = 3

    old = session.id
    asyncio.run(nested())
    assert session.id != old
    assert data_of(store, session) == {"n": 2, "m": 3}


def test_a_lock_that_another_keeps_is_a_timeout_and_changes_nothing(
    store: AnyStore, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    session["n"] = 2
    assert session.id is not None
    with store.lock(session.id):
        with pytest.raises(LockTimeout, match="gave up after 0 s"):
            in_thread(lambda: inside(session, way, pytest.fail, timeout=0))
        assert session == {"n": 2}
    save(session, way)
    assert data_of(store, session) == {"n": 2}


def test_what_cannot_be_stored_is_named_before_the_lock_is_used(store: AnyStore, way: Way) -> None:
    session = stored(store, {"n": 1}, way)
    assert session.id is not None
    store.save(session.id, {"n": 2})
    session["n"] = [object()]
    with pytest.raises(EncodeError, match=r"n\[0\]"):
        inside(session, way, pytest.fail)
    with store.lock(session.id, timeout=0) as record:
        assert record.data == {"n": 2}
    session["n"] = 3
    inside(session, way, lambda: session.update(n=session["n"] + 1))
    assert data_of(store, session) == {"n": 4}


def test_what_cannot_be_stored_at_the_end_of_the_lock_leaves_it_free(
    store: AnyStore, way: Way
) -> None:
    session = stored(store, {"n": 1}, way)
    assert session.id is not None
    with pytest.raises(EncodeError, match="cart"):
        inside(session, way, lambda: session.update(cart=object()))
    with store.lock(session.id, timeout=0) as record:
        assert record.data == {"n": 1}
