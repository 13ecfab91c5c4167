"""What a request does to its session and what its response says of it; decides, and does no I/O.

The order, in both gateways: ``begin`` before the application runs, ``commit`` before its response
starts, ``headers`` for that response, ``finish`` when its body is out; ``abandon`` instead of
``commit`` when the application raises first. Each is a run of store calls for the gateway to make.

A response that never gets to carry the session's cookie must not leave a session behind that nobody
can reach, and a session that was deleted meanwhile gets no cookie at all: one that expires could
wipe out the cookie that a parallel regenerate has just set.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from inspect import iscoroutinefunction
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, Literal, Protocol, TypeAlias

from filesession.calls import Steps, StoreCall
from filesession.codec import Codec
from filesession.cookies.header import cookie_values
from filesession.cookies.policy import CookiePolicy
from filesession.errors import (
    ConfigurationError,
    ConflictError,
    SessionGone,
    StoreError,
    shown,
)
from filesession.sealed import SealedSession
from filesession.session import Session
from filesession.stores.entry import LONGEST_ID, Conflict, check_conflict, handle_of
from filesession.visit import Runner, Visit

Unavailable: TypeAlias = Literal["respond", "raise", "skip"]
"""What becomes of a request whose session cannot be loaded or saved."""

Headers: TypeAlias = list[tuple[str, str]]
TrustProxy: TypeAlias = bool | Iterable[str]

_log = logging.getLogger("filesession.exchange")

RETRY_AFTER: Final = 5
"""Seconds after which a client may come back when the store fails."""

_UNSHARED: Final = frozenset({"private", "no-store", "no-cache"})
_SHARED: Final = frozenset({"public", "s-maxage"})
"""Cache-Control directives that keep a response out of shared caches, and that let it in."""

_SECURE_SCHEMES: Final = frozenset({"https", "wss"})


class ProxyTrust:
    """Whose X-Forwarded-Proto counts.

    Args:
        trust: False: nobody's; True: everybody's, for a server only its proxy can reach; or the
            networks proxies are in, as ``10.0.0.0/8`` or a single address.

    Raises:
        ConfigurationError: a network cannot be read.
    """

    __slots__ = ("_everyone", "_networks")

    def __init__(self, trust: TrustProxy) -> None:
        self._everyone = trust is True
        try:
            # Text by itself would be taken for a list of letters.
            networks = (
                () if isinstance(trust, bool) else [trust] if isinstance(trust, str) else trust
            )
            # As text: a number would be taken for an address.
            self._networks = tuple(ip_network(str(network)) for network in networks)
        except (ValueError, TypeError) as error:
            msg = f"trust_proxy must be True, False or networks like '10.0.0.0/8': {error}"
            raise ConfigurationError(msg) from None

    def is_https(self, scheme: str, client: str | None, forwarded: str) -> bool:
        """Whether the request came over TLS: to us, or to a proxy that is trusted to say so."""
        if scheme in _SECURE_SCHEMES:
            return True
        if not forwarded or not (self._everyone or self._is_proxy(client)):
            return False
        return forwarded.partition(",")[0].strip().lower() in _SECURE_SCHEMES

    def _is_proxy(self, client: str | None) -> bool:
        if not self._networks or not client:
            return False
        try:
            address: IPv4Address | IPv6Address = ip_address(client)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped  # as a socket open to both families tells an IPv4 client
        return any(address in network for network in self._networks)


class Carrier(Protocol):
    """Turns a stored session's id into its cookie's value and back."""

    def sign(self, sid: str) -> str:
        """The value for an id."""

    def unsign(self, value: str) -> tuple[str, bool] | None:
        """The id in a value, and whether the newest key made it; None: none did. Never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a gateway treats sessions; made once.

    With ``sealed`` the cookie holds the whole session, and each save makes another value.

    Raises:
        ConfigurationError: a value is wrong.
    """

    policy: CookiePolicy
    signer: Carrier
    codec: Codec
    proxies: ProxyTrust
    sealed: bool = False
    rolling: bool = False
    resave: bool = False
    save_uninitialized: bool = False
    unset: Literal["destroy", "keep"] = "destroy"
    genid: Callable[[Any], str] | None = None
    conflict: Conflict = "merge"
    unavailable: Unavailable = "respond"

    def __post_init__(self) -> None:
        check_conflict(self.conflict)
        for name in ("rolling", "resave", "save_uninitialized"):
            if not isinstance(getattr(self, name), bool):
                msg = f"{name} must be True or False, not {getattr(self, name)!r}"
                raise ConfigurationError(msg)
        if self.unset not in ("destroy", "keep"):
            msg = f"unset must be 'destroy' or 'keep', not {self.unset!r}"
            raise ConfigurationError(msg)
        if self.unavailable not in ("respond", "raise", "skip"):
            msg = f"unavailable must be 'respond', 'raise' or 'skip', not {shown(self.unavailable)}"
            raise ConfigurationError(msg)
        if self.genid is not None and (not callable(self.genid) or iscoroutinefunction(self.genid)):
            msg = f"genid must be a plain function of the scope or environ, not {self.genid!r}"
            raise ConfigurationError(msg)
        if self.genid is not None and self.sealed:
            msg = "a session in an EncryptedCookie has no id; leave genid out"
            raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The response in place of the application's when its session could not be had or saved."""

    status: int
    reason: str
    headers: Headers
    body: bytes


