"""The example's pages, clicked through in a real browser, wide and narrow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chromium import Address, jar, visiting
from tests.serving import serving

pytestmark = pytest.mark.browser

DAY = 86400


@pytest.mark.parametrize(
    ("server", "width"),
    [
        ("uvicorn starlette_app:app --app-dir examples --fd {fd}", 1200),
        ("gunicorn wsgi_app:app --chdir examples -b fd://{fd} --no-control-socket", 360),
    ],
)
def test_the_shop_is_clicked_through(
    browser: Browser, tmp_path: Path, server: str, width: int
) -> None:
    with serving(server, tmp_path) as site, visiting(browser) as context:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(Address("http", site.port)("/"))
        guest = jar(context)["sid"]

        page.get_by_label("Name").fill("Ada")
        page.get_by_label("Remember me").check()
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("status")).to_have_text("Welcome, Ada.")
        expect(page.locator("#user")).to_have_text("Ada")
        user = jar(context)["sid"]
        assert user["value"] != guest["value"]
        assert user["expires"] > time.time() + 29 * DAY

        for _ in range(2):
            page.get_by_role("button", name="Add Sencha").click()
        expect(page.locator("#total")).to_have_text("€14.40")
        page.reload()
        expect(page.get_by_label("Quantity of Sencha")).to_have_value("2")
        assert page.evaluate("document.documentElement.scrollWidth") == width

        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("status")).to_contain_text("You are logged out")
        expect(page.locator("#user")).to_have_count(0)
        expect(page.locator("#total")).to_have_count(0)
        assert jar(context)["sid"]["value"] not in (guest["value"], user["value"])
        assert complaints == []
