"""The session an application sees: a dict with verbs. It says what is to be written, no more.

Rules:

1. What is stored is the record; the dict is the application's.
2. regenerate, destroy and touch are noted, and carried out by ``commit``.
3. A session that turns out to be gone stays gone: nothing is written and no cookie is sent.
4. A new session is stored only while its id can still reach the browser.
5. What another task sets while a store call is under way waits for the next commit; a session that
   is destroyed meanwhile is destroyed, whatever the call brings back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from filesession.calls import Steps, StoreCall
from filesession.content import Content
from filesession.cookies.overrides import SessionCookie
from filesession.errors import ConflictError, SessionExists, SessionGone, StoreError
from filesession.lifetime import UNSET, Timeout, seconds
from filesession.locks import DEFAULT_TIMEOUT
from filesession.pending import NOTHING, Pending, Sent
from filesession.record import NO_OVERRIDES, SessionRecord
from filesession.stores.entry import gone, new_id
from filesession.visit import Visit

_log = logging.getLogger("filesession.session")


class Session(Content):
    """One visitor's session: a dict of JSON values, saved when the request is answered.

    Changes of nested values are noticed without being told. Two requests that change different keys
    of one session both keep their change; for read-modify-write of one key there is ``lock()``.

    Not safe for use by several threads at once, as a dict in use by one request is not. Tasks of
    one request may share it.
    """

    __slots__ = (
        *("_cookie", "_doomed", "_fresh", "_life", "_moving", "_record", "_visit", "_warned"),
        *("_pending", "announce", "changed", "destroyed", "extended", "gone"),
    )

    def __init__(self, visit: Visit, record: SessionRecord | None = None) -> None:
        super().__init__(visit.codec)
        self._visit = visit
        self._doomed: list[str] = []
        self._warned = False
        #: Its cookie must be sent: it is new to the browser.
        self.announce = False
        #: A change was written.
        self.changed = False
        #: The session the request came with was ended; another may have begun.
        self.destroyed = False
        #: ``touch()`` was called.
        self.extended = False
        #: It was deleted or has expired while the request was at work.
        self.gone = False
        self._cookie = SessionCookie(visit.policy, NO_OVERRIDES)
        self._life = object()
        self._moving = 0
        self._take(record)

    def _take(self, record: SessionRecord | None) -> None:
        """Be what the record says, and drop whatever was under way."""
        self._record = record
        self._fresh = False
        self.extended = False
        self._pending = NOTHING
        self._load(record)
        self._cookie.load(NO_OVERRIDES if record is None else record.cookie)

    # -- what it tells ---------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The secret id the browser holds, or will hold. Not for logs, pages or URLs."""
        if self._record is not None:
            return self._record.id
        if self._pending.sid is None:
            genid = self._visit.genid
            sid = new_id() if genid is None else genid()
            self._pending = replace(self._pending, sid=sid)
        return self._pending.sid

    @property
    def stored_id(self) -> str | None:
        """The id under which it is stored, and which its cookie carries."""
        return None if self._record is None else self._record.id

    @property
    def is_new(self) -> bool:
        """Nothing is stored of it yet."""
        return self._record is None

    @property
    def modified(self) -> bool:
        """It differs from what is stored. May be set to True, to have it saved as it is."""
        return self._pending.asks_for_a_save or self._cookie.changed or self._data_changed()

    @modified.setter
    def modified(self, value: bool) -> None:
        self._pending = replace(self._pending, forced=value)

    @property
    def created_at(self) -> float | None:
        """POSIX seconds; None while nothing is stored."""
        return None if self._record is None else self._record.created_at

    @property
    def accessed_at(self) -> float | None:
        """POSIX seconds of the last activity that was written down before this request."""
        return None if self._record is None else self._record.accessed_at

    @property
    def expires_at(self) -> float | None:
        """POSIX seconds at which it would have ended without this request; None: never, or new."""
        return None if self._record is None else self._record.expires_at

    @property
    def idle_timeout(self) -> float | None:
        """Seconds without activity after which this session ends; None: no such limit.

        Settable to seconds, a ``timedelta`` or None ("remember me"). Of a new session that was not
        given one it is None, and the store's applies.
        """
        idle = self._pending.idle
        if idle is not UNSET:
            return None if idle == math.inf else idle
        return None if self._record is None else self._record.idle_timeout

    @idle_timeout.setter
    def idle_timeout(self, value: Timeout | timedelta | None) -> None:
        limit = seconds("idle_timeout", value)
        self._pending = replace(self._pending, idle=math.inf if limit is None else limit)

    @property
    def cookie(self) -> SessionCookie:
        """The attributes of this session's own cookie: ``session.cookie.max_age = 30 * 86400``."""
        return self._cookie

    # -- what it does ----------------------------------------------------------------------------

    def regenerate(self, *, keep_data: bool = True) -> None:
        """Give it a new id, at commit; the old one is dead then. Do so at login.

        With ``keep_data=False`` it also starts empty, with the store's timeouts and cookie
        attributes.
        """
        self._pending = replace(self._pending, regenerating=True, sid=None)
        if not keep_data:
            dict.clear(self)
            idle = UNSET if self._record is None else None
            self._pending = replace(self._pending, emptied=True, idle=idle)
            self._cookie.reset()

    def destroy(self) -> None:
        """Delete it, at commit, and expire its cookie; what is written then starts a new one."""
        if self._record is not None:
            self._doomed.append(self._record.id)
        self.destroyed = True
        self.gone = False
        self.announce = False
        self._life = object()  # who sees another than before knows that this happened
        self._take(None)

    def touch(self) -> None:
        """Extend it now, at commit, and its cookie when that has a ``max_age``."""
        self.extended = True

    def save(self) -> None:
        """Write what is pending now; blocks for the store.

        Raises:
            SessionGone: it was deleted or has expired; nothing was written.
            ConflictError, EncodeError, StoreError: nothing was written.
        """
        self._visit.runner.run(self.commit(explicit=True))

    async def asave(self) -> None:
        """``save`` without blocking the event loop."""
        await self._visit.runner.arun(self.commit(explicit=True))

    def reload(self) -> None:
        """Read it anew and throw local changes away; blocks for the store.

        Raises:
            SessionGone: it was never stored, or is gone.
            StoreError: it could not be read; the session is as it was.
        """
        self._visit.runner.run(self._reloading())

    async def areload(self) -> None:
        """``reload`` without blocking the event loop."""
        await self._visit.runner.arun(self._reloading())

    @contextmanager
    def lock(self, *, timeout: float = DEFAULT_TIMEOUT) -> Iterator[None]:
        """Exclusive, and fresh inside; saved at the end. Blocks for up to ``timeout`` seconds.

        Changes made before are kept. An exception inside throws away what was changed inside and
        not saved. A new session needs no lock: nobody else can know its id.

        Raises:
            LockTimeout: another kept it.
            SessionGone: it was deleted or has expired.
        """
        if self._record is None:
            with self._undone_by_an_error():
                yield
            return
        with self._visit.runner.lock(self._record.id, timeout) as record:
            self._catch_up(record, self._text)
            with self._undone_by_an_error():
                yield
            self._visit.runner.run(self.commit(touch=False))

    @asynccontextmanager
    async def alock(self, *, timeout: float = DEFAULT_TIMEOUT) -> AsyncIterator[None]:  # noqa: ASYNC109
        """``lock`` without blocking the event loop."""
        if self._record is None:
            with self._undone_by_an_error():
                yield
            return
        async with self._visit.runner.alock(self._record.id, timeout) as record:
            self._catch_up(record, self._text)
            with self._undone_by_an_error():
                yield
            await self._visit.runner.arun(self.commit(touch=False))

    @contextmanager
    def _undone_by_an_error(self) -> Iterator[None]:
        """Back to what it is now when the block raises, or to what was stored inside the block."""
        record, life, cookie = self._record, self._life, self._cookie
        (_, text), overrides, pending = self._encoded(), cookie.overrides, self._pending
        try:
            yield
        except BaseException:
            if self._record is not record or self._life is not life:  # saved, read anew or ended
                text, overrides, pending = self._text, cookie.stored, NOTHING
            self._replace(self._codec.decode(text))
            cookie.reset(overrides)
            self._pending = pending
            raise

    # -- what is to be written -------------------------------------------------------------------

    def commit(
        self,
        *,
        explicit: bool = False,
        resave: bool = False,
        save_uninitialized: bool = False,
        touch: bool = True,
        certain: bool = False,
    ) -> Steps[None]:
        """Everything pending, as store calls; nothing is pending when they are made.

        Args:
            explicit: the application asked for it, so a new session is stored even when empty; but
                not after ``destroy``, when only what was written since begins another.
            resave: store a loaded session even when unchanged, unless this request has stored it.
            save_uninitialized: store a new session even when unchanged, likewise.
            touch: note the activity of an unchanged one.
            certain: look whether it is still there, also when a touch would not need to.
        """
        yield from self.bury()
        if self.gone:
            if explicit:
                raise gone()
            return
        record, life, pending, modified = self._record, self._life, self._pending, self.modified
        self._pending = NOTHING if record is not None else replace(NOTHING, sid=pending.sid)
        overtaken = False
        try:
            if self._record is None:
                asked = explicit or save_uninitialized or pending.regenerating
                wanted = modified or (asked and not self.destroyed)
                yield from self._store_new(pending, wanted=wanted)
            elif pending.regenerating and self._can_announce("new id and keeps the old one"):
                yield from self._regenerate(self._record, pending)
            elif modified or (resave and not (self.changed or self.announce)):
                yield from self._save(self._record, pending)
                self.changed = self.changed or modified
            elif touch or self.extended:
                yield from self._touch(self._record, certain=certain or explicit)
        except BaseException as error:
            moved = self._life is life and self._record is not record
            overtaken = moved and isinstance(error, (SessionGone, ConflictError))
            if self._not_written(error, pending, life) and not overtaken:
                raise
        yield from self.bury()
        if overtaken:  # by a task inside the lock that this one waited for
            self.gone = False
            yield from self.commit(explicit=explicit, resave=resave, touch=touch, certain=certain)

    def _not_written(self, error: BaseException, pending: Pending, life: object) -> bool:
        """What was to be written waits on; False when the session was ended meanwhile, and is."""
        gone = isinstance(error, SessionGone)
        if self._life is not life:
            return not gone
        self._pending = pending.then(self._pending)
        self.gone = gone
        return True

    def bury(self) -> Steps[None]:
        """The deletes that ``destroy`` asked for."""
        while self._doomed:
            yield StoreCall("delete", (self._doomed[0],))
            del self._doomed[0]

    def abandon(self) -> Steps[None]:
        """The response of the application is lost, and with it the cookie: nothing else is written.

        But the deletes are. One that was stored in this request is deleted too, as nobody can reach
        it. And the request was activity.
        """
        if self._fresh and self._record is not None:
            self._doomed.append(self._record.id)
            self._life = object()
            self._take(None)
        yield from self.bury()
        if self.announce and self._record is not None:
            _log.warning("a session's new cookie was not sent: its browser has only the old one")
        if self._record is not None and not self.gone:
            yield from self._touch(self._record)

    def _store_new(self, pending: Pending, *, wanted: bool) -> Steps[None]:
        if not (wanted and self._can_announce("cookie, so it is not stored")):
            return
        data, sent = self._content()
        keywords: dict[str, Any] = {
            "idle_timeout": None if pending.idle is UNSET else pending.idle,
            "cookie": sent.overrides or None,
        }
        record = yield from self._under_a_new_id(
            pending.sid, lambda sid: StoreCall("create", (data,), {"sid": sid, **keywords})
        )
        self._pending = replace(self._pending, sid=None)
        if self._written(record, sent):
            self._fresh = self.announce = True

    def _regenerate(self, record: SessionRecord, pending: Pending) -> Steps[None]:
        data, sent = self._content()
        keywords = self._save_keywords(record, pending)
        self._moving += 1
        try:
            written = yield from self._under_a_new_id(
                pending.sid,
                lambda sid: StoreCall(
                    "regenerate", (record.id, data), {"new_sid": sid, **keywords}
                ),
            )
        finally:
            self._moving -= 1
        if self._written(written, sent):
            self.announce = True

    def _under_a_new_id(
        self, sid: str | None, call: Callable[[str | None], StoreCall]
    ) -> Steps[SessionRecord]:
        """Make a call that takes an id not in use; ``genid`` may give one that is, and another."""
        genid, tries = self._visit.genid, 3
        while True:
            try:
                record: SessionRecord = yield call(sid or (genid() if genid else None))
            except SessionExists:
                sid, tries = None, tries - 1
                if not tries:
                    raise
            else:
                return record

    def _save(self, record: SessionRecord, pending: Pending) -> Steps[None]:
        announce, (data, sent) = self._cookie.changed, self._content()
        written = yield StoreCall("save", (record.id, data), self._save_keywords(record, pending))
        if self._written(written, sent):
            self.announce = self.announce or announce or written.id != record.id

    def _content(self) -> tuple[dict[str, Any], Sent]:
        """What is to be stored. Raises ``EncodeError`` before the store is asked."""
        data, text = self._encoded()
        return data, Sent(self._record, text, self._cookie.overrides, self._life)

    def _save_keywords(self, record: SessionRecord, pending: Pending) -> dict[str, Any]:
        conflict = self._visit.conflict if self._data_changed() else "merge"
        own = self._cookie.overrides if pending.emptied or self._cookie.changed else None
        return pending.keywords(record, conflict, own)

    def _touch(self, record: SessionRecord, *, certain: bool = False) -> Steps[None]:
        try:
            alive = yield StoreCall("touch", (record.id,), {"base": None if certain else record})
        except StoreError as error:
            _log.warning("%s", error)  # the session lives on; the next request touches it again
            return
        if not alive and not self._moving:  # else another task is giving it its new id
            raise gone()

    def _reloading(self) -> Steps[None]:
        if self._record is None:
            raise gone()
        life, record = self._life, (yield StoreCall("load", (self._record.id,)))
        if self._life is not life:
            return  # it was ended meanwhile
        self.gone = record is None
        if record is None:
            raise gone()
        self._take(record)

    def _written(self, record: SessionRecord, sent: Sent) -> bool:
        """Go on from what was stored; False when the session was ended while it was."""
        if self._life is not sent.life:
            self._doomed += [] if record.id in self._doomed else [record.id]
            return False
        if self._record is sent.record:
            self._catch_up(record, sent.text, sent.overrides)
        else:  # another task saved it, or read it anew
            self._catch_up(record, self._text)
        self.gone = False
        return True

    def _catch_up(
        self, record: SessionRecord, sent: bytes, overrides: Mapping[str, Any] | None = None
    ) -> None:
        """Take over what is stored now, and keep on top of it what was changed since."""
        if self._pending.emptied:
            self._text = self._text_of(record)
        else:
            self._follow(record, sent)
        self._cookie.follow(record.cookie, self._cookie.stored if overrides is None else overrides)
        self._record = record

    def _data_changed(self) -> bool:
        return (self._accessed or self._pending.emptied) and self._differs()

    def _can_announce(self, what: str) -> bool:
        reason = self._visit.obstacle(self._cookie.policy)
        if reason is not None and not self._warned:
            _log.warning("%s: the session gets no %s", reason, what)
            self._warned = True
        return reason is None
