"""Small files of ours: read whole, replaced in one step, written to the last byte."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from filesession.errors import store_error

OPEN_TO_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Never through a symlink, and never waiting, as opening a FIFO would."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

LARGEST_DOCUMENT: Final = 1 << 20
"""Bytes; what is longer is not ours and is not read further."""


def read_document(path: str) -> bytes | None:
    """The content of a small file of ours; None when it is not there.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        descriptor = os.open(path, OPEN_TO_READ)
        try:
            return _content(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise store_error(error, f"reading {path}") from error


def _content(descriptor: int) -> bytes:
    content = b""
    while len(content) < LARGEST_DOCUMENT:
        more = os.read(descriptor, LARGEST_DOCUMENT - len(content))
        if not more:
            break
        content += more
    return content


def write_document(path: str, content: bytes, *, durable: bool = False) -> None:
    """Replace a small file of ours in one step, 0600.

    Raises:
        StoreError: it could not be written; the old one is intact.
    """
    temporary = f"{path}.{secrets.token_hex(6)}.tmp"
    try:
        write_new(temporary, content, durable=durable)
        os.rename(temporary, path)
        if durable:
            sync_directory(os.path.dirname(path))
    except OSError as error:
        raise store_error(error, f"writing {path}") from error
    finally:
        unlink_if_there(temporary)


def sync_directory(directory: str) -> None:
    """Have the names in a directory survive a power cut."""
    with surviving(directory):
        pass


@contextmanager
def surviving(*directories: str) -> Iterator[None]:
    """Have what changes inside in the names of these directories survive a power cut.

    They are opened before anything changes: what fails after that is the disk itself.

    Raises:
        FileNotFoundError: one is not there; nothing was changed.
        OSError: it is not known whether the change would survive.
    """
    descriptors: list[int] = []
    try:
        for directory in directories:
            # One step: the handler of a signal may raise before another keeps what this one gave.
            descriptors.extend(map(os.open, (directory,), (_DIRECTORY,)))
        yield
        for descriptor in descriptors:
            os.fsync(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte: a write may be cut short by a full disk or a limit without an error."""
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, content[written:])


def write_new(path: str, content: bytes, *, durable: bool) -> None:
    """Make a file that is not there yet, 0600 whatever the umask.

    Raises:
        OSError: it is there, or could not be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        write_all(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlink_if_there(path: str) -> None:
    """Remove a temporary file, which may be gone already.

    One that cannot be removed is left to the sweep: what came before is the failure to tell.
    """
    with suppress(OSError):
        os.unlink(path)
