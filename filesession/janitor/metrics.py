"""Figures for Prometheus, over HTTP or in a file: the one module that knows prometheus_client.

Rules:

1. A scrape only reads. It waits for no sweep, and what goes wrong in it is an answer of 500.
2. Whoever stands by says so and nothing more: what it once knew is old, and a figure that is left
   out is a gap in a graph, where a stale one would be a lie.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import secrets
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from filesession.errors import ConfigurationError, store_error
from filesession.janitor.complaints import Complaints
from filesession.janitor.reading import Reading
from filesession.stores.file.documents import unlink_if_there, write_new

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOOPBACK: Final = "127.0.0.1"
"""Where it listens when no address is given: nobody else sees the figures."""

PATH: Final = "/metrics"

PATIENCE: Final = 10.0
"""Seconds that a client may take to say what it wants, or to take the answer."""

READABLE: Final = 0o644
"""The textfile's mode, whatever the umask: node_exporter reads it as another user."""

_GAUGES: Final[dict[str, tuple[str, Callable[[Reading], float | None]]]] = {
    "filesession_sessions": (
        "Sessions known now, expired ones that wait for their sweep among them.",
        lambda reading: reading.sessions,
    ),
    "filesession_bytes": (
        "About how many bytes the sessions take in the store.",
        lambda reading: reading.bytes,
    ),
    "filesession_lag_seconds": (
        "Seconds the longest overdue session was late that went last, or is that is held back.",
        lambda reading: reading.lag,
    ),
    "filesession_held": (
        "1 while the janitor holds back and deletes nothing; its log says why.",
        lambda reading: reading.held is not None,
    ),
}

_COUNTERS: Final[dict[str, tuple[str, Callable[[Reading], float]]]] = {
    "filesession_created": (
        "New sessions that were noticed since the janitor started.",
        lambda reading: reading.created,
    ),
    "filesession_expired": (
        "Sessions deleted because they had expired.",
        lambda reading: reading.expired,
    ),
    "filesession_freed_bytes": (
        "Bytes of the sessions that were deleted because they had expired.",
        lambda reading: reading.freed,
    ),
    "filesession_corrupt": (
        "Files that held no session and were moved to corrupt/.",
        lambda reading: reading.corrupt,
    ),
    "filesession_failed": (
        "Attempts at a session that could not be read, deleted or set aside; the log says why.",
        lambda reading: reading.failed,
    ),
    "filesession_full_looks": (
        "Times that all sessions were looked at, as at the start and after an overflow.",
        lambda reading: reading.full_looks,
    ),
    "filesession_overflows": (
        "Times that events of new sessions were lost, each answered by a full look.",
        lambda reading: reading.overflows,
    ),
    "filesession_hook_dropped": (
        "Expired sessions that on_expired was never told of, as it was too slow.",
        lambda reading: reading.dropped,
    ),
}

_LEADER: Final = (
    "filesession_leader",
    "1 where the janitor works, 0 where it stands by; the sum for a directory should be 1.",
)

_SWEEPS: Final = (
    "filesession_sweep_seconds",
    "How many sweeps came to their end, and how long they took in all.",
)

_LABELS: Final = ("directory",)

_log: Final = logging.getLogger("filesession.janitor")


