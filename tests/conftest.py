"""What tests of every part need."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import PATIENCE, Door


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A new directory that other users can reach, as they cannot those below ``tmp_path``."""
    path = Path(tempfile.mkdtemp(prefix="filesession-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def door() -> Iterator[Door]:
    """Holds requests of real servers, which connect to its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield Door(listening)
