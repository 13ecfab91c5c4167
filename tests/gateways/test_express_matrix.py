"""Every row of express-session's decision matrix, through both gateways, by real requests.

What we do otherwise on purpose is listed in tests/gateways/express.py and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.errors import SessionGone
from filesession.stores.entry import handle_of
from tests.gateways.express import (
    DIFFERENCES,
    NOT_LOADED,
    ROWS,
    Cookie,
    Difference,
    Outcome,
    Row,
    concerning,
    expected,
)

if TYPE_CHECKING:
    from filesession.session import Session
    from tests.gateways.conftest import Answer, Here, RecordingStore, Site

COUNT: Final = 407
"""Rows in the matrix."""


# -- what the application does, by the names in the matrix ----------------------------------------


def nothing(session: Session) -> None:
    """Does not look at it."""


def read(session: Session) -> None:
    session.get("n")


def modify(session: Session) -> None:
    session["n"] = session.get("n", 0) + 1


def assign_the_same(session: Session) -> None:
    session.update({key: session[key] for key in session})


def change_cookie(session: Session) -> None:
    session.cookie.http_only = False


def save(session: Session) -> None:
    session.save()


def regenerate(session: Session) -> None:
    session.regenerate(keep_data=False)  # as Express's, which takes nothing along


def reload(session: Session) -> None:
    session.reload()


def destroy(session: Session) -> None:
    session.destroy()


HANDLERS: Final[dict[str, list[Callable[[Session], None]]]] = {
    "untouched": [nothing],
    "read_only": [read],
    "modified": [modify],
    "same_value_assigned": [assign_the_same],
    "cookie_only_changed": [change_cookie],
    "explicit_save_unmodified": [save],
    "explicit_save_then_end": [modify, save],
    "explicit_save_then_modify": [modify, save, modify],
    "regenerate": [regenerate],
    "regenerate_then_modify": [regenerate, modify],
    "regenerate_modify_save": [regenerate, modify, save],
    "reload": [reload],
    "modify_then_reload": [modify, reload],
    "reload_modify_save": [reload, modify, save],
    "destroy": [destroy],
    "set_null": [],
}


def page_of(row: Row) -> Callable[[Here], None]:
    """The application of a row."""

    def page(here: Here) -> None:
        here.body = [b"ok"]
        if row.handler == "set_null":
            here.place[here.key] = None
        try:
            for step in HANDLERS[row.handler]:
                step(here.session)
        except SessionGone:
            here.body = [NOT_LOADED.encode()]

    return page


# -- running a row --------------------------------------------------------------------------------


@pytest.fixture
def flat(store: RecordingStore, tmp_path: Path) -> RecordingStore:
    """One for all rows, without shards: the first session in each waits for the disk."""
    return type(store)(tmp_path / "flat", shard_depth=0)


@pytest.fixture
def run(
    make_site: Callable[..., Site], flat: RecordingStore, cookie_of: Callable[..., str]
) -> Callable[..., Outcome]:
    """Makes the request of a row and says what it came to."""

    store = flat

    def run(row: Row, *, forged: bool = False) -> Outcome:
        store.clear()
        sid: str = store.create({"n": 1}).id
        cookie = None if row.incoming == "none" else cookie_of(sid)
        if forged:
            cookie = cookie_of(sid, "a forger's secret")
        if row.incoming != "valid":
            store.delete(sid)
        site = make_site(store=store, **row.options)
        site.events = store.journal
        store.calls.clear()
        answer = site.request(page_of(row), cookie=cookie)
        calls = tuple(store.calls)
        body = answer.body.decode()
        assert site.events == [*calls, "start", answer.body], "stored before the response starts"
        said, held = told(answer, sid)
        assert stored(store) <= {handle_of(held)}, "what is stored can be reached by the browser"
        return Outcome(calls, said, body)

    return run


def told(answer: Answer, sid: str) -> tuple[Cookie, str]:
    """What a response says of the cookie, and the id that the browser holds then."""
    if answer.set_cookie is None:
        return "none", sid
    if answer.expires_the_cookie:
        return "expired", ""
    return ("kept" if answer.sid == sid else "new"), answer.sid


def stored(store: RecordingStore) -> set[str]:
    return {info.handle for info in store.scan()}


def wrong(run: Callable[..., Outcome], rows: list[Row], **how: Any) -> list[str]:
    """The rows that did not come to what they must, each with its columns."""
    assert rows
    return [
        f"{row.columns}\n    must be {expected(row)}\n    but was {outcome}"
        for row in rows
        if (outcome := run(row, **how)) != expected(row)
    ]


@pytest.mark.parametrize("handler", HANDLERS)
def test_each_row_is_as_in_express_but_for_the_differences_listed(
    run: Callable[..., Outcome], handler: str
) -> None:
    found = wrong(run, [row for row in ROWS if row.handler == handler])
    assert not found, "\n".join(found)


def test_a_forged_cookie_is_as_none_in_every_row(run: Callable[..., Outcome]) -> None:
    found = wrong(run, [row for row in ROWS if row.incoming == "none"], forged=True)
    assert not found, "\n".join(found)


# -- the list of differences ----------------------------------------------------------------------


def name(difference: Difference) -> str:
    return difference.__name__


def test_every_row_of_the_matrix_is_run() -> None:
    assert len(ROWS) == len({row.columns for row in ROWS}) == COUNT
    assert {row.handler for row in ROWS} == set(HANDLERS)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=name)
def test_a_difference_is_there_for_a_few_rows_and_has_a_reason(difference: Difference) -> None:
    concerned = [row for row in ROWS if difference in concerning(row)]
    assert 0 < len(concerned) < COUNT / 4
    assert len((difference.__doc__ or "").split()) > 10


@pytest.mark.parametrize("difference", DIFFERENCES, ids=name)
def test_without_a_difference_every_row_it_concerns_would_be_another(
    difference: Difference,
) -> None:
    others = [other for other in DIFFERENCES if other is not difference]
    for row in ROWS:
        if difference in concerning(row):
            assert expected(row, others) != expected(row), row.columns


def test_a_row_that_no_difference_concerns_is_exactly_as_in_express() -> None:
    alike = [row for row in ROWS if not concerning(row)]
    assert all(expected(row) == row.express for row in alike)
    said = (Path(__file__).parents[1] / "PARITY.md").read_text("utf-8")
    assert f"{len(alike)} of its {COUNT} rows" in said
