"""Cookie and Set-Cookie, byte for byte against the real npm package."""

from __future__ import annotations

import json
import math
from datetime import datetime
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.cookies.header import cookie_values, encode_value, set_cookie

VECTORS: Final = json.loads(
    (Path(__file__).parents[1] / "vectors" / "express_cookie_signature.json").read_text("utf-8")
)

PLAIN: Final[dict[str, Any]] = {
    "path": "/",
    "domain": None,
    "expires": None,
    "max_age": None,
    "http_only": False,
    "secure": False,
    "partitioned": False,
    "priority": None,
    "same_site": None,
}

texts = st.text(st.characters(exclude_categories=["Cs"]))
# Text in which the characters that mean something are frequent.
cookie_texts = st.lists(
    st.sampled_from(["sid", "=", ";", " ", "\t", '"', "%", "%3A", "%C3", "%A9", "2", "B", "\udcff"])
    | st.characters()
).map("".join)


@pytest.mark.parametrize(
    "vector", VECTORS["cookieHeaderParsing"], ids=lambda vector: vector["header"]
)
def test_reads_a_cookie_header_as_express_does(vector: dict[str, Any]) -> None:
    for name in {"connect.sid", "CONNECT.SID", "a", "b", "", *vector["parsed"]}:
        first = vector["parsed"].get(name)
        assert cookie_values(vector["header"], name)[:1] == ([] if first is None else [first])


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("", []),
        ("sid", []),
        ("sid=", [""]),
        ("sid=;", [""]),
        ("sid==", ["="]),
        ("sid=a=b", ["a=b"]),
        ("sid=1; sid=2;sid=3", ["1", "2", "3"]),
        ("SID=1; Sid=2", []),
        ("xsid=1; sidx=2; x.sid=3", []),
        ("a=sid; b=sid=1", []),
        ("=sid=1", []),
        ("sid; sid=1", ["1"]),
        ("; ;; sid=1;;", ["1"]),
        ("\t sid\t=\t1 \t; a=2", ["1"]),
        ("sid=a b", ["a b"]),
        ("\u00a0sid=1", []),
        ("sid=\u00a01\u00a0", ["\u00a01\u00a0"]),
        ("a=1, sid=2", []),
    ],
)
def test_pairs_are_split_as_express_splits_them(header: str, values: list[str]) -> None:
    assert cookie_values(header, "sid") == values


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ('"a"', "a"),
        ('""', ""),
        ('"', ""),
        ('""a""', '"a"'),
        ('" a "', " a "),
        ('"a', '"a'),
        ('a"', 'a"'),
        ('"%22"', '"'),
        ('a"b"c', 'a"b"c'),
        ("'a'", "'a'"),
    ],
)
def test_one_pair_of_double_quotes_is_dropped(sent: str, value: str) -> None:
    assert cookie_values(f"sid={sent}", "sid") == [value]


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("s%3Aa%2Bb%2Fc", "s:a+b/c"),
        ("s%3aa%2bb%2fc", "s:a+b/c"),
        ("h%C3%A4%C3%9F", "häß"),
        ("%F0%9F%98%80", "😀"),
        ("%00%3B%20%0A", "\0; \n"),
        ("%253A", "%3A"),
        ("ä%C3%A4", "ää"),
        ("\ud800%41", "\ud800A"),
        ("a+b", "a+b"),
    ],
)
def test_values_are_percent_decoded_as_utf_8(sent: str, value: str) -> None:
    assert cookie_values(f"sid={sent}", "sid") == [value]


@pytest.mark.parametrize(
    "sent",
    [
        "%",
        "%3",
        "%3A%",
        "%3A%ZZ",
        "%41%2",
        "%%3A2B",
        "%2%3AB",
        "% 3A",
        "%C3",
        "%C3é",
        "%A9",
        "%FF%3A",
        "%C0%80",
        "%ED%A0%80",
        "%F5%80%80%80",
        "%3A%+1",
        "%٣A",
    ],
)
def test_a_value_that_does_not_decode_stays_as_sent(sent: str) -> None:
    assert cookie_values(f"a=1; sid={sent}", "sid") == [sent]


@given(cookie_texts, cookie_texts)
def test_no_text_makes_reading_raise(header: str, name: str) -> None:
    for value in cookie_values(header, name):
        assert isinstance(value, str)
    cookie_values(f"sid={header}", "sid")


@given(cookie_texts)
def test_reading_agrees_with_the_long_way_round(header: str) -> None:
    def decoded(raw: str) -> str:
        try:
            text = unquote(raw, errors="strict")
        except UnicodeDecodeError:
            return raw
        escapes = raw.split("%")[1:]
        hexadecimal = set("0123456789abcdefABCDEF")
        whole = all(len(one) > 1 and set(one[:2]) <= hexadecimal for one in escapes)
        return text if whole else raw

    expected = []
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        value = value.strip(" \t")
        if equals and name.strip(" \t") == "sid":
            quoted = value.startswith('"') and value.endswith('"')
            expected.append(decoded(value[1:-1] if quoted else value))
    assert cookie_values(header, "sid") == expected


@given(texts)
def test_what_was_encoded_is_read_back(value: str) -> None:
    encoded = encode_value(value)
    assert cookie_values(f"a=1; sid={encoded}; b=2", "sid") == [value]
    assert cookie_values(f'sid="{encoded}"', "sid") == [value]


