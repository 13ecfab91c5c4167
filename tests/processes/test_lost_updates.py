"""No update is lost: requests of processes, threads and tasks that change one session at once.

Without servers: each request goes through the middleware as a server would have it go.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from tests.processes.conftest import (
    PATIENCE,
    Fork,
    Gate,
    Place,
    in_background,
    request_asgi,
    request_wsgi,
    result_of,
    under_asgi,
    under_wsgi,
)

TIMES: Final = 1000 if os.environ.get("FILESESSION_COUNTER") == "all" else 250
"""Increments of each of the eight; with ``FILESESSION_COUNTER=all`` in the environment, 1,000."""


def add_key(session: Any, path: str) -> None:
    session[path[1:]] = True


@pytest.mark.parametrize("gateway", ["asgi", "wsgi", "both"])
def test_of_keys_that_requests_of_four_processes_add_none_is_lost(
    place: Place, fork: Fork, gate: Callable[[], Gate], gateway: str
) -> None:
    start = gate()

    def work(number: int) -> None:
        start.wait()
        paths = [f"/{number}.{n}" for n in range(50)]
        if gateway == "wsgi" or (gateway == "both" and number % 2):
            app = under_wsgi(add_key, place.store)
            for path in paths:
                request_wsgi(app, path=path)
        else:
            app = under_asgi(add_key, place.store)
            asyncio.run(_one_after_the_other(app, paths))

    children = [fork(partial(work, number)) for number in range(4)]
    for _ in children:
        start.open()
    for child in children:
        child.join()
    assert place.data() == {f"{number}.{n}": True for number in range(4) for n in range(50)}
    assert place.is_whole()


async def _one_after_the_other(app: Any, paths: list[str]) -> None:
    for path in paths:
        await request_asgi(app, path=path)


class Counter:
    """An application that counts its requests in the session, and notices if two count at once.

    Besides the count there is a file that whoever is inside the lock makes, and removes: it cannot
    be made while it is there.
    """

    def __init__(self, place: Place) -> None:
        self._marker = str(place.directory.parent / "inside")
        self.wsgi = under_wsgi(self._count, place.store)
        self.asgi = under_asgi(self._acount, place.store)

    def _count(self, session: Any, _: str) -> None:
        with session.lock(timeout=PATIENCE):
            self._enter()
            session["n"] = session.get("n", 0) + 1
            os.unlink(self._marker)

    async def _acount(self, session: Any, _: str) -> None:
        async with session.alock(timeout=PATIENCE):
            self._enter()
            n = session.get("n", 0)
            await asyncio.sleep(0)
            session["n"] = n + 1
            os.unlink(self._marker)

    def _enter(self) -> None:
        os.close(os.open(self._marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def work(self, threads: int, tasks: int) -> None:
        """Make the requests of so many threads and tasks of this process at the same time."""

        async def in_tasks() -> None:
            paths = ["/"] * TIMES
            await asyncio.gather(*(_one_after_the_other(self.asgi, paths) for _ in range(tasks)))

        def in_a_thread() -> None:
            for _ in range(TIMES):
                request_wsgi(self.wsgi)

        counting = [in_background(in_a_thread) for _ in range(threads)]
        asyncio.run(in_tasks())
        for each in counting:
            result_of(each)


def test_a_counter_under_the_lock_is_exact_for_processes_threads_and_tasks_together(
    place: Place, fork: Fork
) -> None:
    counter = Counter(place)
    children = [
        fork(lambda: counter.work(threads=2, tasks=0)),
        fork(lambda: counter.work(threads=0, tasks=2)),
        fork(lambda: counter.work(threads=1, tasks=0)),
    ]
    counter.work(threads=1, tasks=2)
    for child in children:
        child.join()
    assert place.data() == {"n": 8 * TIMES}
    assert place.is_free()
