"""Telling of expired sessions: real threads and commands, held and released by events and FIFOs."""

from __future__ import annotations

import functools
import json
import logging
import os
import queue
import select
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from filesession.errors import ConfigurationError
from filesession.janitor import hooks
from filesession.janitor.hooks import BATCH, REASONS, ROOM, Hook, command, each
from filesession.record import SessionInfo
from tests.processes.conftest import Child
from tests.waiting import wait_until

PATIENCE: Final = 20
LOG: Final = logging.getLogger("filesession.janitor")
INFO: Final = SessionInfo(
    handle="0" * 32, size=200, created_at=1.5, accessed_at=2.5, expires_at=None
)


def infos(number: int, first: int = 0) -> list[SessionInfo]:
    return [replace(INFO, handle=f"{each:032x}") for each in range(first, first + number)]


class Deliveries:
    """What was delivered; each delivery waits for its turn while the gate is closed."""

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[list[SessionInfo]] = queue.SimpleQueue()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, batch: Sequence[SessionInfo]) -> None:
        self.begun.put(list(batch))
        assert self.gate.wait(PATIENCE)

    def next(self) -> list[SessionInfo]:
        return self.begun.get(timeout=PATIENCE)


@pytest.fixture
def deliveries() -> Iterator[Deliveries]:
    made = Deliveries()
    yield made
    made.gate.set()


Hooked = Callable[[Callable[[Sequence[SessionInfo]], None]], Hook]


@pytest.fixture
def hooked() -> Iterator[Hooked]:
    """A hook that was started, and does not outlive the test."""
    made: list[Hook] = []

    def start(deliver: Callable[[Sequence[SessionInfo]], None]) -> Hook:
        made.append(Hook(deliver, LOG))
        made[-1].start()
        return made[-1]

    yield start
    for hook in made:
        hook.stop(0)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "filesession.janitor")
    return caplog


def said(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno == level]


