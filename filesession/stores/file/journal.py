r"""The session file's content: a short journal, one line a save.

    <checksum> {"format":1,"version":3,...,"data":{...}}\n

1. The last whole line is the session. Lines above it are never changed, so whatever happens to a
   write, an older state is still whole.
2. A line is whole when it ends in a line break and its checksum is right. A tail that is not,
   because a write was cut short or a disk block never arrived, is passed over. A whole line that a
   newer version wrote is not: what is above it is no longer the session.
3. The checksum, a CRC-32 in eight lower-case hex digits, covers the file's own name: a line copied
   to another file is not whole there. It guards against accidents, not against an author: who may
   write in the directory may write sessions.
4. ``data`` is the last member, so that its text can be cut out without decoding it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any, Final

from filesession.codec import dump_object, load_object
from filesession.lifetime import UNSET
from filesession.record import NO_OVERRIDES
from filesession.stores.entry import Entry

FORMAT: Final = 1

MOST_BROKEN: Final = 1000
"""Lines passed over before the file is given up. Our own failures leave a few; more is garbage, and
looking through all of it would take minutes."""

LARGEST_VERSION: Final = 2**53
"""No session is saved as often; what is more cannot be counted on."""

_PREFIX: Final = 9
"""Bytes of the checksum and the blank behind it."""

_DATA: Final = b',"data":'
_OPENING: Final = (b"{", b"[")
_CLOSING: Final = (b"}", b"]")
_TOKENS: Final = re.compile(rb',"data":|"(?:[^"\\]|\\.)*"|[][{}]')
"""What tells how deep a place in a line is."""


class NewerFormatError(Exception):
    """The session was saved by a newer version of filesession, in a format not known here."""


def seed_of(handle: str) -> int:
    """What the checksums of a file start from: its name."""
    return zlib.crc32(handle.encode("ascii"))


def line_of(entry: Entry, seed: int) -> bytes:
    """The entry as a line."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": entry.version,
        "lineage": entry.lineage,
        "created": entry.created,
        "saved": entry.saved,
    }
    if entry.idle is not UNSET:
        header["idle"] = entry.idle
    if entry.absolute is not UNSET:
        header["absolute"] = entry.absolute
    if entry.cookie:
        header["cookie"] = dict(entry.cookie)
    if entry.ended:
        header["ended"] = True
    return sealed(b"".join((dump_object(header)[:-1], _DATA, entry.data, b"}")), seed)


def sealed(body: bytes, seed: int) -> bytes:
    """A whole line of that content, which holds no line break."""
    return b"%08x %b\n" % (zlib.crc32(body, seed), body)


def unsealed(line: bytes, seed: int) -> bytes | None:
    """The content of a line; None when it is not whole."""
    body = line[_PREFIX:-1]
    return body if line == sealed(body, seed) else None


def last_entry(content: bytes, seed: int) -> Entry | None:
    """The entry in the last whole line; None when there is no whole line.

    Raises:
        NewerFormatError: that line cannot be understood here.
    """
    end = content.rfind(b"\n")
    for _ in range(MOST_BROKEN):
        if end <= 0:
            break
        start = content.rfind(b"\n", 0, end) + 1
        body = content[start + _PREFIX : end]
        if content[start : start + _PREFIX] == b"%08x " % zlib.crc32(body, seed):
            entry = _parsed(body)
            if entry is not None:
                return entry
        end = start - 1
    return None


def _parsed(body: bytes) -> Entry | None:
    parts = _parts(body)
    if parts is None:
        return None
    members, data = parts
    try:
        if members["format"] != FORMAT:
            raise NewerFormatError
        entry = Entry(
            members["version"],
            members["lineage"],
            members["created"],
            members["saved"],
            data,
            members.get("idle", UNSET),
            members.get("absolute", UNSET),
            members.get("cookie", NO_OVERRIDES),
            "ended" in members,
        )
    except KeyError:
        return None
    return entry if _is_well_formed(entry) else None


def _parts(body: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The members above the data, and the data's text.

    A cookie attribute may be named "data" as well, but what ends there is no whole object.
    """
    for find in (_first, _outermost):
        cut = find(body)
        try:
            if cut >= 0:
                return load_object(body[:cut] + b"}"), body[cut + len(_DATA) : -1]
        except ValueError:
            continue
    return None


def _first(body: bytes) -> int:
    return body.find(_DATA)


def _outermost(body: bytes) -> int:
    """Where the data of the line itself begins. One pass: a line may say "data" any often."""
    depth = 0
    for token in _TOKENS.finditer(body):
        if token[0] == _DATA and depth == 1:
            return token.start()
        depth += token[0] in _OPENING
        depth -= token[0] in _CLOSING
    return -1


def _is_well_formed(entry: Entry) -> bool:
    return (
        type(entry.version) is int
        and 0 < entry.version < LARGEST_VERSION
        and type(entry.lineage) is str
        and _is_number(entry.created)
        and _is_number(entry.saved)
        and (entry.idle is UNSET or entry.idle is None or _is_number(entry.idle))
        and (entry.absolute is UNSET or entry.absolute is None or _is_number(entry.absolute))
        and isinstance(entry.cookie, Mapping)
    )


def _is_number(value: object) -> bool:
    return type(value) is float or type(value) is int
