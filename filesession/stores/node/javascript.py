"""Session data as JavaScript holds it, and the text that its ``JSON.stringify`` makes of it.

Rules:

1. A number is a double. A whole one within 2**53 comes back to Python as an int, any other as a
   float: 1.0 is stored as 1, at once and not only when the Express app saves.
2. An int beyond that would be changed by the next save of the Express app, and is refused.
3. Keys that are array indices come first, in ascending order; the others stay in theirs.
4. Top-level names that Express uses itself are refused: it would drop what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from filesession.codec import JSONCodec, dump_object, load_object, verbatim
from filesession.errors import EncodeError

COOKIE: Final = "cookie"
LAST_ACCESS: Final = "__lastAccess"

RESERVED: Final = frozenset(
    (
        *(COOKIE, LAST_ACCESS),
        # of express-session's Session
        *("id", "req", "touch", "resetMaxAge", "save", "reload", "destroy", "regenerate"),
        # of every object in JavaScript
        *("constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toString"),
        *("toLocaleString", "valueOf", "__proto__", "__defineGetter__", "__defineSetter__"),
        *("__lookupGetter__", "__lookupSetter__"),
    )
)
"""Names that are no data in an Express session. What it finds under one it does not load."""

LARGEST_INTEGER: Final = 2**53 - 1
"""JavaScript's ``Number.MAX_SAFE_INTEGER``."""

_LAST_INDEX: Final = 2**32 - 2

_LONGEST_WHOLE: Final = 21
"""Digits in front of the point up to which JavaScript writes no exponent."""

_MOST_ZEROS: Final = 6
"""Zeros behind the point, likewise."""

_is_index = re.compile(r"0|[1-9][0-9]{0,9}").fullmatch

_PLAIN: Final = JSONCodec()


class JavaScriptCodec:
    """JSON that means the same to Python and to the Express app beside it."""

    __slots__ = ()

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """The data as ``JSON.stringify`` writes it.

        Raises:
            EncodeError: a value or key would not come back as it went in, from JSON or from the
                Express app; names the key path.
        """
        text = _PLAIN.encode(data)  # refuses what no JSON can hold
        for key in data:
            if key in RESERVED:
                raise EncodeError(key, "Express uses this name itself and would drop the value")
        _check_integers(data, "")
        return stringified(load_object(text))

    def decode(self, text: bytes) -> dict[str, Any]:
        """The data again.

        Raises:
            ValueError: the text is not JSON, or not an object.
        """
        return parsed(text)


def parsed(text: bytes) -> dict[str, Any]:
    """The object in a JSON text, its numbers and keys as ``JSON.parse`` would hold them.

    Raises:
        ValueError: the text is not JSON, or not an object.
    """
    found: dict[str, Any] = _mapped(load_object(text), _held)
    return found


def stringified(members: Mapping[str, Any]) -> bytes:
    """An object of plain values as ``JSON.stringify`` writes it."""
    return dump_object(_mapped(dict(members), _written))


def number_text(number: float) -> str:
    """A finite number as JavaScript writes it: ECMA-262, 6.1.6.1.20 Number::toString."""
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    assert isinstance(exponent, int)
    if digits == (0,):
        return "0"
    minus, figures = "-" if sign else "", "".join(map(str, digits))
    point = len(figures) + exponent
    if len(figures) <= point <= _LONGEST_WHOLE:
        text = figures.ljust(point, "0")
    elif 0 < point <= _LONGEST_WHOLE:
        text = f"{figures[:point]}.{figures[point:]}"
    elif -_MOST_ZEROS < point <= 0:
        text = f"0.{'0' * -point}{figures}"
    else:
        rest = f".{figures[1:]}" if figures[1:] else ""
        text = f"{figures[0]}{rest}e{point - 1:+d}"
    return minus + text


def _mapped(value: Any, number: Callable[[float], object]) -> Any:  # noqa: ANN401 - any JSON value
    """A copy with its keys in JavaScript's order and every number replaced."""
    kind = type(value)
    if kind is dict:
        return {key: _mapped(value[key], number) for key in _in_order(value)}
    if kind is list or kind is tuple:
        return [_mapped(child, number) for child in value]
    return number(value) if kind is float or kind is int else value


def _in_order(keys: Mapping[str, Any]) -> list[str]:
    indices = [key for key in keys if _is_index(key) and int(key) <= _LAST_INDEX]
    if not indices:
        return list(keys)
    return [*sorted(indices, key=int), *(key for key in keys if key not in indices)]


def _held(number: float) -> float:
    """The number, an int where it is whole and within the integers of a double."""
    if abs(number) > LARGEST_INTEGER:
        return float(number)
    return int(number) if number == int(number) else number


def _written(number: float) -> object:
    held = _held(number)
    return held if type(held) is int else verbatim(number_text(held))


def _check_integers(value: Any, path: str) -> None:  # noqa: ANN401 - any JSON value
    """Raises ``EncodeError`` for an integer that a double does not hold exactly."""
    if type(value) is int and abs(value) > LARGEST_INTEGER:
        raise EncodeError(path, "JavaScript would change an integer beyond 2**53; store it as text")
    if isinstance(value, Mapping):
        for key, child in value.items():
            _check_integers(child, _below(path, key))
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            _check_integers(child, f"{path}[{index}]")


def _below(path: str, key: str) -> str:
    if not key.isidentifier():
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key
