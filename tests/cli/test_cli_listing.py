"""What is stored, as a table and as lines of JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.record import SessionInfo
from filesession.stores.file.store import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=1000)


def ls(store: FileStore, *options: str) -> Result:
    result = CliRunner().invoke(commands, ["ls", store.directory, *options])
    assert result.exit_code == 0
    return result


def expire(store: FileStore, info: SessionInfo, mtime: int = 1_700_000_000) -> None:
    path = Path(store.directory, "sessions", info.handle[:2], info.handle)
    os.utime(path, (mtime, mtime))


def test_json_is_an_object_a_line_with_all_that_is_known(store: FileStore) -> None:
    for n in range(5):
        store.create({"n": n})
    lines = ls(store, "--json").stdout.splitlines()
    expected = {info.handle: asdict(info) for info in store.scan()}
    assert {line["handle"]: line for line in map(json.loads, lines)} == expected
    assert len(lines) == 5


def test_json_of_an_empty_directory_is_empty(store: FileStore) -> None:
    result = ls(store, "--json")
    assert (result.stdout, result.stderr) == ("", "")


def test_the_table_has_a_line_for_every_session(store: FileStore) -> None:
    for n in range(3):
        store.create({"n": n})
    head, *lines = ls(store).stdout.splitlines()
    assert re.split("  +", head) == [
        "handle",
        "size created, local time",
        "last active, local time",
        "expires",
    ]
    assert {line.split()[0] for line in lines} == {info.handle for info in store.scan()}
    assert all("now" in line and "in 17 min" in line for line in lines)


def test_times_are_told_by_the_clock_and_from_now(store: FileStore) -> None:
    store.create()
    (info,) = store.scan()
    expire(store, info)
    (_, line) = ls(store).stdout.splitlines()
    assert "2023-11-1" in line
    assert " d ago" in line


def test_what_has_expired_is_marked_and_what_never_does_says_so(store: FileStore) -> None:
    store.create()
    (info,) = store.scan()
    expire(store, info)
    store.create(idle_timeout=float("inf"))
    _, *lines = ls(store).stdout.splitlines()
    told = {line.split()[0] == info.handle: line for line in lines}
    assert "expired 2023-11-1" in told[True]
    assert told[False].rstrip().endswith("never")


def test_an_empty_directory_says_so_beside_its_output(store: FileStore) -> None:
    result = ls(store)
    assert result.stdout == ""
    assert result.stderr == f"no sessions in {store.directory}\n"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_session_is_printed_before_the_next_is_looked_at(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    printed: list[int] = []

    def watched() -> Iterator[SessionInfo]:
        for number in range(3):
            printed.append(sys.stdout.buffer.tell())
            yield SessionInfo(f"{number:032x}", 10, 0.0, 0.0, None)

    monkeypatch.setattr(FileStore, "scan", lambda store: watched())
    ls(store, *options)
    assert 0 == printed[0] < printed[1] < printed[2]


def test_columns_are_as_wide_on_every_line_and_nothing_trails(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    infos = [
        SessionInfo(f"{number:032x}", 9 * 10**number, 1.7e9, 1.8e9, [None, 1.6e9][number % 2])
        for number in range(9)
    ]
    monkeypatch.setattr(FileStore, "scan", lambda store: iter(infos))
    head, *lines = ls(store).stdout.splitlines()
    assert all(line[head.index("created") - 1] == " " for line in lines)
    assert all(line[head.index("expires") :].startswith(("never", "expired")) for line in lines)
    assert not any(line.endswith(" ") for line in (head, *lines))


def test_a_time_no_calendar_has_is_no_reason_to_fail(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = SessionInfo("0" * 32, 10, 1e300, -1e300, 1e18)
    monkeypatch.setattr(FileStore, "scan", lambda store: iter([strange]))
    assert len(ls(store).stdout.splitlines()) == 2
