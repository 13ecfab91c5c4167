"""Making the store calls that the exchange and the session ask for, from threads or an event loop.

On an event loop nothing may wait: a lock that is held is asked for again after a pause in which
others run, and what has to wait for the disk goes to a worker thread.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar

from filesession.calls import Steps, StoreCall
from filesession.errors import ConfigurationError, LockTimeout, WouldSync
from filesession.locks import DEFAULT_TIMEOUT, FIRST_PAUSE, LONGEST_PAUSE
from filesession.record import SessionRecord
from filesession.stores.held import HeldLock
from filesession.stores.protocol import AsyncStore, Impatient, Locks, Regenerates, Store

T = TypeVar("T")


def is_async(store: object) -> bool:
    """Whether the store's methods are coroutines."""
    return inspect.iscoroutinefunction(getattr(store, "load", None))


class BlockingRunner:
    """Makes each call in the caller's thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, steps: Steps[T]) -> T:
        """Make them all; blocks."""
        try:
            call = next(steps)
            while True:
                try:
                    result = self._perform(call)
                except Exception as error:  # noqa: BLE001 - whose it is, is for the steps to say
                    call = steps.throw(error)
                else:
                    call = steps.send(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def arun(self, steps: Steps[T]) -> T:
        """The same, for coroutines under a gateway that has no event loop of its own; blocks."""
        return self.run(steps)

    def lock(self, sid: str, timeout: float) -> AbstractContextManager[SessionRecord]:
        """The store's lock of a session; entering blocks.

        Raises:
            ConfigurationError: the store has no locks.
        """
        if not isinstance(self._store, Locks):
            raise _no_locks(self._store)
        return self._store.lock(sid, timeout=timeout)

    @asynccontextmanager
    async def alock(self, sid: str, timeout: float) -> AsyncIterator[SessionRecord]:  # noqa: ASYNC109
        """The same; entering blocks."""
        with self.lock(sid, timeout) as record:
            yield record

    def _perform(self, call: StoreCall) -> Any:  # noqa: ANN401 - the verb's own type
        if call.verb == "regenerate" and not isinstance(self._store, Regenerates):
            return self.run(_regenerated_by_parts(call))
        return getattr(self._store, call.verb)(*call.arguments, **call.keywords)


class LoopRunner:
    """Makes each call on an event loop, without blocking it.

    Args:
        store: a ``Store`` or an ``AsyncStore``.
        offload: True: every call in a worker thread; False: none, whatever it waits for; None:
            calls that wait for the disk, and all calls of a store that cannot tell.
    """

    def __init__(self, store: Store | AsyncStore, offload: bool | None) -> None:  # noqa: FBT001
        self._store = store
        self._is_async = is_async(store)
        self._quick = store.without_waiting() if isinstance(store, Impatient) else None
        self._threads = self._quick is None if offload is None else offload
        self._inline = offload is False

    def run(self, steps: Steps[T]) -> T:
        """Make them all in the caller's thread, which must not be the event loop's; blocks.

        Raises:
            ConfigurationError: the store's methods are coroutines.
        """
        return self._blocking().run(steps)

    def lock(self, sid: str, timeout: float) -> AbstractContextManager[SessionRecord]:
        """The store's lock of a session; entering blocks, so not on the event loop."""
        return self._blocking().lock(sid, timeout)

    def _blocking(self) -> BlockingRunner:
        if self._is_async:
            msg = "this store works in coroutines: await session.asave(), areload() or alock()"
            raise ConfigurationError(msg)
        return BlockingRunner(self._store)  # type: ignore[arg-type]  # it is no AsyncStore

    async def arun(self, steps: Steps[T]) -> T:
        """Make them all."""
        try:
            call = next(steps)
            while True:
                try:
                    result = await self._perform(call)
                except Exception as error:  # noqa: BLE001 - whose it is, is for the steps to say
                    call = steps.throw(error)
                else:
                    call = steps.send(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    @asynccontextmanager
    async def alock(self, sid: str, timeout: float) -> AsyncIterator[SessionRecord]:  # noqa: ASYNC109
        """The store's lock of a session, waited for without blocking the event loop."""
        if self._is_async and hasattr(self._store, "lock"):
            async with self._store.lock(sid, timeout=timeout) as record:
                yield record
            return
        if not isinstance(self._store, Locks):
            raise _no_locks(self._store)
        held = self._store.lock(sid, timeout=0 if self._quick is not None else timeout)
        if isinstance(held, HeldLock):
            record = await self._patiently(held.acquire, timeout)
            held.bind()
        else:
            record = await _entered(held)
        try:
            yield record
        finally:
            held.__exit__(None, None, None)

    async def _perform(self, call: StoreCall) -> Any:  # noqa: ANN401 - the verb's own type
        if call.verb == "regenerate" and not hasattr(self._store, "regenerate"):
            return await self.arun(_regenerated_by_parts(call))
        if self._is_async:
            return await getattr(self._store, call.verb)(*call.arguments, **call.keywords)
        if self._quick is None:
            method = getattr(self._store, call.verb)
            return await self._called(lambda: method(*call.arguments, **call.keywords))
        quick = getattr(self._quick, call.verb)
        try:
            return await self._patiently(
                lambda: quick(*call.arguments, **call.keywords), DEFAULT_TIMEOUT
            )
        except WouldSync:
            method = getattr(self._store, call.verb)
            if self._inline:
                return method(*call.arguments, **call.keywords)
            return await asyncio.to_thread(method, *call.arguments, **call.keywords)

    async def _patiently(self, attempt: Callable[[], T], timeout: float) -> T:  # noqa: ASYNC109
        """Try until no lock is in the way."""
        deadline = time.monotonic() + timeout
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._called(attempt)
            except LockTimeout:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _called(self, call: Callable[[], T]) -> T:
        return await asyncio.to_thread(call) if self._threads else call()


async def _entered(manager: AbstractContextManager[T]) -> T:
    """Enter a lock in a worker thread; if the wait is cancelled, give back what it still gets."""
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        return await asyncio.shield(entering)
    except asyncio.CancelledError:
        entering.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() else _left(manager)
        )
        raise


def _left(manager: AbstractContextManager[Any]) -> None:
    manager.__exit__(None, None, None)


def _regenerated_by_parts(call: StoreCall) -> Steps[SessionRecord]:
    """``regenerate`` for a store without: the new session first, so that one is always there."""
    (sid, data), keywords = call.arguments, call.keywords
    base: SessionRecord = keywords["base"]
    save = {name: value for name, value in keywords.items() if name != "new_sid"}
    saved = yield StoreCall("save", (sid, data), save)
    created = yield StoreCall(
        "create",
        (saved.data,),
        {
            "sid": keywords["new_sid"],
            "idle_timeout": _given(saved.idle_timeout),
            "absolute_timeout": _given(base.absolute_timeout),
            "cookie": saved.cookie,
        },
    )
    yield StoreCall("delete", (sid,))
    return created  # type: ignore[no-any-return]


def _given(timeout: float | None) -> float:
    """A record's timeout as ``create`` takes it, where None would be the store's own."""
    return math.inf if timeout is None else timeout


def _no_locks(store: object) -> ConfigurationError:
    return ConfigurationError(f"{type(store).__name__} has no lock(); use another store for it")
