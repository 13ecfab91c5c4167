"""The daemon as a process: signals, a terminal, systemd, several directories.

systemd is a socket that receives what it would; processes are the command, on real directories.
"""

from __future__ import annotations

import os
import pty
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from filesession.janitor.heartbeat import janitor_state
from filesession.janitor.leader import is_led
from filesession.stores.file.journal import last_entry, seed_of
from filesession.stores.file.store import FileStore
from tests.janitor.grounds import directory_in_memory
from tests.janitor.processes import COMMAND, Manager, Process, Start, create_expired, fill
from tests.waiting import wait_until

SOON = 10.0  # two seconds, and something for a busy machine; what hangs takes a minute
"""Seconds in which it ends when it is told to."""


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=100)


Janitor = Callable[..., Process]


@pytest.fixture
def janitor(start: Start, store: FileStore) -> Janitor:
    """Starts the command on a directory, which leads when this returns."""

    def janitor(*options: str, **how: object) -> Process:
        process = start(*COMMAND, store.directory, "--interval", "3600", *options, **how)
        process.expect(f"leading {store.directory}")
        return process

    return janitor


def end_soon(process: Process, number: signal.Signals) -> None:
    """Send it a signal; it must end well, and soon."""
    began = time.monotonic()
    assert process.end(number) == 0
    assert time.monotonic() - began < SOON


def left_of(files: list[Path]) -> list[Path]:
    return [path for path in files if path.exists()]


def assert_whole(store: FileStore, files: list[Path]) -> None:
    """Each of these is a session, and there is nothing that is none."""
    for path in files:
        assert last_entry(path.read_bytes(), seed_of(path.name)) is not None
    names = [name for _, _, names in os.walk(store.directory) for name in names]
    assert sorted([*(path.name for path in files), "filesession.json"]) == sorted(
        set(names) - {"janitor.json", "janitor.lock"}
    )


class TestSignals:
    def test_in_the_midst_of_a_long_sweep_it_ends_soon_and_the_next_takes_the_rest(
        self, start: Start
    ) -> None:
        with directory_in_memory() as path:
            store = FileStore(path / "sessions", idle_timeout=100)
            files = fill(store, 12_000)
            for number in (signal.SIGTERM, signal.SIGINT):
                before = len(files)
                first = min(files)
                process = start(*COMMAND, store.directory, "--fuse", "1", "--interval", "3600")
                wait_until(lambda first=first: not first.exists())  # type: ignore[misc]
                end_soon(process, number)
                files = left_of(files)
                assert 0 < len(files) < before
                assert_whole(store, files)
                assert not is_led(store.directory)
            process = start(*COMMAND, store.directory, "--once")
            assert process.end() == 0
            assert left_of(files) == []

    @pytest.mark.parametrize(
        "command", ["sleep 100", """sh -c 'trap "" TERM; echo here; while :; do sleep 1; done'"""]
    )
    def test_a_hook_that_hangs_is_ended_with_it_in_every_directory(
        self, start: Start, store: FileStore, tmp_path: Path, command: str
    ) -> None:
        mark = secrets.token_hex(8)
        others = [FileStore(tmp_path / f"more{n}", idle_timeout=100) for n in range(2)]
        stores = [store, *others]
        for each in stores:
            create_expired(each)
        names = [each.directory for each in stores]
        process = start(
            *(*COMMAND, *names, "--interval", "3600", "--on-expired", command),
            environment={"FILESESSION_TEST": mark},
        )
        ours = process.process.pid
        wait_until(lambda: sum(parent_of(pid) == ours for pid in pids_with(mark)) == len(stores))
        end_soon(process, signal.SIGTERM)
        wait_until(lambda: not pids_with(mark))
        assert sum("1 expired session not told of" in line for line in process.rest()) == 3

    def test_one_signal_sweeps_now(self, janitor: Janitor, store: FileStore) -> None:
        process = janitor("-v")
        process.expect("swept 0 sessions")
        create_expired(store)
        process.send(signal.SIGUSR1)
        process.expect("SIGUSR1: sweeping now")
        process.expect("swept 1 session in")
        assert len(store) == 0

    def test_another_takes_over_new_timeouts_which_hold_back_one_sweep(
        self, janitor: Janitor, store: FileStore
    ) -> None:
        sids = [store.create().id for _ in range(3)]
        make_idle_for(store, 50)
        process = janitor("-v")
        process.expect("none expired")
        FileStore(store.directory, idle_timeout=20)
        process.send(signal.SIGHUP)
        process.expect("SIGHUP: reading the manifest anew")
        assert "idle_timeout" in process.expect("holding back")
        process.expect("held")
        assert len(files_of(store)) == len(sids)
        process.send(signal.SIGUSR1)
        process.expect("3 expired")
        assert files_of(store) == []
        process.end(signal.SIGTERM)
        assert sum("holding back" in line for line in process.rest()) == 1

    def test_below_nohup_a_hangup_is_nothing(self, janitor: Janitor) -> None:
        process = janitor(before=["nohup"])
        process.send(signal.SIGHUP)
        process.send(signal.SIGUSR1)
        process.expect("SIGUSR1")
        end_soon(process, signal.SIGTERM)
        assert not any("SIGHUP" in line for line in process.rest())

    def test_a_terminal_that_goes_ends_it_well(self, store: FileStore) -> None:
        pid, master = pty.fork()
        if pid == 0:
            os.execv(  # noqa: S606 - no shell is wanted
                sys.executable, [sys.executable, *COMMAND, store.directory, "--interval", "3600"]
            )
        try:
            said = b""
            while b"leading" not in said:
                said += os.read(master, 1000)
        finally:
            os.close(master)
            code = exit_code(pid)
        assert code == 0
        assert not is_led(store.directory)


