"""One session after the other, as who cleans up deals with it: looked at, mended, deleted.

Files of every kind lie where a session is to be; system calls are seen, refused or fatal; what may
happen between a look and the lock is done where the lock is asked for.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession import locks
from filesession.errors import LockTimeout
from filesession.lifetime import Lifetime
from filesession.record import SessionInfo, SessionRecord
from filesession.stores import FileStore
from filesession.stores.file import reaper as reaper_module
from filesession.stores.file import sessionfile
from filesession.stores.file.reaper import LATER, LONG, QUIET, Filing, Reaper, Tally
from filesession.testing import ManualClock
from filesession.testing.base import in_thread
from filesession.testing.faults import (
    CALLS,
    LOCK,
    SystemCall,
    SystemCalls,
    deadly,
    each,
    failing,
)
from filesession.testing.interleaving import interleavings

if TYPE_CHECKING:
    from tests.stores.conftest import Processes, Raw

SID: Final = "chosen"
LIFE: Final = 1800 + 2 * 60
"""Seconds after which a session with the store's timeouts is due."""

EVERY: Final = (*CALLS, LOCK)
CODES: Final = (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EROFS)


@dataclass
class Site:
    """A store, and what may lie at the place of one session."""

    store: FileStore
    raw: Raw
    clock: ManualClock
    make_line: Callable[..., bytes]

    @property
    def path(self) -> Path:
        return self.raw.path(SID)

    @property
    def handle(self) -> str:
        return self.path.name

    def reaper(self, clock: Callable[[], float] | None = None, **how: Any) -> Reaper:
        return Reaper(self.store._layout, self.store.lifetime, clock or self.clock, **how)

    def create(self, **how: Any) -> SessionRecord:
        return self.store.create({"n": 1}, sid=SID, **how)

    def put(self, content: bytes) -> None:
        """A file of that content, last used now."""
        self.create()
        self.path.write_bytes(content)
        os.utime(self.path, (self.clock.now, self.clock.now))

    def clear_place(self) -> None:
        self.create()
        self.path.unlink()

    def make_long(self, **how: Any) -> SessionRecord:
        """A session with a journal to shorten, quiet since long enough; as it loads."""
        self.create(**how)
        for _ in range(2):
            self.store.save(SID, {"text": "x" * 3000})
        self.store.save(SID, {"n": 2})
        self.clock.advance(QUIET + 1)
        return self.record()

    def record(self, sid: str = SID) -> SessionRecord:
        record = self.store.load(sid)
        assert record is not None
        return record

    def state(self) -> dict[str, Any]:
        """All that there is, to the last bit that a change would leave behind."""
        found = {}
        for path in sorted(self.raw.directory.rglob("*")):
            told = path.lstat()
            small = stat.S_ISREG(told.st_mode) and told.st_size < sessionfile.LARGEST
            content = path.read_bytes() if small else None
            dates = told.st_mtime_ns, told.st_ctime_ns
            found[str(path)] = (told.st_ino, told.st_mode, told.st_nlink, *dates, content)
        return found


def free(path: Path) -> bool:
    """Whether another could take the lock of a file."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def site(store: FileStore, raw: Raw, clock: ManualClock, make_line: Callable[..., bytes]) -> Site:
    return Site(store, raw, clock, make_line)


@pytest.fixture
def grown_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything on the disk was last changed more than a minute ago."""
    now = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the disk when is tested elsewhere; here it would only take time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)


def plain(site: Site) -> None:
    site.create()


def own_idle(site: Site) -> None:
    site.create(idle_timeout=100)


def own_absolute(site: Site) -> None:
    site.create(absolute_timeout=500)


def never(site: Site) -> None:
    site.create(idle_timeout=math.inf)


def ended(site: Site) -> None:
    site.create()
    site.clock.advance(1861)
    assert site.store.load(SID) is None
    site.clock.now -= 1861  # and alive by this clock


def in_the_future(site: Site) -> None:
    site.create()
    os.utime(site.path, (site.clock.now + 61, site.clock.now + 61))


def made_in_the_future(site: Site) -> None:
    site.create()
    site.clock.now -= 61


def a_little_ahead(site: Site) -> None:
    site.create()
    os.utime(site.path, (site.clock.now + 60, site.clock.now + 60))


def empty(site: Site) -> None:
    site.put(b"")


def damaged(site: Site) -> None:
    site.put(b"damage\n")


def symlink(site: Site) -> None:
    site.clear_place()
    site.path.symlink_to(site.raw.directory / "filesession.json")


