"""No id and no key leaves by a log line, an error, a repr, or a file.

All that a session goes through is made to happen, with every log at DEBUG, and with every system
call failing in its turn; then everything that was said is searched.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession import Janitor
from filesession.asgi import SessionMiddleware
from filesession.calls import StoreCall
from filesession.errors import FilesessionError, SessionGone
from filesession.stores import FileStore, MemoryStore
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCalls, each, failing

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, RecordingStore, Site

CHOSEN: Final = "chosen-by-the-test-0123456789abcdef"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """All that was logged, by whomever, with the tracebacks."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text


def told(error: BaseException) -> str:
    """All that an error says: its text, its repr, its causes, its traceback."""
    return f"{error!r} {error} {error.args} {''.join(traceback.format_exception(error))}"


# -- a life ---------------------------------------------------------------------------------------


def test_a_whole_life_through_a_gateway_names_no_id_in_any_log(
    site: Site, store: RecordingStore, said: Callable[[], str]
) -> None:
    def write(here: Here) -> None:
        here.session["n"] = here.session.get("n", 0) + 1

    def log_in(here: Here) -> None:
        here.session.regenerate()

    def late(here: Here) -> None:
        here.late = lambda: here.session.update(late=True)

    def spoil(here: Here) -> None:
        here.session["n"] = float("nan")

    first = site.request(write)
    second = site.request(log_in, cookie=first.cookie)
    for act in (write, late, lambda here: here.session.touch()):
        site.request(act, cookie=second.cookie)
        site.request(act, cookie=first.cookie)
        site.request(act, cookie=f"{second.cookie}x")
        site.request(act)
    with pytest.raises(FilesessionError) as spoiled:
        site.request(spoil, cookie=second.cookie)
    for error in (FilesessionError("a"), OSError("b")):
        store.failing["delete"] = error
        with suppress(FilesessionError, OSError):
            site.request(lambda here: here.session.destroy(), cookie=second.cookie)
    store.failing.clear()
    path = Path(store._layout.path(next(store.scan()).handle))
    path.write_bytes(b"damage")
    site.request(write, cookie=second.cookie)
    site.request(lambda here: here.session.destroy(), cookie=second.cookie)
    text = said() + told(spoiled.value)
    assert "filesession" in text
    for sid in (first.sid, second.sid):
        assert sid not in text
        assert sid[:16] not in text


@pytest.fixture
def chosen(store: RecordingStore) -> str:
    """A session under an id that is easy to find."""
    store.create({"user": "ada"}, sid=CHOSEN)
    return CHOSEN


def lock(store: FileStore) -> None:
    with store.lock(CHOSEN):
        pass


