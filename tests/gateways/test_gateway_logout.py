"""A session that ends while a slow request is at work stays ended, in both gateways.

A request loads its session and takes its time. Meanwhile another one logs out, or out and in again,
or gives the session a new id; or it expires, with and without a sweep. Whatever the slow one then
does, reading or writing, before its response or after, it brings nothing back, writes nothing, and
sends no cookie that would wipe out a fresh one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import SessionGone

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, RecordingStore, Site

IDLE: Final = 1800
SLACK: Final = 60

End = Callable[[], object]


def elsewhere(act: Callable[[], Any]) -> Any:
    """Do it in a thread of its own, where there is no event loop in the way."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result(30)


# -- how the session ends -------------------------------------------------------------------------


@pytest.fixture(params=["logged out", "out and in", "new id", "expired", "expired and swept"])
def end(
    request: pytest.FixtureRequest,
    make_site: Callable[..., Site],
    store: RecordingStore,
    sid: str,
    cookie_of: Callable[..., str],
) -> End:
    """Ends the session, as others do; the id of the session that is there instead, if any."""
    another = make_site()

    def log_out() -> None:
        answer = another.request(lambda here: here.session.destroy(), cookie=cookie_of(sid))
        assert answer.expires_the_cookie

    def out_and_in() -> str:
        log_out()

        def log_in(here: Here) -> None:
            here.session.regenerate()
            here.session["user"] = "ada, again"

        return another.request(log_in).sid

    def move() -> str:
        return another.request(lambda here: here.session.regenerate(), cookie=cookie_of(sid)).sid

    def sweep() -> None:
        store.now.advance(IDLE + 2 * SLACK + 1)
        assert store.sweep().expired == 1

    ends: dict[str, End] = {
        "logged out": log_out,
        "out and in": out_and_in,
        "new id": move,
        "expired": partial(store.now.advance, IDLE + SLACK + 1),
        "expired and swept": sweep,
    }
    return ends[request.param]


def ended(store: RecordingStore, end: End) -> tuple[Any, Any]:
    """End the session; the id of the one that is there instead, and what that is now."""
    fresh = elsewhere(end)
    instead = None if fresh is None else store.load(fresh)
    store.calls.clear()
    return fresh, instead


# -- what the slow one does -----------------------------------------------------------------------


def ignore(session: Any) -> None: ...


def read(session: Any) -> None:
    assert session["user"] == "ada"


def change(session: Any) -> None:
    session["seen"] = True


def empty(session: Any) -> None:
    session.clear()


def insist(session: Any) -> None:
    session.modified = True


def touch(session: Any) -> None:
    session.touch()


def log_in(session: Any) -> None:
    session.regenerate()
    session["user"] = "eve"


def log_in_afresh(session: Any) -> None:
    session.regenerate(keep_data=False)
    session["user"] = "eve"


def remember(session: Any) -> None:
    session.idle_timeout = 30 * 86400
    session.cookie.max_age = 30 * 86400


def save(session: Any) -> None:
    change(session)
    for _ in range(2):
        with pytest.raises(SessionGone):
            session.save()


def save_unchanged(session: Any) -> None:
    with pytest.raises(SessionGone):
        session.save()


def read_anew(session: Any) -> None:
    with pytest.raises(SessionGone):
        session.reload()


def lock(session: Any) -> None:
    with pytest.raises(SessionGone), session.lock():
        pytest.fail("a session was locked that had ended")


READS: Final = [ignore, read, touch]
TOLD: Final = [save, save_unchanged, read_anew, lock]
WRITES: Final = [change, empty, insist, log_in, log_in_afresh, remember]


def named(value: Any) -> str:
    return str(value.__name__)


