"""The janitor by command: its options, one sweep of each directory, and its life as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.cli.janitor import _writer
from filesession.errors import StoreFull
from filesession.janitor.daemon import Daemon
from filesession.janitor.heartbeat import janitor_state, read_heartbeat
from filesession.janitor.metrics import Metrics
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def store_at(path: Path) -> FileStore:
    """A store with one session, which has expired."""
    store = FileStore(path, idle_timeout=1000)
    expire(store)
    return store


def expire(store: FileStore) -> None:
    """Have one more session in the store, which has expired before it is seen."""
    FileStore(store.directory, idle_timeout=1000, clock=lambda: time.time() - 1_000_000).create()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return store_at(tmp_path / "sessions")


@pytest.fixture
def other(tmp_path: Path) -> FileStore:
    return store_at(tmp_path / "others")


@pytest.fixture(autouse=True)
def _none_begins_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was to be refused would never return."""
    monkeypatch.setattr(Daemon, "run", lambda daemon: pytest.fail("it began"))


def janitor(*words: str | FileStore) -> Result:
    line = [word.directory if isinstance(word, FileStore) else word for word in words]
    return CliRunner().invoke(commands, ["janitor", *line])


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
        (["--metrics", "here"], "metrics are served at ADDRESS:PORT, 127.0.0.1:9464"),
        (["--metrics", "192.0.2.1:9464"], "name an address of this machine"),
        (["--on-expired", ""], "an on-expired command is a program and its arguments"),
        (["--on-expired", "echo '"], "cannot be split into words"),
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
    ("options", "words"),
    [
        (["--interval", "soon"], "SECONDS is a number"),
        (["--fuse", "50%"], "SHARE is a number from 0 to 1: 0.5 is half"),
        (["--fuse", "1.01"], "SHARE is a number from 0 to 1: 0.5 is half"),
        (["--fuse", "-0.1"], "SHARE is a number"),
        (["--fuse", "nan"], "SHARE is a number"),
        (["--watch", "sometimes"], "it is one of auto, events, poll, off"),
        (["--log-format", "xml"], "it is one of text, json"),
        (["--on-expired", "/no/such/program -x"], "no program that can be run"),
        (["--on-expired", "/tmp"], "no program that can be run"),
        (["--metrics-file", "/no/such/place"], "make the directory first"),
        (["--metrics-file", "/tmp"], "FILE is a file in a directory that is there"),
        (["--once", "--interval", "5"], "leave out --interval"),
        (["--once", "--cron", "* * * * *"], "leave out --cron"),
        (["--once", "--watch", "auto"], "leave out --watch"),
        (["--once", "--fuse", "0.5"], "leave out --fuse"),
        (["--once", "--metrics", ":0", "--fuse", "1"], "leave out --fuse and --metrics"),
    ],
)
def test_options_that_make_no_sense_are_exit_2_with_what_would(
    store: FileStore, options: list[str], words: str
) -> None:
    result = janitor(store, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr
    assert words in " ".join(result.stderr.replace("│", "").split())
    assert len(store) == 1


def test_what_is_no_file_is_not_replaced_by_the_figures(store: FileStore, tmp_path: Path) -> None:
    link, pipe = tmp_path / "stdout", tmp_path / "pipe"
    link.symlink_to("/dev/null")
    os.mkfifo(pipe)
    for path in (link, pipe):
        result = janitor(store, "--once", "--metrics-file", str(path))
        assert result.exit_code == 2
        assert "a device, a link or a pipe" in " ".join(result.stderr.replace("│", "").split())
    assert link.is_symlink()
    assert pipe.is_fifo()


@pytest.mark.parametrize("option", ["--interval", "--fuse", "--watch", "--log-format"])
def test_a_value_that_is_none_is_not_repeated(store: FileStore, option: str) -> None:
    assert "c2VjcmV0" not in janitor(store, option, "c2VjcmV0").output


def test_one_directory_by_two_names_is_given_twice(store: FileStore, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(store.directory)
    for twin in (store.directory, store.directory + "/", f"{store.directory}/../link", str(link)):
        result = janitor(store, twin)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "given twice" in result.stderr
    assert len(store) == 1


def test_an_address_that_is_taken_is_said_before_anything_starts(store: FileStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = janitor(store, "--metrics", f"127.0.0.1:{taken.getsockname()[1]}")
    assert result.exit_code == 2
    assert "choose another port" in result.stderr
    assert len(store) == 1


@pytest.mark.parametrize("options", [["--metrics", ":0"], ["--metrics-file", "m.prom", "--once"]])
def test_figures_without_their_library_name_what_to_install(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    result = janitor(store, *options)
    assert result.exit_code == 2
    assert "pip install 'filesession[metrics]'" in result.stderr
    assert len(store) == 1


class TestOnce:
    def test_it_sweeps_tells_and_ends(self, store: FileStore) -> None:
        result = janitor(store, "--once")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("swept 1 session in ")
        assert "1 expired" in result.stdout
        assert len(store) == 0

    def test_of_several_directories_each_is_named(self, store: FileStore, other: FileStore) -> None:
        result = janitor(store, other, "--once")
        assert (result.exit_code, result.stderr) == (0, "")
        first, second = result.stdout.splitlines()
        assert first.startswith(f"{store.directory}: swept 1 session in ")
        assert second.startswith(f"{other.directory}: swept 1 session in ")
        assert len(store) == len(other) == 0

    def test_one_that_fails_keeps_none_of_the_others(
        self, store: FileStore, other: FileStore
    ) -> None:
        missing = store.directory + ".missing"
        result = janitor(store, missing, other, "--once")
        assert result.exit_code == 2
        assert result.stdout.count(": swept 1 session in ") == 2
        assert result.stderr.startswith(f"error: there is no directory {missing}")
        assert result.stderr.count("\n") == 1
        assert len(store) == len(other) == 0

    def test_what_is_wrong_for_all_is_said_once(self, store: FileStore, other: FileStore) -> None:
        result = janitor(store, other, "--once", "--on-expired", "")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)

    def test_what_it_could_not_look_at_is_exit_2(
        self, store: FileStore, other: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        report = SweepReport(started_at=0.0, seconds=0.0, examined=3, failed=1)
        well = SweepReport(started_at=0.0, seconds=0.0, examined=3)
        monkeypatch.setattr(
            FileStore,
            "sweep",
            lambda swept, **options: report if swept.directory == store.directory else well,
        )
        result = janitor(store, other, "--once")
        assert result.exit_code == 2
        assert "1 could not be read, deleted or set aside" in result.stdout
        assert janitor(other, "--once").exit_code == 0

    def test_a_command_is_told_of_all_that_expired(
        self, store: FileStore, other: FileStore, tmp_path: Path
    ) -> None:
        (tmp_path / "tell").write_text('#!/bin/sh\ncat >> "$1"\n')
        (tmp_path / "tell").chmod(0o700)
        told = tmp_path / "told"
        result = janitor(store, other, "--once", "--on-expired", f"{tmp_path / 'tell'} {told}")
        assert (result.exit_code, result.stderr) == (0, "")
        handles = [json.loads(line)["handle"] for line in told.read_text().splitlines()]
        assert len(handles) == 2

    def test_the_figures_are_those_after_the_sweep(
        self, store: FileStore, other: FileStore, tmp_path: Path
    ) -> None:
        other.create()
        file = tmp_path / "filesession.prom"
        missing = store.directory + ".missing"
        result = janitor(store, missing, other, "--once", "--metrics-file", str(file))
        assert result.exit_code == 2
        text = file.read_text()
        for each, left in ((store, 0), (other, 1)):
            label = f'{{directory="{each.directory}"}}'
            assert f"filesession_leader{label} 1.0\n" in text
            assert f"filesession_expired_total{label} 1.0\n" in text
            assert f"filesession_sessions{label} {left:.1f}\n" in text

    def test_figures_that_cannot_be_written_are_exit_2(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def write(self: Metrics, path: str) -> None:
            msg = "the disk is full"
            raise StoreFull(msg)

        monkeypatch.setattr(Metrics, "write", write)
        result = janitor(store, "--once", "--metrics-file", str(tmp_path / "m.prom"))
        assert (result.exit_code, result.stderr) == (2, "error: the disk is full\n")
        assert "1 expired" in result.stdout


class TestForeground:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_logs_with_the_time_and_ends_well_and_soon(
        self, store: FileStore, run: Run, number: signal.Signals
    ) -> None:
        process = run("janitor", store.directory, "--cron", "0 0 1 1 *")
        process.expect("swept 1 session in")
        assert janitor_state(store.directory, time.time())[0] == "alive"
        told = time.monotonic()
        assert process.end(number) == 0
        assert time.monotonic() - told < 10  # two, and something for a busy machine
        lines = process.said.splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO \S", line) for line in lines)
        assert lines[0].endswith(f" INFO leading {store.directory}")
        assert f"{number.name}: stopping" in process.said

    def test_it_looks_after_several_directories_and_hears_signals(
        self, store: FileStore, other: FileStore, run: Run
    ) -> None:
        options = ("--interval", "3600", "--watch", "poll")  # an event may come after the signal
        process = run("janitor", store.directory, other.directory, *options)
        process.expect(r"(?s)(swept 1 session in.*){2}")
        for each in (store, other):
            assert len(each) == 0
            assert janitor_state(each.directory, time.time())[0] == "alive"
        expire(store)
        expire(other)
        process.process.send_signal(signal.SIGUSR1)
        process.expect(r"(?s)SIGUSR1: sweeping now(.*swept 1 session in){2}")
        expire(other)
        process.process.send_signal(signal.SIGHUP)
        process.expect(r"(?s)SIGHUP: reading.*swept 1 session in")
        assert process.end(signal.SIGTERM) == 0
        assert len(store) == len(other) == 0

    def test_options_reach_the_janitor(self, store: FileStore, run: Run) -> None:
        process = run(
            *("janitor", store.directory, "--interval", "3600", "--watch", "poll"),
            *("--fuse", "0.25", "--on-expired", "echo heard", "-v"),
        )
        process.expect("echo: heard")
        assert process.end(signal.SIGINT) == 0
        beat = read_heartbeat(store.directory)  # of the end of its sweep
        assert beat is not None
        assert (beat.interval, beat.watch) == (3600.0, "poll")

    def test_a_share_of_nothing_holds_back(self, tmp_path: Path, run: Run) -> None:
        store = FileStore(tmp_path / "many", idle_timeout=1000)
        for _ in range(1000):
            store.create()
        expire(store)
        process = run("janitor", store.directory, "--fuse", "0", "--interval", "3600")
        assert "more than 0%" in process.expect("holding back: .*\n")
        assert process.end(signal.SIGTERM) == 0
        assert len(store) == 1001

    def test_it_waits_for_a_directory_that_is_yet_to_be_made(
        self, tmp_path: Path, run: Run
    ) -> None:
        process = run("janitor", str(tmp_path / "later"))
        process.expect("waiting for .*/later")
        store_at(tmp_path / "later")
        process.expect("swept 1 session in")
        assert process.end(signal.SIGTERM) == 0

    def test_figures_are_served_and_written(
        self, store: FileStore, run: Run, tmp_path: Path
    ) -> None:
        file = tmp_path / "filesession.prom"
        process = run(
            *("janitor", store.directory, "--metrics", "127.0.0.1:0", "--metrics-file", str(file)),
            "--log-format=json",
        )
        process.expect("swept 1 session in")
        found = re.search(r"figures are at (http://127.0.0.1:\d+/metrics)", process.said)
        assert found is not None
        with urllib.request.urlopen(found[1], timeout=20) as answer:  # noqa: S310 - it is http
            text = answer.read().decode()
        label = f'{{directory="{store.directory}"}}'
        assert f"filesession_expired_total{label} 1.0\n" in text
        assert process.end(signal.SIGTERM) == 0
        assert f"filesession_leader{label} 0.0\n" in file.read_text()
        logged = [json.loads(line) for line in process.said.splitlines()]
        assert {line["logger"] for line in logged} == {"filesession.janitor"}
        assert {line["level"] for line in logged} == {"INFO"}

    def test_figures_that_cannot_be_written_are_complained_of_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        full = True

        class Full(Metrics):
            def write(self, path: str) -> None:
                if full:
                    msg = f"writing {path}: the disk is full"
                    raise StoreFull(msg)

        write = _writer(Full(list), "/m.prom")
        with caplog.at_level("INFO", "filesession.janitor"):
            write()
            write()
            full = False
            write()
            write()
        assert [record.getMessage() for record in caplog.records] == [
            "cannot write the figures: writing /m.prom: the disk is full",
            "the figures are written again",
        ]