VERBS: Final[dict[str, Callable[[FileStore], object]]] = {
    "load": lambda store: store.load(CHOSEN),
    "save": lambda store: store.save(CHOSEN, {"user": "bob"}),
    "touch": lambda store: store.touch(CHOSEN),
    "delete": lambda store: store.delete(CHOSEN),
    "regenerate": lambda store: store.regenerate(CHOSEN, new_sid=f"{CHOSEN}-2"),
    "create": lambda store: store.create(sid=f"{CHOSEN}-3"),
    "lock": lock,
    "sweep": lambda store: store.sweep(),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_failing_call_of_the_system_names_an_id_in_an_error_or_a_log(
    tmp_path: Path, said: Callable[[], str], verb: str
) -> None:
    errors: list[str] = []
    clock = ManualClock()
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    for number, calls in enumerate(each(lambda nth: failing(error, nth, sticky=True))):
        store = FileStore(
            tmp_path / f"s{number}", clock=clock, touch_interval=0, regenerate_grace=5
        )
        store.create({"user": "ada"}, sid=CHOSEN)
        clock.advance(1)
        with calls:
            try:
                VERBS[verb](store)
            except FilesessionError as failure:
                errors.append(told(failure))
    assert errors
    assert CHOSEN not in "".join(errors) + said()


def test_no_error_of_a_session_names_its_id(
    store: RecordingStore, chosen: str, said: Callable[[], str]
) -> None:
    store.delete(chosen)
    errors = []
    calls: list[Callable[[], object]] = [
        lambda: store.save(chosen, {}),
        lambda: store.regenerate(chosen),
        lambda: store.lock(chosen).__enter__(),
        lambda: store.create({"a": float("nan")}, sid=chosen),
        lambda: store.create(sid=f"{chosen}\0"),
        lambda: store.create(sid=chosen * 9),
    ]
    for call in calls:
        with pytest.raises(FilesessionError) as raised:
            call()
        errors.append(told(raised.value))
    store.create(sid=chosen)
    for call in (
        lambda: store.create(sid=chosen),
        lambda: store.regenerate(chosen, new_sid=chosen),
    ):
        with pytest.raises(FilesessionError) as raised:
            call()
        errors.append(told(raised.value))
    assert chosen not in "".join(errors) + said()


# -- reprs ----------------------------------------------------------------------------------------


def all_reprs(store: Any, sid: str) -> Iterator[str]:
    """What is printed of everything that knows an id or a key."""
    record = store.load(sid)
    sessions: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sessions.append(scope["session"])
        sessions.append(scope["session"]._visit)
        sessions.append(scope["session"]._pending)
        sessions.append(scope["session"].cookie)

    middleware = SessionMiddleware(app, store, "a secret of the application")
    scope = {"type": "http", "path": "/", "headers": [(b"cookie", b"sid=x")]}
    asyncio.run(middleware(scope, None, None))  # type: ignore[arg-type]  # neither is called
    yield from map(repr, [store, record, store.lock(sid), middleware, middleware.rules])
    yield from map(repr, [middleware.rules.signer, *sessions, next(store.scan()), Janitor(store)])
    yield repr(StoreCall("save", (sid, {}), {"base": record, "new_sid": sid}))
    yield repr(middleware.__dict__)
    with pytest.raises(SessionGone) as gone:
        store.save("another", {})
    yield told(gone.value)


@pytest.mark.parametrize("kept", ["files", "memory"])
def test_nothing_that_knows_an_id_or_a_key_prints_it(tmp_path: Path, kept: str) -> None:
    store = FileStore(tmp_path / "sessions") if kept == "files" else MemoryStore()
    store.create({"user": "ada"}, sid=CHOSEN)
    secrets = [CHOSEN, "a secret of the application"]
    if isinstance(store, FileStore):
        secrets.append(store.signing_key().decode())
    printed = list(all_reprs(store, CHOSEN))
    assert len(printed) > 10
    for text in printed:
        assert not [secret for secret in secrets if secret in text]


# -- the key --------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["open", "short", "a directory", "a link", "gone"])
def test_a_key_that_cannot_be_used_is_refused_without_being_told(
    tmp_path: Path, said: Callable[[], str], harm: str
) -> None:
    directory = tmp_path / "sessions"
    store = FileStore(directory)
    key = store.signing_key()
    path = directory / "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    if harm == "open":
        path.chmod(0o640)
    elif harm == "short":
        path.write_bytes(key[:31])
    elif harm == "gone":
        path.unlink()
    else:
        path.rename(tmp_path / "elsewhere")
        if harm == "a directory":
            path.mkdir()
        else:
            path.symlink_to(tmp_path / "elsewhere")
    text = ""
    try:
        assert store.signing_key() != key
        assert harm == "gone"
    except FilesessionError as error:
        text = told(error)
    assert key.decode() not in text + said()
    assert key[:31].decode() not in text + said()


def test_no_failing_call_of_the_system_tells_the_key(
    tmp_path: Path, said: Callable[[], str]
) -> None:
    store = FileStore(tmp_path / "sessions")
    key = store.signing_key().decode()
    text = ""
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    for calls in each(lambda nth: failing(error, nth)):
        with calls:
            try:
                store.signing_key()
            except FilesessionError as failure:
                text += told(failure)
    assert text
    assert key not in text + said()


# -- temporary files ------------------------------------------------------------------------------


def test_a_temporary_file_is_beside_what_it_replaces_ours_alone_and_not_to_be_guessed(
    tmp_path: Path,
) -> None:
    store = FileStore(tmp_path / "sessions", durable=True)
    store.signing_key()
    made: list[tuple[str, int]] = []
    for _ in range(2):
        sid = store.create({"n": 0}).id
        with SystemCalls(only=("open", "rename", "link")) as calls:
            for number in range(8):  # long enough for the file to be replaced
                store.save(sid, {"text": "x" * 5000, "n": number})
        for call in calls.calls:
            if call.name == "open" and call.arguments[1] & os.O_CREAT:
                made.append((call.arguments[0], call.arguments[2]))
            elif call.name != "open":
                old, new = call.arguments[:2]
                assert os.path.dirname(old) == os.path.dirname(new)
                assert (old, 0o600) in made
    assert len(made) > 1
    endings = {os.path.basename(path).split(".")[2] for path, _ in made}
    assert len(endings) == len(made)
    assert {len(ending) for ending in endings} == {12}  # 48 random bits
    assert {mode for _, mode in made} == {0o600}
