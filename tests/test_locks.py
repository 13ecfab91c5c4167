"""Locks of open files: who has one, who waits, and for how long."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from filesession import locks
from filesession.errors import LockTimeout


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """One file, opened twice."""
    path = tmp_path / "file"
    path.touch()
    descriptors = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


class Patience:
    """Counts how long one waits, and lets no time pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", self._sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    return Patience(monkeypatch)


def test_a_free_lock_is_taken_and_a_held_one_is_not(two: tuple[int, int]) -> None:
    ours, theirs = two
    assert locks.try_lock(ours) is True
    assert locks.try_lock(theirs) is False
    fcntl.flock(ours, fcntl.LOCK_UN)
    assert locks.try_lock(theirs) is True


def test_it_is_the_systems_lock_that_is_taken(two: tuple[int, int]) -> None:
    ours, theirs = two
    locks.lock(ours, locks.Patience(0, "it"))
    with pytest.raises(BlockingIOError):
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_it_is_released_by_closing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    for _ in range(2):
        descriptor = os.open(path, os.O_RDWR)
        locks.lock(descriptor, locks.Patience(0, "it"))
        os.close(descriptor)


def test_who_will_not_wait_does_not(two: tuple[int, int], patience: Patience) -> None:
    ours, theirs = two
    locks.lock(ours, locks.Patience(0, "it"))
    with pytest.raises(LockTimeout, match=r"^it is locked by another request.* 0 s$"):
        locks.lock(theirs, locks.Patience(0, "it"))
    assert patience.pauses == []


def test_who_waits_asks_less_and_less_often_and_then_gives_up(
    two: tuple[int, int], patience: Patience
) -> None:
    ours, theirs = two
    locks.lock(ours, locks.Patience(0, "it"))
    with pytest.raises(LockTimeout, match=r"gave up after 0\.5 s"):
        locks.lock(theirs, locks.Patience(0.5, "it"))
    assert patience.now == pytest.approx(0.5)
    assert patience.pauses[0] == locks.FIRST_PAUSE
    assert patience.pauses[:-1] == sorted(patience.pauses[:-1])
    assert max(patience.pauses) <= locks.LONGEST_PAUSE


def test_the_time_waited_for_one_file_is_not_waited_again_for_the_next(
    two: tuple[int, int], patience: Patience
) -> None:
    ours, theirs = two
    once = locks.Patience(10, "it")
    assert once.left() == 10
    patience.now += 9.5
    locks.lock(ours, locks.Patience(0, "it"))
    with pytest.raises(LockTimeout, match="gave up after 10 s"):
        locks.lock(theirs, once)
    assert sum(patience.pauses) == pytest.approx(0.5)


def test_what_is_given_back_is_free_though_it_was_copied(two: tuple[int, int]) -> None:
    ours, theirs = two
    locks.lock(ours, locks.Patience(0, "it"))
    copy = os.dup(ours)
    locks.unlock(ours)
    assert locks.try_lock(theirs) is True
    os.close(copy)


def test_who_waits_gets_it_when_it_comes_free(
    two: tuple[int, int], patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = two
    locks.lock(ours, locks.Patience(0, "it"))

    def release(_: float) -> None:
        fcntl.flock(ours, fcntl.LOCK_UN)

    monkeypatch.setattr(time, "sleep", release)
    locks.lock(theirs, locks.Patience(10, "it"))
    assert locks.try_lock(ours) is False


def test_a_file_system_that_cannot_lock_is_an_error(
    two: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", cannot)
    with pytest.raises(OSError, match="No locks available"):
        locks.lock(two[0], locks.Patience(10, "it"))
