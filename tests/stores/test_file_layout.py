"""The directory: who may use it, its modes, its manifest, its key, and what lies in it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import ConfigurationError, StoreError, StoreUnavailable
from filesession.stores import FileStore
from filesession.stores.file.layout import Layout, is_handle, make_beside
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCall, SystemCalls

if TYPE_CHECKING:
    from tests.stores.conftest import Faults, Processes, Raw

MANIFEST: Final = {
    "format": 1,
    "shard_depth": 1,
    "idle_timeout": 600,
    "absolute_timeout": 86400,
    "touch_interval": 5,
    "durable": False,
}


@pytest.fixture(params=[0, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """Whatever the process was started with."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def manifest(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "filesession.json").read_bytes())
    assert isinstance(found, dict)
    return found


class TestModes:
    def test_everything_is_ours_alone_whatever_the_umask(
        self, umask: int, directory: Path, raw: Raw, clock: ManualClock
    ) -> None:
        raw.depth = 2
        store = FileStore(directory, clock=clock, shard_depth=2)
        record = store.create()
        for n in range(8):  # long enough for the file to be replaced
            record = store.save(record.id, {"text": "x" * 5000, "n": n})
        store.regenerate(record.id)
        store.signing_key()
        raw.path(store.create(sid="damaged").id).write_bytes(b"damage")
        assert store.load("damaged") is None
        assert len(raw.set_aside()) == 1
        for path in [directory, *directory.rglob("*")]:
            assert raw.mode(path) == (0o700 if path.is_dir() else 0o600), path

    def test_a_directory_that_gives_its_group_away_changes_no_mode(
        self, directory: Path, raw: Raw, clock: ManualClock
    ) -> None:
        directory.mkdir()
        directory.chmod(0o2700)  # what is made in it is of its group, and directories likewise
        store = FileStore(directory, clock=clock)
        store.signing_key()
        raw.path(store.create(sid="damaged").id).write_bytes(b"damage")
        assert store.load("damaged") is None
        store.create()
        for path in directory.rglob("*"):
            assert raw.mode(path) == (0o700 if path.is_dir() else 0o600), path

    def test_a_directory_above_it_is_made_as_the_umask_says(self, tmp_path: Path, raw: Raw) -> None:
        before = os.umask(0o027)
        FileStore(tmp_path / "a" / "sessions")
        os.umask(before)
        assert raw.mode(tmp_path / "a") == 0o750
        assert raw.mode(tmp_path / "a" / "sessions") == 0o700


