"""Janitors as processes: started, killed, stopped, replaced. Tests wait for a line or an end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from filesession.janitor import Janitor
from filesession.janitor.heartbeat import janitor_state, read_heartbeat
from filesession.janitor.leader import is_led
from filesession.stores.file.store import FileStore
from tests.janitor.processes import COMMAND, DEADLINE, Process, Start, create_expired, fill
from tests.serving import serving
from tests.waiting import wait_until


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=100)


@pytest.fixture
def janitor(start: Start, store: FileStore) -> Start:
    def janitor(*options: str) -> Process:
        return start(*COMMAND, store.directory, *options)

    return janitor


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
    assert time.monotonic() - killed < 5  # a second, and something for a busy machine
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
    """Wait until one of these processes says that it leads."""

    def leads() -> bool:
        state, beat = janitor_state(store.directory, time.time())
        return state == "alive" and beat is not None and beat.pid in pids

    wait_until(leads)


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
import os, sys
from filesession import FileStore
from filesession.janitor import Janitor
from filesession.janitor.leader import is_led
from tests.waiting import wait_until
store = FileStore(sys.argv[1])
janitor = Janitor(store, interval=3600)
janitor.start()
wait_until(lambda: is_led(store.directory))
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


def test_a_leader_that_is_killed_is_replaced_and_its_heartbeat_within_seconds(
    janitor: Start, store: FileStore
) -> None:
    pair = [janitor("--interval", "3600") for _ in range(2)]
    wait_for_a_leader(store, {process.process.pid for process in pair})
    leader, standby = sorted(pair, key=lambda process: process.process.pid != led_by(store))
    standby.expect("standing by")
    began = time.monotonic()
    leader.send(signal.SIGKILL)
    wait_for_a_leader(store, {standby.process.pid})
    assert time.monotonic() - began < 5  # a second, and something for a busy machine
    assert standby.end(signal.SIGTERM) == 0


def led_by(store: FileStore) -> int | None:
    beat = read_heartbeat(store.directory)
    return None if beat is None else beat.pid


WRITES = """
import json, sys
from filesession import FileStore
store = FileStore.open(sys.argv[1])
sids = []
for line in sys.stdin:
    first = max(0, len(sids) - 200)
    for n in range(int(line)):
        sids.append(store.create({"n": n}).id)
        store.touch(sids[first + n % max(1, len(sids) - first)])
        store.save(sids[-1], {"n": n + 1000})
    print("written", file=sys.stderr, flush=True)
print(json.dumps(sids), file=sys.stderr, flush=True)
"""

CLEANS = """
import sys
from filesession.janitor import Janitor
Janitor(sys.argv[1], interval=3600, fuse=1).run()
"""

KILLS = 15


def test_killed_at_any_point_it_deletes_nothing_that_lives_and_the_last_one_takes_the_rest(
    start: Start, memory: Path
) -> None:
    store = FileStore(memory / "sessions", idle_timeout=100)
    live = {store.create({"n": n}).id: n for n in range(1500)}
    expired = sorted(fill(store, 3000))
    chance = random.Random(15)  # noqa: S311 - the same points every time
    writer = start("-c", WRITES, store.directory)
    for kill in range(KILLS):
        target = expired[(len(expired) * kill + chance.randrange(len(expired))) // KILLS]
        process = start("-c", CLEANS, store.directory)
        writer.tell("20\n")
        wait_until(lambda target=target: not target.exists())  # type: ignore[misc]
        process.end(signal.SIGKILL)
        process.clean_up()
    process = start(*COMMAND, store.directory, "--fuse", "1")
    process.expect("swept")
    assert process.end(signal.SIGTERM) == 0
    assert writer.process.stdin is not None
    writer.process.stdin.close()
    assert writer.end() == 0
    written = json.loads(writer.rest()[-1])
    assert len(written) == 20 * KILLS
    for sid, n in [*live.items(), *((sid, 1000 + n % 20) for n, sid in enumerate(written))]:
        record = store.load(sid)
        assert record is not None
        assert record.data == {"n": n}
    assert not any(path.exists() for path in expired)
    assert len(store) == len(live) + len(written)
    assert not list(memory.rglob("corrupt/*"))
    for path in memory.rglob("*.tmp"):
        os.utime(path, (1, 1))
    assert start(*COMMAND, store.directory, "--once").end() == 0
    assert not list(memory.rglob("*.tmp"))


def test_all_that_lead_at_once_delete_each_session_once_and_tell_of_it_once(
    start: Start, memory: Path
) -> None:
    store = FileStore(memory / "sessions", idle_timeout=100)
    lives = store.create().id
    expired = fill(store, 2000)
    told: list[str] = []
    janitors = [
        Janitor(store, fuse=1, on_expired=lambda info: told.append(info.handle)) for _ in range(3)
    ]
    sweeps: list[Callable[[], object]] = [
        janitors[0].sweep_once,
        janitors[1].sweep_once,
        janitors[2]._sweeper.sweep_or_complain,
    ]
    janitors[2]._hook.start()  # type: ignore[union-attr]
    lines = memory / "lines"
    options = ("-v", "--fuse", "1", "--interval", "3600", "--on-expired", f"tee -a {lines}")
    with ThreadPoolExecutor(len(sweeps)) as pool:
        process = start(*COMMAND, store.directory, *options)
        wait_until(lambda: is_led(store.directory))
        for running in [pool.submit(sweep) for sweep in sweeps]:
            running.result(DEADLINE)
    process.expect("swept")
    assert process.end(signal.SIGTERM) == 0  # its last heartbeat is that of the sweep
    beat = read_heartbeat(store.directory)
    assert beat is not None
    assert beat.reading.sweeps == 1
    janitors[2]._sweeper.close()
    janitors[2]._hook.stop(DEADLINE)  # type: ignore[union-attr]
    text = lines.read_text().splitlines() if lines.exists() else []
    told += [json.loads(line)["handle"] for line in text]
    assert sorted(told) == sorted(path.name for path in expired)
    readings = [beat.reading, *(janitor.reading() for janitor in janitors)]
    assert sum(reading.expired for reading in readings) == len(expired)
    assert {(reading.failed, reading.corrupt, reading.dropped) for reading in readings} == {
        (0, 0, 0)
    }
    assert store.load(lives) is not None


FORKED_WORKERS = """
import logging, os, sys
from filesession import FileStore
from filesession.janitor import Janitor
from tests.waiting import wait_until
logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")
janitor = Janitor(FileStore(sys.argv[1]), interval=3600)
if sys.argv[2] == "works":
    janitor.start()
    wait_until(lambda: janitor.reading().sweeps > 0)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        janitor.start()
        os.read(0, 1)
        janitor.stop()
        os._exit(0)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
