"""Sessions in a directory: what each verb of the store does to a session's file.

Rules:

1. A reader takes no lock, but to write down that a session has ended. A writer opens the file,
   takes its lock, looks at what is stored now, and appends one line.
2. Nothing but ``create`` makes a session, and ``regenerate`` moves one. A save, a touch or a
   regenerate that finds none tells its caller that the session is gone.
3. Data is encoded before the lock is taken: what cannot be stored changes nothing and delays no
   one.
4. Every error of the system becomes a ``StoreError``. Only a missing file means a missing session,
   and only while the directory itself is there.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from filesession import locks
from filesession.clock import Clock, system_clock
from filesession.codec import Codec, JSONCodec, bound
from filesession.lifetime import UNSET, Lifetime, Timeout, Unsettable
from filesession.record import SessionRecord
from filesession.stores.entry import (
    Conflict,
    Entry,
    check_conflict,
    gone,
    handle_of,
    new_handle,
    new_id,
)
from filesession.stores.file.access import Access, SessionLock, translated
from filesession.stores.file.forwards import Forwards
from filesession.stores.file.journal import line_of, seed_of
from filesession.stores.file.layout import Layout
from filesession.stores.file.ownership import absolute
from filesession.stores.file.sessionfile import SessionFile
from filesession.stores.file.size import check_fits, check_header, is_long
from filesession.stores.file.sooner import is_brought_forward, note
from filesession.stores.file.whole import WholeDirectory
from filesession.stores.forwarding import Forwarding, grace_of, reached


class FileStore(WholeDirectory):
    """Keeps each session in a file of its own, below one directory.

    Safe across threads, forks and processes, on one machine or over a file system whose locks reach
    across machines. What a call returned every later call sees; a power cut may cost the saves of
    the last seconds (none with ``durable``), and leaves each session as it was at some earlier
    save.

    Args:
        directory: made if missing; ours alone (0700) or refused.
        idle_timeout: seconds or ``timedelta`` without activity after which a session ends; None: no
            such limit. Activity closer together than ``touch_interval`` is not written down, so it
            may end that much later, never earlier.
        absolute_timeout: likewise, counted from the session's creation, whatever happens since.
        durable: what create, save, regenerate and delete have returned survives a power cut; each
            then waits for the disk.
        touch_interval: seconds; a twentieth of the idle timeout, 60 at most, when None.
        codec: turns data into JSON text and back; plain JSON when None.
        shard_depth: levels of directories of 256 each, 0 to 3; the directory's own when None, 1
            when it is new.
        regenerate_grace: seconds, 10 at most, for which requests under way that still carry the old
            id after a regenerate may read the session; so may an attacker who has that id. None: it
            is dead at once.
        clock: gives POSIX seconds.

    Raises:
        ConfigurationError: a value, or the directory, cannot be used; the message says how to mend
        it. StoreUnavailable: the directory cannot be read or written.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        idle_timeout: Timeout | None = 1800,
        absolute_timeout: Timeout | None = None,
        durable: bool = False,
        touch_interval: Timeout | None = None,
        codec: Codec | None = None,
        shard_depth: int | None = None,
        regenerate_grace: Timeout | None = None,
        clock: Clock | None = None,
    ) -> None:
        lifetime = Lifetime.of(idle_timeout, absolute_timeout, touch_interval)
        grace = grace_of(regenerate_grace)
        path = absolute(directory)
        layout = Layout.agreed(path, shard_depth, lifetime, durable=bool(durable))
        self._set_up(layout, lifetime, bool(durable), codec, clock)
        self._forwards = Forwards(layout, grace)

    @classmethod
    def open(cls, directory: str | os.PathLike[str], *, clock: Clock | None = None) -> FileStore:
        """The store of a directory that exists, as its manifest describes it.

        Raises:
            ConfigurationError: there is none, or it is not ours to use.
        """
        layout, manifest = Layout.found(absolute(directory))
        store = cls.__new__(cls)
        store._set_up(layout, manifest.lifetime, manifest.durable, None, clock)  # noqa: SLF001
        return store

    def _set_up(
        self,
        layout: Layout,
        lifetime: Lifetime,
        durable: bool,  # noqa: FBT001 - its own caller
        codec: Codec | None,
        clock: Clock | None,
    ) -> None:
        self.codec: Codec = JSONCodec() if codec is None else codec
        self._layout = layout
        self._lifetime = lifetime
        self._durable = durable
        self._clock = system_clock if clock is None else clock
        self._access = Access(layout, lifetime, self._clock, self.codec)
        self._forwards = Forwards(layout, None)
        self._may_wait = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._layout.directory!r})"

    @property
    def directory(self) -> str:
        """The absolute path of the session directory."""
        return self._layout.directory

    @property
    def lifetime(self) -> Lifetime:
        """The timeouts of sessions that have none of their own."""
        return self._lifetime

    @property
    def clock(self) -> Clock:
        """What gives the store the time, in POSIX seconds."""
        return self._clock

    def without_waiting(self) -> FileStore:
        """The same store, whose calls raise rather than wait, having done nothing.

        ``LockTimeout`` where a lock is held by another, ``WouldSync`` where the disk would be
        waited for.
        """
        store = copy.copy(self)
        store._access = self._access.without_waiting()  # noqa: SLF001
        store._may_wait = False  # noqa: SLF001
        return store

    def signing_key(self) -> bytes:
        """The key in ``DIR/secret``, made at the first call, shared by all who use the directory.

        Raises:
            ConfigurationError: what is there is no key, or others can read it.
        """
        return self._layout.signing_key()

    def load(self, sid: str) -> SessionRecord | None:
        """The live session of that id. Waits for no lock; takes one only of a session that ended.

        Returns:
            None when it is absent, expired, corrupt (then it is set aside) or malformed. For an id
            that ``regenerate`` replaced, within the grace, the session as it is now, ``forwarded``.

        Raises:
            StoreUnavailable: it could not be read, which says nothing about whether it exists.
        """
        handle = handle_of(sid)
        if handle is None:
            return None
        with translated("loading", handle):
            record = self._access.load(handle, sid)
            if record is None:
                followed = self._forwards.followed(handle, self._clock())
                record = reached(lambda moved: self._access.load(moved, sid), followed)
            return record

    def create(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        sid: str | None = None,
        idle_timeout: Timeout | None = None,
        absolute_timeout: Timeout | None = None,
        cookie: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Store a new session, under a fresh random id unless one is given.

        A timeout of None is the store's own, ``math.inf`` none at all.

        Raises:
            SessionExists: ``sid`` is the id of a live session.
            EncodeError: the data cannot be stored exactly.
            StoreFull, StoreUnavailable: nothing was stored.
        """
        handle = new_handle(chosen := new_id() if sid is None else sid)
        codec = bound(self.codec, handle)
        encoded = codec.encode({} if data is None else data)
        self._check_may_sync(needed=self._durable)
        with translated("creating", handle):
            file = self._reserved(handle)
            try:
                now = self._clock()
                entry = Entry.created_now(
                    encoded,
                    now,
                    idle_timeout=idle_timeout,
                    absolute_timeout=absolute_timeout,
                    cookie=cookie,
                )
                line = self._line_of(entry, handle)
                file.append(line, now, sync=self._durable, after=None)
                if self._durable:
                    self._layout.sync_shard(handle)
            except BaseException:
                file.discard()
                raise
            file.close()
        return entry.record(chosen, now, self._lifetime, codec)

    def _reserved(self, handle: str) -> SessionFile:
        """An empty file of that handle, with its lock, for a session that is to be there.

        Raises:
            SessionExists: a live session has that handle.
            LockTimeout: another kept what has that handle.
            OSError: it cannot be made.
        """
        while True:
            try:
                file = SessionFile.created(self._layout, handle, self._access.timeout)
            except FileExistsError:
                self._access.make_way(handle)
                continue
            except FileNotFoundError:
                self._check_may_sync(needed=True)
                self._layout.make_shard(self._layout.path(handle))
                continue
            if file is not None:
                return file

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
        """Store the data of a session that exists: one line appended under the file's lock.

        Args:
            sid: the session's id.
            data: its whole content.
            base: the record the caller loaded; None: ours replaces all.
            conflict: what to do when the session was saved since ``base``: "merge" three-way by
                top-level key, "overwrite" with ours, "error".
            idle_timeout: the session's own from now on; None: the store's again; left out: as it
                is.
            cookie: the attributes it overrides from now on; left out: as they are.

        Raises:
            SessionGone: it was deleted or has expired; nothing was written.
            ConflictError: with ``conflict="error"``; nothing was written.
            EncodeError: the data cannot be stored exactly.
            LockTimeout: another kept its lock for 10 seconds.
            StoreFull, StoreUnavailable: what was stored is intact.
        """
        check_conflict(conflict)
        handle = handle_of(sid)
        codec = bound(self.codec, handle or "")
        encoded = codec.encode(data)
        self._check_may_sync(needed=self._durable)
        if handle is None:
            raise gone()
        with self._access.changing("saving", handle) as (file, found, entry, now):
            following = entry.saved_as(
                data,
                encoded,
                now,
                codec=codec,
                base=base,
                conflict=conflict,
                idle_timeout=idle_timeout,
                cookie=cookie,
            )
            line = self._line_of(following, handle)
            if is_long(found, line):
                self._check_may_sync(needed=True)
                file.replace(self._layout, line, now, durable=self._durable)
            else:
                file.append(line, now, sync=self._durable, after=found)
        if is_brought_forward(entry, following, self._lifetime):
            note(self._layout, handle)
        return following.record(sid, now, self._lifetime, codec)

    def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:
        """Note that the session was used; with ``base``, one look at its mark and one ``utime``.

        A touch that follows the last activity by less than the touch interval is skipped; with
        ``base``, without a look whether the session is still there.

        Returns:
            False when the session is gone; it is not brought back.

        Raises:
            StoreUnavailable: it could not be told, or not be noted.
        """
        handle = handle_of(sid)
        if handle is None:
            return False
        with translated("touching", handle):
            return self._access.touch(handle, base)

    def delete(self, sid: str) -> bool:
        """Remove a session for good: no save or touch under way brings it back.

        An id that ``regenerate`` replaced still ends its session within the grace: who logs out
        while the new id is on its way is logged out.

        Returns:
            False when there was no live one.

        Raises:
            LockTimeout: another kept its lock for 10 seconds.
            StoreUnavailable: it could not be removed.
        """
        handle = handle_of(sid)
        if handle is None:
            return False
        return self.evict(handle) or any(
            self.evict(forwarding.handle, lineage=forwarding.lineage)
            for forwarding in self._forwards.followed(handle, self._clock())
        )

    def regenerate(
        self,
        sid: str,
        data: Mapping[str, Any] | None = None,
        *,
        base: SessionRecord | None = None,
        new_sid: str | None = None,
        conflict: Conflict = "merge",
        idle_timeout: Timeout | Unsettable | None = UNSET,
        cookie: Mapping[str, Any] | Unsettable = UNSET,
    ) -> SessionRecord:
        """Give the session a new id; the old one is dead when this returns. Waits for the disk.

        A line that is whole only under the new name is appended, brought to the disk, and the file
        is renamed: at every moment exactly one of the two ids opens the session.

        Args:
            sid: the id it has.
            data: its content from now on; None: as it is.
            base: as in ``save``.
            new_sid: the id it gets, not yet used; None: a fresh random one.
            conflict: as in ``save``.
            idle_timeout: as in ``save``.
            cookie: as in ``save``.

        Raises:
            SessionGone: it was deleted or has expired; nothing was written.
            SessionExists: ``new_sid`` is taken.
            ConflictError, EncodeError, LockTimeout, StoreFull, StoreUnavailable: as in ``save``.
        """
        check_conflict(conflict)
        handle = handle_of(sid)
        codec = bound(self.codec, handle or "")
        encoded = None if data is None else codec.encode(data)
        self._check_may_sync(needed=True)
        target = new_handle(chosen := new_id() if new_sid is None else new_sid)
        if handle is None:
            raise gone()
        with (
            translated("regenerating", handle),
            self._holding(target, handle, chosen=new_sid is not None),
            self._access.changing("regenerating", handle) as (file, found, entry, now),
        ):
            following = entry.saved_as(
                data,
                encoded,
                now,
                codec=codec,
                base=base,
                conflict=conflict,
                idle_timeout=idle_timeout,
                cookie=cookie,
            )
            following = following.moved(codec, there := bound(self.codec, target))
            record = following.record(chosen, now, self._lifetime, there)  # or it moves unseen
            line = self._line_of(following, target)
            if is_long(found, line):
                # The session as it is goes with it: the file has its old name until it is moved.
                kept = line_of(entry, seed_of(handle))
                file.replace(self._layout, kept + line, now, durable=self._durable)
            else:
                file.append(line, now, sync=True, after=found)
            try:
                with self._forwards.noting(handle, Forwarding(target, entry.lineage, now)):
                    file.move_to(self._layout, target, durable=self._durable)
            except FileNotFoundError:
                raise gone() from None  # removed by hand, beside all locks
        return record

    @contextmanager
    def _holding(self, target: str, handle: str, *, chosen: bool) -> Iterator[None]:
        """Keep others from taking a chosen id meanwhile; a random one nobody knows."""
        if not chosen:
            yield
            return
        if target == handle:
            self._access.make_way(target)  # it is taken by this very session, if that is alive
            raise gone()
        placeholder = self._reserved(target)
        try:
            yield
        finally:
            placeholder.discard()

    def lock(self, sid: str, *, timeout: Timeout = locks.DEFAULT_TIMEOUT) -> SessionLock:
        """A context manager: the session, fresh, and for nobody else to change while inside.

        Calls for the session made inside, in the same thread or task, go through the lock. Entering
        waits up to ``timeout``, seconds or a ``timedelta``.

        Raises on entering:
            LockTimeout: another kept it.
            SessionGone: there is no such session.
            StoreUnavailable: it cannot be read.
        """
        return SessionLock(self._access, sid, timeout if self._may_wait else 0)

    def close(self) -> None:
        """Release what the store holds: nothing, as no file stays open between calls."""

    def _line_of(self, entry: Entry, handle: str) -> bytes:
        """What is written of a session. Raises ``EncodeError`` for one that is too large."""
        check_fits(entry.data, bound(self.codec, handle))
        line = line_of(entry, seed_of(handle))
        check_header(line, entry.data)
        return line
