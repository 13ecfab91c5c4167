"""``filesession doctor``: what is wrong with a directory, and what mends it."""

from __future__ import annotations

import os
import shlex
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
    if not os.path.isdir(directory):
        there = os.path.lexists(directory)
        msg = f"{directory} is not a directory" if there else f"there is no directory {directory}"
        raise ConfigurationError(msg)
    findings = list(examine(directory))
    well = all(finding.level != "wrong" for finding in findings)
    if as_json:
        found = [asdict(finding) for finding in findings]
        click.echo(
            dump_document({"directory": directory, "well": well, "findings": found}), nl=False
        )
    else:
        tell(findings, output())
    if not well:
        sys.exit(SOMETHING_WRONG)


def examine(directory: str) -> Iterator[Finding]:
    """Every finding on a directory, the basic ones first. Reads every session's file.

    Raises:
        ConfigurationError: it never was a session directory.
    """
    real = directory
    if os.path.islink(directory):
        real = os.path.realpath(directory)
        mend = f"name the directory it points to: {shlex.quote(real)}"
        yield Finding("symlink", "wrong", f"{directory} is a symlink, and refused as one", mend)
    checks.check_known(real)
    try:
        yield checks.directory_itself(real)
        if os.stat(real).st_uid == os.geteuid():  # else it is for its owner to look at
            yield from _examined(real)
    except (FilesessionError, OSError) as error:
        told = str(error)
        if isinstance(error, OSError):
            told = f"{error.filename or real}: {error.strerror}"
        mend = f"look at who may read it, and at the disk (dmesg): ls -la {shlex.quote(real)}"
        yield Finding("access", "wrong", told, mend)


def _examined(directory: str) -> Iterator[Finding]:
    now = system_clock()
    yield from checks.above(directory)
    manifest, finding = checks.manifest_of(directory)
    yield finding
    yield from checks.secret(directory)
    yield from machine.file_system(directory)
    yield from machine.room(directory)
    if manifest is None:
        return  # without it nobody knows where a session lies
    layout = Layout(directory, manifest.shard_depth)
    census = checks.Census(layout, now)
    yield from census.take().findings()
    yield from checks.strangers(layout)
    yield from checks.corrupt(layout)
    yield from machine.locking(directory)
    yield from checks.janitor(directory, now)
    yield from machine.inotify(len(census.shards) + 1)
