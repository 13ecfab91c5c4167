"""``filesession doctor``: what is wrong with a directory, and what mends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

import rich_click as click

from filesession.cli import checks, machine
from filesession.cli.directory import directory_argument
from filesession.cli.findings import Finding, tell
from filesession.cli.teaching import command
from filesession.cli.terminal import output
from filesession.clock import system_clock
from filesession.codec import dump_document
from filesession.errors import ConfigurationError, FilesessionError
from filesession.stores.file.layout import Layout

SOMETHING_WRONG: Final = 1


@command(
    "doctor /var/lib/app/sessions",
    "doctor /var/lib/app/sessions --json | jq .well",
    codes="0 nothing is wrong. 1 something is. 2 it could not run.",
)
@directory_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object with the findings.")
def doctor(directory: str, *, as_json: bool) -> None:
    """Look for what is wrong with DIR, and say what mends it. Changes nothing.

    Permissions, foreign and damaged files, the manifest, the kind of file system, locks, free
    space, kernel limits, the clock, and whether a janitor works. Looks at every session.
    """
    path = os.path.abspath(directory)
    if not os.path.isdir(path):
        there = os.path.lexists(path)
        msg = f"{path} is not a directory" if there else f"there is no directory {path}"
        raise ConfigurationError(msg)
    findings = list(examine(path))
    well = all(finding.level != "wrong" for finding in findings)
    if as_json:
        found = [asdict(finding) for finding in findings]
        click.echo(dump_document({"directory": path, "well": well, "findings": found}), nl=False)
    else:
        tell(findings, output())
    if not well:
        sys.exit(SOMETHING_WRONG)


def examine(directory: str) -> Iterator[Finding]:
    """Every finding on a directory, the basic ones first. Reads every session's file."""
    now = system_clock()
    yield from checks.directory_itself(directory)
    manifest, finding = checks.manifest_of(directory)
    yield finding
    yield from checks.secret(directory)
    yield from machine.file_system(directory)
    yield from machine.room(directory)
    if manifest is None:
        return  # without it nobody knows where a session lies
    layout = Layout(directory, manifest.shard_depth)
    census = checks.Census(layout, now)
    try:
        yield from census.take().findings()
        yield from checks.strangers(layout)
        yield from checks.corrupt(layout)
        yield from machine.locking(directory)
        yield from checks.janitor(directory, now)
    except (FilesessionError, OSError) as error:
        yield Finding("access", "wrong", str(error), "run it as the user the application runs as")
    yield from machine.inotify(len(census.shards) + 1)
