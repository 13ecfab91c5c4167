"""What ``filesession doctor`` looks at in a session directory: whose it is, files, janitor."""

from __future__ import annotations

import os
import re
import shlex
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from filesession.cli.findings import Finding, some
from filesession.errors import ConfigurationError, FilesessionError, StoreError
from filesession.janitor.heartbeat import FRESH, HEARTBEAT, janitor_state
from filesession.janitor.leader import LOCK
from filesession.janitor.wording import counted, span_text
from filesession.stores.entry import AHEAD
from filesession.stores.file.documents import read_document
from filesession.stores.file.layout import (
    CORRUPT,
    MOVED,
    SECRET,
    SECRET_BYTES,
    SESSIONS,
    SOONER,
    Layout,
)
from filesession.stores.file.manifest import Manifest
from filesession.stores.file.ownership import MANIFEST, as_user, fault_of, user_text
from filesession.stores.file.sessionfile import YOUNG, look

KNOWN: Final = frozenset({MANIFEST, SECRET, SESSIONS, CORRUPT, MOVED, SOONER, LOCK, HEARTBEAT})
"""What belongs into a session directory, beside temporary files."""

RESTORE: Final = (
    f"restore {MANIFEST} from a backup, or restart the application, which makes it anew with its"
    " own options"
)
"""One made here would have options of nobody's, and sessions would be lost by them."""

_LOOK: Final = "look at who may read it, and at the disk (dmesg): ls -laR"

_STORED: Final = re.compile(r"[0-9a-f]{2}([0-9a-f]{30})?\Z")
"""A shard, or a session without one."""


def check_known(directory: str) -> None:
    """Raises ``ConfigurationError`` when it is clear that it never was a session directory."""
    try:
        names = set(os.listdir(directory))
        shards = os.listdir(os.path.join(directory, SESSIONS)) if SESSIONS in names else []
    except OSError:
        return  # what can be told of it, the findings tell
    if not names & {MANIFEST, LOCK, HEARTBEAT} and not any(map(_STORED.match, shards)):
        fault = fault_of(directory, new=False)
        assert fault is not None  # it has no manifest
        msg = f"{fault.what}; {fault.mend}"
        raise ConfigurationError(msg)


def directory_itself(directory: str) -> Finding:
    """Whether it is ours alone."""
    status = os.stat(directory)
    if status.st_uid != os.geteuid():
        owner, we = user_text(status.st_uid), user_text(os.geteuid())
        what = f"{directory} belongs to user {owner} and this process runs as {we}"
        mend = f"run it as that user: {as_user(status.st_uid, 'doctor', directory)}"
        return Finding("directory", "wrong", what, mend)
    if _is_open(status):
        what = f"{directory} {_exposure(status)}"
        mend = f"look at what is in it, then: chmod 700 {shlex.quote(directory)}"
        return Finding("directory", "wrong", what, mend)
    return Finding("directory", "ok", f"{directory}, 0700, ours")


def above(directory: str) -> Iterator[Finding]:
    """Each directory above it in which any user may put another in its place."""
    parent = os.path.dirname(directory)
    while True:
        mode = os.stat(parent).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            what = f"in {parent} any user may put another directory in place of {directory}"
            yield Finding("above", "wrong", what, f"chmod o-w {shlex.quote(parent)}")
        if parent == os.path.dirname(parent):
            return
        parent = os.path.dirname(parent)


def manifest_of(directory: str) -> tuple[Manifest | None, Finding]:
    """The manifest, or None, and what is to be said of it."""
    path = os.path.join(directory, MANIFEST)
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        away = f"mv {shlex.quote(path)} {shlex.quote(path)}.old; then {RESTORE}"
        return None, Finding("manifest", "wrong", f"{path} is no regular file", away)
    try:
        manifest = Layout(directory, 0).read_manifest()
    except ConfigurationError as error:
        what, _, mend = str(error).rpartition("; ")
        return None, Finding("manifest", "wrong", what, mend)
    except StoreError as error:
        mend = f"chmod 600 {shlex.quote(path)}; if it is not that, look at the disk (dmesg)"
        return None, Finding("manifest", "wrong", str(error), mend)
    if manifest is None:
        what = f"there is no {MANIFEST}: it was removed"
        return None, Finding("manifest", "wrong", what, RESTORE)
    idle = "none" if manifest.idle_timeout is None else span_text(manifest.idle_timeout)
    absolute = "none" if manifest.absolute_timeout is None else span_text(manifest.absolute_timeout)
    return manifest, Finding("manifest", "ok", f"idle timeout {idle}, absolute timeout {absolute}")


