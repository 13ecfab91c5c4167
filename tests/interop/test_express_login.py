"""An Express app and one of ours behind one host: one cookie, one login, one set of sessions.

With the packages of npm: express, express-session and session-file-store.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from click.testing import CliRunner

from filesession.cli.command import commands
from filesession.cookies.signing import Signer
from filesession.stores import NodeFileStore
from filesession.wsgi import SessionMiddleware
from tests.interop.npm import node, npm_packages
from tests.serving import serving

VERSIONS: Final = {
    "express": "5.3.0",
    "express-session": "1.19.0",
    "session-file-store": "1.5.0",
}

SCRIPT: Final = Path(__file__).with_name("express_app.js")

SIGNER: Final = Signer("new secret")

IDS: Final = ["gFitc4LtncQ5Sd8nu8Clflm2nc06FhiW", "%", "/foo", "abc.def", "h\u00e4\u00df", "a b;c"]

MOVING: Final = re.compile(r'"(?:__lastAccess|expires)":(?:\d+|"[^"]*")')
"""What is another with each request."""


@dataclass(frozen=True)
class Host:
    """Both apps.

    Attributes:
        express: the Express app's URL.
        python: ours.
        directory: where their sessions are.
    """

    express: str
    python: str
    directory: Path

    @property
    def apps(self) -> tuple[str, str]:
        return self.express, self.python

    def other(self, app: str) -> str:
        return self.python if app == self.express else self.express

    def path(self, browser: httpx.Client) -> Path:
        """The file of the browser's session."""
        sid, _ = SIGNER.unsign(cookie_of(browser)) or ("", False)
        return self.directory / f"{sid}.json"


@pytest.fixture(scope="module")
def packages() -> Path:
    return npm_packages(VERSIONS)


