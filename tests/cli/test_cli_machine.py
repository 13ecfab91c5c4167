"""What is found out about the file system, the disk and the kernel's limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from filesession.cli import machine
from filesession.cli.findings import Finding
from filesession.stores.file.store import FileStore

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /srv rw - nfs4 server:/export rw
24 22 0:22 / /srv/fast rw,nosuid shared:7 master:3 - tmpfs tmpfs rw
25 22 0:23 / /mnt/with\040blank rw - fuse.sshfs me@there: rw
26 22 0:24 / /twice rw - ext4 /dev/sdb1 rw
27 26 0:25 / /twice rw - overlay overlay rw
broken line
"""


def levels(findings: Iterator[Finding]) -> list[str]:
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/app/sessions", "nfs4"),
        ("/srvother", "ext4"),
        ("/srv/fast/x", "tmpfs"),
        ("/mnt/with blank/x", "fuse.sshfs"),
        ("/twice/x", "overlay"),
    ],
)
def test_a_path_is_on_the_file_system_mounted_closest_above_it(path: str, kind: str) -> None:
    assert machine.mounted_as(path, MOUNTS) == kind


@pytest.mark.parametrize("mounts", [None, "", "nonsense\n"])
def test_without_a_list_of_mounts_the_kind_is_unknown(mounts: str | None) -> None:
    assert machine.mounted_as("/x", mounts) is None


@pytest.mark.parametrize(
    ("kind", "level", "words"),
    [
        ("ext4", "ok", "ext4"),
        ("xfs", "ok", "xfs"),
        ("nfs4", "note", "other machines"),
        ("cifs", "note", "other machines"),
        ("9p", "note", "other machines"),
        ("fuse.sshfs", "note", "program behind it"),
        ("overlay", "note", "go with the container"),
        ("tmpfs", "note", "lost at a reboot"),
        (None, "note", "cannot be told"),
    ],
)
def test_what_follows_from_the_kind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, level: str, words: str
) -> None:
    monkeypatch.setattr(machine, "mounted_as", lambda directory, mounts: kind)
    (finding,) = machine.file_system(str(tmp_path))
    assert (finding.level, finding.mend) == (level, None)
    assert words in finding.what


def test_what_is_mounted_read_only_is_wrong_and_locks_are_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk(monkeypatch, f_flag=os.ST_RDONLY)
    (finding,) = machine.file_system("/x")
    assert finding.level == "wrong"
    assert "read-only" in finding.what
    assert "remount,rw" in (finding.mend or "")
    assert list(machine.locking("/x")) == []


def test_this_machine_tells_its_own_mounts(tmp_path: Path) -> None:
    (finding,) = machine.file_system(str(tmp_path))
    assert "cannot be told" not in finding.what


def disk(monkeypatch: pytest.MonkeyPatch, **members: int) -> None:
    usual = {
        "f_frsize": 4096,
        "f_blocks": 1_000_000,
        "f_bavail": 500_000,
        "f_files": 1000,
        "f_favail": 500,
    }
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**{**usual, **members}))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, ["ok", "ok"]),
        ({"f_bavail": 40_000}, ["wrong", "ok"]),
        ({"f_blocks": 10_000, "f_bavail": 9_000}, ["wrong", "ok"]),
        ({"f_favail": 10}, ["ok", "wrong"]),
        ({"f_files": 0, "f_favail": 0}, ["ok"]),
    ],
)
def test_space_and_inodes_that_run_out_are_wrong(
    monkeypatch: pytest.MonkeyPatch, members: dict[str, int], expected: list[str]
) -> None:
    disk(monkeypatch, **members)
    findings = list(machine.room("/x"))
    assert [finding.level for finding in findings] == expected
    assert all((finding.mend is None) == (finding.level == "ok") for finding in findings)


def test_locks_that_keep_others_out_are_well(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "sessions")
    before = sorted(os.listdir(store.directory))
    assert levels(machine.locking(store.directory)) == ["ok"]
    assert sorted(os.listdir(store.directory)) == before


def test_locks_that_keep_nobody_out_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filesession.locks.try_lock", lambda descriptor: True)
    (finding,) = machine.locking(FileStore(tmp_path / "sessions").directory)
    assert finding.level == "wrong"
    assert finding.mend is not None


@pytest.mark.parametrize(
    ("limits", "level", "mend"),
    [
        (("65536", "16384"), "ok", None),
        (("300", "16384"), "note", "sysctl fs.inotify.max_user_watches=65536"),
        (("65536", "100"), "note", "sysctl fs.inotify.max_queued_events=16384"),
        ((), "note", None),
    ],
)
def test_limits_too_low_to_watch_a_directory_are_worth_a_note(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[str, ...],
    level: str,
    mend: str | None,
) -> None:
    for name, value in zip(("max_user_watches", "max_queued_events"), limits, strict=False):
        (tmp_path / name).write_text(value + "\n")
    monkeypatch.setattr(machine, "_INOTIFY", str(tmp_path))
    (finding,) = machine.inotify(257)
    assert (finding.level, finding.mend) == (level, mend)


def test_one_directory_is_not_directories() -> None:
    (finding,) = machine.inotify(1)
    assert "1 directory of" in finding.what or "no limits" in finding.what
