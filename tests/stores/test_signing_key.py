"""The signing key: made once for all workers, theirs alone, refused where it is unsafe."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from filesession.errors import ConfigurationError, StoreError, StoreUnavailable
from filesession.stores import FileStore

if TYPE_CHECKING:
    from tests.stores.conftest import Faults, Processes, Raw


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
