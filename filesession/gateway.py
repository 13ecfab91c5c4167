"""What the two middlewares share: their keywords, checked once, when the application is built."""

from __future__ import annotations

import os
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote

from filesession.codec import JSONCodec, plain
from filesession.cookies.header import Priority, SameSite
from filesession.cookies.policy import Auto, CookiePolicy
from filesession.cookies.sealing import EncryptedCookie, SealedSessions
from filesession.cookies.signing import Signer
from filesession.cookies.varying import Varying, VaryingPolicy
from filesession.errors import ConfigurationError
from filesession.exchange import Carrier, ProxyTrust, Rules, TrustProxy, Unavailable
from filesession.lifetime import Timeout
from filesession.retries import Retries, RetryDelay
from filesession.routes import Pattern, Route, Routes
from filesession.stores.entry import Conflict
from filesession.stores.file.store import FileStore
from filesession.stores.protocol import AsyncStore, KeepsSecret, Store

AnyStore = Store | AsyncStore | EncryptedCookie | str | os.PathLike[str]

Options: TypeAlias = Mapping[str, Any]
Factory: TypeAlias = Callable[[], Options | Awaitable[Options]]
"""Gives the keywords of a middleware when the server starts."""

_PATH: Final = "/!$&'()*+,;=:@"
"""What a URL's path holds as it is, beside letters, digits and ``-._~`` (RFC 3986, 3.3)."""


class Gateway:
    """The keywords of both ``SessionMiddleware`` classes.

    Args:
        app: the application.
        store: a store, the path of a session directory, or an ``EncryptedCookie``.
        secret: signs the cookie; text or bytes, or a sequence of such: the newest signs, all
            verify, and what an old one verified is signed anew. None: a FileStore keeps a key of
            its own, and an EncryptedCookie needs none.
        name: the cookie's; None: ``__Host-sid`` where ``secure=True``, path and domain allow it,
            else ``sid``.
        path: sessions and their cookie are limited to this subtree.
        domain: the cookie's; None: the host alone.
        secure: True: only over TLS; "auto": as the request came.
        http_only: scripts cannot read the cookie.
        same_site: "lax", "strict" or True, "none", "auto", False or None.
        partitioned: the cookie is one for each site it is embedded in.
        priority: "low", "medium", "high" or None.
        max_age: seconds or ``timedelta`` the browser keeps the cookie; None: until it is closed.
        cookie: a function of the scope or environ that gives the attributes in which the cookie of
            this request differs, as ``{"same_site": "none"}``: any of the above but the name. Where
            they cannot be used it is a ``ConfigurationError`` of the request.
        rolling: send the cookie with every response of a stored session; an encrypted one is good
            from then on.
        resave: save a session also when it was not changed.
        save_uninitialized: store a new session also when nothing was put into it.
        unset: what taking the session out of scope or environ does: "destroy" it, or "keep" it.
        genid: makes ids from the scope or environ: unpredictable and unique; None: 32 random bytes.
        trust_proxy: whose X-Forwarded-Proto counts: True, or a list of networks.
        conflict: "merge", "overwrite" or "error", when another request saved the session meanwhile.
        include: patterns of paths, or (pattern, methods) pairs; no other requests have a session.
            ``filesession.routes`` says what a pattern is: ``"/shop/**"``, ``"/users/{id}"``, or a
            compiled regular expression. Without a session no cookie is looked at. None: all have.
        exclude: likewise; these have none, whatever ``include`` says.
        retries: how often a store call that failed with a ``StoreError`` is tried again, but one
            for a lock, which has waited already, or a touch.
        retry_delay: gives the seconds, 60 at most, to wait before such a try, by its number, from
            1; None: 0.05, then twice as long each time, 1 at most. The event loop goes on
            meanwhile, a thread waits; a cancelled request tries no more. One that fails ends it.
        unavailable: what becomes of a request whose session then cannot be loaded or saved:
            "respond" answers 503 with Retry-After; "raise" lets the ``StoreError`` through; "skip"
            logs it, and runs the request without a session in the scope or environ, or sends the
            application's response unsaved and without a cookie. Only what was destroyed is still
            tried again when it is out, and its cookie ends.
        key: where in scope or environ the session is put.
        offload: True: store calls run in worker threads; False: on the event loop; None: on the
            event loop, except those that wait for the disk and those of a store that cannot tell. A
            lock is never waited for on the event loop. Without effect under WSGI.

    Raises:
        ConfigurationError: a value is wrong, or browsers would drop the cookie.
    """

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - narrowed by each gateway
        store: AnyStore,
        secret: str | bytes | Sequence[str | bytes] | None = None,
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
        cookie: Varying | None = None,
        rolling: bool = False,
        resave: bool = False,
        save_uninitialized: bool = False,
        unset: Literal["destroy", "keep"] = "destroy",
        genid: Callable[[Any], str] | None = None,
        trust_proxy: TrustProxy = False,
        conflict: Conflict = "merge",
        include: Iterable[Route] | Pattern | None = None,
        exclude: Iterable[Route] | Pattern | None = None,
        retries: int = 0,
        retry_delay: RetryDelay | None = None,
        unavailable: Unavailable = "respond",
        key: str = "session",
        offload: bool | None = None,
    ) -> None:
        _check(key, offload)
        # fmt: off
        policy = CookiePolicy(
            name=name, path=path, domain=domain, secure=secure, http_only=http_only,
            same_site=same_site, partitioned=partitioned, priority=priority, max_age=max_age)
        self.app, self.key, self.offload = app, key, offload
        self._routes = None if include is None and exclude is None else Routes(include, exclude)
        self._varying = None if cookie is None else VaryingPolicy(policy, cookie)
        self._retries = Retries(retries, retry_delay)
        self.store = _opened(store, policy.name)
        self.rules = Rules(
            policy=policy, sealed=isinstance(self.store, SealedSessions),
            signer=_signer(secret, self.store),
            codec=plain(getattr(self.store, "codec", None) or JSONCodec()),
            proxies=ProxyTrust(trust_proxy), rolling=rolling, resave=resave,
            save_uninitialized=save_uninitialized, unset=unset, genid=genid, conflict=conflict,
            unavailable=unavailable)
        # fmt: on
        self._prepare()

    def _prepare(self) -> None:
        """Make what makes the store calls."""

    def _check_alone(self, request: MutableMapping[str, Any]) -> None:
        """Raises ``ConfigurationError`` where another middleware has the same cookie."""
        name = self.rules.policy.name
        key = request.setdefault(f"filesession.cookie.{name}", self.key)
        if key != self.key:
            msg = (
                f"two session middlewares, key={key!r} and key={self.key!r}, use one cookie,"
                f" {name!r}, and would undo each other's; give one of them another name"
            )
            raise ConfigurationError(msg)

    def _policy_of(
        self, request: MutableMapping[str, Any], path: str, method: str
    ) -> CookiePolicy | None:
        """The attributes of a request's cookie; None: it has no session.

        Args:
            request: the scope or environ.
            path: decoded, what is no UTF-8 as surrogates. It must be in the subtree of the cookie,
                whose path is percent-encoded (RFC 6265 section 5.1.4).
            method: that of the request.
        """
        if self._routes is not None and not self._routes.covers(path, method):
            return None
        policy = self.rules.policy if self._varying is None else self._varying.of(request)
        if policy.path == "/" or policy.covers(quote(path, _PATH, errors="surrogateescape")):
            return policy
        return None


