"""The error tree: what can be caught as what, what an error carries, and that it shows no id."""

from __future__ import annotations

import errno
import inspect
import pickle
import re

import pytest

import filesession
from filesession import errors
from filesession.errors import (
    ConfigurationError,
    ConflictError,
    CookieTooLarge,
    EncodeError,
    FilesessionError,
    LockTimeout,
    SessionExists,
    SessionGone,
    SessionInvalid,
    StoreError,
    StoreFull,
    StoreUnavailable,
    WouldSync,
    store_error,
)

TREE = {
    ConfigurationError: (FilesessionError, ValueError),
    EncodeError: (FilesessionError, TypeError),
    CookieTooLarge: (FilesessionError, ValueError),
    SessionGone: (FilesessionError, LookupError),
    SessionExists: (FilesessionError,),
    SessionInvalid: (FilesessionError, ValueError),
    ConflictError: (FilesessionError,),
    StoreError: (FilesessionError,),
    StoreFull: (StoreError,),
    StoreUnavailable: (StoreError,),
    LockTimeout: (StoreError, TimeoutError),
    WouldSync: (StoreError,),
}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_an_error_can_be_caught_as_what_the_tree_says(kind: type[Exception]) -> None:
    assert kind.__bases__ == TREE[kind]
    assert kind.__doc__


def test_the_tree_is_complete_and_drawn() -> None:
    found = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind in TREE}
    assert found == set(TREE)
    assert errors.__doc__ is not None
    for kind in TREE:
        assert re.search(rf"── {kind.__name__}\b", errors.__doc__)


def test_the_package_hands_on_every_error_a_caller_meets() -> None:
    for kind in TREE.keys() - {WouldSync}:
        assert getattr(filesession, kind.__name__) is kind


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_store_full(code: int) -> None:
    error = store_error(OSError(code, "no room"), "saving session ab12")
    assert type(error) is StoreFull
    assert str(error) == "saving session ab12: no room; free some space or raise the quota"


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EROFS, errno.EMFILE])
def test_any_other_failure_is_store_unavailable(code: int) -> None:
    error = store_error(OSError(code, "something"), "saving session ab12")
    assert type(error) is StoreUnavailable
    assert str(error).startswith("saving session ab12: something")


@pytest.mark.parametrize(
    ("code", "mend"),
    [(errno.EMFILE, "ulimit -n"), (errno.EACCES, "doctor DIR"), (errno.EPERM, "doctor DIR")],
)
def test_a_failure_that_can_be_mended_says_how(code: int, mend: str) -> None:
    assert mend in str(store_error(OSError(code, "something"), "saving session ab12"))


def test_a_failure_without_a_number_is_told_as_well() -> None:
    assert str(store_error(OSError("odd"), "saving")) == "saving: odd"


def test_an_encode_error_carries_the_path() -> None:
    error = EncodeError("cart[2].price", "nan has no JSON form")
    assert error.path == "cart[2].price"
    assert str(error) == "session data at cart[2].price: nan has no JSON form"


def test_a_conflict_carries_both_sides_and_shows_neither() -> None:
    error = ConflictError(ours={"pin": 1}, theirs={"pin": 2})
    assert (error.ours, error.theirs) == ({"pin": 1}, {"pin": 2})
    assert "pin" not in str(error)


@pytest.mark.parametrize(
    "error",
    [
        EncodeError("a", "b"),
        CookieTooLarge("sid", 5000, 4096, "cart"),
        ConflictError({"a": 1}, {"a": 2}),
        SessionInvalid("the session", "Cart", [("cart.0.qty", "Input should be an integer")]),
        SessionGone("gone"),
        LockTimeout("locked"),
        StoreFull("full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_a_process_boundary(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
