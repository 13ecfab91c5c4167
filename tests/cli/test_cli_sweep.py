"""Removing what is due, now, and seeing beforehand what that would be."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path / "sessions", idle_timeout=1000)
    for _ in range(4):
        store.create()
    for info in store.scan():
        os.utime(Path(store.directory, "sessions", info.handle[:2], info.handle), (1, 1))
    store.create()
    return store


def sweep(store: FileStore, *options: str) -> Result:
    return CliRunner().invoke(commands, ["sweep", store.directory, *options])


def test_what_is_due_goes_and_is_told_in_one_line(store: FileStore) -> None:
    result = sweep(store)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("swept 5 sessions in ")
    assert ": 4 expired (" in result.stdout
    assert result.stdout.count("\n") == 1
    assert len(store) == 1


def test_a_dry_run_tells_and_removes_nothing(store: FileStore) -> None:
    result = sweep(store, "--dry-run")
    assert result.stdout.startswith("looked through 5 sessions in ")
    assert "4 expired" in result.stdout
    assert result.stdout.endswith("nothing was changed\n")
    assert len(store) == 5


def test_a_limit_is_kept_and_told(store: FileStore) -> None:
    assert "2 expired" in sweep(store, "--limit", "2").stdout
    assert len(store) == 3


def test_what_could_not_be_swept_and_what_was_mended_are_told_and_the_first_is_exit_2(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = SweepReport(started_at=0.0, seconds=0.0, examined=9, failed=2, mended=1)
    monkeypatch.setattr(FileStore, "sweep", lambda store, **options: report)
    result = sweep(store)
    assert result.exit_code == 2
    assert "2 could not be read, deleted or set aside" in result.stdout
    assert "1 dated in the future set to now" in result.stdout
    well = replace(report, failed=0)
    monkeypatch.setattr(FileStore, "sweep", lambda store, **options: well)
    assert sweep(store).exit_code == 0


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5"])
def test_a_limit_that_can_be_none_is_refused(store: FileStore, limit: str) -> None:
    assert sweep(store, "--limit", limit).exit_code == 2
    assert len(store) == 5
