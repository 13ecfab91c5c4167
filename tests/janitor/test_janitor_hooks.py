"""Telling of expired sessions in threads: real ones, held and released by events."""

from __future__ import annotations

import functools
import logging
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from filesession.errors import ConfigurationError
from filesession.janitor import hooks
from filesession.janitor.hooks import BATCH, ROOM, Hook, each
from filesession.record import SessionInfo
from tests.janitor.grounds import LOG
from tests.janitor.janitors import INFO, Hooked, infos, said
from tests.processes.conftest import Child
from tests.waiting import PATIENCE, wait_until


class Deliveries:
    """What was delivered; each delivery waits for its turn while the gate is closed."""

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[list[SessionInfo]] = queue.SimpleQueue()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, batch: Sequence[SessionInfo]) -> None:
        self.begun.put(list(batch))
        assert self.gate.wait(PATIENCE)

    def next(self) -> list[SessionInfo]:
        return self.begun.get(timeout=PATIENCE)


@pytest.fixture
def deliveries() -> Iterator[Deliveries]:
    made = Deliveries()
    yield made
    made.gate.set()


class TestHook:
    def test_the_first_is_told_of_at_once_and_what_expires_meanwhile_together(
        self, hooked: Hooked, deliveries: Deliveries
    ) -> None:
        deliveries.gate.clear()
        hook = hooked(deliveries)
        first, *others = infos(4)
        hook.put(first)
        assert deliveries.next() == [first]
        for info in others:
            hook.put(info)
        deliveries.gate.set()
        assert deliveries.next() == others

    def test_no_more_than_a_batch_is_told_of_together(self, deliveries: Deliveries) -> None:
        hook = Hook(deliveries, LOG)
        for info in infos(2 * BATCH + 1):
            hook.put(info)
        hook.start()
        assert [len(deliveries.next()) for _ in range(3)] == [BATCH, BATCH, 1]
        hook.stop(PATIENCE)

    def test_what_finds_the_queue_full_is_counted_and_said_once_until_there_is_room(
        self, deliveries: Deliveries, log: pytest.LogCaptureFixture
    ) -> None:
        hook = Hook(deliveries, LOG)
        full = "10,000 expired sessions wait to be told of; until there is room no more are"
        for times in (1, 2):
            for info in infos(ROOM + 3):
                hook.put(info)
            assert hook.dropped == 3 * times
            assert said(log, logging.WARNING).count(full) == times
            hook.start()
            hook.stop(PATIENCE)
            assert said(log, logging.WARNING)[-1] == "there is room again: 3 sessions not told of"
        told = [info for _ in range(2 * ROOM // BATCH) for info in deliveries.next()]
        assert told == 2 * infos(ROOM)
        assert deliveries.begun.empty()

    def test_one_that_is_slow_says_that_there_is_room_when_it_has_caught_up_not_for_each_batch(
        self, hooked: Hooked, log: pytest.LogCaptureFixture
    ) -> None:
        begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        turn = threading.Semaphore(0)

        def deliver(batch: Sequence[SessionInfo]) -> None:
            begun.put(len(batch))
            assert turn.acquire(timeout=PATIENCE)

        hook = hooked(deliver)
        hook.put(INFO)
        for expected in (1, BATCH):
            assert begun.get(timeout=PATIENCE) == expected
            while hook.dropped < (2 if expected == BATCH else 1):
                hook.put(INFO)
            turn.release()
        (full,) = said(log, logging.WARNING)
        turn.release(2 * ROOM)
        hook.stop(PATIENCE)
        assert said(log, logging.WARNING) == [full, "there is room again: 2 sessions not told of"]

    @pytest.mark.parametrize("failure", [OSError(5, "the mail is down"), SystemExit(3)])
    def test_a_delivery_that_fails_is_said_once_and_the_next_is_made(
        self, hooked: Hooked, log: pytest.LogCaptureFixture, failure: BaseException
    ) -> None:
        reached: queue.SimpleQueue[str] = queue.SimpleQueue()

        def deliver(batch: Sequence[SessionInfo]) -> None:
            reached.put(batch[0].handle)
            raise failure

        hook = hooked(deliver)
        for info in infos(3):
            hook.put(info)
            assert reached.get(timeout=PATIENCE) == info.handle
        hook.stop(PATIENCE)
        (error,) = said(log, logging.ERROR)
        assert error.startswith(f"telling of expired sessions failed with {failure!r}")
        assert f"{type(failure).__name__} at {__file__}:" in error

    def test_a_stop_lets_it_tell_of_all_that_waits(
        self, hooked: Hooked, deliveries: Deliveries, log: pytest.LogCaptureFixture
    ) -> None:
        deliveries.gate.clear()
        hook = hooked(deliveries)
        for info in infos(3):
            hook.put(info)
        first = deliveries.next()
        opening = threading.Timer(0.05, deliveries.gate.set)
        opening.start()
        hook.stop(PATIENCE)
        opening.join()
        rest = [] if deliveries.begun.empty() else deliveries.next()
        assert first + rest == infos(3)
        assert not said(log, logging.WARNING)
        hook.stop(PATIENCE)

    def test_a_stop_gives_up_after_its_patience_and_says_how_many_were_not_told(
        self, hooked: Hooked, deliveries: Deliveries, log: pytest.LogCaptureFixture
    ) -> None:
        deliveries.gate.clear()
        hook = hooked(deliveries)
        hook.put(INFO)
        deliveries.next()
        left = hook._thread
        assert left is not None
        for info in infos(ROOM + 2):
            hook.put(info)
        hook.stop(0.01)
        assert said(log, logging.WARNING)[1:] == ["stopping: 10,003 expired sessions not told of"]
        deliveries.gate.set()
        left.join(PATIENCE)
        assert not left.is_alive()
        assert deliveries.begun.empty()

    def test_it_may_be_started_anew_while_a_function_that_was_given_up_still_runs(
        self, hooked: Hooked, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hooks, "GRACE", 0.01)
        begun: queue.SimpleQueue[list[SessionInfo]] = queue.SimpleQueue()
        old, new, given_up, waiting = infos(4)
        gates = {info.handle: threading.Event() for info in (old, new)}

        def deliver(batch: Sequence[SessionInfo]) -> None:
            begun.put(list(batch))
            assert gates[batch[0].handle].wait(PATIENCE)

        hook = hooked(deliver)
        hook.put(old)
        assert begun.get(timeout=PATIENCE) == [old]
        left = hook._thread
        assert left is not None
        hook.put(given_up)
        hook.stop(0)
        hook.start()
        hook.put(new)
        assert begun.get(timeout=PATIENCE) == [new]
        hook.put(waiting)
        gates[old.handle].set()
        left.join(PATIENCE)
        assert not left.is_alive()
        assert begun.empty()
        hook.stop(0)
        gates[new.handle].set()
        assert said(log, logging.WARNING) == ["stopping: 2 expired sessions not told of"] * 2

    def test_a_stop_of_one_that_has_nothing_to_do_takes_and_says_nothing(
        self, hooked: Hooked, deliveries: Deliveries, log: pytest.LogCaptureFixture
    ) -> None:
        hook = hooked(deliveries)
        thread = hook._thread
        assert thread is not None
        hook.put(INFO)
        deliveries.next()
        wait_until(lambda: not hook._in_hand)  # it waits for more
        hook.stop(0)
        assert not thread.is_alive()
        assert not log.records

    def test_what_is_put_after_a_stop_waits_for_the_next_start(
        self, hooked: Hooked, deliveries: Deliveries
    ) -> None:
        hook = hooked(deliveries)
        hook.stop(PATIENCE)
        hook.put(INFO)
        assert deliveries.begun.empty()
        hook.start()
        assert deliveries.next() == [INFO]

    def test_a_second_start_changes_nothing(self, hooked: Hooked, deliveries: Deliveries) -> None:
        hook = hooked(deliveries)
        thread = hook._thread
        hook.start()
        assert hook._thread is thread

    def test_a_forked_child_starts_its_own_and_knows_nothing_of_its_parents(
        self, deliveries: Deliveries
    ) -> None:
        hook = Hook(deliveries, LOG)
        hook.put(INFO)
        (other,) = infos(1, first=7)

        def child() -> None:
            hook.put(other)
            hook.start()
            assert deliveries.next() == [other]
            hook.stop(PATIENCE)

        with hook._turn:  # as a thread of the parent may have it at that moment
            forked = Child(child)
        forked.join()
        hook.start()
        assert deliveries.next() == [INFO]
        hook.stop(PATIENCE)

    def test_a_child_forked_from_one_that_works_may_start_it_and_stop_it(
        self, hooked: Hooked, deliveries: Deliveries
    ) -> None:
        hook = hooked(deliveries)

        def child() -> None:
            hook.stop(PATIENCE)
            hook.start()
            hook.put(INFO)
            assert deliveries.next() == [INFO]
            hook.stop(PATIENCE)

        Child(child).join()


class TestEach:
    def test_a_function_is_called_once_for_every_session(self) -> None:
        told: list[SessionInfo] = []
        each(told.append)(infos(3))
        assert told == infos(3)

    def test_what_it_raises_is_said_once_for_each_kind_and_the_next_one_is_told_of(
        self, log: pytest.LogCaptureFixture
    ) -> None:
        told: list[str] = []

        def on_expired(info: SessionInfo) -> None:
            told.append(info.handle)
            if len(told) % 2:
                raise LookupError(info.handle)
            sys.exit(info.handle)

        each(on_expired)(infos(6))
        assert told == [info.handle for info in infos(6)]
        first, second = said(log, logging.ERROR)
        assert first.startswith(f"on_expired failed with LookupError('{told[0]}'): LookupError at ")
        assert second.startswith(f"on_expired failed with SystemExit('{told[1]}'): SystemExit at ")
        assert sum(record.exc_info is not None for record in log.records) == 6

    def test_of_what_was_given_up_no_more_are_told(self) -> None:
        told: list[SessionInfo] = []
        enough = threading.Event()

        def on_expired(info: SessionInfo) -> None:
            told.append(info)
            enough.set()

        each(on_expired).tell(infos(3), enough)
        assert told == infos(1)

    def test_what_could_never_be_called_is_refused(self) -> None:
        async def coroutine(info: SessionInfo) -> None:
            raise AssertionError

        wrong: list[Any] = [None, "notify", coroutine, functools.partial(coroutine)]
        for value in wrong:
            with pytest.raises(ConfigurationError, match="a plain function of one SessionInfo"):
                each(value)
