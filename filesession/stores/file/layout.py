"""The session directory: where things lie, who may use it, and the manifest that describes it.

DIR/                    0700, ours, not a symlink
  filesession.json      manifest
  secret                the signing key, when none was given
  sessions/ab/<handle>  one file a session, 0600
  corrupt/              what could not be read
  janitor.lock, janitor.json
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from filesession.codec import dump_document, load_object
from filesession.errors import ConfigurationError, StoreUnavailable, store_error
from filesession.lifetime import Lifetime
from filesession.stores.entry import HANDLE_LENGTH
from filesession.stores.file.journal import FORMAT

MANIFEST: Final = "filesession.json"
SECRET: Final = "secret"  # noqa: S105 - a file's name
SESSIONS: Final = "sessions"
CORRUPT: Final = "corrupt"

SECRET_BYTES: Final = 32
DEEPEST: Final = 3
"""Shard levels: 16 million directories; more would be empty ones."""

_HANDLE: Final = re.compile(rf"[0-9a-f]{{{HANDLE_LENGTH}}}\Z")
_SHARD: Final = re.compile(r"[0-9a-f]{2}\Z")
_TEMPORARY: Final = re.compile(r"\.[0-9a-f]+\.[0-9a-f]+\.tmp\Z")

_TEMPORARY_DOCUMENT: Final = re.compile(r"(filesession|janitor|secret)[a-z.]*\.[0-9a-f]+\.tmp\Z")

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LARGEST_DOCUMENT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the janitor and the command need to know of a directory, so that its path is enough."""

    format: int
    shard_depth: int
    idle_timeout: float | None
    absolute_timeout: float | None
    touch_interval: float | None
    durable: bool

    @property
    def lifetime(self) -> Lifetime:
        """The timeouts the directory's store was last opened with."""
        return Lifetime(self.idle_timeout, self.absolute_timeout, self.touch_interval)


