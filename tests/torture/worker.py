"""A process of the torture run: two threads that draw a session and a verb, again and again.

Each life of a session, from its creation on, has a name, ``life``, among its data, and a counter,
``count``. What a save adds is a key that no other save adds, whose value follows from its name.
"""

from __future__ import annotations

import mmap
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from filesession import ConflictError, FileStore, LockTimeout, SessionExists, SessionGone
from filesession.record import SessionRecord
from tests.torture.history import Scribe

THREADS: Final = 2
"""In each process: what they share there, they must not trip over."""

BUSY: Final = 6
"""Sessions that are worked on all the time; few, so that all meet there."""

SLEEPY: Final = 14
"""Sessions that are left alone until about the moment at which they expire."""

SLOTS: Final = BUSY + SLEEPY

MOST_KEYS: Final = 10
"""A session with more has some removed, so that it ends in a line that can be read."""

WEIGHTS: Final = {
    "look": 10,
    "add": 26,
    "grow": 4,
    "error": 6,
    "remove": 8,
    "overwrite": 3,
    "count": 14,
    "touch": 10,
    "regenerate": 6,
    "delete": 3,
    "abandon": 2,
    "claim": 2,
}
"""How often what is done. A tenth of it goes out from a record that was loaded a while ago."""

_DATA: Final = frozenset({"life", "count"})

Act = Callable[[], SessionRecord | bool | None]


class Board:
    """Which id is in which slot, for all processes: memory they share from before they forked."""

    def __init__(self) -> None:
        numbers = memoryview(mmap.mmap(-1, 3 * 8 * SLOTS)).cast("Q")
        self.now = numbers[:SLOTS]
        self.next = numbers[SLOTS : 2 * SLOTS]
        self.used = numbers[2 * SLOTS :]


def sid_of(number: int) -> str:
    return f"{number:x}"


def value_of(key: str) -> str:
    """What is saved under a key; much, if its name ends so that a file grows fast."""
    return key * 1500 if key.endswith("g") else key


@dataclass(frozen=True, slots=True)
class Ground:
    """What all players have in common."""

    store: FileStore
    scribe: Scribe
    board: Board
    idle: float


