"""One session file of session-file-store: its text, what is in it, and the text that follows.

Rules:

1. The file is one JSON object: ``cookie``, then the data, and ``__lastAccess`` in milliseconds. A
   key that Express added after its first save stands behind ``__lastAccess``; all keep their place.
2. Expired is what Express holds for expired: ``__lastAccess`` and the session's
   ``originalMaxAge``, or the store's ``ttl`` where that is null or 0, lie before now; the same
   millisecond is alive. ``cookie.expires`` does not count, and without ``__lastAccess`` a session
   never ends.
3. What cannot be read as an object is no session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from filesession.stores.node.cookie import ORIGINAL, aged, is_number
from filesession.stores.node.javascript import COOKIE, LAST_ACCESS, RESERVED, parsed, stringified


@dataclass(frozen=True, slots=True)
class Document:
    """A session as its file has it.

    Attributes:
        members: all of it, in the file's order.
    """

    members: Mapping[str, Any]

    @classmethod
    def read(cls, text: bytes) -> Document | None:
        """The document in a file's text; None when there is none (rule 3)."""
        try:
            return cls(parsed(text))
        except ValueError:
            return None

    @property
    def data(self) -> dict[str, Any]:
        """What is the application's: all that Express would load."""
        return {key: value for key, value in self.members.items() if key not in RESERVED}

    @property
    def cookie(self) -> Mapping[str, Any]:
        """Its ``cookie``; an empty one where there is none."""
        cookie = self.members.get(COOKIE)
        return cookie if isinstance(cookie, dict) else {}

    @property
    def last_access(self) -> float | None:
        """Milliseconds since 1970; None: it is not known, and the session never ends."""
        moment = self.members.get(LAST_ACCESS)
        return moment if is_number(moment) else None

    @property
    def max_age(self) -> float | None:
        """The session's own idle timeout in milliseconds; None: the store's."""
        original = self.cookie.get(ORIGINAL)
        return original if original and is_number(original) else None

    def ends_at(self, ttl: float) -> float | None:
        """The last millisecond in which it is alive, if nothing more happens; None: it never ends.

        Args:
            ttl: the store's timeout, in milliseconds.
        """
        accessed = self.last_access
        return None if accessed is None else accessed + (self.max_age or ttl)

    def is_over(self, ttl: float, now: float) -> bool:
        """Whether it has expired (rule 2); all in milliseconds."""
        end = self.ends_at(ttl)
        return end is not None and end < now

    def with_data(self, data: Mapping[str, Any]) -> Document:
        """The same session with other data; the keys in the order of ``data`` (rule 1)."""
        places = list(self.members)
        known = places.index(LAST_ACCESS) if LAST_ACCESS in places else len(places)
        before = set(places[:known])
        members: dict[str, Any] = {COOKIE: self.cookie}
        for key, value in data.items():
            if LAST_ACCESS not in members and key not in before and LAST_ACCESS in self.members:
                members[LAST_ACCESS] = self.members[LAST_ACCESS]
            members[key] = value
        if LAST_ACCESS in self.members:
            members[LAST_ACCESS] = self.members[LAST_ACCESS]
        return replace(self, members=members)

    def with_cookie(self, cookie: Mapping[str, Any]) -> Document:
        """The same session with another ``cookie``."""
        return replace(self, members={**self.members, COOKIE: cookie})

    def used_at(self, now: int) -> Document:
        """The same session, used at that millisecond."""
        return replace(
            self, members={**self.members, COOKIE: aged(self.cookie, now), LAST_ACCESS: now}
        )

    def text(self) -> bytes:
        """What its file holds."""
        return stringified({COOKIE: self.cookie, **self.members})
