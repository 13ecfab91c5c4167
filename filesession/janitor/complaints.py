"""Saying what is wrong once, not once a minute until somebody mends it."""

from __future__ import annotations

import logging
from typing import Final

MOST: Final = 1000
"""Reasons remembered of each thing that fails. A failing disk gives a new one for every session;
memory must not follow."""


class Complaints:
    """Logs each distinct reason as an error, once until what failed has worked again."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[str, set[str]] = {}

    def say(self, what: str, reason: str) -> None:
        """Log what failed and why, unless the reason was logged before, of whatever it was."""
        if any(reason in said for said in self._said.values()):
            return
        self._log.error("%s: %s", what, reason)
        said = self._said.setdefault(what, set())
        if len(said) < MOST:
            said.add(reason)

    def over(self, what: str, relief: str | None = None) -> None:
        """That works again: say so if it was complained of; what comes up now is news."""
        if self._said.pop(what, None) and relief is not None:
            self._log.info("%s", relief)