class Layout:
    """The paths of one session directory, and what is done to the directory as a whole."""

    __slots__ = ("_manifest", "_sessions", "corrupt", "directory", "shard_depth")

    def __init__(self, directory: str, shard_depth: int) -> None:
        self.directory = directory
        self.shard_depth = shard_depth
        self.corrupt = os.path.join(directory, CORRUPT)
        self._sessions = os.path.join(directory, SESSIONS)
        self._manifest = os.path.join(directory, MANIFEST)

    def path(self, handle: str) -> str:
        """Where the session of that handle lies."""
        if self.shard_depth == 1:
            return f"{self._sessions}/{handle[:2]}/{handle}"
        shards = [handle[2 * level : 2 * level + 2] for level in range(self.shard_depth)]
        return "/".join((self._sessions, *shards, handle))

    def temporary(self, path: str) -> str:
        """A name beside ``path`` for what is to replace it; never taken for a session."""
        shard, handle = os.path.split(path)
        return f"{shard}/.{handle}.{secrets.token_hex(6)}.tmp"

    def make_shard(self, path: str, *, durable: bool) -> None:
        """Make the directories above the session file ``path``, 0700 whatever the umask.

        Raises:
            StoreUnavailable: the session directory itself has vanished; it is not made anew, as its
                disk may only be unmounted.
        """
        self.check_present()
        missing = []
        shard = os.path.dirname(path)
        while len(shard) >= len(self._sessions) and not os.path.isdir(shard):
            missing.append(shard)
            shard = os.path.dirname(shard)
        for directory in reversed(missing):
            try:
                os.mkdir(directory, 0o700)
                os.chmod(directory, 0o700)
            except FileExistsError:
                continue
            if durable:
                sync_directory(os.path.dirname(directory))

    def sync_shard(self, handle: str) -> None:
        """Have the name of a new session survive a power cut."""
        sync_directory(os.path.dirname(self.path(handle)))

    def check_present(self) -> None:
        """Raises ``StoreUnavailable`` when the session directory has vanished."""
        try:
            os.stat(self._manifest)
        except FileNotFoundError:
            msg = (
                f"the session directory {self.directory} has vanished (it has no {MANIFEST});"
                " bring it back, or restart the application to have it made anew"
            )
            raise StoreUnavailable(msg) from None
        except OSError as error:
            raise store_error(error, f"looking for {self._manifest}") from error

    def sessions(self) -> Iterator[tuple[str, str]]:
        """(handle, path) of every session file, one directory at a time, in no order."""
        for entry in self._files():
            if _HANDLE.match(entry.name) and entry.path == self.path(entry.name):
                yield entry.name, entry.path

    def leftovers(self) -> Iterator[str]:
        """Paths of the temporary files that lie about, also of writers still at work."""
        for name in os.listdir(self.directory):
            if _TEMPORARY_DOCUMENT.match(name):
                yield os.path.join(self.directory, name)
        yield from (entry.path for entry in self._files() if _TEMPORARY.match(entry.name))

    def strangers(self) -> Iterator[str]:
        """Paths of what is neither a session nor a temporary file of ours."""
        for entry in self._files():
            ours = _HANDLE.match(entry.name) and entry.path == self.path(entry.name)
            if not ours and not _TEMPORARY.match(entry.name):
                yield entry.path

    def _files(self) -> Iterator[os.DirEntry[str]]:
        self.check_present()
        return self._walk(self._sessions, self.shard_depth)

    def _walk(self, directory: str, depth: int) -> Iterator[os.DirEntry[str]]:
        try:
            listing = os.scandir(directory)
        except FileNotFoundError:
            return  # not made yet, or removed while we looked: nothing is stored there
        except OSError as error:
            raise store_error(error, f"listing {directory}") from error
        with listing:
            for entry in listing:
                shard = depth and _SHARD.match(entry.name) and entry.is_dir(follow_symlinks=False)
                if shard:
                    yield from self._walk(entry.path, depth - 1)
                else:
                    yield entry

    def set_aside(self, path: str) -> None:
        """Move a file that cannot be read to ``corrupt/``, where nothing reads it."""
        name = f"{os.path.basename(path)}.{secrets.token_hex(4)}"
        try:
            os.mkdir(self.corrupt, 0o700)
            os.chmod(self.corrupt, 0o700)
        except FileExistsError:
            pass
        os.rename(path, os.path.join(self.corrupt, name))

    def set_aside_count(self) -> int:
        """How many files lie in ``corrupt/``."""
        try:
            return len(os.listdir(self.corrupt))
        except FileNotFoundError:
            return 0

    def read_manifest(self) -> Manifest | None:
        """The manifest; None when there is none.

        Raises:
            ConfigurationError: it is of another format, or not a manifest.
        """
        content = read_document(self._manifest)
        return None if content is None else _manifest_of(content, self._manifest)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest; it survives a power cut from here on."""
        write_document(self._manifest, asdict(manifest), durable=True)

    def signing_key(self) -> bytes:
        """The key in ``secret``, made at the first call; whoever comes second gets the first's.

        Raises:
            ConfigurationError: what is there is no key, or others can read it.
        """
        path = os.path.join(self.directory, SECRET)
        try:
            return _read_key(path)
        except FileNotFoundError:
            self.check_present()
        temporary = f"{path}.{secrets.token_hex(6)}.tmp"
        try:
            _write_new(temporary, secrets.token_hex(SECRET_BYTES).encode("ascii"), durable=True)
            os.link(temporary, path)  # fails when another worker was first, where rename would win
            sync_directory(self.directory)
        except FileExistsError:
            pass
        except OSError as error:
            raise store_error(error, f"making {path}") from error
        finally:
            _unlink_if_there(temporary)
        return _read_key(path)


def prepare(directory: str) -> None:
    """Make the directory ours alone, or refuse it.

    A missing one, or an empty one of ours that others can only read, is made 0700.

    Raises:
        ConfigurationError: it is a symlink, no directory, another user's, or open to others in a
            way that may already have been used; the message has the command that mends it.
    """
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        os.mkdir(directory, 0o700)  # not open to others for a moment: another worker may be looking
        os.chmod(directory, 0o700)
    except FileExistsError:
        check_ours(directory, mend=True)
    except OSError as error:
        msg = f"cannot make the session directory {directory}: {error.strerror}"
        raise ConfigurationError(msg) from error


def check_ours(directory: str, *, mend: bool = False) -> None:
    """Raises ``ConfigurationError`` unless the directory is one, ours, and closed to others.

    With ``mend``, an empty one that others could only read is closed to them.
    """
    status = os.lstat(directory)
    if stat.S_ISLNK(status.st_mode):
        target = os.path.realpath(directory)
        msg = f"{directory} is a symlink; name the directory it points to: {target}"
        raise ConfigurationError(msg)
    if not stat.S_ISDIR(status.st_mode):
        msg = f"{directory} is not a directory; name one, or a path where one can be made"
        raise ConfigurationError(msg)
    if status.st_uid != os.geteuid():
        msg = (
            f"{directory} belongs to user {status.st_uid} and this process runs as {os.geteuid()};"
            f" run it as that user, or: chown -R {os.geteuid()} {directory}"
        )
        raise ConfigurationError(msg)
    if status.st_mode & 0o077:
        if not mend or status.st_mode & 0o022 or os.listdir(directory):
            msg = (
                f"{directory} is open to other users (mode {stat.S_IMODE(status.st_mode):04o});"
                f" look at what is in it, then: chmod 700 {directory}"
            )
            raise ConfigurationError(msg)
        os.chmod(directory, 0o700)


def read_document(path: str) -> bytes | None:
    """The content of a small file of ours; None when it is not there.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise store_error(error, f"reading {path}") from error
    with open(descriptor, "rb") as file:
        return file.read(_LARGEST_DOCUMENT)


