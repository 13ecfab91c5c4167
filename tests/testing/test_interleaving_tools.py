"""The scheduler of interleavings, where its own threads are not all there are, or do not stop."""

from __future__ import annotations

import threading
import time

import pytest

from filesession.testing.interleaving import Interleaved


def test_a_thread_of_others_sleeps_as_ever() -> None:
    slept: list[float] = []

    def other() -> None:
        started = time.monotonic()
        time.sleep(0.01)
        slept.append(time.monotonic() - started)

    def call() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)

    Interleaved([call, lambda: None]).run()
    assert slept[0] >= 0.01


def test_a_call_that_waits_for_what_no_schedule_gives_fails_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("filesession.testing.interleaving.PATIENCE", 0.05)
    go = threading.Event()
    try:
        with pytest.raises(TimeoutError, match="did not come to its next stop within"):
            Interleaved([lambda: go.wait(30), lambda: None]).run()
    finally:
        go.set()
