"""What was asked of a session and waits: what came later counts where it says something."""

from __future__ import annotations

import pytest

from filesession.lifetime import UNSET
from filesession.pending import NOTHING, Pending

ALL = Pending(forced=True, regenerating=True, emptied=True, idle=60.0, sid="first")


@pytest.mark.parametrize(
    "asked",
    [
        Pending(forced=True),
        Pending(regenerating=True),
        Pending(emptied=True),
        Pending(idle=60.0),
        Pending(idle=None),
        Pending(sid="first"),
        ALL,
        NOTHING,
    ],
    ids=repr,
)
def test_nothing_before_or_after_changes_nothing(asked: Pending) -> None:
    assert asked.then(NOTHING) == asked
    assert NOTHING.then(asked) == asked


def test_the_later_timeout_counts_also_when_it_is_the_stores() -> None:
    assert Pending(idle=60.0).then(Pending(idle=99.0)).idle == 99
    assert Pending(idle=60.0).then(Pending(idle=None)).idle is None
    assert NOTHING.then(NOTHING).idle is UNSET


def test_of_two_ids_the_later_one_is_the_one_that_was_shown_last() -> None:
    assert ALL.then(Pending(sid="second")).sid == "second"


def test_who_regenerates_later_wants_another_id_than_was_shown_before() -> None:
    assert ALL.then(Pending(regenerating=True)).sid is None