def subdirectory(site: Site) -> None:
    site.clear_place()
    site.path.mkdir()


def fifo(site: Site) -> None:
    site.clear_place()
    os.mkfifo(site.path)


def anothers(site: Site) -> None:
    if os.geteuid():
        pytest.skip("needs root: gives a file to another user")
    site.create()
    os.chown(site.path, 65534, -1)


def too_large(site: Site) -> None:
    site.create()
    os.truncate(site.path, sessionfile.LARGEST + 1)  # sparse: it takes no space
    os.utime(site.path, (site.clock.now, site.clock.now))


def newer(site: Site) -> None:
    site.put(site.make_line(site.handle, format=2, data={}))


def hard_linked(site: Site) -> None:
    site.create()
    os.link(site.path, site.raw.directory / "backup")


def long(site: Site) -> None:
    site.make_long()


Kind: TypeAlias = Callable[[Site], None]

ALL: Final[list[Kind]] = [
    *(plain, own_idle, own_absolute, never, ended, in_the_future, made_in_the_future),
    *(a_little_ahead, empty, damaged, symlink, subdirectory, fifo, anothers, too_large, newer),
    *(hard_linked, long),
]

kinds = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)

Row: TypeAlias = tuple[Kind, float | None, bool, dict[str, int]]

FILINGS: Final[list[Row]] = [
    (plain, LIFE, True, {}),
    (own_idle, 100 + 2 * 5, False, {}),
    (own_absolute, 500 + 60, False, {}),
    (never, math.inf, False, {}),
    (ended, -math.inf, False, {}),
    (in_the_future, LATER, False, {"mended": 1}),
    (made_in_the_future, LATER, False, {"mended": 1}),
    (a_little_ahead, LIFE, True, {}),
    (empty, LATER, False, {"young": 1}),
    (damaged, LATER, False, {"young": 1}),
    (symlink, None, False, {"corrupt": 1}),
    (subdirectory, None, False, {"corrupt": 1}),
    (fifo, None, False, {"corrupt": 1}),
    (anothers, LATER, False, {"failed": 1}),
    (too_large, None, False, {"corrupt": 1}),
    (newer, LATER, False, {"failed": 1}),
    (hard_linked, LIFE, True, {}),
]
"""What a look gives: seconds from now until it is due, whether that is plain, what is counted."""

filings = pytest.mark.parametrize("row", FILINGS, ids=[row[0].__name__ for row in FILINGS])