janitor.stop()
sys.exit(max(codes))
"""


@pytest.mark.parametrize(("parent", "number"), [("waits", 3), ("works", 4)])
def test_of_forked_workers_one_leads_and_all_stop(
    start: Start, store: FileStore, parent: str, number: int
) -> None:
    create_expired(store)
    process = start("-c", FORKED_WORKERS, store.directory, parent)
    for _ in range(number - 1):
        process.expect("standing by")
    wait_until(lambda: len(store) == 0)
    process.tell("x" * 3)
    assert process.end() == 0
    lines = process.rest()
    assert sum("the janitor stopped" in line for line in lines) == number
    assert sum("standing by" in line for line in lines) == number - 1
    assert not is_led(store.directory)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_told_to_stop_again_and_again_it_ends_well(janitor: Start, number: signal.Signals) -> None:
    process = janitor()
    process.expect("leading")
    process.send(signal.SIGTERM)
    while process.process.poll() is None:
        process.send(number)
    assert process.end() == 0


STOPS_IN_A_CHILD = """
import logging, os, signal, sys, threading
from filesession import FileStore
from filesession.janitor import Janitor
from tests.waiting import wait_until
logging.basicConfig(level=logging.INFO)
janitor = Janitor(FileStore(sys.argv[1]), interval=3600)
janitor.start()
wait_until(lambda: janitor.reading().sweeps > 0)
sys.stdin.readline()
with janitor._pen, janitor._life:  # as a thread of it may have them at that moment
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        janitor.stop()
        janitor.start()
        janitor.stop()
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("the child has ended", file=sys.stderr, flush=True)
sys.stdin.readline()
janitor.stop()
"""


def test_a_forked_child_that_stops_it_leaves_its_parents_alone(
    start: Start, store: FileStore
) -> None:
    process = start("-c", STOPS_IN_A_CHILD, store.directory)
    process.expect("leading")
    process.tell("\n")
    process.expect("the janitor stopped")
    process.expect("the child has ended")
    assert sum("stopped" in line for line in process.said) == 1, "what was never started"
    assert is_led(store.directory)
    process.tell("\n")
    assert process.end() == 0
    assert sum("stopped" in line for line in process.rest()) == 2


def test_under_a_server_one_worker_leads_another_takes_over_and_both_stop_with_it(
    tmp_path: Path,
) -> None:
    command = "uvicorn tests.janitor.cleaned_app:app --workers 2 --fd {fd}"
    with serving(command, tmp_path) as site:

        def said(words: str) -> list[int]:
            lines = site.log.read_text().splitlines()
            return [int(line.split()[0]) for line in lines if words in line]

        wait_until(lambda: len(said("leading")) + len(said("standing by")) == 2)
        store = FileStore.open(site.directory)
        create_expired(store)
        wait_until(lambda: len(store) == 0)
        (first,) = said("leading")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(said("leading")) == 2)
        create_expired(store)
        wait_until(lambda: len(store) == 0)
        wait_until(lambda: len({*said("leading"), *said("standing by")}) == 3)
    assert len(said("the janitor stopped")) == 2
    assert not is_led(str(site.directory))
