"""The tables that say which test shows what: every test they name is there, and no row is missing.

Read as Markdown: a table is known by its header, a test by ``path::name`` or ``path::Class::name``.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).parent.parent

_IS_TEST: Final = re.compile(r"([\w./-]+\.py)::((?:\w+::)?\w+)")
_IS_CODE: Final = re.compile(r"`([^`]+)`")
_IS_RULE: Final = re.compile(r"[:-]+")
_BETWEEN_CELLS: Final = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Table:
    """One of the tables.

    Attributes:
        path: of the file it is in, from the project's directory.
        header: its first cells.
        items: how many rows it has, numbered from 1; None: any number, and no numbers.
    """

    path: str
    header: tuple[str, ...]
    items: int | None = None

    def lines(self) -> list[tuple[str, ...]]:
        """Its header and its rows; nothing where there is no such table."""
        found: list[tuple[str, ...]] = []
        for line in (PROJECT / self.path).read_text("utf-8").splitlines():
            cells = _cells(line)
            if found and not line.startswith("|"):
                break
            if found or cells[: len(self.header)] == self.header:
                found.append(cells)
        return [cells for cells in found if not _IS_RULE.fullmatch("".join(cells))]

    def rows(self) -> list[tuple[str, ...]]:
        """Its rows without the header."""
        return self.lines()[1:]


SECURITY: Final = Table("tests/SECURITY.md", ("item",), 50)
FAULTS: Final = Table("tests/FAULTS.md", ("item",), 57)
PARITY: Final = [
    Table("tests/PARITY.md", ("item", "option"), 15),
    Table("tests/PARITY.md", ("item", "step"), 12),
    Table("tests/PARITY.md", ("item", "behaviour"), 14),
    Table("tests/PARITY.md", ("item", "form"), 7),
    Table("tests/PARITY.md", ("item", "member"), 14),
    Table("tests/PARITY.md", ("item", "scenario"), 30),
    Table("tests/PARITY.md", ("item", "scenario of session-file-store"), 20),
]
PROMISES: Final = Table("README.md", ("promise", "shown by"))
TABLES: Final = [SECURITY, FAULTS, *PARITY, PROMISES]

EXPLAINED: Final = "Does not apply: "
"""What a row begins with that names no test."""


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in _BETWEEN_CELLS.split(line.strip().strip("|")))


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the test functions of a file, those of classes with and without the class."""
    found: set[str] = set()
    for node in ast.parse((PROJECT / path).read_text("utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        for part in inside:
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.add(part.name)
                if isinstance(node, ast.ClassDef):
                    found.add(f"{node.name}::{part.name}")
    return frozenset(name for name in found if name.rpartition("::")[2].startswith("test_"))


def broken_in(row: tuple[str, ...]) -> list[str]:
    """What is wrong with a row: a test that is not there, or nothing that shows anything."""
    shown_by = row[-1]
    named = _IS_TEST.findall(shown_by)
    wrong = [
        f"{path}::{name}"
        for path, name in named
        if not (PROJECT / path).is_file() or name not in names_in(path)
    ]
    wrong += [
        f"no name of a test: {code}"
        for code in _IS_CODE.findall(shown_by)
        if ".py" in code and not _IS_TEST.fullmatch(code)
    ]
    if not named and not (shown_by.startswith(EXPLAINED) and len(shown_by.split()) > 6):
        wrong.append(f"neither a test nor a reason: {shown_by!r}")
    if not all(row):
        wrong.append(f"an empty cell: {row}")
    return wrong


tables = pytest.mark.parametrize(
    "table", TABLES, ids=lambda table: f"{table.path}, {table.header[-1]}"
)


@tables
def test_every_test_that_a_table_names_is_there(table: Table) -> None:
    assert [wrong for row in table.rows() for wrong in broken_in(row)] == []


@tables
def test_every_row_of_a_table_is_there_and_whole(table: Table) -> None:
    rows = table.rows()
    assert rows
    assert len({len(cells) for cells in table.lines()}) == 1
    if table.items is not None:
        assert [row[0] for row in rows] == [str(number + 1) for number in range(table.items)]


@tables
def test_nothing_is_asked_twice(table: Table) -> None:
    asked = [row[-2] for row in table.rows()]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("shown_by", "wrong"),
    [
        ("`tests/test_promises.py::test_nothing_is_asked_twice`", []),
        ("tests/stores/test_journal.py::test_never_written", ["is_there_no_more"]),
        ("tests/test_gone.py::test_nothing_is_asked_twice", ["its file is gone"]),
        ("tests/test_promises.py::broken_in", ["it is no test"]),
        ("`tests/test_promises.py::test_nothing_is_asked_twice[1]`", ["no name"]),
        ("`tests/test_promises.py`", ["no name", "no test"]),
        ("Does not apply: nothing of the kind is done here", []),
        ("Does not apply: no", ["no reason"]),
        ("it is obvious", ["no reason"]),
        ("", ["empty", "no reason"]),
    ],
)
def test_a_row_that_rots_is_found(shown_by: str, wrong: list[str]) -> None:
    assert len(broken_in(("1", "something", shown_by))) == len(wrong)
