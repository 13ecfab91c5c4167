"""The ``cookie`` member of an Express session, and the attributes a session of ours overrides.

Rules:

1. Express keeps all attributes in every session, we what the session has of its own: an attribute
   that is as the store's sessions begin with is not the session's own.
2. ``originalMaxAge`` is two things to Express, how long the browser keeps the cookie and how long
   the session lives without activity. So it is ``max_age`` and ``idle_timeout`` to us, in one.
3. Members that are not known here stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from filesession.codec import JSONCodec
from filesession.errors import ConfigurationError, shown
from filesession.lifetime import seconds

MAX_AGE: Final = "max_age"
ORIGINAL: Final = "originalMaxAge"
EXPIRES: Final = "expires"

NAMES: Final = {
    MAX_AGE: ORIGINAL,
    "partitioned": "partitioned",
    "priority": "priority",
    "secure": "secure",
    "http_only": "httpOnly",
    "domain": "domain",
    "path": "path",
    "same_site": "sameSite",
}
"""Our attributes and Express's."""

_ORDER: Final = (
    *(ORIGINAL, "partitioned", "priority", EXPIRES, "secure", "httpOnly", "domain", "path"),
    "sameSite",
)
"""In which express-session writes them."""

_EXPRESS: Final[Mapping[str, Any]] = {ORIGINAL: None, EXPIRES: None, "httpOnly": True, "path": "/"}
"""What express-session begins with."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_PLAIN: Final = JSONCodec()


def beginning(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The ``cookie`` of a new session, with those of our attributes.

    Raises:
        ConfigurationError: an attribute is not known to Express, or of the wrong kind.
    """
    return with_overrides({}, _EXPRESS, attributes)


def overrides_of(cookie: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes a session has of its own, in our words.

    Args:
        cookie: its ``cookie``.
        usual: that of a new session.
    """
    found = {}
    for name, key in NAMES.items():
        if key in cookie and (cookie[key] or None) != (usual.get(key) or None):
            known, value = _ours(name, cookie[key])
            if known:
                found[name] = value
    return found


def with_overrides(
    cookie: Mapping[str, Any], usual: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The ``cookie`` of a session that has these attributes of its own, and no others.

    ``expires`` is left as it is.

    Raises:
        ConfigurationError: an attribute is not known to Express, or of the wrong kind.
        EncodeError: it has no JSON form.
    """
    plain = _PLAIN.decode(_PLAIN.encode({"cookie": dict(overrides)}))["cookie"]
    changed: dict[str, Any] = {**usual, EXPIRES: cookie.get(EXPIRES)}
    for name, value in plain.items():
        if name not in NAMES:
            msg = f"an Express cookie has {', '.join(NAMES)}, and no {shown(name)}"
            raise ConfigurationError(msg)
        if value == "auto":  # as the request came: nothing to write down
            changed.pop(NAMES[name], None)
        else:
            changed[NAMES[name]] = _theirs(name, value)
    unknown = {key: value for key, value in cookie.items() if key not in _ORDER}
    return changed | unknown


def aged(cookie: Mapping[str, Any], now: int) -> dict[str, Any]:
    """The ``cookie`` of a session that is used now, in milliseconds: Express's ``resetMaxAge``.

    Its members are in Express's order then.
    """
    original = cookie.get(ORIGINAL)
    expires = None if original is None else cookie.get(EXPIRES)
    if original is not None and is_number(original):
        try:
            moment = _EPOCH + timedelta(milliseconds=now + original)
        except OverflowError:  # thousands of years from now: as it was
            moment = None
        if moment is not None:
            expires = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    result = {**cookie, ORIGINAL: original, EXPIRES: expires}
    return {key: result[key] for key in _ORDER if key in result} | result


def milliseconds(name: str, timeout: Any) -> int:  # noqa: ANN401 - it is checked here
    """A timeout in whole milliseconds.

    Raises:
        ConfigurationError: it is no positive time, or has no end.
    """
    number = seconds(name, timeout)
    if number is None:
        msg = f"{name} must have an end: Express keeps no session without one; give seconds"
        raise ConfigurationError(msg)
    return max(1, round(number * 1000))


def is_number(value: object) -> bool:
    """Whether JavaScript would count with it."""
    return type(value) is int or type(value) is float


def _ours(name: str, value: Any) -> tuple[bool, Any]:  # noqa: ANN401 - any JSON value
    """Whether we can say it, and how."""
    if name == MAX_AGE:
        if not is_number(value):
            return value is None, None
        whole = value % 1000 == 0
        return value > 0, value // 1000 if whole else value / 1000
    if name in ("same_site", "priority"):
        if not value:
            return True, None
        word = "strict" if value is True else value.lower() if isinstance(value, str) else ""
        return bool(word), word
    if name in ("domain", "path"):
        return value is None or isinstance(value, str), value
    return isinstance(value, bool), value


def _theirs(name: str, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if name == MAX_AGE:
        return None if value is None else milliseconds(name, value)
    if name == "same_site" and value is None:
        return False
    return value
