"""A session directory by its path alone, which an application may have yet to make."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from filesession.errors import ConfigurationError, store_error
from filesession.record import SessionInfo, SweepReport
from filesession.stores.file.ownership import absolute, fault_of, is_blank
from filesession.stores.protocol import Sweeps

if TYPE_CHECKING:
    from filesession.stores.file.store import FileStore


class Place:
    """Where a session directory is, or is to be. What lies there is looked at anew for each sweep.

    Args:
        directory: its path.
        opened: gives the store of a directory that exists.

    Attributes:
        directory: its absolute path.

    Raises:
        ConfigurationError: what is there cannot be used, and waiting would not mend it.
        StoreUnavailable: it cannot be looked at.
    """

    __slots__ = ("_opened", "directory")

    def __init__(
        self, directory: str | os.PathLike[str], opened: Callable[[str], FileStore]
    ) -> None:
        self.directory = absolute(directory)
        self._opened = opened
        if self.is_ready():
            opened(self.directory)

    def is_ready(self) -> bool:
        """Whether there is a session directory; False while nothing is there, or an empty one.

        Raises:
            ConfigurationError: what is there is not for us to use.
            StoreUnavailable: it cannot be looked at.
        """
        blank = is_blank(self.directory)
        try:
            fault = fault_of(self.directory, new=blank)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise store_error(error, f"looking at {self.directory}") from error
        if fault is not None:
            msg = f"{fault.what}; {fault.mend}"
            raise ConfigurationError(msg)
        return not blank

    def scan(self) -> Iterator[SessionInfo]:
        """As the store's.

        Raises:
            ConfigurationError: there is no session directory.
        """
        return self._opened(self.directory).scan()

    def sweep(
        self,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        on_expired: Callable[[SessionInfo], None] | None = None,
    ) -> SweepReport:
        """As the store's.

        Raises:
            ConfigurationError: there is no session directory.
        """
        store = self._opened(self.directory)
        return store.sweep(limit=limit, dry_run=dry_run, progress=progress, on_expired=on_expired)


def sweepable(store: object, opened: Callable[[str], FileStore]) -> Sweeps:
    """What a janitor was given to sweep: a store, or the place that a path names.

    Raises:
        ConfigurationError: it is neither, or cannot be used.
    """
    if isinstance(store, (str, os.PathLike)):
        return Place(store, opened)
    if not isinstance(store, Sweeps):
        msg = (
            f"a {type(store).__name__} cannot be swept: it has no sweep(); a janitor takes a"
            " FileStore, a MemoryStore or the path of a session directory"
        )
        raise ConfigurationError(msg)
    return store
