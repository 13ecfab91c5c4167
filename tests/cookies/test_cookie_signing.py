"""Signatures against those of the real npm package, and against forgers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.cookies import signing
from filesession.cookies.signing import Signer
from filesession.errors import ConfigurationError
from filesession.stores.entry import handle_of

VECTORS: Final = json.loads(
    (Path(__file__).parents[1] / "vectors" / "express_cookie_signature.json").read_text("utf-8")
)

SIGNER: Final = Signer("keyboard cat")
APPLE: Final = "s:apple.D8Y+pkTAmeR0PobOhY4G97PRW+j7bUnP/5m6/On1MCU"

sids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
secrets = st.one_of(
    st.binary(min_size=1), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
)
any_character = st.characters()


def secret_of(spec: dict[str, str]) -> str | bytes:
    return spec["utf8"] if "utf8" in spec else bytes.fromhex(spec["hex"])


def label(vector: dict[str, Any]) -> str:
    return ascii(vector.get("id", vector.get("value")))[:30]


@pytest.mark.parametrize("vector", VECTORS["sign"], ids=label)
def test_signs_as_express_does(vector: dict[str, Any]) -> None:
    assert Signer(secret_of(vector["secret"])).sign(vector["id"]) == vector["rawCookieValue"]


@pytest.mark.parametrize("vector", VECTORS["sign"], ids=label)
def test_reads_what_express_signed_except_an_empty_id(vector: dict[str, Any]) -> None:
    found = Signer(secret_of(vector["secret"])).unsign(vector["rawCookieValue"])
    assert found == ((vector["id"], True) if vector["id"] else None)


@pytest.mark.parametrize("vector", VECTORS["unsign"], ids=label)
def test_accepts_and_refuses_as_express_does(vector: dict[str, Any]) -> None:
    found = Signer(secret_of(vector["secret"])).unsign(f"s:{vector['value']}")
    assert found == ((vector["result"], True) if vector["result"] else None)


@pytest.mark.parametrize("vector", VECTORS["rotation"], ids=lambda vector: vector["signedWith"])
def test_says_whether_the_newest_secret_signed(vector: dict[str, Any]) -> None:
    expected = {-1: None, 0: ("abc", True), 1: ("abc", False), 2: ("abc", False)}
    found = Signer(vector["secrets"]).unsign(f"s:{vector['value']}")
    assert found == expected[vector["acceptedByIndex"]]


@pytest.mark.parametrize("sid", VECTORS["idFormat"]["samples"])
def test_an_id_as_express_makes_them_is_one_here(sid: str) -> None:
    assert len(sid) == VECTORS["idFormat"]["length"]
    assert SIGNER.unsign(SIGNER.sign(sid)) == (sid, True)
    assert handle_of(sid) is not None


@given(sids, secrets)
def test_what_was_signed_is_read_back(sid: str, secret: str | bytes) -> None:
    signer = Signer(secret)
    assert signer.unsign(signer.sign(sid)) == (sid, True)


@given(sids, st.binary(min_size=1))
def test_the_signature_is_the_one_of_rfc_2104(sid: str, secret: bytes) -> None:
    mac = hmac.new(secret, sid.encode(), hashlib.sha256).digest()
    assert Signer(secret).sign(sid) == f"s:{sid}.{base64.b64encode(mac).decode().rstrip('=')}"


@given(st.data())
def test_any_changed_character_is_refused(data: st.DataObject) -> None:
    value = SIGNER.sign(data.draw(sids))
    at = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(any_character.filter(lambda character: character != value[at]))
    assert SIGNER.unsign(value[:at] + other + value[at + 1 :]) is None


@given(st.data())
def test_any_inserted_character_is_refused(data: st.DataObject) -> None:
    value = SIGNER.sign(data.draw(sids))
    at = data.draw(st.integers(0, len(value)))
    assert SIGNER.unsign(value[:at] + data.draw(any_character) + value[at:]) is None


@given(st.data())
def test_any_missing_character_is_refused(data: st.DataObject) -> None:
    value = SIGNER.sign(data.draw(sids))
    at = data.draw(st.integers(0, len(value) - 1))
    assert SIGNER.unsign(value[:at] + value[at + 1 :]) is None


@given(sids, st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_signature_moved_to_another_id_is_refused(sid: str, other: str) -> None:
    mac = SIGNER.sign(sid).rpartition(".")[2]
    assert (SIGNER.unsign(f"s:{other}.{mac}") is not None) == (other == sid)


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    assert SIGNER.unsign(text) is None
    assert SIGNER.unsign(f"s:{text}") is None
    assert SIGNER.unsign(f"s:apple.{text}") is None


@given(st.text(any_character, min_size=43, max_size=43))
def test_no_signature_of_the_right_length_makes_it_raise(mac: str) -> None:
    assert SIGNER.unsign(f"s:apple.{mac}") is None


@pytest.mark.parametrize(
    "value",
    [
        APPLE.removeprefix("s:"),
        APPLE.replace("s:", "S:"),
        APPLE.replace("s:", "j:"),
        f" {APPLE}",
        f"{APPLE} ",
        f"{APPLE}=",
        APPLE[:-1],
        APPLE.replace("+", "-").replace("/", "_"),
        "s:apple",
        "s:apple.",
        "s:",
        "s",
        "",
        "s:appl\udcff" + APPLE[7:],
        APPLE[:-1] + "\udcff",
        APPLE[:-1] + "é",
    ],
)
def test_what_express_never_wrote_is_refused(value: str) -> None:
    assert SIGNER.unsign(APPLE) == ("apple", True)
    assert SIGNER.unsign(value) is None


@pytest.mark.parametrize("last", "VWX")
def test_another_spelling_of_the_same_signature_bytes_is_refused(last: str) -> None:
    right = APPLE.rpartition(".")[2]
    other = right[:-1] + last
    assert base64.b64decode(other + "=") == base64.b64decode(right + "=")
    assert SIGNER.unsign(f"s:apple.{other}") is None


def test_the_first_secret_signs_and_all_verify() -> None:
    rotated = Signer(["newest", "old", b"oldest"])
    assert rotated.sign("a") == Signer("newest").sign("a")
    assert rotated.unsign(Signer("newest").sign("a")) == ("a", True)
    assert rotated.unsign(Signer("old").sign("a")) == ("a", False)
    assert rotated.unsign(Signer("oldest").sign("a")) == ("a", False)
    assert Signer("newest").unsign(Signer("old").sign("a")) is None


def test_a_secret_listed_twice_counts_as_the_newest() -> None:
    assert Signer(["a", "a"]).unsign(Signer("a").sign("x")) == ("x", True)


def test_text_and_its_utf_8_bytes_are_the_same_secret() -> None:
    assert Signer("пароль").sign("a") == Signer("пароль".encode()).sign("a")


def test_an_id_that_has_no_utf_8_form_cannot_be_signed() -> None:
    with pytest.raises(UnicodeEncodeError):
        SIGNER.sign("\ud800")


LONGEST: Final = "x" * 256


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The ids of which a digest is made from here on."""
    made: list[bytes] = []

    def noting(secret: bytes, message: bytes, name: str) -> bytes:
        made.append(message)
        return hmac.digest(secret, message, name)

    monkeypatch.setattr(signing, "digest", noting)
    return made


