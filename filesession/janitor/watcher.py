"""Tells of session files that appear, by the events of the file system (inotify, through watchdog).

Rules:

1. It only shortens the time until a new session is known. Whatever may have been missed is said
   (``missed``, ``failure``), and the janitor then looks through the whole directory.
2. An overflow is said when everything is watched again: a look begun before that would miss what is
   made behind it.
3. Saves and touches cost nothing: the kernel is asked for creations and moves alone.
4. A forked child inherits the open inotify instance. It closes its copy and does nothing else with
   it: to remove a watch there, or to stop the reading, would do it to the parent.
5. What watchdog logs in our threads is dropped: the janitor says it, once.

Loads watchdog, so it is imported only where there is something to watch.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final
from weakref import WeakSet

from watchdog import events
from watchdog.observers.api import BaseObserver

if sys.platform == "linux":
    from watchdog.observers import inotify, inotify_c
    from watchdog.observers.inotify_c import CallbackId, InotifyFD, WatchDescriptor
else:  # elsewhere a Watcher does not start
    InotifyFD = threading.Thread

LIMIT: Final = 100_000  # names that may wait; more are a loss to be said, not memory to be had

_ASKED: Final = [
    *(events.FileCreatedEvent, events.FileMovedEvent),
    *(events.DirCreatedEvent, events.DirMovedEvent),
]

_FULL: Final = f"more than {LIMIT:,} new sessions waited to be taken"
_LOSSES: Final = 8  # different ones that are told at once
_DEEPEST: Final = 3  # levels of shards below the root
_STRAYS: Final = 16  # files beside shards; a directory with more of them holds sessions
_RECOUNT: Final = 60.0  # seconds until directories are counted though nothing seems to have changed
_GRACE: Final = 5.0  # seconds that directories may lack a watch: that of a new one is under way
_PATIENCE: Final = 5.0  # seconds to wait for threads: one may hang in a file system that hangs
_PAUSE: Final = 0.02  # seconds between two reads of the kernel's queue
_BUFFER: Final = 1 << 20  # bytes of one: a queue of the usual length, 16,384 events of a handle

_THREAD: Final = "filesession-watcher"
_MOUNTS: Final = "/proc/self/mountinfo"
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")

_REMOTE: Final = frozenset(
    (
        *("9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "gfs", "gfs2", "gpfs"),
        *("lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2"),
        *("smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs", "wslfs"),
    )
)
"""File systems that others change without a word to this kernel; and all of FUSE."""


class EventsUnavailable(Exception):  # noqa: N818 - an answer in words, not a fault of the program
    """There are no events to be had; its text says why, and what would mend it."""


def doubt(directory: str) -> str | None:
    """Why events of the file system that it lies on cannot be trusted; None: nothing is known."""
    if sys.platform != "linux":
        return f"{sys.platform} has no inotify"
    place = os.fsencode(os.path.realpath(directory)).rstrip(b"/") + b"/"
    longest, kind = b"", None
    try:
        with open(_MOUNTS, "rb") as mounts:
            for line in mounts:
                mount, _, system = line.partition(b" - ")
                point = _ESCAPE.sub(lambda found: bytes((int(found[1], 8),)), mount.split(b" ")[4])
                if len(point) >= len(longest) and place.startswith(point.rstrip(b"/") + b"/"):
                    longest, kind = point, os.fsdecode(system.split(b" ")[0])
    except (OSError, ValueError, IndexError) as error:
        return f"its file system is not known, as {_MOUNTS} cannot be read: {error}"
    if kind is None:
        return f"its file system is not known: {_MOUNTS} does not tell of it"
    if kind in _REMOTE or kind.startswith("fuse"):
        return f"it lies on {kind}, where changes made elsewhere raise no events here"
    return None


class Watcher:
    """Tells one thread, when it asks, of the session files that appear below a directory.

    What was there before ``start`` is not told. Used once: after a failure make another.

    Args:
        root: the directory of the shards; it and all below it is watched.
        wanted: whether a file's name is a session's; called in other threads, too.
    """

    def __init__(self, root: str, wanted: Callable[[str], bool]) -> None:
        self._root = root
        self._arrivals = _Arrivals(wanted)
        self._reading: _Inotify | None = None
        self._observer: BaseObserver | None = None
        self._identity = (0, 0)
        self._counted = (0, 0.0)  # the root's mtime then, and when
        self._fewer_since: float | None = None

    def start(self) -> None:
        """Watch everything below the root, and what is made there later.

        Raises:
            EventsUnavailable: that cannot be done; nothing is left running.
        """
        if sys.platform != "linux":
            msg = f"{sys.platform} has no inotify; the directory can only be looked through"
            raise EventsUnavailable(msg)
        try:
            root = os.path.realpath(self._root)  # a link itself would be watched, not its target
            found = os.stat(root)
            self._identity = (found.st_dev, found.st_ino)
            self._reading = reading = _Inotify(self._arrivals)
            self._observer = BaseObserver(inotify.InotifyEmitter, inotify_fd=reading)
            self._observer.name = _THREAD
            self._observer.schedule(self._arrivals, root, recursive=True, event_filter=_ASKED)
            for emitter in self._observer.emitters:
                emitter.name = _THREAD
            reading.start()
            self._observer.start()
            reason = reading.refused or self._fewer_watches(reading, found)
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
            self.stop()
            raise EventsUnavailable(_reason(error, self._root)) from error
        if reason is not None:
            self.stop()
            raise EventsUnavailable(reason)

    def stop(self) -> None:
        """End the threads; any time, any number of times. Waits some seconds at most."""
        observer, self._observer = self._observer, None
        reading, self._reading = self._reading, None
        if reading is None or reading.inherited:
            return

        def end() -> None:
            if observer is not None:
                observer.stop()
                if observer.ident is not None:
                    observer.join(_PATIENCE)
            reading.end()

        ending = threading.Thread(target=end, name=_THREAD, daemon=True)
        try:
            ending.start()
        except RuntimeError:  # no more threads
            end()
        else:
            ending.join(_PATIENCE)

    def take(self) -> list[str]:
        """The names that appeared since the last call. Lists new shards, whose names may recur."""
        names, directories = self._arrivals.take()
        for directory in directories:
            self._arrivals.list_into(names, directory, 1)
        return list(names)

    def missed(self) -> str | None:
        """Why something may have been missed since the last call; None: nothing was."""
        return self._arrivals.missed()

    def failure(self) -> str | None:
        """Why it does not work any more; None: it works.

        Costs a stat of the root. Directories are counted only when the root has changed, one came
        or went, events were lost, or a minute has passed.
        """
        reading, observer = self._reading, self._observer
        if reading is None or observer is None:
            return "it is not running"
        try:
            found = os.stat(self._root)
            if (found.st_dev, found.st_ino) != self._identity:
                return f"{self._root} was replaced by another directory"
            if not all(thread.is_alive() for thread in (reading, observer, *observer.emitters)):
                return "a thread of it has ended"
            return reading.refused or self._fewer_watches(reading, found)
        except OSError as error:
            return _reason(error, self._root)

    def _fewer_watches(self, reading: _Inotify, root: os.stat_result) -> str | None:
        now, (mtime, counted_at) = monotonic(), self._counted
        unchanged = root.st_mtime_ns == mtime and not self._arrivals.stirred
        if unchanged and self._fewer_since is None and now - counted_at < _RECOUNT:
            return None
        self._arrivals.stirred = False
        self._counted = (root.st_mtime_ns, now)
        directories = 1 + _directories(self._root, 1)
        if directories <= (watched := len(reading.registered)):
            self._fewer_since = None
            return None
        if self._fewer_since is None:
            self._fewer_since = now
        if now - self._fewer_since < _GRACE:
            return None
        return f"only {watched:,} of {directories:,} directories are watched"


class _Arrivals(events.FileSystemEventHandler):
    """What was told by the threads that watch and not taken yet. Bounded; they do no I/O here."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self.stirred = False
        """Whether a directory came or went, or may have done so."""
        self.clear()

    def clear(self) -> None:
        """Forget everything, also that a thread, which a fork left behind, holds the lock."""
        self._lock = threading.Lock()
        self._names: dict[str, None] = {}
        self._directories: dict[str, None] = {}
        self._losses: dict[str, None] = {}

    def on_created(self, event: events.FileSystemEvent) -> None:
        """Tell of what was made, linked, or moved here from where nothing is watched."""
        self._tell_path(os.fsdecode(event.src_path), is_directory=event.is_directory)

    def on_moved(self, event: events.FileSystemEvent) -> None:
        """Tell of what got another name; a session that is only replaced was known before."""
        name = os.path.basename(os.fsdecode(event.src_path))
        if event.is_directory or not (name.startswith(".") and name.endswith(".tmp")):
            self._tell_path(os.fsdecode(event.dest_path), is_directory=event.is_directory)

    def tell(self, name: str) -> None:
        """Keep the name of a file that appeared, if it is a session's."""
        if self._wanted(name):
            with self._lock:
                self._keep(self._names, name)

    def lose(self, words: str) -> None:
        """Remember why something may have been missed."""
        with self._lock:
            if len(self._losses) < _LOSSES:
                self._losses[words] = None

    def take(self) -> tuple[dict[str, None], dict[str, None]]:
        """Give the names and the new directories away."""
        with self._lock:
            taken = self._names, self._directories
            self._names, self._directories = {}, {}
        return taken

    def missed(self) -> str | None:
        """Give the losses away."""
        with self._lock:
            losses, self._losses = self._losses, {}
        return "; ".join(losses) or None

    def list_into(self, names: dict[str, None], directory: str, level: int) -> None:
        """Add the sessions of a new directory: watchdog does, but hides when it could not."""
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if level < _DEEPEST:
                            self.list_into(names, entry.path, level + 1)
                    elif len(names) >= LIMIT:
                        self.lose(_FULL)
                        return
                    elif self._wanted(entry.name):
                        names[entry.name] = None
        except (FileNotFoundError, NotADirectoryError):
            pass  # gone again
        except OSError as error:
            self.lose(f"the new {directory} cannot be listed: {error.strerror}")

    def _tell_path(self, path: str, *, is_directory: bool) -> None:
        if is_directory:
            self.stirred = True
            with self._lock:
                self._keep(self._directories, path)
        else:
            self.tell(os.path.basename(path))

    def _keep(self, kept: dict[str, None], item: str) -> None:
        if len(kept) < LIMIT or item in kept:
            kept[item] = None
        else:
            self._losses[_FULL] = None


