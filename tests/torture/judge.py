"""Holds a history against what a store promises."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tests.torture.contents import Contents
from tests.torture.history import Round, rounds
from tests.torture.places import Places
from tests.torture.verdict import Verdict, Violation

PATIENT: Final = 1.0
"""Seconds. Who waits for so long gets a lock, unless its holder was stopped."""


def judged(lines: Iterable[str]) -> Verdict:
    """The verdict on a history, one round in memory at a time.

    Raises:
        UnreadableError: it is no history.
    """
    verdict = Verdict()
    for played in rounds(lines):
        verdict.happened["rounds"] += 1
        _judge_calls(played, verdict)
        _judge_events(played, verdict)
        places = Places(played, verdict)
        places.judge()
        Contents(played, verdict).judge()
    return verdict


def _judge_calls(played: Round, verdict: Verdict) -> None:
    """No call fails without a reason; a lock is waited for in vain only while its holder stands."""
    stops = [(line["at"], line["worker"]) for _, line in played.told_of("stop")]
    for op in played.ops:
        told = "failed" if op.told.startswith("failed") else op.told or "killed"
        verdict.told[op.verb, told] += 1
        failed = told == "failed"
        verdict.check("torn", holds=not failed, words=f"{op.verb}: {op.told}", proof=[op])
        if told == "timeout" and op.patience >= PATIENT:
            reason = any(op.began - 1 < at < op.ended for at, _ in stops)
            words = f"{op.verb} waited in vain for a lock that nobody kept"
            verdict.check("torn", holds=reason, words=words, proof=[op])


def _judge_events(played: Round, verdict: Verdict) -> None:
    for number, line in played.events:
        event = line["event"]
        verdict.happened[event] += 1
        for kind, holds, words in _facts(event, line, verdict):
            verdict.checks[kind] += 1
            if not holds:
                verdict.violations.append(Violation(kind, words, (number,)))


def _facts(event: str, line: dict[str, Any], verdict: Verdict) -> Iterable[tuple[str, bool, str]]:
    """(kind, whether it is as it should be, words) of what an event says."""
    if event == "ended":
        yield "torn", line["code"] in {0, -9}, f"worker {line['worker']} ended with {line['code']}"
    elif event == "stuck":
        yield "torn", False, f"worker {line['worker']} did not come to its end"
    elif event == "janitor ended":
        yield "torn", False, f"the janitor ended by itself, with {line['code']}"
    elif event == "descriptors":
        words = f"{line['of']} has {line['after']} descriptors, and had {line['before']}"
        yield "leaked", line["after"] <= line["before"], words
    elif event == "left":
        yield "torn", not line["torn"], f"set aside, with whole lines in them: {line['torn']}"
        yield "torn", not line["complaints"], f"the janitor said: {line['complaints'][:3]}"
        yield "leaked", not line["whole"], f"expired, and not swept: {line['whole'][:3]}"
        most = line["threads"] * verdict.happened["kill"]
        for what in ("temporary", "begun", "aside"):
            words = f"{line[what]} {what} files, of {verdict.happened['kill']} workers killed"
            yield "leaked", line[what] <= most, words
