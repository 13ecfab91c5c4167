"""Whose the session directory is: ours alone, or it is refused."""

from __future__ import annotations

import os
import stat

from filesession.errors import ConfigurationError, store_error


def prepare(directory: str) -> None:
    """Make the directory ours alone, or refuse it.

    A missing one, or an empty one of ours that others can only read, is made 0700.

    Raises:
        ConfigurationError: it is a symlink, no directory, another user's, or open to others in a
            way that may already have been used; the message has the command that mends it.
        StoreUnavailable: it cannot be looked at.
    """
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        os.mkdir(directory, 0o700)  # not open to others for a moment: another worker may be looking
        os.chmod(directory, 0o700)
    except FileExistsError:
        if os.path.lexists(directory):
            check_ours(directory, mend=True)
            return
        msg = f"cannot make the session directory {directory}: above it lies a file"
        raise ConfigurationError(msg) from None
    except OSError as error:
        msg = f"cannot make the session directory {directory}: {error.strerror}"
        raise ConfigurationError(msg) from error


def check_ours(directory: str, *, mend: bool = False) -> None:
    """Raises ``ConfigurationError`` unless the directory is one, ours, and closed to others.

    With ``mend``, an empty one that others could only read is closed to them.

    Raises:
        StoreUnavailable: it cannot be looked at.
    """
    try:
        _check(directory, mend=mend)
    except OSError as error:
        raise store_error(error, f"looking at {directory}") from error


def _check(directory: str, *, mend: bool) -> None:
    status = os.lstat(directory)
    if stat.S_ISLNK(status.st_mode):
        target = os.path.realpath(directory)
        msg = f"{directory} is a symlink; name the directory it points to: {target}"
        raise ConfigurationError(msg)
    if not stat.S_ISDIR(status.st_mode):
        msg = f"{directory} is not a directory; name one, or a path where one can be made"
        raise ConfigurationError(msg)
    if status.st_uid != os.geteuid():
        msg = (
            f"{directory} belongs to user {status.st_uid} and this process runs as {os.geteuid()};"
            f" run it as that user, or: chown -R {os.geteuid()} {directory}"
        )
        raise ConfigurationError(msg)
    if status.st_mode & 0o077:
        mendable = mend and not status.st_mode & 0o022
        if mendable and not os.listdir(directory):
            os.chmod(directory, 0o700)
        elif not (mendable and _is_closed(directory)):
            msg = (
                f"{directory} is open to other users (mode {stat.S_IMODE(status.st_mode):04o});"
                f" look at what is in it, then: chmod 700 {directory}"
            )
            raise ConfigurationError(msg)


def _is_closed(directory: str) -> bool:
    """Whether another worker, starting with us, has closed it meanwhile, when it was empty."""
    return not os.lstat(directory).st_mode & 0o077
