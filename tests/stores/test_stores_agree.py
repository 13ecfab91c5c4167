"""The file store beside the memory store, its model: the same calls, the same answers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from filesession.errors import FilesessionError
from filesession.lifetime import UNSET
from filesession.record import SessionInfo, SessionRecord, SweepReport
from filesession.stores import FileStore, MemoryStore
from filesession.stores.entry import handle_of
from filesession.testing import ManualClock

Pair = tuple[SessionRecord, SessionRecord]
"""One session as each of the stores gave it."""

IDS: Final = ["one", "two", "\u00fc/\U0001f36a", "new"]

# Steps to each side of every deadline: idle 100, slack 10, absolute 300. Mostly short ones, as most
# verbs have something to do only while a session is alive.
STEPS: Final = [
    *[0.25, 0.25, 0.25, 1, 1, 1, 9.75, 10, 10, 10, 50],
    *[90, 99.75, 100, 110, 110.25, 120, 120.25, 300],
]

# What is refused before anything is looked at needs few tries: one in eight or so of each argument.
values = [None, True, 1, 1.0, 0, -0.0, "", "x", [1, [2]], {"a": True}, (1, 2)]
small = st.dictionaries(st.sampled_from("abc"), st.sampled_from(values), max_size=3)
refused: Any = st.sampled_from([{"a": {1}}, {"a": float("nan")}, {1: 1}])
data: Any = st.integers(0, 9).flatmap(lambda n: small if n else refused)
ids = st.sampled_from(IDS)
any_id = st.sampled_from([*IDS * 4, "", "a\nb", "never used"])
new_id = st.sampled_from([*["new"] * 6, *IDS, "", "a\nb", "never used"])
timeouts = st.sampled_from([None, None, 30, timedelta(seconds=200), float("inf")])
changes = st.sampled_from([*[UNSET] * 8, None, 30, 200, float("inf"), -1])
cookies = st.sampled_from([*[UNSET] * 4, {}, {"max_age": 5}, {"data": [True]}])
modes: Any = st.sampled_from([*["merge"] * 4, "overwrite", "overwrite", "error", "error", "newest"])
bases = st.sampled_from([None, 0, 0, 1, 1, 2, 5, "another's"])
"""None, the record given last but so many of that session, or one of another."""

APART: Final = {
    "lineage",  # random in each
    "seconds",  # true time
    "freed",  # bytes of a file, where the model has only the data
    "size",
}


class InsideError(Exception):
    """Raised under a lock."""


def told(answer: object) -> object:
    """What both must say alike."""
    if isinstance(answer, Exception):
        return type(answer), str(answer)
    if isinstance(answer, (SessionRecord, SweepReport)):
        names = [field.name for field in fields(answer) if field.name not in APART]
        told = {name: getattr(answer, name) for name in names}
        if "cookie" in told:
            told["cookie"] = dict(told["cookie"])
        return repr(told)
    return answer


def answer(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (FilesessionError, InsideError) as error:
        return error


class StoresAgree(RuleBasedStateMachine):
    """Random calls to both, of which each must answer as the other does."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.scratch = tempfile.TemporaryDirectory()
        timeouts: dict[str, Any] = {"idle_timeout": 100, "touch_interval": 10}
        directory = os.path.join(self.scratch.name, "sessions")
        self.file = FileStore(directory, clock=self.clock, **timeouts)
        self.memory = MemoryStore(clock=self.clock, **timeouts)
        self.given: list[Pair] = []

    def teardown(self) -> None:
        self.scratch.cleanup()

    def both(self, call: Callable[[Any, Any], Any], base: Pair | None = None) -> None:
        """Make a call of each store, and keep the records it gave, if it gave any."""
        of_file, of_memory = base or (None, None)
        ours = answer(lambda: call(self.file, of_file))
        model = answer(lambda: call(self.memory, of_memory))
        assert told(ours) == told(model)
        if isinstance(ours, SessionRecord):
            self.given.append((ours, model))

    def base(self, sid: str, which: int | str | None) -> Pair | None:
        if which is None:
            return None
        mine = isinstance(which, int)
        pairs = [pair for pair in reversed(self.given) if (pair[0].id == sid) is mine]
        place = which if isinstance(which, int) else 0
        return pairs[min(place, len(pairs) - 1)] if pairs else None

    @initialize(data=small)
    def begin(self, data: Any) -> None:
        self.all_but_the_new_one_log_in(data=data)

    @rule(data=small, idle_timeout=timeouts)
    def all_but_the_new_one_log_in(self, **wanted: Any) -> None:
        for sid in IDS[:-1]:
            self.create(sid, **wanted)

    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        sid=ids,
        data=small,
        idle_timeout=timeouts,
        absolute_timeout=timeouts,
        cookie=st.sampled_from([None, {"max_age": 5}]),
    )
    def create(self, sid: str, **wanted: Any) -> None:
        self.both(lambda store, _: store.create(sid=sid, **wanted))

    @rule(sid=any_id, data=data, which=bases, conflict=modes, idle_timeout=changes, cookie=cookies)
    def save(self, sid: str, data: Any, which: Any, **wanted: Any) -> None:
        base = self.base(sid, which)
        self.both(lambda store, mine: store.save(sid, data, base=mine, **wanted), base)

    @rule(sid=ids, data=small, which=bases, conflict=modes)
    def save_twice(self, sid: str, data: Any, which: Any, conflict: Any) -> None:
        """As two requests do that loaded the same session."""
        base = self.base(sid, which)
        self.both(lambda store, mine: store.save(sid, {"b": 1}, base=mine), base)
        self.both(lambda store, mine: store.save(sid, data, base=mine, conflict=conflict), base)

    @rule(sid=any_id, with_record=st.booleans())
    def touch(self, sid: str, with_record: bool) -> None:  # noqa: FBT001 - drawn
        # A file store believes the record it is given, so it is given one of now.
        self.both(lambda store, _: store.touch(sid, base=store.load(sid) if with_record else None))
        self.both(lambda store, _: store.load(sid))

    @rule(sid=any_id)
    def delete(self, sid: str) -> None:
        self.both(lambda store, _: store.delete(sid))

    @rule(
        sid=any_id,
        new_sid=new_id,
        data=st.none() | data,
        which=bases,
        conflict=modes,
        idle_timeout=changes,
        cookie=cookies,
    )
    def regenerate(self, sid: str, which: Any, **wanted: Any) -> None:
        base = self.base(sid, which)
        self.both(lambda store, mine: store.regenerate(sid, base=mine, **wanted), base)

    @rule(
        sid=ids,
        data=small,
        then=st.sampled_from(["save", "delete", "create", "regenerate", "lock", "touch", "raise"]),
        new_sid=new_id,
    )
    def under_the_lock(self, sid: str, data: Any, then: str, new_sid: str) -> None:
        def call(store: Any, _: object) -> Any:
            with store.lock(sid, timeout=0) as record:
                saved = store.save(sid, data, base=record, conflict="error")
                if then == "raise":
                    raise InsideError
                if then == "save":
                    return store.save(sid, {}, base=saved, conflict="error")
                if then == "delete":
                    assert store.delete(sid) is True
                    return store.save(sid, data, base=saved)
                if then == "create":
                    store.delete(sid)
                    created = store.create(data, sid=sid)
                    return store.save(sid, {"a": 1}, base=created)
                if then == "regenerate":
                    moved = store.regenerate(sid, base=saved, new_sid=new_sid)
                    assert store.load(sid) is None
                    return store.save(new_sid, {"a": 1}, base=moved)
                if then == "lock":
                    with store.lock(sid, timeout=0) as again:
                        return store.save(sid, {"a": 1}, base=again)
                return store.touch(sid)

        self.both(call)

    @rule(sid=ids, what=st.sampled_from(["sweep", "rehearse", "limit", "scan", "inspect", "clear"]))
    def look_at_the_whole(self, sid: str, what: str) -> None:
        handle = handle_of(sid)
        calls: dict[str, Callable[[Any], object]] = {
            "sweep": lambda store: store.sweep(),
            "rehearse": lambda store: store.sweep(dry_run=True),
            "limit": lambda store: store.sweep(limit=0),
            "scan": lambda store: {told_of(info) for info in store.scan()},
            "inspect": lambda store: told_of_one(store.inspect(handle)),
            "clear": lambda store: store.clear(),
        }
        self.both(lambda store, _: calls[what](store))

    @invariant()
    def the_same_is_stored(self) -> None:
        self.both(lambda store, _: len(store))
        self.both(lambda store, _: [told(store.load(sid)) for sid in IDS])


def told_of(info: SessionInfo) -> str:
    return repr((info.handle, info.created_at, info.accessed_at, info.expires_at))


def told_of_one(found: tuple[SessionInfo, dict[str, Any]] | None) -> object:
    return None if found is None else (told_of(found[0]), repr(found[1]))


TestStoresAgree = StoresAgree.TestCase
TestStoresAgree.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
