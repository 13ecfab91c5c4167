"""Login, remember-me and logout in a real browser, under both kinds of server."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright

from tests.browser.chromium import (
    Address,
    go_back,
    jar,
    living_in,
    options,
    shown,
    visit,
    visiting,
)
from tests.certificates import Certificate
from tests.serving import Site

pytestmark = pytest.mark.browser

MONTH = 30 * 86400


@pytest.fixture
def url(site: Site) -> Address:
    return Address("http", site.port)


def test_login_gives_another_id_and_the_one_that_was_planted_before_is_dead(
    page: Page, context: BrowserContext, stranger: BrowserContext, url: Address
) -> None:
    visit(stranger.new_page(), url("/add/planted"))
    planted = jar(stranger)["sid"]
    context.add_cookies(
        [{"name": "sid", "value": planted["value"], "url": url("/"), "httpOnly": True}]
    )
    assert visit(page, url("/see"))["session"] == {"planted": True}
    assert visit(page, url("/login/ada"))["session"]["user"] == "ada"
    assert jar(context)["sid"]["value"] != planted["value"]
    assert visit(page, url("/see"))["session"]["user"] == "ada"
    assert "session" not in visit(stranger.pages[0], url("/see"))


def test_logout_takes_the_cookie_from_the_browser_and_ends_the_session_everywhere(
    page: Page, context: BrowserContext, stranger: BrowserContext, url: Address
) -> None:
    visit(page, url("/login/ada"))
    cookie = jar(context)["sid"]
    stranger.add_cookies([{"name": "sid", "value": cookie["value"], "url": url("/")}])
    thief = stranger.new_page()
    assert visit(thief, url("/see"))["session"] == {"user": "ada"}
    visit(page, url("/logout"))
    assert context.cookies() == []
    assert visit(page, url("/see")) == {}
    assert "session" not in visit(thief, url("/see"))


def test_who_is_remembered_is_still_logged_in_when_the_browser_was_closed(
    playwright: Playwright, certificate: Certificate, tmp_path: Path, http: Address
) -> None:
    def live() -> AbstractContextManager[BrowserContext]:
        return living_in(tmp_path, playwright.chromium, certificate)

    with live() as context:
        visit(context.pages[0], http("/login/ada"))
        visit(context.pages[0], http("/remember/bob", "other.test"))
    with live() as context:
        assert {cookie["domain"] for cookie in context.cookies()} == {"other.test"}
        assert visit(context.pages[0], http("/see")) == {}
        assert visit(context.pages[0], http("/see", "other.test"))["session"] == {"user": "bob"}
        kept = jar(context)["sid"]["expires"] - time.time()
        assert MONTH - 120 < kept <= MONTH + 1


def test_from_the_cache_a_page_comes_back_to_who_is_still_logged_in_and_to_nobody_else(
    page: Page, http: Address
) -> None:
    """A page that the application lets browsers keep: what was read depends on the cookie."""
    visit(page, http("/login/ada"))
    account = visit(page, http("/numbered"))
    visit(page, http("/see"))
    go_back(page)
    assert shown(page) == account
    visit(page, http("/logout"))
    go_back(page)
    assert shown(page)["number"] > account["number"]
    assert shown(page)["user"] is None


def test_back_after_logout_brings_no_page_to_life_that_must_not_be_stored(
    playwright: Playwright, certificate: Certificate, http: Address
) -> None:
    """Chromium keeps whole pages in memory, whatever they depend on, but not these."""
    browser = playwright.chromium.launch(
        **options(certificate), ignore_default_args=["--disable-back-forward-cache"]
    )
    with closing(browser), visiting(browser) as context:
        page = context.new_page()
        login = visit(page, http("/numbered/ada"))
        private = visit(page, http("/numbered?private"))
        assert login["user"] == private["user"] == "ada"
        visit(page, http("/logout"))
        go_back(page)
        seen = shown(page)
        assert (seen["number"] > private["number"], seen["user"]) == (True, None)
        go_back(page)
        assert shown(page)["number"] > seen["number"]
