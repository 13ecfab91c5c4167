"""The surfaces that strangers and accidents reach, each as a function of bytes that judges them.

A function raises ``AssertionError`` when the package did what it must not, and lets through what
the package raises and does not own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from tests.fuzz import attributes, command, cookies, data, documents, journals, values

Run: TypeAlias = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """One surface.

    Attributes:
        make: gives the function; it may use the directory it is given.
        seeds: gives inputs that mean something.
        words: what an input is made of.
        share: of the time, relative to the others.
        longest: bytes of an input, at most.
    """

    make: Callable[[Path], Run]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    share: int = 1
    longest: int = 4096


TARGETS: Final = {
    "cookie-value": Target(cookies.CookieValue, cookies.value_seeds, cookies.VALUE_WORDS),
    "cookie-header": Target(
        cookies.CookieHeader, cookies.header_seeds, cookies.HEADER_WORDS, share=3
    ),
    "set-cookie": Target(attributes.SetCookie, attributes.cookie_seeds, values.WORDS, longest=512),
    "session-file": Target(journals.SessionFiles, journals.seeds, journals.WORDS, share=4),
    "documents": Target(documents.Documents, documents.seeds, documents.WORDS, share=2),
    "session-data": Target(data.SessionData, data.data_seeds, values.WORDS, longest=1024),
    "arguments": Target(command.Command, command.seeds, command.WORDS, share=2, longest=256),
}
