"""Keys: what is one, what is refused as one, and that none is ever shown."""

from __future__ import annotations

import base64
import builtins
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from filesession import keyring
from filesession.cli.command import commands
from filesession.cookies import EncryptedCookie
from filesession.encryption import EncryptedCodec
from filesession.errors import ConfigurationError
from filesession.keyring import Keyring, encoded, key_from_secret, unpadded

KEY = bytes(range(200, 232))
OTHER = b"\xa5" * 32
STANDARD = base64.b64encode(KEY).decode()
URL_SAFE = base64.urlsafe_b64encode(KEY).decode()


def opens(ring: Keyring, key: Any) -> bool:
    """Whether a ring opens what that key sealed."""
    return ring.open(*Keyring(key).seal(b"text")) is not None


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        STANDARD,
        STANDARD.rstrip("="),
        URL_SAFE,
        URL_SAFE.rstrip("="),
        f"{STANDARD}\n",
        f"{STANDARD}\n".encode(),
    ],
    ids=["raw", "base64", "unpadded", "url-safe", "url-safe, unpadded", "a line", "a line's bytes"],
)
def test_a_key_is_32_bytes_or_their_base64(key: str | bytes) -> None:
    assert opens(Keyring(KEY), key)
    assert opens(Keyring([OTHER, key]), KEY)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (b"", "this one is base64 of 0 bytes"),
        (KEY[:31], "this one is 31 bytes"),
        (KEY + b"\n", "this one is 33 bytes"),
        ("", "this one is base64 of 0 bytes"),
        ("correct horse battery staple", "this one is text that is not base64"),
        ("x" * 32, "this one is base64 of 24 bytes"),
        (KEY.hex(), "this one is base64 of 48 bytes"),
        (STANDARD[:-1] + "\u00e9", "this one is text that is not base64"),
        (STANDARD[:-2] + "1=", "this one is text that is not base64"),
        (f"{STANDARD} {STANDARD}", "this one is text that is not base64"),
        (bytes(32), "zeros"),
        (base64.b64encode(bytes(32)).decode(), "zeros"),
        ([], "the list of keys is empty"),
        (32, "not int"),
        ({KEY}, "not set"),
        ([KEY, 7], "not int"),
        ([KEY, None], "not NoneType"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("made", [Keyring, EncryptedCookie, EncryptedCodec])
def test_what_is_no_key_is_refused_and_not_shown(made: Any, key: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as refused:
        made(key)
    said = str(refused.value)
    assert STANDARD[:10] not in said
    assert KEY.hex()[:10] not in said
    assert "horse" not in said
    with pytest.raises(ConfigurationError, match="key"):
        made([KEY, key] if not isinstance(key, list) else [KEY, *key, b"short"])


def test_what_genkey_makes_is_a_key(tmp_path: Path) -> None:
    printed = CliRunner().invoke(commands, ["genkey"]).stdout
    file = tmp_path / "key"
    CliRunner().invoke(commands, ["genkey", "-o", str(file)])
    for key in (printed, printed.encode(), file.read_bytes()):
        assert opens(Keyring([OTHER, key]), key)
        assert EncryptedCookie(key).open(EncryptedCookie(key).seal({"n": 1})) == {"n": 1}


def test_the_newest_key_seals_and_every_one_opens() -> None:
    ring = Keyring([KEY, OTHER])
    assert ring.open(*ring.seal(b"text")) == (b"text", True)
    assert ring.open(*Keyring(OTHER).seal(b"text")) == (b"text", False)
    assert Keyring(KEY).open(*ring.seal(b"text")) == (b"text", True)
    assert Keyring(OTHER).open(*ring.seal(b"text")) is None
    kept = Keyring(OTHER).seal_at(b"here", b"text")
    assert ring.open_at(b"here", kept) == b"text"
    assert Keyring(OTHER).open_at(b"here", ring.seal_at(b"here", b"text")) is None


def test_what_is_sealed_for_one_place_opens_in_no_other() -> None:
    ring = Keyring(KEY)
    kept = ring.seal_at(b"here", b"text")
    assert ring.open_at(b"here", kept) == b"text"
    assert ring.open_at(b"there", kept) is None
    assert ring.open_at(b"", kept) is None


def test_a_cookies_seal_is_none_for_a_place_nor_the_other_way_round() -> None:
    ring = Keyring(KEY)
    box, nonce = ring.seal(b"text")
    assert ring.open_at(b"", nonce + box) is None
    kept = ring.seal_at(b"", b"text")
    assert ring.open(kept[24:], kept[:24]) is None


def test_no_nonce_comes_twice() -> None:
    ring = Keyring(KEY)
    assert len({ring.seal(b"")[1] for _ in range(50)}) == 50
    assert len({ring.seal_at(b"", b"")[:24] for _ in range(50)}) == 50


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    ring = Keyring(KEY)
    text = data.draw(st.binary(max_size=40))
    box, nonce = ring.seal(text)
    sealed, kept = nonce + box, ring.seal_at(b"here", text)
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    for whole in (bytearray(sealed), bytearray(kept)):
        whole[at // 8] ^= 1 << at % 8
        assert ring.open(bytes(whole[24:]), bytes(whole[:24])) is None
        assert ring.open_at(b"here", bytes(whole)) is None


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=40))
def test_any_bytes_are_refused(one: bytes, other: bytes) -> None:
    ring = Keyring(KEY)
    assert ring.open(one, other) is None
    assert ring.open_at(other, one) is None


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=40), st.data())
def test_base64_has_one_spelling_in_each_alphabet(found: bytes, data: st.DataObject) -> None:
    text = encoded(found)
    for spelled in (text, text.rstrip("="), text.replace("+", "-").replace("/", "_")):
        assert unpadded(spelled) == found
    if text:
        at = data.draw(st.integers(0, len(text) - 1))
        other = data.draw(st.characters(max_codepoint=255).filter(lambda char: char != text[at]))
        spoiled = unpadded(text[:at] + other + text[at + 1 :])
        assert spoiled != found or {text[at], other} in ({"+", "-"}, {"/", "_"})


