"""A dict that follows what others saved and stays the dict its owner holds."""

from __future__ import annotations

from typing import Any

import pytest

from filesession.codec import JSONCodec
from filesession.content import Content
from filesession.record import SessionRecord


def record(data: dict[str, Any]) -> SessionRecord:
    return SessionRecord("abc", data, 1, 1000.0, 1000.0, None, None, None)


def content(data: dict[str, Any]) -> Content:
    """One that was loaded."""
    made = Content(JSONCodec())
    made._load(record(data))
    return made


def follow(made: Content, theirs: dict[str, Any]) -> None:
    """Somebody else saved this since it was loaded."""
    made._follow(record(theirs), made._text)


CHANGES: dict[str, tuple[Any, Any]] = {
    "a list that grew": (["tea"], ["tea", "milk"]),
    "a list that shrank": (["tea", "milk"], ["tea"]),
    "a list that was emptied": (["tea"], []),
    "a dict that grew": ({"a": 1}, {"a": 1, "b": 2}),
    "a dict that shrank": ({"a": 1, "b": 2}, {"a": 1}),
    "a dict in another order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "deep inside": ([{"n": 1}], [{"n": 2}]),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_a_list_or_dict_that_others_changed_stays_the_object_its_owner_holds(
    before: Any, after: Any
) -> None:
    made = content({"held": before, "n": 1})
    held = made["held"]
    follow(made, {"held": after, "n": 1})
    assert made["held"] is held
    assert repr(held) == repr(after)
    assert not made._differs()
    assert list(made) == ["held", "n"]


def put(held: Any) -> None:
    if isinstance(held, list):
        held.append("own")
    else:
        held["own"] = 1


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_who_holds_it_goes_on_changing_the_session(before: Any, after: Any) -> None:
    made = content({"held": before})
    held = made["held"]
    follow(made, {"held": after})
    put(held)
    assert made._differs()
    assert "own" in made["held"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(["tea"], {"tea": 1}), ({"tea": 1}, ["tea"]), ([1], None), ("tea", ["tea"]), (1, True)],
    ids=repr,
)
def test_what_is_of_another_type_now_is_another_object(before: Any, after: Any) -> None:
    made = content({"held": before})
    held = made["held"]
    follow(made, {"held": after})
    assert repr(made["held"]) == repr(after)
    assert made["held"] is not held
    assert not made._differs()


def test_a_value_that_is_none_of_these_is_replaced() -> None:
    made = content({"n": 1, "text": "a"})
    follow(made, {"n": 2, "text": "b"})
    assert made == {"n": 2, "text": "b"}


def test_what_was_left_alone_is_not_touched() -> None:
    made = content({"held": [{"n": 1}], "n": 1})
    inner = made["held"][0]
    follow(made, {"held": [{"n": 1}], "n": 2})
    assert made["held"][0] is inner


def test_what_both_changed_is_ours_and_what_only_they_did_is_theirs() -> None:
    made = content({"ours": [1], "theirs": [1], "both": [1], "gone": 1})
    made["ours"].append(2)
    made["both"].append(2)
    del made["gone"]
    follow(made, {"ours": [1], "theirs": [1, 3], "both": [1, 3], "gone": 2, "new": 3})
    assert made == {"ours": [1, 2], "theirs": [1, 3], "both": [1, 2], "new": 3}


def test_a_tuple_is_replaced_by_the_list_it_is_stored_as() -> None:
    made = content({"held": [1]})
    made["held"] = (1,)
    follow(made, {"held": [1, 2]})
    assert made["held"] == [1, 2]
