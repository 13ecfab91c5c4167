"""What is measured of our janitor alone."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.daemon import Daemon, janitor
from tests.bench.deletions import Deletions
from tests.bench.errors import TooSlowError
from tests.bench.processes import Children, Cost, program
from tests.bench.trees import OurTree

LEAD: Final = 5.0
LEAD_EACH: Final = 60e-6
"""Seconds, and as many for each session, for a janitor to start and look at everything. Where that
is not enough it is doubled, ``TRIES`` times."""

TRIES: Final = 3

INTERVAL: Final = 5.0
"""Seconds between the sweeps when it is measured what one of them takes."""

CREATIONS: Final = 2000
CREATING: Final = 10.0
CREATED_IDLE: Final = 3.0
CREATED_INTERVAL: Final = 1.0
"""Sessions a second, for how many seconds, with which idle timeout; and between the sweeps."""

TOUCHES: Final = 1000
"""A second. With half as many a million sessions stay alive that are touched twice an hour."""

IDLE_WINDOW: Final = 30.0
"""Seconds over which an idle janitor is watched, and between its sweeps: it is one of them."""

REQUESTS: Final = 500
"""A second, each a load and a save."""

CLEARED: Final = 100_000
BESIDE: Final = 150_000
"""Sessions that are cleared while requests are measured, and those that live: more, as a janitor
may hesitate to delete most of what there is."""

QUIET: Final = 5.0
"""Seconds of requests without a janitor, before and after."""

SAMPLED: Final = 500
"""Of the cleared, those by which it is told whether they are gone."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How late sessions were deleted that were made at a high rate; all in seconds.

    Attributes:
        made: sessions.
        rate: of them a second, as it came to be.
        never: those not deleted within the limit.
        early: those deleted before they might have been.
        cpu: the janitor's, while they were made and deleted.
        lags: of each session, from the moment it might be deleted; sorted.
        full_looks: that the janitor took meanwhile.
    """

    made: int
    rate: float
    never: int
    early: int
    cpu: float
    lags: Sequence[float]
    full_looks: int


@dataclass(frozen=True, slots=True)
class Idle:
    """What a janitor took that had nothing to delete.

    Attributes:
        cpu: seconds of it within the window.
        window: seconds.
        sweeps: within the window.
        expired: sessions it deleted all the same; not idle, then.
        peak: bytes in memory at most, ever.
    """

    cpu: float
    window: float
    sweeps: int
    expired: int
    peak: int


@dataclass(frozen=True, slots=True)
class Requests:
    """Seconds that each request's load and save took; sorted.

    Attributes:
        load, save: without a janitor.
        load_beside, save_beside: while one cleared.
        cleared: sessions it deleted meanwhile.
        seconds: that this took.
    """

    load: Sequence[float]
    save: Sequence[float]
    load_beside: Sequence[float]
    save_beside: Sequence[float]
    cleared: int
    seconds: float


def cold(children: Children, tree: OurTree, count: int, limit: float) -> Cost:
    """Start a janitor where ``count`` have expired already; until they are gone.

    Seconds and CPU are those of the process from its start on.
    """
    tree.expire(count)
    with Deletions(tree.folders(), first=True) as log:
        began = time.perf_counter()
        with janitor(children, tree.place, INTERVAL) as daemon:
            found = log.wait(limit)
            first = time.perf_counter() - began if found else None
            try:
                daemon.wait(lambda done: done.expired >= count and done.full_looks > 0, limit)
            except TooSlowError:
                return _cost(daemon, time.perf_counter() - began, 0.0, first, stopped=True)
            return _cost(daemon, time.perf_counter() - began, 0.0, first)


def scheduled(children: Children, tree: OurTree, count: int, limit: float) -> Cost:
    """What a janitor takes that runs already when ``count`` sessions expire, all at one moment.

    Its CPU is what the whole process had from that moment until the heartbeat told that they are
    gone. The first deletion is counted from that moment, too.
    """
    lead = LEAD + LEAD_EACH * tree.count
    for _ in range(TRIES):
        due = time.time() + lead + count * LEAD_EACH
        tree.fall_due(count, due)
        with janitor(children, tree.place, INTERVAL) as daemon:
            try:
                daemon.wait(lambda done: done.full_looks > 0, due - time.time())
            except TooSlowError:
                lead *= 2
                continue
            return _falling_due(daemon, tree, count, due, limit)
    msg = f"no janitor looked at everything within {lead / 2:.0f} s"
    raise TooSlowError(msg)


def _falling_due(daemon: Daemon, tree: OurTree, count: int, due: float, limit: float) -> Cost:
    patience = INTERVAL + limit  # it begins at its next sweep
    with Deletions(tree.folders(), first=True) as log:
        while time.time() < due:
            daemon.totals()
            time.sleep(max(0.0, min(0.1, due - time.time())))
        before, cpu = daemon.totals(), daemon.cpu()
        found = log.wait(patience)
    first = found[0][1] - due if found else None
    try:
        after = daemon.wait(lambda done: done.expired - before.expired >= count, patience)
    except TooSlowError:
        return _cost(daemon, patience, cpu, first, stopped=True)
    return _cost(daemon, after.seconds - before.seconds, cpu, first)


def lag(children: Children, tree: OurTree, limit: float) -> Lag:
    """How late a janitor deletes what was made at 2,000 a second, beside the tree's sessions."""
    tree.expire(0)
    made = children.place / "made"
    figures = (f"{CREATIONS}", f"{CREATING}", f"{CREATED_IDLE}")
    command = program("load", "create", str(tree.place), *figures, str(made))
    gone: dict[str, float] = {}
    with janitor(children, tree.place, CREATED_INTERVAL) as daemon:
        daemon.wait(lambda done: done.full_looks > 0, limit)
        before, cpu = daemon.totals(), daemon.cpu()
        with (
            Deletions(tree.folders()) as log,
            children.started(command, stdout=subprocess.PIPE) as creator,
        ):
            while creator.poll() is None:
                gone.update(log.wait(0.05))
                daemon.totals()
            assert creator.stdout is not None
            span = float(creator.stdout.read().split()[-1])
            due = dict(_lines(made))
            end = time.monotonic() + limit
            while len(gone) < len(due) and time.monotonic() < end:
                gone.update(log.wait(0.05))
                daemon.totals()
        cpu, after = daemon.cpu() - cpu, daemon.totals()
    lags = sorted(gone[handle] - moment for handle, moment in due.items() if handle in gone)
    return Lag(
        made=len(due),
        rate=(len(due) - 1) / span,
        never=len(due) - len(lags),
        early=sum(each < 0 for each in lags),
        cpu=cpu,
        lags=lags,
        full_looks=after.full_looks - before.full_looks,
    )


