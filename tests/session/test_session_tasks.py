"""One session shared by several tasks of a request, and by a task that is cut short."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import pytest

from filesession.cookies.policy import CookiePolicy
from filesession.errors import SessionGone, StoreUnavailable
from filesession.record import SessionRecord
from filesession.runner import BlockingRunner, LoopRunner, RequestRunner
from filesession.session import Session
from filesession.stores import FileStore, MemoryStore
from filesession.stores.entry import handle_of
from filesession.testing import ManualClock
from filesession.testing.base import PATIENCE, loaded
from filesession.visit import Visit

Moment: TypeAlias = Literal["before", "after"]


@dataclass
class Stop:
    """One call of a store, stopped until it is let go.

    Attributes:
        moment: before the store does its work, or after.
        reached: the call is there.
        go: it may go on.
        error: what it raises then.
    """

    moment: Moment
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    async def pass_through(self) -> None:
        self.reached.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error


class Coroutines:
    """A memory store in coroutines, whose calls can be stopped on their way.

    Attributes:
        calls: the verbs asked of it, in the order in which they began.
        stops: where the next call of a verb is stopped.
    """

    def __init__(self) -> None:
        self.inner = MemoryStore(clock=ManualClock())
        self.codec = self.inner.codec
        self.calls: list[str] = []
        self.stops: dict[str, Stop] = {}

    def stop(self, verb: str, moment: Moment = "before", error: Exception | None = None) -> Stop:
        stop = self.stops[verb] = Stop(moment, error=error)
        return stop

    async def _call(self, verb: str, *arguments: Any, **keywords: Any) -> Any:
        self.calls.append(verb)
        stop = self.stops.pop(verb, None)
        if stop is not None and stop.moment == "before":
            await stop.pass_through()
        result = getattr(self.inner, verb)(*arguments, **keywords)
        if stop is not None and stop.moment == "after":
            await stop.pass_through()
        return result

    async def load(self, *arguments: Any) -> Any:
        return await self._call("load", *arguments)

    async def create(self, *arguments: Any, **keywords: Any) -> Any:
        return await self._call("create", *arguments, **keywords)

    async def save(self, *arguments: Any, **keywords: Any) -> Any:
        return await self._call("save", *arguments, **keywords)

    async def touch(self, *arguments: Any, **keywords: Any) -> Any:
        return await self._call("touch", *arguments, **keywords)

    async def delete(self, *arguments: Any) -> Any:
        return await self._call("delete", *arguments)

    async def regenerate(self, *arguments: Any, **keywords: Any) -> Any:
        return await self._call("regenerate", *arguments, **keywords)

    @asynccontextmanager
    async def lock(self, sid: str, *, timeout: float = 10) -> AsyncIterator[SessionRecord]:  # noqa: ASYNC109
        with self.inner.lock(sid, timeout=timeout) as record:
            yield record


def a_session(store: Any, sid: str | None = None, **options: Any) -> Session:
    """What a request is given: the stored session of that id, or a new one."""
    offload = options.pop("offload", None)
    visit = Visit(RequestRunner(LoopRunner(store, offload)), CookiePolicy(), store.codec, **options)
    return Session(visit, None if sid is None else loaded(getattr(store, "inner", store), sid))


def stored(store: Any, data: dict[str, Any], **options: Any) -> Session:
    """A session that was stored before this request."""
    sid = getattr(store, "inner", store).create(data).id
    return a_session(store, sid, **options)


def id_of(session: Session) -> str:
    assert session.id is not None
    return session.id


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it on an event loop, for so long as a test may take."""

    async def patiently() -> None:
        await asyncio.wait_for(main, PATIENCE)

    asyncio.run(patiently())


async def others_run() -> None:
    """Give every other task its turn, several times over."""
    for _ in range(20):
        await asyncio.sleep(0)


async def meanwhile(
    store: Coroutines,
    stop: Stop,
    work: Coroutine[Any, Any, None],
    act: Callable[[], object],
) -> None:
    """Do something while a call of that work is under way; raises what the work raises."""
    task = asyncio.create_task(work)
    await stop.reached.wait()
    act()
    stop.go.set()
    await task


@pytest.fixture
def store() -> Coroutines:
    return Coroutines()


