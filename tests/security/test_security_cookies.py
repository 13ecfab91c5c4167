"""The cookie against a model of a browser, and the places from which no id is taken.

The model stores or drops a cookie as RFC 6265bis (5.7) and the layered cookies draft say. Every
combination of options is built: what is not refused must be kept, and what is refused would not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.cookies.header import encode_value, set_cookie
from filesession.cookies.policy import CookiePolicy
from filesession.cookies.signing import Signer
from filesession.errors import ConfigurationError

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, Kind, RecordingStore, Server, Site, Wire

HOST: Final = "shop.example.com"
NOW: Final = 1_760_000_000.0
VALUE: Final = Signer("a secret").sign("x" * 43)

OPTIONS: Final[dict[str, list[Any]]] = {
    "name": [
        *("sid", "__Secure-sid", "__Host-sid", "__Http-sid", "__Host-Http-sid"),
        *("__HOST-sid", "__secure-sid"),
    ],
    "secure": [True, False, "auto"],
    "same_site": ["lax", "strict", "none", "auto", None],
    "path": ["/", "/shop"],
    "domain": [None, "example.com", HOST],
    "http_only": [True, False],
    "partitioned": [True, False],
}


def keeps(header: str, *, https: bool) -> bool:
    """Whether a browser keeps the cookie that a response of the host sets."""
    pair, *attributes = [part.strip() for part in header.split(";")]
    name, _, value = pair.partition("=")
    said = {key.lower(): text for key, _, text in (part.partition("=") for part in attributes)}
    secure, domain = "secure" in said, said.get("domain")
    whole_host = said.get("path") == "/" and domain is None
    prefix = name.lower()
    return not (
        not name
        or len(name) + len(value) > 4096
        or (secure and not https)
        or (domain is not None and not f".{HOST}".endswith(f".{domain}"))
        or (said.get("samesite", "").lower() == "none" and not secure)
        or ("partitioned" in said and not secure)
        or (prefix.startswith(("__secure-", "__host-", "__http-")) and not secure)
        or (prefix.startswith("__host-") and not whole_host)
        or (prefix.startswith(("__http-", "__host-http-")) and "httponly" not in said)
    )


def combinations() -> Iterator[dict[str, Any]]:
    for values in product(*OPTIONS.values()):
        yield dict(zip(OPTIONS, values, strict=True))


def written(options: dict[str, Any], *, https: bool) -> str:
    """What a policy of these options would say, were it not refused."""
    same_site = options["same_site"]
    return set_cookie(
        options["name"],
        encode_value(VALUE),
        path=options["path"],
        domain=options["domain"],
        expires=None,
        max_age=None,
        http_only=options["http_only"],
        secure=https if options["secure"] == "auto" else options["secure"],
        partitioned=options["partitioned"],
        priority=None,
        same_site=("none" if https else "lax") if same_site == "auto" else same_site,
    )


def test_what_is_not_refused_is_kept_and_deleted_and_what_is_refused_would_be_dropped() -> None:
    refused = 0
    for options in combinations():
        schemes = [https for https in (True, False) if https or options["secure"] is not True]
        try:
            policy = CookiePolicy(**options)
        except ConfigurationError:
            refused += 1
            kept = [keeps(written(options, https=https), https=https) for https in schemes]
            assert not all(kept), options
            continue
        for https in (True, False):
            assert policy.may_be_sent(https) == (https in schemes)
        for https in schemes:
            announced = policy.announce(VALUE, https=https, now=NOW)
            assert keeps(announced, https=https), options
            assert keeps(policy.expire(https=https), https=https), options
            assert announced == written(options, https=https)
    assert 0 < refused < sum(1 for _ in combinations())


@pytest.mark.parametrize("https", [True, False], ids=["https", "http"])
def test_by_default_scripts_and_other_sites_do_not_get_it_and_it_ends_with_the_browser(
    make_site: Callable[..., Site], *, https: bool
) -> None:
    def write(here: Here) -> None:
        here.session["seen"] = True

    said = make_site().request(write, https=https).set_cookie
    assert said is not None
    assert said.split("; ")[1:] == ["Path=/", "HttpOnly", *["Secure"] * https, "SameSite=Lax"]


def test_with_secure_it_is_bound_to_the_host_and_never_goes_over_plain_http(
    make_site: Callable[..., Site], store: RecordingStore
) -> None:
    def write(here: Here) -> None:
        here.session["seen"] = True

    site = make_site(secure=True)
    said = site.request(write, https=True).set_cookie
    assert said is not None
    assert said.startswith("__Host-sid=")
    assert keeps(said, https=True)
    assert site.request(write).set_cookie is None
    assert store.ids() == 1


def test_the_id_leaves_in_set_cookie_and_nowhere_else(site: Site) -> None:
    def write(here: Here) -> None:
        here.session.regenerate()
        here.session["seen"] = True
        here.body = [repr(here.session).encode(), repr(here.place[here.key].cookie).encode()]

    answer = site.request(write)
    others = [pair for pair in answer.headers if pair[0].lower() != "set-cookie"]
    assert answer.sid not in f"{others}{answer.body!r}"


# -- where no id is taken from --------------------------------------------------------------------


@pytest.fixture
def seen_with(
    kind: Kind, connect: Callable[..., Wire], call: Callable[..., Server]
) -> Callable[..., dict[str, Any]]:
    """The session of a request that has these headers and this query."""
    seen: list[dict[str, Any]] = []

    async def on_asgi(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["session"]))

    def on_wsgi(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(dict(environ["filesession.session"]))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    def request(headers: dict[str, str], query: str = "", path: str = "/") -> dict[str, Any]:
        if kind == "asgi":
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            connect(*raw, query_string=query.encode(), path=path).serve(on_asgi)
        else:
            environ = {
                f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()
            }
            call(**environ, QUERY_STRING=query, PATH_INFO=path).serve(on_wsgi)
        return seen.pop()

    return request


def test_an_id_counts_in_the_cookie_of_that_name_alone(
    seen_with: Callable[..., dict[str, Any]], sid: str, cookie_of: Callable[..., str]
) -> None:
    cookie = cookie_of(sid)
    value = cookie.partition("=")[2]
    assert seen_with({"cookie": cookie}) == {"user": "ada"}
    for headers in (
        {"cookie": f"SID={value}"},
        {"cookie": f"sid2={value}"},
        {"cookie": f"xsid={value}"},
        {"cookie": f"a=sid={value}"},
        {"cookie": value},
        {"cookie2": cookie},
        {"set-cookie": cookie},
        {"authorization": f"Bearer {value}"},
        {"x-session-id": value},
        {"sid": value},
    ):
        assert seen_with(headers) == {}, headers
    assert seen_with({}, query=cookie) == {}
    assert seen_with({}, path=f"/{cookie}") == {}
    assert seen_with({}, path=f"/;{cookie}") == {}
