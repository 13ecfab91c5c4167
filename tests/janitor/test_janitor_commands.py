"""Telling a command of expired sessions: real ones, which FIFOs hold, and whose end they tell."""

from __future__ import annotations

import json
import logging
import os
import select
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from filesession.errors import ConfigurationError
from filesession.janitor import hooks
from filesession.janitor.hooks import BATCH, REASONS, command
from tests.janitor.janitors import INFO, Hooked, infos, said
from tests.waiting import PATIENCE


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
