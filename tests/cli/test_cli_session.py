"""One session by its handle: shown, destroyed; and all of them destroyed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.stores.entry import handle_of
from filesession.stores.file.store import FileStore

DATA = {"user": "ada", "cart": ["tea", {"sugar": None, "text": "grün"}]}


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=1000)


@pytest.fixture
def handle(store: FileStore) -> str:
    return create(store, data=DATA)


def create(store: FileStore, sid: str | None = None, data: dict[str, Any] | None = None) -> str:
    handle = handle_of(store.create(data, sid=sid).id)
    assert handle is not None
    return handle


def file_of(store: FileStore, handle: str) -> Path:
    return Path(store.directory, "sessions", handle[:2], handle)


def run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(commands, arguments, input=answer)


def two_alike(store: FileStore) -> tuple[str, str]:
    """Two sessions whose handles begin with the same four digits."""
    seen: dict[str, str] = {}
    for number in range(100_000):
        sid = f"session-{number}"
        prefix = (handle_of(sid) or "")[:4]
        if prefix in seen:
            return create(store, seen[prefix]), create(store, sid)
        seen[prefix] = sid
    pytest.fail("no two alike")


def test_showing_gives_what_is_known_and_the_data(store: FileStore, handle: str) -> None:
    result = run("show", store.directory, handle)
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    info = next(store.scan())
    assert shown == {
        "handle": handle,
        "size": info.size,
        "created_at": info.created_at,
        "accessed_at": info.accessed_at,
        "expires_at": info.expires_at,
        "idle_timeout": 1000.0,
        "absolute_timeout": None,
        "cookie": {},
        "data": DATA,
    }


def test_showing_tells_what_the_session_has_of_its_own(store: FileStore) -> None:
    record = store.create(
        idle_timeout=86400, absolute_timeout=float("inf"), cookie={"max_age": 86400}
    )
    shown = json.loads(run("show", store.directory, handle_of(record.id) or "").stdout)
    assert (shown["idle_timeout"], shown["absolute_timeout"]) == (86400.0, None)
    assert shown["cookie"] == {"max_age": 86400}


def test_what_goes_while_it_is_shown_is_shown_as_far_as_it_was_read(
    store: FileStore, handle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filesession.cli.session.look", lambda path, handle: None)
    assert json.loads(run("show", store.directory, handle).stdout)["data"] == DATA


def test_showing_changes_nothing(store: FileStore, handle: str) -> None:
    file = file_of(store, handle)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    before = (file.read_bytes(), file.stat().st_mtime)
    assert run("show", store.directory, handle).exit_code == 0
    assert (file.read_bytes(), file.stat().st_mtime) == before


@pytest.mark.parametrize("digits", [4, 10, 31, 32])
def test_the_first_digits_of_a_handle_will_do(store: FileStore, handle: str, digits: int) -> None:
    result = run("show", store.directory, handle[:digits].upper())
    assert json.loads(result.stdout)["handle"] == handle


@pytest.mark.parametrize("command", ["show", "destroy"])
def test_digits_that_fit_several_sessions_are_refused_and_they_are_named(
    store: FileStore, command: str
) -> None:
    first, second = two_alike(store)
    result = run(command, store.directory, first[:4])
    assert result.exit_code == 1
    assert f"2 sessions have a handle that begins with {first[:4]}" in result.stderr
    assert first in result.stderr
    assert second in result.stderr
    assert len(store) == 2


def test_enough_digits_tell_those_that_begin_alike_from_each_other(store: FileStore) -> None:
    for handle in two_alike(store):
        result = run("show", store.directory, handle[:12])
        assert json.loads(result.stdout)["handle"] == handle


@pytest.mark.parametrize("command", ["show", "destroy"])
@pytest.mark.parametrize("given", ["0000", "0" * 32])
def test_a_session_that_is_not_there_is_exit_1(store: FileStore, command: str, given: str) -> None:
    result = run(command, store.directory, given)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "destroy"])
@pytest.mark.parametrize(
    "given", ["", "abc", "xyz1", "../../../etc/passwd", "0" * 33, "00000000\n", "0x12345"]
)
def test_what_can_be_no_handle_is_exit_2_and_never_a_path(
    store: FileStore, command: str, given: str
) -> None:
    result = run(command, store.directory, given)
    assert result.exit_code == 2
    assert "4 to 32 hex digits" in " ".join(result.stderr.split())


def test_an_id_pasted_in_place_of_a_handle_is_not_repeated(store: FileStore) -> None:
    sid = store.create().id
    result = run("show", store.directory, sid)
    assert result.exit_code == 2
    assert sid not in result.output
    assert sid[:20] not in result.output


def test_a_session_that_cannot_be_read_is_told_from_one_that_is_not_there(
    store: FileStore, handle: str
) -> None:
    file_of(store, handle).write_bytes(b"garbage\n")
    result = run("show", store.directory, handle)
    assert result.exit_code == 2
    assert "cannot be read as plain JSON" in result.stderr


def test_control_characters_do_not_reach_the_reader_and_the_json_means_the_same(
    store: FileStore,
) -> None:
    data = {"agent": "\x9b31m\x1b[0m\u202eevil\x7f"}
    result = run("show", store.directory, create(store, data=data))
    assert not any(character in result.stdout for character in "\x9b\x1b\u202e\x7f")
    assert json.loads(result.stdout)["data"] == data


def test_destroying_is_final(store: FileStore) -> None:
    record = store.create()
    kept = store.create()
    handle = handle_of(record.id)
    assert handle is not None
    result = run("destroy", store.directory, handle[:8])
    assert (result.exit_code, result.stdout) == (0, f"destroyed {handle}\n")
    assert store.load(record.id) is None
    assert store.load(kept.id) is not None
    assert run("destroy", store.directory, handle).exit_code == 1


def test_destroying_what_has_expired_removes_it_and_says_so(store: FileStore, handle: str) -> None:
    os.utime(file_of(store, handle), (1, 1))
    result = run("destroy", store.directory, handle)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"removed {handle}")
    assert len(store) == 0


@pytest.mark.parametrize("options", [[], ["0123", "--all"], ["0123", "--yes"], ["--yes"]])
def test_destroying_wants_one_handle_or_all(store: FileStore, options: list[str]) -> None:
    store.create()
    result = run("destroy", store.directory, *options)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert len(store) == 1


@pytest.mark.parametrize("answer", ["", "y\n"])
def test_without_a_terminal_nobody_can_be_asked_and_all_stay(store: FileStore, answer: str) -> None:
    store.create()
    result = run("destroy", store.directory, "--all", answer=answer)
    assert result.exit_code == 2
    assert "add --yes" in result.stderr
    assert len(store) == 1


def test_one_session_is_not_sessions(store: FileStore) -> None:
    store.create()
    assert run("destroy", store.directory, "--all", "--yes").stdout == (
        "destroyed 1 live session\n"
    )


def test_all_are_destroyed_when_that_is_meant(store: FileStore) -> None:
    for _ in range(3):
        store.create()
    result = run("destroy", store.directory, "--all", "--yes")
    assert (result.exit_code, result.stdout) == (0, "destroyed 3 live sessions\n")
    assert len(store) == 0
