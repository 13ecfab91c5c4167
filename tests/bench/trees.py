"""Session directories of any size, ours and others', made fast and aged at will.

A tree writes its files itself: through a store's own calls a million of Litestar's would take half
an hour. The content comes from each library's own serialiser, and ``check`` holds a file against
one that the library's own calls made, and reads it by them.

The sessions are numbered. Those with the lowest numbers are the ones that expire.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from filesession import FileStore
from filesession.codec import JSONCodec
from filesession.stores.entry import Entry, handle_of
from filesession.stores.file.journal import line_of, seed_of

IDLE: Final = 1800
"""Seconds: everybody's idle timeout here."""

YOUNGEST_LIVE: Final = 60.0
OLDEST_LIVE: Final = 900.0
"""Seconds since the last activity of the live: they outlive any measurement."""

LONGEST_OVERDUE: Final = 1000.0
"""Seconds by which the expired are overdue, 1 at least."""

SAMPLE: Final = 3
"""Files that are held against the library's own."""

DATA: Final[dict[str, Any]] = {
    "user": "ada@example.org",
    "role": "customer",
    "csrf": hashlib.sha256(b"csrf").hexdigest(),
    "cart": [{"item": "tea", "count": 2}, {"item": "coffee", "count": 1}],
    "seen": ["/", "/tea", "/coffee", "/cart", "/account"],
    "flash": "Your order of last week is on its way.",
}
"""About 300 bytes of JSON."""


class Tree:
    """The directory of one store, whose sessions are as old as one wants.

    Attributes:
        place: the directory.
        count: of the sessions in it when none is deleted.
        due_after: seconds from the last activity until a cleaner may delete.
    """

    due_after: float = IDLE

    def __init__(self, place: Path, count: int) -> None:
        self.place = place
        self.count = count
        self._aged = 0

    def build(self) -> None:
        """Make all sessions, alive."""
        self._live(range(self.count))

    def expire(self, count: int) -> None:
        """Have the first ``count`` be overdue by 1 to 1000 s and all others alive."""
        self._live(range(count, self._aged))
        now = time.time() - self.due_after - 1
        for number in range(count):
            self.write(number, now - LONGEST_OVERDUE * _spread(number))
        self._aged = count

    def fall_due(self, count: int, moment: float) -> None:
        """Have the first ``count`` fall due at that moment, in POSIX seconds."""
        self._live(range(count, self._aged))
        for number in range(count):
            self.write(number, moment - self.due_after)
        self._aged = count

    def fall_due_in_turn(self, moment: float) -> None:
        """Have all fall due in the order of their numbers, evenly, from that moment on."""
        for number in range(self.count):
            self.write(number, moment - self.due_after + IDLE * number / self.count)
        self._aged = self.count

    def remaining(self) -> int:
        """How many files are there."""
        return sum(len(os.listdir(folder)) for folder in self.folders())

    def tidy(self) -> None:
        """Remove what a cleaner made."""

    def write(self, number: int, accessed: float) -> None:
        """Make or replace a session that was last active at that moment."""
        raise NotImplementedError

    def path(self, number: int) -> str:
        """Where a session lies."""
        raise NotImplementedError

    def folders(self) -> list[str]:
        """The directories with the files."""
        return [str(self.place)]

    def check(self) -> None:
        """Raises ``AssertionError`` when the library would have made other files."""
        raise NotImplementedError

    def _live(self, numbers: range) -> None:
        now = time.time() - YOUNGEST_LIVE
        for number in numbers:
            self.write(number, now - (OLDEST_LIVE - YOUNGEST_LIVE) * _spread(number))


class OurTree(Tree):
    """A session directory of ours."""

    def __init__(self, place: Path, count: int) -> None:
        super().__init__(place, count)
        self.store = FileStore(place, idle_timeout=IDLE)
        due = self.store.lifetime.due_at(0, 0)
        assert due is not None
        self.due_after = due
        self._data = JSONCodec().encode(DATA)
        self._sessions = f"{place}/sessions"
        os.makedirs(self._sessions, mode=0o700, exist_ok=True)
        for folder in self.folders():
            os.makedirs(folder, mode=0o700, exist_ok=True)

    @staticmethod
    def sid(number: int) -> str:
        """The id of a session."""
        return f"session-{number}"

    def path(self, number: int) -> str:
        handle = handle_of(self.sid(number))
        assert handle is not None
        return f"{self._sessions}/{handle[:2]}/{handle}"

    def folders(self) -> list[str]:
        return [f"{self._sessions}/{shard:02x}" for shard in range(256)]

    def write(self, number: int, accessed: float) -> None:
        path = self.path(number)
        entry = Entry(1, f"{number:016x}", accessed, accessed, self._data)
        _write(path, line_of(entry, seed_of(os.path.basename(path))), accessed)

    def check(self) -> None:
        made = self.store.create(DATA)
        handle = handle_of(made.id)
        assert handle is not None
        theirs = f"{self._sessions}/{handle[:2]}/{handle}"
        for number in range(self.count - 1, max(-1, self.count - 1 - SAMPLE), -1):
            ours = self.path(number)
            assert _members(ours).keys() == _members(theirs).keys()
            assert _members(ours)["data"] == _members(theirs)["data"]
            assert os.stat(ours).st_mode == os.stat(theirs).st_mode
            found = self.store.load(self.sid(number))
            assert found is not None
            assert found.data == DATA
            assert found.accessed_at == os.stat(ours).st_mtime
        self.store.delete(made.id)


