"""What an application that ran under express-session relies on, request by request.

Beside the decision matrix: time, bodies, names of keys, changed options, requests at once. Where
Express is known to be wrong, what is right.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from inspect import signature
from time import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import ConfigurationError, EncodeError, SessionGone, StoreError
from filesession.gateway import Gateway

if TYPE_CHECKING:
    from tests.gateways.conftest import Answer, Handler, Here, RecordingStore, Server, Site, Wire

PATIENCE: Final = 20.0
"""Seconds that a request may wait for another."""


def write(here: Here) -> None:
    here.session["n"] = here.session.get("n", 0) + 1


@pytest.fixture
def valid(sid: str, cookie_of: Callable[..., str]) -> str:
    """The cookie of a stored session."""
    return cookie_of(sid)


def attributes(answer: Answer) -> dict[str, str]:
    """Those of its Set-Cookie header, by name."""
    _, *found = (answer.set_cookie or "").split("; ")
    return {name: value for name, _, value in (each.partition("=") for each in found)}


# -- options --------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_express_version_2() -> None:
    defaults = {name: each.default for name, each in signature(Gateway).parameters.items()}
    express_2 = {"resave": False, "save_uninitialized": False, "unset": "destroy"}
    as_in_1 = {"rolling": False, "path": "/", "domain": None, "http_only": True, "max_age": None}
    assert defaults.items() >= {**express_2, **as_in_1, "partitioned": False}.items()
    differing = ("secure", "same_site", "name", "trust_proxy")
    assert [defaults[name] for name in differing] == ["auto", "lax", None, False]


def test_auto_is_judged_by_each_request_and_not_by_the_first(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(rolling=True, same_site="auto")
    first = site.request(write)
    assert "Secure" not in attributes(first)
    over_tls = site.request(write, cookie=first.cookie, https=True)
    assert attributes(over_tls).items() >= {"Secure": "", "SameSite": "None"}.items()
    again = site.request(write, cookie=first.cookie)
    assert (attributes(again)["SameSite"], "Secure" in attributes(again)) == ("Lax", False)


def test_changed_options_apply_to_sessions_that_are_there(make_site: Callable[..., Site]) -> None:
    cookie = make_site(max_age=60, rolling=True).request(write).cookie
    changed = make_site(
        max_age=7200, same_site="strict", http_only=False, path="/shop", rolling=True
    )
    answer = changed.request(write, cookie=cookie, path="/shop")
    del (found := attributes(answer))["Expires"]
    assert found == {"Path": "/shop", "Max-Age": "7200", "SameSite": "Strict"}
    assert answer.cookie == cookie


def test_an_attribute_a_session_has_of_its_own_is_no_other_sessions(
    make_site: Callable[..., Site],
) -> None:
    def remember(here: Here) -> None:
        write(here)
        here.session.cookie.max_age = 99
        here.session.cookie.http_only = False

    site = make_site(rolling=True)
    own, other = site.request(remember).cookie, site.request(write).cookie
    for _ in range(2):
        assert attributes(site.request(cookie=own)).items() >= {"Max-Age": "99"}.items()
        assert "HttpOnly" not in attributes(site.request(cookie=own))
        assert attributes(site.request(cookie=other)).keys() == {"Path", "HttpOnly", "SameSite"}


def test_two_middlewares_on_one_store_have_each_its_own_cookie(
    make_site: Callable[..., Site],
) -> None:
    shop = make_site(name="shop", path="/shop", max_age=60)
    admin = make_site(name="admin", path="/admin", same_site="strict")
    for _ in range(2):
        answers = shop.request(write, path="/shop"), admin.request(write, path="/admin")
        assert [answer.cookie.partition("=")[0] for answer in answers] == ["shop", "admin"]
        assert [attributes(answer)["Path"] for answer in answers] == ["/shop", "/admin"]
        assert ["Max-Age" in attributes(answer) for answer in answers] == [True, False]


def test_a_host_that_looks_like_the_path_opens_nothing(
    connect: Callable[..., Wire], call: Callable[..., Server], store: RecordingStore, sid: str
) -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        assert "session" not in scope
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    def wsgi_page(environ: Any, start_response: Any) -> list[bytes]:
        assert "filesession.session" not in environ
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    host = "http://localhost:8080/foo/bar"
    wire = connect((b"host", host.encode()), sid=sid)
    wire.serve(page, path="/foo/bar", rolling=True)
    server = call(sid, HTTP_HOST=host)
    server.serve(wsgi_page, path="/foo/bar", rolling=True)
    assert (wire.all(b"set-cookie"), server.all("set-cookie"), store.calls) == ([], [], [])


# -- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_age", [60, 3_000_000])
def test_the_cookie_expires_max_age_after_each_response_and_never_sooner(
    make_site: Callable[..., Site], max_age: int
) -> None:
    site = make_site(max_age=max_age, rolling=True)
    cookie = None
    for _ in range(3):
        before = int(time())
        answer = site.request(write, cookie=cookie)
        said = attributes(answer)
        assert said["Max-Age"] == str(max_age), "what was asked for, not what is left of it"
        expires = parsedate_to_datetime(said["Expires"]).timestamp()
        assert before + max_age <= expires <= time() + max_age
        cookie = answer.cookie


def test_a_lasting_cookie_can_be_made_one_until_the_browser_is_closed(
    make_site: Callable[..., Site],
) -> None:
    def forget(here: Here) -> None:
        here.session.cookie.max_age = None

    site = make_site(max_age=60)
    cookie = site.request(write).cookie
    answer = site.request(forget, cookie=cookie)
    assert answer.cookie == cookie
    assert attributes(answer).keys() == {"Path", "HttpOnly", "SameSite"}
    assert site.request(write, cookie=cookie).set_cookie is None


def test_an_expiry_that_is_none_is_refused_at_once_and_the_page_goes_out(site: Site) -> None:
    def page(here: Here) -> None:
        write(here)
        wrong: Any
        for wrong in ("tomorrow", float("nan"), 0, -1, True):
            with pytest.raises(ConfigurationError, match="max_age must be seconds"):
                here.session.cookie.max_age = wrong

    answer = site.request(page)
    assert (answer.status, answer.body) == (200, b"the page")
    assert attributes(answer).keys() == {"Path", "HttpOnly", "SameSite"}


# -- data -----------------------------------------------------------------------------------------

NAMES: Final = [
    *("id", "req", "cookie", "save", "reload", "destroy", "regenerate", "touch", "resetMaxAge"),
    *("constructor", "toString", "hasOwnProperty", "__proto__", "__class__", "__dict__", "data"),
    *("modified", "is_new", "accessed", "changed", "keys", "items", "get", "update", "_record"),
    *("__lastAccess", "expires", "originalMaxAge", "format", "version", ""),
]


def test_a_key_may_be_named_as_any_member_is(site: Site, store: RecordingStore) -> None:
    def fill(here: Here) -> None:
        here.session.update({name: {"is": name} for name in NAMES})

    def use(here: Here) -> None:
        session = here.session
        assert dict(session) == {name: {"is": name} for name in NAMES}
        assert (len(session.id or ""), session.is_new, session.modified) == (43, False, False)
        session.reload()
        session.save()
        session.touch()
        session.cookie.priority = "high"
        session.regenerate()

    cookie = site.request(fill).cookie
    store.calls.clear()
    site.request(lambda here: here.session.get("save"), cookie=cookie)
    assert store.calls == ["load", "touch"], "it is not taken for modified"
    renewed = site.request(use, cookie=cookie).cookie
    site.request(lambda here: here.session.destroy(), cookie=renewed)
    assert store.ids() == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["deep"][0]["cookie"].update(path="/other"),
        lambda data: data["cookie"].update(maxAge=2),
        lambda data: data.update(first=data.pop("first")),
    ],
    ids=["a nested key named cookie", "a key named cookie", "the order of keys"],
)
def test_a_change_is_saved_wherever_it_is(
    site: Site,
    store: RecordingStore,
    cookie_of: Callable[..., str],
    change: Callable[[dict[str, Any]], None],
) -> None:
    data = {"first": 1, "cookie": {"maxAge": 1}, "deep": [{"cookie": {"path": "/"}}]}
    sid: str = store.create(data).id
    store.calls.clear()
    site.request(lambda here: change(here.session), cookie=cookie_of(sid))
    assert store.calls == ["load", "save"]
    change(data)
    record = store.load(sid)
    assert record is not None
    assert json.dumps(record.data) == json.dumps(data)


def test_the_id_is_not_for_the_application_to_set(site: Site) -> None:
    def page(here: Here) -> None:
        with pytest.raises(AttributeError):
            here.session.id = "chosen"  # type: ignore[misc]

    assert site.request(page).status == 200


def of_itself() -> object:
    cycle: list[object] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    "value",
    [of_itself(), 2**64, lambda: 1, {1, 2}, float("nan")],
    ids=["a cycle", "too large", "a function", "a set", "no number"],
)
def test_what_json_cannot_hold_does_not_hang_and_the_next_request_is_well(
    site: Site, store: RecordingStore, valid: str, value: object
) -> None:
    def put(here: Here) -> None:
        here.session["value"] = value

    with pytest.raises(EncodeError, match="session data at value"):
        site.request(put, cookie=valid)
    assert site.events == [], "the server's own 500 is the first that leaves"
    seen: list[object] = []
    assert site.request(lambda here: seen.append(dict(here.session)), cookie=valid).status == 200
    assert seen == [{"user": "ada"}]


# -- errors ---------------------------------------------------------------------------------------


def take_out(here: Here) -> None:
    here.place[here.key] = None


@pytest.mark.parametrize(
    ("verb", "handler"),
    [
        ("load", lambda here: None),
        ("save", write),
        ("regenerate", lambda here: here.session.regenerate()),
        ("delete", lambda here: here.session.destroy()),
        ("delete", take_out),
    ],
    ids=["load", "save", "regenerate", "delete", "delete, taken out"],
)
def test_an_error_of_the_store_is_answered_and_told_once_and_costs_no_session(  # noqa: PLR0917
    site: Site,
    store: RecordingStore,
    sid: str,
    valid: str,
    verb: str,
    handler: Handler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.failing[verb] = StoreError("the disk is away")
    answer = site.request(handler, cookie=valid)
    assert (answer.status, answer.set_cookie) == (503, None)
    assert caplog.messages == ["the disk is away"]
    store.failing.clear()
    seen: list[object] = []
    after = site.request(
        lambda here: seen.append((here.session.id, dict(here.session))), cookie=valid
    )
    assert (after.status, seen) == (200, [(sid, {"user": "ada"})])


def test_an_error_of_a_touch_is_no_reason_to_keep_the_page_back(
    site: Site, store: RecordingStore, valid: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.failing["touch"] = StoreError("the disk is away")
    answer = site.request(cookie=valid)
    assert (answer.status, answer.body) == (200, b"the page")
    assert caplog.messages == ["the disk is away"]


# -- verbs ----------------------------------------------------------------------------------------


def test_twenty_reloads_in_a_row_each_read_what_is_stored(
    site: Site, store: RecordingStore, sid: str, valid: str
) -> None:
    def page(here: Here) -> None:
        for n in range(20):
            store.save(sid, {"n": n})
            here.session["mine"] = n
            here.session.reload()
            assert dict(here.session) == {"n": n}

    assert site.request(page, cookie=valid).status == 200


def test_twenty_reloads_of_a_session_that_vanished_each_say_so(
    site: Site, store: RecordingStore, sid: str, valid: str
) -> None:
    said: list[str] = []

    def again(here: Here) -> None:
        try:
            here.session.reload()
        except SessionGone as error:
            said.append(str(error))
            if len(said) < 20:  # from within the one before, as callbacks are chained
                again(here)

    def page(here: Here) -> None:
        store.delete(sid)
        again(here)

    answer = site.request(page, cookie=valid)
    assert (answer.status, answer.set_cookie, len(said)) == (200, None, 20)
    assert store.ids() == 0


# -- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["of a known length", "chunked"])
@pytest.mark.parametrize(
    "body", [[], [b""], [b"whole"], [b"in ", b"three ", b"writes"]], ids=b"|".join
)
def test_whatever_the_body_the_session_is_stored_before_any_of_it_leaves(
    site: Site, store: RecordingStore, body: list[bytes], *, known: bool
) -> None:
    def page(here: Here) -> None:
        write(here)
        here.body = body
        if known:
            here.headers.append(("content-length", str(sum(map(len, body)))))

    site.events = store.journal
    answer = site.request(page)
    assert answer.body == b"".join(body)
    assert site.events[:2] == ["create", "start"]
    assert site.events.count("create") == 1
    assert store.load(answer.sid) is not None


# -- requests at once -----------------------------------------------------------------------------


def test_two_first_requests_at_once_are_two_sessions(
    make_site: Callable[..., Site], store: RecordingStore
) -> None:
    both = threading.Barrier(2, timeout=PATIENCE)

    def page(here: Here) -> None:
        write(here)
        both.wait()

    sites = [make_site(), make_site()]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda site: site.request(page), sites))
    assert answers[0].sid != answers[1].sid
    assert store.ids() == 2
    for answer in answers:
        record = store.load(answer.sid)
        assert record is not None
        assert record.data == {"n": 1}


def test_a_session_that_expires_while_a_request_reads_it_leaves_no_record(
    site: Site, store: RecordingStore, valid: str
) -> None:
    def page(here: Here) -> None:
        here.session.get("user")
        store.now.advance(1800 + 61)

    answer = site.request(page, cookie=valid)
    assert (answer.status, answer.set_cookie) == (200, None)
    assert store.calls == ["load", "touch"]
    store.now.advance(60)  # the janitor leaves it that long to requests that are under way
    store.sweep()
    assert store.ids() == 0


# -- what is in the directory ---------------------------------------------------------------------


def test_an_unknown_id_is_not_worth_a_line_in_the_log(
    site: Site, cookie_of: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert site.request(write, cookie=cookie_of("unknown")).sid != "unknown"
    assert [each for each in caplog.records if each.levelno > logging.DEBUG] == []


@pytest.mark.parametrize(
    "content",
    [
        b"cut sho",
        b"\xff\xfe\xfd\n",
        b"null\n",
        b"[]\n",
        b'"text"\n',
        b"\xef\xbb\xbf{}\n",
        b'{"a":1}',
    ],
    ids=repr,
)
def test_a_damaged_file_is_a_new_session_and_set_aside_once(  # noqa: PLR0917 - a row, and fixtures
    site: Site,
    store: RecordingStore,
    sid: str,
    valid: str,
    content: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (info,) = store.scan()
    path = store._layout.path(info.handle)
    with open(path, "wb") as file:
        file.write(content)
    seen: list[object] = []

    def page(here: Here) -> None:
        seen.append(dict(here.session))
        write(here)

    answer = site.request(page, cookie=valid)
    assert (answer.status, answer.sid != sid) == (200, True)
    told = len(caplog.records)
    assert site.request(page, cookie=answer.cookie).status == 200
    assert seen == [{}, {"n": 1}]
    assert len(caplog.records) == told == 1
    assert store.load(sid) is None


def test_what_the_store_keeps_books_of_is_not_among_the_keys(
    site: Site, store: RecordingStore
) -> None:
    seen: list[dict[str, Any]] = []

    def page(here: Here) -> None:
        write(here)
        here.session.save()
        seen.append(dict(here.session))

    handler: Handler = lambda here: seen.append(dict(here.session))  # noqa: E731
    cookie = site.request(page).cookie
    store.now.advance(600)
    site.request(handler, cookie=cookie)
    site.request(handler, cookie=cookie)
    assert seen == [{"n": 1}] * 3
