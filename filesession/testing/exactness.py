"""What goes in comes back as it was, or is refused with nothing changed."""

from __future__ import annotations

import enum
import math
import uuid
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

import pytest

from filesession.errors import EncodeError
from filesession.stores.protocol import Store
from filesession.testing.base import ContractTests, loaded


class _Text(str):
    __slots__ = ()


class _Number(int):
    pass


class _Colour(enum.Enum):
    RED = "red"


class _Level(enum.IntEnum):
    HIGH = 3


@dataclass
class _Point:
    x: int = 1


_Pair = namedtuple("_Pair", ["a", "b"])  # noqa: PYI024 - one that looks like a tuple


EXACT: Final[list[Any]] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    0.0,
    -0.0,
    1.0,
    0.1,
    1 / 3,
    1e308,
    5e-324,
    1_760_000_000.123456,
    "",
    "text",
    "\u00e9 \u4e16\u754c \U0001f36a",
    'quote " backslash \\ slash /',
    "line\nbreak\r\n tab\t NUL \0 \x7f \x85 \u2028",
    ',"data":{"a":1}}',
    [],
    {},
    [[]],
    [1, "1", 1.0, True, None],
    {"": {"": ""}},
    {"a.b": 1, "a b": 2, "\u00e9": 3, "0": 4, "data": {"data": 5}},
    {"deep": [{"er": [{"still": [1, [2, [3]]]}]}]},
]

INEXACT: Final = {
    "not a number": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "65 bits": 2**64,
    "negative 65 bits": -(2**63) - 1,
    "half a surrogate pair": "\ud800",
    "bytes": b"bytes",
    "bytearray": bytearray(b"bytes"),
    "set": {1},
    "frozenset": frozenset({1}),
    "uuid": uuid.UUID(int=1),
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "date": date(2026, 1, 1),
    "time": time(12),
    "timedelta": timedelta(1),
    "decimal": Decimal("1.5"),
    "fraction": Fraction(1, 3),
    "complex": 1j,
    "enum": _Colour.RED,
    "int enum": _Level.HIGH,
    "str subclass": _Text("text"),
    "int subclass": _Number(1),
    "dict subclass": OrderedDict(a=1),
    "named tuple": _Pair(1, 2),
    "dataclass": _Point(),
    "range": range(3),
    "object": object(),
    "function": len,
}

NOT_KEYS: Final = {
    "int": 1,
    "float": 1.5,
    "bool": True,
    "None": None,
    "bytes": b"key",
    "tuple": ("a", "b"),
    "str subclass": _Text("key"),
    "half a surrogate pair": "\ud800",
}


def nested(levels: int) -> dict[str, Any]:
    """Data of so many dicts, one in the other."""
    data: dict[str, Any] = {}
    for _ in range(levels - 1):
        data = {"a": data}
    return data