class Metrics:
    """The figures of some directories, as Prometheus wants them.

    Args:
        read: gives the figures of each directory. It is called for every scrape and every write,
            from any thread and from several at once, and must not wait for a sweep.

    Raises:
        ConfigurationError: prometheus_client is not installed.
    """

    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        try:
            from prometheus_client import CollectorRegistry  # noqa: PLC0415 - it is optional
        except ImportError as error:
            msg = (
                "figures for Prometheus need prometheus_client: pip install 'filesession[metrics]'"
            )
            raise ConfigurationError(msg) from error
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(read))
        self._complaints = Complaints(_log)
        self._pen = threading.Lock()
        self._servers: list[_Server] = []

    def serve(self, address: str) -> str:
        """Answer at ``http://ADDRESS/metrics`` until it is closed, in daemon threads.

        Args:
            address: ``HOST:PORT``, ``[::1]:PORT``, or ``:PORT`` for this machine alone. Port 0 is
                any that is free.

        Returns:
            Host and port at which it listens.

        Raises:
            ConfigurationError: the address is none, is taken, or may not be used.
        """
        from prometheus_client import make_wsgi_app  # noqa: PLC0415 - it is optional

        server = _listening(address)
        server.set_app(self._guarded(make_wsgi_app(self._registry)))
        threading.Thread(
            target=server.serve_forever, name="filesession-metrics", daemon=True
        ).start()
        self._servers.append(server)
        host, port = server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def write(self, path: str) -> None:
        """Replace a file for node_exporter's textfile collector in one step; all may read it.

        The collector takes files whose names end in ``.prom``. Blocks for as long as the disk does.

        Raises:
            StoreError: it could not be written; the old one is intact.
        """
        from prometheus_client import generate_latest  # noqa: PLC0415 - it is optional

        content = generate_latest(self._registry)
        temporary = f"{path}.{secrets.token_hex(6)}.tmp"
        try:
            write_new(temporary, content, durable=False)
            os.chmod(temporary, READABLE)
            os.rename(temporary, path)
        except OSError as error:
            raise store_error(error, f"writing {path}") from error
        finally:
            unlink_if_there(temporary)

    def close(self) -> None:
        """Answer no more; the address is free when it returns. May be called at any time."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.end()

    def _guarded(self, answer: WSGIApplication) -> WSGIApplication:
        """The application below ``/metrics``; what it raises is said once, and an answer."""

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] != PATH:
                return _plain(start_response, HTTPStatus.NOT_FOUND, f"the figures are at {PATH}")
            try:
                answered = answer(environ, start_response)
            except Exception as error:  # noqa: BLE001 - a scraper wants an answer, whatever it is
                with self._pen:
                    self._complaints.say(PATH, f"{type(error).__name__}: {error}")
                _log.debug("%s failed", PATH, exc_info=error)
                failure = "the figures could not be read; the janitor's log says why"
                return _plain(start_response, HTTPStatus.INTERNAL_SERVER_ERROR, failure)
            with self._pen:
                self._complaints.over(PATH, f"{PATH} works again")
            return answered

        return app


class _Figures:
    """Makes metrics of readings, anew for each scrape."""

    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        return _metrics(list(self._read()))

    def describe(self) -> Iterator[Metric]:
        """What it makes, for the registry to find what a scrape asks for by name."""
        return _metrics([])


def _metrics(readings: list[Reading]) -> Iterator[Metric]:
    from prometheus_client.core import (  # noqa: PLC0415 - it is optional
        CounterMetricFamily,
        GaugeMetricFamily,
        SummaryMetricFamily,
    )

    leader = GaugeMetricFamily(*_LEADER, labels=_LABELS)
    for reading in readings:
        leader.add_metric(_label(reading), reading.leads)
    yield leader
    leading = [reading for reading in readings if reading.leads]
    for name, (text, value_of) in _GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=_LABELS)
        for reading in leading:
            value = value_of(reading)
            if value is not None:
                gauge.add_metric(_label(reading), value)
        yield gauge
    for name, (text, count_of) in _COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=_LABELS)
        for reading in leading:
            counter.add_metric(_label(reading), count_of(reading))
        yield counter
    sweeps = SummaryMetricFamily(*_SWEEPS, labels=_LABELS)
    for reading in leading:
        sweeps.add_metric(_label(reading), reading.sweeps, reading.sweep_seconds)
    yield sweeps


def _label(reading: Reading) -> list[str]:
    r"""The directory; a byte of it that is no UTF-8 is spelled out: ``\udce9``."""
    return [(reading.directory or "").encode("utf-8", "backslashreplace").decode("utf-8")]


def _plain(start_response: StartResponse, status: HTTPStatus, text: str) -> list[bytes]:
    start_response(f"{status} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as the base has it
        """A scrape is no news."""

    def get_stderr(self) -> io.StringIO:
        """No traceback of a client that does not take its answer is printed."""
        return io.StringIO()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """One thread a request, so that a client that says nothing keeps nobody waiting."""

    daemon_threads = True
    allow_reuse_port = False  # another's that listens there is an error, not a companion

    def server_bind(self) -> None:
        """As the base does, which asks a name server for its own name first, and may wait long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 - as the base has it
        """A client that went away is told at debug, where the base prints a traceback."""
        _log.debug("a client of %s failed", PATH, exc_info=True)

    def end(self) -> None:
        """Close it at once: a listening socket that is shut down wakes who waits for it."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.shutdown()
        self.server_close()


def _listening(address: str) -> _Server:
    host, port = _split(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        kind = type("_Server", (_Server,), {"address_family": family})
        server: _Server = kind(place[:2], _Handler)
    except OSError as error:
        raise ConfigurationError(_refusal(address, error)) from error
    return server


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_number = port.isascii() and port.isdigit() and int(port[:6]) <= 65535 and len(port) <= 5  # noqa: PLR2004
    if not colon or not is_number or (":" in host and bare == host):
        msg = (
            f"metrics are served at ADDRESS:PORT, 127.0.0.1:9464 or [::1]:9464 for example; this is"
            f" {address!r}"
        )
        raise ConfigurationError(msg)
    return bare or LOOPBACK, int(port)


_MEND: Final = {
    errno.EADDRINUSE: "choose another port, or end what listens there (ss -ltnp shows it)",
    errno.EADDRNOTAVAIL: "name an address of this machine, or 0.0.0.0 for all of them",
    errno.EACCES: "choose a port from 1024 on",
    errno.EAFNOSUPPORT: "in a systemd unit, add AF_INET or AF_INET6 to RestrictAddressFamilies=",
}


def _refusal(address: str, error: OSError) -> str:
    mend = _MEND.get(error.errno or 0, "name an address of this machine, 127.0.0.1 for example")
    return f"cannot serve metrics at {address}: {error.strerror or error}; {mend}"