def secret(directory: str) -> Iterator[Finding]:
    """Whether the signing key, if there is one, is a key and ours alone."""
    path = os.path.join(directory, SECRET)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        yield Finding("secret", "ok", "none kept here")
        return
    mend = (
        f"rm {shlex.quote(path)}, then restart the application, which makes a new one: until then"
        " its workers use the old key, and then all log in again"
    )
    if not stat.S_ISREG(status.st_mode):
        yield Finding("secret", "wrong", f"{path} is no regular file", mend)
    elif _is_open(status):
        what = f"{path} {_exposure(status)}; whoever read it can forge every cookie"
        yield Finding("secret", "wrong", what, mend)
    else:
        key = (read_document(path) or b"").strip()  # as it is when it is used
        if len(key) < SECRET_BYTES:
            yield Finding("secret", "wrong", f"{path} is too short for a key", mend)
        elif not any(key):
            yield Finding("secret", "wrong", f"{path} holds nothing but zeros, and so no key", mend)
        else:
            yield Finding("secret", "ok", "0600, ours")


@dataclass(slots=True)
class Census:
    """One walk over the session files, and what it came across."""

    layout: Layout
    now: float
    sessions: int = 0
    shards: set[str] = field(default_factory=set)
    exposed: list[str] = field(default_factory=list)
    future: list[str] = field(default_factory=list)
    furthest: float = 0.0
    unreadable: list[str] = field(default_factory=list)
    young: list[str] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)
    reason: str = ""

    def take(self) -> Census:
        """Look at every session's file: who may read it, its time, and whether it is a session."""
        for handle, path in self.layout.sessions():
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            self.sessions += 1
            self.shards.add(os.path.dirname(path))
            if _is_open(status):
                self.exposed.append(path)
            if status.st_mtime > self.now + AHEAD:
                self.future.append(path)
                self.furthest = max(self.furthest, status.st_mtime - self.now)
            self._read(handle, path)
        self.exposed += [path for path in self._others() if _is_open(os.lstat(path))]
        return self

    def _read(self, handle: str, path: str) -> None:
        try:
            found = look(path, handle)
        except FilesessionError as error:
            self.reason = self.reason or str(error)
            self.failing.append(path)
            return
        if found is not None and found.entry is None and _age(path) <= YOUNG:
            self.young.append(path)
        elif (found is None or found.entry is None) and os.path.lexists(path):
            self.unreadable.append(path)

    def _others(self) -> list[str]:
        """What else is to be ours alone: directories, and files of ours but the secret."""
        root = self.layout.directory
        names = (SESSIONS, CORRUPT, MOVED, SOONER, MANIFEST, LOCK, HEARTBEAT)
        paths = [*(os.path.join(root, name) for name in names), *sorted(self.shards)]
        return [path for path in paths if os.path.exists(path) and not os.path.islink(path)]

    def findings(self) -> Iterator[Finding]:
        """What is to be said of it."""
        root = self.layout.directory
        yield Finding("sessions", "ok", f"{self.sessions:,} stored")
        if self.exposed:
            what = f"open to others, or another user's: {some(self.exposed, root)}"
            mend = f"chmod -R u+rwX,go= {shlex.quote(root)}"
            if any(os.lstat(path).st_uid != os.geteuid() for path in self.exposed):
                owner = shlex.quote(user_text(os.geteuid()))
                mend = f"sudo chown -R {owner} {shlex.quote(root)} && {mend}"
            yield Finding("permissions", "wrong", what, mend)
        else:
            yield Finding("permissions", "ok", "every session 0600, every directory 0700, ours")
        yield from self._unreadable(root)
        if self.future:
            what = (
                f"last active in the future, by {span_text(self.furthest)} at most:"
                f" {some(self.future, root)}; the clock was wrong, or is"
            )
            mend = f"timedatectl status; then: filesession sweep {shlex.quote(root)}"
            yield Finding("clock", "wrong", what, mend)
        else:
            yield Finding("clock", "ok", "no session was last active in the future")

    def _unreadable(self, root: str) -> Iterator[Finding]:
        what, sweep = "cannot be read as a session", f"filesession sweep {shlex.quote(root)}"
        if self.unreadable:
            yield Finding("content", "wrong", f"{what}: {some(self.unreadable, root)}", sweep)
        if self.young:
            words = f"{what}, and changed within the last minute: {some(self.young, root)}"
            yield Finding("content", "wrong", words, f"in a minute: {sweep}")
        if self.failing:
            words = f"cannot be read at all: {some(self.failing, root)} ({self.reason})"
            yield Finding("reading", "wrong", words, f"{_LOOK} {shlex.quote(root)}")


