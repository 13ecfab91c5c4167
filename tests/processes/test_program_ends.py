"""A program that ends while it holds a session's lock, however it ends: it ends, and says nothing.

An interpreter of its own is forked for each, so that what all of them import is imported once; each
comes to an interpreter's real end, which is waited for within bounds. Then the lock is free, what
was saved is there, and nothing was written to standard error that the program did not ask for.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.processes.conftest import PATIENCE, SID, Place

PARENT: Final = """
import asyncio, atexit, os, signal, sys, threading
from filesession import FileStore
from filesession.cookies.policy import CookiePolicy
from filesession.runner import BlockingRunner, LoopRunner, RequestRunner
from filesession.session import Session
from filesession.visit import Visit

while (program := sys.stdin.readline().strip()) and (child := os.fork()):
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
if program:
    os.dup2(os.open(program + ".errors", os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(1, 2)
    with open(program) as file:
        text = file.read()
    exec(compile(text, program, "exec"))
"""
"""Runs the programs whose paths it is told, in forks of itself, and tells how each ended."""

BEFORE: Final = """
store = FileStore({directory!r})
sid = {sid!r}
store.save(sid, {{"saved": True}})

def a_session(runner):
    return Session(Visit(runner, CookiePolicy(), store.codec), store.load(sid))

session = a_session(BlockingRunner(store))
shared = a_session(RequestRunner(LoopRunner(store, None)))
"""

ENDS: Final = {
    "sys.exit inside the lock": (
        3,
        """
with session.lock():
    session["lost"] = True
    sys.exit(3)
""",
    ),
    "os._exit inside the lock": (
        4,
        """
with session.lock():
    session["lost"] = True
    os._exit(4)
""",
    ),
    "killed by a signal inside the lock": (
        -15,
        """
with store.lock(sid):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
""",
    ),
    "a lock that is never left": (
        0,
        """
held = store.lock(sid)
held.__enter__()
""",
    ),
    "a lock in a cycle that is never left": (
        0,
        """
held = store.lock(sid)
held.__enter__()
cycle = [held]
cycle.append(cycle)
""",
    ),
    "a generator that stands inside the lock": (
        0,
        """
def inside():
    with session.lock():
        session["kept"] = True
        yield
standing = inside()
next(standing)
""",
    ),
    "a daemon thread inside the lock": (
        0,
        """
inside = threading.Event()
def hold():
    with session.lock():
        inside.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
inside.wait()
""",
    ),
    "a daemon thread that waits for the lock": (
        0,
        """
asked = threading.Event()
held = store.lock(sid)
held.__enter__()
def wait():
    asked.set()
    with store.lock(sid, timeout=1000):
        pass
threading.Thread(target=wait, daemon=True).start()
asked.wait()
""",
    ),
    "a daemon thread that saves and saves": (
        0,
        """
begun = threading.Event()
def save():
    while True:
        store.save(sid, {"saved": True, "text": "x" * 3000})
        begun.set()
threading.Thread(target=save, daemon=True).start()
begun.wait()
""",
    ),
    "a task that stands inside the lock": (
        0,
        """
async def hold(inside):
    async with shared.alock():
        inside.set()
        await asyncio.Event().wait()
async def main():
    inside = asyncio.Event()
    asyncio.create_task(hold(inside))
    await inside.wait()
asyncio.run(main())
""",
    ),
    "a task that waits for the lock": (
        0,
        """
async def main():
    with store.lock(sid):
        waiting = threading.Thread(target=lambda: asyncio.run(wait()), daemon=True)
        waiting.start()
        while not asked.is_set():
            await asyncio.sleep(0)
asked = threading.Event()
async def wait():
    asked.set()
    async with shared.alock(timeout=1000):
        pass
asyncio.run(main())
""",
    ),
    "a loop that is never closed": (
        0,
        """
loop = asyncio.new_event_loop()
async def hold():
    async with shared.alock():
        inside.set()
        await asyncio.Event().wait()
inside = asyncio.Event()
task = loop.create_task(hold())
loop.run_until_complete(inside.wait())
task._log_destroy_pending = False  # what asyncio says of a task that was forgotten
loop.close()
""",
    ),
    "a save when the interpreter ends": (
        0,
        """
@atexit.register
def last():
    with session.lock():
        session["last"] = True
""",
    ),
    "an interrupt inside the lock": (
        5,
        """
try:
    with session.lock():
        session["lost"] = True
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
except KeyboardInterrupt:
    sys.exit(5)
""",
    ),
    "an interrupt of the loop inside the lock": (
        6,
        """
async def main():
    async with shared.alock():
        shared["lost"] = True
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(6)
""",
    ),
}

SAVED: Final = {
    "a save when the interpreter ends": {"saved": True, "last": True},
}


@dataclass
class Ended:
    """How a program ended, and all that it wrote."""

    code: int
    said: str


Run = Callable[[str], Ended]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a program to its end; fails when that does not come."""
    path = tmp_path_factory.mktemp("programs") / "program"
    errors = path.with_suffix(".errors")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        tell, told = parent.stdin, parent.stdout
        assert tell is not None
        assert told is not None

        def ran(text: str) -> Ended:
            path.write_text(text)
            Path(errors).unlink(missing_ok=True)
            tell.write(f"{path}\n".encode())
            tell.flush()
            assert select.select([told], [], [], PATIENCE)[0], "the program does not end"
            return Ended(int(told.readline()), errors.read_text())

        try:
            yield ran
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ENDS)
def test_a_program_ends_in_silence_and_its_lock_is_free(place: Place, run: Run, how: str) -> None:
    code, text = ENDS[how]
    before = BEFORE.format(directory=str(place.directory), sid=SID)
    assert run(before + text) == Ended(code, "")
    assert place.is_free()
    assert place.is_whole()
    found = place.data()
    found.pop("text", None)
    found.pop("kept", None)  # a generator that is closed may have come to save
    assert found == SAVED.get(how, {"saved": True})
    assert not place.temporary() or "saves and saves" in how
