"""``filesession status``: how a directory is doing, and whether a janitor works there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import rich_click as click

from filesession.cli.ages import AGES, count_age, histogram, no_ages
from filesession.cli.directory import directory_argument, layout_of
from filesession.cli.figures import (
    Line,
    is_news,
    janitor_line,
    reading_lines,
    sessions_line,
    sweep_lines,
)
from filesession.cli.teaching import command
from filesession.cli.terminal import output, printable
from filesession.codec import dump_document
from filesession.janitor.heartbeat import Heartbeat, State, janitor_state
from filesession.janitor.wording import counted, failure_text, size_text, span_text
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore

NO_JANITOR: Final = 3


@dataclass(slots=True)
class Look:
    """What a look at every session found.

    Attributes:
        waiting: what a sweep would do now.
        corrupt: files that were set aside.
        sessions: how many are stored.
        size: bytes of them.
        ages: of them, how many belong to each of ``AGES``.
    """

    waiting: SweepReport
    corrupt: int
    sessions: int = 0
    size: int = 0
    ages: list[int] = field(default_factory=no_ages)

    @classmethod
    def at(cls, store: FileStore, now: float) -> Look:
        """Look twice: what is there, and what of it a sweep would remove."""
        found = cls(store.sweep(dry_run=True), layout_of(store).set_aside_count())
        for info in store.scan():
            found.sessions += 1
            found.size += info.size
            count_age(found.ages, now - info.accessed_at)
        return found

    def members(self) -> dict[str, Any]:
        """All of it in plain values."""
        return {
            "sessions": self.sessions,
            "bytes": self.size,
            "expired": self.waiting.expired,
            "expired_bytes": self.waiting.freed,
            "oldest_overdue": self.waiting.oldest_overdue,
            "failed": self.waiting.failed,
            "dated_ahead": self.waiting.mended,
            "corrupt": self.corrupt,
            "last_active": {name: count for (name, _), count in zip(AGES, self.ages, strict=True)},
        }

    def lines(self) -> Iterator[Line]:
        """All of it in words, without the ages."""
        waiting = self.waiting
        yield Line("sessions", f"{self.sessions:,} ({size_text(self.size)})")
        if waiting.expired:
            overdue = span_text(waiting.oldest_overdue)
            size = size_text(waiting.freed)
            words = f"{waiting.expired:,} expired ({size}), the oldest {overdue} overdue"
            yield Line("to be removed", words, "yellow")
        else:
            yield Line("to be removed", "none")
        if waiting.corrupt:
            words = f"{waiting.corrupt:,}, for the next sweep to set aside"
            yield Line("unreadable", words, "yellow")
        failure = failure_text(waiting)
        if failure is not None:
            yield Line("failing", f"{printable(failure)}; filesession doctor tells more", "red")
        if waiting.mended:
            words = f"{waiting.mended:,} dated in the future, for the next sweep to set to now"
            yield Line("wrong times", words, "yellow")
        if self.corrupt:
            words = f"{counted(self.corrupt, 'unreadable file')} in corrupt/"
            yield Line("set aside", words, "yellow")


@dataclass(slots=True)
class Status:
    """How a directory is doing.

    Attributes:
        directory: its path.
        now: POSIX seconds.
        state: whether a janitor works.
        heartbeat: what the janitor said last.
        look: what a look at every session found; None: there was none.
    """

    directory: str
    now: float
    state: State
    heartbeat: Heartbeat | None
    look: Look | None

    @classmethod
    def of(cls, store: FileStore, *, full: bool) -> Status:
        """Ask the janitor; look at every session if that is wanted, or if none can tell."""
        now = store.clock()
        state, heartbeat = janitor_state(store.directory, now)
        needed = full or not is_news(state, heartbeat, now)
        look = Look.at(store, now) if needed else None
        return cls(store.directory, now, state, heartbeat, look)

    def members(self) -> dict[str, Any]:
        """All of it in plain values."""
        beat = self.heartbeat
        told = {} if beat is None else asdict(beat)
        known: dict[str, Any] = {}
        if self.look is not None:
            known = self.look.members()
        elif beat is not None:
            known = {"sessions": beat.reading.sessions, "bytes": beat.reading.bytes}
        janitor = {"state": self.state, **told}
        return {
            "directory": self.directory,
            "full": self.look is not None,
            **known,
            "janitor": janitor,
        }

    def lines(self) -> Iterator[Line]:
        """All of it in words, without the ages."""
        beat = self.heartbeat
        yield Line("directory", printable(self.directory))
        if self.look is not None:
            yield from self.look.lines()
        elif beat is not None:
            yield sessions_line(beat)
        yield janitor_line(self.directory, self.state, beat, self.now)
        if beat is None:
            return
        if is_news(self.state, beat, self.now):
            yield from reading_lines(beat, self.now)
        yield from sweep_lines(self.state, beat, self.now)


@command(
    "status /var/lib/app/sessions",
    "status /var/lib/app/sessions --full",
    "status /var/lib/app/sessions --json | jq .janitor.reading",
    codes="0 a janitor is alive. 2 it could not run. 3 no janitor is alive.",
)
@directory_argument
@click.option("--full", is_flag=True, help="Look at every session, also where a janitor is alive.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, times in POSIX seconds.")
def status(directory: str, *, full: bool, as_json: bool) -> None:
    """Tell how DIR is doing: sessions, what goes and has gone, and whether a janitor is alive.

    Where one is, its own figures are told, at once however many sessions there are. Where none is,
    or with --full, every session is looked at: what waits to be removed, and ages.

    A janitor is alive when it leads and gave a sign within 15 seconds; one that leads and gives
    none hangs. Where it holds back it says why.
    """
    found = Status.of(FileStore.open(directory), full=full)
    if as_json:
        click.echo(dump_document(found.members()), nl=False)
    else:
        console = output()
        for line in found.lines():
            console.print(line.text(), soft_wrap=True)
        if found.look is not None and found.look.sessions:
            console.print("last active")
            for bar in histogram(found.look.ages):
                console.print(bar, soft_wrap=True)
    if found.state != "alive":
        sys.exit(NO_JANITOR)
