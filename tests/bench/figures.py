"""What was measured, and how it is told: tables for people, JSON for programs."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from tests.bench.ours import Idle, Lag, Requests, quantile
from tests.bench.processes import Cost

FLOOR: Final = "unlink"

HALF: Final = "half"
FEW: Final = "few"

UNITS: Final = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))

LIBRARIES: Final = ("filesession", "Django", "cachelib", "litestar")


@dataclass
class Row:
    """One cleaner at one number of sessions.

    Attributes:
        costs: by ``FEW`` and ``HALF``: every repetition.
        why: likewise, why there are none, or what is to be known of them.
    """

    costs: dict[str, list[Cost]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


@dataclass
class Size:
    """All that was measured at one number of sessions."""

    count: int
    few: int
    rows: dict[str, Row] = field(default_factory=dict)
    lag: Lag | None = None
    idle: Idle | None = None

    def expired(self, case: str) -> int:
        """How many sessions expire in ``FEW`` or ``HALF``."""
        return self.few if case == FEW else self.count // 2


def machine(directory: Path) -> dict[str, str]:
    """Where it was measured, and with what."""
    cpu = _first("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    memory = int((_first("/proc/meminfo", "MemTotal") or "0").split()[0])
    load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
    return {
        "machine": f"{os.cpu_count()} x {cpu}, {memory / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{load} (1, 5, 15 min; near 0 on a quiet machine)",
        "file system": f"{_file_system(directory)} at {directory}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
    }


def cleaners_table(size: Size, titles: dict[str, str]) -> Table:
    """Ours beside the others, at one number of sessions."""
    table = Table(title=f"{size.count:,} sessions", title_justify="left")
    table.add_column("cleaner")
    for case in (f"{size.few:,} expired", "half expired"):
        for name in (case, "CPU", "first gone after"):
            table.add_column(name, justify="right")
    table.add_column("to floor", justify="right")
    table.add_column("peak memory", justify="right")
    floor = _typical(size.rows.get(FLOOR, Row()).costs.get(HALF, []))
    for name, title in titles.items():
        if name not in size.rows:
            continue
        row = size.rows[name]
        cells = [title]
        for case in (FEW, HALF):
            cells += _cells(row.costs.get(case, []), row.why.get(case, ""))
        half = _typical(row.costs.get(HALF, []))
        cells.append(f"{half / floor:.2f}x" if half and floor else "")
        cells.append(_peak(cost for costs in row.costs.values() for cost in costs))
        table.add_row(*cells)
    return table


def each_table(sizes: Iterable[Size], titles: dict[str, str]) -> Table:
    """What one expired session costs us, at every number of sessions."""
    sizes = list(sizes)
    table = Table(title="microseconds for each expired session (CPU)", title_justify="left")
    table.add_column("cleaner")
    for size in sizes:
        table.add_column(f"{size.few:,} of {size.count:,}", justify="right")
    for size in sizes:
        table.add_column(f"half of {size.count:,}", justify="right")
    for name, title in titles.items():
        cells = [
            _each(size.rows.get(name, Row()).costs.get(case, []), size.expired(case))
            for case in (FEW, HALF)
            for size in sizes
        ]
        if any(cells):
            table.add_row(title, *cells)
    return table


def lag_table(sizes: Iterable[Size]) -> Table:
    """How late our janitor is when many sessions are made."""
    table = Table(title="made at a high rate, and deleted how late", title_justify="left")
    for name in ("beside", "made", "a second", "late by p50", "p99", "most", "early", "never"):
        table.add_column(name, justify="right")
    table.add_column("CPU for each", justify="right")
    table.add_column("full looks", justify="right")
    for size in sizes:
        lag = size.lag
        if lag is not None:
            table.add_row(
                f"{size.count:,}",
                f"{lag.made:,}",
                f"{lag.rate:,.0f}",
                *(seconds_text(quantile(lag.lags, part)) for part in (0.5, 0.99, 1)),
                f"{lag.early:,}",
                f"{lag.never:,}",
                seconds_text(lag.cpu / lag.made),
                f"{lag.full_looks}",
            )
    return table


def idle_table(sizes: Iterable[Size]) -> Table:
    """What our janitor takes when nothing expires."""
    table = Table(title="idle, the live sessions being touched", title_justify="left")
    for name in ("sessions", "CPU a minute *", "of a core", "sweeps", "expired", "peak memory"):
        table.add_column(name, justify="right")
    for size in sizes:
        idle = size.idle
        if idle is not None:
            table.add_row(
                f"{size.count:,}",
                seconds_text(60 * idle.cpu / idle.window),
                f"{100 * idle.cpu / idle.window:.2f} %",
                f"{idle.sweeps}",
                f"{idle.expired:,}",
                size_text(idle.peak),
            )
    return table


def requests_table(requests: Requests) -> Table:
    """What requests feel of our janitor."""
    title = f"requests while {requests.cleared:,} are cleared in {seconds_text(requests.seconds)}"
    table = Table(title=title, title_justify="left")
    for name in ("", "requests", "p50", "p99", "p99.9", "most"):
        table.add_column(name, justify="right")
    for name, times in (
        ("load", requests.load),
        ("load beside the janitor", requests.load_beside),
        ("save", requests.save),
        ("save beside the janitor", requests.save_beside),
    ):
        parts = (seconds_text(quantile(times, part)) for part in (0.5, 0.99, 0.999, 1))
        table.add_row(name, f"{len(times):,}", *parts)
    return table


def document(
    where: dict[str, str], sizes: Iterable[Size], requests: Requests | None
) -> dict[str, Any]:
    """All figures, the many single ones as quantiles."""
    told = []
    for size in sizes:
        each = asdict(size)
        if size.lag is not None:
            each["lag"]["lags"] = _quantiles(size.lag.lags)
        told.append(each)
    asked = None
    if requests is not None:
        asked = {
            name: value if isinstance(value, (int, float)) else _quantiles(value)
            for name, value in asdict(requests).items()
        }
    return {"where": where, "sizes": told, "requests": asked}


def seconds_text(seconds: float) -> str:
    """A time in three digits: ``4.18 ms``."""
    unit, scale = _unit(seconds)
    return f"{_digits(seconds / scale)} {unit}"


def size_text(size: float) -> str:
    """Bytes in MiB."""
    return f"{size / 2**20:,.1f} MiB"


def _unit(seconds: float) -> tuple[str, float]:
    """The unit that suits a time, and its seconds."""
    return next((each for each in UNITS if abs(seconds) >= each[1]), UNITS[-1])


def _digits(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _cells(costs: Sequence[Cost], why: str) -> list[str]:
    if not costs:
        return [why, "", ""]
    if costs[0].stopped:
        cost = costs[0]
        cells = [f"> {cost.seconds:.0f} s (stopped)", f"> {seconds_text(cost.cpu)}"]
    else:
        cells = [_spread([cost.seconds for cost in costs]), _spread([cost.cpu for cost in costs])]
    firsts = [cost.first for cost in costs if cost.first is not None]
    cells.append(_spread(firsts) if firsts else "none gone")
    if why:
        cells[0] += f"\n{why}"
    return cells


def _spread(values: Sequence[float]) -> str:
    typical = statistics.median(values)
    if len(values) == 1:
        return seconds_text(typical)
    least, most = seconds_text(min(values)), seconds_text(max(values))
    if least.split()[1] == most.split()[1]:
        least = least.split()[0]
    return f"{seconds_text(typical)}\n{least} - {most}"


def _typical(costs: Sequence[Cost]) -> float | None:
    done = [cost.seconds for cost in costs if not cost.stopped]
    return statistics.median(done) if done else None


def _peak(costs: Iterable[Cost]) -> str:
    costs = list(costs)
    if not costs:
        return ""
    most = size_text(max(cost.peak for cost in costs))
    return f">= {most}" if any(cost.stopped for cost in costs) else most


def _each(costs: Sequence[Cost], expired: int) -> str:
    seconds = _typical(costs)
    if seconds is None:
        return ""
    cpu = statistics.median(cost.cpu for cost in costs)
    return f"{1e6 * seconds / expired:,.1f} ({1e6 * cpu / expired:,.1f})"


def _quantiles(ordered: Sequence[float]) -> dict[str, float]:
    parts = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "most": 1}
    return {"count": len(ordered)} | {
        name: quantile(ordered, part) for name, part in parts.items() if ordered
    }


def _first(path: str, name: str) -> str | None:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _file_system(directory: Path) -> str:
    """Of the mounts above the directory the longest, and of several there the last."""
    found = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, kind, options, *_ = line.split()
        above = mount == "/" or f"{directory.resolve()}/".startswith(f"{mount}/")
        if above and len(mount) >= len(found[0]):
            found = (mount, f"{kind} ({options})")
    return found[1]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def available_memory() -> int:
    """Bytes."""
    return 1024 * int((_first("/proc/meminfo", "MemAvailable") or "0").split()[0])


def is_in_memory(directory: Path) -> bool:
    """Whether the files there are kept in memory alone."""
    return _file_system(directory).startswith(("tmpfs", "ramfs"))


def say(words: str) -> None:
    """Tell on stderr what is going on."""
    sys.stderr.write(words + "\n")
    sys.stderr.flush()
