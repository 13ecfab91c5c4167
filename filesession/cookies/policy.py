"""What the session's cookie looks like, and when it may be sent.

Rules, so that no browser drops the cookie in silence; a policy that breaks one is never built:

1. A name is a token (RFC 6265, 4.1.1) and leaves room for any signed id in 4096 bytes, the most
   that browsers keep of name and value (RFC 6265bis, 5.6).
2. ``__Secure-`` names need Secure; ``__Host-`` names also Path=/ and no Domain (RFC 6265bis,
   4.1.3); ``__Http-`` names Secure and HttpOnly, and ``__Host-Http-`` names all four (the layered
   cookies draft, its successor). Case makes no difference to a prefix, as in browsers.
3. SameSite=None and Partitioned need Secure.
4. A path or domain is at most 1024 bytes: a longer one is ignored (RFC 6265bis, 5.6).

``secure="auto"`` may or may not give Secure, so it satisfies no rule that needs it; but
``same_site="auto"`` is None exactly where that gives Secure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from filesession.cookies.header import LAST_DATE, Priority, SameSite, encode_value, set_cookie
from filesession.errors import ConfigurationError, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from filesession.lifetime import Timeout

Auto: TypeAlias = Literal["auto"]
"""As the request's scheme asks for."""

_T = TypeVar("_T")

_FLAGS: Final[Sequence[bool]] = (True, False)
_SECURE: Final[Sequence[bool | Auto]] = (True, False, "auto")
_SAME_SITE: Final[Sequence[SameSite | Auto | bool | None]] = (
    "lax",
    "strict",
    "none",
    "auto",
    True,
    False,
    None,
)
_PRIORITIES: Final[Sequence[Priority | None]] = ("low", "medium", "high", None)

_OVERRIDABLE: Final = frozenset(
    ("path", "domain", "secure", "http_only", "same_site", "partitioned", "priority", "max_age")
)

_LONGEST_NAME: Final = 512
"""Bytes. The longest signed id takes 3206: 256 characters of 4 bytes, 3 for each when encoded."""

_LONGEST_ATTRIBUTE: Final = 1024
"""Bytes; browsers ignore a longer path or domain (RFC 6265bis, 5.6)."""

_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch

_is_path = re.compile(r"/(?:[ -:<-~]*[!-:<-~])?").fullmatch
"""Browsers drop blanks at the end, and the cookie would have another path than is said here."""

_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_is_domain = re.compile(rf"\.?{_LABEL}(?:\.{_LABEL})*").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class CookiePolicy:
    """The attributes of a cookie, checked: what it announces, browsers keep.

    That ends with what a server can know: whether a domain is the app's own or a public suffix, and
    whether ``https`` is told truly, is for the caller.

    Args:
        name: None is ``__Host-sid`` when secure=True and path and domain allow it, else ``sid``.
        path: the subtree that gets the cookie, as it stands in the URL.
        domain: None: this host alone; otherwise its subdomains too.
        secure: True, False, or "auto": as the request came.
        http_only: whether scripts may not read it.
        same_site: "lax", "strict" or True, "none", "auto" (none over HTTPS, otherwise lax); False
            or None leaves it to the browser.
        partitioned: whether each embedding site gets a jar of its own.
        priority: "low", "medium", "high" or None.
        max_age: seconds or a ``timedelta``, fractions dropped; None: until the browser is closed.

    Raises:
        ConfigurationError: a value is of the wrong kind, or breaks a rule.
    """

    name: str
    path: str
    domain: str | None
    secure: bool | Auto
    http_only: bool
    same_site: SameSite | Auto | None
    partitioned: bool
    priority: Priority | None
    max_age: int | None

    def __init__(
        self,
        *,
        name: str | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool | Auto = "auto",
        http_only: bool = True,
        same_site: SameSite | Auto | bool | None = "lax",
        partitioned: bool = False,
        priority: Priority | None = None,
        max_age: Timeout | None = None,
    ) -> None:
        """Written out, not generated: the fields are narrower than what may be passed for them."""
        put = partial(object.__setattr__, self)
        put("path", _path(path))
        put("domain", _domain(domain))
        put("secure", _one_of("secure", secure, _SECURE))
        put("http_only", _one_of("http_only", http_only, _FLAGS))
        put("same_site", _same_site(same_site))
        put("partitioned", _one_of("partitioned", partitioned, _FLAGS))
        put("priority", _one_of("priority", priority, _PRIORITIES))
        put("max_age", _whole_seconds(max_age))
        if name is None:
            host_only = self.secure is True and self.path == "/" and self.domain is None
            name = "__Host-sid" if host_only else "sid"
        put("name", _name(name))
        _check_prefix(self)
        _check_secure(self)

    @property
    def place(self) -> tuple[str | None, str, bool]:
        """What tells the cookie from others of its name in the browser's jar."""
        return self.domain, self.path, self.partitioned

    def overridden(self, overrides: Mapping[str, Any]) -> CookiePolicy:
        """The policy of a session that has attributes of its own; the name stays.

        Args:
            overrides: any of this policy's attributes but the name, as they are passed to it.

        Raises:
            ConfigurationError: a key is none of these, or a value breaks a rule.
        """
        if not overrides:
            return self
        for key in overrides:
            if key not in _OVERRIDABLE:
                msg = (
                    f"a session cannot override the cookie attribute {shown(key)}; "
                    f"it can override {', '.join(sorted(_OVERRIDABLE))}"
                )
                raise ConfigurationError(msg)
        return replace(self, **overrides)

    def may_be_sent(self, https: bool) -> bool:  # noqa: FBT001 - the contract's form
        """Whether a response to a request of that scheme may set it; browsers would drop it."""
        return https or self.secure is not True

    def announce(self, value: str, *, https: bool, now: float, encoded: bool = False) -> str:
        """The value of the Set-Cookie header field that hands the cookie out.

        Args:
            value: not yet percent-encoded.
            https: whether the request came over HTTPS.
            now: POSIX seconds; with a max_age, Expires counts from it.
            encoded: the value is percent-encoded already, as far as it must be.

        Raises:
            UnicodeEncodeError: the value holds a lone surrogate, which has no UTF-8 form.
        """
        max_age = self.max_age
        expires = None if max_age is None else now + max_age
        value = value if encoded else encode_value(value)
        return self._set_cookie(value, https=https, expires=expires, max_age=max_age)

    def expire(self, *, https: bool) -> str:
        """The value of the Set-Cookie header field that makes the browser delete the cookie.

        It repeats the attributes: a cookie of another domain, path or partition is another cookie,
        and one without Secure may not replace one that has it (RFC 6265bis, 5.7).

        Args:
            https: whether the request came over HTTPS.
        """
        return self._set_cookie("", https=https, expires=0, max_age=0)

    def covers(self, path: str) -> bool:
        """Whether browsers send the cookie with a request for that path (RFC 6265, 5.1.4).

        Args:
            path: the whole path of the URL, without the query; an empty one is ``/``.
        """
        own = self.path
        if own in ("/", path):
            return True
        return path.startswith(own) and (own[-1] == "/" or path[len(own)] == "/")

    def _set_cookie(
        self, value: str, *, https: bool, expires: float | None, max_age: int | None
    ) -> str:
        same_site = self.same_site
        if same_site == "auto":
            same_site = "none" if https else "lax"
        return set_cookie(
            self.name,
            value,
            path=self.path,
            domain=self.domain,
            expires=expires,
            max_age=max_age,
            http_only=self.http_only,
            secure=https if self.secure == "auto" else self.secure,
            partitioned=self.partitioned,
            priority=self.priority,
            same_site=same_site,
        )


