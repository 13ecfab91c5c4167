"""What a person at a terminal gets that a pipe does not: bars, colours, questions."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from filesession.cli.terminal import printable
from filesession.cli.times import clock_text, distance_text, moment_text
from filesession.stores.entry import handle_of
from filesession.stores.file.store import FileStore

NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions", idle_timeout=1000)


def at_a_terminal(*arguments: str, answer: str = "", **environment: str) -> tuple[int, str]:
    """Run the command on a terminal of its own; the exit code and what was on the screen."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "filesession", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
        )
        os.close(theirs)
        if answer:
            os.write(ours, answer.encode())
        screen = b""
        with suppress(OSError):  # how a terminal says that nobody is there any more
            while chunk := os.read(ours, 4096):
                screen += chunk
        return process.wait(20), screen.decode()
    finally:
        os.close(ours)


def plain(screen: str) -> str:
    """The text without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)


def test_a_session_is_shown_for_people(store: FileStore) -> None:
    handle = handle_of(store.create({"user": "ada", "text": "\x9b31m"}).id)
    code, screen = at_a_terminal("show", store.directory, str(handle))
    assert code == 0
    assert f"handle       {handle}" in plain(screen)
    assert '  "user": "ada"' in plain(screen)
    assert "\x1b[" in screen
    assert "\x9b" not in screen
    assert "\\u009b31m" in plain(screen)


def test_what_a_session_has_of_its_own_is_shown_for_people(store: FileStore) -> None:
    record = store.create(
        idle_timeout=7200, absolute_timeout=86400 * 3, cookie={"domain": "example.com"}
    )
    _, screen = at_a_terminal("show", store.directory, str(handle_of(record.id)))
    assert "idle         ends after 2 h without activity" in plain(screen)
    assert "absolute     ends 3 d after its creation" in plain(screen)
    assert 'cookie       {"domain": "example.com"}' in plain(screen)
    endless = store.create(idle_timeout=float("inf"))
    _, screen = at_a_terminal("show", store.directory, str(handle_of(endless.id)))
    assert "ends" not in plain(screen)


def test_a_session_is_shown_as_json_when_that_is_wanted(store: FileStore) -> None:
    handle = handle_of(store.create({"text": "\x9b31m"}).id)
    code, screen = at_a_terminal("show", store.directory, str(handle), "--json")
    assert code == 0
    assert screen.startswith('{"handle":')
    assert "\x9b" not in screen


def test_colours_are_left_out_when_nobody_wants_them(store: FileStore) -> None:
    store.create()
    (info,) = store.scan()
    os.utime(Path(store.directory, "sessions", info.handle[:2], info.handle), (1, 1))
    _, screen = at_a_terminal("ls", store.directory)
    assert "\x1b[31m" in screen
    _, screen = at_a_terminal("ls", store.directory, NO_COLOR="1")
    assert "\x1b[31m" not in screen


def test_a_narrow_terminal_gets_a_table_that_fits_and_marks_what_has_expired(
    store: FileStore,
) -> None:
    store.create()
    (info,) = store.scan()
    path = Path(store.directory, "sessions", info.handle[:2], info.handle)
    os.utime(path, (time.time() - 8_640_000,) * 2)
    store.create()
    _, screen = at_a_terminal("ls", store.directory, COLUMNS="80")
    lines = plain(screen).splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)
    expired = next(line for line in lines if info.handle in line)
    assert expired.rstrip().endswith(" ! 100 d ago")


def test_a_sweep_shows_how_far_it_is_and_takes_the_bar_away(store: FileStore) -> None:
    for _ in range(250):
        store.create()
    code, screen = at_a_terminal("sweep", store.directory)
    assert code == 0
    assert "/250" in screen
    assert plain(screen).strip().endswith("none expired")


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 2, 2), ("\n", 2, 2)])
def test_destroying_all_asks_and_does_as_it_is_told(
    store: FileStore, answer: str, code: int, left: int
) -> None:
    store.create()
    store.create()
    ended, screen = at_a_terminal("destroy", store.directory, "--all", answer=answer)
    assert f"Destroy all of 2 sessions in {store.directory}? [y/N]" in screen
    assert ended == code
    assert len(store) == left


def test_what_is_printable_is_printed() -> None:
    assert printable("grün [bold] 日本 \U0001f600") == "grün [bold] 日本 \U0001f600"


@pytest.mark.parametrize("code", [0x00, 0x07, 0x0A, 0x1B, 0x7F, 0x9B, 0x2028, 0x202E, 0x2066])
def test_what_could_take_over_a_terminal_is_spelled_out(code: int) -> None:
    assert printable(f"a{chr(code)}b") == f"a\\u{code:04x}b"


@pytest.mark.parametrize(
    ("away", "words"),
    [
        (0, "now"),
        (-0.9, "now"),
        (90, "in 90 s"),
        (-90, "90 s ago"),
        (7200, "in 2 h"),
        (-86400 * 3, "3 d ago"),
    ],
)
def test_a_moment_is_told_as_seen_from_now(away: float, words: str) -> None:
    assert distance_text(NOW + away, NOW) == words
    assert re.search(rf" [+-]\d{{4}}, {words}$", moment_text(NOW + away, NOW))


def test_a_moment_is_told_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"2027-01-1\d \d\d:\d\d:\d\d", clock_text(NOW))
    assert moment_text(None, NOW) == "never"
