"""What is no session's file, at every name where one of ours could be, and what becomes of it.

Each verb is called on each kind of thing: it must end soon (an alarm ends one that hangs), after
few system calls and few bytes read (counted, as true time tells little), and what a link leads to
must be as it was. Devices need root.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.cli.doctor import examine
from filesession.errors import ConfigurationError, SessionGone, StoreUnavailable
from filesession.janitor.heartbeat import read_heartbeat, write_heartbeat
from filesession.janitor.leader import Leadership, is_led
from filesession.record import SessionRecord
from filesession.stores import FileStore
from filesession.stores.entry import new_handle
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCall, SystemCalls
from tests.heartbeats import BEAT

if TYPE_CHECKING:
    from tests.stores.conftest import Raw

SOON: Final = 10.0
"""Seconds of true time after which a call hangs."""

FEW: Final = 80
"""System calls of one verb in a directory of four sessions, however odd what it finds."""

LITTLE: Final = 4096
"""Bytes read by one verb in a directory of four sessions."""

NOBODY: Final = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make it")


class HangsError(BaseException):
    """Not caught by anything that catches errors."""


@pytest.fixture(autouse=True)
def _ends_soon() -> Iterator[None]:
    def hangs(signum: int, frame: object) -> None:
        raise HangsError

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, SOON)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def grown_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything on the disk was last changed more than a minute ago."""
    now = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that is none of the store's, for what links lead to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    return outside


def seen(outside: Path) -> dict[str, tuple[int, ...] | bytes]:
    """All there is to know of what must not be touched, but for how many names it has."""
    found: dict[str, tuple[int, ...] | bytes] = {}
    for path in sorted([outside, *outside.rglob("*")]):
        status = path.lstat()
        found[str(path)] = status.st_mode, status.st_mtime_ns, status.st_uid, status.st_gid
        if path.is_file():
            found[f"{path} holds"] = path.read_bytes()[:LITTLE]
    return found


def character_device(number: int) -> Callable[[Path, Path], None]:
    return lambda path, outside: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, number))