@pytest.fixture
def check(store: RecordingStore, sid: str, caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Sees that the session is gone, the fresh one untouched, and what was said of it."""

    def seen(fresh: str | None, before: Any, *, warnings: int) -> None:
        assert "create" not in store.calls
        assert store.load(sid) is None
        if fresh is None:
            store.now.advance(SLACK)
            store.sweep()
            assert store.ids() == 0
        else:
            assert store.load(fresh) == before
            assert store.ids() == 1
        told = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.getMessage() for record in told] == [
            "the session was deleted, has expired, or has a new id by now; nothing was written"
        ] * warnings

    return seen


@pytest.fixture
def slowly(
    store: RecordingStore, end: End, check: Callable[..., None], cookie_of: Callable[..., str],
    sid: str,
) -> Callable[..., None]:  # fmt: skip
    """Serves a slow request: the session ends, then it does something, when it is that time."""

    def visit(site: Site, deed: Callable[[Any], None], when: str = "", warnings: int = 0) -> None:
        left: list[Any] = []

        def outlive(session: Any) -> None:
            left.extend(ended(store, end))
            elsewhere(lambda: deed(session))

        def page(here: Here) -> None:
            assert here.session["user"] == "ada"
            if when:
                setattr(here, when, lambda: outlive(here.session))
            else:
                outlive(here.session)

        answer = site.request(page, cookie=cookie_of(sid))
        assert (answer.status, answer.body) == (200, b"the page")
        assert answer.all("set-cookie") == []
        check(*left, warnings=warnings)

    return visit


# -- before its response --------------------------------------------------------------------------


@pytest.mark.parametrize("deed", READS, ids=named)
def test_a_slow_request_that_only_reads_revives_nothing(
    site: Site, slowly: Callable[..., None], deed: Callable[[Any], None]
) -> None:
    slowly(site, deed)


@pytest.mark.parametrize("deed", WRITES, ids=named)
def test_what_a_slow_request_writes_is_lost_and_told_once(
    site: Site, slowly: Callable[..., None], deed: Callable[[Any], None]
) -> None:
    slowly(site, deed, warnings=1)


@pytest.mark.parametrize("deed", TOLD, ids=named)
def test_a_slow_request_that_asks_is_told(
    site: Site, slowly: Callable[..., None], deed: Callable[[Any], None]
) -> None:
    slowly(site, deed)


@pytest.mark.parametrize(
    "option",
    [{"rolling": True}, {"resave": True}, {"save_uninitialized": True}, {"max_age": 60}],
    ids=lambda option: next(iter(option)),
)
@pytest.mark.parametrize("deed", [read, change], ids=named)
def test_no_option_makes_it_write_or_send_its_cookie(
    make_site: Callable[..., Site],
    slowly: Callable[..., None],
    deed: Callable[[Any], None],
    option: dict[str, Any],
) -> None:
    slowly(make_site(**option), deed, warnings=int(deed is change))


def test_a_cookie_of_an_older_secret_is_not_renewed_for_a_session_that_ended(
    site: Site, slowly: Callable[..., None]
) -> None:
    slowly(type(site)(site.kind, site.store, ["a newer one", "the newest secret"]), read)


@pytest.mark.parametrize("conflict", ["overwrite", "error"])
def test_nor_does_a_conflict_mode(
    make_site: Callable[..., Site], slowly: Callable[..., None], conflict: str
) -> None:
    slowly(make_site(conflict=conflict), change, warnings=1)


# -- while its body leaves, and after -------------------------------------------------------------


@pytest.mark.parametrize("when", ["late", "after"])
@pytest.mark.parametrize("deed", [read, touch, save, change, remember], ids=named)
def test_nor_does_one_that_streams_or_works_on_in_the_background(
    site: Site, slowly: Callable[..., None], deed: Callable[[Any], None], when: str
) -> None:
    slowly(site, deed, when, warnings=int(deed in {change, remember}))


# -- an application that fails --------------------------------------------------------------------


def test_nor_does_one_that_fails_in_the_end(  # noqa: PLR0917 - fixtures
    site: Site,
    store: RecordingStore,
    sid: str,
    end: End,
    check: Callable[..., None],
    cookie_of: Callable[..., str],
) -> None:
    left: list[Any] = []

    def fail(here: Here) -> None:
        change(here.session)
        left.extend(ended(store, end))
        raise LookupError

    with suppress(LookupError):
        site.request(fail, cookie=cookie_of(sid))
    assert site.events == []
    check(*left, warnings=0)
