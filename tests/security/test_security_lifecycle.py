"""Attacks on a session's life: planted, kept alive, brought back; through both gateways."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.stores import FileStore
from filesession.testing import ManualClock

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, RecordingStore, Site

IDLE: Final = 1800
ABSOLUTE: Final = 8 * 3600


def log_in(here: Here) -> None:
    here.session.regenerate()
    here.session["user"] = "ada"


@pytest.fixture
def seen(site: Site) -> Callable[[str | None], dict[str, Any]]:
    """The session a request with that cookie finds."""

    def look(cookie: str | None) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        site.request(lambda here: found.append(dict(here.session)), cookie=cookie)
        return found[0]

    return look


# -- planted --------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", ["invented", "signed by nobody", "the attacker's own", "dead"])
def test_a_cookie_that_was_planted_before_the_login_opens_nothing_after_it(
    site: Site,
    store: RecordingStore,
    cookie_of: Callable[..., str],
    seen: Callable[[str | None], dict[str, Any]],
    planted: str,
) -> None:
    def come(here: Here) -> None:
        here.session["cart"] = ["tea"]

    own = site.request(come).cookie
    cookie = {
        "invented": cookie_of("an-id-of-the-attackers-choice"),
        "signed by nobody": "sid=an-id-of-the-attackers-choice",
        "the attacker's own": own,
        "dead": own,
    }[planted]
    if planted == "dead":
        site.request(lambda here: here.session.destroy(), cookie=own)
    victims = site.request(log_in, cookie=cookie).cookie
    assert victims != cookie
    assert seen(victims)["user"] == "ada"
    assert seen(cookie) == {}
    site.request(lambda here: here.session.update(user="eve"), cookie=cookie)
    assert seen(victims)["user"] == "ada"


def test_what_was_there_before_the_login_is_gone_when_the_login_says_so(
    site: Site, seen: Callable[[str | None], dict[str, Any]]
) -> None:
    def come(here: Here) -> None:
        here.session["csrf"] = "known to the attacker"

    def log_in_afresh(here: Here) -> None:
        here.session.regenerate(keep_data=False)
        here.session["user"] = "ada"

    planted = site.request(come).cookie
    victims = site.request(log_in_afresh, cookie=planted).cookie
    assert seen(victims) == {"user": "ada"}
    assert seen(planted) == {}


# -- kept alive -----------------------------------------------------------------------------------


@pytest.mark.parametrize("swept", [False, True], ids=["no janitor", "a janitor"])
@pytest.mark.parametrize("late", [-1, 0, 1])
def test_the_idle_timeout_ends_a_session_to_the_second_janitor_or_not(
    make_site: Callable[..., Site],
    tmp_path: Path,
    cookie_of: Callable[..., str],
    late: int,
    *,
    swept: bool,
) -> None:
    clock = ManualClock(1_760_000_000)
    store = FileStore(tmp_path / "exact", clock=clock, touch_interval=0, idle_timeout=IDLE)
    sid = store.create({"user": "ada"}).id
    found: list[dict[str, Any]] = []
    site = make_site(store=store)
    clock.advance(IDLE + late)
    if swept:
        assert store.sweep().expired == int(late > 0)
    site.request(lambda here: found.append(dict(here.session)), cookie=cookie_of(sid))
    assert found == [{"user": "ada"} if late <= 0 else {}]


def test_no_activity_of_any_kind_gets_past_the_absolute_timeout(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    clock = ManualClock()
    store = FileStore(
        tmp_path / "absolute", clock=clock, absolute_timeout=ABSOLUTE, idle_timeout=IDLE
    )
    site = make_site(store=store, rolling=True)

    def save(here: Here) -> None:
        here.session["n"] = here.session.get("n", 0) + 1

    def prolong(here: Here) -> None:
        here.session.idle_timeout = 10 * ABSOLUTE
        here.session.cookie.max_age = 10 * ABSOLUTE

    acts: list[Callable[[Here], object]] = [
        *(save, lambda here: here.session.touch(), lambda here: here.session.regenerate()),
        *(prolong, lambda here: here.session.save(), lambda here: None),
    ]
    cookie = site.request(log_in).cookie
    born = clock.now
    turn = 0
    while clock.now - born + 900 <= ABSOLUTE:
        clock.advance(900)
        cookie = site.request(acts[turn % len(acts)], cookie=cookie).cookie
        turn += 1
    assert turn == 32
    clock.advance(1)
    found: list[dict[str, Any]] = []
    site.request(lambda here: found.append(dict(here.session)), cookie=cookie)
    assert found == [{}]


# -- brought back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["idle", "absolute"])
def test_a_backup_that_is_put_back_obeys_the_timeouts_of_its_sessions(
    tmp_path: Path, limit: str
) -> None:
    directory, backup = tmp_path / "sessions", tmp_path / "backup"
    clock = ManualClock()
    store = FileStore(directory, clock=clock, absolute_timeout=ABSOLUTE, idle_timeout=IDLE)
    sid = store.create({"user": "ada"}).id
    shutil.copytree(directory, backup, copy_function=shutil.copy2)
    clock.advance(IDLE + 91 if limit == "idle" else 1)
    shutil.rmtree(directory)
    if limit == "absolute":
        clock.advance(ABSOLUTE)
        for path in backup.rglob("*"):
            path.touch()  # as by a copy that keeps no times
    backup.rename(directory)
    restored = FileStore(directory, clock=clock, absolute_timeout=ABSOLUTE, idle_timeout=IDLE)
    assert restored.load(sid) is None
    assert restored.touch(sid) is False


def test_an_operator_ends_every_session_for_the_next_request_on(
    site: Site, store: RecordingStore, seen: Callable[[str | None], dict[str, Any]]
) -> None:
    cookies = [site.request(log_in).cookie for _ in range(3)]
    assert [seen(cookie)["user"] for cookie in cookies] == ["ada"] * 3
    other = FileStore.open(store.directory, clock=store.now)  # as `filesession destroy --all` does
    assert other.clear() == 3
    assert [seen(cookie) for cookie in cookies] == [{}] * 3


def test_a_key_that_leaked_is_dropped_and_its_cookies_open_nothing(
    site: Site, store: RecordingStore, cookie_of: Callable[..., str], sid: str
) -> None:
    def read_by(*secrets: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        gateway = type(site)(site.kind, store, list(secrets))
        gateway.request(lambda here: found.append(dict(here.session)), cookie=cookie_of(sid))
        return found[0]

    assert read_by("third", "second", "the newest secret") == {"user": "ada"}
    assert read_by("third", "second") == {}
    assert read_by("the newest secre") == {}
