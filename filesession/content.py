"""A dict that knows what of it is stored: whether it differs, and how to follow what others saved.

The two are compared as JSON text, so that a change anywhere in nested data is noticed and a look at
it is not taken for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from filesession.codec import Codec, JSONCodec
from filesession.errors import EncodeError
from filesession.record import SessionRecord
from filesession.stores.entry import merged
from filesession.tracked import TrackedDict


class Content(TrackedDict):
    """A dict of JSON values, and the text of what is stored."""

    __slots__ = ("_codec", "_text")

    _text: bytes

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self._codec = codec
        self._accessed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {dict.__repr__(self)}>"

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        """A copy, deep or pickled, is a plain dict: what is stored has one owner."""
        return dict, (self.copy(),)

    def _load(self, record: SessionRecord | None) -> None:
        """Be what the record says; nothing, when there is none."""
        dict.clear(self)
        dict.update(self, {} if record is None else record.data)
        self._text = self._codec.encode({}) if record is None else self._text_of(record)

    def _encoded(self) -> tuple[dict[str, Any], bytes]:
        """A copy of the data and its text. Raises ``EncodeError`` for what cannot be stored."""
        data = dict.copy(self)
        return data, self._codec.encode(data)

    def _differs(self) -> bool:
        """Whether it is no longer what is stored."""
        try:
            return not self._alike(self._codec.encode(dict.copy(self)), self._text)
        except EncodeError:
            return True

    def _follow(self, record: SessionRecord, base: bytes) -> None:
        """Take over what is stored now, and keep on top of it what was changed since ``base``."""
        text = self._text_of(record)
        if not self._alike(text, base):
            ours, _ = self._encoded()
            self._replace(merged(self._codec.decode(base), ours, record.data, self._codec))
        self._text = text

    def _replace(self, data: Mapping[str, Any]) -> None:
        """Become equal to ``data``, whose lists and dicts may become ours.

        A list or dict that was here stays the very object it is, with its new content: who holds it
        goes on changing the session.
        """
        own = {key: self._adopted(key, value) for key, value in data.items()}
        dict.clear(self)
        dict.update(self, own)  # in the order of data, which is part of its text

    def _adopted(self, key: str, value: Any) -> Any:  # noqa: ANN401 - any JSON value
        """The object that is to stand for a value."""
        held: Any = dict.get(self, key)
        if type(held) is not type(value):
            return value
        if not self._is_stored_alike(held, value):
            if type(held) is list:
                held[:] = value
            elif type(held) is dict:
                held.clear()
                held.update(value)
            else:
                return value
        return held

    def _is_stored_alike(self, one: object, other: object) -> bool:
        encode = self._codec.encode
        try:
            return self._alike(encode({"": one}), encode({"": other}))
        except EncodeError:
            return False

    def _text_of(self, record: SessionRecord) -> bytes:
        return record.encoded or self._codec.encode(record.data)

    def _alike(self, one: bytes, other: bytes) -> bool:
        """Whether two texts hold the same data: a codec that encrypts never writes it alike."""
        if one == other:
            return True
        decode = self._codec.decode
        return type(self._codec) is not JSONCodec and repr(decode(one)) == repr(decode(other))
