"""Applications behind nginx."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.certificates import Certificate, certified
from tests.programs import required
from tests.proxy.proxied import SERVERS, Proxied, behind_nginx


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certified(tmp_path_factory.mktemp("certificate"), "127.0.0.1")


@pytest.fixture(scope="session", params=SERVERS)
def proxied(
    request: pytest.FixtureRequest,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxied]:
    """Either server, and it leaves the proxy's headers alone."""
    required("nginx")
    place = tmp_path_factory.mktemp("proxied")
    with behind_nginx(SERVERS[request.param], place, certificate) as proxied:
        yield proxied