def _one_of(option: str, value: object, allowed: Sequence[_T]) -> _T:
    for choice in allowed:
        if isinstance(value, type(choice)) and value == choice:  # 1 is not True
            return choice
    *others, last = map(repr, allowed)
    msg = f"{option} must be {', '.join(others)} or {last}, not {shown(value)}"
    raise ConfigurationError(msg)


def _same_site(value: object) -> SameSite | Auto | None:
    choice = _one_of("same_site", value, _SAME_SITE)
    if isinstance(choice, bool):
        return "strict" if choice else None
    return choice


def _name(name: object) -> str:
    if not isinstance(name, str) or not _is_token(name):
        msg = (
            f"a cookie's name must be letters, digits and !#$%&'*+-.^_`|~, not {shown(name)}; "
            "name=None chooses one"
        )
        raise ConfigurationError(msg)
    if len(name) > _LONGEST_NAME:
        msg = f"a cookie's name of {len(name)} bytes leaves no room for a value; use a shorter one"
        raise ConfigurationError(msg)
    return name


def _path(path: object) -> str:
    if not isinstance(path, str) or len(path) > _LONGEST_ATTRIBUTE or not _is_path(path):
        msg = (
            f"a cookie's path must start with '/', without ';' or a blank at its end, in at most "
            f"{_LONGEST_ATTRIBUTE} printable ASCII characters, not {shown(path)}; "
            "percent-encode others, as the URL has them"
        )
        raise ConfigurationError(msg)
    return path


def _domain(domain: object) -> str | None:
    if domain is None:
        return None
    if not isinstance(domain, str) or len(domain) > _LONGEST_ATTRIBUTE or not _is_domain(domain):
        msg = (
            f"a cookie's domain must be a host name such as 'example.com', of at most "
            f"{_LONGEST_ATTRIBUTE} bytes and without port or scheme, not {shown(domain)}; "
            "an international one in its xn-- form; None: this host alone"
        )
        raise ConfigurationError(msg)
    return domain


def _whole_seconds(max_age: object) -> int | None:
    if max_age is None:
        return None
    value = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value <= LAST_DATE:
        return int(value)
    msg = (
        "max_age must be seconds or a timedelta, at least 1 second and within what a date can say, "
        f"not {shown(max_age)}; None: the cookie ends when the browser is closed"
    )
    raise ConfigurationError(msg)


def _check_prefix(policy: CookiePolicy) -> None:
    name = policy.name.lower()
    if name.startswith(("__secure-", "__host-", "__http-")) and policy.secure is not True:
        needed = "secure=True"
    elif name.startswith("__host-") and (policy.path != "/" or policy.domain is not None):
        needed = "path='/' and domain=None"
    elif name.startswith(("__http-", "__host-http-")) and not policy.http_only:
        needed = "http_only=True"
    else:
        return
    msg = (
        f"browsers refuse a cookie named {policy.name!r} without {needed}; "
        "give it that, or a name without the prefix"
    )
    raise ConfigurationError(msg)


def _check_secure(policy: CookiePolicy) -> None:
    if policy.partitioned and policy.secure is not True:
        msg = "browsers refuse a partitioned cookie without Secure; give it secure=True"
    elif policy.same_site == "none" and policy.secure is not True:
        msg = (
            'browsers refuse a cookie with same_site="none" without Secure; give it secure=True, '
            'or same_site="auto" with secure="auto": both over HTTPS, neither over plain HTTP'
        )
    elif policy.same_site == "auto" and policy.secure is False:
        msg = (
            'same_site="auto" is None over HTTPS, which browsers refuse without Secure; '
            'give it secure="auto" or secure=True'
        )
    else:
        return
    raise ConfigurationError(msg)
