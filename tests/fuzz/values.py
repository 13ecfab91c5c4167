"""Python values out of bytes, and such as no test could print."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

Kind: TypeAlias = Literal["list", "tuple", "dict", "number"]


@dataclass(frozen=True, slots=True)
class Deep:
    """Stands for a value that is nested too deep, or too long, to be printed when a test fails."""

    levels: int
    kind: Kind = "list"

    def made(self) -> Any:
        value: Any = 1
        for _ in range(self.levels):
            if self.kind == "number":
                value *= -10
            elif self.kind == "dict":
                value = {"a": value}
            else:
                value = [value] if self.kind == "list" else (value,)
        return value


def grown(value: Any) -> Any:
    """The value with everything in it that ``Deep`` stands for."""
    if isinstance(value, dict):
        return {grown(key): grown(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(grown, value))
    return value.made() if isinstance(value, Deep) else value


def value_of(stream: io.BytesIO, depth: int = 0) -> Any:
    """A Python value from bytes; every stream of bytes has one."""
    kind = KINDS[byte_of(stream) % len(KINDS)]
    return kind(stream, depth) if depth < 20 else None


def byte_of(stream: io.BytesIO) -> int:
    return (stream.read(1) or b"\0")[0]


def _number(stream: io.BytesIO, _depth: int) -> Any:
    size = byte_of(stream) % 16 + 1
    return int.from_bytes(stream.read(size), "big", signed=True)


def _huge(stream: io.BytesIO, _depth: int) -> Any:
    sign = -1 if byte_of(stream) % 2 else 1
    return sign << byte_of(stream) * 80


def _float(stream: io.BytesIO, _depth: int) -> Any:
    return struct.unpack(">d", stream.read(8).ljust(8, b"\0"))[0]


def _text(stream: io.BytesIO, _depth: int) -> Any:
    content = stream.read(byte_of(stream))
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def word_of(stream: io.BytesIO, _depth: int) -> Any:
    return TEXTS[byte_of(stream) % len(TEXTS)]


def _list(stream: io.BytesIO, depth: int) -> Any:
    return [value_of(stream, depth + 1) for _ in range(byte_of(stream) % 8)]


def dict_of(stream: io.BytesIO, depth: int) -> Any:
    made: dict[Any, Any] = {}
    for _ in range(byte_of(stream) % 8):
        made[_text(stream, depth)] = value_of(stream, depth + 1)
    return made


def _odd_key(stream: io.BytesIO, depth: int) -> Any:
    key = value_of(stream, depth + 1)
    try:
        return {key: 1}
    except TypeError:
        return {"unhashable": key}


def _deep(stream: io.BytesIO, depth: int) -> Any:
    kinds: tuple[Kind, ...] = ("list", "tuple", "dict")
    kind = kinds[byte_of(stream) % len(kinds)]
    return [Deep(byte_of(stream) ** 2 // 16, kind).made(), value_of(stream, depth + 1)]


def _cycle(stream: io.BytesIO, depth: int) -> Any:
    inner = value_of(stream, depth + 1)
    made: Any = [inner]
    made.append({"inner": made})
    return made


def _alien(stream: io.BytesIO, _depth: int) -> Any:
    seconds = _number(stream, 0) % 10**12
    kinds = (timedelta(seconds=seconds), {seconds}, b"bytes", object(), PlainText("a"), _Whole(5))
    return kinds[byte_of(stream) % len(kinds)]


class PlainText(str):
    __slots__ = ()


class _Whole(int):
    pass


TEXTS: Final = (
    *("lax", "strict", "none", "auto", "low", "high", "/", "/app", "/a;Domain=b", "/\n", "/ "),
    *("example.com", ".example.com", "a b", "x" * 1024, "/" + "x" * 1023, "\ud800", "a\r\nX: y"),
)

KINDS: Final[tuple[Callable[[io.BytesIO, int], Any], ...]] = (
    *(lambda _stream, _depth, value=value: value for value in (None, True, False)),
    *(_number, _huge, _float, _text, word_of, _list, dict_of, _odd_key, _deep, _cycle, _alien),
)

RESTS: Final = (b"", b"\x03abc\x03abc", b"\x7f\xf8" + bytes(6), b"\xff\xff\x08\x01\x06\x02hi")

WORDS: Final = tuple(text.encode("utf-8", "surrogatepass")[:40] for text in TEXTS)
