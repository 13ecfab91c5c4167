"""A real nginx, in front of an application, as a child of the tests."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.certificates import Certificate
from tests.programs import required
from tests.serving import PATIENCE

ADDRESS: Final = "127.0.0.2"
"""From which it comes to applications."""

TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

_HEAD: Final = """
daemon off;
worker_processes 1;
{user}
pid {place}/pid;
error_log {place}/log warn;
events {{ worker_connections 128; }}
http {{
    access_log off;
    {temporary}
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    proxy_bind {address};
    proxy_http_version 1.1;
    proxy_read_timeout {patience}s;
"""

# From 1.25 on there is another way to say that, which older ones do not know.
_NO_COMPLAINT: Final = 'using inherited sockets from|"listen ... http2" directive is deprecated'


@contextmanager
def nginx(
    place: Path, servers: Mapping[str, str], certificate: Certificate, shared: str = ""
) -> Iterator[dict[str, int]]:
    """Run it until the block ends; gives the port of each server by name.

    It takes over sockets that listen already, as from an nginx that it replaces: nobody waits until
    it is up. It must not have complained in the end.

    Args:
        place: where all its files are to be.
        servers: what is in their ``server`` blocks, by name; ``<name>`` in one is the address of
            the server of that name.
        certificate: of those that listen with ``ssl``.
        shared: what is beside their blocks.
    """
    log = place / "log"
    with ExitStack() as stack, (place / "output").open("wb") as output:
        sockets = {
            name: stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
            for name in servers
        }
        ports: dict[str, int] = {name: it.getsockname()[1] for name, it in sockets.items()}
        head = _HEAD.format(
            place=place,
            # It would give up root's rights, and with them the way to its own files.
            user="user root;" if os.geteuid() == 0 else "",
            temporary=" ".join(f"{kind}_temp_path {place}/{kind};" for kind in TEMPORARY),
            certificate=certificate,
            address=ADDRESS,
            patience=PATIENCE,
        )
        configuration = place / "nginx.conf"
        blocks = "".join(f"server {{\n{servers[name]}\n}}\n" for name in servers)
        addressed = re.sub("<([a-z]+)>", lambda name: f"127.0.0.1:{ports[name[1]]}", blocks)
        configuration.write_text(f"{head}{shared}\n{addressed}}}\n")
        handed = [it.fileno() for it in sockets.values()]
        process = subprocess.Popen(
            [required("nginx"), "-e", str(log), "-p", str(place), "-c", str(configuration)],
            env={**os.environ, "NGINX": "".join(f"{number};" for number in handed)},
            stdout=output,
            stderr=output,
            pass_fds=handed,
            start_new_session=True,
        )
    try:
        yield ports
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    complaints = re.sub(rf".*(?:{_NO_COMPLAINT}).*\n", "", log.read_text())
    assert (complaints, process.returncode) == ("", 0)
