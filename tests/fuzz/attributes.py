"""What applications set on a session's cookie, and what browsers then read in Set-Cookie."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from filesession.codec import JSONCodec
from filesession.cookies.overrides import OVERRIDABLE, SessionCookie
from filesession.cookies.policy import CookiePolicy
from filesession.errors import ConfigurationError, EncodeError
from filesession.testing.clock import START
from tests.fuzz.values import KINDS, RESTS, TEXTS, PlainText, byte_of, value_of, word_of

_LATEST: Final = 253_402_300_799
"""The end of the year 9999, after which no date can be written."""

POLICIES: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"secure": True},
    {"secure": True, "name": "__Secure-x", "path": "/app", "domain": "example.com"},
    {"secure": False, "same_site": None, "http_only": False, "max_age": 60},
    {"secure": "auto", "same_site": "auto", "priority": "high"},
    {"secure": True, "same_site": "none", "partitioned": True, "name": "__Host-Http-x"},
)

VALUE: Final = "s:an id; with=anything\n\u00e4.mac"


class SetCookie:
    """What an application sets on a session's cookie, and what browsers are told."""

    def __init__(self, _directory: Path) -> None:
        self._codec = JSONCodec()

    def __call__(self, data: bytes) -> None:
        """An input: which policy, and then attributes with a value each."""
        stream = io.BytesIO(data)
        policy, names = POLICIES[byte_of(stream) % len(POLICIES)], sorted(OVERRIDABLE)
        set_to: list[tuple[str, Any]] = []
        while (at := stream.read(1)) and len(set_to) < 8:
            set_to.append((names[at[0] % len(names)], value_of(stream)))
        self.check(policy, set_to)

    def check(self, options: dict[str, Any], set_to: Sequence[tuple[str, Any]]) -> None:
        """Each is refused at once, or is what the header says, no more and no less."""
        policy = CookiePolicy(**options)
        cookie = SessionCookie(policy, {})
        for name, value in set_to:
            before = cookie.policy
            with suppress(ConfigurationError):
                setattr(cookie, name, value)
            if cookie.policy is not before:
                assert getattr(cookie, name) == _meant(name, value)
        for https in (True, False):
            self._check_header(cookie.policy, https=https)
        stored = cookie.overrides
        try:
            stored = self._codec.decode(self._codec.encode(stored))
        except EncodeError:  # at commit: a text of a kind of its own would come back as a plain one
            assert PlainText in map(type, stored.values())
        assert SessionCookie(policy, stored).policy == cookie.policy
        SessionCookie(policy, dict(set_to))  # stored by another version, or by hand

    def _check_header(self, policy: CookiePolicy, *, https: bool) -> None:
        header = policy.announce(VALUE, https=https, now=START)
        told = attributes_of(header)
        same_site = policy.same_site
        if same_site == "auto":
            same_site = "none" if https else "lax"
        secure = https if policy.secure == "auto" else policy.secure
        flags = (
            ("httponly", policy.http_only),
            ("secure", secure),
            ("partitioned", policy.partitioned),
        )
        texts = (("domain", policy.domain), ("samesite", same_site), ("priority", policy.priority))
        expected = {"": (policy.name, VALUE), "path": policy.path}
        expected |= {name: "" for name, is_set in flags if is_set}
        expected |= {
            name: text.lower() if name != "domain" else text for name, text in texts if text
        }
        if policy.max_age is not None:
            expected |= {"max-age": str(policy.max_age), "expires": told.get("expires", "")}
            assert told["expires"].endswith(" GMT")
        assert told == expected
        ended = attributes_of(policy.expire(https=https))
        assert {**ended, "": 0, "max-age": 0, "expires": 0} == {
            **expected,
            "": 0,
            "max-age": 0,
            "expires": 0,
        }
        assert (ended[""], ended["max-age"]) == ((policy.name, ""), "0")
        _check_kept(policy, expected, https=https)


def _check_kept(policy: CookiePolicy, told: Mapping[str, Any], *, https: bool) -> None:
    """No browser would drop it (RFC 6265bis, 5.7), if it may be sent at all."""
    if not policy.may_be_sent(https):
        return
    name = policy.name.lower()
    secure = "secure" in told
    assert secure or not (told.get("samesite") == "none" or "partitioned" in told)
    assert secure or not name.startswith("__")
    assert not name.startswith("__host-") or (told["path"] == "/" and "domain" not in told)
    assert all(len(str(told.get(each, ""))) <= 1024 for each in ("path", "domain"))


def _meant(name: str, value: Any) -> Any:
    if name == "same_site" and isinstance(value, bool):
        return "strict" if value else None
    if name == "max_age" and value is not None:
        seconds = int(value.total_seconds() if isinstance(value, timedelta) else value)
        assert 1 <= seconds <= _LATEST
        return seconds
    return value


def attributes_of(header: str) -> dict[str, Any]:
    """What a browser reads (RFC 6265bis, 5.6); name and value under ``""``."""
    assert header.isascii()
    assert header.isprintable()
    pair, *attributes = header.split(";")
    name, equals, value = pair.partition("=")
    assert equals
    found: dict[str, Any] = {"": (name.strip(), unquote(value.strip()))}
    for attribute in attributes:
        key, _, text = (each.strip(" \t") for each in attribute.partition("="))
        lowered = key.lower()
        assert lowered not in found
        found[lowered] = text.lower() if lowered in {"samesite", "priority"} else text
    return found


def cookie_seeds() -> Iterator[bytes]:
    """Every attribute, set to one value of each kind."""
    for kind in range(len(KINDS)):
        for attribute in range(len(OVERRIDABLE)):
            yield bytes([kind % len(POLICIES), attribute, kind]) + RESTS[attribute % len(RESTS)]
    for policy in range(len(POLICIES)):
        for word in range(len(TEXTS)):
            for attribute in range(len(OVERRIDABLE)):
                yield bytes([policy, attribute, KINDS.index(word_of), word])
