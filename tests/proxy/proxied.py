"""An application behind nginx, the ways to it, and what asks it on each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tests.certificates import Certificate
from tests.proxy.nginx import nginx
from tests.serving import PATIENCE, Site, serving

APP: Final = "tests.proxy.proxied_app"

SERVERS: Final = {
    "uvicorn": f"uvicorn {APP}:asgi --fd {{fd}} --log-level warning --no-proxy-headers",
    "gunicorn": f"gunicorn {APP}:wsgi -b fd://{{fd}} --no-control-socket"
    " -k gthread --threads 4 --forwarded-allow-ips=",
}
"""Servers that leave the proxy's headers alone."""

READING: Final = {
    "uvicorn": f"uvicorn {APP}:asgi --fd {{fd}} --log-level warning"
    " --forwarded-allow-ips 127.0.0.2",
    "gunicorn": f"gunicorn {APP}:wsgi -b fd://{{fd}} --no-control-socket"
    " --forwarded-allow-ips=127.0.0.2",
}
"""Servers that read them themselves, as both do by default when the proxy is at 127.0.0.1."""

_CLIENT: Final = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
OVERWRITING: Final = f"{_CLIENT} proxy_set_header X-Forwarded-Proto $scheme;"
APPENDING: Final = f"""{_CLIENT}
    proxy_set_header X-Forwarded-Proto "$http_x_forwarded_proto, $scheme";"""

WAYS: Final = {
    "plain": f"listen <plain>; location / {{ proxy_pass http://app; {OVERWRITING} }}",
    "tls": f"""listen <tls> ssl http2; location / {{
        proxy_pass http://app; {OVERWRITING}
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $to_app;
    }}""",
    "appending": f"listen <appending>; location / {{ proxy_pass http://app; {APPENDING} }}",
    "tlstwice": f"""listen <tlstwice> ssl; location / {{
        proxy_pass http://<appending>; {OVERWRITING}
    }}""",
    "tlsforgotten": f"""listen <tlsforgotten> ssl; location / {{
        proxy_pass http://<plain>; {OVERWRITING}
    }}""",
    "narrow": """listen <narrow>;
        error_log /dev/null;  # it says so when a header is too large
        proxy_buffer_size 4k; location / { proxy_pass http://app; }""",
    "wide": "listen <wide>; proxy_buffer_size 8k; location / { proxy_pass http://app; }",
    "caching": """listen <caching>;
        proxy_cache kept; proxy_cache_valid any 10m; add_header X-Cache $upstream_cache_status;
        location / { proxy_pass http://app; }
        location ~ /careless$ { proxy_pass http://app; proxy_ignore_headers Set-Cookie; }
    """,
}
"""By name, what nginx does on each way to the application."""

SHARED: Final = """
map $http_upgrade $to_app { default upgrade; "" ""; }
upstream app { server <app>; keepalive 4; }
proxy_cache_path cache keys_zone=kept:1m;
"""


@dataclass
class Reply:
    """What a client got.

    Attributes:
        version: of the protocol.
        cookies: the Set-Cookie headers.
        page: what the application tells.
    """

    version: str
    status: int
    headers: httpx.Headers
    cookies: list[str]
    page: dict[str, Any]


class Proxied:
    """An application with several ways to it.

    Attributes:
        site: the application's server.
        ports: of the ways, by name; "app" leads to it past every proxy.
    """

    def __init__(self, site: Site, ports: dict[str, int], certificate: Certificate) -> None:
        self.site = site
        self.ports = {**ports, "app": site.port}
        self.certificate = certificate
        self._client = httpx.Client(verify=certificate.trusting(), http2=True, timeout=PATIENCE)

    def url(self, way: str, path: str) -> str:
        """An address; ways whose name begins with "tls" are over TLS."""
        scheme = "https" if way.startswith("tls") else "http"
        return f"{scheme}://127.0.0.1:{self.ports[way]}{path}"

    def ask(self, way: str, path: str, *headers: tuple[str, str]) -> Reply:
        """One request of a client that keeps no cookies of its own."""
        self._client.cookies.clear()
        response = self._client.get(self.url(way, path), headers=list(headers))
        is_json = response.headers["content-type"] == "application/json"
        return Reply(
            response.http_version,
            response.status_code,
            response.headers,
            response.headers.get_list("set-cookie"),
            response.json() if is_json else {},
        )

    def close(self) -> None:
        self._client.close()


@contextmanager
def behind_nginx(server: str, place: Path, certificate: Certificate) -> Iterator[Proxied]:
    """Run both.

    Args:
        server: a command, as for ``serving``.
        place: an empty directory.
        certificate: nginx's.
    """
    for name in ("site", "nginx"):
        (place / name).mkdir()
    with serving(server, place / "site") as site:
        shared = SHARED.replace("<app>", f"127.0.0.1:{site.port}")
        with nginx(place / "nginx", WAYS, certificate, shared) as ports:
            proxied = Proxied(site, ports, certificate)
            try:
                yield proxied
            finally:
                proxied.close()
