"""The janitor in one process: its looks, its threads, its ends. Nothing waits for time to pass."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import filesession
from filesession.errors import ConfigurationError, FilesessionError, StoreFull, StoreUnavailable
from filesession.janitor import Janitor, rounds
from filesession.janitor.heartbeat import BEAT, FRESH, HEARTBEAT, janitor_state, read_heartbeat
from filesession.janitor.leader import LOCK, Leadership, is_led
from filesession.janitor.place import Place
from filesession.janitor.watcher import EventsUnavailable, Watcher
from filesession.record import SessionInfo, SweepReport
from filesession.stores.file.store import FileStore
from filesession.stores.memory import MemoryStore
from tests.waiting import wait_until

DEADLINE = 10


class Clock:
    """Tells the time it was set to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class GatedStore:
    """A sweep of it waits to be let through, and says when it began."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.gate = threading.Event()
        self.swept = 0

    def scan(self) -> Iterator[SessionInfo]:
        return iter(())

    def sweep(
        self,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> SweepReport:
        self.began.set()
        assert self.gate.wait(DEADLINE)
        self.swept += 1
        return SweepReport(started_at=0.0, seconds=0.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=100, clock=clock)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "filesession.janitor")
    return caplog


@pytest.fixture
def looks(store: FileStore) -> Iterator[Callable[[], Janitor]]:
    """Makes janitors that do not run: a test takes each of their looks itself."""
    made: list[Janitor] = []

    def make() -> Janitor:
        janitor = Janitor(store, interval=3600)
        made.append(janitor)
        return janitor

    yield make
    for janitor in made:
        if janitor._leads:
            janitor._step_down()


def messages(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records]


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name != "MainThread"}


def test_everything_due_is_gone_when_a_single_sweep_returns(store: FileStore, clock: Clock) -> None:
    for _ in range(20):
        store.create({"n": 1})
    clock.now += 1000
    live = store.create()
    report = Janitor(store).sweep_once()
    assert (report.examined, report.expired) == (21, 20)
    assert store.load(live.id) is not None
    assert len(store) == 1


def test_a_single_sweep_needs_no_leadership_and_leaves_no_trace(store: FileStore) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    Janitor(store).sweep_once()
    assert not Path(store.directory, HEARTBEAT).exists()


def test_a_path_will_do(store: FileStore) -> None:
    store.create()
    assert Janitor(store.directory).sweep_once().examined == 1
    assert Janitor(Path(store.directory)).sweep_once().examined == 1


@pytest.fixture
def by_path(tmp_path: Path) -> Iterator[Janitor]:
    """A janitor that was given a path with nothing there, and whose looks a test takes itself."""
    janitor = Janitor(tmp_path / "sessions", interval=3600)
    yield janitor
    if janitor._leads:
        janitor._step_down()


def not_there(path: Path) -> None:
    """As on a first start."""


def empty(path: Path) -> None:
    path.mkdir(0o700)


def empty_and_readable(path: Path) -> None:
    path.mkdir(0o755)
    path.chmod(0o755)


def about_to_be_used(path: Path) -> None:
    path.mkdir(0o700)
    (path / "filesession.json.0123456789ab.tmp").touch()


@pytest.mark.parametrize("made", [not_there, empty, empty_and_readable, about_to_be_used])
def test_a_path_where_no_application_has_been_yet_is_waited_for_and_that_is_told_once(
    made: Callable[[Path], None], tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sessions"
    made(path)
    janitor = Janitor(path, interval=3600)
    before = sorted(tmp_path.rglob("*"))
    for _ in range(3):
        janitor._tick()
    waiting = f"waiting for {path}: no application has opened its store yet"
    assert messages(log) == [waiting]
    assert sorted(tmp_path.rglob("*")) == before
    FileStore(path).create()
    janitor._tick()
    try:
        assert messages(log) == [waiting, f"leading {path}"]
        assert janitor._due.wait(DEADLINE)
        assert janitor.sweep_once().examined == 1
    finally:
        janitor._step_down()


def test_a_path_that_is_waited_for_and_then_vanishes_is_waited_for_again(
    by_path: Janitor, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sessions"
    for depth in (1, 2):
        by_path._tick()
        FileStore(path, shard_depth=depth).create()
        by_path._tick()
        assert messages(log)[-1] == f"leading {path}"
        assert by_path.sweep_once().examined == 1
        shutil.rmtree(path)
        log.clear()
        for _ in range(3):
            by_path._tick()
        (line,) = messages(log)
        assert line.startswith(f"{path} has vanished or was replaced")


def a_file(path: Path) -> None:
    path.touch()


def a_symlink(path: Path) -> None:
    path.symlink_to("elsewhere")


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def something_else(path: Path) -> None:
    path.mkdir(0o700)
    (path / "notes.txt").touch()


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def broken(path: Path) -> None:
    path.mkdir(0o700)
    (path / "filesession.json").write_text('{"format": 1}')


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (a_file, "is not a directory"),
        (a_symlink, "is a symlink"),
        (below_a_file, "Not a directory"),
        (something_else, "is no session directory"),
        (open_to_all, "chmod 700"),
        (broken, "is no manifest"),
    ],
)
def test_what_waiting_would_not_mend_is_refused_and_later_complained_of_once(
    made: Callable[[Path], None], words: str, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "above" / "sessions"
    path.parent.mkdir()
    janitor = Janitor(path)
    made(path)
    with pytest.raises(FilesessionError, match=words):
        Janitor(path)
    if made is not broken:
        janitor._tick()
        janitor._tick()
        (line,) = messages(log)
        assert words in line
        assert not janitor._leads


def test_a_single_sweep_waits_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no directory"):
        Janitor(tmp_path / "nowhere").sweep_once()


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_can_be_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="the path of the session directory"):
        Janitor(path)


def test_a_path_can_be_looked_through(store: FileStore) -> None:
    store.create()
    assert [info.handle for info in Place(store.directory, FileStore.open).scan()] == [
        next(store.scan()).handle
    ]


@pytest.mark.parametrize("store", [None, 5, {}])
def test_what_cannot_be_swept_is_refused(store: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be swept"):
        Janitor(store)


def test_interval_and_cron_exclude_each_other_and_either_is_checked(store: FileStore) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        Janitor(store, interval=60, cron="* * * * *")
    with pytest.raises(ConfigurationError, match="interval"):
        Janitor(store, interval=-1)
    with pytest.raises(ConfigurationError, match="cron"):
        Janitor(store, cron="never")
    assert Janitor(store, cron="* * * * *")._heartbeat().cron == "* * * * *"
    assert Janitor(store)._heartbeat().interval == 60


def test_the_first_look_leads_says_so_and_makes_a_sweep_due(
    looks: Callable[[], Janitor], store: FileStore, log: pytest.LogCaptureFixture
) -> None:
    janitor = looks()
    janitor._tick()
    assert is_led(store.directory)
    assert messages(log) == [f"leading {store.directory}"]
    assert janitor._due.wait(DEADLINE)
    state, beat = janitor_state(store.directory, store.clock())
    assert state == "alive"
    assert beat is not None
    assert (beat.pid, beat.heartbeat_at, beat.interval) == (os.getpid(), store.clock(), 3600)


def test_a_standby_says_so_once_and_takes_over_with_its_first_look_after_the_leader_left(
    looks: Callable[[], Janitor], store: FileStore, log: pytest.LogCaptureFixture
) -> None:
    first, second = looks(), looks()
    first._tick()
    second._tick()
    second._tick()
    assert messages(log)[1:] == [f"standing by: another janitor leads {store.directory}"]
    assert not second._due.is_set()
    first._step_down()
    second._tick()
    assert messages(log)[2:] == [f"leading {store.directory}"]
    assert second._due.wait(DEADLINE)


def test_a_leader_says_that_it_lives_every_few_seconds_and_not_with_every_look(
    looks: Callable[[], Janitor], store: FileStore, clock: Clock
) -> None:
    janitor = looks()
    ticks = Clock(0.0)
    janitor._monotonic = ticks
    janitor._wall = lambda: ticks.now
    janitor._tick()

    def look_after(seconds: float) -> float:
        ticks.now += seconds
        clock.now += seconds
        janitor._tick()
        beat = read_heartbeat(store.directory)
        assert beat is not None
        return clock.now - beat.heartbeat_at

    assert look_after(0.5) == 0.5
    assert look_after(BEAT - 1) == BEAT - 0.5
    assert look_after(0.5) == 0
    assert look_after(0.5) == 0.5


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_leader_whose_lock_file_is_not_its_own_any_more_steps_down_and_is_elected_anew(
    looks: Callable[[], Janitor], store: FileStore, log: pytest.LogCaptureFixture, how: str
) -> None:
    janitor = looks()
    janitor._tick()
    lock = Path(store.directory, LOCK)
    lock.unlink()
    usurper = Leadership(store.directory)
    if how == "replaced":
        usurper.try_lead()
    janitor._tick()
    assert "vanished or was replaced" in messages(log)[1]
    if how == "replaced":
        assert not janitor._leads
        assert janitor._schedule.next_at() is None
        usurper.resign()
        janitor._tick()
    assert janitor._leads
    assert janitor._leadership is not None
    assert janitor._leadership.still_leads()


def test_a_directory_that_vanishes_is_told_once_and_swept_again_when_it_is_back(
    looks: Callable[[], Janitor], store: FileStore, log: pytest.LogCaptureFixture
) -> None:
    janitor = looks()
    janitor._tick()
    away = store.directory + ".away"
    Path(store.directory).rename(away)
    for _ in range(5):
        janitor._tick()
        janitor._sweeper.sweep_or_complain()
        janitor._beat()
    told = messages(log)[1:]
    assert [line.split(":")[0] for line in told] == [
        f"{store.directory} has vanished or was replaced; standing by for it to be there",
        "cannot lead",
    ]
    assert not Path(store.directory).exists()
    Path(away).rename(store.directory)
    janitor._tick()
    assert messages(log)[-1] == f"leading {store.directory}"
    assert janitor._due.wait(DEADLINE)


def test_a_heartbeat_that_cannot_be_written_is_told_once_and_ends_nothing(
    looks: Callable[[], Janitor], monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def full(directory: str, beat: object) -> None:
        msg = "no space left"
        raise StoreUnavailable(msg)

    monkeypatch.setattr("filesession.janitor.janitor.write_heartbeat", full)
    janitor = looks()
    janitor._tick()
    janitor._beat()
    assert messages(log)[1:] == ["cannot write the heartbeat: no space left"]
    assert janitor._leads


def test_on_a_full_disk_a_leader_is_alive_and_says_once_what_fails_and_once_that_it_is_over(
    looks: Callable[[], Janitor],
    store: FileStore,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    def full(directory: str, beat: object) -> None:
        msg = "no space left"
        raise StoreFull(msg)

    monkeypatch.setattr("filesession.janitor.janitor.write_heartbeat", full)
    janitor = looks()
    janitor._tick()
    for _ in range(3):
        clock.now += FRESH
        janitor._sweeper.sweep_or_complain()  # which goes well, and is no end to that
        janitor._beat()
        assert janitor_state(store.directory, clock.now) == ("alive", None)
    monkeypatch.undo()
    log.set_level(logging.INFO, "filesession.janitor")
    janitor._beat()
    janitor._beat()
    told = [line for line in messages(log)[1:] if ": swept" not in line]
    assert told == ["cannot write the heartbeat: no space left", "the heartbeat is written again"]


def test_a_lock_that_cannot_be_dated_is_told_like_a_heartbeat_that_cannot_be_written(
    looks: Callable[[], Janitor], monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def fail(target: object, times: object) -> None:
        raise OSError(5, "Input/output error")

    janitor = looks()
    monkeypatch.setattr("filesession.janitor.leader.os.utime", fail)
    janitor._tick()
    assert messages(log)[1].startswith("cannot write the heartbeat: dating ")


def test_a_leader_whose_schedule_cannot_start_lets_another_lead(
    looks: Callable[[], Janitor], store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    janitor = looks()
    monkeypatch.setattr(janitor._schedule, "start", refuse)
    with pytest.raises(RuntimeError):
        janitor._tick()
    assert not is_led(store.directory)


@pytest.mark.parametrize(("jump", "moves"), [(0.5, []), (3600.0, [3600.0]), (-60.0, [-60.0])])
def test_a_wall_clock_that_is_set_makes_the_schedule_think_anew(
    looks: Callable[[], Janitor],
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    jump: float,
    moves: list[float],
) -> None:
    janitor = looks()
    wall = Clock()
    told: list[float] = []
    janitor._wall = wall
    janitor._monotonic = lambda: 50.0
    janitor._tick()
    monkeypatch.setattr(janitor._schedule, "clock_moved", told.append)
    janitor._tick()
    wall.now += jump
    janitor._tick()
    janitor._tick()
    assert told == moves
    assert any("the clock moved" in line for line in messages(log)) == bool(moves)


def test_in_the_background_it_sweeps_at_once_and_stops_without_a_trace_of_its_threads(
    store: FileStore, clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    store.create()
    clock.now += 1000
    janitor = Janitor(store, interval=3600)
    before = threads()
    janitor.start()
    janitor.start()
    ours = [thread for thread in threading.enumerate() if thread.name not in before]
    assert all(thread.daemon for thread in ours if thread.name != "MainThread")
    assert len([thread for thread in ours if thread.name.startswith("filesession-")]) >= 2
    wait_until(lambda: beat_of(store).get("last_sweep") is not None)
    janitor.stop()
    janitor.stop()
    assert threads() == before
    assert len(store) == 0
    assert not is_led(store.directory)
    assert "swept 1 session in" in messages(log)[1]
    assert messages(log)[-1] == f"{store.directory}: the janitor stopped"


def beat_of(store: FileStore) -> dict[str, Any]:
    try:
        found = json.loads(Path(store.directory, HEARTBEAT).read_text())
    except FileNotFoundError:
        return {}
    assert isinstance(found, dict)
    return found


def test_stopping_a_janitor_that_never_started_does_nothing(store: FileStore) -> None:
    Janitor(store).stop()


def test_a_janitor_that_stopped_may_start_again(store: FileStore) -> None:
    janitor = Janitor(store, interval=3600)
    for _ in range(2):
        janitor.start()
        wait_until(lambda: janitor._sweeper.last is not None)
        janitor.stop()
        janitor._sweeper.last = None


def test_stopping_waits_for_the_sweep_in_hand_and_begins_no_other() -> None:
    store = GatedStore()
    janitor = Janitor(store, interval=3600)
    janitor.start()
    assert store.began.wait(DEADLINE)
    ended = stop_elsewhere(janitor)
    assert janitor._stopping.wait(DEADLINE)
    janitor.sweep_soon()
    assert not ended.wait(0.2)
    assert janitor._sweeper.since is not None
    store.gate.set()
    assert ended.wait(DEADLINE)
    assert store.swept == 1


def test_stopping_waits_for_the_look_in_hand(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, gate = threading.Event(), threading.Event()

    def look() -> None:
        looking.set()
        assert gate.wait(DEADLINE)

    janitor = Janitor(store, interval=3600)
    monkeypatch.setattr(janitor, "_tick", look)
    janitor.start()
    assert looking.wait(DEADLINE)
    ended = stop_elsewhere(janitor)
    assert not ended.wait(0.2)
    gate.set()
    assert ended.wait(DEADLINE)


def stop_elsewhere(janitor: Janitor) -> threading.Event:
    """Stop it in another thread; set when that returned."""
    ended = threading.Event()

    def stop() -> None:
        janitor.stop()
        ended.set()

    threading.Thread(target=stop).start()
    return ended


def test_a_janitor_that_was_told_to_stop_does_not_begin_to_lead(
    looks: Callable[[], Janitor], store: FileStore
) -> None:
    janitor = looks()
    janitor._stopping.set()
    janitor._tick()
    assert not is_led(store.directory)


def test_a_standby_does_not_sweep(store: FileStore) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    janitor = Janitor(store, interval=3600)
    janitor.start()
    janitor.sweep_soon()
    wait_until(lambda: not janitor._due.is_set())
    janitor.stop()
    assert janitor._sweeper.last is None


def test_a_sweep_that_was_due_to_a_leader_is_not_due_to_who_leads_no_more(
    looks: Callable[[], Janitor],
) -> None:
    janitor = looks()
    janitor._tick()
    assert janitor._due.wait(DEADLINE)
    janitor._step_down()
    assert not janitor._due.is_set()


def test_a_directory_made_anew_gets_no_heartbeat_of_the_old_ones_leader(
    looks: Callable[[], Janitor], store: FileStore
) -> None:
    janitor = looks()
    janitor._tick()
    Path(store.directory).rename(store.directory + ".old")
    FileStore(store.directory)
    janitor._beat()
    assert read_heartbeat(store.directory) is None


def test_a_long_sweep_is_no_missing_heartbeat(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = GatedStore()
    janitor = Janitor(store, interval=3600)
    monkeypatch.setattr(janitor._sweeper, "_sweep_in_rounds", gated.sweep)
    janitor.start()
    try:
        assert gated.began.wait(DEADLINE)
        janitor._beat()
        assert beat_of(store)["sweeping_since"] == store.clock()
    finally:
        gated.gate.set()
        janitor.stop()
    assert beat_of(store)["sweeping_since"] is None
    assert beat_of(store)["last_sweep"] is not None


def test_a_failed_sweep_stands_in_the_heartbeat_and_the_next_one_is_tried(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> SweepReport:
        msg = "the disk fails"
        raise StoreUnavailable(msg)

    janitor = Janitor(store, interval=3600)
    monkeypatch.setattr(janitor._sweeper, "_sweep_in_rounds", fail)
    janitor.start()
    try:
        wait_until(lambda: beat_of(store).get("last_error") == "the disk fails")
        monkeypatch.undo()
        janitor.sweep_soon()
        wait_until(lambda: beat_of(store).get("last_sweep") is not None)
        assert beat_of(store)["last_error"] is None
    finally:
        janitor.stop()


def test_a_look_that_fails_for_no_known_reason_is_told_and_the_next_one_taken(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    janitor = Janitor(store, interval=3600)
    failed = threading.Event()

    try_lead = Leadership.try_lead

    def fail_once(claim: Leadership) -> bool:
        if failed.is_set():
            return try_lead(claim)
        failed.set()
        msg = "a bug"
        raise RuntimeError(msg)

    monkeypatch.setattr(Leadership, "try_lead", fail_once)
    janitor.start()
    try:
        wait_until(lambda: bool(janitor._leads))
    finally:
        janitor.stop()
    assert messages(log)[0] == "the janitor's watch failed; going on"


def test_a_sweep_that_fails_for_no_known_reason_is_told_and_the_next_one_made(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    janitor = Janitor(store, interval=3600)
    sweep, swept = janitor._sweeper.sweep_or_complain, threading.Event()
    reasons = [RuntimeError("a bug")]

    def fail_once() -> None:
        if reasons:
            raise reasons.pop()
        sweep()
        swept.set()

    monkeypatch.setattr(janitor._sweeper, "sweep_or_complain", fail_once)
    janitor.start()
    try:
        wait_until(lambda: not reasons)
        janitor.sweep_soon()
        assert swept.wait(30)
    finally:
        janitor.stop()
    assert "the janitor's sweeper failed; going on" in messages(log)


def test_a_store_without_a_directory_is_swept_by_everyone_it_is_given_to(clock: Clock) -> None:
    store = MemoryStore(idle_timeout=100, clock=clock)
    store.create()
    clock.now += 1000
    first, second = Janitor(store, interval=3600), Janitor(store, interval=3600)
    first.start()
    second.start()
    wait_until(lambda: None not in (first._sweeper.last, second._sweeper.last))
    first.stop()
    second.stop()
    assert len(store) == 0


def test_no_log_line_holds_a_session_id(
    store: FileStore, clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    sids = [store.create({"n": n}).id for n in range(5)]
    broken = next(Path(store.directory, "sessions").glob("*/*"))
    broken.write_bytes(b"garbage")
    clock.now += 1000
    janitor = Janitor(store, interval=3600)
    janitor.start()
    wait_until(lambda: janitor._sweeper.last is not None)
    janitor.stop()
    said = "\n".join(messages(log)) + Path(store.directory, HEARTBEAT).read_text()
    assert not any(sid in said for sid in sids)


def test_running_outside_the_main_thread_is_refused(store: FileStore) -> None:
    errors: list[ConfigurationError] = []

    def run() -> None:
        try:
            Janitor(store).run()
        except ConfigurationError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE)
    assert "main thread" in str(errors[0])
    assert not is_led(store.directory)


def test_a_hangup_that_whoever_started_it_wants_ignored_stays_so(store: FileStore) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        janitor = Janitor(store, interval=3600)

        def send() -> None:
            wait_until(lambda: janitor._sweeper.last is not None)
            os.kill(os.getpid(), signal.SIGHUP)
            ignored.append(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGTERM)

        ignored: list[bool] = []
        threading.Thread(target=send).start()
        janitor.run()
        assert ignored == [True]
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_ends_with_a_signal_and_gives_the_handlers_back(
    store: FileStore, log: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    def own_handler(number: int, frame: object) -> None:
        pytest.fail("the signal was the janitor's")

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.signal(each, own_handler) for each in numbers]
    try:
        janitor = Janitor(store, interval=3600)

        def send() -> None:
            wait_until(lambda: janitor._sweeper.last is not None)
            os.kill(os.getpid(), number)

        threading.Thread(target=send).start()
        janitor.run()
        assert [signal.getsignal(each) for each in numbers] == [own_handler] * 4
    finally:
        for each, handler in zip(numbers, before, strict=True):
            signal.signal(each, handler)
    assert f"{number.name}: stopping" in messages(log)
    assert not is_led(store.directory)


def test_the_janitor_is_a_public_name() -> None:
    assert filesession.Janitor is Janitor


class Told:
    """Where what has expired is told of.

    Attributes:
        handles: so far.
    """

    def __init__(self, *, fails: bool = False) -> None:
        self.handles: list[str] = []
        self._fails = fails

    def __call__(self, info: SessionInfo) -> None:
        assert isinstance(info, SessionInfo)
        self.handles.append(info.handle)
        if self._fails:
            msg = "the hook fails"
            raise ValueError(msg)


def handles(store: FileStore) -> list[str]:
    return sorted(info.handle for info in store.scan())


@pytest.mark.parametrize("fails", [False, True])
def test_a_function_is_told_of_each_session_that_expired_and_may_fail(
    store: FileStore, clock: Clock, log: pytest.LogCaptureFixture, *, fails: bool
) -> None:
    for _ in range(20):
        store.create()
    expired = handles(store)
    clock.now += 1000
    lives = store.create().id
    told = Told(fails=fails)
    janitor = Janitor(store, interval=3600, on_expired=told)
    janitor.start()
    try:
        wait_until(lambda: len(told.handles) == 20)
        clock.now += 90
        assert store.load(lives) is not None
    finally:
        janitor.stop()
    assert sorted(told.handles) == expired
    assert janitor.reading().expired == 20
    assert sum("the hook fails" in line for line in messages(log)) == fails


@pytest.mark.parametrize("fails", [False, True])
def test_a_single_sweep_returns_when_a_function_was_told_of_all(
    store: FileStore, clock: Clock, *, fails: bool
) -> None:
    for _ in range(3):
        store.create()
    expired = handles(store)
    clock.now += 1000
    told = Told(fails=fails)
    before = threads()
    assert Janitor(store, on_expired=told).sweep_once().expired == 3
    assert sorted(told.handles) == expired
    assert threads() == before


def test_a_single_sweep_returns_when_a_command_has_read_all(
    store: FileStore, clock: Clock, tmp_path: Path
) -> None:
    for _ in range(3):
        store.create()
    expired = handles(store)
    clock.now += 1000
    lines = tmp_path / "lines"
    Janitor(store, on_expired=f"tee -a {lines}").sweep_once()
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted(each["handle"] for each in told) == expired
    assert {each["created_at"] for each in told} == {clock.now - 1000}


def test_a_single_sweep_beside_the_schedule_leaves_the_hook_at_work(
    store: FileStore, clock: Clock
) -> None:
    told = Told()
    janitor = Janitor(store, interval=3600, on_expired=told)
    janitor.start()
    try:
        wait_until(lambda: janitor._sweeper.last is not None)
        for number in (1, 2):
            store.create()
            clock.now += 1000
            assert janitor.sweep_once().expired == 1
            wait_until(lambda number=number: len(told.handles) == number)  # type: ignore[misc]
    finally:
        janitor.stop()


def test_the_heartbeat_tells_what_is_known_and_was_done(store: FileStore, clock: Clock) -> None:
    for _ in range(3):
        store.create()
    clock.now += 1000
    store.create()
    janitor = Janitor(store, interval=3600)
    assert janitor.reading().sessions is None
    janitor.start()
    try:
        wait_until(lambda: reading_of(store).get("sweeps") == 1)
        first = reading_of(store)
        store.create()
        wait_until(lambda: janitor.reading().created == 1)
        janitor._beat()
        second = reading_of(store)
    finally:
        janitor.stop()
    assert beat_of(store)["watch"] in {"events", "poll"}
    wanted = {
        "directory": store.directory,
        "leads": True,
        "sessions": 1,
        "created": 0,
        "expired": 3,
        "corrupt": 0,
        "failed": 0,
        "full_looks": 1,
        "overflows": 0,
        "held": None,
        "lag": 890.0,  # a touch may have been kept back for 10 seconds
    }
    assert {name: first[name] for name in wanted} == wanted
    assert (second["sessions"], second["created"], second["expired"]) == (2, 1, 3)
    assert not janitor.reading().leads
    assert janitor.reading().expired == 3


def reading_of(store: FileStore) -> dict[str, Any]:
    reading = beat_of(store).get("reading", {})
    assert isinstance(reading, dict)
    return reading


class SetClock:
    """A janitor whose wall clock is set by the test, and whose looks and sweeps it makes itself."""

    def __init__(self, store: FileStore, clock: Clock) -> None:
        self.janitor = Janitor(store, interval=3600)
        self.clock = clock
        self._ticks = Clock(50.0)
        self.janitor._wall = clock
        self.janitor._monotonic = self._ticks
        self.janitor._tick()
        self.sweep()

    def move(self, seconds: float) -> None:
        self.clock.now += seconds
        self.janitor._tick()

    def wait(self, seconds: float) -> None:
        self._ticks.now += seconds
        self.move(seconds)

    def sweep(self) -> SweepReport:
        self.janitor._follow_clock()
        self.janitor._work(due=True)
        report = self.janitor._sweeper.last
        assert report is not None
        return report


@pytest.fixture
def set_clock(store: FileStore, clock: Clock) -> Iterator[SetClock]:
    for _ in range(3):
        store.create()
    made = SetClock(store, clock)
    yield made
    made.janitor._step_down()
    made.janitor._sweeper.close()


def test_a_clock_set_forward_holds_back_one_sweep(
    set_clock: SetClock, store: FileStore, log: pytest.LogCaptureFixture
) -> None:
    set_clock.move(3600)
    report = set_clock.sweep()
    assert (report.expired, report.held) == (0, 3)
    assert reading_of(store)["held"] == "the clock was set forward by 60 min"
    assert "holding back" in set_clock.janitor.state_text()
    assert set_clock.sweep().expired == 3
    assert reading_of(store)["held"] is None
    assert sum("holding back: the clock was set" in line for line in messages(log)) == 1


def test_a_clock_that_is_set_while_it_holds_back_holds_back_again(set_clock: SetClock) -> None:
    for _ in range(2):
        set_clock.move(3600)
        assert set_clock.sweep().held == 3
    assert set_clock.sweep().expired == 3


def test_small_steps_of_the_clock_hold_nothing_back(set_clock: SetClock) -> None:
    for _ in range(4):
        set_clock.move(30)
    assert set_clock.sweep().expired == 3


def test_a_clock_set_back_has_all_looked_at_anew(set_clock: SetClock, store: FileStore) -> None:
    set_clock.move(-7200)
    report = set_clock.sweep()
    assert (report.examined, report.mended, report.expired) == (3, 3, 0)
    assert set_clock.janitor.reading().full_looks == 2
    set_clock.wait(50)
    assert set_clock.sweep().expired == 0
    set_clock.wait(61)
    assert set_clock.sweep().expired == 3
    assert handles(store) == []


def test_one_whose_sweeper_hangs_for_a_minute_is_not_well() -> None:
    store = GatedStore()
    janitor = Janitor(store, interval=3600)
    ticks = Clock(0.0)
    janitor._monotonic = ticks
    janitor._wall = lambda: ticks.now
    assert not janitor.is_well()
    janitor.start()
    try:
        assert store.began.wait(DEADLINE)
        assert janitor.is_well()
        ticks.now += 59
        assert janitor.is_well()
        ticks.now += 2
        assert not janitor.is_well()
        store.gate.set()
        wait_until(janitor.is_well)
    finally:
        store.gate.set()
        janitor.stop()
    assert not janitor.is_well()


def test_one_that_stands_by_is_well_however_long(store: FileStore) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    janitor = Janitor(store, interval=3600)
    ticks = Clock(0.0)
    janitor._monotonic = ticks
    janitor._wall = lambda: ticks.now
    janitor.start()
    try:
        for _ in range(2):
            wait_until(janitor.is_well)
            ticks.now += 61
    finally:
        janitor.stop()
        leader.resign()


def test_where_events_cannot_be_had_it_polls_and_says_so_once(
    store: FileStore, clock: Clock, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(watcher: Watcher) -> None:
        msg = "no watches are left"
        raise EventsUnavailable(msg)

    monkeypatch.setattr(Watcher, "start", refuse)
    store.create()
    janitor = Janitor(store, interval=3600, watch="events")
    janitor.start()
    try:
        wait_until(lambda: janitor.reading().sweeps == 1)
        for number in (2, 3):
            store.create()
            clock.now += 1000
            janitor.sweep_soon()
            wait_until(lambda number=number: janitor.reading().sweeps == number)  # type: ignore[misc]
    finally:
        watches = beat_of(store)["watch"]
        janitor.stop()
    assert watches == "poll"
    assert janitor.reading().expired == 3
    assert sum("no watches are left" in line for line in messages(log)) == 1


def look_at_many(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, progress: Callable[[float], None] | None
) -> None:
    """A first look at 150 sessions, with a pause after each, between which a second goes by."""
    monkeypatch.setattr(rounds, "WORK", 5e-6)  # to look at one takes longer
    for _ in range(150):
        store.create()
    janitor = Janitor(store, interval=3600)
    ticks = itertools.count()
    janitor._monotonic = lambda: float(next(ticks))
    janitor.progress = progress
    janitor._work(due=True)
    janitor._sweeper.close()


def test_a_long_first_look_is_logged_once_a_minute(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    look_at_many(store, monkeypatch, None)
    lines = [line for line in messages(log) if "looking at all of" in line]
    assert 2 <= len(lines) <= 8  # 406 pauses, and a look at the clock or two in each
    shares = [int(re.findall(r"(\d+) % done", line)[0]) for line in lines]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 100


def test_the_share_of_a_long_first_look_rises_to_one(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    shares: list[float] = []
    look_at_many(store, monkeypatch, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len({*shares}) > 50
    assert not any("looking at all of" in line for line in messages(log))
