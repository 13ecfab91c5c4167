"""Sessions that travel whole in their cookie, through both gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesession import asgi, wsgi
from filesession.cookies import EncryptedCookie
from filesession.cookies.header import cookie_values
from filesession.cookies.sealing import SealedSessions
from filesession.errors import ConfigurationError, CookieTooLarge, EncodeError, SessionGone
from filesession.testing import ManualClock
from filesession.testing.clock import START

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, Site

KEY: Final = bytes(range(1, 33))
OLD: Final = b"\x5a" * 32


def write(here: Here) -> None:
    here.session["user"] = "ada"


def look(here: Here) -> None:
    here.session.get("user")


def value_of(cookie: str) -> str:
    name, _, _ = cookie.partition("=")
    (value,) = cookie_values(cookie, name)
    return value


class Sealed:
    """An application whose sessions are in their cookies, and its clock."""

    def __init__(self, make_site: Callable[..., Site]) -> None:
        self.clock = ManualClock()
        self._make_site = make_site

    def site(self, key: Any = KEY, *, expiry: float = 900, **options: Any) -> Site:
        cookie = EncryptedCookie(key, expiry=expiry, clock=self.clock)
        return self._make_site(store=cookie, secret=None, **options)

    def holds(self, cookie: str, key: bytes = KEY) -> Any:
        """What a server with that key alone finds in a cookie."""
        return EncryptedCookie(key, expiry=900, clock=self.clock).open(value_of(cookie))

    def time_in(self, cookie: str, key: bytes = KEY) -> float:
        """The time that is in a cookie, POSIX seconds."""
        sessions = SealedSessions(EncryptedCookie(key, expiry=900, clock=self.clock), "sid")
        found = sessions.unsign(value_of(cookie))
        assert found is not None
        record = sessions.load(found[0])
        assert record is not None
        return record.accessed_at


@pytest.fixture
def sealed(make_site: Callable[..., Site]) -> Sealed:
    return Sealed(make_site)


@pytest.fixture
def site(sealed: Sealed) -> Site:
    return sealed.site()


@pytest.fixture
def cookie(site: Site) -> str:
    """A session's."""
    return site.request(write).cookie


def seen(site: Site, cookie: str | None) -> dict[str, Any]:
    """What a request with that cookie finds in its session."""
    found: list[dict[str, Any]] = []
    answer = site.request(lambda here: found.append(dict(here.session)), cookie=cookie)
    assert answer.status == 200
    return found[0]


# -- in and out -----------------------------------------------------------------------------------


def test_what_is_put_into_a_session_comes_back_with_its_cookie(site: Site, cookie: str) -> None:
    assert seen(site, cookie) == {"user": "ada"}
    assert "ada" not in cookie


def test_the_headers_are_those_of_any_session(site: Site, cookie: str) -> None:
    answer = site.request(write)
    assert answer.set_cookie is not None
    assert answer.set_cookie.endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert (answer.all("cache-control"), answer.all("vary")) == (["no-store"], ["Cookie"])
    answer = site.request(look, cookie=cookie)
    assert (answer.all("cache-control"), answer.all("vary")) == ([], ["Cookie"])
    assert site.request(cookie=cookie).headers == [("content-type", "text/plain")]


def test_a_look_sends_nothing_and_a_change_a_new_cookie(site: Site, cookie: str) -> None:
    assert site.request(look, cookie=cookie).set_cookie is None
    changed = site.request(write, cookie=cookie)
    assert changed.set_cookie is None  # it is what it was
    changed = site.request(lambda here: here.session.setdefault("cart", []), cookie=cookie)
    assert seen(site, changed.cookie) == {"user": "ada", "cart": []}
    nested = site.request(lambda here: here.session["cart"].append("tea"), cookie=changed.cookie)
    assert seen(site, nested.cookie) == {"user": "ada", "cart": ["tea"]}


