"""Every verb with every error at every system call it makes, once and from there on.

After each: the error is of the right kind, says what was done and to what, and names no id. What is
stored is the whole old state or the whole new one, by a reader of the tests' own and by a fresh
store; the other sessions are as they were. No file stays open, no lock held. A temporary file lies
about only where the fault kept it from being removed, and a sweep takes it. The fault over, the
same store does the same.

An error that comes once, and anything a verb returns from, must have left the state that is told:
the old one with an error, the new one without. Only two things may be unknown: whether what a
durable store has written survives a power cut, when its last wait for the disk fails; and what was
done, when the system refuses from some call on, so that nothing can be taken back.

The codes are told apart in one place, where an error is given its type. So ``EIO``, once and from
there on, and an interruption meet every call, and every other code the first call of each name, in
a store that is not durable. With ``FILESESSION_FAULTS=all`` in the environment every code meets
every call, in both ways. ``EACCES`` from ``flock`` is left out: some file systems say so of a lock
that another holds. ``close`` is made to fail nowhere: it leaves no descriptor open whatever it
says.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from filesession.errors import (
    ConfigurationError,
    FilesessionError,
    SessionExists,
    StoreFull,
    StoreUnavailable,
)
from filesession.record import SweepReport
from filesession.stores import FileStore
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCalls
from tests.faults.conftest import (
    BYSTANDER,
    DAMAGED,
    DUE,
    EVERY,
    FRESH,
    FULL,
    GRACE,
    IDS,
    LED,
    LONG,
    MOVED,
    NEW,
    OLD,
    PLAIN,
    RANDOM,
    THERE,
    Fault,
    Ground,
    Outcome,
    Tree,
    handle_of,
    outcome_of,
)

CODES: Final = (
    *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS),
    *(errno.ESTALE, errno.ENOLCK, errno.EACCES, errno.EPERM, errno.EINTR, errno.ENOMEM),
)
REFUSALS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""What tells one who opens a store that it must name another directory, or mend this one."""

ALL: Final = os.environ.get("FILESESSION_FAULTS") == "all"


@dataclass(frozen=True)
class Verb:
    """A call on a store, and what is true of it.

    Attributes:
        call: makes it; with what it gave.
        changes: the sessions it changes: the data of each afterwards, None: there is none.
        unknown: the call, in a durable store, after whose failure it is not known what survives.
        gives: whether what it gave is right.
        about: the sessions of which a message must name one, if it names no path.
        marks: whether it notes that the session was used.
        quiet: it may come to its end without having done all: nothing depends on it, or it tells.
    """

    call: Callable[[FileStore], Any]
    changes: Mapping[str, Any]
    unknown: str = ""
    gives: Callable[[Any], bool] = lambda _: True
    about: tuple[str, ...] = (PLAIN,)
    marks: bool = False
    quiet: bool = False


def lock_and_save(store: FileStore) -> Any:
    with store.lock(PLAIN) as record:
        store.touch(PLAIN, base=record)
        return store.save(PLAIN, NEW, base=record)


def delete_under_lock(store: FileStore) -> Any:
    with store.lock(PLAIN):
        return store.delete(PLAIN)


def new(record: Any) -> bool:
    return bool(record.data == NEW)


