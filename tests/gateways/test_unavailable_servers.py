"""Real servers whose session directory is taken away and put back while they run."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.serving import PATIENCE, Site, serving

SERVERS: Final = {
    "uvicorn": "uvicorn tests.gateways.unavailable_app:asgi --fd {fd}",
    "gunicorn": "gunicorn tests.gateways.unavailable_app:wsgi -b fd://{fd} --no-control-socket",
}


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def session(self) -> Any:
        return json.loads(self.body)

    @property
    def cookie(self) -> str:
        return self.headers["Set-Cookie"].partition(";")[0]


@pytest.fixture(scope="module", params=SERVERS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with serving(SERVERS[request.param], tmp_path_factory.mktemp("site")) as site:
        yield site


@contextmanager
def away(site: Site) -> Iterator[None]:
    """Inside, the session directory is somewhere else."""
    aside = site.directory.with_name("aside")
    site.directory.rename(aside)
    try:
        yield
    finally:
        aside.rename(site.directory)


def ask(site: Site, path: str, cookie: str | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={} if cookie is None else {"Cookie": cookie})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["respond", "skip"])
def test_the_session_is_there_again_when_the_directory_is(site: Site, kind: str) -> None:
    cookie = ask(site, f"/{kind}/add/first").cookie
    with away(site):
        for path in (f"/{kind}/see", f"/{kind}/add/second"):
            answer = ask(site, path, cookie)
            assert answer.headers["Set-Cookie"] is None
            if kind == "respond":
                assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            else:
                assert (answer.status, answer.session) == (200, None)
        new = ask(site, f"/{kind}/add/third")
        assert new.headers["Set-Cookie"] is None
        if kind == "skip":  # it ran, with a session that was not stored
            assert (new.status, new.session) == (200, {"third": True})
        else:
            assert new.status == 503
        assert ask(site, f"/{kind}/health", cookie).session is None
    assert ask(site, f"/{kind}/see", cookie).session == {"first": True}


def test_outside_what_is_included_nothing_is_known_of_it(site: Site) -> None:
    with away(site):
        for path in ("/", "/else"):
            answer = ask(site, path, "respond=1; skip=1")
            assert (answer.status, answer.session) == (200, None)
            assert answer.headers["Set-Cookie"] is None


@pytest.mark.parametrize("site", ["uvicorn"], indirect=True)
@pytest.mark.parametrize("kind", ["respond", "skip"])
def test_a_websocket_is_turned_away_or_talks_without_a_session(site: Site, kind: str) -> None:
    cookie = ask(site, f"/{kind}/add/first").cookie

    def talk() -> Any:
        with connect(
            f"ws://127.0.0.1:{site.port}/{kind}/see",
            additional_headers={"Cookie": cookie},
            open_timeout=PATIENCE,
            proxy=None,
        ) as websocket:
            return json.loads(websocket.recv(PATIENCE))

    with away(site):
        if kind == "skip":
            assert talk() is None
        else:
            with pytest.raises(InvalidStatus) as caught:
                talk()
            assert caught.value.response.status_code == 503
    assert talk() == {"first": True}
