"""Processes that do everything to a few sessions at once, a killer and a janitor beside them.

    python tests/torture/torture.py [--seconds 120] [--seed N] [--workers 4] [--durable] [--grace]
                                    [--dir DIR] [--judge HISTORY]

What each process did, and was told, is written down as it happens; afterwards the history is held
against what a store promises. A call is certainly before another if it ended before the other
began; one whose process was killed may have happened or not. ``--judge`` judges a kept history
again.

A seed draws what is done and when; how the machine interleaves it, it does not.

Exit codes: 0 nothing was found, 1 something was, 2 it was called wrongly.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from filesession import FileStore
from tests.torture.history import UnreadableError
from tests.torture.judge import judged
from tests.torture.killer import Killer, Settings
from tests.torture.verdict import KINDS, Verdict

SHOWN: Final = 5
"""Violations of each kind that are told with their lines."""

GRACE: Final = 0.5
"""Seconds: with an idle timeout of 1.5, both ends of it are met often."""


def main(arguments: Sequence[str] | None = None, make: Callable[..., FileStore] = FileStore) -> int:
    """The exit code. ``make`` makes the store that is tortured."""
    options = _parsed(arguments)
    if options.judge is not None:
        return _judge(options.judge, f"--judge {options.judge}")
    directory = options.dir or Path(tempfile.mkdtemp(prefix="filesession-torture-"))
    settings = Settings(
        directory,
        options.seed,
        seconds=options.seconds,
        workers=options.workers,
        durable=options.durable,
        grace=GRACE if options.grace else None,
        make=make,
    )
    _say(f"seed {settings.seed}, {settings.seconds:g} s, {settings.workers} workers, {directory}")
    directory.mkdir(parents=True, exist_ok=True)
    logging.getLogger("filesession").addHandler(logging.FileHandler(directory / "store.log"))
    killer = Killer(settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, killer.end)
    killer.run()
    if killer.ending:
        _say("told to end; this is about what was done until then")
    code = _judge(settings.history, f"seed {settings.seed}")
    if not code and options.dir is None:
        shutil.rmtree(directory)
    return code


def _parsed(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(
        prog="torture.py", description="Hold a file store against its promises, under kills."
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="how long; 120")
    parser.add_argument("--seed", type=int, help="draw the same again")
    parser.add_argument("--workers", type=int, default=4, help="processes of two threads; 4")
    parser.add_argument("--durable", action="store_true", help="a store that waits for the disk")
    parser.add_argument("--grace", action="store_true", help="a store with regenerate_grace")
    parser.add_argument("--dir", type=Path, help="an empty or new directory, which is kept")
    parser.add_argument("--judge", type=Path, metavar="HISTORY", help="only judge this")
    options = parser.parse_args(arguments)
    if not options.seconds > 0 or options.workers < 1:
        parser.error("--seconds and --workers are positive")
    if options.dir is not None and options.dir.exists() and any(options.dir.iterdir()):
        parser.error(f"{options.dir} is not empty")
    if options.judge is not None and not options.judge.is_file():
        parser.error(f"there is no {options.judge}")
    if options.seed is None:
        options.seed = secrets.randbelow(1 << 32)
    return options


def _judge(history: Path, seed: str) -> int:
    began = time.monotonic()
    try:
        with history.open(encoding="utf-8", errors="replace") as lines:
            verdict = judged(lines)
    except UnreadableError as error:
        _say(f"{history} is no history: {error}")
        return 2
    _say(_table(verdict))
    _say(f"judged in {time.monotonic() - began:.1f} s")
    if not verdict.violations:
        _say(f"nothing found ({seed})")
        return 0
    _say(_found(verdict, history))
    _say(f"{len(verdict.violations)} found ({seed}); the history is {history}")
    _say(f"to judge it again: python tests/torture/torture.py --judge {history}")
    return 1


def _table(verdict: Verdict) -> str:
    """What was done, what it told, what happened meanwhile, and what was checked."""
    outcomes = ("ok", "gone", "exists", "conflict", "timeout", "killed", "failed")
    rows = [f"{'':12}" + "".join(f"{outcome:>10}" for outcome in outcomes)]
    for verb in sorted({verb for verb, _ in verdict.told}):
        counts = (verdict.told[verb, outcome] for outcome in outcomes)
        rows.append(f"{verb:12}" + "".join(f"{count or '-':>10}" for count in counts))
    rows.append(f"{sum(verdict.told.values())} calls")
    happened = verdict.happened
    rows.append(
        f"{happened['rounds']} rounds, {happened['start']} workers, {happened['kill']} killed,"
        f" {happened['stop']} stopped; {happened['janitor']} janitors;"
        f" {happened['expired']} sessions expired"
    )
    rows += [f"checked: {kind:12} {verdict.checks[kind]:>10}" for kind in KINDS]
    return "\n".join(rows)


def _found(verdict: Verdict, history: Path) -> str:
    """The first violations of each kind, with the lines that prove them."""
    shown = []
    for kind, meaning in KINDS.items():
        found = [each for each in verdict.violations if each.kind == kind]
        if found:
            shown.append((f"{kind}: {meaning} ({len(found)})", found[:SHOWN]))
    wanted = {line for _, found in shown for each in found for line in each.lines}
    with history.open(encoding="utf-8", errors="replace") as lines:
        texts = {number: text.strip() for number, text in enumerate(lines, 1) if number in wanted}
    rows = []
    for title, found in shown:
        rows.append(title)
        for each in found:
            rows.append(f"  {each.words}")
            rows += [f"    {line}: {texts[line][:400]}" for line in each.lines]
    return "\n".join(rows)


def _say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
