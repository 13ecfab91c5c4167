"""Cookie and Set-Cookie as they stand on the wire; what may stand there is for ``policy``.

Written as RFC 6265 (4.1) asks of servers, in the order of attributes Express has. Read as Express
reads, which is more lenient than the RFC (4.2.1), save that no duplicate is dropped: a cookie
planted by a sibling domain may come first, and only its signature tells it from ours.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache
from typing import Final, Literal, TypeAlias
from urllib.parse import quote, unquote

SameSite: TypeAlias = Literal["lax", "strict", "none"]
"""Which requests from other sites carry the cookie."""

Priority: TypeAlias = Literal["low", "medium", "high"]
"""Which cookies Chromium drops first when a site has too many."""

LAST_DATE: Final = 253_402_300_799
"""POSIX seconds: the end of the year 9999, the last that an IMF-fixdate can express."""

_BLANKS: Final = " \t"

_UNESCAPED: Final = "-_.!~*'()"
"""What encodeURIComponent leaves alone beside letters and digits (ECMA-262, 19.2.6)."""

_needs_three_escapes_at_most = re.compile(r"[A-Za-z0-9\-_.!~*'():+/]*").fullmatch

_broken_escape = re.compile("%(?![0-9A-Fa-f]{2})").search


def cookie_values(header: str, name: str) -> list[str]:
    """Every value a Cookie header has for a name, percent-decoded, in the order sent.

    Never raises, whatever the text. Names differ by case, blanks around name and value are dropped,
    as is one pair of double quotes. A value that percent-decodes to no UTF-8 text stays as sent.

    Args:
        header: the field's value; several fields are joined with ``"; "`` (RFC 9113, 8.2.3).
        name: the cookie's name.
    """
    if name not in header:
        return []
    values = []
    for pair in header.split(";"):
        if name in pair:
            key, equals, value = pair.partition("=")
            if equals and key.strip(_BLANKS) == name:
                value = value.strip(_BLANKS)
                if value[:1] == '"' == value[-1:]:
                    value = value[1:-1]
                values.append(_decoded(value))
    return values


def encode_value(value: str) -> str:
    """A cookie's value as JavaScript's ``encodeURIComponent`` writes it, ASCII only.

    Raises:
        UnicodeEncodeError: the value holds a lone surrogate, which has no UTF-8 form.
    """
    if _needs_three_escapes_at_most(value):  # any signed id of the usual alphabets; 7 times as fast
        return value.replace(":", "%3A").replace("+", "%2B").replace("/", "%2F")
    return quote(value, safe=_UNESCAPED)


def set_cookie(
    name: str,
    value: str,
    *,
    path: str,
    domain: str | None,
    expires: float | None,
    max_age: int | None,
    http_only: bool,
    secure: bool,
    partitioned: bool,
    priority: Priority | None,
    same_site: SameSite | None,
) -> str:
    """The value of a Set-Cookie header field (RFC 6265, 4.1.1), None leaving an attribute out.

    Name, value, path and domain are written as given: the caller has checked or encoded them.

    Args:
        name: a token.
        value: as ``encode_value`` made it.
        path: the Path attribute.
        domain: the Domain attribute; None: the host alone.
        expires: POSIX seconds, cut to whole ones and to the years 1970 to 9999.
        max_age: seconds.
        http_only: whether scripts may not read it.
        secure: whether it travels over HTTPS only.
        partitioned: whether each embedding site gets a jar of its own.
        priority: the Priority attribute.
        same_site: the SameSite attribute.
    """
    before, after = _attributes(
        path=path,
        domain=domain,
        http_only=http_only,
        secure=secure,
        partitioned=partitioned,
        priority=priority,
        same_site=same_site,
    )
    lifetime = ""
    if expires is not None:
        lifetime = f"; Expires={_http_date(int(max(0, min(expires, LAST_DATE))))}"
    if max_age is not None:
        lifetime += f"; Max-Age={max_age}"
    return f"{name}={value}{before}{lifetime}{after}"


def _decoded(value: str) -> str:
    if "%" not in value:
        return value
    # The escapes a signed id needs, replaced in C; none of the three characters can complete
    # another escape, so a "%" is left over exactly when there was more to do.
    usual = value.replace("%3A", ":").replace("%2B", "+").replace("%2F", "/")
    if "%" not in usual:
        return usual
    if _broken_escape(value):
        return value
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return value


@lru_cache(maxsize=256)  # an app has a few sets; sessions with attributes of their own add some
def _attributes(
    *,
    path: str,
    domain: str | None,
    http_only: bool,
    secure: bool,
    partitioned: bool,
    priority: Priority | None,
    same_site: SameSite | None,
) -> tuple[str, str]:
    """What stands before the lifetime in Express's order, and what stands after it."""
    before = f"; Path={path}" if domain is None else f"; Domain={domain}; Path={path}"
    after = (
        "; HttpOnly" if http_only else "",
        "; Secure" if secure else "",
        "; Partitioned" if partitioned else "",
        "" if priority is None else f"; Priority={priority.capitalize()}",
        "" if same_site is None else f"; SameSite={same_site.capitalize()}",
    )
    return before, "".join(after)


@lru_cache(maxsize=64)  # cookies sent within one second mostly end within one second
def _http_date(seconds: int) -> str:
    """An IMF-fixdate (RFC 9110, 5.6.7), in English whatever the locale."""
    return formatdate(seconds, usegmt=True)
