"""The command ``filesession``: sweep, list, show, destroy, look after the health of a directory."""

from filesession.cli.command import main

__all__ = ["main"]
