"""Moving the sessions of an Express app into a session directory, under the ids that they have.

Rules:

1. A session is in one place. Its file is set apart first, under a name that Express does not know,
   then the session is stored, then the file gets the name that says that it was moved.
2. A session that was moved is never moved again, nor is one stored over that has its id: what
   became of it since, its end too, is the new place's. But a run that is killed between storing a
   session and renaming its file leaves no sign of it: one that then ends there is stored again.
3. What cannot be moved stays as it is. A file that was set apart by one who died is moved the next
   time.
4. Each is moved under the directory's lock: who runs it twice at once moves each once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from filesession.clock import Clock, system_clock
from filesession.errors import ConfigurationError, EncodeError, SessionExists, StoreError
from filesession.lifetime import UNSET, Timeout
from filesession.stores.entry import handle_of
from filesession.stores.file.access import translated
from filesession.stores.file.ownership import MANIFEST, absolute
from filesession.stores.file.store import FileStore
from filesession.stores.node.cookie import beginning, milliseconds, overrides_of
from filesession.stores.node.document import Document
from filesession.stores.node.folder import Folder
from filesession.stores.node.javascript import COOKIE
from filesession.stores.node.kruptein import Kruptein

APART: Final = ".migrating"
MOVED: Final = ".migrated"


@dataclass(slots=True)
class Moves:
    """What a migration did.

    Attributes:
        moved: sessions that are in the session directory now; with ``dry_run``, that would be.
        expired: sessions that were left as they have expired.
        unreadable: files that hold no session and were left.
        taken: sessions that were left as one with their id is stored already, or was moved before.
    """

    moved: int = 0
    expired: int = 0
    unreadable: int = 0
    taken: int = 0


class _Moment:
    """A clock that shows when the session in hand was used last."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Migration:
    """Moves live sessions from the directory of session-file-store to one of ours.

    Args:
        source: the Express app's directory.
        target: the session directory; made, with ``ttl`` as its idle timeout, unless it is there.
        ttl: the Express app's ``ttl``.
        file_extension: its ``fileExtension``.
        secret: its ``secret``, with which it encrypts sessions; None: it does not.
        dry_run: change nothing.
        clock: gives POSIX seconds.

    Raises:
        ConfigurationError: a value or a directory cannot be used. StoreError: nor looked at.
    """

    def __init__(
        self,
        source: str,
        target: str,
        *,
        ttl: Timeout = 3600,
        file_extension: str = ".json",
        secret: bytes | None = None,
        dry_run: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        self._folder = _found(source, target, file_extension)
        self._ttl = milliseconds("ttl", ttl)
        self._usual = beginning({})
        self._kruptein = None if secret is None else Kruptein(secret)
        self._dry_run = dry_run
        self._clock = clock
        self._moment = _Moment()
        self._store = self._opened(absolute(target))

    def run(self, progress: Callable[[int, int], None] | None = None) -> Moves:
        """Move them. ``progress`` is called with the number looked at, and of all.

        Raises:
            StoreError: the one in hand could not be moved and is where it was, as is all the rest.
        """
        moves = Moves()
        ids = sorted({*self._folder.ids(), *self._folder.ids(APART)})
        for number, sid in enumerate(ids, 1):
            with translated("moving", handle_of(sid) or ""), self._folder.locked():
                self._move(sid, moves)
            if progress is not None:
                progress(number, len(ids))
        return moves

    def _opened(self, target: str) -> FileStore | None:
        """The store to move to; None where a rehearsal finds none yet."""
        if os.path.lexists(os.path.join(target, MANIFEST)):
            return FileStore.open(target, clock=self._moment)
        if self._dry_run:
            return None
        return FileStore(target, idle_timeout=self._ttl / 1000, clock=self._moment)

    def _move(self, sid: str, moves: Moves) -> None:
        path = self._folder.path(sid)
        assert path is not None
        apart = path + APART
        resumed = os.path.lexists(apart)
        if not resumed and not os.path.lexists(path):  # since it was listed
            return
        document = self._read(apart if resumed else path)
        if document is None:
            moves.unreadable += 1
        elif self._is_over(document):
            moves.expired += 1
        elif not resumed and (os.path.lexists(path + MOVED) or self._is_taken(sid)):
            moves.taken += 1
        elif self._dry_run:
            moves.moved += 1
        else:
            if not resumed:
                os.rename(path, apart)
            self._finish(sid, path, moves)

    def _finish(self, sid: str, path: str, moves: Moves) -> None:
        """Store what was set apart; Express may have written it once more before that."""
        apart = path + APART
        document = self._read(apart)
        try:
            if document is None:
                moves.unreadable += 1
                _give_back(apart, path)
                return
            if not self._is_taken(sid):  # or one who died had come that far
                self._create(sid, document)
        except (EncodeError, SessionExists):
            moves.unreadable += 1
            _give_back(apart, path)
        except StoreError:
            _give_back(apart, path)
            raise
        else:
            os.rename(apart, path + MOVED)
            moves.moved += 1

    def _create(self, sid: str, document: Document) -> None:
        assert self._store is not None
        self._moment.now = self._accessed(document)
        age = document.max_age
        self._store.create(
            document.data,
            sid=sid,
            idle_timeout=None if age is None else age / 1000,
            cookie=overrides_of(document.cookie, self._usual),
        )

    def _read(self, path: str) -> Document | None:
        """What a file holds; None where that is no session of Express's."""
        try:
            with self._folder.seen(path) as seen:
                text = None if seen is None else seen.content
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):  # a symlink, a socket
                raise
            return None
        if text is not None and self._kruptein is not None:
            text = self._kruptein.opened(text)
        document = None if text is None else Document.read(text)
        known = document is not None and isinstance(document.members.get(COOKIE), dict)
        return document if known else None

    def _accessed(self, document: Document) -> float:
        now, last = self._clock(), document.last_access
        return now if last is None else min(now, last / 1000)

    def _is_over(self, document: Document) -> bool:
        """Whether it has ended, by the rules of where it is or of where it would be."""
        now, age = self._clock(), document.max_age
        if document.is_over(self._ttl, round(now * 1000)):
            return True
        if self._store is None:
            return False
        lifetime = self._store.lifetime.overridden(UNSET if age is None else age / 1000, UNSET)
        accessed = self._accessed(document)
        return lifetime.is_over(now, accessed, accessed)

    def _is_taken(self, sid: str) -> bool:
        """Whether a session with that id is or was there, and is not yet swept."""
        handle = handle_of(sid) or ""
        return self._store is not None and self._store.inspect(handle) is not None


def _found(source: str, target: str, file_extension: str) -> Folder:
    path, to = absolute(source), absolute(target)
    if os.path.realpath(path) == os.path.realpath(to):
        msg = f"{to} is the Express app's directory itself; name another directory to move to"
        raise ConfigurationError(msg)
    if os.path.lexists(os.path.join(path, MANIFEST)):
        msg = (
            f"{path} is a session directory of filesession, which holds no ids to move sessions by;"
            " copy it as it is: cp -a"
        )
        raise ConfigurationError(msg)
    if not os.path.isdir(path):
        msg = f"there is no directory {path}; name that of the Express app's session-file-store"
        raise ConfigurationError(msg)
    return Folder(path, file_extension)


def _give_back(apart: str, path: str) -> None:
    """Undo the first step, unless Express has made the session anew meanwhile."""
    with suppress(FileExistsError):
        os.link(apart, path)
        os.unlink(apart)