class TestHook:
    def test_the_first_is_told_of_at_once_and_what_expires_meanwhile_together(
        self, hooked: Hooked, deliveries: Deliveries
    ) -> None:
        deliveries.gate.clear()
        hook = hooked(deliveries)
        first, *others = infos(4)
        hook.put(first)
        assert deliveries.next() == [first]
        for info in others:
            hook.put(info)
        deliveries.gate.set()
        assert deliveries.next() == others

    def test_no_more_than_a_batch_is_told_of_together(self, deliveries: Deliveries) -> None:
        hook = Hook(deliveries, LOG)
        for info in infos(2 * BATCH + 1):
            hook.put(info)
        hook.start()
        assert [len(deliveries.next()) for _ in range(3)] == [BATCH, BATCH, 1]
        hook.stop(PATIENCE)

    def test_what_finds_the_queue_full_is_counted_and_said_once_until_there_is_room(
        self, deliveries: Deliveries, log: pytest.LogCaptureFixture
    ) -> None:
        hook = Hook(deliveries, LOG)
        full = "10,000 expired sessions wait to be told of; until there is room no more are"
        for times in (1, 2):
            for info in infos(ROOM + 3):
                hook.put(info)
            assert hook.dropped == 3 * times
            assert said(log, logging.WARNING).count(full) == times
            hook.start()
            hook.stop(PATIENCE)
            assert said(log, logging.WARNING)[-1] == "there is room again: 3 sessions not told of"
        told = [info for _ in range(2 * ROOM // BATCH) for info in deliveries.next()]
        assert told == 2 * infos(ROOM)
        assert deliveries.begun.empty()

    def test_one_that_is_slow_says_that_there_is_room_when_it_has_caught_up_not_for_each_batch(
        self, hooked: Hooked, log: pytest.LogCaptureFixture
    ) -> None:
        begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        turn = threading.Semaphore(0)

        def deliver(batch: Sequence[SessionInfo]) -> None:
            begun.put(len(batch))
            assert turn.acquire(timeout=PATIENCE)

        hook = hooked(deliver)
        hook.put(INFO)
        for expected in (1, BATCH):
            assert begun.get(timeout=PATIENCE) == expected
            while hook.dropped < (2 if expected == BATCH else 1):
                hook.put(INFO)
            turn.release()
        (full,) = said(log, logging.WARNING)
        turn.release(2 * ROOM)
        hook.stop(PATIENCE)
        assert said(log, logging.WARNING) == [full, "there is room again: 2 sessions not told of"]

    @pytest.mark.parametrize("failure", [OSError(5, "the mail is down"), SystemExit(3)])
    def test_a_delivery_that_fails_is_said_once_and_the_next_is_made(
        self, hooked: Hooked, log: pytest.LogCaptureFixture, failure: BaseException
    ) -> None:
        reached: queue.SimpleQueue[str] = queue.SimpleQueue()

        def deliver(batch: Sequence[SessionInfo]) -> None:
            reached.put(batch[0].handle)
            raise failure

        hook = hooked(deliver)
        for info in infos(3):
            hook.put(info)
            assert reached.get(timeout=PATIENCE) == info.handle
        hook.stop(PATIENCE)
        (error,) = said(log, logging.ERROR)
        assert error.startswith(f"telling of expired sessions failed with {failure!r}")
        assert f"{type(failure).__name__} at {__file__}:" in error

    def test_a_stop_lets_it_tell_of_all_that_waits(
        self, hooked: Hooked, deliveries: Deliveries, log: pytest.LogCaptureFixture
    ) -> None:
        deliveries.gate.clear()
        hook = hooked(deliveries)
        for info in infos(3):
            hook.put(info)
        first = deliveries.next()
        opening = threading.Timer(0.05, deliveries.gate.set)
        opening.start()
        hook.stop(PATIENCE)
        opening.join()
        rest = [] if deliveries.begun.empty() else deliveries.next()
        assert first + rest == infos(3)
        assert not said(log, logging.WARNING)
        hook.stop(PATIENCE)

    def test_a_stop_gives_up_after_its_patience_and_says_how_many_were_not_told(
        self, hooked: Hooked, deliveries: Deliveries, log: pytest.LogCaptureFixture
    ) -> None:
        deliveries.gate.clear()
        hook = hooked(deliveries)
        hook.put(INFO)
        deliveries.next()
        left = hook._thread
        assert left is not None
        for info in infos(ROOM + 2):
            hook.put(info)
        hook.stop(0.01)
        assert said(log, logging.WARNING)[1:] == ["stopping: 10,003 expired sessions not told of"]
        deliveries.gate.set()
        left.join(PATIENCE)
        assert not left.is_alive()
        assert deliveries.begun.empty()

    def test_it_may_be_started_anew_while_a_function_that_was_given_up_still_runs(
        self, hooked: Hooked, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hooks, "GRACE", 0.01)
        begun: queue.SimpleQueue[list[SessionInfo]] = queue.SimpleQueue()
        old, new, given_up, waiting = infos(4)
        gates = {info.handle: threading.Event() for info in (old, new)}

        def deliver(batch: Sequence[SessionInfo]) -> None:
            begun.put(list(batch))
            assert gates[batch[0].handle].wait(PATIENCE)

        hook = hooked(deliver)
        hook.put(old)
        assert begun.get(timeout=PATIENCE) == [old]
        left = hook._thread
        assert left is not None
        hook.put(given_up)
        hook.stop(0)
        hook.start()
        hook.put(new)
        assert begun.get(timeout=PATIENCE) == [new]
        hook.put(waiting)
        gates[old.handle].set()
        left.join(PATIENCE)
        assert not left.is_alive()
        assert begun.empty()
        hook.stop(0)
        gates[new.handle].set()
        assert said(log, logging.WARNING) == ["stopping: 2 expired sessions not told of"] * 2

    def test_a_stop_of_one_that_has_nothing_to_do_takes_and_says_nothing(
        self, hooked: Hooked, deliveries: Deliveries, log: pytest.LogCaptureFixture
    ) -> None:
        hook = hooked(deliveries)
        thread = hook._thread
        assert thread is not None
        hook.put(INFO)
        deliveries.next()
        wait_until(lambda: not hook._in_hand)  # it waits for more
        hook.stop(0)
        assert not thread.is_alive()
        assert not log.records

    def test_what_is_put_after_a_stop_waits_for_the_next_start(
        self, hooked: Hooked, deliveries: Deliveries
    ) -> None:
        hook = hooked(deliveries)
        hook.stop(PATIENCE)
        hook.put(INFO)
        assert deliveries.begun.empty()
        hook.start()
        assert deliveries.next() == [INFO]

    def test_a_second_start_changes_nothing(self, hooked: Hooked, deliveries: Deliveries) -> None:
        hook = hooked(deliveries)
        thread = hook._thread
        hook.start()
        assert hook._thread is thread

    def test_a_forked_child_starts_its_own_and_knows_nothing_of_its_parents(
        self, deliveries: Deliveries
    ) -> None:
        hook = Hook(deliveries, LOG)
        hook.put(INFO)
        (other,) = infos(1, first=7)

        def child() -> None:
            hook.put(other)
            hook.start()
            assert deliveries.next() == [other]
            hook.stop(PATIENCE)

        with hook._turn:  # as a thread of the parent may have it at that moment
            forked = Child(child)
        forked.join()
        hook.start()
        assert deliveries.next() == [INFO]
        hook.stop(PATIENCE)

    def test_a_child_forked_from_one_that_works_may_start_it_and_stop_it(
        self, hooked: Hooked, deliveries: Deliveries
    ) -> None:
        hook = hooked(deliveries)

        def child() -> None:
            hook.stop(PATIENCE)
            hook.start()
            hook.put(INFO)
            assert deliveries.next() == [INFO]
            hook.stop(PATIENCE)

        Child(child).join()


class TestEach:
    def test_a_function_is_called_once_for_every_session(self) -> None:
        told: list[SessionInfo] = []
        each(told.append)(infos(3))
        assert told == infos(3)

    def test_what_it_raises_is_said_once_for_each_kind_and_the_next_one_is_told_of(
        self, log: pytest.LogCaptureFixture
    ) -> None:
        told: list[str] = []

        def on_expired(info: SessionInfo) -> None:
            told.append(info.handle)
            if len(told) % 2:
                raise LookupError(info.handle)
            sys.exit(info.handle)

        each(on_expired)(infos(6))
        assert told == [info.handle for info in infos(6)]
        first, second = said(log, logging.ERROR)
        assert first.startswith(f"on_expired failed with LookupError('{told[0]}'): LookupError at ")
        assert second.startswith(f"on_expired failed with SystemExit('{told[1]}'): SystemExit at ")
        assert sum(record.exc_info is not None for record in log.records) == 6

    def test_of_what_was_given_up_no_more_are_told(self) -> None:
        told: list[SessionInfo] = []
        enough = threading.Event()

        def on_expired(info: SessionInfo) -> None:
            told.append(info)
            enough.set()

        each(on_expired).tell(infos(3), enough)
        assert told == infos(1)

    def test_what_could_never_be_called_is_refused(self) -> None:
        async def coroutine(info: SessionInfo) -> None:
            raise AssertionError

        wrong: list[Any] = [None, "notify", coroutine, functools.partial(coroutine)]
        for value in wrong:
            with pytest.raises(ConfigurationError, match="a plain function of one SessionInfo"):
                each(value)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    made = Fifo(tmp_path / "fifo")
    yield made
    os.close(made.descriptor)


class Fifo:
    """What a command and those it started hold open for as long as they live."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self) -> bytes:
        """What was written there; empty when nobody has it open any more."""
        ready, _, _ = select.select([self.descriptor], [], [], PATIENCE)
        assert ready, "it is open and nothing is written"
        return os.read(self.descriptor, 1000)


def shell(script: str, *arguments: object) -> str:
    return shlex.join(["sh", "-c", script, "sh", *map(str, arguments)])


def python(script: str) -> str:
    return shlex.join([sys.executable, "-IS", "-c", script])


class TestCommand:
    def test_it_reads_an_object_a_line_and_no_shell_sees_its_words(self, tmp_path: Path) -> None:
        script = "cat >$0; printf '%s' \"$1\" >$0.word"
        text = shlex.join(["sh", "-c", script, str(tmp_path / "told"), "$HOME; `ls` *"])
        command(text)(infos(2))
        lines = (tmp_path / "told").read_text().splitlines()
        assert json.loads(lines[0]) == {
            "handle": "0" * 32,
            "size": 200,
            "created_at": 1.5,
            "accessed_at": 2.5,
            "expires_at": None,
        }
        assert [json.loads(line)["handle"] for line in lines] == [each.handle for each in infos(2)]
        assert (tmp_path / "told.word").read_text() == "$HOME; `ls` *"

    def test_a_batch_larger_than_a_pipe_reaches_it_whole(self, tmp_path: Path) -> None:
        command(shell('cat >"$1"', tmp_path / "told"))(infos(BATCH))
        told = (tmp_path / "told").read_bytes()
        assert len(told) > 100_000
        assert told.count(b"\n") == BATCH

    @pytest.mark.parametrize("script", ["exit 0", "exec <&-; exec cat </dev/null", "head -n 1"])
    def test_one_that_does_not_read_what_it_is_told_is_well(
        self, log: pytest.LogCaptureFixture, script: str
    ) -> None:
        command(shell(f"{script} >/dev/null"))(infos(BATCH))
        assert not log.records

    def test_what_it_writes_cannot_block_it_and_its_last_lines_are_logged(
        self, log: pytest.LogCaptureFixture
    ) -> None:
        script = (
            "import os; os.write(1, b'line\\n' * 200000 + b'out\\x1b[2J \\xff\\n');"
            " os.write(2, b'line\\n' * 200000 + b'\\nerr')"
        )
        command(python(script))(infos(BATCH))
        label = f"the on-expired command {os.path.basename(sys.executable)}"
        expected = ["line"] * 19 + ["out [2J \\xff"] + ["line"] * 19 + ["err"]
        assert said(log, logging.INFO) == [f"{label}: {line}" for line in expected]

    def test_of_much_that_it_writes_only_the_end_is_kept(
        self, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hooks, "TAIL", 10)
        command(shell("echo 0123456789abcdef"))(infos(1))
        assert said(log, logging.INFO) == ["the on-expired command sh: 789abcdef"]

    def test_a_failure_is_said_with_the_last_line_of_its_errors_once_until_it_works_again(
        self, log: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        script = 'echo first >&2; echo no mail >&2; echo out; exec 2>&-; test -e "$1"'
        run = command(shell(script, tmp_path / "mended"))
        failed = "the on-expired command sh: ended with exit code 1: no mail"
        run(infos(1))
        run(infos(1))
        assert said(log, logging.ERROR) == [failed]
        assert not said(log, logging.INFO)
        (tmp_path / "mended").touch()
        run(infos(1))
        assert "the on-expired command sh works again" in said(log, logging.INFO)
        (tmp_path / "mended").unlink()
        run(infos(1))
        assert said(log, logging.ERROR) == [failed, failed]

    def test_one_that_fails_for_a_new_reason_every_time_is_said_only_so_often(
        self, log: pytest.LogCaptureFixture
    ) -> None:
        run = command(shell("read line; echo $line >&2; exit 1"))
        for info in infos(REASONS + 5):
            run([info])
        assert len(said(log, logging.ERROR)) == REASONS

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("absent", "cannot be started: No such file or directory"),
            ("plain", "cannot be started: Permission denied"),
            ("text", "cannot be started: Exec format error"),
        ],
    )
    def test_one_that_cannot_be_started_is_said_once(
        self, log: pytest.LogCaptureFixture, tmp_path: Path, name: str, reason: str
    ) -> None:
        (tmp_path / "plain").touch(0o600)
        (tmp_path / "text").write_text("nothing to run")
        (tmp_path / "text").chmod(0o700)
        run = command(shlex.quote(str(tmp_path / name)))
        run(infos(1))
        run(infos(1))
        assert said(log, logging.ERROR) == [f"the on-expired command {name}: {reason}"]

    def test_one_that_is_killed_is_said_with_the_signals_name(
        self, log: pytest.LogCaptureFixture
    ) -> None:
        command(shell("kill -9 $$"))(infos(1))
        assert said(log, logging.ERROR) == ["the on-expired command sh: was ended by SIGKILL"]

    def test_one_that_takes_too_long_is_ended_with_all_that_it_started(
        self, log: pytest.LogCaptureFixture, fifo: Fifo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hooks, "LONGEST", 0.2)
        deaf = 'trap "" TERM; exec 9>"$1"; (echo up >&9; sleep 600) & exec sleep 600'
        command(shell(deaf, fifo.path))(infos(1))
        assert said(log, logging.ERROR) == [
            "the on-expired command sh: did not end within 0 s",
        ]
        assert fifo.read() == b"up\n"
        assert fifo.read() == b""

    def test_one_that_ends_when_asked_takes_along_who_does_not(
        self, fifo: Fifo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hooks, "LONGEST", 0.2)
        script = 'exec 9>"$1"; (trap "" TERM; sleep 600) & trap "echo asked >&9; exit" TERM; wait'
        command(shell(script, fifo.path))(infos(1))
        assert fifo.read() == b"asked\n"
        assert fifo.read() == b""

    def test_what_it_leaves_running_is_not_waited_for(
        self, log: pytest.LogCaptureFixture, fifo: Fifo
    ) -> None:
        script = 'exec 9>"$1"; (echo $$ >&9; exec sleep 600) & echo done'
        command(shell(script, fifo.path))(infos(1))
        group = int(fifo.read())
        try:
            assert said(log, logging.INFO) == ["the on-expired command sh: done"]
        finally:
            os.killpg(group, 9)
        assert fifo.read() == b""

    def test_one_that_closed_its_streams_is_waited_for(
        self, log: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        script = 'exec <&- >&- 2>&-; sleep 0.1; : >"$1"; exit 3'
        command(shell(script, tmp_path / "done"))(infos(BATCH))
        assert (tmp_path / "done").exists()
        assert said(log, logging.ERROR) == ["the on-expired command sh: ended with exit code 3"]

    def test_a_stop_ends_it_after_its_patience(
        self, log: pytest.LogCaptureFixture, hooked: Hooked, fifo: Fifo
    ) -> None:
        hook = hooked(command(shell('exec 9>"$1"; echo up >&9; exec sleep 600', fifo.path)))
        hook.put(INFO)
        assert fifo.read() == b"up\n"
        thread = hook._thread
        assert thread is not None
        hook.stop(0.05)
        assert fifo.read() == b""
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert said(log, logging.WARNING) == ["stopping: 1 expired session not told of"]
        assert not said(log, logging.ERROR)

    def test_a_stop_lets_it_end_within_its_patience(
        self, log: pytest.LogCaptureFixture, hooked: Hooked, fifo: Fifo
    ) -> None:
        script = 'exec 9>"$1"; echo up >&9; sleep 0.1; echo well >&9'
        hook = hooked(command(shell(script, fifo.path)))
        hook.put(INFO)
        assert fifo.read() == b"up\n"
        hook.stop(PATIENCE)
        assert fifo.read() == b"well\n"
        assert not log.records

    def test_none_is_begun_that_was_given_up_before(self, tmp_path: Path) -> None:
        enough = threading.Event()
        enough.set()
        command(shell(': >"$1"', tmp_path / "begun")).tell(infos(1), enough)
        assert not (tmp_path / "begun").exists()

    def test_it_cannot_speak_to_the_service_manager_in_our_name(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "WATCHFUL"):
            monkeypatch.setenv(name, "7")
        command(shell('env >"$1"', tmp_path / "env"))(infos(1))
        names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
        assert {"WATCHFUL", "PATH"} <= names
        assert not names & {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}

    def test_no_run_leaves_a_descriptor_open(self) -> None:
        before = os.listdir("/proc/self/fd")
        for script in ("exit 0", "exit 3", "cat >/dev/null"):
            command(shell(script))(infos(1))
        command("/nowhere/nothing")(infos(1))
        assert os.listdir("/proc/self/fd") == before

    @pytest.mark.parametrize("text", ["", "  ", "''", "say 'well", "say\0well", "# nothing \\"])
    def test_a_text_that_names_no_program_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="on-expired command"):
            command(text)
