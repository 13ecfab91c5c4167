"""How large a session may be, and how long its file grows before it is replaced."""

from __future__ import annotations

from typing import Final

from filesession.codec import Codec
from filesession.errors import EncodeError
from filesession.stores.file.sessionfile import LARGEST, Snapshot

LONGEST_JOURNAL: Final = 16 * 1024
"""Bytes. A longer file is replaced at the next save: 40 saves of a usual session, one read."""

LINES_KEPT: Final = 4
"""Of its largest lines a file may hold so many: a large session is not replaced each time."""

LARGEST_DATA: Final = LARGEST // (2 * LINES_KEPT)
"""Bytes, 8 MiB: the largest session, so that no file of ours is too large to be read."""

LARGEST_HEADER: Final = 64 * 1024
"""Bytes of a line beside the data: times, and what the session's cookie overrides."""


def check_fits(encoded: bytes, codec: Codec) -> None:
    """Raises ``EncodeError``, naming the largest top-level key, for a session that is too large."""
    if len(encoded) > LARGEST_DATA:
        data = codec.decode(encoded)
        path = max(data, key=lambda key: len(codec.encode({key: data[key]})))
        raise EncodeError(path, f"the session is larger than {LARGEST_DATA >> 20} MiB")


def check_header(line: bytes, data: bytes) -> None:
    """Raises ``EncodeError`` for a line that is too large by what stands beside its data."""
    if len(line) - len(data) > LARGEST_HEADER:
        where, most = "cookie", LARGEST_HEADER >> 10
        raise EncodeError(where, f"the attributes this session has of its own exceed {most} kB")


def is_long(found: Snapshot, line: bytes) -> bool:
    """Whether the file would be too long with that line, and is to be replaced.

    For one with a second name any line is too long: that may be a backup's, and stays as it is.
    """
    return found.names > 1 or found.size + len(line) > max(LONGEST_JOURNAL, LINES_KEPT * len(line))