def write_document(path: str, members: dict[str, Any], *, durable: bool = False) -> None:
    """Replace a small file of ours in one step, 0600.

    Raises:
        StoreError: it could not be written; the old one is intact.
    """
    temporary = f"{path}.{secrets.token_hex(6)}.tmp"
    try:
        _write_new(temporary, dump_document(members), durable=durable)
        os.rename(temporary, path)
        if durable:
            sync_directory(os.path.dirname(path))
    except OSError as error:
        raise store_error(error, f"writing {path}") from error
    finally:
        _unlink_if_there(temporary)


def sync_directory(directory: str) -> None:
    """Have the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte: a write may be cut short by a full disk or a limit without an error."""
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, content[written:])


def _write_new(path: str, content: bytes, *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        write_all(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink_if_there(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _read_key(path: str) -> bytes:
    descriptor = os.open(path, _READ)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            msg = f"{path} can be read by other users; make a new one: rm {path} (all log in again)"
            raise ConfigurationError(msg)
        key = file.read(_LARGEST_DOCUMENT).strip()
    if len(key) < SECRET_BYTES:
        msg = f"{path} holds no key; remove it to have one made (all log in again): rm {path}"
        raise ConfigurationError(msg)
    return key


def _manifest_of(content: bytes, path: str) -> Manifest:
    try:
        members = load_object(content)
        manifest = Manifest(**members) if members.get("format") == FORMAT else None
        well_formed = manifest is None or (
            manifest.shard_depth in range(DEEPEST + 1)
            and type(manifest.shard_depth) is int
            and type(manifest.durable) is bool
            and Lifetime.of(
                manifest.idle_timeout, manifest.absolute_timeout, manifest.touch_interval
            )
            == manifest.lifetime
        )
    except (ValueError, TypeError):
        manifest, well_formed = None, False
    if not well_formed:
        msg = f"{path} is no manifest of filesession; restore it, or move the directory away"
        raise ConfigurationError(msg)
    if manifest is None:
        msg = f"{path} was written by another version of filesession (not format {FORMAT}); update"
        raise ConfigurationError(msg)
    return manifest
