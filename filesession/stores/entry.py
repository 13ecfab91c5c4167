"""One stored session and how it changes: the rules both stores obey, without I/O.

An entry is what a store writes; a ``SessionRecord`` is what it hands out. Who calls ``saved`` holds
the session's lock, so that the entry it is called on is the one that is stored.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from filesession.codec import Codec, JSONCodec, plain
from filesession.errors import ConfigurationError, ConflictError, SessionGone, StoreUnavailable
from filesession.lifetime import UNSET, Lifetime, Timeout, Unsettable, seconds
from filesession.record import NO_OVERRIDES, SessionRecord

Conflict: TypeAlias = Literal["merge", "overwrite", "error"]
"""What a save does when the session was saved by someone else since it was loaded."""

CONFLICTS: Final = frozenset({"merge", "overwrite", "error"})

LONGEST_ID: Final = 256
"""Characters. More than any framework's ids, and bounded before anything is computed from it."""

ID_BYTES: Final = 32
"""Random bytes in an id of ours: 256 bits, as OWASP ASVS 5.0 7.2.3 and more."""

HANDLE_LENGTH: Final = 32
"""Hex digits of the SHA-256 that name a session in the store: 128 bits."""

AHEAD: Final = 60.0
"""Seconds. What is dated further in the future a sweep mends: clocks that serve one directory
differ by less."""

_PLAIN: Final = JSONCodec()

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def new_id() -> str:
    """A fresh id: 32 bytes from the system's random source, base64url, 43 characters."""
    return secrets.token_urlsafe(ID_BYTES)


def handle_of(sid: str) -> str | None:
    """The stored name of an id, from which the id cannot be told; None for what can be no id.

    An id is any text of 1 to 256 characters without control characters.
    """
    if not isinstance(sid, str) or not 0 < len(sid) <= LONGEST_ID or _CONTROL.search(sid):
        return None
    try:
        encoded = sid.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return hashlib.sha256(encoded).hexdigest()[:HANDLE_LENGTH]


def new_handle(sid: str) -> str:
    """The handle of an id that is to be stored.

    Raises:
        ConfigurationError: it can be no id.
    """
    handle = handle_of(sid)
    if handle is None:
        msg = f"a session id is text of 1 to {LONGEST_ID} characters without control characters"
        raise ConfigurationError(msg)
    return handle


def check_conflict(conflict: str) -> None:
    """Raises ``ConfigurationError`` unless it is one of the modes."""
    if not isinstance(conflict, str) or conflict not in CONFLICTS:
        msg = f"conflict must be one of {', '.join(sorted(CONFLICTS))}, not {conflict!r}"
        raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True)
