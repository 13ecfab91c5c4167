"""Ids: where they come from, and what becomes of those that others send.

The random source is replaced by one that is watched, or fails. Cookies of every forged kind are
sent through both gateways, and the directory is compared with what it was. Everything a thief can
read in the directory is tried as a cookie.
"""

from __future__ import annotations

import base64
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.cookies import signing
from filesession.cookies.header import encode_value
from filesession.cookies.signing import Signer
from filesession.stores import FileStore, MemoryStore
from filesession.stores.entry import new_id

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, RecordingStore, Site

SECRET: Final = "the newest secret"
MIB: Final = 1 << 20


# -- where they come from -------------------------------------------------------------------------


def test_an_id_is_256_bits_of_the_systems_random_source_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def source(count: int) -> bytes:
        asked.append(count)
        return bytes(range(100, 100 + count))

    monkeypatch.setattr(random, "_urandom", source)
    sid = new_id()
    assert asked == [32]
    assert base64.urlsafe_b64decode(f"{sid}=") == source(32)


def test_ids_are_spread_evenly_and_have_no_form() -> None:
    ids = [new_id() for _ in range(4096)]
    assert len(set(ids)) == 4096
    assert {len(sid) for sid in ids} == {43}
    for position in range(42):  # the last character holds 4 bits
        found = Counter(sid[position] for sid in ids)
        assert len(found) == 64
        assert max(found.values()) < 64 + 8 * 8  # eight standard deviations from 4096 / 64
    assert not any(re.fullmatch(r"[0-9a-fA-F-]+", sid) for sid in ids)


def broken(count: int) -> bytes:
    msg = "the system has no random numbers"
    raise NotImplementedError(msg)


