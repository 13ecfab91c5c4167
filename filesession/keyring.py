"""Keys, and what they seal: the one module that knows PyNaCl, which it loads when it is needed.

Rules:

1. A key is 32 bytes. Of several the first seals and every one opens, and every one is checked when
   the ring is made: a wrong one would be found on the day it is needed.
2. Both seals are authenticated, and get a random nonce of 24 bytes each time, long enough that no
   two are ever alike.
3. A cookie's seal is libsodium's secretbox, XSalsa20-Poly1305, as @fastify/secure-session has it.
   What is kept in a place is sealed with XChaCha20-Poly1305 and the place's name, and opens there
   alone. Its keys are derived, so that neither is ever taken for the other.
"""

from __future__ import annotations

import hashlib
import secrets
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from filesession.errors import ConfigurationError

Key: TypeAlias = str | bytes
"""32 bytes; or their base64, of either alphabet, padded or not."""

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
MAC_BYTES: Final = 16

SHORTEST_SECRET: Final = 32
"""Bytes."""

_PASSES: Final = 3
_MEMORY: Final = 268_435_456
"""crypto_pwhash_OPSLIMIT_MODERATE and, in bytes, _MEMLIMIT_MODERATE of libsodium."""

_MADE: Final = "`filesession genkey` makes one"


class Keyring:
    """Seals with the newest key, and opens with each.

    Args:
        key: a key, or several with the newest first.

    Raises:
        ConfigurationError: one is no key; or PyNaCl is not installed.
    """

    __slots__ = ("_kept", "_keys", "_refused", "_sodium")

    def __init__(self, key: Key | Sequence[Key]) -> None:
        self._keys = _keys(key)
        self._kept = tuple(_derived(key) for key in self._keys)
        self._sodium, self._refused = _loaded()

    def __repr__(self) -> str:
        """Without the keys, as tracebacks and logs print it."""
        return f"<{type(self).__name__}, keys: {len(self._keys)}>"

    @property
    def digests(self) -> tuple[bytes, ...]:
        """BLAKE2b-256 of each key, the newest first."""
        return tuple(hashlib.blake2b(key, digest_size=32).digest() for key in self._keys)

    def seal(self, plaintext: bytes) -> tuple[bytes, bytes]:
        """A box, 16 bytes longer than what is in it, and its nonce."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return self._sodium.crypto_secretbox_easy(plaintext, nonce, self._keys[0]), nonce

    def open(self, box: bytes, nonce: bytes) -> tuple[bytes, bool] | None:
        """What is in a box, and whether the newest key sealed it; None when none of them did."""
        if len(box) < MAC_BYTES or len(nonce) != NONCE_BYTES:
            return None
        for key in self._keys:
            try:
                plaintext: bytes = self._sodium.crypto_secretbox_open_easy(box, nonce, key)
            except self._refused:
                continue
            return plaintext, key is self._keys[0]
        return None

    def seal_at(self, place: bytes, plaintext: bytes) -> bytes:
        """Sealed to be kept in that place: nonce and box in one, 40 bytes longer."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        seal = self._sodium.crypto_aead_xchacha20poly1305_ietf_encrypt
        box: bytes = seal(plaintext, place, nonce, self._kept[0])
        return nonce + box

    def open_at(self, place: bytes, sealed: bytes) -> bytes | None:
        """What was sealed; None when that was with none of these keys, or for another place."""
        nonce, box = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        if len(box) < MAC_BYTES:
            return None
        unseal = self._sodium.crypto_aead_xchacha20poly1305_ietf_decrypt
        for key in self._kept:
            try:
                plaintext: bytes = unseal(box, place, nonce, key)
            except self._refused:
                continue
            return plaintext
        return None


def key_from_secret(secret: str | bytes, salt: str | bytes) -> bytes:
    """The key that @fastify/secure-session makes of a secret; takes a second and 256 MiB.

    Argon2id, version 1.3, as libsodium's ``crypto_pwhash`` with its moderate limits (RFC 9106).

    Args:
        secret: at least 32 bytes; text counts as UTF-8.
        salt: 16 bytes, or as many ASCII characters.

    Raises:
        ConfigurationError: they are not; or PyNaCl is not installed.
    """
    password, salted = _secret(secret), _salt(salt)
    sodium, _ = _loaded()
    key: bytes = sodium.crypto_pwhash_alg(
        KEY_BYTES, password, salted, _PASSES, _MEMORY, sodium.crypto_pwhash_ALG_ARGON2ID13
    )
    return key


