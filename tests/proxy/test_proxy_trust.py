"""Whether a request came over TLS, when a proxy says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from filesession import FileStore
from tests.certificates import Certificate
from tests.programs import required
from tests.proxy.nginx import nginx
from tests.proxy.proxied import OVERWRITING, READING, SERVERS, Proxied, Reply, behind_nginx
from tests.serving import serving

pytestmark = pytest.mark.proxy

FORGED: Final = ("X-Forwarded-Proto", "https")


def secure(answer: Reply) -> bool:
    """Whether the one cookie that was set has Secure."""
    (cookie,) = answer.cookies
    assert cookie.startswith("sid=")
    return "; Secure" in cookie


@pytest.mark.parametrize(
    ("way", "options", "expected"),
    [
        ("tls", "untrusting", False),
        ("tls", "trusting", True),
        ("tls", "listing", True),
        ("plain", "trusting", False),
        ("plain", "listing", False),
        ("tlstwice", "listing", True),  # "https, http": the first is what the visitor used
        ("tlsforgotten", "listing", False),  # the inner one has overwritten what the outer said
    ],
)
def test_the_cookie_is_secure_where_a_trusted_proxy_says_that_the_visitor_came_over_tls(
    proxied: Proxied, way: str, options: str, *, expected: bool
) -> None:
    answer = proxied.ask(way, f"/{options}/add/x")
    assert secure(answer) is expected
    assert answer.page["scheme"] == "http"
    assert answer.page["client"][0] == "127.0.0.2"


@pytest.mark.parametrize(
    ("way", "options", "believed"),
    [
        ("app", "untrusting", False),
        ("app", "listing", False),  # it passed the proxy by
        ("app", "trusting", True),  # so this is for servers that only their proxy can reach
        ("plain", "listing", False),  # the proxy overwrites it
        ("appending", "listing", True),  # so the first one must overwrite
    ],
)
def test_a_visitor_who_says_https_is_believed_only_where_the_way_in_leaves_it_to_him(
    proxied: Proxied, way: str, options: str, *, believed: bool
) -> None:
    assert secure(proxied.ask(way, f"/{options}/add/x", FORGED)) is believed


def test_another_spelling_of_the_header_comes_to_nothing(proxied: Proxied) -> None:
    assert not secure(proxied.ask("app", "/trusting/add/x", ("X_Forwarded_Proto", "https")))


def test_with_secure_the_cookie_has_the_hosts_prefix_and_comes_over_tls_alone(
    proxied: Proxied,
) -> None:
    (cookie,) = proxied.ask("tls", "/secure/add/x").cookies
    assert re.fullmatch("__Host-sid=[^;]+; Path=/; HttpOnly; Secure; SameSite=Lax", cookie)
    store = FileStore(proxied.site.directory)
    before = len(store)
    for way, options in (("plain", "secure"), ("tls", "withheld"), ("app", "secure")):
        answer = proxied.ask(way, f"/{options}/add/x")
        assert answer.cookies == []
        assert answer.page["session"] == {"x": True}
    assert len(store) == before


def test_a_session_goes_on_through_either_proxy_and_is_regenerated_and_ended(
    proxied: Proxied,
) -> None:
    def carried(answer: Reply) -> tuple[str, str]:
        return "Cookie", answer.cookies[0].partition(";")[0]

    guest = carried(proxied.ask("tls", "/secure/add/x"))
    user = carried(proxied.ask("tlstwice", "/secure/login/ada", guest))
    assert proxied.ask("tls", "/secure/see/", guest).page["session"] == {}
    assert proxied.ask("tls", "/secure/see/", user).page["session"] == {"x": True, "user": "ada"}
    (expired,) = proxied.ask("tls", "/secure/logout/", user).cookies
    assert "; Max-Age=0" in expired
    assert "; Secure" in expired
    assert proxied.ask("tls", "/secure/see/", user).page["session"] == {}


@pytest.fixture
def reading(
    request: pytest.FixtureRequest, certificate: Certificate, tmp_path: Path
) -> Iterator[Proxied]:
    """A server that believes the proxy by itself."""
    required("nginx")
    with behind_nginx(READING[request.param], tmp_path, certificate) as proxied:
        yield proxied


@pytest.mark.parametrize("reading", READING, indirect=True)
def test_a_server_that_reads_the_header_itself_needs_no_trust(reading: Proxied) -> None:
    answer = reading.ask("tls", "/untrusting/add/x")
    assert secure(answer)
    assert answer.page["scheme"] == "https"
    assert not secure(reading.ask("app", "/untrusting/add/x", FORGED))
    twice = reading.ask("tlstwice", "/untrusting/add/x")
    assert not secure(twice)  # neither server reads a list
    assert twice.page["scheme"] == "http"
    assert secure(reading.ask("tlstwice", "/trusting/add/x"))


@pytest.mark.parametrize(
    ("reading", "client"),
    [("uvicorn", "127.0.0.1"), ("gunicorn", "127.0.0.2")],
    indirect=["reading"],
)
def test_a_server_that_takes_the_visitor_for_the_client_hides_the_proxy_from_the_list(
    reading: Proxied, client: str
) -> None:
    answer = reading.ask("tlstwice", "/listing/add/x")
    assert answer.page["client"][0] == client
    assert secure(answer) is (client == "127.0.0.2")


@pytest.mark.parametrize(
    ("server", "believed"),
    [
        ("uvicorn", {"trusting"}),
        ("gunicorn", {"trusting", "listing", "untrusting"}),  # it believes any Unix socket
    ],
)
def test_over_a_unix_socket_the_proxy_has_no_address_that_could_be_listed(
    tmp_path: Path, certificate: Certificate, server: str, believed: set[str]
) -> None:
    required("nginx")
    place, unix = tmp_path / "nginx", tmp_path / "unix"
    place.mkdir()
    way = f"""listen <tls> ssl; proxy_bind off;
        location / {{ proxy_pass http://unix:{unix}; {OVERWRITING} }}"""
    with (
        serving(SERVERS[server], tmp_path, unix=unix) as site,
        nginx(place, {"tls": way}, certificate) as ports,
        closing(Proxied(site, ports, certificate)) as proxied,
    ):
        for options in ("trusting", "listing", "untrusting"):
            assert secure(proxied.ask("tls", f"/{options}/add/x")) is (options in believed)