def test_a_new_session_that_nothing_was_put_into_sends_nothing(site: Site, sealed: Sealed) -> None:
    assert site.request(look).set_cookie is None
    assert sealed.holds(sealed.site(save_uninitialized=True).request(look).cookie) == {}


def test_it_tells_what_is_known_of_it(site: Site, cookie: str) -> None:
    def told(here: Here) -> None:
        session = here.session
        tells = (session.id, session.created_at, session.is_new, session.idle_timeout)
        assert tells == (None, None, False, 900)
        assert session.accessed_at == int(START)
        assert session.expires_at == int(START) + 900

    def told_of_a_new_one(here: Here) -> None:
        session = here.session
        assert (session.id, session.is_new, session.expires_at) == (None, True, None)

    site.request(told, cookie=cookie)
    site.request(told_of_a_new_one)


def test_two_requests_at_once_leave_the_cookie_that_comes_last(site: Site, cookie: str) -> None:
    one = site.request(lambda here: here.session.update(one=1), cookie=cookie)
    other = site.request(lambda here: here.session.update(other=2), cookie=cookie)
    assert seen(site, one.cookie) == {"user": "ada", "one": 1}
    assert seen(site, other.cookie) == {"user": "ada", "other": 2}


def test_of_several_cookies_the_first_that_opens_counts(site: Site, cookie: str) -> None:
    foreign = cookie[:-1] + ("A" if cookie[-1] != "A" else "B")
    assert seen(site, f"sid=x; {foreign}; {cookie}") == {"user": "ada"}


# -- @fastify/secure-session's scenarios ----------------------------------------------------------


def test_a_with_any_byte_changed_it_is_an_empty_session(site: Site, cookie: str) -> None:
    for at in range(len("sid="), len(cookie), 3):
        other = "B" if cookie[at] != "B" else "C"
        assert seen(site, cookie[:at] + other + cookie[at + 1 :]) == {}


def test_b_of_an_older_key_it_is_sealed_anew_once_and_no_younger(
    sealed: Sealed, cookie: str
) -> None:
    rotated = sealed.site([OLD, KEY])
    sealed.clock.advance(100)
    answer = rotated.request(look, cookie=cookie)
    assert sealed.holds(answer.cookie, OLD) == {"user": "ada"}
    assert sealed.time_in(answer.cookie, OLD) == int(START)
    assert answer.all("cache-control") == ["no-store"]
    assert rotated.request(look, cookie=answer.cookie).set_cookie is None
    untouched = rotated.request(cookie=cookie)
    assert sealed.holds(untouched.cookie, OLD) == {"user": "ada"}
    changed = rotated.request(lambda here: here.session.update(n=1), cookie=cookie)
    assert sealed.time_in(changed.cookie, OLD) == int(START) + 100


def test_c_it_is_good_for_its_expiry_and_a_touch_makes_a_new_one(site: Site, cookie: str) -> None:
    clock = site.store.clock
    clock.now = int(START) + 899
    touched = site.request(lambda here: here.session.touch(), cookie=cookie).cookie
    assert seen(site, cookie) == {"user": "ada"}
    clock.now += 1
    assert seen(site, cookie) == {}
    assert seen(site, touched) == {"user": "ada"}
    clock.now += 899
    assert seen(site, touched) == {}


def test_d_what_is_destroyed_ends_its_cookie(site: Site, cookie: str) -> None:
    answer = site.request(lambda here: here.session.destroy(), cookie=cookie)
    assert answer.expires_the_cookie
    assert answer.cookie == "sid="
    assert site.request(lambda here: here.session.destroy()).set_cookie is None
    assert seen(site, cookie) == {"user": "ada"}  # nothing is kept that could tell


def test_d_what_is_written_after_that_begins_another(site: Site, cookie: str) -> None:
    def again(here: Here) -> None:
        here.session.destroy()
        here.session["flash"] = "goodbye"

    assert seen(site, site.request(again, cookie=cookie).cookie) == {"flash": "goodbye"}


