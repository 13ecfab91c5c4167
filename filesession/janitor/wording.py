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


def path_text(path: str) -> str:
    """A path as a log can hold it: bytes in it that are no UTF-8 are spelled out."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 session``, ``1,204 sessions``."""
    if number == 1:
        return f"1 {noun}"
    return (
        f"{number:,} {noun.removesuffix('y')}ies" if noun.endswith("y") else f"{number:,} {noun}s"
    )


def sweep_text(report: SweepReport) -> str:
    """What a sweep did, in a line: ``swept 1,204 sessions in 0.31 s: 17 expired (12.4 kB)``."""
    verb = "looked through" if report.dry_run else "swept"
    looked = f"{verb} {counted(report.examined, 'session')}"
    return f"{looked} in {report.seconds:.2f} s: {', '.join(_outcome(report))}"


def is_uneventful(report: SweepReport) -> bool:
    """Whether the sweep found nothing to do. What failed is complained of, once."""
    return not any(
        (
            report.expired,
            report.held,
            report.busy,
            report.corrupt,
            report.mended,
            report.compacted,
            report.leftovers,
        )
    )


def failure_text(report: SweepReport) -> str | None:
    """What a sweep could not do; None: it did all."""
    if not report.failed:
        return None
    count = counted(report.failed, "session")
    return f"{count} could not be read, deleted or set aside, the first: {report.failure}"


def _outcome(report: SweepReport) -> list[str]:
    would = "would be " if report.dry_run else ""
    leftovers = counted(report.leftovers, "leftover")
    told = (
        (report.held, f"{report.held:,} may be due and were held back"),
        (report.busy, f"{report.busy:,} left as another holds their lock"),
        (report.corrupt, f"{report.corrupt:,} unreadable {would}moved to corrupt/"),
        (report.young, f"{report.young:,} unreadable, but young: left for a later sweep"),
        (report.failed, f"{report.failed:,} could not be read, deleted or set aside"),
        (report.mended, f"{report.mended:,} dated in the future {would}set to now"),
        (report.compacted, f"{counted(report.compacted, 'long file')} made short"),
        (report.leftovers, f"{leftovers} {would}removed"),
        (not report.complete, "stopped before its end"),
        (report.dry_run, "nothing was changed"),
    )
    return [*_expired(report), *(words for happened, words in told if happened)]


def _expired(report: SweepReport) -> list[str]:
    if not report.expired:
        return ["none expired"]
    parts = [f"{report.expired:,} expired ({size_text(report.freed)})"]
    if report.oldest_overdue >= 1:
        parts.append(f"oldest {span_text(report.oldest_overdue)} overdue")
    return parts
