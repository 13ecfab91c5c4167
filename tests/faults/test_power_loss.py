"""The power fails: what the disk then holds opens to a whole state; of a durable store to the last.

What a run of verbs asks of the system is recorded. From the record follow the states that a file
system may be in after a power cut at any moment of it, by two models:

- "vanishing": what was not synced may be there or not, each name and each piece of data by itself;
  a piece may be cut, or be zeros. A file's sync brings its data to the disk, not its name. That is
  what POSIX promises, and no more.
- "ordered": names come to the disk in their order, as in a journal (ext4), and every sync brings
  all earlier ones; data that was not synced may be cut or missing.

Each such state is made in a directory and opened.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import pytest

from filesession.stores import FileStore
from filesession.stores.file.size import LONGEST_JOURNAL
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCall, SystemCalls, watching

Model: TypeAlias = Literal["vanishing", "ordered"]
State: TypeAlias = tuple[Any, ...]
"""The data under each of ``IDS``; None: there is no such session."""

IDS: Final = ("sid", "new", "other")


@dataclass
class Inode:
    """A file: what is on the disk for certain, and what was written since, piece by piece."""

    synced: bytes = b""
    pieces: list[bytes] = field(default_factory=list)

    def variants(self, model: Model) -> list[bytes]:
        """What it may hold after a power cut."""
        found = [self.synced + b"".join(self.pieces)]
        for number, piece in enumerate(self.pieces):
            before = self.synced + b"".join(self.pieces[:number])
            found += [before, before + piece[: len(piece) // 2]]
            if model == "vanishing":
                found.append(before + bytes(len(piece)) + b"".join(self.pieces[number + 1 :]))
        return list(dict.fromkeys(found))


@dataclass
class Change:
    """A change of names: these are bound to inodes, or to None: removed."""

    names: dict[str, int | None]
    unsynced: set[str]


class Disk:
    """A file system as the recorded calls leave it, and as a power cut may.

    Args:
        directory: what it starts with, all of it on the disk.
    """

    def __init__(self, directory: Path) -> None:
        self.inodes: dict[int, Inode] = {}
        self.names: dict[str, int] = {}
        self.changes: list[Change] = []
        self._descriptors: dict[int, int | str] = {}
        for path in directory.rglob("*"):
            self.names[str(path)] = self._new(b"" if path.is_dir() else path.read_bytes())

    def _new(self, content: bytes = b"") -> int:
        self.inodes[len(self.inodes)] = Inode(content)
        return len(self.inodes) - 1

    def follow(self, call: SystemCall, model: Model) -> None:
        """Do what a call did."""
        handler = getattr(self, f"_{call.name}", None)
        if handler is not None and call.is_made:
            handler(call, model)

    def _change(self, names: dict[str, int | None]) -> None:
        change = Change(names, {os.path.dirname(name) for name in names})
        self.changes.append(change)
        for name, number in names.items():
            if number is None:
                self.names.pop(name, None)
            else:
                self.names[name] = number

    def _open(self, call: SystemCall, model: Model) -> None:
        path, flags, *_ = call.arguments
        if flags & os.O_CREAT:
            self._change({path: self._new()})
        self._descriptors[call.result] = path if flags & os.O_DIRECTORY else self.names[path]

    def _write(self, call: SystemCall, model: Model) -> None:
        number = self._descriptors[call.arguments[0]]
        assert isinstance(number, int)
        self.inodes[number].pieces.append(call.arguments[1])

    def _mkdir(self, call: SystemCall, model: Model) -> None:
        self._change({call.arguments[0]: self._new()})

    def _unlink(self, call: SystemCall, model: Model) -> None:
        self._change({call.arguments[0]: None})

    def _rename(self, call: SystemCall, model: Model) -> None:
        old, new = call.arguments
        self._change({old: None, new: self.names[old]})

    def _fdatasync(self, call: SystemCall, model: Model) -> None:
        self._fsync(call, model)

    def _fsync(self, call: SystemCall, model: Model) -> None:
        what = self._descriptors[call.arguments[0]]
        if isinstance(what, int):
            inode = self.inodes[what]
            inode.synced, inode.pieces = inode.synced + b"".join(inode.pieces), []
        for change in self.changes:
            if model == "ordered":
                change.unsynced.clear()
            elif isinstance(what, str):
                change.unsynced.discard(what)

    def states(self, model: Model, start: dict[str, int]) -> Iterator[dict[str, bytes]]:
        """Every content of the directory that a power cut may leave now."""
        loose = [change for change in self.changes if change.unsynced]
        if model == "ordered":
            kept = [loose[:count] for count in range(len(loose) + 1)]
        else:
            kept = [
                list(choice)
                for count in range(len(loose) + 1)
                for choice in itertools.combinations(loose, count)
            ]
        for survivors in kept:
            names = dict(start)
            for change in self.changes:
                if not change.unsynced or any(change is one for one in survivors):
                    for name, number in change.names.items():
                        if number is None:
                            names.pop(name, None)
                        else:
                            names[name] = number
            numbers = sorted(set(names.values()))
            for contents in itertools.product(*(self.inodes[n].variants(model) for n in numbers)):
                content = dict(zip(numbers, contents, strict=True))
                yield {name: content[number] for name, number in names.items()}


@dataclass
class Run:
    """Verbs on a store, recorded."""

    store: FileStore
    clock: ManualClock
    directory: Path
    scratch: Path

    def after(self, *verbs: Callable[[FileStore], object], model: Model) -> tuple[int, int]:
        """Play every power cut during the verbs; the number of cuts and of states looked at."""
        disk = Disk(self.directory)
        start = dict(disk.names)
        reached = [self.state(self.store)]
        opened, seen = FileStore.open(self.scratch, clock=self.clock), set()
        cuts = 0
        for verb in verbs:
            with SystemCalls(watching) as calls:
                verb(self.store)
            reached.append(self.state(self.store))
            for number, call in enumerate(calls.calls, 1):
                disk.follow(call, model)
                last = number == len(calls.calls)
                acknowledged = reached[-1:] if last else reached[-2:]
                allowed = acknowledged if self.store._durable else reached
                cuts += 1
                for names in disk.states(model, start):
                    key = (tuple(sorted(names.items())), tuple(map(repr, allowed)))
                    if key not in seen:
                        seen.add(key)
                        self._make(names)
                        state = self.state(opened)
                        assert state in allowed or self._is_loose(state, reached, model), names
        return cuts, len(seen)

    def _is_loose(self, state: State, reached: list[State], model: Model) -> bool:
        """Whether each session by itself is as it once was, and none is lost.

        That is all that can be had without syncing names, where they come to the disk in no order.
        """
        if model == "ordered" or self.store._durable:
            return False
        once = all(
            found in seen for found, seen in zip(state, zip(*reached, strict=True), strict=True)
        )
        return once and any(state[:2]) and state[2] is not None

    def _make(self, names: dict[str, bytes]) -> None:
        """The directory as the power cut left it."""
        for path in sorted((self.scratch / "sessions").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        sessions = str(self.directory / "sessions")
        for name in sorted(names):
            path = self.scratch / Path(name).relative_to(self.directory)
            if not name.startswith(sessions) or not path.parent.is_dir():
                continue  # its directory did not survive
            if len(path.name) == len("ab") or path.name == "sessions":
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(names[name])
                os.utime(path, (self.clock.now, self.clock.now))

    def state(self, store: FileStore) -> State:
        found = [store.load(sid) for sid in IDS]
        return tuple(None if record is None else record.data for record in found)


@pytest.fixture(params=[False, True], ids=["", "durable"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    clock = ManualClock()
    directory, scratch = tmp_path / "sessions", tmp_path / "after"
    store = FileStore(directory, durable=request.param, clock=clock)
    FileStore(scratch, durable=request.param, clock=clock)
    (scratch / "sessions").mkdir()
    return Run(store, clock, directory, scratch)


def save(n: int, size: int = 10) -> Callable[[FileStore], object]:
    return lambda store: store.save("sid", {"n": n, "text": "x" * size})


RUNS: Final[dict[str, list[Callable[[FileStore], object]]]] = {
    "create": [
        lambda store: store.create({"n": 1}, sid="new"),
        lambda store: store.save("new", {"n": 2}),
    ],
    "saves": [save(2), save(3), save(4)],
    "compaction": [save(2), save(3, LONGEST_JOURNAL), save(4), save(5)],
    "regenerate": [save(2), lambda store: store.regenerate("sid", {"n": 3}, new_sid="new")],
    "regenerate of a long one": [
        save(2, LONGEST_JOURNAL - 300),
        lambda store: store.regenerate("sid", {"n": 3, "text": "y" * 300}, new_sid="new"),
        lambda store: store.save("new", {"n": 4}),
    ],
    "delete": [save(2), lambda store: store.delete("sid")],
    "delete and make anew": [
        lambda store: store.delete("sid"),
        lambda store: store.create({"n": "anew"}, sid="sid"),
    ],
}


@pytest.mark.parametrize("model", ["vanishing", "ordered"])
@pytest.mark.parametrize("verbs", RUNS.values(), ids=RUNS.keys())
def test_every_state_a_power_cut_may_leave_is_whole(
    run: Run, verbs: list[Callable[[FileStore], object]], model: Model
) -> None:
    run.store.create({"n": 1}, sid="sid")
    run.store.create({"other": 1}, sid="other")
    cuts, states = run.after(*verbs, model=model)
    assert cuts > 5
    assert states > 2
