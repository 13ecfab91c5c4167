"""A session whose cookie moves to another path or domain, in a browser that has the old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email.message import Message
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any
from urllib.request import Request

import pytest

if TYPE_CHECKING:
    from tests.gateways.conftest import Answer, Here, RecordingStore, Site

HOST = "https://app.example.com"


class Browser:
    """The standard library's cookie jar in front of a site.

    Attributes:
        seen: the session as the application found it, request by request.
        jar: its cookies.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self.jar = CookieJar()
        self.seen: list[dict[str, Any]] = []

    def visit(self, path: str, act: Callable[[Any], object] = lambda session: None) -> Answer:
        request = Request(f"{HOST}{path}")  # noqa: S310 - never opened
        self.jar.add_cookie_header(request)
        sent = request.get_header("Cookie")

        def handler(here: Here) -> None:
            self.seen.append(here.session.copy())
            act(here.session)

        answer = self._site.request(handler, cookie=sent, path=path, https=True)
        self.jar.extract_cookies(_Response(answer), request)  # type: ignore[arg-type]
        return answer

    def held(self) -> Iterator[tuple[str, str]]:
        """Where the cookies it has are."""
        return ((cookie.domain, cookie.path) for cookie in self.jar)


class _Response:
    """What the jar asks of a response."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def info(self) -> Message:
        message = Message()
        for value in self._answer.all("set-cookie"):
            message["Set-Cookie"] = value
        return message


@pytest.fixture
def browser(site: Site) -> Browser:
    return Browser(site)


def to_domain(session: Any) -> None:
    session.cookie.domain = "example.com"


def to_path(session: Any) -> None:
    session.cookie.path = "/shop"


def log_in(session: Any) -> None:
    session.regenerate()
    session["user"] = "ada"


def log_in_anew(session: Any) -> None:
    session.regenerate(keep_data=False)
    session["user"] = "ada"


def leave_with_a_word(session: Any) -> None:
    session.destroy()
    session["flash"] = "bye"


def put(**values: Any) -> Callable[[Any], None]:
    def act(session: Any) -> None:
        session.update(values)

    return act


def test_moved_to_a_domain_it_is_one_cookie_and_stays_logged_in(
    browser: Browser, store: RecordingStore
) -> None:
    browser.visit("/", put(cart=1))
    answer = browser.visit("/", to_domain)
    old, new = answer.all("set-cookie")
    assert "; Max-Age=0" in old
    assert "Domain" not in old
    assert "; Domain=example.com;" in new
    browser.visit("/", log_in)
    browser.visit("/")
    browser.visit("/", log_in)
    browser.visit("/")
    assert list(browser.held()) == [(".example.com", "/")]
    assert browser.seen[3:] == [{"cart": 1, "user": "ada"}] * 3
    assert store.ids() == 1


def test_moved_to_a_path_it_is_there_alone(browser: Browser, store: RecordingStore) -> None:
    browser.visit("/", put(cart=1))
    browser.visit("/shop", to_path)
    assert list(browser.held()) == [("app.example.com", "/shop")]
    browser.visit("/shop", log_in)
    browser.visit("/shop")
    browser.visit("/")
    assert browser.seen[3:] == [{"cart": 1, "user": "ada"}, {}]
    assert store.ids() == 1


@pytest.mark.parametrize(
    ("end", "after"),
    [(leave_with_a_word, {"flash": "bye"}), (log_in_anew, {"user": "ada"})],
)
@pytest.mark.parametrize("path", ["/shop", "/"], ids=["another path", "a domain"])
def test_what_follows_it_is_found_and_not_hidden_by_the_old_cookie(
    browser: Browser,
    store: RecordingStore,
    path: str,
    end: Callable[[Any], None],
    after: dict[str, Any],
) -> None:
    browser.visit("/", put(cart=1))
    browser.visit(path, to_domain if path == "/" else to_path)
    browser.visit(path, end)
    browser.visit(path)
    browser.visit(path, put(seen=True))
    browser.visit(path)
    assert browser.seen[3:] == [after, after, {**after, "seen": True}]
    assert list(browser.held()) == [("app.example.com", "/")]
    assert store.ids() == 1


@pytest.mark.parametrize(("move", "path"), [(to_path, "/shop"), (to_domain, "/")])
def test_when_it_ends_no_cookie_is_left(
    browser: Browser, store: RecordingStore, move: Callable[[Any], None], path: str
) -> None:
    browser.visit("/", put(cart=1))
    browser.visit(path, move)
    browser.visit(path, lambda session: session.destroy())
    assert list(browser.held()) == []
    assert store.ids() == 0


def test_a_partition_is_a_place_of_its_own(
    make_site: Callable[..., Site], store: RecordingStore, cookie_of: Callable[..., str]
) -> None:
    site = make_site(secure=True)
    sid = store.create({"n": 1}).id

    def split(here: Here) -> None:
        here.session.cookie.partitioned = True

    answer = site.request(split, cookie=cookie_of(sid, name="__Host-sid"), https=True)
    old, new = answer.all("set-cookie")
    assert "; Max-Age=0" in old
    assert "Partitioned" not in old
    assert "; Partitioned" in new


def test_one_that_moved_together_with_a_new_id_is_expired_too(
    browser: Browser, store: RecordingStore
) -> None:
    def move_and_log_in(session: Any) -> None:
        to_domain(session)
        log_in(session)

    browser.visit("/", put(cart=1))
    browser.visit("/", move_and_log_in)
    browser.visit("/")
    assert browser.seen[2] == {"cart": 1, "user": "ada"}
    assert list(browser.held()) == [(".example.com", "/")]


def test_a_place_the_browser_never_heard_of_hides_no_login(
    browser: Browser, site: Site, store: RecordingStore
) -> None:
    browser.visit("/", put(cart=1))
    (info,) = store.scan()
    (sid,) = (cookie.value for cookie in browser.jar)

    def too_late(here: Here) -> None:
        here.late = lambda: to_domain(here.session)

    site.request(too_late, cookie=f"sid={sid}", https=True)
    assert store.inspect(info.handle) is not None
    browser.visit("/", log_in)
    browser.visit("/")
    assert browser.seen[2:] == [{"cart": 1, "user": "ada"}]
    assert list(browser.held()) == [(".example.com", "/")]
