"""What every part of the contract suite stands on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from filesession.clock import Clock
from filesession.record import SessionRecord
from filesession.stores.protocol import Store
from filesession.testing.clock import ManualClock

try:
    import pytest
except ModuleNotFoundError as error:
    message = "filesession.testing needs pytest: pip install 'filesession[testing]'"
    raise ImportError(message) from error

# Before the other parts are imported, so that their failures show what was compared.
pytest.register_assert_rewrite(
    *(
        f"filesession.testing.{part}"
        for part in (
            "conflicts",
            "exactness",
            "expiry",
            "locking",
            "regenerating",
            "verbs",
            "whole",
        )
    )
)

T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds until a thread that does not come to its end fails the test."""


class ContractTests:
    """A store, a clock that stands still, and threads to reach the store from."""

    def make_store(self, clock: Clock, **timeouts: Any) -> Store:  # noqa: ANN401 - three keywords
        """The store under test; a fresh and empty one for each test.

        Args:
            clock: what it must take the time from.
            timeouts: any of ``idle_timeout``, ``absolute_timeout`` and ``touch_interval``, meaning
                what they mean to a ``FileStore``, whose defaults are expected without them.
        """
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def store(self, clock: ManualClock) -> Iterator[Store]:
        store = self.make_store(clock)
        yield store
        close = getattr(store, "close", None)
        if close is not None:
            close()


def loaded(store: Store, sid: str) -> SessionRecord:
    """The session, which is there."""
    record = store.load(sid)
    assert record is not None
    return record


def in_thread(call: Callable[[], T]) -> T:
    """Make a call in a thread of its own; gives its result, or raises what it raised."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(PATIENCE)


def at_once(count: int, call: Callable[[int], T]) -> list[T | Exception]:
    """Make ``call(0)``, ``call(1)``... at the same moment, each in a thread of its own.

    Returns:
        What each returned or raised, in that order.
    """
    ready = threading.Barrier(count)

    def outcome(number: int) -> T | Exception:
        ready.wait(PATIENCE)
        try:
            return call(number)
        except Exception as error:  # noqa: BLE001 - whatever it is, is for the test to judge
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(outcome, range(count), timeout=PATIENCE))


def of_type(outcomes: Sequence[object], kind: type[T]) -> list[T]:
    """Those outcomes that are of a type."""
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]
