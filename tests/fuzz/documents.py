"""The small files of a session directory with any content: manifest, key, heartbeat, notes."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filesession import FileStore
from filesession.cli.doctor import examine
from filesession.clock import system_clock
from filesession.codec import dump_object
from filesession.errors import ConfigurationError, FilesessionError, StoreError
from filesession.janitor.heartbeat import janitor_state
from filesession.stores.entry import handle_of
from filesession.stores.file.journal import sealed, seed_of
from filesession.testing import ManualClock
from filesession.testing.clock import START
from tests.fuzz.command import run_command

SID: Final = "the one that is there"
OLD: Final = "the id it had before"
HANDLE: Final = handle_of(SID) or ""
LINEAGE: Final = "0123456789abcdef"

NAMES: Final = ("filesession.json", "secret", "janitor.json", "janitor.lock", "moved", "a stranger")
"""What an input may be the content of; ``moved`` stands for the note of ``OLD``, and for the last
the input is the name of a file that does not belong there."""

_OURS: Final = re.compile(rb"[0-9a-f]{2}|[0-9a-f]{32}|.*\.tmp", re.DOTALL)

REPAIRED: Final = 0x80
"""In the first byte of an input: a note is given its right checksum."""


class Documents:
    """A directory with one session, and one document as a fuzzer wrote it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "sessions"
        self.clock = ManualClock()
        store = FileStore(self.root, clock=self.clock)
        store.create({"who": "me"}, sid=SID)
        store.signing_key()
        self.session = self.root / "sessions" / HANDLE[:2] / HANDLE
        self._manifest = (self.root / NAMES[0]).read_bytes()
        self._secret = (self.root / NAMES[1]).read_bytes()
        record = store.load(SID)
        assert record is not None
        self.lineage = record.lineage
        (self.root / "moved").mkdir(mode=0o700)
        self.note = self.root / "moved" / (handle_of(OLD) or "")

    def __call__(self, data: bytes) -> None:
        """An input: a byte that says which document, and its content."""
        how, content = (data[0], data[1:]) if data else (0, b"")
        name = NAMES[how % len(NAMES)]
        content = content.replace(LINEAGE.encode(), self.lineage.encode())
        if name == "moved" and how & REPAIRED:
            content = sealed(content.replace(b"\n", b""), seed_of(self.note.name))
        self.check(name, content)

    def check(self, name: str, content: bytes) -> None:
        """Whoever opens the directory is served or told why not; nothing is lost by it."""
        if name == NAMES[-1]:
            self.check_stranger(content)
            return
        before = self.session.read_bytes()
        path = self.note if name == "moved" else self.root / name
        path.write_bytes(content)
        path.chmod(0o600)
        try:
            CHECKS[name](self, path, content)
            assert self.session.read_bytes() == before
            left = os.listdir(self.root)
            assert not [each for each in left if each.endswith(".tmp") or each == "corrupt"]
        finally:
            self._restore(path)
        assert FileStore(self.root, clock=self.clock).load(SID) is not None

    def check_stranger(self, name: bytes) -> None:
        """A file of any name, wherever it lies, is told and left alone."""
        name = name.replace(b"/", b"").replace(b"\0", b"")[:255]
        for directory in (self.root, self.session.parent.parent, self.session.parent):
            path = os.fsencode(directory) + b"/" + name
            if os.path.exists(path) or _OURS.fullmatch(name):
                continue  # "." and ".." among them
            with open(path, "xb"):
                pass
            try:
                self.beat()
                assert self.findings()["foreign"] == "wrong"
                store = self.opened()
                assert store is not None
                assert len(list(store.scan())) == len(store) == 1
                store.sweep()
                assert os.path.exists(path)
            finally:
                os.unlink(path)

    def _restore(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        for name, content in ((NAMES[0], self._manifest), (NAMES[1], self._secret)):
            (self.root / name).write_bytes(content)
            (self.root / name).chmod(0o600)

    def findings(self) -> dict[str, str]:
        """The worst that the doctor says of each part."""
        worst: dict[str, str] = {}
        for found in examine(str(self.root)):
            assert found.what
            if worst.get(found.check) != "wrong":
                worst[found.check] = found.level
        return worst

    def opened(self, make: Callable[..., FileStore] = FileStore.open) -> FileStore | None:
        try:
            return make(self.root, clock=self.clock)
        except ConfigurationError as error:
            _check_told(error)
            return None

    def beat(self) -> None:
        """The heartbeat and the lock are looked at; ``status`` and ``doctor`` tell of them."""
        try:
            state, _ = janitor_state(str(self.root), system_clock())
        except StoreError as error:
            _check_told(error)
            state = "absent"
        result = run_command("status", str(self.root), "--json")
        assert result.exit_code == {"absent": 3, "hung": 3, "alive": 0}[state]
        assert json.loads(result.stdout)["janitor"]["state"] == state
        assert run_command("status", str(self.root)).exit_code == result.exit_code
        assert json.loads(run_command("doctor", str(self.root), "--json").stdout)["findings"]


def _check_told(error: FilesessionError) -> None:
    assert len(str(error)) > 20
    assert "Traceback" not in str(error)


def manifest(documents: Documents, path: Path, content: bytes) -> None:
    worst = documents.findings()
    store = documents.opened()
    assert (worst["manifest"] == "wrong") == (store is None)
    assert path.read_bytes() == content
    result = run_command("status", str(documents.root))
    assert result.exit_code == (2 if store is None else 3)
    if store is not None:
        assert _is_manifest(json.loads(content))
        report = store.sweep(dry_run=True)
        assert report.failed == report.corrupt == 0
        list(store.scan())
        store.load(SID)
    written = documents.opened(FileStore)
    assert (written is None) == (store is None)
    if written is None:
        assert path.read_bytes() == content
    else:
        said = json.loads(path.read_bytes())
        assert said["idle_timeout"] == 1800
        assert said["format"] == 1
        assert documents.findings()["manifest"] == "ok"


def _is_manifest(said: dict[str, Any]) -> bool:
    limits = said["idle_timeout"], said["absolute_timeout"]
    return (
        said.keys() == MANIFEST.keys()
        and said["format"] == 1
        and type(said["shard_depth"]) is int
        and 0 <= said["shard_depth"] <= 3
        and type(said["durable"]) is bool
        and all(each is None or (type(each) in {int, float} and each > 0) for each in limits)
    )


def secret(documents: Documents, path: Path, content: bytes) -> None:
    store = documents.opened()
    assert store is not None
    worst = documents.findings()["secret"]
    try:
        key = store.signing_key()
    except ConfigurationError as error:
        _check_told(error)
        assert worst == "wrong"
    else:
        assert worst == "ok"
        assert len(key) >= 32
        assert key in content
    assert path.read_bytes() == content


def heartbeat(documents: Documents, path: Path, content: bytes) -> None:
    documents.beat()
    with _led(documents.root):
        documents.beat()
    (documents.root / "janitor.lock").unlink()
    assert path.read_bytes() == content


def lock(documents: Documents, path: Path, content: bytes) -> None:
    documents.beat()
    assert path.read_bytes() == content


def note(documents: Documents, path: Path, content: bytes) -> None:
    """Followed only to the very session that it names, and for no longer than the grace."""
    store = FileStore(documents.root, clock=documents.clock, regenerate_grace=5)
    record = store.load(OLD)
    if record is not None:
        said: dict[str, Any] = json.loads(content[9:])
        assert content == sealed(content[9:-1], seed_of(path.name))
        assert (said["to"], said["lineage"]) == (HANDLE, record.lineage)
        assert 0 <= START - said["at"] <= 5
        assert (record.id, record.data, record.forwarded) == (OLD, {"who": "me"}, True)
    assert FileStore(documents.root, clock=documents.clock).load(OLD) is None
    store.sweep(dry_run=True)
    assert path.read_bytes() == content


@contextmanager
def _led(root: Path) -> Iterator[None]:
    """As if a janitor led there."""
    with (root / "janitor.lock").open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno(), (1e9, 1e9))
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


