"""The Nest-like FastAPI application under its real server, over HTTP and a websocket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from pydantic import ValidationError
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from filesession import FileStore

UVICORN = "-m uvicorn nest_like.main:app --app-dir examples --port {port}"
ROOT = Path(__file__).parent.parent.parent
PATIENCE = 20


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nest_like") / "sessions"


@pytest.fixture(scope="module")
def url(serve: Any, directory: Path) -> Iterator[str]:
    log = directory.parent / "log"
    environment = {
        "FILESESSION_DIR": str(directory),
        "SESSION_SECRETS": "the newest secret,an older secret",
        "SESSION_IDLE_TIMEOUT": "600",
    }
    with serve(*UVICORN.split(), log=log, **environment) as address:
        yield address
    assert "Traceback" not in log.read_text()


@pytest.fixture
def visit(url: str) -> Iterator[Callable[..., httpx.Client]]:
    clients: list[httpx.Client] = []

    def come(name: str | None = None) -> httpx.Client:
        client = httpx.Client(base_url=url, timeout=PATIENCE)
        clients.append(client)
        if name is not None:
            assert client.post("/auth/login", json={"name": name}).json() == {"user": name}
        return client

    yield come
    for client in clients:
        client.close()


Visit = Callable[..., httpx.Client]


def talk(client: httpx.Client) -> ClientConnection:
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    address = str(client.base_url.copy_with(scheme="ws", path="/chat"))
    headers = {"Cookie": cookie}
    return connect(address, additional_headers=headers, open_timeout=PATIENCE, proxy=None)


def test_who_is_not_logged_in_is_refused_and_gets_no_session(visit: Visit) -> None:
    client = visit()
    for method, path in (("GET", "/cart"), ("POST", "/cart/assam"), ("DELETE", "/cart/assam")):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()) == (401, {"detail": "Log in first."})
        assert "set-cookie" not in answer.headers
    with pytest.raises(InvalidStatus) as refused:
        talk(client)
    assert refused.value.response.status_code == 401


def test_a_cart_is_filled_and_emptied(visit: Visit) -> None:
    client = visit("ada")
    client.post("/cart/assam")
    client.post("/cart/sencha")
    assert client.post("/cart/assam").json() == {"cart": {"assam": 2, "sencha": 1}}
    assert client.delete("/cart/sencha").json() == {"cart": {"assam": 2}}
    assert client.get("/cart").json() == {"cart": {"assam": 2}}
    assert client.post("/cart/coffee").status_code == 422


def test_a_login_makes_the_cookie_before_it_worthless_and_keeps_the_cart(
    visit: Visit, url: str
) -> None:
    client = visit("ada")
    client.post("/cart/assam")
    before = dict(client.cookies)
    client.post("/auth/login", json={"name": "eve"})
    assert client.get("/cart").json() == {"cart": {"assam": 1}}
    with httpx.Client(base_url=url, cookies=before, timeout=PATIENCE) as stranger:
        assert stranger.get("/cart").status_code == 401


def test_clicks_at_the_same_time_are_all_in_the_cart(visit: Visit) -> None:
    client = visit("ada")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/cart/oolong"), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    assert client.get("/cart").json() == {"cart": {"oolong": 24}}


def test_more_of_a_tea_than_the_model_allows_is_refused(visit: Visit, directory: Path) -> None:
    client = visit("ada")
    sid = unquote(client.cookies["sid"]).removeprefix("s:").partition(".")[0]
    FileStore(directory, idle_timeout=600).save(sid, {"user": "ada", "cart": {"rooibos": 99}})
    assert client.post("/cart/rooibos").status_code == 409
    assert client.get("/cart").json() == {"cart": {"rooibos": 99}}


def test_what_is_said_is_remembered_from_one_talk_to_the_next(visit: Visit) -> None:
    client = visit("ada")
    with talk(client) as websocket:
        websocket.send("hello")
        assert "hello" in websocket.recv(PATIENCE)
    with talk(client) as websocket:
        websocket.send("again")
        assert websocket.recv(PATIENCE) == '{"user":"ada","said":["hello","again"]}'


def test_a_logout_ends_the_session_and_its_talk(visit: Visit) -> None:
    client = visit("ada")
    with talk(client) as websocket:
        assert client.post("/auth/logout").status_code == 204
        websocket.send("still there")
        with pytest.raises(ConnectionClosedError) as closed:
            websocket.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "You are logged out.")
    assert client.get("/cart").status_code == 401


def test_the_environment_says_where_and_how_long_sessions_are_kept(
    visit: Visit, directory: Path
) -> None:
    visit("ada")
    assert json.loads((directory / "filesession.json").read_text())["idle_timeout"] == 600
    assert not (directory / "secret").exists()


def test_a_setting_is_read_from_the_environment_or_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    from nest_like.settings import Settings  # noqa: PLC0415 - it is found there alone

    monkeypatch.setenv("SESSION_SECRETS", "new,old")
    monkeypatch.setenv("SESSION_IDLE_TIMEOUT", "")
    settings = Settings.from_environment()
    assert (settings.secrets, settings.idle_timeout) == (["new", "old"], 1800)
    monkeypatch.setenv("SESSION_IDLE_TIMEOUT", "half an hour")
    with pytest.raises(
        ValidationError, match="SESSION_IDLE_TIMEOUT\n  Input should be a valid int"
    ):
        Settings.from_environment()


def test_the_interface_it_documents_has_no_session_in_it(visit: Visit) -> None:
    document = visit().get("/openapi.json").json()
    names = {
        parameter["name"]
        for path in document["paths"].values()
        for endpoint in path.values()
        for parameter in endpoint.get("parameters", [])
    }
    assert names == {"tea"}
    assert visit().get("/health").json() == {"status": "up"}
