"""One cleaner, in a process of its own: removes once what has expired, and says what that cost.

    python -m tests.bench.cleaners NAME DIR [ARGUMENT]

Prints a JSON object: seconds and CPU seconds of the cleaning alone, without the interpreter's start
and the imports, and the most memory the process ever had, in bytes, with them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Final, TypeAlias

from tests.bench.memory import peak_of

Work: TypeAlias = Callable[[], object]


def scan(directory: str, due_after: str) -> Work:
    """What a person would write: look at every file's time."""

    def clean() -> None:
        before = time.time() - float(due_after)
        folders = [directory]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.stat(follow_symlinks=False).st_mtime < before:
                        os.unlink(entry.path)

    return clean


def unlink(_directory: str, listing: str) -> Work:
    """The floor: what has expired is known, and nothing is looked at."""
    with open(listing, encoding="ascii") as lines:
        paths = lines.read().splitlines()

    def clean() -> None:
        for path in paths:
            os.unlink(path)

    return clean


def sweep(directory: str) -> Work:
    """Ours, looking at everything."""
    from filesession import Janitor  # noqa: PLC0415 - each imports what it needs, and no more

    work: Work = Janitor(directory).sweep_once
    return work


def django(directory: str) -> Work:
    """``manage.py clearsessions``."""
    from tests.bench.trees import django_store  # noqa: PLC0415 - as above

    django_store(directory)
    call = import_module("django.core.management").call_command
    command = import_module("django.contrib.sessions.management.commands.clearsessions").Command()
    return lambda: call(command)


def cachelib(directory: str, threshold: str) -> Work:
    """It cleans within ``set``, when it holds more than its threshold, before it stores.

    With one session more than the threshold it removes what has expired, and is done.
    """
    cache = import_module("cachelib").FileSystemCache(directory, int(threshold), 1800)
    return lambda: cache.set("one more", {"user": "bob"})


def litestar(directory: str) -> Work:
    """``await store.delete_expired()``."""
    import asyncio  # noqa: PLC0415 - as above

    store = import_module("litestar.stores.file").FileStore(directory)
    return lambda: asyncio.run(store.delete_expired())


CLEANERS: Final[dict[str, Callable[..., Work]]] = {
    each.__name__: each for each in (scan, unlink, sweep, django, cachelib, litestar)
}


def main(name: str, *arguments: str) -> None:
    """Clean and print what it cost."""
    clean = CLEANERS[name](*arguments)
    before, began = _cpu(), time.perf_counter()
    clean()
    seconds, cpu = time.perf_counter() - began, _cpu() - before
    told = {"seconds": seconds, "cpu": cpu, "peak": peak_of(os.getpid())}
    sys.stdout.write(json.dumps(told) + "\n")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:])