def bound(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(before)


def filled(path: Path, content: bytes = b"precious\n") -> Path:
    path.write_bytes(content)
    path.chmod(0o640)
    return path


def holding(path: Path) -> None:
    path.mkdir(0o700)
    filled(path / "file")


def sparse(path: Path) -> None:
    path.touch(0o600)
    os.truncate(path, 1 << 30)


NO_FILES: Final[dict[str, Callable[[Path, Path], None]]] = {
    "symlink to a file": lambda path, outside: path.symlink_to(filled(outside / "file")),
    "symlink to a directory": lambda path, outside: path.symlink_to(outside),
    "symlink to nowhere": lambda path, outside: path.symlink_to(outside / "nowhere"),
    "fifo": lambda path, outside: os.mkfifo(path, 0o600),
    "socket": lambda path, outside: bound(path),
    "null device": character_device(3),
    "zero device": character_device(5),
    "directory": lambda path, outside: path.mkdir(0o700),
    "full directory": lambda path, outside: holding(path),
}
FILES: Final[dict[str, Callable[[Path, Path], None]]] = {
    "hard link": lambda path, outside: os.link(filled(outside / "file"), path),
    "hard link to nothing": lambda path, outside: os.link(filled(outside / "file", b""), path),
    "empty": lambda path, outside: path.touch(0o600),
    "zeros": lambda path, outside: filled(path, bytes(512)).chmod(0o600),
    "a gibibyte": lambda path, outside: sparse(path),
    "set user id": lambda path, outside: filled(path).chmod(0o4755),
}
KINDS: Final = NO_FILES | FILES


def each_of(kinds: Iterable[str]) -> pytest.MarkDecorator:
    marked = [pytest.param(kind, marks=needs_root) if "device" in kind else kind for kind in kinds]
    return pytest.mark.parametrize("kind", marked)


every_kind = each_of(KINDS)

VERBS: Final[dict[str, tuple[Callable[[FileStore, SessionRecord], Any], object]]] = {
    "load": (lambda store, base: store.load("chosen"), None),
    "save": (lambda store, base: store.save("chosen", {"n": 2}, base=base), SessionGone),
    "touch": (lambda store, base: store.touch("chosen"), False),
    "touch with base": (lambda store, base: store.touch("chosen", base=base), False),
    "delete": (lambda store, base: store.delete("chosen"), False),
    "regenerate": (lambda store, base: store.regenerate("chosen", base=base), SessionGone),
    "lock": (lambda store, base: store.lock("chosen").acquire(), SessionGone),
    "create": (lambda store, base: store.create({"n": 2}, sid="chosen").data, {"n": 2}),
    "regenerate to": (lambda store, base: store.regenerate("third", new_sid="chosen").version, 2),
    "sweep": (lambda store, base: (store.sweep().corrupt, store.sweep().corrupt), (1, 0)),
    "scan": (lambda store, base: len(list(store.scan())), 2),
    "inspect": (lambda store, base: store.inspect(handle(store, "chosen")), None),
    "clear": (lambda store, base: store.clear(), 2),
}
LOOKS_ONLY: Final = {"touch", "touch with base", "scan", "inspect", "lock"}
"""These may leave it where it is, for who comes next."""


def handle(store: FileStore, sid: str) -> str:
    return os.path.basename(store._layout.path(new_handle(sid)))


def told(call: Callable[[], Any]) -> object:
    """What a call gives, or the type of what it raises."""
    try:
        return call()
    except (SessionGone, StoreUnavailable) as error:
        return type(error)


@pytest.fixture
def base(store: FileStore, clock: ManualClock) -> SessionRecord:
    """The session in whose place something else will lie, as it was loaded; two others beside."""
    base = store.create({"n": 1}, sid="chosen")
    store.create({"other": True}, sid="other")
    store.create({"third": True}, sid="third")
    clock.advance(100)  # a touch is wanted
    return base


@pytest.mark.usefixtures("grown_old")
class TestAtASessionsName:
    @every_kind
    @pytest.mark.parametrize("verb", VERBS)
    def test_it_is_no_session_and_set_aside_and_where_it_leads_nothing_is_touched(  # noqa: PLR0917
        self, store: FileStore, raw: Raw, outside: Path, base: SessionRecord, kind: str, verb: str
    ) -> None:
        path = raw.path("chosen")
        path.unlink()
        KINDS[kind](path, outside)
        inode, before = path.lstat().st_ino, seen(outside)
        call, expected = VERBS[verb]
        with SystemCalls() as calls:
            assert told(lambda: call(store, base)) == expected
        assert len(calls.calls) < FEW
        read = [call.result for call in calls.calls if call.name in {"read", "pread"}]
        assert sum(map(len, read)) < LITTLE
        assert seen(outside) == before
        aside = [path.lstat().st_ino for path in raw.corrupt.glob("*")]
        there = os.path.lexists(path) and path.lstat().st_ino == inode
        if verb in LOOKS_ONLY:
            assert (aside, there) in (([], True), ([inode], False))
        elif verb in {"delete", "clear"} and kind in FILES.keys() - {"a gibibyte"}:
            assert (aside, there) == ([], False)  # damage is deleted as a session is
        else:
            assert (aside, there) == ([inode], False)
        if verb != "clear":
            assert data_of(store, "other") == {"other": True}
            assert data_of(store, "chosen") == (
                {"create": {"n": 2}, "regenerate to": {"third": True}}.get(verb)
            )


def data_of(store: FileStore, sid: str) -> dict[str, Any] | None:
    record = store.load(sid)
    return None if record is None else record.data


NO_DIRECTORIES: Final = [
    *(kind for kind in NO_FILES if kind not in {"directory", "full directory", "zero device"}),
    *("hard link", "empty"),
]


def complaints(store: FileStore) -> str:
    """What the doctor finds wrong, in one text."""
    return "\n".join(each.what for each in examine(store.directory) if each.level == "wrong")


class TestAtAShardsName:
    @each_of(NO_DIRECTORIES)
    @pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"touch", "inspect", "lock", "scan"}))
    def test_nothing_is_made_where_it_leads_and_other_shards_go_on(  # noqa: PLR0917 - fixtures
        self, store: FileStore, raw: Raw, outside: Path, base: SessionRecord, kind: str, verb: str
    ) -> None:
        shard = raw.path("chosen").parent
        raw.path("chosen").unlink()
        shard.rmdir()
        KINDS[kind](shard, outside)
        before = seen(outside)
        call, expected = VERBS[verb]
        with SystemCalls() as calls:
            answer = told(lambda: call(store, base))
        if verb in {"create", "regenerate to"}:
            assert answer is StoreUnavailable
        elif verb in {"sweep", "clear"}:
            assert answer == ((0, 0) if verb == "sweep" else expected)
        else:
            assert answer in (StoreUnavailable, expected)
        assert len(calls.calls) < FEW
        assert seen(outside) == before
        assert os.path.lexists(shard)
        assert f"sessions/{shard.name}" in complaints(store)
        if verb != "clear":
            assert data_of(store, "other") == {"other": True}
            assert data_of(store, "third") == {"third": True}