@pytest.fixture(params=["before", "after"])
def moment(request: pytest.FixtureRequest) -> Moment:
    """Whether the store has done its work when something else happens."""
    moment: Moment = request.param
    return moment


# -- what is asked for while a save is under way --------------------------------------------------


def new_timeout(session: Session) -> None:
    session.idle_timeout = 99


def new_cookie(session: Session) -> None:
    session.cookie.max_age = 99


def mark(session: Session) -> None:
    session.modified = True


def change(session: Session) -> None:
    session["late"] = True


LATE: Final[dict[str, tuple[Callable[[Session], None], Callable[[SessionRecord], bool]]]] = {
    "idle timeout": (new_timeout, lambda record: record.idle_timeout == 99),
    "cookie": (new_cookie, lambda record: record.cookie == {"max_age": 99}),
    "data": (change, lambda record: "late" in record.data),
    "mark": (mark, lambda record: record.version == 3),
}


@pytest.mark.parametrize(("act", "is_written"), LATE.values(), ids=LATE)
def test_what_another_task_sets_while_a_save_is_under_way_waits_for_the_next(
    store: Coroutines,
    moment: Moment,
    act: Callable[[Session], None],
    is_written: Callable[[SessionRecord], bool],
) -> None:
    session = stored(store, {"n": 1})
    session["n"] = 2

    async def main() -> None:
        await meanwhile(store, store.stop("save", moment), session.asave(), lambda: act(session))
        record = loaded(store.inner, id_of(session))
        assert record.data == {"n": 2}
        assert not is_written(record)
        assert session.modified
        await session.asave()
        assert is_written(loaded(store.inner, id_of(session)))
        assert not session.modified

    run(main())
    assert store.calls == ["save", "save"]


@pytest.mark.parametrize("verb", ["save", "touch"])
def test_a_regenerate_while_a_call_is_under_way_is_made_at_the_next(
    store: Coroutines, moment: Moment, verb: str
) -> None:
    session = stored(store, {"n": 1})
    old = id_of(session)
    if verb == "save":
        session["n"] = 2

    def login() -> None:
        session.regenerate()
        session["user"] = "ada"

    async def main() -> None:
        await meanwhile(store, store.stop(verb, moment), session.asave(), login)
        assert session.id == old
        await session.asave()

    run(main())
    assert store.calls == [verb, "regenerate"]
    assert session.id != old
    assert session.announce
    assert store.inner.load(old) is None
    assert loaded(store.inner, id_of(session)).data == session


def test_emptied_while_a_save_is_under_way_it_stays_empty(
    store: Coroutines, moment: Moment
) -> None:
    session = stored(store, {"n": 1, "admin": True})
    session["n"] = 2
    store.inner.save(id_of(session), {"n": 1, "admin": True, "theirs": 1})

    async def main() -> None:
        stop = store.stop("save", moment)
        await meanwhile(store, stop, session.asave(), lambda: session.regenerate(keep_data=False))
        assert session == {}
        await session.asave()

    run(main())
    assert session == {} == loaded(store.inner, id_of(session)).data


def test_what_was_asked_before_a_save_that_fails_waits_on_and_what_came_meanwhile_counts_more(
    store: Coroutines, moment: Moment
) -> None:
    session = stored(store, {"n": 1})
    old = id_of(session)
    session["n"] = 2
    session.regenerate()
    session.idle_timeout = 60

    async def main() -> None:
        stop = store.stop("regenerate", "before", StoreUnavailable("the disk fails"))
        with pytest.raises(StoreUnavailable):
            await meanwhile(store, stop, session.asave(), lambda: new_timeout(session))
        assert session.id == old
        await session.asave()

    run(main())
    record = loaded(store.inner, id_of(session))
    assert session.id != old
    assert (record.data, record.idle_timeout) == ({"n": 2}, 99)


# -- a session that is destroyed while a call is under way ----------------------------------------


ENDED: Final[dict[str, Callable[[Session], object]]] = {
    "save": change,
    "touch": lambda session: None,
    "regenerate": Session.regenerate,
}