@pytest.fixture(params=["file", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return FileStore(tmp_path / "sessions") if request.param == "file" else MemoryStore()


def test_without_a_random_source_there_is_no_session_and_no_weaker_one(
    any_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = any_store.create({"user": "ada"})
    with monkeypatch.context() as without:
        without.setattr(random, "_urandom", broken)
        for call in (any_store.create, lambda: any_store.regenerate(record.id)):
            with pytest.raises(NotImplementedError):
                call()
    assert len(any_store) == 1
    assert any_store.load(record.id) == record


def test_without_a_random_source_there_is_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "sessions")
    monkeypatch.setattr(random, "_urandom", broken)
    with pytest.raises(NotImplementedError):
        store.signing_key()
    assert not list((tmp_path / "sessions").glob("secret*"))


def test_without_a_random_source_a_visitor_gets_an_error_and_no_cookie(
    site: Site, store: RecordingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(here: Here) -> None:
        here.session["seen"] = True

    monkeypatch.setattr(random, "_urandom", broken)
    with pytest.raises(NotImplementedError):
        site.request(write)
    assert site.events == []
    assert store.ids() == 0


# -- those that others send -----------------------------------------------------------------------


def forged(sid: str) -> Iterator[tuple[str, str]]:
    """(what it is, the value) of cookies that no secret of ours has signed."""
    genuine = Signer(SECRET).sign(sid)
    mac = genuine.rpartition(".")[2]
    yield from {
        "an id alone": sid,
        "an id without its signature": f"s:{sid}",
        "another's signature": Signer("another secret").sign(sid),
        "another id under it": f"s:{sid[::-1]}.{mac}",
        "cut short": genuine[:-1],
        "made longer": f"{genuine}A",
        "of another case": genuine.swapcase(),
        "without an id": f"s:.{mac}",
        "the prefix alone": "s:",
        "nothing": "",
        "a path": f"s:../../../../etc/passwd.{mac}",
        "a NUL": f"s:{sid[:9]}%00{sid[9:]}.{mac}",
        "a line": f"s:{sid}%0d%0aSet-Cookie: a=b.{mac}",
        "a letter that looks the same": f"%ef%bd%93:{sid}.{mac}",
        "half an escape": f"s%3{sid}.{mac}",
        "bytes of no text": f"s:%ff%fe{sid}.{mac}",
        "a lone surrogate": f"s:%ed%a0%80{sid}.{mac}",
        "quotes": f'""{genuine}""',
        "another format": "eyJ1c2VyIjoiYWRhIn0.aZ.bQ",
        "1 MiB": f"s:{'a' * MIB}.{mac}",
        "1 MiB of dots": f"s:{'.' * MIB}",
        "1 MiB of escapes": "%41" * (MIB // 3),
        "1 MiB of broken ones": "%" * MIB,
    }.items()


def everything_in(directory: Path) -> list[tuple[Path, int, int]]:
    return [
        (path, path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in sorted(directory.rglob("*"))
    ]


def test_a_forged_cookie_of_any_kind_is_a_new_session_and_touches_no_disk(
    site: Site, store: RecordingStore, sid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests: list[int] = []
    real = signing._mac

    def counted(secret: bytes, message: bytes) -> bytes:
        digests.append(len(message))
        return real(secret, message)

    monkeypatch.setattr(signing, "_mac", counted)
    cookies = list(forged(sid))
    assert digests.pop(0)  # of the genuine one that the others are made from
    digests.clear()
    directory = Path(store.directory)
    before = everything_in(directory)
    for what, value in cookies:
        seen: list[Any] = []

        def look(here: Here, seen: list[Any] = seen) -> None:
            seen.append((dict(here.session), here.session.is_new))

        sent = value.encode("latin-1", "replace").decode("latin-1")
        answer = site.request(look, cookie=f"sid={sent}")
        assert (answer.status, answer.set_cookie, seen) == (200, None, [({}, True)]), what
        assert len(digests) <= 1, what
        assert all(length <= 1024 for length in digests), what
        digests.clear()
    assert store.calls == []
    assert everything_in(directory) == before


@pytest.mark.parametrize(
    "unknown",
    ["never-given-out", "../../secret", "a" * 256, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 200],
    ids=["plain", "a path", "long", "not ASCII"],
)
def test_a_signed_id_that_the_store_never_gave_out_is_not_adopted_and_touches_no_disk(
    site: Site, store: RecordingStore, cookie_of: Callable[..., str], unknown: str
) -> None:
    store.create({"user": "ada"})
    store.calls.clear()
    before = everything_in(Path(store.directory))
    seen: list[Any] = []
    site.request(lambda here: seen.append(dict(here.session)), cookie=cookie_of(unknown))
    assert (seen, store.calls) == ([{}], ["load"])
    assert everything_in(Path(store.directory)) == before

    def write(here: Here) -> None:
        here.session["user"] = "eve"

    assert site.request(write, cookie=cookie_of(unknown)).sid != unknown
    assert store.load(unknown) is None


# -- those that a thief finds ---------------------------------------------------------------------


def test_nothing_that_is_read_in_the_directory_opens_a_session(
    tmp_path: Path, make_site: Callable[..., Site]
) -> None:
    directory = tmp_path / "sessions"
    store = FileStore(directory, regenerate_grace=10)
    key = store.signing_key()
    records = [store.create({"user": f"user{n}", "token": f"abc{n}"}) for n in range(3)]
    store.save(records[0].id, {"user": "ada"})
    moved = store.regenerate(records[1].id)
    next(directory.glob("sessions/*/*")).with_name("f" * 32).write_bytes(b"damage")
    store.sweep()
    words = set(found_in(directory))
    assert {"ada", "user2", key.decode()} <= words
    assert not {moved.id, *(record.id for record in records)} & words
    # Signed with the directory's own key, which a backup has in it, too.
    assert [word for word in words if store.load(word) is not None] == []
    site = make_site(store=store, secret=None)
    seen: list[Any] = []
    values = [value for word in words for value in (word, f"s:{word}")]
    header = "; ".join(f"sid={encode_value(value)}" for value in values)
    site.request(lambda here: seen.append(dict(here.session)), cookie=header)
    for word in sorted(words)[:40]:
        signed = encode_value(Signer(key).sign(word[:256]))
        site.request(lambda here: seen.append(dict(here.session)), cookie=f"sid={signed}")
    assert {repr(data) for data in seen} == {"{}"}


def found_in(directory: Path) -> Iterator[str]:
    """Every name and every piece of content, whole and taken apart."""
    for path in directory.rglob("*"):
        yield path.name
        yield str(path)
        yield from re.findall(r"[0-9A-Za-z_-]+", path.name)
        if path.is_file():
            text = path.read_text("utf-8", "replace")
            yield text
            yield from text.splitlines()
            yield from text.split()
            yield from re.findall(r"[0-9A-Za-z_-]+", text)
            yield from re.findall(r"[0-9A-Za-z_.-]+", text)
