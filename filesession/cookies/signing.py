"""Ids as express-session signs them, so that both servers read each other's cookies.

    s:<sid>.<base64 of HMAC-SHA256(secret, sid), without padding>

The text stands percent-encoded in the header; that is the business of ``header``.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Sequence
from hmac import compare_digest, digest
from typing import Final

from filesession.errors import ConfigurationError
from filesession.stores.entry import LONGEST_ID

_MAC_LENGTH: Final = 43
"""Characters: 32 bytes in base64, without padding."""

_PREFIX: Final = "s:"
"""What tells a signed value from a plain one in Express."""


class Signer:
    """Signs ids with the newest secret and verifies them with every one.

    A signature proves that a holder of a secret made the value. It does not hide the id, and it
    does not expire: a value stays good until its secret is dropped.

    Args:
        secret: a secret, or several with the newest first; text counts as its UTF-8 bytes.

    Raises:
        ConfigurationError: there is no secret, one is empty, or one is neither text nor bytes.
    """

    __slots__ = ("_secrets",)

    def __init__(self, secret: str | bytes | Sequence[str | bytes]) -> None:
        self._secrets = _keys(secret)

    def __repr__(self) -> str:
        """Without the secrets, as tracebacks and logs print it."""
        return f"<Signer, secrets: {len(self._secrets)}>"

    def sign(self, sid: str) -> str:
        """The cookie's value for an id, not yet percent-encoded.

        Raises:
            UnicodeEncodeError: the id holds a lone surrogate, which has no UTF-8 form.
        """
        return f"{_PREFIX}{sid}.{_mac(self._secrets[0], sid.encode()).decode()}"

    def unsign(self, value: str) -> tuple[str, bool] | None:
        """The id in a percent-decoded cookie value; None when no secret signed it.

        Never raises, whatever the text. The time it takes tells nothing of the right signature.

        Returns:
            The id, and True when the newest secret signed it, False when an older one did.
        """
        if not value.startswith(_PREFIX):
            return None
        sid, _, mac = value[2:].rpartition(".")  # ids may hold dots, base64 does not
        if not 0 < len(sid) <= LONGEST_ID or len(mac) != _MAC_LENGTH:
            return None  # before it costs a digest: a header has room for thousands
        try:
            message, given = sid.encode(), mac.encode()
        except UnicodeEncodeError:
            return None  # a lone surrogate was never signed
        # The text is compared, not what it decodes to: four spellings of the last character decode
        # to the same bytes, and one session would answer to four values.
        for secret in self._secrets:
            if compare_digest(_mac(secret, message), given):
                return sid, secret is self._secrets[0]
        return None


def _mac(secret: bytes, message: bytes) -> bytes:
    padded = b2a_base64(digest(secret, message, "sha256"), newline=False)
    return padded[:-1]  # 32 bytes end in one "="


def _keys(secret: object) -> tuple[bytes, ...]:
    if isinstance(secret, (str, bytes)):
        return (_key(secret),)
    if not isinstance(secret, Sequence):
        msg = (
            "secret must be text, bytes, or a list of these with the newest first, "
            f"not {type(secret).__name__}"
        )
        raise ConfigurationError(msg)
    if not secret:
        msg = "the list of secrets is empty; `filesession genkey` makes one"
        raise ConfigurationError(msg)
    return tuple(_key(one) for one in secret)


def _key(secret: object) -> bytes:
    if not isinstance(secret, (str, bytes)):
        msg = f"a secret must be text or bytes, not {type(secret).__name__}"
        raise ConfigurationError(msg)
    if not secret:
        msg = "a secret is empty: anyone could sign with it; `filesession genkey` makes one"
        raise ConfigurationError(msg)
    try:
        return secret.encode() if isinstance(secret, str) else secret
    except UnicodeEncodeError:
        msg = "a secret holds a lone surrogate, which has no UTF-8 form; pass it as bytes"
        raise ConfigurationError(msg) from None  # the cause carries the secret