@pytest.mark.parametrize(("verb", "act"), ENDED.items(), ids=ENDED)
def test_a_session_destroyed_while_a_call_is_under_way_is_destroyed(
    store: Coroutines, moment: Moment, verb: str, act: Callable[[Session], object]
) -> None:
    session = stored(store, {"user": "ada"})
    act(session)

    async def main() -> None:
        await meanwhile(store, store.stop(verb, moment), session.asave(), session.destroy)

    run(main())
    assert (session, session.is_new, session.destroyed) == ({}, True, True)
    assert not session.announce
    assert not session.modified
    assert len(store.inner) == 0


def test_a_new_session_destroyed_while_it_is_created_is_deleted_again(
    store: Coroutines, moment: Moment
) -> None:
    session = a_session(store)
    session["user"] = "ada"

    async def main() -> None:
        await meanwhile(store, store.stop("create", moment), session.asave(), session.destroy)

    run(main())
    assert (session, session.is_new, session.announce) == ({}, True, False)
    assert store.calls == ["create", "delete"]
    assert len(store.inner) == 0


def test_what_is_written_after_that_is_another_session(store: Coroutines, moment: Moment) -> None:
    session = stored(store, {"user": "ada"})
    old = id_of(session)
    change(session)

    def leave_with_a_word() -> None:
        session.destroy()
        session["flash"] = "bye"

    async def main() -> None:
        await meanwhile(store, store.stop("save", moment), session.asave(), leave_with_a_word)
        assert session == {"flash": "bye"}
        await session.asave()

    run(main())
    assert session.id != old
    assert len(store.inner) == 1
    assert loaded(store.inner, id_of(session)).data == {"flash": "bye"}


def test_a_session_destroyed_while_it_is_read_anew_stays_empty(
    store: Coroutines, moment: Moment
) -> None:
    session = stored(store, {"user": "ada"})

    async def main() -> None:
        await meanwhile(store, store.stop("load", moment), session.areload(), session.destroy)
        assert (session, session.is_new, session.gone) == ({}, True, False)
        await session.asave()

    run(main())
    assert store.calls == ["load", "delete"]
    assert len(store.inner) == 0


@pytest.mark.parametrize("verb", ["save", "load"])
def test_that_it_is_gone_is_no_news_to_who_destroyed_it(store: Coroutines, verb: str) -> None:
    session = stored(store, {"user": "ada"})
    change(session)

    def both_leave() -> None:
        store.inner.delete(id_of(session))
        session.destroy()
        session["flash"] = "bye"

    async def main() -> None:
        work = session.asave() if verb == "save" else session.areload()
        await meanwhile(store, store.stop(verb), work, both_leave)

    run(main())
    assert not session.gone
    assert session.destroyed
    assert (session, session.is_new) == ({"flash": "bye"}, True)
    assert "create" not in store.calls


def test_a_failure_of_the_call_is_raised_all_the_same_and_brings_nothing_back(
    store: Coroutines,
) -> None:
    session = stored(store, {"user": "ada"})
    session.regenerate()
    session.idle_timeout = 60

    async def main() -> None:
        stop = store.stop("regenerate", error=StoreUnavailable("the disk fails"))
        with pytest.raises(StoreUnavailable):
            await meanwhile(store, stop, session.asave(), session.destroy)
        await session.asave()
        assert store.calls == ["regenerate", "delete"]
        session["flash"] = "bye"
        await session.asave()

    run(main())
    record = loaded(store.inner, id_of(session))
    assert (record.data, record.idle_timeout) == ({"flash": "bye"}, 1800)


# -- two tasks that save --------------------------------------------------------------------------


async def both_save(session: Session) -> None:
    await asyncio.gather(session.asave(), session.asave())


def test_two_tasks_that_save_a_regenerated_session_give_it_one_new_id(
    store: Coroutines, moment: Moment
) -> None:
    session = stored(store, {"n": 1})
    session.regenerate()
    session["user"] = "ada"

    async def main() -> None:
        await meanwhile(store, store.stop("regenerate", moment), both_save(session), lambda: None)

    run(main())
    assert store.calls == ["regenerate", "touch"]
    assert len(store.inner) == 1
    assert loaded(store.inner, id_of(session)).data == {"n": 1, "user": "ada"}
    assert (session.announce, session.gone) == (True, False)


