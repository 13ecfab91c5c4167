"""What dead writers left and notes of an old time are cleared away, once they are old enough."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from filesession import locks
from filesession.testing.faults import each, failing
from tests.stores.reaping import CODES, SID, Site, counts


class TestClear:
    def leave(self, site: Site) -> Path:
        site.create()
        path = site.path.with_name(f".{site.handle}.0123456789ab.tmp")
        path.write_bytes(b"half")
        return path

    def test_a_young_one_stays(self, site: Site) -> None:
        path = self.leave(site)
        reaper = site.reaper()
        reaper.clear(str(path))
        assert path.exists()
        assert counts(reaper.tally) == {}

    @pytest.mark.usefixtures("grown_old", "no_descriptor_leaks")
    def test_an_old_one_goes(self, site: Site) -> None:
        path = self.leave(site)
        before = site.state()
        rehearsal = site.reaper(dry_run=True)
        rehearsal.clear(str(path))
        assert (counts(rehearsal.tally), site.state()) == ({"leftovers": 1}, before)
        reaper = site.reaper()
        reaper.clear(str(path))
        reaper.clear(str(path))
        assert counts(reaper.tally) == {"leftovers": 1}
        assert site.raw.files() == [site.path]

    @pytest.mark.usefixtures("grown_old", "no_descriptor_leaks")
    def test_one_whose_writer_is_at_work_stays(self, site: Site) -> None:
        path = self.leave(site)
        reaper = site.reaper()
        with path.open("r+b") as file:
            assert locks.try_lock(file.fileno())
            reaper.clear(str(path))
        assert path.exists()
        assert counts(reaper.tally) == {}

    @pytest.mark.usefixtures("grown_old", "no_descriptor_leaks")
    @pytest.mark.parametrize("what", ["directory", "symlink", "fifo"])
    def test_what_is_no_file_is_set_aside(self, site: Site, what: str) -> None:
        path = self.leave(site)
        path.unlink()
        if what == "directory":
            path.mkdir()
        elif what == "symlink":
            path.symlink_to(site.path)
        else:
            os.mkfifo(path)
        before = site.state()
        rehearsal = site.reaper(dry_run=True)
        rehearsal.clear(str(path))
        assert (counts(rehearsal.tally), site.state()) == ({"corrupt": 1}, before)
        reaper = site.reaper()
        reaper.clear(str(path))
        assert counts(reaper.tally) == {"corrupt": 1}
        assert not os.path.lexists(path)
        (aside,) = site.raw.corrupt.iterdir()
        assert aside.name.startswith(path.name)
        assert site.path.exists()

    @pytest.mark.usefixtures("grown_old", "no_descriptor_leaks")
    @pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
    def test_one_that_cannot_be_removed_is_counted(self, site: Site, code: int) -> None:
        for calls in each(lambda nth: failing(OSError(code, os.strerror(code)), nth)):
            path = self.leave(site)
            reaper = site.reaper()
            with calls:
                reaper.clear(str(path))
            assert reaper.tally.leftovers == 1 - reaper.tally.failed
            assert path.exists() is bool(reaper.tally.failed)
            site.store.delete(SID)
        assert len(calls.calls) == 3

    def test_a_young_note_stays_and_an_old_one_goes(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        note = site.raw.directory / "sooner" / site.handle
        note.parent.mkdir()
        note.touch()
        reaper = site.reaper()
        reaper.clear_note(str(note))
        assert note.exists()
        now = time.time() + 61
        monkeypatch.setattr(time, "time", lambda: now)
        site.reaper(dry_run=True).clear_note(str(note))
        assert note.exists()
        reaper.clear_note(str(note))
        assert not note.exists()
        reaper.clear_note(str(note))
        assert counts(reaper.tally) == {}
