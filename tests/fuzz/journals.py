"""Session files as a fuzzer sees them: what a journal says by the README, and every verb on it.

``meaning`` reads a journal without the package's own reading of lines, so that whatever bytes lie
at a session's name, what the store must make of them is known.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from filesession import FileStore
from filesession.cli.doctor import examine
from filesession.codec import JSONCodec, load_object
from filesession.errors import SessionExists, SessionGone, StoreUnavailable
from filesession.stores.entry import Entry, handle_of
from filesession.stores.file.journal import line_of, sealed, seed_of
from filesession.testing import ManualClock
from filesession.testing.clock import START
from tests.fuzz.command import run_command

FUZZED: Final = "the fuzzed one"
OTHER: Final = "the other one"
MOVED: Final = "the moved one"
NAME: Final = handle_of(FUZZED) or ""
IDLE: Final = 1800.0

REPAIRED: Final = 0x80
"""In the first byte of an input: every line is given its right checksum."""

_MOST_LINES: Final = 1000
_VERSIONS: Final = 2**53
_DATA: Final = b',"data":'
_NUMBERS: Final = ("created", "saved")

Kind: TypeAlias = Literal["live", "ended", "over", "unreadable", "newer", "nothing"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a journal says.

    ``unreadable``: whole and alive, but with data that is none of plain JSON; ``over``: expired,
    and nobody was told yet; ``nothing``: no whole line.
    """

    kind: Kind
    head: dict[str, Any]
    text: bytes = b""

    @property
    def is_alive(self) -> bool:
        return self.kind in {"live", "unreadable"}

    @property
    def data(self) -> dict[str, Any]:
        return JSONCodec().decode(self.text)

    @property
    def may_be_counted_on(self) -> bool:
        """A version that could be reached: no session is saved 2**53 times."""
        return bool(self.head.get("version", 0) < _VERSIONS - 16)


def meaning(content: bytes, name: str, now: float, accessed: float) -> Meaning:
    """What must be made of a file of that name and content."""
    lines = content.split(b"\n")[:-1]
    for line in lines[: -_MOST_LINES - 1 : -1]:
        body = line[9:]
        if line[:9] != b"%08x " % zlib.crc32(name.encode() + body):
            continue
        head, text = _halves(body)
        if head is None or "format" not in head:
            continue
        if head["format"] != 1:
            return Meaning("newer", head)
        if _is_well_formed(head):
            return Meaning(_kind(head, text, now, accessed), head, text)
    return Meaning("nothing", {})


