"""Requests that still carry the old id when another has given the session its new one.

With a grace they see the session as it is, in both gateways; they change nothing, prolong nothing,
and send no cookie over the one that the other request has sent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import SessionGone
from filesession.testing import ManualClock
from tests.gateways.conftest import RecordingStore

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, Site

GRACE: Final = 5.0


@pytest.fixture
def store(tmp_path: Path) -> RecordingStore:
    return RecordingStore(tmp_path / "sessions", regenerate_grace=GRACE, touch_interval=0)


@pytest.fixture
def clock(store: RecordingStore) -> ManualClock:
    return store.now


@pytest.fixture
def late(store: RecordingStore, sid: str, cookie_of: Callable[..., str]) -> str:
    """The cookie of a request that was sent before its session got the id "new"."""
    store.regenerate(sid, {"user": "ada"}, new_sid="new")
    store.calls.clear()
    return cookie_of(sid)


@pytest.fixture
def current(store: RecordingStore, late: str) -> Callable[[], Any]:
    """The session under its new id."""
    return lambda: store.load("new")


def test_it_sees_the_session_and_leaves_no_mark(
    site: Site, late: str, current: Callable[[], Any], clock: ManualClock
) -> None:
    before, seen = current(), []
    clock.advance(GRACE)
    answer = site.request(lambda here: seen.append(dict(here.session)), cookie=late)
    assert seen == [{"user": "ada"}]
    assert (answer.status, answer.set_cookie) == (200, None)
    assert answer.all("vary") == ["Cookie"]
    assert current() == before


@pytest.mark.parametrize("options", [{"rolling": True}, {"max_age": 60}, {"resave": True}])
def test_it_sends_no_cookie_whatever_the_options(
    make_site: Callable[..., Site], late: str, current: Callable[[], Any], options: dict[str, Any]
) -> None:
    before = current()
    answer = make_site(**options).request(lambda here: here.session.touch(), cookie=late)
    assert (answer.status, answer.set_cookie) == (200, None)
    assert current() == before


def test_a_cookie_signed_with_an_older_secret_is_not_renewed(site: Site, late: str) -> None:
    renewing = type(site)(site.kind, site.store, ["a newer one", "the newest secret"])
    answer = renewing.request(lambda here: here.session.get("user"), cookie=late)
    assert answer.set_cookie is None


def regenerate(here: Here) -> None:
    here.session.regenerate()


def write(here: Here) -> None:
    here.session["user"] = "eve"


def keep_longer(here: Here) -> None:
    here.session.idle_timeout = 10**6


@pytest.mark.parametrize("change", [regenerate, write, keep_longer])
def test_what_it_changes_is_lost_and_told(
    site: Site,
    late: str,
    current: Callable[[], Any],
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Here], None],
) -> None:
    before = current()
    answer = site.request(change, cookie=late)
    assert (answer.status, answer.body, answer.set_cookie) == (200, b"the page", None)
    assert current() == before
    assert len(site.store) == 1
    if change is not regenerate:
        assert "has a new id by now; nothing was written" in caplog.text


def test_a_save_or_a_lock_says_that_it_comes_too_late(
    site: Site, late: str, current: Callable[[], Any]
) -> None:
    before = current()

    def insist(here: Here) -> None:
        here.session["user"] = "eve"
        with pytest.raises(SessionGone):
            here.session.save()
        with pytest.raises(SessionGone), here.session.lock():
            pytest.fail("a session was locked by an id it has no more")
        here.session.reload()
        assert here.session == {"user": "ada"}

    answer = site.request(insist, cookie=late)
    assert (answer.status, answer.set_cookie) == (200, None)
    assert current() == before


def test_a_logout_in_it_ends_the_session(
    site: Site, late: str, current: Callable[[], Any], store: RecordingStore
) -> None:
    answer = site.request(lambda here: here.session.destroy(), cookie=late)
    assert answer.expires_the_cookie
    assert current() is None
    assert len(store) == 0


def test_after_the_grace_it_is_a_strangers(site: Site, late: str, clock: ManualClock) -> None:
    clock.advance(GRACE + 0.001)
    seen: list[object] = []
    answer = site.request(
        lambda here: seen.extend((dict(here.session), here.session.is_new)), cookie=late
    )
    assert seen == [{}, True]
    assert answer.set_cookie is None
