"""The session an application sees: a dict with verbs. It says what is to be written, no more.

Rules:

1. What is stored is the record; the dict is the application's. The two are compared as JSON text,
   so that a change anywhere in nested data is noticed and a look at it is not taken for one.
2. regenerate, destroy and touch are noted, and carried out by ``commit``.
3. A session that turns out to be gone stays gone: nothing is written and no cookie is sent.
4. A new session is stored only while its id can still reach the browser.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

from filesession.calls import Steps, StoreCall
from filesession.codec import JSONCodec
from filesession.cookies.overrides import SessionCookie
from filesession.errors import EncodeError, SessionExists, SessionGone, StoreError
from filesession.lifetime import UNSET, Timeout, Unsettable, seconds
from filesession.locks import DEFAULT_TIMEOUT
from filesession.record import NO_OVERRIDES, SessionRecord
from filesession.stores.entry import gone, merged, new_id
from filesession.tracked import TrackedDict
from filesession.visit import Visit

_log = logging.getLogger("filesession.session")


class Session(TrackedDict):
    """One visitor's session: a dict of JSON values, saved when the request is answered.

    Changes of nested values are noticed without being told. Two requests that change different keys
    of one session both keep their change; for read-modify-write of one key there is ``lock()``.

    Not safe for use by several threads at once, as a dict in use by one request is not.
    """

    __slots__ = (
        *("_cookie", "_doomed", "_emptied", "_forced", "_idle", "_record", "_regenerating", "_sid"),
        *("_text", "_visit", "_warned", "announce", "changed", "destroyed", "extended", "gone"),
    )

    def __init__(self, visit: Visit, record: SessionRecord | None = None) -> None:
        super().__init__()
        self._visit = visit
        self._accessed = False
        self._doomed: str | None = None
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
        self._take(record)

    def _take(self, record: SessionRecord | None) -> None:
        """Be what the record says, and drop whatever was under way."""
        dict.clear(self)
        self._record = record
        self.extended = False
        self._settle()
        dict.update(self, {} if record is None else record.data)
        self._text = self._visit.codec.encode({}) if record is None else self._text_of(record)
        overrides = NO_OVERRIDES if record is None else record.cookie
        self._cookie = SessionCookie(self._visit.policy, overrides)

    def _settle(self) -> None:
        """Nothing but the data waits to be written."""
        self._forced = self._regenerating = self._emptied = False
        self._idle: float | Unsettable | None = UNSET
        self._sid: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {dict.__repr__(self)}>"

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        """A copy, deep or pickled, is a plain dict: there is one session a request."""
        return dict, (self.copy(),)

    # -- what it tells ---------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The secret id the browser holds, or will hold. Not for logs, pages or URLs."""
        if self._record is not None:
            return self._record.id
        if self._sid is None:
            genid = self._visit.genid
            self._sid = new_id() if genid is None else genid()
        return self._sid

    @property
    def is_new(self) -> bool:
        """Nothing is stored of it yet."""
        return self._record is None

    @property
    def modified(self) -> bool:
        """It differs from what is stored. May be set to True, to have it saved as it is."""
        own = self._idle is not UNSET or self._cookie.changed
        return self._forced or own or self._data_changed()

    @modified.setter
    def modified(self, value: bool) -> None:
        self._forced = value

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
        if self._idle is not UNSET:
            return None if self._idle == math.inf else self._idle
        return None if self._record is None else self._record.idle_timeout

    @idle_timeout.setter
    def idle_timeout(self, value: Timeout | timedelta | None) -> None:
        limit = seconds("idle_timeout", value)
        self._idle = math.inf if limit is None else limit

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
        self._regenerating = True
        self._sid = None
        if not keep_data:
            dict.clear(self)
            self._emptied = True
            self._idle = UNSET if self._record is None else None
            self._cookie.reset()

    def destroy(self) -> None:
        """Delete it, at commit, and expire its cookie; what is written then starts a new one."""
        if self._record is not None:
            self._doomed = self._record.id
        self.destroyed = True
        self.gone = False
        self.announce = False
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
            self._follow(record, self._text)
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
            self._follow(record, self._text)
            with self._undone_by_an_error():
                yield
            await self._visit.runner.arun(self.commit(touch=False))

    @contextmanager
    def _undone_by_an_error(self) -> Iterator[None]:
        """Back to what it is now when the block raises, or to what was stored inside the block."""
        decode, record, cookie = self._visit.codec.decode, self._record, self._cookie
        (_, text), overrides = self._content(), cookie.overrides
        waiting = self._forced, self._regenerating, self._emptied, self._idle, self._sid
        try:
            yield
        except BaseException:
            if self._record is record and self._cookie is cookie:
                self._replace(decode(text))
                cookie.reset(overrides)
                self._forced, self._regenerating, self._emptied, self._idle, self._sid = waiting
            else:  # it was saved, read anew or ended
                self._replace(decode(self._text))
                self._cookie.reset(self._cookie.stored)
                self._settle()
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
            explicit: the application asked for it, so a new session is stored even when empty.
            resave: store a loaded session even when unchanged.
            save_uninitialized: store a new session even when unchanged.
            touch: note the activity of an unchanged one.
            certain: look whether it is still there, also when a touch would not need to.
        """
        yield from self.bury()
        if self.gone:
            if explicit:
                raise gone()
            return
        try:
            if self._record is None:
                if explicit or save_uninitialized or self._regenerating or self.modified:
                    yield from self._store_new()
            elif self._regenerating and self._can_announce("new id and keeps the old one"):
                yield from self._regenerate(self._record)
            elif self.modified:
                yield from self._save(self._record)
                self.changed = True
            elif resave:
                yield from self._save(self._record)
            elif touch or self.extended:
                yield from self._touch(self._record, certain=certain or explicit)
        except SessionGone:
            self.gone = True
            raise
        self._regenerating = False

    def bury(self) -> Steps[None]:
        """The delete that ``destroy`` asked for."""
        if self._doomed is not None:
            yield StoreCall("delete", (self._doomed,))
            self._doomed = None

    def abandon(self) -> Steps[None]:
        """Of all that is pending only the delete; and the request was activity."""
        yield from self.bury()
        if self._record is not None and not self.gone:
            yield from self._touch(self._record)

    def _store_new(self) -> Steps[None]:
        if not self._can_announce("cookie, so it is not stored"):
            return
        data, text = self._content()
        keywords = {
            "idle_timeout": None if self._idle is UNSET else self._idle,
            "cookie": self._cookie.overrides or None,
        }
        record = yield from self._under_a_new_id(
            lambda sid: StoreCall("create", (data,), {"sid": sid, **keywords})
        )
        self._written(record, text)
        self.announce = True

    def _regenerate(self, record: SessionRecord) -> Steps[None]:
        data, text = self._content()
        keywords = self._save_keywords(record)
        written = yield from self._under_a_new_id(
            lambda sid: StoreCall("regenerate", (record.id, data), {"new_sid": sid, **keywords})
        )
        self._written(written, text)
        self.announce = True

    def _under_a_new_id(self, call: Callable[[str | None], StoreCall]) -> Steps[SessionRecord]:
        """Make a call that takes an id not in use; ``genid`` may give one that is, and another."""
        genid, tries = self._visit.genid, 3
        while True:
            try:
                record: SessionRecord = yield call(self._sid or (genid() if genid else None))
            except SessionExists:
                self._sid, tries = None, tries - 1
                if not tries:
                    raise
            else:
                return record

    def _save(self, record: SessionRecord) -> Steps[None]:
        announce = self._cookie.changed
        data, text = self._content()
        written = yield StoreCall("save", (record.id, data), self._save_keywords(record))
        self._written(written, text)
        self.announce = self.announce or announce

    def _content(self) -> tuple[dict[str, Any], bytes]:
        """What is to be stored, and its text. Raises ``EncodeError`` before the store is asked."""
        data = dict.copy(self)
        return data, self._visit.codec.encode(data)

    def _save_keywords(self, record: SessionRecord) -> dict[str, Any]:
        conflict = "overwrite" if self._emptied else self._visit.conflict
        keywords: dict[str, Any] = {"base": record, "conflict": conflict}
        if self._idle is not UNSET:
            keywords["idle_timeout"] = self._idle
        if self._cookie.changed:
            keywords["cookie"] = self._cookie.overrides
        return keywords

    def _touch(self, record: SessionRecord, *, certain: bool = False) -> Steps[None]:
        try:
            alive = yield StoreCall("touch", (record.id,), {"base": None if certain else record})
        except StoreError as error:
            _log.warning("%s", error)  # the session lives on; the next request touches it again
            return
        if not alive:
            raise gone()

    def _reloading(self) -> Steps[None]:
        if self._record is None:
            raise gone()
        record = yield StoreCall("load", (self._record.id,))
        self.gone = record is None
        if record is None:
            raise gone()
        self._take(record)

    def _written(self, record: SessionRecord, sent: bytes) -> None:
        self._follow(record, sent)
        self._settle()
        self._cookie.keep()

    def _follow(self, record: SessionRecord, base: bytes) -> None:
        """Take over what is stored now, and keep on top of it what was changed since ``base``."""
        text, codec = self._text_of(record), self._visit.codec
        if not self._emptied and not self._alike(text, base):
            ours, _ = self._content()
            self._replace(merged(codec.decode(base), ours, record.data, codec))
        self._record, self._text = record, text

    def _replace(self, data: Mapping[str, Any]) -> None:
        """Become equal to ``data``; a value that is stored alike stays the very object it is."""
        own = {key: dict.get(self, key) for key, value in data.items() if self._holds(key, value)}
        dict.clear(self)
        dict.update(self, {**data, **own})  # in the order of data, which is part of its text

    def _holds(self, key: str, value: object) -> bool:
        encode = self._visit.codec.encode
        try:
            return self._alike(encode({"": dict.__getitem__(self, key)}), encode({"": value}))
        except (KeyError, EncodeError):
            return False

    def _text_of(self, record: SessionRecord) -> bytes:
        return record.encoded or self._visit.codec.encode(record.data)

    def _alike(self, one: bytes, other: bytes) -> bool:
        """Whether two texts hold the same data: a codec that encrypts never writes it alike."""
        if one == other:
            return True
        decode = self._visit.codec.decode
        return type(self._visit.codec) is not JSONCodec and repr(decode(one)) == repr(decode(other))

    def _data_changed(self) -> bool:
        if not self._accessed and not self._emptied:
            return False
        try:
            return not self._alike(self._visit.codec.encode(dict.copy(self)), self._text)
        except EncodeError:
            return True

    def _can_announce(self, what: str) -> bool:
        visit = self._visit
        if visit.headers_sent:
            reason = "the response had begun"
        elif not self._cookie.policy.may_be_sent(visit.https):
            reason = "over plain HTTP, with secure=True"
        else:
            return True
        if not self._warned:
            _log.warning("%s: the session gets no %s", reason, what)
        self._warned = True
        return False