def test_e_a_request_that_is_refused_before_the_session_is_used_gets_no_cookie(site: Site) -> None:
    def refuse(here: Here) -> None:
        here.status = "400 Bad Request"

    answer = site.request(refuse)
    assert (answer.status, answer.set_cookie) == (400, None)


def test_f_two_under_different_keys_each_open_their_own(sealed: Sealed, kind: str) -> None:
    """One inside the other, as they are mounted."""
    middleware: Any = asgi.SessionMiddleware if kind == "asgi" else wsgi.SessionMiddleware
    site = sealed.site(name="one", same_site="strict")
    inner = EncryptedCookie(OLD, clock=sealed.clock)
    app = site.middleware.app
    site.middleware.app = middleware(app, inner, name="two", key="other", path="/", max_age=60)
    other = "other" if kind == "asgi" else "filesession.other"

    def both(here: Here) -> None:
        here.session["in"] = "one"
        here.place[other]["in"] = "two"

    one, two = sorted(site.request(both).all("set-cookie"))
    assert "; SameSite=Strict" in one
    assert "Max-Age" not in one
    assert "; Max-Age=60; HttpOnly; SameSite=Lax" in two
    one, two = one.partition(";")[0], two.partition(";")[0]
    assert (sealed.holds(one), sealed.holds(two, OLD)) == ({"in": "one"}, {"in": "two"})
    swapped = one.replace("one=", "two=") + "; " + two.replace("two=", "one=")
    found: list[Any] = []
    site.request(lambda here: found.extend([*here.session, *here.place[other]]), cookie=swapped)
    assert found == []


def test_g_regenerate_keeps_the_data_or_drops_it(site: Site, sealed: Sealed, cookie: str) -> None:
    def keeping_one(here: Here) -> None:
        here.session["cart"] = ["tea"]
        user = here.session["user"]
        here.session.regenerate(keep_data=False)
        here.session["user"] = user

    answer = site.request(keeping_one, cookie=cookie)
    assert seen(site, answer.cookie) == {"user": "ada"}
    sealed.clock.advance(10)
    answer = site.request(lambda here: here.session.regenerate(), cookie=cookie)
    assert seen(site, answer.cookie) == {"user": "ada"}
    assert sealed.time_in(answer.cookie) == int(START) + 10
    answer = site.request(lambda here: here.session.regenerate(keep_data=False), cookie=cookie)
    assert sealed.holds(answer.cookie) == {}


def test_h_attributes_of_its_own_are_a_change_and_stay_with_it(site: Site, cookie: str) -> None:
    def remember(here: Here) -> None:
        here.session.cookie.max_age = 60

    answer = site.request(remember, cookie=cookie)
    assert answer.set_cookie is not None
    assert "; Max-Age=60;" in answer.set_cookie
    assert seen(site, answer.cookie) == {"user": "ada"}
    later = site.request(lambda here: here.session.update(n=1), cookie=answer.cookie)
    assert later.set_cookie is not None
    assert "; Max-Age=60;" in later.set_cookie
    dropped = site.request(
        lambda here: here.session.regenerate(keep_data=False), cookie=later.cookie
    )
    assert dropped.set_cookie is not None
    assert "Max-Age" not in dropped.set_cookie


def test_j_under_a_host_name_it_is_refused_when_it_was_tampered_with(sealed: Sealed) -> None:
    site = sealed.site(name="__Host-s", secure=True, same_site="strict")
    answer = site.request(write, https=True)
    assert answer.set_cookie is not None
    assert answer.set_cookie.startswith("__Host-s=")
    assert answer.set_cookie.endswith("; Path=/; HttpOnly; Secure; SameSite=Strict")
    found: list[Any] = []
    for sent in (answer.cookie, answer.cookie.replace("=", "=A", 1)):
        site.request(lambda here: found.append(dict(here.session)), cookie=sent, https=True)
    assert found == [{"user": "ada"}, {}]


