"""What the command finds around it: the environment of a user's shell."""

from __future__ import annotations

import os
import sys

import pytest


@pytest.fixture(autouse=True)
def _a_users_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is buffered, so that it may fail late; and the command is found by its name."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
