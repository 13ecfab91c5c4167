"""Moving an Express app's sessions into a session directory, once and again."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.record import SessionRecord
from filesession.stores.entry import handle_of
from filesession.stores.file.store import FileStore
from filesession.stores.node.migration import Migration, Moves
from filesession.testing.faults import SystemCall, SystemCalls


class Express:
    """The directory of an Express app."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def write(self, sid: str, data: dict[str, Any], *, age: float = 0, **cookie: Any) -> Path:
        path = self.directory / f"{sid}.json"
        usual = {"originalMaxAge": None, "expires": None, "httpOnly": True, "path": "/"}
        last = round((time.time() - age) * 1000)
        path.write_text(json.dumps({"cookie": usual | cookie, **data, "__lastAccess": last}))
        return path

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def express(tmp_path: Path) -> Express:
    return Express(tmp_path / "express")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def migrate(express: Express, target: Path, *options: str) -> Result:
    arguments = ["migrate", str(express.directory), str(target), *options]
    return CliRunner().invoke(commands, arguments)


def loaded(target: Path, sid: str) -> SessionRecord:
    record = FileStore.open(target).load(sid)
    assert record is not None
    return record


def test_a_live_session_keeps_its_id_data_age_and_last_access(
    express: Express, target: Path
) -> None:
    path = express.write("one", {"user": "ada"}, age=100)
    last = json.loads(path.read_text())["__lastAccess"] / 1000
    express.write("two", {"n": [1.5]}, originalMaxAge=86_400_000, secure=True, sameSite="lax")
    result = migrate(express, target)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"moved 2 sessions to {target} in ")
    assert "left" not in result.stdout
    record = loaded(target, "one")
    assert (record.data, record.cookie, record.idle_timeout) == ({"user": "ada"}, {}, 3600)
    assert record.accessed_at == pytest.approx(last, abs=0.001)
    record = loaded(target, "two")
    assert (record.data, record.idle_timeout) == ({"n": [1.5]}, 86_400)
    assert record.cookie == {"max_age": 86_400, "secure": True, "same_site": "lax"}
    assert express.names() == ["one.json.migrated", "two.json.migrated"]


def test_what_has_expired_or_cannot_be_read_is_left_and_told(
    express: Express, target: Path
) -> None:
    express.write("live", {}, age=50)
    express.write("due", {}, age=70)
    express.write("short", {}, age=20, originalMaxAge=10_000)
    express.write("long", {}, age=1000, originalMaxAge=2_000_000)
    (express.directory / "odd.json").write_text("{")
    (express.directory / "package.json").write_text('{"name":"app"}')
    (express.directory / "live.json.4711").write_text("{}")
    result = migrate(express, target, "--ttl", "60")
    assert result.exit_code == 0
    assert "moved 2 sessions" in result.stdout
    assert result.stdout.endswith("; left in place: 2 expired, 2 unreadable\n")
    assert FileStore.open(target).lifetime.idle_timeout == 60
    assert {info.handle for info in FileStore.open(target).scan()} == {
        handle_of("live"),
        handle_of("long"),
    }
    assert [name for name in express.names() if "migrated" not in name] == [
        "due.json",
        "live.json.4711",
        "odd.json",
        "package.json",
        "short.json",
    ]


def test_a_second_run_moves_what_is_new_and_brings_nothing_back(
    express: Express, target: Path
) -> None:
    for sid in ("changed", "ended", "written"):
        express.write(sid, {"n": 1})
    migrate(express, target)
    store = FileStore.open(target)
    store.save("changed", {"n": 2})
    store.delete("ended")
    store.save("written", {"n": 2})
    express.write("written", {"n": 3})  # by an Express app that was not stopped
    express.write("new", {"n": 4})
    result = migrate(express, target)
    assert "moved 1 session to " in result.stdout
    assert result.stdout.endswith("left in place: 1 there already\n")
    found = {sid: store.load(sid) for sid in ("changed", "ended", "written", "new")}
    data = {sid: record and record.data for sid, record in found.items()}
    assert data == {"changed": {"n": 2}, "ended": None, "written": {"n": 2}, "new": {"n": 4}}
    assert "written.json" in express.names()


def test_a_session_that_ended_since_it_was_moved_stays_ended_if_express_writes_it_again(
    express: Express, target: Path
) -> None:
    express.write("one", {"user": "ada"})
    migrate(express, target)
    FileStore.open(target).delete("one")
    express.write("one", {"user": "ada"})  # by a slow request, or from a backup
    for options in (["--dry-run"], []):
        result = migrate(express, target, *options)
        assert result.stdout.endswith("left in place: 1 there already\n")
    assert FileStore.open(target).load("one") is None
    (express.directory / "one.json.migrated").rename(express.directory / "one.json")
    assert "moved 1 session " in migrate(express, target).stdout  # taken back on purpose


def test_what_is_no_file_is_left_and_keeps_none_from_being_moved(
    express: Express, target: Path, tmp_path: Path
) -> None:
    outside = express.write("outside", {"user": "eve"}).rename(tmp_path / "outside.json")
    (express.directory / "a.json").symlink_to(outside)
    (express.directory / "b.json").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(express.directory / "c.json"))
    express.write("one", {})
    result = migrate(express, target)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "moved 1 session " in result.stdout
    assert result.stdout.endswith("left in place: 3 unreadable\n")
    assert express.names() == ["a.json", "b.json", "c.json", "one.json.migrated"]


