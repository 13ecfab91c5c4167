"""What is particular to HTTP under ASGI, on raw messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from filesession.asgi import SessionMiddleware
from filesession.errors import ConfigurationError
from filesession.stores import MemoryStore

if TYPE_CHECKING:
    from tests.gateways.conftest import RecordingStore, Wire

HEADERS = [(b"content-type", b"text/plain")]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
BODY = {"type": "http.response.body", "body": b"the page"}
PIECE = {"type": "http.response.body", "body": b"the ", "more_body": True}

Connect = Callable[..., "Wire"]
App = Callable[[Any, Any, Any], Awaitable[None]]


def change(scope: Any) -> None:
    scope["session"]["seen"] = True


def says(*messages: Any, before: Callable[[Any], object] = change) -> App:
    """An application that does something with its session, then sends these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        before(scope)
        for message in messages:
            await send(message)

    return app


# -- what passes through --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}},
        {"type": "of a later version of the specification"},
    ],
    ids=["lifespan", "unknown"],
)
def test_what_is_no_request_passes_through_untouched(
    store: RecordingStore, scope: dict[str, Any]
) -> None:
    seen: list[object] = []

    async def app(*given: object) -> None:
        seen.extend(given)

    async def receive() -> Any: ...

    async def send(message: Any) -> None: ...

    before = dict(scope)
    asyncio.run(SessionMiddleware(app, store)(scope, receive, send))
    assert seen[0] is scope
    assert seen[1:] == [receive, send]
    assert (scope, store.calls) == (before, [])


@pytest.mark.parametrize(
    ("root_path", "path", "covered"),
    [("/shop", "/shop/cart", True), ("", "/shop/cart", True), ("/shop", "/other", False)],
)
def test_the_path_is_the_whole_one_whatever_part_of_it_is_the_root_path(
    connect: Connect, sid: str, root_path: str, path: str, *, covered: bool
) -> None:
    found: list[bool] = []
    wire = connect(sid=sid, root_path=root_path, path=path)
    wire.serve(
        says(START, BODY, before=lambda scope: found.append("session" in scope)), path="/shop"
    )
    assert found == [covered]


# -- when the session is stored -------------------------------------------------------------------


