"""Store calls made in the caller's thread, or on an event loop that never waits for them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import pytest

from filesession.calls import Steps, StoreCall
from filesession.codec import JSONCodec
from filesession.cookies.policy import CookiePolicy
from filesession.errors import (
    ConfigurationError,
    LockTimeout,
    SessionExists,
    SessionGone,
    StoreUnavailable,
)
from filesession.record import SessionRecord
from filesession.runner import BlockingRunner, LoopRunner, RequestRunner, is_async
from filesession.session import Session
from filesession.stores import FileStore, MemoryStore
from filesession.testing import ManualClock
from filesession.testing.base import PATIENCE, in_thread, loaded
from filesession.visit import Visit

T = TypeVar("T")

Offload: TypeAlias = bool | None

PLACE: Final = contextvars.ContextVar("place", default="nowhere")


def steps(*calls: StoreCall) -> Steps[list[Any]]:
    """These calls, one after the other; their results."""
    results = []
    for call in calls:
        result = yield call
        results.append(result)
    return results


def save(sid: str, data: dict[str, Any], **keywords: Any) -> Steps[list[Any]]:
    return steps(StoreCall("save", (sid, data), keywords))


def regenerate(sid: str, data: dict[str, Any], **keywords: Any) -> StoreCall:
    return StoreCall("regenerate", (sid, data), {"new_sid": None, **keywords})


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it on an event loop, for so long as a test may take."""

    async def patiently() -> T:
        return await asyncio.wait_for(main, PATIENCE)

    return asyncio.run(patiently())


def problems_of(main: Coroutine[Any, Any, None]) -> list[object]:
    """Run it; the errors that nobody took and the event loop would have logged."""
    problems: list[object] = []

    async def listening() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context.get("exception")))
        await main

    run(listening())
    gc.collect()
    return problems


async def others_run() -> None:
    """Give every other task its turn, several times over."""
    for _ in range(20):
        await asyncio.sleep(0)


async def free(store: Any, sid: str) -> None:
    """Wait until another can have the lock."""
    while True:
        try:
            in_thread(lambda: _taken_and_left(store, sid))
        except LockTimeout:
            await asyncio.sleep(0)
        else:
            return


def _taken_and_left(store: Any, sid: str) -> None:
    with store.lock(sid, timeout=0):
        pass


def assert_locked(store: Any, sid: str) -> None:
    with pytest.raises(LockTimeout):
        in_thread(lambda: _taken_and_left(store, sid))


class FiveVerbs:
    """A store of a user's own, with the verbs it needs and no others.

    Attributes:
        calls: the verbs asked of it, in order, and the thread each was called in.
        gate: closed, no save comes to its end.
        saving: a save has begun.
    """

    def __init__(self, clock: ManualClock | None = None, **options: Any) -> None:
        self.inner = MemoryStore(clock=clock or ManualClock(), **options)
        self.calls: list[tuple[str, int]] = []
        self.gate, self.saving = threading.Event(), threading.Event()
        self.gate.set()

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.calls]

    @property
    def threads(self) -> set[int]:
        return {thread for _, thread in self.calls}

    def _note(self, verb: str) -> None:
        self.calls.append((verb, threading.get_ident()))

    def load(self, sid: str) -> SessionRecord | None:
        self._note("load")
        return self.inner.load(sid)

    def create(self, data: Any = None, **keywords: Any) -> SessionRecord:
        self._note("create")
        return self.inner.create(data, **keywords)

    def save(self, sid: str, data: Any, **keywords: Any) -> SessionRecord:
        self._note("save")
        self.saving.set()
        assert self.gate.wait(PATIENCE)
        return self.inner.save(sid, data, **keywords)

    def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:
        self._note("touch")
        return self.inner.touch(sid, base=base)

    def delete(self, sid: str) -> bool:
        self._note("delete")
        return self.inner.delete(sid)


