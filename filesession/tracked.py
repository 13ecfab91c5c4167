"""A dict that knows whether it was looked at."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


class TrackedDict(dict[str, Any]):
    """A dict whose ``accessed`` is True once anything was read from it or written to it.

    Code that reaches below the methods, as orjson does, goes unnoticed.
    """

    __slots__ = ("_accessed",)

    _accessed: bool

    @property
    def accessed(self) -> bool:
        """Its data was read or written in this request, so the response depends on the visitor."""
        return self._accessed

    def mark_accessed(self) -> None:
        """Count it as read; Starlette's ``request.session`` does."""
        self._accessed = True


def _marking(name: str) -> Callable[..., Any]:
    """The dict's own method, which counts as access."""
    method = getattr(dict, name)

    @wraps(method)
    def marked(self: TrackedDict, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - as dict's
        self.mark_accessed()
        return method(self, *arguments, **keywords)

    return marked


for _name in (
    *("__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__len__", "__eq__"),
    *("__ne__", "__or__", "__ror__", "__ior__", "__reversed__", "get", "keys", "values", "items"),
    *("copy", "pop", "popitem", "setdefault", "update", "clear"),
):
    setattr(TrackedDict, _name, _marking(_name))
