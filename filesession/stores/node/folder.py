"""The flat directory of session-file-store: names, whole reads, and files replaced in one step.

Rules:

1. A session's file is its id and the extension. An id that would name anything but a file right
   in the directory, or a hidden one, is none.
2. A file is never changed: another one is written and synced beside it, under a name that does not
   end in the extension and that nobody else has, and takes its name.
3. The Express app takes no lock. Ours, on the directory itself, keeps Python processes and threads
   apart, and is held only while a file gets its name or loses it: what was read is compared with
   what has the name then. What is left is the time between that look and the ``rename`` or
   ``unlink`` that follows it, some microseconds, in which the app may write or delete unseen.
4. Who has read a file keeps it open until then: no other file can have its inode meanwhile.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from filesession import locks
from filesession.errors import ConfigurationError, StoreUnavailable, store_error
from filesession.stores.entry import handle_of
from filesession.stores.file.documents import OPEN_TO_READ, unlink_if_there, write_new
from filesession.stores.file.ownership import MANIFEST, absolute

LARGEST: Final = 16 << 20
"""Bytes. A file that is longer is not read, and is no session."""

ABANDONED: Final = 3600.0
"""Seconds after which a temporary file is the rest of a writer that died."""

_TEMPORARY: Final = ".filesession-"
_LONGEST_NAME: Final = 255
_TOKEN: Final = 8

_is_extension = re.compile(r"\.[A-Za-z0-9_.+-]{1,16}").fullmatch
_is_temporary = re.compile(rf".+{re.escape(_TEMPORARY)}[0-9a-f]{{{2 * _TOKEN}}}").fullmatch


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A file as it was read; it stays open while this is of use.

    Attributes:
        path: its name then.
        content: all of it.
        status: of the open file, as it was before it was read.
    """

    path: str
    content: bytes
    status: os.stat_result

    def is_unchanged(self) -> bool:
        """Whether the file still has its name and its content."""
        try:
            named = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return all(
            getattr(named, name) == getattr(self.status, name)
            for name in ("st_ino", "st_dev", "st_size", "st_mtime_ns")
        )


