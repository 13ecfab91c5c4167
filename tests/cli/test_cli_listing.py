"""What is stored, as a table and as lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from filesession.cli import listing
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
    assert head.split() == ["handle", "size", "created", "last", "active", "expires"]
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


def test_pages_make_one_table_and_no_more_than_a_page_is_held(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = 0
    printed: list[int] = []

    def endless(count: int) -> Iterator[SessionInfo]:
        nonlocal handed
        for number in range(count):
            handed += 1
            yield SessionInfo(f"{number:032x}", 10, 0.0, 0.0, None)

    table = listing._table

    def watched(page: list[SessionInfo], now: float, *, first: bool, wide: bool) -> object:
        printed.append(handed)
        return table(page, now, first=first, wide=wide)

    monkeypatch.setattr(FileStore, "scan", lambda store: endless(1200))
    monkeypatch.setattr(listing, "_table", watched)
    lines = ls(store).stdout.splitlines()
    assert printed == [500, 1000, 1200]
    assert len(lines) == 1201
    assert len({len(line) for line in lines}) == 1
    assert sum("handle" in line for line in lines) == 1


def test_a_time_no_calendar_has_is_no_reason_to_fail(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = SessionInfo("0" * 32, 10, 1e300, -1e300, 1e18)
    monkeypatch.setattr(FileStore, "scan", lambda store: iter([strange]))
    assert len(ls(store).stdout.splitlines()) == 2
