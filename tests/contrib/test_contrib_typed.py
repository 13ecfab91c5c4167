"""A session as a model: what is read of it, what is written, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NotRequired

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field, model_validator
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

from filesession import ConfigurationError, EncodeError, SessionInvalid
from filesession.contrib.typed import SessionView


class Line(BaseModel):
    sku: str
    qty: int = Field(default=1, ge=1)


class Visitor(BaseModel):
    user: str | None = None
    cart: list[Line] = []
    seen: datetime | None = None


class Notes(TypedDict):
    user: NotRequired[str]
    notes: NotRequired[list[str]]


@dataclass
class Counts:
    visits: int = 0
    pages: dict[str, int] = field(default_factory=dict)


class Tags(RootModel[list[str]]):
    pass


visitors = SessionView(Visitor)

Data = dict[str, Any]


def test_an_empty_session_is_the_models_defaults() -> None:
    assert visitors.load({}) == Visitor()
    assert SessionView(Notes).load({}) == {}
    assert SessionView(Counts).load({}) == Counts()


def test_what_is_stored_comes_back_as_the_models_types() -> None:
    session = {"user": "ada", "cart": [{"sku": "assam", "qty": 2}], "seen": "2026-01-02T03:04:05Z"}
    visitor = visitors.load(session)
    assert visitor.cart == [Line(sku="assam", qty=2)]
    assert visitor.seen == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert SessionView(Counts).load({"visits": 3, "pages": {"/": 3}}) == Counts(3, {"/": 3})


def test_a_strict_model_takes_what_json_made_of_its_types() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)

        seen: datetime | None = None
        tags: set[str] = set()
        place: tuple[int, int] = (0, 0)

    session: Data = {}
    strict = SessionView(Strict)
    value = Strict(seen=datetime(2026, 1, 2, tzinfo=UTC), tags={"new"}, place=(1, 2))
    strict.save(session, value)
    assert session == {"seen": "2026-01-02T00:00:00Z", "tags": ["new"], "place": [1, 2]}
    assert strict.load(session) == value


# -- writing --------------------------------------------------------------------------------------


def test_what_is_changed_inside_the_block_is_written_at_its_end() -> None:
    session: Data = {"cart": [{"sku": "assam", "qty": 1}]}
    with visitors.edit(session) as visitor:
        visitor.cart[0].qty += 1
        visitor.user = "ada"
        assert session == {"cart": [{"sku": "assam", "qty": 1}]}
    assert session == {"cart": [{"sku": "assam", "qty": 2}], "user": "ada"}


def test_an_error_inside_the_block_leaves_the_session_as_it_is() -> None:
    session: Data = {}
    with suppress(LookupError), visitors.edit(session) as visitor:
        visitor.user = "ada"
        raise LookupError
    assert session == {}


def test_a_look_writes_nothing_and_a_change_writes_no_other_field() -> None:
    session: Data = {"seen": "2026-01-02T00:00:00+00:00"}  # as another would write it
    with visitors.edit(session):
        pass
    assert session == {"seen": "2026-01-02T00:00:00+00:00"}
    with visitors.edit(session) as visitor:
        visitor.user = "ada"
        session["cart"] = [{"sku": "assam", "qty": 1}]  # by other code, meanwhile
    assert session == {
        "seen": "2026-01-02T00:00:00+00:00",
        "cart": [{"sku": "assam", "qty": 1}],
        "user": "ada",
    }


def test_true_is_not_taken_for_one() -> None:
    class Answer(BaseModel):
        model_config = ConfigDict(strict=True)

        answer: bool | int = 1

    session: Data = {"answer": 1}
    with SessionView(Answer).edit(session) as value:
        value.answer = True
    assert session["answer"] is True


def test_what_the_model_does_not_name_stays() -> None:
    session: Data = {"flash": "hello"}
    with visitors.edit(session) as visitor:
        visitor.user = "ada"
    assert session == {"flash": "hello", "user": "ada"}


def test_a_key_taken_out_of_a_typeddict_is_taken_out_of_the_session() -> None:
    session: Data = {"user": "ada", "notes": ["tea"], "flash": "hello"}
    with SessionView(Notes).edit(session) as notes:
        del notes["user"]
        notes["notes"].append("milk")
    assert session == {"notes": ["tea", "milk"], "flash": "hello"}


def test_a_value_of_its_own_is_saved_over_what_is_there() -> None:
    session: Data = {"user": "ada", "cart": [{"sku": "assam", "qty": 1}], "flash": "hello"}
    visitors.save(session, Visitor(user="eve"))
    assert session == {"user": "eve", "cart": [], "flash": "hello"}


def test_saving_replaces_what_does_not_fit() -> None:
    session: Data = {"user": 5, "flash": "hello"}
    visitors.save(session, Visitor(user="ada"))
    assert session["user"] == "ada"
    assert session["flash"] == "hello"


def test_the_session_and_the_value_share_no_list() -> None:
    session: Data = {"notes": ["tea"]}
    notes = SessionView(Notes).load(session)
    notes["notes"].append("milk")
    assert session == {"notes": ["tea"]}
    SessionView(Notes).save(session, notes)
    notes["notes"].append("sugar")
    assert session == {"notes": ["tea", "milk"]}


def test_fields_are_stored_under_their_aliases_and_computed_ones_not_at_all() -> None:
    class Express(BaseModel):
        user_name: str = Field(default="", alias="userName")

        @computed_field
        def length(self) -> int:
            return len(self.user_name)

    session: Data = {"userName": "ada"}
    with SessionView(Express).edit(session) as value:
        value.user_name += " l."
    assert session == {"userName": "ada l."}


# -- what does not fit ----------------------------------------------------------------------------


def test_what_is_stored_and_does_not_fit_is_an_error_that_names_places_and_no_values() -> None:
    lines = [{"sku": "assam", "qty": "sixteen"}, {"qty": 1}]
    with pytest.raises(SessionInvalid) as caught:
        visitors.load({"user": 4711, "cart": lines})
    assert str(caught.value) == (
        "the session is no Visitor: user: Input should be a valid string; cart.0.qty: Input should"
        " be a valid integer, unable to parse string as an integer; cart.1.sku: Field required"
    )
    assert caught.value.model == "Visitor"
    assert [place for place, _ in caught.value.problems] == ["user", "cart.0.qty", "cart.1.sku"]
    assert caught.value.__context__ is None  # pydantic's own shows the values


def test_of_many_problems_the_message_tells_three() -> None:
    with pytest.raises(SessionInvalid, match=r"\(and 7 more\)$") as caught:
        visitors.load({"cart": [{}] * 10})
    assert str(caught.value).count("Field required") == 3
    assert len(caught.value.problems) == 10


def test_an_old_shape_is_mended_by_the_model() -> None:
    class Renamed(BaseModel):
        user: str | None = None

        @model_validator(mode="before")
        @classmethod
        def _from_name(cls, data: Data) -> Data:
            return {**data, "user": data.get("user", data.get("name"))}

    assert SessionView(Renamed).load({"name": "ada"}).user == "ada"


def test_what_the_next_request_could_not_read_is_not_written() -> None:
    session: Data = {}
    visitor = Visitor(user="ada", cart=[Line.model_construct(sku="assam", qty=0)])
    with pytest.raises(SessionInvalid, match=r"what is to be stored is no Visitor: cart\.0\.qty: "):
        visitors.save(session, visitor)
    with pytest.raises(SessionInvalid), visitors.edit(session) as empty:
        empty.cart = visitor.cart
    assert session == {}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("anything", object(), SessionInvalid),
        ("anything", 2**64, EncodeError),
        ("number", float("nan"), EncodeError),
    ],
    ids=["of no type of JSON", "too large", "not a number"],
)
def test_what_json_cannot_hold_is_not_written(
    name: str, value: object, error: type[Exception]
) -> None:
    class Anything(BaseModel):
        anything: Any = None
        number: float = 0

    session: Data = {}
    with pytest.raises(error), SessionView(Anything).edit(session) as model:
        setattr(model, name, value)
    assert session == {}


def test_a_field_that_is_read_under_another_name_than_written_is_refused() -> None:
    class Crossed(BaseModel):
        user: str = Field(default="", validation_alias="userName")

    session: Data = {}
    with pytest.raises(ConfigurationError, match="would not read what it writes: user; make"):
        SessionView(Crossed).save(session, Crossed.model_validate({"userName": "ada"}))
    assert session == {}


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="model must be a pydantic model, a dataclass or"):
        SessionView(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="one with named fields, and Tags is not"):
        SessionView(Tags).save({}, Tags(["a"]))


# -- the library ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [("typed", "pydantic", "pydantic"), ("fastapi", "fastapi", "fastapi")],
)
def test_without_its_library_it_says_what_to_install(module: str, library: str, extra: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; import filesession.contrib.{module}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"needs {library}" in run.stderr.lower()
    assert f"pip install 'filesession[{extra}]'" in run.stderr