@given(texts)
def test_an_encoded_value_is_a_cookie_value_of_rfc_6265(value: str) -> None:
    allowed = set(map(chr, range(0x21, 0x7F))) - set('",;\\')
    assert set(encode_value(value)) <= allowed


@given(st.lists(texts, max_size=5))
def test_all_values_of_a_name_come_in_the_order_sent(values: list[str]) -> None:
    header = "; ".join(f"sid={encode_value(value)}; other={n}" for n, value in enumerate(values))
    assert cookie_values(header, "sid") == values


@pytest.mark.parametrize("vector", VECTORS["sign"], ids=lambda vector: ascii(vector["id"])[:30])
def test_signed_values_are_encoded_as_express_does(vector: dict[str, Any]) -> None:
    assert encode_value(vector["rawCookieValue"]) == vector["encodedCookieValue"]
    header = f"connect.sid={vector['encodedCookieValue']}"
    assert cookie_values(header, "connect.sid") == [vector["rawCookieValue"]]


def test_every_ascii_character_is_encoded_as_encode_uri_component_does() -> None:
    safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()"
    for code in range(128):
        character = chr(code)
        expected = character if character in safe else f"%{code:02X}"
        assert encode_value(character) == expected
        assert encode_value(f"{character}é") == f"{expected}%C3%A9"


def test_a_lone_surrogate_cannot_be_encoded() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_value("\ud800")


@pytest.mark.parametrize("vector", VECTORS["setCookie"], ids=lambda vector: vector["header"][-20:])
def test_writes_set_cookie_as_express_does(vector: dict[str, Any]) -> None:
    options = vector["options"]
    expires, same_site = options.get("expires"), options.get("sameSite")
    header = set_cookie(
        vector["name"],
        encode_value(vector["value"]),
        path=options["path"],
        domain=options.get("domain"),
        expires=None if expires is None else datetime.fromisoformat(expires).timestamp(),
        max_age=None,
        http_only=options["httpOnly"],
        secure=options.get("secure", False),
        partitioned=options.get("partitioned", False),
        priority=options.get("priority"),
        same_site="strict" if same_site is True else same_site,
    )
    assert header == vector["header"]


def test_max_age_stands_right_after_expires() -> None:
    everything = PLAIN | {
        "path": "/app",
        "domain": "example.com",
        "expires": 784111777.9,
        "max_age": 60,
        "http_only": True,
        "secure": True,
        "partitioned": True,
        "priority": "medium",
        "same_site": "none",
    }
    assert set_cookie("sid", "v", **everything) == (
        "sid=v; Domain=example.com; Path=/app; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Max-Age=60; "
        "HttpOnly; Secure; Partitioned; Priority=Medium; SameSite=None"
    )


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ({}, ""),
        ({"domain": ".example.com"}, "; Domain=.example.com"),
        ({"expires": 0}, "; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
        ({"max_age": 0}, "; Max-Age=0"),
        ({"http_only": True}, "; HttpOnly"),
        ({"secure": True}, "; Secure"),
        ({"partitioned": True}, "; Partitioned"),
        ({"priority": "low"}, "; Priority=Low"),
        ({"priority": "high"}, "; Priority=High"),
        ({"same_site": "lax"}, "; SameSite=Lax"),
        ({"same_site": "strict"}, "; SameSite=Strict"),
    ],
)
def test_an_attribute_is_written_only_when_given(attribute: dict[str, Any], text: str) -> None:
    assert set_cookie("sid", "v", **PLAIN | attribute).replace("; Path=/", "") == f"sid=v{text}"


@pytest.mark.parametrize(
    ("expires", "date"),
    [
        (784111777, "Sun, 06 Nov 1994 08:49:37 GMT"),  # the example of RFC 9110, 5.6.7
        (784111777.999, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951782400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (2**31, "Tue, 19 Jan 2038 03:14:08 GMT"),
        (253402300799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (253402300800, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (math.inf, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (-1, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-math.inf, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (math.nan, "Thu, 01 Jan 1970 00:00:00 GMT"),
    ],
)
def test_dates_are_imf_fixdates_within_what_these_can_say(expires: float, date: str) -> None:
    header = set_cookie("sid", "v", **PLAIN | {"expires": expires})
    assert header == f"sid=v; Path=/; Expires={date}"


@given(
    texts,
    st.fixed_dictionaries(
        {
            "domain": st.none() | st.just("example.com"),
            "expires": st.none() | st.integers(0, 253402300799),
            "max_age": st.none() | st.integers(1),
            "http_only": st.booleans(),
            "secure": st.booleans(),
            "same_site": st.sampled_from([None, "lax", "strict", "none"]),
        }
    ),
)
def test_another_parser_reads_the_same_attributes(value: str, options: dict[str, Any]) -> None:
    encoded = encode_value(value)
    morsel = SimpleCookie(set_cookie("sid", encoded, **PLAIN | options))["sid"]
    assert morsel.coded_value == encoded
    assert morsel["path"] == "/"
    assert morsel["domain"] == (options["domain"] or "")
    assert morsel["max-age"] == ("" if options["max_age"] is None else str(options["max_age"]))
    assert bool(morsel["expires"]) == (options["expires"] is not None)
    assert bool(morsel["httponly"]) == options["http_only"]
    assert bool(morsel["secure"]) == options["secure"]
    assert morsel["samesite"].lower() == (options["same_site"] or "")
