"""Chromium, the system's, with windows that share nothing and homes that outlive it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, BrowserType, Cookie, Frame, Page

from tests.certificates import Certificate
from tests.programs import required
from tests.serving import PATIENCE

HOSTS: Final = ("shop.test", "www.shop.test", "evil.shop.test", "other.test", "third.test")
"""Names that lead to this machine; the first three are one site to a browser."""


@dataclass(frozen=True)
class Address:
    """Where a server is reached, under every name."""

    scheme: str
    port: int

    def __call__(self, path: str, host: str = HOSTS[0]) -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def origin(self, host: str = HOSTS[0]) -> str:
        return self("", host)


def options(certificate: Certificate) -> dict[str, Any]:
    """How it is started."""
    return {
        "executable_path": required("chromium"),
        # Its sandbox cannot be had by root.
        "chromium_sandbox": os.geteuid() != 0,
        "args": [
            "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND",
            f"--ignore-certificate-errors-spki-list={certificate.pin}",
        ],
        "timeout": PATIENCE * 1000,
    }


@contextmanager
def visiting(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor: windows with cookies and a cache that no other has."""
    context = browser.new_context()
    try:
        context.set_default_timeout(PATIENCE * 1000)
        yield context
    finally:
        context.close()


@contextmanager
def living_in(
    home: Path,
    kind: BrowserType,
    certificate: Certificate,
    preferences: Mapping[str, Any] | None = None,
) -> Iterator[BrowserContext]:
    """A browser with its own profile, which stays when it has ended.

    Args:
        home: the profile's directory, made when it is missing.
        kind: Playwright's Chromium.
        certificate: is trusted.
        preferences: of a new profile, as Chromium itself stores them.
    """
    if preferences is not None:
        profile = home / "Default"
        profile.mkdir(parents=True)
        (profile / "Preferences").write_text(json.dumps(preferences))
    context = kind.launch_persistent_context(home, **options(certificate))
    try:
        context.set_default_timeout(PATIENCE * 1000)
        yield context
    finally:
        context.close()


def shown(page: Page | Frame) -> dict[str, Any]:
    """What a page of JSON says."""
    found: dict[str, Any] = json.loads(page.inner_text("pre"))
    return found


def visit(page: Page, url: str) -> dict[str, Any]:
    """Type an address; what the page says."""
    page.goto(url)
    return shown(page)


def jar(context: BrowserContext) -> dict[str, Cookie]:
    """The browser's cookies by name."""
    return {cookie["name"]: cookie for cookie in context.cookies()}


def go_back(page: Page) -> None:
    """Press Back, and wait for the page that comes, also one that is not loaded again."""
    with page.expect_event("framenavigated"):
        page.evaluate("setTimeout(() => history.back())")
    page.wait_for_load_state()


def post(page: Page, url: str) -> None:
    """Post a form that the page has, and wait for what comes."""
    with page.expect_navigation():
        page.evaluate(
            """url => {
                const form = document.createElement("form");
                form.method = "POST";
                form.action = url;
                document.body.append(form);
                form.submit();
            }""",
            url,
        )


def follow(page: Page, url: str) -> None:
    """Follow a link that the page has, and wait for what comes."""
    with page.expect_navigation():
        page.evaluate(
            """url => {
                const link = document.createElement("a");
                link.href = url;
                document.body.append(link);
                link.click();
            }""",
            url,
        )


def script(page: Page | Frame, function: str, argument: Any = None) -> Any:
    """What a script of the page comes to, which must not take forever."""
    return page.evaluate(
        f"""argument => Promise.race([
            ({function})(argument),
            new Promise((_, fail) => setTimeout(fail, {PATIENCE}000, "it takes too long")),
        ])""",
        argument,
    )


def fetch(page: Page | Frame, url: str, **init: str) -> Any:
    """What a script of the page gets, which sends cookies where it may."""
    init = {"credentials": "include", **init}
    return script(page, "([url, init]) => fetch(url, init).then(r => r.json())", [url, init])


def frame(page: Page, url: str) -> Frame:
    """Another site's page in a frame of this one."""
    script(
        page,
        """url => new Promise(done => {
            const frame = document.createElement("iframe");
            frame.onload = () => done();
            frame.src = url;
            document.body.append(frame);
        })""",
        url,
    )
    return page.frames[-1]