class Entry:
    """A session as a store keeps it.

    Attributes:
        version: 1 when created, one more with every save.
        lineage: random, made at creation; another session under the same id has another.
        created: POSIX seconds.
        saved: POSIX seconds of the last save.
        data: the session's content as the store's codec wrote it.
        idle: the session's own idle timeout in seconds, None for no limit, UNSET for the store's.
        absolute: likewise.
        cookie: the cookie attributes it overrode.
        ended: a reader was refused it as expired; so it stays, whatever the clock says then.
    """

    version: int
    lineage: str
    created: float
    saved: float
    data: bytes
    idle: float | Unsettable | None = UNSET
    absolute: float | Unsettable | None = UNSET
    cookie: Mapping[str, Any] = field(default_factory=lambda: NO_OVERRIDES)
    ended: bool = False

    @classmethod
    def created_now(
        cls,
        data: bytes,
        now: float,
        *,
        idle_timeout: Timeout | None,
        absolute_timeout: Timeout | None,
        cookie: Mapping[str, Any] | None,
    ) -> Entry:
        """A new session. A timeout of None is the store's, of ``math.inf`` none at all."""
        return cls(
            version=1,
            lineage=secrets.token_hex(8),
            created=now,
            saved=now,
            data=data,
            idle=_own(idle_timeout, "idle_timeout"),
            absolute=_own(absolute_timeout, "absolute_timeout"),
            cookie=_overrides(cookie),
        )

    def lifetime(self, store: Lifetime) -> Lifetime:
        """The timeouts in force for this session."""
        return store.overridden(self.idle, self.absolute)

    def is_over(self, store: Lifetime, now: float, accessed: float) -> bool:
        """Whether a reader must be told that there is no such session."""
        return self.ended or self.lifetime(store).is_over(now, self.created, accessed)

    def due_at(self, store: Lifetime, now: float, accessed: float) -> float | None:
        """The moment past which it may be deleted, POSIX seconds; None: never.

        One that a reader was refused, and that would be alive by this clock, is of no more use: it
        was due at any time, ``-math.inf``.
        """
        lifetime = self.lifetime(store)
        if self.ended and not lifetime.is_over(now, self.created, accessed):
            return -math.inf
        return lifetime.due_at(self.created, accessed)

    def overdue(self, store: Lifetime, now: float, accessed: float) -> float | None:
        """Seconds by which it is past the moment it may be deleted; None: it is not."""
        due = self.due_at(store, now, accessed)
        if due is None or not now > due:
            return None
        return 0.0 if due == -math.inf else now - due

    def at(self, now: float) -> Entry:
        """The same session by a clock that was set back to before its creation: no older than then.

        Its age at the last save is known, and counts on from ``now``.
        """
        if self.created <= now:
            return self
        age = max(0.0, self.saved - self.created)
        return replace(self, created=now - age, saved=now)

    def as_ended(self) -> Entry:
        """The entry that refuses the session for good."""
        return replace(self, version=self.version + 1, ended=True)

    def saved_as(
        self,
        data: Mapping[str, Any] | None,
        encoded: bytes | None,
        now: float,
        *,
        codec: Codec,
        base: SessionRecord | None,
        conflict: Conflict,
        idle_timeout: Timeout | Unsettable | None = UNSET,
        cookie: Mapping[str, Any] | Unsettable = UNSET,
    ) -> Entry:
        """The entry that follows this one; ``data`` and ``encoded`` None keep the content.

        Raises:
            SessionGone: ``base`` is of another session that had the same id.
            ConflictError: someone saved since ``base``, and ``conflict`` is "error".
        """
        if base is not None and base.lineage != self.lineage:
            raise gone()
        if data is None or encoded is None:
            encoded = self.data
        elif base is not None and base.version != self.version and conflict != "overwrite":
            theirs = decoded(self.data, codec)
            if conflict == "error":
                raise ConflictError(ours=data, theirs=theirs)
            compared = plain(codec)
            encoded = codec.encode(merged(compared.decode(base.encoded), data, theirs, compared))
        following = replace(self.at(now), version=self.version + 1, saved=now, data=encoded)
        if idle_timeout is not UNSET:
            following = replace(following, idle=_own(idle_timeout, "idle_timeout"))
        if cookie is not UNSET:
            if base is not None and conflict == "merge":
                cookie = merged(base.cookie, cookie, self.cookie, _PLAIN)
            following = replace(following, cookie=_overrides(cookie))
        return following

    def moved(self, old: Codec, new: Codec) -> Entry:
        """The same session for another name, to which its codec may be bound.

        Raises:
            StoreUnavailable: the codec cannot read the data.
        """
        return self if old is new else replace(self, data=new.encode(decoded(self.data, old)))

    def record(self, sid: str, accessed: float, store: Lifetime, codec: Codec) -> SessionRecord:
        """What a caller gets to see, with data of its own.

        Raises:
            StoreUnavailable: the codec cannot read the data.
        """
        lifetime, data, compared = self.lifetime(store), decoded(self.data, codec), plain(codec)
        return SessionRecord(
            sid,
            data,
            self.version,
            self.created,
            accessed,
            lifetime.expires_at(self.created, accessed),
            lifetime.idle_timeout,
            lifetime.absolute_timeout,
            self.cookie,
            self.lineage,
            self.data if compared is codec else compared.encode(data),
        )


def decoded(data: bytes, codec: Codec) -> dict[str, Any]:
    """The data of an entry.

    Raises:
        StoreUnavailable: the codec cannot read it. What is stored is whole, so that is a matter of
            the codec, which may have been given another key: the session is left as it is.
    """
    try:
        return codec.decode(data)
    except Exception as error:
        msg = (
            "the session is whole, but the store's codec cannot read it"
            f" ({type(error).__name__}: {error}); open the store with the codec that wrote it"
        )
        raise StoreUnavailable(msg) from error


def accessed_at(mark: float, now: float) -> float:
    """The last activity: the touch mark. One in the future is of a clock that was set back since.

    It counts as now: the last activity that can be true, and no session ends before its time.
    """
    return min(mark, now)


def merged(
    base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any], codec: Codec
) -> dict[str, Any]:
    """Three-way by top-level key: what we did not touch keeps their value, the rest is ours."""
    result = dict(theirs)
    result.update(
        (key, value)
        for key, value in ours.items()
        if key not in base or not _same(base[key], value, codec)
    )
    for key in base:
        if key not in ours:
            result.pop(key, None)
    return result


def gone() -> SessionGone:
    """The error for a session that is not there any more."""
    msg = "the session was deleted, has expired, or has a new id by now; nothing was written"
    return SessionGone(msg)


def _same(one: object, other: object, codec: Codec) -> bool:
    """Whether two values come back alike.

    ``==`` holds True and 1 for the same, and what two encodings of one value have in common is the
    codec's affair: one that encrypts makes another text each time.
    """
    return repr(codec.decode(codec.encode({"": one}))) == repr(
        codec.decode(codec.encode({"": other}))
    )


def _overrides(cookie: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Cookie attributes as they are stored, shared with no caller."""
    if not cookie:
        return NO_OVERRIDES
    text = _PLAIN.encode({"cookie": dict(cookie)})
    return MappingProxyType(_PLAIN.decode(text)["cookie"])


def _own(timeout: Timeout | None, name: str) -> float | Unsettable | None:
    if timeout is None:
        return UNSET
    if timeout == math.inf:
        return None
    return seconds(name, timeout)