VERBS: Final[dict[str, Verb]] = {
    "create": Verb(lambda s: s.create(NEW), {RANDOM: NEW}, "fsync", new, (RANDOM,)),
    "create, id chosen": Verb(
        lambda s: s.create(NEW, sid=THERE), {THERE: NEW}, "fsync", new, (THERE,)
    ),
    "create, first of its shard": Verb(
        lambda s: s.create(NEW, sid=FRESH), {FRESH: NEW}, "fsync", new, (FRESH,)
    ),
    "create over an ended one": Verb(
        lambda s: s.create(NEW, sid=DUE), {DUE: NEW}, "fsync", new, (DUE,)
    ),
    "load": Verb(lambda s: s.load(PLAIN), {}, gives=lambda record: record.data == OLD),
    "load what is not there": Verb(
        lambda s: s.load(THERE), {}, gives=lambda found: found is None, about=(THERE,)
    ),
    "load an ended one": Verb(
        lambda s: s.load(DUE), {}, gives=lambda found: found is None, about=(DUE,), quiet=True
    ),
    "load a damaged one": Verb(
        lambda s: s.load(DAMAGED),
        {},
        gives=lambda found: found is None,
        about=(DAMAGED,),
        quiet=True,
    ),
    "load by an old id": Verb(
        lambda s: s.load(LED),
        {},
        gives=lambda found: found.data == OLD and found.forwarded,
        about=(LED,),
    ),
    "save": Verb(lambda s: s.save(PLAIN, NEW), {PLAIN: NEW}, "fdatasync", new),
    "save, of a base": Verb(
        lambda s: s.save(PLAIN, NEW, base=s.load(PLAIN)), {PLAIN: NEW}, "fdatasync", new
    ),
    "save that compacts": Verb(lambda s: s.save(LONG, NEW), {LONG: NEW}, "fsync", new, (LONG,)),
    "touch": Verb(lambda s: s.touch(PLAIN), {}, gives=lambda found: found is True, marks=True),
    "touch, of a base": Verb(
        lambda s: s.touch(PLAIN, base=s.load(PLAIN)),
        {},
        gives=lambda found: found is True,
        marks=True,
    ),
    "regenerate": Verb(lambda s: s.regenerate(PLAIN, NEW), {PLAIN: None, RANDOM: NEW}, gives=new),
    "regenerate, id chosen": Verb(
        lambda s: s.regenerate(PLAIN, NEW, new_sid=THERE), {PLAIN: None, THERE: NEW}, gives=new
    ),
    "regenerate, first of its shard": Verb(
        lambda s: s.regenerate(PLAIN, NEW, new_sid=FRESH), {PLAIN: None, FRESH: NEW}, gives=new
    ),
    "regenerate a long one": Verb(
        lambda s: s.regenerate(LONG, NEW), {LONG: None, RANDOM: NEW}, gives=new, about=(LONG,)
    ),
    "delete": Verb(
        lambda s: s.delete(PLAIN), {PLAIN: None}, "fsync", gives=lambda found: found is True
    ),
    "delete by an old id": Verb(
        lambda s: s.delete(LED),
        {MOVED: None},
        "fsync",
        gives=lambda found: found is True,
        about=(LED, MOVED),
    ),
    "lock and save": Verb(lock_and_save, {PLAIN: NEW}, "fdatasync", new),
    "lock and delete": Verb(
        delete_under_lock, {PLAIN: None}, "fsync", gives=lambda found: found is True
    ),
    "scan": Verb(
        lambda s: sum(1 for _ in s.scan()), {}, gives=lambda n: n >= 4, about=(), quiet=True
    ),
    "len": Verb(len, {}, gives=lambda n: n == 6, about=()),
    "inspect": Verb(lambda s: s.inspect(handle_of(PLAIN)), {}, gives=lambda found: found[1] == OLD),
    "sweep": Verb(
        lambda s: s.sweep(),
        {},
        gives=lambda report: report.expired + report.failed >= 1,
        about=(),
        quiet=True,
    ),
    "clear": Verb(
        lambda s: s.clear(),
        dict.fromkeys((PLAIN, LONG, MOVED, BYSTANDER)),
        "fsync",
        gives=lambda n: n == 4,
        about=(),
    ),
}


@pytest.fixture(scope="module")
def counted() -> Iterator[list[int]]:
    """How many faults were injected, for a person who runs this with ``-s``."""
    count: list[int] = []
    yield count
    print(f"\n{sum(count)} faults injected")  # noqa: T201


def outcomes(
    ground: Ground, call: Callable[[], Any], count: list[int], *, every_code: bool = True
) -> Iterator[Outcome]:
    """Make a call with every fault, on the ground as it was, and with none at all."""
    with SystemCalls(only=EVERY) as calls:
        call()
    names = calls.names()
    first = [names.index(name) + 1 for name in dict.fromkeys(names)]
    everywhere = [(code, sticky) for code in CODES for sticky in (False, True)]
    for code, sticky in [*(everywhere if ALL else everywhere[:2]), (None, False)]:
        nth, met = 0, True
        while met:
            nth += 1
            ground.restore()
            outcome = outcome_of(call, Fault(code, nth, sticky))
            met = outcome.at is not None
            count.append(met)
            yield outcome
    for code, nth in itertools.product(CODES[1:] if every_code and not ALL else (), first):
        ground.restore()
        count.append(1)
        yield outcome_of(call, Fault(code, nth, sticky=False))


def check_error(
    outcome: Outcome, ground: Ground, told: str, about: tuple[str, ...] = (*IDS, BYSTANDER)
) -> None:
    """It is of the right kind, and says what is the matter with what; nothing said holds an id."""
    error, code = outcome.error, outcome.fault.code
    if error is None or code is None:
        assert error is None or isinstance(error, KeyboardInterrupt), outcome
    else:
        assert isinstance(error, FilesessionError), outcome
        refused = isinstance(error, ConfigurationError) and code in REFUSALS
        assert refused or isinstance(error, StoreFull if code in FULL else StoreUnavailable), (
            outcome
        )
        message = str(error)
        assert os.strerror(code) in message, outcome
        named = (str(ground.directory), *map(handle_of, about))
        assert any(name in message for name in named), outcome
        assert ("free some space" in message) is (code in FULL), outcome
        told += message
    assert not any(sid in told for sid in IDS), outcome


CASES: Final = [
    (name, durable)
    for name, verb in VERBS.items()
    for durable in ((False, True) if verb.changes else (False,))
]


