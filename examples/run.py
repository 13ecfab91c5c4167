"""Serve the tea shop with several workers and run the janitor beside it, until Ctrl-C.

    python examples/run.py [--port 8000] [--wsgi] [--dir DIR] [--workers 2]

Exit codes: 0 it was told to stop, and did; 1 the server or the janitor ended by itself, or the port
is taken; 2 it was called wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import shlex
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, TextIO

import shop

from filesession import ConfigurationError, FileStore, StoreError

HOST: Final = "127.0.0.1"
LAST_PORT: Final = 65535
EXAMPLES: Final = os.path.dirname(os.path.abspath(__file__))
STOP: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
GRACE: Final = 10.0  # seconds the children get to finish what they are at
PAUSE: Final = 0.05  # seconds between two looks whether the server answers

GUARD: Final = 'read _; kill -s TERM -- "$@"'
"""For sh, with process groups: its input ends with us, however we end, and then so do they."""

WELCOME: Final = """
The tea shop is open: http://{host}:{port}/  ({server}, {workers} workers, and a janitor)

  - Log in with "remember me": the cookie lasts 30 days; without, until the browser is closed.
  - Stop this and start the other server: you are still logged in, and the cart is full.
      {other}
  - Look at the sessions from a second terminal:
      {listing}

Ctrl-C stops it all.
"""


def main() -> int:
    """Run until told to stop, and return the exit code."""
    options = parsed()
    check_port(options.port)
    server = "gunicorn" if options.wsgi else "uvicorn"
    directory = os.path.abspath(options.dir)  # gunicorn is to change its working directory
    try:
        FileStore(directory, idle_timeout=shop.IDLE_TIMEOUT).close()  # the janitor wants it there
    except (ConfigurationError, StoreError) as error:
        sys.exit(str(error))
    arguments = [word for word in sys.argv if word != "--wsgi"]
    welcome = WELCOME.format(
        host=HOST,
        port=options.port,
        server=server,
        workers=options.workers,
        other=typed(*arguments, *([] if options.wsgi else ["--wsgi"])),
        listing=typed("-m", "filesession", "ls", short(directory)),
    )
    commands = {
        server: server_command(server, options.port, options.workers),
        "the janitor": ["filesession", "janitor", directory],
    }
    environment = {**os.environ, "FILESESSION_DIR": directory}
    return asyncio.run(run(commands, environment, options.port, welcome))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        allow_abbrev=False,  # the command that is shown for the other server takes --wsgi by name
    )
    port = os.environ.get("PORT", "8000")
    parser.add_argument("--port", type=int, default=port, help="$PORT, or 8000")
    parser.add_argument("--wsgi", action="store_true", help="gunicorn and WSGI, not uvicorn")
    parser.add_argument("--dir", default=shop.DIRECTORY, help="where the sessions are")
    parser.add_argument("--workers", type=int, default=2, help="processes that answer; 2")
    options = parser.parse_args()
    if not 0 < options.port <= LAST_PORT:
        parser.error(f"a port is a number from 1 to {LAST_PORT}, not {options.port}")
    if options.workers < 1:
        parser.error("at least one worker is needed")
    return options


def check_port(port: int) -> None:
    """End with one line when the port is not to be had: a server would write a page about it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind((HOST, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = "is taken" if taken else f"cannot be used ({error.strerror})"
            other = port + 1 if port < LAST_PORT else port - 1
            choice = f"make run PORT={other}" if "MAKELEVEL" in os.environ else f"--port {other}"
            sys.exit(f"port {port} {reason}; choose another, for example: {choice}")


def server_command(server: str, port: int, workers: int) -> list[str]:
    """What serves the shop, as arguments of ``python -m``."""
    common = ["--workers", str(workers), "--log-level", "warning"]
    if server == "uvicorn":
        place = ["--app-dir", EXAMPLES, "--host", HOST, "--port", str(port)]
        return ["uvicorn", "starlette_app:app", *place, *common]
    # Threads: a browser opens connections ahead of need, and each would keep a worker waiting.
    place = ["--chdir", EXAMPLES, "--bind", f"{HOST}:{port}", "--threads", "4"]
    return ["gunicorn", "wsgi_app:app", *place, *common]


async def run(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], port: int, welcome: str
) -> int:
    """Run the commands together until a signal asks for their end, or one ends by itself."""
    asked = asyncio.Event()
    for number in STOP:
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    children: dict[str, Process] = {}
    guard = None
    try:
        for name, command in commands.items():
            children[name] = await started(command, environment)
        guard = await guarding(children.values())
        greeting = asyncio.create_task(greet(port, welcome))
        ends = {asyncio.create_task(child.wait()): name for name, child in children.items()}
        stop = asyncio.create_task(asked.wait())
        await asyncio.wait([stop, *ends], return_when=asyncio.FIRST_COMPLETED)
        greeting.cancel()
        ended = [f"{name}, exit code {end.result()}" for end, name in ends.items() if end.done()]
    finally:
        await stopped(children.values())
        if guard is not None:  # last: until here something may still end us
            guard.kill()
            await guard.wait()
    if asked.is_set():
        return 0
    say(f"stopped, because this ended by itself: {'; '.join(ended)}", sys.stderr)
    return 1


async def started(command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """A child in a process group of its own.

    Ctrl-C reaches it through us alone, so once; and its own children can be found by the group.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, env=environment, process_group=0
    )


async def guarding(children: Collection[Process]) -> Process:
    """Have the children end with us also when we are killed, and can ask nobody for anything."""
    groups = [f"-{child.pid}" for child in children]
    return await asyncio.create_subprocess_exec(
        *("sh", "-c", GUARD, "sh", *groups), stdin=asyncio.subprocess.PIPE, process_group=0
    )


async def stopped(children: Collection[Process]) -> None:
    """Ask the children to end, wait for them, and leave nothing of them."""
    for child in children:
        with suppress(ProcessLookupError):
            child.terminate()
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            for child in children:
                await child.wait()
    for child in children:
        with suppress(ProcessLookupError):  # as it should be: the group is empty
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


async def greet(port: int, welcome: str) -> None:
    """Say hello as soon as the server answers."""
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(PAUSE)
        else:
            writer.close()
            say(welcome)
            return


def say(text: str, stream: TextIO = sys.stdout) -> None:
    """Write a line at once, also into a pipe."""
    stream.write(f"{text}\n")
    stream.flush()


def typed(*arguments: str) -> str:
    """A command for this Python, to copy into a shell."""
    return shlex.join([short(sys.executable), *arguments])


def short(path: str) -> str:
    """The path as a person here would type it."""
    return min(path, os.path.relpath(path), key=len)


if __name__ == "__main__":
    sys.exit(main())
