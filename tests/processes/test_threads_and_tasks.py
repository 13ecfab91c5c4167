"""Threads, tasks and processes that lock the same sessions in every order: no deadlock."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from filesession import asgi
from filesession.errors import LockTimeout, SessionExists, SessionGone
from filesession.runner import LoopRunner, RequestRunner
from filesession.session import Session
from tests.processes.conftest import (
    PATIENCE,
    SECRET,
    Fork,
    Place,
    in_background,
    nothing_left,
    request_asgi,
    result_of,
)
from tests.session.conftest import a_session

ACCOUNTS: Final = ("id-a", "id-b", "id-c")
START: Final = 100
ROUNDS: Final = 25

KINDS: Final = ("sync", "async")

BRIEFLY: Final = 0.002
"""Seconds that one waits for the second lock before it gives back the first."""


def count(request: Request) -> PlainTextResponse:
    with request.session.lock(timeout=PATIENCE):  # type: ignore[attr-defined]
        request.session["n"] = request.session.get("n", 0) + 1
    request.session[f"sync {request.path_params['n']}"] = True
    return PlainTextResponse("done")


async def acount(request: Request) -> PlainTextResponse:
    async with request.session.alock(timeout=PATIENCE):  # type: ignore[attr-defined]
        n = request.session.get("n", 0)
        await asyncio.sleep(0)
        request.session["n"] = n + 1
    request.session[f"async {request.path_params['n']}"] = True
    return PlainTextResponse("done")


@pytest.mark.parametrize("offload", [None, True], ids=["on the loop", "in threads"])
def test_endpoints_in_threads_and_on_the_loop_of_one_app_share_a_session(
    place: Place, *, offload: bool | None
) -> None:
    app = asgi.SessionMiddleware(
        Starlette(routes=[Route("/sync/{n}", count), Route("/async/{n}", acount)]),
        place.store,
        SECRET,
        offload=offload,
    )

    async def requests() -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(
                *(request_asgi(app, path=f"/{kind}/{n}") for n in range(30) for kind in KINDS)
            )

    with nothing_left():
        asyncio.run(requests())
    expected: dict[str, Any] = {f"{kind} {n}": True for n in range(30) for kind in KINDS}
    assert place.data() == expected | {"n": 60}
    assert place.is_free()


class Bank:
    """Moves money between sessions, whose locks it takes in any order, and gives up politely."""

    def __init__(self, place: Place) -> None:
        self._store = place.store
        self._runner = LoopRunner(place.store, None)
        for sid in ACCOUNTS:
            place.store.create({"money": START, "moved": 0}, sid=sid)

    def work(self, seed: int) -> None:
        """Move as often as it is to; blocks."""
        dice = random.Random(seed)  # noqa: S311 - no secret
        moved = 0
        while moved < ROUNDS:
            source, target = dice.sample(ACCOUNTS, 2)
            ours, theirs = a_session(self._store, source), a_session(self._store, target)
            try:
                with ours.lock(timeout=PATIENCE), theirs.lock(timeout=BRIEFLY):
                    self._move(ours, theirs, dice.randrange(5))
            except LockTimeout:
                continue
            moved += 1

    async def awork(self, seed: int) -> None:
        """The same on an event loop."""
        dice = random.Random(seed)  # noqa: S311 - no secret
        moved = 0
        while moved < ROUNDS:
            ours, theirs = map(self._session, dice.sample(ACCOUNTS, 2))
            try:
                async with ours.alock(timeout=PATIENCE), theirs.alock(timeout=BRIEFLY):
                    await asyncio.sleep(0)
                    self._move(ours, theirs, dice.randrange(5))
            except LockTimeout:
                continue
            moved += 1

    def _session(self, sid: str) -> Session:
        session = a_session(self._store, sid)
        session._visit.runner = RequestRunner(self._runner)
        return session

    def _move(self, source: Session, target: Session, money: int) -> None:
        source["money"] -= money
        target["money"] += money
        source["moved"] += 1


def test_whoever_locks_two_sessions_in_whatever_order_comes_to_an_end(
    place: Place, fork: Fork
) -> None:
    bank = Bank(place)

    async def in_tasks() -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(bank.awork(1), bank.awork(2))

    process = fork(lambda: bank.work(3))
    threads = [in_background(partial(bank.work, seed)) for seed in (4, 5)]
    asyncio.run(in_tasks())
    for thread in threads:
        result_of(thread)
    process.join()
    accounts = [place.data(sid) for sid in ACCOUNTS]
    assert sum(account["money"] for account in accounts) == START * len(ACCOUNTS)
    assert sum(account["moved"] for account in accounts) == ROUNDS * 5
    assert all(place.is_free(sid) for sid in ACCOUNTS)


def test_sessions_that_are_moved_to_each_others_ids_in_every_order_come_to_rest(
    place: Place, fork: Fork
) -> None:
    place.store.clear()
    place.store._access.timeout = 0.02
    ids = ("id-1", "id-2", "id-3", "id-4")
    for sid in ids[:2]:
        place.store.create({"of": sid}, sid=sid)

    def work(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - no secret
        for _ in range(60):
            old, new = dice.sample(ids, 2)
            try:
                place.store.regenerate(old, new_sid=new)
            except (SessionGone, SessionExists, LockTimeout):
                continue

    process = fork(lambda: work(1))
    threads = [in_background(partial(work, seed)) for seed in (2, 3)]
    for thread in threads:
        result_of(thread)
    process.join()
    found = [place.data(sid) for sid in ids]
    assert sorted(data["of"] for data in found if data is not None) == ["id-1", "id-2"]
    assert len(place.files()) == 2
    assert not place.temporary()
