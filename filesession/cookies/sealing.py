"""The whole session in its cookie, encrypted as @fastify/secure-session does, byte for byte.

    <base64 of the box>;<base64 of its nonce>[.<signature>]

In the box, an XSalsa20-Poly1305 of libsodium, is a JSON object: the data, ``__ts``, the POSIX
seconds of the last change or touch, and ``__cookie`` where the session has cookie attributes of its
own; to Fastify that is one more key.

Rules:

1. A cookie is good while ``__ts + expiry`` is in the future. One without ``__ts`` counts from now,
   as in Fastify. One whose ``__ts`` is further ahead than ``expiry`` is refused, unlike there: no
   clock that went wrong makes a cookie live longer than twice its expiry.
2. What an older key opened is sealed with the newest one in this response, its ``__ts`` unchanged.
3. Any other value than the one that was written for a box is refused; but the URL-safe alphabet,
   missing padding and a third part are let in, as in Fastify, whose signature is verified when
   there is one, and never needed: the box is authenticated.
4. A box that opens and holds no JSON object is a new session. Fastify answers 500.
"""

from __future__ import annotations

import logging
import math
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest, digest
from typing import Any, Final, NoReturn

from filesession.clock import Clock, system_clock
from filesession.codec import JSONCodec, dump_object, load_object
from filesession.errors import ConfigurationError, CookieTooLarge, EncodeError
from filesession.keyring import (
    MAC_BYTES,
    Key,
    Keyring,
    encoded,
    key_from_secret,
    unpadded,
)
from filesession.lifetime import UNSET, Timeout, Unsettable, seconds
from filesession.record import NO_OVERRIDES, SessionRecord
from filesession.stores.entry import Conflict

_log = logging.getLogger("filesession.cookies")

LARGEST: Final = 4096
"""Bytes of name and value, after which browsers drop a cookie (RFC 6265bis, 5.6). Attributes are
counted by themselves there, and ours are short."""

FASTIFYS_SALT: Final = bytes.fromhex("9aaf610f10550dbb290d1ea72df153d6")
"""What @fastify/secure-session uses when it is given none."""

_AROUND: Final = len("%3B") + 32
"""Bytes of a value beside the box: what stands for the semicolon, and the nonce."""

_TIME: Final = "__ts"
_COOKIE: Final = "__cookie"

_PLAIN: Final = JSONCodec()


class EncryptedCookie:
    """In place of a store: the session travels in its cookie, encrypted and authenticated.

    Nothing is kept on the server. So a session cannot be ended there: a copied cookie is good until
    it expires, also after ``destroy()``; of two requests that change it at once one change is lost;
    and it holds about 3,000 bytes of JSON. ``session.id`` is None.

    The cookies are those of @fastify/secure-session with the same key, or secret and salt, under
    the same cookie name and path.

    Args:
        key: 32 bytes, their base64, or several of these: the newest first, which seals, and every
            one opens.
        secret: in place of a key: at least 32 bytes it is made of, which takes a second and 256 MiB
            once. For rotation hand ``key_from_secret`` of an old one to ``key``.
        salt: of the secret: 16 bytes, or as many ASCII characters; None: Fastify's, which is the
            same for all, so that guesses at weak secrets can be made for all at once.
        expiry: seconds or ``timedelta`` a cookie is good for after the last change or touch.
        clock: gives POSIX seconds.

    Raises:
        ConfigurationError: a value is wrong, or PyNaCl is not installed.
    """

    def __init__(
        self,
        key: Key | Sequence[Key] | None = None,
        *,
        secret: str | bytes | None = None,
        salt: str | bytes | None = None,
        expiry: Timeout = 86401,
        clock: Clock | None = None,
    ) -> None:
        lasting = seconds("expiry", expiry)
        if lasting is None:
            msg = "expiry must have an end: a copied cookie would be good for ever"
            raise ConfigurationError(msg)
        self.expiry: float = lasting
        self.clock = system_clock if clock is None else clock
        self._keyring, self._signing = _keyring(key, secret, salt)

    def __repr__(self) -> str:
        """Without the keys, as tracebacks and logs print it."""
        return f"{type(self).__name__}({self._keyring!r})"

    def seal(self, data: Mapping[str, Any]) -> str:
        """The value of a cookie with that data, good from now on; not yet percent-encoded.

        Raises:
            EncodeError: the data cannot be stored exactly.
        """
        return self.encrypted(_packed(_PLAIN.encode(data), _rounded(self.clock()), NO_OVERRIDES))

    def open(self, value: str) -> dict[str, Any] | None:
        """The data in a cookie's value, percent-decoded; None when it is none of ours, or too old.

        Never raises, whatever the text.
        """
        found = self.decrypted(value)
        contents = None if found is None else _unpacked(found[0], self.clock(), self.expiry)
        return None if contents is None else contents.data

    def encrypted(self, plaintext: bytes) -> str:
        """A cookie's value around a text, not yet percent-encoded."""
        box, nonce = self._keyring.seal(plaintext)
        return f"{encoded(box)};{encoded(nonce)}"

    def decrypted(self, value: str) -> tuple[bytes, bool] | None:
        """The text in a cookie's value, and whether the newest key sealed it; None: none did."""
        if "." in value:  # which no base64 has
            value, _, mac = value.rpartition(".")
            if not self._has_signed(value, mac):
                return None
        box, semicolon, rest = value.partition(";")
        if not semicolon:
            return None
        boxed, nonce = unpadded(box), unpadded(rest.partition(";")[0])
        return None if boxed is None or nonce is None else self._keyring.open(boxed, nonce)

    def _has_signed(self, value: str, mac: str) -> bool:
        """Whether it is a signature of @fastify/cookie's, whose secret Fastify takes from ours."""
        try:
            message, given = value.encode("ascii"), mac.encode("ascii")
        except UnicodeEncodeError:
            return False
        return any(compare_digest(_mac(secret, message), given) for secret in self._signing)


