"""``python examples/run.py``: the server and the janitor live and die together."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
RUN = "examples/run.py"
DEADLINE = 20


class Shop:
    """A running shop: its process, its port and what it wrote."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def said(self) -> str:
        return self.log.read_text()

    def end(self) -> int:
        return self.process.wait(DEADLINE)


@pytest.fixture
def shop(request: pytest.FixtureRequest, launch: Any, port: int, tmp_path: Path) -> Iterator[Shop]:
    log = tmp_path / "log"
    arguments = getattr(request, "param", ())
    directory = str(tmp_path / "var" / "sessions")
    with launch(RUN, "--dir", directory, *arguments, log=log, PORT=str(port)) as process:
        wait_until(lambda: b"Ctrl-C" in log.read_bytes() or process.poll() is not None)
        yield Shop(process, port, log)


both = pytest.mark.parametrize(
    "shop", [(), ("--wsgi",)], ids=["uvicorn", "gunicorn"], indirect=True
)


@both
def test_ctrl_c_ends_all_of_it_well(shop: Shop, alive: Any, is_open: Any) -> None:
    address = f"http://127.0.0.1:{shop.port}/"
    assert address in shop.said()
    wait_until(lambda: "leading" in shop.said())
    wait_until(lambda: len(alive(shop.process.pid)) >= 5)  # a server, two workers, a janitor
    family = alive(shop.process.pid)
    with httpx.Client() as client:  # whose connection stays open
        assert client.get(address).status_code == 200
        os.killpg(shop.process.pid, signal.SIGINT)  # as a terminal does
        assert shop.end() == 0
    assert not is_open(shop.port)
    wait_until(lambda: not any(alive(pid) for pid in family))
    assert "the janitor stopped" in shop.said()
    assert "Traceback" not in shop.said()


@both
def test_the_other_server_takes_over_the_sessions(shop: Shop, launch: Any) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{shop.port}") as client:
        client.post("/login", data=form(client) | {"name": "Ada"})
        shop.process.terminate()
        assert shop.end() == 0
        (command,) = re.findall(r"^ +\S*python\S* (examples/run.py .*)$", shop.said(), re.MULTILINE)
        log = shop.log.with_name("other")
        with launch(*shlex.split(command), log=log, PORT=str(shop.port)):
            wait_until(lambda: b"Ctrl-C" in log.read_bytes())
            assert '<span id="user">Ada</span>' in client.get("/").text


def form(client: httpx.Client) -> dict[str, str]:
    found = re.search('name="csrf" value="(.+?)"', client.get("/").text)
    assert found
    return {"csrf": found[1]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_other_signals_end_it_well_too(
    shop: Shop, alive: Any, is_open: Any, number: signal.Signals
) -> None:
    family = alive(shop.process.pid)
    shop.process.send_signal(number)
    assert shop.end() == 0
    assert not is_open(shop.port)
    wait_until(lambda: not any(alive(pid) for pid in family))


@both
def test_when_it_is_killed_nothing_of_it_stays(shop: Shop, alive: Any, is_open: Any) -> None:
    # a server, two workers, a janitor, a guard
    wait_until(lambda: len(alive(shop.process.pid)) >= 6)
    family = alive(shop.process.pid)
    shop.process.kill()
    assert shop.end() == -signal.SIGKILL
    try:
        wait_until(lambda: not any(alive(pid) for pid in family))
    finally:
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not is_open(shop.port)


def test_a_janitor_looks_after_the_directory(shop: Shop, tmp_path: Path) -> None:
    status = [sys.executable, "-m", "filesession", "status", str(tmp_path / "var" / "sessions")]
    wait_until(lambda: subprocess.run(status, capture_output=True, check=False).returncode == 0)


@both
def test_when_the_server_dies_the_janitor_and_the_workers_go(
    shop: Shop, alive: Any, is_open: Any
) -> None:
    family = alive(shop.process.pid)
    os.kill(child(shop, "uvicorn", "gunicorn"), signal.SIGKILL)
    assert shop.end() == 1
    assert "corn, exit code -9" in shop.said().splitlines()[-1]
    wait_until(lambda: not any(alive(pid) for pid in family))
    assert not is_open(shop.port)


def test_when_the_janitor_dies_the_server_goes(shop: Shop, alive: Any, is_open: Any) -> None:
    family = alive(shop.process.pid)
    os.kill(child(shop, "filesession"), signal.SIGKILL)
    assert shop.end() == 1
    assert "the janitor, exit code -9" in shop.said().splitlines()[-1]
    wait_until(lambda: not any(alive(pid) for pid in family))
    assert not is_open(shop.port)


def child(shop: Shop, *modules: str) -> int:
    """The process that was started as ``python -m`` one of the modules."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().decode().split("\0")
        parent = path.with_name("stat").read_text().rpartition(")")[2].split()[1]
        if int(parent) == shop.process.pid and words[1] == "-m" and words[2] in modules:
            return int(path.parent.name)
    pytest.fail(f"no {modules} below {shop.process.pid}")


def refused(*arguments: str, **environment: str) -> str:
    """What it says when it does not even start, on one line."""
    ended = subprocess.run(
        [sys.executable, RUN, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    return line


def test_a_port_that_is_taken_is_one_line_that_says_how_to_choose_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        arguments = ("--port", str(port), "--dir", str(tmp_path / "sessions"))
        monkeypatch.delenv("MAKELEVEL", raising=False)
        by_hand = refused(*arguments)
        by_make = refused(*arguments, MAKELEVEL="1")
    taken = f"port {port} is taken; choose another, for example:"
    another = port + 1 if port < 65535 else port - 1
    assert by_hand == f"{taken} --port {another}"
    assert by_make == f"{taken} make run PORT={another}"
    assert not (tmp_path / "sessions").exists()


def test_a_directory_that_cannot_be_used_is_one_line(tmp_path: Path, port: int) -> None:
    (tmp_path / "file").touch()
    assert "file" in refused("--dir", str(tmp_path / "file"), PORT=str(port))


@pytest.mark.parametrize("arguments", [("--port", "0"), ("--port", "ten"), ("--workers", "0")])
def test_a_wrong_call_is_told_and_two(arguments: tuple[str, ...]) -> None:
    ended = subprocess.run(
        [sys.executable, RUN, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "run.py: error:" in ended.stderr
