"""What applications put into sessions: it comes back as it was, or is refused by its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filesession.codec import JSONCodec
from filesession.errors import EncodeError
from tests.fuzz.data import DEEPEST, SessionData, data_seeds
from tests.fuzz.values import Deep, grown


def in_itself() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["inner"] = [({"again": made},)]
    return made


LONG: Final = Deep(5000, "number")

exact_leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5)
odd_leaves = (
    st.floats()
    | st.integers()
    | st.sampled_from([2**64, -(2**63) - 1, LONG, "\ud800", b"bytes", {1}, 1j, object(), int])
    | st.sampled_from([Deep(250), Deep(5000, "tuple"), Deep(190, "dict")])
)
odd_keys = (
    st.integers()
    | st.none()
    | st.sampled_from(["\udfff", LONG, 1.5, b"a", Deep(3000, "tuple"), frozenset({1})])
)


def containers(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> Any:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=2).map(tuple)
            | st.dictionaries(keys, inner, max_size=3)
        ),
        max_leaves=8,
    )


texts = st.text(max_size=3)
exact = st.dictionaries(texts, containers(exact_leaves | st.floats(-9e99, 9e99), texts), max_size=3)
odd = st.dictionaries(
    texts | odd_keys, containers(exact_leaves | odd_leaves, texts | odd_keys), max_size=3
)

PLACES: Final = ("cart", "price", "x y", "0", "", "a.b", "\u00e4", 0, 1)
BAD: Final = (float("nan"), 2**64, "\ud800", b"", {3}, {4: 1}, Deep(DEEPEST), int)


@pytest.fixture(scope="module")
def session_data(place: Path) -> SessionData:
    return SessionData(place)


def test_every_value_a_guided_run_begins_with_is_judged(session_data: SessionData) -> None:
    for seed in data_seeds():
        session_data(seed)


@settings(max_examples=100, deadline=None)
@given(data=exact | odd)
@example(data={LONG: 1})
@example(data={Deep(3000, "tuple"): 1})
@example(data={"a": Deep(DEEPEST - 1, "dict")})
@example(data={"a": Deep(DEEPEST, "dict")})
@example(data={"a": Deep(100_000, "tuple")})
def test_data_comes_back_equal_or_is_refused_and_leaves_nothing(
    session_data: SessionData, data: dict[Any, Any]
) -> None:
    session_data.check(grown(data))


def test_data_that_contains_itself_is_refused(session_data: SessionData) -> None:
    session_data.check(in_itself())


@settings(max_examples=100, deadline=None)
@given(
    places=st.lists(st.sampled_from(PLACES), min_size=1, max_size=4),
    bad=st.sampled_from(BAD),
    beside=containers(exact_leaves, texts),
)
def test_the_error_names_the_place_as_python_would_write_it(
    places: list[str | int], bad: Any, beside: Any
) -> None:
    data, top = grown(bad), places[0] if isinstance(places[0], str) else "top"
    for place in reversed(places[1:]):
        data = [beside] * place + [data] if isinstance(place, int) else {"": beside, place: data}
    with pytest.raises(EncodeError) as raised:
        JSONCodec().encode({top: data})
    path = _path(top, places[1:])
    if isinstance(bad, Deep):
        assert raised.value.path.startswith(path[:60])
    else:
        assert raised.value.path == path


def _path(top: str, places: list[str | int]) -> str:
    path = top if top.isidentifier() else f"[{top!r}]"
    for place in places:
        named = isinstance(place, str) and place.isidentifier()
        path += f".{place}" if named else f"[{place!r}]"
    return path
