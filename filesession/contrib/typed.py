"""A session as a pydantic model, a dataclass or a TypedDict: the one module that knows pydantic.

Rules:

1. The model's fields are keys of the session, under their aliases. What else is in the session
   stays as it is.
2. What is read is validated, and so is what is written: what one request stores the next can read.
3. Only fields that were changed are written. So a look stores nothing, two requests that change
   different fields both keep their change, and a default that nobody changed is not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

from filesession.codec import JSONCodec
from filesession.errors import ConfigurationError, SessionInvalid, shown

try:
    from pydantic import PydanticUserError, TypeAdapter, ValidationError
except ImportError as error:
    _need = "filesession.contrib.typed needs pydantic: pip install 'filesession[pydantic]'"
    raise ImportError(_need) from error

T = TypeVar("T")

_CODEC: Final = JSONCodec()

_STORED: Final = "the session"
_COMING: Final = "what is to be stored"


class SessionView(Generic[T]):
    """Sessions as values of one type. Make it once; it is safe for use by several threads.

    A new session is empty: give every field a default, or ask only sessions that have it. What is
    stored and no longer fits is a ``SessionInvalid``, never an empty model in its place: a model
    whose shape changes takes the old one with a ``model_validator(mode="before")``.

    Args:
        model: a pydantic model, a dataclass or a TypedDict.

    Raises:
        ConfigurationError: pydantic cannot use it.
    """

    __slots__ = ("_adapter", "_name")

    def __init__(self, model: type[T]) -> None:
        self._name = getattr(model, "__name__", shown(model))
        try:
            self._adapter = TypeAdapter(model)
        except PydanticUserError as error:
            msg = f"model must be a pydantic model, a dataclass or a TypedDict: {error}"
            raise ConfigurationError(msg) from error

    def load(self, session: Mapping[str, Any]) -> T:
        """What the session holds, as a value of its own: changing that does not change the session.

        Raises:
            SessionInvalid: it does not fit the model.
            EncodeError: something was put into the session that JSON cannot hold.
        """
        return self._validated(_CODEC.encode(dict(session)), _STORED)

    def save(self, session: MutableMapping[str, Any], value: T) -> None:
        """Put a value into the session, which is stored when it is; replaces what did not fit.

        Raises:
            SessionInvalid: it is no longer valid, as an attribute was set to something that is not.
            EncodeError: JSON cannot hold it.
        """
        try:
            base = self._texts(self.load(session))
        except SessionInvalid:
            base = {}
        self._write(session, base, value)

    @contextmanager
    def edit(self, session: MutableMapping[str, Any]) -> Iterator[T]:
        """``load``, and at the end of the block write what was changed inside.

        An exception leaves the session as it is. To read, change and write with no other request in
        between, do it inside ``session.lock()`` or ``alock()``.

        Raises:
            SessionInvalid, EncodeError: as ``load`` and ``save``.
        """
        value = self.load(session)
        base = self._texts(value)
        yield value
        self._write(session, base, value)

    def _write(self, session: MutableMapping[str, Any], base: dict[str, bytes], value: T) -> None:
        """Write the fields that differ from ``base``, if the model could read them again."""
        data = self._dumped(value)
        again = self._validated(_CODEC.encode(data), _COMING)
        lost = data.keys() - self._dumped(again, exclude_unset=True).keys()
        if lost:
            msg = (
                f"{self._name} would not read what it writes: {', '.join(sorted(lost))};"
                " make validation_alias and serialization_alias the same"
            )
            raise ConfigurationError(msg)
        for key in base.keys() - data.keys():
            session.pop(key, None)
        for key, text in self._texts(value).items():
            if base.get(key) != text:
                session[key] = data[key]

    def _texts(self, value: T) -> dict[str, bytes]:
        """Each of its fields as JSON text, in which True is not 1."""
        return {key: _CODEC.encode({key: field}) for key, field in self._dumped(value).items()}

    def _dumped(self, value: T, *, exclude_unset: bool = False) -> dict[str, Any]:
        try:
            data = self._adapter.dump_python(
                value,
                mode="json",
                by_alias=True,
                round_trip=True,
                exclude_unset=exclude_unset,
                warnings=False,
            )
        except ValueError as error:
            raise SessionInvalid(_COMING, self._name, [("", str(error))]) from None
        if not isinstance(data, dict):
            msg = f"model must be one with named fields, and {self._name} is not"
            raise ConfigurationError(msg)
        return data

    def _validated(self, text: bytes, what: str) -> T:
        """By the rules of JSON, in which a date is text and a set is a list."""
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            # Without the values, which are nobody's business who reads the log.
            found = error.errors(include_url=False, include_context=False, include_input=False)
            problems = [(".".join(map(str, each["loc"])), each["msg"]) for each in found]
        raise SessionInvalid(what, self._name, problems)
