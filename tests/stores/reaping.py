"""What may lie at the place of one session when a reaper comes, and what may happen meanwhile."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

from filesession.record import SessionRecord
from filesession.stores import FileStore
from filesession.stores.file import sessionfile
from filesession.stores.file.reaper import QUIET, Reaper, Tally
from filesession.testing import ManualClock
from filesession.testing.faults import CALLS, LOCK

if TYPE_CHECKING:
    from tests.stores.conftest import Raw

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


def counts(tally: Tally) -> dict[str, Any]:
    """What is not nothing."""
    kept = {"freed", "failure", "oldest_overdue"}
    return {key: value for key, value in asdict(tally).items() if value and key not in kept}


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


SHORTENED: Final = {"compacted": 1}