@pytest.mark.parametrize("ended", [False, True], ids=["new", "after a destroy"])
def test_two_tasks_that_save_a_new_session_store_one(
    store: Coroutines, moment: Moment, *, ended: bool
) -> None:
    session = stored(store, {"n": 1}) if ended else a_session(store)
    if ended:
        session.destroy()
    session["flash"] = "bye"

    async def main() -> None:
        await meanwhile(store, store.stop("create", moment), both_save(session), lambda: None)

    run(main())
    assert store.calls.count("create") == 1
    assert len(store.inner) == 1
    assert loaded(store.inner, id_of(session)).data == {"flash": "bye"}


def test_a_session_has_no_conflict_with_itself(store: Coroutines, moment: Moment) -> None:
    session = stored(store, {"a": 1}, conflict="error")
    session["b"] = 2
    tasks: list[asyncio.Task[None]] = []

    def save_more() -> None:
        session["c"] = 3
        tasks.append(asyncio.create_task(session.asave()))

    async def main() -> None:
        await meanwhile(store, store.stop("save", moment), session.asave(), save_more)
        await asyncio.gather(*tasks)

    run(main())
    assert loaded(store.inner, id_of(session)).data == {"a": 1, "b": 2, "c": 3} == session


def test_while_one_task_makes_its_calls_another_makes_none(store: Coroutines) -> None:
    session = stored(store, {"n": 1})
    session["n"] = 2

    async def main() -> None:
        stop = store.stop("save")
        saving = asyncio.create_task(session.asave())
        await stop.reached.wait()
        reading = asyncio.create_task(session.areload())
        await others_run()
        assert store.calls == ["save"]
        stop.go.set()
        await asyncio.gather(saving, reading)

    run(main())
    assert store.calls == ["save", "load"]


def test_two_requests_do_not_wait_for_each_other(store: Coroutines) -> None:
    one, two = stored(store, {"n": 1}), stored(store, {"n": 1})
    one["n"] = two["n"] = 2

    async def main() -> None:
        stop = store.stop("save")
        saving = asyncio.create_task(one.asave())
        await stop.reached.wait()
        await two.asave()
        stop.go.set()
        await saving

    run(main())
    assert [len(store.inner), store.calls] == [2, ["save", "save"]]


# -- tasks and the lock ---------------------------------------------------------------------------


