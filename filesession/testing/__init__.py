"""For tests: the contract suite that every store passes, ours or a user's, and a clock to set."""

from filesession.testing.clock import ManualClock
from filesession.testing.contract import StoreContract

__all__ = ["ManualClock", "StoreContract"]
