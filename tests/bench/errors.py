"""What keeps the bench from a figure. It is told, and the others are measured all the same.

NotMeasuredError
  ChildFailedError   a process ended with an error
  OverflowedError    not every deletion was told
  TooSlowError       a janitor had not done in time what was waited for
"""

from __future__ import annotations


class NotMeasuredError(Exception):
    """Something could not be measured; the message says why."""


class ChildFailedError(NotMeasuredError):
    """A process ended with an error; tells what it wrote."""


class OverflowedError(NotMeasuredError):
    """The kernel dropped events: what is known of the deletions is not all."""


class TooSlowError(NotMeasuredError):
    """What was waited for did not come within the limit."""
