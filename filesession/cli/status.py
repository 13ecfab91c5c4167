"""``filesession status``: how a directory is doing, and whether a janitor works there."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import rich_click as click
from rich.text import Text

from filesession.cli.directory import directory_argument, layout_of
from filesession.cli.teaching import command
from filesession.cli.terminal import output, printable
from filesession.cli.times import distance_text, moment_text
from filesession.codec import dump_document
from filesession.janitor.heartbeat import Heartbeat, State, janitor_state
from filesession.janitor.wording import counted, failure_text, size_text, span_text, sweep_text
from filesession.record import SweepReport
from filesession.stores.file.store import FileStore

NO_JANITOR: Final = 3

AGES: Final = (
    ("under a minute", 60),
    ("under 10 min", 600),
    ("under 1 h", 3600),
    ("under 6 h", 6 * 3600),
    ("under 1 d", 86400),
    ("under 7 d", 7 * 86400),
    ("longer ago", float("inf")),
)
"""Since the last activity: what a bar of the histogram is called, and the seconds it ends at."""

BAR: Final = 40
"""Characters of the longest bar."""


@dataclass(slots=True)
class Status:
    """What a look at a directory found.

    Attributes:
        directory: its path.
        now: POSIX seconds.
        waiting: what a sweep would do now.
        corrupt: files that were set aside.
        state: whether a janitor works.
        heartbeat: what the janitor said last.
        sessions: how many are stored.
        size: bytes of them.
        ages: of them, how many belong to each of ``AGES``.
    """

    directory: str
    now: float
    waiting: SweepReport
    corrupt: int
    state: State
    heartbeat: Heartbeat | None
    sessions: int = 0
    size: int = 0
    ages: list[int] = field(default_factory=lambda: [0] * len(AGES))

    @classmethod
    def of(cls, store: FileStore) -> Status:
        """Look at every session, twice: what is there, and what of it a sweep would remove."""
        now = store.clock()
        state, heartbeat = janitor_state(store.directory, now)
        corrupt = layout_of(store).set_aside_count()
        status = cls(store.directory, now, store.sweep(dry_run=True), corrupt, state, heartbeat)
        for info in store.scan():
            status.sessions += 1
            status.size += info.size
            age = now - info.accessed_at
            status.ages[next(i for i, (_, end) in enumerate(AGES) if age < end)] += 1
        return status

    def members(self) -> dict[str, Any]:
        """All of it in plain values."""
        heartbeat = {} if self.heartbeat is None else asdict(self.heartbeat)
        return {
            "directory": self.directory,
            "sessions": self.sessions,
            "bytes": self.size,
            "expired": self.waiting.expired,
            "expired_bytes": self.waiting.freed,
            "oldest_overdue": self.waiting.oldest_overdue,
            "failed": self.waiting.failed,
            "dated_ahead": self.waiting.mended,
            "corrupt": self.corrupt,
            "last_active": {name: count for (name, _), count in zip(AGES, self.ages, strict=True)},
            "janitor": {"state": self.state, **heartbeat},
        }


@command(
    "status /var/lib/app/sessions",
    "status /var/lib/app/sessions --json | jq .janitor.state",
    codes="0 a janitor is alive. 2 it could not run. 3 no janitor is alive.",
)
@directory_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object, times in POSIX seconds.")
def status(directory: str, *, as_json: bool) -> None:
    """Tell how DIR is doing: sessions, what waits to be removed, and whether a janitor is alive.

    Looks at every session. A janitor is alive when it leads and gave a sign within 15 seconds; one
    that leads and gives none hangs.
    """
    found = Status.of(FileStore.open(directory))
    if as_json:
        click.echo(dump_document(found.members()), nl=False)
    else:
        console = output()
        for name, words, style in _lines(found):
            console.print(Text(f"{name:<16}{words}", style=style), soft_wrap=True)
        if found.sessions:
            console.print("last active")
            for line in _histogram(found.ages):
                console.print(line, soft_wrap=True)
    if found.state != "alive":
        sys.exit(NO_JANITOR)


def _lines(found: Status) -> Iterator[tuple[str, str, str]]:
    """What is printed, line by line: a name, words, a style."""
    waiting = found.waiting
    yield "directory", printable(found.directory), ""
    yield "sessions", f"{found.sessions:,} ({size_text(found.size)})", ""
    if waiting.expired:
        overdue = span_text(waiting.oldest_overdue)
        size = size_text(waiting.freed)
        words = f"{waiting.expired:,} expired ({size}), the oldest {overdue} overdue"
        yield "to be removed", words, "yellow"
    else:
        yield "to be removed", "none", ""
    if waiting.corrupt:
        yield "unreadable", f"{waiting.corrupt:,}, for the next sweep to set aside", "yellow"
    failure = failure_text(waiting)
    if failure is not None:
        yield "failing", f"{failure}; filesession doctor tells more", "red"
    if waiting.mended:
        what = f"{waiting.mended:,} dated in the future, for the next sweep to set to now"
        yield "wrong times", what, "yellow"
    if found.corrupt:
        yield "set aside", f"{counted(found.corrupt, 'unreadable file')} in corrupt/", "yellow"
    yield "janitor", *_janitor(found)
    heartbeat = found.heartbeat
    if heartbeat is None:
        return
    if heartbeat.last_sweep is not None:
        ago = moment_text(heartbeat.last_sweep.started_at, found.now)
        yield "last sweep", f"{ago}: {sweep_text(heartbeat.last_sweep)}", ""
    if heartbeat.last_error is not None:
        yield "last error", printable(heartbeat.last_error), "red"
    if found.state == "alive" and heartbeat.next_sweep_at is not None:
        yield "next sweep", moment_text(heartbeat.next_sweep_at, found.now), ""


def _janitor(found: Status) -> tuple[str, str]:
    """How the janitor is, and the style to say it in."""
    heartbeat = found.heartbeat
    if found.state == "absent":
        since = "" if heartbeat is None else f", the last one spoke {_since(heartbeat, found.now)}"
        return f"none is running{since}; run: {_janitor_command(found.directory)}", "red"
    if found.state == "alive" and (heartbeat is None or not heartbeat.is_fresh(found.now)):
        words = "its heartbeat is not written: it has just begun, or the disk is full"
        return f"alive, but {words}", "red"
    if heartbeat is None:
        return "hangs: one leads and has never spoken; end it, and another takes over", "red"
    process = f"process {heartbeat.pid} on {printable(heartbeat.host)}"
    if found.state == "hung":
        words = f"hangs: {process} leads and last spoke {_since(heartbeat, found.now)}"
        return f"{words}; end it, and another takes over", "red"
    plan = (
        f"by cron {printable(heartbeat.cron)!r}"
        if heartbeat.cron is not None
        else f"every {span_text(heartbeat.interval or 0)}"
    )
    busy = heartbeat.sweeping_since
    sweeping = "" if busy is None else f", sweeping for {span_text(found.now - busy)}"
    return f"alive: {process}, sweeps {plan}{sweeping}", "green"


def _since(heartbeat: Heartbeat, now: float) -> str:
    distance = distance_text(heartbeat.heartbeat_at, now)
    return "just now" if distance == "now" else distance


def _janitor_command(directory: str) -> str:
    return printable(f"filesession janitor {shlex.quote(directory)}")


def _histogram(ages: list[int]) -> Iterator[str]:
    """A bar for every age, up to the last that has any."""
    most = max(ages)
    last = max(number for number, count in enumerate(ages) if count)
    for (name, _), count in list(zip(AGES, ages, strict=True))[: last + 1]:
        bar = "#" * max(round(BAR * count / most), 1 if count else 0)
        yield f"  {name:<14}{count:>10,}  {bar}".rstrip()