class Player:
    """One thread's part of a worker process."""

    def __init__(self, ground: Ground, seed: str, worker: int, thread: int) -> None:
        self.store, self.scribe, self.board = ground.store, ground.scribe, ground.board
        self.idle = ground.idle
        self.random = random.Random(seed)  # noqa: S311 - a game that can be played again
        self.worker = worker
        self.first = (worker * THREADS + thread) << 20
        self.count = 0
        self.old: deque[SessionRecord] = deque(maxlen=30)
        self.slept: dict[int, SessionRecord] = {}

    def play(self, until: float) -> None:
        verbs, weights = tuple(WEIGHTS), tuple(WEIGHTS.values())
        while time.monotonic() < until:
            slot = self._slot()
            record = self._record(slot)
            if record is None:
                self._create(slot)
                continue
            (verb,) = self.random.choices(verbs, weights)
            if len(record.data) > MOST_KEYS and verb in {"add", "grow", "error"}:
                verb = "remove"
            self._pause()
            getattr(self, f"_{verb}")(record, slot)

    def last_look(self) -> None:
        """Load what is in the slots, and take every lock once: no one has it any more."""
        for slot in range(SLOTS):
            for number in {self.board.now[slot], self.board.next[slot]}:
                record = self._load(sid_of(number))
                if record is not None:
                    self._count_by(record.id)

    def _slot(self) -> int:
        """A busy one, or a sleepy one whose session is about to expire."""
        slot = self.random.randrange(SLOTS)
        rested = time.monotonic() - self.board.used[slot] / 1e9
        if slot >= BUSY and rested < self.idle * self.random.uniform(0.95, 1.25):
            slot = self.random.randrange(BUSY)
        return slot

    def _record(self, slot: int) -> SessionRecord | None:
        """The session of a slot; now and then an old record, of a session that may be gone."""
        if self.old and self.random.random() < 0.1:
            return self.random.choice(self.old)
        numbers = self.board.now[slot], self.board.next[slot]
        self.board.used[slot] = time.monotonic_ns()
        slept = self._slept(slot, sid_of(numbers[0])) if slot >= BUSY else None
        if slept is not None:
            return slept
        record = self._load(sid_of(numbers[0]))
        if record is None and numbers[1] != numbers[0]:
            record = self._load(sid_of(numbers[1]))  # whoever moved it was killed on the way
            if record is not None:
                self.board.now[slot] = numbers[1]
        if record is not None and slot >= BUSY:
            self.slept[slot] = record
        return record

    def _slept(self, slot: int, sid: str) -> SessionRecord | None:
        """The record of a session that may expire just now: a load would end what is to be tried.

        Without a record, what needs none.
        """
        chance, record = self.random.random(), self.slept.get(slot)
        if record is not None and record.id == sid:
            return record if chance < 0.6 else None
        if chance < 0.3:
            self._count_by(sid)
        return None

    def _pause(self) -> None:
        """What a request does between its load and its save."""
        if self.random.random() < 0.4:
            time.sleep(self.random.random() * 0.003)

    # -- the verbs ----------------------------------------------------------------------------

    def _load(self, sid: str) -> SessionRecord | None:
        result = self._call("load", sid, lambda: self.store.load(sid))
        return result if isinstance(result, SessionRecord) else None

    def _create(self, slot: int) -> None:
        number = self._unique()
        self.board.next[slot] = number
        if self._made(sid_of(number)):
            self.board.now[slot] = number

    def _made(self, sid: str) -> bool:
        life = f"L{self._unique():x}"
        data = {"life": life, "count": 0}
        return (
            self._call("create", sid, lambda: self.store.create(data, sid=sid), life=life)
            is not None
        )

    def _abandon(self, record: SessionRecord, slot: int) -> None:
        self._create(slot)

    def _claim(self, record: SessionRecord, slot: int) -> None:
        """Ask for an id that is taken, or was."""
        if self._made(record.id):
            self.board.now[slot] = int(record.id, 16)

    def _look(self, record: SessionRecord, slot: int) -> None:
        self._load(record.id)

    def _add(self, record: SessionRecord, slot: int, verb: str = "add", kind: str = "") -> None:
        key = self._key(kind)
        data = record.data | {key: value_of(key)}
        conflict: Any = {"add": "merge"}.get(verb, verb)
        more: dict[str, Any] = {"life": record.data["life"], "key": key, "on": record.version}
        if verb == "overwrite":
            more |= {"whole": True, "carries": _keys(data), "carried": data["count"]}
        sid = record.id
        self._call(
            verb, sid, lambda: self.store.save(sid, data, base=record, conflict=conflict), **more
        )

    def _grow(self, record: SessionRecord, slot: int) -> None:
        self._add(record, slot, kind="g")

    def _error(self, record: SessionRecord, slot: int) -> None:
        self._add(record, slot, "error")

    def _overwrite(self, record: SessionRecord, slot: int) -> None:
        self._add(record, slot, "overwrite")

    def _remove(self, record: SessionRecord, slot: int) -> None:
        keys = _keys(record.data)
        drop = self.random.sample(keys, (len(keys) + 1) // 2)
        data = {key: value for key, value in record.data.items() if key not in drop}
        sid, life = record.id, record.data["life"]
        act = lambda: self.store.save(sid, data, base=record)  # noqa: E731
        self._call("remove", sid, act, life=life, drop=drop, on=record.version)

    def _touch(self, record: SessionRecord, slot: int) -> None:
        sid = record.id
        if self.random.random() < 0.3:
            self._call("touch", sid, lambda: self.store.touch(sid))
        else:
            act = lambda: self.store.touch(sid, base=record)  # noqa: E731
            age = time.time() - record.accessed_at
            self._call("touch", sid, act, life=record.data["life"], age=age)

    def _delete(self, record: SessionRecord, slot: int) -> None:
        self._call("delete", record.id, lambda: self.store.delete(record.id))

    def _regenerate(self, record: SessionRecord, slot: int) -> None:
        number, sid, key = self._unique(), record.id, ""
        new, data, base = sid_of(number), None, None
        if self.random.random() < 0.5:
            key, base = self._key(), record
            data = record.data | {key: value_of(key)}
        here = [slot for slot in range(SLOTS) if sid_of(self.board.now[slot]) == sid]
        for each in here:
            self.board.next[each] = number
        act = lambda: self.store.regenerate(sid, data, base=base, new_sid=new)  # noqa: E731
        life = record.data["life"] if base is not None else ""
        if self._call("regenerate", sid, act, life=life, new=new, key=key) is not None:
            for each in here:
                self.board.now[each] = number

    def _count(self, record: SessionRecord, slot: int) -> None:
        self._count_by(record.id)

    def _count_by(self, sid: str) -> None:
        """One more, under the lock; the lock is of whatever session has the id by now."""
        patience = self.random.choice((0.02, 5.0))
        mark = self._mark()

        def act() -> SessionRecord:
            with self.store.lock(sid, timeout=patience) as fresh:
                life, count = fresh.data["life"], fresh.data["count"]
                self.scribe.write(mark=mark, entered=self.scribe.now(), life=life, on=fresh.version)
                base = fresh if self.random.random() < 0.7 else None
                self._pause()
                saved = self.store.save(sid, fresh.data | {"count": count + 1}, base=base)
                self.scribe.write(mark=mark, left=self.scribe.now())
                return saved

        self._call("count", sid, act, mark, patience=patience)

    # -- telling ------------------------------------------------------------------------------

    def _unique(self) -> int:
        self.count += 1
        return self.first + self.count

    def _key(self, kind: str = "") -> str:
        return f"k{self._unique():x}{kind}"

    def _mark(self) -> str:
        return f"m{self._unique():x}"

    def _call(
        self, verb: str, sid: str, act: Act, mark: str = "", **more: Any
    ) -> SessionRecord | bool | None:
        """Make a call and write down what it was and told; None when it was refused."""
        mark = mark or self._mark()
        self.scribe.write(
            mark=mark, verb=verb, sid=sid, worker=self.worker, began=self.scribe.now(), **more
        )
        result: SessionRecord | bool | None = None
        said: dict[str, Any] = {}
        try:
            result = act()
            ended = self.scribe.now()
            told = "ok" if result else "gone"
        except Exception as error:  # noqa: BLE001 - whatever it is, the history has it
            ended = self.scribe.now()
            told = _refusal(error)
        if isinstance(result, SessionRecord):
            said = _shown(result)
            if self.random.random() < 0.1:
                self.old.append(result)
        self.scribe.write(mark=mark, ended=ended, told=told, **said)
        return result or None


def _refusal(error: Exception) -> str:
    kinds: dict[type[Exception], str] = {
        SessionGone: "gone",
        SessionExists: "exists",
        ConflictError: "conflict",
        LockTimeout: "timeout",
    }
    return kinds.get(type(error)) or f"failed: {type(error).__name__}: {error}"[:300]


def _keys(data: dict[str, Any]) -> list[str]:
    return sorted(data.keys() - _DATA)


def _shown(record: SessionRecord) -> dict[str, Any]:
    """A session as the history tells it."""
    data, keys = record.data, _keys(record.data)
    said: dict[str, Any] = {
        "life": data.get("life", ""),
        "version": record.version,
        "keys": keys,
        "count": data.get("count", -1),
    }
    odd = [key for key in keys if data[key] != value_of(key)]
    return said | ({"odd": odd} if odd else {}) | ({"forwarded": True} if record.forwarded else {})


def work(ground: Ground, seed: int, worker: int, until: float) -> None:
    """Play in threads until that moment of the monotonic clock; what stays open is told."""
    players = [
        Player(ground, f"{seed} {worker} {thread}", worker, thread) for thread in range(THREADS)
    ]
    before = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=player.play, args=(until,)) for player in players]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = len(os.listdir("/proc/self/fd"))
    ground.scribe.write(event="descriptors", of=f"worker {worker}", before=before, after=after)
