"""Encrypted cookies against those of the real npm package, and against forgers."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesession.cookies import EncryptedCookie
from filesession.cookies.header import cookie_values
from filesession.cookies.sealing import LARGEST, SealedSessions
from filesession.errors import ConfigurationError, CookieTooLarge, EncodeError
from filesession.keyring import Keyring
from filesession.testing import ManualClock

VECTORS: Final = json.loads(
    (Path(__file__).parents[1] / "vectors" / "secure_session.json").read_text("utf-8")
)

NOW: Final = 1_795_321_300
"""POSIX seconds: a moment at which the vectors' cookies were good."""

KEY: Final = bytes(range(32))
OTHER: Final = b"\xa5" * 32


def the_cookie(key: Any = KEY, now: float = NOW, **options: Any) -> EncryptedCookie:
    return EncryptedCookie(key, clock=ManualClock(now), **options)


def content(cookie: EncryptedCookie, value: str) -> Any:
    """What is in a box, with its time."""
    found = cookie.decrypted(value)
    assert found is not None
    return json.loads(found[0])


def boxed(plaintext: str, key: bytes = KEY) -> str:
    """A cookie's value with any text in its box."""
    return the_cookie(key).encrypted(plaintext.encode())


@pytest.mark.parametrize("vector", VECTORS["key_cookies"], ids=lambda vector: vector["nonce_hex"])
def test_it_reads_what_fastify_sealed(vector: dict[str, Any]) -> None:
    expected = json.loads(vector["plaintext"])
    cookie = the_cookie(bytes.fromhex(vector["key_hex"]), expected["__ts"])
    assert content(cookie, vector["cookie_value"]) == expected
    del expected["__ts"]
    assert cookie.open(vector["cookie_value"]) == expected


def test_a_value_comes_out_of_a_header_as_fastify_encoded_it() -> None:
    for vector in VECTORS["key_cookies"]:
        sent = vector.get("cookie_value_urlencoded", quote(vector["cookie_value"], safe=""))
        assert cookie_values(f"session={sent}", "session") == [vector["cookie_value"]]


