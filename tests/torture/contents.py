"""What a session held: keys, counter and version, as calls saw it, against what was saved.

A view is a call that gave the session back: a load, and every save, which returns what it made.
Each key is added by one call and no other. A call that replaces all there is may drop what it did
not carry, and bring back what it did; nothing else may.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from itertools import takewhile

from tests.torture.history import NEVER, Op, Round
from tests.torture.places import drawn_up
from tests.torture.verdict import Verdict


class Contents:
    """All lives of a round, to be judged."""

    def __init__(self, played: Round, verdict: Verdict) -> None:
        self.verdict = verdict
        self.lives: dict[str, list[Op]] = defaultdict(list)
        self.adds: dict[str, Op] = {}
        for op in played.ops:
            if op.key:
                self.adds[op.key] = op
            if op.life:
                self.lives[op.life].append(op)

    def judge(self) -> None:
        for ops in self.lives.values():
            Life(ops, self.adds, self.verdict).judge()


class Life:
    """The calls of one life, under whatever ids, gone through in the order in which they began."""

    def __init__(self, ops: list[Op], adds: dict[str, Op], verdict: Verdict) -> None:
        self.ops = ops
        self.adds = adds
        self.verdict = verdict
        possible = [op for op in ops if op.is_possible]
        self.wholes = [op for op in possible if op.whole]
        self.removers: dict[str, list[Op]] = defaultdict(list)
        for op in possible:
            for key in op.drop:
                self.removers[key].append(op)
        self.known: dict[str, Op] = {}  # keys, and the latest call that showed them
        self.gone: dict[str, Op] = {}  # keys, and the call that certainly removed them
        self.seen: dict[int, Op] = {}  # versions, and a view of them
        self.newest: Op | None = None
        self.counts = [op for op in possible if op.verb == "count"]
        certain = [op for op in self.counts if op.told == "ok"]
        self.begun = sorted(op.began for op in self.counts)
        self.over = sorted(op.ended for op in self.counts)
        self.certainly_begun = sorted(op.began for op in certain)
        self.certainly_over = sorted(op.ended for op in certain)
        made = [op for op in possible if op.whole or op.verb == "create"]
        self.bases = sorted(made, key=lambda op: op.began)  # what the counter may count on from

    def judge(self) -> None:
        for op in drawn_up(self.ops, self._ended):
            if not op.is_view:
                continue
            self._judge_version(op)
            self._judge_lost(op)
            self._judge_undone(op)
            self._judge_count(op)
            if not self._was_seen(op):
                self._judge_foreign(op)
        self._judge_writes()
        self._judge_holders()

    def _ended(self, op: Op) -> None:
        """From here on it is certain."""
        if op.told != "ok":
            return
        for key in {*op.keys, op.key} - {""}:
            shown = self.known.get(key)
            if shown is None or shown.began < op.began:
                self.known[key] = op
        for key in op.drop:
            self.gone[key] = op
        if op.is_view and (self.newest is None or op.version > self.newest.version):
            self.newest = op
        if op.whole:
            self.bases = [base for base in self.bases if not base.ended < op.began]

    def _judge_version(self, op: Op) -> None:
        newest = self.newest
        if newest is None:
            return
        words = f"version {op.version} of {op.life} is seen after version {newest.version}"
        least = newest.version + (op.is_write and op.told == "ok")
        self.verdict.check("order", holds=op.version >= least, words=words, proof=[op, newest])

    def _judge_lost(self, op: Op) -> None:
        here = set(op.keys)
        missing = [key for key in self.known if key not in here]
        self.verdict.checks["lost"] += len(self.known) - len(missing)
        for key in missing:
            shown = self.known.pop(key)
            excused = any(
                other.ended > shown.began and other.began < op.ended
                for other in (*self.removers.get(key, ()), *self._dropping(key))
            )
            words = f"key {key} of {op.life} is lost"
            self.verdict.check(
                "lost", holds=excused, words=words, proof=[op, shown, self.adds.get(key, shown)]
            )
        if op.key and op.told == "ok":
            words = f"key {op.key} of {op.life} is not in what its own save returned"
            self.verdict.check("lost", holds=op.key in here, words=words, proof=[op])

    def _dropping(self, key: str) -> list[Op]:
        return [op for op in self.wholes if key not in op.carries]

    def _judge_undone(self, op: Op) -> None:
        for key in op.keys if self.gone else ():
            removed = self.gone.get(key)
            if removed is None:
                continue
            excused = any(
                key in other.carries and other.ended > removed.began and other.began < op.ended
                for other in self.wholes
            )
            words = f"key {key} of {op.life} is there again, after its removal"
            self.verdict.check("lost", holds=excused, words=words, proof=[op, removed])

    def _was_seen(self, op: Op) -> bool:
        """Whether another view of that version was looked at; all of a version are alike."""
        other = self.seen.setdefault(op.version, op)
        if other is op:
            return False
        alike = sorted(op.keys) == sorted(other.keys) and op.count == other.count
        words = f"version {op.version} of {op.life} is not the same each time"
        self.verdict.check("torn", holds=alike, words=words, proof=[op, other])
        return alike

    def _judge_foreign(self, op: Op) -> None:
        self.verdict.check(
            "torn", holds=not op.odd, words=f"wrong values under {op.odd} of {op.life}", proof=[op]
        )
        for key in op.keys:
            add = self.adds.get(key)
            proof = [op] if add is None else [op, add]
            its_own = (
                add is not None
                and add.life in {op.life, ""}
                and add.is_possible
                and add.began < op.ended
            )
            words = f"key {key} in {op.life} was never saved there"
            self.verdict.check("foreign", holds=its_own, words=words, proof=proof)

    def _judge_count(self, op: Op) -> None:
        """The counter counts on from one of its bases: the creation, or what replaced all."""
        bases = (
            [op] if op.whole else list(takewhile(lambda base: base.began < op.ended, self.bases))
        )
        if not bases:
            return
        own = op.verb == "count"
        least = min(self._least(op, base) for base in bases) + own
        most = max(self._most(op, base) for base in bases)
        holds = least <= op.count <= most
        words = f"the counter of {op.life} is {op.count}, and must be from {least} to {most}"
        near = [] if holds else [each for each in self.counts if each.began < op.ended][-8:]
        self.verdict.check("counted", holds=holds, words=words, proof=[op, *bases, *near])

    def _least(self, op: Op, base: Op) -> int:
        """With those increments alone that certainly came after the base and before the view."""
        if op is base:
            return base.carried
        over = bisect_left(self.certainly_over, op.began)
        return base.carried + max(0, over - bisect_right(self.certainly_begun, base.ended))

    def _most(self, op: Op, base: Op) -> int:
        """With every increment that may have come after the base and before the view."""
        if op is base:
            return base.carried
        begun = bisect_left(self.begun, op.ended)
        return base.carried + begun - bisect_left(self.over, base.began)

    def _judge_writes(self) -> None:
        """Each makes a version of its own; some the very next one to what they went out from."""
        made: dict[int, Op] = {}
        for op in self.ops:
            if not (op.is_write and op.told == "ok" and op.is_view):
                continue
            other = made.setdefault(op.version, op)
            words = f"two saves made version {op.version} of {op.life}"
            self.verdict.check("two winners", holds=other is op, words=words, proof=[op, other])
            if op.verb == "error":
                words = f"a save that refuses a conflict went over another's in {op.life}"
                self.verdict.check("lost", holds=op.version == op.on + 1, words=words, proof=[op])
            if op.verb == "count":
                words = f"another saved {op.life} while its lock was held"
                self.verdict.check(
                    "two holders", holds=op.version == op.on + 1, words=words, proof=[op]
                )

    def _judge_holders(self) -> None:
        held = sorted((op for op in self.ops if op.entered < NEVER), key=lambda op: op.entered)
        last: Op | None = None
        for op in held:
            if last is not None:
                words = f"two are inside the lock of {op.life} at once"
                self.verdict.check(
                    "two holders", holds=op.entered >= last.left, words=words, proof=[op, last]
                )
            if last is None or op.left > last.left:
                last = op
