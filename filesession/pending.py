"""What a session has to remember until it is written, and while it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from filesession.lifetime import UNSET, Unsettable
from filesession.record import SessionRecord
from filesession.stores.entry import Conflict


@dataclass(frozen=True, slots=True)
class Pending:
    """What the application asked for beside the data, and waits to be written.

    Attributes:
        forced: save, also when nothing differs.
        regenerating: give it a new id.
        emptied: what is stored is to go, whatever others saved.
        idle: its own idle timeout in seconds, ``math.inf`` for none, None for the store's.
        sid: the id it is to get, once somebody asked for it.
    """

    forced: bool = False
    regenerating: bool = False
    emptied: bool = False
    idle: float | Unsettable | None = UNSET
    sid: str | None = None

    @property
    def asks_for_a_save(self) -> bool:
        """Whether it is more than a new id."""
        return self.forced or self.idle is not UNSET

    def keywords(
        self, record: SessionRecord, conflict: Conflict, cookie: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Those of a ``save`` or ``regenerate`` based on that record."""
        keywords: dict[str, Any] = {
            "base": record,
            "conflict": "overwrite" if self.emptied else conflict,
        }
        if self.idle is not UNSET:
            keywords["idle_timeout"] = self.idle
        if cookie is not None:
            keywords["cookie"] = cookie
        return keywords

    def then(self, later: Pending) -> Pending:
        """Both, the later ones counting where they say something."""
        return Pending(
            self.forced or later.forced,
            self.regenerating or later.regenerating,
            self.emptied or later.emptied,
            self.idle if later.idle is UNSET else later.idle,
            later.sid if later.regenerating or later.sid else self.sid,
        )


NOTHING: Final = Pending()


@dataclass(frozen=True, slots=True)
class Sent:
    """What a store call was made with, to go on from when it comes back.

    Attributes:
        record: what the session was then; None: it was new.
        text: its data.
        overrides: the cookie attributes of its own.
        life: tells whether it was destroyed meanwhile.
    """

    record: SessionRecord | None
    text: bytes
    overrides: Mapping[str, Any]
    life: object