def test_nothing_shows_a_key() -> None:
    ring = Keyring([KEY, OTHER])
    for shown in (repr(ring), repr(EncryptedCookie(KEY)), repr(EncryptedCodec([KEY]))):
        assert "keys: " in shown
        assert STANDARD not in shown
        assert str(KEY)[2:-1] not in shown


@pytest.mark.parametrize(
    ("secret", "salt", "why"),
    [
        ("x" * 31, b"0123456789abcdef", "at least 32 bytes, this one 31"),
        (b"", b"0123456789abcdef", "at least 32 bytes, this one 0"),
        ("\ud800" * 32, b"0123456789abcdef", "surrogate"),
        (["x" * 32], b"0123456789abcdef", "several keys go to key="),
        ("x" * 32, b"0123456789abcde", "salt must be 16 bytes"),
        ("x" * 32, "0123456789abcdefg", "salt must be 16 bytes"),
        ("x" * 32, "0123456789abcde\u00e9", "salt must be 16 bytes"),
        ("x" * 32, 16, "salt must be 16 bytes"),
    ],
)
def test_a_secret_or_salt_of_the_wrong_kind_is_refused(secret: Any, salt: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        key_from_secret(secret, salt)
    with pytest.raises(ConfigurationError, match=why):
        EncryptedCookie(secret=secret, salt=salt)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refusing(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == "nacl":
            raise ModuleNotFoundError(name)
        return load(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refusing)
    for make in (
        lambda: Keyring(KEY),
        lambda: EncryptedCookie(KEY),
        lambda: EncryptedCodec(KEY),
        lambda: key_from_secret("x" * 32, b"0123456789abcdef"),
    ):
        with pytest.raises(ConfigurationError, match=r"pip install 'filesession\[encrypted\]'"):
            make()


def test_the_derived_key_is_that_of_libsodiums_kdf() -> None:
    """Made with crypto_kdf_derive_from_key(32, 1, "filesess", key) of sodium-native 5.1."""
    assert (
        keyring._derived(KEY).hex()
        == "d8a34e18b99196566a78f2c95403e14d3a8e7123cbe04d0bd5ee01959116ccfb"
    )
