"""What is said and remembered of a sweep, whether it went well or not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from filesession.errors import ConfigurationError, StoreUnavailable
from filesession.janitor.complaints import MOST, Complaints
from filesession.janitor.fuse import Fuse
from filesession.janitor.sweeper import Sweeper
from filesession.record import SessionInfo, SweepReport
from tests.janitor.janitors import said

LOG = logging.getLogger("filesession.janitor")
NOTHING = SweepReport(started_at=1.0, seconds=0.01, examined=3)
SOMETHING = SweepReport(started_at=2.0, seconds=0.01, examined=3, expired=1, freed=200)


class ScriptedStore:
    """Its sweeps end as it was told: with a report, or an error."""

    def __init__(self, *outcomes: SweepReport | Exception) -> None:
        self._outcomes = iter(outcomes)

    def scan(self) -> Iterator[SessionInfo]:
        return iter(())

    def sweep(
        self,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> SweepReport:
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def sweeper(*outcomes: SweepReport | Exception) -> Sweeper:
    return Sweeper(
        ScriptedStore(*outcomes).sweep,
        None,
        lambda: 5.0,
        Complaints(LOG),
        watch="auto",
        fuse=Fuse(),
        told=None,
        rest=lambda _seconds: False,
        progress=lambda _share: None,
    )


def test_a_sweep_that_removed_something_is_told(log: pytest.LogCaptureFixture) -> None:
    works = sweeper(SOMETHING)
    assert works.sweep_all() is SOMETHING
    assert said(log, logging.INFO) == ["swept 3 sessions in 0.01 s: 1 expired (200 B)"]
    assert (works.last, works.error, works.since) == (SOMETHING, None, None)


def test_a_sweep_that_found_nothing_is_told_to_who_wants_to_know_all(
    log: pytest.LogCaptureFixture,
) -> None:
    sweeper(NOTHING).sweep_all()
    assert said(log, logging.INFO) == []
    assert said(log, logging.DEBUG) == ["swept 3 sessions in 0.01 s: none expired"]


def test_a_failed_sweep_asked_for_is_the_callers(log: pytest.LogCaptureFixture) -> None:
    works = sweeper(StoreUnavailable("the disk fails"))
    with pytest.raises(StoreUnavailable):
        works.sweep_all()
    assert works.since is None
    assert log.records == []


def test_a_failed_scheduled_sweep_is_told_once_for_each_reason(
    log: pytest.LogCaptureFixture,
) -> None:
    full, gone = StoreUnavailable("the disk fails"), ConfigurationError("no manifest")
    works = sweeper(full, full, gone, full)
    for _ in range(4):
        works.sweep_or_complain()
    assert said(log, logging.ERROR) == [
        "cannot sweep: the disk fails",
        "cannot sweep: no manifest",
    ]
    assert works.error == "the disk fails"
    assert works.last is None


def test_after_a_sweep_that_went_well_the_same_reason_is_news_again(
    log: pytest.LogCaptureFixture,
) -> None:
    error = StoreUnavailable("the disk fails")
    works = sweeper(error, NOTHING, error)
    works.sweep_or_complain()
    works.sweep_or_complain()
    assert len(said(log, logging.ERROR)) == 1
    works.sweep_or_complain()
    assert len(said(log, logging.ERROR)) == 2
    assert works.error == "the disk fails"
    assert works.last is NOTHING


def test_what_fails_goes_on_failing_when_another_thing_works_again(
    log: pytest.LogCaptureFixture,
) -> None:
    complaints = Complaints(LOG)
    complaints.say("cannot sweep", "the disk fails")
    complaints.say("cannot lead", "it is locked")
    complaints.over("cannot lead", "can lead again")
    complaints.over("cannot lead", "can lead again")
    complaints.say("cannot sweep", "the disk fails")
    assert len(said(log, logging.ERROR)) == 2
    assert said(log, logging.INFO) == ["can lead again"]


def test_a_sweep_that_could_not_look_at_all_is_complained_of_once_and_its_end_is_told(
    log: pytest.LogCaptureFixture,
) -> None:
    partly = replace(SOMETHING, failed=1, failure="the disk fails")
    worse = replace(SOMETHING, failed=2, failure="the disk fails")
    works = sweeper(partly, worse, SOMETHING, partly)
    works.sweep_or_complain()
    told = "could not be read, deleted or set aside, the first: the disk fails"
    assert works.error == f"1 session {told}"
    works.sweep_or_complain()
    assert works.error == f"2 sessions {told}"
    assert works.last is worse
    (line,) = said(log, logging.ERROR)
    assert line == "cannot sweep every session: the disk fails; the rest was swept"
    works.sweep_or_complain()
    assert works.error is None
    assert "every session can be swept again" in said(log, logging.INFO)
    works.sweep_or_complain()
    assert len(said(log, logging.ERROR)) == 2


def test_an_error_nobody_expected_is_told_with_its_traceback(
    log: pytest.LogCaptureFixture,
) -> None:
    works = sweeper(RuntimeError("a bug"), NOTHING)
    works.sweep_or_complain()
    (record,) = log.records
    assert record.exc_info is not None
    assert works.error == "RuntimeError: a bug"
    works.sweep_or_complain()
    assert works.error is None


def test_reasons_without_end_take_no_memory_without_end(log: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(LOG)
    for number in range(MOST + 50):
        complaints.say("cannot sweep", f"session {number}")
    assert len(complaints._said["cannot sweep"]) == MOST
    assert len(said(log, logging.ERROR)) == MOST + 50
