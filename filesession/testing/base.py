"""What every part of the contract suite stands on."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from functools import partial
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
            "cookies",
            "exactness",
            "expiry",
            "locking",
            "regenerating",
            "verbs",
            "waiting",
            "whole",
        )
    )
)

T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds until a thread that does not come to its end fails the test."""


class ContractTests:
    """A store, and a clock that stands still."""

    keeps_cookie = True
    """Whether the store keeps cookie attributes; False skips their tests."""

    def make_store(self, clock: Clock, **timeouts: Any) -> Store:  # noqa: ANN401 - three keywords
        """The store under test; a fresh and empty one for each test.

        Args:
            clock: what it must take the time from.
            timeouts: any of ``idle_timeout``, ``absolute_timeout`` and ``touch_interval``, meaning
                what they mean to a ``FileStore``, whose defaults are expected without them.
        """
        msg = f"{type(self).__name__} must define make_store(), which gives the store under test"
        raise NotImplementedError(msg)

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The time of the test: it passes only by ``clock.advance(seconds)``.

        A store that reads the system's clock instead of this one fails the tests of expiry.
        """
        return ManualClock()

    @pytest.fixture
    def store(self, clock: ManualClock) -> Iterator[Store]:
        """The store of a test that asks for no timeouts, closed at its end if it can be."""
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


def started(call: Callable[[], T]) -> Future[T]:
    """Begin a call in a thread of its own, which holds none of the caller's locks.

    The thread is a daemon: one that waits for ever fails its test, and does not keep the process.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again by who asks for the result
            future.set_exception(error)

    # Some interpreters have a thread start in its maker's context, which knows of the locks held.
    threading.Thread(target=contextvars.Context().run, args=(run,), daemon=True).start()
    return future


def ended(future: Future[T]) -> T:
    """What a call gave or raised; it fails the test when it does not come to its end."""
    if not wait([future], PATIENCE).done:
        pytest.fail(f"a call in another thread waits after {PATIENCE:g} s for what never comes")
    return future.result()


def in_thread(call: Callable[[], T]) -> T:
    """Make a call in a thread of its own; gives its result, or raises what it raised."""
    return ended(started(call))


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

    outcomes = [started(partial(outcome, number)) for number in range(count)]
    return [ended(future) for future in outcomes]


def of_type(outcomes: Sequence[object], kind: type[T]) -> list[T]:
    """Those outcomes that are of a type."""
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]
