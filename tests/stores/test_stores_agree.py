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
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from filesession.errors import FilesessionError
from filesession.lifetime import UNSET
from filesession.record import SessionInfo, SessionRecord, SweepReport
from filesession.stores import FileStore, MemoryStore
from filesession.stores.entry import handle_of
from filesession.testing import ManualClock

Pair = tuple[SessionRecord, SessionRecord]
"""One session as each of the stores gave it."""

IDS: Final = ["one", "two", "\u00fc/\U0001f36a", "four"]

# Steps to each side of every deadline: idle 100, slack 10, absolute 300.
STEPS: Final = [0.0, 0.25, 1, 9.75, 10, 50, 90, 99.75, 100, 110, 110.25, 120, 120.25, 300]

values = st.sampled_from([None, True, 1, 1.0, 0, -0.0, "", "x", [1, [2]], {"a": True}, (1, 2)])
data = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)
refused_data = st.sampled_from([{"a": {1}}, {"a": float("nan")}, {1: 1}])
ids = st.sampled_from(IDS)
any_id = ids | st.sampled_from(["", "a\nb", "never used"])
timeouts = st.sampled_from([None, 30, timedelta(seconds=200), float("inf")])
changes = st.sampled_from([UNSET, UNSET, None, 30, 200, float("inf"), -1])
cookies = st.sampled_from([UNSET, UNSET, {}, {"max_age": 5}, {"data": [True]}])
modes: Any = st.sampled_from(["merge", "merge", "overwrite", "error", "newest"])

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

    records = Bundle("records")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.scratch = tempfile.TemporaryDirectory()
        timeouts: dict[str, Any] = {"idle_timeout": 100, "touch_interval": 10}
        directory = os.path.join(self.scratch.name, "sessions")
        self.file = FileStore(directory, clock=self.clock, **timeouts)
        self.memory = MemoryStore(clock=self.clock, **timeouts)

    def teardown(self) -> None:
        self.scratch.cleanup()

    def both(self, call: Callable[[Any, Any], Any], base: Pair | None = None) -> list[Pair]:
        """Make a call of each store; the records it gave, if it gave any."""
        of_file, of_memory = base or (None, None)
        ours = answer(lambda: call(self.file, of_file))
        model = answer(lambda: call(self.memory, of_memory))
        assert told(ours) == told(model)
        return [(ours, model)] if isinstance(ours, SessionRecord) else []

    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        target=records,
        sid=ids,
        data=data,
        idle_timeout=timeouts,
        absolute_timeout=timeouts,
        cookie=st.sampled_from([None, {"max_age": 5}]),
    )
    def create(self, sid: str, **wanted: Any) -> Any:
        return multiple(*self.both(lambda store, _: store.create(sid=sid, **wanted)))

    @rule(target=records, sid=any_id)
    def load(self, sid: str) -> Any:
        return multiple(*self.both(lambda store, _: store.load(sid)))

    @rule(
        target=records,
        sid=any_id,
        data=data | refused_data,
        base=st.none() | records,
        conflict=modes,
        idle_timeout=changes,
        cookie=cookies,
    )
    def save(self, sid: str, data: Any, base: Pair | None, **wanted: Any) -> Any:
        return multiple(
            *self.both(lambda store, mine: store.save(sid, data, base=mine, **wanted), base)
        )

    @rule(target=records, base=records, data=data, conflict=modes)
    def save_what_was_loaded(self, base: Pair, data: Any, conflict: Any) -> Any:
        sid = base[0].id
        return multiple(
            *self.both(
                lambda store, mine: store.save(sid, data, base=mine, conflict=conflict), base
            )
        )

    @rule(sid=any_id, with_record=st.booleans())
    def touch(self, sid: str, with_record: bool) -> None:  # noqa: FBT001 - drawn
        # A file store believes the record it is given, so it is given one of now.
        self.both(lambda store, _: store.touch(sid, base=store.load(sid) if with_record else None))

    @rule(sid=any_id)
    def delete(self, sid: str) -> None:
        self.both(lambda store, _: store.delete(sid))

    @rule(
        target=records,
        sid=any_id,
        new_sid=any_id,
        data=st.none() | data | refused_data,
        base=st.none() | records,
        conflict=modes,
        idle_timeout=changes,
        cookie=cookies,
    )
    def regenerate(self, sid: str, base: Pair | None, **wanted: Any) -> Any:
        return multiple(
            *self.both(lambda store, mine: store.regenerate(sid, base=mine, **wanted), base)
        )

    @rule(
        target=records,
        sid=ids,
        data=data,
        then=st.sampled_from(["save", "delete", "create", "regenerate", "lock", "touch", "raise"]),
        new_sid=ids,
    )
    def under_the_lock(self, sid: str, data: Any, then: str, new_sid: str) -> Any:
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

        return multiple(*self.both(call))

    @rule(dry_run=st.booleans(), limit=st.sampled_from([None, 0, 100]))
    def sweep(self, **wanted: Any) -> None:
        self.both(lambda store, _: store.sweep(**wanted))

    @rule()
    def clear(self) -> None:
        self.both(lambda store, _: store.clear())

    @rule()
    def scan(self) -> None:
        self.both(lambda store, _: {told_of(info) for info in store.scan()})

    @rule(sid=ids)
    def inspect(self, sid: str) -> None:
        handle = handle_of(sid)
        self.both(lambda store, _: told_of_one(store.inspect(handle)))

    @invariant()
    def the_same_is_stored(self) -> None:
        self.both(lambda store, _: len(store))
        self.both(lambda store, _: [told(store.load(sid)) for sid in IDS])


def told_of(info: SessionInfo) -> str:
    return repr((info.handle, info.created_at, info.accessed_at, info.expires_at))


def told_of_one(found: tuple[SessionInfo, dict[str, Any]] | None) -> object:
    return None if found is None else (told_of(found[0]), repr(found[1]))


TestStoresAgree = StoresAgree.TestCase
TestStoresAgree.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
