"""What a session directory says of itself, so that its path is all the janitor and command need."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from filesession.codec import load_object
from filesession.errors import ConfigurationError
from filesession.lifetime import Lifetime

FORMAT: Final = 1
"""The directory's; a session file's lines have their own."""

DEEPEST: Final = 3
"""Shard levels: 16 million directories; more would be empty ones."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the janitor and the command need to know of a directory, so that its path is enough."""

    format: int
    shard_depth: int
    idle_timeout: float | None
    absolute_timeout: float | None
    touch_interval: float | None
    durable: bool

    @property
    def lifetime(self) -> Lifetime:
        """The timeouts the directory's store was last opened with."""
        return Lifetime(self.idle_timeout, self.absolute_timeout, self.touch_interval)

    def differing_from(self, before: Manifest) -> str:
        """What it changes, in words: ``idle_timeout is now 1800.0, and was 86400.0``."""
        names = (field.name for field in fields(self))
        pairs = ((name, getattr(self, name), getattr(before, name)) for name in names)
        return "; ".join(
            f"{name} is now {new}, and was {old}" for name, new, old in pairs if new != old
        )


def manifest_of(content: bytes, path: str) -> Manifest:
    """The manifest in the file at ``path``.

    Raises:
        ConfigurationError: it is of another format, or not a manifest.
    """
    try:
        members = load_object(content)
        manifest = Manifest(**members) if members.get("format") == FORMAT else None
        well_formed = manifest is None or (
            manifest.shard_depth in range(DEEPEST + 1)
            and type(manifest.shard_depth) is int
            and type(manifest.durable) is bool
            and Lifetime.of(
                manifest.idle_timeout, manifest.absolute_timeout, manifest.touch_interval
            )
            == manifest.lifetime
        )
    except (ValueError, TypeError):
        manifest, well_formed = None, False
    if not well_formed:
        msg = f"{path} is no manifest of filesession; restore it, or move the directory away"
        raise ConfigurationError(msg)
    if manifest is None:
        msg = f"{path} was written by another version of filesession (not format {FORMAT}); update"
        raise ConfigurationError(msg)
    return manifest
