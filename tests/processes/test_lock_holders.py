"""A lock's holder that is stopped or killed, or loses its file, while others wait for the lock."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from filesession.errors import LockTimeout, SessionGone, StoreUnavailable
from filesession.runner import LoopRunner
from filesession.testing.faults import SystemCall
from tests.processes.conftest import (
    PATIENCE,
    SID,
    SOON,
    Asking,
    Child,
    Fork,
    Gate,
    Place,
    acting_before,
    held,
    in_background,
    request_wsgi,
    result_of,
    under_wsgi,
)
from tests.session.conftest import a_session


def holding(place: Place, inside: Gate, go: Gate) -> Callable[[], None]:
    """Takes the lock, and saves when it is let go on."""

    def hold() -> None:
        with place.store.lock(SID) as record:
            place.store.save(SID, {"half": True}, base=record)
            inside.open()
            go.wait()
            place.store.save(SID, {"whole": True})

    return hold


def test_of_a_holder_that_is_stopped_others_are_told_in_time_and_readers_go_on(
    place: Place, fork: Fork, gate: Callable[[], Gate]
) -> None:
    inside, go = gate(), gate()
    holder = fork(holding(place, inside, go))
    inside.wait()
    os.kill(holder.pid, signal.SIGSTOP)
    assert holder.is_stopped()
    try:
        begun = time.monotonic()
        with pytest.raises(LockTimeout, match=r"gave up after 0\.05 s"):
            place.store.lock(SID, timeout=0.05).acquire()
        with pytest.raises(LockTimeout), a_session(place.store, SID).lock(timeout=0.05):
            pytest.fail("two have the lock")
        with pytest.raises(LockTimeout):
            asyncio.run(_locked(place, 0.05))
        assert 0.15 <= time.monotonic() - begun < SOON
        seen: list[Any] = []
        request_wsgi(under_wsgi(lambda session, _: seen.append(dict(session)), place.store))
        assert seen == [{"half": True}]
        assert place.store.touch(SID) is True
    finally:
        holder.go_on()
    go.open()
    holder.join()
    assert place.data() == {"whole": True}
    assert place.is_free()


async def _locked(place: Place, timeout: float) -> None:  # noqa: ASYNC109 - handed on
    async with LoopRunner(place.store, None).alock(SID, timeout):
        pass


def test_who_waits_for_a_holder_that_is_killed_goes_on_at_once(
    place: Place, fork: Fork, gate: Callable[[], Gate], asking: Asking
) -> None:
    inside = gate()
    holder = fork(holding(place, inside, gate()))
    inside.wait()

    def save(key: str) -> None:
        with place.store.lock(SID, timeout=PATIENCE) as record:
            place.store.save(SID, {**record.data, key: True}, base=record)

    process = fork(lambda: save("process"))
    thread = in_background(lambda: save("thread"))
    for _ in range(2):
        asking.wait()
    holder.kill()
    begun = time.monotonic()
    result_of(thread)
    process.join()
    assert time.monotonic() - begun < SOON
    assert place.data() == {"half": True, "process": True, "thread": True}


def test_who_waits_sees_old_or_new_wherever_in_its_save_the_holder_is_killed(
    place: Place, fork: Fork, gate: Callable[[], Gate], asking: Asking
) -> None:
    reached, go = gate(), gate()

    def half(call: SystemCall) -> None:
        reached.open()
        go.wait()
        if call.name == "write":
            os.write(call.arguments[0], call.arguments[1][:30])
        os.kill(os.getpid(), signal.SIGKILL)

    nth, met, waited, mine = 0, True, 0, {"n": 1, "mine": True}
    while met:
        nth += 1
        place.store.clear()
        base = place.store.create({"n": 1}, sid=SID)
        asking.forget()

        save = partial(place.store.save, SID, {"n": 2}, base=base)

        def die(nth: int = nth, save: Callable[[], object] = save) -> None:
            acting_before(nth, half, save)
            reached.open()

        dying = fork(die)
        reached.wait()
        is_held = not place.is_free()
        waiting = in_background(partial(place.store.save, SID, mine, base=base))
        if is_held:
            asking.wait()
            waited += 1
        go.open()
        result_of(waiting)
        met = _died(dying)
        assert place.data() in (mine, {"n": 2, "mine": True})
        assert place.is_free()
    assert waited > 3


def _died(child: Child) -> bool:
    """Whether it was killed."""
    try:
        child.join()
    except AssertionError:
        assert child.status == signal.SIGKILL
        return True
    return False


@pytest.mark.parametrize("left", ["nothing", "a backup"])
@pytest.mark.parametrize("verb", ["save", "lock"])
def test_who_waits_while_the_file_is_removed_or_restored_by_hand_does_not_go_on_with_the_old_one(
    place: Place, asking: Asking, left: str, verb: str
) -> None:
    backup = place.directory.parent / "backup"
    place.store.save(SID, {"from": "the backup"})
    shutil.copy2(place.path(), backup)
    place.store.save(SID, {"from": "the file"})

    def wait() -> Any:
        if verb == "save":
            return place.store.save(SID, {"saved": True}, base=base).data
        with place.store.lock(SID, timeout=PATIENCE) as record:
            return record.data

    base = place.store.load(SID)
    with held(place):
        waiting = in_background(wait)
        asking.wait()
        if left == "nothing":
            place.path().unlink()
        else:
            backup.rename(place.path())
    if left == "nothing":
        with pytest.raises(SessionGone):
            result_of(waiting)
        assert place.files() == []
    else:
        merged = {"saved": True} if verb == "save" else {"from": "the backup"}
        assert result_of(waiting) == merged == place.data()
        assert place.is_free()


@contextmanager
def no_flock(code: int) -> Any:
    """Inside, the file system cannot lock."""
    real = fcntl.flock

    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    fcntl.flock = refused
    try:
        yield
    finally:
        fcntl.flock = real


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_system_cannot_lock_nothing_softer_takes_its_place(
    place: Place, code: int
) -> None:
    names = sorted(path.name for path in place.directory.rglob("*"))
    with no_flock(code):
        with pytest.raises(StoreUnavailable, match=os.strerror(code)):
            place.store.save(SID, {"n": 1})
        with pytest.raises(StoreUnavailable, match=os.strerror(code)):
            place.store.create({"n": 1}, sid="another")
        with pytest.raises(StoreUnavailable, match=os.strerror(code)):
            place.store.lock(SID).acquire()
        assert place.store.load(SID) is not None
    assert {path.name for path in place.directory.rglob("*")} - set(names) <= {
        place.path("another").parent.name
    }
    assert place.data() == {}
    place.store.save(SID, {"n": 1})
    assert place.data() == {"n": 1}