@pytest.mark.usefixtures("grown_old")
class TestAtADirectorysName:
    @each_of(NO_DIRECTORIES)
    def test_where_sessions_should_be_none_is_made_elsewhere(
        self, store: FileStore, raw: Raw, outside: Path, kind: str
    ) -> None:
        KINDS[kind](raw.sessions, outside)
        before = seen(outside)
        with SystemCalls() as calls:
            assert told(store.create) is StoreUnavailable
            assert told(lambda: store.load("chosen")) in (StoreUnavailable, None)
            assert told(lambda: list(store.scan())) in (StoreUnavailable, [])
            assert told(lambda: store.sweep().expired) in (StoreUnavailable, 0)
            assert told(store.clear) in (StoreUnavailable, 0)
        assert len(calls.calls) < FEW
        assert seen(outside) == before
        assert "sessions" in complaints(store)

    def test_another_stores_sessions_behind_a_symlink_are_neither_told_nor_swept(
        self, store: FileStore, raw: Raw, outside: Path, clock: ManualClock
    ) -> None:
        other = FileStore(outside / "other", clock=clock, idle_timeout=10**6)
        live = other.create(sid="theirs").id
        raw.sessions.symlink_to(outside / "other" / "sessions")
        clock.advance(10**5)
        for verb in (store.sweep, store.clear, lambda: list(store.scan())):
            assert told(verb) is StoreUnavailable
        assert other.load(live) is not None

    @each_of(NO_DIRECTORIES)
    def test_where_the_damaged_are_put_nothing_is_put_elsewhere(
        self, store: FileStore, raw: Raw, outside: Path, base: SessionRecord, kind: str
    ) -> None:
        raw.path("chosen").write_bytes(b"damage")
        KINDS[kind](raw.corrupt, outside)
        before = seen(outside)
        with SystemCalls() as calls:
            assert store.load("chosen") is None
            report = store.sweep()
        assert (report.corrupt, report.failed) == (0, 1)
        assert str(raw.corrupt) in (report.failure or "")
        assert len(calls.calls) < FEW
        assert seen(outside) == before
        assert raw.path("chosen").read_bytes() == b"damage"
        assert data_of(store, "other") == {"other": True}
        assert "corrupt" in complaints(store)
        raw.corrupt.unlink()
        assert store.load("chosen") is None
        assert raw.set_aside() == [b"damage"]


