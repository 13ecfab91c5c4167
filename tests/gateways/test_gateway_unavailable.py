"""What becomes of a request whose session cannot be loaded or saved: respond, raise or skip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from filesession import runner
from filesession.asgi import SessionMiddleware
from filesession.errors import LockTimeout, StoreUnavailable

if TYPE_CHECKING:
    from tests.gateways.conftest import Answer, Here, RecordingStore, Server, Site, Wire

AWAY: Final = StoreUnavailable("the store is away")
TOLD: Final = [(logging.ERROR, "the store is away")]

MakeSite = Callable[..., "Site"]
Ask = Callable[..., "Answer"]


@pytest.fixture
def ask(make_site: MakeSite, sid: str, cookie_of: Callable[..., str]) -> Ask:
    """Lets an application that does as a handler says serve the visitor of ``sid``; skips."""

    def asked(handler: Callable[[Here], object] | None = None, **options: Any) -> Answer:
        site = make_site(**{"unavailable": "skip", **options})
        return site.request(handler, cookie=cookie_of(sid))

    return asked


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[int, str]]]:
    """What was logged."""
    return lambda: [(line.levelno, line.getMessage()) for line in caplog.records]


def change(here: Here) -> None:
    here.session["seen"] = True


def login(here: Here) -> None:
    here.session.regenerate()
    here.session["user"] = "bob"


# -- it cannot be loaded --------------------------------------------------------------------------


def test_skip_runs_a_request_whose_session_cannot_be_loaded_without_any(
    ask: Ask,
    store: RecordingStore,
    stored: Callable[[], Any],
    told: Callable[[], list[tuple[int, str]]],
) -> None:
    store.failing["load"] = AWAY
    found: list[bool] = []
    answer = ask(lambda here: found.append(here.key in here.place), rolling=True)
    assert found == [False]
    assert (answer.status, answer.body) == (200, b"the page")
    assert answer.headers == [("content-type", "text/plain")]
    assert (store.calls, told()) == ([], TOLD)
    store.failing.clear()
    assert stored() == {"user": "ada"}  # though nothing stood where the session is looked for


def test_skip_needs_no_store_for_who_has_no_cookie(
    make_site: MakeSite, store: RecordingStore
) -> None:
    store.failing["load"] = AWAY
    answer = make_site(unavailable="skip").request(change)
    assert answer.status == 200
    assert "create" in store.calls


def test_raise_lets_the_error_of_a_load_through_and_the_application_does_not_run(
    make_site: MakeSite,
    store: RecordingStore,
    sid: str,
    cookie_of: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.failing["load"] = AWAY
    site = make_site(unavailable="raise")
    with pytest.raises(StoreUnavailable) as caught:
        site.request(change, cookie=cookie_of(sid))
    assert caught.value is AWAY
    assert (site.here, site.events, store.calls, caplog.records) == (None, [], [], [])


def test_respond_answers_503_with_the_time_to_come_back(ask: Ask, store: RecordingStore) -> None:
    store.failing["load"] = AWAY
    answer = ask(change, unavailable="respond")
    assert (answer.status, answer.all("retry-after")) == (503, ["5"])


# -- it cannot be saved ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"rolling": True}, {"max_age": 60}], ids=str)
def test_skip_sends_the_applications_response_without_a_cookie_and_saves_nothing_later(
    ask: Ask,
    store: RecordingStore,
    stored: Callable[[], Any],
    told: Callable[[], list[tuple[int, str]]],
    options: dict[str, Any],
) -> None:
    store.failing["save"] = AWAY

    def late(here: Here) -> None:
        change(here)
        here.late = here.after = store.failing.clear

    answer = ask(late, **options)
    assert (answer.status, answer.body, answer.set_cookie) == (200, b"the page", None)
    assert (store.calls, told()) == (["load"], TOLD)
    assert stored() == {"user": "ada"}


def test_skip_passes_over_a_lock_that_did_not_come_free(
    ask: Ask, store: RecordingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "DEFAULT_TIMEOUT", 0)  # on an event loop it asks until then
    store.failing["save"] = LockTimeout("the session is locked")
    assert ask(change).body == b"the page"


def test_skip_hands_out_no_cookie_for_a_new_session_that_is_not_stored(
    make_site: MakeSite, store: RecordingStore, told: Callable[[], list[tuple[int, str]]]
) -> None:
    store.failing["create"] = AWAY
    answer = make_site(unavailable="skip", save_uninitialized=True).request(change)
    assert (answer.status, answer.body, answer.set_cookie) == (200, b"the page", None)
    assert (store.ids(), told()) == (0, TOLD)


def test_skip_stores_no_login_under_the_id_from_before_it(
    ask: Ask, store: RecordingStore, stored: Callable[[], Any]
) -> None:
    store.failing["regenerate"] = AWAY

    def late(here: Here) -> None:
        login(here)
        here.late = here.after = store.failing.clear

    answer = ask(late)
    assert (answer.status, answer.set_cookie) == (200, None)
    assert stored() == {"user": "ada"}  # who planted that id is not logged in
    assert store.ids() == 1


def test_skip_ends_the_cookie_of_a_destroyed_session_and_deletes_it_when_it_can(
    ask: Ask, store: RecordingStore, stored: Callable[[], Any]
) -> None:
    store.failing["delete"] = AWAY

    def leave(here: Here) -> None:
        here.session.destroy()
        here.late = store.failing.clear

    answer = ask(leave)
    assert answer.status == 200
    assert answer.expires_the_cookie
    assert stored() is None


def test_skip_tells_of_a_destroy_that_fails_to_the_end(
    ask: Ask,
    store: RecordingStore,
    stored: Callable[[], Any],
    told: Callable[[], list[tuple[int, str]]],
) -> None:
    store.failing["delete"] = AWAY
    assert ask(lambda here: here.session.destroy()).expires_the_cookie
    assert set(told()) == set(TOLD)
    assert len(told()) > 1
    assert stored() == {"user": "ada"}


def test_skip_tells_the_browser_of_an_id_that_was_stored_before_the_store_failed(
    make_site: MakeSite, store: RecordingStore
) -> None:
    def save_then_change(here: Here) -> None:
        change(here)
        here.session.save()
        here.session["more"] = True
        store.failing["save"] = AWAY

    answer = make_site(unavailable="skip").request(save_then_change)
    record = store.load(answer.sid)
    assert record is not None
    assert record.data == {"seen": True}


def test_skip_tells_of_a_late_change_that_could_not_be_saved_and_the_response_is_whole(
    ask: Ask, store: RecordingStore, told: Callable[[], list[tuple[int, str]]]
) -> None:
    def late(here: Here) -> None:
        store.failing["save"] = AWAY
        here.late = lambda: change(here)

    answer = ask(late)
    assert (answer.status, answer.body) == (200, b"the page")
    assert set(told()) == set(TOLD)


@pytest.mark.parametrize("unavailable", ["respond", "raise"])
def test_else_a_late_change_that_could_not_be_saved_is_the_servers_to_know(
    ask: Ask, store: RecordingStore, unavailable: str
) -> None:
    def late(here: Here) -> None:
        store.failing["save"] = AWAY
        here.late = lambda: change(here)

    with pytest.raises(StoreUnavailable):
        ask(late, unavailable=unavailable)


def test_raise_lets_the_error_of_a_save_through_before_anything_is_sent(
    make_site: MakeSite,
    store: RecordingStore,
    sid: str,
    cookie_of: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.failing["save"] = AWAY
    site = make_site(unavailable="raise")
    with pytest.raises(StoreUnavailable) as caught:
        site.request(change, cookie=cookie_of(sid))
    assert caught.value is AWAY
    assert (site.events, caplog.records) == ([], [])
    assert store.calls == ["load", "touch"]


@pytest.mark.parametrize("unavailable", ["respond", "raise", "skip"])
def test_a_conflict_is_a_409_whatever_is_done_about_the_store(
    ask: Ask, store: RecordingStore, sid: str, unavailable: str
) -> None:
    def with_another(here: Here) -> None:
        change(here)
        store.save(sid, {"user": "bob"})

    assert ask(with_another, conflict="error", unavailable=unavailable).status == 409


def test_what_the_application_saves_itself_raises_in_any_case(
    ask: Ask, store: RecordingStore
) -> None:
    def save(here: Here) -> None:
        change(here)
        store.failing["save"] = AWAY
        with pytest.raises(StoreUnavailable):
            here.session.save()
        store.failing.clear()

    assert ask(save).status == 200
    assert store.calls == ["load", "save"]


# -- bodies that stream ---------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b"the page"], [b"the page"]], ids=repr)
@pytest.mark.parametrize("listed", [True, False])
def test_skip_leaves_a_body_under_wsgi_as_it_is(
    call: Callable[..., Server],
    store: RecordingStore,
    sid: str,
    *,
    pieces: list[bytes],
    listed: bool,
) -> None:
    store.failing["save"] = AWAY

    def app(environ: Any, start_response: Any) -> Any:
        environ["filesession.session"]["seen"] = True
        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces if listed else stream()

    def stream() -> Iterator[bytes]:
        yield from pieces

    server = call(sid)
    server.serve(app, unavailable="skip")
    assert (server.status, server.body) == ("200 OK", b"".join(pieces))
    assert store.calls == ["load"]


# -- websockets -----------------------------------------------------------------------------------


@pytest.fixture
def socket(connect: Callable[..., Wire], sid: str) -> Wire:
    return connect(sid=sid, kind="websocket", scheme="ws")


ACCEPT: Final = {"type": "websocket.accept", "headers": []}
CLOSE: Final = {"type": "websocket.close", "code": 1000}


async def talk(scope: Any, receive: Any, send: Any) -> None:
    session = scope.get("session")
    if session is not None:
        session["seen"] = True
    await send(ACCEPT)
    await send({"type": "websocket.send", "text": "none" if session is None else "one"})
    await send(CLOSE)


def test_skip_lets_a_websocket_talk_without_a_session(
    socket: Wire, store: RecordingStore, told: Callable[[], list[tuple[int, str]]]
) -> None:
    store.failing["load"] = AWAY
    socket.serve(talk, unavailable="skip")
    assert socket.sent == [ACCEPT, {"type": "websocket.send", "text": "none"}, CLOSE]
    assert told() == TOLD


def test_skip_accepts_a_websocket_whose_session_could_not_be_saved(
    socket: Wire, store: RecordingStore, told: Callable[[], list[tuple[int, str]]]
) -> None:
    store.failing["save"] = AWAY
    socket.serve(talk, unavailable="skip", rolling=True)
    accepted, *talked = socket.sent
    assert accepted == {**ACCEPT, "headers": [(b"vary", b"Cookie")]}
    assert talked == [{"type": "websocket.send", "text": "one"}, CLOSE]
    assert (store.calls, told()) == (["load"], TOLD)


def test_skip_closes_a_websocket_as_it_was_to_be_when_its_last_change_is_lost(
    socket: Wire, store: RecordingStore, told: Callable[[], list[tuple[int, str]]]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        store.failing["save"] = AWAY
        scope["session"]["seen"] = True
        await send(CLOSE)

    socket.serve(app, unavailable="skip")
    assert socket.sent == [ACCEPT, CLOSE]
    assert set(told()) == set(TOLD)


@pytest.mark.parametrize("verb", ["load", "save"])
def test_raise_lets_a_websockets_error_through_before_it_is_accepted(
    socket: Wire, store: RecordingStore, verb: str
) -> None:
    store.failing[verb] = AWAY
    with pytest.raises(StoreUnavailable):
        socket.serve(talk, unavailable="raise")
    assert socket.sent == []


# -- under Starlette ------------------------------------------------------------------------------


async def page(request: Request) -> PlainTextResponse:
    if "session" not in request.scope:
        return PlainTextResponse("try again to log in", 200)
    request.session["seen"] = True
    return PlainTextResponse("the page")


def sorry(_: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse(f"sorry: {error}", 500)


@pytest.mark.parametrize(
    ("unavailable", "verb", "answer"),
    [
        ("skip", "load", (200, "try again to log in")),
        ("skip", "save", (200, "the page")),
        ("raise", "load", (500, "sorry: the store is away")),
        ("raise", "save", (500, "sorry: the store is away")),
    ],
)
def test_starlette_shows_its_own_page(  # noqa: PLR0917 - a table
    store: RecordingStore,
    sid: str,
    cookie_of: Callable[..., str],
    unavailable: Any,
    verb: str,
    answer: tuple[int, str],
) -> None:
    store.failing[verb] = AWAY
    app = Starlette(routes=[Route("/", page)], exception_handlers={500: sorry})
    app.add_middleware(
        SessionMiddleware, store=store, secret="the newest secret", unavailable=unavailable
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def visit() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await client.get("/", headers={"cookie": cookie_of(sid)})

    response = asyncio.run(visit())
    assert (response.status_code, response.text) == answer
    assert "set-cookie" not in response.headers


def test_an_application_that_takes_the_error_of_its_response_meets_it_again_with_the_next(
    connect: Callable[..., Wire], store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["seen"] = True
        start = {"type": "http.response.start", "status": 200, "headers": []}
        with pytest.raises(StoreUnavailable):
            await send(start)
        await send(start)

    store.failing["save"] = AWAY
    wire = connect(sid=sid)
    with pytest.raises(StoreUnavailable):
        asyncio.run(wire.serving(app, unavailable="raise"))
    assert wire.sent == []
