"""Cookies that strangers send, and attributes that applications set, by properties.

The judges are those of the coverage-guided run; here inputs are drawn by structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filesession.cookies.overrides import OVERRIDABLE
from tests.fuzz.attributes import POLICIES, SetCookie, cookie_seeds
from tests.fuzz.cookies import (
    SECRETS,
    STORED,
    UNKNOWN,
    CookieHeader,
    CookieValue,
    header_seeds,
    signed,
    value_seeds,
)
from tests.fuzz.values import TEXTS, Deep, grown

SIGNED: Final = [signed(sid, secret) for sid in (*STORED, UNKNOWN) for secret in SECRETS]
FORGED: Final = [signed(sid, "a stranger's") for sid in STORED]

ids = st.text(min_size=1, max_size=300)
spoiled = st.builds(
    lambda value, at, put, end: value[:at] + put + value[at + len(put) :][: end or None],
    st.sampled_from(SIGNED),
    st.integers(0, 70),
    st.text("s:.=A\u00e9\ud800", max_size=2),
    st.integers(-3, 0),
)

blanks = st.text(" \t", max_size=2)
junk = st.lists(
    st.sampled_from(["sid", "SID", "=", ";", ",", '"', "%", "%ff", "\0", "s%3A", ".", "\xff", " "])
    | st.characters(max_codepoint=255)
).map("".join)
names = st.sampled_from(["sid"] * 4 + ["SID", "xsid", "sid.", "a", "", "=sid"])
cookie_values = st.sampled_from(SIGNED + FORGED).map(quote) | spoiled.map(
    lambda value: quote(value, errors="replace")
)
quotes = st.sampled_from(["{}"] * 3 + ['"{}"', '"{}', '{}"', '""{}'])
quoted = st.builds(str.format, quotes, cookie_values | junk)
pairs = st.builds("{}{}{}={}{}{}".format, blanks, names, blanks, blanks, quoted, blanks)
fields = st.lists(pairs | junk, max_size=4).map(";".join).map(lambda text: text.encode("latin-1"))

DEEP: Final = Deep(3000)
LONG: Final = Deep(5000, "number")

odd_numbers = st.sampled_from([0, -1, 1, 2**63, LONG, float("nan"), float("inf")])
attribute_values = (
    st.sampled_from([*TEXTS, None, True, False, DEEP, timedelta(days=1), timedelta(0)])
    | odd_numbers
    | st.floats()
    | st.integers()
    | st.text(max_size=20)
    | st.text('/;=a .\r\n\0"\\,-', max_size=8).map("/".__add__)
    | st.lists(st.integers(), max_size=2)
)


@pytest.fixture(scope="module")
def value(place: Path) -> CookieValue:
    return CookieValue(place)


@pytest.fixture(scope="module")
def header(place: Path) -> Iterator[CookieHeader]:
    judge = CookieHeader(place / "header")
    yield judge
    judge.close()


@pytest.fixture(scope="module")
def set_cookie(place: Path) -> SetCookie:
    return SetCookie(place)


def test_every_cookie_a_guided_run_begins_with_is_judged(
    value: CookieValue, header: CookieHeader, set_cookie: SetCookie
) -> None:
    for seeds, judge in (
        (value_seeds, value),
        (header_seeds, header),
        (cookie_seeds, set_cookie),
    ):
        for seed in seeds():
            judge(seed)


@settings(max_examples=120, deadline=None)
@given(text=ids | spoiled | st.sampled_from(SIGNED + FORGED))
@example(text="a" * 257)
@example(text="s:" + "." * 1_000_000)
@example(text="\udcff")
def test_a_value_verifies_when_it_was_signed_and_costs_nothing_otherwise(
    value: CookieValue, text: str
) -> None:
    value.check(text)


@settings(max_examples=120, deadline=None)
@given(sent=st.lists(fields | st.binary(max_size=60), max_size=3))
@example(sent=[b"=", b"sid==", b"=sid"])
@example(sent=[b"sid=" + b'"' * 9999 + b";" * 9999])
def test_any_cookie_headers_lead_to_the_session_that_was_signed_for_and_to_no_other(
    header: CookieHeader, sent: list[bytes]
) -> None:
    header.check(sent)


@settings(max_examples=120, deadline=None)
@given(
    options=st.sampled_from(POLICIES),
    set_to=st.lists(st.tuples(st.sampled_from(sorted(OVERRIDABLE)), attribute_values), max_size=5),
)
@example(options={}, set_to=[("max_age", LONG)])
@example(options={}, set_to=[("path", DEEP), ("domain", DEEP), ("secure", DEEP)])
@example(options={}, set_to=[("path", "/a; Domain=evil.example"), ("domain", "a\r\nX-Y: z")])
def test_a_cookie_attribute_is_refused_at_once_or_told_to_browsers_as_it_was_meant(
    set_cookie: SetCookie, options: dict[str, Any], set_to: list[tuple[str, Any]]
) -> None:
    set_cookie.check(options, grown(set_to))
