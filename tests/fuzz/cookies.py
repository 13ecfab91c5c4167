"""Cookies from strangers: values, whole Cookie headers through both gateways, and Set-Cookie.

What is right is worked out here anew: a signature by ``hmac``, a header by a regular expression,
what a browser makes of Set-Cookie by RFC 6265bis.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from urllib.parse import quote, unquote_to_bytes
from wsgiref.util import setup_testing_defaults

from filesession import FileStore, asgi, wsgi
from filesession.cookies import signing
from filesession.cookies.header import cookie_values, encode_value
from filesession.cookies.signing import Signer
from filesession.stores.entry import handle_of

SECRETS: Final = ("the new secret", "an old secret")
SIGNER: Final = Signer(SECRETS)

STORED: Final = {"alice's id": "alice", "bob.'s=id;": "bob"}
"""Ids that the store knows, and whose they are."""

UNKNOWN: Final = "a ghost's id"
"""An id that was signed by us, and that the store does not know."""


def signed(sid: str, secret: str = SECRETS[0]) -> str:
    mac = hmac.new(secret.encode(), sid.encode(), hashlib.sha256).digest()
    return f"s:{sid}.{base64.b64encode(mac).decode().rstrip('=')}"


def verified(value: str) -> tuple[str, bool] | None:
    """What ``unsign`` must say of a value."""
    sid = value[2:-44]
    if not 1 <= len(sid) <= 256 or any("\ud800" <= each <= "\udfff" for each in sid):
        return None
    for secret in SECRETS:
        if value == signed(sid, secret):
            return sid, secret == SECRETS[0]
    return None


def values_of(header: str) -> list[str]:
    """The values of ``sid`` in a Cookie header, as Express would decode each."""
    found = re.findall(r"(?:^|;)[ \t]*sid[ \t]*=[ \t]*([^;]*?)[ \t]*(?=;|\Z)", header)
    return [
        _decoded(value[1:-1] if re.fullmatch('"(.*")?', value, re.DOTALL) else value)
        for value in found
    ]


def _decoded(value: str) -> str:
    if re.search("%(?![0-9a-fA-F]{2})", value):
        return value
    try:
        return re.sub(
            "(?:%[0-9a-fA-F]{2})+", lambda escapes: unquote_to_bytes(escapes[0]).decode(), value
        )
    except UnicodeDecodeError:
        return value


class CookieValue:
    """Signed values, and texts that only look so."""

    def __init__(self, _directory: Path) -> None:
        self._digests = 0

    def __call__(self, data: bytes) -> None:
        """An input: a value, or an id, in UTF-8 or else in Latin-1."""
        try:
            self.check(data.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            self.check(data.decode("latin-1"))

    def check(self, text: str) -> None:
        """Only what was signed verifies, at the cost of a digest for each secret at most."""
        self._check_unsign(text)
        for extended in (f"s:{text}", f"{text}.{'A' * 43}", f"s:{text}.{'A' * 43}"):
            self._check_unsign(extended)
        if handle_of(text) is not None:
            self._check_id(text)

    def _check_unsign(self, value: str) -> None:
        with patch.object(signing, "digest", self._counted):
            self._digests = 0
            assert SIGNER.unsign(value) == verified(value)
            assert self._digests <= len(SECRETS) * (len(value) <= 2 + 256 + 44)

    def _counted(self, *arguments: Any) -> bytes:
        self._digests += 1
        return hmac.digest(*arguments)

    def _check_id(self, sid: str) -> None:
        value = SIGNER.sign(sid)
        assert value == signed(sid)
        assert SIGNER.unsign(value) == (sid, True)
        assert SIGNER.unsign(signed(sid, SECRETS[1])) == (sid, False)
        encoded = encode_value(value)
        assert cookie_values(f"a=1; sid={encoded}; b", "sid") == [value]
        assert re.fullmatch(r"[!#$&-+\--:<-\[\]-~%]*", encoded)  # cookie-octets of RFC 6265, 4.1.1
        for spoiled in (value[:-1], value + "=", value[1:], value + "\n", value[:-1] + "_"):
            assert SIGNER.unsign(spoiled) is None
        for at in (2, len(value) // 2, len(value) - 2):
            changed = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
            assert SIGNER.unsign(changed) == verified(changed)


class CookieHeader:
    """Whole requests with any Cookie headers, to both gateways in front of one store."""

    def __init__(self, directory: Path) -> None:
        self._store = FileStore(directory / "sessions", idle_timeout=None, shard_depth=0)
        self._files = directory / "sessions" / "sessions"
        for sid, who in STORED.items():
            self._store.create({"who": who}, sid=sid)
        self._pristine = self._contents()
        self._writes = False
        self._seen: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._asgi = asgi.SessionMiddleware(self._asgi_app, self._store, SECRETS, offload=False)
        self._wsgi = wsgi.SessionMiddleware(self._wsgi_app, self._store, SECRETS)

    def close(self) -> None:
        self._loop.close()

    def _contents(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self._files.iterdir()}

    def _act(self, session: dict[str, Any]) -> None:
        self._seen.append(dict(session))
        if self._writes:
            session["new"] = True

    async def _asgi_app(self, scope: Any, _receive: Any, send: Any) -> None:
        self._act(scope["session"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _wsgi_app(self, environ: Any, start_response: Any) -> list[bytes]:
        self._act(environ["filesession.session"])
        start_response("200 OK", [])
        return [b""]

    def __call__(self, data: bytes) -> None:
        """An input: header fields divided by line breaks, which no field can hold."""
        self.check(data.split(b"\n"))

    def check(self, fields: Iterable[bytes]) -> None:
        """Both gateways find the session that was signed for, and leave the store as they may."""
        fields = list(fields)
        header = _joined(fields).decode("latin-1")
        assert cookie_values(header, "sid") == values_of(header)
        named = next((found for found in map(verified, values_of(header)) if found), None)
        for request in (self._through_asgi, self._through_wsgi):
            for self._writes in (False, True):
                try:
                    self._check_request(named, *request(fields))
                finally:
                    self._restore()

    def _check_request(
        self, named: tuple[str, bool] | None, status: int, headers: list[tuple[str, str]]
    ) -> None:
        sid = named[0] if named else None
        who = STORED.get(sid or "")
        assert status == 200
        assert self._seen == [{"who": who} if who else {}]
        cookies = [value for name, value in headers if name.lower() == "set-cookie"]
        assert all(value.isascii() and value.isprintable() for value in cookies)
        given = [cookie_values(value.partition(";")[0], "sid")[0] for value in cookies]
        renewed = named is not None and who is not None and not named[1]
        after = self._contents()
        if not self._writes or who is not None:
            assert given == ([signed(sid or "")] if renewed else [])
            assert after.keys() == self._pristine.keys()
        changed = {path for path in after if after[path] != self._pristine.get(path)}
        if not self._writes:
            assert not changed
        elif who is not None:
            assert [path.name for path in changed] == [handle_of(sid or "")]
        else:
            self._check_new(given, changed)

    def _restore(self) -> None:
        for path, content in self._contents().items():
            if content != self._pristine.get(path):
                path.unlink()
        for path in self._pristine:
            if not path.exists():
                path.write_bytes(self._pristine[path])
                path.chmod(0o600)

    def _check_new(self, given: list[str], changed: set[Path]) -> None:
        """A session of its own, under an id that came with no request."""
        (value,) = given
        found = verified(value)
        assert found is not None
        assert re.fullmatch("[A-Za-z0-9_-]{43}", found[0])
        assert [path.name for path in changed] == [handle_of(found[0])]
        record = self._store.load(found[0])
        assert record is not None
        assert record.data == {"new": True}

    def _through_asgi(self, fields: list[bytes]) -> tuple[int, list[tuple[str, str]]]:
        sent: list[Any] = []
        self._seen.clear()

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        headers = [(b"cookie", field) for field in fields]
        scope = {"type": "http", "path": "/", "headers": headers, "method": "GET"}
        self._loop.run_until_complete(self._asgi(scope, receive, send))
        start, body = sent
        assert body["type"] == "http.response.body"
        decoded = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in start["headers"]]
        return start["status"], decoded

    def _through_wsgi(self, fields: list[bytes]) -> tuple[int, list[tuple[str, str]]]:
        started: list[Any] = []
        self._seen.clear()
        environ: dict[str, Any] = {"HTTP_COOKIE": _joined(fields).decode("latin-1")}
        setup_testing_defaults(environ)

        def start_response(status: str, headers: Any) -> Any:
            started.append((int(status[:3]), headers))
            return started.append

        body = self._wsgi(environ, start_response)
        assert list(body) == [b""]
        ((status, headers),) = started
        return status, headers


def _joined(fields: list[bytes]) -> bytes:
    """Several fields as one; empty ones at the front are none (RFC 9113, 8.2.3)."""
    joined = b""
    for field in fields:
        joined = joined + b"; " + field if joined else field
    return joined


def value_seeds() -> Iterator[bytes]:
    for sid in (*STORED, UNKNOWN, "a", "x" * 256, "s:.", "\u00e4\U0001f36a"):
        yield sid.encode()
        for secret in (*SECRETS, "a stranger's"):
            yield signed(sid, secret).encode()


def header_seeds() -> Iterator[bytes]:
    alice, bob = (quote(signed(sid)) for sid in STORED)
    old = quote(signed(next(iter(STORED)), SECRETS[1]))
    ghost, forged = quote(signed(UNKNOWN)), quote(signed(next(iter(STORED)), "a stranger's"))
    headers = (
        *(f"sid={alice}", f"sid={bob}", f"sid={old}", f"sid={ghost}", f"sid={forged}"),
        *(f"a=1; sid={forged}; sid={bob}", f"sid=\nsid={alice}", f'sid="{alice}"', f"sid={alice}="),
        *(f"sid = {ghost}; sid={alice}", f"SID={alice}", f"xsid={alice};sid=%ff", "sid", "sid=%00"),
        *(f"=;sid={alice[:-1]}", f"\n;; sid={bob} \t;", f"sid={alice.lower()}", "sid=s%3A."),
        *(f"=sid={alice}", f"sid={alice}\na=1", f'sid="{alice}', f'sid={bob}"', f"a=sid={alice}"),
    )
    for header in headers:
        yield header.encode("latin-1")


VALUE_WORDS: Final = (
    *(signed(sid)[-44:].encode() for sid in STORED),
    *(b"s:", b".", b"="),
)
HEADER_WORDS: Final = (
    *(quote(signed(sid, secret)).encode() for sid in STORED for secret in SECRETS),
    *(b"sid=", b"; ", b"\n", b'"', b"%3A", b"%", b"\t", b"\0", b"s%3A", b"\xff", b"%C3%A4"),
)