class _Inotify(InotifyFD):
    """The inotify instance of one watcher, and the thread that reads it.

    It tells of what watchdog passes over: an overflow, a directory that cannot be watched.
    """

    def __init__(self, arrivals: _Arrivals) -> None:
        try:
            super().__init__()
        except OSError:
            with suppress(AttributeError):  # an instance, and then no descriptors for the pipe
                os.close(self._inotify_fd)
            raise
        self.name = _THREAD
        self.inherited = False
        self.refused: str | None = None
        self._arrivals = arrivals
        self._numbers = itertools.count(1)
        self.registered: dict[WatchDescriptor, CallbackId] = {}
        self._released = False
        os.set_inheritable(self._inotify_fd, False)  # noqa: FBT003 - a program would keep it filling
        _instances.add(self)

    def add_callback(
        self,
        path: bytes,
        mask: inotify_c.Mask,
        callback: inotify_c.WatchCallback,
        id_: CallbackId,  # noqa: ARG002 - the same for all
    ) -> WatchDescriptor:
        """Watch a directory, under a number of our own.

        watchdog adds one twice that is made while it looks round, and then warns of itself, which
        ends its thread where warnings are errors.
        """
        number = CallbackId(next(self._numbers))
        try:
            descriptor = super().add_callback(path, mask, callback, number)
            if descriptor == -1:  # what watchdog makes of EACCES
                super().remove_callbacks([(descriptor, number)])
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except (FileNotFoundError, NotADirectoryError):
            raise  # gone again
        except OSError as error:
            self.refused = _reason(error, os.fsdecode(path))
            self._arrivals.lose(self.refused)
            raise
        earlier = self.registered.get(descriptor)
        self.registered[descriptor] = number
        if earlier is not None:
            super().remove_callbacks([(descriptor, earlier)])
        return descriptor

    def remove_callbacks(self, callbacks: list[tuple[WatchDescriptor, CallbackId]]) -> None:
        """Watch these directories no more."""
        known = (wd for wd, _ in callbacks if wd in self.registered)
        super().remove_callbacks([(wd, self.registered.pop(wd)) for wd in known])

    def read_events(self, *, event_buffer_size: int = _BUFFER) -> list[inotify_c.InotifyEvent]:
        """Wait for events. They gather in a pause, or each of them would wake the threads."""
        self.stopped_event.wait(_PAUSE)
        return super().read_events(event_buffer_size=event_buffer_size)

    def handle_event(self, event: inotify_c.InotifyEvent) -> None:
        """Pass an event on; the name of a new file, all that matters of it, by the short way.

        watchdog's queues know no bounds, and its threads take five times as long.
        """
        if event.mask == inotify_c.InotifyConstants.IN_CREATE:
            self._arrivals.tell(os.fsdecode(event.name))
            return
        if event.is_ignored:
            self.registered.pop(event.wd, None)
            self._arrivals.stirred = True
        try:
            super().handle_event(event)
        finally:
            if event.is_queue_overflow:  # by now all is watched anew
                self._arrivals.lose("the kernel's queue of events overflowed")

    def end(self) -> None:
        """End the thread, and close what is open also when it never ran, or died."""
        self.stop()
        if self.ident is not None:
            self.join(_PATIENCE)
        if not self.is_alive():
            self._close_resources()

    def leave_behind(self) -> None:
        """Close a forked child's copies, which takes nothing from its parent."""
        self.inherited = True
        self._arrivals.clear()
        self._close_resources()

    def _close_resources(self) -> None:
        if not self._released:
            self._released = True
            super()._close_resources()