class TestOwnership:
    def test_a_directory_that_others_can_read_is_closed_while_it_is_empty(
        self, directory: Path, raw: Raw
    ) -> None:
        directory.mkdir(0o755)
        FileStore(directory)
        assert raw.mode(directory) == 0o700

    @pytest.mark.parametrize("mode", [0o755, 0o711, 0o750, 0o704])
    def test_a_directory_that_others_can_read_with_something_in_it_is_refused(
        self, directory: Path, raw: Raw, mode: int
    ) -> None:
        directory.mkdir()
        (directory / "something").touch()
        directory.chmod(mode)
        with pytest.raises(ConfigurationError, match=r"things in it; name another directory$"):
            FileStore(directory)
        assert raw.mode(directory) == mode
        assert os.listdir(directory) == ["something"]

    @pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
    def test_a_directory_that_others_can_write_is_refused_also_when_empty(
        self, directory: Path, raw: Raw, mode: int
    ) -> None:
        directory.mkdir()
        directory.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"chmod 700 {directory}$"):
            FileStore(directory)
        assert raw.mode(directory) == mode
        assert os.listdir(directory) == []

    def test_after_the_command_in_the_message_the_directory_is_taken(self, directory: Path) -> None:
        directory.mkdir()
        directory.chmod(0o777)
        with pytest.raises(ConfigurationError) as refused:
            FileStore(directory)
        command = str(refused.value).rsplit(": ", 1)[-1]
        assert os.system(command) == 0  # noqa: S605 - it is the message's own
        FileStore(directory)

    def test_a_symlink_is_refused_with_the_path_it_leads_to(self, tmp_path: Path) -> None:
        target, link = tmp_path / "target", tmp_path / "link"
        target.mkdir(0o700)
        link.symlink_to(target)
        with pytest.raises(ConfigurationError, match=f"{link} is a symlink.* {target}$"):
            FileStore(link)
        with pytest.raises(ConfigurationError, match="symlink"):
            FileStore.open(link)
        assert os.listdir(target) == []

    def test_a_symlink_that_leads_nowhere_is_refused(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "nowhere")
        with pytest.raises(ConfigurationError, match="symlink"):
            FileStore(link)
        assert not (tmp_path / "nowhere").exists()

    def test_a_file_is_refused(self, directory: Path) -> None:
        directory.write_text("precious")
        with pytest.raises(ConfigurationError, match=f"{directory} is not a directory"):
            FileStore(directory)
        assert directory.read_text() == "precious"

    def test_a_path_below_a_file_is_refused(self, directory: Path) -> None:
        directory.write_text("precious")
        with pytest.raises(ConfigurationError, match="cannot make the session directory"):
            FileStore(directory / "below")
        with pytest.raises(ConfigurationError, match="there is no directory"):
            FileStore.open(directory / "below")

    def test_a_path_below_a_link_that_leads_nowhere_is_refused(
        self, directory: Path, tmp_path: Path
    ) -> None:
        directory.symlink_to(tmp_path / "nowhere")
        with pytest.raises(ConfigurationError, match="above it lies a file"):
            FileStore(directory / "below")
        assert not (tmp_path / "nowhere").exists()

    def test_another_users_directory_is_refused_with_both_users(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory.mkdir(0o700)
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        message = f"belongs to user root and .* 4711.* sudo chown 4711 {directory}$"
        with pytest.raises(ConfigurationError, match=message):
            FileStore(directory)
        with pytest.raises(ConfigurationError, match="is no session directory"):
            FileStore.open(directory)

    def test_a_directory_opened_up_later_is_refused_by_the_next_to_open_it(
        self, store: FileStore, directory: Path
    ) -> None:
        directory.chmod(0o755)
        with pytest.raises(ConfigurationError, match="chmod 700"):
            FileStore(directory)
        with pytest.raises(ConfigurationError, match="chmod 700"):
            FileStore.open(directory)

    def test_a_directory_that_cannot_be_made_is_refused_with_the_reason(
        self, directory: Path, faults: Faults
    ) -> None:
        error = PermissionError(errno.EACCES, "Permission denied")
        with (
            faults.failing(error, only=("mkdir",)),
            pytest.raises(ConfigurationError, match=r"cannot make .*: Permission denied"),
        ):
            FileStore(directory)

    def test_one_who_sees_another_worker_close_the_directory_takes_it_too(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory.mkdir(0o755)
        directory.chmod(0o755)
        listing = os.listdir

        def after_another(path: str) -> list[str]:
            # Between our look at the mode and our look at what is in it.
            monkeypatch.setattr(os, "listdir", listing)
            FileStore(directory)
            return listing(path)

        monkeypatch.setattr(os, "listdir", after_another)
        FileStore(directory)
        assert listing(directory) == ["filesession.json"]

    def test_workers_that_start_together_all_get_the_same_directory(
        self, directory: Path, processes: Processes
    ) -> None:
        directory.mkdir(0o755)
        directory.chmod(0o755)
        program = """
import sys
from filesession import FileStore
for n in range(20):
    store = FileStore(sys.argv[2], idle_timeout=600, shard_depth=2)
    assert store.load(store.create({"n": n}).id).data == {"n": n}
"""
        processes.run(program, directory, count=8)
        assert len(FileStore(directory)) == 160
        assert os.listdir(directory / "sessions")
        assert sorted(os.listdir(directory)) == ["filesession.json", "sessions"]


class TestManifest:
    def test_it_says_how_the_directory_is_used(self, directory: Path) -> None:
        FileStore(directory, idle_timeout=600, absolute_timeout=86400, touch_interval=5)
        assert manifest(directory) == MANIFEST

    def test_it_is_rewritten_by_a_store_with_other_timeouts(self, directory: Path) -> None:
        FileStore(directory, idle_timeout=600, shard_depth=2)
        FileStore(directory, idle_timeout=None, touch_interval=0, durable=True)
        assert manifest(directory) == {
            "format": 1,
            "shard_depth": 2,
            "idle_timeout": None,
            "absolute_timeout": None,
            "touch_interval": 0,
            "durable": True,
        }
        assert os.listdir(directory) == ["filesession.json"]

    def test_it_is_left_alone_by_a_store_that_agrees(self, directory: Path) -> None:
        FileStore(directory, idle_timeout=600)
        before = (directory / "filesession.json").stat().st_ino
        FileStore(directory, idle_timeout=600)
        FileStore.open(directory)
        assert (directory / "filesession.json").stat().st_ino == before

    def test_one_that_is_far_too_long_is_refused_and_not_read_to_its_end(
        self, directory: Path
    ) -> None:
        FileStore(directory)
        os.truncate(directory / "filesession.json", 1 << 32)  # sparse: it takes no space
        with pytest.raises(ConfigurationError, match=r"filesession\.json"):
            FileStore.open(directory)
        with pytest.raises(ConfigurationError, match=r"filesession\.json"):
            FileStore(directory)

    def test_another_shard_depth_is_refused(self, directory: Path) -> None:
        FileStore(directory, shard_depth=2)
        with pytest.raises(ConfigurationError, match="shard_depth=2, not 1"):
            FileStore(directory, shard_depth=1, idle_timeout=5)
        assert manifest(directory)["idle_timeout"] == 1800

    @pytest.mark.parametrize("depth", [-1, 4, 1.0, True, "1"], ids=repr)
    def test_a_shard_depth_that_is_none_is_refused(self, directory: Path, depth: Any) -> None:
        with pytest.raises(ConfigurationError, match="whole number from 0 to 3"):
            FileStore(directory, shard_depth=depth)
        assert not directory.exists()

    @pytest.mark.parametrize("depth", [0, 1, 2, 3])
    def test_a_shard_depth_is_kept_by_the_directory(self, directory: Path, depth: int) -> None:
        record = FileStore(directory, shard_depth=depth).create({"a": 1})
        assert FileStore(directory).load(record.id) == record
        assert FileStore.open(directory).load(record.id) == record
        [path] = (path for path in (directory / "sessions").rglob("*") if path.is_file())
        assert len(path.relative_to(directory / "sessions").parts) == depth + 1

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "garbage",
            "[]",
            "null",
            "{}",
            '{"format": 1}',
            json.dumps(MANIFEST | {"more": 1}),
            json.dumps(MANIFEST | {"shard_depth": 4}),
            json.dumps(MANIFEST | {"shard_depth": True}),
            json.dumps(MANIFEST | {"idle_timeout": -5}),
            json.dumps(MANIFEST | {"absolute_timeout": "1"}),
            json.dumps(MANIFEST | {"touch_interval": False}),
            json.dumps(MANIFEST | {"durable": 1}),
        ],
    )
    def test_garbage_is_refused_and_left(self, directory: Path, content: str) -> None:
        directory.mkdir(0o700)
        (directory / "filesession.json").write_text(content)
        for opened in (FileStore, FileStore.open):
            with pytest.raises(ConfigurationError, match=r"filesession\.json "):
                opened(directory)
        assert (directory / "filesession.json").read_text() == content

    def test_one_of_a_later_format_is_refused_and_left(self, directory: Path) -> None:
        content = '{"format": 2, "shards": "some other way"}'
        directory.mkdir(0o700)
        (directory / "filesession.json").write_text(content)
        with pytest.raises(ConfigurationError, match="another version of filesession"):
            FileStore(directory)
        assert (directory / "filesession.json").read_text() == content

    def test_one_that_cannot_be_read_is_an_error(self, directory: Path) -> None:
        directory.mkdir(0o700)
        (directory / "filesession.json").mkdir()
        with pytest.raises(StoreUnavailable, match=r"filesession\.json: Is a directory"):
            FileStore(directory)

    def test_a_symlink_in_its_place_is_not_followed(self, directory: Path, tmp_path: Path) -> None:
        FileStore(tmp_path / "other")
        directory.mkdir(0o700)
        (directory / "filesession.json").symlink_to(tmp_path / "other" / "filesession.json")
        with pytest.raises(StoreUnavailable):
            FileStore(directory)

    def test_no_failed_call_leaves_half_of_one(self, directory: Path, faults: Faults) -> None:
        FileStore(directory, idle_timeout=600)
        before = (directory / "filesession.json").read_bytes()
        for failing in faults.each(OSError(errno.ENOSPC, "No space left on device")):
            try:
                with failing as calls:
                    FileStore(directory, idle_timeout=700)
            except (StoreError, ConfigurationError):
                after = (directory / "filesession.json").read_bytes()
                assert after == before or json.loads(after)["idle_timeout"] == 700
            else:
                assert manifest(directory)["idle_timeout"] == 700
            assert os.listdir(directory) == ["filesession.json"]
            FileStore(directory, idle_timeout=600)
        assert {"write", "fsync", "rename"} < set(calls)


