"""What nginx makes of responses that have a session: protocols, buffers and caches."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from websockets.sync.client import connect

from tests.proxy.proxied import Proxied, Reply
from tests.serving import PATIENCE

pytestmark = pytest.mark.proxy

uvicorn = pytest.mark.parametrize("proxied", ["uvicorn"], indirect=True)


def cookie(answer: Reply) -> tuple[str, str]:
    """The header a browser would send from now on."""
    (found,) = answer.cookies
    return "Cookie", found.partition(";")[0]


def test_over_http_2_the_session_is_found_in_cookie_fields_that_are_split(
    proxied: Proxied,
) -> None:
    """As browsers do (RFC 9113, 8.2.3)."""
    ada = proxied.ask("tls", "/listing/login/ada")
    assert ada.version == "HTTP/2"
    fields = [("Cookie", "before=1"), cookie(ada), ("Cookie", "after=1")]
    assert proxied.ask("tls", "/listing/see/", *fields).page["session"] == {"user": "ada"}


def test_visitors_who_share_the_proxys_connection_share_nothing_else(proxied: Proxied) -> None:
    visitors = {name: cookie(proxied.ask("tls", f"/listing/login/{name}")) for name in "abc"}
    answers = []
    for name, its in [*visitors.items()] * 3:
        answers.append(proxied.ask("tls", f"/listing/add/{name}", its))
        assert answers[-1].page["session"] == {"user": name, name: True}
        assert answers[-1].cookies == []
    assert proxied.ask("tls", "/listing/see/").page["session"] == {}
    connections = [answer.page["client"] for answer in answers]
    assert all(one == other for one, other in pairwise(connections))


@uvicorn
def test_a_websocket_is_upgraded_and_its_cookie_is_secure(proxied: Proxied) -> None:
    url = proxied.url("tls", "/listing/add/x").replace("https", "wss")
    with connect(
        url, ssl=proxied.certificate.trusting(), proxy=None, open_timeout=PATIENCE
    ) as ours:
        page = json.loads(ours.recv(PATIENCE))
        assert page["session"] == {"x": True}
        assert page["scheme"] == "ws"
        assert ours.response is not None
        set_cookie = ours.response.headers["Set-Cookie"]
        assert "; Secure" in set_cookie
        ours.send("said")
        assert ours.recv(PATIENCE) == "said"
    its = ("Cookie", set_cookie.partition(";")[0])
    assert proxied.ask("tls", "/listing/see/", its).page["session"] == {"x": True, "said": True}


def test_the_longest_cookie_passes_the_smallest_default_buffer(proxied: Proxied) -> None:
    answer = proxied.ask("narrow", "/long/add/x")
    assert len(cookie(answer)[1]) > 3100
    assert proxied.ask("narrow", "/long/see/", cookie(answer)).page["session"] == {"x": True}


def test_with_a_large_cookie_of_the_application_the_buffer_must_be_larger(
    proxied: Proxied,
) -> None:
    assert proxied.ask("narrow", "/untrusting/large/3900").status == 502
    own, ours = proxied.ask("wide", "/untrusting/large/3900").cookies
    assert own == f"own={'x' * 3900}"
    assert ours.startswith("sid=")


class TestACache:
    """That keeps whatever does not forbid it, for ten minutes."""

    def test_keeps_what_does_not_look_at_the_session(self, proxied: Proxied) -> None:
        ada = cookie(proxied.ask("app", "/untrusting/login/ada"))
        assert _cached(proxied, "/untrusting/blind/shared", ada) == "MISS"
        assert _cached(proxied, "/untrusting/blind/shared") == "HIT"

    @pytest.mark.parametrize(
        "verb",
        [
            "public",  # the application says so
            "login",  # it says nothing
            "add/careless",  # the cache is told to overlook cookies
        ],
    )
    def test_keeps_nothing_that_sets_the_cookie(self, proxied: Proxied, verb: str) -> None:
        path = f"/untrusting/{verb}" if "/" in verb else f"/untrusting/{verb}/ada"
        first, second = (proxied.ask("caching", path) for _ in range(2))
        assert [first.headers["x-cache"], second.headers["x-cache"]] == ["MISS", "MISS"]
        assert cookie(first) != cookie(second)
        assert first.headers.get_list("cache-control") == ["no-store"]

    def test_keeps_a_page_of_a_session_for_that_session_alone(self, proxied: Proxied) -> None:
        ada, bob = (
            cookie(proxied.ask("app", f"/untrusting/login/{name}")) for name in ("ada", "bob")
        )
        path = "/untrusting/see/mine"
        for its, name in ((ada, "ada"), (bob, "bob")):
            first, second = (proxied.ask("caching", path, its) for _ in range(2))
            assert [first.headers["x-cache"], second.headers["x-cache"]] == ["MISS", "HIT"]
            assert first.page["session"] == second.page["session"] == {"user": name}
        stranger = proxied.ask("caching", path)
        assert (stranger.headers["x-cache"], stranger.page["session"]) == ("MISS", {})


def _cached(proxied: Proxied, path: str, *headers: tuple[str, str]) -> str:
    return proxied.ask("caching", path, *headers).headers["x-cache"]
