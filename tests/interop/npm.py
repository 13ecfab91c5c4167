"""Packages of npm and processes of node, for tests beside the real thing.

    packages = npm_packages({"fastify": "5.12.8"})
    with node(Path("app.js"), packages=packages) as app:
        http.client.HTTPConnection("127.0.0.1", app.port)

A script listens at port 0 of 127.0.0.1 and prints ``listening PORT``, as the first such line.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock

from tests.programs import required

PATIENCE: Final = 30
"""Seconds until a script that does not listen, or does not end, fails the test."""

INSTALLING: Final = 300
"""Seconds an installation may take, and others may wait for it."""

_is_exact = re.compile(r"\d+\.\d+\.\d+(-[\w.]+)?").fullmatch

_listening = re.compile(r"^listening (\d+)$")


def npm_packages(versions: Mapping[str, str]) -> Path:
    """The directory ``node_modules`` with packages of exactly these versions.

    They are installed once for a user of this machine, outside the repository, whichever process
    asks first. Where there is no node or npm the test is skipped, but fails in CI.

    Args:
        versions: each package's name and its version, as ``{"@fastify/cookie": "11.1.5"}``.
    """
    inexact = [name for name, version in versions.items() if not _is_exact(version)]
    assert not inexact, f"name an exact version of {', '.join(inexact)}"
    for tool in ("node", "npm"):
        required(tool)
    wanted = json.dumps(dict(sorted(versions.items()))) + _node_version()
    place = _cache() / hashlib.sha256(wanted.encode()).hexdigest()[:16]
    with FileLock(f"{place}.lock", timeout=INSTALLING):
        if not place.exists():
            _install(versions, place)
    return place / "node_modules"


def _node_version() -> str:
    """Packages with parts in C are for one version of node."""
    run = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return run.stdout


def _cache() -> Path:
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(above) / "filesession-tests" / "npm"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _install(versions: Mapping[str, str], place: Path) -> None:
    """All or nothing: what was cut short is never taken for what was asked for."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="new-") as new:
        made = Path(new) / "made"
        made.mkdir()
        manifest = {"name": "filesession-tests", "private": True, "dependencies": dict(versions)}
        (made / "package.json").write_text(json.dumps(manifest))
        run = subprocess.run(
            ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=made,
            env={**os.environ, "NO_UPDATE_NOTIFIER": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALLING,
            check=False,
        )
        assert run.returncode == 0, f"npm could not install {dict(versions)}:\n{run.stdout}"
        made.rename(place)


class Node:
    """A running script.

    Attributes:
        port: of 127.0.0.1, where it listens.
    """

    port: int

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._said = threading.Condition()
        self._silent = False
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def output(self) -> str:
        """What it has written up to now, errors too."""
        with self._said:
            return "".join(self._lines)

    def _read(self) -> None:
        """To the end, for a full pipe would stop the script."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._said:
                self._lines.append(line)
                self._said.notify_all()
        with self._said:
            self._silent = True
            self._said.notify_all()

    def wait_for_the_port(self) -> None:
        """Until it listens; fails the test with what it wrote when it never does."""
        with self._said:
            came = self._said.wait_for(lambda: self._silent or self._announced(), PATIENCE)
            found = self._announced()
        assert found, f"the script {'ended' if came else 'does not listen'}:\n{self.output}"
        self.port = int(found[0])

    def _announced(self) -> list[str]:
        return [found[1] for line in self._lines if (found := _listening.match(line.rstrip()))]

    def end(self) -> None:
        """Stop it, at once if it does not listen to reason; its pipe and its reader end with it."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        finally:
            self._reading.join(PATIENCE)
            assert self._process.stdout is not None
            self._process.stdout.close()


@contextmanager
def node(
    script: Path,
    *arguments: str,
    packages: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Node]:
    """A script of node's that serves HTTP; it ends with the block, however that ends.

    Args:
        script: its file; in CommonJS, as ``require`` finds the packages.
        arguments: its own.
        packages: where it finds them, as ``npm_packages`` gave it.
        env: more variables for it.
        cwd: where it runs; None: beside its file.
    """
    process = subprocess.Popen(
        ["node", str(script), *arguments],
        cwd=cwd or script.parent,
        env={**os.environ, "NODE_PATH": str(packages), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = Node(process)
    try:
        running.wait_for_the_port()
        yield running
    finally:
        running.end()
