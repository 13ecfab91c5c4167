"""Every ailment of a session directory, brought about, found, mended by what the doctor says."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.cli.doctor import examine
from filesession.cli.findings import Finding, some
from filesession.errors import StoreUnavailable
from filesession.janitor.heartbeat import write_heartbeat
from filesession.janitor.leader import Leadership
from filesession.stores.file.layout import Layout
from filesession.stores.file.sessionfile import Snapshot, look
from filesession.stores.file.store import FileStore
from tests.heartbeats import BEAT


@pytest.fixture(autouse=True)
def _a_roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def room(directory: str) -> Iterator[Finding]:
        yield Finding("disk", "ok", "roomy")

    monkeypatch.setattr("filesession.cli.machine.room", room)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path / "sessions", idle_timeout=7200)
    for _ in range(3):
        store.create()
    store.signing_key()
    return store


@pytest.fixture
def leader(store: FileStore) -> Leadership:
    """A janitor that is well."""
    leader = Leadership(store.directory)
    leader.try_lead()
    write_heartbeat(store.directory, replace(BEAT, heartbeat_at=time.time()))
    return leader


def doctor(store: FileStore, *options: str) -> Result:
    return CliRunner().invoke(commands, ["doctor", store.directory, *options])


def inside(store: FileStore, *parts: str) -> Path:
    return Path(store.directory, *parts)


def a_session(store: FileStore) -> Path:
    return min(inside(store, "sessions").glob("*/*"))


def wrong(store: FileStore) -> dict[str, Finding]:
    """What is wrong, by the check that found it. Each has something that mends it."""
    found = {each.check: each for each in examine(store.directory) if each.level == "wrong"}
    assert all(finding.mend for finding in found.values())
    return found


def test_a_directory_that_is_well_is_exit_0(store: FileStore, leader: Leadership) -> None:
    result = doctor(store)
    assert result.exit_code == 0
    assert "wrong" not in result.stdout
    assert {line.split()[1] for line in result.stdout.splitlines()} >= {
        "directory",
        "manifest",
        "secret",
        "permissions",
        "clock",
        "locks",
        "janitor",
    }


def test_the_doctor_changes_nothing(store: FileStore, leader: Leadership) -> None:
    def state() -> list[tuple[str, float, int]]:
        paths = sorted(inside(store).rglob("*"))
        return [(str(path), path.stat().st_mtime, path.stat().st_mode) for path in paths]

    inside(store, "notes.txt").touch()
    a_session(store).write_bytes(b"garbage")
    before = state()
    doctor(store)
    assert state() == before


def test_what_is_wrong_is_exit_1_and_told_with_what_mends_it(store: FileStore) -> None:
    result = doctor(store)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith("wrong"))
    assert "none is running" in lines[number]
    assert lines[number + 1].strip() == f"mend: filesession janitor {store.directory}"


def test_json_has_every_finding(store: FileStore, leader: Leadership) -> None:
    result = doctor(store, "--json")
    told = json.loads(result.stdout)
    assert told["well"] is True
    assert told["directory"] == store.directory
    checks = [finding["check"] for finding in told["findings"]]
    assert checks == [finding.check for finding in examine(store.directory)]
    assert all(set(finding) == set(asdict(Finding("", "ok", ""))) for finding in told["findings"])
    inside(store, "notes.txt").touch()
    result = doctor(store, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["well"] is False


def open_directory(store: FileStore) -> None:
    os.chmod(store.directory, 0o755)  # noqa: S103


def open_session(store: FileStore) -> None:
    a_session(store).chmod(0o644)


def open_manifest(store: FileStore) -> None:
    inside(store, "filesession.json").chmod(0o666)


def open_lock(store: FileStore) -> None:
    inside(store, "janitor.lock").chmod(0o666)


def open_heartbeat(store: FileStore) -> None:
    inside(store, "janitor.json").chmod(0o644)


def linked_lock(store: FileStore) -> None:
    inside(store, "janitor.lock").unlink()
    inside(store, "janitor.lock").symlink_to("/etc/hostname")


def open_shard(store: FileStore) -> None:
    a_session(store).parent.chmod(0o755)


def open_secret(store: FileStore) -> None:
    inside(store, "secret").chmod(0o640)


def short_secret(store: FileStore) -> None:
    inside(store, "secret").write_bytes(b"short")


def linked_secret(store: FileStore) -> None:
    inside(store, "secret").unlink()
    inside(store, "secret").symlink_to("/etc/hostname")


def no_manifest(store: FileStore) -> None:
    inside(store, "filesession.json").unlink()


def broken_manifest(store: FileStore) -> None:
    inside(store, "filesession.json").write_text('{"format": 1}')


def newer_manifest(store: FileStore) -> None:
    inside(store, "filesession.json").write_text('{"format": 99}')


def foreign_file(store: FileStore) -> None:
    inside(store, "notes.txt").touch()


def foreign_session(store: FileStore) -> None:
    inside(store, "sessions", "backup.tar").touch()


def damaged_session(store: FileStore) -> None:
    a_session(store).write_bytes(b"garbage")


def directory_as_session(store: FileStore) -> None:
    session = a_session(store)
    session.unlink()
    session.mkdir(0o700)


def set_aside(store: FileStore) -> None:
    inside(store, "corrupt").mkdir(0o700)
    inside(store, "corrupt", "one").touch()


def open_corrupt(store: FileStore) -> None:
    inside(store, "corrupt").mkdir()
    inside(store, "corrupt").chmod(0o755)


def from_the_future(store: FileStore) -> None:
    ahead = time.time() + 4000
    os.utime(a_session(store), (ahead, ahead))


@pytest.mark.parametrize(
    ("ail", "check", "words"),
    [
        (open_directory, "directory", "is open to other users (mode 0755)"),
        (open_session, "permissions", "sessions/"),
        (open_shard, "permissions", "sessions/"),
        (open_corrupt, "permissions", "corrupt"),
        (open_manifest, "permissions", "filesession.json"),
        (open_lock, "permissions", "janitor.lock"),
        (open_heartbeat, "permissions", "janitor.json"),
        (linked_lock, "access", "janitor.lock"),
        (open_secret, "secret", "is open to other users (mode 0640); whoever read it"),
        (short_secret, "secret", "too short"),
        (linked_secret, "secret", "no regular file"),
        (no_manifest, "manifest", "there is no filesession.json"),
        (broken_manifest, "manifest", "is no manifest"),
        (newer_manifest, "manifest", "another version"),
        (foreign_file, "foreign", "notes.txt"),
        (foreign_session, "foreign", "sessions/backup.tar"),
        (damaged_session, "content", "sessions/"),
        (directory_as_session, "content", "sessions/"),
        (set_aside, "corrupt", "1 unreadable"),
        (from_the_future, "clock", "by 67 min at most"),
    ],
)
def test_every_ailment_is_found_and_by_its_own_check_alone(
    store: FileStore,
    leader: Leadership,
    ail: Callable[[FileStore], None],
    check: str,
    words: str,
) -> None:
    assert wrong(store) == {}
    ail(store)
    found = wrong(store)
    assert list(found) == [check]
    assert words in found[check].what
    assert doctor(store).exit_code == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    ("name", "check"), [("secret", "secret"), ("sessions", "permissions"), (".", "directory")]
)
def test_what_belongs_to_another_user_is_found(
    store: FileStore, leader: Leadership, name: str, check: str
) -> None:
    os.chown(inside(store, name), 65534, -1)
    assert list(wrong(store)) == [check]


@pytest.mark.parametrize("ail", [open_session, open_shard, open_corrupt, open_manifest])
def test_the_command_given_for_permissions_mends_them(
    store: FileStore, leader: Leadership, ail: Callable[[FileStore], None]
) -> None:
    ail(store)
    mend = wrong(store)["permissions"].mend or ""
    assert os.system(mend) == 0  # noqa: S605 - it is what a person would type
    assert wrong(store) == {}
    assert len(store) == 3


def test_the_command_given_for_times_in_the_future_mends_them(
    store: FileStore, leader: Leadership
) -> None:
    from_the_future(store)
    mend = wrong(store)["clock"].mend or ""
    assert os.system(mend.partition("then: ")[2]) == 0  # noqa: S605
    assert wrong(store) == {}


def test_a_manifest_that_is_missing_is_not_to_be_made_with_options_of_nobodys(
    store: FileStore, leader: Leadership
) -> None:
    no_manifest(store)
    mend = wrong(store)["manifest"].mend or ""
    assert "from a backup" in mend
    assert "restart the application" in mend
    assert "python" not in mend
    FileStore(store.directory, idle_timeout=7200)  # what the application does
    assert wrong(store) == {}


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_directory_is_known_by_its_sessions_when_all_else_is_gone(
    tmp_path: Path, depth: int
) -> None:
    store = FileStore(tmp_path / "others", shard_depth=depth)
    store.create()
    no_manifest(store)
    assert "manifest" in wrong(store)


def test_a_directory_never_used_is_none_to_examine(tmp_path: Path) -> None:
    result = CliRunner().invoke(commands, ["doctor", str(tmp_path)])
    assert result.exit_code == 2
    assert "is no session directory" in result.stderr


def test_the_mend_for_a_manifest_that_is_no_file_moves_it_away(
    store: FileStore, leader: Leadership
) -> None:
    path = inside(store, "filesession.json")
    for kind in ("directory", "symlink"):
        path.unlink()
        if kind == "directory":
            path.mkdir()
        else:
            path.symlink_to("/etc/hostname")
        finding = wrong(store)["manifest"]
        assert "is no regular file" in finding.what
        assert os.system((finding.mend or "").partition(";")[0]) == 0  # noqa: S605
        FileStore(store.directory, idle_timeout=7200)
        assert list(wrong(store)) == ["foreign"]
        shutil.move(inside(store, "filesession.json.old"), store.directory + ".old")


def test_a_manifest_that_cannot_be_read_is_found(
    store: FileStore, leader: Leadership, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(layout: Layout) -> None:
        msg = "reading it: Permission denied"
        raise StoreUnavailable(msg)

    monkeypatch.setattr(Layout, "read_manifest", refuse)
    assert "chmod 600" in (wrong(store)["manifest"].mend or "")


def test_the_mend_for_a_secret_names_the_restart_that_makes_it_work(store: FileStore) -> None:
    open_secret(store)
    mend = wrong(store)["secret"].mend or ""
    assert mend.startswith(f"rm {inside(store, 'secret')}, then restart the application")


def test_a_session_that_changed_just_now_is_for_a_later_sweep(
    store: FileStore, leader: Leadership, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged_session(store)
    finding = wrong(store)["content"]
    assert "changed within the last minute" in finding.what
    assert finding.mend == f"in a minute: filesession sweep {store.directory}"
    later = time.time() + 100
    monkeypatch.setattr("filesession.cli.checks.time.time", lambda: later)
    assert wrong(store)["content"].mend == f"filesession sweep {store.directory}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_command_given_for_what_is_anothers_makes_it_ours(
    store: FileStore, leader: Leadership
) -> None:
    os.chown(a_session(store), 65534, -1)
    mend = wrong(store)["permissions"].mend or ""
    assert os.system(mend.removeprefix("sudo ")) == 0  # noqa: S605
    assert wrong(store) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("looker", [0, 2])
def test_a_directory_of_another_user_is_for_that_user_to_look_at(
    public_path: Path, looker: int
) -> None:
    store = FileStore(public_path / "sessions")
    os.chown(store.directory, 1, -1)
    os.seteuid(looker)
    try:
        (finding,) = examine(store.directory)
    finally:
        os.seteuid(0)
    name = pwd.getpwuid(1).pw_name
    assert f"belongs to user {name}" in finding.what
    assert finding.mend == (
        f"run it as that user: sudo -u {name} filesession doctor {store.directory}"
    )


def test_leftovers_of_writers_that_died_are_worth_a_note_once_they_are_old(
    store: FileStore, leader: Leadership, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside(store, "janitor.json.0123456789ab.tmp").touch()
    session = a_session(store)
    session.with_name(f".{session.name}.0123456789ab.tmp").touch()

    def notes() -> list[str]:
        return [each.what for each in examine(store.directory) if each.check == "leftovers"]

    assert notes() == []
    assert wrong(store) == {}
    later = time.time() + 100
    monkeypatch.setattr("filesession.cli.checks.time.time", lambda: later)
    (what,) = notes()
    assert what.startswith("2 left behind")
    assert "foreign" not in wrong(store)


def test_a_janitor_that_hangs_or_fails_is_found(store: FileStore, leader: Leadership) -> None:
    write_heartbeat(store.directory, replace(BEAT, heartbeat_at=time.time() - 60))
    leader.mark(time.time())
    assert "its heartbeat is not written" in wrong(store)["janitor"].what
    assert "end process" not in (wrong(store)["janitor"].mend or "")
    leader.mark(time.time() - 60)
    assert "end process 4242" in (wrong(store)["janitor"].mend or "")
    failing = replace(BEAT, heartbeat_at=time.time(), last_error="the disk fails")
    write_heartbeat(store.directory, failing)
    assert wrong(store)["janitor"].what == "its last sweep failed: the disk fails"


def test_a_symlink_to_a_directory_is_found_and_what_it_points_to_is_named(
    store: FileStore, leader: Leadership, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(store.directory)
    (finding, *others) = examine(str(link))
    assert "is a symlink" in finding.what
    assert store.directory in (finding.mend or "")
    assert [each.check for each in others] == [each.check for each in examine(store.directory)]
    leader.resign()
    mends = [each.mend for each in examine(str(link)) if each.level == "wrong"][1:]
    assert mends == [f"filesession janitor {store.directory}"]


@pytest.mark.parametrize("what", ["nothing", "file"])
def test_what_is_no_directory_cannot_be_examined(tmp_path: Path, what: str) -> None:
    path = tmp_path / "there"
    if what == "file":
        path.touch()
    result = CliRunner().invoke(commands, ["doctor", str(path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_what_may_not_be_read_is_a_finding_and_no_crash(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    result = doctor(store)
    assert result.exit_code == 1
    assert "Permission denied" in result.stdout


def test_what_is_gone_before_it_is_looked_at_is_no_ailment(
    store: FileStore, leader: Leadership, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, leftovers = Layout.sessions, Layout.leftovers

    def with_a_ghost(layout: Layout) -> Iterator[tuple[str, str]]:
        yield "0" * 32, layout.path("0" * 32)
        yield from sessions(layout)

    def with_another(layout: Layout) -> Iterator[str]:
        yield os.path.join(layout.directory, "janitor.json.0123456789ab.tmp")
        yield from leftovers(layout)

    def gone_meanwhile(path: str, handle: str) -> Snapshot | None:
        if path == vanishing:
            os.unlink(path)
        return look(path, handle)

    vanishing = str(a_session(store))
    monkeypatch.setattr("filesession.cli.checks.look", gone_meanwhile)
    monkeypatch.setattr(Layout, "sessions", with_a_ghost)
    monkeypatch.setattr(Layout, "leftovers", with_another)
    assert wrong(store) == {}


def test_a_session_the_disk_does_not_give_is_found(
    store: FileStore, leader: Leadership, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, handle: str) -> None:
        msg = "Input/output error"
        raise StoreUnavailable(msg)

    monkeypatch.setattr("filesession.cli.checks.look", fail)
    finding = wrong(store)["reading"]
    assert "cannot be read at all" in finding.what
    assert "Input/output error" in finding.what


def test_file_names_do_not_take_over_the_terminal(store: FileStore, leader: Leadership) -> None:
    inside(store, "evil\x1b[31m\n").touch()
    result = doctor(store)
    assert "\x1b" not in result.stdout
    assert "evil\\u001b[31m\\u000a" in result.stdout


def test_of_many_paths_a_few_are_named_and_the_rest_counted() -> None:
    paths = [f"/d/{number}" for number in range(1500)]
    assert some(paths[:2], "/d") == "0, 1"
    assert some(paths, "/d") == "0, 1, 2 and 1,497 more"


def test_who_may_write_above_the_directory_may_put_another_in_its_place(tmp_path: Path) -> None:
    above = tmp_path / "open to all"
    above.mkdir()
    store = FileStore(above / "sessions")
    above.chmod(0o777)
    finding = wrong(store)["above"]
    assert finding.what == (
        f"in {above} any user may put another directory in place of {store.directory}"
    )
    assert finding.mend == f"chmod o-w '{above}'"
    above.chmod(0o1777)  # as /tmp: only their owner moves things away
    assert "above" not in wrong(store)
