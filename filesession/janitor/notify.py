"""Telling systemd how it goes, by the protocol of sd_notify(3): datagrams to a socket it names."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Final, Self

LONGEST: Final = 500
"""Characters of a status. systemd drops a message of more than 4,096 bytes whole."""

_log: Final = logging.getLogger("filesession.janitor")


class Notifier:
    """Tells the service manager of this process. Nothing of it blocks, and nothing raises.

    A manager that cannot be reached is said once, at debug: the work goes on without it. What it
    has no room for at the moment is told together with what comes next.

    Args:
        address: the manager's socket, a path or ``@`` and an abstract name; None: there is none.
        watchdog_interval: see there.

    Attributes:
        watchdog_interval: seconds after which ``alive`` is to be called again, at most: half of
            what the manager waits for it. None: it does not.
    """

    def __init__(self, address: str | None, watchdog_interval: float | None) -> None:
        self._address = address
        self.watchdog_interval = watchdog_interval
        self._turn = threading.Lock()
        self._owed: dict[str, str] = {}
        self._complained = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """What the manager that started this process asked for; whatever it is, it is no error."""
        address = environ.get("NOTIFY_SOCKET") or None
        return cls(address, None if address is None else _watchdog_interval(environ))

    def ready(self, status: str) -> None:
        """It has started, or read its configuration anew, and is at work; ``status`` says how."""
        self._send({"READY": "1", "STATUS": status})

    def status(self, text: str) -> None:
        """What it does now, for people, in one line."""
        self._send({"STATUS": text})

    def reloading(self) -> None:
        """It reads its configuration anew; ``ready`` says when it has."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send({"RELOADING": "1", "MONOTONIC_USEC": str(now)})

    def stopping(self) -> None:
        """It ends, because it was told to."""
        self._send({"STOPPING": "1"})

    def alive(self) -> None:
        """A sign of life, for the watchdog."""
        self._send({"WATCHDOG": "1"})

    def _send(self, fields: Mapping[str, str]) -> None:
        if self._address is None:
            return
        with self._turn:
            owed = {name: text for name, text in self._owed.items() if name not in fields}
            wanted = {**owed, **fields}  # the last state named is the one that counts
            try:
                _deliver(self._address, _message(wanted))
            except BlockingIOError:
                self._owed = {name: text for name, text in wanted.items() if name != "WATCHDOG"}
            except (OSError, ValueError) as error:  # ValueError: no text that can be a path
                if not self._complained:
                    _log.debug("cannot tell the service manager at %r: %s", self._address, error)
                self._complained = True
            else:
                self._owed = {}


def _deliver(address: str, message: bytes) -> None:
    """Send it, or raise; a socket for each: one that is kept would be closed by who daemonizes."""
    name = os.fsencode(address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.settimeout(0)
        door.sendto(message, b"\0" + name[1:] if address[0] == "@" else name)


def _message(fields: Mapping[str, str]) -> bytes:
    return "\n".join(f"{name}={_line(value)}" for name, value in fields.items()).encode()


def _line(text: str) -> str:
    """The text in one line: another would be a field, and systemd refuses a NUL."""
    plain = " ".join(text.replace("\0", " ").splitlines())[:LONGEST]
    return plain.encode("utf-8", "backslashreplace").decode()


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Half of the time after which the manager takes this process for hung, if it does."""
    meant = environ.get("WATCHDOG_PID") or str(os.getpid())
    try:
        limit = int(environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return limit / 2e6 if limit > 0 and meant == str(os.getpid()) else None
