"""express-session's decision matrix, and every difference of ours from it, with its reason.

The matrix was made by running the real package. A row's outcome is told in our words; then each of
``DIFFERENCES`` that concerns the row changes it. A row that none of them concerns is as Express has
it. What a row does not tell, and we do otherwise, is in tests/PARITY.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

NOT_LOADED: Final = "err:failed to load session"
"""What the page says where Express's ``reload`` failed, and ours raised ``SessionGone``."""

Unset: TypeAlias = Literal["keep", "destroy"]
Cookie: TypeAlias = Literal["none", "kept", "new", "expired"]
"""What a response says of the cookie: nothing, the same id, another one, or that it is over."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request came to.

    Attributes:
        calls: the store calls, in order, by the names of our verbs.
        cookie: what the response says of it.
        body: of the page.
    """

    calls: tuple[str, ...]
    cookie: Cookie
    body: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the matrix.

    Attributes:
        options: our middleware's, as the row has Express's.
        unset: the one of them that a difference depends on.
        incoming: the request's cookie: "none", "valid", or an "unknown_id" that is signed.
        handler: what the application does.
        express: what it came to there.
        columns: the row as the matrix has it, for messages.
    """

    options: dict[str, Any]
    unset: Unset
    incoming: str
    handler: str
    express: Outcome
    columns: str

    @property
    def is_stored(self) -> bool:
        """The session the cookie names is in the store."""
        return self.incoming == "valid"


def _row(columns: dict[str, Any]) -> Row:
    max_age, unset = columns["maxAgeMs"], columns["unset"]
    cookie: dict[bool | None, Cookie] = {None: "none", False: "kept", True: "new"}
    assert columns["setCookie"] == (columns["cookieIdIsNew"] is not None)
    return Row(
        options={
            "resave": columns["resave"],
            "save_uninitialized": columns["saveUninitialized"],
            "rolling": columns["rolling"],
            "max_age": None if max_age is None else max_age / 1000,
            "unset": unset,
        },
        unset=unset,
        incoming=columns["incoming"],
        handler=columns["handler"],
        express=Outcome(
            tuple(_our_words(columns["storeCalls"], stored=columns["incoming"] == "valid")),
            cookie[columns["cookieIdIsNew"]],
            columns["body"],
        ),
        columns=", ".join(f"{name}={value}" for name, value in columns.items()),
    )


def _our_words(calls: list[str], *, stored: bool) -> list[str]:
    """Express's ``set`` is our ``create`` or ``save``; the others have one name each."""
    found: list[str] = []
    for call in calls:
        found.append({"get": "load", "set": "save", "destroy": "delete"}.get(call, call))
        if call == "set" and not stored:
            found[-1] = "create"
        stored = call != "destroy" and (stored or call == "set")
    return found


def _matrix() -> list[Row]:
    path = Path(__file__).parents[1] / "vectors" / "express_session_decision_matrix.json"
    matrix = json.loads(path.read_text("utf-8"))
    return [_row(dict(zip(matrix["columns"], row, strict=True))) for row in matrix["rows"]]


ROWS: Final = _matrix()

# -- the differences ------------------------------------------------------------------------------

Difference: TypeAlias = Callable[[Row, Outcome], Outcome]
"""Makes of Express's outcome ours, and leaves it alone where the row is none of its concern."""


def _with(outcome: Outcome, *calls: str, cookie: Cookie | None = None) -> Outcome:
    return replace(outcome, calls=calls, cookie=cookie or outcome.cookie)


def a_session_never_stored_is_not_looked_for_again(row: Row, outcome: Outcome) -> Outcome:
    """Its ``reload`` fails at once: no store can know an id that was given to nobody."""
    reloads = row.handler in {"reload", "reload_modify_save", "modify_then_reload"}
    if not reloads or row.is_stored:
        return outcome
    at = outcome.calls.index("load")
    return _with(outcome, *outcome.calls[:at], *outcome.calls[at + 1 :])


def what_was_never_stored_is_not_deleted(row: Row, outcome: Outcome) -> Outcome:
    """Express asks the store to destroy what it has just found missing, or never announced."""
    if row.is_stored or "delete" not in outcome.calls:
        return outcome
    return _with(outcome, *(call for call in outcome.calls if call != "delete"))


