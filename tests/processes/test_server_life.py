"""Servers whose workers are forked, killed, replaced and stopped while requests are under way."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from filesession import FileStore
from tests.serving import PATIENCE, Answer, Door, Site, serving

SERVERS: Final = {
    "gunicorn": "gunicorn tests.processes.preloaded_app:wsgi --preload --workers 3 --threads 4"
    " -k gthread -b fd://{fd} --no-control-socket --graceful-timeout 5",
    "uvicorn": "uvicorn tests.processes.preloaded_app:asgi --workers 2 --fd {fd}",
}

WORKERS: Final = {"gunicorn": 3, "uvicorn": 2}

AT_ONCE: Final = 8.0
"""Seconds in which nobody gives up a lock: a session's is waited for 10."""

CUT_OFF: Final = (ConnectionError, http.client.HTTPException)
"""What a browser sees of a request whose worker goes before it answers."""


@pytest.fixture(params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    """Which server."""
    name: str = request.param
    return name


@pytest.fixture
def site(name: str, tmp_path: Path) -> Iterator[Site]:
    with serving(SERVERS[name], tmp_path) as site:
        until_at_work(site, WORKERS[name])
        yield site


def until_at_work(site: Site, count: int, *, but: int | None = None) -> None:
    """Wait until so many workers have answered.

    One that is told to stop before it is at work may not hear of it, and is then killed.
    """
    workers: set[int] = set()
    ends = time.monotonic() + PATIENCE
    with ThreadPoolExecutor(8) as pool:
        while len(workers - {but}) < count:
            assert time.monotonic() < ends, workers
            workers |= {answer.worker for answer in pool.map(site.ask, ["/see"] * 8)}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


class Visitors:
    """Browsers that add one key after the other to one session and count, until told to stop.

    Attributes:
        added: the keys of requests that were answered.
        counted: how many counting requests were answered.
        cut_off: how many requests were not.
        workers: the processes that answered.
    """

    def __init__(self, site: Site, cookie: str, *, count: int = 4) -> None:
        self._site = site
        self._cookie = cookie
        self._stop = threading.Event()
        self.added: set[str] = set()
        self.counted = self.cut_off = 0
        self.workers: set[int] = set()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(count)
        self._visits = [self._pool.submit(self._visit, number) for number in range(count)]

    def _visit(self, number: int) -> None:
        n = 0
        while not self._stop.is_set():
            n += 1
            key = f"{number}.{n}"
            path = "/count" if n % 5 == 0 else f"/add/{key}"
            try:
                answer = self._site.ask(path, self._cookie)
            except CUT_OFF:
                self.cut_off += 1
                if self._stop.wait(0.01):
                    return
                continue
            assert answer.status == 200, answer
            with self._changed:
                self._note(answer, path, key)
                self._changed.notify_all()

    def _note(self, answer: Answer, path: str, key: str) -> None:
        self.workers.add(answer.worker)
        if path == "/count":
            self.counted += 1
        else:
            self.added.add(key)

    def until(self, is_so: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(is_so, PATIENCE)

    def stop_asking(self) -> None:
        """No more requests from here on; those under way go on."""
        self._stop.set()

    def stop(self) -> None:
        self._stop.set()
        self._pool.shutdown()
        for visit in self._visits:
            visit.result()


@contextmanager
def visitors(site: Site, cookie: str) -> Iterator[Visitors]:
    visiting = Visitors(site, cookie)
    try:
        yield visiting
    finally:
        visiting.stop()


def stored(site: Site) -> dict[str, object]:
    """The one session."""
    store = FileStore(site.directory)
    (info,) = store.scan()
    found = store.inspect(info.handle)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", ["gunicorn"])
def test_preloaded_workers_lose_nothing_and_nothing_that_they_answered_when_they_are_replaced(
    site: Site,
) -> None:
    with visitors(site, site.start()) as visiting:
        visiting.until(lambda: len(visiting.workers) == 3 and len(visiting.added) > 100)
        before = set(visiting.workers)
        site.process.send_signal(signal.SIGHUP)
        visiting.until(lambda: len(visiting.workers - before) == 3)
        visiting.workers.clear()
        visiting.until(lambda: visiting.workers and not visiting.workers & before)
    found = stored(site)
    assert visiting.added <= found.keys()
    counted = found["count"]
    assert isinstance(counted, int)
    assert visiting.counted <= counted <= visiting.counted + visiting.cut_off


def test_a_worker_that_is_killed_inside_the_lock_keeps_no_other_waiting(
    name: str, site: Site, pool: ThreadPoolExecutor, door: Door
) -> None:
    cookie = site.start()
    waiting: list[Future[Answer]] = []
    begun = 0.0
    inside = pool.submit(site.ask, f"/inside/{door.port}", cookie)
    with door.opened() as told:
        killed = int(told.readline())
        assert site.ask("/see", cookie).session == {"started": True}
        waiting = [pool.submit(site.ask, "/count", cookie) for _ in range(4)]
        begun = time.monotonic()
        os.kill(killed, signal.SIGKILL)
    with pytest.raises(CUT_OFF):
        inside.result()
    answered = [future.result() for future in waiting if future.exception() is None]
    cut_off = [future.exception() for future in waiting if future.exception() is not None]
    assert time.monotonic() - begun < AT_ONCE
    assert all(isinstance(error, CUT_OFF) for error in cut_off)  # they were the killed worker's
    assert all(answer.status == 200 and answer.worker != killed for answer in answered)
    last = site.ask("/count", cookie)
    assert last.session == {"started": True, "count": len(answered) + 1}
    until_at_work(site, WORKERS[name], but=killed)


def test_a_server_that_is_told_to_stop_loses_no_request_that_it_answers(
    site: Site, pool: ThreadPoolExecutor, door: Door
) -> None:
    cookie = site.start()
    with visitors(site, cookie) as visiting:
        visiting.until(lambda: len(visiting.added) > 20)
        slow = pool.submit(site.ask, f"/inside/{door.port}", cookie)
        with door.opened() as told:
            assert told.readline()
            site.process.send_signal(signal.SIGTERM)
            visiting.stop_asking()
        answer, begun = slow.result(), time.monotonic()
        assert site.process.wait(PATIENCE) in {0, -signal.SIGTERM}
        assert time.monotonic() - begun < AT_ONCE
    assert (answer.status, answer.session["inside"]) == (200, True)
    found = stored(site)
    assert {"inside", *visiting.added} <= found.keys()
    assert not list(site.directory.rglob("*.tmp"))
