"""Requests while the disk fails, under both gateways: 503 and nothing lost, and then all is well.

A session that could not be read is never an empty one, and never gets a new cookie.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.stores import FileStore
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCalls, each, failing
from tests.faults.conftest import EVERY, error_of, handle_of, nothing_left_open, refusing
from tests.gateways.conftest import Answer, Here, Kind, Site, signed

if TYPE_CHECKING:
    from tests.faults.conftest import Disk

OLD: Final = {"user": "ada"}


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    with nothing_left_open():
        yield


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


def change(here: Here) -> None:
    here.session["seen"] = "x" * 5000


def look(here: Here) -> None:
    here.body = [str(here.session.get("user")).encode()]


def renew(here: Here) -> None:
    here.session.regenerate()
    change(here)


def leave(here: Here) -> None:
    here.session.destroy()


def is_refused(answer: Answer) -> bool:
    """Whether it is a 503 that says when to try again, and leaves the browser's cookie alone."""
    if answer.status != 503:
        return False
    assert answer.all("retry-after") == ["5"]
    assert answer.set_cookie is None
    return True


def data_of(store: FileStore, sid: str) -> Any:
    record = store.load(sid)
    return None if record is None else record.data


def is_well(site: Site, sid: str) -> None:
    """The session is there for the next request, which can change it."""
    answer = site.request(look, cookie=signed(sid))
    assert (answer.status, answer.body, answer.set_cookie) == (200, b"ada", None)
    assert site.request(change, cookie=signed(sid)).status == 200
    assert "seen" in data_of(site.store, sid)


def test_on_a_full_disk_changes_are_refused_and_sessions_are_read(
    make_disk: Callable[[str], Disk], kind: Kind
) -> None:
    disk = make_disk("size=128k")
    store = FileStore(disk.path / "sessions")
    sid = store.create(OLD).id
    site = Site(kind, store)
    filling = disk.fill()
    for handler in (change, renew):
        assert is_refused(site.request(handler, cookie=signed(sid)))
        assert data_of(store, sid) == OLD
    assert is_refused(site.request(change))
    assert len(store) == 1
    answer = site.request(look, cookie=signed(sid))
    assert (answer.status, answer.body, answer.set_cookie) == (200, b"ada", None)
    filling.unlink()
    is_well(site, sid)
    disk.fill()
    assert site.request(leave, cookie=signed(sid)).expires_the_cookie
    assert data_of(store, sid) is None


def test_on_a_read_only_disk_changes_are_refused_and_sessions_are_read(
    make_disk: Callable[[str], Disk], kind: Kind, clock: ManualClock
) -> None:
    disk = make_disk("size=1m")
    store = FileStore(disk.path / "sessions", clock=clock)
    sid = store.create(OLD).id
    site = Site(kind, store)
    clock.advance(100)  # the next request is to be noted
    disk.remount("ro")
    answer = site.request(look, cookie=signed(sid))
    assert (answer.status, answer.body, answer.set_cookie) == (200, b"ada", None)
    for handler in (change, renew, leave):
        assert is_refused(site.request(handler, cookie=signed(sid)))
    assert is_refused(site.request(change))
    assert data_of(store, sid) == OLD
    disk.remount("rw")
    is_well(site, sid)


def test_while_the_directory_is_away_no_session_is_taken_for_none(
    tmp_path: Path, kind: Kind
) -> None:
    store = FileStore(tmp_path / "sessions")
    sid = store.create(OLD).id
    site = Site(kind, store)
    (tmp_path / "sessions").rename(tmp_path / "away")
    for handler in (look, change, renew, leave):
        site.here = None
        assert is_refused(site.request(handler, cookie=signed(sid)))
        assert site.here is None  # the application never saw the request
    assert is_refused(site.request(change))
    assert site.request().status == 200
    (tmp_path / "away").rename(tmp_path / "sessions")
    assert len(store) == 1
    is_well(site, sid)


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ESTALE, errno.ENOMEM]
)
def test_a_session_that_cannot_be_read_is_no_new_one(tmp_path: Path, kind: Kind, code: int) -> None:
    store = FileStore(tmp_path / "sessions")
    sid = store.create(OLD).id
    site = Site(kind, store)
    path = tmp_path / "sessions" / "sessions" / handle_of(sid)[:2] / handle_of(sid)
    with SystemCalls(refusing(code, path)):
        for handler in (look, change, renew, leave):
            assert is_refused(site.request(handler, cookie=signed(sid)))
    assert len(store) == 1
    assert not (tmp_path / "sessions" / "corrupt").exists()
    is_well(site, sid)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("handler", [look, change, leave])
def test_whatever_call_fails_a_request_is_refused_or_does_what_it_says(
    tmp_path: Path, kind: Kind, handler: Callable[[Here], None], code: int, clock: ManualClock
) -> None:
    store = FileStore(tmp_path / "sessions", clock=clock)
    site = Site(kind, store)
    for calls in each(lambda nth: failing(error_of(code), nth), only=EVERY):
        sid = store.create(OLD).id
        clock.advance(100)
        with calls:
            answer = site.request(handler, cookie=signed(sid))
        if is_refused(answer):
            is_well(site, sid)
            continue
        assert answer.status == 200
        if handler is leave:
            assert answer.expires_the_cookie
            assert data_of(store, sid) is None
        else:
            assert answer.set_cookie is None
            assert ("seen" in data_of(store, sid)) is (handler is change)
            is_well(site, sid)
