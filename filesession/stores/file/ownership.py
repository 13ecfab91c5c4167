"""Whose the session directory is: ours alone, or it is refused."""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import stat
from dataclasses import dataclass
from typing import Final

from filesession.errors import ConfigurationError, store_error

MANIFEST: Final = "filesession.json"
"""The file that makes a directory a session directory. No other one is ever to be changed."""

_ROOT: Final = 0

_REFUSALS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG})
"""Where no directory can be made, now or later."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a directory cannot be used.

    Attributes:
        what: the reason, which begins with the directory's path.
        mend: what a person is to do about it.
    """

    what: str
    mend: str


def absolute(directory: str | os.PathLike[str]) -> str:
    """The path of a directory from the root.

    Raises:
        ConfigurationError: it can be no path: it is empty, or has a NUL in it.
    """
    path = os.fsdecode(directory)
    if not path or "\0" in path:
        reason = "has a NUL character in it" if path else "is empty"
        msg = f"the path of the session directory {reason}; name a directory"
        raise ConfigurationError(msg)
    return os.path.abspath(path)


def prepare(directory: str) -> None:
    """Make the directory ours alone, or refuse it.

    A missing one, or an empty one of ours that others can only read, is made 0700.

    Raises:
        ConfigurationError: it is a symlink, no directory, another user's, or open to others in a
            way that may already have been used; the message says what mends it.
        StoreFull, StoreUnavailable: it cannot be made or looked at now, and perhaps later.
    """
    try:
        _make(directory)
    except FileExistsError:
        check_ours(directory, mend=True)
    except NotADirectoryError:
        msg = f"cannot make the session directory {directory}: above it lies a file"
        raise ConfigurationError(msg) from None
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise store_error(error, f"making the session directory {directory}") from error
        msg = f"cannot make the session directory {directory}: {error.strerror}"
        raise ConfigurationError(msg) from error


def _make(directory: str) -> None:
    try:
        os.mkdir(directory, 0o700)  # not open to others for a moment: another worker may be looking
    except FileNotFoundError:
        try:
            os.makedirs(os.path.dirname(directory), exist_ok=True)
        except FileExistsError:  # a link that leads nowhere
            raise NotADirectoryError from None
        os.mkdir(directory, 0o700)
    os.chmod(directory, 0o700)


def check_ours(directory: str, *, mend: bool = False) -> None:
    """Raises ``ConfigurationError`` unless it is a session directory, ours, and closed to others.

    With ``mend`` it may also be one that is to become a session directory: an empty one that others
    could only read is closed to them.

    Raises:
        StoreUnavailable: it cannot be looked at.
    """
    try:
        fault = fault_of(directory, new=mend)
        if fault is None and mend and os.lstat(directory).st_mode & 0o077:
            os.chmod(directory, 0o700)
    except OSError as error:
        raise store_error(error, f"looking at {directory}") from error
    if fault is not None:
        msg = f"{fault.what}; {fault.mend}"
        raise ConfigurationError(msg)


def fault_of(directory: str, *, new: bool) -> Fault | None:
    """Why a directory cannot be used; None: it can.

    A command that changes it is offered only where nothing of others can come to harm: there is a
    manifest, or nothing at all.

    Args:
        directory: its absolute path.
        new: one without a manifest will do, as a store is to be made there.

    Raises:
        OSError: it cannot be looked at.
    """
    status = os.lstat(directory)
    if stat.S_ISLNK(status.st_mode):
        target = os.path.realpath(directory)
        return Fault(
            f"{directory} is a symlink", f"name the directory it points to: {shlex.quote(target)}"
        )
    if not stat.S_ISDIR(status.st_mode):
        mend = "name one, or a path where one can be made"
        return Fault(f"{directory} is not a directory", mend)
    names = _names(directory)
    if not new and names is not None and MANIFEST not in names:
        what = f"{directory} is no session directory: it has no {MANIFEST}"
        return Fault(what, "name the one that the application gave to its FileStore")
    if status.st_uid != os.geteuid():
        return _anothers(directory, status.st_uid, names)
    if status.st_mode & 0o077:
        return _open(directory, stat.S_IMODE(status.st_mode), names, new=new)
    return None


def is_blank(directory: str) -> bool:
    """Whether it is an empty directory; one where a worker writes the first manifest counts too."""
    try:
        return _is_blank(set(os.listdir(directory)))
    except OSError:
        return False


def user_text(uid: int) -> str:
    """A user by name, or by number where nobody has given it a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def anothers_file(path: str, owner: int) -> str:
    """Why a file in a directory of ours is not used: it is another user's; and what mends it."""
    we = user_text(os.geteuid())
    return (
        f"{path} belongs to user {user_text(owner)} and this process runs as {we}; look at what it"
        f" is, then: sudo chown -h {we} {shlex.quote(path)}"
    )


def as_user(uid: int, command: str, directory: str) -> str:
    """A line for the shell that runs ``filesession`` as that user."""
    name = user_text(uid)
    user = f"'#{uid}'" if name == str(uid) else shlex.quote(name)
    return f"sudo -u {user} filesession {command} {shlex.quote(directory)}"


def _names(directory: str) -> set[str] | None:
    """What is in it; None: we may not know."""
    try:
        return set(os.listdir(directory))
    except PermissionError:
        return None


def _is_blank(names: set[str] | None) -> bool:
    """Whether there is nothing in it, but perhaps the manifest a worker is about to write."""
    return names is not None and all(name.startswith(f"{MANIFEST}.") for name in names)


def _anothers(directory: str, owner: int, names: set[str] | None) -> Fault:
    we = os.geteuid()
    what = (
        f"{directory} belongs to user {user_text(owner)} and this process runs as {user_text(we)}"
    )
    if names is None or MANIFEST in names:
        return Fault(what, f"run it as that user: {as_user(owner, 'status', directory)}")
    if _is_blank(names) and we != _ROOT:
        chown = f"sudo chown {user_text(we)} {shlex.quote(directory)}"
        return Fault(what, f"run it as that user, or give the empty directory to this one: {chown}")
    return Fault(what, "run it as that user, or name another directory")


def _open(directory: str, mode: int, names: set[str] | None, *, new: bool) -> Fault | None:
    readable = not mode & 0o022
    what = f"{directory} is open to other users (mode {mode:04o})"
    chmod = f"chmod 700 {shlex.quote(directory)}"
    if _is_blank(names):
        return None if readable else Fault(what, f"others may have used it; close it: {chmod}")
    if names is None or MANIFEST not in names:
        return Fault(f"{what} and has other things in it", "name another directory")
    if new and readable and _is_closed(directory):
        return None
    return Fault(what, f"look at what is in it, then: {chmod}")


def _is_closed(directory: str) -> bool:
    """Whether another worker, starting with us, has closed it meanwhile, when it was empty."""
    return not os.lstat(directory).st_mode & 0o077