class TestAtATemporaryName:
    @pytest.mark.usefixtures("grown_old")
    @every_kind
    def test_a_sweep_clears_it_away_and_follows_nothing(
        self, store: FileStore, raw: Raw, outside: Path, base: SessionRecord, kind: str
    ) -> None:
        path = raw.path("chosen")
        names = [
            path.with_name(f".{path.name}.0123456789ab.tmp"),
            raw.directory / "janitor.json.0123456789ab.tmp",
        ]
        for number, name in enumerate(names):
            place = outside / str(number)
            place.mkdir()
            KINDS[kind](name, place)
        before = seen(outside)
        report = store.sweep(dry_run=True)
        assert (report.failed, report.leftovers + report.corrupt) == (0, 2)
        assert all(os.path.lexists(name) for name in names)
        with SystemCalls() as calls:
            report = store.sweep()
        assert (report.failed, report.leftovers + report.corrupt) == (0, 2)
        assert not any(os.path.lexists(name) for name in names)
        assert len(calls.calls) < FEW
        assert seen(outside) == before
        assert store.sweep().corrupt == 0
        assert data_of(store, "chosen") == {"n": 1}

    @every_kind
    def test_a_writer_that_chances_upon_it_writes_nothing_into_it(
        self,
        store: FileStore,
        raw: Raw,
        outside: Path,
        kind: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        large = {"text": "x" * 20_000}  # the file is to be replaced by the next save
        store.create(large, sid="chosen")
        monkeypatch.setattr("secrets.token_hex", lambda size: "ab" * size)
        path, manifest = raw.path("chosen"), raw.directory / "filesession.json"
        for place, name in enumerate((f".{path.name}", manifest.name)):
            (outside / str(place)).mkdir()
            there = path.parent if name.startswith(".") else raw.directory
            KINDS[kind](there / f"{name}.{'ab' * 6}.tmp", outside / str(place))
        before, agreed = seen(outside), manifest.read_bytes()
        with pytest.raises(StoreUnavailable, match="File exists"):
            store.save("chosen", {"n": 2})
        with pytest.raises(StoreUnavailable, match="File exists"):
            FileStore(raw.directory, idle_timeout=77)
        assert seen(outside) == before
        assert manifest.read_bytes() == agreed
        assert data_of(store, "chosen") == large


class TestAtADocumentsName:
    @every_kind
    def test_a_manifest_is_refused_and_left(
        self, store: FileStore, raw: Raw, outside: Path, base: SessionRecord, kind: str
    ) -> None:
        path = raw.directory / "filesession.json"
        path.unlink()
        KINDS[kind](path, outside)
        before = seen(outside)
        with SystemCalls() as calls:
            for opened in (FileStore, FileStore.open):
                with pytest.raises((ConfigurationError, StoreUnavailable), match="filesession"):
                    opened(raw.directory)
            with pytest.raises((ConfigurationError, StoreUnavailable), match="filesession"):
                store.sweep()
        assert len(calls.calls) < FEW
        assert seen(outside) == before
        assert os.path.lexists(path)
        assert "filesession.json" in complaints(store)
        assert len(raw.files()) == 3

    @every_kind
    def test_a_key_is_refused_and_left(
        self, store: FileStore, raw: Raw, outside: Path, kind: str
    ) -> None:
        path = raw.directory / "secret"
        KINDS[kind](path, outside)
        before = seen(outside)
        with SystemCalls() as calls, pytest.raises(ConfigurationError, match=f"{path} .* restart"):
            store.signing_key()
        assert len(calls.calls) < FEW
        assert seen(outside) == before
        assert os.path.lexists(path)
        assert "secret" in complaints(store)

    @pytest.mark.parametrize("size", [32, 64, 1 << 30])
    def test_zeros_are_no_key(self, store: FileStore, raw: Raw, size: int) -> None:
        path = raw.directory / "secret"
        path.touch(0o600)
        os.truncate(path, size)  # what a power cut may leave of one; whoever guesses it logs in
        with pytest.raises(ConfigurationError, match="holds no key"):
            store.signing_key()

    @needs_root
    def test_another_users_key_is_none(self, store: FileStore, raw: Raw) -> None:
        store.signing_key()
        os.chown(raw.directory / "secret", NOBODY, NOBODY)
        with pytest.raises(ConfigurationError, match=r"read by other users.*rm "):
            store.signing_key()

    @every_kind
    def test_a_heartbeat_is_none_and_replaced(
        self, store: FileStore, raw: Raw, outside: Path, kind: str
    ) -> None:
        path = raw.directory / "janitor.json"
        KINDS[kind](path, outside)
        before = seen(outside)
        with SystemCalls() as calls:
            assert told(lambda: read_heartbeat(store.directory)) in (None, StoreUnavailable)
            told(lambda: write_heartbeat(store.directory, BEAT))
        assert len(calls.calls) < FEW
        assert seen(outside) == before
        replaced = told(lambda: read_heartbeat(store.directory)) == BEAT
        assert replaced is (kind not in {"directory", "full directory"})

    @every_kind
    def test_a_janitors_lock_leads_nowhere(
        self, store: FileStore, raw: Raw, outside: Path, kind: str
    ) -> None:
        path = raw.directory / "janitor.lock"
        KINDS[kind](path, outside)
        content = outside / "file"
        before = seen(outside)
        with SystemCalls() as calls:
            leader = Leadership(store.directory)
            leads = told(leader.try_lead)
            if leads is True:
                leader.mark(time.time())
            assert told(lambda: is_led(store.directory)) == leads
            leader.resign()
        assert len(calls.calls) < FEW
        if "hard link" not in kind:  # to lead is to date and to close the file that is locked
            assert seen(outside) == before
        elif "nothing" not in kind:
            assert content.read_bytes() == b"precious\n"

    def test_a_fifo_as_a_janitors_lock_on_a_disk_to_read_from_is_not_waited_for(
        self, store: FileStore, raw: Raw
    ) -> None:
        os.mkfifo(raw.directory / "janitor.lock", 0o600)

        def read_only(call: SystemCall) -> Any:
            if call.name == "open" and call.arguments[1] & os.O_RDWR:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return call.make()

        with SystemCalls(read_only):
            assert is_led(store.directory) is False


def test_what_is_not_ours_is_left_alone_and_counted(
    store: FileStore, raw: Raw, base: SessionRecord, clock: ManualClock, grown_old: None
) -> None:
    path = raw.path("chosen")
    strangers = [
        *(path.with_name(name) for name in (f"{path.name}~", f".{path.name}.swp", "#edited#")),
        *(path.with_name(name) for name in (".nfs00000000000a1b2c00000001", path.name.upper())),
        *(path.with_name(name) for name in ("4913", f"{path.name}.orig", f".{path.name}.Ab3xYz")),
        *(raw.sessions / name for name in (".nfs1", "README", path.name, ".DS_Store")),
        raw.directory / "notes.txt",
    ]
    for stranger in strangers:
        stranger.write_text("precious")
    for place in (raw.sessions, path.parent, raw.directory):
        (place / "lost+found").mkdir()
    assert data_of(store, "chosen") == {"n": 1}
    store.save("chosen", {"n": 2})
    clock.advance(10_000)
    report = store.sweep()
    assert (report.expired, report.corrupt, report.leftovers, report.failed) == (3, 0, 0, 0)
    assert store.clear() == 0
    assert all(stranger.read_text() == "precious" for stranger in strangers)
    assert all((place / "lost+found").is_dir() for place in (raw.sessions, path.parent))
    [foreign] = [each for each in examine(store.directory) if each.check == "foreign"]
    assert f"and {len(strangers)} more" in foreign.what


def test_ten_thousand_orphans_cost_a_request_nothing_and_a_sweep_clears_them(
    store: FileStore, raw: Raw, base: SessionRecord, grown_old: None
) -> None:
    path = raw.path("chosen")

    def request() -> list[str]:
        with SystemCalls() as calls:
            assert data_of(store, "chosen") is not None
            store.touch("chosen", base=base)
            store.save("chosen", {"n": 2})
        return calls.names()

    request()  # as long after the last one as those that follow
    before = request()
    assert not {"listdir", "scandir"} & set(before)
    orphans = [path.with_name(f".{path.name}.{number:012x}.tmp") for number in range(10_000)]
    for orphan in orphans:
        os.close(os.open(orphan, os.O_CREAT | os.O_WRONLY, 0o600))
    assert request() == before
    report = store.sweep()
    assert (report.leftovers, report.failed) == (10_000, 0)
    assert [each.name for each in os.scandir(path.parent)] == [path.name]
