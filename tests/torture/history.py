r"""What was done and told, one JSON object a line, in one file that every process appends to.

Rules:

1. A call has a mark. The line with its verb is written before it begins, the one with what it told
   after it came back. Lines with the same mark say more of the same call.
2. Times are seconds since the run began, by the machine's one monotonic clock.
3. A line is written in one call, after a line break of its own: what a process that was killed left
   of a line spoils no other.
4. Lines with an event are of the process that started the others: a round with its settings, a
   worker that was started, killed, stopped, or has ended; what is left in the directory.
5. A call that did not come back ended, one way or the other, before its process had.

Nothing is shared between rounds but the directory: no session of one is met in another.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

NEVER: Final = float("inf")

WRITES: Final = frozenset({"add", "error", "remove", "overwrite", "count", "regenerate"})
"""Verbs that make a new version of a session that is there."""


@dataclass(slots=True, eq=False)
class Op:
    """A call.

    Attributes:
        mark: its name.
        verb: what was called.
        sid: by which id.
        life: of which life the record was that it went out from; of a load, what came back.
        worker: the process that made it.
        began, ended: seconds; one that never came back ended when its process had.
        told: "ok", "gone" (also None and False), "exists", "conflict", "timeout", "failed: ...";
            "" when it did not come back.
        patience: seconds it waits for a lock.
        age: of a touch, seconds since the last activity that its record knew of.
        key: what it adds. drop: what it removes. new: the id it gives. on: the version of its base.
        whole: it replaces all there is by ``carries`` and ``carried``, keys and counter.
        version, keys, count: the session as it came back. odd: keys with a wrong value.
        forwarded: it came back by an old id, to be read.
        entered, left: when it had the lock, and was about to give it back.
        lines: where in the history it is told.
    """

    mark: str
    verb: str
    sid: str
    began: float
    worker: int = 0
    life: str = ""
    ended: float = NEVER
    told: str = ""
    patience: float = 10.0
    age: float = NEVER
    key: str = ""
    drop: list[str] = field(default_factory=list)
    new: str = ""
    on: int = 0
    whole: bool = False
    carries: list[str] = field(default_factory=list)
    carried: int = 0
    version: int = 0
    keys: list[str] = field(default_factory=list)
    count: int = 0
    odd: list[str] = field(default_factory=list)
    forwarded: bool = False
    entered: float = NEVER
    left: float = NEVER
    lines: list[int] = field(default_factory=list)

    @property
    def is_possible(self) -> bool:
        """Whether it did what it should, or may have."""
        return self.told in {"", "ok"}

    @property
    def is_view(self) -> bool:
        """Whether the session came back."""
        return self.version > 0

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES


_KNOWN: Final = frozenset(each.name for each in fields(Op)) - {"lines"}


@dataclass(slots=True)
class Round:
    """What happened between a start of all workers and their end."""

    settings: dict[str, Any]
    calls: dict[str, Op] = field(default_factory=dict)
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    @property
    def ops(self) -> Iterable[Op]:
        return self.calls.values()

    @property
    def idle(self) -> float:
        return float(self.settings["idle"])

    @property
    def slack(self) -> float:
        """The store's touch interval."""
        return self.idle / 20

    @property
    def grace(self) -> float | None:
        return self.settings.get("grace")

    def told_of(self, event: str) -> Iterator[tuple[int, dict[str, Any]]]:
        return ((number, line) for number, line in self.events if line["event"] == event)


class Scribe:
    """Appends to a history."""

    def __init__(self, path: Path, zero: float) -> None:
        self._zero = zero
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def now(self) -> float:
        return round(time.monotonic() - self._zero, 9)

    def write(self, **line: Any) -> None:
        os.write(self._file, b"\n" + json.dumps(line, separators=(",", ":")).encode())

    def close(self) -> None:
        os.close(self._file)


class UnreadableError(Exception):
    """This is no history."""


def rounds(lines: Iterable[str]) -> Iterator[Round]:
    """The rounds of a history, one at a time.

    Raises:
        UnreadableError: it is not one.
    """
    current: Round | None = None
    for number, text in enumerate(lines, 1):
        line = _parsed(text)
        if line is None:
            continue
        if line.get("event") == "round":
            if current is not None:
                yield _finished(current)
            current = Round(line)
        if current is None:
            msg = f"line {number}: a history begins with a round"
            raise UnreadableError(msg)
        _enter(current, number, line)
    if current is None:
        msg = "there is nothing in it"
        raise UnreadableError(msg)
    yield _finished(current)


def _parsed(text: str) -> dict[str, Any] | None:
    """None for an empty line, and for what a killed process left of one."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _enter(current: Round, number: int, line: dict[str, Any]) -> None:
    if "event" in line:
        current.events.append((number, line))
        return
    try:
        if "verb" in line:
            line = {name: _interned(value) for name, value in line.items()}
            op = current.calls[line["mark"]] = Op(**line)
        else:
            op = current.calls[line.pop("mark")]
            for name in line.keys() & _KNOWN:
                setattr(op, name, _interned(line[name]))
    except (KeyError, TypeError) as error:
        msg = f"line {number}: this is no line of a history ({error})"
        raise UnreadableError(msg) from None
    op.lines.append(number)


def _interned(value: Any) -> Any:
    """The same text once in memory: a history says it all over and over."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, list):
        return [sys.intern(each) if isinstance(each, str) else each for each in value]
    return value


def _finished(current: Round) -> Round:
    """With an end for every call whose process has ended (rule 5)."""
    ends = {line["worker"]: line["at"] for _, line in current.told_of("ended")}
    killed = {line["worker"]: line["at"] for _, line in current.told_of("kill")}
    for op in current.ops:
        if op.ended == NEVER:
            op.ended = ends.get(op.worker, NEVER)
        if op.entered < NEVER and op.left == NEVER:
            op.left = killed.get(op.worker, op.entered)  # until then it certainly had the lock
    return current
