"""JSON and what it cannot hold: the same back, or a refusal that names the place."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections import UserDict
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.codec import JSONCodec, dump_document, dump_object, load_object
from filesession.errors import EncodeError

CODEC: Final = JSONCodec()

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)
data = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), plain, max_size=5)

foreign = st.sampled_from(
    [math.nan, math.inf, 2**64, b"x", {1}, object(), 1j, "\ud800", type, ..., range(1)]
)


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """Data with one value somewhere inside that JSON cannot hold."""
    value: Any = draw(foreign)
    for _ in range(draw(st.integers(0, 4))):
        value = draw(
            st.sampled_from(
                [[value], (value,), {"k": value}, [1, value], {"a": 1, "k": value}, [[], value]]
            )
        )
    return draw(data) | {"spoilt": value}


@given(data)
def test_what_goes_in_comes_back_equal_and_of_the_same_types(given_data: dict[str, Any]) -> None:
    text = CODEC.encode(given_data)
    assert repr(CODEC.decode(text)) == repr(given_data)
    assert b"\n" not in text
    assert json.loads(text) == given_data


@given(spoilt())
def test_one_value_that_would_change_is_enough_to_refuse(given_data: dict[str, Any]) -> None:
    with pytest.raises(EncodeError) as refused:
        CODEC.encode(given_data)
    assert refused.value.path.startswith("spoilt")


@pytest.mark.parametrize(
    ("given_data", "path"),
    [
        ({"a": {1}}, "a"),
        ({"cart": [{"price": math.nan}]}, "cart[0].price"),
        ({"cart": [1, 2, ({"x": [{3}]},)]}, "cart[2][0].x[0]"),
        ({"a b": {"c d": {1}}}, "['a b']['c d']"),
        ({"a": {"": {1}}}, "a['']"),
        ({"": {1}}, "['']"),
        ({"1": {"2": {1}}}, "['1']['2']"),
        ({"class": {"\u00e9t\u00e9": {1}}}, "class.\u00e9t\u00e9"),
        ({1: 1}, "the top level"),
        ({"a": [{1: 1}]}, "a[0]"),
        ({"ok": 1, "first": {1}, "second": {1}}, "first"),
    ],
    ids=str,
)
def test_the_place_is_named_as_python_would_write_it(given_data: Any, path: str) -> None:
    with pytest.raises(EncodeError) as refused:
        CODEC.encode(given_data)
    assert refused.value.path == path
    assert str(refused.value).startswith(f"session data at {path}: ")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "nan has no JSON form"),
        (-math.inf, "-inf has no JSON form"),
        (2**64, "more than 64 bits; store it as text"),
        ("\udfff", "half a surrogate pair"),
        ({1}, "a value of type builtins.set would not come back as one; store plain JSON values"),
        ({b"k": 1}, "the key b'k' is not text"),
        ({"\ud800": 1}, r"the key '\\ud800' is not text"),
    ],
    ids=ascii,
)
def test_the_reason_says_what_to_do(value: Any, reason: str) -> None:
    with pytest.raises(EncodeError, match=reason):
        CODEC.encode({"a": value})


def nested(levels: int, kind: type) -> dict[str, Any]:
    value: Any = kind()
    for _ in range(levels - 2):
        value = {"a": value} if kind is dict else kind([value])
    return {"a": value}


@pytest.mark.parametrize("kind", [dict, list, tuple])
def test_two_hundred_levels_are_the_limit(kind: type) -> None:
    assert CODEC.decode(CODEC.encode(nested(200, kind)))
    for levels in (201, 254, 255, 300, 5000):
        with pytest.raises(EncodeError, match="nested deeper than 200 levels, or contains itself"):
            CODEC.encode(nested(levels, kind))


@pytest.mark.parametrize("kind", [dict, list])
def test_what_is_read_can_be_written_again(kind: type) -> None:
    text = b'{"a":' * 200 + b"0" + b"}" * 200
    if kind is list:
        text = b'{"a":' + b"[" * 199 + b"]" * 199 + b"}"
    assert CODEC.encode(CODEC.decode(text)) == text
    for read in (CODEC.decode, load_object):
        with pytest.raises(ValueError, match="nested deeper than 200 levels"):
            read(b'{"a":' + text + b"}")


def test_a_wide_cycle_is_found_as_soon_as_a_narrow_one() -> None:
    cycle: list[Any] = []
    cycle.extend([cycle, (cycle, cycle), {"a": cycle}] * 10)
    with pytest.raises(EncodeError, match="contains itself"):
        CODEC.encode({"a": cycle})


def test_a_deep_place_is_named_shortly() -> None:
    with pytest.raises(EncodeError) as refused:
        CODEC.encode(nested(300, dict))
    assert refused.value.path == "a" + ".a" * 29 + "." + "..."


def test_brackets_in_text_are_not_levels() -> None:
    brackets = {"a": "[" * 500 + "{" * 500}
    assert CODEC.decode(CODEC.encode(brackets)) == brackets


def test_many_siblings_are_not_levels() -> None:
    siblings = {"a": [[]] * 1000, "b": [{}] * 1000}
    assert CODEC.decode(CODEC.encode(siblings)) == siblings


def test_a_value_that_occurs_twice_is_no_cycle() -> None:
    shared = [1]
    assert CODEC.decode(CODEC.encode({"a": shared, "b": [shared, shared]})) == {
        "a": [1],
        "b": [[1], [1]],
    }


@pytest.mark.parametrize(
    ("where", "name", "path"),
    [
        (math, "isfinite", "cart.late"),  # found when the dict that is looped over has grown
        (orjson, "dumps", "cart.late"),
        (orjson, "dumps", "the top level"),  # it was taken out again before it could be found
    ],
)
def test_what_another_thread_puts_in_meanwhile_is_refused(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, path: str
) -> None:
    shared: dict[str, Any] = {"price": 1.5, "cart": {}}
    call = getattr(where, name)

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        shared["cart"]["late"] = shared["later"] = {1}
        try:
            return call(*arguments, **keywords)
        finally:
            if path == "the top level":
                del shared["cart"]["late"], shared["later"]

    monkeypatch.setattr(where, name, interrupted)
    with pytest.raises(EncodeError) as refused:
        CODEC.encode(shared)
    assert refused.value.path == path


def test_threads_that_share_the_data_of_a_session_get_it_whole_or_refused() -> None:
    shared: dict[str, Any] = {"cart": {str(n): n for n in range(500)}}
    done, interval = threading.Event(), sys.getswitchinterval()

    def add_and_remove() -> None:
        while not done.is_set():
            shared["cart"].update({f"new {n}": n for n in range(50)})
            for n in range(50):
                del shared["cart"][f"new {n}"]

    thread = threading.Thread(target=add_and_remove)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(300):
            try:
                text = CODEC.encode(shared)
            except EncodeError as error:
                assert "changed while it was encoded" in str(error)  # noqa: PT017 - or no error
            else:
                assert {str(n): n for n in range(500)}.items() <= CODEC.decode(text)["cart"].items()
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_any_mapping_is_data() -> None:
    assert CODEC.encode(UserDict({"a": 1})) == b'{"a":1}'


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'"a"', b"1", b"{", b'{"a":NaN}', b"\xff"])
def test_text_that_is_no_object_is_a_value_error(text: bytes) -> None:
    for read in (CODEC.decode, load_object):
        with pytest.raises(ValueError, match=r"not a JSON object|unexpected|EOF|invalid|char"):
            read(text)


def test_objects_and_documents_are_read_back() -> None:
    members = {"a": 1, "b": None, "c": [1.5, "\u00e9"]}
    assert load_object(dump_object(members)) == members
    assert load_object(dump_document(members)) == members
    assert b"\n" not in dump_object(members)
    assert dump_document(members).startswith(b'{\n  "a": 1,\n')
    assert dump_document(members).endswith(b"}\n")
