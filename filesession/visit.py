"""What a session must know of the request it serves, and who makes its store calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from filesession.calls import Steps
from filesession.codec import Codec
from filesession.cookies.policy import CookiePolicy
from filesession.record import SessionRecord
from filesession.stores.entry import Conflict

T = TypeVar("T")


class Runner(Protocol):
    """Makes the store calls a session asks for."""

    def run(self, steps: Steps[T]) -> T:
        """Make them all; blocks."""

    async def arun(self, steps: Steps[T]) -> T:
        """Make them all without blocking the event loop."""

    def lock(self, sid: str, timeout: float) -> AbstractContextManager[SessionRecord]:
        """The store's lock of a session; entering blocks."""

    def alock(self, sid: str, timeout: float) -> AbstractAsyncContextManager[SessionRecord]:
        """The same, without blocking the event loop."""


@dataclass(slots=True)
class Visit:
    """What a session must know of the request it serves.

    Attributes:
        runner: makes its store calls.
        policy: the cookie's attributes.
        codec: tells whether data changed; the store's.
        conflict: what a save does when another saved meanwhile.
        https: the request came over TLS.
        genid: makes the ids of new sessions; None: the store does.
        headers_sent: the response has begun, so no cookie can be sent any more.
    """

    runner: Runner
    policy: CookiePolicy
    codec: Codec
    conflict: Conflict = "merge"
    https: bool = False
    genid: Callable[[], str] | None = None
    headers_sent: bool = False

    def obstacle(self, policy: CookiePolicy) -> str | None:
        """Why no cookie with those attributes can be sent any more; None: it can."""
        if self.headers_sent:
            return "the response had begun"
        if not policy.may_be_sent(self.https):
            return "over plain HTTP, with secure=True"
        return None
