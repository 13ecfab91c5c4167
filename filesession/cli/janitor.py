"""``filesession janitor``: the janitor in the foreground."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import rich_click as click

from filesession.cli.directory import directory_argument
from filesession.cli.sweep import NOT_TO_ITS_END
from filesession.cli.teaching import command
from filesession.janitor.wording import sweep_text
from filesession.lifetime import UNSET


def _seconds(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        msg = "SECONDS is a number"
        raise click.BadParameter(msg) from None


@command(
    "janitor /var/lib/app/sessions",
    "janitor /var/lib/app/sessions --interval 300",
    'janitor /var/lib/app/sessions --cron "*/10 * * * *"',
    codes=(
        "0 it was told to stop, and did; with --once, it swept. 2 it could not run, or with --once"
        " not to its end."
    ),
)
@directory_argument
@click.option("--interval", callback=_seconds, metavar="SECONDS", help="Time between sweeps; 60.")
@click.option(
    "--cron", metavar="EXPR", help="Instead: when to sweep, as crontab(5) has it, in local time."
)
@click.option(
    "--once", is_flag=True, help="Sweep once and end, whether another janitor leads or not."
)
@click.option("-v", "--verbose", is_flag=True, help="Also tell of sweeps that found nothing.")
def janitor(
    directory: str, interval: float | None, cron: str | None, *, once: bool, verbose: bool
) -> None:
    """Remove expired sessions from DIR, now and from time to time, until told to stop.

    Stays in the foreground and logs to stderr. SIGTERM or Ctrl-C lets it finish the sweep in hand.
    Of several janitors for one directory one works and the others stand by, ready within a second.
    Where no application has made DIR yet, it waits for that.
    """
    if once and (interval is not None or cron is not None):
        msg = "--once sweeps now: leave out --interval and --cron"
        raise click.UsageError(msg)
    from filesession.janitor.daemon import Janitor  # noqa: PLC0415 - the others need none of it

    works = Janitor(directory, interval=UNSET if interval is None else interval, cron=cron)
    usual = logging.WARNING if once else logging.INFO
    with _logging(logging.DEBUG if verbose else usual):
        if once:
            report = works.sweep_once()
            click.echo(sweep_text(report))
            if report.failed:
                sys.exit(NOT_TO_ITS_END)
        else:
            works.run()


@contextmanager
def _logging(level: int) -> Iterator[None]:
    """Log lines with their time on stderr, for as long as the command runs."""
    logger = logging.getLogger("filesession")
    before = logger.level
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%F %T"))
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
