"""Sessions under real servers with several workers, on sockets of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedOK

from filesession import FileStore
from tests.serving import PATIENCE, Door, Site, serving

SERVERS = {
    "uvicorn": "uvicorn tests.gateways.server_app:asgi --workers 2 --fd {fd}",
    "gunicorn": "gunicorn tests.gateways.server_app:wsgi -w 2 -b fd://{fd} --no-control-socket",
    "gthread": "gunicorn tests.gateways.server_app:wsgi -w 2 -b fd://{fd} --no-control-socket"
    " -k gthread --threads 4",
}


@pytest.fixture(scope="module", params=SERVERS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with serving(SERVERS[request.param], tmp_path_factory.mktemp("site")) as site:
        yield site


uvicorn = pytest.mark.parametrize("site", ["uvicorn"], indirect=True)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_the_workers_share_the_key_that_the_directory_keeps(
    site: Site, pool: ThreadPoolExecutor
) -> None:
    cookie = site.start()
    workers: set[int] = set()
    for _ in range(100):
        answers = list(pool.map(site.ask, ["/see"] * 8, [cookie] * 8))
        assert all(answer.session == {"started": True} for answer in answers)
        workers |= {answer.worker for answer in answers}
        if len(workers) == 2:
            return
    pytest.fail("only one worker answered")


def test_parallel_requests_that_add_to_one_session_lose_nothing(
    site: Site, pool: ThreadPoolExecutor
) -> None:
    cookie = site.start()
    keys = [f"key{number}" for number in range(64)]
    answers = list(pool.map(site.ask, [f"/add/{key}" for key in keys], [cookie] * len(keys)))
    assert {(answer.status, answer.cookie) for answer in answers} == {(200, None)}
    assert site.ask("/see", cookie).session == dict.fromkeys(["started", *keys], True)


def test_a_counter_under_the_sessions_lock_is_exact(site: Site, pool: ThreadPoolExecutor) -> None:
    cookie = site.start()
    answers = list(pool.map(site.ask, ["/count"] * 64, [cookie] * 64))
    assert sorted(answer.session["count"] for answer in answers) == list(range(1, 65))
    assert site.ask("/see", cookie).session["count"] == 64


def test_a_redirect_never_outruns_the_save(site: Site, door: Door) -> None:
    cookie = site.start()
    seen: list[dict[str, Any]] = []

    def follow() -> None:
        door.let_go_after(lambda: seen.append(site.ask("/see", cookie).session))

    answer = site.ask(f"/redirect/{door.port}", cookie, before_the_page=follow)
    assert answer.status == 303
    assert seen == [{"started": True, "redirect": True}]


def test_a_session_logged_out_while_a_slow_request_is_under_way_stays_gone(
    site: Site, pool: ThreadPoolExecutor, door: Door
) -> None:
    cookie = site.start()
    before = len(FileStore(site.directory))
    answer = pool.submit(site.ask, f"/slow/{door.port}", cookie)
    door.let_go_after(lambda: site.ask("/logout", cookie))
    slow = answer.result(PATIENCE)
    assert (slow.status, slow.cookie) == (200, None)
    assert slow.session["after"]  # it wrote, and in vain
    assert site.ask("/see", cookie).session == {}
    assert len(FileStore(site.directory)) == before - 1


def test_a_slow_request_keeps_what_others_added_meanwhile(
    site: Site, pool: ThreadPoolExecutor, door: Door
) -> None:
    cookie = site.start()
    answer = pool.submit(site.ask, f"/slow/{door.port}", cookie)
    door.let_go_after(lambda: site.ask("/add/meanwhile", cookie))
    assert answer.result(PATIENCE).status == 200
    keys = ["started", "meanwhile", "slow", "after"]
    assert site.ask("/see", cookie).session == dict.fromkeys(keys, True)


@uvicorn
def test_a_websocket_sees_and_changes_the_session(site: Site) -> None:
    cookie = site.start()
    with site.talk(cookie) as websocket:
        assert site.ask("/see", cookie).session == {"started": True, "connected": True}
        websocket.send("/add/said")
        assert json.loads(websocket.recv(PATIENCE))["session"]["said"]
        websocket.send("/save")
        websocket.recv(PATIENCE)
        assert site.ask("/see", cookie).session["said"]
        websocket.send("/add/last")
        websocket.recv(PATIENCE)
        websocket.send("/bye")
        with pytest.raises(ConnectionClosedOK):
            websocket.recv(PATIENCE)
        assert site.ask("/see", cookie).session["last"]


@uvicorn
def test_a_new_session_of_a_websocket_gets_its_cookie_with_the_handshake(site: Site) -> None:
    with site.talk("unrelated=1") as websocket:
        assert websocket.response is not None
        cookie = websocket.response.headers["Set-Cookie"].partition(";")[0]
        assert site.ask("/see", cookie).session == {"connected": True}


@uvicorn
def test_a_session_logged_out_while_its_websocket_is_open_stays_gone(site: Site) -> None:
    cookie = site.start()
    with site.talk(cookie) as websocket:
        site.ask("/logout", cookie)
        websocket.send("/add/late")
        websocket.recv(PATIENCE)
        websocket.send("/bye")
        with pytest.raises(ConnectionClosedOK):
            websocket.recv(PATIENCE)
    assert site.ask("/see", cookie).session == {}
