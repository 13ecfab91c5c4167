"""What earlier versions wrote is read for ever, and what later ones write is left to them.

And JSON that nobody wrote, however deep, wide or large, harms no reader. The first format is here
as bytes. They are never to be changed: a directory out there has them.
"""

from __future__ import annotations

import math
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import SessionGone, StoreUnavailable
from filesession.stores import FileStore
from filesession.stores.entry import Entry
from filesession.stores.file.journal import line_of, seed_of
from filesession.testing import ManualClock

if TYPE_CHECKING:
    from tests.stores.conftest import Raw

MANIFEST_1: Final = b"""{
  "format": 1,
  "shard_depth": 2,
  "idle_timeout": 600.0,
  "absolute_timeout": null,
  "touch_interval": null,
  "durable": true
}
"""
KEY: Final = b"0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"

# Of a session whose id is "golden".
GOLDEN: Final = "dd/56/dd56de4137951d9c92681b03416ec15f"
CREATED_1: Final = (
    b'33daef28 {"format":1,"version":1,"lineage":"0123456789abcdef",'
    b'"created":1760000000.123456,"saved":1760000000.123456,"data":{}}\n'
)
SAVED_1: Final = (
    b'01ebadcf {"format":1,"version":2,"lineage":"0123456789abcdef",'
    b'"created":1760000000.123456,"saved":1760000100.5,"idle":3600.0,"absolute":null,'
    b'"cookie":{"max_age":3600,"data":[true]},"data":{"user":"ada","cart":["tea",{"n":1.5}],'
    b'"text":"\xc3\xbc\xe2\x80\xa8\xf0\x9f\x8d\xaa","none":null,"big":18446744073709551615}}\n'
)
# Of one whose id is "golden ended".
ENDED: Final = "da/44/da4405ec082afb5b652dd618c06fce52"
LIVE_1: Final = (
    b'8f805991 {"format":1,"version":7,"lineage":"fedcba9876543210","created":1760000000,'
    b'"saved":1760000001,"idle":null,"absolute":86400,"data":{"n":1}}\n'
)
ENDED_1: Final = (
    b'8499cd69 {"format":1,"version":8,"lineage":"fedcba9876543210","created":1760000000,'
    b'"saved":1760000001,"idle":null,"absolute":86400,"ended":true,"data":{"n":1}}\n'
)


@pytest.fixture
def old(directory: Path, clock: ManualClock) -> Path:
    """A directory as the first version left it."""
    directory.mkdir(0o700)
    for name, content in (
        ("filesession.json", MANIFEST_1),
        ("secret", KEY),
        (f"sessions/{GOLDEN}", CREATED_1 + SAVED_1),
        (f"sessions/{ENDED}", LIVE_1 + ENDED_1),
    ):
        path = directory / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
        os.utime(path, (1_760_000_100.5, 1_760_000_100.5))
    clock.now = 1_760_000_200.0
    return directory


def data_of(store: FileStore, sid: str) -> dict[str, Any] | None:
    record = store.load(sid)
    return None if record is None else record.data


class TestTheFirst:
    def test_a_directory_of_it_is_opened_as_it_was_used(
        self, old: Path, clock: ManualClock
    ) -> None:
        store = FileStore.open(old, clock=clock)
        assert store.lifetime.idle_timeout == 600
        assert store.lifetime.absolute_timeout is None
        assert store.signing_key() == KEY
        assert FileStore(old, idle_timeout=600, durable=True, clock=clock).signing_key() == KEY
        assert (old / "filesession.json").read_bytes() == MANIFEST_1

    def test_a_session_of_it_is_loaded_with_all_it_has(self, old: Path, clock: ManualClock) -> None:
        store = FileStore.open(old, clock=clock)
        record = store.load("golden")
        assert record is not None
        assert record.data == {
            "user": "ada",
            "cart": ["tea", {"n": 1.5}],
            "text": "\u00fc\u2028\U0001f36a",
            "none": None,
            "big": 2**64 - 1,
        }
        assert (record.version, record.lineage) == (2, "0123456789abcdef")
        assert (record.created_at, record.accessed_at) == (1760000000.123456, 1760000100.5)
        assert (record.idle_timeout, record.absolute_timeout) == (3600, None)
        assert record.cookie == {"max_age": 3600, "data": [True]}
        clock.advance(3560)
        assert store.load("golden") is not None  # up to a touch interval past its deadline
        clock.advance(1)
        assert store.load("golden") is None

    def test_one_that_was_refused_stays_refused(self, old: Path, clock: ManualClock) -> None:
        store = FileStore.open(old, clock=clock)
        assert store.load("golden ended") is None
        with pytest.raises(SessionGone):
            store.save("golden ended", {"n": 2})
        path = old / "sessions" / ENDED
        path.write_bytes(LIVE_1)
        assert data_of(store, "golden ended") == {"n": 1}

    def test_its_sessions_go_on(self, old: Path, clock: ManualClock) -> None:
        store = FileStore.open(old, clock=clock)
        base = store.load("golden")
        assert base is not None
        saved = store.save("golden", base.data | {"user": "eve"}, base=base)
        assert (saved.version, saved.cookie) == (3, base.cookie)
        content = (old / "sessions" / GOLDEN).read_bytes()
        assert content.startswith(CREATED_1 + SAVED_1)
        assert store.regenerate("golden").data == saved.data

    def test_an_earlier_line_counts_where_the_last_is_cut(
        self, old: Path, clock: ManualClock
    ) -> None:
        (old / "sessions" / GOLDEN).write_bytes(CREATED_1 + SAVED_1[:-1])
        assert data_of(FileStore.open(old, clock=clock), "golden") == {}

    def test_it_is_what_this_version_writes(self) -> None:
        """When that is no longer so, the bytes above stay, and those of a second format follow."""
        lineage, name = "0123456789abcdef", GOLDEN[-32:]
        created = Entry(1, lineage, 1760000000.123456, 1760000000.123456, b"{}")
        assert line_of(created, seed_of(name)) == CREATED_1
        ended = Entry(7, "fedcba9876543210", 1760000000, 1760000001, b'{"n":1}', None, 86400)
        assert line_of(ended, seed_of(ENDED[-32:])) == LIVE_1
        assert line_of(ended.as_ended(), seed_of(ENDED[-32:])) == ENDED_1


