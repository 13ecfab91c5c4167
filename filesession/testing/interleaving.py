"""Two calls at once, in every order that their system calls can take.

Rules:

1. Each call runs in a thread of its own, and only one of them runs at a time. Before each system
   call, and before each try for a lock, the thread stops, and a schedule says who goes on.
2. A schedule is a list of choices, so that what was seen once can be run again: the calls must do
   the same each time. (So no shards: whether one is there already changes what is called.)
3. Every schedule is tried that takes the turn from a thread that could go on ``preemptions`` times
   or fewer; one that waits for a lock, or has ended, gives its turn away for nothing. Nearly every
   race shows with two (Musuvathi and Qadeer, "Iterative context bounding", PLDI 2007).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, SupportsIndex

from filesession.testing.faults import CALLS, LOCK, SystemCall, SystemCalls

PATIENCE: Final = 30.0
"""Seconds after which a thread that does not come to its next stop fails the run."""


class Interleaved:
    """One run of several calls under one schedule.

    Args:
        calls: what runs at the same time.
        schedule: the choices to follow, numbers of threads; once they are used up each thread goes
            on as long as it can.

    Attributes:
        outcomes: what each returned or raised, in the order of ``calls``.
        taken: the choices made: who went on, who else could have, and whether it was taken from one
            that could go on.
    """

    def __init__(self, calls: Sequence[Callable[[], Any]], schedule: Sequence[int] = ()) -> None:
        self._calls = calls
        self._schedule = schedule
        count = len(calls)
        self._go = [threading.Semaphore(0) for _ in range(count)]
        self._stopped = threading.Semaphore(0)
        self._waits = [False] * count
        self._ended = [False] * count
        self._numbers: dict[int, int] = {}
        self.outcomes: list[Any] = [None] * count
        self.taken: list[tuple[int, tuple[int, ...], bool]] = []

    def run(self) -> list[Any]:
        """Run them to their end; gives the outcomes."""
        threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(len(self._calls))
        ]
        for thread in threads:
            thread.start()
            self._await_stop()
        system = SystemCalls(self._stop_before, only=(*CALLS, LOCK), threads=set(self._numbers))
        with system, self._sleeping_is_waiting():
            current = 0
            while not all(self._ended):
                current = self._choose(current)
                self._go[current].release()
                self._await_stop()
        for thread in threads:
            thread.join(PATIENCE)
        return self.outcomes

    def _await_stop(self) -> None:
        if not self._stopped.acquire(timeout=PATIENCE):
            msg = f"a thread did not come to its next stop within {PATIENCE:g} s"
            raise TimeoutError(msg)

    def _choose(self, current: int) -> int:
        """Who goes on: by the schedule, else whoever ran, else the next that can."""
        able = [number for number, ended in enumerate(self._ended) if not ended]
        ready = [number for number in able if not self._waits[number]] or able
        stays = current in ready
        if len(self.taken) < len(self._schedule):
            chosen = self._schedule[len(self.taken)]
            if self._ended[chosen]:
                msg = "the calls did not run as they ran before: this schedule does not fit them"
                raise ValueError(msg)
        else:
            chosen = current if stays else ready[0]
        self.taken.append((chosen, tuple(ready), bool(self.taken) and stays and chosen != current))
        self._waits = [False] * len(self._waits)  # whoever waited may look again after this turn
        return chosen

    def _work(self, number: int) -> None:
        self._numbers[threading.get_ident()] = number
        self._pause(number)
        try:
            self.outcomes[number] = self._calls[number]()
        except Exception as error:  # noqa: BLE001 - whatever it is, is for the test to judge
            self.outcomes[number] = error
        self._ended[number] = True
        self._stopped.release()

    def _pause(self, number: int) -> None:
        self._stopped.release()
        self._go[number].acquire()

    def _stop_before(self, call: SystemCall) -> Any:  # noqa: ANN401 - whatever the function gives
        self._pause(self._numbers[threading.get_ident()])
        return call.make()

    @contextmanager
    def _sleeping_is_waiting(self) -> Iterator[None]:
        """A thread of ours that sleeps waits for another to do something."""
        real = time.sleep

        def sleep(seconds: float | SupportsIndex) -> None:
            number = self._numbers.get(threading.get_ident())
            if number is None:
                real(float(seconds))
                return
            self._waits[number] = True
            self._pause(number)

        time.sleep = sleep
        try:
            yield
        finally:
            time.sleep = real


def interleavings(
    calls: Callable[[], Sequence[Callable[[], Any]]], *, preemptions: int = 2
) -> Iterator[Interleaved]:
    """Run calls under every schedule, each time anew; gives each run when it has ended.

    Args:
        calls: sets up what they work on, and gives them.
        preemptions: how often a schedule may take the turn from a thread that could go on.
    """
    pending: list[tuple[int, ...]] = [()]
    while pending:
        schedule = pending.pop()
        run = Interleaved(calls(), schedule)
        run.run()
        yield run
        spent = 0
        for place, (chosen, ready, taken_away) in enumerate(run.taken):
            if place >= len(schedule):
                before = tuple(choice for choice, _, _ in run.taken[:place])
                current = before[-1] if before else 0
                for other in ready:
                    costs = place > 0 and current in ready and other != current
                    if other != chosen and spent + costs <= preemptions:
                        pending.append((*before, other))
            spent += taken_away
