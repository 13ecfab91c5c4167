"""The directory: who may use it, its modes, its manifest."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import ConfigurationError, StoreError, StoreUnavailable
from filesession.stores import FileStore
from filesession.testing import ManualClock
from tests.stores.conftest import manifest

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
