"""Programs from outside that tests drive, and that a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def required(program: str) -> str:
    """The path of a program; without it the test is skipped, but fails where ``CI=true``.

    Call it in a fixture or a test: what runs at import would stop the whole module.
    """
    path = shutil.which(program)
    if path is not None:
        return path
    reason = f"{program} is not installed on this machine"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
