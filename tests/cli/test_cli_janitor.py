"""The janitor by command: its options, one sweep, and its life as a process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.janitor.heartbeat import janitor_state
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path / "sessions", idle_timeout=1000)
    store.create()
    (info,) = store.scan()
    os.utime(Path(store.directory, "sessions", info.handle[:2], info.handle), (1, 1))
    return store


def janitor(store: FileStore, *options: str) -> Result:
    return CliRunner().invoke(commands, ["janitor", store.directory, *options])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--interval", "-5"], "interval must be from 0.1 to 2678400 seconds (31 days), not -5.0"),
        (["--interval", "0"], "interval must be from 0.1 to 2678400 seconds"),
        (["--interval", "nan"], "interval must be from"),
        (["--interval", "1e30"], "interval must be from"),
        (["--cron", "every day"], "cron 'every day' cannot be read"),
        (["--cron", "0 0 30 2 *"], "never comes"),
        (["--interval", "5", "--cron", "* * * * *"], "not both"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line_and_exit_2(
    store: FileStore, options: list[str], words: str
) -> None:
    result = janitor(store, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert len(store) == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--interval", "soon"],
        ["--once", "--interval", "5"],
        ["--once", "--cron", "* * * * *"],
    ],
)
def test_options_that_make_no_sense_are_exit_2(store: FileStore, options: list[str]) -> None:
    result = janitor(store, *options)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert len(store) == 1


def test_once_sweeps_tells_and_ends(store: FileStore) -> None:
    result = janitor(store, "--once")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("swept 1 session in ")
    assert "1 expired" in result.stdout
    assert len(store) == 0


def test_the_command_leaves_logging_as_it_was(store: FileStore) -> None:
    logger = logging.getLogger("filesession")
    before = (logger.level, list(logger.handlers))
    janitor(store, "--once", "-v")
    assert (logger.level, logger.handlers) == before


def test_a_sweep_that_could_not_look_at_all_is_exit_2(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = SweepReport(started_at=0.0, seconds=0.0, examined=3, failed=1)
    monkeypatch.setattr(FileStore, "sweep", lambda store, **options: report)
    result = janitor(store, "--once")
    assert result.exit_code == 2
    assert "1 could not be read, deleted or set aside" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_in_the_foreground_it_logs_with_the_time_and_ends_well(
    store: FileStore, number: signal.Signals
) -> None:
    script = Path(sys.executable).with_name("filesession")
    process = subprocess.Popen(
        [script, "janitor", store.directory, "--cron", "0 0 1 1 *"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert process.stdout is not None
        first = process.stderr.readline()
        second = process.stderr.readline()
        date, _, rest = first.partition(" ")
        assert date == time.strftime("%Y-%m-%d")
        assert rest.endswith(f" INFO leading {store.directory}\n")
        assert " INFO swept 1 session in" in second
        assert janitor_state(store.directory, time.time())[0] == "alive"
        process.send_signal(number)
        assert process.wait(20) == 0
        assert f"{number.name}: stopping" in process.stderr.readline()
        assert process.stdout.read() == ""
