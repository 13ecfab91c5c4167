"""Sizes, times and sweeps in words, for log lines and terminals."""

from __future__ import annotations

from typing import Final

from filesession.record import SweepReport

_SIZES: Final = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))

_SPANS: Final = (("d", 86400), ("h", 3600), ("min", 60))
"""Units of time and their seconds, the largest first. A span is told in the largest that it fills
twice, so that rounding never hides more than half."""


def size_text(size: int) -> str:
    """Bytes in the unit that suits them, three digits: ``12.4 kB``."""
    for unit, scale in _SIZES:
        if size >= scale:
            return (
                f"{size / scale:.3g} {unit}"
                if size < 1000 * scale
                else f"{size / scale:,.0f} {unit}"
            )
    return f"{size} B"


def span_text(seconds: float) -> str:
    """A span of time in one unit: ``41 s``, ``90 min``, ``3 d``."""
    for unit, scale in _SPANS:
        if seconds >= 2 * scale:
            return f"{seconds / scale:,.0f} {unit}"
    return f"{seconds:.0f} s"


def sweep_text(report: SweepReport) -> str:
    """What a sweep did, in a line: ``swept 1,204 sessions in 0.31 s: 17 expired (12.4 kB)``."""
    verb = "looked through" if report.dry_run else "swept"
    looked = f"{verb} {report.examined:,} {_plural('session', report.examined)}"
    return f"{looked} in {report.seconds:.2f} s: {', '.join(_outcome(report))}"


def is_uneventful(report: SweepReport) -> bool:
    """Whether the sweep found nothing to do."""
    return not (report.expired or report.busy or report.corrupt or report.leftovers)


def _outcome(report: SweepReport) -> list[str]:
    would = "would be " if report.dry_run else ""
    parts = ["none expired"]
    if report.expired:
        parts = [f"{report.expired:,} expired ({size_text(report.freed)})"]
        if report.oldest_overdue >= 1:
            parts.append(f"oldest {span_text(report.oldest_overdue)} overdue")
    if report.busy:
        parts.append(f"{report.busy:,} left as another holds their lock")
    if report.corrupt:
        parts.append(f"{report.corrupt:,} unreadable {would}moved to corrupt/")
    if report.leftovers:
        leftovers = _plural("leftover", report.leftovers)
        parts.append(f"{report.leftovers:,} {leftovers} {would}removed")
    if not report.complete:
        parts.append("stopped at the limit")
    if report.dry_run:
        parts.append("nothing was changed")
    return parts


def _plural(noun: str, number: int) -> str:
    return noun if number == 1 else f"{noun}s"