# -- when it is sent ------------------------------------------------------------------------------


def test_rolling_makes_every_response_extend_it(sealed: Sealed, cookie: str) -> None:
    rolling = sealed.site(rolling=True)
    sealed.clock.advance(500)
    answer = rolling.request(cookie=cookie)
    assert sealed.time_in(answer.cookie) == int(START) + 500
    assert seen(rolling, answer.cookie) == {"user": "ada"}
    assert rolling.request(look).set_cookie is None


def test_a_touch_begins_no_session_and_is_no_change(site: Site, cookie: str) -> None:
    assert site.request(lambda here: here.session.touch()).set_cookie is None
    modified: list[bool] = []

    def touch(here: Here) -> None:
        here.session.touch()
        modified.append(here.session.modified)

    assert site.request(touch, cookie=cookie).set_cookie is not None
    assert modified == [False]


def test_a_change_after_the_response_has_begun_is_lost_and_told_once(
    site: Site, cookie: str, caplog: pytest.LogCaptureFixture
) -> None:
    def late(here: Here) -> None:
        here.late = here.after = lambda: here.session.update(n=here.session.get("n", 0) + 1)

    answer = site.request(late, cookie=cookie)
    assert (answer.status, answer.body, answer.set_cookie) == (200, b"the page", None)
    assert [said.getMessage() for said in caplog.records] == [
        "the response had begun: the session gets no new cookie, and what was changed is lost"
    ]


def test_over_plain_http_a_secure_one_is_not_sent(
    sealed: Sealed, caplog: pytest.LogCaptureFixture
) -> None:
    site = sealed.site(secure=True)
    held = site.request(write, https=True).cookie
    answer = site.request(lambda here: here.session.update(n=1), cookie=held)
    assert answer.set_cookie is None
    (said,) = caplog.records
    assert said.getMessage().startswith("over plain HTTP, with secure=True: the session gets no")


@pytest.mark.parametrize("unset", ["destroy", "keep"])
def test_taken_out_it_ends_or_stays_as_it_was(sealed: Sealed, cookie: str, unset: Any) -> None:
    def take_out(here: Here) -> None:
        here.session["n"] = 1
        del here.place[here.key]

    answer = sealed.site(unset=unset).request(take_out, cookie=cookie)
    assert answer.expires_the_cookie == (unset == "destroy")
    assert (answer.set_cookie is None) == (unset == "keep")