def unpadded(text: str) -> bytes | None:
    """The bytes of a base64 text of either alphabet, with or without padding.

    None for any text that a coder would not have written: several could stand for the same bytes.
    """
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        found = a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except (Error, ValueError):  # ValueError: it is not ASCII
        return None
    spare = text[len(plain) :]
    if spare not in {"", "=" * (-len(plain) % 4)}:
        return None
    return found if encoded(found).rstrip("=") == plain else None


def encoded(data: bytes) -> str:
    """Standard base64 with padding."""
    return b2a_base64(data, newline=False).decode("ascii")


def _loaded() -> tuple[Any, type[Exception]]:
    """The part of PyNaCl that is used here, and its error for what does not open."""
    try:
        from nacl import bindings, exceptions  # noqa: PLC0415 - it is an extra
    except ImportError as error:
        msg = "encryption needs PyNaCl: pip install 'filesession[encrypted]'"
        raise ConfigurationError(msg) from error
    return bindings, exceptions.CryptoError


def _derived(key: bytes) -> bytes:
    """The key for what is kept in places: libsodium's ``crypto_kdf_derive_from_key``, number 1."""
    number = (1).to_bytes(16, "little")
    return hashlib.blake2b(key=key, salt=number, person=b"filesess", digest_size=KEY_BYTES).digest()


def _keys(key: object) -> tuple[bytes, ...]:
    if isinstance(key, (str, bytes)):
        return (_key(key),)
    if not isinstance(key, Sequence):
        msg = f"key must be 32 bytes, their base64, or a list of these, not {type(key).__name__}"
        raise ConfigurationError(msg)
    if not key:
        msg = f"the list of keys is empty; {_MADE}"
        raise ConfigurationError(msg)
    return tuple(_key(one) for one in key)


def _key(key: object) -> bytes:
    """One key, checked. No message has a part of it."""
    if isinstance(key, bytes) and len(key) == KEY_BYTES:
        found: bytes | None = key
    elif isinstance(key, (str, bytes)):
        text = key if isinstance(key, str) else key.decode("latin-1")
        found = unpadded(text.strip())
    else:
        msg = f"a key must be bytes or text, not {type(key).__name__}"
        raise ConfigurationError(msg)
    if found is None or len(found) != KEY_BYTES:
        what = "text that is not base64" if found is None else f"base64 of {len(found)} bytes"
        what = f"{len(key)} bytes" if isinstance(key, bytes) and found is None else what
        msg = f"a key is 32 bytes or their base64, and this one is {what}; {_MADE}"
        raise ConfigurationError(msg)
    if not any(found):
        msg = f"a key of nothing but zeros is known to everybody; {_MADE}"
        raise ConfigurationError(msg)
    return found


def _secret(secret: object) -> bytes:
    if not isinstance(secret, (str, bytes)):
        msg = f"secret must be text or bytes, not {type(secret).__name__}; several keys go to key="
        raise ConfigurationError(msg)
    try:
        found = secret.encode() if isinstance(secret, str) else secret
    except UnicodeEncodeError:
        msg = "the secret holds a lone surrogate, which has no UTF-8 form; pass it as bytes"
        raise ConfigurationError(msg) from None  # the cause carries the secret
    if len(found) < SHORTEST_SECRET:
        msg = f"a secret has at least {SHORTEST_SECRET} bytes, this one {len(found)}; {_MADE}"
        raise ConfigurationError(msg)
    return found


def _salt(salt: object) -> bytes:
    if isinstance(salt, str) and salt.isascii():
        salt = salt.encode("ascii")
    if not isinstance(salt, bytes) or len(salt) != SALT_BYTES:
        msg = f"salt must be {SALT_BYTES} bytes, or as many ASCII characters"
        raise ConfigurationError(msg)
    return salt
