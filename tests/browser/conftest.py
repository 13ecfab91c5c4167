"""Chromium and the site that it visits, over HTTP and over TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from tests.browser.chromium import HOSTS, Address, options, visiting
from tests.certificates import Certificate, certified
from tests.programs import required
from tests.serving import Site, serving

APP = "tests.browser.browser_app"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certified(tmp_path_factory.mktemp("certificate"), *HOSTS)


@pytest.fixture(scope="session")
def http_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    required("chromium")
    command = f"uvicorn {APP}:asgi --fd {{fd}} --log-level warning"
    with serving(command, tmp_path_factory.mktemp("http")) as site:
        yield site


@pytest.fixture(scope="session")
def https_site(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    required("chromium")
    command = f"uvicorn {APP}:asgi --fd {{fd}} --log-level warning"
    command += f" --ssl-keyfile {certificate.key} --ssl-certfile {certificate.chain}"
    with serving(command, tmp_path_factory.mktemp("https")) as site:
        yield site


@pytest.fixture(scope="session")
def wsgi_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    required("chromium")
    command = f"gunicorn {APP}:wsgi -b fd://{{fd}} --no-control-socket -k gthread --threads 4"
    with serving(command, tmp_path_factory.mktemp("wsgi")) as site:
        yield site


@pytest.fixture(scope="session")
def http(http_site: Site) -> Address:
    return Address("http", http_site.port)


@pytest.fixture(scope="session")
def https(https_site: Site) -> Address:
    return Address("https", https_site.port)


@pytest.fixture(params=["uvicorn", "gunicorn"])
def site(request: pytest.FixtureRequest) -> Site:
    """Both servers, over HTTP."""
    name = {"uvicorn": "http_site", "gunicorn": "wsgi_site"}[request.param]
    found: Site = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """What drives it; its event loop runs in this thread, and other modules want their own."""
    required("chromium")
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright, certificate: Certificate) -> Iterator[Browser]:
    browser = playwright.chromium.launch(**options(certificate))
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor."""
    with visiting(browser) as context:
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """The visitor's window."""
    return context.new_page()


@pytest.fixture
def stranger(browser: Browser) -> Iterator[BrowserContext]:
    """Another visitor."""
    with visiting(browser) as context:
        yield context
