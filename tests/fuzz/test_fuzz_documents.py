"""The small files of a session directory, with members exchanged and with any bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filesession.stores.file.journal import sealed, seed_of
from tests.fuzz.documents import (
    HEARTBEAT,
    MANIFEST,
    NAMES,
    NOTE,
    REPORT,
    Documents,
    seeds,
)

MEANT: Final[dict[str, dict[str, Any]]] = {
    "filesession.json": MANIFEST,
    "janitor.json": HEARTBEAT,
    "moved": NOTE,
}

odd_values = (
    st.sampled_from(
        [None, True, 0, 1, 2, -1, 1.5, 1e308, 2**64 - 1, 2**64, "", "x", "nan", "-inf", "9" * 30]
    )
    | st.sampled_from([[], {}, [1], {"a": 1}, REPORT, "\u202e", "9" * 5000])
    | st.floats()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=5)
)


@st.composite
def changed(draw: st.DrawFn, name: str) -> bytes:
    """A document with some members exchanged, left out or added, most often as JSON."""
    members = dict(MEANT[name])
    if members.get("last_sweep") and draw(st.booleans()):
        key = draw(st.sampled_from([*REPORT, "other"]))
        members["last_sweep"] = REPORT | {key: draw(odd_values)}
    for key in draw(st.lists(st.sampled_from([*members, "other", "self"]), max_size=2)):
        members[key] = draw(odd_values)
    for key in draw(st.lists(st.sampled_from(sorted(members)), max_size=1)):
        del members[key]
    text = json.dumps(members).encode()
    at = draw(st.integers(-9 * len(text), len(text)))
    return text if at < 0 else text[:at] + draw(st.binary(max_size=2)) + text[at + 1 :]


keys = st.lists(st.sampled_from([b"0", b"\0", b" ", b"\n", b"\xff"]), max_size=3).flatmap(
    lambda parts: st.integers(0, 50).map(lambda times: b"".join(part * times for part in parts))
)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def documents(place: Path) -> Documents:
    return Documents(place)


def test_every_document_a_guided_run_begins_with_is_judged(documents: Documents) -> None:
    for seed in seeds():
        documents(seed)


@settings(max_examples=60, deadline=None)
@given(content=changed("filesession.json"))
@example(content=b"[" * 100_000)
@example(content=b"{}" + b" " * (1 << 20))
@example(content=b'{"format":1}')
@example(content=json.dumps(MANIFEST | {"durable": 1}).encode())
@example(content=json.dumps(MANIFEST | {"shard_depth": True}).encode())
@example(content=json.dumps(MANIFEST | {"idle_timeout": -1}).encode())
def test_a_manifest_serves_or_is_refused_with_words_and_left(
    documents: Documents, content: bytes
) -> None:
    documents.check("filesession.json", content)


@settings(max_examples=40, deadline=None)
@given(content=changed("janitor.json"))
@example(content=json.dumps(HEARTBEAT | {"pid": "9" * 30}).encode())
@example(content=json.dumps(HEARTBEAT | {"last_sweep": "none"}).encode())
@example(content=json.dumps(HEARTBEAT | {"last_sweep": REPORT | {"expired": "2"}}).encode())
@example(content=json.dumps(HEARTBEAT | {"heartbeat_at": "nan", "interval": "-inf"}).encode())
def test_a_heartbeat_is_understood_or_none_and_both_can_be_told(
    documents: Documents, content: bytes
) -> None:
    documents.check("janitor.json", content)


@settings(max_examples=30, deadline=None)
@given(content=keys)
@example(content=b" " * 40)
@example(content=bytes(40) + b"\n")
def test_a_key_that_the_store_refuses_is_what_the_doctor_finds(
    documents: Documents, content: bytes
) -> None:
    documents.check("secret", content)


@settings(max_examples=40, deadline=None)
@given(content=changed("moved"), is_whole=st.booleans())
def test_a_note_leads_to_the_session_that_moved_or_nowhere(
    documents: Documents, content: bytes, *, is_whole: bool
) -> None:
    lineage = json.dumps(documents.lineage)[1:-1].encode()
    content = content.replace(NOTE["lineage"].encode(), lineage)
    line = sealed(content.replace(b"\n", b""), seed_of(documents.note.name))
    content = line if is_whole else b"00000000" + line[8:]
    documents.check("moved", content)


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(NAMES), content=st.binary(max_size=100))
def test_any_bytes_in_any_document_lose_nothing(
    documents: Documents, name: str, content: bytes
) -> None:
    documents.check(name, content)


@settings(max_examples=30, deadline=None)
@given(name=st.binary(min_size=1, max_size=20) | st.text(max_size=60).map(_encoded))
@example(name=b"fr\xe9md")
@example(name=b"filesession.json.bak")
def test_a_stranger_of_any_name_is_told_of_and_left(documents: Documents, name: bytes) -> None:
    documents.check_stranger(name)