CHECKS: Final[dict[str, Callable[[Documents, Path, bytes], None]]] = dict(
    zip(NAMES[:-1], (manifest, secret, heartbeat, lock, note), strict=True)
)

MANIFEST: Final[dict[str, Any]] = {
    "format": 1,
    "shard_depth": 1,
    "idle_timeout": 1800.0,
    "absolute_timeout": None,
    "touch_interval": None,
    "durable": False,
}
REPORT: Final[dict[str, Any]] = {
    "started_at": START,
    "seconds": 0.5,
    "examined": 3,
    "expired": 2,
    "freed": 900,
    "oldest_overdue": 2.5,
    "busy": 0,
    "corrupt": 1,
    "failed": 1,
    "failure": "no",
    "young": 0,
    "mended": 1,
    "compacted": 1,
    "held": 0,
    "leftovers": 1,
    "complete": True,
    "dry_run": False,
}
READING: Final[dict[str, Any]] = {
    "directory": "/srv",
    "leads": True,
    "sessions": 3,
    "bytes": None,
    "created": 1,
    "expired": 1,
    "freed": 1,
    "corrupt": 0,
    "failed": 0,
    "sweeps": 1,
    "sweep_seconds": 0.1,
    "lag": 0.0,
    "full_looks": 1,
    "overflows": 0,
    "held": "no",
    "dropped": 0,
}
HEARTBEAT: Final[dict[str, Any]] = {
    "pid": 42,
    "host": "here",
    "started_at": START,
    "heartbeat_at": START,
    "interval": 60.0,
    "cron": None,
    "next_sweep_at": START,
    "sweeping_since": START,
    "last_sweep": REPORT,
    "last_error": "none",
    "looked": 0.5,
    "watch": "poll",
    "reading": READING,
}
NOTE: Final[dict[str, Any]] = {"to": HANDLE, "lineage": LINEAGE, "at": START - 2}


def seeds() -> Iterator[bytes]:
    manifests = (MANIFEST, MANIFEST | {"format": 2}, MANIFEST | {"shard_depth": 0, "durable": True})
    beats = (HEARTBEAT, HEARTBEAT | {"cron": "* * * * *", "interval": None, "last_sweep": None})
    notes = (NOTE, NOTE | {"at": START - 20}, NOTE | {"to": handle_of(OLD)})
    yield from (b"\0" + dump_object(each) for each in manifests)
    yield from (b"\x02" + dump_object(each) for each in beats)
    yield from (bytes([REPAIRED + 2]) + dump_object(each) for each in notes)
    for key in (b"ab" * 32, b"ab" * 32 + b"\n", bytes(64), b"short", b" " * 64):
        yield b"\x01" + key
    yield from (
        b"\x05" + name for name in (b"notes.txt", b"fr\xe9md", b"\x1b[31m", b"sessions.old")
    )
    yield from (b"\x03", b"\x03123\n", b"\x04", b"\0", b"\x02")


WORDS: Final = (
    *(f'"{name}":'.encode() for name in (*MANIFEST, *HEARTBEAT, *NOTE)),
    *(
        b"null",
        b"true",
        b"1e308",
        b"-1",
        b"18446744073709551615",
        b'"nan"',
        b'"inf"',
        b'"' + b"9" * 30,
    ),
)
