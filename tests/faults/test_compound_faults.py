"""A second fault while the first is cleaned up after: every pair of system calls of a verb.

More can be left lying about then, and what was done cannot always be taken back: a session may have
both ids, of which the new one is known to nobody. But no session is torn or lost, none of those
that had ended comes back, nothing stays open or locked, and the next call works.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from filesession.errors import SessionExists, SessionGone, StoreUnavailable
from filesession.stores import FileStore
from filesession.testing import ManualClock
from tests.faults.conftest import (
    BYSTANDER,
    DUE,
    FRESH,
    GRACE,
    LONG,
    MOVED,
    NEW,
    OLD,
    OTHER,
    PLAIN,
    RANDOM,
    THERE,
    Fault,
    Ground,
    Outcome,
    outcome_of,
)

Call = Callable[[FileStore], Any]

VERBS: Final[dict[str, tuple[Call, str | None, str | None]]] = {
    "create": (lambda s: s.create(NEW, sid=THERE), None, THERE),
    "create, first of its shard": (lambda s: s.create(NEW, sid=FRESH), None, FRESH),
    "save": (lambda s: s.save(PLAIN, NEW), PLAIN, PLAIN),
    "save that compacts": (lambda s: s.save(LONG, NEW), LONG, LONG),
    "regenerate": (lambda s: s.regenerate(PLAIN, NEW), PLAIN, RANDOM),
    "regenerate, id chosen": (lambda s: s.regenerate(PLAIN, NEW, new_sid=THERE), PLAIN, THERE),
    "regenerate a long one": (lambda s: s.regenerate(LONG, NEW), LONG, RANDOM),
    "delete": (lambda s: s.delete(PLAIN), PLAIN, None),
    "load an ended one": (lambda s: s.load(DUE), None, None),
}
"""The call, and under which id the session is before and after it."""


@pytest.mark.parametrize("durable", [False, True], ids=["", "durable"])
@pytest.mark.parametrize("name", VERBS)
def test_two_faults_tear_and_lose_nothing(
    name: str,
    durable: bool,  # noqa: FBT001 - a row of the table
    ground: Ground,
    clock: ManualClock,
) -> None:
    call, before, after = VERBS[name]
    store = FileStore(ground.directory, clock=clock, durable=durable, regenerate_grace=GRACE)
    ground.keep()
    count = 0
    for outcome in pairs(ground, lambda: call(store)):
        check(outcome, ground, store, before, after)
        count += 1
    assert count > 10


def pairs(ground: Ground, call: Callable[[], Any]) -> Iterator[Outcome]:
    """Make a call with a fault at each of its system calls, and at each of those that follow."""
    first, met = 0, True
    while met:
        first += 1
        for second in itertools.count(first + 1):
            ground.restore()
            outcome = outcome_of(call, Fault(errno.EIO, first, second=second))
            met = outcome.at is not None
            if met:
                yield outcome
            if len(outcome.calls) < second:
                break


def check(
    outcome: Outcome, ground: Ground, store: FileStore, before: str | None, after: str | None
) -> None:
    assert outcome.error is None or isinstance(outcome.error, StoreUnavailable), outcome
    tree = ground.tree()
    now = ground.live(tree)
    assert (now[BYSTANDER], now[MOVED]) == (OTHER, OLD), outcome
    if before == after:
        assert before is None or now[before] in (OLD, NEW), outcome
    else:
        assert now.get(before or "", OLD) == OLD, outcome
        assert now.get(after or "", NEW) == NEW, outcome
    if before is not None and after is not None:
        assert before in now or after in now, outcome
    assert store.load(DUE) is None, outcome
    assert len(ground.temporary(tree)) <= 2, outcome
    for sid in {before, after} - {None}:
        assert sid is not None
        assert ground.is_free(sid), outcome
        resumes(store, sid, is_there=sid in now)
    store.sweep()
    assert not ground.temporary(ground.tree()), outcome


def resumes(store: FileStore, sid: str, *, is_there: bool) -> None:
    """What is there can be changed, and what is not can be made."""
    if is_there:
        assert store.save(sid, {"n": 3}).data == {"n": 3}
        with pytest.raises(SessionExists):
            store.create(sid=sid)
    else:
        with pytest.raises(SessionGone):
            store.save(sid, {"n": 3})
        assert store.create({"n": 3}, sid=sid).version == 1
