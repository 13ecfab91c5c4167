"""Session data encrypted where it is kept.

    "<base64 of nonce and box>"

The box is an XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) of the data's JSON text, with the name
under which the session is stored as associated data. So nobody without a key reads it, changes it,
or passes it off as another session's; an older state of the same session can be put back, as from
a backup. Of how many bytes the data is, when a session was made, used and saved, and which cookie
attributes it has of its own, is not hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from filesession.codec import JSONCodec
from filesession.keyring import Key, Keyring, encoded, unpadded


class EncryptedCodec:
    """For ``FileStore(directory, codec=EncryptedCodec(key))``: the data is encrypted at rest.

    The keys may be those of an ``EncryptedCookie``. What an older key encrypted is encrypted with
    the newest one when the session is next saved. Without the key the janitor and the command work
    as ever, but for showing data; with another one each session is a ``StoreUnavailable``, and so
    is what was stored without encryption before.

    Args:
        key: 32 bytes, their base64, or several of these: the newest first, which encrypts, and
            every one decrypts.

    Raises:
        ConfigurationError: a key is none, or PyNaCl is not installed.
    """

    __slots__ = ("_keyring", "_name", "plain")

    def __init__(self, key: Key | Sequence[Key]) -> None:
        self._keyring = Keyring(key)
        self._name = b""
        self.plain = JSONCodec()

    def __repr__(self) -> str:
        """Without the keys, as tracebacks and logs print it."""
        return f"{type(self).__name__}({self._keyring!r})"

    def bound_to(self, name: str) -> EncryptedCodec:
        """The codec for what is stored under that name: what it writes no other one reads."""
        codec = object.__new__(EncryptedCodec)
        codec._keyring, codec._name, codec.plain = self._keyring, name.encode("utf-8"), self.plain
        return codec

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """The data as a JSON string, another one each time.

        Raises:
            EncodeError: a value or key would not come back as it went in; names the key path.
        """
        sealed = self._keyring.seal_at(self._name, self.plain.encode(data))
        return f'"{encoded(sealed)}"'.encode("ascii")

    def decode(self, text: bytes) -> dict[str, Any]:
        """The data again.

        Raises:
            ValueError: it is not encrypted, or with none of these keys, or for another name.
        """
        sealed = unpadded(text[1:-1].decode("latin-1")) if text[:1] == b'"' == text[-1:] else None
        if sealed is None:
            msg = "it is not encrypted"
            raise ValueError(msg)
        plaintext = self._keyring.open_at(self._name, sealed)
        if plaintext is None:
            msg = "it was encrypted with another key, or is another session's"
            raise ValueError(msg)
        return self.plain.decode(plaintext)
