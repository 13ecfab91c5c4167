"""The tea shop under its real servers, two workers each, visited over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from tests.waiting import wait_until

MONTH = 30 * 86400
SERVERS = {
    "uvicorn": "-m uvicorn starlette_app:app --app-dir examples --workers 2 --port {port}",
    "gunicorn": "-m gunicorn --chdir examples wsgi_app:app -w 2 --bind 127.0.0.1:{port}",
}


class Visitor:
    """A browser: keeps its cookies, and sends the token of the page it last saw with each form."""

    def __init__(self, url: str, cookie: str | None = None) -> None:
        self.client = httpx.Client(
            base_url=url, timeout=20, cookies={} if cookie is None else {"sid": cookie}
        )
        self.page = ""

    @property
    def cookie(self) -> str:
        return self.client.cookies["sid"]

    def see(self) -> str:
        response = self.client.get("/")
        assert response.status_code == 200
        self.page = response.text
        return self.page

    def post(self, path: str, **fields: str) -> httpx.Response:
        token = re.search('name="csrf" value="(.+?)"', self.page)
        return self.client.post(path, data={"csrf": token[1] if token else "", **fields})

    def do(self, path: str, **fields: str) -> str:
        """Post a form and follow its redirect."""
        response = self.post(path, **fields)
        assert (response.status_code, response.headers["location"]) == (303, "/")
        return self.see()

    def text(self, key: str) -> str | None:
        found = re.search(f'id="{key}">(.*?)<', self.page)
        return found[1] if found else None

    def cart(self) -> list[tuple[str, int]]:
        found = re.findall(
            r'name="sku" value="(\w+)">\s*<input type="number".*?value="(\d+)"', self.page
        )
        return [(sku, int(quantity)) for sku, quantity in found]


Visit = Callable[..., Visitor]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def directory(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(server) / "not" / "yet" / "there"


@pytest.fixture(scope="module")
def url(server: str, directory: Path, serve: Any) -> Iterator[str]:
    log = directory.parents[2] / "log"
    with serve(*SERVERS[server].split(), log=log, FILESESSION_DIR=str(directory)) as address:
        yield address
    assert "Traceback" not in log.read_text()


@pytest.fixture
def visit(url: str) -> Iterator[Visit]:
    visitors: list[Visitor] = []

    def come(cookie: str | None = None) -> Visitor:
        visitor = Visitor(url, cookie)
        visitors.append(visitor)
        visitor.see()
        return visitor

    yield come
    for visitor in visitors:
        visitor.client.close()


@pytest.fixture
def ada(visit: Visit) -> Visitor:
    visitor = visit()
    visitor.do("/login", name="Ada")
    return visitor


def test_a_new_visitor_is_counted_and_not_logged_in(visit: Visit) -> None:
    visitor = visit()
    assert visitor.text("visits") == "1"
    visitor.see()
    assert visitor.text("visits") == "2"
    assert visitor.text("user") is None
    assert visitor.text("idle") == "30 minutes"


def test_a_login_is_greeted_once(visit: Visit) -> None:
    visitor = visit()
    assert "Welcome, Zoë." in visitor.do("/login", name=" Zoë ")
    assert "Welcome" not in visitor.see()
    assert visitor.text("user") == "Zoë"


def test_a_login_makes_the_cookie_before_it_worthless(visit: Visit) -> None:
    visitor = visit()
    before = visitor.cookie
    visitor.do("/login", name="Ada")
    assert visitor.cookie != before
    stranger = visit(before)
    assert stranger.text("user") is None
    assert stranger.text("visits") == "1"


def test_a_login_needs_a_name(visit: Visit) -> None:
    visitor = visit()
    assert visitor.post("/login", name="  ").status_code == 400
    visitor.see()
    assert visitor.text("user") is None


def test_a_session_is_forgotten_with_the_browser_unless_it_is_to_be_remembered(
    visit: Visit,
) -> None:
    visitor = visit()
    assert "max-age" not in visitor.post("/login", name="Ada").headers["set-cookie"].lower()
    visitor.see()
    assert visitor.text("idle") == "30 minutes"


def test_a_remembered_session_lasts_a_month_from_the_last_visit(visit: Visit) -> None:
    visitor = visit()
    answer = visitor.post("/login", name="Ada", remember="on")
    assert f"Max-Age={MONTH};" in answer.headers["set-cookie"]
    assert f"Max-Age={MONTH};" in visitor.client.get("/").headers["set-cookie"]
    visitor.see()
    assert visitor.text("idle") == "30 days"


def test_what_a_visitor_calls_himself_is_no_markup(visit: Visit) -> None:
    visitor = visit()
    page = visitor.do("/login", name="<script>&\"'")
    assert "<script>" not in page
    assert visitor.text("user") == "&lt;script&gt;&amp;&quot;&#x27;"


def test_a_cart_is_filled_changed_and_emptied(ada: Visitor) -> None:
    ada.do("/cart/add", sku="assam")
    ada.do("/cart/add", sku="sencha")
    ada.do("/cart/add", sku="assam")
    assert ada.cart() == [("assam", 2), ("sencha", 1)]
    assert ada.text("total") == "&euro;18.00"
    ada.do("/cart/change", sku="sencha", qty="5")
    assert ada.cart() == [("assam", 2), ("sencha", 5)]
    assert ada.text("total") == "&euro;46.80"
    ada.do("/cart/remove", sku="assam", qty="2")
    assert ada.cart() == [("sencha", 5)]
    assert "There is nothing in it yet" in ada.do("/cart/change", sku="sencha", qty="0")


def test_a_cart_comes_along_into_the_login(visit: Visit) -> None:
    visitor = visit()
    visitor.do("/cart/add", sku="oolong")
    visitor.do("/login", name="Ada")
    assert visitor.cart() == [("oolong", 1)]


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/cart/change", {"sku": "assam", "qty": "many"}, 400),
        ("/cart/change", {"sku": "assam", "qty": "-1"}, 400),
        ("/cart/change", {"sku": "assam", "qty": "100"}, 400),
        ("/cart/change", {"sku": "assam", "qty": "²"}, 400),
        ("/cart/change", {"sku": "assam"}, 400),
        ("/cart/add", {"sku": "coffee"}, 400),
        ("/cart/add", {}, 400),
        ("/cart/steal", {"sku": "assam"}, 404),
        ("/elsewhere", {}, 404),
    ],
)
def test_what_the_shop_does_not_offer_changes_nothing(
    ada: Visitor, path: str, fields: dict[str, str], status: int
) -> None:
    ada.do("/cart/add", sku="assam")
    assert ada.post(path, **fields).status_code == status
    ada.see()
    assert ada.cart() == [("assam", 1)]


def test_a_page_that_is_not_there_is_not_found(ada: Visitor) -> None:
    assert ada.client.get("/elsewhere").status_code == 404


def test_visits_at_the_same_time_are_all_counted(url: str, ada: Visitor) -> None:
    before = int(ada.text("visits") or 0)
    with many(url, ada.cookie) as ask:
        assert ask(lambda client: client.get("/").status_code) == [200] * 40
    ada.see()
    assert ada.text("visits") == str(before + 41)


def test_clicks_at_the_same_time_are_all_in_the_cart(url: str, ada: Visitor) -> None:
    token = re.search('name="csrf" value="(.+?)"', ada.page)
    assert token
    form = {"csrf": token[1], "sku": "assam"}
    with many(url, ada.cookie) as ask:
        assert ask(lambda client: client.post("/cart/add", data=form).status_code) == [303] * 40
    ada.see()
    assert ada.cart() == [("assam", 40)]


@contextmanager
def many(url: str, cookie: str) -> Iterator[Callable[[Callable[[httpx.Client], Any]], list[Any]]]:
    """Forty requests of one browser, ten at a time."""
    with (
        httpx.Client(base_url=url, cookies={"sid": cookie}, timeout=20) as client,
        ThreadPoolExecutor(10) as pool,
    ):
        yield lambda request: list(pool.map(lambda _: request(client), range(40)))


def test_one_cookie_is_good_for_both_workers(ada: Visitor, visit: Visit) -> None:
    workers = set()

    def both_answered() -> bool:
        with ThreadPoolExecutor(8) as pool:
            for seen in pool.map(lambda _: visit(ada.cookie), range(8)):
                assert seen.text("user") == "Ada"
                workers.add(seen.text("worker"))
        return len(workers) == 2

    wait_until(both_answered)


def test_a_logout_ends_the_session_wherever_its_cookie_is(ada: Visitor, visit: Visit) -> None:
    ada.do("/cart/add", sku="assam")
    stolen = ada.cookie
    assert "You are logged out" in ada.do("/logout")
    assert ada.cookie != stolen
    assert ada.text("user") is None
    assert "You are logged out" not in ada.see()
    thief = visit(stolen)
    assert thief.text("user") is None
    assert thief.cart() == []


def test_a_logout_ends_what_was_remembered(visit: Visit) -> None:
    visitor = visit()
    visitor.do("/login", name="Ada", remember="on")
    assert "max-age" not in visitor.post("/logout").headers["set-cookie"].lower()
    visitor.see()
    assert visitor.text("idle") == "30 minutes"


@pytest.mark.parametrize("path", ["/login", "/logout", "/cart/add", "/cart/change", "/cart/remove"])
@pytest.mark.parametrize("token", ["", "guessed", "gué", None])
def test_a_form_without_the_sessions_own_token_is_refused(
    ada: Visitor, path: str, token: str | None
) -> None:
    fields = {"name": "Eve", "sku": "assam", "qty": "1"} | (
        {} if token is None else {"csrf": token}
    )
    answer = ada.client.post(path, data=fields)
    assert answer.status_code == 403
    assert "no longer valid" in answer.text
    ada.see()
    assert ada.text("user") == "Ada"
    assert ada.cart() == []


def test_another_visitors_token_is_refused(ada: Visitor, visit: Visit) -> None:
    ada.page = visit().page
    assert ada.post("/logout").status_code == 403


def test_a_visitor_without_session_cannot_post_and_gets_none(url: str) -> None:
    answer = httpx.post(f"{url}/login", data={"name": "Eve", "csrf": ""})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_token_from_before_the_login_is_refused_after_it(visit: Visit) -> None:
    visitor = visit()
    before = visitor.page
    visitor.do("/login", name="Ada")
    visitor.page = before
    assert visitor.post("/logout").status_code == 403


def test_the_sessions_id_is_on_no_page_and_not_on_the_disk(ada: Visitor, directory: Path) -> None:
    sid = unquote(ada.cookie).removeprefix("s:").split(".")[0]
    assert len(sid) == 43
    assert sid not in ada.page
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert any(b'"user":"Ada"' in path.read_bytes() for path in files)
    assert not any(sid in path.name or sid.encode() in path.read_bytes() for path in files)
