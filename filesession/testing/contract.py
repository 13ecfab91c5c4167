"""The contract every store keeps, as a test class to inherit from."""

from __future__ import annotations

from filesession.testing.base import ContractTests
from filesession.testing.conflicts import ConflictTests
from filesession.testing.cookies import CookieTests
from filesession.testing.exactness import ExactnessTests
from filesession.testing.expiry import ExpiryTests
from filesession.testing.locking import LockingTests
from filesession.testing.regenerating import RegeneratingTests
from filesession.testing.verbs import VerbTests
from filesession.testing.waiting import WaitingTests
from filesession.testing.whole import WholeStoreTests


class StoreContract(
    VerbTests,
    ExactnessTests,
    ConflictTests,
    ExpiryTests,
    CookieTests,
    RegeneratingTests,
    LockingTests,
    WaitingTests,
    WholeStoreTests,
    ContractTests,
):
    """All tests a store must pass, for pytest; those of what it cannot do are skipped, saying so.

        class TestMyStore(StoreContract):
            def make_store(self, clock, **timeouts):
                return MyStore(clock=clock, **timeouts)

    The store needs ``load``, ``create``, ``save``, ``touch`` and ``delete``; the protocols in
    ``filesession.stores.protocol`` tell what more it can do. Only these verbs are used.
    """
