"""The command with any arguments, in front of a real directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.command import DIRECTORY, HANDLE, NAMES, OPTIONS, SHORT, VALUES, Command, seeds

words = (
    st.sampled_from([*OPTIONS, *VALUES, DIRECTORY, HANDLE])
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
    | st.builds("{}={}".format, st.sampled_from(OPTIONS), st.sampled_from(VALUES))
)
lines = st.builds(
    lambda name, directory, rest: [name, *directory, *rest],
    st.sampled_from(NAMES),
    st.sampled_from([[DIRECTORY]] * 4 + [[]]),
    st.lists(words, max_size=3),
)


@pytest.fixture(scope="module")
def command(place: Path) -> Command:
    return Command(place)


def test_every_line_a_guided_run_begins_with_is_judged(command: Command) -> None:
    for seed in seeds():
        command(seed)


@settings(max_examples=120, deadline=None)
@given(arguments=lines | st.lists(words | st.sampled_from(NAMES), max_size=4))
@example(arguments=["destroy", DIRECTORY, HANDLE, "--all", "--yes"])
@example(arguments=["destroy", DIRECTORY, "--all"])
@example(arguments=["destroy", DIRECTORY, SHORT])
@example(arguments=["destroy", DIRECTORY, "--yes", "--all"])
@example(arguments=["janitor", DIRECTORY, "--interval=nan"])
@example(arguments=["show", DIRECTORY, "\u0130" * 4])
def test_any_arguments_end_with_a_documented_code_and_destroy_what_they_name(
    command: Command, arguments: list[str]
) -> None:
    command.check(arguments)