def checked_factory(factory: Factory) -> Factory:
    """Raises ``ConfigurationError`` for what cannot be called."""
    if not callable(factory) or isinstance(factory, Gateway):
        msg = (
            "configure needs a function that gives the middleware's keywords, as"
            f" {{'store': ..., 'secret': ...}}, not {type(factory).__name__}"
        )
        raise ConfigurationError(msg)
    return factory


def checked_options(given: object) -> dict[str, Any]:
    """The keywords that a factory gave.

    Raises:
        ConfigurationError: they are none, or no store is among them.
    """
    if not isinstance(given, Mapping) or "store" not in given:
        what = "one without 'store'" if isinstance(given, Mapping) else type(given).__name__
        msg = f"the factory must give a mapping of the middleware's keywords, not {what}"
        raise ConfigurationError(msg)
    return dict(given)


def _check(key: object, offload: object) -> None:
    if not isinstance(key, str) or not key:
        msg = f"key must be non-empty text, not {key!r}"
        raise ConfigurationError(msg)
    if offload is not None and not isinstance(offload, bool):
        msg = f"offload must be True, False or None, not {offload!r}"
        raise ConfigurationError(msg)


def _opened(store: AnyStore, name: str) -> Store | AsyncStore:
    if isinstance(store, (str, os.PathLike)):
        return FileStore(store)
    if isinstance(store, EncryptedCookie):
        return SealedSessions(store, name)
    missing = [
        verb
        for verb in ("load", "create", "save", "touch", "delete")
        if not callable(getattr(store, verb, None))
    ]
    if missing or isinstance(store, type):
        msg = f"store must be a store or a path; {_lack(store, missing)}"
        raise ConfigurationError(msg)
    return store


def _lack(store: object, missing: Sequence[str]) -> str:
    if isinstance(store, type):
        return f"{store.__name__} is a class; make one of it"
    return f"{type(store).__name__} has no {', '.join(missing)}"


def _signer(secret: str | bytes | Sequence[str | bytes] | None, store: object) -> Carrier:
    if isinstance(store, SealedSessions):
        if secret is not None:
            msg = "an EncryptedCookie has keys of its own; leave secret out"
            raise ConfigurationError(msg)
        return store
    if secret is not None:
        return Signer(secret)
    if not isinstance(store, KeepsSecret):
        msg = f"secret is needed: a {type(store).__name__} keeps no key of its own"
        raise ConfigurationError(msg)
    return Signer(store.signing_key())
