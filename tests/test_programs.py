"""A test that needs a program from outside is skipped without it, but never in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import required


@pytest.fixture
def empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH on which no program is."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_its_path_is_given_where_it_is_there(empty_path: Path) -> None:
    program = empty_path / "nginx"
    program.touch(0o755)
    assert required("nginx") == str(program)


@pytest.mark.parametrize("ci", [None, "", "false"])
def test_without_it_the_test_is_skipped_and_says_why(
    empty_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str | None
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.skip.Exception, match="nginx is not installed on this machine"):
        required("nginx")


def test_in_ci_the_test_fails_without_it(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="nginx is not installed on this machine"):
        required("nginx")
