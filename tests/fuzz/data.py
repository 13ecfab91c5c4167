"""Session data of any kind, in every store and through a whole request.

``is_exact`` says anew what JSON can hold exactly.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from wsgiref.util import setup_testing_defaults

from filesession import FileStore
from filesession.errors import EncodeError
from filesession.stores import MemoryStore
from filesession.testing import ManualClock
from filesession.wsgi import SessionMiddleware
from tests.fuzz.values import KINDS, RESTS, dict_of, value_of

DEEPEST: Final = 200

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def is_exact(value: Any, level: int = 1) -> bool:
    """Whether JSON of 64-bit integers and finite floats holds it, 200 levels deep at most.

    Depth first: what contains itself has a bottom nowhere, and more of it at every level.
    """
    kind = type(value)
    if kind is dict:
        if not all(type(key) is str and is_exact(key) for key in value):
            return False
        return level <= DEEPEST and all(is_exact(each, level + 1) for each in value.values())
    if kind is list or kind is tuple:
        return level <= DEEPEST and all(is_exact(each, level + 1) for each in value)
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if kind is float:
        return math.isfinite(value)
    return value is None or kind is bool or (kind is str and not _SURROGATE.search(value))


def as_json(value: Any) -> Any:
    """What comes back of an exact value."""
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(inner) for inner in value]
    return value


class SessionData:
    """Values saved by a store of files, by one in memory, and through a whole request."""

    def __init__(self, directory: Path) -> None:
        self._clock = ManualClock()
        self._directory = directory / "sessions"
        files = FileStore(self._directory, clock=self._clock, shard_depth=0)
        self._stores = (files, MemoryStore(clock=self._clock))
        self._gateway = SessionMiddleware(self._app, files, "secret")
        self._data: dict[Any, Any] = {}
        self._sid = ""

    def _app(self, environ: Any, start_response: Any) -> list[bytes]:
        environ["filesession.session"].update(self._data)
        self._sid = environ["filesession.session"].id
        start_response("200 OK", [])
        return [b""]

    def __call__(self, data: bytes) -> None:
        """An input: a value as ``value_of`` reads it."""
        value = value_of(io.BytesIO(data))
        self.check(value if isinstance(value, dict) else {"value": value})

    def check(self, data: dict[Any, Any]) -> None:
        """It comes back exactly, or is refused by a name, and then nothing is stored."""
        try:
            self._check(data, exact=is_exact(data))
        finally:
            for store in self._stores:
                store.clear()

    def _check(self, data: dict[Any, Any], *, exact: bool) -> None:
        for store in self._stores:
            self._check_store(store, data, exact=exact)
        self._data = data
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        try:
            self._gateway(environ, lambda *_: bytes)
        except EncodeError as error:
            _check_refusal(error, exact=exact)
            assert self._stores[0].load(self._sid) is None
        else:
            assert exact
            self._check_stored(self._stores[0], self._sid, data)

    def _check_store(self, store: Any, data: dict[Any, Any], *, exact: bool) -> None:
        record = store.create({"before": 1})
        try:
            made = store.create(data)
        except EncodeError as error:
            _check_refusal(error, exact=exact)
        else:
            assert exact
            self._check_stored(store, made.id, data)
        try:
            store.save(record.id, data, base=record)
        except EncodeError as error:
            _check_refusal(error, exact=exact)
            assert store.load(record.id).data == {"before": 1}
            assert store.delete(record.id)
        else:
            assert exact
            self._check_stored(store, record.id, data)
        assert len(store) == 0

    def _check_stored(self, store: Any, sid: str, data: dict[Any, Any]) -> None:
        found = store.load(sid)
        assert found is not None or not data
        assert found is None or repr(found.data) == repr(as_json(data))
        assert store.delete(sid) or not data


def _check_refusal(error: EncodeError, *, exact: bool) -> None:
    assert not exact
    assert error.path
    assert str(error).startswith(f"session data at {error.path}: ")


def data_seeds() -> Iterator[bytes]:
    """A dict with one value of each kind."""
    for kind in range(len(KINDS)):
        yield from (bytes([KINDS.index(dict_of), 1, 1, 97, kind]) + rest for rest in RESTS)
