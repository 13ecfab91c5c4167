"""Redirects, tabs, streams, scripts, sockets and events of a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.browser.chromium import Address, script, visit
from tests.serving import Site

pytestmark = pytest.mark.browser


POST_AND_FOLLOW = """async times => {
    const frame = document.createElement("iframe"), form = document.createElement("form");
    Object.assign(frame, {name: "there"});
    Object.assign(form, {method: "POST", action: "/count", target: "there"});
    document.body.append(frame, form);
    const seen = [];
    while (seen.length < times) {
        const shown = new Promise(done => { frame.onload = done; });
        form.submit();
        await shown;
        const {pathname} = frame.contentWindow.location;
        seen.push([pathname, JSON.parse(frame.contentDocument.body.innerText).session.count]);
    }
    return seen;
}"""


def test_after_a_redirect_the_page_has_what_the_post_wrote_every_time(
    page: Page, site: Site
) -> None:
    page.goto(Address("http", site.port)("/page"))
    seen = script(page, POST_AND_FOLLOW, 25)
    assert seen == [["/see", number] for number in range(1, 26)]


def test_of_two_tabs_that_write_at_once_neither_loses_anything(
    context: BrowserContext, http: Address
) -> None:
    tabs = {key: context.new_page() for key in ("left", "right")}
    for tab in tabs.values():
        visit(tab, http("/add/known"))
    for key, tab in tabs.items():
        tab.evaluate("url => { location.href = url }", http(f"/meet/{key}"))
    for tab in tabs.values():
        tab.wait_for_url(http("/see"))
    keys = ("known", "waited", *tabs)
    assert visit(tabs["left"], http("/see"))["session"] == dict.fromkeys(keys, True)


def test_a_streamed_answer_has_its_cookie_before_its_end_and_what_it_writes_then_is_kept(
    page: Page, http: Address
) -> None:
    page.goto(http("/page"))
    seen = script(
        page,
        """async () => {
            const see = () => fetch("/see").then(r => r.json());
            const answer = await fetch("/stream");
            const during = await see();
            await fetch("/go");
            const text = await answer.text();
            return [during.session, text, (await see()).session];
        }""",
    )
    assert seen == [{"early": True}, "the first and the last", {"early": True, "late": True}]


def test_scripts_that_write_at_once_lose_nothing(page: Page, http: Address) -> None:
    visit(page, http("/add/known"))
    script(
        page,
        "keys => Promise.all(keys.map(key => fetch('/add/' + key).then(r => r.text())))",
        keys := [f"key{number}" for number in range(16)],
    )
    assert visit(page, http("/see"))["session"] == dict.fromkeys(["known", *keys], True)


TALK = """([url, ...words]) => new Promise((done, failed) => {
    const socket = new WebSocket(url), heard = [];
    socket.onopen = () => socket.send(words.shift());
    socket.onmessage = event => {
        heard.push(JSON.parse(event.data));
        if (words.length) socket.send(words.shift()); else socket.close();
    };
    socket.onerror = failed;
    socket.onclose = () => done(heard);
})"""


def test_a_websocket_has_the_session_of_its_page_and_one_of_another_sites_has_none(
    page: Page, http: Address
) -> None:
    visit(page, http("/login/ada"))
    url = http("/talk").replace("http", "ws")
    assert script(page, TALK, [url, "see", "add/said"]) == [
        {"session": {"user": "ada"}},
        {"session": {"user": "ada", "said": True}},
    ]
    assert visit(page, http("/see"))["session"] == {"user": "ada", "said": True}
    page.goto(http("/page", "other.test"))
    assert script(page, TALK, [url, "see"]) == [{}]


def test_events_stay_logged_in_until_the_logout(page: Page, http: Address) -> None:
    visit(page, http("/login/ada"))
    seen: list[Any] = script(
        page,
        """() => new Promise(done => {
            const source = new EventSource("/events"), seen = [];
            source.onmessage = async event => {
                const data = JSON.parse(event.data);
                seen.push(data.session ? data.session.user : null);
                if (seen.length === 3) await fetch("/logout");
                if (data.session) return;
                source.close();
                done(seen);
            };
        })""",
    )
    *before, last = seen
    assert last is None
    assert len(before) >= 3
    assert set(before) == {"ada"}