class Folder:
    """The directory.

    Args:
        directory: made 0700 if it is missing.
        extension: what ends the name of a session's file.

    Raises:
        ConfigurationError: it cannot be used; the message says how to mend it.
    """

    def __init__(self, directory: str | os.PathLike[str], extension: str) -> None:
        if not isinstance(extension, str) or not _is_extension(extension):
            msg = "file_extension is a dot and 1 to 16 letters, digits or ._+- behind it"
            raise ConfigurationError(msg)
        self.directory = absolute(directory)
        self.extension = extension
        try:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            mode = os.stat(self.directory).st_mode
        except (FileExistsError, NotADirectoryError):
            msg = f"{self.directory} is not a directory; name that of the Express app's FileStore"
            raise ConfigurationError(msg) from None
        except OSError as error:
            raise store_error(error, f"making {self.directory}") from error
        if os.path.lexists(os.path.join(self.directory, MANIFEST)):
            msg = f"{self.directory} is a session directory of filesession; open it as a FileStore"
            raise ConfigurationError(msg)
        if mode & stat.S_IWOTH:
            msg = f"{self.directory} can be written by every user; close it: chmod o-w"
            raise ConfigurationError(msg)

    def path(self, sid: str) -> str | None:
        """The file of an id; None for what can be no id (rule 1)."""
        if handle_of(sid) is None or sid[0] == "." or "/" in sid or "\\" in sid:
            return None
        name = sid + self.extension
        if len(os.fsencode(name)) + len(_TEMPORARY) + 2 * _TOKEN > _LONGEST_NAME:
            return None
        return os.path.join(self.directory, name)

    def ids(self, behind: str = "") -> Iterator[str]:
        """The ids of all that has the name of a session's file, with ``behind`` at its end.

        In no order.

        Raises:
            StoreUnavailable: the directory cannot be listed.
        """
        for name in self._names():
            sid = name.removesuffix(self.extension + behind)
            if sid != name and self.path(sid) is not None:
                yield sid

    @contextmanager
    def seen(self, path: str) -> Iterator[Seen | None]:
        """The file, read and open while inside; None when there is none.

        Raises:
            StoreUnavailable: the directory has vanished.
            OSError: it cannot be read.
        """
        try:
            descriptor = os.open(path, OPEN_TO_READ)
        except FileNotFoundError:
            self.check_present()
            yield None
            return
        try:
            status = os.fstat(descriptor)
            regular = stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST
            yield Seen(path, _content(descriptor) if regular else b"", status)
        finally:
            os.close(descriptor)

    def replace(self, seen: Seen, content: bytes) -> bool:
        """Give the file other content; False, and nothing is changed, when it is another by now.

        It keeps its mode, and its owner where we may give it away.

        Raises:
            LockTimeout, OSError: nothing was changed.
        """
        with self._written(seen.path, content) as temporary:
            _keep_owner(temporary, seen.status)
            os.chmod(temporary, stat.S_IMODE(seen.status.st_mode))
            with self.locked():
                if not seen.is_unchanged():
                    return False
                os.rename(temporary, seen.path)
        return True

    def put(self, path: str, content: bytes, seen: Seen | None) -> bool:
        """Make the file, 0600, in the place of what was seen there; False when that has changed.

        Raises:
            LockTimeout, OSError: nothing was changed.
        """
        with self._written(path, content) as temporary, self.locked():
            if os.path.lexists(path) if seen is None else not seen.is_unchanged():
                return False
            os.rename(temporary, path)
        return True

    def remove(self, seen: Seen) -> bool:
        """Remove the file; False, and nothing is changed, when it is another by now.

        Raises:
            LockTimeout, OSError: nothing was changed.
        """
        with self.locked():
            if not seen.is_unchanged():
                return False
            os.unlink(seen.path)
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other Python processes and threads from giving or taking names (rule 3).

        Raises:
            LockTimeout: another kept it for 10 seconds.
            OSError: the directory cannot be opened or locked.
        """
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            locks.lock(descriptor, locks.Patience(locks.DEFAULT_TIMEOUT, self.directory))
            try:
                yield
            finally:
                locks.unlock(descriptor)
        finally:
            os.close(descriptor)

    def clear_leftovers(self) -> int:
        """Remove temporary files of Python writers that died; how many. Those of Node stay."""
        removed = 0
        for name in self._names():
            path = os.path.join(self.directory, name)
            if _is_temporary(name) and _is_older(path, ABANDONED):
                with suppress(FileNotFoundError):
                    os.unlink(path)
                    removed += 1
        return removed

    def check_present(self) -> None:
        """Raises ``StoreUnavailable`` when the directory has vanished."""
        if not os.path.isdir(self.directory):
            msg = f"the directory {self.directory} has vanished; restore it, and restart"
            raise StoreUnavailable(msg)

    def _names(self) -> Iterator[str]:
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    yield entry.name
        except OSError as error:
            raise store_error(error, f"listing {self.directory}") from error

    @contextmanager
    def _written(self, path: str, content: bytes) -> Iterator[str]:
        """A temporary file with that content, on the disk; gone afterwards, if not renamed."""
        temporary = f"{path}{_TEMPORARY}{secrets.token_hex(_TOKEN)}"
        try:
            write_new(temporary, content, durable=True)
            yield temporary
        finally:
            unlink_if_there(temporary)


def _content(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, LARGEST):
        parts.append(part)
    return b"".join(parts)


def _keep_owner(path: str, status: os.stat_result) -> None:
    """Give a file of ours to whom the one belongs that it replaces, or at least to its group.

    Only root may give files away; where owners differ, the Express app does the same.
    """
    for owner in (status.st_uid, -1):
        with suppress(PermissionError):
            os.chown(path, owner, status.st_gid)
            return


def _is_older(path: str, seconds: float) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime < time.time() - seconds
    except FileNotFoundError:
        return False
