"""Making the store calls that the exchange and the session ask for, from threads or an event loop.

Rules, on an event loop:

1. Nothing waits there: a lock that is held is asked for again after a pause in which others run,
   and what has to wait for the disk goes to a worker thread.
2. No thread waits for a lock that can be had without waiting. Threads are few: if all of them
   waited, who holds the lock could get none to finish with.
3. A lock that a thread gets for a task that was cancelled meanwhile is given back; any other call
   that a thread has begun, or that gives an id, is seen to its end, and who asked for it learns
   what came of it: else a session would not know its new id.
4. The steps of one request are made one after the other, whichever of its tasks asks for them; but
   who holds the session's lock need not wait for one who waits for that lock: the tasks inside
   it take turns among themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from filesession.byparts import regenerated_by_parts
from filesession.calls import Steps, StoreCall
from filesession.errors import ConfigurationError, LockTimeout, SessionGone, WouldSync
from filesession.locks import DEFAULT_TIMEOUT, FIRST_PAUSE, LONGEST_PAUSE, lock_timeout
from filesession.record import SessionRecord
from filesession.retries import Pause, Retries
from filesession.stores.held import HeldLock
from filesession.stores.protocol import AsyncStore, Impatient, Locks, Regenerates, Store

T = TypeVar("T")
C = TypeVar("C")

_log = logging.getLogger("filesession.runner")

_LOCKING: Final = frozenset({"save", "delete", "regenerate"})
"""The verbs that need the lock of a session which others may hold."""

_NAMING: Final = frozenset({"create", "regenerate"})
"""The verbs that give an id, which is lost when who asked for it does not hear of it."""

_ABSENT: Final = object()

NO_RETRIES: Final = Retries()


def is_async(store: object) -> bool:
    """Whether the store's methods are coroutines."""
    return inspect.iscoroutinefunction(getattr(store, "load", None))


class BlockingRunner:
    """Makes each call in the caller's thread, and sleeps there between its tries."""

    def __init__(self, store: Store, retries: Retries = NO_RETRIES) -> None:
        self._store = store
        self._retries = retries

    def run(self, steps: Steps[T]) -> T:
        """Make them all; blocks."""
        return _driven(steps, self._perform)

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
            return self.run(regenerated_by_parts(call))
        if self._retries:
            return _driven(self._retries.tries(call), self._step)
        return self._step(call)

    def _step(self, step: StoreCall | Pause) -> Any:  # noqa: ANN401 - the verb's own type
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        return getattr(self._store, step.verb)(*step.arguments, **step.keywords)


