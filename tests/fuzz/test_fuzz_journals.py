"""Session files of any content, and every verb on them: journals put together and spoiled.

A spoiled line often has its right checksum all the same, so that the reader gets past it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filesession.stores.entry import Entry
from filesession.stores.file.journal import line_of, sealed, seed_of
from filesession.testing.clock import START
from tests.fuzz.journals import (
    ENTRIES,
    LINES,
    NAME,
    STEPS,
    SessionFiles,
    Step,
    line_with,
    nested,
    seeds,
    with_checksums,
)

SEED: Final = seed_of(NAME)
BODIES: Final = [line[9:-1] for line in LINES]
FOREIGN: Final = line_of(ENTRIES[1], seed_of("0" * 32))

MEMBERS: Final = (
    *("format", "version", "lineage", "created", "saved", "idle", "absolute", "cookie", "ended"),
    "data",
)
TEXTS: Final = (
    *(b"null", b"true", b"0", b"-1", b"1.5", b"1e308", b"-1e308", b"1e999", b"NaN", b"Infinity"),
    *(b"2", b"1759999000", b"99999999999", b"18446744073709551615", b"18446744073709551616"),
    *(b'"x"', b"[]", b"{}", b'{"data":{"data":1}}', b'{"a":1},"data":{"b":2}', b'"\\ud800"', b""),
    *(
        b'"a\xffb"',
        nested(150),
        nested(210),
        nested(300),
        nested(2000),
        b"[" * 2000,
        b'{"max_age":60}',
    ),
)


def spoiled_member(body: bytes, name: str, text: bytes | None, *, at_end: bool) -> bytes:
    """The line's text with another value for a member, or without it."""
    members = {key: json.dumps(value).encode() for key, value in json.loads(body).items()}
    members.pop(name, None)
    pairs = [b'"%b":%b' % (key.encode(), value) for key, value in members.items()]
    if text is not None:
        pairs.insert(
            len(pairs) if at_end or name == "data" else 0, b'"%b":%b' % (name.encode(), text)
        )
    return b"{" + b",".join(pairs) + b"}"


bodies = st.sampled_from(BODIES)
spoiled_bodies = st.builds(
    spoiled_member,
    bodies,
    st.sampled_from(MEMBERS),
    st.none() | st.sampled_from(TEXTS),
    at_end=st.sampled_from([False, False, False, True]),
)
flipped = st.builds(
    lambda line, bit: bytes(
        byte ^ (1 << bit % 8 if at == bit // 8 % len(line) else 0) for at, byte in enumerate(line)
    ),
    st.sampled_from(LINES),
    st.integers(0, 8 * 256),
)
cut = st.builds(lambda line, at: line[:at] + b"\n", st.sampled_from(LINES), st.integers(0, 200))
pieces = st.one_of(
    st.sampled_from(LINES),
    spoiled_bodies.map(lambda body: sealed(body.replace(b"\n", b""), SEED)),
    flipped,
    cut,
    flipped.map(with_checksums),
    st.sampled_from([FOREIGN, b"\n", b"\r\n", b"\n" * 1001, bytes(600)]),
    st.binary(max_size=40),
)
tails = st.sampled_from([b"", b"", b"\n", LINES[1][:-1], LINES[3][:-9]])
journals = st.tuples(st.lists(pieces, max_size=5).map(b"".join), tails).map(b"".join)


@pytest.fixture(scope="module")
def files(place: Path) -> SessionFiles:
    return SessionFiles(place)


def test_every_journal_a_guided_run_begins_with_is_judged(files: SessionFiles) -> None:
    for seed in seeds():
        files(seed)


@settings(max_examples=220, deadline=None)
@given(content=journals, step=st.sampled_from(STEPS))
@example(content=line_with(nested(300), b"{}"), step=STEPS[1])
@example(content=line_with(nested(300), b"{}"), step=STEPS[2])
@example(content=line_with(b"{}", nested(300)), step=STEPS[-1])
@example(content=line_with(b"{}", b'"sealed by another key"'), step=STEPS[3])
@example(content=line_of(Entry(1, "aa", 0, 0, b"{}", absolute=60), SEED), step=STEPS[0])
@example(content=line_of(Entry(2, "aa", START + 9e9, START, b"{}"), SEED) + b"x", step=STEPS[1])
def test_a_file_is_one_of_its_saved_states_or_none_or_an_error_whatever_is_done_to_it(
    files: SessionFiles, content: bytes, step: Step
) -> None:
    files.check(content, step)


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200), step=st.sampled_from(STEPS))
def test_any_bytes_are_no_session(files: SessionFiles, content: bytes, step: Step) -> None:
    files.check(content, step)
