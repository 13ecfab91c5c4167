"""Every error filesession raises.

    FilesessionError
    ├── ConfigurationError  (ValueError)    an option, directory or manifest that cannot be used
    ├── EncodeError         (TypeError)     data that JSON cannot hold exactly; names the key path
    ├── CookieTooLarge      (ValueError)    the session does not fit into its cookie
    ├── SessionGone         (LookupError)   the session was deleted, or has expired, meanwhile
    ├── SessionExists                       the id asked for is taken
    ├── SessionInvalid      (ValueError)    data that does not fit its model; names the places
    ├── ConflictError                       two writers, conflict="error"; holds both sides
    └── StoreError                          the store could not do its work; nothing was lost by it
        ├── StoreFull                       no space, no inodes, over quota
        ├── StoreUnavailable                the directory is gone, not permitted, or its disk fails
        ├── LockTimeout     (TimeoutError)  another holder kept the session's lock
        └── WouldSync                       asked not to wait, but the disk must be waited for

A message says what to do. No message holds a session id: where one session is meant, it is named by
its handle, the stored name.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_TOLD: Final = 3
"""Problems in the message of an error that has many."""


class FilesessionError(Exception):
    """The root of every error this package raises on its own account."""


class ConfigurationError(FilesessionError, ValueError):
    """An option, a directory or a manifest that cannot be used; the message says how to mend it."""


class EncodeError(FilesessionError, TypeError):
    """Session data that would not come back as it went in.

    Attributes:
        path: where in the session the value stands, as Python would write it: ``cart[2].price``.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"session data at {path}: {problem}")
        self.path = path
        self._problem = problem

    def __reduce__(self) -> tuple[type[EncodeError], tuple[str, str]]:
        return type(self), (self.path, self._problem)


class CookieTooLarge(FilesessionError, ValueError):  # noqa: N818 - the contract's name
    """A session that is to travel in its cookie does not fit; nothing was sent or cut.

    Attributes:
        name: the cookie's.
        size: bytes that its name and value would have.
        most: bytes that browsers keep.
        largest: the top-level key that takes most of them; empty when there is none.
    """

    def __init__(self, name: str, size: int, most: int, largest: str) -> None:
        super().__init__(
            f"the session does not fit into its cookie {name!r}: {size} bytes of name and value,"
            f" where browsers keep {most}; most of it is {largest!r}; store less, or its id alone"
            " with a FileStore in place of the EncryptedCookie"
        )
        self.name = name
        self.size = size
        self.most = most
        self.largest = largest

    def __reduce__(self) -> tuple[type[CookieTooLarge], tuple[str, int, int, str]]:
        return type(self), (self.name, self.size, self.most, self.largest)


class SessionGone(FilesessionError, LookupError):  # noqa: N818 - the contract's name
    """The session was deleted, given a new id, or has expired; nothing was written."""


class SessionExists(FilesessionError):  # noqa: N818 - the field's word, as FileExistsError
    """A session was to be created under an id that is taken; nothing was written."""


class SessionInvalid(FilesessionError, ValueError):  # noqa: N818 - as its neighbours
    """Session data that does not fit the model it is to be read or written as.

    Attributes:
        what: which data it is.
        model: the model's name.
        problems: pairs of a place, ``cart.0.qty``, and what is wrong there, without the value.
    """

    def __init__(self, what: str, model: str, problems: Sequence[tuple[str, str]]) -> None:
        told = [f"{place}: {problem}" if place else problem for place, problem in problems]
        more = len(told) - _TOLD
        rest = f" (and {more} more)" if more > 0 else ""
        super().__init__(f"{what} is no {model}: {'; '.join(told[:_TOLD])}{rest}")
        self.what = what
        self.model = model
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[SessionInvalid], tuple[str, str, tuple[Any, ...]]]:
        return type(self), (self.what, self.model, self.problems)


class ConflictError(FilesessionError):
    """Another writer saved the session since it was loaded, and ``conflict="error"`` was asked for.

    Attributes:
        ours: the data that was to be saved.
        theirs: the data that is stored.
    """

    def __init__(self, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        super().__init__("the session was saved by another request since it was loaded")
        self.ours = ours
        self.theirs = theirs

    def __reduce__(self) -> tuple[type[ConflictError], tuple[Mapping[str, Any], Mapping[str, Any]]]:
        return type(self), (self.ours, self.theirs)


class StoreError(FilesessionError):
    """The store could not do its work. What was stored is as it was before.

    But a durable store that fails in its last wait for the disk may have stored the new state, of
    which it is not known whether it survives a power cut.
    """


class StoreFull(StoreError):  # noqa: N818 - the contract's name
    """No space, no inodes or no quota left; the stored session is intact."""


class StoreUnavailable(StoreError):  # noqa: N818 - the contract's name
    """The directory has vanished, may not be used, or its disk fails."""


class LockTimeout(StoreError, TimeoutError):  # noqa: N818 - the contract's name
    """Another holder kept the session's lock for longer than the caller would wait."""


class WouldSync(StoreError):  # noqa: N818 - as BlockingIOError, which is no failure either
    """A store asked never to wait would have to wait for the disk; nothing was done.

    Only the ``without_waiting()`` form of a store raises it, for its caller to try again off the
    event loop.
    """


_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_MEND: Final = {
    errno.ENOSPC: "free some space or raise the quota",
    errno.EDQUOT: "free some space or raise the quota",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (sysctl fs.file-max)",
    errno.EACCES: "filesession doctor DIR, as the user that runs this, says what is wrong",
    errno.EPERM: "filesession doctor DIR, as the user that runs this, says what is wrong",
}


def shown(value: object) -> str:
    """A value in a message, as Python writes it; of one that cannot be written, its type."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - nested too deep, a number too long, a faulty __repr__
        return f"a value of type {type(value).__name__}"


def store_error(error: OSError, doing: str) -> StoreError:
    """The typed error for an ``OSError``; ``doing`` names what was tried and on what."""
    reason = error.strerror or str(error)
    mend = _MEND.get(error.errno or 0)
    kind = StoreFull if error.errno in _FULL else StoreUnavailable
    return kind(f"{doing}: {reason}; {mend}" if mend else f"{doing}: {reason}")
