"""What the two middlewares share: their keywords, checked once, when the application is built."""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

from filesession.codec import JSONCodec
from filesession.cookies.header import Priority, SameSite
from filesession.cookies.policy import Auto, CookiePolicy
from filesession.cookies.signing import Signer
from filesession.errors import ConfigurationError
from filesession.exchange import ProxyTrust, Rules, TrustProxy
from filesession.lifetime import Timeout
from filesession.stores.entry import Conflict
from filesession.stores.file.store import FileStore
from filesession.stores.protocol import AsyncStore, KeepsSecret, Store

AnyStore = Store | AsyncStore | str | os.PathLike[str]

_PATH: Final = "/!$&'()*+,;=:@"
"""What a URL's path holds as it is, beside letters, digits and ``-._~`` (RFC 3986, 3.3)."""


class Gateway:
    """The keywords of both ``SessionMiddleware`` classes.

    Args:
        app: the application.
        store: a store, or the path of a session directory.
        secret: signs the cookie; text or bytes, or a sequence of such: the newest signs, all
            verify, and what an old one verified is signed anew. None: a FileStore keeps a key of
            its own.
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
        rolling: send the cookie with every response of a stored session.
        resave: save a session also when it was not changed.
        save_uninitialized: store a new session also when nothing was put into it.
        unset: what taking the session out of scope or environ does: "destroy" it, or "keep" it.
        genid: makes ids from the scope or environ: unpredictable and unique; None: 32 random bytes.
        trust_proxy: whose X-Forwarded-Proto counts: True, or a list of networks.
        conflict: "merge", "overwrite" or "error", when another request saved the session meanwhile.
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
        rolling: bool = False,
        resave: bool = False,
        save_uninitialized: bool = False,
        unset: Literal["destroy", "keep"] = "destroy",
        genid: Callable[[Any], str] | None = None,
        trust_proxy: TrustProxy = False,
        conflict: Conflict = "merge",
        key: str = "session",
        offload: bool | None = None,
    ) -> None:
        _check(key, offload)
        # fmt: off
        policy = CookiePolicy(
            name=name, path=path, domain=domain, secure=secure, http_only=http_only,
            same_site=same_site, partitioned=partitioned, priority=priority, max_age=max_age,
        )
        # fmt: on
        self.app = app
        self.key = key
        self.offload = offload
        self.store = _opened(store)
        self.rules = Rules(
            policy=policy,
            signer=_signer(secret, self.store),
            codec=getattr(self.store, "codec", None) or JSONCodec(),
            proxies=ProxyTrust(trust_proxy),
            rolling=rolling,
            resave=resave,
            save_uninitialized=save_uninitialized,
            unset=unset,
            genid=genid,
            conflict=conflict,
        )
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

    def _covers(self, path: bytes) -> bool:
        """Whether a path, decoded, is in the subtree of the cookie, whose path is percent-encoded.

        RFC 6265 section 5.1.4.
        """
        policy = self.rules.policy
        return policy.path == "/" or policy.covers(quote(path, _PATH))


def _check(key: object, offload: object) -> None:
    if not isinstance(key, str) or not key:
        msg = f"key must be non-empty text, not {key!r}"
        raise ConfigurationError(msg)
    if offload is not None and not isinstance(offload, bool):
        msg = f"offload must be True, False or None, not {offload!r}"
        raise ConfigurationError(msg)


def _opened(store: AnyStore) -> Store | AsyncStore:
    if isinstance(store, (str, os.PathLike)):
        return FileStore(store)
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


def _signer(secret: str | bytes | Sequence[str | bytes] | None, store: object) -> Signer:
    if secret is not None:
        return Signer(secret)
    if not isinstance(store, KeepsSecret):
        msg = f"secret is needed: a {type(store).__name__} keeps no key of its own"
        raise ConfigurationError(msg)
    return Signer(store.signing_key())
