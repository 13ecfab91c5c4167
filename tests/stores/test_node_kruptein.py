"""Session files that kruptein encrypted, as the real package wrote them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from filesession.errors import ConfigurationError
from filesession.stores.node.kruptein import Kruptein

CASES: Final = json.loads(
    (Path(__file__).parents[1] / "vectors" / "session_file_store.json").read_text("utf-8")
)["encrypted"]

GCM, CBC = CASES[0], CASES[4]

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_what_it_wrote_is_opened_with_its_secret_and_no_other(case: dict[str, Any]) -> None:
    text = case["file_text"].encode()
    kruptein = Kruptein(case["secret"].encode())
    for _ in range(2):  # the second time with what it learned of the app's options
        opened = kruptein.opened(text)
        assert opened is not None
        assert json.loads(opened) == case["session"]
    assert Kruptein(b"another").opened(text) is None


CHANGES: Final[dict[str, Change]] = {
    "ct": lambda sealed: sealed.update(ct=sealed["ct"][::-1]),
    "hmac": lambda sealed: sealed.update(hmac=sealed["hmac"][::-1]),
    "a short hmac": lambda sealed: sealed.update(hmac=""),
    "hmac that is no bytes": lambda sealed: sealed.update(hmac="\u4e16"),
    "salt": lambda sealed: sealed["salt"]["data"].reverse(),
    "salt that is no bytes": lambda sealed: sealed["salt"].update(data=[256]),
    "iv": lambda sealed: sealed["iv"].update(data=[]),
    "no ct": lambda sealed: sealed.pop("ct"),
    "no salt": lambda sealed: sealed.update(salt=None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("case", [GCM, CBC], ids=["gcm", "cbc"])
def test_what_was_changed_is_not_opened(case: dict[str, Any], change: Change) -> None:
    sealed = json.loads(case["file_text"])
    change(sealed)
    assert Kruptein(case["secret"].encode()).opened(json.dumps(sealed).encode()) is None


@pytest.mark.parametrize("name", ["aad", "at", "iv"])
def test_what_the_tag_covers_cannot_be_changed(name: str) -> None:
    sealed = json.loads(GCM["file_text"])
    if name == "aad":
        sealed[name] = sealed[name][::-1]
    else:
        sealed[name]["data"].reverse()
    assert Kruptein(GCM["secret"].encode()).opened(json.dumps(sealed).encode()) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"cookie":{},"a":1}'])
def test_what_is_not_encrypted_is_not_opened(text: bytes) -> None:
    assert Kruptein(b"squirrel").opened(text) is None


def test_without_cryptography_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'filesession\[kruptein\]'"):
        Kruptein(b"squirrel")