@pytest.mark.parametrize(
    "vector", [*VECTORS["key_cookies"], *VECTORS["fixed_nonce"]], ids=lambda vec: vec["nonce_hex"]
)
def test_with_the_same_nonce_it_writes_the_same_bytes(
    vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nonce = bytes.fromhex(vector["nonce_hex"])
    monkeypatch.setattr("secrets.token_bytes", lambda size: nonce[:size])
    plaintext = vector["plaintext"].encode()
    cookie = the_cookie(bytes.fromhex(vector["key_hex"]))
    assert cookie.encrypted(plaintext) == vector["cookie_value"]


def test_what_it_writes_is_a_new_session_of_fastifys_byte_for_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (vector,) = VECTORS["fixed_nonce"]
    monkeypatch.setattr("secrets.token_bytes", lambda size: b"\x07" * size)
    value = the_cookie(now=1_700_000_000.4).seal({"foo": "bar"})
    as_new = json.dumps({"__ts": 1_700_000_000, "foo": "bar"}, separators=(",", ":"))
    assert value == the_cookie().encrypted(as_new.encode())
    assert len(value) == len(vector["cookie_value"])


@pytest.mark.parametrize("vector", VECTORS["secret_salt"], ids=lambda vector: vector["salt_hex"])
def test_a_secret_gives_the_key_that_fastify_makes_of_it(
    vector: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    salt = vector["salt_option"]
    if isinstance(salt, dict):
        salt = bytes.fromhex(salt["hex"])
    cookie = EncryptedCookie(secret=vector["secret"], salt=salt, clock=ManualClock(NOW))
    expected = json.loads(vector["plaintext"])
    assert content(cookie, vector["cookie_value"]) == expected
    derived = the_cookie(bytes.fromhex(vector["derived_key_hex"]))
    assert derived.open(cookie.seal({"n": 1})) == {"n": 1}
    assert [said.levelname for said in caplog.records] == (["WARNING"] if salt is None else [])
    assert "16 random bytes" in caplog.text or salt is not None


@pytest.mark.parametrize("vector", VECTORS["rotation"], ids=["by the older", "by the newest"])
def test_what_an_older_key_sealed_is_sealed_anew_with_its_time_kept(vector: dict[str, Any]) -> None:
    keys = [bytes.fromhex(key) for key in vector["keys_hex"]]
    sessions = SealedSessions(the_cookie(keys), "session")
    found = sessions.unsign(vector["cookie_value"])
    assert found is not None
    sid, newest = found
    assert newest is not vector["changed_after_decode"]
    assert (sid == vector["cookie_value"]) is newest
    assert content(the_cookie(keys[0]), sid) == json.loads(vector["plaintext"])


REFUSED_HERE: Final = {"plaintext [1]"}
"""What Fastify takes for a session: a box that holds no object is a new one here."""


@pytest.mark.parametrize("vector", VECTORS["decode_failures"], ids=lambda vector: vector["case"])
def test_it_refuses_and_lets_in_what_fastify_does(vector: dict[str, Any]) -> None:
    found = the_cookie(bytes.fromhex(vector["key_hex"])).open(vector["cookie_value"])
    expected = vector["result"]
    if isinstance(expected, str):
        assert expected.startswith("THROWS")  # a 500 there
        expected = None
    assert found == (None if vector["case"] in REFUSED_HERE else expected)


@pytest.mark.parametrize("vector", VECTORS["expiry"], ids=lambda vector: str(vector.get("__ts")))
def test_it_is_good_for_as_long_as_with_fastify(vector: dict[str, Any]) -> None:
    if "note" in vector:
        assert the_cookie().open(boxed('{"n":1}')) == {"n": 1}
        return
    cookie = the_cookie(now=vector["now_seconds"], expiry=vector["expiry_option"])
    found = cookie.open(boxed(json.dumps({"__ts": vector["__ts"], "n": 1})))
    assert found == ({"n": 1} if vector["accepted"] else None)


class TestSigned:
    """Cookies with ``signed: true``, which @fastify/cookie signs on top."""

    SIGNED: Final = next(
        vector["raw_signed_value"]
        for vector in VECTORS["setCookieHeaders"]
        if vector["label"] == "signed"
    )

    def test_a_good_signature_is_let_in_and_none_is_needed(self) -> None:
        assert the_cookie().open(self.SIGNED) == {"foo": "bar"}
        assert the_cookie().open(self.SIGNED.rpartition(".")[0]) == {"foo": "bar"}

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
            lambda text: text[:-1],
            lambda text: text.rpartition(".")[0] + ".",
            lambda text: text + "=",
            lambda text: text + "\u00e9",
        ],
    )
    def test_a_bad_signature_is_refused(self, spoil: Any) -> None:
        assert the_cookie().open(spoil(self.SIGNED)) is None

    def test_it_may_be_by_any_key_or_the_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        by_other = signed(boxed('{"n":1}', OTHER), Keyring(OTHER).digests[0].hex())
        assert the_cookie([KEY, OTHER]).open(by_other) == {"n": 1}
        assert the_cookie().open(signed(boxed('{"n":1}'), OTHER.hex())) is None
        monkeypatch.setattr("filesession.cookies.sealing.key_from_secret", lambda *_: KEY)
        secret = "a secret of at least 32 characters"
        cookie = EncryptedCookie(secret=secret, salt="0123456789abcdef", clock=ManualClock(NOW))
        assert cookie.open(signed(boxed('{"n":1}'), secret)) == {"n": 1}
        assert cookie.open(signed(boxed('{"n":1}'), Keyring(KEY).digests[0].hex())) is None


def signed(value: str, secret: str) -> str:
    mac = hmac.digest(secret.encode(), value.encode(), "sha256")
    return f"{value}.{base64.b64encode(mac).decode().rstrip('=')}"


# -- time -----------------------------------------------------------------------------------------


def test_a_cookie_is_good_until_its_expiry_and_not_at_it() -> None:
    clock = ManualClock(NOW)
    cookie = EncryptedCookie(KEY, expiry=timedelta(minutes=15), clock=clock)
    value = cookie.seal({"n": 1})
    clock.advance(899.999)
    assert cookie.open(value) == {"n": 1}
    clock.advance(0.001)
    assert cookie.open(value) is None


@pytest.mark.parametrize(("now", "time"), [(10.4, 10), (10.5, 11), (11.5, 12), (11.49, 11)])
def test_the_time_is_rounded_as_javascript_rounds(now: float, time: int) -> None:
    cookie = the_cookie(now=now)
    assert content(cookie, cookie.seal({})) == {"__ts": time}


@pytest.mark.parametrize(
    ("ahead", "found"), [(0, {}), (60, {}), (900, {}), (901, None), (1e15, None)]
)
def test_a_time_ahead_is_believed_for_one_expiry_and_no_more(ahead: float, found: Any) -> None:
    assert the_cookie(expiry=900).open(boxed(json.dumps({"__ts": NOW + ahead}))) == found