def started_outside(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that inherits no lock."""
    return asyncio.create_task(work, context=contextvars.Context())


@pytest.mark.parametrize("nested", [False, True], ids=["", "inside another session's lock too"])
def test_who_holds_the_lock_does_not_wait_for_one_who_waits_for_it(*, nested: bool) -> None:
    memory = MemoryStore(clock=ManualClock())
    session, other = stored(memory, {"n": 1}), stored(memory, {"n": 1})
    order: list[str] = []

    async def waiting() -> None:
        session["theirs"] = 1
        await session.asave()
        order.append("waited")

    async def save_inside() -> None:
        task = started_outside(waiting())
        await others_run()
        session["ours"] = 1
        await session.asave()
        order.append("saved inside")
        assert not task.done()
        tasks.append(task)

    async def main() -> None:
        async with session.alock():
            if nested:
                async with other.alock():
                    await save_inside()
            else:
                await save_inside()
        await asyncio.gather(*tasks)

    tasks: list[asyncio.Task[None]] = []
    run(main())
    assert order == ["saved inside", "waited"]
    assert loaded(memory, id_of(session)).data == {"n": 1, "theirs": 1, "ours": 1}


INSIDE: Final[dict[str, Callable[[Session], object]]] = {
    "saved": lambda session: session.update(ours=1),
    "regenerated": Session.regenerate,
}


@pytest.mark.parametrize("conflict", ["merge", "error"])
@pytest.mark.parametrize("act", INSIDE.values(), ids=INSIDE)
@pytest.mark.parametrize("wanted", [None, Session.regenerate], ids=["a save", "a regenerate"])
def test_who_waits_for_the_lock_goes_on_from_what_was_written_inside(
    conflict: str, act: Callable[[Session], object], wanted: Callable[[Session], object] | None
) -> None:
    memory = MemoryStore(clock=ManualClock())
    session = stored(memory, {"n": 1}, conflict=conflict)
    old = session.id

    async def waiting() -> None:
        session["theirs"] = 1
        if wanted is not None:
            wanted(session)
        await session.asave()

    async def main() -> None:
        async with session.alock():
            task = started_outside(waiting())
            await others_run()
            act(session)
            await session.asave()
        await task

    run(main())
    moved = wanted is not None or act is Session.regenerate
    assert (session.gone, session.announce, session.id != old) == (False, moved, moved)
    assert len(memory) == 1
    assert loaded(memory, id_of(session)).data == session
    assert session["theirs"] == 1


def test_that_it_was_deleted_meanwhile_is_told_to_who_waits_for_the_lock_too() -> None:
    memory = MemoryStore(clock=ManualClock())
    session = stored(memory, {"n": 1})

    async def waiting() -> None:
        session["theirs"] = 1
        await session.asave()

    async def main() -> None:
        async with session.alock():
            task = started_outside(waiting())
            await others_run()
            session["ours"] = 1
            await session.asave()
            memory.delete(id_of(session))
        with pytest.raises(SessionGone):
            await task

    run(main())
    assert session.gone
    assert len(memory) == 0


def test_tasks_inside_the_lock_take_turns_too(store: Coroutines, moment: Moment) -> None:
    session = stored(store, {"n": 1})

    async def main() -> None:
        async with session.alock():
            session.regenerate()
            session["user"] = "ada"
            stop = store.stop("regenerate", moment)
            await meanwhile(store, stop, both_save(session), lambda: None)

    run(main())
    assert store.calls == ["regenerate", "touch"]
    assert loaded(store.inner, id_of(session)).data == {"n": 1, "user": "ada"}
    assert not session.gone


@pytest.mark.parametrize("who", ["the holder", "a task it started inside"])
def test_after_the_lock_they_take_turns_as_before(store: Coroutines, who: str) -> None:
    session = stored(store, {"n": 1})

    async def main() -> None:
        left = asyncio.Event()

        async def read() -> None:
            await left.wait()
            await session.areload()

        async with session.alock():
            inside = asyncio.create_task(read())
            await others_run()
        session["n"] = 2
        stop = store.stop("save")
        saving = started_outside(session.asave())
        await stop.reached.wait()
        reading = inside if who != "the holder" else asyncio.create_task(session.areload())
        if who == "the holder":
            inside.cancel()
        left.set()
        await others_run()
        assert store.calls == ["save"]
        stop.go.set()
        await asyncio.gather(saving, reading)

    run(main())
    assert store.calls == ["save", "load"]


def test_who_waits_inside_for_a_turn_when_the_lock_ends_waits_with_all_others(
    store: Coroutines,
) -> None:
    session = stored(store, {"n": 1})

    async def main() -> None:
        stop, inside = store.stop("save"), []

        async def fail_inside() -> None:
            async with session.alock():
                session["n"] = 2
                inside.append(asyncio.create_task(session.asave()))
                await stop.reached.wait()
                inside.append(asyncio.create_task(session.areload()))
                await others_run()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail_inside()
        touch = store.stop("touch")
        touching = started_outside(session.asave())
        await touch.reached.wait()
        stop.go.set()
        await others_run()
        assert store.calls == ["save", "touch"]
        touch.go.set()
        await asyncio.gather(touching, *inside)

    run(main())
    assert store.calls == ["save", "touch", "load"]


async def count_up(session: Session) -> None:
    async with session.alock(timeout=PATIENCE):
        n = session["n"]
        await others_run()
        session["n"] = n + 1


@pytest.mark.parametrize("offload", [None, True])
@pytest.mark.parametrize("nested", [False, True], ids=["", "started inside the lock"])
def test_tasks_that_lock_their_session_count_exactly(*, offload: bool | None, nested: bool) -> None:
    memory = MemoryStore(clock=ManualClock())
    session = stored(memory, {"n": 0}, offload=offload)

    async def all_count() -> None:
        await asyncio.gather(*(count_up(session) for _ in range(5)))

    async def main() -> None:
        if not nested:
            await all_count()
            return
        async with session.alock():
            session["n"] = 10
            await all_count()

    run(main())
    assert loaded(memory, id_of(session)).data == {"n": 15 if nested else 5}


def test_a_task_that_locks_inside_and_stays_longer_keeps_other_requests_out() -> None:
    memory = MemoryStore(clock=ManualClock())
    session = stored(memory, {"n": 0})
    other = a_session(memory, id_of(session))

    async def main() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def stay() -> None:
            async with session.alock():
                n = session["n"]
                entered.set()
                await leave.wait()
                session["n"] = n + 1

        async with session.alock():
            staying = asyncio.create_task(stay())
            await entered.wait()
        counting = started_outside(count_up(other))
        await others_run()
        assert not counting.done()
        leave.set()
        await asyncio.gather(staying, counting)

    run(main())
    assert loaded(memory, id_of(session)).data == {"n": 2}


# -- a task that is cut short ---------------------------------------------------------------------


class Threads(MemoryStore):
    """A store whose calls wait in their thread until they are let through.

    Attributes:
        stopped: the verb to stop, until it is told otherwise.
        reached, go: a call is there, and may go on.
        error: what the call raises then.
        calls: the verbs, in order.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stopped: str | None = None
        self.reached, self.go = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.calls: list[str] = []

    def without_waiting(self) -> Threads:
        """No copy, which would be stopped by itself."""
        return self

    def _pass(self, verb: str) -> None:
        self.calls.append(verb)
        if verb == self.stopped:
            self.reached.set()
            assert self.go.wait(PATIENCE)
            self.stopped, error, self.error = None, self.error, None
            if error is not None:
                raise error

    def create(self, data: Any = None, **keywords: Any) -> SessionRecord:
        self._pass("create")
        return super().create(data, **keywords)

    def save(self, sid: str, data: Any, **keywords: Any) -> SessionRecord:
        self._pass("save")
        return super().save(sid, data, **keywords)

    def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:
        self._pass("touch")
        return super().touch(sid, base=base)

    def delete(self, sid: str) -> bool:
        self._pass("delete")
        return super().delete(sid)

    def regenerate(self, sid: str, data: Any = None, **keywords: Any) -> SessionRecord:
        self._pass("regenerate")
        return super().regenerate(sid, data, **keywords)


class FiveVerbs:
    """Such a store of a user's own, which cannot regenerate by itself."""

    def __init__(self) -> None:
        self.inner = Threads()
        self.codec = self.inner.codec
        self.load, self.create, self.save = self.inner.load, self.inner.create, self.inner.save
        self.touch, self.delete = self.inner.touch, self.inner.delete


async def cut_short(
    store: Threads, verb: str, session: Session, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """A save with a time limit, which ends while a thread makes that call."""
    store.stopped = verb

    async def end(limit: asyncio.Timeout) -> None:
        assert await asyncio.to_thread(store.reached.wait, PATIENCE)
        limit.reschedule(asyncio.get_running_loop().time())
        await others_run()
        meanwhile()
        store.go.set()

    async def save_in_time() -> None:
        async with asyncio.timeout(None) as limit:
            tasks.append(asyncio.create_task(end(limit)))
            await session.asave()

    tasks: list[asyncio.Task[None]] = []
    with pytest.raises(TimeoutError):
        await save_in_time()
    await asyncio.gather(*tasks)


@pytest.fixture
def threads() -> Threads:
    return Threads(clock=ManualClock())


@pytest.mark.parametrize("new", [True, False], ids=["new", "regenerated"])
def test_a_session_learns_its_new_id_though_its_save_was_cut_short(
    threads: Threads, *, new: bool
) -> None:
    session = a_session(threads, offload=True) if new else stored(threads, {"n": 1}, offload=True)
    old = session.id
    threads.calls.clear()
    session["user"] = "ada"
    if not new:
        session.regenerate()
    verb = "create" if new else "regenerate"

    async def main() -> None:
        await cut_short(threads, verb, session)
        assert (session.is_new, session.announce, session.modified) == (False, True, False)
        await session.asave()

    run(main())
    assert threads.calls == [verb, "touch"]
    assert (session.id == old) == new
    assert len(threads) == 1
    assert loaded(threads, id_of(session)).data == session


def test_so_it_does_under_a_durable_file_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "sessions", durable=True)
    session = stored(store, {"n": 1})
    old = id_of(session)
    session.regenerate()
    syncing, go = threading.Event(), threading.Event()
    sync = os.fdatasync

    def slow(descriptor: int) -> None:
        syncing.set()
        assert go.wait(PATIENCE)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)

    async def main() -> None:
        saving = asyncio.create_task(session.asave())
        assert await asyncio.to_thread(syncing.wait, PATIENCE)
        saving.cancel()
        await others_run()
        assert not saving.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await saving

    run(main())
    assert session.id != old
    assert session.announce
    assert store.load(old) is None
    assert loaded(store, id_of(session)).data == {"n": 1}