def idle(children: Children, tree: OurTree, limit: float) -> Idle:
    """What a janitor takes of which nothing is wanted: each session that could fall due is touched.

    They would all fall due in turn within an idle timeout, as in the long run they would; from the
    beginning of the window on there is always one.
    """
    lead = LEAD + 2 * LEAD_EACH * tree.count
    due = time.time() + lead
    tree.fall_due_in_turn(due)
    listing = children.place / "touched"
    listing.write_text("\n".join(map(tree.path, range(tree.count))), encoding="ascii")
    touching = program("load", "touch", str(listing), f"{TOUCHES}")
    with janitor(children, tree.place, IDLE_WINDOW) as daemon:
        daemon.wait(lambda done: done.full_looks > 0, limit)
        with children.started(touching, stdout=subprocess.PIPE) as toucher:
            _await_begin(toucher)
            time.sleep(max(1.0, due - time.time()))
            before, cpu, began = daemon.totals(), daemon.cpu(), time.monotonic()
            daemon.wait(lambda _: time.monotonic() - began >= IDLE_WINDOW, 2 * IDLE_WINDOW, 0.25)
            cpu, window = daemon.cpu() - cpu, time.monotonic() - began
            after = daemon.totals()
            return Idle(
                cpu=cpu,
                window=window,
                sweeps=after.sweeps - before.sweeps,
                expired=after.expired - before.expired,
                peak=daemon.peak(),
            )


def requests(children: Children, place: Path, limit: float) -> Requests:
    """What a load and a save take while a janitor clears 100,000 sessions, and while none does."""
    tree = OurTree(place, CLEARED + BESIDE)
    tree.build()
    tree.expire(CLEARED)
    step = CLEARED // SAMPLED
    sample = [tree.path(number) for number in range(0, CLEARED, step)]
    file = children.place / "asked"
    command = program("load", "request", str(place), str(CLEARED), f"{REQUESTS}", str(file))
    with children.started(command, stdout=subprocess.PIPE) as requesting:
        _await_begin(requesting)
        quiet_from = time.time()
        time.sleep(QUIET)
        quiet_until = time.time()
        with Deletions(tree.folders(), first=True) as log, janitor(children, place, INTERVAL):
            found = log.wait(limit)
            cleared_from = found[0][1] if found else time.time()
            end = time.monotonic() + limit
            while sample and time.monotonic() < end:
                sample = [path for path in sample if os.path.exists(path)]
                time.sleep(0.05)
            cleared_until = time.time()
        quiet_again = time.time()
        time.sleep(QUIET)
    took = [tuple(map(float, line.split())) for line in file.read_text().splitlines()]
    alone = [each for each in took if quiet_from <= each[0] < quiet_until or each[0] > quiet_again]
    beside = [each for each in took if cleared_from <= each[0] < cleared_until]
    return Requests(
        load=sorted(each[1] for each in alone),
        save=sorted(each[2] for each in alone),
        load_beside=sorted(each[1] for each in beside),
        save_beside=sorted(each[2] for each in beside),
        cleared=CLEARED + BESIDE - tree.remaining(),
        seconds=cleared_until - cleared_from,
    )


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which that part of them lies; nan when there are none."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _cost(
    daemon: Daemon, seconds: float, cpu: float, first: float | None, *, stopped: bool = False
) -> Cost:
    return Cost(
        seconds=seconds, cpu=daemon.cpu() - cpu, peak=daemon.peak(), first=first, stopped=stopped
    )


def _lines(made: Path) -> Iterator[tuple[str, float]]:
    for line in made.read_text(encoding="ascii").splitlines():
        handle, due = line.split()
        yield handle, float(due)


def _await_begin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.readline()
