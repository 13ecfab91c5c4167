"""The judge of the torture run: each thing that must not be is found in a few lines of history.

And beside each are histories as like it as can be, in which all is as it should be. In every one a
session is idle after ten seconds; a call without an end was made by a worker that was killed at 50.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.torture.judge import judged
from tests.torture.planted import (
    ADDED,
    CREATED,
    CREATED_LATE,
    FOUND,
    GRACE_FOUND,
    LED_ON,
    LEFT,
    MOVED,
    Lines,
    call,
    event,
    history,
)
from tests.torture.verdict import KINDS

FINE: Final[dict[str, list[Lines]]] = {
    "a load that ran beside the save may not show its key": [
        CREATED,
        ADDED,
        call("load", "a", 2.5, 5, version=1),
    ],
    "an overwrite that did not carry a key drops it": [
        CREATED,
        ADDED,
        call("overwrite", "a", 2.5, 5, version=3, whole=True),
        call("load", "a", 6, 7, version=3),
    ],
    "an overwrite that was killed may have dropped it": [
        CREATED,
        ADDED,
        call("overwrite", "a", 4, None, whole=True),
        call("load", "a", 6, 7, version=3),
    ],
    "an overwrite brings back what it carried": [
        CREATED,
        ADDED,
        call("overwrite", "a", 3.5, 6, version=4, keys=["k1"], whole=True, carries=["k1"]),
        call("remove", "a", 4, 5, version=3, drop=["k1"]),
        call("load", "a", 7, 8, version=4, keys=["k1"]),
    ],
    "what a removal removed is gone, also when it was killed": [
        CREATED,
        ADDED,
        call("remove", "a", 4, None, drop=["k1"]),
        call("load", "a", 6, 7, version=3),
    ],
    "a save that refuses conflicts made the next version": [
        CREATED,
        call("error", "a", 4, 5, version=2, keys=["k2"], key="k2", on=1),
    ],
    "a key of a save that was killed may be there": [
        CREATED,
        call("add", "a", 2, None, key="k1"),
        call("load", "a", 4, 5, version=2, keys=["k1"]),
    ],
    "another life has the id that the first left": [
        CREATED,
        MOVED,
        call("create", "a", 4, 5, version=1, life="Z"),
        call("load", "a", 6, 7, version=1, life="Z"),
        call("load", "b", 6, 7, version=2),
    ],
    "an id is taken while its session lives": [
        CREATED,
        call("create", "a", 2, 3, told="exists", life="Z"),
    ],
    "a load beside a delete still shows the session": [
        CREATED,
        call("delete", "a", 2, 3),
        call("load", "a", 2.5, 5, version=1),
    ],
    "a delete that was killed may not have happened": [
        CREATED,
        call("delete", "a", 2, None),
        call("load", "a", 4, 5, version=1),
    ],
    "or may have": [
        CREATED,
        call("delete", "a", 2, None),
        call("load", "a", 4, 5, told="gone"),
    ],
    "a session that is used all the time never expires": [
        CREATED,
        call("touch", "a", 9, 10),
        call("add", "a", 18, 19, version=2, keys=["k1"], key="k1"),
        call("load", "a", 28, 28.5, version=2, keys=["k1"]),
    ],
    "a session is made under an id that was used long before": [
        call("touch", "a", 0, 1, life=""),
        call("create", "a", 20, 21, version=1),
    ],
    "a session expires, and is gone": [CREATED, call("load", "a", 12, 13, told="gone")],
    "a session may have expired for one and be used by another at the same moment": [
        CREATED,
        call("touch", "a", 10.9, 11.1),
        call("load", "a", 11, 11.2, told="gone"),
        call("load", "a", 11.3, 11.4, version=1),
    ],
    "a touch that was skipped has looked at nothing": [
        CREATED,
        call("delete", "a", 1.1, 1.2),
        call("touch", "a", 1.3, 1.4, age=0.4),
    ],
    "of two regenerates one is refused": [
        CREATED,
        call("regenerate", "a", 2, 4, version=2, new="b"),
        call("regenerate", "a", 3, 5, told="gone", new="c"),
    ],
    "a regenerate that was killed left the old id": [
        CREATED_LATE,
        call("regenerate", "a", 48, None, new="b"),
        call("load", "a", 51, 52, version=1),
        call("load", "b", 51, 52, told="gone"),
    ],
    "or gave the new one": [
        CREATED_LATE,
        call("regenerate", "a", 48, None, new="b"),
        call("load", "a", 51, 52, told="gone"),
        call("load", "b", 51, 52, version=2),
    ],
    "or neither, when another ended the session": [
        CREATED_LATE,
        call("regenerate", "a", 48, None, new="b"),
        call("delete", "a", 49, None),
        call("load", "a", 51, 52, told="gone"),
        call("load", "b", 51, 52, told="gone"),
    ],
    "or neither, when it has expired": [
        CREATED_LATE,
        call("regenerate", "a", 48, None, new="b"),
        call("load", "a", 58, 59, told="gone"),
        call("load", "b", 58, 59, told="gone"),
    ],
    "a load beside an increment may not show it": [
        CREATED,
        call("count", "a", 2, 3, version=2, count=1, on=1, entered=2.1, left=2.2),
        call("load", "a", 2.5, 5, version=1),
    ],
    "an increment whose process was killed may count or not": [
        CREATED,
        call("count", "a", 2, None, on=1, entered=2.1, left=2.2),
        call("load", "a", 2.5, 3, version=1),
        call("load", "a", 6, 7, version=2, count=1),
    ],
    "an overwrite sets the counter back": [
        CREATED,
        call("count", "a", 2, 3, version=2, count=1, on=1, entered=2.1, left=2.2),
        call("overwrite", "a", 4, 5, version=3, whole=True),
        call("load", "a", 6, 7, version=3),
    ],
    "one after the other is inside the lock": [
        CREATED,
        call("count", "a", 2, 5, version=2, count=1, on=1, entered=2.1, left=4.9),
        call("count", "a", 3, 6, version=3, count=2, on=2, entered=4.9, left=5.9),
    ],
    "the lock of a process that was killed is free": [
        CREATED_LATE,
        call("count", "a", 47, None, on=1, entered=47.1),
        call("count", "a", 49, 49.98, version=2, count=1, on=1, entered=49.95, left=49.96),
    ],
    "of two loads side by side any may see the newer version": [
        CREATED,
        call("load", "a", 2, 4, version=5),
        call("load", "a", 3, 5, version=4),
    ],
    "a lock is waited for in vain while its holder is stopped": [
        CREATED,
        event("stop", worker=2, at=4),
        call("add", "a", 2, 8, told="timeout", key="k1"),
    ],
    "who waits for a moment only may wait in vain": [
        CREATED,
        call("count", "a", 2, 3, told="timeout", patience=0.02),
    ],
    "a kill leaves a file for each of its threads": [
        event("left", **LEFT | {"temporary": 2, "begun": 2, "aside": 2}),
        event("descriptors", of="janitor", before=8, after=8),
        event("ended", worker=3, at=4, code=0),
    ],
}
"""What must not be found."""


GRACE_FINE: Final[dict[str, list[Lines]]] = {
    "an old id leads on within its grace": [CREATED, MOVED, LED_ON],
    "a delete by the old id ends the session": [
        CREATED,
        MOVED,
        call("delete", "a", 3.1, 3.2),
        call("load", "b", 3.5, 4, told="gone"),
    ],
    "an old id leads nowhere when its session was deleted": [
        CREATED,
        MOVED,
        call("delete", "b", 3.1, None),
        call("load", "a", 3.5, 4, told="gone"),
    ],
    "an old id is refused for all else": [CREATED, MOVED, call("remove", "a", 3.5, 4, told="gone")],
    "an old id is dead after its grace": [CREATED, MOVED, call("load", "a", 6, 7, told="gone")],
}


@pytest.mark.parametrize("what", FOUND)
def test_the_judge_finds(what: str) -> None:
    kind, calls = FOUND[what]
    verdict = judged(history(calls))
    assert {each.kind for each in verdict.violations} == {kind}
    assert all(each.lines for each in verdict.violations)
    assert verdict.checks[kind] > 0


@pytest.mark.parametrize("what", FINE)
def test_the_judge_lets_pass_that(what: str) -> None:
    assert judged(history(FINE[what])).violations == []


@pytest.mark.parametrize("what", GRACE_FOUND)
def test_the_judge_finds_with_a_grace_of_three_seconds(what: str) -> None:
    kind, calls = GRACE_FOUND[what]
    verdict = judged(history(calls, grace=3))
    assert kind in {each.kind for each in verdict.violations}


@pytest.mark.parametrize("what", GRACE_FINE)
def test_the_judge_lets_pass_with_a_grace_of_three_seconds_that(what: str) -> None:
    assert judged(history(GRACE_FINE[what], grace=3)).violations == []


def test_every_kind_of_violation_is_planted() -> None:
    assert {kind for kind, _ in FOUND.values()} == set(KINDS)


def test_what_a_killed_process_left_of_a_line_spoils_no_other() -> None:
    lines = history(FINE["an increment whose process was killed may count or not"])
    half = lines[4][:20]
    verdict = judged([half, *lines[:4], "\n", half, *lines[4:], half])
    assert verdict.violations == []
    assert verdict.told == judged(lines).told
