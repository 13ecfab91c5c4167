"""The fault tools: that what they say of a system call happens, to those calls alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from filesession.testing.base import in_thread
from filesession.testing.faults import (
    CALLS,
    LISTING,
    LOCK,
    SystemCalls,
    deadly,
    each,
    failing,
    meanwhile,
    short,
)
from filesession.testing.interleaving import Interleaved, interleavings

BROKEN = OSError(5, "Input/output error")


def write_twice(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b"one.")
        os.write(descriptor, b"two.")
    finally:
        os.close(descriptor)


def test_the_calls_of_this_thread_are_seen_and_made(tmp_path: Path) -> None:
    with SystemCalls() as calls:
        write_twice(tmp_path / "file")
        in_thread(lambda: os.stat(tmp_path))
    assert calls.names() == ["open", "write", "write"]
    assert [call.result for call in calls.calls[1:]] == [4, 4]
    assert (tmp_path / "file").read_bytes() == b"one.two."


def test_afterwards_the_functions_are_as_before() -> None:
    before = os.open, os.stat
    with pytest.raises(ZeroDivisionError), SystemCalls():
        _ = 1 / 0
    assert (os.open, os.stat) == before


@pytest.mark.parametrize(("sticky", "failures"), [(False, 1), (True, 2)])
def test_the_nth_call_fails_or_all_from_there_on(
    tmp_path: Path,
    sticky: bool,  # noqa: FBT001 - a row of the table
    failures: int,
) -> None:
    failed = 0
    with SystemCalls(failing(BROKEN, 2, sticky=sticky)):
        for _ in range(3):
            try:
                os.stat(tmp_path)
            except OSError:
                failed += 1
    assert failed == failures


def test_several_calls_may_fail(tmp_path: Path) -> None:
    outcomes = []
    with SystemCalls(failing(BROKEN, 1, 3, 4)):
        for _ in range(5):
            try:
                os.stat(tmp_path)
            except OSError:
                outcomes.append("failed")
            else:
                outcomes.append("made")
    assert outcomes == ["failed", "made", "failed", "failed", "made"]


def test_something_else_happens_before_a_call(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with SystemCalls(meanwhile(lambda: path.write_bytes(b"theirs"), 2)):
        with pytest.raises(FileNotFoundError):
            os.stat(path)
        assert os.stat(path).st_size == len(b"theirs")


def test_only_the_named_functions_count(tmp_path: Path) -> None:
    with (
        SystemCalls(failing(BROKEN), only=("write",)) as calls,
        pytest.raises(OSError, match="put"),
    ):
        write_twice(tmp_path / "file")
    assert calls.names() == ["write"]


def test_a_write_takes_no_more_than_it_may(tmp_path: Path) -> None:
    with SystemCalls(short(3)):
        write_twice(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"onetwo"


def test_each_call_gets_its_turn_to_fail_and_then_none(tmp_path: Path) -> None:
    outcomes = []
    for calls in each(lambda nth: failing(BROKEN, nth)):
        try:
            with calls:
                write_twice(tmp_path / "file")
        except OSError:
            outcomes.append(f"{calls.names()[-1]} failed")
        else:
            outcomes.append("done")
    assert outcomes == ["open failed", "write failed", "write failed", "done"]


@pytest.mark.parametrize(("nth", "left"), [(1, None), (2, b"on"), (3, b"one.tw"), (4, b"one.two.")])
def test_a_process_dies_before_its_nth_call_and_half_way_through_a_write(
    tmp_path: Path, nth: int, left: bytes | None
) -> None:
    path = tmp_path / "file"
    child = os.fork()
    if child == 0:
        with SystemCalls(deadly(nth)):
            write_twice(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert (os.WTERMSIG(status) == signal.SIGKILL) is (nth < 4)
    assert (path.read_bytes() if path.exists() else None) == left


class Turns:
    """Two calls that each make two system calls, and tell when they did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []

    def call(self, name: str) -> Callable[[], str]:
        def called() -> str:
            for number in (1, 2):
                os.stat(self.path)
                self.told.append(f"{name}{number}")
            return name

        return called

    def calls(self) -> list[Callable[[], str]]:
        self.told.clear()
        return [self.call("a"), self.call("b")]


@pytest.mark.parametrize(("preemptions", "orders"), [(0, 2), (1, 4), (2, 6), (9, 6)])
def test_every_order_with_so_few_preemptions_is_run_once(
    tmp_path: Path, preemptions: int, orders: int
) -> None:
    turns = Turns(tmp_path)
    seen = set()
    for run in interleavings(turns.calls, preemptions=preemptions):
        assert run.outcomes == ["a", "b"]
        seen.add("".join(turns.told))
    assert {"a1a2b1b2", "b1b2a1a2"} <= seen
    assert len(seen) == orders


def test_a_schedule_can_be_run_again(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    for run in interleavings(turns.calls):
        told = list(turns.told)
        Interleaved(turns.calls(), [chosen for chosen, _, _ in run.taken]).run()
        assert turns.told == told


def test_a_schedule_of_other_calls_is_refused(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    with pytest.raises(ValueError, match="did not run as they ran before"):
        Interleaved(turns.calls(), [0] * 9).run()


def test_what_a_call_raises_is_its_outcome() -> None:
    def fail() -> None:
        raise BROKEN

    (outcome,) = Interleaved([fail]).run()
    assert outcome is BROKEN


def test_one_that_sleeps_lets_the_other_go_on() -> None:
    said = threading.Event()

    def wait() -> str:
        while not said.is_set():
            time.sleep(60)
        return "heard"

    assert Interleaved([wait, said.set]).run() == ["heard", None]


def test_a_lock_is_asked_for_by_name(tmp_path: Path) -> None:
    import fcntl  # noqa: PLC0415 - the function is replaced in the module

    with (tmp_path / "file").open("w") as file, SystemCalls(only=(LOCK,)) as calls:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert calls.names() == ["flock"]


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_each_step_through_a_directory_is_asked_for_by_name(tmp_path: Path, nth: int) -> None:
    for name in ("one", "two"):
        (tmp_path / name).touch()
    found = []
    with SystemCalls(failing(BROKEN, nth), only=(LISTING,)) as calls:
        try:
            with os.scandir(tmp_path) as listing:
                found += [entry.name for entry in listing]
        except OSError:
            found.append("failed")
        assert in_thread(lambda: {entry.name for entry in os.scandir(tmp_path)}) == {"one", "two"}
    assert calls.names() == ["readdir"] * min(nth, 3)
    assert found == ["failed"] or sorted(found) == ["one", "two"]
    assert (found == ["failed"]) is (nth < 4)


def test_steps_through_a_directory_are_counted_with_the_other_calls(tmp_path: Path) -> None:
    with SystemCalls(only=(*CALLS, LISTING)) as calls:
        assert list(os.scandir(tmp_path)) == []
        assert os.listdir(tmp_path) == []
    assert calls.names() == ["scandir", "readdir", "listdir"]
