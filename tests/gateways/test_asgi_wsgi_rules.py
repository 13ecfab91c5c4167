"""What a request does to its session: each row of the README's table, through both gateways."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from filesession.errors import ConfigurationError, SessionGone
from filesession.session import Session

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, RecordingStore, Site


@pytest.fixture
def sid(store: RecordingStore) -> str:
    """A stored session."""
    sid: str = store.create({"user": "ada", "cart": ["tea"]}).id
    store.calls.clear()
    return sid


@pytest.fixture
def valid(sid: str, cookie_of: Callable[..., str]) -> str:
    """The cookie of a stored session."""
    return cookie_of(sid)


@pytest.fixture(params=["none", "forged", "unsigned", "truncated", "unknown"])
def stranger(request: pytest.FixtureRequest, sid: str, cookie_of: Callable[..., str]) -> str | None:
    """The cookie of a request that has no session here."""
    genuine = cookie_of(sid)
    return {
        "none": None,
        "forged": cookie_of(sid, "another secret"),
        "unsigned": f"sid={sid}",
        "truncated": genuine[:-1],
        "unknown": cookie_of("an-id-of-the-visitors-choice"),
    }[request.param]


@pytest.fixture
def looked_up(request: pytest.FixtureRequest, stranger: str | None) -> list[str]:
    """The store calls such a cookie costs: only one that verifies is worth a look."""
    return ["load"] if "unknown" in request.node.name else []


def write(here: Here) -> None:
    here.session["seen"] = True


def look(here: Here) -> None:
    assert here.session.get("cart") == ["tea"]


# -- new ------------------------------------------------------------------------------------------


def test_a_new_untouched_session_is_neither_stored_nor_announced(
    site: Site, store: RecordingStore, stranger: str | None, looked_up: list[str]
) -> None:
    answer = site.request(lambda here: here.session.get("user"), cookie=stranger)
    assert answer.status == 200
    assert answer.set_cookie is None
    assert store.calls == looked_up
    assert store.ids() == 1


def test_with_save_uninitialized_it_is_stored_and_announced(
    make_site: Callable[..., Site],
    store: RecordingStore,
    stranger: str | None,
    looked_up: list[str],
) -> None:
    answer = make_site(save_uninitialized=True).request(cookie=stranger)
    assert store.calls == [*looked_up, "create"]
    record = store.load(answer.sid)
    assert record is not None
    assert record.data == {}


def test_a_new_modified_session_is_stored_and_announced_under_an_id_of_ours(
    site: Site, store: RecordingStore, sid: str, stranger: str | None, looked_up: list[str]
) -> None:
    answer = site.request(write, cookie=stranger)
    assert store.calls == [*looked_up, "create"]
    new = answer.sid
    assert new not in {sid, "an-id-of-the-visitors-choice"}
    record = store.load(new)
    assert record is not None
    assert record.data == {"seen": True}
    assert store.load("an-id-of-the-visitors-choice") is None


def test_what_is_stored_of_a_new_session_is_there_in_the_next_request(site: Site) -> None:
    cookie = site.request(write).cookie
    seen: list[object] = []
    site.request(
        lambda here: seen.append((here.session["seen"], here.session.is_new)), cookie=cookie
    )
    assert seen == [(True, False)]


def test_an_id_that_was_shown_is_the_one_that_is_stored(site: Site) -> None:
    shown: list[str | None] = []

    def show(here: Here) -> None:
        shown.extend((here.session.id, here.session.id))
        here.session["a"] = 1
        here.after = lambda: shown.append(here.session.id)

    assert [site.request(show).sid] * 3 == shown


def test_two_new_sessions_have_different_ids(site: Site) -> None:
    assert site.request(write).sid != site.request(write).sid


# -- loaded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [None, look], ids=["not looked at", "read"])
def test_an_unchanged_session_is_touched_and_not_announced(
    site: Site,
    store: RecordingStore,
    valid: str,
    sid: str,
    *,
    handler: Callable[[Here], None] | None,
) -> None:
    store.now.advance(600)
    answer = site.request(handler, cookie=valid)
    assert store.calls == ["load", "touch"]
    assert answer.set_cookie is None
    record = store.load(sid)
    assert record is not None
    assert (record.accessed_at, record.version) == (store.now(), 1)


def test_an_unchanged_session_is_saved_with_resave(
    make_site: Callable[..., Site], store: RecordingStore, valid: str
) -> None:
    answer = make_site(resave=True).request(look, cookie=valid)
    assert store.calls == ["load", "save"]
    assert answer.set_cookie is None


def test_with_resave_and_max_age_an_unchanged_session_is_not_announced(
    make_site: Callable[..., Site], valid: str
) -> None:
    assert make_site(resave=True, max_age=60).request(look, cookie=valid).set_cookie is None


def test_an_unchanged_session_is_announced_with_rolling(
    make_site: Callable[..., Site], store: RecordingStore, valid: str
) -> None:
    answer = make_site(rolling=True).request(cookie=valid)
    assert store.calls == ["load", "touch"]
    assert answer.cookie == valid


def test_rolling_announces_no_session_that_is_not_stored(make_site: Callable[..., Site]) -> None:
    assert make_site(rolling=True).request(lambda here: len(here.session)).set_cookie is None


def test_a_modified_session_is_saved_and_not_announced(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    answer = site.request(write, cookie=valid)
    assert store.calls == ["load", "save"]
    assert answer.set_cookie is None
    record = store.load(sid)
    assert record is not None
    assert record.data == {"user": "ada", "cart": ["tea"], "seen": True}


@pytest.mark.parametrize("option", [{"rolling": True}, {"max_age": 60}], ids=str)
def test_a_modified_session_is_announced_with_rolling_or_max_age(
    make_site: Callable[..., Site], valid: str, option: dict[str, Any]
) -> None:
    answer = make_site(**option).request(write, cookie=valid)
    assert answer.cookie == valid
    assert ("; Max-Age=60" in (answer.set_cookie or "")) == ("max_age" in option)


def test_a_nested_change_is_saved(site: Site, store: RecordingStore, valid: str, sid: str) -> None:
    site.request(lambda here: here.session["cart"].append("milk"), cookie=valid)
    record = store.load(sid)
    assert record is not None
    assert record.data["cart"] == ["tea", "milk"]


def test_touch_extends_the_session_and_its_lasting_cookie(
    make_site: Callable[..., Site], store: RecordingStore, valid: str
) -> None:
    assert make_site().request(lambda here: here.session.touch(), cookie=valid).set_cookie is None
    answer = make_site(max_age=60).request(lambda here: here.session.touch(), cookie=valid)
    assert answer.cookie == valid
    assert store.calls == ["load", "touch"] * 2


def test_marked_as_modified_it_is_saved_as_it_is(
    site: Site, store: RecordingStore, valid: str
) -> None:
    def mark(here: Here) -> None:
        here.session.modified = True

    site.request(mark, cookie=valid)
    assert store.calls == ["load", "save"]
    site.request(mark)
    assert store.calls == ["load", "save", "create"]


def test_a_session_that_has_expired_is_a_new_one(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    store.now.advance(1800 + 61)
    answer = site.request(write, cookie=valid)
    assert answer.sid != sid


# -- regenerated ----------------------------------------------------------------------------------


def test_a_regenerated_session_gets_a_new_id_and_the_old_one_is_dead(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    answer = site.request(lambda here: here.session.regenerate(), cookie=valid)
    assert store.calls == ["load", "regenerate"]
    new = answer.sid
    assert new != sid
    assert store.load(sid) is None
    record = store.load(new)
    assert record is not None
    assert record.data == {"user": "ada", "cart": ["tea"]}


def test_regenerated_without_its_data_it_starts_empty(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    def renew(here: Here) -> None:
        here.session.regenerate(keep_data=False)
        here.session["user"] = "bob"

    answer = site.request(renew, cookie=valid)
    assert store.load(sid) is None
    record = store.load(answer.sid)
    assert record is not None
    assert record.data == {"user": "bob"}


def test_a_new_session_that_is_regenerated_is_stored(
    site: Site, store: RecordingStore, stranger: str | None, looked_up: list[str]
) -> None:
    answer = site.request(lambda here: here.session.regenerate(), cookie=stranger)
    assert store.calls == [*looked_up, "create"]
    assert store.load(answer.sid) is not None


def test_the_id_changes_at_commit_and_not_before(site: Site, valid: str, sid: str) -> None:
    ids: list[str | None] = []

    def renew(here: Here) -> None:
        here.session.regenerate()
        ids.append(here.session.id)
        here.late = lambda: ids.append(here.session.id)

    answer = site.request(renew, cookie=valid)
    assert ids == [sid, answer.sid]


# -- destroyed ------------------------------------------------------------------------------------


def test_a_destroyed_session_is_deleted_and_its_cookie_expired(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    answer = site.request(lambda here: here.session.destroy(), cookie=valid)
    assert store.calls == ["load", "delete"]
    assert store.load(sid) is None
    assert answer.expires_the_cookie


@pytest.mark.parametrize("taken_out", [False, True], ids=["destroyed", "taken out"])
def test_with_save_uninitialized_a_session_that_ended_starts_no_other(
    make_site: Callable[..., Site], store: RecordingStore, valid: str, *, taken_out: bool
) -> None:
    def end(here: Here) -> None:
        if taken_out:
            del here.place[here.key]
        else:
            here.session.destroy()

    site = make_site(save_uninitialized=True)
    answer = site.request(end, cookie=valid)
    assert store.calls == ["load", "delete"]
    assert answer.expires_the_cookie
    assert store.ids() == 0


def test_destroyed_and_saved_it_is_not_stored_again(
    site: Site, store: RecordingStore, valid: str
) -> None:
    def leave(here: Here) -> None:
        here.session.destroy()
        here.session.save()

    answer = site.request(leave, cookie=valid)
    assert answer.expires_the_cookie
    assert store.ids() == 0


def test_destroying_no_session_expires_only_a_cookie_that_verified(
    site: Site, store: RecordingStore, stranger: str | None, looked_up: list[str]
) -> None:
    answer = site.request(lambda here: here.session.destroy(), cookie=stranger)
    assert store.calls == looked_up
    assert answer.expires_the_cookie == bool(looked_up)
    assert bool(answer.set_cookie) == bool(looked_up)


def test_what_is_written_after_a_destroy_starts_another_session(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    def leave(here: Here) -> None:
        here.session.destroy()
        assert here.session == {}
        assert here.session.is_new
        here.session["flash"] = "bye"

    answer = site.request(leave, cookie=valid)
    assert store.calls == ["load", "delete", "create"]
    new = answer.sid
    assert new != sid
    assert store.load(sid) is None
    record = store.load(new)
    assert record is not None
    assert record.data == {"flash": "bye"}


def test_a_session_created_and_destroyed_in_one_request_leaves_nothing(
    site: Site, store: RecordingStore
) -> None:
    def come_and_go(here: Here) -> None:
        here.session["a"] = 1
        here.session.save()
        here.session.destroy()

    answer = site.request(come_and_go)
    assert answer.set_cookie is None
    assert store.ids() == 0


def test_an_expired_cookie_has_the_attributes_of_the_one_the_browser_holds(
    make_site: Callable[..., Site], store: RecordingStore, cookie_of: Callable[..., str]
) -> None:
    sid = store.create({}, cookie={"path": "/shop", "domain": "shop.example"}).id

    def leave(here: Here) -> None:
        here.session.cookie.domain = None
        here.session.destroy()
        here.session.destroy()

    answer = make_site().request(leave, cookie=cookie_of(sid))
    assert answer.expires_the_cookie
    assert "; Domain=shop.example; Path=/shop;" in (answer.set_cookie or "")


# -- taken out ------------------------------------------------------------------------------------


def set_to_none(here: Here) -> None:
    here.place[here.key] = None


def deleted(here: Here) -> None:
    del here.place[here.key]


@pytest.fixture(params=[set_to_none, deleted], ids=["set to None", "deleted"])
def take_out(request: pytest.FixtureRequest) -> Callable[[Here], None]:
    take_out: Callable[[Here], None] = request.param
    return take_out


def test_a_session_taken_out_is_destroyed(
    site: Site, store: RecordingStore, valid: str, sid: str, take_out: Callable[[Here], None]
) -> None:
    answer = site.request(take_out, cookie=valid)
    assert store.calls == ["load", "delete"]
    assert store.load(sid) is None
    assert answer.expires_the_cookie


def test_with_unset_keep_a_session_taken_out_stays_as_it_was(
    make_site: Callable[..., Site],
    store: RecordingStore,
    valid: str,
    sid: str,
    take_out: Callable[[Here], None],
) -> None:
    def change_and_take_out(here: Here) -> None:
        here.session["seen"] = True
        take_out(here)

    answer = make_site(unset="keep", rolling=True).request(change_and_take_out, cookie=valid)
    assert store.calls == ["load"]
    assert answer.set_cookie is None
    record = store.load(sid)
    assert record is not None
    assert "seen" not in record.data


@pytest.mark.parametrize("unset", ["destroy", "keep"])
def test_a_new_session_taken_out_leaves_nothing(
    make_site: Callable[..., Site],
    store: RecordingStore,
    take_out: Callable[[Here], None],
    unset: str,
) -> None:
    def change_and_take_out(here: Here) -> None:
        here.session["seen"] = True
        take_out(here)

    answer = make_site(unset=unset).request(change_and_take_out)
    assert (store.calls, answer.set_cookie) == ([], None)


def test_what_was_written_after_a_destroy_is_taken_out_too(
    site: Site, store: RecordingStore, valid: str, take_out: Callable[[Here], None]
) -> None:
    def leave_for_good(here: Here) -> None:
        here.session.destroy()
        here.session["flash"] = "bye"
        take_out(here)

    answer = site.request(leave_for_good, cookie=valid)
    assert answer.expires_the_cookie
    assert store.ids() == 0


def test_another_object_in_its_place_is_a_type_error(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    def replace(here: Here) -> None:
        here.place[here.key] = {"user": "eve"}

    with pytest.raises(TypeError, match="replaced by a dict; change it in place"):
        site.request(replace, cookie=valid)
    assert site.events == []
    record = store.load(sid)
    assert record is not None
    assert record.data["user"] == "ada"


# -- explicit verbs, and no second write ----------------------------------------------------------


def test_what_was_saved_is_not_saved_again(site: Site, store: RecordingStore, valid: str) -> None:
    def save(here: Here) -> None:
        here.session["a"] = 1
        here.session.save()

    site.request(save, cookie=valid)
    assert store.calls == ["load", "save", "touch"]
    store.calls.clear()
    answer = site.request(save)
    assert store.calls == ["create", "touch"]
    assert answer.sid


def test_what_was_saved_is_not_saved_again_with_resave_either(
    make_site: Callable[..., Site], store: RecordingStore, valid: str
) -> None:
    def save(here: Here) -> None:
        here.session["a"] = 1
        here.session.save()

    def renew_and_save(here: Here) -> None:
        here.session.regenerate()
        here.session.save()

    site = make_site(resave=True)
    site.request(save, cookie=valid)
    assert store.calls == ["load", "save", "touch"]
    store.calls.clear()
    assert site.request(save).sid
    assert store.calls == ["create", "touch"]
    store.calls.clear()
    site.request(renew_and_save, cookie=valid)
    assert store.calls == ["load", "regenerate", "touch"]


def test_what_changes_after_a_save_is_saved(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    def save_and_change(here: Here) -> None:
        here.session["a"] = 1
        here.session.save()
        here.session["a"] = 2

    site.request(save_and_change, cookie=valid)
    assert store.calls == ["load", "save", "save"]
    record = store.load(sid)
    assert record is not None
    assert record.data["a"] == 2


def test_an_untouched_new_session_that_is_saved_can_be_reached(
    site: Site, store: RecordingStore
) -> None:
    answer = site.request(lambda here: here.session.save())
    assert store.calls == ["create", "touch"]
    assert store.load(answer.sid) is not None


def test_a_regenerated_session_that_is_saved_is_not_saved_twice(
    site: Site, store: RecordingStore, valid: str
) -> None:
    def renew(here: Here) -> None:
        here.session.regenerate()
        here.session["a"] = 1
        here.session.save()

    answer = site.request(renew, cookie=valid)
    assert store.calls == ["load", "regenerate", "touch"]
    assert store.load(answer.sid) is not None


def test_reload_throws_changes_away(site: Site, store: RecordingStore, valid: str) -> None:
    def change_and_reload(here: Here) -> None:
        here.session["a"] = 1
        here.session.reload()
        assert "a" not in here.session

    site.request(change_and_reload, cookie=valid)
    assert store.calls == ["load", "load", "touch"]


def test_reload_of_a_session_that_was_never_stored_is_session_gone(
    site: Site, store: RecordingStore, stranger: str | None, looked_up: list[str]
) -> None:
    def reload(here: Here) -> None:
        with pytest.raises(SessionGone):
            here.session.reload()

    site.request(reload, cookie=stranger)
    assert store.calls == looked_up


def test_an_attribute_of_its_own_cookie_is_stored_and_announced(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    def remember(here: Here) -> None:
        here.session.cookie.max_age = 3600
        here.session.idle_timeout = 3600

    answer = site.request(remember, cookie=valid)
    assert store.calls == ["load", "save"]
    assert "; Max-Age=3600" in (answer.set_cookie or "")
    record = store.load(sid)
    assert record is not None
    assert (dict(record.cookie), record.idle_timeout) == ({"max_age": 3600}, 3600)

    def see(here: Here) -> None:
        assert (here.session.cookie.max_age, here.session.idle_timeout) == (3600, 3600)

    assert site.request(see, cookie=valid).set_cookie is None


def test_an_idle_timeout_alone_is_stored_and_not_announced(
    site: Site, store: RecordingStore, valid: str, sid: str
) -> None:
    def remember(here: Here) -> None:
        here.session.idle_timeout = None

    assert site.request(remember, cookie=valid).set_cookie is None
    record = store.load(sid)
    assert record is not None
    assert record.idle_timeout is None


def test_a_new_session_keeps_the_timeout_and_cookie_it_was_given(
    site: Site, store: RecordingStore
) -> None:
    def remember(here: Here) -> None:
        here.session.idle_timeout = 99
        here.session.cookie.same_site = "strict"

    answer = site.request(remember)
    assert "; SameSite=Strict" in (answer.set_cookie or "")
    record = store.load(answer.sid)
    assert record is not None
    assert (dict(record.cookie), record.idle_timeout) == ({"same_site": "strict"}, 99)


# -- genid ----------------------------------------------------------------------------------------


def test_genid_makes_the_ids_from_what_the_request_is(
    make_site: Callable[..., Site], store: RecordingStore
) -> None:
    asked: list[object] = []

    def genid(source: Any) -> str:
        asked.append(source)
        return f"id-{len(asked)} %"

    site = make_site(genid=genid)
    answer = site.request(write)
    assert answer.sid == "id-1 %"
    assert site.here is not None
    assert asked == [site.here.place]
    answer = site.request(lambda here: here.session.regenerate(), cookie=answer.cookie)
    assert answer.sid == "id-2 %"
    assert store.load("id-1 %") is None


@pytest.mark.parametrize("regenerated", [False, True], ids=["new", "regenerated"])
def test_an_id_from_genid_that_is_taken_is_asked_for_again(
    make_site: Callable[..., Site], store: RecordingStore, valid: str, *, regenerated: bool
) -> None:
    store.create({"user": "bob"}, sid="taken")
    ids = iter(["taken", "taken", "free"])
    site = make_site(genid=lambda source: next(ids))

    def change(here: Here) -> None:
        if regenerated:
            here.session.regenerate()
        here.session["a"] = 1

    answer = site.request(change, cookie=valid if regenerated else None)
    assert answer.sid == "free"
    record = store.load("taken")
    assert record is not None
    assert record.data == {"user": "bob"}


@pytest.mark.parametrize(
    "wrong",
    [None, 5, b"bytes", "", "a\nb", "x" * 257],
    ids=["None", "a number", "bytes", "empty", "a control character", "too long"],
)
@pytest.mark.parametrize("regenerated", [False, True], ids=["new", "regenerated"])
def test_a_genid_that_gives_no_id_is_told_so_and_nothing_is_stored(
    make_site: Callable[..., Site],
    store: RecordingStore,
    valid: str,
    wrong: object,
    *,
    regenerated: bool,
) -> None:
    def change(here: Here) -> None:
        if regenerated:
            here.session.regenerate()
        here.session["a"] = 1

    site = make_site(genid=lambda source: wrong)
    with pytest.raises(ConfigurationError, match="genid must return text of 1 to 256 characters"):
        site.request(change, cookie=valid if regenerated else None)
    assert site.events == []
    assert store.ids() == 1


def test_the_application_sees_a_session_that_is_a_dict(site: Site) -> None:
    def check(here: Here) -> None:
        assert isinstance(here.place[here.key], Session)
        assert isinstance(here.place[here.key], dict)

    site.request(check)
