"""Whether a session was there: what calls by its ids told of that, and when it can be true.

A place is a life under one id. A call that found the session there proves that it was alive at some
moment between the call's begin and end; one that did not, that it was not. A use is a call after
which it cannot expire for an idle timeout; an end is one that takes it away from there: a delete, a
regenerate. Calls that never came back are possible uses, and possible ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.torture.history import NEVER, Op, Round
from tests.torture.verdict import Verdict

MARGIN: Final = 0.01
"""Seconds that the wall clock, by which sessions expire, may go apart from the monotonic one."""


@dataclass(slots=True, eq=False)
class Place:
    """A life under one id, and the calls that tell of it."""

    sid: str
    life: str
    birth: Op
    alive: list[Op] = field(default_factory=list)
    absent: list[Op] = field(default_factory=list)
    uses: list[Op] = field(default_factory=list)
    ends: list[Op] = field(default_factory=list)
    moves: list[Op] = field(default_factory=list)
    followed: list[Op] = field(default_factory=list)

    def __str__(self) -> str:
        return f"session {self.sid} ({self.life})"


def drawn_up(ops: Iterable[Op], ended_before: Callable[[Op], None]) -> Iterator[Op]:
    """The calls by their begin; before each, those are handed over that had certainly ended."""
    began = sorted(ops, key=lambda op: op.began)
    ended = iter(sorted(began, key=lambda op: op.ended))
    following = next(ended, None)
    for op in began:
        while following is not None and following.ended < op.began:
            ended_before(following)
            following = next(ended, None)
        yield op


class Places:
    """All places of a round, filled from its calls, then judged."""

    def __init__(self, played: Round, verdict: Verdict) -> None:
        self.verdict = verdict
        self.played = played
        drifts = [line["drift"] for _, line in played.told_of("clock")]
        self.margin = MARGIN + 2 * max(drifts, default=0)
        self.of_sid: dict[str, list[Place]] = defaultdict(list)
        self.of_life: dict[str, list[Place]] = defaultdict(list)
        self.forwarded: list[Op] = []
        self.dead: dict[str, Op] = {}
        for op in played.ops:
            if op.is_possible and op.verb == "create":
                self._born(op.sid, op.life, op)
        self._move()
        for op in played.ops:
            self._enter(op)
        if played.grace is not None:
            self._forward(played.grace)

    def _born(self, sid: str, life: str, op: Op) -> None:
        place = Place(sid, life, op)
        self.of_sid[sid].append(place)
        self.of_life[life].append(place)

    def _move(self) -> None:
        """The places that regenerates made, from their first on."""
        moves = [op for op in self.played.ops if op.verb == "regenerate" and op.is_possible]
        for op in sorted(moves, key=lambda op: op.began):
            for life in [op.life] if op.life else {place.life for place in self.of_sid[op.sid]}:
                self._born(op.new, life, op)

    def at(self, op: Op) -> list[Place]:
        """The places that a call is of: that of its life, or all of its id."""
        places = self.of_sid.get(op.sid, [])
        return [place for place in places if not op.life or place.life == op.life]

    def _enter(self, op: Op) -> None:
        known = self.of_sid.get(op.sid, [])
        if op.told == "gone":
            for place in known if op.verb == "load" else self.at(op):
                place.absent.append(op)
        elif op.verb == "load":
            if op.told == "ok":
                self._seen(op, known)
        elif op.verb == "create":
            self._created(op, known)
        elif op.verb == "delete":
            self._deleted(op, known)
        elif op.told == "conflict" or op.is_possible:
            self._changed(op)

    def _seen(self, op: Op, known: list[Place]) -> None:
        here = [place for place in known if place.life == op.life]
        is_here = bool(here) and here[0].birth.began < op.ended
        if op.forwarded:
            self.forwarded.append(op)
            for place in known:
                place.absent.append(op)
        for place in known if not op.forwarded else ():
            (place.alive if place.life == op.life else place.absent).append(op)
        words = f"life {op.life} is seen under id {op.sid}, which it never had"
        self.verdict.check("foreign", holds=is_here, words=words, proof=[op])

    def _created(self, op: Op, known: list[Place]) -> None:
        others = [place for place in known if place.life != op.life]
        for place in known:
            if place.life == op.life:
                place.uses.append(op)
                if op.told == "ok":
                    place.alive.append(op)
            elif op.told == "ok":
                place.absent.append(op)
        if op.told == "exists":
            words = f"id {op.sid} is said to be taken, and never was"
            self.verdict.check("foreign", holds=bool(others), words=words, proof=[op])
            if len(others) == 1:
                others[0].alive.append(op)

    def _deleted(self, op: Op, known: list[Place]) -> None:
        if not op.is_possible:
            return
        for place in known:
            place.ends.append(op)
        if op.told != "ok" or len(known) != 1:
            return
        (place,) = known
        self.dead[place.life] = min(op, self.dead.get(place.life, op), key=lambda each: each.ended)
        if self.played.grace is None:
            place.alive.append(op)

    def _changed(self, op: Op) -> None:
        """A save, a touch or the like, done or perhaps, or one that met another's save."""
        places = self.at(op)
        for place in places:
            if op.told != "conflict":
                place.uses.append(op)
            if op.told and len(places) == 1 and op.age > self.played.slack:
                place.alive.append(op)
            if op.verb == "regenerate":
                place.ends.append(op)
                place.moves.append(op)
        if op.verb == "regenerate":
            for place in [each for each in self.of_sid[op.new] if each.birth is op]:
                place.uses.append(op)
                if op.told == "ok":
                    place.alive.append(op)

    def _forward(self, grace: float) -> None:
        """Within the grace an old id ends its successor, and opens it to be read."""
        places = [place for each in self.of_sid.values() for place in each]
        for place in sorted(places, key=lambda place: place.birth.began):
            deletes = [op for op in place.ends if op.verb == "delete"]
            absent = [op for op in place.absent if op.verb == "load" and op.told == "gone"]
            for move in place.moves:
                after = self.place(move.new, place.life)
                if after is None:
                    continue
                until = move.ended + grace + self.margin
                after.ends += [op for op in deletes if move.began < op.ended and op.began < until]
                if move.told == "ok" and len(self.of_sid[place.sid]) == 1:
                    until = move.began + grace - self.margin
                    after.followed += [
                        op for op in absent if move.ended < op.began and op.ended < until
                    ]

    def place(self, sid: str, life: str) -> Place | None:
        return next((place for place in self.of_sid.get(sid, ()) if place.life == life), None)

    # -- judging ------------------------------------------------------------------------------

    def judge(self) -> None:
        """All that can be told from who was there and who was not."""
        for places in self.of_sid.values():
            for place in places:
                self._judge_presence(place)
                self._judge_end(place)
                self._judge_winners(place, alone=len(places) == 1)
                self._judge_move(place)
        self._judge_forwarded()
        self._judge_dead()

    def _judge_presence(self, place: Place) -> None:
        """It is there while it must be, and not there when it must have expired."""
        seen: Op | None = None
        used: Op | None = None
        last = NEVER
        absent, uses, alive = set(place.absent + place.followed), set(place.uses), set(place.alive)

        def before(other: Op) -> None:
            nonlocal seen, used
            if other in alive:
                seen = other if seen is None or other.began > seen.began else seen
                if other in uses:
                    used = other if used is None or other.began > used.began else used

        starts = iter(sorted(uses, key=lambda op: op.began))
        start = next(starts, None)
        for op in drawn_up(absent | alive | uses, before):
            while start is not None and start.began < op.began:
                last = start.ended if last == NEVER else max(last, start.ended)
                start = next(starts, None)
            if op in absent and used is not None and seen is not None:
                self._judge_absence(place, op, used, seen)
            elif op in alive and op is not place.birth:
                limit = last + self.played.idle + self.played.slack + self.margin
                words = f"{place} is served {op.began - limit:.3f} s after it had expired"
                self.verdict.check("revived", holds=op.began <= limit, words=words, proof=[op])

    def _judge_absence(self, place: Place, op: Op, used: Op, seen: Op) -> None:
        if op.ended > used.began + self.played.idle - self.margin:
            return
        ended = any(
            end is not op and end.began < op.ended and end.ended > seen.began for end in place.ends
        )
        words = (
            f"{place} is not there {op.ended - used.began:.3f} s after it was used,"
            f" with an idle timeout of {self.played.idle:g} s, and nobody ended it"
        )
        self.verdict.check("vanished", holds=ended, words=words, proof=[op, used, seen])

    def _judge_end(self, place: Place) -> None:
        """Once its end is known, nothing finds it there again."""
        known = self._known_end(place)
        if known is None:
            return
        if known in place.absent and not place.ends:
            self.verdict.happened["expired"] += 1
        for op in place.alive:
            words = f"{place} is there again after its end was known"
            self.verdict.check(
                "revived", holds=op.began <= known.ended, words=words, proof=[op, known]
            )

    def _known_end(self, place: Place) -> Op | None:
        """The call after which it is certain that the session is not there any more."""
        ends = [op for op in place.moves if op.told == "ok" and self._is_of(op, place)]
        for move in place.moves:  # also one that never came back: its successor was met
            after = self.place(move.new, place.life)
            ends += [] if after is None else after.alive
        born = min((op.ended for op in place.alive), default=NEVER)
        absent = (op for op in sorted(place.absent, key=lambda op: op.ended) if op.began > born)
        # At the moment of a use one may have found it expired and the other not.
        first = next(
            (
                op
                for op in absent
                if not any(use.began < op.ended and use.ended > op.began for use in place.uses)
            ),
            None,
        )
        if first is not None:
            ends.append(first)
        return min(ends, key=lambda op: op.ended, default=None)

    def _is_of(self, op: Op, place: Place) -> bool:
        return op.life == place.life or not op.life

    def _judge_winners(self, place: Place, *, alone: bool) -> None:
        """Of those that end a session at its place, one succeeds."""
        winners = [
            op
            for op in place.ends
            if op.told == "ok"
            and op.sid == place.sid
            and (op.verb == "regenerate" or (alone and self.played.grace is None))
        ]
        words = f"{place} was ended by more than one: {', '.join(op.verb for op in winners)}"
        self.verdict.check("two winners", holds=len(winners) < 2, words=words, proof=winners)

    def _judge_move(self, place: Place) -> None:
        """A regenerate that never came back leaves the session under one of both ids."""
        for move in place.moves:
            after = self.place(move.new, place.life)
            if move.told or after is None or move.ended == NEVER:
                continue
            old = min(
                (op for op in place.absent if op.began > move.ended),
                key=lambda op: op.ended,
                default=None,
            )
            new = min(
                (op for op in after.absent if op.began > move.ended),
                key=lambda op: op.ended,
                default=None,
            )
            used = max(
                (op for op in place.uses if op.told == "ok" and op.ended < move.began),
                key=lambda op: op.began,
                default=None,
            )
            if old is None or new is None or used is None:
                continue
            later = max(old.ended, new.ended)
            others = [op for op in place.ends + after.ends if op is not move]
            ended = any(op.began < later and op.ended > used.began for op in others)
            expired = later > used.began + self.played.idle - self.margin
            words = f"{place} is under neither id after a regenerate that was killed"
            self.verdict.check(
                "vanished", holds=ended or expired, words=words, proof=[move, used, old, new]
            )

    def _judge_forwarded(self) -> None:
        """An old id leads to its session within the grace of its regenerate, and no longer."""
        grace = self.played.grace or 0.0
        for op in self.forwarded:
            place = self.place(op.sid, op.life)
            moves = [] if place is None else [each for each in place.moves if each.began < op.ended]
            limit = max((move.ended for move in moves), default=-NEVER) + grace + self.margin
            words = f"id {op.sid} leads to life {op.life}, to which it does not, or no longer"
            self.verdict.check("revived", holds=op.began <= limit, words=words, proof=[op, *moves])

    def _judge_dead(self) -> None:
        """A life that was deleted is met under none of its ids."""
        for life, end in self.dead.items():
            seen = [op for place in self.of_life[life] for op in place.alive if op is not end]
            for op in seen + [op for op in self.forwarded if op.life == life]:
                words = f"life {life} is met after its deletion"
                self.verdict.check(
                    "revived", holds=op.began <= end.ended, words=words, proof=[op, end]
                )