def test_of_an_application_that_raises_nothing_is_sent_and_a_save_is_told_of(
    site: Site, cookie: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(here: Here) -> None:
        here.session["n"] = 1
        raise ZeroDivisionError

    def fail_after_a_save(here: Here) -> None:
        here.session["n"] = 1
        here.session.save()
        raise ZeroDivisionError

    for handler, told in ((fail, 0), (fail_after_a_save, 1)):
        with pytest.raises(ZeroDivisionError):
            site.request(handler, cookie=cookie)
        assert site.events == []
        assert len(caplog.records) == told
    assert caplog.records[0].getMessage().startswith("a session's new cookie was not sent")


# -- what does not fit ----------------------------------------------------------------------------


def test_what_does_not_fit_is_an_error_before_the_response(site: Site, cookie: str) -> None:
    with pytest.raises(CookieTooLarge, match="'sid': 5") as refused:
        site.request(lambda here: here.session.update(text="x" * 4000), cookie=cookie)
    assert site.events == []
    assert refused.value.largest == "text"
    with pytest.raises(EncodeError, match="n: nan"):
        site.request(lambda here: here.session.update(n=float("nan")))


def test_who_saves_finds_out_in_time(site: Site, cookie: str) -> None:
    def cautious(here: Here) -> None:
        here.session["text"] = "x" * 4000
        with pytest.raises(CookieTooLarge):
            here.session.save()
        here.session["text"] = "short"

    answer = site.request(cautious, cookie=cookie)
    assert seen(site, answer.cookie) == {"user": "ada", "text": "short"}


# -- its verbs ------------------------------------------------------------------------------------


def test_save_settles_what_is_sent_and_reload_goes_back_to_it(
    site: Site, sealed: Sealed, cookie: str
) -> None:
    def back_and_forth(here: Here) -> None:
        session = here.session
        session["n"] = 1
        session.reload()
        assert session == {"user": "ada"}
        session["n"] = 2
        session.save()
        session["n"] = 3
        session.reload()
        assert session == {"user": "ada", "n": 2}

    answer = site.request(back_and_forth, cookie=cookie)
    assert sealed.holds(answer.cookie) == {"user": "ada", "n": 2}

    def nothing_to_go_back_to(here: Here) -> None:
        with pytest.raises(SessionGone):
            here.session.reload()

    assert site.request(nothing_to_go_back_to).set_cookie is None


def test_it_cannot_be_locked(site: Site, cookie: str) -> None:
    def lock(here: Here) -> None:
        with (
            pytest.raises(ConfigurationError, match="cannot be locked: each request has a copy"),
            here.session.lock(),
        ):
            raise AssertionError

    assert site.request(lock, cookie=cookie).set_cookie is None


def test_its_time_cannot_be_set(site: Site, cookie: str) -> None:
    def patient(here: Here) -> None:
        here.session.idle_timeout = 3600

    for held in (cookie, None):
        with pytest.raises(
            ConfigurationError, match=r"EncryptedCookie\(expiry=\.\.\.\) is for all"
        ):
            site.request(patient, cookie=held)
    assert site.events == []


@pytest.mark.parametrize(
    ("options", "why"),
    [({"secret": "a secret"}, "has keys of its own"), ({"genid": str}, "has no id")],
    ids=["secret", "genid"],
)
def test_what_it_has_no_use_for_is_refused(kind: str, options: Any, why: str) -> None:
    middleware: Any = asgi.SessionMiddleware if kind == "asgi" else wsgi.SessionMiddleware
    with pytest.raises(ConfigurationError, match=why):
        middleware(lambda *_: None, EncryptedCookie(KEY), **options)


# -- coroutines -----------------------------------------------------------------------------------


def test_the_verbs_for_coroutines_do_the_same() -> None:
    cookie = EncryptedCookie(KEY)
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        session["n"] = 1
        await session.asave()
        session["n"] = 2
        await session.areload()
        with pytest.raises(ConfigurationError, match="cannot be locked"):
            async with session.alock():
                raise AssertionError
        await send({"type": "websocket.accept"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "scheme": "ws", "headers": []}
    asyncio.run(asgi.SessionMiddleware(app, cookie)(scope, None, send))  # type: ignore[arg-type]
    (accepted,) = sent
    headers = dict(accepted["headers"])
    held = headers[b"set-cookie"].decode().partition(";")[0]
    assert cookie.open(value_of(held)) == {"n": 1}


# -- anything -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forgiving() -> Callable[[str], Any]:
    """What a request with such a Cookie header finds."""
    found: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        found.append(dict(environ["filesession.session"]))
        start_response("200 OK", [])
        return [b"page"]

    middleware = wsgi.SessionMiddleware(app, EncryptedCookie([OLD, KEY]))
    statuses: list[str] = []

    def start_response(status: str, headers: Any) -> Any:
        statuses.append(status)

    def ask(header: str) -> Any:
        environ = {"HTTP_COOKIE": header, "wsgi.url_scheme": "http", "REQUEST_METHOD": "GET"}
        middleware(environ, start_response)
        assert statuses.pop() == "200 OK"
        return found.pop()

    return ask


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80).map(lambda raw: raw.decode("latin-1")))
def test_any_bytes_are_an_empty_session(forgiving: Callable[[str], Any], value: str) -> None:
    assert forgiving(f"sid={value}") == {}
    assert forgiving(value) == {}
