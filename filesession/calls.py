"""What is asked of a store, as values: the session and the exchange decide, and never call one.

They are written as generators of ``StoreCall``; who drives one makes each call and sends its result
back, or throws in the error it raised. So one text serves synchronous and asynchronous callers.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

T = TypeVar("T")

Verb: TypeAlias = Literal["load", "create", "save", "touch", "delete", "regenerate"]


@dataclass(frozen=True, slots=True)
class StoreCall:
    """One call: the method's name, its positional and its keyword arguments.

    The arguments hold session ids, and are left out of the repr.
    """

    verb: Verb
    arguments: tuple[Any, ...] = field(default=(), repr=False)
    keywords: Mapping[str, Any] = field(default_factory=dict, repr=False)


Steps: TypeAlias = Generator[StoreCall, Any, T]
"""Store calls still to be made, one at a time, that end in a ``T``."""