class TestOpen:
    def test_a_store_is_opened_as_its_manifest_says(self, directory: Path) -> None:
        made = FileStore(directory, idle_timeout=600, absolute_timeout=86400, touch_interval=5)
        opened = FileStore.open(directory)
        assert opened.lifetime == made.lifetime
        assert opened.directory == made.directory
        record = made.create({"a": 1})
        assert opened.load(record.id) == record

    def test_a_directory_that_is_not_there_is_not_made(self, directory: Path) -> None:
        with pytest.raises(ConfigurationError, match="there is no directory"):
            FileStore.open(directory)
        assert not directory.exists()

    def test_a_directory_without_a_manifest_is_no_session_directory(self, directory: Path) -> None:
        directory.mkdir(0o700)
        with pytest.raises(ConfigurationError, match="is no session directory"):
            FileStore.open(directory)
        assert os.listdir(directory) == []

    def test_a_relative_path_stays_where_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store = FileStore("sessions")
        sid = store.create({"a": 1}).id
        monkeypatch.chdir("/")
        assert store.load(sid) is not None
        assert store.directory == str(tmp_path / "sessions")
        assert repr(store) == f"FileStore({str(tmp_path / 'sessions')!r})"


class TestSigningKey:
    def test_it_is_made_once_and_is_the_same_ever_after(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        key = store.signing_key()
        assert len(key) >= 32
        assert store.signing_key() == key
        assert FileStore.open(directory).signing_key() == key
        assert (directory / "secret").read_bytes() == key
        assert raw.mode(directory / "secret") == 0o600
        assert sorted(os.listdir(directory)) == ["filesession.json", "secret"]

    def test_it_is_random(self, tmp_path: Path) -> None:
        keys = {FileStore(tmp_path / str(n)).signing_key() for n in range(3)}
        assert len(keys) == 3

    def test_processes_that_ask_at_the_same_moment_get_the_same(
        self, store: FileStore, directory: Path, processes: Processes
    ) -> None:
        program = """
import sys
from filesession import FileStore
print(FileStore(sys.argv[2]).signing_key().hex())
"""
        printed = processes.run(program, directory, count=8)
        assert set(printed) == {store.signing_key().hex() + "\n"}
        assert sorted(os.listdir(directory)) == ["filesession.json", "secret"]

    def test_one_who_comes_second_gets_the_firsts(
        self, store: FileStore, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = os.link

        def after_another(source: str, target: str) -> None:
            monkeypatch.setattr(os, "link", link)
            first.append(store.signing_key())
            link(source, target)

        first: list[bytes] = []
        monkeypatch.setattr(os, "link", after_another)
        assert store.signing_key() == first[0]
        assert sorted(os.listdir(directory)) == ["filesession.json", "secret"]

    def test_one_of_a_users_own_is_taken(self, store: FileStore, directory: Path) -> None:
        secret = directory / "secret"
        secret.write_text("correct horse battery staple and more\n")
        secret.chmod(0o600)
        assert store.signing_key() == b"correct horse battery staple and more"

    @pytest.mark.parametrize("content", ["", "short", "x" * 31, " " * 64 + "\n"])
    def test_one_that_is_too_short_is_refused(
        self, store: FileStore, directory: Path, content: str
    ) -> None:
        secret = directory / "secret"
        secret.write_text(content)
        secret.chmod(0o600)
        with pytest.raises(ConfigurationError, match=f"rm {secret}, then restart the application"):
            store.signing_key()
        assert secret.read_text() == content

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
    def test_one_that_others_can_read_is_refused(
        self, store: FileStore, directory: Path, mode: int
    ) -> None:
        store.signing_key()
        (directory / "secret").chmod(mode)
        with pytest.raises(ConfigurationError, match=r"read by other users.*rm "):
            store.signing_key()

    @pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
    def test_what_is_no_file_is_refused(
        self, store: FileStore, directory: Path, tmp_path: Path, kind: str
    ) -> None:
        secret, elsewhere = directory / "secret", tmp_path / "elsewhere"
        elsewhere.write_text("x" * 64)
        elsewhere.chmod(0o600)
        if kind == "symlink":
            secret.symlink_to(elsewhere)
        elif kind == "directory":
            secret.mkdir(0o700)
        else:
            os.mkfifo(secret, 0o600)
        with pytest.raises(ConfigurationError, match="no regular file"):
            store.signing_key()

    def test_in_a_directory_that_vanished_none_is_made(
        self, store: FileStore, directory: Path
    ) -> None:
        shutil.rmtree(directory)
        with pytest.raises(StoreUnavailable, match="has vanished"):
            store.signing_key()
        assert not directory.exists()

    def test_no_failed_call_leaves_half_of_one(
        self, store: FileStore, directory: Path, faults: Faults
    ) -> None:
        secret = directory / "secret"
        for failing in faults.each(OSError(errno.ENOSPC, "No space left on device")):
            try:
                with failing as calls:
                    key = store.signing_key()
            except StoreError:
                assert not secret.exists() or len(secret.read_bytes()) == 64
            else:
                assert secret.read_bytes() == key
            for path in directory.glob("secret*"):
                path.unlink()
        assert {"write", "fsync", "link"} < set(calls)


class TestNames:
    """Any file system takes them: one that tells no cases apart, or allows 143 bytes (eCryptfs)."""

    def test_no_name_is_long_or_has_capitals(self, directory: Path, clock: ManualClock) -> None:
        with SystemCalls(only=("open", "mkdir", "rename", "link")) as calls:
            store = FileStore(directory, clock=clock, regenerate_grace=5)
            store.signing_key()
            base = store.create({"text": "x" * 20_000}, sid="A" * 256)
            store.save(base.id, {"n": 1})  # the file is replaced
            store.regenerate(base.id)
            store.create(sid="\u00dc")
            for path in directory.glob("sessions/*/*"):
                path.write_bytes(b"damage")
            assert store.load("\u00dc") is None
            store.sweep()
        paths = {str(path) for call in calls.calls for path in call.arguments[:2]}
        names = {os.path.basename(path) for path in paths if path.startswith(f"{directory}/")}
        assert {name.rpartition(".")[2] for name in names} >= {"tmp", "json", "secret"}
        assert max(map(len, names)) <= 64
        assert all(name == name.lower() and name.isascii() for name in names)


class TestListing:
    def test_sessions_are_told_from_what_else_lies_there(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        path = raw.path(store.create(sid="chosen").id)
        temporary = path.with_name(f".{path.name}.0123456789ab.tmp")
        strangers = [
            path.with_name("editor~"),
            path.with_name(path.name + ".bak"),
            path.with_name(path.name.upper().replace("0", "O")),
            raw.sessions / path.name,  # not in its own shard
            raw.sessions / "lost+found",
        ]
        for other in [temporary, *strangers]:
            other.touch()
        (directory / "secret.0123456789ab.tmp").touch()
        (directory / "notes.txt").touch()
        layout = Layout(str(directory), 1)
        assert list(layout.sessions()) == [(path.name, str(path))]
        assert sorted(layout.strangers()) == sorted(map(str, strangers))
        assert sorted(layout.leftovers()) == [
            str(directory / "secret.0123456789ab.tmp"),
            str(temporary),
        ]

    def test_a_directory_at_a_shards_place_that_is_none_is_a_stranger(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        store.create()
        (raw.sessions / "zz").mkdir()
        (raw.sessions / "abc").mkdir()
        layout = Layout(str(directory), 1)
        assert len(list(layout.sessions())) == 1
        assert sorted(layout.strangers()) == [str(raw.sessions / name) for name in ("abc", "zz")]

    def test_a_shard_that_vanishes_under_the_listing_is_passed_over(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        for n in range(50):
            store.create(sid=str(n))
        listing = Layout(str(directory), 1).sessions()
        next(listing)
        for shard in list(raw.sessions.iterdir()):
            shutil.rmtree(shard)
        assert len(list(listing)) < 50

    def test_an_unreadable_shard_is_an_error(
        self, store: FileStore, directory: Path, faults: Faults
    ) -> None:
        store.create()
        with (
            faults.failing(OSError(errno.EIO, "Input/output error"), 2, only=("scandir",)),
            pytest.raises(StoreUnavailable, match=r"listing .*: Input/output error"),
        ):
            list(store.scan())

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("0123456789abcdef" * 2, True),
            ("0123456789abcdef" * 2 + "\n", False),
            ("0123456789ABCDEF" * 2, False),
            ("0123456789abcdef", False),
            ("../" * 10 + "ab", False),
            ("", False),
        ],
    )
    def test_a_handle_is_thirty_two_hex_digits(self, name: str, ours: bool) -> None:  # noqa: FBT001
        assert is_handle(name) is ours

    def test_by_a_name_that_is_no_handle_nothing_outside_is_reached(
        self, store: FileStore, directory: Path, tmp_path: Path
    ) -> None:
        store.create()
        precious = tmp_path / "precious"
        precious.write_text("precious")
        for way in ("../../precious", "../../../precious", str(precious), "../filesession.json"):
            assert store.evict(way) is False
            assert store.inspect(way) is None
        assert precious.read_text() == "precious"
        assert manifest(directory)["format"] == 1


def make_shards(directory: Path, *paths: str) -> list[str]:
    made = [directory / "sessions" / path for path in paths]
    for path in made:
        path.mkdir(parents=True)
    return [str(path) for path in made]


class TestShards:
    """The directories that hold session files, and what lies in one of them."""

    def test_at_no_depth_it_is_the_root_whether_it_is_there_or_not(
        self, store: FileStore, directory: Path
    ) -> None:
        layout = Layout(str(directory), 0)
        assert list(layout.shards()) == [str(directory / "sessions")]
        assert list(layout.shards(lambda name: False)) == [str(directory / "sessions")]
        assert list(layout.listed(str(directory / "sessions"))) == []

    def test_they_come_in_order_and_no_other_directory_does(
        self, store: FileStore, directory: Path, raw: Raw, tmp_path: Path
    ) -> None:
        shards = make_shards(directory, "ff", "00", "7a", "a0")
        make_shards(directory, "zz", "AB", "abc", "00/11")
        (raw.sessions / "ee").touch()
        (raw.sessions / "dd").symlink_to(tmp_path)
        assert list(Layout(str(directory), 1).shards()) == sorted(shards)

    def test_those_asked_for_are_told_by_the_name_below_the_root(
        self, store: FileStore, directory: Path
    ) -> None:
        shards = make_shards(directory, "00/ff", "00/0a", "ff/00", "ff/ff")
        asked: list[str] = []

        def first(name: str) -> bool:
            asked.append(name)
            return name == "ff"

        assert list(Layout(str(directory), 2).shards(first)) == sorted(shards)[2:]
        assert sorted(asked) == ["00", "ff"]

    def test_of_none_that_was_asked_for_nothing_is_listed(
        self, store: FileStore, directory: Path
    ) -> None:
        make_shards(directory, "00/11", "22/33")
        with SystemCalls(only=("scandir",)) as calls:
            assert list(Layout(str(directory), 2).shards(lambda name: False)) == []
        assert len(calls.calls) == 1

    def test_in_a_directory_that_vanished_there_are_none(
        self, store: FileStore, directory: Path
    ) -> None:
        shutil.rmtree(directory)
        with pytest.raises(StoreUnavailable, match="has vanished"):
            list(Layout(str(directory), 1).shards())

    def test_one_that_cannot_be_listed_is_told_when_the_rest_is(
        self, store: FileStore, directory: Path
    ) -> None:
        shards = make_shards(directory, "00/11", "22/33", "44/55")

        def act(call: SystemCall) -> Any:
            if call.arguments[0].endswith("/22"):
                raise OSError(errno.EIO, "Input/output error")
            return call.make()

        found: list[str] = []
        with (
            SystemCalls(act, only=("scandir",)),
            pytest.raises(StoreUnavailable, match=r"listing .*/22: Input/output error"),
        ):
            found.extend(iter(Layout(str(directory), 2).shards()))
        assert found == [shards[0], shards[2]]

    def test_one_that_vanishes_under_the_listing_is_passed_over(
        self, store: FileStore, directory: Path
    ) -> None:
        shards = make_shards(directory, "00/11", "22/33", "44/55")
        listing = Layout(str(directory), 2).shards()
        assert next(listing) == shards[0]
        shutil.rmtree(directory / "sessions" / "22")
        assert list(listing) == [shards[2]]

    def test_in_one_lie_sessions_and_what_writers_left(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        path = raw.path(store.create(sid="chosen").id)
        temporary = path.with_name(f".{path.name}.0123456789ab.tmp")
        for other in (
            temporary,
            path.with_name("editor~"),
            path.with_name(path.name + ".bak"),
            path.with_name(f"{path.name}.0123456789ab.tmp"),
            path.with_name(("0" if path.name[0] != "0" else "1") + path.name[1:]),
        ):
            other.touch()
        path.with_name("00").mkdir()
        found = dict(Layout(str(directory), 1).listed(str(path.parent)))
        assert found == {path.name: None, temporary.name: str(temporary)}

    def test_in_one_that_is_not_there_lies_nothing(self, store: FileStore, directory: Path) -> None:
        layout = Layout(str(directory), 1)
        assert list(layout.listed(f"{layout.root}/ab")) == []

    def test_one_that_cannot_be_read_is_an_error(
        self, store: FileStore, directory: Path, raw: Raw, faults: Faults
    ) -> None:
        shard = raw.path(store.create(sid="chosen").id).parent
        with (
            faults.failing(OSError(errno.EIO, "Input/output error"), only=("scandir",)),
            pytest.raises(StoreUnavailable, match=f"listing {shard}: Input/output error"),
        ):
            list(Layout(str(directory), 1).listed(str(shard)))


class TestBeside:
    """What lies beside the sessions: documents half written, notes, directories of ours."""

    def test_documents_that_were_left_half_written_are_told_from_all_else(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        path = raw.path(store.create(sid="chosen").id)
        path.with_name(f".{path.name}.0123456789ab.tmp").touch()
        left = [
            directory / f"{name}.0123456789ab.tmp"
            for name in ("filesession.json", "janitor.json", "secret")
        ]
        for other in (*left, directory / "notes.0123456789ab.tmp", directory / "secret.tmp"):
            other.touch()
        layout = Layout(str(directory), 1)
        assert sorted(layout.document_leftovers()) == [str(one) for one in left]

    def test_in_a_directory_that_vanished_nothing_is_left(
        self, store: FileStore, directory: Path
    ) -> None:
        shutil.rmtree(directory)
        with pytest.raises(StoreUnavailable, match="has vanished"):
            list(Layout(str(directory), 1).document_leftovers())

    @pytest.mark.parametrize("where", ["moved", "sooner"])
    def test_notes_have_the_names_of_sessions(
        self, store: FileStore, directory: Path, tmp_path: Path, where: str
    ) -> None:
        layout = Layout(str(directory), 1)
        notes = directory / where
        assert list(layout.notes(str(notes))) == []
        notes.mkdir()
        handle = "0123456789abcdef" * 2
        ours = [notes / handle, notes / f"{handle}.0123456789ab.tmp"]
        for other in (*ours, notes / f"{handle}~", notes / "README", notes / f".{handle}.ab.tmp"):
            other.touch()
        assert sorted(layout.notes(str(notes))) == [str(one) for one in ours]
        shutil.move(notes, tmp_path / "elsewhere")
        notes.symlink_to(tmp_path / "elsewhere")
        assert list(layout.notes(str(notes))) == []

    def test_notes_that_cannot_be_listed_are_an_error(
        self, store: FileStore, directory: Path, faults: Faults
    ) -> None:
        layout = Layout(str(directory), 1)
        with (
            faults.failing(OSError(errno.EIO, "Input/output error"), only=("scandir",)),
            pytest.raises(StoreUnavailable, match="Input/output error"),
        ):
            list(layout.notes(layout.sooner))

    def test_a_directory_of_ours_is_ours_alone_whatever_the_umask(
        self, umask: int, tmp_path: Path, raw: Raw
    ) -> None:
        make_beside(str(tmp_path / "ours"))
        assert raw.mode(tmp_path / "ours") == 0o700
        make_beside(str(tmp_path / "ours"))

    def test_one_that_is_there_is_left_as_it_is(self, tmp_path: Path, raw: Raw) -> None:
        directory = tmp_path / "ours"
        directory.mkdir(0o750)
        (directory / "note").touch()
        before = directory.stat()
        make_beside(str(directory))
        assert directory.stat() == before
        assert os.listdir(directory) == ["note"]

    @pytest.mark.parametrize("dangling", [False, True])
    def test_a_symlink_is_refused(self, tmp_path: Path, dangling: bool) -> None:  # noqa: FBT001
        elsewhere = tmp_path / "elsewhere"
        if not dangling:
            elsewhere.mkdir(0o755)
        link = tmp_path / "ours"
        link.symlink_to(elsewhere)
        with pytest.raises(NotADirectoryError):
            make_beside(str(link))
        assert elsewhere.exists() is not dangling
        assert dangling or elsewhere.stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("call", ["mkdir", "chmod"])
    def test_one_that_cannot_be_made_is_an_error(
        self, tmp_path: Path, faults: Faults, call: str
    ) -> None:
        error = OSError(errno.EROFS, "Read-only file system")
        with faults.failing(error, only=(call,)), pytest.raises(OSError, match="Read-only"):
            make_beside(str(tmp_path / "ours"))