def regenerate_is_one_call(row: Row, outcome: Outcome) -> Outcome:
    """Destroy and set, two calls, lose the session when the second fails or the process dies."""
    if not (row.is_stored and row.handler.startswith("regenerate")):
        return outcome
    load, delete, create, *more = outcome.calls
    assert (load, delete, create) == ("load", "delete", "create")
    return _with(outcome, load, "regenerate", *more)


def what_save_wrote_after_regenerate_is_not_written_twice(row: Row, outcome: Outcome) -> Outcome:
    """Express forgets in ``regenerate`` that ``save`` has been called (its issue 935)."""
    if row.handler != "regenerate_modify_save":
        return outcome
    *before, last = outcome.calls
    assert last == "save"
    return _with(outcome, *before, "touch")


def save_of_an_unchanged_session_is_only_activity(row: Row, outcome: Outcome) -> Outcome:
    """The data is not written anew by ``save``, but by ``resave`` when the request ends."""
    if not (row.is_stored and row.handler == "explicit_save_unmodified"):
        return outcome
    assert outcome.calls == ("load", "save", "touch")
    return _with(outcome, "load", "touch", "save" if row.options["resave"] else "touch")


def a_new_session_that_was_saved_is_there_when_its_cookie_leaves(
    row: Row, outcome: Outcome
) -> Outcome:
    """Another request may have ended it since; a touch asks, and no cookie leads to nothing."""
    saves = row.handler in {"explicit_save_then_end", "explicit_save_unmodified"}
    if not saves or row.is_stored:
        return outcome
    return _with(outcome, *outcome.calls, "touch")


def a_new_session_that_was_saved_is_announced(row: Row, outcome: Outcome) -> Outcome:
    """Express keeps an unchanged one to itself: a record that nobody can reach."""
    hidden = row.handler == "explicit_save_unmodified" and not row.options["save_uninitialized"]
    if not hidden or row.is_stored:
        return outcome
    return _with(outcome, *outcome.calls, cookie="new")


def a_changed_cookie_attribute_is_a_change(row: Row, outcome: Outcome) -> Outcome:
    """It is stored, and the browser is told; Express does both only when something else changed."""
    options = row.options
    if row.handler != "cookie_only_changed":
        return outcome
    if row.is_stored:
        as_it_is = options["resave"] and options["rolling"]
        return outcome if as_it_is else _with(outcome, "load", "save", cookie="kept")
    if options["save_uninitialized"]:
        return outcome
    return _with(outcome, *outcome.calls, "create", cookie="new")


def the_cookie_of_a_session_that_ended_is_expired(row: Row, outcome: Outcome) -> Outcome:
    """The browser keeps the dead one in Express 1; version 2 expires it. One that verified only."""
    ends = row.handler == "destroy" or (row.handler == "set_null" and row.unset == "destroy")
    if not ends or row.incoming == "none":
        return outcome
    return _with(outcome, *outcome.calls, cookie="expired")


DIFFERENCES: Final[list[Difference]] = [
    a_session_never_stored_is_not_looked_for_again,
    what_was_never_stored_is_not_deleted,
    regenerate_is_one_call,
    what_save_wrote_after_regenerate_is_not_written_twice,
    save_of_an_unchanged_session_is_only_activity,
    a_new_session_that_was_saved_is_there_when_its_cookie_leaves,
    a_new_session_that_was_saved_is_announced,
    a_changed_cookie_attribute_is_a_change,
    the_cookie_of_a_session_that_ended_is_expired,
]


def expected(row: Row, differences: list[Difference] = DIFFERENCES) -> Outcome:
    """What a row must come to here."""
    outcome = row.express
    for difference in differences:
        outcome = difference(row, outcome)
    return outcome


def concerning(row: Row) -> list[Difference]:
    """The differences that change a row's outcome."""
    found: list[Difference] = []
    outcome = row.express
    for difference in DIFFERENCES:
        before, outcome = outcome, difference(row, outcome)
        if outcome != before:
            found.append(difference)
    return found