def test_a_change_is_stored_before_the_response_starts(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    wire = connect(sid=sid)
    wire.serve(says(START, BODY))
    assert store.journal == ["load", "save", "http.response.start", "http.response.body"]


def test_a_new_session_is_stored_before_its_cookie_leaves(
    connect: Connect, store: RecordingStore
) -> None:
    wire = connect()
    wire.serve(says(START, BODY))
    assert store.journal == ["create", "http.response.start", "http.response.body"]
    (cookie,) = wire.all(b"set-cookie")
    assert cookie.startswith(b"sid=s%3A")


def test_the_applications_own_messages_are_left_as_they_are(connect: Connect) -> None:
    start = {**START, "headers": [(b"content-type", b"text/plain")], "trailers": True}
    wire = connect()
    wire.serve(says(start, BODY))
    assert start["headers"] == [(b"content-type", b"text/plain")]
    assert wire.sent[0] == {**start, "headers": wire.sent[0]["headers"]}
    assert wire.sent[1] is BODY


def test_a_change_while_the_body_streams_is_stored_before_its_last_piece_leaves(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(PIECE)
        change(scope)
        await send(PIECE)
        await send(BODY)

    connect(sid=sid).serve(app)
    piece = "http.response.body"
    assert store.journal == [
        *("load", "touch", "http.response.start", piece, piece, "save", piece),
    ]


def test_a_session_ended_while_the_body_streams_is_deleted(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        scope["session"] = None
        await send(BODY)

    wire = connect(sid=sid)
    wire.serve(app)
    assert store.journal[-2:] == ["delete", "http.response.body"]
    assert wire.all(b"set-cookie") == []


def test_what_a_background_task_changes_is_stored_when_it_is_done(
    connect: Connect, store: RecordingStore, sid: str, stored: Callable[[], Any]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await says(START, BODY, before=lambda scope: None)(scope, receive, send)
        change(scope)

    connect(sid=sid).serve(app)
    assert store.journal == [
        *("load", "touch", "http.response.start", "http.response.body", "save"),
    ]
    assert stored() == {"user": "ada", "seen": True}


def test_nothing_is_written_twice(connect: Connect, store: RecordingStore, sid: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await says(START, PIECE, PIECE, BODY)(scope, receive, send)
        assert scope["session"]["seen"]

    connect(sid=sid).serve(app)
    assert store.calls == ["load", "save"]


@pytest.mark.parametrize(
    "ways",
    [
        [{"type": "http.response.pathsend", "path": "/etc/hostname"}],
        [{"type": "http.response.zerocopysend", "file": 3}],
        [{"type": "http.response.zerocopysend", "file": 3, "more_body": True}, BODY],
        [{"type": "http.response.body"}],
    ],
    ids=["pathsend", "zerocopysend", "zerocopysend in pieces", "an empty body"],
)
def test_a_body_sent_in_another_way_ends_as_any_other(
    connect: Connect, store: RecordingStore, sid: str, ways: list[Any]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        change(scope)
        for message in ways:
            await send(message)

    wire = connect(sid=sid)
    wire.serve(app)
    assert store.journal[-2:] == ["save", ways[-1]["type"]]
    assert all(sent is message for sent, message in zip(wire.sent[1:], ways, strict=True))


def test_what_comes_before_the_response_does_not_start_it(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    debug = {"type": "http.response.debug", "info": {}}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(debug)
        await says(START, BODY)(scope, receive, send)

    connect(sid=sid).serve(app)
    assert store.journal[:4] == ["load", "http.response.debug", "save", "http.response.start"]


def test_a_second_start_is_for_the_server_to_judge(connect: Connect, store: RecordingStore) -> None:
    wire = connect()
    wire.serve(says(START, START, BODY))
    assert store.calls == ["create"]
    assert len(wire.all(b"set-cookie")) == 1
    assert wire.sent[1] is START


def test_a_start_without_headers_gets_ours(connect: Connect) -> None:
    wire = connect()
    wire.serve(says({"type": "http.response.start", "status": 204}, BODY))
    assert [name for name, _ in wire.sent[0]["headers"]] == [
        *(b"cache-control", b"set-cookie", b"vary"),
    ]


# -- headers --------------------------------------------------------------------------------------


def test_header_values_of_any_bytes_survive(connect: Connect) -> None:
    headers = [(b"X-Name", "Zoë".encode()), (b"x-bytes", bytes(range(128, 256)))]
    wire = connect((b"x-name", b"\xff"))
    wire.serve(says({**START, "headers": headers}, BODY))
    assert wire.sent[0]["headers"][:2] == headers


def test_of_several_cookie_headers_all_are_read(
    connect: Connect, sid: str, cookie_of: Callable[..., str]
) -> None:
    users: list[object] = []
    wire = connect(
        (b"cookie", b"a=\xe9"),
        (b"accept", b"*/*"),
        (b"cookie", cookie_of(sid).encode()),
        (b"cookie", b"z=1"),
    )
    app = says(START, BODY, before=lambda scope: users.append(scope["session"]["user"]))
    wire.serve(app)
    assert users == ["ada"]


def test_the_first_x_forwarded_proto_header_counts(connect: Connect) -> None:
    for values, secure in (
        ([b"https", b"http"], True),
        ([b"http", b"https"], False),
        ([b"", b"https"], False),
        ([b"https", b""], True),
    ):
        wire = connect(*((b"x-forwarded-proto", value) for value in values))
        wire.serve(says(START, BODY), trust_proxy=True)
        assert (b"; Secure" in wire.all(b"set-cookie")[0]) == secure


@pytest.mark.parametrize("client", [None, ("", 0)], ids=str)
def test_a_client_without_an_address_is_no_proxy(connect: Connect, client: object) -> None:
    wire = connect((b"x-forwarded-proto", b"https"), client=client)
    wire.serve(says(START, BODY), trust_proxy=["127.0.0.1"])
    assert b"; Secure" not in wire.all(b"set-cookie")[0]


# -- several middlewares --------------------------------------------------------------------------


def test_of_two_with_the_same_key_the_outer_one_works(
    connect: Connect, store: RecordingStore, sid: str
) -> None:
    other = MemoryStore()
    wire = connect(sid=sid)
    wire.serve(SessionMiddleware(says(START, BODY), other, "another secret", name="other"))
    assert store.journal == ["load", "save", "http.response.start", "http.response.body"]
    assert len(other) == 0
    assert wire.all(b"set-cookie") == []


def test_two_of_one_cookie_are_refused_by_the_keys_of_both(
    connect: Connect, store: RecordingStore
) -> None:
    wire = connect()
    inner = SessionMiddleware(says(START, BODY), MemoryStore(), "another secret", key="device")
    with pytest.raises(ConfigurationError) as raised:
        wire.serve(inner)
    assert str(raised.value) == (
        "two session middlewares, key='session' and key='device', use one cookie, 'sid',"
        " and would undo each other's; give one of them another name"
    )
    assert (wire.sent, store.ids()) == ([], 0)


def test_two_with_different_keys_both_work(connect: Connect, store: RecordingStore) -> None:
    other = MemoryStore()

    def change_both(scope: Any) -> None:
        change(scope)
        scope["device"]["model"] = "phone"

    wire = connect()
    app = says(START, BODY, before=change_both)
    wire.serve(SessionMiddleware(app, other, "another secret", name="device", key="device"))
    names = [cookie.partition(b"=")[0] for cookie in wire.all(b"set-cookie")]
    assert names == [b"device", b"sid"]
    assert wire.all(b"vary") == [b"Cookie"]
    assert wire.all(b"cache-control") == [b"no-store"]
    assert (len(other), store.ids()) == (1, 1)
