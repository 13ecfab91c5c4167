"""What tests of every part need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A new directory that other users can reach, as they cannot those below ``tmp_path``."""
    path = Path(tempfile.mkdtemp(prefix="filesession-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