def exit_code(pid: int) -> int | None:
    """How a child of ours ended; one that does not is killed."""
    ended: list[int] = []

    def has_ended() -> bool:
        if not ended:
            found, status = os.waitpid(pid, os.WNOHANG)
            ended.extend([os.waitstatus_to_exitcode(status)] if found else [])
        return bool(ended)

    try:
        wait_until(has_ended)
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return ended[0]


def pids_with(mark: str) -> set[int]:
    """The processes with that in their environment."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.add(int(path.parent.name))
    return found


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def files_of(store: FileStore) -> list[Path]:
    return [path for path in Path(store.directory, "sessions").rglob("*") if path.is_file()]


def make_idle_for(store: FileStore, seconds: float) -> None:
    """Date all activity so long ago."""
    for path in files_of(store):
        content = path.read_bytes()
        entry = last_entry(content, seed_of(path.name))
        assert entry is not None
        os.utime(path, (entry.created - seconds,) * 2)


class TestSystemd:
    def test_it_is_told_of_the_start_the_work_a_reload_and_the_end(
        self, janitor: Janitor, manager: Manager, store: FileStore
    ) -> None:
        process = janitor(environment={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"})
        wait_until(lambda: manager.has("READY"))
        wait_until(lambda: manager.has("WATCHDOG"))
        signs = sum("WATCHDOG" in message for message in manager.all())
        wait_until(lambda: sum("WATCHDOG" in message for message in manager.all()) >= signs + 3)
        process.send(signal.SIGHUP)
        wait_until(lambda: manager.has("RELOADING"))
        (reload,) = [n for n, message in enumerate(manager.all()) if "RELOADING" in message]
        wait_until(lambda: manager.has("READY", after=reload))
        wait_until(
            lambda: any(message.get("STATUS") == "leading 0 sessions" for message in manager.all())
        )
        end_soon(process, signal.SIGTERM)
        assert "STOPPING" in manager.all()[-1]
        assert janitor_state(store.directory, time.time())[0] == "absent"


class TestSeveralDirectories:
    def test_each_is_led_swept_and_ended_and_one_that_vanishes_disturbs_no_other(
        self, start: Start, store: FileStore, tmp_path: Path
    ) -> None:
        other = FileStore(tmp_path / "others", idle_timeout=100)
        for each in (store, other):
            create_expired(each)
        process = start(*COMMAND, store.directory, other.directory, "--interval", "3600")
        wait_until(lambda: not files_of(store) and not files_of(other))
        assert is_led(store.directory)
        assert is_led(other.directory)
        away = Path(store.directory).rename(tmp_path / "away")
        process.expect(f"{store.directory} has vanished or was replaced")
        create_expired(other)
        process.send(signal.SIGUSR1)
        process.expect(f"{other.directory}: swept 1 session in")
        create_expired(FileStore.open(away))
        away.rename(store.directory)
        assert "the directory had vanished" in process.expect("holding back")
        assert "held back" in process.expect(f"{store.directory}: swept")
        process.send(signal.SIGUSR1)
        assert "1 expired" in process.expect(f"{store.directory}: swept")
        assert files_of(store) == []
        end_soon(process, signal.SIGTERM)
        assert not is_led(store.directory)
        assert not is_led(other.directory)
        lines = process.rest()
        assert sum("holding back" in line for line in lines) == 1
        assert sum("the janitor stopped" in line for line in lines) == 2
