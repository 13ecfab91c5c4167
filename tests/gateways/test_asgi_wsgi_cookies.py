"""The session's cookie in and out, and the other headers of a response, through both gateways."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING

import pytest

from filesession.cookies.header import encode_value
from filesession.cookies.signing import Signer

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, RecordingStore, Site

OLD = "the secret before"


def write(here: Here) -> None:
    here.session["seen"] = True


@pytest.fixture
def sid(store: RecordingStore) -> str:
    """A stored session."""
    sid: str = store.create({"user": "ada"}).id
    store.calls.clear()
    return sid


@pytest.fixture
def valid(sid: str, cookie_of: Callable[..., str]) -> str:
    """The cookie of a stored session."""
    return cookie_of(sid)


# -- signatures -----------------------------------------------------------------------------------


def test_a_cookie_of_an_old_secret_is_read_and_signed_anew(
    make_site: Callable[..., Site], sid: str, cookie_of: Callable[..., str]
) -> None:
    users: list[object] = []
    site = make_site(secret=["the newest secret", OLD])
    answer = site.request(
        lambda here: users.append(here.session["user"]), cookie=cookie_of(sid, OLD)
    )
    assert users == ["ada"]
    assert answer.cookie == cookie_of(sid)
    assert site.request(cookie=answer.cookie).set_cookie is None


def test_an_unknown_id_under_an_old_secret_is_not_signed_anew(
    make_site: Callable[..., Site], cookie_of: Callable[..., str]
) -> None:
    site = make_site(secret=["the newest secret", OLD])
    assert site.request(cookie=cookie_of("unknown", OLD)).set_cookie is None


def test_of_several_cookies_by_our_name_the_first_that_verifies_counts(
    site: Site, store: RecordingStore, sid: str, cookie_of: Callable[..., str]
) -> None:
    other: str = store.create({"user": "bob"}).id
    store.calls.clear()
    users: list[object] = []
    sent = ["sid=planted", cookie_of(sid, "a forger's"), cookie_of(sid), cookie_of(other)]
    site.request(lambda here: users.append(here.session["user"]), cookie="; ".join(sent))
    assert users == ["ada"]
    assert store.calls == ["load", "touch"]


def test_when_the_one_that_verifies_is_unknown_no_other_is_tried(
    site: Site, store: RecordingStore, sid: str, cookie_of: Callable[..., str]
) -> None:
    site.request(cookie=f"{cookie_of('unknown')}; {cookie_of(sid)}")
    assert store.calls == ["load"]


def test_a_signed_id_that_no_store_could_hold_is_a_new_session(
    site: Site, store: RecordingStore, cookie_of: Callable[..., str]
) -> None:
    for sid in ("x" * 257, "a\x00b", "\n"):
        assert site.request(write, cookie=cookie_of(sid)).sid != sid
    assert store.ids() == 3


def test_the_cookie_is_what_express_would_have_signed(site: Site) -> None:
    answer = site.request(write)
    assert answer.cookie == "sid=" + encode_value(Signer("the newest secret").sign(answer.sid))
    assert answer.cookie.startswith("sid=s%3A")


# -- attributes -----------------------------------------------------------------------------------


def attributes(set_cookie: str | None) -> list[str]:
    _, *found = (set_cookie or "").split("; ")
    return [attribute for attribute in found if not attribute.startswith("Expires=")]


def test_the_cookie_has_the_attributes_that_were_asked_for(make_site: Callable[..., Site]) -> None:
    site = make_site(
        name="shop",
        path="/shop",
        domain="shop.example",
        secure=True,
        http_only=False,
        same_site="strict",
        partitioned=True,
        priority="high",
        max_age=60,
    )
    answer = site.request(write, path="/shop", https=True)
    assert answer.cookie.startswith("shop=")
    assert attributes(answer.set_cookie) == [
        *("Domain=shop.example", "Path=/shop", "Max-Age=60", "Secure", "Partitioned"),
        *("Priority=High", "SameSite=Strict"),
    ]


@pytest.mark.parametrize("https", [False, True], ids=["http", "https"])
def test_auto_follows_the_scheme(make_site: Callable[..., Site], *, https: bool) -> None:
    answer = make_site(same_site="auto").request(write, https=https)
    expected = ["Secure", "SameSite=None"] if https else ["SameSite=Lax"]
    assert attributes(answer.set_cookie) == ["Path=/", "HttpOnly", *expected]


def test_an_insecure_cookie_may_be_asked_for(make_site: Callable[..., Site]) -> None:
    answer = make_site(secure=False).request(write, https=True)
    assert "Secure" not in attributes(answer.set_cookie)


def test_with_secure_the_name_says_so(make_site: Callable[..., Site]) -> None:
    assert make_site(secure=True).request(write, https=True).cookie.startswith("__Host-sid=")


def test_with_secure_a_new_session_over_plain_http_is_not_stored_and_a_warning_says_so(
    make_site: Callable[..., Site], store: RecordingStore, caplog: pytest.LogCaptureFixture
) -> None:
    answer = make_site(secure=True).request(write)
    assert answer.set_cookie is None
    assert store.ids() == 0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "over plain HTTP, with secure=True: the session gets no cookie, so it is not stored"
    )


def test_with_secure_a_loaded_session_is_served_over_plain_http_without_a_cookie(
    make_site: Callable[..., Site], store: RecordingStore, sid: str, cookie_of: Callable[..., str]
) -> None:
    cookie = cookie_of(sid, name="__Host-sid")
    site = make_site(secure=True, rolling=True)
    assert site.request(write, cookie=cookie).set_cookie is None
    assert store.calls == ["load", "save"]
    assert site.request(lambda here: here.session.destroy(), cookie=cookie).set_cookie is None
    assert store.ids() == 0


def test_with_secure_a_session_regenerated_over_plain_http_keeps_its_id(
    make_site: Callable[..., Site],
    store: RecordingStore,
    cookie_of: Callable[..., str],
    sid: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def renew(here: Here) -> None:
        here.session.regenerate()
        here.session["seen"] = True

    cookie = cookie_of(sid, name="__Host-sid")
    assert make_site(secure=True).request(renew, cookie=cookie).set_cookie is None
    record = store.load(sid)
    assert record is not None
    assert record.data == {"user": "ada", "seen": True}
    assert [record.getMessage() for record in caplog.records] == [
        "over plain HTTP, with secure=True: the session gets no new id and keeps the old one"
    ]


@pytest.mark.parametrize(
    ("trust", "client", "forwarded", "secure"),
    [
        (False, "10.0.0.1", "https", False),
        (True, "198.51.100.1", "https", True),
        (True, "198.51.100.1", " HTTPS , http", True),
        (True, "198.51.100.1", "http, https", False),
        (True, "198.51.100.1", "wss", True),
        (True, "198.51.100.1", None, False),
        (["10.0.0.0/8"], "10.0.0.1", "https", True),
        (["10.0.0.0/8"], "198.51.100.1", "https", False),
        (["10.0.0.0/8", "198.51.100.1"], "198.51.100.1", "https", True),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", "https", True),
        (["2001:db8::/32"], "2001:db8::1", "https", True),
        (["10.0.0.0/8"], "", "https", False),
        (["10.0.0.0/8"], "/run/app.sock", "https", False),
    ],
)
def test_x_forwarded_proto_counts_only_from_whom_it_is_trusted(
    make_site: Callable[..., Site],
    trust: bool | Sequence[str],  # noqa: FBT001 - a row of the table
    client: str,
    forwarded: str | None,
    secure: bool,  # noqa: FBT001 - a row of the table
) -> None:
    site = make_site(trust_proxy=trust)
    answer = site.request(write, client=client, forwarded=forwarded)
    assert ("Secure" in attributes(answer.set_cookie)) == secure


# -- where sessions are ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "path", "covered"),
    [
        ("/shop", "/shop", True),
        ("/shop", "/shop/cart", True),
        ("/shop", "/shopping", False),
        ("/shop", "/Shop", False),
        ("/shop", "/", False),
        ("/shop/", "/shop/", True),
        ("/shop/", "/shop", False),
        ("/", "/anything", True),
        ("/caf%C3%A9", "/café/menu", True),
        ("/caf%C3%A9", "/cafe", False),
        ("/a%20b", "/a b", True),
    ],
)
def test_sessions_are_limited_to_the_path(  # noqa: PLR0917 - a row of the table and its fixtures
    make_site: Callable[..., Site],
    store: RecordingStore,
    sid: str,
    cookie_of: Callable[..., str],
    own: str,
    path: str,
    covered: bool,  # noqa: FBT001 - a row of the table
) -> None:
    found: list[bool] = []
    site = make_site(path=own)
    site.request(
        lambda here: found.append(here.key in here.place), path=path, cookie=cookie_of(sid)
    )
    assert found == [covered]
    assert store.calls == (["load", "touch"] if covered else [])


def test_the_key_can_be_chosen(make_site: Callable[..., Site]) -> None:
    site = make_site(key="visitor")
    assert site.request(write).cookie
    assert site.here is not None
    assert site.here.key.endswith("visitor")


# -- the other headers ----------------------------------------------------------------------------


def with_headers(*headers: tuple[str, str]) -> Callable[[Here], None]:
    """A page with these headers, that changes the session."""

    def page(here: Here) -> None:
        here.session["seen"] = True
        here.headers.extend(headers)

    return page


def test_other_set_cookie_headers_survive_in_order(site: Site) -> None:
    answer = site.request(with_headers(("Set-Cookie", "a=1; Path=/x"), ("set-cookie", "b=2")))
    *others, ours = answer.all("set-cookie")
    assert others == ["a=1; Path=/x", "b=2"]
    assert list(SimpleCookie(ours)) == ["sid"]


def test_other_headers_survive_in_order(site: Site) -> None:
    answer = site.request(
        with_headers(("X-A", "1"), ("Link", "<a>"), ("x-a", "2"), ("link", "<b>"))
    )
    assert answer.headers[:5] == [
        *(("content-type", "text/plain"), ("X-A", "1"), ("Link", "<a>"), ("x-a", "2")),
        ("link", "<b>"),
    ]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], ["no-store"]),
        (["public, max-age=60"], ["no-store"]),
        (["max-age=60", "Public"], ["no-store"]),
        (["max-age=0, s-maxage=60"], ["no-store"]),
        (["private, max-age=60"], ["private, max-age=60"]),
        (["no-cache"], ["no-cache"]),
        (["no-cache", "private"], ["no-cache", "private"]),
    ],
    ids=str,
)
def test_what_sets_the_cookie_is_stored_by_no_shared_cache(
    site: Site, said: list[str], kept: list[str]
) -> None:
    answer = site.request(with_headers(*(("Cache-Control", value) for value in said)))
    assert answer.all("cache-control") == kept


def test_a_response_that_expires_the_cookie_is_not_stored_either(site: Site, valid: str) -> None:
    answer = site.request(lambda here: here.session.destroy(), cookie=valid)
    assert answer.all("cache-control") == ["no-store"]


def test_a_response_that_sets_no_cookie_may_be_cached_as_the_application_says(
    site: Site, valid: str
) -> None:
    answer = site.request(with_headers(("Cache-Control", "public")), cookie=valid)
    assert answer.all("cache-control") == ["public"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], ["Cookie"]),
        (["Accept"], ["Accept", "Cookie"]),
        (["Accept, cookie"], ["Accept, cookie"]),
        (["Accept", "Cookie"], ["Accept", "Cookie"]),
        (["*"], ["*"]),
        (["X-Cookie"], ["X-Cookie", "Cookie"]),
    ],
    ids=str,
)
def test_a_page_whose_session_was_read_varies_by_cookie(
    site: Site, said: list[str], kept: list[str]
) -> None:
    def page(here: Here) -> None:
        here.session.get("user")
        here.headers.extend(("Vary", value) for value in said)

    assert site.request(page).all("vary") == kept


def test_a_page_that_does_not_look_at_the_session_does_not_vary(site: Site, valid: str) -> None:
    assert site.request(cookie=valid).all("vary") == []
    marked = site.request(lambda here: here.session.mark_accessed(), cookie=valid)
    assert marked.all("vary") == ["Cookie"]


# -- kinds of responses ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "303 See Other"])
def test_a_response_without_a_body_carries_the_cookie(
    site: Site, store: RecordingStore, status: str
) -> None:
    def page(here: Here) -> None:
        write(here)
        here.status, here.body = status, []
        if not status.startswith("303"):
            here.headers.clear()  # of an entity there is none
        here.late = here.after = lambda: store.journal.append("late")

    answer = site.request(page)
    assert answer.status == int(status[:3])
    assert answer.body == b""
    assert store.load(answer.sid) is not None
    assert store.journal[0] == "create"


def test_an_answer_to_head_carries_the_cookie(site: Site, store: RecordingStore) -> None:
    def page(here: Here) -> None:
        write(here)
        here.body = []

    answer = site.request(page, method="HEAD")
    assert store.load(answer.sid) is not None


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error"])
def test_an_error_page_of_the_application_saves_the_session(
    site: Site, store: RecordingStore, status: str
) -> None:
    def page(here: Here) -> None:
        write(here)
        here.status = status

    answer = site.request(page)
    assert store.load(answer.sid) is not None
