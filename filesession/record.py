"""What a store hands out: values, frozen, that know nothing of files or cookies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

NO_OVERRIDES: Final[Mapping[str, Any]] = MappingProxyType({})
"""The cookie attributes of a session that has none of its own."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it was stored at one moment.

    Its ``data`` belongs to the caller, who may change it and still pass the record as ``base``:
    what was loaded is kept in ``encoded``. A store of a user's own may leave ``lineage`` and
    ``encoded`` empty.

    Attributes:
        id: the secret the browser holds; left out of the repr, so that logs do not leak it.
        data: the session's content.
        version: 1 when created, one more with every save.
        created_at: POSIX seconds; kept by ``regenerate``.
        accessed_at: POSIX seconds of the last save or touch that was written down.
        expires_at: POSIX seconds at which it ends if nothing more happens; None: never. It may live
            a touch interval longer, as touches closer together than that are not written.
        idle_timeout: seconds, the session's own or the store's; None: no such limit.
        absolute_timeout: likewise, counted from ``created_at``.
        cookie: the cookie attributes this session overrode.
        lineage: random, made when the session is created: tells it from a later one of the same id.
        encoded: the data as it was loaded, in JSON; what ``base`` compares with.
        forwarded: ``id`` is the old one of a session that was just given a new id: for reading, as
            every save or touch by it is refused.
    """

    id: str = field(repr=False)
    data: dict[str, Any]
    version: int
    created_at: float
    accessed_at: float
    expires_at: float | None
    idle_timeout: float | None
    absolute_timeout: float | None
    cookie: Mapping[str, Any] = field(default_factory=lambda: NO_OVERRIDES)
    lineage: str = field(default="", repr=False)
    encoded: bytes = field(default=b"", repr=False)
    forwarded: bool = False


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What can be told of a stored session without its id and without decoding its data.

    Attributes:
        handle: the stored name, a hash of the id: good for naming it, useless as a cookie.
        size: bytes it takes in the store.
        created_at: POSIX seconds.
        accessed_at: POSIX seconds.
        expires_at: POSIX seconds, None: never. In the past: expired, not yet swept.
    """

    handle: str
    size: int
    created_at: float
    accessed_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What one sweep did.

    Attributes:
        started_at: POSIX seconds.
        seconds: how long it took.
        examined: sessions looked at.
        expired: sessions deleted because they were due; with ``dry_run``, that would have been.
        freed: bytes of those.
        oldest_overdue: seconds by which the longest overdue of them was late; 0 when none was due.
        held: due sessions that were kept, as the sweep held back.
        busy: due sessions left for the next sweep because their lock was held throughout.
        corrupt: files that hold no session and were set aside.
        failed: sessions that could not be read, deleted or set aside.
        failure: why the first of them could not; None: there was none.
        young: files that hold no session but were changed within the last minute, and may be a
            writer's work; left for a later sweep.
        mended: sessions dated in the future, by a clock that was set back; they count from now.
        compacted: long session files that were replaced by short ones.
        leftovers: temporary files of writers that died, removed.
        complete: False when ``limit`` ended it early.
        dry_run: nothing was changed.
    """

    started_at: float
    seconds: float
    examined: int = 0
    expired: int = 0
    freed: int = 0
    oldest_overdue: float = 0.0
    held: int = 0
    busy: int = 0
    corrupt: int = 0
    failed: int = 0
    failure: str | None = None
    young: int = 0
    mended: int = 0
    compacted: int = 0
    leftovers: int = 0
    complete: bool = True
    dry_run: bool = False
