"""The eight scenarios of nestjs-session's own tests, under both gateways, and where we differ.

1. A store that is away is a 503 with Retry-After, not a 500, and by default: a handler that runs
   without a session has to be asked for (``unavailable="skip"``).
2. An error of the store is tried again; there only a session that is missing without one is.
3. The pauses between tries are not 0 by default.
4. A negative number of tries is refused when the application is built; there every request fails.
5. A ``retry_delay`` that raises is told, and the request answered; there it never is.
6. A request outside the cookie's path has no session, with retries too; there it is a 500 then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from filesession import asgi, wsgi
from filesession.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, Kind, RecordingStore, Site

MakeSite = Callable[..., "Site"]


def count(here: Here) -> None:
    """The controller of those tests: a counter in the session."""
    session = here.place.get(here.key)
    if session is None:
        here.body = [b"undefined"]
        return
    session["count"] = session.get("count", 0) + 1
    here.body = [str(session["count"]).encode()]


@pytest.fixture
def disconnect(store: RecordingStore) -> Callable[[], None]:
    """Take the store away, for reading as for writing."""

    def disconnected() -> None:
        error = StoreUnavailable("the store is disconnected")
        store.failing |= dict.fromkeys(("load", "create", "save"), error)

    return disconnected


def answers(site: Site, cookie: str | None = None, **request: Any) -> list[bytes]:
    """Of two requests of one browser."""
    first = site.request(count, cookie=cookie, **request)
    return [first.body, site.request(count, cookie=cookie or first.cookie, **request).body]


def test_1_for_root_gives_each_visitor_a_session(make_site: MakeSite) -> None:
    assert answers(make_site()) == [b"1", b"2"]


def test_2_for_root_async_does_with_what_a_factory_gives(
    make_site: MakeSite, store: RecordingStore, kind: Kind
) -> None:
    async def factory() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"store": store, "secret": "the newest secret"}

    site = make_site()
    middleware: Any = (asgi if kind == "asgi" else wsgi).SessionMiddleware
    site.middleware = middleware.configure(site.middleware.app, factory)
    assert answers(site) == [b"1", b"2"]


def test_3_while_the_store_is_away_the_handler_runs_without_a_session_if_that_is_asked_for(
    make_site: MakeSite, disconnect: Callable[[], None], sid: str, cookie_of: Callable[..., str]
) -> None:
    disconnect()
    assert answers(make_site(unavailable="skip"), cookie_of(sid)) == [b"undefined"] * 2


def test_4_else_the_handler_does_not_run(
    make_site: MakeSite, disconnect: Callable[[], None], sid: str, cookie_of: Callable[..., str]
) -> None:
    disconnect()
    site = make_site(retries=0)
    answer = site.request(count, cookie=cookie_of(sid))
    assert (answer.status, answer.all("retry-after"), site.here) == (503, ["5"], None)


def test_5_a_store_that_comes_back_before_the_last_try_is_as_one_that_never_left(
    make_site: MakeSite,
    store: RecordingStore,
    disconnect: Callable[[], None],
    sid: str,
    cookie_of: Callable[..., str],
) -> None:
    disconnect()

    def reconnect(attempt: int) -> float:
        store.failing.clear()
        return 0

    answer = make_site(retries=1, retry_delay=reconnect).request(count, cookie=cookie_of(sid))
    assert (answer.status, answer.body) == (200, b"1")


def test_6_an_error_of_the_second_request_leaves_its_handler_out(
    make_site: MakeSite, disconnect: Callable[[], None]
) -> None:
    site = make_site(retries=0)
    first = site.request(count)
    disconnect()
    site.here = None
    second = site.request(count, cookie=first.cookie)
    assert (first.status, second.status, site.here) == (200, 503, None)


def test_7_for_routes_gives_sessions_to_these_alone(make_site: MakeSite) -> None:
    site = make_site(include=["/foo", ("/bar/{id}", "POST")])
    assert answers(site, path="/foo") == [b"1", b"2"]
    assert answers(site, path="/bar/7", method="POST") == [b"1", b"2"]
    for path in ("/bar/7", "/bar", "/else"):
        answer = site.request(count, path=path)
        assert (answer.body, answer.set_cookie) == (b"undefined", None)


def test_8_exclude_takes_it_from_these_with_and_without_for_routes(make_site: MakeSite) -> None:
    for options in ({}, {"include": "/**"}):
        site = make_site(exclude=["/foo", ("/bar", "GET")], **options)
        assert answers(site, path="/else") == [b"1", b"2"]
        assert answers(site, path="/bar", method="POST") == [b"1", b"2"]
        for path in ("/foo", "/bar"):
            answer = site.request(count, path=path)
            assert (answer.body, answer.set_cookie) == (b"undefined", None)


# -- where it is known to be wrong ----------------------------------------------------------------


def test_a_store_error_is_tried_again(
    make_site: MakeSite, store: RecordingStore, sid: str, cookie_of: Callable[..., str]
) -> None:
    store.failing["load"] = StoreUnavailable("once")

    def wait(attempt: int) -> float:
        store.failing.clear()
        return 0

    assert make_site(retries=1, retry_delay=wait).request(count, cookie=cookie_of(sid)).body == b"1"


def test_a_negative_number_of_tries_is_refused_at_once(make_site: MakeSite) -> None:
    with pytest.raises(ConfigurationError, match="retries must be"):
        make_site(retries=-1)


def test_a_strategy_that_raises_leaves_no_request_unanswered(
    make_site: MakeSite, disconnect: Callable[[], None], sid: str, cookie_of: Callable[..., str]
) -> None:
    def broken(attempt: int) -> float:
        raise LookupError

    disconnect()
    site = make_site(retries=3, retry_delay=broken)
    assert site.request(count, cookie=cookie_of(sid)).status == 503


def test_outside_the_cookies_path_retries_fail_no_request(make_site: MakeSite) -> None:
    site = make_site(path="/shop", retries=3)
    answer = site.request(count, path="/else")
    assert (answer.status, answer.body) == (200, b"undefined")