class SealedSessions:
    """What answers a session's store calls and makes its cookie, for cookies of one name.

    No I/O, and nothing is kept between two calls: a session's id is its cookie's value, another one
    with each save.
    """

    def __init__(self, cookie: EncryptedCookie, name: str) -> None:
        self._cookie = cookie
        self._name = name
        self.codec = _PLAIN

    def unsign(self, value: str) -> tuple[str, bool] | None:
        """The id in a cookie's value, and whether the newest key sealed it; None: none did.

        Never raises, whatever the text. What an older key sealed is sealed anew.
        """
        found = self._cookie.decrypted(value)
        if found is None:
            return None
        plaintext, newest = found
        contents = None if newest else self._unpacked(plaintext)
        if contents is None:
            return _Value.of(value, plaintext), True
        plaintext = _packed(_PLAIN.encode(contents.data), contents.time, contents.cookie)
        size = self._size(plaintext)
        if size > LARGEST:  # it came from no browser
            _log.warning("a cookie of %d bytes is too large to be sealed with the new key", size)
            return _Value.of(value, plaintext), True
        return _Value.of(self._cookie.encrypted(plaintext), plaintext), False

    def sign(self, sid: str) -> str:
        """The cookie's value for an id, percent-encoded as far as it must be.

        That is not as far as ``encodeURIComponent`` goes: how long a cookie is would be a matter of
        chance.
        """
        return sid.replace(";", "%3B")

    def load(self, sid: str) -> SessionRecord | None:
        """The session in a cookie that was opened or made here; None: it is over, or holds none."""
        contents = self._unpacked(_plaintext(sid))
        return None if contents is None else self._record(sid, contents)

    def create(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        sid: str | None = None,  # noqa: ARG002 - it has none but its cookie's value
        idle_timeout: Timeout | None = None,
        absolute_timeout: Timeout | None = None,  # noqa: ARG002 - no session asks for one
        cookie: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """A new session, good from now on; as ``Store.create``.

        Raises:
            CookieTooLarge: it does not fit.
            EncodeError: the data cannot be stored exactly.
            ConfigurationError: it is to have an idle timeout of its own.
        """
        return self._made({} if data is None else data, cookie or NO_OVERRIDES, idle_timeout)

    def save(
        self,
        sid: str,  # noqa: ARG002 - what is there is in the browser
        data: Mapping[str, Any],
        *,
        base: SessionRecord | None = None,
        conflict: Conflict = "merge",  # noqa: ARG002 - what other requests save is not known
        idle_timeout: Timeout | Unsettable | None = UNSET,
        cookie: Mapping[str, Any] | Unsettable = UNSET,
    ) -> SessionRecord:
        """The session with that data, good from now on, its id another. Raises as ``create``."""
        if cookie is UNSET:
            cookie = NO_OVERRIDES if base is None else base.cookie
        return self._made(data, cookie, None if idle_timeout is UNSET else idle_timeout)

    def regenerate(
        self,
        sid: str,
        data: Mapping[str, Any],
        *,
        new_sid: str | None = None,  # noqa: ARG002 - as for create
        **keywords: Any,  # noqa: ANN401 - those of save
    ) -> SessionRecord:
        """As ``save``: there is no identity to change."""
        return self.save(sid, data, **keywords)

    def touch(self, sid: str, *, base: SessionRecord | None = None) -> bool:  # noqa: ARG002
        """True: it is there; that it was used is written nowhere."""
        return True

    def delete(self, sid: str) -> bool:  # noqa: ARG002
        """True: what there is to delete is in the browser."""
        return True

    def without_waiting(self) -> SealedSessions:
        """The same: nothing here waits."""
        return self

    def lock(self, sid: str, *, timeout: float) -> NoReturn:  # noqa: ARG002
        """Raises ``ConfigurationError``."""
        msg = (
            "a session in an EncryptedCookie cannot be locked: each request has a copy of its own;"
            " use a FileStore for what must be exact"
        )
        raise ConfigurationError(msg)

    def _made(
        self, data: Mapping[str, Any], cookie: Mapping[str, Any], idle: Timeout | None
    ) -> SessionRecord:
        if idle is not None:
            msg = (
                "session.idle_timeout cannot be set: EncryptedCookie(expiry=...) is for all of its"
                " sessions; session.cookie.max_age is how long a browser keeps this one"
            )
            raise ConfigurationError(msg)
        text, time = _PLAIN.encode(data), _rounded(self._cookie.clock())
        plaintext = _packed(text, time, cookie)
        size = self._size(plaintext)
        if size > LARGEST:
            largest = max(data, key=lambda key: len(_PLAIN.encode({key: data[key]})), default="")
            raise CookieTooLarge(self._name, size, LARGEST, largest)
        sid = _Value.of(self._cookie.encrypted(plaintext), plaintext)
        return self._record(sid, _Contents(_PLAIN.decode(text), time, cookie), text)

    def _size(self, plaintext: bytes) -> int:
        """Bytes of name and value of the cookie around a text."""
        return len(self._name) + _AROUND + 4 * math.ceil((len(plaintext) + MAC_BYTES) / 3)

    def _unpacked(self, plaintext: bytes) -> _Contents | None:
        return _unpacked(plaintext, self._cookie.clock(), self._cookie.expiry)

    def _record(self, sid: str, contents: _Contents, text: bytes = b"") -> SessionRecord:
        expiry, time = self._cookie.expiry, contents.time
        return SessionRecord(
            id=sid,
            data=contents.data,
            version=1,
            created_at=time,  # which is not known, and not told
            accessed_at=time,
            expires_at=time + expiry,
            idle_timeout=expiry,
            absolute_timeout=None,
            cookie=contents.cookie,
            encoded=text,
        )


class _Value(str):
    """A cookie's value, with what is in its box."""

    __slots__ = ("plaintext",)

    plaintext: bytes

    @classmethod
    def of(cls, value: str, plaintext: bytes) -> _Value:
        made = cls(value)
        made.plaintext = plaintext
        return made


def _plaintext(sid: str) -> bytes:
    assert isinstance(sid, _Value)
    return sid.plaintext


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is in a box.

    Attributes:
        data: the session's.
        time: POSIX seconds of the last change or touch.
        cookie: the cookie attributes of its own.
    """

    data: dict[str, Any]
    time: float
    cookie: Mapping[str, Any]


def _packed(text: bytes, time: float, cookie: Mapping[str, Any]) -> bytes:
    """The text of a box: the time first, as in Fastify's new sessions, then the data's text.

    Raises:
        EncodeError: the data has a key that is ours.
    """
    own: dict[str, Any] = {_TIME: time, _COOKIE: dict(cookie)} if cookie else {_TIME: time}
    for key in (_TIME, _COOKIE):
        if key.encode() in text and key in load_object(text):
            raise EncodeError(key, "an EncryptedCookie has a use of its own for that key")
    return dump_object(own)[:-1] + (b"," + text[1:] if len(text) > len("{}") else b"}")


def _unpacked(plaintext: bytes, now: float, expiry: float) -> _Contents | None:
    """What is in a box; None when its time is over, or that is no session."""
    try:
        data = load_object(plaintext)
    except ValueError:
        _log.info("a cookie was opened that holds no JSON object: it is taken for none")
        return None
    time, cookie = data.pop(_TIME, _rounded(now)), data.pop(_COOKIE, None)
    if type(time) not in {int, float} or not now < time + expiry or time - now > expiry:
        return None
    return _Contents(data, time, cookie if isinstance(cookie, dict) else NO_OVERRIDES)


def _rounded(now: float) -> int:
    """Whole seconds, as JavaScript's ``Math.round`` has it."""
    return math.floor(now + 0.5)


def _mac(secret: bytes, message: bytes) -> bytes:
    """As @fastify/cookie signs."""
    return b2a_base64(digest(secret, message, "sha256"), newline=False).rstrip(b"=")


def _keyring(
    key: Key | Sequence[Key] | None, secret: str | bytes | None, salt: str | bytes | None
) -> tuple[Keyring, tuple[bytes, ...]]:
    """The keys, and the secrets that Fastify would sign with."""
    if secret is None:
        if key is None:
            msg = "an EncryptedCookie needs a key, and `filesession genkey` makes one; or a secret"
            raise ConfigurationError(msg)
        if salt is not None:
            msg = "salt goes with a secret; a key is used as it is"
            raise ConfigurationError(msg)
        ring = Keyring(key)
        return ring, tuple(found.hex().encode("ascii") for found in ring.digests)
    if key is not None:
        msg = (
            "an EncryptedCookie takes a key, or a secret that one is made of; leave one of them out"
        )
        raise ConfigurationError(msg)
    ring = Keyring(key_from_secret(secret, FASTIFYS_SALT if salt is None else salt))
    if salt is None:
        _log.warning(
            "EncryptedCookie(secret=...) without a salt has the one that all have who name none:"
            " give it 16 random bytes, or a key"
        )
    return ring, (secret.encode("utf-8") if isinstance(secret, str) else secret,)