@pytest.mark.parametrize(
    "value",
    [
        "s:abc.",
        f"s:abc.{'x' * 42}",
        f"s:abc.{'x' * 44}",
        f"s:abc.{'x' * 4000}",
        f"s:{LONGEST}x.{'x' * 43}",
        f"s:{LONGEST * 16}.{'x' * 43}",
        f"s:.{'x' * 43}",
        f"s:abc{'x' * 43}",
        f"abc.{'x' * 43}",
    ],
    ids=lambda value: f"{value[:6]}, {len(value)}",
)
def test_what_cannot_be_signed_costs_no_digest(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    made = counted(monkeypatch)
    assert Signer(["a", "b"]).unsign(value) is None
    assert made == []


@pytest.mark.parametrize("sid", ["a", LONGEST, "\U0001f36a" * 256], ids=len)
def test_an_id_of_up_to_256_characters_is_verified(
    monkeypatch: pytest.MonkeyPatch, sid: str
) -> None:
    value = Signer("b").sign(sid)
    made = counted(monkeypatch)
    assert Signer(["a", "b"]).unsign(value) == (sid, False)
    assert made == [sid.encode()] * 2


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(expected: bytes, given: bytes) -> bool:
        compared.append((expected, given))
        return expected == given

    monkeypatch.setattr(signing, "compare_digest", compare)
    right = APPLE.rpartition(".")[2].encode()
    assert SIGNER.unsign(APPLE) == ("apple", True)
    assert SIGNER.unsign(APPLE[:-43] + "A" * 43) is None
    assert compared == [(right, right), (right, b"A" * 43)]


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (None, "not NoneType"),
        (5, "not int"),
        ({"secret"}, "not set"),
        (iter(["secret"]), "not list_iterator"),
        (bytearray(b"secret"), "not int"),
        (["secret", None], "not NoneType"),
        ([["secret"]], "not list"),
        ([], "empty"),
        ((), "empty"),
        ("", "empty"),
        (b"", "empty"),
        (["secret", ""], "empty"),
        ("tr\udcffs", "surrogate"),
    ],
)
def test_an_unusable_secret_is_refused(secret: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        Signer(secret)
    assert "tr\udcffs" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_repr_shows_how_many_secrets_but_none_of_them() -> None:
    assert repr(Signer(["hunter2", b"hunter3"])) == "<Signer, secrets: 2>"
    assert str(SIGNER) == "<Signer, secrets: 1>"


def test_nothing_can_be_hung_on_a_signer() -> None:
    with pytest.raises(AttributeError):
        SIGNER.extra = 1  # type: ignore[attr-defined]
