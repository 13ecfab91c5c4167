"""Both gateways over a recorded store, as the tests of the gateways have them."""

from __future__ import annotations

from tests.gateways.conftest import call, connect, cookie_of, kind, make_site, sid, site, store

__all__ = ["call", "connect", "cookie_of", "kind", "make_site", "sid", "site", "store"]
