"""Session data to JSON text and back: the one module that knows orjson.

What goes in comes back equal and of the same type, or is refused, with one exception that JSON
forces: a tuple comes back as a list. orjson by itself would write NaN as null and turn UUIDs,
dates, enums and dataclasses into plain values that nobody turns back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson

from filesession.errors import EncodeError, shown

_STRICT: Final = (
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)

_PLAIN: Final = frozenset({str, int, bool, type(None)})

_ORJSON_DEEPEST: Final = 254
"""Levels of nesting that orjson writes; it reads more."""

_DEEPEST: Final = 200
"""Levels of nesting in session data: less than orjson writes, for an envelope around it."""

_INTEGERS: Final = range(-(2**63), 2**64)


class Codec(Protocol):
    """Turns session data into one line of JSON text and back.

    What ``encode`` returns must itself be JSON (a codec that encrypts returns a JSON string),
    without a line break, and ``decode`` must give back equal data.
    """

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """The data as JSON text. Raises ``EncodeError`` for what would not come back as it was."""

    def decode(self, text: bytes) -> dict[str, Any]:
        """The data again. Raises ``ValueError`` for text that is not what ``encode`` makes."""


class BoundCodec(Codec, Protocol):
    """What a codec may be more: one whose texts belong to the names they are stored under.

    A store that has such names uses the codec that is bound to each.

    Attributes:
        plain: writes equal data alike, which a codec that encrypts does not: for finding changes.
    """

    plain: Codec

    def bound_to(self, name: str) -> BoundCodec:
        """The codec for what is stored under that name."""


class JSONCodec:
    """Plain JSON, readable with any tool."""

    __slots__ = ()

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """The data as compact JSON.

        Raises:
            EncodeError: a value or key would not come back as it went in; names the key path.
        """
        plain = data if type(data) is dict else dict(data)
        try:
            text = orjson.dumps(plain, option=_STRICT) if _is_exact(plain) else None
        except (TypeError, RuntimeError):  # RuntimeError: another thread put a key in meanwhile
            text = None
        if text is None:
            raise _inexact(plain) or EncodeError("the top level", "changed while it was encoded")
        return text

    def decode(self, text: bytes) -> dict[str, Any]:
        """The data again.

        Raises:
            ValueError: the text is not JSON, or not an object.
        """
        return load_object(text)


def bound(codec: Codec, name: str) -> Codec:
    """The codec for what is stored under a name: bound to it, if it is one that can be."""
    if type(codec) is JSONCodec:
        return codec
    bind = getattr(codec, "bound_to", None)
    found: Codec = codec if bind is None else bind(name)
    return found


def plain(codec: Codec) -> Codec:
    """What a session's data is compared with: the codec itself, unless it is bound to names."""
    return codec if type(codec) is JSONCodec else getattr(codec, "plain", codec)


def dump_object(members: Mapping[str, Any]) -> bytes:
    """A mapping of plain values as compact JSON text."""
    return orjson.dumps(members)


def verbatim(text: str) -> object:
    """A piece of JSON text, which ``dump_object`` writes as it is."""
    return orjson.Fragment(text)


def load_object(text: bytes) -> dict[str, Any]:
    """The JSON object in ``text``.

    Raises:
        ValueError: it is anything else, or nested deeper than could be written again.
    """
    found = orjson.loads(text)
    if type(found) is not dict:
        msg = "not a JSON object"
        raise ValueError(msg)
    if text.count(b"{") + text.count(b"[") > _DEEPEST and _is_too_deep(found):
        msg = f"nested deeper than {_DEEPEST} levels"
        raise ValueError(msg)
    return found


def _is_too_deep(value: Any) -> bool:  # noqa: ANN401 - what orjson read
    for _ in range(_ORJSON_DEEPEST - _DEEPEST):
        value = [value]  # for orjson to count: that takes a tenth of the time of a loop here
    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False


def dump_document(members: Mapping[str, Any]) -> bytes:
    r"""A mapping as indented JSON text with a final line break, for files that people read.

    A byte of a file's name that is no UTF-8 is spelled out: ``\udce9``.
    """
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    try:
        return orjson.dumps(members, option=option)
    except TypeError:
        return orjson.dumps(_spelled_out(members), option=option)


def _spelled_out(value: Any) -> Any:  # noqa: ANN401 - any plain value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {key: _spelled_out(inner) for key, inner in value.items()}
    return [_spelled_out(inner) for inner in value] if isinstance(value, list) else value


def _is_exact(data: dict[str, Any]) -> bool:
    """Whether all values are of the types JSON gives back, and none is nested too deep.

    Asked before orjson sees them: it counts no levels of tuples, and a few thousand of them damage
    its memory. Depth first, so that what contains itself is soon found to be too deep.
    """
    stack: list[tuple[Any, int]] = [(data, 1)]
    while stack:
        value, depth = stack.pop()
        inner = value.values() if type(value) is dict else value
        for child in inner:
            kind = type(child)
            if kind in _PLAIN:
                continue
            if kind is float:
                if not math.isfinite(child):
                    return False
            elif kind is dict or kind is list or kind is tuple:
                if depth == _DEEPEST:
                    return False
                stack.append((child, depth + 1))
            else:
                return False
    return True


def _inexact(value: Any, path: str = "", depth: int = 0) -> EncodeError | None:  # noqa: ANN401 - any
    """The error for the first value in ``value`` that JSON cannot hold exactly."""
    kind = type(value)
    if kind is not dict and kind is not list and kind is not tuple:
        problem = _problem(value)
        return EncodeError(path, problem) if problem else None
    if depth >= _DEEPEST:
        problem = f"nested deeper than {_DEEPEST} levels, or contains itself"
        return EncodeError(_shortened(path), problem)
    for key, child in list(value.items()) if kind is dict else enumerate(value):
        if kind is not dict:
            inner = f"{path}[{key}]"
        elif type(key) is str and not _unwritable(key):
            inner = f"{path}.{key}" if path and key.isidentifier() else _top(path, key)
        else:
            problem = f"the key {shown(key)} is not text that JSON can hold"
            return EncodeError(path or "the top level", problem)
        found = _inexact(child, inner, depth + 1)
        if found is not None:
            return found
    return None


def _problem(value: Any) -> str | None:  # noqa: ANN401 - it is asked of anything
    kind = type(value)
    if kind is str:
        return "text with half a surrogate pair" if _unwritable(value) else None
    if kind is float:
        return None if math.isfinite(value) else f"{value} has no JSON form"
    if kind is int:
        return None if value in _INTEGERS else "an integer of more than 64 bits; store it as text"
    if kind in _PLAIN:
        return None
    return (
        f"a value of type {kind.__module__}.{kind.__qualname__} would not come back as one;"
        " store plain JSON values (str, int, float, bool, None, list, dict)"
    )


def _top(path: str, key: str) -> str:
    return key if not path and key.isidentifier() else f"{path}[{key!r}]"


def _shortened(path: str) -> str:
    return path if len(path) <= 60 else path[:60] + "..."  # noqa: PLR2004 - a line of a log


def _unwritable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