class LoopRunner:
    """Makes each call on an event loop, without blocking it.

    Args:
        store: a ``Store`` or an ``AsyncStore``.
        offload: True: every call in a worker thread; False: none, whatever it waits for; None:
            calls that wait for the disk, and all calls of a store that cannot tell.
        retries: how often a call that failed is tried again.
    """

    def __init__(
        self,
        store: Store | AsyncStore,
        offload: bool | None,  # noqa: FBT001
        retries: Retries = NO_RETRIES,
    ) -> None:
        self._store = store
        self._retries = retries
        self._is_async = is_async(store)
        self._quick = store.without_waiting() if isinstance(store, Impatient) else None
        self._threads = self._quick is None if offload is None else offload
        self._inline = offload is False

    def run(self, steps: Steps[T]) -> T:
        """Make them all in the caller's thread, which must not be the event loop's; blocks.

        Raises:
            ConfigurationError: the store's methods are coroutines.
            RuntimeError: it is the event loop's thread.
        """
        return self._blocking().run(steps)

    def lock(self, sid: str, timeout: float) -> AbstractContextManager[SessionRecord]:
        """The store's lock of a session; entering blocks, so not on the event loop."""
        return self._blocking().lock(sid, timeout)

    def _blocking(self) -> BlockingRunner:
        if self._is_async:
            msg = "this store works in coroutines: await session.asave(), areload() or alock()"
            raise ConfigurationError(msg)
        if _is_on_a_loop():
            msg = "this would block the event loop: await session.asave(), areload() or alock()"
            raise RuntimeError(msg)
        return BlockingRunner(self._store, self._retries)  # type: ignore[arg-type]  # no AsyncStore

    def without_retries(self) -> LoopRunner:
        """The same, that tries once: for what is still to be done when the request is cancelled."""
        runner = copy.copy(self)
        runner._retries = NO_RETRIES  # noqa: SLF001
        return runner

    async def arun(self, steps: Steps[T]) -> T:
        """Make them all."""
        try:
            return await _adriven(steps, self._perform)
        except _CutShortError as cut:
            _deliver(cut.outcome, steps)
            raise asyncio.CancelledError(*cut.args) from None
        finally:
            steps.close()  # now: cut short, a traceback would keep them from putting things back

    @asynccontextmanager
    async def alock(self, sid: str, timeout: float) -> AsyncIterator[SessionRecord]:  # noqa: ASYNC109
        """The store's lock of a session, waited for without blocking the event loop."""
        if self._is_async and hasattr(self._store, "lock"):
            async with self._store.lock(sid, timeout=timeout) as record:
                yield record
            return
        if not isinstance(self._store, Locks):
            raise _no_locks(self._store)
        held = self._store.lock(sid, timeout=0)
        if isinstance(held, HeldLock):
            record = await self._patiently(held.acquire, timeout, undo=lambda _: held.release())
            held.bind()
            try:
                yield record
            finally:
                held.release()
            return
        enter = partial(_entered, self._store, sid)
        leave, record = await self._patiently(enter, timeout, undo=lambda entered: entered[0]())
        try:
            yield record
        finally:
            await self._called(leave, undo=lambda _: None)

    async def _perform(self, call: StoreCall) -> Any:  # noqa: ANN401 - the verb's own type
        if call.verb == "regenerate" and not hasattr(self._store, "regenerate"):
            parts = self.arun(regenerated_by_parts(call))
            return await _to_its_end(asyncio.ensure_future(parts))
        if not self._retries:
            return await self._made(call)

        async def made(step: StoreCall | Pause) -> Any:  # noqa: ANN401 - the verb's own type
            if isinstance(step, Pause):
                return await asyncio.sleep(step.seconds)
            try:
                return await self._made(step)
            except _CutShortError as cut:
                if step.verb == call.verb:
                    raise
                raise asyncio.CancelledError(*cut.args) from None  # it is no outcome of the call

        return await _adriven(self._retries.tries(call), made)

    async def _made(self, call: StoreCall) -> Any:  # noqa: ANN401 - the verb's own type
        if self._is_async:
            answer = getattr(self._store, call.verb)(*call.arguments, **call.keywords)
            if call.verb in _NAMING:
                return await _to_its_end(asyncio.ensure_future(answer))
            return await answer
        if self._quick is None:
            return await self._called(_bound(self._store, call))
        try:
            return await self._patiently(_bound(self._quick, call), DEFAULT_TIMEOUT)
        except WouldSync:
            return await self._synced(call)

    async def _synced(self, call: StoreCall) -> Any:  # noqa: ANN401 - the verb's own type
        """Make a call that waits for the disk, with the lock in hand that it needs."""
        method = _bound(self._store, call)
        async with AsyncExitStack() as stack:
            if call.verb in _LOCKING and isinstance(self._store, Locks):
                with suppress(SessionGone):  # the call says so itself
                    await stack.enter_async_context(self.alock(call.arguments[0], DEFAULT_TIMEOUT))
            return method() if self._inline else await _in_thread(method)

    async def _patiently(
        self,
        attempt: Callable[[], T],
        timeout: float,  # noqa: ASYNC109
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Try until no lock is in the way."""
        deadline = time.monotonic() + timeout
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._called(attempt, undo)
            except LockTimeout:
                if time.monotonic() >= deadline:
                    raise lock_timeout(timeout, "the session") from None
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _called(self, call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        return await _in_thread(call, undo) if self._threads else call()


class RequestRunner:
    """What one request's session gets to make its store calls with, on an event loop (rule 4).

    Args:
        runner: makes them.
    """

    __slots__ = ("_runner", "_turn")

    def __init__(self, runner: LoopRunner) -> None:
        self._runner = runner
        self._turn = asyncio.Lock()

    def hurry(self) -> None:
        """The request is cancelled: no call that it still makes is tried again."""
        self._runner = self._runner.without_retries()

    def run(self, steps: Steps[T]) -> T:
        """As the runner's."""
        return self._runner.run(steps)

    def lock(self, sid: str, timeout: float) -> AbstractContextManager[SessionRecord]:
        """As the runner's."""
        return self._runner.lock(sid, timeout)

    async def arun(self, steps: Steps[T]) -> T:
        """Make them all, when it is their turn."""
        while True:
            turn = self._turn_here()
            async with turn:
                if turn is self._turn_here():  # else the block that it was of has ended
                    return await self._runner.arun(steps)

    @asynccontextmanager
    async def alock(self, sid: str, timeout: float) -> AsyncIterator[SessionRecord]:  # noqa: ASYNC109
        """As the runner's."""
        async with self._runner.alock(sid, timeout) as record:
            inside = _Inside(self)
            _inside.set((inside, *(other for other in _inside.get() if not other.over)))
            try:
                yield record
            finally:
                inside.over = True

    def _turn_here(self) -> asyncio.Lock:
        """Those inside a lock of the session have turns of their own."""
        for inside in _inside.get():
            if inside.runner is self and not inside.over:
                return inside.turn
        return self._turn


@dataclass(eq=False, slots=True)
class _Inside:
    """A block in which a request holds its session's lock.

    Attributes:
        runner: the request's.
        turn: the steps made inside it take turns.
        over: it has ended; tasks started inside may go on.
    """

    runner: RequestRunner
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: bool = False


_inside: Final[contextvars.ContextVar[tuple[_Inside, ...]]] = contextvars.ContextVar(
    "inside", default=()
)
"""The blocks this task is in, the innermost first."""


class _CutShortError(asyncio.CancelledError):
    """The task was cancelled while a thread made its call, which has ended since.

    It does not get out of here: ``asyncio.timeout`` knows the plain error alone.
    """

    def __init__(self, outcome: asyncio.Future[Any], *arguments: object) -> None:
        super().__init__(*arguments)
        self.outcome = outcome


def _driven(steps: Generator[C, Any, T], perform: Callable[[C], object]) -> T:
    """What they end in, when each was performed."""
    try:
        step = next(steps)
        while True:
            try:
                result = perform(step)
            except Exception as error:  # noqa: BLE001 - whose it is, is for the steps to say
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()  # now: cut short, a traceback would keep them from putting things back


async def _adriven(steps: Generator[C, Any, T], perform: Callable[[C], Awaitable[object]]) -> T:
    """The same, on an event loop; a task that is cut short leaves them where they are."""
    try:
        step = next(steps)
        while True:
            try:
                result = await perform(step)
            except Exception as error:  # noqa: BLE001 - whose it is, is for the steps to say
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _deliver(outcome: asyncio.Future[Any], steps: Steps[Any]) -> None:
    """Tell the steps what came of their call, and make no other."""
    error = outcome.exception()
    try:
        if error is None:
            steps.send(outcome.result())
        else:
            steps.throw(error)
    except StopIteration:
        pass
    except Exception as told:  # noqa: BLE001 - nobody is there to raise it to
        _log.error("a store call, whose task was cancelled, failed: %s", told)


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _in_thread(call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Make a call in a worker thread, which has the task's context variables, as it sets them too.

    A cancelled caller goes on when the call has ended; at once, if its result can be undone.
    """
    context = contextvars.copy_context()
    running = asyncio.get_running_loop().run_in_executor(None, context.run, call)
    if undo is None:
        result = await _to_its_end(running)
    else:
        result = await _undone_by_a_cancel(running, undo)
    for variable, value in context.items():
        if variable.get(_ABSENT) is not value:
            variable.set(value)
    return result


async def _to_its_end(running: asyncio.Future[T]) -> T:
    """Its result; a cancelled caller goes on when it has ended, and knows what came of it.

    However often it is cancelled: some cancel until the task stops.
    """
    try:
        await asyncio.wait([running])  # not the call itself, which would be cancelled too
    except asyncio.CancelledError as error:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise _CutShortError(running, *error.args) from None
    return running.result()


async def _undone_by_a_cancel(running: asyncio.Future[T], undo: Callable[[T], object]) -> T:
    """Its result, which is undone when the caller was cancelled meanwhile; that goes on at once."""
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        running.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() else undo(done.result())
        )
        raise
    return running.result()


def _entered(store: Locks, sid: str) -> tuple[Callable[[], object], SessionRecord]:
    """A lock that was free, entered: what leaves it, and the record."""
    held = store.lock(sid, timeout=0)
    record = held.__enter__()
    return partial(held.__exit__, None, None, None), record


def _bound(store: object, call: StoreCall) -> Callable[[], Any]:
    return partial(getattr(store, call.verb), *call.arguments, **call.keywords)


def _no_locks(store: object) -> ConfigurationError:
    return ConfigurationError(f"{type(store).__name__} has no lock(); use another store for it")