class TestALaterOne:
    """Its last whole line decides: whoever wrote it knows what became of the session."""

    @pytest.mark.parametrize(
        "tail",
        [b"", b'6904f2ea {"format":1,"vers', b"damage\n", bytes(64)],
        ids=["whole", "cut", "damage", "zeros"],
    )
    @pytest.mark.parametrize("above", [True, False], ids=["last", "only"])
    def test_where_it_is_the_last_whole_line_the_session_is_left_to_it(  # noqa: PLR0917 - fixtures
        self,
        store: FileStore,
        raw: Raw,
        clock: ManualClock,
        make_line: Callable[..., bytes],
        tail: bytes,
        above: bool,  # noqa: FBT001 - a parameter
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        later = make_line(path.name, format=2, data={"n": 9})
        content = (path.read_bytes() if above else b"") + later + tail
        path.write_bytes(content)
        os.utime(path, (clock.now, clock.now))
        clock.advance(100)
        for verb in (
            lambda: store.load("chosen"),
            lambda: store.save("chosen", {"n": 2}),
            lambda: store.touch("chosen"),
            lambda: store.regenerate("chosen"),
            lambda: store.lock("chosen").acquire(),
            lambda: store.inspect(path.name),
            lambda: store.create(sid="chosen"),
        ):
            with pytest.raises(StoreUnavailable, match="saved by a newer version"):
                verb()
        clock.advance(10**6)
        assert store.sweep().failed == 1
        assert path.read_bytes() == content
        assert path.stat().st_mtime == clock.now - 10**6 - 100
        assert raw.set_aside() == []

    def test_where_a_line_of_ours_follows_that_is_the_session(
        self, store: FileStore, raw: Raw, make_line: Callable[..., bytes]
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        later = make_line(path.name, format=2, data={"n": 9})
        path.write_bytes(later + path.read_bytes())
        assert data_of(store, "chosen") == {"n": 1}

    def test_one_that_is_damaged_is_damage(
        self, store: FileStore, raw: Raw, make_line: Callable[..., bytes]
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        later = make_line(path.name, format=2, data={"n": 9})
        for place in range(len(later)):
            damaged = bytearray(later)
            damaged[place] ^= 1
            path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"\n") + 1] + damaged)
            assert data_of(store, "chosen") == {"n": 1}


class HangsError(BaseException):
    """Not caught by anything that catches errors."""


HEADER: Final = (
    b'{"format":1,"version":1,"lineage":"ab","created":1760000000.5,"saved":1760000000.5'
)


