"""What an application does beside the janitor, each in a process of its own.

    python -m tests.bench.load create DIR RATE SECONDS IDLE FILE
    python -m tests.bench.load touch LISTING RATE
    python -m tests.bench.load request DIR FIRST RATE FILE

Each begins with a line on its output. ``create`` writes one line for each session it made: its
stored name and the moment at which a janitor may delete it. ``touch`` goes through the listed files
over and over, until it is killed. ``request`` asks for a thousand sessions of our tree, from the
number ``FIRST`` on, and when it is told to end writes one line for each request: when it began, and
the seconds that load and save took.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from filesession import FileStore
from filesession.lifetime import UNSET
from filesession.stores.entry import handle_of
from tests.bench.trees import DATA, OurTree

COMPACT: Final = 0.001
"""Seconds that are worth sleeping for."""


ASKED: Final = 1000
"""Sessions that requests are for."""


def create(directory: str, rate: str, seconds: str, idle: str, file: str) -> None:
    """Make sessions at a rate, with an idle timeout of their own."""
    store = FileStore.open(directory)
    lifetime = store.lifetime.overridden(float(idle), UNSET)
    count = round(float(rate) * float(seconds))
    _begin()
    made = [store.create(DATA, idle_timeout=float(idle)) for _ in _paced(float(rate), count)]
    lines = (
        f"{handle_of(each.id)} {lifetime.due_at(each.created_at, each.accessed_at)}"
        for each in made
    )
    Path(file).write_text("\n".join(lines), encoding="ascii")
    _say(f"{made[-1].created_at - made[0].created_at}")


def touch(listing: str, rate: str) -> None:
    """Touch files at a rate, the first of the listing first: a touch is one utime."""
    paths = Path(listing).read_text(encoding="ascii").splitlines()
    _begin()
    for number in _paced(float(rate)):
        os.utime(paths[number % len(paths)])


def request(directory: str, first: str, rate: str, file: str) -> None:
    """Load a session, change it and save it, as a request does, at a rate."""
    store = FileStore.open(directory)
    took: list[tuple[float, float, float]] = []
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    _begin()
    for number in _paced(float(rate)):
        if told:
            break
        sid = OurTree.sid(int(first) + number % ASKED)
        moment, began = time.time(), time.perf_counter()
        record = store.load(sid)
        loaded = time.perf_counter()
        assert record is not None
        record.data["page"] = number
        changed = time.perf_counter()
        store.save(sid, record.data, base=record)
        took.append((moment, loaded - began, time.perf_counter() - changed))
    lines = (f"{moment} {load} {save}" for moment, load, save in took)
    Path(file).write_text("\n".join(lines), encoding="ascii")


def _begin() -> None:
    _say("begun")


def _say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def _paced(rate: float, count: int | None = None) -> Iterator[int]:
    """0, 1, 2 and so on, ``rate`` of them a second; who is late makes up for it."""
    began = time.perf_counter()
    for number in itertools.count() if count is None else range(count):
        early = began + number / rate - time.perf_counter()
        if early > COMPACT:
            time.sleep(early)
        yield number


PROGRAMS: Final[dict[str, Callable[..., None]]] = {
    each.__name__: each for each in (create, touch, request)
}


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
