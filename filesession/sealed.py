"""A session that its cookie holds whole, and no store: what cannot be sent is not kept."""

from __future__ import annotations

from filesession.calls import Steps
from filesession.pending import NOTHING, Pending
from filesession.record import SessionRecord
from filesession.session import Session


class SealedSession(Session):
    """A ``Session`` of an ``EncryptedCookie``.

    It has no id, and nobody knows when it was created. It is changed by a new cookie alone, so a
    change after the response has begun is lost, which is logged.
    """

    __slots__ = ()

    @property
    def id(self) -> None:
        """None: it has no identity."""
        return

    @property
    def created_at(self) -> None:
        """None: that is not known."""
        return

    def _save(self, record: SessionRecord, pending: Pending) -> Steps[None]:
        if self._can_announce("new cookie, and what was changed is lost"):
            yield from super()._save(record, pending)

    def _touch(self, record: SessionRecord, *, certain: bool = False) -> Steps[None]:
        """When that was asked for: else it is as good as its cookie says."""
        if self.extended:
            yield from self._save(record, NOTHING)
        else:
            yield from super()._touch(record, certain=certain)
