"""Who leads: one at a time, by a lock that ends with its holder."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from filesession.errors import StoreUnavailable
from filesession.janitor.leader import LOCK, Leadership, is_led, marked_at
from filesession.stores.file.store import FileStore


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return FileStore(tmp_path / "sessions").directory


def lock_file(directory: str) -> Path:
    return Path(directory, LOCK)


def test_the_first_leads_and_the_second_does_not(directory: str) -> None:
    first, second = Leadership(directory), Leadership(directory)
    assert first.try_lead()
    assert not second.try_lead()
    assert first.still_leads()
    assert not second.still_leads()


def test_who_leads_may_ask_again(directory: str) -> None:
    claim = Leadership(directory)
    assert claim.try_lead()
    assert claim.try_lead()


def test_after_the_leader_resigned_another_leads(directory: str) -> None:
    first, second = Leadership(directory), Leadership(directory)
    first.try_lead()
    first.resign()
    assert not first.still_leads()
    assert second.try_lead()


def test_resigning_twice_or_without_leading_does_nothing(directory: str) -> None:
    claim = Leadership(directory)
    claim.resign()
    claim.try_lead()
    claim.resign()
    claim.resign()
    assert lock_file(directory).exists()


def test_a_defeated_claim_keeps_no_file_open(directory: str) -> None:
    leader, other = Leadership(directory), Leadership(directory)
    leader.try_lead()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        assert not other.try_lead()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("umask", [0, 0o777])
def test_the_lock_file_is_ours_alone_whatever_the_umask(directory: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert Leadership(directory).try_lead()
    finally:
        os.umask(before)
    assert stat.S_IMODE(lock_file(directory).stat().st_mode) == 0o600


@pytest.mark.parametrize("replace", [True, False])
def test_a_leader_whose_lock_file_is_gone_leads_no_more(directory: str, *, replace: bool) -> None:
    first, second = Leadership(directory), Leadership(directory)
    first.try_lead()
    lock_file(directory).unlink()
    if replace:
        lock_file(directory).touch(0o600)
    assert not first.still_leads()
    assert second.try_lead()
    assert not first.try_lead()


def test_a_lock_on_a_file_that_was_replaced_meanwhile_is_no_lead(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_too_late(descriptor: int) -> bool:
        lock_file(directory).unlink()
        lock_file(directory).touch(0o600)
        return True

    claim = Leadership(directory)
    with monkeypatch.context() as patched:
        patched.setattr("filesession.locks.try_lock", lock_too_late)
        assert not claim.try_lead()
    assert claim.try_lead()


def test_a_leader_of_a_directory_that_moved_away_leads_no_more(directory: str) -> None:
    claim = Leadership(directory)
    claim.try_lead()
    Path(directory).rename(directory + ".moved")
    assert not claim.still_leads()
    with pytest.raises(StoreUnavailable, match="has vanished"):
        claim.try_lead()


def test_a_directory_that_is_a_file_now_is_not_led(directory: str) -> None:
    claim = Leadership(directory)
    claim.try_lead()
    Path(directory).rename(directory + ".moved")
    Path(directory).touch()
    assert not claim.still_leads()


def test_only_a_leader_dates_the_lock(directory: str) -> None:
    assert marked_at(directory) is None
    first, second = Leadership(directory), Leadership(directory)
    first.try_lead()
    second.try_lead()
    first.mark(1000.0)
    second.mark(2000.0)
    assert marked_at(directory) == 1000.0


def test_a_lock_that_cannot_be_looked_at_is_told(directory: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match=r"looking at .*Not a directory"):
        marked_at(str(tmp_path / "file"))


def test_on_a_file_system_that_is_read_only_it_can_be_told_whether_someone_leads(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = Leadership(directory)
    leader.try_lead()
    opening = os.open

    def open_to_read_only(path: str, flags: int, *more: int) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return opening(path, flags, *more)

    monkeypatch.setattr(os, "open", open_to_read_only)
    assert is_led(directory)
    leader.resign()
    assert not is_led(directory)


def test_an_empty_mount_point_gets_no_lock_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="has vanished"):
        Leadership(str(tmp_path)).try_lead()
    assert list(tmp_path.iterdir()) == []


def test_a_symlink_in_place_of_the_lock_file_is_not_followed(
    directory: str, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.touch()
    lock_file(directory).symlink_to(target)
    with pytest.raises(StoreUnavailable, match=r"janitor\.lock"):
        Leadership(directory).try_lead()
    with pytest.raises(StoreUnavailable, match=r"janitor\.lock"):
        is_led(directory)


def test_a_file_system_that_cannot_lock_is_reported_and_nothing_stays_open(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> bool:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("filesession.locks.try_lock", refuse)
    claim = Leadership(directory)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreUnavailable, match=r"locking .*not implemented"):
        claim.try_lead()
    with pytest.raises(StoreUnavailable, match=r"locking .*not implemented"):
        is_led(directory)
    assert len(os.listdir("/proc/self/fd")) == before


def test_asking_whether_a_directory_is_led_makes_nothing(directory: str) -> None:
    assert not is_led(directory)
    assert not lock_file(directory).exists()


def test_asking_whether_a_directory_is_led_does_not_take_the_lead(directory: str) -> None:
    claim = Leadership(directory)
    assert claim.try_lead()
    assert is_led(directory)
    claim.resign()
    assert not is_led(directory)
    assert claim.try_lead()


LEADS_AND_FORKS = """
import os, sys
from filesession.janitor.leader import Leadership, marked_at
claim = Leadership(sys.argv[1])
assert claim.try_lead()
if os.fork() == 0:
    assert not claim.still_leads()
    os.write(1, b"child\\n")  # in one piece, also where Python's output is not buffered
else:
    os.write(1, b"parent\\n")
sys.stdin.readline()
"""


TAKES_THE_LOCK_AND_FORKS = """
import os, sys, threading
from filesession.janitor import leader
locked, forked, really = threading.Event(), threading.Event(), leader.is_named

def is_named(*file):
    locked.set()
    forked.wait(0.5)
    return really(*file)

leader.is_named = is_named
claim = leader.Leadership(sys.argv[1])
taking = threading.Thread(target=claim.try_lead)
taking.start()
locked.wait()
if os.fork() == 0:
    os.write(1, b"child\\n")
else:
    forked.set()
    taking.join()
    os.write(1, b"parent\\n")
sys.stdin.readline()
"""

GIVES_IT_BACK_AND_FORKS = """
import os, sys, threading
from filesession.janitor import leader
closing, forked, close = threading.Event(), threading.Event(), os.close

def slowly(descriptor):
    closing.set()
    forked.wait(0.5)
    close(descriptor)

claim = leader.Leadership(sys.argv[1])
assert claim.try_lead()
os.close = slowly
resigning = threading.Thread(target=claim.resign)
resigning.start()
closing.wait()
if os.fork() == 0:
    os.write(1, b"child\\n")
else:
    forked.set()
    resigning.join()
    os.write(1, b"parent\\n" if claim.try_lead() else b"the child has the lock\\n")
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    "program", [LEADS_AND_FORKS, TAKES_THE_LOCK_AND_FORKS, GIVES_IT_BACK_AND_FORKS]
)
def test_a_forked_child_does_not_keep_the_lead_of_its_dead_parent(
    directory: str, program: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", program, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        told = sorted(process.stdout.readline() for _ in range(2))
        assert told == ["child\n", "parent\n"]
        assert is_led(directory)
        process.kill()
        process.wait(10)
        assert Leadership(directory).try_lead()
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout.read() == ""  # the child has come to its end as well
