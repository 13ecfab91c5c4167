"""Secrets: random, of the right size, and for nobody else to read."""

from __future__ import annotations

import base64
import importlib
import os
import re
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands


def genkey(*options: str) -> Result:
    return CliRunner().invoke(commands, ["genkey", *options])


def test_a_key_is_32_bytes_in_base64_and_never_the_same() -> None:
    keys = {genkey().stdout for _ in range(5)}
    assert len(keys) == 5
    for key in keys:
        assert len(base64.b64decode(key, validate=False)) == 32
        assert key.endswith("=\n")


def test_a_key_for_a_file_is_raw_ours_alone_and_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "key"
    before = os.umask(0)
    try:
        result = genkey("-o", str(file))
    finally:
        os.umask(before)
    assert (result.exit_code, result.output) == (0, "")
    assert len(file.read_bytes()) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_there_is_not_overwritten_nor_followed(tmp_path: Path, what: str) -> None:
    target, file = tmp_path / "target", tmp_path / "key"
    if what == "file":
        file.write_bytes(b"precious")
    else:
        file.symlink_to(target)
    result = genkey("-o", str(file))
    assert result.exit_code == 2
    assert "exists and is left as it is" in result.stderr
    assert not target.exists()
    assert what == "link" or file.read_bytes() == b"precious"


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    result = genkey("-o", str(tmp_path / "nowhere" / "key"))
    assert result.exit_code == 2
    directory = tmp_path / "nowhere"
    assert result.stderr.startswith(f"error: there is no directory {directory}; make it first")


@pytest.mark.parametrize("name", ["", "-"])
def test_what_names_no_file_is_refused_and_no_key_is_shown(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = genkey("-o", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "-o takes the name of a new file" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_made_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = genkey("-o", str(tmp_path / ("x" * 300)))
    assert result.exit_code == 2
    assert result.stderr.endswith("cannot be made: File name too long\n")


def test_the_help_names_only_what_there_is() -> None:
    for word in re.findall(r"\b([A-Z][a-z]+[A-Z]\w+)\(", genkey("--help").output):
        assert hasattr(importlib.import_module("filesession.asgi"), word)


def test_a_key_that_cannot_be_written_whole_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, content: bytes) -> None:
        os.write(descriptor, content[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("filesession.cli.genkey.write_all", full)
    result = genkey("-o", str(tmp_path / "key"))
    assert result.exit_code == 2
    assert "No space left" in result.stderr
    assert list(tmp_path.iterdir()) == []