def _halves(body: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """The line's members and the text of its data: the first cut that leaves an object before."""
    at = body.find(_DATA)
    while at >= 0:
        try:
            return load_object(body[:at] + b"}"), body[at + len(_DATA) : -1]
        except ValueError:
            at = body.find(_DATA, at + 1)
    return None, b""


def _is_well_formed(head: dict[str, Any]) -> bool:
    version = head.get("version")
    cookie = head.get("cookie", {})
    return (
        type(version) is int
        and 0 < version < _VERSIONS
        and type(head.get("lineage")) is str
        and all(type(head.get(each)) in {int, float} for each in _NUMBERS)
        and all(type(head.get(each)) in {int, float, type(None)} for each in ("idle", "absolute"))
        and type(cookie) is dict
        and _depth(cookie) < 200
    )


def _depth(value: Any) -> int:
    levels, layer = 0, [value]
    while layer:
        layer = [each for each in layer if isinstance(each, (dict, list))]
        levels += bool(layer)
        layer = [
            inner for each in layer for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return levels


def _kind(head: dict[str, Any], text: bytes, now: float, accessed: float) -> Kind:
    if "ended" in head:
        return "ended"
    idle, absolute = head.get("idle", IDLE), head.get("absolute")
    if idle is not None and now > accessed + idle + min(idle / 20, 60):
        return "over"
    if absolute is not None and now > head["created"] + absolute:
        return "over"
    try:
        JSONCodec().decode(text)
    except ValueError:
        return "unreadable"
    return "live"


class SessionFiles:
    """A directory in which one session's file is whatever a fuzzer says, beside a good one."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.store = FileStore(directory / "sessions", clock=self.clock, idle_timeout=IDLE)
        self.store.create({"who": "other"}, sid=OTHER)
        self.store.create({}, sid=FUZZED)
        self.root = directory / "sessions"
        self.path = self.root / "sessions" / NAME[:2] / NAME
        self.corrupt = self.root / "corrupt"

    def __call__(self, data: bytes) -> None:
        """An input: a byte that says how, and the file's content."""
        how, content = (data[0], data[1:]) if data else (0, b"")
        if how & REPAIRED:
            content = with_checksums(content)
        self.check(content, STEPS[how % len(STEPS)])

    def check(self, content: bytes, step: Step) -> None:
        """What is loaded, what is left of the file, and one more verb on it."""
        try:
            said = self.put(content)
            self._check_load(content, said)
            if said.kind != "over" or said.may_be_counted_on:
                step(self, content, self.put(content))
            self._check_other()
        except BaseException:
            self.store.delete(MOVED)  # what fails now must not fail the next input as well
            raise
        finally:
            self._clear()

    def put(self, content: bytes) -> Meaning:
        self._clear()
        self.clock.now = START
        self.path.write_bytes(content)
        self.path.chmod(0o600)
        os.utime(self.path, (START, START))
        return meaning(content, NAME, START, min(START, self.path.stat().st_mtime))

    def found(self, sid: str = FUZZED) -> Any:
        """What a load gives, as the version, lineage, time and data, or the error it raises."""
        try:
            record = self.store.load(sid)
        except StoreUnavailable:
            return StoreUnavailable
        if record is None:
            return None
        return record.version, record.lineage, record.created_at, repr(record.data)

    def _check_load(self, content: bytes, said: Meaning) -> None:
        head = said.head
        assert self.found() == (
            (head["version"], head["lineage"], head["created"], repr(said.data))
            if said.kind == "live"
            else StoreUnavailable
            if said.kind in {"unreadable", "newer"}
            else None
        )
        if said.kind == "nothing" and content:
            assert not self.path.exists()
            assert [path.read_bytes() for path in self.corrupt.iterdir()] == [content]
        elif said.kind == "over" and said.may_be_counted_on:
            assert self.path.read_bytes().startswith(content)
            self.clock.now = min(START, said.head["created"])
            assert self.found() is None  # whatever the clock says now
        else:
            assert self.path.read_bytes() == content
        assert said.kind == "live" or not isinstance(self.found(), tuple)

    def _check_other(self) -> None:
        self.clock.now = START
        record = self.store.load(OTHER)
        assert record is not None
        assert (record.version, record.data) == (1, {"who": "other"})

    def _clear(self) -> None:
        self.path.unlink(missing_ok=True)
        if self.corrupt.exists():
            for path in self.corrupt.iterdir():
                path.unlink()


def error_of(call: Callable[[], object]) -> type[Exception] | None:
    """The kind of error of ours that a call raises; None: none."""
    try:
        call()
    except (SessionExists, SessionGone, StoreUnavailable) as error:
        return type(error) if str(error) else None
    return None


_REFUSED: Final[dict[Kind, type[Exception] | None]] = {
    "live": None,
    **dict.fromkeys(("ended", "over", "nothing"), SessionGone),
    **dict.fromkeys(("unreadable", "newer"), StoreUnavailable),
}
"""What a change of a session is refused with, by what its file says."""

Step: TypeAlias = Callable[[SessionFiles, bytes, Meaning], None]


def listed(files: SessionFiles, content: bytes, said: Meaning) -> None:
    handles = {info.handle for info in files.store.scan()}
    assert handles == {handle_of(OTHER)} | ({NAME} - {NAME * (said.kind in {"nothing", "newer"})})
    assert len(files.store) == 2
    try:
        found = files.store.inspect(NAME)
    except StoreUnavailable:
        assert said.kind in {"newer", "unreadable", "ended", "over"}
    else:
        assert (found is None) == (said.kind == "nothing")
        assert found is None or repr(found[1]) == repr(said.data)
    assert files.path.read_bytes() == content


def swept(files: SessionFiles, content: bytes, said: Meaning) -> None:
    before = files.store.sweep(dry_run=True)
    assert files.path.read_bytes() == content
    assert (before.expired, before.failed) == (int(not files.path.exists()), 0) or not said.is_alive
    report = files.store.sweep()
    assert (report.expired, report.failed) == (before.expired, before.failed)
    assert report.failed == (said.kind == "newer")
    assert report.expired == (not files.path.exists())
    if said.kind in {"live", "unreadable", "newer", "nothing"}:
        assert files.path.read_bytes().startswith(content)
    if said.kind == "live":
        version, lineage, _, data = files.found()
        assert (version, lineage, data) == (said.head["version"], said.head["lineage"], _repr(said))


def saved(files: SessionFiles, _content: bytes, said: Meaning) -> None:
    error = error_of(lambda: files.store.save(FUZZED, {"new": [1]}))
    assert error is {**_REFUSED, "unreadable": None}[said.kind]
    if error is None and said.may_be_counted_on:
        version, lineage, _, data = files.found()
        assert (version, lineage) == (said.head["version"] + 1, said.head["lineage"])
        assert data == _NEW


def moved(files: SessionFiles, content: bytes, said: Meaning) -> None:
    if not said.may_be_counted_on:
        return
    error = error_of(lambda: files.store.regenerate(FUZZED, new_sid=MOVED))
    assert error is _REFUSED[said.kind]
    if error is None:
        assert files.found() is None
        assert files.found(MOVED)[1::2] == (said.head["lineage"], _repr(said))
        assert files.store.delete(MOVED)
    else:
        assert files.store.load(MOVED) is None
        assert error is SessionGone or files.path.read_bytes() == content


def touched(files: SessionFiles, content: bytes, said: Meaning) -> None:
    files.clock.advance(100)
    try:
        live = files.store.touch(FUZZED)
    except StoreUnavailable:
        assert said.kind == "newer"
    else:
        assert not live or said.is_alive
        if said.is_alive and live:
            assert files.path.stat().st_mtime == files.clock.now
    assert files.path.read_bytes().startswith(content)


def deleted(files: SessionFiles, _content: bytes, said: Meaning) -> None:
    assert files.store.delete(FUZZED) is (said.is_alive or said.kind == "newer")
    assert not files.path.exists()


def locked(files: SessionFiles, content: bytes, said: Meaning) -> None:
    def change() -> None:
        with files.store.lock(FUZZED, timeout=0) as record:
            assert repr(record.data) == _repr(said)
            files.store.save(FUZZED, {"new": [1]})

    error = error_of(change)
    assert error is _REFUSED[said.kind]
    if error is None:
        assert files.found()[3] == _NEW or not said.may_be_counted_on
    elif error is StoreUnavailable:
        assert files.path.read_bytes() == content


def made_anew(files: SessionFiles, content: bytes, said: Meaning) -> None:
    error = error_of(lambda: files.store.create({"new": [1]}, sid=FUZZED))
    if error is None:
        assert said.kind in {"nothing", "ended", "over"}
        assert files.found()[::3] == (1, _NEW)
    else:
        assert error is (SessionExists if said.is_alive else StoreUnavailable)
        assert said.is_alive or said.kind == "newer"
        assert files.path.read_bytes() == content


def examined(files: SessionFiles, content: bytes, said: Meaning) -> None:
    wrong = {each.check for each in examine(str(files.root)) if each.level == "wrong"} - {"disk"}
    expected = {"nothing": {"content"}, "newer": {"reading"}}.get(said.kind, set())
    assert wrong == {"janitor"} | expected
    assert files.path.read_bytes() == content


def shown(files: SessionFiles, content: bytes, said: Meaning) -> None:
    result = run_command("show", str(files.root), NAME)
    readable = said.kind not in {"newer", "unreadable"}
    if said.kind in {"live", "newer", "unreadable", "nothing"}:
        assert result.exit_code == (0 if said.kind == "live" else 2)
    if readable and result.exit_code == 0:
        told = json.loads(result.stdout)
        assert repr(told["data"]) == _repr(said)
    assert result.exit_code in {0, 2}
    assert files.path.read_bytes() == content


STEPS: Final[tuple[Step, ...]] = (
    *(listed, swept, saved, moved, touched),
    *(deleted, locked, made_anew, examined, shown),
)

_NEW: Final = repr({"new": [1]})


def _repr(said: Meaning) -> str:
    return repr(said.data)


def with_checksums(content: bytes) -> bytes:
    """The same lines, each with the checksum that makes it whole."""
    *lines, tail = content.split(b"\n")
    return b"".join(sealed(line[9:], seed_of(NAME)) for line in lines) + tail


FIRST: Final = Entry(1, "aa", START - 90, START - 90, b'{"n":1}')
ENTRIES: Final = (
    FIRST,
    Entry(2, "aa", START - 90, START - 60, b'{"n":2,"text":"\xc3\xbc"}', idle=600.0),
    Entry(3, "aa", START - 90, START - 30, b'{"n":3}', 600.0, 9e4, {"max_age": 5, "data": {}}),
    Entry(4, "aa", START - 90, START - 1, b'{"data":{"data":[1,{"data":null}]}}', None, None),
)
LINES: Final = tuple(line_of(entry, seed_of(NAME)) for entry in ENTRIES)


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"0" + b"}" * levels


def line_with(cookie: bytes, data: bytes) -> bytes:
    """A whole line with texts that no store writes."""
    head = b'{"format":1,"version":7,"lineage":"aa","created":1759999000,"saved":1759999000'
    return sealed(head + b',"cookie":' + cookie + _DATA + data + b"}", seed_of(NAME))


JOURNALS: Final = (
    LINES[0],
    b"".join(LINES),
    LINES[0] + LINES[1][:40] + b"\n" + LINES[2],
    LINES[1] + LINES[3][:-20],
    LINES[0] + LINES[1][:-1],
    LINES[0] + bytes(64),
    LINES[0] + line_of(ENTRIES[1].as_ended(), seed_of(NAME)),
    LINES[0] + sealed(b'{"format":2,"state":{}}', seed_of(NAME)),
    LINES[0] + line_of(Entry(2, "aa", START + 9e4, START + 9e4, b"{}"), seed_of(NAME)),
    LINES[2] + line_of(Entry(4, "aa", START - 90, START, b'"sealed"'), seed_of(NAME)),
    line_of(Entry(1, "aa", 0, 0, b"{}", absolute=60), seed_of(NAME)),
    LINES[0] + line_with(nested(300), b"{}"),
    LINES[0] + line_with(nested(2000), b"{}"),
    line_with(b"{}", nested(300)),
    line_with(b"{}", nested(2000)),
)

WORDS: Final = (
    *(b'"format":', b'"version":', b'"lineage":', b'"created":', b'"saved":', b'"idle":', b"}}"),
    *(b'"absolute":', b'"cookie":{', b'"ended":true', _DATA, b"null", b"1e308", b"-1", b"\\u00e4"),
    *(b"18446744073709551615", b"9007199254740991", b"[[[[[[[[", b"]]]]]]]]", b"\n00000000 {"),
)


def seeds() -> Iterator[bytes]:
    for journal in JOURNALS:
        for step in range(len(STEPS)):
            for how in range(256):
                if how in {step, REPAIRED + (step - REPAIRED) % len(STEPS)}:
                    yield bytes([how]) + journal
