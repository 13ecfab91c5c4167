"""The daemon in this process: stubs stand in for janitors where what they say matters."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from filesession.janitor import daemon as daemon_module
from filesession.janitor.daemon import Daemon
from filesession.janitor.notify import Notifier
from tests.janitor.processes import DEADLINE, Manager
from tests.waiting import wait_until


class Worker:
    """Stands in for a janitor: notes what it is told, in a list that several may share."""

    def __init__(self, name: str, log: list[str], *, well: bool = True) -> None:
        self.name = name
        self.well = well
        self.asked = 0
        self._log = log

    def start(self) -> None:
        self._log.append(f"start {self.name}")

    def begin_stop(self) -> None:
        self._log.append(f"begin_stop {self.name}")

    def stop(self) -> None:
        self._log.append(f"stop {self.name}")

    def sweep_soon(self) -> None:
        self._log.append(f"sweep {self.name}")

    def reread(self) -> None:
        self._log.append(f"reread {self.name}")

    def is_well(self) -> bool:
        self.asked += 1
        return self.well

    def state_text(self) -> str:
        return f"{self.name} works"


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Runs something beside what waits in the main thread, and then tells this process to end."""
    failures: list[BaseException] = []
    threads: list[threading.Thread] = []

    def meanwhile(act: Callable[[], object]) -> None:
        def run() -> None:
            try:
                act()
            except BaseException as error:  # noqa: BLE001 - raised in the main thread
                failures.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield meanwhile
    for thread in threads:
        thread.join(DEADLINE)
    for failure in failures:
        raise failure


Meanwhile = Callable[[Callable[[], object]], None]


class TestInThisProcess:
    def test_all_are_started_told_and_ended_and_none_waits_for_another_to_begin_to_end(
        self, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(daemon_module, "_has_terminal", lambda: False)
        log: list[str] = []
        works = Daemon([Worker("a", log), Worker("b", log)], notifier=Notifier(None, None))

        def act() -> None:
            wait_until(lambda: len(log) == 2)
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(lambda: len(log) == 4)
            os.kill(os.getpid(), signal.SIGHUP)
            wait_until(lambda: len(log) == 6)

        meanwhile(act)
        works.run()
        verbs = ["start", "sweep", "reread", "begin_stop"]
        assert log[:8] == [f"{verb} {name}" for verb in verbs for name in "ab"]
        assert sorted(log[8:]) == ["stop a", "stop b"]

    @pytest.mark.parametrize("last", [False, True])
    def test_the_last_of_a_process_passes_over_what_comes_when_it_has_stopped(
        self, meanwhile: Meanwhile, *, last: bool
    ) -> None:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        before = {number: signal.getsignal(number) for number in numbers}
        worker = Worker("a", [])
        try:
            running = Daemon([worker], notifier=Notifier(None, None), last=last)
            meanwhile(lambda: wait_until(lambda: worker._log[:1] == ["start a"]))
            running.run()
            after = {number: signal.getsignal(number) for number in numbers}
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        assert after == (dict.fromkeys(numbers, signal.SIG_IGN) if last else before)

    def test_one_that_cannot_start_ends_the_others_and_gives_the_handlers_back(self) -> None:
        log: list[str] = []
        before = signal.getsignal(signal.SIGTERM)

        class Broken(Worker):
            def start(self) -> None:
                msg = "can't start new thread"
                raise RuntimeError(msg)

        works = Daemon([Worker("a", log), Broken("b", log)], notifier=Notifier(None, None))
        with pytest.raises(RuntimeError, match="new thread"):
            works.run()
        assert "stop a" in log
        assert signal.getsignal(signal.SIGTERM) is before

    def test_one_that_cannot_be_stopped_keeps_none_of_the_others(
        self, meanwhile: Meanwhile, caplog: pytest.LogCaptureFixture
    ) -> None:
        log: list[str] = []

        class Broken(Worker):
            def stop(self) -> None:
                msg = "a bug"
                raise RuntimeError(msg)

        works = Daemon([Broken("a", log), Worker("b", log)], notifier=Notifier(None, None))
        meanwhile(lambda: wait_until(lambda: "start b" in log))
        works.run()
        assert "stop b" in log
        assert "a janitor failed while it stopped" in caplog.messages

    def test_a_report_comes_every_few_seconds_and_at_the_end(
        self, manager: Manager, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(daemon_module, "REPORT", 0.01)
        log: list[str] = []
        notifier = Notifier(manager.address, None)
        works = Daemon([Worker("a", log)], notifier=notifier, report=lambda: log.append("report"))
        meanwhile(lambda: wait_until(lambda: log.count("report") >= 3))
        works.run()
        assert log[-1] == "report"  # the figures after the last sweep
        assert log.index("stop a") == len(log) - 2
        statuses = [message["STATUS"] for message in manager.all() if "STATUS" in message]
        assert set(statuses) == {"a works"}
        assert len(statuses) >= 4

    def test_no_report_comes_before_its_time(self, meanwhile: Meanwhile) -> None:
        log: list[str] = []
        works = Daemon(
            [Worker("a", log)],
            notifier=Notifier(None, 0.001),
            report=lambda: log.append("report"),
        )
        meanwhile(lambda: wait_until(lambda: works._janitors[0].asked > 5))  # type: ignore[attr-defined]
        works.run()
        assert log.count("report") == 1

    def test_the_watchdog_hears_nothing_while_one_of_them_hangs(
        self, manager: Manager, meanwhile: Meanwhile
    ) -> None:
        well, hung = Worker("a", []), Worker("b", [], well=False)
        works = Daemon([well, hung], notifier=Notifier(manager.address, 0.01))

        def act() -> None:
            wait_until(lambda: hung.asked > 5)
            assert not manager.has("WATCHDOG")
            hung.well = True
            wait_until(lambda: manager.has("WATCHDOG"))

        meanwhile(act)
        works.run()
        assert "READY" in manager.all()[0]
        assert "STOPPING" in manager.all()[-1]
