"""Faults on purpose: the system calls of code under test, seen, refused, cut short, or fatal.

    with SystemCalls(failing(OSError(errno.EIO, "Input/output error"), nth=3)) as calls:
        store.save(sid, data)

A file store reaches the disk through the functions of ``os`` and ``fcntl`` alone. Inside the
``with`` they go through one function first, the act, which says what becomes of each.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, Final, Self, TypeAlias

CALLS: Final = (
    *("chmod", "fchmod", "fdatasync", "fstat", "fsync", "ftruncate", "link", "listdir", "lstat"),
    *("mkdir", "open", "pread", "read", "rename", "rmdir", "scandir", "stat", "unlink", "utime"),
    "write",
)
"""The functions of ``os`` that a file store may call, but ``close``: no fault makes it leave a
descriptor open."""

LOCK: Final = "flock"
"""The function of ``fcntl`` that takes a lock; asked for by name, as it changes nothing on disk."""

LISTING: Final = "readdir"
"""Each step through what ``os.scandir`` gave, also the one that ends it; asked for by name, as a
listing takes as many steps as there are names."""


@dataclass(slots=True)
class SystemCall:
    """One call, before it is made.

    Attributes:
        number: 1 for the first.
        name: the function's.
        arguments: its positional arguments; an act may change them.
        keywords: its keyword arguments.
        result: what it gave.
        is_made: it was made, and did not fail.
    """

    number: int
    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    function: Callable[..., Any]
    result: Any = None
    is_made: bool = False

    def make(self) -> Any:  # noqa: ANN401 - whatever the function gives
        """Make it."""
        self.result = self.function(*self.arguments, **self.keywords)
        self.is_made = True
        return self.result


Act: TypeAlias = Callable[[SystemCall], Any]
"""What becomes of a call: it is given the call and gives its result, or raises."""


def watching(call: SystemCall) -> Any:  # noqa: ANN401 - whatever the function gives
    """Let every call be made; the calls are there to be looked at afterwards."""
    return call.make()


def failing(error: BaseException, nth: int = 1, *others: int, sticky: bool = False) -> Act:
    """Raise ``error`` instead of the ``nth`` call; with ``sticky``, of all from there on.

    ``others`` are further calls that fail, as those do that clean up after the first.
    """

    def act(call: SystemCall) -> Any:  # noqa: ANN401
        if call.number == nth or call.number in others or (sticky and call.number > nth):
            raise error
        return call.make()

    return act


def meanwhile(step: Callable[[], object], nth: int = 1) -> Act:
    """Do something else before the ``nth`` call is made, as another process might."""

    def act(call: SystemCall) -> Any:  # noqa: ANN401
        if call.number == nth:
            step()
        return call.make()

    return act


def deadly(nth: int) -> Act:
    """Kill the process, as by ``kill -9``, before the ``nth`` call; a write is half done by then.

    For a forked child: the process that is killed is the one that makes the call.
    """

    def act(call: SystemCall) -> Any:  # noqa: ANN401  # pragma: no cover - it dies with its coverage
        if call.number < nth:
            return call.make()
        if call.name == "write":
            descriptor, content = call.arguments
            call.arguments = (descriptor, content[: len(content) // 2])
            call.make()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError  # SIGKILL cannot be survived

    return act


def short(most: int) -> Act:
    """Let no write take more than ``most`` bytes at once, as a signal or a full disk does."""

    def act(call: SystemCall) -> Any:  # noqa: ANN401
        if call.name == "write":
            descriptor, content = call.arguments
            call.arguments = (descriptor, content[:most])
        return call.make()

    return act


class SystemCalls:
    """While in use as a context manager, stands between this process and the system.

    Calls of the thread that entered it go through the act; those of other threads do not, unless
    ``threads`` names them.

    Args:
        act: what becomes of each call.
        only: the names of the functions it is asked about.
        threads: identifiers of the threads whose calls count; None: the thread that enters.

    Attributes:
        calls: all that went through the act, in order.
    """

    def __init__(
        self,
        act: Act = watching,
        *,
        only: tuple[str, ...] = CALLS,
        threads: set[int] | None = None,
    ) -> None:
        self.calls: list[SystemCall] = []
        self._act = act
        self._only = only
        self._threads = threads
        self._real: list[tuple[ModuleType, str, Callable[..., Any]]] = []

    def __enter__(self) -> Self:
        if self._threads is None:
            self._threads = {threading.get_ident()}
        for name in self._only:
            module = fcntl if name == LOCK else os
            function = "scandir" if name == LISTING else name
            real = getattr(module, function)
            self._real.append((module, function, real))
            if name == LISTING:
                setattr(module, function, self._listing(real))
            else:
                setattr(module, function, self._standing_before(name, real))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._real:
            module, name, real = self._real.pop()
            setattr(module, name, real)

    def names(self) -> list[str]:
        """The names of the calls, in order."""
        return [call.name for call in self.calls]

    def _standing_before(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - as the function's
            if threading.get_ident() not in (self._threads or ()):
                return real(*arguments, **keywords)
            call = SystemCall(len(self.calls) + 1, name, arguments, keywords, real)
            self.calls.append(call)
            return self._act(call)

        return called

    def _listing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - as the function's
            listing = real(*arguments, **keywords)
            if threading.get_ident() not in (self._threads or ()):
                return listing
            return _Listing(listing, self._standing_before(LISTING, listing.__next__))

        return called


class _Listing:
    """What ``os.scandir`` gives, step by step through the act."""

    def __init__(self, listing: Any, step: Callable[[], Any]) -> None:  # noqa: ANN401
        self._listing = listing
        self._step = step

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - an entry, but the act may give something else
        return self._step()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        self._listing.close()


def each(make: Callable[[int], Act], only: tuple[str, ...] = CALLS) -> Iterator[SystemCalls]:
    """One ``SystemCalls`` for the first call of some code, for the second, and so on.

    Ends after the run in which the code made fewer calls than the fault waited for: so the last one
    is a run without a fault.

        for calls in each(lambda nth: failing(error, nth)):
            with calls:
                ...

    Args:
        make: gives the act for the ``nth`` call.
        only: the functions that are counted.
    """
    nth, reached = 0, True
    while reached:
        nth += 1
        calls = SystemCalls(make(nth), only=only)
        yield calls
        reached = len(calls.calls) >= nth
