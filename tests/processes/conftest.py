"""Processes, threads and tasks at work on one session, and what must be true when they are done."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import shutil
import signal
import tempfile
import threading
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias
from wsgiref.util import setup_testing_defaults

import pytest

from filesession import asgi, wsgi
from filesession.cookies.header import encode_value
from filesession.cookies.signing import Signer
from filesession.stores import FileStore
from filesession.testing.faults import CALLS, LOCK, SystemCall, SystemCalls
from tests.faults.conftest import data_in, handle_of

PATIENCE: Final = 60.0
"""Seconds after which what does not come to its end fails its test."""

SOON: Final = 5.0
"""Seconds that are no wait on a busy machine, and fewer than a store waits for a lock by itself."""

EVERY: Final = (*CALLS, LOCK)
"""The system calls of a verb, and the one that asks for a lock."""

SECRET: Final = "a secret"
SID: Final = "id-shared"
COOKIE: Final = f"sid={encode_value(Signer(SECRET).sign(SID))}"


class Place:
    """A session directory, looked at without the package's help.

    Attributes:
        directory: the session directory.
        store: opened before anything is forked from here.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = FileStore(directory)

    def path(self, sid: str = SID) -> Path:
        handle = handle_of(sid)
        return self.directory / "sessions" / handle[:2] / handle

    def data(self, sid: str = SID) -> Any:
        """What the last whole line of its file holds; None: there is no such file."""
        try:
            content = self.path(sid).read_bytes()
        except FileNotFoundError:
            return None
        return data_in(content, handle_of(sid))

    def is_whole(self, sid: str = SID) -> bool:
        """Whether every line of its file is one."""
        name, lines = handle_of(sid).encode(), self.path(sid).read_bytes().split(b"\n")
        whole = [line[:8] == b"%08x" % zlib.crc32(name + line[9:]) for line in lines[:-1]]
        return all(whole) and lines[-1] == b""

    def is_free(self, sid: str = SID) -> bool:
        """Whether another process would get its lock at once.

        The lock is the open file's, so who opens the file anew is as good as another process.
        """
        descriptor = os.open(self.path(sid), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def content(self) -> dict[str, bytes]:
        """All session files and whatever lies beside them, by name."""
        paths = (self.directory / "sessions").rglob("*")
        return {path.name: path.read_bytes() for path in paths if path.is_file()}

    def files(self) -> list[str]:
        """The names of these."""
        return sorted(self.content())

    def temporary(self) -> list[str]:
        """The names of temporary files that lie about."""
        return sorted(path.name for path in self.directory.rglob("*.tmp"))


class Child:
    """A forked process that makes a call.

    Attributes:
        pid: its number.
        status: how it ended, as ``os.waitpid`` has it; None: it was not waited for.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self.status: int | None = None
        self._told, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads: that is the point
            self.pid = os.fork()
        if self.pid == 0:
            told = b""
            try:
                os.close(self._told)
                call()
            except BaseException as error:  # noqa: BLE001 - told to the parent
                told = "".join(traceback.format_exception(error)).encode()
            finally:
                os.write(writing, told[-4000:])
                os._exit(bool(told))
        os.close(writing)

    def join(self) -> None:
        """Wait for its end; fails when its call failed, or takes too long."""
        ready, _, _ = select.select([self._told], [], [], PATIENCE)
        if not ready:
            self.kill()
            pytest.fail(f"a forked process was at work after {PATIENCE:g} s: a deadlock?")
        with os.fdopen(self._told, "rb") as pipe:
            told = pipe.read().decode()
        self._told = -1
        self._reap()
        assert self.status == 0, told or self.status

    def is_stopped(self) -> bool:
        """Wait until it has stopped, or ended."""
        told = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return told is not None and told.si_code == os.CLD_STOPPED

    def go_on(self) -> None:
        """Let it, after it was stopped."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it, as by ``kill -9``, if it has not ended."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()
        if self._told >= 0:
            os.close(self._told)
            self._told = -1

    def _reap(self) -> None:
        _, self.status = os.waitpid(self.pid, 0)


Fork: TypeAlias = Callable[[Callable[[], object]], Child]


class Gate:
    """What one process waits at until another opens it; also for those that share it by a fork."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def open(self) -> None:
        """Let one through, now or when it comes."""
        os.write(self._writing, b".")

    def wait(self) -> None:
        ready, _, _ = select.select([self._reading], [], [], PATIENCE)
        assert ready, f"nobody opened the gate within {PATIENCE:g} s"
        os.read(self._reading, 1)

    def shut(self) -> None:
        """Let nobody through for whom it was opened until now."""
        while select.select([self._reading], [], [], 0)[0]:
            os.read(self._reading, 4096)

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


class Asking:
    """Lets a test know that somebody waits for a lock: it was refused, and pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
        sleep = time.sleep

        def asleep(seconds: float) -> None:
            gate.open()
            sleep(seconds)

        self._gate = gate
        monkeypatch.setattr(time, "sleep", asleep)

    def wait(self) -> None:
        self._gate.wait()

    def forget(self) -> None:
        """Those who asked until now are none to wait for."""
        self._gate.shut()


def acting_before(
    nth: int, act: Callable[[SystemCall], object], call: Callable[[], object]
) -> None:
    """Make a call, and do something before its ``nth`` system call."""

    def acted(system_call: SystemCall) -> Any:
        if system_call.number == nth:
            act(system_call)
        return system_call.make()

    with SystemCalls(acted, only=EVERY):
        call()


def in_background(call: Callable[[], Any]) -> Future[Any]:
    """Begin a call in a thread of its own, which does not keep the process."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again by who asks for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def result_of(future: Future[Any]) -> Any:
    """What a call in another thread gave or raised; fails when it does not come to its end."""
    if not wait([future], PATIENCE).done:
        pytest.fail(f"a thread was at work after {PATIENCE:g} s: a deadlock?")
    return future.result()


@contextmanager
def held(place: Place) -> Iterator[threading.Event]:
    """Inside, the session's lock is another thread's, until the event is set."""
    inside, go = threading.Event(), threading.Event()

    def hold() -> None:
        with place.store.lock(SID):
            inside.set()
            assert go.wait(PATIENCE)

    holding = in_background(hold)
    assert inside.wait(PATIENCE)
    try:
        yield go
    finally:
        go.set()
        result_of(holding)


def request_wsgi(app: Any, cookie: str = COOKIE, path: str = "/") -> bytes:
    """One whole request; the body of its answer, which is a 200."""
    environ: dict[str, Any] = {"HTTP_COOKIE": cookie, "PATH_INFO": path, "SCRIPT_NAME": ""}
    setup_testing_defaults(environ)
    started: list[str] = []
    body = app(environ, lambda status, headers, exc_info=None: started.append(status))
    try:
        content = b"".join(body)
    finally:
        getattr(body, "close", lambda: None)()
    assert started == ["200 OK"], (started, content)
    return content


async def request_asgi(app: Any, cookie: str = COOKIE, path: str = "/") -> bytes:
    """The same on an event loop."""
    sent: list[Any] = []
    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "method": "GET"}
    scope |= {"path": path, "query_string": b"", "headers": [(b"cookie", cookie.encode())]}

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent)
    assert sent[0]["status"] == 200, (sent, content)
    return content


def under_wsgi(act: Callable[[Any, str], object], store: FileStore) -> Any:
    """An application that acts on its session, and answers."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        act(environ["filesession.session"], environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    return wsgi.SessionMiddleware(app, store, SECRET)


def under_asgi(act: Callable[[Any, str], Any], store: FileStore, **options: Any) -> Any:
    """The same; what ``act`` gives is awaited if it can be."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        done = act(scope["session"], scope["path"])
        if asyncio.iscoroutine(done):
            await done
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    return asgi.SessionMiddleware(app, store, SECRET, **options)


def descriptors() -> list[str]:
    """What this process has open, as far as it is no pipe, socket or directory listing."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(name for name in found if name.startswith("/") and not name.endswith("/fd"))


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails when a file that was opened inside stays open, or a thread started inside goes on."""
    files, threads = Counter(descriptors()), set(threading.enumerate())
    yield
    assert not Counter(descriptors()) - files
    for thread in set(threading.enumerate()) - threads:
        thread.join(PATIENCE)  # some libraries tell theirs to end, and do not wait for it
        assert not thread.is_alive(), thread


@pytest.fixture
def place() -> Iterator[Place]:
    """A session directory with one session, empty; where the disk is waited for in no time."""
    fast = "/dev/shm"
    usable = os.path.isdir(fast) and os.access(fast, os.W_OK)
    path = Path(tempfile.mkdtemp(prefix="filesession-", dir=fast if usable else None))
    place = Place(path / "sessions")
    place.store.create({}, sid=SID)
    yield place
    shutil.rmtree(path)


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Makes a call in a forked child, which does not outlive the test."""
    children: list[Child] = []

    def forked(call: Callable[[], object]) -> Child:
        child = Child(call)
        children.append(child)
        return child

    yield forked
    for child in children:
        child.kill()


@pytest.fixture
def gate() -> Iterator[Callable[[], Gate]]:
    """Makes gates."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate())
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, gate: Callable[[], Gate]) -> Asking:
    return Asking(monkeypatch, gate())