def counts(tally: Tally) -> dict[str, Any]:
    """What is not nothing."""
    kept = {"freed", "failure", "oldest_overdue"}
    return {key: value for key, value in asdict(tally).items() if value and key not in kept}


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestLook:
    @filings
    @pytest.mark.parametrize("verb", ["look", "reap"])
    def test_tells_when_to_look_again(self, site: Site, row: Row, verb: str) -> None:
        kind, due, is_plain, counted = row
        kind(site)
        reaper = site.reaper()
        found = getattr(reaper, verb)(site.handle)
        if verb == "reap" and kind is ended:
            assert (found, counts(reaper.tally)) == (None, {"expired": 1})
            return
        expected = None if due is None else Filing(site.clock.now + due, is_plain)
        assert found == expected
        assert counts(reaper.tally) == counted
        assert os.path.lexists(site.path) is (due is not None)

    @pytest.mark.parametrize("kind", [empty, damaged])
    @pytest.mark.usefixtures("grown_old")
    def test_what_is_no_session_is_set_aside_once_it_is_old(self, site: Site, kind: Kind) -> None:
        kind(site)
        reaper = site.reaper()
        assert reaper.look(site.handle) is None
        assert counts(reaper.tally) == {"corrupt": 1}
        assert len(site.raw.set_aside()) == 1

    def test_what_is_due_stays(self, site: Site) -> None:
        site.create()
        site.clock.advance(LIFE + 1)
        before = site.state()
        reaper = site.reaper()
        assert reaper.look(site.handle) == Filing(site.clock.now - 1, plain=True)
        assert reaper.glance(site.handle) == Filing(site.clock.now - 1, plain=True)
        assert (counts(reaper.tally), site.state()) == ({}, before)

    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_there_is_none(self, site: Site, verb: str) -> None:
        site.clear_place()
        reaper = site.reaper()
        assert getattr(reaper, verb)(site.handle) is None
        assert getattr(reaper, verb)("ab" * 16) is None
        assert counts(reaper.tally) == {}

    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_one_to_be_mended_whose_lock_is_held_is_for_later(self, site: Site, verb: str) -> None:
        in_the_future(site)
        before = site.state()
        held = site.store.lock(SID)
        in_thread(held.__enter__)
        reaper = site.reaper()
        with pytest.raises(LockTimeout):
            getattr(reaper, verb)(site.handle)
        held.release()
        assert (counts(reaper.tally), site.state()) == ({}, before)

    def test_a_store_with_an_absolute_timeout_has_no_plain_ones(self, site: Site) -> None:
        site.create()
        lifetime = Lifetime(None, 100.0)
        reaper = Reaper(site.store._layout, lifetime, site.clock)
        assert reaper.look(site.handle) == Filing(site.clock.now + 100 + 60, plain=False)

    def test_where_no_session_ends_none_is_ever_due(self, site: Site) -> None:
        site.create()
        reaper = Reaper(site.store._layout, Lifetime(None), site.clock)
        assert reaper.look(site.handle) == Filing(math.inf, plain=True)
        assert reaper.glance(site.handle) == Filing(math.inf, plain=True)


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestGlance:
    @pytest.mark.parametrize(
        "kind", [plain, own_idle, never, ended, a_little_ahead, empty, newer, hard_linked]
    )
    def test_is_one_call_and_reads_nothing(self, site: Site, kind: Kind) -> None:
        kind(site)
        mark = min(site.path.lstat().st_mtime, site.clock.now)
        reaper = site.reaper()
        with SystemCalls(only=EVERY) as calls:
            found = reaper.glance(site.handle)
        assert calls.names() == ["lstat"]
        assert found == Filing(mark + LIFE, plain=True)
        assert counts(reaper.tally) == {}

    @pytest.mark.parametrize(
        "kind",
        [in_the_future, symlink, subdirectory, fifo, too_large],
        ids=lambda kind: kind.__name__,
    )
    def test_is_a_look_where_that_is_called_for(self, site: Site, kind: Kind) -> None:
        row = next(row for row in FILINGS if row[0] is kind)
        kind(site)
        reaper = site.reaper()
        due = row[1]
        expected = None if due is None else Filing(site.clock.now + due, row[2])
        assert reaper.glance(site.handle) == expected
        assert counts(reaper.tally) == row[3]

    @pytest.mark.parametrize("size", [LONG, LONG + 1])
    def test_a_long_one_that_is_in_use_is_not_read(self, site: Site, size: int) -> None:
        site.create()
        os.truncate(site.path, size)
        os.utime(site.path, (site.clock.now, site.clock.now))
        site.clock.advance(QUIET if size > LONG else QUIET + 1)
        with SystemCalls(only=EVERY) as calls:
            site.reaper().glance(site.handle)
        assert calls.names() == ["lstat"]


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    """A site for many examples."""
    from tests.stores.conftest import Raw, line_for  # noqa: PLC0415 - no fixture lives as long

    with tempfile.TemporaryDirectory() as directory:
        path, clock = Path(directory, "sessions"), ManualClock()
        yield Site(FileStore(path, clock=clock), Raw(path), clock, line_for)


spans = st.floats(0.001, 1e7)
own = st.none() | st.just(math.inf) | spans


class TestDue:
    """The moment that is told is the one of ``Lifetime``, to the last bit."""

    @given(
        store=st.builds(Lifetime, st.none() | spans, st.none() | spans, st.none() | spans),
        idle=own,
        absolute=own,
        ages=st.tuples(st.floats(0, 1e7), st.floats(0, 1e7)),
    )
    def test_nothing_is_early_and_nothing_is_late(
        self,
        place: Site,
        store: Lifetime,
        idle: float | None,
        absolute: float | None,
        ages: tuple[float, float],
    ) -> None:
        clock, (age, since) = ManualClock(), ages
        place.clock.now = clock.now - max(age, since)
        place.store.delete(SID)
        place.path.unlink(missing_ok=True)
        place.create(idle_timeout=idle, absolute_timeout=absolute)
        os.utime(place.path, (clock.now - since, clock.now - since))
        found = sessionfile.read(str(place.path), place.handle)
        assert found is not None
        entry, mark = found.entry, found.mtime
        assert entry is not None
        due = entry.lifetime(store).due_at(entry.created, mark)
        rehearsal = Reaper(place.store._layout, store, clock, dry_run=True)
        filing = rehearsal.look(place.handle)
        simple = idle is None and absolute is None and store.absolute_timeout is None
        assert filing == Filing(math.inf if due is None else due, simple)
        if simple:
            assert rehearsal.glance(place.handle) == filing
        if due is None:
            clock.now = 1e12
            assert rehearsal.reap(place.handle) == filing
            return
        for now, is_due in ((due, False), (math.nextafter(due, math.inf), True)):
            clock.now = now
            if not mark <= now or entry.created > now:
                continue  # the clock was set back
            assert (entry.overdue(store, now, mark) is not None) is is_due
            assert (rehearsal.reap(place.handle) is None) is is_due
        assert rehearsal.tally.mended == 0


