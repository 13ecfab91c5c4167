"""The command under any arguments: it says what it may say, and destroys what it is told to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from click.testing import CliRunner, Result

from filesession import FileStore
from filesession.cli.command import commands
from filesession.janitor.daemon import Daemon
from filesession.stores.entry import handle_of

DIRECTORY: Final = "{dir}"
HANDLE: Final = "{handle}"
SHORT: Final = "{short}"
"""What stands in arguments for the directory, for a live session in it, and for too few of its
digits to name it by."""

TAKEN: Final = "taken"
"""A file beside the directory."""

NAMES: Final = ("janitor", "status", "top", "doctor", "ls", "show", "destroy", "sweep", "genkey")
OPTIONS: Final = (
    *("--json", "--all", "--yes", "--dry-run", "--limit", "--once", "--interval", "--cron", "-v"),
    *("--full", "--watch", "--fuse", "--log-format", "--watch=poll", "--log-format=json"),
    *("--verbose", "-h", "--help", "--version", "-o", "--output", "--", "-", "--limit=1", "-ofile"),
)
VALUES: Final = (
    *("0", "1", "-1", "60", "1e400", "nan", "inf", "0.0000001", "9" * 30, "*/5 * * * *", "x"),
    *("0 0 30 2 *", "*/0 * * * *", "1-0 * * * *", "* * * * 7-1/2", "60 24 32 13 8", "@daily"),
    *("off", "0.5", "json"),
    *("", " ", "0123", "0" * 32, "\u0130", "\udce9", "\U0001f36a", SHORT, "nowhere", TAKEN),
)

_CODES: Final = {
    "status": {0, 2, 3},
    "doctor": {0, 1, 2},
    "show": {0, 1, 2},
    "destroy": {0, 1, 2},
}
"""What the README lets each of them end with; the others with 0 or 2."""


class _WouldRunError(Exception):
    """The janitor was asked to stay."""


def run_command(*arguments: str) -> Result:
    """What the command does in this process; everything it raises is raised here, too."""
    return CliRunner().invoke(commands, arguments, catch_exceptions=False)


class Command:
    """A session directory that is put right again after each command line."""

    def __init__(self, directory: Path) -> None:
        self._here = directory
        self.root = directory / os.fsdecode(
            b"s\xe9ssions"
        )  # as of a disk from the time before UTF-8
        self._pristine = directory / "pristine"
        self._taken = directory / TAKEN
        self._taken.write_bytes(b"somebody's")
        store = FileStore(self._pristine, idle_timeout=86400)
        self.live = handle_of(store.create({"who": "live"}, sid="live").id) or ""
        expired = store.create({"who": "expired"}, sid="expired", idle_timeout=1)
        self.expired = handle_of(expired.id) or ""
        os.utime(self._pristine / "sessions" / self.expired[:2] / self.expired, (1e9, 1e9))
        self._restore()

    def _restore(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self._pristine, self.root)

    def __call__(self, data: bytes) -> None:
        """An input: arguments divided by NUL, which no argument can hold."""
        self.check([os.fsdecode(each) for each in data.split(b"\0")])

    def check(self, drawn: Sequence[str]) -> None:
        """Run one command line, and look at what is left."""
        arguments = [self._filled(each) for each in drawn]
        before = os.getcwd()
        os.chdir(self._here)
        try:
            with patch.object(Daemon, "run", side_effect=_WouldRunError):
                result = run_command(*arguments)
        except _WouldRunError:
            assert "janitor" in arguments
            assert "--once" not in arguments
        else:
            self._check_result(arguments, result)
        finally:
            os.chdir(before)
            for path in set(self._here.iterdir()) - {self.root, self._pristine, self._taken}:
                path.unlink()
        try:
            self._check_left(arguments)
        finally:
            if _contents(self.root) != _contents(self._pristine):
                self._restore()

    def _filled(self, text: str) -> str:
        """The argument, as no path that leads out of the directory."""
        for escape in ("/", ".."):
            text = text.replace(escape, "")
        text = text.replace(DIRECTORY, str(self.root)).replace(SHORT, self.live[:3])
        return text.replace(HANDLE, self.live)

    def _check_result(self, arguments: Sequence[str], result: Result) -> None:
        name = next((each for each in arguments if each in NAMES), "")
        assert result.exit_code in _CODES.get(name, {0, 2})
        assert "Traceback" not in result.output
        if result.exit_code == 2:
            assert result.output
        if not name and result.exit_code == 0:
            assert "Usage:" in result.output or result.output.startswith("filesession ")

    def _check_left(self, arguments: Sequence[str]) -> None:
        assert self._taken.read_bytes() == b"somebody's"
        left, pristine = _contents(self.root), _contents(self._pristine)
        if left == pristine:
            return
        gone = {os.path.basename(path) for path in pristine.keys() - left.keys()}
        command = next(each for each in arguments if each in NAMES)
        allowed = {"destroy": {self.live, self.expired}, "sweep": {self.expired}}
        allowed["janitor"] = {self.expired} if "--once" in arguments else set()
        assert gone <= allowed.get(command, set())
        if command == "destroy":
            asked = {each for each in arguments if len(each) >= 4}
            named = {name for name in gone for each in asked if name.startswith(each.lower())}
            assert gone == named or {"--all", "--yes"} <= set(arguments)
        assert "--dry-run" not in arguments
        assert {path: left[path] for path in left.keys() & pristine.keys()} == {
            path: content for path, content in pristine.items() if path in left
        }
        assert left.keys() - pristine.keys() <= {"janitor.lock", "janitor.json"}


def _contents(root: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def seeds() -> Iterator[bytes]:
    lines = (
        *("status|{dir}", "status|{dir}|--json", "doctor|{dir}", "doctor|{dir}|--json"),
        *("ls|{dir}", "ls|{dir}|--json", "show|{dir}|{handle}", "show|{dir}|0123", "genkey"),
        *("destroy|{dir}|{handle}", "destroy|{dir}|--all", "destroy|{dir}|--all|--yes"),
        *("sweep|{dir}", "sweep|{dir}|--dry-run", "sweep|{dir}|--limit|1", "genkey|-o|key"),
        *("janitor|{dir}", "janitor|{dir}|--once|-v", "janitor|{dir}|--interval|300", "--version"),
        *("janitor|{dir}|--cron|*/10 1-5 * jan mon-fri", "--help", "janitor|nowhere|--once"),
        *("janitor|{dir}|--cron|0 0 1,15 * 5", "status|nowhere", "doctor|nowhere|--json"),
    )
    takers = (
        *("janitor|{dir}|--interval", "janitor|{dir}|--cron", "sweep|{dir}|--limit"),
        *("show|{dir}", "destroy|{dir}", "genkey|-o", "status"),
    )
    for line in (*lines, *(f"{taker}|{value}" for taker in takers for value in VALUES)):
        yield os.fsencode(line.replace("|", "\0"))


WORDS: Final = tuple(
    os.fsencode(each) for each in (DIRECTORY, HANDLE, *NAMES, *OPTIONS, *VALUES) if each
)
