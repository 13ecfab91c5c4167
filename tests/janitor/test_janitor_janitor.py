"""What a janitor takes, a store or a path that may not be one yet, and a single sweep of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import filesession
from filesession.errors import ConfigurationError, FilesessionError
from filesession.janitor import Janitor
from filesession.janitor.heartbeat import HEARTBEAT
from filesession.janitor.leader import Leadership
from filesession.janitor.place import Place
from filesession.stores.file.store import FileStore
from filesession.testing import ManualClock
from tests.janitor.janitors import DEADLINE, messages


def test_everything_due_is_gone_when_a_single_sweep_returns(
    store: FileStore, clock: ManualClock
) -> None:
    for _ in range(20):
        store.create({"n": 1})
    clock.now += 1000
    live = store.create()
    report = Janitor(store).sweep_once()
    assert (report.examined, report.expired) == (21, 20)
    assert store.load(live.id) is not None
    assert len(store) == 1


def test_a_single_sweep_needs_no_leadership_and_leaves_no_trace(store: FileStore) -> None:
    leader = Leadership(store.directory)
    leader.try_lead()
    Janitor(store).sweep_once()
    assert not Path(store.directory, HEARTBEAT).exists()


def test_a_path_will_do(store: FileStore) -> None:
    FileStore.open(store.directory).create()  # by the true time, as a janitor by path goes
    assert Janitor(store.directory).sweep_once().examined == 1
    assert Janitor(Path(store.directory)).sweep_once().examined == 1


@pytest.fixture
def by_path(tmp_path: Path) -> Iterator[Janitor]:
    """A janitor that was given a path with nothing there, and whose looks a test takes itself."""
    janitor = Janitor(tmp_path / "sessions", interval=3600)
    yield janitor
    if janitor._leads:
        janitor._step_down()


def not_there(path: Path) -> None:
    """As on a first start."""


def empty(path: Path) -> None:
    path.mkdir(0o700)


def empty_and_readable(path: Path) -> None:
    path.mkdir(0o755)
    path.chmod(0o755)


def about_to_be_used(path: Path) -> None:
    path.mkdir(0o700)
    (path / "filesession.json.0123456789ab.tmp").touch()


@pytest.mark.parametrize("made", [not_there, empty, empty_and_readable, about_to_be_used])
def test_a_path_where_no_application_has_been_yet_is_waited_for_and_that_is_told_once(
    made: Callable[[Path], None], tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sessions"
    made(path)
    janitor = Janitor(path, interval=3600)
    before = sorted(tmp_path.rglob("*"))
    for _ in range(3):
        janitor._tick()
    waiting = f"waiting for {path}: no application has opened its store yet"
    assert messages(log) == [waiting]
    assert sorted(tmp_path.rglob("*")) == before
    FileStore(path).create()
    janitor._tick()
    try:
        assert messages(log) == [waiting, f"leading {path}"]
        assert janitor._due.wait(DEADLINE)
        assert janitor.sweep_once().examined == 1
    finally:
        janitor._step_down()


def test_a_path_that_is_waited_for_and_then_vanishes_is_waited_for_again(
    by_path: Janitor, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sessions"
    for depth in (1, 2):
        by_path._tick()
        FileStore(path, shard_depth=depth).create()
        by_path._tick()
        assert messages(log)[-1] == f"leading {path}"
        assert by_path.sweep_once().examined == 1
        shutil.rmtree(path)
        log.clear()
        for _ in range(3):
            by_path._tick()
        (line,) = messages(log)
        assert line.startswith(f"{path} has vanished or was replaced")


def a_file(path: Path) -> None:
    path.touch()


def a_symlink(path: Path) -> None:
    path.symlink_to("elsewhere")


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def something_else(path: Path) -> None:
    path.mkdir(0o700)
    (path / "notes.txt").touch()


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def broken(path: Path) -> None:
    path.mkdir(0o700)
    (path / "filesession.json").write_text('{"format": 1}')


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (a_file, "is not a directory"),
        (a_symlink, "is a symlink"),
        (below_a_file, "Not a directory"),
        (something_else, "is no session directory"),
        (open_to_all, "chmod 700"),
        (broken, "is no manifest"),
    ],
)
def test_what_waiting_would_not_mend_is_refused_and_later_complained_of_once(
    made: Callable[[Path], None], words: str, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "above" / "sessions"
    path.parent.mkdir()
    janitor = Janitor(path)
    made(path)
    with pytest.raises(FilesessionError, match=words):
        Janitor(path)
    if made is not broken:
        janitor._tick()
        janitor._tick()
        (line,) = messages(log)
        assert words in line
        assert not janitor._leads


def test_a_single_sweep_waits_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no directory"):
        Janitor(tmp_path / "nowhere").sweep_once()


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_can_be_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="the path of the session directory"):
        Janitor(path)


def test_a_path_can_be_looked_through(store: FileStore) -> None:
    store.create()
    assert [info.handle for info in Place(store.directory, FileStore.open).scan()] == [
        next(store.scan()).handle
    ]


@pytest.mark.parametrize("store", [None, 5, {}])
def test_what_cannot_be_swept_is_refused(store: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be swept"):
        Janitor(store)


def test_interval_and_cron_exclude_each_other_and_either_is_checked(store: FileStore) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        Janitor(store, interval=60, cron="* * * * *")
    with pytest.raises(ConfigurationError, match="interval"):
        Janitor(store, interval=-1)
    with pytest.raises(ConfigurationError, match="cron"):
        Janitor(store, cron="never")
    assert Janitor(store, cron="* * * * *")._heartbeat().cron == "* * * * *"
    assert Janitor(store)._heartbeat().interval == 60


def test_the_janitor_is_a_public_name() -> None:
    assert filesession.Janitor is Janitor
