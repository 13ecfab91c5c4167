"""Files encrypted at rest: what they give away, whose they are, and who can do without the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from filesession import Janitor, wsgi
from filesession.cli.command import commands
from filesession.codec import JSONCodec
from filesession.encryption import EncryptedCodec
from filesession.errors import EncodeError, StoreUnavailable
from filesession.stores import FileStore, MemoryStore
from tests.stores.conftest import line_for

if TYPE_CHECKING:
    from filesession.testing import ManualClock
    from tests.stores.conftest import Raw

KEY: Final = bytes(range(1, 33))
OLD: Final = b"\x5a" * 32

DATA: Final[dict[str, Any]] = {"user": "ada", "cart": ["tea"]}


@pytest.fixture
def opened(directory: Path, clock: ManualClock) -> Callable[..., FileStore]:
    """The store of the directory, with a key or several."""

    def open_with(*keys: bytes, **options: Any) -> FileStore:
        return FileStore(directory, codec=EncryptedCodec(keys), clock=clock, **options)

    return open_with


@pytest.fixture
def store(opened: Callable[..., FileStore]) -> FileStore:
    return opened(KEY)


# -- what is written ------------------------------------------------------------------------------


def test_the_data_is_nowhere_in_the_directory(store: FileStore, directory: Path) -> None:
    record = store.create({**DATA, "n": 1}, cookie={"max_age": 60})
    record = store.save(record.id, DATA, base=record)
    store.regenerate(record.id, base=record)
    for path in directory.rglob("*"):
        if path.is_file():
            assert b"ada" not in path.read_bytes()


def test_it_stands_in_the_line_as_text(store: FileStore, raw: Raw) -> None:
    record = store.create(DATA)
    (line,) = raw.lines(record.id)
    codec = EncryptedCodec(KEY).bound_to(raw.name(record.id))
    assert codec.decode(json.dumps(line["data"]).encode()) == DATA


def test_with_the_key_a_session_is_inspected_by_its_name(store: FileStore) -> None:
    store.create(DATA)
    (info,) = store.scan()
    assert store.inspect(info.handle) == (info, DATA)


def test_two_of_the_same_data_have_nothing_in_common() -> None:
    codec = EncryptedCodec(KEY)
    one, other = codec.encode(DATA), codec.encode(DATA)
    assert one[:20] != other[:20]
    assert codec.decode(one) == codec.decode(other) == DATA


# -- whose it is ----------------------------------------------------------------------------------


def test_a_line_put_into_another_sessions_file_is_an_error_and_stays(
    store: FileStore, raw: Raw
) -> None:
    """By somebody who knows how a line is made: the checksum is right."""
    one, other = store.create({"user": "ada"}), store.create({"user": "eve"})
    (line,) = raw.lines(one.id)
    path = raw.path(other.id)
    forged = line_for(path.name, data=line["data"])
    path.write_bytes(forged)
    with pytest.raises(StoreUnavailable, match="another key, or is another session's"):
        store.load(other.id)
    assert path.read_bytes() == forged
    path.write_bytes(line_for(path.name, data={"user": "root"}))
    with pytest.raises(StoreUnavailable, match="it is not encrypted"):
        store.load(other.id)
    assert raw.set_aside() == []


def test_a_new_id_takes_the_data_along(store: FileStore) -> None:
    old = store.create(DATA)
    new = store.regenerate(old.id)
    loaded = store.load(new.id)
    assert loaded is not None
    assert (loaded.data, store.load(old.id)) == (DATA, None)
    newest = store.regenerate(new.id, {**DATA, "n": 1}, base=loaded)
    assert newest.data == {**DATA, "n": 1}
    assert store.load(newest.id) == newest


def test_a_new_id_merges_what_others_saved(store: FileStore) -> None:
    base = store.create({"a": 1, "b": 1})
    store.save(base.id, {"a": 1, "b": 2}, base=base)
    new = store.regenerate(base.id, {"a": 2, "b": 1}, base=base)
    loaded = store.load(new.id)
    assert loaded is not None
    assert loaded.data == {"a": 2, "b": 2}


def test_within_the_grace_the_old_id_leads_to_it(opened: Callable[..., FileStore]) -> None:
    store = opened(KEY, regenerate_grace=5)
    old = store.create(DATA)
    store.regenerate(old.id)
    found = store.load(old.id)
    assert found is not None
    assert (found.data, found.forwarded) == (DATA, True)


# -- keys -----------------------------------------------------------------------------------------


def test_every_key_decrypts_and_the_newest_encrypts(
    opened: Callable[..., FileStore], clock: ManualClock
) -> None:
    sid = opened(OLD).create(DATA).id
    both = opened(KEY, OLD)
    loaded = both.load(sid)
    assert loaded is not None
    assert loaded.data == DATA
    both.save(sid, {**DATA, "n": 1}, base=loaded)
    found = opened(KEY).load(sid)
    assert found is not None
    assert found.data == {**DATA, "n": 1}
    with pytest.raises(StoreUnavailable, match="another key"):
        opened(OLD).load(sid)


@pytest.mark.parametrize("other", [[OLD], None], ids=["another key", "no key"])
def test_with_another_key_nothing_is_moved_aside_nor_lost(
    directory: Path, store: FileStore, raw: Raw, clock: ManualClock, other: Any
) -> None:
    sid = store.create(DATA).id
    before = raw.path(sid).read_bytes()
    codec = JSONCodec() if other is None else EncryptedCodec(other)
    wrong = FileStore(directory, codec=codec, clock=clock)
    refused = pytest.raises(StoreUnavailable, match="codec cannot read it")
    with refused:
        wrong.load(sid)
    with refused:
        wrong.regenerate(sid)
    with refused, wrong.lock(sid):
        raise AssertionError
    assert (raw.path(sid).read_bytes(), raw.set_aside()) == (before, [])
    assert store.load(sid) is not None


# -- through a session ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_look_at_a_session_is_no_change_and_a_nested_one_is(
    store: FileStore, clock: ManualClock, kind: str
) -> None:
    used: Any = store
    if kind == "memory":
        used = MemoryStore(codec=EncryptedCodec(KEY), clock=clock)
    saved: list[dict[str, Any]] = []
    act: Any = None
    held = ""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        act(environ["filesession.session"])
        start_response("200 OK", [])
        return [b"page"]

    def start_response(status: str, headers: Any) -> Any:
        nonlocal held
        found = dict(headers).get("set-cookie")
        held = found.partition(";")[0] if found else held

    save = used.save

    def noted(sid: str, data: Any, **keywords: Any) -> Any:
        saved.append(data)
        return save(sid, data, **keywords)

    used.save = noted
    middleware = wsgi.SessionMiddleware(app, used, "secret")

    def request(what: Any) -> list[dict[str, Any]]:
        nonlocal act
        act = what
        saved.clear()
        middleware(
            {"HTTP_COOKIE": held, "wsgi.url_scheme": "http", "REQUEST_METHOD": "GET"},
            start_response,
        )
        return list(saved)

    request(lambda session: session.update(DATA))
    assert request(lambda session: session["cart"][0]) == []
    both = {"user": "ada", "cart": ["tea", "milk"]}
    assert request(lambda session: session["cart"].append("milk")) == [both]
    found: list[Any] = []
    request(lambda session: found.append(dict(session)))
    assert found == [both]


# -- without the key ------------------------------------------------------------------------------


def run(*arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments)


def test_showing_says_that_it_needs_the_key(directory: Path, raw: Raw) -> None:
    sid = FileStore(directory, codec=EncryptedCodec(KEY)).create(DATA).id
    shown = run("show", str(directory), raw.name(sid))
    assert shown.exit_code == 2
    assert "is encrypted: to show it needs the key" in shown.stderr
    assert "ada" not in shown.output
    assert raw.set_aside() == []


def test_the_rest_of_the_command_needs_none(directory: Path, raw: Raw) -> None:
    store = FileStore(directory, codec=EncryptedCodec(KEY))
    sid = store.create(DATA).id
    listed = run("ls", str(directory), "--json")
    assert [json.loads(line)["handle"] for line in listed.stdout.splitlines()] == [raw.name(sid)]
    wrong = [line for line in run("doctor", str(directory)).output.splitlines() if "wrong" in line]
    assert [line.split()[:2] for line in wrong] == [["wrong", "janitor"]]  # none runs here
    swept = run("sweep", str(directory), "--dry-run")
    assert (swept.exit_code, "looked through 1 session" in swept.output) == (0, True)
    assert run("destroy", str(directory), raw.name(sid)).exit_code == 0
    assert store.load(sid) is None


def test_the_janitor_removes_what_is_due_without_it(
    directory: Path, store: FileStore, clock: ManualClock, raw: Raw
) -> None:
    due, kept = store.create(DATA).id, store.create(DATA, idle_timeout=90_000).id
    clock.advance(80_000)
    with_no_key = FileStore.open(directory, clock=clock)
    assert Janitor(with_no_key).sweep_once().expired == 1
    assert not raw.path(due).exists()
    assert store.load(kept) is not None
    assert raw.set_aside() == []


# -- the codec by itself --------------------------------------------------------------------------


def test_what_json_cannot_hold_is_refused_as_ever() -> None:
    with pytest.raises(EncodeError, match=r"cart\[0\]"):
        EncryptedCodec(KEY).encode({"cart": [object()]})


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_with_any_bit_flipped_it_is_refused(data: st.DataObject) -> None:
    codec = EncryptedCodec(KEY).bound_to("a")
    text = bytearray(codec.encode(DATA))
    at = data.draw(st.integers(0, len(text) * 8 - 1))
    text[at // 8] ^= 1 << at % 8
    with pytest.raises(ValueError, match=r"not encrypted|another key"):
        codec.decode(bytes(text))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda raw: b'"' + raw + b'"'))
def test_any_bytes_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"not encrypted|another key"):
        EncryptedCodec(KEY).decode(text)
