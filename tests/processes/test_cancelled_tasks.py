"""A task that is cancelled at any of its steps: its lock is given back, and nothing is half done.

Each piece of work runs again and again: cancelled the first time it gives control to the event
loop, the second time, and so on until it comes to its end. The loop, the worker threads and the
files are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final

import pytest

from filesession.errors import LockTimeout
from filesession.runner import LoopRunner, RequestRunner
from filesession.session import Session
from filesession.stores import FileStore
from filesession.stores.file.size import LONGEST_JOURNAL
from tests.processes.conftest import (
    PATIENCE,
    SID,
    Place,
    held,
    nothing_left,
    request_asgi,
    under_asgi,
)
from tests.session.conftest import a_session

OLD: Final = {"n": 1}
NEW: Final = {"n": 2}

Work = Callable[[Session], Coroutine[Any, Any, None]]


class Cut:
    """Awaits something, and has its task cancelled when that gives control away the nth time.

    Attributes:
        was_met: it did so that often.
    """

    def __init__(
        self, work: Coroutine[Any, Any, None], nth: int, meanwhile: Callable[[int], object]
    ) -> None:
        self._work = work
        self._nth = nth
        self._meanwhile = meanwhile
        self._given = 0
        self.was_met = False

    def __await__(self) -> Generator[Any, Any, None]:
        step: Callable[[], Any] = lambda: self._work.send(None)  # noqa: E731
        while True:
            try:
                awaited = step()
            except StopIteration:
                return
            self._given += 1
            self._meanwhile(self._given)
            if self._given == self._nth:
                self.was_met = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()  # reaches the work where it waits, as from another task
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - it is for the work
                step = lambda error=error: self._work.throw(error)  # type: ignore[misc]  # noqa: E731
            else:
                step = lambda: self._work.send(None)  # noqa: E731


async def cut(
    work: Coroutine[Any, Any, None],
    nth: int,
    meanwhile: Callable[[int], object] = lambda given: None,
) -> bool:
    """Whether the work was cancelled; it came to its end in any case.

    ``meanwhile`` is called each time it gives control away, with how often it has.
    """
    cutting = Cut(work, nth, meanwhile)

    async def awaiting() -> None:
        await cutting

    task = asyncio.create_task(awaiting())
    await asyncio.wait([task], timeout=PATIENCE)
    assert task.done(), "a cancelled task was at work for too long: a deadlock?"
    assert task.cancelled() or task.exception() is None, task.exception()
    assert cutting.was_met or not task.cancelled()
    return cutting.was_met


async def cut_off(place: Place, work: Coroutine[Any, Any, None], nth: int) -> bool:
    """The same; nothing is written for it after that."""
    was_met = await cut(work, nth)
    written = place.content()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert place.content() == written
    return was_met


async def save(session: Session) -> None:
    session.update(NEW)
    await session.asave()


async def regenerate(session: Session) -> None:
    session.update(NEW)
    session.regenerate()
    await session.asave()


async def destroy(session: Session) -> None:
    session.destroy()
    await session.asave()


async def reload(session: Session) -> None:
    await session.areload()


async def lock_and_change(session: Session) -> None:
    async with session.alock():
        session["n"] += 1
        await asyncio.sleep(0)


async def lock_and_save(session: Session) -> None:
    async with session.alock():
        session["n"] += 1
        await session.asave()
        await asyncio.sleep(0)


async def lock_twice(session: Session) -> None:
    async with session.alock(), session.alock():
        session["n"] += 1
        await asyncio.sleep(0)


async def lock_and_share(session: Session) -> None:
    async def guest() -> None:
        async with session.alock():
            await asyncio.sleep(0)

    async with session.alock():
        async with asyncio.TaskGroup() as group:
            group.create_task(guest())
            group.create_task(guest())
        session["n"] += 1


WORK: Final[list[Work]] = [
    *(save, regenerate, destroy, reload),
    *(lock_and_change, lock_and_save, lock_twice, lock_and_share),
]

OFFLOADS: Final = [None, True]


@pytest.fixture(params=OFFLOADS, ids=["on the loop", "in threads"])
def offload(request: pytest.FixtureRequest) -> bool | None:
    """Where store calls that need not wait are made."""
    where: bool | None = request.param
    return where


def the_session(place: Place, *, offload: bool | None) -> Session:
    """As a request finds it."""
    session = a_session(place.store, SID)
    session._visit.runner = RequestRunner(LoopRunner(place.store, offload))
    return session


def renew(place: Place, grown: int = 0) -> None:
    """There is one session, as it was at first; one that has grown is replaced at its next save."""
    place.store.clear()
    place.store.create(OLD, sid=SID)
    if grown:
        place.store.save(SID, {"text": "x" * grown})
        place.store.save(SID, OLD)


def check(place: Place, *, may_be_gone: bool = False, may_move: bool = False) -> Any:
    """What is stored is whole and nobody's; gives it."""
    assert not place.temporary()
    handles = [info.handle for info in place.store.scan()]
    if place.data() is None:
        assert may_be_gone or may_move
        assert len(handles) == may_move
        return None if not handles else place.store.inspect(handles[0])[1]  # type: ignore[index]
    assert handles == [place.path().name]
    assert place.is_whole()
    assert place.is_free()
    return place.data()