class DjangoTree(Tree):
    """``django.contrib.sessions.backends.file``; a file's time is the last activity."""

    def __init__(self, place: Path, count: int) -> None:
        super().__init__(place, count)
        place.mkdir(mode=0o700)
        self._store = django_store(str(place))
        self._store.storage_path = str(place)
        self._content = self._store.encode(DATA).encode()

    def path(self, number: int) -> str:
        return f"{self.place}/sessionid{number:032}"

    def write(self, number: int, accessed: float) -> None:
        _write(self.path(number), self._content, accessed)

    def check(self) -> None:
        made = django_store(str(self.place))
        made.update(DATA)
        made.save()
        theirs = f"{self.place}/sessionid{made.session_key}"
        for number in range(SAMPLE):
            assert os.stat(self.path(number)).st_mode == os.stat(theirs).st_mode
            assert django_store(str(self.place), f"{number:032}").load() == DATA
        made.delete()


class CachelibTree(Tree):
    """``cachelib.FileSystemCache``; the moment of expiry is in the file."""

    def __init__(self, place: Path, count: int) -> None:
        super().__init__(place, count)
        place.mkdir(mode=0o700)
        self._cache = import_module("cachelib").FileSystemCache(str(place), 0, IDLE)
        pickled = BytesIO()
        self._cache.serializer.dump(DATA, pickled)
        self._pickled = pickled.getvalue()

    def path(self, number: int) -> str:
        return f"{self.place}/{hashlib.sha256(b'session-%d' % number).hexdigest()}"

    def write(self, number: int, accessed: float) -> None:
        expires = int(accessed + IDLE).to_bytes(4, "little")
        _write(self.path(number), expires + self._pickled, accessed)

    def tidy(self) -> None:
        for name in (b"__wz_cache_count", b"one more"):
            Path(self.place, hashlib.sha256(name).hexdigest()).unlink(missing_ok=True)
        for leftover in self.place.glob("*.__wz_cache"):
            leftover.unlink()

    def check(self) -> None:
        assert self._cache.set("made", DATA)
        theirs = Path(self.place, hashlib.sha256(b"made").hexdigest())
        for number in range(SAMPLE):
            ours = Path(self.path(number))
            assert ours.read_bytes()[4:] == theirs.read_bytes()[4:]
            assert ours.stat().st_mode == theirs.stat().st_mode
            assert self._cache.get(f"session-{number}") == DATA
        self._cache.delete("made")


class LitestarTree(Tree):
    """``litestar.stores.file.FileStore``; the moment of expiry is in the file."""

    def __init__(self, place: Path, count: int) -> None:
        super().__init__(place, count)
        place.mkdir(mode=0o700)
        self._object: Callable[..., Any] = import_module("litestar.stores.base").StorageObject
        self._data = JSONCodec().encode(DATA)

    def path(self, number: int) -> str:
        return f"{self.place}/{hashlib.blake2s(b'session-%d' % number).hexdigest()}"

    def write(self, number: int, accessed: float) -> None:
        expires = datetime.fromtimestamp(accessed + IDLE, UTC)
        content = self._object(expires_at=expires, data=self._data).to_bytes()
        _write(self.path(number), content, accessed)

    def check(self) -> None:
        store = import_module("litestar.stores.file").FileStore(self.place)
        asyncio.run(store.set("made", self._data, expires_in=IDLE))
        theirs = Path(self.place, hashlib.blake2s(b"made").hexdigest())
        for number in range(SAMPLE):
            ours = Path(self.path(number))
            assert ours.stat().st_size == theirs.stat().st_size
            assert ours.stat().st_mode == theirs.stat().st_mode
            assert asyncio.run(store.get(f"session-{number}")) == self._data
        theirs.unlink()


def django_store(place: str, key: str | None = None) -> Any:
    """A session of Django's file backend in that directory; sets Django up at the first call."""
    settings = import_module("django.conf").settings
    if not settings.configured:
        settings.configure(
            SESSION_ENGINE="django.contrib.sessions.backends.file",
            SESSION_FILE_PATH=place,
            SESSION_COOKIE_AGE=IDLE,
            SECRET_KEY="a secret of the bench",
            USE_TZ=True,
        )
    store = import_module("django.contrib.sessions.backends.file").SessionStore
    store._storage_path = place
    return store(key)


def _spread(number: int) -> float:
    """From 0 to 1, evenly and in no order."""
    return number * 0.6180339887498949 % 1


def _write(path: str, content: bytes, accessed: float) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.utime(descriptor, (accessed, accessed))
    finally:
        os.close(descriptor)


def _members(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_bytes()[9:])
    return found


TREES: Final[dict[str, Callable[[Path, int], Tree]]] = {
    "ours": OurTree,
    "django": DjangoTree,
    "cachelib": CachelibTree,
    "litestar": LitestarTree,
}
