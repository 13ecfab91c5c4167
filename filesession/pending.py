"""What an application asked of its session beside the data, until it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from filesession.lifetime import UNSET, Unsettable


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
