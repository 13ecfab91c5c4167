"""What ``filesession doctor`` looks at in a session directory: modes, manifest, files, janitor."""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from filesession.cli.findings import Finding, some
from filesession.errors import FilesessionError
from filesession.janitor.heartbeat import FRESH, HEARTBEAT, janitor_state
from filesession.janitor.leader import LOCK
from filesession.janitor.wording import span_text
from filesession.stores.file.layout import CORRUPT, MANIFEST, SECRET, SECRET_BYTES, SESSIONS, Layout
from filesession.stores.file.manifest import Manifest
from filesession.stores.file.ownership import check_ours
from filesession.stores.file.sweep import YOUNG, look

AHEAD: Final = 2.0
"""Seconds a file may lie in the future: clocks of a kernel tick, and of a file server, differ."""

KNOWN: Final = frozenset({MANIFEST, SECRET, SESSIONS, CORRUPT, LOCK, HEARTBEAT})
"""What belongs into a session directory, beside temporary files."""


def directory_itself(directory: str) -> Iterator[Finding]:
    """Whether it is ours alone."""
    try:
        check_ours(directory)
    except FilesessionError as error:
        what, _, mend = str(error).partition("; ")
        yield Finding("directory", "wrong", what, mend)
    else:
        yield Finding("directory", "ok", f"{directory}, 0700, ours")


def manifest_of(directory: str) -> tuple[Manifest | None, Finding]:
    """The manifest, or None, and what is to be said of it."""
    try:
        manifest = Layout(directory, 0).read_manifest()
    except FilesessionError as error:
        what, _, mend = str(error).partition("; ")
        return None, Finding("manifest", "wrong", what, mend)
    if manifest is None:
        what = f"there is no {MANIFEST}: no application has opened a store here, or it was removed"
        mend = f'python -c "from filesession import FileStore; FileStore({directory!r})"'
        return None, Finding("manifest", "wrong", what, mend)
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
    mend = f"rm {shlex.quote(path)} (a new one is made; all log in again)"
    if not stat.S_ISREG(status.st_mode):
        yield Finding("secret", "wrong", f"{path} is no regular file", mend)
    elif _is_open(status):
        what = f"{path} {_exposure(status)}; whoever read it can forge every cookie"
        yield Finding("secret", "wrong", what, mend)
    elif status.st_size < SECRET_BYTES:
        what = f"{path} is too short for a key"
        yield Finding("secret", "wrong", what, mend)
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
            if not self._is_readable(handle, path):
                self.unreadable.append(path)
        self.exposed += [path for path in self._directories() if _is_open(os.lstat(path))]
        return self

    def _is_readable(self, handle: str, path: str) -> bool:
        try:
            found = look(path, handle)
            return (found is not None and found.entry is not None) or not os.path.lexists(path)
        except FilesessionError:
            return False

    def _directories(self) -> list[str]:
        root = self.layout.directory
        top = [os.path.join(root, name) for name in (SESSIONS, CORRUPT)]
        return [path for path in (*top, *sorted(self.shards)) if os.path.isdir(path)]

    def findings(self) -> Iterator[Finding]:
        """What is to be said of it."""
        root = self.layout.directory
        yield Finding("sessions", "ok", f"{self.sessions:,} stored")
        if self.exposed:
            what = f"open to others, or another user's: {some(self.exposed, root)}"
            mend = f"chmod -R u+rwX,go= {shlex.quote(root)} (and chown, where it is not yours)"
            yield Finding("permissions", "wrong", what, mend)
        else:
            yield Finding("permissions", "ok", "every session 0600, every directory 0700, ours")
        if self.unreadable:
            what = f"cannot be read as a session: {some(self.unreadable, root)}"
            yield Finding("content", "wrong", what, f"filesession sweep {shlex.quote(root)}")
        if self.future:
            what = (
                f"last active in the future, by {span_text(self.furthest)} at most:"
                f" {some(self.future, root)}; the clock was wrong, or is"
            )
            where = shlex.quote(os.path.join(root, SESSIONS))
            mend = f"timedatectl status; then: find {where} -type f -newermt now -exec touch {{}} +"
            yield Finding("clock", "wrong", what, mend)
        else:
            yield Finding("clock", "ok", "no session was last active in the future")


def strangers(layout: Layout) -> Iterator[Finding]:
    """What lies about and is not ours; temporary files that nobody is writing any more."""
    root = layout.directory
    leftovers = set(layout.leftovers())
    top = sorted(os.path.join(root, name) for name in os.listdir(root) if name not in KNOWN)
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
        what = f"{count:,} unreadable files were set aside: their sessions are lost"
        mend = f"look for what damaged them (disk, memory, an editor), then: rm -r {path}"
        yield Finding("corrupt", "wrong", what, mend)
    else:
        yield Finding("corrupt", "ok", "nothing was set aside")


def janitor(directory: str, now: float) -> Iterator[Finding]:
    """Whether one works here."""
    state, heartbeat = janitor_state(directory, now)
    if state == "alive" and heartbeat is not None:
        if heartbeat.last_error is None:
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
