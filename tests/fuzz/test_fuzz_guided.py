"""The program of the coverage-guided run: what it says, tries again and ends with.

The fuzzer itself is stood in for, as its package is not among those that tests may need.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from pathlib import Path

import pytest

from filesession.cookies.signing import Signer
from tests.fuzz.guided import NO_ATHERIS, main
from tests.fuzz.targets import TARGETS

FUZZER = """#!{python}
import sys
options = dict(each.split("=", 1) for each in sys.argv[7:])
print("#7 DONE   cov: 5 ft: 9 corp: 3/40b lim: 8 exec/s: 21 rss: 70Mb", file=sys.stderr)
if {finds}:
    open(options["-artifact_prefix"] + "crash-1", "wb").write(b"found")
    sys.exit("AssertionError: planted")
"""


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, finds: bool) -> None:
    """Have children run a program that prints what libFuzzer prints."""
    program = tmp_path / "fuzzer"
    program.write_text(FUZZER.format(python=sys.executable, finds=finds))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: True)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_without_atheris_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert main(["--seconds", "1"]) == 2
    assert NO_ATHERIS in capsys.readouterr().err


def test_a_target_that_there_is_not_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--target", "cookies"]) == 2
    told = capsys.readouterr().err
    assert all(name in told for name in TARGETS)


def test_each_target_runs_for_its_share_and_its_figures_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, monkeypatch, finds=False)
    assert main(["--seconds", "14", "--seed", "5", "--keep", str(tmp_path / "kept")]) == 0
    head, *lines, total = capsys.readouterr().out.splitlines()
    assert head.startswith("seed 5, 14 s, cookie-value, cookie-header")
    assert [line.split()[0] for line in lines] == list(TARGETS)
    assert all(
        "7 inputs      5 edges       9 features     3 in the corpus" in each for each in lines
    )
    assert total == f"{7 * len(TARGETS)} inputs"
    assert sorted(os.listdir(tmp_path / "kept")) == sorted(TARGETS)
    assert len(os.listdir(tmp_path / "kept" / "arguments")) == len(
        set(TARGETS["arguments"].seeds())
    )


def test_what_was_found_is_told_with_a_line_that_tries_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, monkeypatch, finds=True)
    assert main(["--target", "cookie-value"]) == 1
    told = capsys.readouterr().out
    assert "AssertionError: planted" in told
    *_, again = told.splitlines()
    name, path = again.split()[-3::2]
    assert name == "cookie-value"
    assert Path(path).read_bytes() == b"found"
    assert main(["--target", name, "--input", path]) == 0
    assert "nothing was found" in capsys.readouterr().out


def test_an_input_that_fails_fails_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"s:signed.mac")
    monkeypatch.setattr(Signer, "unsign", lambda _self, _value: ("signed", True))
    with pytest.raises(AssertionError):
        main(["--target", "cookie-value", "--input", str(path)])