@pytest.mark.parametrize("grown", [0, LONGEST_JOURNAL - 500], ids=["", "replaced"])
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_a_task_cancelled_at_any_step_leaves_its_session_whole_and_free(
    place: Place, work: Work, grown: int, *, offload: bool | None
) -> None:
    nth, met = 0, True
    while met:
        nth += 1
        renew(place, grown)
        with nothing_left():
            met = asyncio.run(cut_off(place, work(the_session(place, offload=offload)), nth))
        found = check(place, may_be_gone=work is destroy, may_move=work is regenerate)
        assert found in ((OLD, NEW, None) if work is destroy else (OLD, NEW))
    last: dict[Work, Any] = {destroy: None, reload: OLD}
    assert found == last.get(work, NEW)  # it ran to its end


@pytest.mark.parametrize(
    "work", [save, regenerate, lock_and_change], ids=lambda work: work.__name__
)
def test_a_task_cancelled_while_it_waits_for_a_lock_never_gets_it(
    place: Place, work: Work, *, offload: bool | None
) -> None:
    async def waiting(nth: int) -> bool:
        with held(place) as go:
            session = the_session(place, offload=offload)
            return await cut(work(session), nth, lambda given: go.set() if given == 4 else None)

    nth, met = 0, True
    while met:
        nth += 1
        renew(place)
        with nothing_left():
            met = asyncio.run(waiting(nth))
        assert check(place, may_move=work is regenerate) in (OLD, NEW)
    assert nth > 2


@pytest.mark.parametrize("path", ["/save", "/lock"])
def test_a_request_cancelled_at_any_step_leaves_its_session_whole_and_free(
    place: Place, path: str, *, offload: bool | None
) -> None:
    async def act(session: Session, path: str) -> None:
        if path == "/lock":
            await lock_and_change(session)
        else:
            session["n"] += 1

    app = under_asgi(act, place.store, offload=offload)

    async def request() -> None:
        await request_asgi(app, path=path)

    nth, met = 0, True
    while met:
        nth += 1
        renew(place)
        with nothing_left():
            met = asyncio.run(cut_off(place, request(), nth))
        assert check(place) in (OLD, NEW)
    assert place.data() == NEW


def test_a_time_limit_ends_the_wait_for_a_lock_and_the_session_is_good_for_more(
    place: Place, *, offload: bool | None
) -> None:
    renew(place)
    session = the_session(place, offload=offload)

    async def impatient() -> None:
        with held(place):
            for call in (session.asave, lambda: lock_and_change(session)):
                session["n"] = 5
                with pytest.raises(TimeoutError):
                    await in_time(call)
            with pytest.raises(LockTimeout):
                async with session.alock(timeout=0.01):
                    pytest.fail("it has the lock")
        await lock_and_change(session)

    with nothing_left():
        asyncio.run(impatient())
    assert place.data() == {"n": 6}
    check(place)


async def in_time(call: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(0.02):
        await call()


def test_a_durable_save_cancelled_at_any_step_leaves_its_session_whole_and_free(
    place: Place,
) -> None:
    store = FileStore(place.directory, durable=True)
    nth, met = 0, True
    while met:
        nth += 1
        renew(place)
        session = a_session(store, SID)
        session._visit.runner = RequestRunner(LoopRunner(store, None))
        with nothing_left():
            met = asyncio.run(cut_off(place, lock_and_save(session), nth))
        assert check(place) in (OLD, NEW)
    assert place.data() == NEW
