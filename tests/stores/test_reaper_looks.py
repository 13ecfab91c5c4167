"""One session after the other, as who cleans up looks at it: when it is due, what is mended.

Files of every kind lie where a session is to be; the moments are those of ``Lifetime``.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.errors import LockTimeout
from filesession.lifetime import Lifetime
from filesession.stores import FileStore
from filesession.stores.file import reaper as reaper_module
from filesession.stores.file import sessionfile
from filesession.stores.file.reaper import LATER, LONG, QUIET, Filing, Reaper
from filesession.testing import ManualClock
from filesession.testing.base import in_thread
from filesession.testing.faults import SystemCalls
from tests.stores.reaping import (
    EVERY,
    LIFE,
    SID,
    Kind,
    Site,
    a_little_ahead,
    anothers,
    counts,
    damaged,
    empty,
    ended,
    fifo,
    hard_linked,
    in_the_future,
    made_in_the_future,
    never,
    newer,
    own_absolute,
    own_idle,
    plain,
    subdirectory,
    symlink,
    too_large,
)

Row: TypeAlias = tuple[Kind, float | None, bool, dict[str, int]]

FILINGS: Final[list[Row]] = [
    (plain, LIFE, True, {}),
    (own_idle, 100 + 2 * 5, False, {}),
    (own_absolute, 500 + 60, False, {}),
    (never, math.inf, False, {}),
    (ended, -math.inf, False, {}),
    (in_the_future, LATER, False, {"mended": 1}),
    (made_in_the_future, LATER, False, {"mended": 1}),
    (a_little_ahead, LIFE, True, {}),
    (empty, LATER, False, {"young": 1}),
    (damaged, LATER, False, {"young": 1}),
    (symlink, None, False, {"corrupt": 1}),
    (subdirectory, None, False, {"corrupt": 1}),
    (fifo, None, False, {"corrupt": 1}),
    (anothers, LATER, False, {"failed": 1}),
    (too_large, None, False, {"corrupt": 1}),
    (newer, LATER, False, {"failed": 1}),
    (hard_linked, LIFE, True, {}),
]
"""What a look gives: seconds from now until it is due, whether that is plain, what is counted."""

filings = pytest.mark.parametrize("row", FILINGS, ids=[row[0].__name__ for row in FILINGS])


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestLook:
    @filings
    @pytest.mark.parametrize("verb", ["look", "reap"])
    def test_tells_when_to_look_again(self, site: Site, row: Row, verb: str) -> None:
        kind, due, is_plain, counted = row
        kind(site)
        reaper = site.reaper()
        found = getattr(reaper, verb)(site.handle)
        if verb == "reap" and kind is ended:
            assert (found, counts(reaper.tally)) == (None, {"expired": 1})
            return
        expected = None if due is None else Filing(site.clock.now + due, is_plain)
        assert found == expected
        assert counts(reaper.tally) == counted
        assert os.path.lexists(site.path) is (due is not None)

    @pytest.mark.parametrize("kind", [empty, damaged])
    @pytest.mark.usefixtures("grown_old")
    def test_what_is_no_session_is_set_aside_once_it_is_old(self, site: Site, kind: Kind) -> None:
        kind(site)
        reaper = site.reaper()
        assert reaper.look(site.handle) is None
        assert counts(reaper.tally) == {"corrupt": 1}
        assert len(site.raw.set_aside()) == 1

    def test_what_is_due_stays(self, site: Site) -> None:
        site.create()
        site.clock.advance(LIFE + 1)
        before = site.state()
        reaper = site.reaper()
        assert reaper.look(site.handle) == Filing(site.clock.now - 1, plain=True)
        assert reaper.glance(site.handle) == Filing(site.clock.now - 1, plain=True)
        assert (counts(reaper.tally), site.state()) == ({}, before)

    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_there_is_none(self, site: Site, verb: str) -> None:
        site.clear_place()
        reaper = site.reaper()
        assert getattr(reaper, verb)(site.handle) is None
        assert getattr(reaper, verb)("ab" * 16) is None
        assert counts(reaper.tally) == {}

    @pytest.mark.parametrize("verb", ["glance", "look", "reap"])
    def test_one_to_be_mended_whose_lock_is_held_is_for_later(self, site: Site, verb: str) -> None:
        in_the_future(site)
        before = site.state()
        held = site.store.lock(SID)
        in_thread(held.__enter__)
        reaper = site.reaper()
        with pytest.raises(LockTimeout):
            getattr(reaper, verb)(site.handle)
        held.release()
        assert (counts(reaper.tally), site.state()) == ({}, before)

    def test_a_store_with_an_absolute_timeout_has_no_plain_ones(self, site: Site) -> None:
        site.create()
        lifetime = Lifetime(None, 100.0)
        reaper = Reaper(site.store._layout, lifetime, site.clock)
        assert reaper.look(site.handle) == Filing(site.clock.now + 100 + 60, plain=False)

    def test_where_no_session_ends_none_is_ever_due(self, site: Site) -> None:
        site.create()
        reaper = Reaper(site.store._layout, Lifetime(None), site.clock)
        assert reaper.look(site.handle) == Filing(math.inf, plain=True)
        assert reaper.glance(site.handle) == Filing(math.inf, plain=True)


@pytest.mark.usefixtures("no_descriptor_leaks")
class TestGlance:
    @pytest.mark.parametrize(
        "kind", [plain, own_idle, never, ended, a_little_ahead, empty, newer, hard_linked]
    )
    def test_is_one_call_and_reads_nothing(self, site: Site, kind: Kind) -> None:
        kind(site)
        mark = min(site.path.lstat().st_mtime, site.clock.now)
        reaper = site.reaper()
        with SystemCalls(only=EVERY) as calls:
            found = reaper.glance(site.handle)
        assert calls.names() == ["lstat"]
        assert found == Filing(mark + LIFE, plain=True)
        assert counts(reaper.tally) == {}

    @pytest.mark.parametrize(
        "kind",
        [in_the_future, symlink, subdirectory, fifo, too_large],
        ids=lambda kind: kind.__name__,
    )
    def test_is_a_look_where_that_is_called_for(self, site: Site, kind: Kind) -> None:
        row = next(row for row in FILINGS if row[0] is kind)
        kind(site)
        reaper = site.reaper()
        due = row[1]
        expected = None if due is None else Filing(site.clock.now + due, row[2])
        assert reaper.glance(site.handle) == expected
        assert counts(reaper.tally) == row[3]

    @pytest.mark.parametrize("size", [LONG, LONG + 1])
    def test_a_long_one_that_is_in_use_is_not_read(self, site: Site, size: int) -> None:
        site.create()
        os.truncate(site.path, size)
        os.utime(site.path, (site.clock.now, site.clock.now))
        site.clock.advance(QUIET if size > LONG else QUIET + 1)
        with SystemCalls(only=EVERY) as calls:
            site.reaper().glance(site.handle)
        assert calls.names() == ["lstat"]


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    """A site for many examples."""
    from tests.stores.conftest import Raw, line_for  # noqa: PLC0415 - no fixture lives as long

    with tempfile.TemporaryDirectory() as directory:
        path, clock = Path(directory, "sessions"), ManualClock()
        yield Site(FileStore(path, clock=clock), Raw(path), clock, line_for)


spans = st.floats(0.001, 1e7)
own = st.none() | st.just(math.inf) | spans


class TestDue:
    """The moment that is told is the one of ``Lifetime``, to the last bit."""

    @given(
        store=st.builds(Lifetime, st.none() | spans, st.none() | spans, st.none() | spans),
        idle=own,
        absolute=own,
        ages=st.tuples(st.floats(0, 1e7), st.floats(0, 1e7)),
    )
    def test_nothing_is_early_and_nothing_is_late(
        self,
        place: Site,
        store: Lifetime,
        idle: float | None,
        absolute: float | None,
        ages: tuple[float, float],
    ) -> None:
        clock, (age, since) = ManualClock(), ages
        place.clock.now = clock.now - max(age, since)
        place.store.delete(SID)
        place.path.unlink(missing_ok=True)
        place.create(idle_timeout=idle, absolute_timeout=absolute)
        os.utime(place.path, (clock.now - since, clock.now - since))
        found = sessionfile.read(str(place.path), place.handle)
        assert found is not None
        entry, mark = found.entry, found.mtime
        assert entry is not None
        due = entry.lifetime(store).due_at(entry.created, mark)
        rehearsal = Reaper(place.store._layout, store, clock, dry_run=True)
        filing = rehearsal.look(place.handle)
        simple = idle is None and absolute is None and store.absolute_timeout is None
        assert filing == Filing(math.inf if due is None else due, simple)
        if simple:
            assert rehearsal.glance(place.handle) == filing
        if due is None:
            clock.now = 1e12
            assert rehearsal.reap(place.handle) == filing
            return
        for now, is_due in ((due, False), (math.nextafter(due, math.inf), True)):
            clock.now = now
            if not mark <= now or entry.created > now:
                continue  # the clock was set back
            assert (entry.overdue(store, now, mark) is not None) is is_due
            assert (rehearsal.reap(place.handle) is None) is is_due
        assert rehearsal.tally.mended == 0


class TestUsualSize:
    def test_is_the_mean_of_what_was_looked_at(self, site: Site) -> None:
        reaper = site.reaper()
        assert reaper.usual_size == 0.0
        ids = [site.store.create({"text": "x" * 100 * n}).id for n in range(4)]
        sizes = [site.raw.path(sid).stat().st_size for sid in ids]
        for sid, verb in zip(ids, ("glance", "look", "reap", "glance"), strict=True):
            getattr(reaper, verb)(site.raw.name(sid))
        assert reaper.usual_size == sum(sizes) / 4

    def test_what_was_looked_at_long_ago_counts_less_and_less(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reaper_module, "MANY", 10)
        small = site.raw.name(site.store.create().id)
        large = site.raw.name(site.store.create({"text": "x" * 3000}).id)
        reaper = site.reaper()
        for _ in range(100):
            reaper.glance(small)
        for _ in range(40):
            reaper.glance(large)
        size = (site.store._layout.path(large), site.store._layout.path(small))
        most, least = (os.stat(path).st_size for path in size)
        assert least < 0.9 * most < reaper.usual_size <= most

    @pytest.mark.parametrize("kind", [symlink, subdirectory, fifo, too_large])
    def test_what_is_no_session_has_none(self, site: Site, kind: Kind) -> None:
        kind(site)
        reaper = site.reaper()
        reaper.glance(site.handle)
        reaper.look(site.handle)
        assert reaper.usual_size == 0.0