@pytest.mark.parametrize("time", ["1795321300", None, True, [NOW], {}, -1])
def test_a_time_that_is_none_is_refused(time: Any) -> None:
    assert the_cookie().open(boxed(json.dumps({"__ts": time, "n": 1}))) is None


@pytest.mark.parametrize("expiry", [0, -1, None, float("inf"), float("nan"), "900", True])
def test_an_expiry_is_a_time_with_an_end(expiry: Any) -> None:
    with pytest.raises(ConfigurationError, match="expiry must"):
        EncryptedCookie(KEY, expiry=expiry)


# -- the options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "needs a key, and `filesession genkey` makes one; or a secret"),
        ({"key": KEY, "secret": "x" * 32}, "leave one of them out"),
        ({"key": KEY, "salt": "0123456789abcdef"}, "salt goes with a secret"),
        ({"salt": "0123456789abcdef"}, "needs a key"),
    ],
    ids=["nothing", "both", "a salt for a key", "a salt alone"],
)
def test_it_takes_a_key_or_a_secret(options: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        EncryptedCookie(**options)


# -- what is in the box ---------------------------------------------------------------------------


@pytest.mark.parametrize("plaintext", ["", "null", "[1]", '"text"', "{", '{"a":1}x', "\0"])
def test_a_box_that_holds_no_object_is_no_session(plaintext: str) -> None:
    cookie, value = the_cookie([OTHER, KEY]), boxed(plaintext)
    assert cookie.open(value) is None
    sessions = SealedSessions(cookie, "sid")
    found = sessions.unsign(value)
    assert found is not None
    assert sessions.load(found[0]) is None


@pytest.mark.parametrize("key", ["__ts", "__cookie"])
def test_keys_that_the_box_needs_are_refused(key: str) -> None:
    cookie = the_cookie()
    with pytest.raises(EncodeError, match=f"session data at {key}: "):
        cookie.seal({key: 1})
    data = {"nested": {key: 1}, "text": f'"{key}"'}
    assert cookie.open(cookie.seal(data)) == data


# -- how large it may be --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sid", "__Host-a.longer-name"])
def test_it_fills_4096_bytes_of_name_and_value_and_not_one_more(name: str) -> None:
    sessions = SealedSessions(the_cookie(), name)
    fits = 0
    for length in range(2900, 3100):
        try:
            value = sessions.sign(sessions.create({"text": "x" * length, "n": 1}).id)
        except CookieTooLarge as error:
            refused = error
            break
        fits = len(name) + len(value)
    assert LARGEST - 4 < fits <= LARGEST
    assert (refused.name, refused.most, refused.largest) == (name, 4096, "text")
    assert refused.size == fits + 4
    assert f"{name!r}: {fits + 4} bytes of name and value, where browsers keep 4096" in str(refused)


def test_one_that_no_browser_sent_is_read_and_not_sealed_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cookie = the_cookie([OTHER, KEY])
    value = boxed(json.dumps({"__ts": NOW, "text": "x" * 5000}))
    sessions = SealedSessions(cookie, "sid")
    assert sessions.unsign(value) == (value, True)
    assert "too large to be sealed with the new key" in caplog.text
    assert cookie.open(value) == {"text": "x" * 5000}


# -- anything -------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)  # fmt: skip


keys = st.text(max_size=5).filter(lambda key: key not in {"__ts", "__cookie"})


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(keys, json_values, max_size=4))
def test_what_goes_in_comes_back(data: dict[str, Any]) -> None:
    cookie = the_cookie()
    value = cookie.seal(data)
    assert cookie.open(value) == data
    (carried,) = cookie_values(f"sid={SealedSessions(cookie, 'sid').sign(value)}", "sid")
    assert carried == value


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60) | st.text("AQg=-_+/;.%\u00e9\ud800 ", max_size=90))
def test_any_text_is_refused_and_raises_nothing(value: str) -> None:
    assert the_cookie().open(value) is None
    assert SealedSessions(the_cookie([OTHER, KEY]), "sid").unsign(value) is None


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_with_any_bit_of_it_flipped_a_value_is_refused(data: st.DataObject) -> None:
    value = the_cookie().seal({"user": "ada"}).encode()
    at = data.draw(st.integers(0, len(value) * 8 - 1))
    spoiled = bytearray(value)
    spoiled[at // 8] ^= 1 << at % 8
    assert the_cookie().open(spoiled.decode("latin-1")) is None
