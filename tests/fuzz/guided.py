"""Coverage-guided fuzzing of every surface: inputs that reach new code are kept and varied further.

    python tests/fuzz/guided.py [--seconds 120] [--seed N] [--target NAME ...] [--keep DIR]
    python tests/fuzz/guided.py --target NAME --input FILE

Each target runs in a process of its own for its share of the time, from a corpus of valid inputs,
kept in DIR for the next run when one is named. With ``--input`` one input is tried, as a run that
found something says.

It needs atheris: pip install '.[testing,fuzz]'. ``--input`` does not.

Exit codes: 0 nothing was found, 1 something was, 2 it was called wrongly, or has no atheris.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import logging
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

PROGRAM: Final = Path(__file__).resolve()

NO_ATHERIS: Final = (
    "atheris is needed, which varies inputs by the code they reach: pip install '.[testing,fuzz]'"
)

SLOWEST: Final = 20
"""Seconds for one input; more is a finding."""

GRACE: Final = 60.0
"""Seconds that a target's process may take beyond its share, to start and to end."""

_PROGRESS: Final = re.compile(
    rb"#(\d+)\s+[A-Z]+\s+cov: (\d+) ft: (\d+)(?: corp: (\d+)/\S+)?.*?exec/s: (\d+)"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one target's process did."""

    name: str
    seconds: float
    inputs: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    reproducer: Path | None = None
    told: str = ""

    def __str__(self) -> str:
        rate = self.inputs / max(self.seconds, 1e-9)
        return (
            f"{self.name:<14}{self.inputs:>10,} inputs{self.edges:>7,} edges"
            f"{self.features:>8,} features{self.corpus:>6,} in the corpus"
            f"{self.seconds:>7.0f} s{rate:>8,.0f}/s"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _parsed(arguments)
    if options.child is not None:
        name, place = options.child
        return _fuzz(name, place, options.libfuzzer)
    targets = _targets()
    names = options.target or list(targets)
    unknown = [name for name in names if name not in targets]
    if unknown:
        _complain(f"there is no target {unknown[0]}; there are {', '.join(targets)}")
        return 2
    if options.input is not None:
        return _try(targets[names[0]], options.input)
    if importlib.util.find_spec("atheris") is None:
        _complain(NO_ATHERIS)
        return 2
    corpora = options.keep or Path(tempfile.mkdtemp(prefix="filesession-corpora-"))
    _say(f"seed {options.seed}, {options.seconds:g} s, {', '.join(names)}")
    shares = sum(targets[name].share for name in names)
    outcomes = []
    try:
        for name in names:
            seconds = max(1, round(options.seconds * targets[name].share / shares))
            outcome = _run(name, targets[name], corpora / name, seconds, options.seed)
            _say(outcome)
            outcomes.append(outcome)
    finally:
        if options.keep is None:
            shutil.rmtree(corpora)
    _say(f"{sum(each.inputs for each in outcomes):,} inputs")
    found = [each for each in outcomes if each.told]
    for each in found:
        _say(f"\n{each.told}\n{each.name} failed")
        if each.reproducer is not None:
            _say(f"again: python {PROGRAM} --target {each.name} --input {each.reproducer}")
    return 1 if found else 0


def _say(words: object) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _complain(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120, help="in all; 120")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31 - 1) + 1)
    parser.add_argument("--target", action="append", metavar="NAME", help="all")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the corpora are kept")
    parser.add_argument("--input", type=Path, metavar="FILE", help="try one input of --target")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("libfuzzer", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.input is not None and len(options.target or ()) != 1:
        parser.error("--input goes with one --target")
    return options


def _targets() -> dict[str, Target]:
    """The targets; their module is loaded late, for a child to have it instrumented."""
    return cast("dict[str, Target]", importlib.import_module("tests.fuzz.targets").TARGETS)


def _try(target: Target, path: Path) -> int:
    """Let one input be judged here; what it raises is raised."""
    with tempfile.TemporaryDirectory(prefix="filesession-fuzz-") as directory:
        target.make(Path(directory))(path.read_bytes())
    _say("nothing was found")
    return 0


def _run(name: str, target: Target, corpus: Path, seconds: int, seed: int) -> Outcome:
    corpus.mkdir(parents=True, exist_ok=True)
    for each in target.seeds():
        (corpus / hashlib.sha1(each, usedforsecurity=False).hexdigest()).write_bytes(each)
    artifacts = Path(tempfile.mkdtemp(prefix=f"filesession-{name}-"))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="filesession-fuzz-", dir=_fast()) as place:
        words = Path(place, "words")
        words.write_text("".join(f'"{_spelled(word)}"\n' for word in target.words))
        told, failed = _ended(
            seconds + GRACE,
            *(sys.executable, str(PROGRAM), "--child", name, place, "--", str(corpus)),
            *(f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={artifacts}/"),
            *(f"-max_len={target.longest}", f"-dict={words}", f"-timeout={SLOWEST}"),
            *("-rss_limit_mb=2048", "-print_final_stats=1", "-use_value_profile=1"),
        )
    found = sorted(artifacts.iterdir())
    if not found:
        artifacts.rmdir()
    figures = _PROGRESS.findall(told) or [(b"0",) * 4]
    inputs, edges, features, size = (int(figure or 0) for figure in figures[-1][:4])
    return Outcome(
        *(name, time.monotonic() - begun, inputs, edges, features, size),
        found[0] if found else None,
        told[-6000:].decode("utf-8", "replace") if failed or found else "",
    )


def _ended(timeout: float, *command: str) -> tuple[bytes, bool]:
    """What a program printed, and whether it failed; it is ended when its time is over."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"") + (error.stderr or b"") + b"\nit did not end in time", True
    return done.stdout + done.stderr, done.returncode != 0


def _spelled(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word[:60])


def _fuzz(name: str, place: str, libfuzzer: Sequence[str]) -> int:
    """In a process of its own: never returns, as libFuzzer ends it."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["filesession"]):
        target = _targets()[name]
    logging.disable(logging.CRITICAL)
    directory = Path(place, "judged")
    directory.mkdir()
    run: Callable[[bytes], None] = target.make(directory)
    atheris.Setup([str(PROGRAM), *libfuzzer], run)
    atheris.Fuzz()
    return 0


def _fast() -> str | None:
    """In memory, where there is such a place: most inputs are files."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    sys.exit(main())