@pytest.fixture(scope="module")
def host(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    place = tmp_path_factory.mktemp("shared")
    command = "uvicorn --fd {fd} --log-level warning tests.interop.shared_app:app"
    with (
        serving(command, place) as ours,
        node(SCRIPT, packages=packages, env={"STORE": str(ours.directory)}) as theirs,
    ):
        express, python = (f"http://127.0.0.1:{port}" for port in (theirs.port, ours.port))
        yield Host(express, python, ours.directory)
        assert "Error" not in theirs.output


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    """Its cookies are the host's, whatever the port, as a browser has them."""
    with httpx.Client(timeout=20) as client:
        yield client


def cookie_of(browser: httpx.Client) -> str:
    """The value of the browser's cookie, decoded."""
    return httpx.URL(f"http://x/?v={browser.cookies['connect.sid']}").params["v"]


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    cookie: str | None


def answer(app: str, path: str, cookie: str) -> Response:
    """What one request with that cookie gets, on a connection of its own."""
    connection = http.client.HTTPConnection(httpx.URL(app).netloc.decode(), timeout=20)
    try:
        connection.request("GET", path, headers={"Cookie": f"connect.sid={cookie}"})
        response = connection.getresponse()
        sent = re.search("connect.sid=([^;]*)", response.headers["Set-Cookie"] or "")
        return Response(response.status, response.read(), sent[1] if sent else None)
    finally:
        connection.close()


def ask(browser: httpx.Client, app: str, path: str) -> dict[str, Any]:
    response = browser.get(app + path)
    assert response.status_code == 200, response.text
    page = response.json()["session"]
    assert isinstance(page, dict)
    return page


@pytest.fixture(params=["express", "python"])
def app(host: Host, request: pytest.FixtureRequest) -> str:
    """The one of the two where a test begins."""
    return host.express if request.param == "express" else host.python


def test_a_login_at_one_is_a_login_at_the_other_and_so_is_a_logout(
    host: Host, browser: httpx.Client, app: str
) -> None:
    other = host.other(app)
    assert ask(browser, app, "/login/ada") == {"user": "ada"}
    assert ask(browser, other, "/count") == {"user": "ada", "count": 1}
    assert ask(browser, app, "/count") == {"user": "ada", "count": 2}
    assert ask(browser, other, "/see") == {"user": "ada", "count": 2}
    path, cookie = host.path(browser), browser.cookies["connect.sid"]
    assert path.exists()
    ask(browser, other, "/logout")
    assert not path.exists()
    for each in host.apps:  # the cookie that another browser may still have opens nothing
        assert json.loads(answer(each, "/see", cookie).body)["session"] == {}
    assert not path.exists()


def test_a_login_over_a_session_of_the_other_gives_it_a_new_id(
    host: Host, browser: httpx.Client, app: str
) -> None:
    ask(browser, host.other(app), "/count")
    before = host.path(browser)
    assert ask(browser, app, "/login/ada") == {"user": "ada"}
    after = host.path(browser)
    assert (before.exists(), after.exists()) == (False, True)
    assert ask(browser, host.other(app), "/see") == {"user": "ada"}


def test_who_is_remembered_by_express_is_remembered(host: Host, browser: httpx.Client) -> None:
    ask(browser, host.express, "/remember/ada")
    response = browser.get(host.python + "/count")
    assert "max-age=86400" in response.headers["set-cookie"].lower()
    stored = json.loads(host.path(browser).read_text())
    assert stored["cookie"]["originalMaxAge"] == 86_400_000
    response = browser.get(host.express + "/count")
    assert "expires=" in response.headers["set-cookie"].lower()
    assert response.json()["session"]["count"] == 2


def test_a_cookie_of_the_old_secret_is_good_at_both_and_ours_signs_it_anew(
    host: Host, browser: httpx.Client, app: str
) -> None:
    ask(browser, app, "/login/ada")
    sid = host.path(browser).stem
    for each in host.apps:
        response = answer(each, "/see", quote(Signer("old secret").sign(sid), safe=""))
        assert json.loads(response.body)["session"] == {"user": "ada"}
        if each == host.python:
            assert response.cookie == browser.cookies["connect.sid"]
    for wrong in (quote(Signer("another").sign(sid), safe=""), sid, f"s:{sid}"):
        for each in host.apps:
            assert json.loads(answer(each, "/see", wrong).body)["session"] == {}


def test_each_verifies_what_the_other_signed_whatever_store_it_has(packages: Path) -> None:
    with node(SCRIPT, packages=packages, env={"STORE": "none"}) as express:
        url = f"http://127.0.0.1:{express.port}"
        for sid in IDS:
            ours = quote(SIGNER.sign(sid), safe="")
            assert json.loads(answer(url, "/see", ours).body)["session"] == {"verified": sid}
        forged = quote(Signer("another").sign("x"), safe="")
        assert json.loads(answer(url, "/see", forged).body)["session"] == {}
        with httpx.Client() as client:
            page = client.get(f"{url}/count").json()
            assert SIGNER.unsign(cookie_of(client)) == (page["id"], True)


def test_many_requests_at_once_tear_nothing_and_python_loses_nothing_of_its_own(
    host: Host, browser: httpx.Client
) -> None:
    ask(browser, host.python, "/login/ada")
    alone = browser.cookies["connect.sid"]
    with httpx.Client() as other:
        ask(other, host.express, "/login/eve")
        common = other.cookies["connect.sid"]

    def request(number: int) -> list[int]:
        paths = [
            (host.python, f"/add/key{number}", alone),
            (host.python, f"/add/key{number}", common),
            (host.express, "/count", common),
            (host.express, "/see", common),
        ]
        return [answer(app, path, cookie).status for app, path, cookie in paths]

    with ThreadPoolExecutor(8) as threads:
        codes = [code for result in threads.map(request, range(24)) for code in result]
    assert set(codes) == {200}
    for path in host.directory.iterdir():
        assert path.suffix == ".json"
        assert {"cookie", "__lastAccess"} < set(json.loads(path.read_text()))
    expected = {"user": "ada"} | {f"key{number}": True for number in range(24)}
    assert ask(browser, host.python, "/see") == expected
    assert ask(browser, host.express, "/see") == expected
    page = json.loads(answer(host.python, "/see", common).body)["session"]
    assert (page["user"], page["count"] > 0) == ("eve", True)


OWN: Final = {"same_site": "lax", "priority": "high", "max_age": 60}

VALUES: Final = {
    "text": 'quote " backslash \\ slash / \u00e9 \u4e16 \U0001f36a \u2028 \x1f \x7f',
    "numbers": [0, -1, 1.5, 0.1, 1e-7, 1.5e-6, 1e21, 1.5e300, 5e-324, 9007199254740991, 2.0**60],
    "nested": {"10": 1, "9": [None, True, {"": {}}], "a": [[]]},
    "7": "first",
}


def test_the_bytes_are_those_that_express_writes(packages: Path, tmp_path: Path) -> None:
    store = NodeFileStore(tmp_path / "sessions")
    env = {"STORE": store.directory, "RESAVE": "yes"}
    with node(SCRIPT, packages=packages, env=env) as express, httpx.Client() as client:
        url = f"http://127.0.0.1:{express.port}"
        client.post(f"{url}/put", json=VALUES).raise_for_status()
        ask(client, url, "/count")  # which comes to stand behind the last access
        sid, _ = SIGNER.unsign(cookie_of(client)) or ("", False)
        path = Path(store.directory, f"{sid}.json")
        theirs = path.read_text("utf-8")
        record = store.load(sid)
        assert record is not None
        store.save(sid, record.data, base=record)
        assert still(path.read_text("utf-8")) == still(theirs)
        record.data["more"] = [VALUES["numbers"]]
        store.save(sid, record.data, base=record, cookie=OWN)
        ours = path.read_text("utf-8")
        ask(client, url, "/see")  # which saves it again
        assert still(path.read_text("utf-8")) == still(ours)
        assert path.read_text("utf-8") != ours


def still(text: str) -> str:
    return MOVING.sub("", text)


def counting(environ: Any, start_response: Any) -> list[bytes]:
    session = environ["filesession.session"]
    session["count"] = session.get("count", 0) + 1
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(session).encode()]


def test_after_a_migration_the_old_cookie_opens_the_session_in_a_directory_of_ours(
    packages: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "express", tmp_path / "sessions"
    with node(SCRIPT, packages=packages, env={"STORE": str(source)}) as express:
        url = f"http://127.0.0.1:{express.port}"
        cookies = {}
        for path in ("/login/ada", "/remember/eve"):
            with httpx.Client() as client:
                ask(client, url, path)
                cookies[path] = client.cookies["connect.sid"]
    result = CliRunner().invoke(commands, ["migrate", str(source), str(target)])
    assert result.stdout.startswith("moved 2 sessions")
    ours = SessionMiddleware(counting, target, secret="new secret", name="connect.sid")
    with httpx.Client(transport=httpx.WSGITransport(app=ours)) as client:
        for path, cookie in cookies.items():
            response = client.get("http://x/", headers={"Cookie": f"connect.sid={cookie}"})
            assert response.json() == {"user": path.rpartition("/")[2], "count": 1}
            remembered = "max-age=86400" in response.headers.get("set-cookie", "").lower()
            assert remembered == path.startswith("/remember")
    with node(SCRIPT, packages=packages, env={"STORE": str(source)}) as express:
        for cookie in cookies.values():  # it is no longer Express's
            page = answer(f"http://127.0.0.1:{express.port}", "/see", cookie)
            assert json.loads(page.body)["session"] == {}