def refusal(error: ConflictError | StoreError) -> Refusal:
    """What the client is told; the error itself goes to the log."""
    if isinstance(error, ConflictError):
        status, reason = 409, "Conflict"
        text = "Another request changed this session at the same time. Please try again."
        extra: Headers = []
        _log.warning("%s", error)
    else:
        status, reason = 503, "Service Unavailable"
        text = "Sessions are not available at the moment. Please try again."
        extra = [("retry-after", str(RETRY_AFTER))]
        _log.error("%s", error)
    body = text.encode("utf-8")
    headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        *extra,
    ]
    return Refusal(status, reason, headers, body)


class Exchange:
    """One request and its response.

    Args:
        rules: the gateway's.
        runner: makes store calls for the session's own verbs.
        cookies: the request's Cookie header, several joined by ``; ``.
        https: the request came over TLS.
        source: the scope or environ, for ``genid``.
        policy: the cookie's attributes for this request; None: those of all.
    """

    __slots__ = (
        *("_abandoned", "_browsers", "_cookies", "_ended", "_kept", "_newest", "_out", "_policy"),
        *("_rules", "_unsaved", "_verified", "_visit", "session"),
    )

    session: Session
    _browsers: CookiePolicy

    def __init__(
        self,
        rules: Rules,
        runner: Runner,
        *,
        cookies: str,
        https: bool,
        source: Any,  # noqa: ANN401
        policy: CookiePolicy | None = None,
    ) -> None:
        self._rules = rules
        self._policy = policy or rules.policy
        self._cookies = cookies
        self._verified = self._unsaved = False
        self._newest = True
        self._out = self._kept = False
        self._ended = self._abandoned = False
        genid = rules.genid
        self._visit = Visit(
            runner,
            self._policy,
            rules.codec,
            rules.conflict,
            https,
            None if genid is None else lambda: _given(genid(source)),
        )

    def begin(self) -> Steps[Session]:
        """Load the session the request names, or start a new one."""
        record = None
        for value in cookie_values(self._cookies, self._rules.policy.name):
            found = self._rules.signer.unsign(value)
            if found is not None:
                self._verified = True
                sid, self._newest = found
                record = yield StoreCall("load", (sid,))
                break
        kind = SealedSession if self._rules.sealed else Session
        self.session = kind(self._visit, record)
        self._browsers = self.session.cookie.policy  # of the cookie that the browser has now
        return self.session

    def commit(self, present: object) -> Steps[None]:
        """Write what the application did; ``present`` is what stands where it found the session."""
        session, rules = self.session, self._rules
        if self._taken_out(present):
            yield from session.bury()
            return
        try:
            yield from session.commit(
                resave=rules.resave or (rules.rolling and rules.sealed),
                save_uninitialized=rules.save_uninitialized,
                certain=self._is_announced(),
            )
        except SessionGone as error:
            self._tell(error)

    def finish(self, present: object, *, touch: bool = False) -> Steps[None]:
        """Write what changed after the headers left; too late for a cookie."""
        session = self.session
        self._visit.headers_sent = True
        try:
            if self._taken_out(present) or self._unsaved:
                yield from session.bury()
                return
            yield from session.commit(touch=touch)
        except SessionGone as error:
            self._tell(error)
        except StoreError as error:
            if self._rules.unavailable != "skip":
                raise
            _log.error("%s", error)
        session.extended = False
        ended = session.destroyed and self._verified
        if session.announce or (ended and not self._ended):
            session.announce, self._ended = False, ended
            _log.warning(
                "the session's cookie changed after the response had begun: it is not sent"
            )

    def abandon(self, present: object) -> Steps[None]:
        """The application raised before its response: nothing is saved but a destroy.

        The second time, as when the body is closed, only what was destroyed since the first.
        """
        again, self._abandoned = self._abandoned, True
        self._visit.headers_sent = True  # the response is another's, also if it saves the session
        if present is None and self._rules.unset == "destroy":
            self.session.destroy()
        try:
            yield from self.session.bury() if again else self.session.abandon()
        except SessionGone as error:
            _log.info("%s", error)
        except StoreError as error:
            _log.error("%s", error)  # the application's own error is the one to raise

    def headers(self, headers: Headers) -> Headers:
        """The response's headers with what the session adds; after ``commit``, once."""
        session = self.session
        cookies = self._set_cookies()
        session.announce = session.extended = False
        self._ended = session.destroyed
        self._visit.headers_sent = True
        if cookies:
            headers = _not_stored(headers)
            headers += [("set-cookie", cookie) for cookie in cookies]
        return _varied(headers) if session.accessed else headers

    def goes_on(self, error: ConflictError | StoreError) -> bool:
        """Whether the application's response is to go out all the same, unsaved.

        Nothing but what was destroyed is tried again then.

        Raises:
            StoreError: this one, where that is asked for.
        """
        policy = self._rules.unavailable
        if policy == "respond" or not isinstance(error, StoreError):
            return False
        if policy == "raise":
            raise error
        _log.error("%s", error)
        self._unsaved = True
        return True

    def refused(self, error: ConflictError | StoreError) -> Refusal:
        """The response in place of the application's; it too tells the browser of a new id.

        That was stored by a ``save()`` before, and no later response could tell of it.
        """
        answer = refusal(error)
        session = getattr(self, "session", None)  # there is none when it could not be loaded
        if session is None or not session.announce:
            return answer
        return replace(answer, headers=self.headers(answer.headers))

    def _taken_out(self, present: object) -> bool:
        """Whether the application took the session away and wants it kept; or destroys it, once."""
        if present is None:
            self._kept = self._rules.unset == "keep"
            if not self._kept and not self._out:
                self.session.destroy()
            self._out = True
        elif present is not self.session:
            msg = (
                f"the session was replaced by a {type(present).__name__}; change it in place,"
                " or set it to None to end it"
            )
            raise TypeError(msg)
        return self._kept

    def _tell(self, error: SessionGone) -> None:
        """A change that is lost is worth a warning; that a visitor's session has ended is not."""
        _log.log(logging.WARNING if self.session.modified else logging.INFO, "%s", error)

    def _set_cookies(self) -> list[str]:
        session, https = self.session, self._visit.https
        nothing_done = self._kept and not (session.announce or session.destroyed)
        if nothing_done or session.gone:
            return []
        if session.is_new:
            return self._leaving(None) if session.destroyed else []
        policy = session.cookie.policy
        if not self._is_announced():
            return []
        if not policy.may_be_sent(https):
            _log.warning("over plain HTTP, with secure=True: the session's cookie is not sent")
            return []
        assert session.stored_id is not None
        value, sealed = self._rules.signer.sign(session.stored_id), self._rules.sealed
        cookie = policy.announce(value, https=https, now=time.time(), encoded=sealed)
        return [*self._leaving(policy), cookie]

    def _leaving(self, coming: CookiePolicy | None) -> list[str]:
        """The end of the cookies the browser may have where the coming one will not replace them.

        In another place it is another cookie, and the dead one would hide the live one.
        """
        https, places = self._visit.https, {} if coming is None else {coming.place: ""}
        moved = coming is not None and self.session.announce
        for policy in (self._browsers, *((self._policy,) if moved else ())):
            if self._verified and policy.place not in places and policy.may_be_sent(https):
                places[policy.place] = policy.expire(https=https)
        return [cookie for cookie in places.values() if cookie]

    def _is_announced(self) -> bool:
        """Whether the cookie of a stored session goes out, as far as it is known now."""
        session = self.session
        if self._unsaved:
            return session.announce
        renewed = session.changed or session.extended
        lasting = renewed and session.cookie.policy.max_age is not None
        return session.announce or self._rules.rolling or not self._newest or lasting


def _given(sid: str) -> str:
    """An id from ``genid``; where it returned None the store would make one of its own."""
    if handle_of(sid) is None:
        msg = f"genid must return text of 1 to {LONGEST_ID} characters without control characters"
        raise ConfigurationError(msg)
    return sid


def _not_stored(headers: Headers) -> Headers:
    """No shared cache may keep a response that sets the cookie (RFC 9111 section 5.2.2).

    What the application says to that end stays.
    """
    ours = [value.lower() for name, value in headers if name.lower() == "cache-control"]
    said = {directive.partition("=")[0].strip() for value in ours for directive in value.split(",")}
    if said & _UNSHARED and not said & _SHARED:
        return list(headers)
    kept = [(name, value) for name, value in headers if name.lower() != "cache-control"]
    return [*kept, ("cache-control", "no-store")]


def _varied(headers: Headers) -> Headers:
    """The response depends on the cookie (RFC 9110 section 12.5.5)."""
    for name, value in headers:
        if name.lower() == "vary":
            fields = {field.strip().lower() for field in value.split(",")}
            if fields & {"cookie", "*"}:
                return headers
    return [*headers, ("vary", "Cookie")]
