"""A store that fails now and then, under both gateways: what it was asked is done once, or not."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession import runner
from filesession.errors import LockTimeout, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from tests.gateways.conftest import Answer, Here, RecordingStore, Site, Wire

PATIENCE: Final = 20  # seconds

MakeSite = Callable[..., "Site"]
Ask = Callable[..., "Answer"]


class Failing:
    """A store of a user's own: five verbs of another, some of which fail.

    Attributes:
        before: how often each verb is still to fail before anything is done.
        after: how often when it is done, and only its answer is lost.
        asked: the verbs, also those that failed.
        error: what is raised.
    """

    def __init__(self, store: RecordingStore) -> None:
        self.codec = store.codec
        self._store = store
        self.before: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        self.asked: list[str] = []
        self.error: Exception = StoreUnavailable("the store is away")

    def load(self, *arguments: Any) -> Any:
        return self._asked("load", *arguments)

    def create(self, *arguments: Any, **keywords: Any) -> Any:
        return self._asked("create", *arguments, **keywords)

    def save(self, *arguments: Any, **keywords: Any) -> Any:
        return self._asked("save", *arguments, **keywords)

    def touch(self, *arguments: Any, **keywords: Any) -> Any:
        return self._asked("touch", *arguments, **keywords)

    def delete(self, *arguments: Any) -> Any:
        return self._asked("delete", *arguments)

    def _asked(self, verb: str, *arguments: Any, **keywords: Any) -> Any:
        self.asked.append(verb)
        if self.before[verb]:
            self.before[verb] -= 1
            raise self.error
        result = getattr(self._store, verb)(*arguments, **keywords)
        if self.after[verb]:
            self.after[verb] -= 1
            raise self.error
        return result


class Moving(Failing):
    """Which can give a session a new id in one step."""

    def regenerate(self, *arguments: Any, **keywords: Any) -> Any:
        return self._asked("regenerate", *arguments, **keywords)


class Coroutines:
    """The same in coroutines."""

    def __init__(self, store: Failing) -> None:
        self.codec = store.codec
        self._store = store

    async def load(self, *arguments: Any) -> Any:
        return self._store.load(*arguments)

    async def create(self, *arguments: Any, **keywords: Any) -> Any:
        return self._store.create(*arguments, **keywords)

    async def save(self, *arguments: Any, **keywords: Any) -> Any:
        return self._store.save(*arguments, **keywords)

    async def touch(self, *arguments: Any, **keywords: Any) -> Any:
        return self._store.touch(*arguments, **keywords)

    async def delete(self, *arguments: Any) -> Any:
        return self._store.delete(*arguments)


@pytest.fixture
def failing(store: RecordingStore) -> Moving:
    return Moving(store)


def at_once(_: int) -> float:
    return 0


@pytest.fixture
def ask(
    make_site: MakeSite, failing: Moving, sid: str, cookie_of: Callable[..., str]
) -> Callable[..., Answer]:
    """Lets an application that does as a handler says serve the visitor of ``sid``."""

    def asked(handler: Callable[[Here], object] = look, **options: Any) -> Answer:
        site = make_site(**{"store": failing, "retry_delay": at_once, **options})
        return site.request(handler, cookie=cookie_of(sid))

    return asked


def change(here: Here) -> None:
    here.session["seen"] = True


def renew(here: Here) -> None:
    here.session.regenerate()
    change(here)


def leave(here: Here) -> None:
    here.session.destroy()


def look(here: Here) -> None:
    here.body = [str(here.session.get("user")).encode()]


# -- done once ------------------------------------------------------------------------------------


DEEDS: Final = {"load": look, "save": change, "regenerate": renew, "delete": leave}


@pytest.fixture(params=["before", "after"])
def failures(request: pytest.FixtureRequest, failing: Moving) -> Counter[str]:
    """Of its calls: before anything is done, or when it is done."""
    failures: Counter[str] = getattr(failing, request.param)
    return failures


@pytest.mark.parametrize("verb", DEEDS)
def test_a_call_that_fails_once_or_whose_answer_is_lost_is_as_one_that_does_not(
    ask: Ask, failures: Counter[str], store: RecordingStore, sid: str, verb: str
) -> None:
    failures[verb] = 1
    answer = ask(DEEDS[verb], retries=1)
    assert (answer.status, failures[verb]) == (200, 0)
    record = store.load(sid)
    if verb == "load":
        assert (answer.body, answer.set_cookie) == (b"ada", None)
    elif verb == "save":
        assert record is not None
        assert (record.data, answer.set_cookie) == ({"user": "ada", "seen": True}, None)
    elif verb == "regenerate":
        moved = store.load(answer.sid)
        assert moved is not None
        assert moved.data == {"user": "ada", "seen": True}
        assert (record, store.ids()) == (None, 1)
    else:
        assert answer.expires_the_cookie
        assert (record, store.ids()) == (None, 0)


@pytest.mark.parametrize(("when", "stored"), [("before", 1), ("after", 2)])
def test_a_new_session_is_stored_and_at_most_one_more_that_nobody_can_reach(
    make_site: MakeSite, failing: Moving, store: RecordingStore, when: str, stored: int
) -> None:
    getattr(failing, when)["create"] = 1
    answer = make_site(store=failing, retries=1, retry_delay=at_once).request(change)
    record = store.load(answer.sid)
    assert record is not None
    assert record.data == {"seen": True}
    assert store.ids() == stored


def test_an_id_of_a_genid_that_is_found_taken_by_a_lost_create_is_not_used(
    make_site: MakeSite, failing: Moving, store: RecordingStore
) -> None:
    ids = iter(["first", "second"])
    failing.after["create"] = 1
    site = make_site(store=failing, retries=1, retry_delay=at_once, genid=lambda request: next(ids))
    assert site.request(change).sid == "second"
    assert store.load("second") is not None


def test_a_session_moved_to_an_id_of_a_genid_is_found_there(
    ask: Ask, failures: Counter[str], store: RecordingStore, sid: str
) -> None:
    failures["regenerate"] = 1
    assert ask(renew, retries=1, genid=lambda request: "chosen").sid == "chosen"
    record = store.load("chosen")
    assert record is not None
    assert record.data == {"user": "ada", "seen": True}
    assert store.load(sid) is None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("verb", ["save", "create"])
def test_a_new_id_in_parts_is_one_whichever_part_fails(
    ask: Ask, store: RecordingStore, sid: str, verb: str, when: str
) -> None:
    failing = Failing(store)
    getattr(failing, when)[verb] = 1
    answer = ask(renew, retries=1, store=failing)
    record = store.load(answer.sid)
    assert record is not None
    assert record.data == {"user": "ada", "seen": True}
    assert store.load(sid) is None
    assert failing.asked.count(verb) == 2


def test_where_the_old_session_may_have_been_logged_out_meanwhile_no_part_of_it_lives_on(
    ask: Ask, store: RecordingStore
) -> None:
    failing = Failing(store)
    failing.after["delete"] = 1  # was it this one, or a logout?
    answer = ask(renew, retries=1, store=failing)
    assert (answer.status, answer.set_cookie, store.ids()) == (200, None, 0)


def test_a_save_whose_answer_is_lost_conflicts_with_others_and_not_with_itself(
    ask: Ask, failing: Moving, store: RecordingStore, sid: str
) -> None:
    failing.after["save"] = 1
    assert ask(change, retries=1, conflict="error").status == 200

    def with_another(here: Here) -> None:
        here.session["seen"] = "again"
        store.save(sid, {"user": "bob"})

    failing.before["save"] = 1
    assert ask(with_another, retries=1, conflict="error").status == 409
    record = store.load(sid)
    assert record is not None
    assert record.data == {"user": "bob"}


def test_what_the_application_saves_itself_is_tried_again_too(
    ask: Ask, failing: Moving, stored: Callable[[], Any]
) -> None:
    failing.before["save"] = 2
    seen: list[Any] = []

    def save(here: Here) -> None:
        change(here)
        here.session.save()
        seen.append(stored())
        here.session.reload()

    assert ask(save, retries=2).status == 200
    assert seen == [{"user": "ada", "seen": True}]


# -- how often ------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_when_the_tries_are_used_up_it_is_a_503_after_those_pauses(
    ask: Ask, failing: Moving, retries: int
) -> None:
    failing.before["load"] = 100
    numbers: list[int] = []

    def delay(attempt: int) -> float:
        numbers.append(attempt)
        return 0

    answer = ask(retries=retries, retry_delay=delay)
    assert answer.status == 503
    assert failing.asked == ["load"] * (1 + retries)
    assert numbers == list(range(1, 1 + retries))


@pytest.mark.parametrize("delay", [lambda attempt: 1 / 0, lambda attempt: -attempt, str])
def test_a_retry_delay_that_fails_or_gives_nonsense_is_told_and_the_request_answered(
    ask: Ask, failing: Moving, caplog: pytest.LogCaptureFixture, delay: Any
) -> None:
    failing.before["load"] = 100
    assert ask(retries=3, retry_delay=delay).status == 503
    assert failing.asked == ["load"]
    assert caplog.messages[0].startswith("retry_delay(1) ")


def test_a_lock_that_did_not_come_free_is_not_waited_for_again(ask: Ask, failing: Moving) -> None:
    failing.before["save"], failing.error = 1, LockTimeout("the session is locked")
    assert ask(change, retries=3).status == 503
    assert failing.asked == ["load", "save"]


@pytest.mark.parametrize("unavailable", ["respond", "raise", "skip"])
def test_a_failed_touch_is_told_and_no_more(
    ask: Ask, failing: Moving, caplog: pytest.LogCaptureFixture, unavailable: str
) -> None:
    failing.before["touch"] = 1
    answer = ask(look, retries=3, unavailable=unavailable)
    assert (answer.status, answer.body) == (200, b"ada")
    assert failing.asked == ["load", "touch"]
    assert [(line.levelno, line.getMessage()) for line in caplog.records] == [
        (logging.WARNING, "the store is away")
    ]


# -- waiting --------------------------------------------------------------------------------------


def test_a_thread_sleeps_between_the_tries(
    ask: Ask, failing: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(runner, "time", SimpleNamespace(sleep=slept.append))
    failing.before["save"] = 3

    def save(here: Here) -> None:
        change(here)
        here.session.save()  # in a thread, also where the gateway is on an event loop

    ask(save, retries=3, retry_delay=None)
    assert slept == [0.05, 0.1, 0.2]


@pytest.mark.parametrize("coroutines", [False, True], ids=["threads", "coroutines"])
def test_on_an_event_loop_others_run_meanwhile_and_a_cancelled_request_tries_no_more(
    connect: Callable[..., Wire], failing: Moving, sid: str, *, coroutines: bool
) -> None:
    paused = asyncio.Event()

    def delay(attempt: int) -> float:
        paused.set()
        return 60

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["seen"] = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the page"})

    async def scenario() -> None:
        options: dict[str, Any] = {"store": Coroutines(failing) if coroutines else failing}
        options |= {"retries": 9, "retry_delay": delay}
        failing.before["load"] = 1
        task = asyncio.create_task(connect(sid=sid).serving(app, **options))
        await paused.wait()
        other = connect(sid=sid)
        await other.serving(app, **options)
        assert other.sent[0]["status"] == 200
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert failing.asked == ["load", "load", "save"]


def test_a_destroy_that_fails_in_a_cancelled_request_is_tried_once_and_holds_up_nothing(
    connect: Callable[..., Wire], failing: Moving, sid: str, caplog: pytest.LogCaptureFixture
) -> None:
    reached = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].destroy()
        reached.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        failing.before["delete"] = 1
        serving = connect(sid=sid).serving(
            app, store=failing, retries=9, retry_delay=lambda attempt: 60
        )
        task = asyncio.create_task(serving)
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    assert failing.asked == ["load", "delete"]
    assert caplog.messages == ["the store is away"]


def test_a_time_limit_in_the_middle_of_a_pause_leaves_the_session_to_be_saved(
    connect: Callable[..., Wire], failing: Moving, sid: str, stored: Callable[[], Any]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        session["seen"] = True
        failing.before["save"] = 1
        limit = asyncio.timeout(None)

        def expire() -> None:
            limit.reschedule(asyncio.get_running_loop().time())

        async def save() -> None:
            async with limit:
                pausing.append(expire)
                await session.asave()

        with pytest.raises(TimeoutError):
            await save()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the page"})

    pausing: list[Callable[[], None]] = []

    def delay(attempt: int) -> float:
        asyncio.get_running_loop().call_soon(pausing.pop())
        return 60

    wire = connect(sid=sid)
    serving = wire.serving(app, store=failing, retries=9, retry_delay=delay)
    asyncio.run(asyncio.wait_for(serving, PATIENCE))
    assert wire.sent[0]["status"] == 200
    assert failing.asked == ["load", "save", "save"]
    assert stored() == {"user": "ada", "seen": True}


def test_one_cut_short_while_it_looks_for_its_session_does_not_become_another(
    connect: Callable[..., Wire], failing: Moving, sid: str, store: RecordingStore
) -> None:
    store.create({"user": "bob"}, sid="taken")
    ids = iter(["taken", "free"])
    failing.before["regenerate"] = 1
    looking, go_on = asyncio.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session, loop = scope["session"], asyncio.get_running_loop()
        load = store.load

        def look_slowly(*arguments: Any) -> Any:
            loop.call_soon_threadsafe(looking.set)
            assert go_on.wait(PATIENCE)
            return load(*arguments)

        async def end(limit: asyncio.Timeout) -> None:
            await looking.wait()
            limit.reschedule(loop.time())
            for _ in range(20):
                await asyncio.sleep(0)
            go_on.set()

        async def save() -> None:
            async with asyncio.timeout(None) as limit:
                ending.append(asyncio.create_task(end(limit)))
                await session.asave()

        ending: list[asyncio.Task[None]] = []
        session.regenerate()
        store.load = look_slowly  # type: ignore[method-assign]
        with pytest.raises(TimeoutError):
            await save()
        await ending[0]
        store.load = load  # type: ignore[method-assign]
        assert (session.id, session["user"]) == (sid, "ada")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the page"})

    wire = connect(sid=sid)
    options = {"retries": 1, "retry_delay": at_once, "genid": lambda scope: next(ids)}
    asyncio.run(asyncio.wait_for(wire.serving(app, store=failing, **options), PATIENCE))
    assert len(wire.all(b"set-cookie")) == 1
    for name, user in (("taken", "bob"), ("free", "ada")):
        record = store.load(name)
        assert record is not None
        assert record.data == {"user": user}


def test_a_websocket_whose_session_could_be_loaded_at_last_has_it(
    connect: Callable[..., Wire], failing: Moving, sid: str
) -> None:
    failing.before["load"] = 2
    users: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        users.append(scope["session"]["user"])
        await send({"type": "websocket.accept"})

    wire = connect(sid=sid, kind="websocket", scheme="ws")
    wire.serve(app, store=failing, retries=2, retry_delay=at_once)
    assert users == ["ada"]
    assert [message["type"] for message in wire.sent] == ["websocket.accept"]


def test_an_error_that_is_no_store_error_is_not_tried_again(ask: Ask, failing: Moving) -> None:
    failing.before["load"], failing.error = 1, ConnectionError("nobody translated it")
    with pytest.raises(ConnectionError):
        ask(retries=3)
    assert failing.asked == ["load"]
    assert not isinstance(failing.error, StoreError)