def saved(site: Site) -> None:
    site.store.save(SID, {"n": 2})


def touched(site: Site) -> None:
    site.clock.advance(100)
    assert site.store.touch(SID)


def regenerated(site: Site) -> None:
    site.store.regenerate(SID, new_sid="new")


def compacted(site: Site) -> None:
    other = site.reaper()
    other.look(site.handle)
    assert other.tally.compacted == 1


def deleted(site: Site) -> None:
    site.store.delete(SID)


def made_anew(site: Site) -> None:
    site.store.delete(SID)
    site.create()


def linked(site: Site) -> None:
    os.link(site.path, site.raw.directory / "backup")


def restored(site: Site) -> None:
    copy = site.path.with_name("copy")
    copy.write_bytes(site.path.read_bytes())
    copy.rename(site.path)


MEANWHILE: Final = [saved, touched, regenerated, compacted, deleted, made_anew, linked, restored]


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestReap:
    def test_what_is_due_goes_under_its_lock(self, site: Site) -> None:
        site.create()
        site.clock.advance(LIFE + 5)
        unlocked: list[bool] = []

        def act(call: SystemCall) -> Any:
            if call.name == "unlink":
                unlocked.append(free(site.path))
            return call.make()

        size = site.path.stat().st_size
        reaper = site.reaper()
        with SystemCalls(act):
            assert reaper.reap(site.handle) is None
        assert unlocked == [False]
        assert site.raw.files() == []
        assert (reaper.tally.expired, reaper.tally.freed) == (1, size)
        assert reaper.last_overdue == reaper.tally.oldest_overdue == pytest.approx(5)

    @pytest.mark.parametrize("event", MEANWHILE, ids=lambda event: event.__name__)
    def test_what_happens_before_the_lock_leaves_it(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, event: Callable[[Site], None]
    ) -> None:
        site.make_long()
        ahead = ManualClock(site.clock.now + 2 * LIFE)  # where the janitor is, it is due
        lock, then = locks.lock, []

        def first(*arguments: Any) -> None:
            monkeypatch.setattr(locks, "lock", lock)
            event(site)
            then.append(site.state())
            lock(*arguments)

        monkeypatch.setattr(locks, "lock", first)
        told: list[SessionInfo] = []
        reaper = site.reaper(ahead, told=told.append)
        assert reaper.reap(site.handle) == Filing(ahead.now + LATER, plain=False)
        assert then == [site.state()]
        assert (counts(reaper.tally), told) == ({}, [])
        assert all(free(path) for path in site.raw.files())

    @pytest.mark.parametrize("field", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_nlink"])
    def test_each_sign_of_a_change_is_enough(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, field: str
    ) -> None:
        # A file system may keep its dates coarsely, or not at all: no sign leans on another.
        site.create()
        site.clock.advance(LIFE + 1)
        real, looks = os.fstat, []

        def fstat(descriptor: int) -> Any:
            status = real(descriptor)
            looks.append(status)
            names = [name for name in dir(status) if name.startswith("st_")]
            told = {name: getattr(status, name) for name in names}
            return SimpleNamespace(**(told | {field: told[field] + (len(looks) > 1)}))

        monkeypatch.setattr(os, "fstat", fstat)
        reaper = site.reaper()
        assert reaper.reap(site.handle) == Filing(site.clock.now + LATER, plain=False)
        assert len(looks) == 2
        assert site.path.exists()

    def test_one_whose_lock_is_held_stays(self, site: Site) -> None:
        site.create()
        held = site.store.lock(SID)
        in_thread(held.__enter__)
        before = site.state()
        reaper = site.reaper(ManualClock(site.clock.now + 2 * LIFE))
        with pytest.raises(LockTimeout):
            reaper.reap(site.handle)
        held.release()
        assert (counts(reaper.tally), site.state()) == ({}, before)
        assert reaper.reap(site.handle) is None
        assert reaper.tally.expired == 1

    @pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
    def test_a_call_that_fails_leaves_one_for_the_next(self, site: Site, code: int) -> None:
        opened = sorted(os.listdir("/proc/self/fd"))
        failures = set()
        for calls in each(lambda nth: failing(OSError(code, os.strerror(code)), nth), EVERY):
            names = [site.raw.name(site.store.create().id) for _ in range(3)]
            infos: list[SessionInfo] = []
            reaper = site.reaper(ManualClock(site.clock.now + 2 * LIFE), told=infos.append)
            with calls:
                for name in names:
                    with suppress(LockTimeout):  # what flock refuses another may have
                        reaper.reap(name)
            told = [info.handle for info in infos]
            left = [path.name for path in site.raw.files()]
            failures |= {call.name for call in calls.calls if not call.is_made}
            assert len(left) <= 1
            assert sorted(told + left) == sorted(names)
            assert reaper.tally.expired == len(told)
            if code != errno.EACCES:
                assert reaper.tally.failed == len(left), calls.names()
            assert sorted(os.listdir("/proc/self/fd")) == opened
            assert all(free(path) for path in site.raw.files())
            for name in left:
                assert reaper.reap(name) is None
            assert site.raw.files() == []
        assert {"open", "fstat", "pread", LOCK, "unlink"} <= failures

    @pytest.mark.parametrize("verb", ["reap", "look"])
    def test_a_child_forked_meanwhile_does_not_keep_the_lock(self, site: Site, verb: str) -> None:
        site.make_long()
        file = site.path.open("r+b")
        clock = ManualClock(site.clock.now + 2 * LIFE) if verb == "reap" else site.clock
        reading, writing = os.pipe()
        children: list[int] = []

        def act(call: SystemCall) -> Any:
            if call.name in {"unlink", "fdatasync"}:
                assert not free(site.path)
                child = os.fork()
                if not child:
                    os.close(writing)
                    os.read(reading, 1)
                    os._exit(0)
                children.append(child)
            return call.make()

        reaper = site.reaper(clock)
        try:
            with SystemCalls(act):
                getattr(reaper, verb)(site.handle)
            assert len(children) == 1
            assert locks.try_lock(file.fileno())
            assert verb == "reap" or free(site.path)
        finally:
            os.close(writing)
            for child in children:
                os.waitpid(child, 0)
            os.close(reading)
            file.close()
        assert counts(reaper.tally) == {"expired" if verb == "reap" else "compacted": 1}

    def test_two_at_once_count_each_once(self, site: Site, processes: Processes) -> None:
        handles = {site.raw.name(site.store.create().id) for _ in range(300)}
        program = """if True:
            import os, signal, sys
            from filesession.errors import LockTimeout
            from filesession.stores.file.layout import Layout
            from filesession.stores.file.reaper import Reaper
            layout, manifest = Layout.found(sys.argv[2])
            told, later = [], sys.argv[5:]
            reaper = Reaper(layout, manifest.lifetime, lambda: float(sys.argv[3]),
                            told=lambda info: told.append(info.handle))
            signal.alarm(60)
            os.open(sys.argv[4], os.O_RDONLY if int(sys.argv[1]) else os.O_WRONLY)  # they meet
            while later:
                handle = later.pop(0)
                try:
                    if reaper.reap(handle) is not None:
                        later.append(handle)
                except LockTimeout:
                    later.append(handle)
            assert reaper.tally.expired == len(told), reaper.tally
            assert reaper.tally.failed == 0, reaper.tally
            print(*told)
        """
        now = site.clock.now + 2 * LIFE
        gate = site.raw.directory.with_name("gate")
        os.mkfifo(gate)
        printed = processes.run(program, site.raw.directory, now, gate, *sorted(handles), count=2)
        told = [handle for one in printed for handle in one.split()]
        assert sorted(told) == sorted(handles)
        assert site.raw.files() == []


class TestTold:
    def test_of_each_that_was_deleted_once(self, site: Site) -> None:
        created = site.create(absolute_timeout=900)
        site.clock.advance(600)
        site.store.save(SID, {"n": 2})
        accessed, size = site.clock.now, site.path.stat().st_size
        told: list[SessionInfo] = []
        reaper = site.reaper(told=told.append)
        reaper.reap(site.handle)
        assert told == []
        site.clock.advance(400)
        reaper.reap(site.handle)
        reaper.reap(site.handle)
        expires = created.created_at + 900
        assert told == [SessionInfo(site.handle, size, created.created_at, accessed, expires)]

    def test_of_none_that_could_not_be_deleted(self, site: Site) -> None:
        site.create()
        site.clock.advance(LIFE + 1)
        told: list[SessionInfo] = []
        reaper = site.reaper(told=told.append)
        error = OSError(errno.EACCES, "Permission denied")
        with SystemCalls(failing(error), only=("unlink",)):
            assert reaper.reap(site.handle) == Filing(site.clock.now + LATER, plain=False)
        assert (told, counts(reaper.tally)) == ([], {"failed": 1})
        assert reaper.tally.failure is not None
        assert reaper.tally.failure.startswith(f"sweeping session {site.handle}: Permission denied")


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestRehearsal:
    @kinds
    @pytest.mark.parametrize("old", [False, True], ids=["young", "old"])
    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_changes_nothing_and_counts_what_would_be_done(
        self,
        site: Site,
        monkeypatch: pytest.MonkeyPatch,
        kind: Kind,
        old: bool,  # noqa: FBT001 - a row of the table
        verb: str,
    ) -> None:
        kind(site)
        if old:
            site.clock.advance(10_000)
            monkeypatch.setattr(reaper_module, "YOUNG", -1.0)
        before = site.state()
        told: list[SessionInfo] = []
        rehearsal, real = site.reaper(dry_run=True, told=told.append), site.reaper()
        filing = getattr(rehearsal, verb)(site.handle)
        assert (site.state(), told) == (before, [])
        assert filing == getattr(real, verb)(site.handle)
        done = counts(real.tally)
        done.pop("compacted", None)  # nobody waits to hear of that
        assert counts(rehearsal.tally) == done
        assert rehearsal.tally.freed == real.tally.freed


SHORTENED: Final = {"compacted": 1}


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestCompaction:
    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_a_long_quiet_file_becomes_one_line(self, site: Site, verb: str) -> None:
        before = site.make_long(
            idle_timeout=7000.0, absolute_timeout=80_000, cookie={"secure": True}
        )
        lines, mark = site.raw.lines(SID), site.path.stat().st_mtime_ns
        reaper = site.reaper()
        filing = getattr(reaper, verb)(site.handle)
        assert counts(reaper.tally) == SHORTENED
        assert site.raw.lines(SID) == lines[-1:]
        assert site.path.stat().st_mtime_ns == mark
        assert site.raw.mode(site.path) == 0o600
        assert site.record() == before
        assert before.version == 4
        assert filing is not None
        assert getattr(reaper, verb)(site.handle) == filing
        assert counts(reaper.tally) == SHORTENED
        assert free(site.path)

    def test_one_that_was_refused_stays_refused(self, site: Site) -> None:
        site.make_long()
        site.clock.advance(1800)
        assert site.store.load(SID) is None
        reaper = site.reaper()
        reaper.look(site.handle)
        assert counts(reaper.tally) == SHORTENED
        site.clock.now -= 1800
        assert site.store.load(SID) is None

    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    @pytest.mark.parametrize("why", ["in use", "not quiet", "linked", "no shorter", "rehearsal"])
    def test_not_of_one(self, site: Site, verb: str, why: str) -> None:
        site.make_long()
        held = site.store.lock(SID)
        if why == "in use":
            in_thread(held.__enter__)
        elif why == "not quiet":
            site.clock.advance(-1)
        elif why == "linked":
            linked(site)
        elif why == "no shorter":
            site.store.save(SID, {"text": "x" * 7000})
            site.clock.advance(QUIET + 1)
        before = site.state()
        reaper = site.reaper(dry_run=why == "rehearsal")
        assert getattr(reaper, verb)(site.handle) is not None
        if why == "in use":
            held.release()
        assert (site.state(), counts(reaper.tally)) == (before, {})

    def test_not_of_one_that_is_used_before_its_lock_is_there(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.make_long()
        lock = locks.lock

        def first(*arguments: Any) -> None:
            monkeypatch.setattr(locks, "lock", lock)
            touched(site)
            site.clock.advance(-100)
            lock(*arguments)

        monkeypatch.setattr(locks, "lock", first)
        reaper = site.reaper()
        reaper.look(site.handle)
        assert counts(reaper.tally) == {}
        assert len(site.raw.lines(SID)) == 4

    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_on_a_full_disk_the_session_stays_and_it_is_told_once(
        self, site: Site, verb: str
    ) -> None:
        before = site.make_long()
        content, files = site.path.read_bytes(), site.raw.files()
        reaper = site.reaper()
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with SystemCalls(failing(error, sticky=True), only=("write",)):
            filing = getattr(reaper, verb)(site.handle)
        assert filing == Filing(before.accessed_at + LIFE, plain=True)
        assert counts(reaper.tally) == {"failed": 1}
        assert reaper.tally.failure is not None
        assert reaper.tally.failure.startswith(f"sweeping session {site.handle}")
        assert (site.path.read_bytes(), site.raw.files()) == (content, files)
        assert site.record() == before

    @pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
    @pytest.mark.usefixtures("quick_disk")
    def test_wherever_it_fails_the_session_is_whole(self, site: Site, code: int) -> None:
        opened = sorted(os.listdir("/proc/self/fd"))
        for calls in each(lambda nth: failing(OSError(code, os.strerror(code)), nth), EVERY):
            site.store.clear()
            before = site.make_long()
            reaper = site.reaper()
            with calls:
                reaper.look(site.handle)
            assert site.record() == before, calls.names()
            assert reaper.tally.failed + reaper.tally.compacted <= 1
            assert sorted(os.listdir("/proc/self/fd")) == opened
            assert all(free(path) for path in site.raw.files())
            assert site.store.save(SID, {"n": 3}).version == before.version + 1
        assert reaper.tally.compacted == 1

    def test_wherever_it_is_killed_the_session_is_whole(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reaper_module, "YOUNG", -1.0)
        nth, killed = 0, True
        while killed:
            nth += 1
            site.store.clear()
            before = site.make_long()
            child = os.fork()
            if not child:
                with suppress(BaseException), SystemCalls(deadly(nth), only=EVERY):
                    site.reaper().look(site.handle)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            killed = os.WIFSIGNALED(status)
            assert status == (signal.SIGKILL if killed else 0)
            assert site.record() == before
            assert free(site.path)
            site.store.sweep()
            assert site.raw.files() == [site.path]
            assert site.raw.lines(SID)[-1]["data"] == {"n": 2}
        assert nth > 12
        assert len(site.raw.lines(SID)) == 1


def load(site: Site) -> Any:
    return site.record()


def reap_too(site: Site) -> Any:
    other = site.reaper()
    return other.look(site.handle), other.tally.failed


def touch(site: Site) -> Any:
    return site.store.touch(SID)


@pytest.mark.usefixtures("quick_disk")
class TestAtOnce:
    """Shortening a file beside another call, in every order of their system calls."""

    @pytest.mark.parametrize(
        "call", [saved, touch, regenerated, deleted, load, reap_too], ids=lambda call: call.__name__
    )
    def test_nothing_is_lost(
        self,
        tmp_path: Path,
        clock: ManualClock,
        make_line: Callable[..., bytes],
        call: Callable[[Site], Any],
    ) -> None:
        from tests.stores.conftest import Raw  # noqa: PLC0415 - needed when it runs

        directory = tmp_path / "flat"
        store = FileStore(directory, clock=clock, shard_depth=0)
        site = Site(store, Raw(directory, depth=0), clock, make_line)
        before: list[SessionRecord] = []

        def calls() -> list[Callable[[], Any]]:
            site.store.clear()
            clock.now = time.time()  # a write sets the mark by the system's clock for a moment
            before[:] = [site.make_long()]
            return [lambda: site.reaper().look(site.handle), lambda: call(site)]

        runs = shortened = 0
        for run in interleavings(calls, preemptions=1):
            runs += 1
            mine, theirs = run.outcomes
            order = [choice for choice, _, _ in run.taken]
            assert mine is None or isinstance(mine, Filing), (mine, order)
            assert not isinstance(theirs, Exception), (theirs, order)
            found, old = site.store.load(SID), before[0]
            if call in {deleted, regenerated}:
                assert found is None, order
                assert len(site.raw.files()) == (call is regenerated), order
                found = site.store.load("new")
                assert (call is deleted) is (found is None), order
            if call is not deleted:
                assert found is not None, order
                assert found.lineage == old.lineage
                assert found.data == ({"n": 2}), order
                assert found.version == old.version + (call in {saved, regenerated}), order
            if call is touch:
                assert (theirs, found and found.accessed_at) == (True, clock.now), order
            if call is load:
                assert theirs == old, order
            if call is reap_too:
                assert theirs == (Filing(old.accessed_at + LIFE, plain=True), 0), order
            shortened += any(path.stat().st_size < LONG for path in site.raw.files())
        assert runs > 10
        assert shortened or call is deleted


class TestClear:
    def leave(self, site: Site) -> Path:
        site.create()
        path = site.path.with_name(f".{site.handle}.0123456789ab.tmp")
        path.write_bytes(b"half")
        return path

    def test_a_young_one_stays(self, site: Site) -> None:
        path = self.leave(site)
        reaper = site.reaper()
        reaper.clear(str(path))
        assert path.exists()
        assert counts(reaper.tally) == {}

    @pytest.mark.usefixtures("grown_old", "no_descriptor_leaks")
    def test_an_old_one_goes(self, site: Site) -> None:
        path = self.leave(site)
        before = site.state()
        rehearsal = site.reaper(dry_run=True)
        rehearsal.clear(str(path))
        assert (counts(rehearsal.tally), site.state()) == ({"leftovers": 1}, before)
        reaper = site.reaper()
        reaper.clear(str(path))
        reaper.clear(str(path))
        assert counts(reaper.tally) == {"leftovers": 1}
        assert site.raw.files() == [site.path]

    @pytest.mark.usefixtures("grown_old", "no_descriptor_leaks")
    def test_one_whose_writer_is_at_work_stays(self, site: Site) -> None:
        path = self.leave(site)
        reaper = site.reaper()
        with path.open("r+b") as file:
            assert locks.try_lock(file.fileno())
            reaper.clear(str(path))
        assert path.exists()
        assert counts(reaper.tally) == {}

    @pytest.mark.usefixtures("grown_old", "no_descriptor_leaks")
    @pytest.mark.parametrize("what", ["directory", "symlink", "fifo"])
    def test_what_is_no_file_is_set_aside(self, site: Site, what: str) -> None:
        path = self.leave(site)
        path.unlink()
        if what == "directory":
            path.mkdir()
        elif what == "symlink":
            path.symlink_to(site.path)
        else:
            os.mkfifo(path)
        before = site.state()
        rehearsal = site.reaper(dry_run=True)
        rehearsal.clear(str(path))
        assert (counts(rehearsal.tally), site.state()) == ({"corrupt": 1}, before)
        reaper = site.reaper()
        reaper.clear(str(path))
        assert counts(reaper.tally) == {"corrupt": 1}
        assert not os.path.lexists(path)
        (aside,) = site.raw.corrupt.iterdir()
        assert aside.name.startswith(path.name)
        assert site.path.exists()

    @pytest.mark.usefixtures("grown_old", "no_descriptor_leaks")
    @pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
    def test_one_that_cannot_be_removed_is_counted(self, site: Site, code: int) -> None:
        for calls in each(lambda nth: failing(OSError(code, os.strerror(code)), nth)):
            path = self.leave(site)
            reaper = site.reaper()
            with calls:
                reaper.clear(str(path))
            assert reaper.tally.leftovers == 1 - reaper.tally.failed
            assert path.exists() is bool(reaper.tally.failed)
            site.store.delete(SID)
        assert len(calls.calls) == 3

    def test_a_young_note_stays_and_an_old_one_goes(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        note = site.raw.directory / "sooner" / site.handle
        note.parent.mkdir()
        note.touch()
        reaper = site.reaper()
        reaper.clear_note(str(note))
        assert note.exists()
        now = time.time() + 61
        monkeypatch.setattr(time, "time", lambda: now)
        site.reaper(dry_run=True).clear_note(str(note))
        assert note.exists()
        reaper.clear_note(str(note))
        assert not note.exists()
        reaper.clear_note(str(note))
        assert counts(reaper.tally) == {}


class TestUsualSize:
    def test_is_the_mean_of_what_was_looked_at(self, site: Site) -> None:
        reaper = site.reaper()
        assert reaper.usual_size == 0.0
        ids = [site.store.create({"text": "x" * 100 * n}).id for n in range(4)]
        sizes = [site.raw.path(sid).stat().st_size for sid in ids]
        for sid, verb in zip(ids, ("glance", "look", "reap", "glance"), strict=True):
            getattr(reaper, verb)(site.raw.name(sid))
        assert reaper.usual_size == sum(sizes) / 4

    def test_what_was_looked_at_long_ago_counts_less_and_less(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reaper_module, "MANY", 10)
        small = site.raw.name(site.store.create().id)
        large = site.raw.name(site.store.create({"text": "x" * 3000}).id)
        reaper = site.reaper()
        for _ in range(100):
            reaper.glance(small)
        for _ in range(40):
            reaper.glance(large)
        size = (site.store._layout.path(large), site.store._layout.path(small))
        most, least = (os.stat(path).st_size for path in size)
        assert least < 0.9 * most < reaper.usual_size <= most

    @pytest.mark.parametrize("kind", [symlink, subdirectory, fifo, too_large])
    def test_what_is_no_session_has_none(self, site: Site, kind: Kind) -> None:
        kind(site)
        reaper = site.reaper()
        reaper.glance(site.handle)
        reaper.look(site.handle)
        assert reaper.usual_size == 0.0
