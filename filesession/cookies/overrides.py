"""The attributes one session's cookie has of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from filesession.codec import JSONCodec
from filesession.cookies.header import Priority, SameSite
from filesession.cookies.policy import Auto, CookiePolicy
from filesession.errors import ConfigurationError
from filesession.lifetime import Timeout
from filesession.record import NO_OVERRIDES
from filesession.stores.entry import merged

_log = logging.getLogger("filesession.session")

_PLAIN: Final = JSONCodec()

OVERRIDABLE: Final = frozenset(field.name for field in fields(CookiePolicy)) - {"name"}


class SessionCookie:
    """The attributes of one session's cookie: the policy's, until it is given its own.

    ``session.cookie.max_age = 86400`` overrides one, for this session alone and until it ends. The
    attributes are those of ``CookiePolicy`` without ``name``; a value that a policy would refuse is
    a ``ConfigurationError``, and any other name an ``AttributeError``.
    """

    __slots__ = ("_default", "_overrides", "_policy", "_stored")

    path: str
    domain: str | None
    secure: bool | Auto
    http_only: bool
    same_site: SameSite | Auto | bool | None
    partitioned: bool
    priority: Priority | None
    max_age: Timeout | None
    _policy: CookiePolicy

    def __init__(self, default: CookiePolicy, overrides: Mapping[str, Any]) -> None:
        self._put("_default", default)
        self.load(overrides)

    def load(self, overrides: Mapping[str, Any]) -> None:
        """Be what is stored of a session."""
        known = {name: value for name, value in overrides.items() if name in OVERRIDABLE}
        try:
            self.reset(known)
        except ConfigurationError as error:  # the policy is another one since it was stored
            _log.warning("a session's own cookie attributes are left out: %s", error)
            self.reset()
        self.keep()

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the attribute's own type
        if name in OVERRIDABLE:
            return getattr(self._policy, name)
        msg = f"a session's cookie has no attribute {name!r}"
        raise AttributeError(msg)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - as above
        if name not in OVERRIDABLE:
            msg = f"a session's cookie has no attribute {name!r}"
            raise AttributeError(msg)
        policy = self._default.overridden({**self._overrides, name: value})
        self._put("_overrides", {**self._overrides, name: getattr(policy, name)})
        self._put("_policy", policy)

    @property
    def policy(self) -> CookiePolicy:
        """The attributes in force."""
        return self._policy

    @property
    def overrides(self) -> dict[str, Any]:
        """The attributes this session has of its own."""
        return dict(self._overrides)

    @property
    def changed(self) -> bool:
        """They are not what is stored."""
        return self._overrides is not self._stored and self._overrides != self._stored

    @property
    def stored(self) -> dict[str, Any]:
        """Those of them that are stored."""
        return dict(self._stored)

    def reset(self, overrides: Mapping[str, Any] = NO_OVERRIDES) -> None:
        """Back to the policy's attributes, but for these."""
        self._put("_policy", self._default.overridden(overrides))
        self._put("_overrides", dict(overrides))

    def follow(self, stored: Mapping[str, Any], base: Mapping[str, Any]) -> None:
        """Take over what is stored now, and keep on top of it what was set here since ``base``."""
        if dict(stored) != base or self._overrides != base:
            ours = self._overrides
            self.load(stored)
            try:
                self.reset(merged(base, ours, self._overrides, _PLAIN))
            except ConfigurationError:  # theirs and ours do not go together
                self.reset(ours)
        else:
            self.keep()

    def keep(self) -> None:
        """What is set now is what is stored."""
        self._put("_stored", self._overrides)
