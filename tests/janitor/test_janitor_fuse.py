"""The fuse: from how many sessions on, and from which share on, a sweep holds back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.errors import ConfigurationError
from filesession.janitor.fuse import FEWEST, HALF, Fuse

MANY = st.integers(0, 5_000_000)


@pytest.mark.parametrize(
    ("due", "of", "blows"),
    [
        (501, 1000, True),
        (500, 1000, False),
        (1000, 1000, True),
        (999, 999, False),
        (0, 1000, False),
        (0, 0, False),
        (500_001, 1_000_000, True),
        (500_000, 1_000_000, False),
    ],
)
def test_more_than_half_of_a_thousand_or_more_is_too_much(
    due: int,
    of: int,
    blows: bool,  # noqa: FBT001 - pytest's
) -> None:
    assert Fuse().blows(due, of) is blows
    assert Fuse().share == HALF


@given(due=MANY, of=MANY, share=st.floats(0, 1))
def test_more_due_of_as_many_or_a_smaller_share_never_makes_it_hold(
    due: int, of: int, share: float
) -> None:
    fuse = Fuse(share)
    if of < FEWEST:
        assert not fuse.blows(due, of), "of so few all may go"
    elif fuse.blows(due, of):
        assert fuse.blows(due + 1, of)
        assert Fuse(share / 2).blows(due, of)
        assert due > 0


@given(of=MANY)
def test_with_a_share_of_1_nothing_is_too_much_and_with_0_anything(of: int) -> None:
    assert not Fuse(1).blows(of, of)
    assert Fuse(0).blows(1, of) is (of >= FEWEST)
    assert not Fuse(0).blows(0, of)


@pytest.mark.parametrize(
    "share", [-0.01, 1.01, 50, math.nan, math.inf, -math.inf, True, False, "0.5", None, [0.5], 1j]
)
def test_what_is_no_share_is_refused_and_named(share: Any) -> None:
    with pytest.raises(ConfigurationError, match="from 0 to 1, not") as raised:
        Fuse(share)
    assert repr(share) in str(raised.value)