@pytest.mark.parametrize(
    ("name", "durable"), CASES, ids=[name + ", durable" * durable for name, durable in CASES]
)
def test_an_error_tells_the_truth(  # noqa: PLR0917 - fixtures
    name: str,
    durable: bool,  # noqa: FBT001 - a row of the table
    ground: Ground,
    clock: ManualClock,
    counted: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    verb = VERBS[name]
    store = FileStore(ground.directory, clock=clock, durable=durable, regenerate_grace=GRACE)
    ground.keep()
    old = ground.live()
    after = {sid: data for sid, data in {**old, **verb.changes}.items() if data is not None}
    for outcome in outcomes(ground, lambda: verb.call(store), counted, every_code=not durable):
        check_error(outcome, ground, caplog.text, verb.about or (*IDS, BYSTANDER))
        caplog.clear()
        tree = ground.tree()
        now = ground.live(tree)
        check_state(outcome, verb, old, now, after, durable=durable)
        if verb.marks and outcome.error is None:
            assert is_marked(tree, PLAIN, clock.now), outcome
        check_readers(FileStore.open(ground.directory, clock=clock), now, outcome)
        assert all(ground.is_free(sid) for sid in (PLAIN, LONG, *verb.changes)), outcome
        assert all(handle_of(DAMAGED) in name for name in tree if name.startswith("corrupt/"))
        leftovers = ground.temporary(tree)
        assert len(leftovers) <= most_leftovers(outcome), outcome
        if leftovers:
            store.sweep()
            assert not ground.temporary(ground.tree()), outcome
        if now == old:
            gave = verb.call(store)
            assert verb.quiet or (verb.gives(gave) and ground.live() == after), outcome


def check_state(
    outcome: Outcome,
    verb: Verb,
    old: dict[str, Any],
    now: dict[str, Any],
    after: dict[str, Any],
    *,
    durable: bool,
) -> None:
    """What is stored is what the outcome says; each session is whole, old or new."""
    for sid in {*old, *now, *after}:
        assert now.get(sid) in (old.get(sid), after.get(sid)), outcome
    if len(verb.changes) == 2:  # a move
        assert now in (old, after), outcome
    if outcome.error is None:
        if outcome.at in {"fsync", "fdatasync"}:  # it may not last: that is told
            assert isinstance(outcome.gave, SweepReport), outcome
            assert outcome.gave.failure, outcome
        assert verb.gives(outcome.gave), outcome
        assert verb.quiet or now == after, outcome
    elif not outcome.fault.sticky and outcome.fault.code is not None:
        is_unknown = durable and outcome.at == verb.unknown
        assert is_unknown or not verb.about or now == old, outcome


def most_leftovers(outcome: Outcome) -> int:
    """How much may be left lying about: only what the fault kept from being cleaned up."""
    if outcome.fault.sticky:
        return 2
    return int(outcome.error is None or outcome.at == "unlink")


def is_marked(tree: Tree, sid: str, at: float) -> bool:
    """Whether the session was last used at that time, by the file's own time."""
    (mark,) = (mark for path, (_, _, mark) in tree.items() if path.endswith(handle_of(sid)))
    return abs(mark - at * 1e9) < 1000


def check_readers(fresh: FileStore, now: dict[str, Any], outcome: Outcome) -> None:
    """A fresh store reads what is stored."""
    for sid in (PLAIN, LONG, DUE, MOVED, THERE, FRESH, RANDOM):
        record = fresh.load(sid)
        assert (None if record is None else record.data) == now.get(sid), outcome


def test_a_move_to_a_taken_id_costs_neither_session(
    ground: Ground, clock: ManualClock, counted: list[int]
) -> None:
    store = FileStore(ground.directory, clock=clock)

    def move() -> None:
        with suppress(SessionExists):
            store.regenerate(PLAIN, NEW, new_sid=BYSTANDER)

    before = ground.live()
    for outcome in outcomes(ground, move, counted):
        assert ground.live() == before, outcome
        assert ground.is_free(PLAIN), outcome
        assert ground.is_free(BYSTANDER), outcome


OPENINGS: Final[dict[str, Callable[[Path], object]]] = {
    "a new directory": lambda path: FileStore(path / "new", shard_depth=2),
    "other timeouts": lambda path: FileStore(path / "old", idle_timeout=60),
    "as it is": lambda path: FileStore(path / "old"),
    "by its path": lambda path: FileStore.open(path / "old"),
    "a new key": lambda path: FileStore.open(path / "old").signing_key(),
    "the key": lambda path: FileStore.open(path / "keyed").signing_key(),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_a_store_that_cannot_be_opened_says_so_and_can_be_opened_later(
    name: str, memory: Path, counted: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    call, ground = OPENINGS[name], Ground(memory, ())
    FileStore(memory / "old")
    key = FileStore(memory / "keyed").signing_key()
    ground.keep()
    for outcome in outcomes(ground, lambda: call(memory), counted):
        check_error(outcome, ground, caplog.text)
        assert len(ground.temporary(ground.tree())) <= most_leftovers(outcome), outcome
        assert outcome.error is None or outcome.gave is None
        again = call(memory)
        if "key" in name:
            assert outcome.gave in (None, again), outcome
            assert (again == key) is (name == "the key"), outcome
        if name == "a new directory":
            assert FileStore(memory / "new").create().id, outcome
            assert (memory / "new").stat().st_mode & 0o777 == 0o700
