"""What ``filesession doctor`` looks at around a session directory: file system, disk, limits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from filesession import locks
from filesession.cli.findings import Finding
from filesession.janitor.wording import counted, size_text
from filesession.stores.file.ownership import MANIFEST

LOW: Final = 0.05
"""Of the disk's space or inodes: with less than that free it is time to act."""

LOWEST_SPACE: Final = 64 << 20
"""Bytes: below that a disk is full soon, however large a part of it that is."""

QUEUE: Final = 16384
"""Events: the kernel's own default, enough for a burst of as many new sessions."""

_MOUNTS: Final = "/proc/self/mountinfo"
_INOTIFY: Final = "/proc/sys/fs/inotify"
_OCTAL: Final = re.compile(r"\\([0-7]{3})")

_LOCKS_MAY_STOP: Final = "locks and change events may not reach the other machines that use it"
_REMARKS: Final = {
    "nfs": _LOCKS_MAY_STOP,
    "nfs4": _LOCKS_MAY_STOP,
    "cifs": _LOCKS_MAY_STOP,
    "smb3": _LOCKS_MAY_STOP,
    "9p": _LOCKS_MAY_STOP,
    "ceph": _LOCKS_MAY_STOP,
    "glusterfs": _LOCKS_MAY_STOP,
    "fuse": "it depends on the program behind it whether locks hold and change events come",
    "overlay": "a container's own layer: its sessions go with the container; mount a volume",
    "tmpfs": "kept in memory: every session is lost at a reboot",
    "ramfs": "kept in memory: every session is lost at a reboot",
}


def file_system(directory: str) -> Iterator[Finding]:
    """Its kind, whether it can be written, and what follows from that."""
    if _is_read_only(directory):
        what = "mounted read-only: nothing can be saved or removed"
        mend = "find out why (dmesg), then: mount -o remount,rw, with its mount point"
        yield Finding("file system", "wrong", what, mend)
        return
    kind = mounted_as(directory, _read(_MOUNTS))
    if kind is None:
        yield Finding("file system", "note", "its kind cannot be told here")
        return
    remark = _REMARKS.get(kind) or _REMARKS.get(kind.split(".")[0])
    if remark is None:
        yield Finding("file system", "ok", kind)
    else:
        yield Finding("file system", "note", f"{kind}: {remark}")


def locking(directory: str) -> Iterator[Finding]:
    """Whether a lock on a file there keeps a second one out; tried on the manifest.

    Not where nothing can be written: over NFS a lock needs a file that is open for writing.
    """
    if _is_read_only(directory):
        return
    path = os.path.join(directory, MANIFEST)
    first = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        second = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            works = locks.try_lock(first) and not locks.try_lock(second)
        finally:
            os.close(second)
    finally:
        os.close(first)
    if works:
        yield Finding("locks", "ok", "a lock keeps others out")
    else:
        what = "a lock does not keep others out: two saves at once may lose one of them"
        yield Finding("locks", "wrong", what, "move the directory to a file system with flock(2)")


def room(directory: str) -> Iterator[Finding]:
    """Free space and inodes."""
    disk = os.statvfs(directory)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    words = f"{size_text(free)} of {size_text(total)} free"
    if free < LOWEST_SPACE or free < LOW * total:
        mend = "free some, or move the directory to a larger disk"
        yield Finding("disk", "wrong", f"{words}: new sessions fail when it is full", mend)
    else:
        yield Finding("disk", "ok", words)
    if disk.f_files:  # some file systems have no fixed number and say 0
        words = f"{disk.f_favail:,} of {disk.f_files:,} inodes free"
        if disk.f_favail < LOW * disk.f_files:
            mend = "remove small files (df -i tells where), or make the file system anew with more"
            yield Finding("disk", "wrong", f"{words}: a session takes one each", mend)
        else:
            yield Finding("disk", "ok", words)


def inotify(shards: int) -> Iterator[Finding]:
    """Whether the kernel could watch that many directories, for a program that wants to."""
    watches, queue = _number("max_user_watches"), _number("max_queued_events")
    directories = f"the {counted(shards, 'directory')} of sessions"
    if watches is None or queue is None:
        yield Finding("inotify", "note", "this kernel tells no limits for watching directories")
    elif watches < 2 * shards:
        what = f"the kernel could not watch {directories}: {watches:,} watches a user"
        mend = f"sysctl fs.inotify.max_user_watches={max(65536, 4 * shards)}"
        yield Finding("inotify", "note", what, mend)
    elif queue < QUEUE:
        what = f"a watch would overflow in a burst of new sessions: a queue of {queue:,} events"
        yield Finding("inotify", "note", what, f"sysctl fs.inotify.max_queued_events={QUEUE}")
    else:
        limits = f"{watches:,} watches a user, a queue of {queue:,} events"
        what = f"the kernel could watch {directories}: {limits}"
        yield Finding("inotify", "ok", what)


def mounted_as(directory: str, mounts: str | None) -> str | None:
    """The kind of the file system a path is on, from the text of ``/proc/self/mountinfo``.

    See proc_pid_mountinfo(5): the mount point is the fifth field, the kind follows a lone hyphen.
    """
    path = os.path.realpath(directory)
    kind, longest = None, -1
    for line in (mounts or "").splitlines():
        fields = line.split(" ")
        if "-" not in fields[:-1]:
            continue
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of two on one point, the later hides the earlier
            kind, longest = fields[fields.index("-") + 1], len(point)
    return kind


def _is_read_only(directory: str) -> bool:
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def _number(name: str) -> int | None:
    text = _read(f"{_INOTIFY}/{name}")
    return None if text is None else int(text)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None
