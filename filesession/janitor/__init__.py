"""The janitor: removes from a store, in the background, what has expired."""

from filesession.janitor.janitor import Janitor

__all__ = ["Janitor"]