class ExactnessTests(ContractTests):
    """Values and their types; whose the data is."""

    @pytest.mark.parametrize("value", EXACT, ids=lambda value: ascii(value)[:30])
    def test_a_value_comes_back_as_it_was(self, store: Store, value: Any) -> None:  # noqa: ANN401
        """Whatever JSON can hold comes back equal and of the same type, to the last bit.

        A store that turns 1.0 into 1, -0.0 into 0.0 or drops a NUL changes prices, digests and
        texts behind the app's back. Its encoding is to blame.
        """
        # repr tells 1 from 1.0 and True, and 0.0 from -0.0, where == does not.
        record = store.create({"value": value})
        assert repr(loaded(store, record.id).data) == repr({"value": value})
        store.save(record.id, {"value": [value]})
        assert repr(loaded(store, record.id).data) == repr({"value": [value]})

    def test_a_tuple_comes_back_as_a_list(self, store: Store) -> None:
        """A tuple is stored as the list that JSON has for it, at every depth; the only exception.

        Apps put tuples into sessions all the time. A store that refuses them breaks such an app;
        one that keeps them works until it is replaced by one that cannot.
        """
        sid = store.create({"pair": (1, (2, 3))}).id
        assert loaded(store, sid).data == {"pair": [1, [2, 3]]}

    def test_the_order_of_keys_is_kept(self, store: Store) -> None:
        """Keys come back in the order in which they were set.

        Carts, breadcrumbs and flash messages are shown in that order: with sorted or hashed keys
        the page shuffles between two requests.
        """
        sid = store.create({"b": 1, "a": 2, "c": 3}).id
        assert list(loaded(store, sid).data) == ["b", "a", "c"]

    def test_data_may_be_any_mapping(self, store: Store) -> None:
        """``data`` is any mapping, not only a dict: the middleware's session is one itself.

        A store that asks for a dict fails at the first save of a request.
        """
        sid = store.create(MappingProxyType({"a": 1})).id
        store.save(sid, OrderedDict(b=2))
        assert loaded(store, sid).data == {"b": 2}

    def test_a_large_session_comes_back_whole(self, store: Store) -> None:
        """A session of a hundred kilobytes, saved again and again, is loaded as it was saved.

        A limit on values, a short write or a page boundary shows here. In production it shows as a
        session that is cut off, which must never be served.
        """
        data: dict[str, list[Any]] = {f"key {n}": ["x" * 100, n, n / 3] for n in range(1000)}
        record = store.create(data)
        assert loaded(store, record.id).data == data
        for n in range(6):
            data[f"more {n}"] = [n]
            store.save(record.id, data)
            assert loaded(store, record.id).data == data

    @pytest.mark.parametrize("value", INEXACT.values(), ids=INEXACT.keys())
    def test_a_value_that_would_change_is_refused(self, store: Store, value: Any) -> None:  # noqa: ANN401
        """What would not come back as it was is an ``EncodeError`` with its path; nothing changes.

        An app that stores a datetime and gets a text back fails a request later, far from the
        cause. Encode strictly, and before anything is written.
        """
        before = store.create({"kept": [1]})
        data = {"kept": [1], "cart": [{"price": 1}, {"price": value}]}
        with pytest.raises(EncodeError) as refused:
            store.save(before.id, data)
        assert isinstance(refused.value, TypeError)
        assert refused.value.path == "cart[1].price"
        assert "cart[1].price" in str(refused.value)
        assert store.load(before.id) == before

    def test_no_session_is_created_with_a_value_that_would_change(self, store: Store) -> None:
        """A ``create`` that is refused leaves no session behind, not even an empty one.

        Else the id is taken by a session without the data the app relies on.
        """
        with pytest.raises(EncodeError):
            store.create({"value": {1, 2}}, sid="chosen")
        assert store.load("chosen") is None

    @pytest.mark.parametrize("key", NOT_KEYS.values(), ids=NOT_KEYS.keys())
    def test_a_key_that_would_change_is_refused(self, store: Store, key: Any) -> None:  # noqa: ANN401
        """Keys are text; any other key, at any depth, is an ``EncodeError`` that names where.

        JSON would make ``{1: ...}`` into ``{"1": ...}``: the app looks a product up by its number
        and finds nothing.
        """
        before = store.create({"kept": 1})
        with pytest.raises(EncodeError):
            store.save(before.id, {key: 1})
        with pytest.raises(EncodeError) as refused:
            store.save(before.id, {"cart": {"lines": {key: 1}}})
        assert refused.value.path == "cart.lines"
        assert store.load(before.id) == before

    def test_data_may_be_nested_two_hundred_levels_deep(self, store: Store) -> None:
        """Two hundred levels of nesting are stored and come back.

        So deep an app may rely on; a store that stops earlier does so in the one request with the
        long comment thread.
        """
        sid = store.create(nested(200)).id
        assert loaded(store, sid).data == nested(200)

    def test_data_nested_deeper_is_refused(self, store: Store) -> None:
        """Deeper data is an ``EncodeError`` that names the place, and nothing is stored.

        It must be neither a crash of the encoder, which takes the worker along, nor a session that
        can be saved and never loaded.
        """
        before = store.create({"kept": 1})
        for levels in (201, 1000):
            with pytest.raises(EncodeError) as refused:
                store.save(before.id, nested(levels))
            assert refused.value.path.startswith("a.a.a")
        assert store.load(before.id) == before

    def test_data_that_contains_itself_is_refused(self, store: Store) -> None:
        """Data that contains itself is an ``EncodeError``, found soon and without deep recursion.

        A careless ``session["user"] = user`` can close such a ring. It must cost that request a
        clean error, not the worker.
        """
        before = store.create({"kept": 1})
        loop: dict[str, Any] = {"a": 1}
        loop["self"] = loop
        with pytest.raises(EncodeError) as refused:
            store.save(before.id, loop)
        assert refused.value.path.startswith("self.self")
        ring: list[Any] = []
        ring.append([ring])
        with pytest.raises(EncodeError):
            store.save(before.id, {"ring": ring})
        assert store.load(before.id) == before

    def test_changing_the_data_of_a_record_changes_nothing_stored(self, store: Store) -> None:
        """A record's data belongs to the caller: the store shares no list or dict with it.

        Requests run at once. With shared objects one sees what the other has not saved yet, or
        decided not to save because it failed.
        """
        created = store.create({"cart": ["tea"]})
        created.data["cart"].append("cake")
        assert loaded(store, created.id).data == {"cart": ["tea"]}
        loaded(store, created.id).data["user"] = "eve"
        assert loaded(store, created.id).data == {"cart": ["tea"]}
        saved = store.save(created.id, {"cart": ["jam"]})
        saved.data["cart"].clear()
        assert loaded(store, created.id).data == {"cart": ["jam"]}

    def test_changing_what_was_saved_changes_nothing_stored(self, store: Store) -> None:
        """What was given to ``create`` or ``save`` may be changed afterwards without being stored.

        An app that goes on filling its cart after the save would otherwise store half of it,
        without a version and past every conflict check.
        """
        cart = ["tea"]
        data = {"cart": cart}
        record = store.create(data)
        cart.append("cake")
        assert loaded(store, record.id).data == {"cart": ["tea"]}
        store.save(record.id, data)
        cart.append("jam")
        data["more"] = []
        assert loaded(store, record.id).data == {"cart": ["tea", "cake"]}

    def test_a_record_whose_data_was_changed_still_is_a_base(self, store: Store) -> None:
        """Changing a record's data in place, then saving with it as base, is the usual way to save.

        The store must compare with what was loaded, which ``SessionRecord.encoded`` keeps, not with
        ``base.data``, or every change looks like none and is lost in the merge.
        """
        sid = store.create({"cart": ["tea"], "user": "ada"}).id
        ours, theirs = loaded(store, sid), loaded(store, sid)
        theirs.data["theme"] = "dark"
        del theirs.data["user"]
        store.save(sid, theirs.data, base=theirs)
        ours.data["cart"].append("cake")
        store.save(sid, ours.data, base=ours)
        assert loaded(store, sid).data == {"cart": ["tea", "cake"], "theme": "dark"}
