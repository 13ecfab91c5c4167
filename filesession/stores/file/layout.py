"""The session directory: where things lie, who may use it, and the manifest that describes it.

DIR/                    0700, ours, not a symlink
  filesession.json      manifest
  secret                the signing key, when none was given
  sessions/ab/<handle>  one file a session, 0600
  corrupt/              what could not be read
  moved/                notes of sessions that were just given a new id
  sooner/               notes of sessions that are to end sooner than they were
  janitor.lock, janitor.json
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from filesession.codec import dump_document
from filesession.errors import ConfigurationError, StoreUnavailable, store_error
from filesession.lifetime import Lifetime
from filesession.stores.entry import HANDLE_LENGTH
from filesession.stores.file.documents import (
    read_document,
    surviving,
    sync_directory,
    unlink_if_there,
    write_document,
    write_new,
)
from filesession.stores.file.manifest import DEEPEST, FORMAT, Manifest, manifest_of
from filesession.stores.file.ownership import MANIFEST, check_ours, prepare

SECRET: Final = "secret"  # noqa: S105 - a file's name
SESSIONS: Final = "sessions"
CORRUPT: Final = "corrupt"
MOVED: Final = "moved"
SOONER: Final = "sooner"

SECRET_BYTES: Final = 32
_RESTART: Final = (
    "restart the application (its workers use the key they have until then; all log in again)"
)

_log = logging.getLogger("filesession.store")

_HANDLE: Final = re.compile(rf"[0-9a-f]{{{HANDLE_LENGTH}}}\Z")
_SHARD: Final = re.compile(r"[0-9a-f]{2}\Z")
_TEMPORARY: Final = re.compile(r"\.[0-9a-f]+\.[0-9a-f]+\.tmp\Z")
_NOTE: Final = re.compile(rf"[0-9a-f]{{{HANDLE_LENGTH}}}(\.[0-9a-f]+\.tmp)?\Z")
_TEMPORARY_DOCUMENT: Final = re.compile(r"(filesession|janitor|secret)[a-z.]*\.[0-9a-f]+\.tmp\Z")


def is_handle(name: str) -> bool:
    """Whether it is a stored name as ours are, and so nothing that leads elsewhere in a path."""
    return _HANDLE.match(name) is not None


class Layout:
    """The paths of one session directory, and what is done to the directory as a whole."""

    __slots__ = ("corrupt", "directory", "manifest", "moved", "root", "shard_depth", "sooner")

    def __init__(self, directory: str, shard_depth: int) -> None:
        self.directory = directory
        self.shard_depth = shard_depth
        self.corrupt = os.path.join(directory, CORRUPT)
        self.moved = os.path.join(directory, MOVED)
        self.sooner = os.path.join(directory, SOONER)
        self.root = os.path.join(directory, SESSIONS)
        self.manifest = os.path.join(directory, MANIFEST)

    @classmethod
    def agreed(
        cls, directory: str, shard_depth: int | None, lifetime: Lifetime, *, durable: bool
    ) -> Layout:
        """The directory made ours, its manifest saying how it is used from now on.

        Raises:
            ConfigurationError: it cannot be used, or has another shard depth.
            StoreError: it cannot be read or written.
        """
        if shard_depth is not None and not (
            type(shard_depth) is int and shard_depth in range(DEEPEST + 1)
        ):
            msg = f"shard_depth must be a whole number from 0 to {DEEPEST}, not {shard_depth!r}"
            raise ConfigurationError(msg)
        prepare(directory)
        found = cls(directory, 0).read_manifest()
        depth = 1 if shard_depth is None else shard_depth
        if found is not None:
            if shard_depth is not None and found.shard_depth != shard_depth:
                msg = (
                    f"{directory} was made with shard_depth={found.shard_depth}, not"
                    f" {shard_depth}; leave shard_depth out, or use another directory"
                )
                raise ConfigurationError(msg)
            depth = found.shard_depth
        wanted = Manifest(
            FORMAT,
            depth,
            lifetime.idle_timeout,
            lifetime.absolute_timeout,
            lifetime.touch_interval,
            durable,
        )
        layout = cls(directory, depth)
        if found is None:
            try:
                sync_directory(os.path.dirname(directory))
            except PermissionError:
                pass  # it may be ours to write in, and not to read
            except OSError as error:
                raise store_error(error, f"making {directory}") from error
        if found is None and not layout._begin(wanted):
            return cls.agreed(directory, shard_depth, lifetime, durable=durable)
        if found is not None and wanted != found:
            _log.warning("%s: %s", directory, wanted.differing_from(found))
            layout.write_manifest(wanted)
        return layout

    @classmethod
    def found(cls, directory: str) -> tuple[Layout, Manifest]:
        """A directory that exists, as its manifest describes it.

        Raises:
            ConfigurationError: there is none, or it is not ours to use.
            StoreUnavailable: it, or the manifest, cannot be read.
        """
        try:
            os.lstat(directory)
        except (FileNotFoundError, NotADirectoryError):
            msg = f"there is no directory {directory}; an application makes it with its store"
            raise ConfigurationError(msg) from None
        except OSError as error:  # it may be there: a janitor is not to wait for it to be made
            raise store_error(error, f"looking at {directory}") from error
        check_ours(directory)
        manifest = cls(directory, 0).read_manifest()
        if manifest is None:
            msg = f"{directory} is no session directory: it has no {MANIFEST}"
            raise ConfigurationError(msg)
        return cls(directory, manifest.shard_depth), manifest

    def path(self, handle: str) -> str:
        """Where the session of that handle lies."""
        if self.shard_depth == 1:
            return f"{self.root}/{handle[:2]}/{handle}"
        shards = [handle[2 * level : 2 * level + 2] for level in range(self.shard_depth)]
        return "/".join((self.root, *shards, handle))

    def temporary(self, path: str) -> str:
        """A name beside ``path`` for what is to replace it; never taken for a session."""
        shard, handle = os.path.split(path)
        return f"{shard}/.{handle}.{secrets.token_hex(6)}.tmp"

    def make_shard(self, path: str) -> None:
        """Make the directories above the session file ``path``, 0700 whatever the umask.

        Waits for the disk: what is moved there must not vanish with its directory in a power cut.

        Raises:
            StoreUnavailable: the session directory itself has vanished; it is not made anew, as its
                disk may only be unmounted.
        """
        self.check_present()
        missing = []
        shard = os.path.dirname(path)
        while len(shard) >= len(self.root) and not os.path.isdir(shard):
            missing.append(shard)
            shard = os.path.dirname(shard)
        for directory in reversed(missing):
            try:
                with surviving(os.path.dirname(directory)), suppress(FileExistsError):
                    os.mkdir(directory, 0o700)
                    os.chmod(directory, 0o700)
            except BaseException:
                with suppress(OSError):  # who finds it takes it for one that lasts
                    os.rmdir(directory)
                raise

    def check_shards(self, path: str) -> None:
        """Raises ``StoreUnavailable`` when what is made at ``path`` would lie in another place.

        No sweep and no listing looks where a symlink leads, and others may use that place.
        """
        shard = os.path.dirname(path)
        while len(shard) >= len(self.root):
            if os.path.islink(shard):
                msg = (
                    f"{shard} is a symlink and not followed; look at what it leads to, and move it"
                    " elsewhere"
                )
                raise StoreUnavailable(msg)
            shard = os.path.dirname(shard)

    def sync_shard(self, handle: str) -> None:
        """Have the name of a new session survive a power cut."""
        sync_directory(os.path.dirname(self.path(handle)))

    def check_present(self) -> None:
        """Raises ``StoreUnavailable`` when the session directory has vanished."""
        try:
            os.stat(self.manifest)
        except FileNotFoundError:
            msg = (
                f"the session directory {self.directory} has vanished (it has no {MANIFEST});"
                " bring it back, or restart the application to have it made anew"
            )
            raise StoreUnavailable(msg) from None
        except OSError as error:
            raise store_error(error, f"looking for {self.manifest}") from error

    def sessions(self) -> Iterator[tuple[str, str]]:
        """(handle, path) of every session file, one directory at a time, in no order.

        Raises:
            StoreUnavailable: the directory has vanished; or a part of it cannot be listed, which is
                told when the rest is.
        """
        for entry in self._files():
            if _HANDLE.match(entry.name) and entry.path == self.path(entry.name):
                yield entry.name, entry.path

    def shards(self, first: Callable[[str], bool] = bool) -> Iterator[str]:
        """The directories that hold session files; of those below the root only some if asked.

        Raises:
            StoreUnavailable: as in ``sessions``.
        """
        self.check_present()
        self.check_shards(f"{self.root}/")
        yield from self._shards(self.root, self.shard_depth, first)

    def _shards(
        self, directory: str, depth: int, wanted: Callable[[str], bool] = bool
    ) -> Iterator[str]:
        if not depth:
            yield directory
            return
        below = (entry for entry in self._walk(directory, 0) if _is_shard(entry))
        failure = None
        for path in sorted(entry.path for entry in below if wanted(entry.name)):
            try:
                yield from self._shards(path, depth - 1)
            except StoreUnavailable as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def listed(self, shard: str) -> Iterator[tuple[str, str | None]]:
        """What lies in a directory of sessions: names, and of a temporary file its path.

        Raises:
            StoreUnavailable: it cannot be listed.
        """
        for entry in self._walk(shard, 0):
            if _HANDLE.match(entry.name) and entry.path == self.path(entry.name):
                yield entry.name, None
            elif _TEMPORARY.match(entry.name):
                yield entry.name, entry.path

    def leftovers(self) -> Iterator[str]:
        """Paths of the temporary files that lie about, also of writers still at work."""
        yield from self.document_leftovers()
        yield from (entry.path for entry in self._files() if _TEMPORARY.match(entry.name))

    def document_leftovers(self) -> Iterator[str]:
        """Those of them that no session's writer left."""
        self.check_present()
        for entry in self._walk(self.directory, 0):
            if _TEMPORARY_DOCUMENT.match(entry.name):
                yield entry.path

    def notes(self, directory: str) -> Iterator[str]:
        """Paths of the notes in ``moved`` or ``sooner``, also of those that are still of use.

        Raises:
            StoreUnavailable: they cannot be listed.
        """
        if not os.path.islink(directory):  # what it leads to is not ours to clear
            yield from (entry.path for entry in self._walk(directory, 0) if _NOTE.match(entry.name))

    def strangers(self) -> Iterator[str]:
        """Paths of what is neither a session nor a temporary file of ours."""
        for entry in self._files():
            ours = _HANDLE.match(entry.name) and entry.path == self.path(entry.name)
            if not ours and not _TEMPORARY.match(entry.name):
                yield entry.path

    def _files(self) -> Iterator[os.DirEntry[str]]:
        self.check_present()
        self.check_shards(f"{self.root}/")
        return self._walk(self.root, self.shard_depth)

    def _walk(self, directory: str, depth: int) -> Iterator[os.DirEntry[str]]:
        failure = None
        try:
            with os.scandir(directory) as listing:
                for entry in listing:
                    if not (depth and _is_shard(entry)):
                        yield entry
                        continue
                    try:
                        yield from self._walk(entry.path, depth - 1)
                    except StoreUnavailable as error:
                        failure = failure or error
        except FileNotFoundError:
            pass  # not made yet, or removed while we looked: nothing is stored there
        except OSError as error:  # also of a step through it, half way
            raise store_error(error, f"listing {directory}") from error
        if failure is not None:
            raise failure

    def set_aside(self, path: str) -> None:
        """Move a file that cannot be read to ``corrupt/``, where nothing reads it, and say so.

        Raises:
            FileNotFoundError: it is gone.
            StoreUnavailable: ``corrupt`` cannot take it.
        """
        name = f"{os.path.basename(path)}.{secrets.token_hex(4)}"
        try:
            make_beside(self.corrupt)
            os.rename(path, os.path.join(self.corrupt, name))
        except OSError as error:
            if os.path.lexists(path):
                doing = f"moving the unreadable {path} to {self.corrupt}, a directory of ours"
                raise store_error(error, doing) from error
            raise
        _log.warning("%s cannot be read and was moved to %s", path, self.corrupt)

    def set_aside_odd(self, handle: str) -> bool:
        """Move what is no regular file away from a session's name; whether there was any to move.

        Raises:
            StoreUnavailable: ``corrupt`` cannot take it.
        """
        path = self.path(handle)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                self.set_aside(path)
                return True
        return False

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
        content = read_document(self.manifest)
        return None if content is None else manifest_of(content, self.manifest)

    def _begin(self, manifest: Manifest) -> bool:
        """Write the first manifest; False when another was first, who may have another shard depth.

        Raises:
            StoreError: it could not be written.
        """
        return _published(self.manifest, dump_document(asdict(manifest)))

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest; it survives a power cut from here on."""
        write_document(self.manifest, dump_document(asdict(manifest)), durable=True)

    def signing_key(self) -> bytes:
        """The key in ``secret``, made at the first call; whoever comes second gets the first's.

        Raises:
            ConfigurationError: what is there is no key, or others can read it.
            StoreError: it cannot be read or made.
        """
        path = os.path.join(self.directory, SECRET)
        try:
            return _read_key(path)
        except FileNotFoundError:
            self.check_present()
        _published(path, secrets.token_hex(SECRET_BYTES).encode("ascii"))
        return _read_key(path)


def make_beside(directory: str) -> None:
    """Make a directory of ours beside the sessions, unless it is there.

    Raises:
        OSError: it cannot be made, or is a symlink.
    """
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
        os.chmod(directory, 0o700)
    if os.path.islink(directory):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def _is_shard(entry: os.DirEntry[str]) -> bool:
    return _SHARD.match(entry.name) is not None and entry.is_dir(follow_symlinks=False)


def _published(path: str, content: bytes) -> bool:
    """Make a file of ours that is whole from its first moment; False when it is there already.

    Raises:
        StoreError: it could not be made.
    """
    temporary = f"{path}.{secrets.token_hex(6)}.tmp"
    try:
        write_new(temporary, content, durable=True)
        with surviving(os.path.dirname(path)):
            os.link(temporary, path)  # fails when another was first, where rename would win
    except FileExistsError:
        return False
    except OSError as error:
        raise store_error(error, f"making {path}") from error
    finally:
        unlink_if_there(temporary)
    return True


def _read_key(path: str) -> bytes:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise store_error(error, f"reading {path}") from error
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path} is no regular file; have a key made: mv {path} {path}.old, then {_RESTART}"
        raise ConfigurationError(msg)
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        msg = f"{path} can be read by other users; have a new one made: rm {path}, then {_RESTART}"
        raise ConfigurationError(msg)
    key = (read_document(path) or b"").strip()
    if len(key) < SECRET_BYTES or not any(key):  # zeros are what a disk leaves of a lost block
        msg = f"{path} holds no key; have one made: rm {path}, then {_RESTART}"
        raise ConfigurationError(msg)
    return key
