"""``filesession janitor``: janitors in the foreground."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import rich_click as click

from filesession.cli.bars import Bars
from filesession.cli.logs import FORMATS, logging_to
from filesession.cli.options import number, word
from filesession.cli.sweep import NOT_TO_ITS_END
from filesession.cli.teaching import command
from filesession.cli.terminal import notices, printable, say_error
from filesession.errors import FilesessionError, StoreError
from filesession.janitor.complaints import Complaints
from filesession.janitor.reading import Reading
from filesession.janitor.wording import sweep_text
from filesession.lifetime import UNSET
from filesession.record import SweepReport
from filesession.stores.file.ownership import absolute

if TYPE_CHECKING:
    from filesession.janitor.janitor import Janitor
    from filesession.janitor.metrics import Metrics
    from filesession.janitor.roster import Watch

_WATCHES: Final = ("auto", "events", "poll", "off")

_SHARE: Final = "SHARE is a number from 0 to 1: 0.5 is half, 1 lets one sweep remove all"

_WRITE: Final = "cannot write the figures"

_log: Final = logging.getLogger("filesession.janitor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for; None: as usual."""

    directories: tuple[str, ...]
    interval: float | None
    cron: str | None
    watch: str | None
    fuse: float | None
    metrics: str | None
    metrics_file: str | None
    on_expired: str | None

    def janitor(self, directory: str) -> Janitor:
        """A janitor for one of the directories.

        Raises:
            ConfigurationError: a value, or the directory, cannot be used.
        """
        from filesession.janitor.janitor import Janitor  # noqa: PLC0415 - no other command needs it

        options: dict[str, Any] = {} if self.fuse is None else {"fuse": self.fuse}
        return Janitor(
            directory,
            interval=UNSET if self.interval is None else self.interval,
            cron=self.cron,
            watch=cast("Watch", self.watch or "auto"),
            on_expired=self.on_expired,
            **options,
        )

    def figures(self, read: Callable[[], list[Reading]]) -> Metrics | None:
        """What tells Prometheus of the readings, if that is wanted.

        Raises:
            ConfigurationError: what it takes is not installed.
        """
        if self.metrics is None and self.metrics_file is None:
            return None
        from filesession.janitor.metrics import Metrics  # noqa: PLC0415 - few want it

        return Metrics(read)


