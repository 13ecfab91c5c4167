"""Sizes, spans and sweeps as a person reads them."""

from __future__ import annotations

from typing import Any

import pytest

from filesession.janitor.wording import (
    counted,
    is_uneventful,
    path_text,
    size_text,
    span_text,
    sweep_text,
)
from filesession.record import SweepReport


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_430, "12.4 kB"),
        (999_400, "999 kB"),
        (1_500_000, "1.5 MB"),
        (85_500_000_000, "85.5 GB"),
        (12_345_000_000_000, "12,345 GB"),
    ],
)
def test_a_size_has_three_digits_and_the_unit_that_suits_it(size: int, words: str) -> None:
    assert size_text(size) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (41, "41 s"),
        (119, "119 s"),
        (120, "2 min"),
        (5400, "90 min"),
        (7200, "2 h"),
        (3 * 86400, "3 d"),
        (4000 * 86400, "4,000 d"),
    ],
)
def test_a_span_is_told_in_the_largest_unit_it_fills_twice(seconds: float, words: str) -> None:
    assert span_text(seconds) == words


def report(**members: Any) -> SweepReport:
    return SweepReport(**{"started_at": 0.0, "seconds": 0.314, "examined": 1204, **members})


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "swept 1,204 sessions in 0.31 s: none expired"),
        ({"examined": 1}, "swept 1 session in 0.31 s: none expired"),
        (
            {"expired": 17, "freed": 12_400, "oldest_overdue": 41.2},
            "swept 1,204 sessions in 0.31 s: 17 expired (12.4 kB), oldest 41 s overdue",
        ),
        (
            {"expired": 1, "freed": 300, "complete": False},
            "swept 1,204 sessions in 0.31 s: 1 expired (300 B), stopped before its end",
        ),
        (
            {"busy": 2, "corrupt": 3, "leftovers": 1},
            (
                "swept 1,204 sessions in 0.31 s: none expired, 2 left as another holds their lock,"
                " 3 unreadable moved to corrupt/, 1 leftover removed"
            ),
        ),
        (
            {"failed": 2, "mended": 1},
            (
                "swept 1,204 sessions in 0.31 s: none expired, 2 could not be read, deleted or set"
                " aside, 1 dated in the future set to now"
            ),
        ),
        (
            {"young": 2},
            (
                "swept 1,204 sessions in 0.31 s: none expired,"
                " 2 unreadable, but young: left for a later sweep"
            ),
        ),
        (
            {"mended": 4, "dry_run": True},
            (
                "looked through 1,204 sessions in 0.31 s: none expired,"
                " 4 dated in the future would be set to now, nothing was changed"
            ),
        ),
        (
            {"corrupt": 3, "leftovers": 2, "dry_run": True},
            (
                "looked through 1,204 sessions in 0.31 s: none expired,"
                " 3 unreadable would be moved to corrupt/, 2 leftovers would be removed,"
                " nothing was changed"
            ),
        ),
    ],
)
def test_a_sweep_is_one_line(members: dict[str, Any], words: str) -> None:
    assert sweep_text(report(**members)) == words


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (0, "session", "0 sessions"),
        (1, "session", "1 session"),
        (1204, "session", "1,204 sessions"),
        (1, "directory", "1 directory"),
        (257, "directory", "257 directories"),
    ],
)
def test_what_is_counted_is_in_the_right_number(number: int, noun: str, words: str) -> None:
    assert counted(number, noun) == words


@pytest.mark.parametrize(
    "event", ["expired", "held", "busy", "corrupt", "mended", "compacted", "leftovers"]
)
def test_a_sweep_is_uneventful_unless_something_happened(event: str) -> None:
    assert is_uneventful(report())
    assert not is_uneventful(report(**{event: 1}))


def test_a_path_that_is_no_utf_8_can_be_logged() -> None:
    assert path_text("/srv/s\udce9ssions/é") == "/srv/s\\udce9ssions/é"
