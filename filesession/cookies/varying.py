"""A cookie whose attributes depend on the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import iscoroutine, iscoroutinefunction
from typing import Any, Final, TypeAlias

from filesession.cookies.policy import CookiePolicy
from filesession.errors import ConfigurationError, shown

Varying: TypeAlias = Callable[[Any], Mapping[str, Any]]
"""Gives the attributes in which the cookie of a request, by its scope or environ, differs."""

_REMEMBERED: Final = 256
"""Checked policies. There are few, but for a ``max_age`` that counts down to something."""


class VaryingPolicy:
    """The policy of each request: one of all, with what a function says of the request.

    Args:
        policy: has the other attributes, and the name.
        function: called once a request.

    Raises:
        ConfigurationError: it is no plain function.
    """

    __slots__ = ("_checked", "_function")

    def __init__(self, policy: CookiePolicy, function: Varying) -> None:
        if not callable(function) or iscoroutinefunction(function):
            msg = (
                "cookie must be a plain function of the scope or environ that gives the attributes"
                f" in which this request's cookie differs, or None, not {shown(function)};"
                " attributes for all requests are keywords of their own"
            )
            raise ConfigurationError(msg)
        self._function = function

        @lru_cache(maxsize=_REMEMBERED, typed=True)  # typed: 1 is not True
        def checked(*flat: Any) -> CookiePolicy:  # noqa: ANN401 - names and values in turn
            return policy.overridden(dict(zip(flat[::2], flat[1::2], strict=True)))

        self._checked = checked

    def of(self, request: Any) -> CookiePolicy:  # noqa: ANN401 - a scope or environ
        """The policy of a request.

        Raises:
            ConfigurationError: the function gave no mapping, or what browsers would drop.
        """
        given = self._function(request)
        if not isinstance(given, Mapping):
            if iscoroutine(given):
                given.close()  # it would be told that nobody awaited it
            msg = f"cookie must give a mapping of attributes, {{}} for no other, not {shown(given)}"
            raise ConfigurationError(msg)
        flat = [part for item in given.items() for part in item]
        try:
            return self._checked(*flat)
        except ConfigurationError as error:
            msg = f"what cookie gave for this request cannot be used: {error}"
            raise ConfigurationError(msg) from None
        except TypeError:  # a value that cannot be hashed: it is none of an attribute's
            names = ", ".join(map(shown, given))
            msg = f"cookie gave a list or the like for one of {names}"
            raise ConfigurationError(msg) from None