def _directories(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Absolute paths, each directory once: two janitors for one would wait for each other."""
    paths: dict[str, str] = {}
    for value in values:
        path = absolute(value)
        real = os.path.realpath(path)
        if real in paths:
            same = "" if paths[real] == path else f", as {paths[real]}"
            msg = f"{path} is given twice{same}; give each directory once"
            raise click.BadParameter(printable(msg))
        paths[real] = path
    return tuple(paths.values())


def _file(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    path = absolute(value)
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path)):
        msg = "FILE is a file in a directory that is there: make the directory first"
        raise click.BadParameter(msg)
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        msg = "FILE is replaced by another each time, and this is a device, a link or a pipe"
        raise click.BadParameter(msg)
    return path


def _program(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The command, if its program is there; what else is wrong with it the janitor says."""
    with suppress(ValueError):
        words = shlex.split(value or "")
        if any(words[:1]) and shutil.which(words[0]) is None:
            msg = "COMMAND begins with no program that can be run; give its path"
            raise click.BadParameter(msg)
    return value


@command(
    "janitor /var/lib/app/sessions",
    'janitor /var/lib/app/sessions --cron "*/10 * * * *"',
    "janitor /var/lib/app/sessions /var/lib/shop/sessions --metrics 127.0.0.1:9464",
    codes=(
        "0 it was told to stop, and did; with --once, it swept. 2 it could not run, or with --once"
        " not to its end."
    ),
)
@click.argument(
    "directories", metavar="DIR [DIR ...]", nargs=-1, required=True, callback=_directories
)
@click.option(
    "--interval",
    callback=number("SECONDS is a number"),
    metavar="SECONDS",
    help="Time between sweeps; 60.",
)
@click.option(
    "--cron", metavar="EXPR", help="Instead: when to sweep, as crontab(5) has it, in local time."
)
@click.option(
    "--watch",
    callback=word(*_WATCHES),
    metavar="|".join(_WATCHES),
    help="How new sessions are noticed: events of the file system, a poll of the directories with"
    " every sweep, or off: each sweep looks at every session. auto, the default, takes events where"
    " all that write are on this machine.",
)
@click.option(
    "--fuse",
    callback=number(_SHARE, 0, 1),
    metavar="SHARE",
    help="A sweep that would remove more than this share of 1,000 or more sessions holds back, and"
    " the next one goes on; 0.5. 1: none holds back for that.",
)
@click.option(
    "--metrics",
    metavar="ADDRESS:PORT",
    help="Serve figures for Prometheus at http://ADDRESS:PORT/metrics.",
)
@click.option(
    "--metrics-file",
    callback=_file,
    metavar="FILE",
    help="Write them to FILE every 5 seconds, for node_exporter, which wants it called *.prom.",
)
@click.option(
    "--on-expired",
    callback=_program,
    metavar="COMMAND",
    help="Run COMMAND for what has expired: it reads a JSON object a line. No sweep waits for it.",
)
@click.option(
    "--log-format",
    callback=word(*FORMATS),
    metavar="|".join(FORMATS),
    help="Log lines for people, the default, or a JSON object a line.",
)
@click.option(
    "--once", is_flag=True, help="Sweep once and end, whether another janitor leads or not."
)
@click.option("-v", "--verbose", is_flag=True, help="Also tell of sweeps that found nothing.")
def janitor(
    *,
    once: bool,
    verbose: bool,
    log_format: str | None,
    **wanted: Any,  # noqa: ANN401 - as in Plan
) -> None:
    """Remove expired sessions from DIR, now and from time to time, until told to stop.

    Stays in the foreground and logs to stderr. Of several janitors for one directory one works and
    the others stand by, ready within a second. Where no application has made DIR yet, it waits for
    that. Several directories are looked after each by itself.

    SIGTERM or Ctrl-C lets it finish the session in hand, and it ends. SIGHUP reads the timeouts and
    the whole directory anew, or ends it when its terminal was closed. SIGUSR1 sweeps now. systemd
    is told how it goes, if that started it.
    """
    plan = Plan(**wanted)
    if once:
        _check_once(plan)
    usual = logging.WARNING if once else logging.INFO
    console = notices()
    with logging_to(console, logging.DEBUG if verbose else usual, log_format or "text"):
        if once:
            _sweep_each(plan)
        else:
            bars = Bars(console) if console.is_terminal and not console.is_dumb_terminal else None
            _work(plan, bars)


def _check_once(plan: Plan) -> None:
    odd = ("interval", "cron", "watch", "fuse", "metrics")
    given = [f"--{name}" for name in odd if getattr(plan, name) is not None]
    if given:
        msg = f"--once sweeps now, and removes all that is due: leave out {' and '.join(given)}"
        raise click.UsageError(msg)


def _work(plan: Plan, bars: Bars | None) -> None:
    """Run the janitors until a signal ends them."""
    from filesession.janitor.daemon import Daemon  # noqa: PLC0415 - no other command needs it

    janitors = [plan.janitor(directory) for directory in plan.directories]
    figures = plan.figures(lambda: [each.reading() for each in janitors])
    tasks: list[Callable[[], None]] = []
    with ExitStack() as stack:
        if figures is not None:
            stack.enter_context(closing(figures))
            if plan.metrics is not None:
                _log.info("figures are at http://%s/metrics", figures.serve(plan.metrics))
            if plan.metrics_file is not None:
                tasks.append(_writer(figures, plan.metrics_file))
        if bars is not None:
            stack.enter_context(closing(bars))
            tasks.append(bars.tidy)
            for directory, each in zip(plan.directories, janitors, strict=True):
                each.progress = bars.of(directory)
        Daemon(janitors, report=lambda: _do_all(tasks), last=True).run()


def _do_all(tasks: Sequence[Callable[[], None]]) -> None:
    for task in tasks:
        task()


def _writer(figures: Metrics, path: str) -> Callable[[], None]:
    """What writes the figures; a failure is said once, and the next time is another chance."""
    complaints = Complaints(_log)

    def write() -> None:
        try:
            figures.write(path)
        except StoreError as error:
            complaints.say(_WRITE, str(error))
        else:
            complaints.over(_WRITE, "the figures are written again")

    return write


def _sweep_each(plan: Plan) -> None:
    """Sweep each directory once; one that fails keeps none of the others. May end the process."""
    readings: list[Reading] = []
    figures = plan.figures(lambda: readings)
    failures: dict[str, None] = {}
    well = True
    for directory in plan.directories:
        report = None
        with _failing(failures):
            works = plan.janitor(directory)
            readings.append(works.reading())
            report = works.sweep_once()
            readings[-1] = _after(works.reading(), report)
        if report is not None:
            name = "" if len(plan.directories) == 1 else f"{printable(directory)}: "
            click.echo(name + sweep_text(report))
            well = well and not report.failed
    if figures is not None and plan.metrics_file is not None:
        with _failing(failures):
            figures.write(plan.metrics_file)
    for failure in failures:
        say_error(failure)
    if failures or not well:
        sys.exit(NOT_TO_ITS_END)


@contextmanager
def _failing(failures: dict[str, None]) -> Iterator[None]:
    """Note what fails, the same of several directories once."""
    try:
        yield
    except (FilesessionError, OSError) as error:
        failures[str(error)] = None


def _after(reading: Reading, report: SweepReport) -> Reading:
    """The figures after a sweep of our own: what it left is what is there."""
    left = report.examined - report.expired - report.corrupt
    return replace(reading, leads=True, sessions=left)
