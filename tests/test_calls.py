"""What is asked of a store, as values."""

from __future__ import annotations

from filesession.calls import StoreCall


def test_the_repr_of_a_call_shows_its_verb_and_no_id() -> None:
    call = StoreCall("regenerate", ("old-id", {"user": "ada"}), {"new_sid": "new-id"})
    assert repr(call) == str(call) == "StoreCall(verb='regenerate')"


def test_two_calls_of_the_same_are_equal() -> None:
    assert StoreCall("load", ("a",)) == StoreCall("load", ("a",), {})
    assert StoreCall("load", ("a",)) != StoreCall("load", ("b",))