def test_two_at_once_move_each_session_once(express: Express, target: Path) -> None:
    sids = [f"sid{number}" for number in range(100)]
    for sid in sids:
        express.write(sid, {"user": sid})
    FileStore(target)
    both = [Migration(str(express.directory), str(target)) for _ in range(2)]
    start = threading.Barrier(2, timeout=30)

    def run(migration: Migration) -> Moves:
        # Both have listed all when the first session is moved.
        ids = migration._folder.ids

        def listed(behind: str = "") -> list[str]:
            found = list(ids(behind))
            if behind:
                start.wait()
            return found

        migration._folder.ids = listed  # type: ignore[method-assign,assignment]
        return migration.run()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, both)
    assert first.moved + second.moved == len(sids)
    assert first.unreadable == second.unreadable == 0
    assert express.names() == sorted(f"{sid}.json.migrated" for sid in sids)


def test_a_dry_run_tells_and_changes_nothing(express: Express, target: Path) -> None:
    express.write("one", {})
    express.write("due", {}, age=10_000)
    for _ in range(2):
        result = migrate(express, target, "--dry-run")
        assert result.exit_code == 0
        assert "would move 1 session" in result.stdout
        assert "1 expired" in result.stdout
        assert express.names() == ["due.json", "one.json"]
    assert not target.exists()
    migrate(express, target)
    express.write("one", {})
    assert migrate(express, target, "--dry-run").stdout.endswith("1 expired, 1 there already\n")
    assert "due.json" in express.names()


def test_another_extension_is_heeded_and_sessions_of_an_existing_directory_take_its_timeout(
    express: Express, target: Path
) -> None:
    FileStore(target, idle_timeout=50)
    for sid, age in (("one", 10), ("two", 100)):
        path = express.write(sid, {"a": 1}, age=age)
        path.rename(path.with_suffix(".session"))
    express.write("three", {})
    result = migrate(express, target, "--extension", ".session")
    assert result.stdout.endswith("left in place: 1 expired\n")
    assert loaded(target, "one").idle_timeout == 50
    assert express.names() == ["one.session.migrated", "three.json", "two.session"]


def test_encrypted_sessions_are_opened_with_the_secret_of_their_store(
    express: Express, target: Path, tmp_path: Path
) -> None:
    vectors = Path(__file__).parents[1] / "vectors" / "session_file_store.json"
    [case] = [case for case in json.loads(vectors.read_text())["encrypted"] if case.get("note")]
    (express.directory / "one.json").write_text(case["file_text"])
    express.write("plain", {})
    secret = tmp_path / "secret"
    secret.write_text("another\n")
    options = ("--secret-file", str(secret), "--ttl", "300000000")
    assert migrate(express, target, *options).stdout.endswith("2 unreadable\n")
    secret.write_text(f"{case['secret']}\n")
    assert "moved 1 session " in migrate(express, target, *options).stdout
    assert loaded(target, "one").data == {"v": 2}
    assert express.names() == ["one.json.migrated", "plain.json"]
    for wrong in ("", "\n"):
        secret.write_text(wrong)
        assert (
            "secret of the Express app's store is empty"
            in migrate(express, target, *options).stderr
        )
    secret.unlink()
    assert "secret cannot be read" in migrate(express, target, *options).stderr


@pytest.mark.parametrize("stored", [False, True])
def test_what_one_who_died_had_in_hand_is_moved_next_time(
    express: Express, target: Path, *, stored: bool
) -> None:
    path = express.write("one", {"n": 1})
    path.rename(f"{path}.migrating")
    if stored:
        FileStore(target, idle_timeout=3600).create({"n": 2}, sid="one")
    assert "moved 1 session " in migrate(express, target).stdout
    assert loaded(target, "one").data == {"n": 2 if stored else 1}
    assert express.names() == ["one.json.migrated"]


@pytest.mark.parametrize("name", ["rename", "write", "link"])
def test_one_that_cannot_be_moved_is_where_it_was_and_the_rest_too(
    express: Express, target: Path, name: str
) -> None:
    FileStore(target)
    for sid in ("one", "two"):
        express.write(sid, {})

    def full(call: SystemCall) -> Any:
        if name == "link":  # back, which cannot be done: Express has made the session anew
            express.write("one", {"newer": True})
        raise OSError(28, "No space left on device")

    with SystemCalls(full, only=("rename",) if name == "rename" else ("write",)):
        result = migrate(express, target)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "No space left on device" in result.stderr
    extra = ["one.json.migrating"] if name == "link" else []
    assert express.names() == ["one.json", *extra, "two.json"]
    assert "moved 2 sessions" in migrate(express, target).stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ttl", "0"], "ttl of the Express app"),
        (["--ttl", "abc"], "ttl of the Express app"),
        (["--ttl", "86400000000"], "not milliseconds"),
        (["--extension", "json"], "file_extension"),
    ],
)
def test_an_option_that_can_be_none_is_refused(
    express: Express, target: Path, options: list[str], words: str
) -> None:
    result = migrate(express, target, *options)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", "").split())
    assert not target.exists()


def test_a_directory_that_cannot_be_moved_from_is_one_line_and_exit_2(
    express: Express, target: Path, tmp_path: Path
) -> None:
    def error(source: Path, to: Path) -> str:
        result = CliRunner().invoke(commands, ["migrate", str(source), str(to)])
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        return result.stderr

    FileStore(target)
    assert "there is no directory" in error(tmp_path / "nowhere", target)
    assert "holds no ids to move sessions by" in error(target, tmp_path / "other")
    express.write("one", {})
    assert "name another directory" in error(express.directory, express.directory)
    express.directory.chmod(0o700)  # as a session directory may be
    (tmp_path / "link").symlink_to(express.directory)
    for to in (express.directory, express.directory / "." / "", tmp_path / "link"):
        assert "name another directory" in error(express.directory, to)
    assert express.names() == ["one.json"]
    assert not (tmp_path / "nowhere").exists()