class PlainLocks(FiveVerbs):
    """With a lock that is no more than a context manager; it knows its holder by a variable.

    Attributes:
        opening: closed, no lock that was taken is handed out.
        taking: a lock was taken.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.mutex = threading.Lock()
        self.opening, self.taking = threading.Event(), threading.Event()
        self.opening.set()

    @contextmanager
    def lock(self, sid: str, *, timeout: float = 10) -> Iterator[SessionRecord]:
        """The store's only lock."""
        if not self.mutex.acquire(timeout=timeout):
            message = "it is locked"
            raise LockTimeout(message)
        try:
            self.taking.set()
            assert self.opening.wait(PATIENCE)
            PLACE.set("inside")
            yield loaded(self.inner, sid)
        finally:
            PLACE.set("outside")
            self.mutex.release()


class Quick(PlainLocks):
    """Which can also do its work without waiting."""

    def without_waiting(self) -> Quick:
        return self


class Coroutines:
    """An asynchronous store with the verbs it needs and no others."""

    def __init__(self, clock: ManualClock | None = None, **options: Any) -> None:
        self.inner = FiveVerbs(clock, **options)

    async def load(self, sid: str) -> SessionRecord | None:
        await asyncio.sleep(0)
        return self.inner.load(sid)

    async def create(self, data: Any = None, **keywords: Any) -> SessionRecord:
        return self.inner.create(data, **keywords)

    async def save(self, sid: str, data: Any, **keywords: Any) -> SessionRecord:
        return self.inner.save(sid, data, **keywords)

    async def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:
        return self.inner.touch(sid, base=base)

    async def delete(self, sid: str) -> bool:
        return self.inner.delete(sid)


class AllCoroutines(Coroutines):
    """With all there is."""

    async def regenerate(self, sid: str, data: Any = None, **keywords: Any) -> SessionRecord:
        return self.inner.inner.regenerate(sid, data, **keywords)

    @asynccontextmanager
    async def lock(self, sid: str, *, timeout: float = 10) -> AsyncIterator[SessionRecord]:  # noqa: ASYNC109
        with self.inner.inner.lock(sid, timeout=timeout) as record:
            yield record


class Gated(MemoryStore):
    """A memory store whose locks and saves can be stopped on their way.

    Attributes:
        opening: closed, no lock that was taken is handed out.
        taking: a lock was taken.
        gate, saving: the same for a save.
        threads: where verbs were called.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.opening, self.taking = threading.Event(), threading.Event()
        self.gate, self.saving = threading.Event(), threading.Event()
        self.opening.set()
        self.gate.set()
        self.threads: set[int] = set()

    def _opened(self, *arguments: Any) -> SessionRecord:
        self.threads.add(threading.get_ident())
        self.taking.set()
        assert self.opening.wait(PATIENCE)
        return super()._opened(*arguments)

    def save(self, sid: str, data: Any, **keywords: Any) -> SessionRecord:
        self.threads.add(threading.get_ident())
        self.saving.set()
        assert self.gate.wait(PATIENCE)
        return super().save(sid, data, **keywords)


class Disk(FileStore):
    """A file store that notes where each call was made, and whether another could have the lock."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self.calls: list[tuple[str, int, bool]] = []

    def _note(self, verb: str, sid: str) -> None:
        locked = False
        if self._may_wait:
            try:
                in_thread(lambda: _taken_and_left(self, sid))
            except LockTimeout:
                locked = True
            except SessionGone:
                pass
            self.calls.append((verb, threading.get_ident(), locked))

    def create(self, data: Any = None, **keywords: Any) -> SessionRecord:
        self._note("create", "none yet")
        return super().create(data, **keywords)

    def save(self, sid: str, data: Any, **keywords: Any) -> SessionRecord:
        self._note("save", sid)
        return super().save(sid, data, **keywords)

    def delete(self, sid: str) -> bool:
        self._note("delete", sid)
        return super().delete(sid)

    def regenerate(self, sid: str, data: Any = None, **keywords: Any) -> SessionRecord:
        self._note("regenerate", sid)
        return super().regenerate(sid, data, **keywords)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "file", "plain locks", "quick"])