class TestWhatNobodyWrote:
    """With a right checksum, as whoever knows the file's name can make one."""

    @pytest.fixture(autouse=True)
    def _soon(self) -> Iterator[None]:
        """Ends what takes much longer than to read it all."""

        def hangs(signum: int, frame: object) -> None:
            raise HangsError

        before = signal.signal(signal.SIGALRM, hangs)
        signal.setitimer(signal.ITIMER_REAL, 5)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    @pytest.fixture
    def holding(self, store: FileStore, raw: Raw, clock: ManualClock) -> Callable[[bytes], None]:
        """Make it the only line of the chosen session."""
        path = raw.path(store.create({"n": 1}, sid="chosen").id)
        store.create({"other": True}, sid="other")

        def hold(body: bytes) -> None:
            path.write_bytes(b"%08x %b\n" % (zlib.crc32(path.name.encode() + body), body))
            os.utime(path, (clock.now, clock.now))

        return hold

    @pytest.mark.parametrize(
        "data",
        [
            b"[" * 100_000 + b"]" * 100_000,
            b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            b'{"n":1' + b"0" * 400 + b"}",
            b'{"n":1' + b"0" * 10**6 + b"}",
            b'{"n":-1e999}',
            b'{"n":NaN}',
            b'{"n":"\xff"}',
            b"[]",
            b"",
        ],
        ids=["lists", "dicts", "large", "huge", "infinite", "NaN", "no UTF-8", "a list", "nothing"],
    )
    def test_data_that_cannot_be_read_is_an_error_and_stays(
        self, store: FileStore, raw: Raw, holding: Callable[[bytes], None], data: bytes
    ) -> None:
        holding(HEADER + b',"data":' + data + b"}")
        content = raw.path("chosen").read_bytes()
        for verb in (
            lambda: store.load("chosen"),
            lambda: store.lock("chosen").acquire(),
            lambda: store.inspect(raw.name("chosen")),
        ):
            with pytest.raises(StoreUnavailable, match="codec cannot read it"):
                verb()
        report = store.sweep()
        assert (report.corrupt, report.failed) == (0, 0)
        assert len(list(store.scan())) == 2
        assert raw.path("chosen").read_bytes() == content
        assert data_of(store, "other") == {"other": True}
        assert store.delete("chosen") is True

    @pytest.mark.parametrize(
        "header",
        [
            b',"cookie":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            b',"cookie":' + b"[" * 100_000 + b"]" * 100_000,
            b',"cookie":{"a":1' + b',"data":1' * 100_000,
            b',"cookie":{"a":"' + b',"data":{}' * 100_000,
            b',"idle":1' + b"0" * 10**6,
        ],
        ids=["deep", "deep lists", "data over and over", "data in text", "huge"],
    )
    def test_a_header_that_cannot_be_read_is_damage(
        self, store: FileStore, raw: Raw, holding: Callable[[bytes], None], header: bytes
    ) -> None:
        holding(HEADER + header + b',"data":{}}')
        assert store.load("chosen") is None
        assert len(raw.set_aside()) == 1
        assert data_of(store, "other") == {"other": True}

    def test_a_million_keys_are_read_and_a_save_makes_fewer_of_them(
        self, store: FileStore, holding: Callable[[bytes], None]
    ) -> None:
        holding(HEADER + b',"data":{' + b",".join(b'"%x":0' % n for n in range(10**6)) + b"}}")
        data = data_of(store, "chosen")
        assert data is not None
        assert (len(data), data["f423f"]) == (10**6, 0)
        assert store.save("chosen", {"n": 2}).data == {"n": 2}
        assert data_of(store, "chosen") == {"n": 2}

    @pytest.mark.parametrize("member", ["created", "saved", "idle", "absolute", "version"])
    @pytest.mark.parametrize(
        "value",
        [
            *("-1e308", "1e308", "0", "-0.0", "1e-320", "-1", str(2**63), str(-(2**63))),
            *("1" + "0" * 30, "null", "true", '"1"', "[]", "{}"),
        ],
    )
    def test_whatever_number_it_gives_each_verb_has_an_answer(
        self,
        store: FileStore,
        holding: Callable[[bytes], None],
        clock: ManualClock,
        member: str,
        value: str,
    ) -> None:
        header = HEADER
        for one in (b'"created":1760000000.5', b'"saved":1760000000.5', b'"version":1'):
            if one.startswith(f'"{member}"'.encode()):
                header = header.replace(one, f'"{member}":{value}'.encode())
        if header is HEADER:
            header += f',"{member}":{value}'.encode()
        clock.advance(100)
        for verb in (
            lambda: store.load("chosen"),
            lambda: store.touch("chosen"),
            store.sweep,
            lambda: list(store.scan()),
            lambda: store.inspect("0" * 32),
            lambda: store.save("chosen", {"n": 2}, idle_timeout=timedelta(hours=1)),
            lambda: store.regenerate("chosen", new_sid="third"),
        ):
            holding(header + b',"data":{"n":1}}')
            try:
                answer = verb()
            except SessionGone:
                continue
            expires = getattr(answer, "expires_at", None)
            assert expires is None or not math.isnan(expires)
            store.delete("third")
            if store.load("chosen") is None:
                store.delete("chosen")
                store.create({"n": 1}, sid="chosen")
        assert data_of(store, "other") == {"other": True}
