"""Both stores, the file store in each of its forms, through the suite that every store passes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import pytest

from filesession.clock import Clock
from filesession.encryption import EncryptedCodec
from filesession.stores import FileStore, MemoryStore
from filesession.testing import StoreContract


class TestMemoryStore(StoreContract):
    def make_store(self, clock: Clock, **timeouts: Any) -> MemoryStore:
        return MemoryStore(clock=clock, **timeouts)


class TestFileStore(StoreContract):
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    directory: Path

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "sessions"

    def make_store(self, clock: Clock, **timeouts: Any) -> FileStore:
        return FileStore(self.directory, clock=clock, **self.options, **timeouts)


class TestDurableFileStore(TestFileStore):
    options = MappingProxyType({"durable": True})


class TestFlatFileStore(TestFileStore):
    options = MappingProxyType({"shard_depth": 0})


class TestDeeplyShardedFileStore(TestFileStore):
    options = MappingProxyType({"shard_depth": 2})


class TestEncryptedFileStore(TestFileStore):
    options = MappingProxyType({"codec": EncryptedCodec(bytes(range(32)))})
