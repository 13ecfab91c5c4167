"""Which cookies a real browser keeps, and where it sends them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright

from tests.browser.chromium import (
    Address,
    fetch,
    follow,
    frame,
    jar,
    living_in,
    post,
    shown,
    visit,
    visiting,
)
from tests.certificates import Certificate

pytestmark = pytest.mark.browser

HERE = {"session", "strict", "none", "host", "chips", "wide"}
"""The sessions of a visitor who typed the address."""


@dataclass
class Embedded:
    """A window whose page has the site in a frame."""

    page: Page
    https: Address

    def within(self, other: str, path: str) -> dict[str, Any]:
        """What the site says in a frame of a page of that host."""
        self.page.goto(self.https("/page", other))
        return shown(frame(self.page, self.https(path)))


@pytest.fixture(scope="module")
def known(browser: Browser, https: Address) -> Iterator[Page]:
    """A visitor with a session of each kind, of which no test changes anything."""
    with visiting(browser) as context:
        page = context.new_page()
        assert set(visit(page, https("/narrow/add/known"))) == {*HERE, "narrow"}
        yield page


def sent(page: Page, url: str) -> str:
    """The cookies that the browser sends when that address is typed."""
    response = page.goto(url)
    assert response is not None
    return response.request.all_headers()["cookie"]


def test_over_tls_every_kind_of_cookie_is_kept_and_as_it_was_meant(
    known: Page, https: Address
) -> None:
    assert set(visit(known, https("/see"))) == HERE
    kept = jar(known.context)
    assert set(kept) == {"sid", "strict", "none", "__Host-sid", "__Host-chips", "narrow", "wide"}
    assert all(cookie["secure"] and cookie["httpOnly"] for cookie in kept.values())
    assert all(cookie["expires"] == -1 for cookie in kept.values())
    assert {name: cookie["sameSite"] for name, cookie in kept.items()} == {
        **dict.fromkeys(("sid", "__Host-sid", "narrow", "wide"), "Lax"),
        "strict": "Strict",
        "none": "None",
        "__Host-chips": "None",
    }
    assert kept["wide"]["domain"] == ".shop.test"
    assert kept["narrow"]["path"] == "/narrow"


def test_scripts_see_none_and_replace_none(known: Page, https: Address) -> None:
    before = known.context.cookies()
    known.goto(https("/page"))
    known.evaluate("document.cookie = 'mine=1'")
    known.evaluate("document.cookie = 'sid=mine; Secure'")
    known.evaluate("document.cookie = '__Host-sid=mine; Path=/; Secure'")
    assert known.evaluate("document.cookie") == "mine=1"
    known.context.clear_cookies(name="mine")
    assert known.context.cookies() == before


def test_over_plain_http_a_cookie_that_needs_secure_is_withheld(
    page: Page, context: BrowserContext, http: Address
) -> None:
    response = page.goto(http("/add/known"))
    assert response is not None
    sent = response.headers_array()
    announced = {
        header["value"].partition("=")[0] for header in sent if header["name"] == "set-cookie"
    }
    assert announced == {"sid", "strict", "wide"}
    assert set(visit(page, http("/see"))) == {"session", "strict", "wide"}
    assert not any(cookie["secure"] for cookie in context.cookies())


def test_what_was_set_over_tls_is_not_sent_over_plain_http_and_not_replaced(
    known: Page, http: Address, https: Address
) -> None:
    assert visit(known, http("/see")) == {}
    visit(known, http("/add/replaced"))
    assert visit(known, http("/see")) == {}
    assert visit(known, https("/see")) == {key: {"known": True} for key in HERE}


@pytest.mark.parametrize(
    ("act", "origin", "carried"),
    [
        (follow, "www.shop.test", HERE),
        (post, "www.shop.test", HERE),
        (fetch, "www.shop.test", HERE),
        (follow, "other.test", HERE - {"strict"}),
        (post, "other.test", {"none", "chips"}),
    ],
)
def test_a_page_of_another_host_brings_the_cookies_that_same_site_allows(
    known: Page, https: Address, act: Any, origin: str, carried: set[str]
) -> None:
    known.goto(https("/page", origin))
    answer = act(known, https("/see"))
    assert set(answer if act is fetch else shown(known)) == carried


def test_a_script_sends_none_when_it_says_so(known: Page, https: Address) -> None:
    known.goto(https("/page"))
    assert set(fetch(known, https("/see"))) == HERE
    assert fetch(known, https("/see"), credentials="omit") == {}
    assert set(fetch(known, https("/see"), credentials="same-origin")) == HERE


def test_a_cookie_of_the_domain_is_sent_to_its_other_hosts_and_the_rest_are_not(
    known: Page, https: Address
) -> None:
    assert visit(known, https("/see", "www.shop.test")) == {"wide": {"known": True}}


def test_a_cookie_of_another_domain_is_not_kept(
    page: Page, context: BrowserContext, https: Address
) -> None:
    visit(page, https("/add/known", "other.test"))
    assert set(visit(page, https("/see", "other.test"))) == HERE - {"wide"}
    assert "wide" not in jar(context)


def test_a_cookie_of_a_path_is_sent_below_it_alone(known: Page, https: Address) -> None:
    assert "narrow=" in sent(known, https("/narrow/see/all"))
    assert "narrow" in shown(known)
    for elsewhere in ("/see", "/narrowly/see"):
        assert "narrow=" not in sent(known, https(elsewhere))
        assert set(shown(known)) == HERE


def test_a_neighbour_can_plant_a_cookie_but_none_with_the_hosts_prefix(
    page: Page, stranger: BrowserContext, https: Address
) -> None:
    visit(stranger.new_page(), https("/add/evil"))
    evil = jar(stranger)
    visit(page, https("/add/known"))
    page.goto(https("/page", "evil.shop.test"))
    for name in ("sid", "__Host-sid"):
        page.evaluate(
            "cookie => { document.cookie = cookie }",
            f"{name}={evil[name]['value']}; Domain=shop.test; Path=/see; Secure",
        )
    seen = visit(page, https("/see"))
    assert seen["host"] == {"known": True}
    assert seen["session"] == {"evil": True}  # which is why secure=True changes the name


def test_a_forged_cookie_that_a_neighbour_plants_is_passed_over(page: Page, https: Address) -> None:
    visit(page, https("/add/known"))
    page.goto(https("/page", "evil.shop.test"))
    page.evaluate("document.cookie = 'sid=forged; Domain=shop.test; Path=/see; Secure'")
    cookies = sent(page, https("/see"))
    assert cookies.startswith("sid=forged;")
    assert cookies.count("; sid=") == 1
    assert shown(page)["session"] == {"known": True}


@pytest.fixture
def embedded(
    request: pytest.FixtureRequest,
    playwright: Playwright,
    certificate: Certificate,
    tmp_path: Path,
    https: Address,
) -> Iterator[Embedded]:
    """The site in frames of others; the parameter says whether foreign cookies are blocked there.

    The profile says so: without one, Chromium blocks them, with one it does not by itself.
    """
    preferences = {"profile": {"cookie_controls_mode": int(request.param)}}
    with living_in(tmp_path, playwright.chromium, certificate, preferences) as context:
        page = context.new_page()
        visit(page, https("/add/known"))
        yield Embedded(page, https)


allowed = pytest.mark.parametrize("embedded", [False], indirect=True)
blocked = pytest.mark.parametrize("embedded", [True], indirect=True)


@allowed
def test_where_foreign_cookies_are_allowed_other_sites_bring_what_has_no_same_site(
    embedded: Embedded, https: Address
) -> None:
    assert embedded.within("other.test", "/see") == {"none": {"known": True}}
    assert fetch(embedded.page, https("/see")) == {"none": {"known": True}}
    embedded.within("other.test", "/add/other")
    assert embedded.within("third.test", "/see") == {"none": {"known": True, "other": True}}


@blocked
def test_where_foreign_cookies_are_blocked_each_embedding_site_has_its_partitioned_session(
    embedded: Embedded, https: Address
) -> None:
    for site in ("other", "third"):
        assert embedded.within(f"{site}.test", "/see") == {}
        embedded.within(f"{site}.test", f"/add/{site}")
    assert fetch(embedded.page, https("/see")) == {"chips": {"third": True}}
    assert embedded.within("other.test", "/see") == {"chips": {"other": True}}
    assert embedded.within("other.test", "/logout") == {}
    assert embedded.within("other.test", "/see") == {}
    assert embedded.within("third.test", "/see") == {"chips": {"third": True}}
    assert visit(embedded.page, https("/see")) == {key: {"known": True} for key in HERE}
    partitions = [
        cookie.get("partitionKey")
        for cookie in embedded.page.context.cookies()
        if cookie["name"] == "__Host-chips"
    ]
    assert sorted(map(str, partitions)) == ["https://shop.test", "https://third.test"]