def locking(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A store that can lock a session."""
    kinds: dict[str, Callable[[], Any]] = {
        "memory": MemoryStore,
        "file": lambda: FileStore(tmp_path / "sessions"),
        "plain locks": PlainLocks,
        "quick": Quick,
    }
    return kinds[request.param]()


@pytest.fixture(params=[None, True, False], ids=lambda offload: f"offload={offload}")
def offload(request: pytest.FixtureRequest) -> Offload:
    """Whether calls are made in threads."""
    offload: Offload = request.param
    return offload


# -- steps, under every runner --------------------------------------------------------------------

RUNS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "blocking": lambda store, steps: BlockingRunner(store).run(steps),
    "blocking in a coroutine": lambda store, steps: run(BlockingRunner(store).arun(steps)),
    "loop": lambda store, steps: run(LoopRunner(store, offload=None).arun(steps)),
    "loop, in threads": lambda store, steps: run(LoopRunner(store, offload=True).arun(steps)),
    "loop, from a thread": lambda store, steps: LoopRunner(store, offload=None).run(steps),
}


@pytest.fixture(params=RUNS)
def make(request: pytest.FixtureRequest) -> Callable[[Any, Any], Any]:
    """Makes the calls of some steps."""
    return RUNS[request.param]


@pytest.fixture(params=[MemoryStore, FiveVerbs])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Any:
    return request.param(clock=clock)


def test_calls_are_made_in_order_and_their_results_sent_back(
    make: Callable[[Any, Any], Any], store: Any
) -> None:
    sid = store.create({"n": 1}).id
    found, saved, touched, deleted, missing = make(
        store,
        steps(
            StoreCall("load", (sid,)),
            StoreCall("save", (sid, {"n": 2}), {"conflict": "overwrite"}),
            StoreCall("touch", (sid,)),
            StoreCall("delete", (sid,)),
            StoreCall("load", (sid,)),
        ),
    )
    assert (found.data, saved.data, touched, deleted, missing) == (
        *({"n": 1}, {"n": 2}, True, True),
        None,
    )


def test_steps_without_a_call_are_done_at_once(make: Callable[[Any, Any], Any], store: Any) -> None:
    assert make(store, steps()) == []


def test_an_error_is_the_steps_to_handle(make: Callable[[Any, Any], Any], store: Any) -> None:
    def handling() -> Steps[str]:
        try:
            yield StoreCall("save", ("unknown", {}))
        except SessionGone:
            record = yield StoreCall("create", ({"n": 1},))
        return str(record.data)

    assert make(store, handling()) == "{'n': 1}"


def test_an_error_they_do_not_handle_is_raised(make: Callable[[Any, Any], Any], store: Any) -> None:
    with pytest.raises(SessionGone):
        make(store, save("unknown", {}))

    def handling() -> Steps[None]:
        try:
            yield StoreCall("save", ("unknown", {}))
        except SessionGone:
            return

    assert make(store, handling()) is None


# -- where calls are made -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "offload", "on_the_loop"),
    [
        (Quick, None, True),
        (Quick, True, False),
        (Quick, False, True),
        (FiveVerbs, None, False),
        (FiveVerbs, True, False),
        (FiveVerbs, False, True),
    ],
)
def test_calls_that_could_wait_are_made_in_a_thread_unless_it_is_told_otherwise(
    kind: type[FiveVerbs],
    offload: Offload,
    on_the_loop: bool,  # noqa: FBT001 - a row of the table
) -> None:
    store = kind()
    sid = store.inner.create({}).id
    calls = [StoreCall("load", (sid,)), StoreCall("save", (sid, {})), StoreCall("touch", (sid,))]
    run(LoopRunner(store, offload=offload).arun(steps(*calls, StoreCall("delete", (sid,)))))
    assert store.verbs == ["load", "save", "touch", "delete"]
    assert (threading.get_ident() in store.threads) == on_the_loop
    assert len(store.threads) == 1 or not on_the_loop


@pytest.mark.parametrize("runner", [BlockingRunner, lambda store: LoopRunner(store, offload=True)])
def test_blocking_calls_are_made_in_the_callers_thread(runner: Callable[..., Any]) -> None:
    store = FiveVerbs()
    runner(store).run(steps(StoreCall("load", ("unknown",))))
    assert store.threads == {threading.get_ident()}


@pytest.mark.parametrize("durable", [False, True])
def test_on_a_loop_what_waits_for_the_disk_goes_to_a_thread_with_the_lock_in_hand(
    tmp_path: Path, *, durable: bool
) -> None:
    store = Disk(tmp_path / "sessions", durable=durable, shard_depth=0)
    store.create({})  # which made the one directory there is
    store.calls.clear()
    runner = LoopRunner(store, offload=None)

    async def main() -> Any:
        (created,) = await runner.arun(steps(StoreCall("create", ({"n": 1},))))
        (saved,) = await runner.arun(save(created.id, {"n": 2}))
        call = regenerate(saved.id, {"n": 3}, base=saved)
        (record,) = await runner.arun(steps(call))
        assert loaded(store, record.id).data == {"n": 3}
        assert await runner.arun(steps(StoreCall("delete", (record.id,)))) == [True]
        return record

    run(main())
    assert threading.get_ident() not in {thread for _, thread, _ in store.calls}
    locked = {verb: locked for verb, _, locked in store.calls}
    if durable:
        assert locked == {"create": False, "save": True, "regenerate": True, "delete": True}
    else:
        assert locked == {"regenerate": True}


def test_without_threads_it_is_made_on_the_loop_with_the_lock_in_hand_too(tmp_path: Path) -> None:
    store = Disk(tmp_path / "sessions", durable=True)
    sid = store.create({}).id
    store.calls.clear()
    run(LoopRunner(store, offload=False).arun(save(sid, {"n": 1})))
    assert store.calls == [("save", threading.get_ident(), True)]
    assert loaded(store, sid).data == {"n": 1}


def test_a_call_that_waits_for_the_disk_says_itself_that_the_session_is_gone(
    tmp_path: Path,
) -> None:
    store = Disk(tmp_path / "sessions", durable=True)
    runner = LoopRunner(store, offload=None)
    with pytest.raises(SessionGone):
        run(runner.arun(save("unknown", {})))
    assert run(runner.arun(steps(StoreCall("delete", ("unknown",))))) == [False]


# -- context variables ----------------------------------------------------------------------------


class Speaking(FiveVerbs):
    """Which sees and sets a context variable."""

    def load(self, sid: str) -> SessionRecord | None:
        self.seen = PLACE.get()
        PLACE.set("the store")
        return super().load(sid)


def test_a_thread_has_the_tasks_context_variables_and_the_task_those_it_sets() -> None:
    store = Speaking()

    async def main() -> None:
        PLACE.set("the task")
        await LoopRunner(store, offload=True).arun(steps(StoreCall("load", ("unknown",))))
        assert store.seen == "the task"
        assert PLACE.get() == "the store"

    run(main())
    assert threading.get_ident() not in store.threads
    assert PLACE.get() == "nowhere"


def test_a_store_can_know_who_holds_its_lock_by_such_a_variable(offload: Offload) -> None:
    store = PlainLocks()
    sid = store.create({}).id

    async def main() -> list[str]:
        places = [PLACE.get()]
        async with LoopRunner(store, offload).alock(sid, 10):
            places.append(PLACE.get())
        return [*places, PLACE.get()]

    assert run(main()) == ["nowhere", "inside", "outside"]


# -- regenerating by parts ------------------------------------------------------------------------


def test_a_store_that_cannot_regenerate_makes_the_new_session_before_the_old_one_goes(
    make: Callable[[Any, Any], Any], clock: ManualClock
) -> None:
    store = FiveVerbs(clock=clock)
    base = store.create({"n": 1}, cookie={"max_age": 60}, idle_timeout=99)
    store.save(base.id, {"n": 1, "theirs": 1})
    store.calls.clear()
    call = regenerate(base.id, {"n": 1, "ours": 1}, base=base, conflict="merge")
    (record,) = make(store, steps(call))
    assert store.verbs == ["save", "create", "delete"]
    assert record.id != base.id
    assert record.data == {"n": 1, "theirs": 1, "ours": 1}
    assert (record.cookie, record.idle_timeout) == ({"max_age": 60}, 99)
    assert store.load(base.id) is None
    assert loaded(store, record.id) == record


def test_it_takes_the_id_the_timeout_and_the_cookie_it_is_given(
    make: Callable[[Any, Any], Any],
) -> None:
    store = FiveVerbs()
    sid = store.create({}, idle_timeout=99).id
    call = StoreCall(
        "regenerate",
        (sid, {"n": 1}),
        {"new_sid": "chosen", "base": None, "idle_timeout": math.inf, "cookie": {"max_age": 1}},
    )
    (record,) = make(store, steps(call))
    assert (record.id, record.idle_timeout, record.cookie) == ("chosen", None, {"max_age": 1})


def test_its_absolute_timeout_is_not_reset(
    make: Callable[[Any, Any], Any], clock: ManualClock
) -> None:
    store = FiveVerbs(clock=clock, absolute_timeout=3600, idle_timeout=None)
    sid = store.create({}).id
    end = clock() + 3600
    for _ in range(3):
        clock.advance(1000)
        (record,) = make(store, steps(regenerate(sid, {})))
        assert record.expires_at == pytest.approx(end, abs=1e-3)
        sid = record.id
    clock.advance(601)
    assert store.load(sid) is None


def test_at_its_last_moment_too(make: Callable[[Any, Any], Any]) -> None:
    clock = ManualClock(1_000_000.0)
    store = FiveVerbs(clock=clock, absolute_timeout=3600, idle_timeout=None)
    sid = store.create({}).id
    clock.advance(3600)
    (record,) = make(store, steps(regenerate(sid, {})))
    assert record.expires_at == clock()
    clock.advance(1)
    assert store.load(record.id) is None


def test_without_an_absolute_timeout_it_gets_none(
    make: Callable[[Any, Any], Any], clock: ManualClock
) -> None:
    store = FiveVerbs(clock=clock, absolute_timeout=3600)
    sid = store.create({}, absolute_timeout=math.inf).id
    (record,) = make(store, steps(regenerate(sid, {})))
    assert record.absolute_timeout is None


def test_when_the_new_id_is_taken_the_old_one_still_opens_it(
    make: Callable[[Any, Any], Any],
) -> None:
    store = FiveVerbs()
    sid = store.create({"n": 1}).id
    store.create({"whose": "another's"}, sid="taken")
    with pytest.raises(SessionExists):
        make(store, steps(regenerate(sid, {"n": 2}, new_sid="taken")))
    assert loaded(store, sid).data == {"n": 2}
    assert loaded(store, "taken").data == {"whose": "another's"}


class Meanwhile(FiveVerbs):
    """In which another acts before a verb is first carried out."""

    def __init__(self, verb: str, act: Callable[[MemoryStore], object]) -> None:
        super().__init__()
        self.inner.create({"n": 1}, sid="old")
        self._verb, self._act = verb, act

    def _note(self, verb: str) -> None:
        super()._note(verb)
        if self.verbs.count(self._verb) == 1 and verb == self._verb:
            self._act(self.inner)


OTHERS: Final[dict[str, Callable[[MemoryStore], object]]] = {
    "deleted": lambda store: store.delete("old"),
    "regenerated": lambda store: store.regenerate("old", new_sid="theirs"),
}


@pytest.mark.parametrize("act", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("verb", ["save", "create", "delete"])
def test_what_was_deleted_or_regenerated_meanwhile_is_gone_and_leaves_no_copy(
    make: Callable[[Any, Any], Any], verb: str, act: Callable[[MemoryStore], object]
) -> None:
    store = Meanwhile(verb, act)
    with pytest.raises(SessionGone):
        make(store, steps(regenerate("old", {"n": 2}, new_sid="new")))
    assert store.inner.load("old") is None
    assert store.inner.load("new") is None
    theirs = store.inner.load("theirs")
    assert len(store.inner) == (theirs is not None) == (act is OTHERS["regenerated"])


def test_what_is_gone_is_not_regenerated(make: Callable[[Any, Any], Any]) -> None:
    store = FiveVerbs()
    with pytest.raises(SessionGone):
        make(store, steps(regenerate("unknown", {})))
    assert store.verbs == ["save"]


def test_a_session_on_such_a_store_has_all_its_verbs_but_the_lock(clock: ManualClock) -> None:
    store = FiveVerbs(clock=clock)
    visit = Visit(BlockingRunner(store), CookiePolicy(), JSONCodec())
    session = Session(visit)
    session["n"] = 1
    session.save()
    first = session.id
    session.regenerate()
    session["n"] = 2
    session.save()
    assert session.id != first
    session["n"] = 3
    session.reload()
    assert session == {"n": 2}
    with pytest.raises(ConfigurationError, match="FiveVerbs has no lock"), session.lock():
        pytest.fail("inside")
    session.destroy()
    BlockingRunner(store).run(session.commit())
    assert len(store.inner) == 0


# -- an asynchronous store ------------------------------------------------------------------------


def test_a_store_of_coroutines_is_told_by_its_load() -> None:
    assert is_async(Coroutines())
    assert not is_async(FiveVerbs())
    assert not is_async(object())


def test_its_calls_are_awaited_and_what_it_lacks_is_made_of_parts() -> None:
    store = Coroutines()
    runner = LoopRunner(store, offload=None)

    async def main() -> None:
        (created,) = await runner.arun(steps(StoreCall("create", ({"n": 1},))))
        assert await runner.arun(steps(StoreCall("load", (created.id,)))) == [created]
        (moved,) = await runner.arun(steps(regenerate(created.id, {"n": 2}, base=created)))
        assert await store.load(created.id) is None
        assert await store.load(moved.id) == moved
        with pytest.raises(SessionGone):
            await runner.arun(save(created.id, {}))

    run(main())
    assert store.inner.threads == {threading.get_ident()}


def test_its_own_regenerate_and_lock_are_used() -> None:
    store = AllCoroutines()
    runner = LoopRunner(store, offload=None)

    async def main() -> None:
        sid = (await store.create({"n": 1})).id
        async with runner.alock(sid, timeout=10) as record:
            assert record.data == {"n": 1}
            assert_locked(store.inner.inner, sid)
            with pytest.raises(LockTimeout):
                await asyncio.create_task(_entered(runner, sid, 0), context=contextvars.Context())
        (moved,) = await runner.arun(steps(regenerate(sid, {"n": 2})))
        assert moved.id != sid
        assert store.inner.verbs == ["create"]

    run(main())


async def _entered(runner: LoopRunner, sid: str, timeout: float) -> None:  # noqa: ASYNC109
    async with runner.alock(sid, timeout):
        pass


def test_without_a_lock_of_its_own_it_has_none() -> None:
    with pytest.raises(ConfigurationError, match="Coroutines has no lock"):
        run(_entered(LoopRunner(Coroutines(), offload=None), "x", 10))


def test_its_blocking_verbs_say_what_to_await() -> None:
    runner = LoopRunner(Coroutines(), offload=None)
    with pytest.raises(ConfigurationError, match=r"await session\.asave\(\)"):
        runner.run(save("x", {}))
    with pytest.raises(ConfigurationError, match=r"alock\(\)"):
        runner.lock("x", 10)


# -- blocking verbs on an event loop --------------------------------------------------------------


def blocking_save(session: Session) -> None:
    session["n"] = 2
    session.save()


def blocking_lock(session: Session) -> None:
    with session.lock():
        pytest.fail("inside")


@pytest.mark.parametrize("act", [blocking_save, Session.reload, blocking_lock])
@pytest.mark.parametrize("kind", [RequestRunner, lambda runner: runner], ids=["request", "all"])
def test_on_the_event_loop_they_say_what_to_await(
    clock: ManualClock,
    offload: Offload,
    kind: Callable[[LoopRunner], Any],
    act: Callable[[Session], object],
) -> None:
    store = MemoryStore(clock=clock)
    record = store.create({"n": 1})
    runner = kind(LoopRunner(store, offload))
    session = Session(Visit(runner, CookiePolicy(), store.codec), record)
    said = r"^this would block the event loop: await session\.asave\(\), areload\(\) or alock\(\)$"

    async def on_the_loop() -> None:
        with pytest.raises(RuntimeError, match=said):
            act(session)

    async def in_a_thread() -> None:
        await asyncio.to_thread(session.save)

    run(on_the_loop())
    assert loaded(store, record.id) == record
    run(in_a_thread())
    assert loaded(store, record.id).data == session


def test_what_they_were_to_do_waits_for_the_verb_that_is_awaited(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock)
    session = Session(Visit(LoopRunner(store, offload=None), CookiePolicy(), store.codec))
    session["n"] = 1

    async def main() -> None:
        with pytest.raises(RuntimeError):
            session.save()
        await session.asave()

    run(main())
    assert len(store) == 1


# -- locks ----------------------------------------------------------------------------------------


def test_a_store_without_locks_is_a_configuration_error_that_names_it() -> None:
    store = FiveVerbs()
    with pytest.raises(ConfigurationError, match="FiveVerbs has no lock"):
        BlockingRunner(store).lock("x", 10)
    with pytest.raises(ConfigurationError, match="FiveVerbs has no lock"):
        LoopRunner(store, offload=None).lock("x", 10)
    with pytest.raises(ConfigurationError, match="FiveVerbs has no lock"):
        run(_entered(LoopRunner(store, offload=None), "x", 10))


@pytest.mark.parametrize("runner", [BlockingRunner, lambda store: LoopRunner(store, offload=None)])
def test_a_blocking_lock_is_the_stores(locking: Any, runner: Callable[..., Any]) -> None:
    sid = locking.create({"n": 1}).id
    lock: AbstractContextManager[SessionRecord] = runner(locking).lock(sid, 10)
    with lock as record:
        assert record.data == {"n": 1}
        assert_locked(locking, sid)
    _taken_and_left(locking, sid)


def test_a_lock_in_coroutines_is_the_stores(locking: Any, offload: Offload) -> None:
    sid = locking.create({"n": 1}).id

    async def main(runner: Any) -> None:
        async with runner.alock(sid, 10) as record:
            assert record.data == {"n": 1}
            assert_locked(locking, sid)
        _taken_and_left(locking, sid)
        with pytest.raises(ZeroDivisionError):
            await _failing_inside(runner, sid)
        _taken_and_left(locking, sid)

    run(main(LoopRunner(locking, offload)))
    run(main(BlockingRunner(locking)))


async def _failing_inside(runner: Any, sid: str) -> None:
    async with runner.alock(sid, 10):
        raise ZeroDivisionError


def test_there_is_no_lock_on_what_is_gone(tmp_path: Path, offload: Offload) -> None:
    for store in (MemoryStore(), FileStore(tmp_path / "sessions")):
        with pytest.raises(SessionGone):
            run(_entered(LoopRunner(store, offload), "unknown", 10))


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_lock_that_another_keeps_is_a_timeout_in_the_end(
    locking: Any, offload: Offload, timeout: float
) -> None:
    sid = locking.create({}).id
    with (
        held_by_another(locking, sid),
        pytest.raises(LockTimeout, match=f"^the session is locked.* {timeout} s$"),
    ):
        run(_entered(LoopRunner(locking, offload), sid, timeout))
    run(_entered(LoopRunner(locking, offload), sid, timeout))


@contextmanager
def held_by_another(store: Any, sid: str) -> Iterator[threading.Event]:
    """Another thread holds the lock until the event is set, or the block ends."""
    taken, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock(sid):
            taken.set()
            assert leave.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(hold)
        try:
            assert taken.wait(PATIENCE)
            yield leave
        finally:
            leave.set()
            holder.result(PATIENCE)


def test_while_another_holds_the_lock_the_loop_goes_on(locking: Any, offload: Offload) -> None:
    sid = locking.create({"n": 1}).id
    runner = LoopRunner(locking, offload)

    async def change() -> None:
        async with runner.alock(sid, PATIENCE) as record:
            await runner.arun(save(sid, {"n": record.data["n"] + 1}))

    async def main(leave: threading.Event) -> None:
        waiting = [asyncio.create_task(change()) for _ in range(3)]
        await others_run()
        assert not any(task.done() for task in waiting)
        leave.set()
        await asyncio.gather(*waiting)

    with held_by_another(locking, sid) as leave:
        run(main(leave))
    assert loaded(locking, sid).data == {"n": 4}


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_save_waits_for_anothers_lock_without_stopping_the_loop(
    tmp_path: Path, kind: str, offload: Offload
) -> None:
    store = MemoryStore() if kind == "memory" else FileStore(tmp_path / "sessions")
    sid = store.create({"n": 1}).id
    runner = LoopRunner(store, offload)
    calls = [
        StoreCall("save", (sid, {"n": 2})),
        regenerate(sid, {"n": 3}, new_sid="moved"),
        StoreCall("delete", ("moved",)),
    ]

    async def main() -> None:
        for call in calls:
            with held_by_another(store, call.arguments[0]) as leave:
                waiting = asyncio.create_task(runner.arun(steps(call)))
                await others_run()
                assert not waiting.done()
                leave.set()
                await waiting

    run(main())
    assert len(store) == 0


def test_who_waits_for_a_lock_takes_no_thread_from_who_holds_it(locking: Any) -> None:
    sid = locking.create({"n": 0}).id
    runner = LoopRunner(locking, offload=True)

    async def count() -> None:
        async with runner.alock(sid, PATIENCE) as record:
            await others_run()  # all others ask for the lock
            await runner.arun(save(sid, {"n": record.data["n"] + 1}))

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        await asyncio.gather(*(count() for _ in range(5)))

    run(main())
    assert loaded(locking, sid).data == {"n": 5}


# -- cancelled callers ----------------------------------------------------------------------------


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """It ends, and by the cancellation."""
    with pytest.raises(asyncio.CancelledError):
        await task


def test_who_is_cancelled_while_waiting_for_a_lock_has_it_never(
    locking: Any, offload: Offload
) -> None:
    sid = locking.create({}).id

    async def main() -> None:
        with held_by_another(locking, sid):
            task = asyncio.create_task(_entered(LoopRunner(locking, offload), sid, PATIENCE))
            await others_run()
            task.cancel()
            await _cancelled(task)
        await free(locking, sid)

    run(main())


@pytest.mark.parametrize("kind", [Gated, PlainLocks])
def test_a_lock_that_a_thread_gets_for_a_cancelled_task_is_given_back(kind: type[Any]) -> None:
    store = kind()
    sid = store.create({}).id

    async def main() -> None:
        store.opening.clear()
        task = asyncio.create_task(_entered(LoopRunner(store, offload=True), sid, PATIENCE))
        await asyncio.to_thread(store.taking.wait, PATIENCE)
        task.cancel()
        await _cancelled(task)
        store.opening.set()
        await free(store, sid)

    run(main())


def test_a_lock_that_a_thread_did_not_get_for_a_cancelled_task_needs_nothing(
    clock: ManualClock,
) -> None:
    store = Gated(clock=clock)
    sid = store.create({}).id

    async def main() -> None:
        store.opening.clear()
        task = asyncio.create_task(_entered(LoopRunner(store, offload=True), sid, PATIENCE))
        await asyncio.to_thread(store.taking.wait, PATIENCE)
        clock.advance(1800 + 61)
        task.cancel()
        await _cancelled(task)
        store.opening.set()

    assert problems_of(main()) == []
    assert store.load(sid) is None


@pytest.mark.parametrize("kind", [Gated, PlainLocks])
def test_a_call_a_thread_has_begun_keeps_the_lock_to_its_end_however_often_it_is_cancelled(
    kind: type[Any],
) -> None:
    store = kind()
    sid = store.create({"n": 1}).id
    runner = LoopRunner(store, offload=True)

    async def change() -> None:
        async with runner.alock(sid, 10):
            await runner.arun(save(sid, {"n": 2}))

    async def main() -> None:
        store.gate.clear()
        task = asyncio.create_task(change())
        await asyncio.to_thread(store.saving.wait, PATIENCE)
        for _ in range(3):
            task.cancel()
            await others_run()
            assert not task.done()
            assert_locked(store, sid)
        store.gate.set()
        await _cancelled(task)
        await free(store, sid)

    run(main())
    assert loaded(store, sid).data == {"n": 2}


class Failing(Gated):
    """Whose saves fail once they are let through."""

    def save(self, sid: str, data: Any, **keywords: Any) -> SessionRecord:
        super().save(sid, data, **keywords)
        raise FAILURE


FAILURE: Final = StoreUnavailable("the disk fails")


def test_what_a_cancelled_call_raises_in_the_end_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Failing()
    sid = store.create({}).id

    async def main() -> None:
        store.gate.clear()
        task = asyncio.create_task(LoopRunner(store, offload=True).arun(save(sid, {})))
        await asyncio.to_thread(store.saving.wait, PATIENCE)
        task.cancel()
        await others_run()
        store.gate.set()
        await _cancelled(task)

    assert problems_of(main()) == []
    assert "whose task was cancelled, failed: the disk fails" in caplog.text
