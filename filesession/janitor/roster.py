"""The roster: which sessions a directory holds, and when each could expire.

Rules:

1. Who starts knows nothing, and looks through the whole directory: every session is read once.
2. From then on a session is known by the event of its creation, or, where there are no events, by
   the date of the directory it lies in. What events lose is found by a look at all names, which
   reads only what was not known: one comes at once when something may have been missed, and one
   every hour whatever happens.
3. A session that ends sooner than it was to is announced by a note. All else only puts its end off,
   and is found out when it is looked at.
4. A look is made in pieces, between which sessions may be filed anew and deleted. What is new waits
   until the group of handles in hand is through: else it might be filed twice.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from filesession.errors import LockTimeout, StoreUnavailable
from filesession.janitor.complaints import Complaints
from filesession.janitor.watcher import EventsUnavailable, Watcher, doubt
from filesession.janitor.wheel import GROUPS, Wheel, group_of
from filesession.janitor.wording import path_text
from filesession.stores.file import sooner
from filesession.stores.file.layout import is_handle
from filesession.stores.file.reaper import LATER, Filing, Reaper

Watch: TypeAlias = Literal["auto", "events", "poll", "off"]
"""How new sessions are noticed."""

ROUND: Final = 3600.0
"""Seconds between two looks at all names that come whatever happens."""

RETRY: Final = 60.0
"""Seconds until events are tried again where they could not be had."""

SETTLED: Final = 1_000_000_000
"""Nanoseconds. A directory that was changed that lately may be changed again without a new date."""

NEWS: Final = 256
"""New sessions, or notes, that are seen to in one go."""

_STRIDE: Final = 64
"""Known names between two moments at which a look may pause."""

_EVENTS: Final = "cannot watch for new sessions"
_POLLING: Final = "new sessions are looked for with every sweep"

_log = logging.getLogger("filesession.janitor")


class Roster:
    """What is known of a directory's sessions. Not for several threads at once.

    Attributes:
        wheel: when each is to be looked at.
        overdue: those that are known to be due, and were held back.
        whole: all that are stored are known.
        noticed: sessions that have come since the first look.
        looks: full looks that came to their end.
        losses: times that events were lost.
    """

    def __init__(self, reaper: Reaper, watch: Watch, complaints: Complaints) -> None:
        self.wheel = Wheel()
        self.overdue = Wheel()
        self.whole = False
        self.noticed = 0
        self.looks = 0
        self.losses = 0
        self._reaper = reaper
        self._layout = reaper.layout
        self._complaints = complaints
        self._watch = watch
        self._watcher: Watcher | None = None
        self._news: deque[str] = deque()  # that were told of, and are not known yet
        self._tried = -math.inf
        self._look: Iterator[float] | None = None
        self._between = True
        self._missed: str | None = None
        self._urgent = False
        self._last_look = time.monotonic()
        self._dates: dict[str, int] = {}
        if watch == "auto" and (reason := doubt(self._layout.directory)) is not None:
            _log.info("%s; %s", reason, _POLLING)
            self._watch = "poll"
        self._begin_watching()

    def __len__(self) -> int:
        """How many sessions are known, also of those that were deleted since by others."""
        return len(self.wheel) + len(self.overdue)

    @property
    def watches(self) -> Watch:
        """How new sessions are noticed now; never "auto"."""
        if self._watcher is not None:
            return "events"
        return "off" if self._watch == "off" else "poll"

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None

    def file(self, handle: bytes, filing: Filing | None) -> None:
        """Remember when a session is to be looked at again; None: there is none."""
        if filing is not None:
            self.wheel.add(handle, filing.due, self._reaper.clock(), plain=filing.plain)

    def due(self, now: float) -> int:
        """How many sessions may be due."""
        return self.wheel.due(now) + len(self.overdue)

    def attend(self) -> bool:
        """See whether events still come, and get to know some of what is new; whether more waits.

        Takes milliseconds.
        """
        self._see_to_events()
        if not self._between:
            return False
        if self._watcher is not None:
            self._news.extend(self._watcher.take())
        for _ in range(min(NEWS, len(self._news))):
            self._meet(bytes.fromhex(self._news.popleft()))
            self.noticed += self.whole
        notes = [*itertools.islice(sooner.noted(self._layout), NEWS)]
        for name in notes:
            self._meet(bytes.fromhex(name))
        return bool(self._news) or len(notes) == NEWS

    def begin(self) -> None:
        """A sweep begins: where nothing tells of new sessions, nothing is taken for known."""
        if self._watch == "off":
            self.wheel, self.overdue = Wheel(), Wheel()
            self.whole = False
            self._look, self._between = None, True  # a part of one would pass for all

    def wants_look(self) -> bool:
        """Whether a look is under way, or called for."""
        late = time.monotonic() - self._last_look >= ROUND
        return self._look is not None or late or self.is_look_urgent()

    def is_look_urgent(self) -> bool:
        """Whether there may be sessions of which nothing is known."""
        return not self.whole or self._missed is not None or self._urgent

    def distrust(self, reason: str) -> None:
        """Have a full look come: what was not found may be there all the same."""
        self._missed = reason

    def look(self) -> Iterator[float]:
        """Go on with a full look, or begin one; gives the share that is done, from 0 to 1, often.

        Raises:
            StoreUnavailable: the directory has vanished, or a part of it cannot be listed, which is
                told when the rest is through.
        """
        if self._look is None:
            self._urgent, self._missed = self.is_look_urgent(), None
            self._look = self._looking(everything=True)
        yield from self._pieces(self._look)
        self._look, self._urgent = None, False
        self._last_look = time.monotonic()
        self.whole = True
        self.looks += 1

    def to_group_end(self) -> Iterator[float]:
        """Go on with a look under way as far as new sessions may be filed."""
        if self._look is not None and not self._between:
            for share in self._pieces(self._look):
                if self._between:
                    break
                yield share

    def _pieces(self, look: Iterator[float]) -> Iterator[float]:
        """What is left of a look, which stays as it is when no more is asked for."""
        try:
            while (share := next(look, None)) is not None:
                yield share
        except GeneratorExit:
            raise
        except BaseException:
            self._look, self._urgent, self._between = None, False, True
            self._missed = self._missed or "the last look was not complete"
            raise

    def poll(self) -> Iterator[float]:
        """Look at the directories that were changed since, where there are no events.

        Raises:
            StoreUnavailable: as in ``look``.
        """
        if self._watcher is None and self._watch != "off":
            try:
                yield from self._looking(everything=False)
            finally:
                self._between = True

    def _looking(self, *, everything: bool) -> Iterator[float]:
        failure = None
        for group in range(GROUPS):
            self._between = False
            try:
                yield from self._group(group, everything=everything)
            except StoreUnavailable as error:
                failure = failure or error
            self._between = True
            yield (group + 1) / GROUPS
        if everything:
            for path in self._layout.document_leftovers():
                self._reaper.clear(path)
            for path in self._layout.notes(self._layout.moved):
                self._reaper.clear_note(path)
                yield 1.0
        if failure is not None:
            raise failure

    def _group(self, group: int, *, everything: bool) -> Iterator[float]:
        """Look at the sessions of one group of handles."""
        failure, shards = None, []
        try:
            for shard in self._layout.shards(lambda name: group_of(bytes.fromhex(name)) == group):
                shards += [shard] if everything or self._is_changed(shard, group) else []
        except StoreUnavailable as error:
            failure = error
        whole = everything and failure is None
        if shards or whole:
            try:
                yield from self._listing(group, shards, whole=whole)
            except BaseException:  # also when it is broken off: what was not listed is not known
                for shard in shards:
                    self._dates.pop(self._key(shard, group), None)
                raise
        if failure is not None:
            raise failure

    def _listing(self, group: int, shards: list[str], *, whole: bool) -> Iterator[float]:
        """Get to know what lies there; where that is the whole group, forget what does not."""
        entries = [*self.wheel.handles(group), *self.overdue.handles(group)]
        known, seen, failure = set(entries), set(), None
        for shard in shards:
            try:
                for number, (name, leftover) in enumerate(self._layout.listed(shard)):
                    if leftover is not None:
                        self._reaper.clear(leftover)
                        continue
                    handle = bytes.fromhex(name)
                    if group_of(handle) != group:
                        continue  # where all lie in one directory
                    seen.add(handle)
                    if handle not in known:
                        self._meet(handle)
                        self.noticed += self.whole
                    elif number % _STRIDE:
                        continue
                    yield group / GROUPS
            except StoreUnavailable as error:
                failure = failure or error
        if failure is not None:
            raise failure
        if whole and len(known & seen) < len(entries):
            self.wheel.keep(group, seen)
            self.overdue.keep(group, seen)

    def _key(self, shard: str, group: int) -> str:
        return shard if self._layout.shard_depth else f"{shard}/{group}"

    def _is_changed(self, shard: str, group: int) -> bool:
        """Whether names may have come to a directory since this was asked before."""
        key = self._key(shard, group)
        try:
            date = os.stat(shard).st_mtime_ns
        except FileNotFoundError:
            self._dates.pop(key, None)
            return False
        except OSError:
            return True  # to list it tells what is wrong
        if self._dates.get(key) == date:
            return False
        if time.time_ns() - date > SETTLED:
            self._dates[key] = date
        else:
            self._dates.pop(key, None)
        return True

    def _meet(self, handle: bytes) -> None:
        """Look at a session of which nothing is known."""
        try:
            filing = self._reaper.look(handle.hex())
        except LockTimeout:
            filing = Filing(self._reaper.clock() + LATER, plain=False)
        self._reaper.tally.examined += not self.whole  # later on a sweep counts what comes up
        self.file(handle, filing)

    def _see_to_events(self) -> None:
        if self._watcher is None:
            self._begin_watching()
            return
        failure, missed = self._watcher.failure(), self._watcher.missed()
        if missed is not None:
            self.losses += 1
            self._missed = missed
            _log.warning("%s; looking through all of %s", missed, path_text(self._layout.directory))
        if failure is not None:
            self._missed = failure
            self._complaints.say(_EVENTS, failure)
            self.close()
            self._tried = time.monotonic()

    def _begin_watching(self) -> None:
        late = time.monotonic() - self._tried >= RETRY
        if self._watch in {"poll", "off"} or not late or not os.path.isdir(self._layout.root):
            return  # without a session there is nothing to watch yet
        self._tried = time.monotonic()
        watcher = Watcher(self._layout.root, is_handle)
        try:
            watcher.start()
        except EventsUnavailable as error:
            self._complaints.say(_EVENTS, f"{error}; {_POLLING}")
            return
        self._watcher = watcher
        self._missed = "events were not there before"  # and those that came meanwhile were missed
        self._complaints.over(_EVENTS, "new sessions are watched for again")
