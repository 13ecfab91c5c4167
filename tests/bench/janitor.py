"""What it costs to remove expired sessions: our janitor beside what others do.

    python tests/bench/janitor.py [--sessions 10000,100000,1000000] [--dir DIR] [--only NAMES]
                                  [--limit 120] [--rounds 3] [--json FILE]

Each cleaner is a process of its own, and works on a directory in its own format with the same data
in every session. The bare loops, find and our sweep work on our directory, and in turn. What takes
over ten seconds is not repeated. A cleaner that is not done within the limit is killed, and
reported so.

All that is made is below one new directory, which is removed at the end, however that comes.

Exit codes: 0 it was measured, 1 something could not be, or a cleaner deleted other than what had
expired, 2 it was called wrongly, or there is not enough room, 130 it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console

from tests.bench import figures, ours
from tests.bench.errors import NotMeasuredError
from tests.bench.figures import FEW, HALF, Row, Size, say
from tests.bench.processes import Children, Cost, program
from tests.bench.trees import IDLE, TREES, OurTree, Tree
from tests.bench.undertaker import Undertaker

SESSIONS: Final = (10_000, 100_000, 1_000_000)

EXPIRED: Final = 100

ROOM_EACH: Final = 4096
"""Bytes a session takes: everybody's fits into one block."""

MEMORY_EACH: Final = 2048
"""Bytes more that the kernel keeps for each file of a tmpfs."""

ROOM_LEFT: Final = 1.2

LONG: Final = 10.0
"""Seconds after which a measurement is not repeated."""

TITLES: Final = {
    "unlink": "bare unlink loop",
    "find": "find -mmin +30 -delete",
    "scan": "scandir + stat loop",
    "django": "Django clearsessions",
    "cachelib": "cachelib prune (in a set)",
    "litestar": "Litestar delete_expired",
    "sweep": "filesession sweep",
    "cold": "filesession janitor, cold start",
    "janitor": "filesession janitor, running",
}

INTERRUPTED: Final = 130
"""The exit code, as of a shell's."""

SIMPLE: Final = ("unlink", "find", "scan", "sweep")
DAEMON: Final = {"cold": ours.cold, "janitor": ours.scheduled}
OTHERS: Final = ("django", "cachelib", "litestar")
MORE: Final = ("lag", "idle", "requests")

NOTES: Final = """\
Time and CPU (user + system) of the work; of find and of a janitor's cold start, of the whole
process. The running janitor's time is that of its sweeps as it tells it, and its CPU all that the
process had from the moment the sessions fell due until it told that they are gone. First gone: from
the start of the process, its imports included, to the first deletion; for the running janitor from
the moment they fell due, with a sweep every {interval:g} s. Where a measurement was repeated: the
median, and the least and most. Peak memory: VmHWM. To floor: the time for half, in units of the
bare unlink loop's. All files are in the page cache. They are written with each library's own
serialiser, and compared with what its own calls write. cachelib's threshold is one below what is
stored, so that it removes what has expired and no more."""


class Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace, place: Path, children: Children) -> None:
        self._options = options
        self._place = place
        self._children = children
        self.sizes: list[Size] = []
        self.requests: ours.Requests | None = None
        self.wrong: list[str] = []

    def run(self, console: Console) -> None:
        """Measure, and print each size's table when it is done."""
        for count in self._options.sessions:
            size = Size(count, min(EXPIRED, count // 2))
            self.sizes.append(size)
            try:
                self._measure(size)
            finally:  # who interrupts it has waited long for what there is
                if size.rows:
                    console.print(figures.cleaners_table(size, TITLES))
        if self._wants("requests"):
            doing = f"requests, while {ours.CLEARED:,} are cleared"
            with self._attempting(doing), self._directory("requests") as place:
                self.requests = ours.requests(self._children, place, 10 * self._options.limit)

    def _measure(self, size: Size) -> None:
        names = [name for name in (*SIMPLE, *DAEMON, "lag", "idle") if self._wants(name)]
        if names:
            with self._tree("ours", size.count) as tree:
                assert isinstance(tree, OurTree)
                self._measure_ours(size, tree)
        for name in OTHERS:
            if self._wants(name):
                row = size.rows[name] = Row()
                try:
                    with self._tree(name, size.count) as tree:
                        self._measure_cases(size, tree, {name: row})
                except ModuleNotFoundError as error:
                    row.why[FEW] = f"{error.name} is not installed"

    def _measure_ours(self, size: Size, tree: OurTree) -> None:
        rows = {name: Row() for name in SIMPLE if self._wants(name)}
        size.rows |= rows
        self._measure_cases(size, tree, rows)
        for name, measure in DAEMON.items():
            if self._wants(name):
                row = size.rows[name] = Row()
                for case in (FEW, HALF):
                    act = partial(measure, self._children, tree, size.expired(case))
                    with self._attempting(f"{size.count:,}: {name}, {case} expired", row, case):
                        self._repeat_daemon(size, tree, row, case, act)
        limit = 10 * self._options.limit
        if self._wants("lag"):
            with self._attempting(f"{size.count:,}: lag at {ours.CREATIONS:,} creations a second"):
                size.lag = ours.lag(self._children, tree, limit)
        if self._wants("idle"):
            with self._attempting(f"{size.count:,}: idle for {ours.IDLE_WINDOW:g} s"):
                size.idle = ours.idle(self._children, tree, limit)

    def _repeat_daemon(
        self, size: Size, tree: Tree, row: Row, case: str, act: Callable[[float], Cost]
    ) -> None:
        costs = row.costs.setdefault(case, [])
        while len(costs) < self._options.rounds:
            costs.append(act(self._options.limit))
            self._check(tree, size.expired(case), row, case, costs[-1])
            if costs[-1].stopped or costs[-1].seconds > LONG:
                return

    def _measure_cases(self, size: Size, tree: Tree, rows: dict[str, Row]) -> None:
        """Each cleaner in turn, again and again: what slows the machine down slows all."""
        for case in (FEW, HALF):
            expired = size.expired(case)
            for number in range(self._options.rounds):
                for name, row in rows.items():
                    if not self._may_repeat(row, case, number):
                        continue
                    doing = f"{size.count:,}: {name}, {case} expired, {number + 1}"
                    with self._attempting(doing, row, case):
                        self._clean(name, tree, expired, row, case)

    def _clean(self, name: str, tree: Tree, expired: int, row: Row, case: str) -> None:
        tree.expire(expired)
        command = self._command(name, tree, expired)
        cost = self._children.cost(command, tree.folders(), self._options.limit)
        row.costs.setdefault(case, []).append(cost)
        self._check(tree, expired, row, case, cost)

    @contextmanager
    def _attempting(self, doing: str, row: Row | None = None, case: str = "") -> Iterator[None]:
        """Say what is being done, and why it could not be; then go on with something else."""
        say(doing)
        try:
            yield
        except NotMeasuredError as error:
            self.wrong.append(f"{doing}: {error}")
            if row is not None:
                row.why[case] = "not measured"

    def _may_repeat(self, row: Row, case: str, number: int) -> bool:
        few, costs = row.costs.get(FEW, []), row.costs.get(case, [])
        if case == HALF and few and few[0].stopped:
            row.why[HALF] = f"not run: {EXPIRED} took too long"
            return False
        if not costs:
            return not number
        return not (costs[0].stopped or costs[0].seconds > LONG)

    def _command(self, name: str, tree: Tree, expired: int) -> list[str]:
        place = str(tree.place)
        if name == "find":
            old = ("-type", "f", "-mmin", f"+{IDLE // 60}", "-delete")
            return ["find", f"{place}/sessions", *old]
        if name == "scan":
            return program("cleaners", name, f"{place}/sessions", f"{tree.due_after}")
        if name == "unlink":
            listing = self._place / "expired"
            listing.write_text("\n".join(sorted(map(tree.path, range(expired)))), encoding="ascii")
            return program("cleaners", name, place, str(listing))
        if name == "cachelib":
            return program("cleaners", name, place, str(tree.count - 1))
        return program("cleaners", name, place)

    def _check(self, tree: Tree, expired: int, row: Row, case: str, cost: Cost) -> None:
        """See whether what had expired is gone, and nothing else is."""
        tree.tidy()
        gone = tree.count - tree.remaining()
        if cost.stopped:
            row.why[case] = f"{gone:,} of {expired:,} gone"
        elif gone != expired:
            row.why[case] = f"deleted {gone:,}, not {expired:,}"
            self.wrong.append(f"{tree.place.name}, {tree.count:,}, {case}: {row.why[case]}")

    def _wants(self, name: str) -> bool:
        return name in self._options.only

    @contextmanager
    def _tree(self, name: str, count: int) -> Iterator[Tree]:
        say(f"{count:,}: making {name}")
        with self._directory(name) as place:
            tree = TREES[name](place, count)
            tree.build()
            tree.check()
            yield tree

    @contextmanager
    def _directory(self, name: str) -> Iterator[Path]:
        place = self._place / name
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _parsed(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console = Console(width=None if sys.stdout.isatty() else 160)
    place = Path(tempfile.mkdtemp(prefix="filesession-bench-", dir=options.dir))
    interrupted = False
    with Undertaker(place) as undertaker:
        where = figures.machine(place)
        for name, value in where.items():
            console.print(f"{name}: {value}", highlight=False)
        bench = Bench(options, place, Children(place, undertaker))
        try:
            bench.run(console)
        except KeyboardInterrupt:
            say(f"interrupted; removing {place}")
            interrupted = True
    _print(console, bench)
    if options.json is not None:
        found = figures.document(where, bench.sizes, bench.requests)
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for words in bench.wrong:
        say(f"not as it should be: {words}")
    if interrupted:
        return INTERRUPTED
    return 1 if bench.wrong else 0


def _print(console: Console, bench: Bench) -> None:
    console.print(NOTES.format(interval=ours.INTERVAL), highlight=False)
    tables: Iterable[Any] = (
        figures.each_table(bench.sizes, {n: t for n, t in TITLES.items() if n not in OTHERS}),
        figures.lag_table(bench.sizes),
        figures.idle_table(bench.sizes),
        *([] if bench.requests is None else [figures.requests_table(bench.requests)]),
    )
    for table in tables:
        if table.row_count:
            console.print(table)
    if any(size.idle is not None for size in bench.sizes):
        words = (
            f"* from {ours.IDLE_WINDOW:g} s with a sweep every {ours.IDLE_WINDOW:g} s;"
            f" {ours.TOUCHES:,} sessions are touched a second."
        )
        console.print(words, highlight=False)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = (*TITLES, *MORE)
    parser = argparse.ArgumentParser(
        prog="janitor.py", description="What it costs to remove expired sessions."
    )
    parser.add_argument(
        "--sessions",
        type=_counts,
        default=[10_000, 100_000, 1_000_000],
        help="10000,100000,1000000",
    )
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="/dev/shm")
    parser.add_argument("--only", type=_names, default=names, help=",".join(names))
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for each; 120")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(arguments)
    unknown = set(options.only) - set(names)
    if unknown:
        parser.error(f"--only knows {', '.join(names)}, not {', '.join(sorted(unknown))}")
    if options.rounds < 1 or not options.limit > 0:
        parser.error("--rounds and --limit are positive")
    if not options.dir.is_dir():
        parser.error(f"there is no directory {options.dir}; name one with --dir")
    most = max(*options.sessions, ours.CLEARED + ours.BESIDE if "requests" in options.only else 0)
    refusal = _refusal(options.dir, most)
    if refusal is not None:
        parser.error(refusal)
    return options


def _refusal(directory: Path, count: int) -> str | None:
    """Why so many sessions cannot be made there; None: they can."""
    found = os.statvfs(directory)
    room, files = found.f_bavail * found.f_frsize, found.f_favail
    wanted, memory = ROOM_LEFT * count * ROOM_EACH, figures.available_memory()
    hint = "name another place with --dir, or fewer with --sessions"
    if room < wanted:
        takes = f"{count:,} sessions take {wanted / 1e9:.1f} GB"
        return f"{takes}, and {directory} has {room / 1e9:.1f} GB; {hint}"
    if found.f_files and files < count * ROOM_LEFT:
        takes = f"{count:,} sessions are as many files"
        return f"{takes}, and {directory} has room for {files:,}; {hint}"
    wanted += ROOM_LEFT * count * MEMORY_EACH
    if figures.is_in_memory(directory) and memory < wanted:
        takes = f"{count:,} sessions in {directory} take {wanted / 1e9:.1f} GB of memory"
        return f"{takes}, and {memory / 1e9:.1f} GB are free; {hint}"
    return None


def _counts(text: str) -> list[int]:
    counts = [int(each) for each in text.split(",")]
    if min(counts) < 2:
        msg = "two sessions at least"
        raise argparse.ArgumentTypeError(msg)
    return counts


def _names(text: str) -> list[str]:
    return text.split(",")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
