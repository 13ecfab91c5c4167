"""Session files that session-file-store encrypted with kruptein 2: opened, to be moved away.

Rules:

1. The file is a JSON object; ``ct``, ``hmac`` and ``aad`` are texts of one character a byte, the
   others are Node's Buffers. What is sealed is the session's JSON text, once more as JSON.
2. The key is derived anew for each file, from the secret and its ``salt``: scrypt, or PBKDF2 where
   the app set ``crypto`` without ``use_scrypt``. Which, and with which hash, the ``hmac`` tells.
3. Nothing is decrypted whose ``hmac`` is wrong. It covers the UTF-8 form of ``ct``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final

from filesession.codec import load_object
from filesession.errors import ConfigurationError

_KEY: Final = 32

_HASHES: Final = {64: "sha512", 48: "sha384", 32: "sha256"}
"""By the length of what they make, in bytes."""

_ROUNDS: Final = 15_000
_MEMORY: Final = 64 << 20
"""Bytes: scrypt with these costs takes 16 MiB, and is refused half as much by default."""


class Kruptein:
    """Opens what was encrypted with one secret; a file takes some 50 ms. For one thread.

    Args:
        secret: the ``secret`` of the Express app's store, which is not that of its cookies.

    Raises:
        ConfigurationError: the secret is empty, or cryptography is not installed.
    """

    def __init__(self, secret: bytes) -> None:
        if not secret:
            msg = "the secret of the Express app's store is empty; give the one it encrypts with"
            raise ConfigurationError(msg)
        try:
            from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra
            from cryptography.hazmat.primitives import ciphers, padding  # noqa: PLC0415 - likewise
        except ImportError:
            msg = "encrypted sessions need cryptography: pip install 'filesession[kruptein]'"
            raise ConfigurationError(msg) from None
        self._ciphers, self._padding = ciphers, padding
        self._forged: type[Exception] = InvalidTag
        self._secret = secret
        self._derived: tuple[Callable[[bytes, str], bytes], ...] = (self._scrypt, self._pbkdf2)

    def opened(self, text: bytes) -> bytes | None:
        """The JSON text of a session; None for what this secret does not open."""
        try:
            sealed = load_object(text)
            salt, written = bytes(sealed["salt"]["data"]), sealed["ct"].encode()
            mark = sealed["hmac"].encode("latin-1")
            key = self._key(salt, written, mark)
            return None if key is None else _unwrapped(self._decrypted(key, sealed))
        except (ValueError, TypeError, KeyError, AttributeError, self._forged):
            return None

    def _key(self, salt: bytes, written: bytes, mark: bytes) -> bytes | None:
        """The key that made the mark; what worked for the last file is tried first."""
        name = _HASHES.get(len(mark), "sha512")
        for derive in self._derived:
            key = derive(salt, name)
            if hmac.compare_digest(hmac.digest(key, written, name), mark):
                self._derived = (derive, *(each for each in self._derived if each != derive))
                return key
        return None

    def _scrypt(self, salt: bytes, _name: str) -> bytes:
        return hashlib.scrypt(
            self._secret, salt=salt, n=16384, r=8, p=1, maxmem=_MEMORY, dklen=_KEY
        )

    def _pbkdf2(self, salt: bytes, name: str) -> bytes:
        return hashlib.pbkdf2_hmac(name, self._secret, salt, _ROUNDS, _KEY)

    def _decrypted(self, key: bytes, sealed: Mapping[str, Any]) -> bytes:
        """AES-256-GCM where there is an authentication tag, AES-256-CBC where there is none."""
        content, start = sealed["ct"].encode("latin-1"), bytes(sealed["iv"]["data"])
        modes, aes = self._ciphers.modes, self._ciphers.algorithms.AES(key)
        if "at" in sealed:
            mode = modes.GCM(start, bytes(sealed["at"]["data"]))
            opening = self._ciphers.Cipher(aes, mode).decryptor()
            opening.authenticate_additional_data(sealed["aad"].encode("latin-1"))
            return opening.update(content) + opening.finalize()
        opening = self._ciphers.Cipher(aes, modes.CBC(start)).decryptor()
        unpadding = self._padding.PKCS7(128).unpadder()
        return unpadding.update(opening.update(content) + opening.finalize()) + unpadding.finalize()


def _unwrapped(text: bytes) -> bytes:
    inner: str = load_object(b'{"text":' + text + b"}")["text"]
    return inner.encode()
