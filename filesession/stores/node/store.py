"""Sessions that an Express app beside us reads and writes too: the directory of session-file-store.

Rules:

1. What the Express app wrote last counts. A change of ours is made to what is stored at that
   moment, and when that is another one by the time of the rename, it is made again.
2. Only ``create`` makes a session. A save or touch that finds none tells its caller.
3. What cannot be read as a session is none, and stays: the Express app decides what becomes of it.
4. Every error of the system becomes a ``StoreError``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from filesession import locks
from filesession.clock import Clock, system_clock
from filesession.codec import Codec, JSONCodec
from filesession.errors import ConfigurationError, ConflictError, SessionExists, StoreError
from filesession.lifetime import UNSET, Timeout, Unsettable
from filesession.record import SessionInfo, SessionRecord, SweepReport
from filesession.stores.entry import Conflict, check_conflict, gone, handle_of, merged, new_id
from filesession.stores.file.size import check_fits
from filesession.stores.node.cookie import (
    MAX_AGE,
    ORIGINAL,
    beginning,
    milliseconds,
    overrides_of,
    with_overrides,
)
from filesession.stores.node.document import Document
from filesession.stores.node.folder import Folder, Seen
from filesession.stores.node.javascript import COOKIE, JavaScriptCodec, parsed, stringified
from filesession.stores.node.opened import opened

_PLAIN: Final = JSONCodec()

_log = logging.getLogger("filesession.store")


class NodeFileStore:
    """Keeps sessions where session-file-store 1.5 keeps those of an Express app, for both at once.

    With the same cookie name and secret a login at one is a login at the other. Python's updates
    are merged as in a ``FileStore``, across threads and processes, also with what Express wrote
    before. Express itself merges nothing: a request there that changes the session writes all of
    it as it was when that request began, and undoes what was saved here meanwhile. It takes no
    lock either: in the microseconds between our last look and the rename that follows, its write
    may be lost or what it deleted come back.

    Both applications run as one user. The directory may be swept by a ``Janitor`` here, by Express,
    or by both. The file does not tell when a session was created, nor how often it was saved: a
    record's ``created_at`` is its last activity and its ``version`` 1. A session has one number for
    its ``idle_timeout`` and its cookie's ``max_age``: setting either sets both. No session ends
    by its age alone, so there is no ``absolute_timeout``.

    Data is what JavaScript can hold: whole floats come back as ints, keys that are numbers come
    first; ints beyond 2**53, and top-level names that Express uses itself (``cookie``, ``id``,
    ``save`` ...), are refused.

    Args:
        directory: the ``path`` of the Express app's FileStore; made if missing.
        ttl: its ``ttl``: seconds or ``timedelta`` without activity after which a session ends that
            has no ``max_age`` of its own.
        file_extension: its ``fileExtension``.
        cookie: the attributes of its ``cookie`` option in our words (``max_age`` in seconds, ...):
            what sessions begun here start with.
        clock: gives POSIX seconds.

    Raises:
        ConfigurationError: a value, or the directory, cannot be used; the message says how to mend
            it. StoreError: the directory cannot be read or written.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        ttl: Timeout = 3600,
        file_extension: str = ".json",
        cookie: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.codec: Codec = JavaScriptCodec()
        self._ttl = milliseconds("ttl", ttl)
        self._usual = beginning({} if cookie is None else cookie)
        self._clock = system_clock if clock is None else clock
        self._folder = Folder(directory, file_extension)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._folder.directory!r})"

    @property
    def directory(self) -> str:
        """The absolute path of the directory."""
        return self._folder.directory

    def load(self, sid: str) -> SessionRecord | None:
        """The live session of that id. Takes no lock.

        Returns:
            None when it is absent, expired, unreadable (it is left as it is) or malformed.

        Raises:
            StoreUnavailable: it could not be read, which says nothing about whether it exists.
        """
        with opened(self._folder, "loading", sid) as (seen, document):
            if seen is None or document is None or document.is_over(self._ttl, self._now()):
                return None
            return self._record(sid, document, seen)

    def create(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        sid: str | None = None,
        idle_timeout: Timeout | None = None,
        absolute_timeout: Timeout | None = None,
        cookie: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Store a new session, under a fresh random id unless one is given. Waits for the disk.

        Raises:
            SessionExists: ``sid`` is the id of a live session, or something unreadable has its
                name.
            EncodeError: the data cannot be stored exactly, or would not be what it is in Express.
            ConfigurationError: the id can be none here, a timeout or attribute is wrong, or an
                ``absolute_timeout`` is asked for.
            StoreError: nothing was stored.
        """
        plain = self._checked({} if data is None else data)
        _check_endless(absolute_timeout)
        chosen = new_id() if sid is None else sid
        path = self._folder.path(chosen)
        if path is None:
            msg = "an id here is text that can name a file: no / or \\, no dot in front, not long"
            raise ConfigurationError(msg)
        idle = UNSET if idle_timeout is None else idle_timeout
        new = Document({COOKIE: self._usual}).with_data(plain)
        new = self._with_cookie(new, {} if cookie is None else cookie, idle).used_at(self._now())
        patience = _patience(chosen)
        while True:
            with opened(self._folder, "creating", chosen) as (seen, document):
                live = document is None or not document.is_over(self._ttl, self._now())
                if seen is not None and live:
                    msg = f"the id of session {handle_of(chosen)} is taken; choose another"
                    raise SessionExists(msg)
                if self._folder.put(path, new.text(), seen):
                    return self._record(chosen, new, seen)
            patience.left()

    def save(
        self,
        sid: str,
        data: Mapping[str, Any],
        *,
        base: SessionRecord | None = None,
        conflict: Conflict = "merge",
        idle_timeout: Timeout | Unsettable | None = UNSET,
        cookie: Mapping[str, Any] | Unsettable = UNSET,
    ) -> SessionRecord:
        """Store the data of a session that exists. Waits for the disk.

        As in a ``FileStore``; but a save or a touch of the same data makes no base stale, as the
        file does not tell of it.

        Raises:
            SessionGone: it was deleted or has expired; nothing was written.
            ConflictError: with ``conflict="error"``; nothing was written.
            EncodeError: the data cannot be stored exactly, or would not be what it is in Express.
            ConfigurationError: ``idle_timeout`` and the cookie's ``max_age`` differ, or are wrong.
            LockTimeout: others wrote it without a pause, or held the directory, for 10 seconds.
            StoreError: what was stored is intact.
        """
        check_conflict(conflict)
        ours = self._checked(data)

        def changed(document: Document) -> Document:
            result = document.with_data(self._settled(document.data, ours, base, conflict))
            if cookie is UNSET and idle_timeout is UNSET:
                return result
            stored = overrides_of(document.cookie, self._usual)
            if cookie is UNSET:
                return self._with_cookie(result, {**stored, MAX_AGE: None}, idle_timeout)
            wanted = dict(cookie)
            if base is not None and conflict == "merge":
                wanted = merged(base.cookie, wanted, stored, _PLAIN)
            return self._with_cookie(result, wanted, idle_timeout)

        return self._changed("saving", sid, changed)

    def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:  # noqa: ARG002
        """Note that the session was used, in ``__lastAccess``, as each touch of Express does.

        Writes the file anew, with the data that is stored then, and waits for the disk.

        Returns:
            False when the session is gone; it is not brought back.

        Raises:
            StoreError: it could not be told, or not be noted.
        """
        return self._follow("touching", sid, lambda document: document) is not None

    def delete(self, sid: str) -> bool:
        """Remove a session for good.

        A request of Express that is under way brings it back if it changes the session.

        Returns:
            False when there was no live one.

        Raises:
            StoreError: it could not be removed.
        """
        patience = _patience(sid)
        while True:
            with opened(self._folder, "deleting", sid) as (seen, document):
                if seen is None or document is None:
                    return False
                if self._folder.remove(seen):
                    return not document.is_over(self._ttl, self._now())
            patience.left()

    def scan(self) -> Iterator[SessionInfo]:
        """All that is stored, also what has expired but was not swept; one at a time, in no order.

        The ``handle`` is the hash of the id, as in a ``FileStore``. What cannot be read is left
        out.

        Raises:
            StoreError: the directory has vanished, or cannot be listed.
        """
        for sid in self._folder.ids():
            try:
                with opened(self._folder, "reading", sid) as (seen, document):
                    found = seen and document and self._info(sid, document, seen)
            except StoreError as error:
                self._folder.check_present()
                _log.warning("%s", error)
                continue
            if found:
                yield found

    def sweep(
        self,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> SweepReport:
        """Delete what has expired, ``limit`` sessions at most; ``dry_run`` only counts it.

        Reads every session. What cannot be read as one stays: that is Express's to judge.
        ``progress`` is called with the number examined so far.

        Raises:
            StoreError: the directory has vanished, or cannot be listed.
        """
        from filesession.stores.node.sweep import NodeSweep  # noqa: PLC0415 - no web app sweeps

        sweep = NodeSweep(self._folder, self._ttl, self._clock, dry_run=dry_run)
        return sweep.run(limit, progress)

    def clear(self) -> int:
        """Remove every session; the number that were live. What cannot be read as one stays.

        Raises:
            StoreError: some are left.
        """
        return sum(self.delete(sid) for sid in list(self._folder.ids()))

    def __len__(self) -> int:
        """How many files there are, also of sessions that expired and were not swept."""
        return sum(1 for _ in self._folder.ids())

    def __bool__(self) -> bool:
        """True: a store is one also when it is empty."""
        return True

    def close(self) -> None:
        """Release what the store holds: nothing, as no file stays open between calls."""

    def _changed(
        self, doing: str, sid: str, change: Callable[[Document], Document]
    ) -> SessionRecord:
        """Change a live session; raises ``SessionGone`` where there is none."""
        record = self._follow(doing, sid, change)
        if record is None:
            raise gone()
        return record

    def _follow(
        self, doing: str, sid: str, change: Callable[[Document], Document]
    ) -> SessionRecord | None:
        """Change what is stored, and again if it is another one by then; None: it is gone."""
        patience = _patience(sid)
        while True:
            with opened(self._folder, doing, sid) as (seen, document):
                now = self._now()
                if seen is None or document is None or document.is_over(self._ttl, now):
                    return None
                following = change(document).used_at(now)
                if self._folder.replace(seen, following.text()):
                    return self._record(sid, following, seen)
            patience.left()

    def _settled(
        self,
        theirs: dict[str, Any],
        ours: Mapping[str, Any],
        base: SessionRecord | None,
        conflict: Conflict,
    ) -> Mapping[str, Any]:
        """The data to be stored, where ``theirs`` is."""
        if base is None or conflict == "overwrite":
            return ours
        before = base.encoded or self.codec.encode(base.data)
        if before == stringified(theirs):
            return ours
        if conflict == "error":
            raise ConflictError(ours=ours, theirs=theirs)
        return merged(self.codec.decode(before), ours, theirs, self.codec)

    def _with_cookie(
        self,
        document: Document,
        overrides: Mapping[str, Any],
        idle_timeout: Timeout | Unsettable | None,
    ) -> Document:
        """The document with a session's own attributes and timeout, which is its ``max_age``."""
        cookie = with_overrides(document.cookie, self._usual, overrides)
        asked = cookie[ORIGINAL] if overrides.get(MAX_AGE) is not None else None
        if idle_timeout is None and asked is None:
            cookie[ORIGINAL] = self._usual[ORIGINAL]
        elif idle_timeout is not UNSET and idle_timeout is not None:
            idle = milliseconds("idle_timeout", idle_timeout)
            if asked not in (None, idle):
                msg = (
                    "idle_timeout and the cookie's max_age are one number in an Express session;"
                    " set one of them, or both alike"
                )
                raise ConfigurationError(msg)
            cookie[ORIGINAL] = None if idle == self._ttl and asked is None else idle
        return document.with_cookie(cookie)

    def _record(self, sid: str, document: Document, seen: Seen | None) -> SessionRecord:
        encoded = stringified(document.data)
        accessed, expires = self._times(document, seen)
        return SessionRecord(
            id=sid,
            data=parsed(encoded),
            version=1,
            created_at=accessed,
            accessed_at=accessed,
            expires_at=expires,
            idle_timeout=(document.max_age or self._ttl) / 1000,
            absolute_timeout=None,
            cookie=overrides_of(document.cookie, self._usual),
            encoded=encoded,
        )

    def _info(self, sid: str, document: Document, seen: Seen) -> SessionInfo:
        accessed, expires = self._times(document, seen)
        handle = handle_of(sid)
        assert handle is not None
        return SessionInfo(handle, seen.status.st_size, accessed, accessed, expires)

    def _times(self, document: Document, seen: Seen | None) -> tuple[float, float | None]:
        """When it was used last, and when it ends: POSIX seconds."""
        last, end = document.last_access, document.ends_at(self._ttl)
        if last is None or end is None:
            return (self._clock() if seen is None else seen.status.st_mtime), None
        return min(last, self._now()) / 1000, end / 1000

    def _checked(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The data as JavaScript holds it; raises ``EncodeError`` where it cannot."""
        encoded = self.codec.encode(data)
        check_fits(encoded, self.codec)
        return self.codec.decode(encoded)

    def _now(self) -> int:
        return round(self._clock() * 1000)


def _patience(sid: str) -> locks.Patience:
    return locks.Patience(locks.DEFAULT_TIMEOUT, f"session {handle_of(sid)}")


def _check_endless(absolute_timeout: Timeout | None) -> None:
    if absolute_timeout not in (None, float("inf")):
        msg = "an Express session has no absolute_timeout; leave it out, or use a FileStore"
        raise ConfigurationError(msg)