@pytest.mark.parametrize("verb", ["save", "create", "delete"])
def test_a_regenerate_made_of_parts_comes_to_its_end_whichever_part_is_cut_short(verb: str) -> None:
    store = FiveVerbs()
    session = stored(store, {"n": 1}, offload=True)
    old = id_of(session)
    session.regenerate()
    run(cut_short(store.inner, verb, session))
    assert session.id != old
    assert session.announce
    assert len(store.inner) == 1
    assert loaded(store.inner, id_of(session)).data == {"n": 1}


def test_what_was_saved_while_it_was_cut_short_is_saved_and_no_conflict(threads: Threads) -> None:
    session = stored(threads, {"n": 1}, offload=True, conflict="error")
    session["n"] = 2

    async def main() -> None:
        await cut_short(threads, "save", session)
        assert not session.modified
        session["n"] = 3
        await session.asave()

    run(main())
    assert loaded(threads, id_of(session)).data == {"n": 3}


def test_what_a_save_that_was_cut_short_failed_with_is_logged_and_all_waits_for_the_next(
    threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    session = stored(threads, {"n": 1}, offload=True)
    old = id_of(session)
    session["user"] = "ada"
    session.regenerate()
    threads.error = StoreUnavailable("the disk fails")

    async def main() -> None:
        await cut_short(threads, "regenerate", session)
        assert (session.id, session.announce) == (old, False)
        await session.asave()

    run(main())
    (said,) = caplog.records
    assert said.levelno == logging.ERROR
    assert said.getMessage() == ("a store call, whose task was cancelled, failed: the disk fails")
    assert threads.calls == ["create", "regenerate", "regenerate"]
    assert session.id != old
    assert loaded(threads, id_of(session)).data == {"n": 1, "user": "ada"}


def test_that_a_session_is_gone_it_learns_too(threads: Threads) -> None:
    session = stored(threads, {"n": 1}, offload=True)
    session["n"] = 2
    run(cut_short(threads, "save", session, lambda: threads.evict(handle(session))))
    assert session.gone
    assert len(threads) == 0


def handle(session: Session) -> str:
    found = handle_of(id_of(session))
    assert found is not None
    return found


def test_a_session_destroyed_while_its_save_was_cut_short_is_deleted_at_the_next(
    threads: Threads,
) -> None:
    session = stored(threads, {"n": 1}, offload=True)
    session["n"] = 2

    async def main() -> None:
        await cut_short(threads, "save", session, session.destroy)
        assert len(threads) == 1
        await session.asave()

    run(main())
    assert len(threads) == 0
    assert session == {}


def test_an_id_that_is_taken_is_asked_for_again_at_the_next_save(threads: Threads) -> None:
    threads.create({"whose": "another's"}, sid="taken")
    ids = iter(["taken", "given up", "free"])
    session = a_session(threads, offload=True, genid=lambda: next(ids))
    session["n"] = 1
    session.idle_timeout = 60
    threads.calls.clear()

    async def main() -> None:
        await cut_short(threads, "create", session)
        assert session.is_new
        await session.asave()

    run(main())
    assert threads.calls == ["create", "create"]
    record = loaded(threads, "free")
    assert (record.data, record.idle_timeout) == ({"n": 1}, 60)
    assert loaded(threads, "taken").data == {"whose": "another's"}


def test_the_cancellation_that_gets_out_is_a_plain_one_with_its_message(threads: Threads) -> None:
    session = stored(threads, {"n": 1}, offload=True)
    session["n"] = 2
    threads.stopped = "save"

    async def main() -> None:
        saving = asyncio.create_task(session.asave())
        assert await asyncio.to_thread(threads.reached.wait, PATIENCE)
        saving.cancel("the client is gone")
        await others_run()
        threads.go.set()
        with pytest.raises(asyncio.CancelledError) as raised:
            await saving
        assert type(raised.value) is asyncio.CancelledError
        assert raised.value.args == ("the client is gone",)

    run(main())


def test_what_a_save_in_coroutines_was_to_do_waits_for_the_next_when_it_is_cut_short(
    store: Coroutines,
) -> None:
    session = stored(store, {"n": 1})
    session["n"] = 2
    session.idle_timeout = 60

    async def main() -> None:
        stop = store.stop("save")
        saving = asyncio.create_task(session.asave())
        await stop.reached.wait()
        saving.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await saving
        assert raised.value.__traceback__ is not None  # which keeps the frames of the save
        assert session.idle_timeout == 60
        await session.asave()

    run(main())
    record = loaded(store.inner, id_of(session))
    assert (record.data, record.idle_timeout) == ({"n": 2}, 60)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_in_coroutines_too_a_new_id_is_heard_of_though_the_save_is_cut_short(
    store: Coroutines, moment: Moment
) -> None:
    session = stored(store, {"n": 1})
    old = id_of(session)
    session.regenerate()

    async def main() -> None:
        stop = store.stop("regenerate", moment)
        saving = asyncio.create_task(session.asave())
        await stop.reached.wait()
        saving.cancel()
        await others_run()
        stop.go.set()
        with pytest.raises(asyncio.CancelledError) as raised:
            await saving
        assert type(raised.value) is asyncio.CancelledError

    run(main())
    assert session.id != old
    assert session.announce
    assert store.calls.count("regenerate") == 1
    assert loaded(store.inner, id_of(session)).data == {"n": 1}


def test_one_that_reads_it_anew_does_not_end_what_another_saves(store: Coroutines) -> None:
    session = stored(store, {"n": 1})

    async def saver() -> None:
        session["cart"] = ["tea"]
        await session.asave()

    async def main() -> None:
        stop = store.stop("save", "after")
        saving = asyncio.create_task(saver())
        await stop.reached.wait()
        await LoopRunner(store, offload=None).arun(session._reloading())  # as inside a lock
        session["late"] = True
        stop.go.set()
        await saving
        await session.asave()

    run(main())
    assert "delete" not in store.calls
    assert session == {"n": 1, "cart": ["tea"], "late": True}
    assert loaded(store.inner, id_of(session)).data == session


def test_a_touch_that_finds_the_session_on_its_way_to_a_new_id_is_no_end(
    store: Coroutines,
) -> None:
    session = stored(store, {"n": 1})
    old = id_of(session)

    async def main() -> None:
        session.regenerate()
        stop = store.stop("regenerate", "after")
        moving = asyncio.create_task(session.asave())
        await stop.reached.wait()
        runner = LoopRunner(store, offload=None)
        await runner.arun(session.commit(explicit=True))  # as a task outside the lock does
        stop.go.set()
        await moving

    run(main())
    assert not session.gone
    assert session.announce
    assert session.id != old


def test_the_id_of_a_new_session_is_the_same_while_it_is_made(store: Coroutines) -> None:
    session = a_session(store)
    session["n"] = 1
    sid = session.id

    async def main() -> None:
        stop = store.stop("create")
        saving = asyncio.create_task(session.asave())
        await stop.reached.wait()
        assert session.id == sid
        stop.go.set()
        await saving

    run(main())
    assert session.id == sid


def test_so_it_does_when_a_blocking_save_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStore(clock=ManualClock())
    sid = memory.create({"n": 1}).id
    session = Session(
        Visit(BlockingRunner(memory), CookiePolicy(), memory.codec), loaded(memory, sid)
    )
    session.regenerate()

    def broken_off(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(memory, "regenerate", broken_off)
        with pytest.raises(KeyboardInterrupt) as raised:
            session.save()
    assert raised.value.__traceback__ is not None  # which keeps the frames of the save
    session.save()
    assert session.id != sid