def strangers(layout: Layout) -> Iterator[Finding]:
    """What lies about and is not ours; temporary files that nobody is writing any more."""
    root = layout.directory
    leftovers = set(layout.leftovers())
    top = sorted(os.path.join(root, name) for name in os.listdir(root) if name not in KNOWN)
    directories = [os.path.join(root, name) for name in (SESSIONS, CORRUPT, MOVED, SOONER)]
    top += filter(os.path.islink, directories)
    foreign = [path for path in top if path not in leftovers] + sorted(layout.strangers())
    if foreign:
        what = f"not a part of a session directory: {some(foreign, root)}"
        yield Finding("foreign", "wrong", what, "look at what it is, and move it elsewhere")
    old = sorted(path for path in leftovers if _age(path) > YOUNG)
    if old:
        what = f"{len(old):,} left behind by a writer that died, for the next sweep to remove"
        yield Finding("leftovers", "note", f"{what}: {some(old, root)}")


def corrupt(layout: Layout) -> Iterator[Finding]:
    """What readers and sweeps could not read, and set aside."""
    count = layout.set_aside_count()
    if count:
        path = shlex.quote(layout.corrupt)
        lost = "its session is" if count == 1 else "their sessions are"
        what = f"{counted(count, 'unreadable file')} set aside: {lost} lost"
        mend = f"look for what damaged them (disk, memory, an editor), then: rm -r {path}"
        yield Finding("corrupt", "wrong", what, mend)
    else:
        yield Finding("corrupt", "ok", "nothing was set aside")


def janitor(directory: str, now: float) -> Iterator[Finding]:
    """Whether one works here."""
    state, heartbeat = janitor_state(directory, now)
    if state == "alive":
        if heartbeat is None or not heartbeat.is_fresh(now):
            what = "one leads, but its heartbeat is not written: it has just begun, or cannot write"
            yield Finding("janitor", "wrong", what, "free some space on the disk, if it is full")
        elif heartbeat.last_error is None:
            yield Finding("janitor", "ok", f"alive, process {heartbeat.pid}")
        else:
            what = f"its last sweep failed: {heartbeat.last_error}"
            yield Finding(
                "janitor", "wrong", what, "mend what it names; the next sweep tries again"
            )
    elif state == "absent":
        mend = f"filesession janitor {shlex.quote(directory)}"
        yield Finding("janitor", "wrong", "none is running: expired sessions stay", mend)
    else:
        process = "its process" if heartbeat is None else f"process {heartbeat.pid}"
        what = f"one leads, and has said nothing for {FRESH:.0f} s or more"
        yield Finding("janitor", "wrong", what, f"end {process}; another takes over in a second")


def _is_open(status: os.stat_result) -> bool:
    """Whether others may use a file or directory, or it is not ours."""
    return bool(status.st_mode & 0o077) or status.st_uid != os.geteuid()


def _exposure(status: os.stat_result) -> str:
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}"
    return f"is open to other users (mode {stat.S_IMODE(status.st_mode):04o})"


def _age(path: str) -> float:
    try:
        return time.time() - os.lstat(path).st_ctime
    except FileNotFoundError:
        return 0.0
