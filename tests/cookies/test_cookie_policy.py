"""What a policy announces, and everything it refuses to be."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import filesession.cookies
from filesession.cookies.policy import CookiePolicy
from filesession.cookies.signing import Signer
from filesession.errors import ConfigurationError

VECTORS: Final = json.loads(
    (Path(__file__).parents[1] / "vectors" / "express_cookie_signature.json").read_text("utf-8")
)

NOW: Final = 784111777.25  # Sun, 06 Nov 1994 08:49:37 GMT


def refused(match: str | None = None, **options: Any) -> None:
    with pytest.raises(ConfigurationError, match=match):
        CookiePolicy(**options)


def attributes(header: str) -> list[str]:
    return header.split("; ")[1:]


# --- what a policy says -------------------------------------------------------------------------


def test_the_defaults_are_those_of_a_plain_session_cookie() -> None:
    policy = CookiePolicy()
    assert policy.announce("s:a.b", https=False, now=NOW) == (
        "sid=s%3Aa.b; Path=/; HttpOnly; SameSite=Lax"
    )
    assert policy.announce("s:a.b", https=True, now=NOW) == (
        "sid=s%3Aa.b; Path=/; HttpOnly; Secure; SameSite=Lax"
    )


def test_every_attribute_is_announced_in_the_order_of_express() -> None:
    policy = CookiePolicy(
        name="connect.sid",
        path="/app",
        domain=".example.com",
        secure=True,
        http_only=True,
        same_site="none",
        partitioned=True,
        priority="high",
        max_age=3600,
    )
    assert policy.announce("v", https=True, now=NOW) == (
        "connect.sid=v; Domain=.example.com; Path=/app; Expires=Sun, 06 Nov 1994 09:49:37 GMT; "
        "Max-Age=3600; HttpOnly; Secure; Partitioned; Priority=High; SameSite=None"
    )


@pytest.mark.parametrize("vector", [VECTORS["setCookie"][0], VECTORS["setCookie"][3]])
def test_a_policy_without_max_age_writes_what_express_writes(vector: dict[str, Any]) -> None:
    options = vector["options"]
    policy = CookiePolicy(
        name=vector["name"],
        path=options["path"],
        secure=False,
        http_only=options["httpOnly"],
        same_site=options.get("sameSite"),
        priority=options.get("priority"),
    )
    assert policy.announce(vector["value"], https=True, now=NOW) == vector["header"]


@pytest.mark.parametrize(
    ("secure", "https", "has_secure"),
    [
        ("auto", True, True),
        ("auto", False, False),
        (True, True, True),
        (True, False, True),
        (False, True, False),
    ],
)
def test_secure_auto_follows_the_request(secure: Any, https: Any, has_secure: Any) -> None:
    policy = CookiePolicy(secure=secure)
    assert ("Secure" in attributes(policy.announce("v", https=https, now=NOW))) == has_secure
    assert ("Secure" in attributes(policy.expire(https=https))) == has_secure


@pytest.mark.parametrize(
    ("same_site", "https", "text"),
    [
        ("lax", True, "SameSite=Lax"),
        ("strict", True, "SameSite=Strict"),
        (True, True, "SameSite=Strict"),
        ("auto", True, "SameSite=None"),
        ("auto", False, "SameSite=Lax"),
        (False, True, None),
        (None, True, None),
    ],
)
def test_same_site_is_written_as_asked(same_site: Any, https: Any, text: str | None) -> None:
    policy = CookiePolicy(same_site=same_site)
    for header in (policy.announce("v", https=https, now=NOW), policy.expire(https=https)):
        written = [one for one in attributes(header) if one.startswith("SameSite")]
        assert written == ([] if text is None else [text])


def test_same_site_auto_is_none_only_beside_secure() -> None:
    for secure in ("auto", True):
        policy = CookiePolicy(same_site="auto", secure=secure)
        assert attributes(policy.announce("v", https=True, now=NOW)) == [
            "Path=/",
            "HttpOnly",
            "Secure",
            "SameSite=None",
        ]


def test_without_max_age_nothing_is_said_of_a_lifetime() -> None:
    header = CookiePolicy().announce("v", https=True, now=NOW)
    assert "Expires" not in header
    assert "Max-Age" not in header


def test_the_expiry_moves_with_the_time_and_is_never_remembered() -> None:
    policy = CookiePolicy(max_age=60)
    assert "08:50:37" in policy.announce("v", https=True, now=NOW)
    assert "08:50:38" in policy.announce("v", https=True, now=NOW + 1)
    assert "08:50:37" in policy.announce("v", https=True, now=NOW)


def test_a_cookie_that_outlives_the_calendar_ends_with_it() -> None:
    header = CookiePolicy(max_age=253402300799).announce("v", https=True, now=NOW)
    assert "Expires=Fri, 31 Dec 9999 23:59:59 GMT; Max-Age=253402300799" in header


def test_two_policies_do_not_share_what_they_say() -> None:
    shop, admin = CookiePolicy(path="/shop"), CookiePolicy(path="/admin", name="admin")
    assert shop.announce("v", https=True, now=NOW).startswith("sid=v; Path=/shop;")
    assert admin.announce("v", https=True, now=NOW).startswith("admin=v; Path=/admin;")
    assert shop.announce("v", https=True, now=NOW).startswith("sid=v; Path=/shop;")


def test_a_value_that_has_no_utf_8_form_cannot_be_announced() -> None:
    with pytest.raises(UnicodeEncodeError):
        CookiePolicy().announce("\ud800", https=True, now=NOW)


def test_an_expired_cookie_is_empty_and_long_over() -> None:
    assert CookiePolicy().expire(https=True) == (
        "sid=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Secure; "
        "SameSite=Lax"
    )


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "path": st.sampled_from(["/", "/app"]),
            "domain": st.sampled_from(["example.com", ".example.com"]),
            "http_only": st.booleans(),
            "same_site": st.sampled_from(["lax", "strict", "none", "auto", None]),
            "partitioned": st.booleans(),
            "priority": st.sampled_from(["low", "high"]),
            "max_age": st.integers(1, 10**6),
        },
    ),
    st.sampled_from([True, "auto"]),
    st.booleans(),
)
def test_deleting_repeats_every_attribute_but_the_lifetime(
    options: dict[str, Any], secure: Any, https: Any
) -> None:
    if secure != "auto" or not (options.get("partitioned") or options.get("same_site") == "none"):
        policy = CookiePolicy(secure=secure, **options)
        announced = attributes(policy.announce("v", https=https, now=NOW))
        kept = [one for one in announced if not one.startswith(("Expires=", "Max-Age="))]
        deleting = attributes(policy.expire(https=https))
        deleting.remove("Expires=Thu, 01 Jan 1970 00:00:00 GMT")
        deleting.remove("Max-Age=0")
        assert deleting == kept


def test_only_a_secure_cookie_over_plain_http_is_held_back() -> None:
    assert not CookiePolicy(secure=True).may_be_sent(https=False)
    assert CookiePolicy(secure=True).may_be_sent(https=True)
    for secure in (False, "auto"):
        for https in (True, False):
            assert CookiePolicy(secure=secure).may_be_sent(https)


# --- the paths it covers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "path", "covered"),
    [
        ("/", "/", True),
        ("/", "", True),
        ("/", "*", True),
        ("/", "/any/where", True),
        ("/foo", "/foo", True),
        ("/foo", "/foo/", True),
        ("/foo", "/foo/bar", True),
        ("/foo", "/foobar", False),
        ("/foo", "/fo", False),
        ("/foo", "/Foo", False),
        ("/foo", "/bar/foo", False),
        ("/foo", "/", False),
        ("/foo", "", False),
        ("/foo/", "/foo/", True),
        ("/foo/", "/foo/bar", True),
        ("/foo/", "/foo", False),
        ("/foo/", "/foobar", False),
        ("/foo/bar", "/foo/bar/baz", True),
    ],
)
def test_paths_match_as_rfc_6265_says(own: str, path: str, covered: Any) -> None:
    assert CookiePolicy(path=own).covers(path) is covered


@given(
    st.lists(st.sampled_from(["/", "a", "b"]), max_size=6).map(lambda parts: "/" + "".join(parts)),
    st.lists(st.sampled_from(["/", "a", "b"]), max_size=6).map(lambda parts: "/" + "".join(parts)),
)
def test_a_path_is_covered_when_it_lies_in_the_subtree(own: str, path: str) -> None:
    subtree = own if own.endswith("/") else f"{own}/"
    assert CookiePolicy(path=own).covers(path) == (path == own or path.startswith(subtree))


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"secure": True}, "__Host-sid"),
        ({}, "sid"),
        ({"secure": False}, "sid"),
        ({"secure": True, "path": "/app"}, "sid"),
        ({"secure": True, "domain": "example.com"}, "sid"),
        ({"secure": True, "name": "mine"}, "mine"),
    ],
)
def test_the_name_is_host_bound_where_the_attributes_allow(
    options: dict[str, Any], name: str
) -> None:
    assert CookiePolicy(**options).name == name


@pytest.mark.parametrize("name", ["connect.sid", "!#$%&'*+-.^_`|~09AZaz", "x" * 512, "$Path", "_"])
def test_a_token_is_a_name(name: str) -> None:
    assert CookiePolicy(name=name).announce("v", https=True, now=NOW).startswith(f"{name}=v; ")


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a=b", "a;b", "a,b", 'a"b', "a/b", "(a)", "a\n", "é", "a\x7f", b"sid", 1],
)
def test_what_is_no_token_is_no_name(name: Any) -> None:
    refused("name=None chooses one", name=name)


def test_a_name_that_leaves_no_room_is_refused() -> None:
    refused("shorter", name="x" * 513)


@pytest.mark.parametrize("character", ["😀", "\U0010ffff"])
def test_the_longest_name_and_the_longest_id_fit_in_4096_bytes(character: str) -> None:
    assert len(character.encode()) == 4
    for secret in range(64):  # signatures differ in how many of their characters are escaped
        value = Signer(str(secret)).sign(character * 256)
        header = CookiePolicy(name="x" * 512).announce(value, https=True, now=NOW)
        assert len(header.partition(";")[0].encode()) <= 4096
    worst_signature = "/" * 43
    header = CookiePolicy(name="x" * 512).announce(
        f"s:{character * 256}.{worst_signature}", https=True, now=NOW
    )
    assert len(header.partition(";")[0].replace("=", "").encode()) == 512 + 3206


# --- prefixes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, "auto"])
@pytest.mark.parametrize("name", ["__Secure-a", "__Host-a", "__Http-a", "__Host-Http-a", "__host-"])
def test_a_prefix_needs_secure(name: str, secure: Any) -> None:
    assert CookiePolicy(name=name, secure=True).name == name
    refused("secure=True", name=name, secure=secure)


@pytest.mark.parametrize("options", [{"path": "/app"}, {"domain": "example.com"}])
def test_host_prefixes_need_the_whole_host_and_no_more(options: dict[str, Any]) -> None:
    for name in ("__Host-a", "__Host-Http-a"):
        refused("path='/' and domain=None", name=name, secure=True, **options)
    for name in ("__Secure-a", "__Http-a", "a__Host-"):
        assert CookiePolicy(name=name, secure=True, **options).name == name


def test_http_prefixes_need_http_only() -> None:
    for name in ("__Http-a", "__Host-Http-a"):
        refused("http_only=True", name=name, secure=True, http_only=False)
    for name in ("__Secure-a", "__Host-a", "a__Http-"):
        assert not CookiePolicy(name=name, secure=True, http_only=False).http_only


@given(st.sampled_from(["__secure-", "__host-", "__http-", "__host-http-"]), st.data())
def test_case_makes_no_difference_to_a_prefix(prefix: str, data: st.DataObject) -> None:
    upper = data.draw(st.lists(st.booleans(), min_size=len(prefix), max_size=len(prefix)))
    pairs = zip(prefix, upper, strict=True)
    refused(name="".join(one.upper() if up else one for one, up in pairs) + "a")


# --- values and combinations --------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, "auto"])
def test_same_site_none_needs_secure_and_the_other_way_is_told(secure: Any) -> None:
    assert CookiePolicy(same_site="none", secure=True).same_site == "none"
    refused('same_site="auto" with secure="auto"', same_site="none", secure=secure)


def test_same_site_auto_needs_a_cookie_that_may_be_secure() -> None:
    refused('secure="auto" or secure=True', same_site="auto", secure=False)


@pytest.mark.parametrize("secure", [False, "auto"])
def test_partitioned_needs_secure(secure: Any) -> None:
    assert CookiePolicy(partitioned=True, secure=True).partitioned
    refused("secure=True", partitioned=True, secure=secure)


@pytest.mark.parametrize(
    "path", ["/", "/a", "//", "/a b", "/a<b>,=%20\"'", "/~", "/" + "a" * 1023, "/" + "a/" * 511]
)
def test_a_printable_path_is_taken_as_it_is(path: str) -> None:
    header = CookiePolicy(path=path).announce("v", https=True, now=NOW)
    assert header == f"sid=v; Path={path}; HttpOnly; Secure; SameSite=Lax"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        " /",
        "/;",
        "/a; Domain=evil.example",
        "/\n",
        "/a\r\nX: y",
        "/\x00",
        "/\x7f",
        "/\t",
        "/é",
        "/\udcff",
        "/a ",
        "/ ",
        "/" + "a" * 1024,
        None,
        b"/",
        1,
    ],
)
def test_a_path_that_browsers_would_read_otherwise_is_refused(path: Any) -> None:
    refused("path must start with '/'", path=path)


LONG_DOMAIN: Final = ".".join(["a" * 63] * 16)  # 1023 bytes


@pytest.mark.parametrize(
    "domain",
    [
        "example.com",
        ".example.com",
        "localhost",
        "EXAMPLE.com",
        "a-b.c1",
        "xn--bcher-kva.example",
        "127.0.0.1",
        "a" * 63,
        LONG_DOMAIN,
        "." + LONG_DOMAIN,
    ],
)
def test_a_host_name_is_a_domain(domain: str) -> None:
    header = CookiePolicy(domain=domain).announce("v", https=True, now=NOW)
    assert header.startswith(f"sid=v; Domain={domain}; Path=/; ")


@pytest.mark.parametrize(
    "domain",
    [
        "",
        ".",
        "..a",
        "a..b",
        "a.",
        "-a.com",
        "a-.com",
        "a_b.com",
        "a b",
        "a\n",
        "a;b",
        "a.com; Secure",
        "a.com:443",
        "https://a.com",
        "bücher.example",
        "\u212a.com",  # the Kelvin sign is a k to a regex that ignores case
        "[::1]",
        "a" * 64,
        "." + LONG_DOMAIN + ".a",
        b"a.com",
        1,
        False,
    ],
)
def test_what_npm_cookie_refuses_as_a_domain_is_refused(domain: Any) -> None:
    refused("None: this host alone", domain=domain)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("secure", [None, 1, 0, "", "always", "True", []]),
        ("http_only", [None, 1, 0, "auto", "yes"]),
        ("same_site", [1, 0, "", "Lax", "bogus", "None", b"lax", ["lax"]]),
        ("partitioned", [None, 1, "auto"]),
        ("priority", ["", "High", "bogus", True, 1]),
    ],
)
def test_a_value_that_is_none_of_the_choices_is_refused(option: str, values: list[Any]) -> None:
    for value in values:
        refused(f"{option} must be .* not ", **{option: value})


def test_the_refusal_of_a_choice_lists_the_choices() -> None:
    refused("priority must be 'low', 'medium', 'high' or None, not 'urgent'", priority="urgent")


@pytest.mark.parametrize(
    ("max_age", "seconds"),
    [
        (None, None),
        (1, 1),
        (1.999, 1),
        (3600, 3600),
        (3000000.0, 3000000),
        (timedelta(days=30), 2592000),
        (timedelta(seconds=1, microseconds=999999), 1),
        (253402300799, 253402300799),
    ],
)
def test_max_age_is_whole_seconds(max_age: Any, seconds: int | None) -> None:
    stored = CookiePolicy(max_age=max_age).max_age
    assert stored == seconds
    assert type(stored) is type(seconds)


@pytest.mark.parametrize(
    "max_age",
    [
        0,
        -1,
        0.999,
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        253402300800,
        True,
        "60",
        b"60",
        [60],
        timedelta(0),
        timedelta(seconds=-1),
        timedelta(milliseconds=999),
    ],
)
def test_a_max_age_that_is_no_time_is_refused(max_age: Any) -> None:
    refused("max_age must be seconds or a timedelta", max_age=max_age)


@pytest.mark.parametrize("vector", VECTORS["setCookieErrors"], ids=lambda vector: vector["label"])
def test_what_express_refuses_late_is_refused_when_built(vector: dict[str, Any]) -> None:
    refusable: dict[str, dict[str, Any]] = {
        "expires NaN": {"max_age": math.nan},
        "expires string": {"max_age": "tomorrow"},
        "sameSite bogus": {"same_site": "bogus"},
        "priority bogus": {"priority": "bogus"},
        "domain bogus": {"domain": "exa mple.com"},
        "path with semicolon": {"path": "/;"},
    }
    refused(**refusable[vector["label"]])


@given(
    st.fixed_dictionaries({}, optional={"name": st.text(), "path": st.text(), "domain": st.text()}),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_no_option_and_no_value_can_add_an_attribute_or_a_header(
    options: dict[str, Any], value: str
) -> None:
    try:
        policy = CookiePolicy(**options)
    except ConfigurationError:
        policy = CookiePolicy()
    header = policy.announce(value, https=True, now=NOW)
    assert header.isascii()
    assert header.isprintable()
    names = [one.partition("=")[0] for one in header.split(";")]
    domain = [" Domain"] if policy.domain is not None else []
    assert names == [policy.name, *domain, " Path", " HttpOnly", " Secure", " SameSite"]


# --- a session's own attributes -----------------------------------------------------------------


def test_no_overrides_give_the_policy_itself() -> None:
    policy = CookiePolicy()
    assert policy.overridden({}) is policy


@pytest.mark.parametrize(
    ("key", "value", "stored"),
    [
        ("path", "/app", "/app"),
        ("domain", "example.com", "example.com"),
        ("secure", True, True),
        ("http_only", False, False),
        ("same_site", True, "strict"),
        ("partitioned", False, False),
        ("priority", "low", "low"),
        ("max_age", timedelta(minutes=1), 60),
    ],
)
def test_a_session_overrides_one_attribute_and_only_that(key: str, value: Any, stored: Any) -> None:
    policy = CookiePolicy(name="connect.sid", max_age=3600)
    own = policy.overridden({key: value})
    assert dataclasses.asdict(own) == dataclasses.asdict(policy) | {key: stored}
    assert policy == CookiePolicy(name="connect.sid", max_age=3600)


def test_an_override_of_none_takes_an_attribute_away() -> None:
    own = CookiePolicy(max_age=60, domain="example.com").overridden(
        {"max_age": None, "domain": None, "same_site": None}
    )
    assert own.announce("v", https=False, now=NOW) == "sid=v; Path=/; HttpOnly"


def test_an_override_keeps_the_name_that_was_chosen() -> None:
    assert CookiePolicy().overridden({"secure": True}).name == "sid"
    assert CookiePolicy(secure=True).overridden({"max_age": 60}).name == "__Host-sid"


@pytest.mark.parametrize("key", ["name", "expires", "maxAge", "httpOnly", "", 1])
def test_an_attribute_that_cannot_be_overridden_is_refused(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="it can override domain, http_only, max_age"):
        CookiePolicy().overridden({key: "x"})


@pytest.mark.parametrize(
    "overrides",
    [
        {"secure": False},
        {"secure": "auto"},
        {"path": "/app"},
        {"domain": "example.com"},
        {"same_site": "none", "secure": False},
        {"max_age": 0},
    ],
)
def test_an_override_that_breaks_a_rule_is_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        CookiePolicy(secure=True).overridden(overrides)


# --- a value like any other ---------------------------------------------------------------------


def test_a_policy_is_a_value() -> None:
    policy = CookiePolicy(max_age=timedelta(minutes=1))
    assert policy == CookiePolicy(max_age=60)
    assert hash(policy) == hash(CookiePolicy(max_age=60))
    assert policy != CookiePolicy(max_age=61)
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301 - made one line above
    assert copy.deepcopy(policy) == policy
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.path = "/x"  # type: ignore[misc]
    assert "max_age=60" in repr(policy)


def test_options_are_passed_by_name_and_unknown_ones_are_a_type_error() -> None:
    with pytest.raises(TypeError):
        CookiePolicy("sid")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        CookiePolicy(samesite="lax")  # type: ignore[call-arg]


def test_the_package_hands_the_policy_on() -> None:
    assert filesession.cookies.CookiePolicy is CookiePolicy
