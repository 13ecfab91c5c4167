"""A store call that failed is tried again: how often, after what pauses, and what it finds then."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import pytest

from filesession.calls import StoreCall
from filesession.errors import (
    ConfigurationError,
    ConflictError,
    EncodeError,
    LockTimeout,
    SessionExists,
    SessionGone,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from filesession.record import SessionRecord
from filesession.retries import Pause, Retries

FAILED: Final = StoreUnavailable("the store is away")
GONE: Final = SessionGone("it is gone")
TAKEN: Final = SessionExists("it is taken")

RECORD: Final = SessionRecord("the new id", {"a": 1}, 2, 0.0, 0.0, None, None, None, lineage="ours")
BASE: Final = replace(RECORD, id="the old id", version=1)

LOAD: Final = StoreCall("load", ("an id",))
SAVE: Final = StoreCall("save", ("an id", {"a": 1}), {"base": BASE, "conflict": "error"})
MOVE: Final = StoreCall("regenerate", ("the old id", {"a": 1}), {"base": BASE, "new_sid": "chosen"})


class Played:
    """The tries of a call, whose store gives or raises what is listed, in order.

    Attributes:
        asked: the calls and the seconds of the pauses.
        result: what it came to.
    """

    def __init__(self, retries: Retries, call: StoreCall, *outcomes: Any) -> None:
        self.asked: list[Any] = []
        self.result: Any = None
        self._outcomes = list(outcomes)
        self._tries = retries.tries(call)

    @property
    def pauses(self) -> list[float]:
        return [step for step in self.asked if isinstance(step, float)]

    @property
    def calls(self) -> list[StoreCall]:
        return [step for step in self.asked if isinstance(step, StoreCall)]

    def play(self) -> Played:
        step: Any = next(self._tries)
        try:
            while True:
                if isinstance(step, Pause):
                    self.asked.append(step.seconds)
                    step = self._tries.send(None)
                    continue
                self.asked.append(step)
                outcome = self._outcomes.pop(0)
                if isinstance(outcome, Exception):
                    step = self._tries.throw(outcome)
                else:
                    step = self._tries.send(outcome)
        except StopIteration as end:
            assert not self._outcomes
            self.result = end.value
            return self

    def fail(self, error: type[Exception] | Exception) -> Played:
        with pytest.raises(error if isinstance(error, type) else type(error)) as caught:
            self.play()
        if isinstance(error, Exception):
            assert caught.value is error
        assert not self._outcomes
        return self


def at_once(_: int) -> float:
    return 0


# -- how often and when ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["load", "create", "save", "delete", "regenerate"])
def test_a_call_that_failed_is_made_again_after_a_pause(verb: Any) -> None:
    call = StoreCall(verb, ("an id",), {"new_sid": "chosen"})
    played = Played(Retries(2), call, FAILED, StoreFull("full"), "done").play()
    assert played.asked == [call, 0.05, call, 0.1, call]
    assert played.result == "done"


def test_when_the_tries_are_used_up_the_last_error_is_raised() -> None:
    last = StoreError("the last")
    played = Played(Retries(2, at_once), LOAD, FAILED, FAILED, last).fail(last)
    assert played.calls == [LOAD] * 3


def test_by_default_the_pauses_double_up_to_a_second() -> None:
    played = Played(Retries(8), LOAD, *[FAILED] * 8, None).play()
    assert played.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1, 1, 1]
    assert Played(Retries(3000), LOAD, *[FAILED] * 3000, None).play().pauses[-1] == 1


def test_retry_delay_is_asked_with_the_number_of_each_further_try() -> None:
    numbers: list[int] = []

    def delay(attempt: int) -> float:
        numbers.append(attempt)
        return attempt / 4

    Played(Retries(3, delay), LOAD, None).play()
    assert numbers == []
    assert Played(Retries(3, delay), LOAD, *[FAILED] * 4).fail(FAILED).pauses == [0.25, 0.5, 0.75]
    assert numbers == [1, 2, 3]


@pytest.mark.parametrize(
    "error",
    [
        LockTimeout("it is locked"),
        GONE,
        TAKEN,
        ConflictError({"a": 1}, {"a": 1}),
        EncodeError("cart", "no"),
        OSError("nobody translated it"),
        RuntimeError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("call", [LOAD, SAVE, MOVE], ids=lambda call: call.verb)
def test_no_other_error_is_tried_again(call: StoreCall, error: Exception) -> None:
    assert Played(Retries(5), call, error).fail(error).asked == [call]


def test_a_lock_is_not_waited_for_again_after_another_failure() -> None:
    error = LockTimeout("it is locked")
    assert len(Played(Retries(5), SAVE, FAILED, error).fail(error).calls) == 2


def test_a_touch_is_not_tried_again() -> None:
    touch = StoreCall("touch", ("an id",))
    assert Played(Retries(5), touch, FAILED).fail(FAILED).asked == [touch]
    assert Played(Retries(5), touch, "alive").play().result == "alive"


async def later(attempt: int) -> float:
    return attempt


class Late:
    def __call__(self, attempt: int) -> Any:
        return later(attempt)


@pytest.mark.parametrize(
    "given", [-0.1, 60.1, math.nan, math.inf, 10**400, None, "1", True, 1j, [1]]
)
def test_a_delay_that_is_none_is_told_and_ends_the_tries(
    caplog: pytest.LogCaptureFixture, given: Any
) -> None:
    assert Played(Retries(5, lambda _: given), LOAD, FAILED).fail(FAILED).asked == [LOAD]
    (line,) = caplog.messages
    assert line.startswith("retry_delay(1) gave ")
    assert line.endswith(", not seconds from 0 to 60, so there are no more tries")


def test_a_delay_that_is_a_coroutine_is_told_and_leaves_none_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert Played(Retries(5, Late()), LOAD, FAILED).fail(FAILED).asked == [LOAD]
    assert "coroutine" in caplog.text


def test_a_retry_delay_that_raises_is_told_and_ends_the_tries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(attempt: int) -> float:
        if attempt < 2:
            return 0
        raise LookupError

    assert len(Played(Retries(5, broken), LOAD, FAILED, FAILED).fail(FAILED).calls) == 2
    (record,) = caplog.records
    assert record.getMessage() == "retry_delay(2) failed, so there are no more tries"
    assert record.exc_info


def test_without_more_tries_it_is_false() -> None:
    assert not Retries()
    assert Retries(1)


@pytest.mark.parametrize("wrong", [-1, 1.0, True, "3", None, math.nan])
def test_a_number_of_tries_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="retries must be a number of tries from 0"):
        Retries(wrong)


@pytest.mark.parametrize("wrong", [0, 0.5, "1", later])
def test_a_retry_delay_that_is_no_plain_function_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="retry_delay must be a plain function"):
        Retries(1, wrong)


# -- done before it failed ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [GONE, TAKEN])
def test_a_session_that_moved_before_the_call_failed_is_found_under_its_new_id(
    error: Exception,
) -> None:
    played = Played(Retries(1, at_once), MOVE, FAILED, error, RECORD).play()
    assert played.result is RECORD
    assert played.calls == [MOVE, MOVE, StoreCall("load", ("chosen",))]


def test_a_new_id_nobody_chose_is_chosen_so_that_it_can_be_looked_for() -> None:
    move = replace(MOVE, keywords={"base": None, "new_sid": None})
    unknown = replace(RECORD, lineage="")
    played = Played(Retries(1, at_once), move, FAILED, GONE, unknown).play()
    assert played.result is unknown
    first, again, load = played.calls
    assert first == again
    assert load.arguments == (first.keywords["new_sid"],)
    assert len(load.arguments[0]) == 43
    other = Played(Retries(1, at_once), move, unknown).play()
    assert other.calls[0] != first


@pytest.mark.parametrize("found", [None, replace(RECORD, lineage="another's")])
def test_what_is_not_under_the_new_id_is_gone_and_another_session_is_none_of_ours(
    found: Any,
) -> None:
    for error in (GONE, TAKEN):
        Played(Retries(1, at_once), MOVE, FAILED, error, found).fail(error)


def test_of_a_store_that_tells_no_lineage_a_chosen_id_is_not_taken_over() -> None:
    move = replace(MOVE, keywords={"base": replace(BASE, lineage=""), "new_sid": "chosen"})
    Played(Retries(1, at_once), move, FAILED, TAKEN, replace(RECORD, lineage="")).fail(TAKEN)


def test_to_look_for_it_may_take_more_than_one_try() -> None:
    played = Played(Retries(1, at_once), MOVE, FAILED, GONE, FAILED, RECORD).play()
    assert played.result is RECORD


def test_a_created_session_whose_id_is_taken_then_is_not_taken_over() -> None:
    create = StoreCall("create", ({},), {"sid": "chosen"})
    assert Played(Retries(1, at_once), create, FAILED, TAKEN).fail(TAKEN).calls == [create] * 2


def test_what_was_saved_before_the_call_failed_is_no_conflict() -> None:
    conflict = ConflictError({"a": 1}, {"a": 1})
    stored = replace(RECORD, version=3)
    played = Played(Retries(1, at_once), SAVE, FAILED, conflict, stored, "saved").play()
    assert played.result == "saved"
    assert played.calls[2:] == [
        StoreCall("load", ("an id",)),
        replace(SAVE, keywords={"base": stored, "conflict": "error"}),
    ]


@pytest.mark.parametrize("found", [None, replace(RECORD, data={"a": 2}), "not asked"])
def test_what_another_saved_meanwhile_is_one(found: Any) -> None:
    theirs = {"a": True} if found == "not asked" else {"a": 1}
    conflict = ConflictError({"a": 1}, theirs)
    outcomes = [] if found == "not asked" else [found]
    Played(Retries(1, at_once), SAVE, FAILED, conflict, *outcomes).fail(conflict)