def _is_foreign(_: logging.LogRecord) -> bool:
    return threading.current_thread().name != _THREAD


def _directories(path: str, level: int) -> int:
    """How many directories are below this one, without listing the sessions; rather too few."""
    found = strays = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found += 1
                    links = entry.stat(follow_symlinks=False).st_nlink
                    if level < _DEEPEST and links != 2:  # noqa: PLR2004 - with 2, none below it
                        found += _directories(entry.path, level + 1)
                else:
                    strays += 1
                    if strays > _STRAYS:
                        break
    except FileNotFoundError:
        if level == 1:
            raise
    return found


_MENDING: Final = {
    errno.ENOSPC: "no more watches are allowed (raise fs.inotify.max_user_watches)",
    errno.EMFILE: "no more inotify instances or open files are allowed"
    " (raise fs.inotify.max_user_instances, or the limit of open files)",
    errno.ENOSYS: "this kernel has no inotify",
}


def _reason(error: Exception, path: str) -> str:
    if not isinstance(error, OSError):
        return f"no thread can be started: {error}"
    return f"{path} cannot be watched: {_MENDING.get(error.errno or 0, error.strerror)}"


_instances: Final[WeakSet[_Inotify]] = WeakSet()


def _leave_behind_in_child() -> None:
    for reading in list(_instances):
        reading.leave_behind()


os.register_at_fork(after_in_child=_leave_behind_in_child)

for _module in ("inotify", "inotify_c", "inotify_move_event_grouper"):
    logging.getLogger(f"watchdog.observers.{_module}").addFilter(_is_foreign)
