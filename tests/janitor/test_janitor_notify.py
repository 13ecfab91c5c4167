"""What systemd is told: real datagrams, received as its manager would receive them."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from filesession.janitor.notify import Notifier

MOST: Final = 4096
"""Bytes of a message that systemd takes."""


class Manager:
    """Receives what is sent to it, and waits for nothing."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.door.bind("\0" + address[1:] if address.startswith("@") else address)
        self.door.settimeout(0)

    def notifier(self, **environment: str) -> Notifier:
        return Notifier.from_environment({"NOTIFY_SOCKET": self.address, **environment})

    def told(self) -> list[dict[str, str]]:
        """The fields of each message since the last time."""
        messages: list[dict[str, str]] = []
        while True:
            try:
                message = self.door.recv(65536)
            except BlockingIOError:
                return messages
            assert len(message) <= MOST
            assert b"\0" not in message
            lines = message.decode().split("\n")
            fields = dict(line.split("=", 1) for line in lines)
            assert len(fields) == len(lines)
            messages.append(fields)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, public_path: Path) -> Iterator[Manager]:
    abstract = f"@filesession-test-{secrets.token_hex(8)}"
    made = Manager(abstract if request.param == "abstract" else str(public_path / "notify"))
    with made.door:
        yield made


def test_each_state_is_told_in_the_managers_words(manager: Manager) -> None:
    notifier = manager.notifier()
    notifier.ready("leading /sessions")
    notifier.status("3 sessions = all")
    before = time.monotonic() * 1e6
    notifier.reloading()
    after = time.monotonic() * 1e6
    notifier.stopping()
    notifier.alive()
    ready, status, reloading, *rest = manager.told()
    assert ready == {"READY": "1", "STATUS": "leading /sessions"}
    assert status == {"STATUS": "3 sessions = all"}
    assert before - 1 <= int(reloading.pop("MONOTONIC_USEC")) <= after
    assert reloading == {"RELOADING": "1"}
    assert rest == [{"STOPPING": "1"}, {"WATCHDOG": "1"}]


@pytest.mark.parametrize("manager", ["path"], indirect=True)
@pytest.mark.parametrize("between", ["\n", "\r\n", "\r", "\0", "\x0b", "\u2028"])
def test_no_text_forges_a_field_or_spoils_the_message(manager: Manager, between: str) -> None:
    manager.notifier().status(f"leading{between}MAINPID=1")
    assert manager.told() == [{"STATUS": "leading MAINPID=1"}]


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_text_of_any_length_and_any_bytes_is_taken(manager: Manager) -> None:
    notifier = manager.notifier()
    for text in ("x" * 10_000, "\U0001f375" * 10_000, "\udce9" * 10_000):
        notifier.ready(text)
    plain, wide, spelled = (message["STATUS"] for message in manager.told())
    assert set(plain) == {"x"}
    assert set(wide) == {"\U0001f375"}
    assert spelled.startswith("\\udce9")


def test_what_there_is_no_room_for_is_told_with_what_comes_next(manager: Manager) -> None:
    notifier = manager.notifier()
    fill(manager)
    notifier.reloading()
    notifier.ready("old")
    notifier.alive()
    notifier.status("new")
    manager.told()
    notifier.alive()
    notifier.alive()
    owed, alive = manager.told()
    assert {"READY": "1", "STATUS": "new", "WATCHDOG": "1"}.items() <= owed.items()
    assert alive == {"WATCHDOG": "1"}


def test_of_states_that_wait_the_latest_is_the_last_in_the_message(manager: Manager) -> None:
    notifier = manager.notifier()
    fill(manager)
    notifier.ready("at work")
    notifier.reloading()
    manager.told()
    notifier.ready("at work again")
    (fields,) = manager.told()
    assert [name for name in fields if name in {"READY", "RELOADING"}] == ["RELOADING", "READY"]


def test_a_sign_of_life_there_is_no_room_for_is_not_given_later(manager: Manager) -> None:
    notifier = manager.notifier()
    fill(manager)
    notifier.alive()
    manager.told()
    notifier.status("hung")
    assert manager.told() == [{"STATUS": "hung"}]


def fill(manager: Manager) -> None:
    """Leave the manager no room for another message."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.settimeout(0)
        name = manager.door.getsockname()
        with suppress(BlockingIOError):
            for _ in range(100_000):
                other.sendto(b"X=1", name)
            pytest.fail("there is no end to the room")


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "10000000"}, {"NOTIFY_SOCKET": "@"}]
)
def test_where_no_manager_asks_for_it_nothing_is_told(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environment(environ)
    notifier.ready("leading")
    notifier.alive()
    assert notifier.watchdog_interval is None


@pytest.mark.parametrize(
    "address",
    ["/nowhere/notify", "relative", "vsock:2:5", "/" + "x" * 200, "@" + "x" * 200, "/\ud800"],
    ids=["missing", "relative", "another kind", "long", "long and abstract", "no text"],
)
def test_a_manager_that_cannot_be_reached_is_said_once_at_debug(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "filesession.janitor")
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready("leading")
    notifier.alive()
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith(f"cannot tell the service manager at {address!r}: ")


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "one"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({}, None),
    ],
)
def test_signs_of_life_are_wanted_twice_as_often_as_the_watchdog_barks(
    environ: dict[str, str], interval: float | None
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "@nobody", **environ})
    assert notifier.watchdog_interval == interval


def test_the_environment_of_this_process_is_asked_unless_another_is_given(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    Notifier.from_environment().alive()
    assert manager.told() == [{"WATCHDOG": "1"}]
