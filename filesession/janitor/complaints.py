"""Saying what is wrong once, not once a minute until somebody mends it."""

from __future__ import annotations

import logging
from typing import Final

MOST: Final = 1000
"""Reasons remembered. A failing disk gives a new one for every session; memory must not follow."""


class Complaints:
    """Logs each distinct reason as an error, once until ``over`` says that all went well again."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: set[str] = set()

    def say(self, what: str, reason: str) -> None:
        """Log what failed and why, unless the reason was logged before."""
        if reason not in self._said:
            self._log.error("%s: %s", what, reason)
            if len(self._said) < MOST:
                self._said.add(reason)

    def over(self) -> None:
        """It works again: what comes up now is news, even if it was said before."""
        self._said.clear()
