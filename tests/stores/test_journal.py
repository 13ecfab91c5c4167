"""The lines of a session file, against lines made by hand, and what damage to them leaves."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.lifetime import UNSET
from filesession.stores.entry import Entry
from filesession.stores.file.journal import (
    MOST_BROKEN,
    NewerFormatError,
    last_entry,
    line_of,
    seed_of,
)

if TYPE_CHECKING:
    from filesession.lifetime import Unsettable

NAME: Final = "0123456789abcdef" * 2
SEED: Final = seed_of(NAME)

FIRST: Final = Entry(1, "aa", 100.25, 100.25, b'{"n":1}')
SECOND: Final = Entry(2, "aa", 100.25, 200.5, b'{"n":2,"text":"x"}', idle=60.0, cookie={"m": 1})

LINE_ONE: Final = line_of(FIRST, SEED)
LINE_TWO: Final = line_of(SECOND, SEED)
JOURNAL: Final = LINE_ONE + LINE_TWO

timeouts: st.SearchStrategy[float | Unsettable | None] = st.one_of(
    st.just(UNSET), st.none(), st.floats(1e-3, 1e9)
)
times = st.floats(0, 1e11)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.text() | st.just("data"), json_values, max_size=4)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    return Entry(
        draw(st.integers(1, 2**53 - 1)),
        draw(st.text("0123456789abcdef", max_size=16)),
        draw(times),
        draw(times),
        json.dumps(draw(mappings), ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        ),
        draw(timeouts),
        draw(timeouts),
        draw(mappings),
        draw(st.booleans()),
    )


def test_a_line_is_a_checksum_of_name_and_text_and_then_json() -> None:
    body = (
        b'{"format":1,"version":2,"lineage":"aa","created":100.25,"saved":200.5,'
        b'"idle":60.0,"cookie":{"m":1},"data":{"n":2,"text":"x"}}'
    )
    assert f"{zlib.crc32(NAME.encode() + body):08x} ".encode() + body + b"\n" == LINE_TWO


def test_what_a_session_has_none_of_is_not_written() -> None:
    assert list(json.loads(LINE_ONE[9:])) == [
        "format",
        "version",
        "lineage",
        "created",
        "saved",
        "data",
    ]


def test_no_limit_at_all_is_written_as_null() -> None:
    line = line_of(Entry(1, "aa", 1.0, 1.0, b"{}", idle=None, absolute=None), SEED)
    said = json.loads(line[9:])
    assert (said["idle"], said["absolute"]) == (None, None)
    found = last_entry(line, SEED)
    assert found is not None
    assert (found.idle, found.absolute) == (None, None)


def test_a_line_made_by_hand_is_read(make_line: Callable[..., bytes]) -> None:
    line = make_line(NAME, version=7, idle=5, cookie={"a": [1]}, data={"k": "é"})
    assert last_entry(line, SEED) == Entry(
        7, "ab", 1.5, 1.5, b'{"k":"\\u00e9"}', 5, UNSET, {"a": [1]}
    )


def test_the_last_line_is_the_session() -> None:
    assert last_entry(LINE_ONE, SEED) == FIRST
    assert last_entry(JOURNAL, SEED) == SECOND


@given(entries(), st.lists(entries(), max_size=2))
def test_what_was_written_last_is_read(entry: Entry, earlier: list[Entry]) -> None:
    content = b"".join(line_of(one, SEED) for one in [*earlier, entry])
    assert last_entry(content, SEED) == entry


@given(st.binary())
def test_no_bytes_at_all_are_a_session_or_an_error(content: bytes) -> None:
    assert last_entry(content, SEED) is None


@given(st.binary(), st.binary().filter(lambda tail: b"\n" not in tail))
def test_a_whole_line_is_found_among_garbage(above: bytes, tail: bytes) -> None:
    assert last_entry(above + b"\n" + LINE_TWO + tail, SEED) == SECOND


@pytest.mark.parametrize("length", range(len(JOURNAL) + 1))
def test_cut_short_at_any_byte_it_is_an_earlier_state_or_none(length: int) -> None:
    if length < len(LINE_ONE):
        expected = None
    elif length < len(JOURNAL):
        expected = FIRST
    else:
        expected = SECOND
    assert last_entry(JOURNAL[:length], SEED) == expected


def test_with_any_bit_flipped_it_is_an_earlier_state_or_none() -> None:
    for place in range(len(JOURNAL)):
        for bit in range(8):
            damaged = bytearray(JOURNAL)
            damaged[place] ^= 1 << bit
            found = last_entry(bytes(damaged), SEED)
            if place < len(LINE_ONE) - 1:
                assert found == SECOND, (place, bit)
            elif place == len(LINE_ONE) - 1:
                assert found is None, bit
            else:
                assert found == FIRST, (place, bit)


@pytest.mark.parametrize("block", [1, 16, 512])
def test_a_block_of_zeros_is_never_data(block: int) -> None:
    allowed = (None, FIRST, SECOND)
    for place in range(0, len(JOURNAL), block):
        damaged = bytearray(JOURNAL)
        damaged[place : place + block] = bytes(len(damaged[place : place + block]))
        assert last_entry(bytes(damaged), SEED) in allowed
    assert last_entry(JOURNAL + bytes(block), SEED) == SECOND
    assert last_entry(LINE_ONE + bytes(len(LINE_TWO)), SEED) == FIRST


def test_a_line_of_another_file_is_passed_over() -> None:
    other = seed_of("f" * 32)
    assert last_entry(JOURNAL, other) is None
    assert last_entry(LINE_ONE + line_of(SECOND, other), SEED) == FIRST


def test_a_cut_tail_swallows_nothing_that_follows_on_a_line_of_its_own() -> None:
    assert last_entry(LINE_ONE[:20] + b"\n" + LINE_TWO, SEED) == SECOND
    assert last_entry(LINE_ONE[:20] + LINE_TWO, SEED) is None


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\n\n\n", b" \n", bytes(4096), b"{}\n", b"00000000 \n", b"\xff\xfe\n"]
)
def test_garbage_is_no_session(content: bytes) -> None:
    assert last_entry(content, SEED) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"version": "1"},
        {"version": True},
        {"version": 0},
        {"version": 2**53},
        {"version": 1.0},
        {"version": None},
        {"lineage": 1},
        {"lineage": None},
        {"created": "1"},
        {"created": None},
        {"created": True},
        {"saved": [1]},
        {"idle": "5"},
        {"absolute": {}},
        {"cookie": [1]},
        {"cookie": None},
    ],
    ids=str,
)
def test_a_whole_line_that_says_something_else_is_passed_over(
    damage: dict[str, Any], make_line: Callable[..., bytes]
) -> None:
    line = make_line(NAME, **damage, data={"n": 9})
    assert last_entry(line, SEED) is None
    assert last_entry(LINE_ONE + line, SEED) == FIRST


@pytest.mark.parametrize("format", [2, 0, "1", None])
def test_a_line_in_a_format_of_another_version_is_not_passed_over(
    format: Any,  # noqa: A002 - as the line has it
    make_line: Callable[..., bytes],
) -> None:
    line = make_line(NAME, format=format, data={"n": 9})
    for content in (line, LINE_ONE + line):
        with pytest.raises(NewerFormatError):
            last_entry(content, SEED)
    assert last_entry(line + LINE_TWO, SEED) == SECOND


def test_a_file_of_garbage_is_given_up_soon() -> None:
    assert last_entry(LINE_ONE + b"\n" * (MOST_BROKEN - 1), SEED) == FIRST
    assert last_entry(LINE_ONE + b"\n" * MOST_BROKEN, SEED) is None


def test_that_it_was_refused_is_kept() -> None:
    line = line_of(SECOND.as_ended(), SEED)
    assert json.loads(line[9:])["ended"] is True
    assert last_entry(LINE_ONE + line, SEED) == SECOND.as_ended()


@pytest.mark.parametrize("missing", ["format", "version", "lineage", "created", "saved", "data"])
def test_a_whole_line_that_says_too_little_is_passed_over(missing: str) -> None:
    said = json.loads(LINE_TWO[9:])
    del said[missing]
    body = json.dumps(said, separators=(",", ":")).encode()
    line = b"%08x %b\n" % (zlib.crc32(body, SEED), body)
    assert last_entry(LINE_ONE + line, SEED) == FIRST


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b'"data":', b',"data":}', b'{,"data":{}}'])
def test_a_right_checksum_alone_makes_no_session(body: bytes) -> None:
    line = b"%08x %b\n" % (zlib.crc32(body, SEED), body)
    assert last_entry(line, SEED) is None


def test_the_data_is_taken_as_it_stands() -> None:
    for data in (b'{"a":",\\"data\\":{}"}', b'{"a":1,"data":{"b":2,"data":3}}', b'"sealed"'):
        found = last_entry(line_of(Entry(1, "aa", 1.0, 1.0, data), SEED), SEED)
        assert found is not None
        assert found.data == data


def test_times_come_back_to_the_last_bit() -> None:
    for time in (1_760_000_000.123456, math.nextafter(1.76e9, math.inf), 0.1, 1e-9):
        found = last_entry(line_of(Entry(1, "aa", time, time, b"{}"), SEED), SEED)
        assert found is not None
        assert (found.created, found.saved) == (time, time)
