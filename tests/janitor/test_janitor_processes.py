"""Janitors as processes: started, killed, stopped, replaced. Tests wait for a line or an end."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from filesession.janitor.heartbeat import janitor_state
from filesession.stores.file.store import FileStore

DEADLINE = 20


class Process:
    """A janitor's process and the lines it wrote."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def expect(self, words: str) -> str:
        """The next line with these words in it; those before it are passed over."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                pytest.fail(f"no line with {words!r} in {self.said}")
            self.said.append(line)
            if words in line:
                return line

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal if one is given; the exit code."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def clean_up(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=100)


Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        process = Process(*arguments)
        started.append(process)
        return process

    yield start
    for process in started:
        process.clean_up()


@pytest.fixture
def janitor(start: Start, store: FileStore) -> Start:
    def janitor(*options: str) -> Process:
        return start("-m", "filesession", "janitor", store.directory, *options)

    return janitor


def create_expired(store: FileStore) -> None:
    record = store.create({"n": 1})
    handle = next(info.handle for info in store.scan() if info.created_at == record.created_at)
    os.utime(Path(store.directory, "sessions", handle[:2], handle), (1, 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_works_in_the_foreground_until_a_signal_and_then_ends_well(
    janitor: Start, store: FileStore, number: signal.Signals
) -> None:
    create_expired(store)
    process = janitor("--interval", "3600")
    process.expect("swept 1 session in")
    assert len(store) == 0
    assert janitor_state(store.directory, time.time())[0] == "alive"
    assert process.end(number) == 0
    process.expect(f"{number.name}: stopping")
    process.expect("stopped")
    assert janitor_state(store.directory, time.time())[0] == "absent"


def test_what_expires_later_goes_with_a_later_sweep(janitor: Start, store: FileStore) -> None:
    process = janitor("--interval", "0.2", "-v")
    process.expect("swept 0 sessions")
    create_expired(store)
    process.expect("swept 1 session in")
    assert len(store) == 0


def test_of_two_janitors_one_leads_and_the_other_takes_over_when_it_is_killed(
    janitor: Start, store: FileStore
) -> None:
    first = janitor("--interval", "3600")
    first.expect("leading")
    second = janitor("--interval", "3600")
    second.expect("standing by")
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    killed = time.monotonic()
    create_expired(store)
    second.expect("leading")
    assert time.monotonic() - killed < 2  # a second, and something for a busy machine
    second.expect("swept 1 session in")
    _, beat = janitor_state(store.directory, time.time())
    assert beat is not None
    assert beat.pid == second.process.pid
    assert second.end(signal.SIGTERM) == 0


def test_of_many_that_wait_one_takes_over(janitor: Start, store: FileStore) -> None:
    leader = janitor("--interval", "3600")
    leader.expect("leading")
    others = [janitor("--interval", "3600") for _ in range(3)]
    for other in others:
        other.expect("standing by")
    leader.end(signal.SIGTERM)
    wait_for_a_leader(store, {other.process.pid for other in others})
    for other in others:
        assert other.end(signal.SIGTERM) == 0


def wait_for_a_leader(store: FileStore, pids: set[int]) -> None:
    """Look again and again until one of these processes says that it leads."""
    patience = threading.Event()
    deadline = time.monotonic() + DEADLINE
    while True:
        state, beat = janitor_state(store.directory, time.time())
        if state == "alive" and beat is not None and beat.pid in pids:
            return
        assert time.monotonic() < deadline, "nobody took over"
        patience.wait(0.02)


def test_it_survives_its_directory_vanishing_and_coming_back(
    janitor: Start, store: FileStore
) -> None:
    process = janitor("--interval", "0.2")
    process.expect("leading")
    away = store.directory + ".away"
    Path(store.directory).rename(away)
    process.expect("standing by for it")
    Path(away).rename(store.directory)
    process.expect("leading")
    create_expired(store)
    process.expect("swept 1 session in")
    assert process.end(signal.SIGTERM) == 0


FINISHES_ITS_SWEEP = """
import os, sys, threading
from filesession.janitor import Janitor
from filesession.record import SweepReport

class Store:
    def scan(self):
        return iter(())
    def sweep(self, *, limit=None, dry_run=False, progress=None):
        print("sweeping", file=sys.stderr, flush=True)
        gate.wait(20)
        print("swept to the end", file=sys.stderr, flush=True)
        return SweepReport(started_at=0.0, seconds=0.0)

gate = threading.Event()
janitor = Janitor(Store(), interval=3600)
stop = janitor.stop

def stop_and_say_so():
    threading.Timer(0.0, gate.set).start()
    stop()

janitor.stop = stop_and_say_so
janitor.run()
print("returned", file=sys.stderr, flush=True)
"""


def test_a_signal_lets_the_sweep_in_hand_come_to_its_end(start: Start) -> None:
    process = start("-c", FINISHES_ITS_SWEEP)
    process.expect("sweeping")
    assert process.end(signal.SIGTERM) == 0
    process.expect("swept to the end")
    process.expect("returned")


STARTED_AND_FORGOTTEN = """
import sys
from filesession import FileStore
from filesession.janitor import Janitor
Janitor(FileStore(sys.argv[1])).start()
"""


def test_a_janitor_in_the_background_does_not_keep_its_process_alive(
    start: Start, store: FileStore
) -> None:
    process = start("-W", "error", "-c", STARTED_AND_FORGOTTEN, store.directory)
    assert process.end() == 0
    assert janitor_state(store.directory, time.time())[0] == "absent"


FORKS = """
import os, sys, time
from filesession import FileStore
from filesession.janitor import Janitor
from filesession.janitor.leader import is_led
store = FileStore(sys.argv[1])
janitor = Janitor(store, interval=3600)
janitor.start()
while not is_led(store.directory):
    time.sleep(0.01)
child = os.fork()
if child == 0:
    import logging
    logging.basicConfig(level=logging.INFO)
    janitor.start()
    sys.stdin.readline()
    janitor.stop()
    os._exit(0)
os._exit(0)
"""


def test_in_a_forked_child_it_may_be_started_anew(store: FileStore) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS, store.directory],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stderr is not None
        for line in process.stderr:
            if f"leading {store.directory}" in line:
                break
        else:
            pytest.fail("the child never led")
        process.stdin.write("\n")
        process.stdin.flush()
        assert "the janitor stopped" in process.stderr.read()
