"""The five verbs every store has, and the ids it takes."""

from __future__ import annotations

from typing import Any, Final

import pytest

from filesession.errors import ConfigurationError, SessionExists, SessionGone
from filesession.record import SessionRecord
from filesession.stores.protocol import Store
from filesession.testing.base import ContractTests, at_once, loaded, of_type
from filesession.testing.clock import ManualClock

MALFORMED: Final = {
    "empty": "",
    "257 characters": "x" * 257,
    "NUL": "a\0b",
    "line break": "abc\n",
    "delete": "a\x7f",
    "C1 control": "a\x85b",
    "half a surrogate pair": "a\ud800",
    "None": None,
    "number": 7,
    "bytes": b"abc",
}

ODD: Final = [
    "a",
    " ",
    ".",
    "..",
    "../x",
    "../../../../etc/passwd",
    "/",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "CON",
    "nul.txt",
    "%2e%2e%2f",
    "-rf",
    "*",
    "x" * 256,
    "\U0001f36a" * 256,
    "\u202egnp.exe",
    "s:abc.def",
    "{'$gt': ''}",
]

TWINS: Final = [
    ("abc", "ABC"),
    ("abc", "abc "),
    ("\u00e9", "e\u0301"),
    ("a/b", "a//b"),
    ("a", "./a"),
    ("x" * 255, "x" * 256),
]


class VerbTests(ContractTests):
    """create, load, save, touch, delete."""

    def test_what_was_created_is_loaded(self, store: Store, clock: ManualClock) -> None:
        """``create`` returns the record that ``load`` gives, with the clock's time and defaults.

        Everything else stands on this: a record that differs from what is stored makes the first
        save of the session a conflict.
        """
        record = store.create({"user": "ada", "cart": ["tea"]})
        assert record.data == {"user": "ada", "cart": ["tea"]}
        assert record.version == 1
        assert record.created_at == clock.now
        assert record.accessed_at == clock.now
        assert record.expires_at == clock.now + 1800
        assert record.idle_timeout == 1800
        assert record.absolute_timeout is None
        assert record.cookie == {}
        assert store.load(record.id) == record

    def test_a_session_created_without_data_is_empty(self, store: Store) -> None:
        """Without data a session is an empty mapping, and is stored all the same.

        ``save_uninitialized`` stores such sessions. One that loads as None is no session, and the
        visitor gets a new one with each request.
        """
        record = store.create()
        assert record.data == {}
        assert loaded(store, record.id).data == {}

    def test_every_session_gets_a_long_id_of_its_own(self, store: Store) -> None:
        """Ids are random, of at least 128 bits, and never the same twice.

        An id that can be guessed is a login without a password. Use ``secrets``, not ``random`` or
        a counter.
        """
        ids = {store.create().id for _ in range(20)}
        assert len(ids) == 20
        assert min(len(sid) for sid in ids) >= 22  # 128 bits in base64

    def test_an_unknown_id_is_absent(self, store: Store) -> None:
        """An unknown id is None to ``load`` and False to ``touch`` and ``delete``; no error.

        Every expired cookie is such an id: an exception here is an error page for whoever comes
        back from a holiday.
        """
        store.create()
        assert store.load("unknown") is None
        assert store.touch("unknown") is False
        assert store.delete("unknown") is False

    def test_an_unknown_id_is_never_adopted(self, store: Store) -> None:
        """No verb but ``create`` makes a session; a save under an unknown id is ``SessionGone``.

        A store that upserts lets an attacker choose the id his victim will log in with, which is
        session fixation.
        """
        other = store.create({"mine": 1})
        with pytest.raises(SessionGone):
            store.save("unknown", {"evil": 1})
        with pytest.raises(SessionGone):
            store.save("unknown", {"evil": 1}, base=other, conflict="overwrite")
        store.touch("unknown")
        store.touch("unknown", base=other)
        assert store.load("unknown") is None

    def test_a_session_can_be_created_under_a_chosen_id(self, store: Store) -> None:
        """``create(sid=...)`` stores the session under that id.

        Apps with ``genid``, and those that share sessions with Express, choose their ids.
        """
        record = store.create({"a": 1}, sid="chosen")
        assert record.id == "chosen"
        assert loaded(store, "chosen").data == {"a": 1}

    def test_a_chosen_id_that_is_taken_is_refused(self, store: Store) -> None:
        """The id of a live session is ``SessionExists``, and that session stays as it is.

        An ``INSERT OR REPLACE`` would hand one user's id to another, or wipe a session out.
        """
        before = store.create({"a": 1}, sid="chosen")
        with pytest.raises(SessionExists):
            store.create({"b": 2}, sid="chosen")
        assert store.load("chosen") == before

    def test_the_id_of_a_deleted_session_is_free_again(self, store: Store) -> None:
        """After a delete the id may be used for a new session, which starts from nothing.

        A grave marker that stays, or data that is found again, gives an app with ids of its own a
        user it cannot log in, or the wrong one.
        """
        store.create({"a": 1}, sid="chosen")
        store.delete("chosen")
        record = store.create({"b": 2}, sid="chosen")
        assert record.version == 1
        assert loaded(store, "chosen").data == {"b": 2}

    def test_the_id_of_an_expired_session_is_free_again(
        self, store: Store, clock: ManualClock
    ) -> None:
        """An expired session gives up its id at once, before any sweep.

        Otherwise a returning user of an app with ids of its own cannot log in until the janitor
        came by.
        """
        store.create({"a": 1}, sid="chosen")
        clock.advance(10_000)
        record = store.create({"b": 2}, sid="chosen")
        assert record.created_at == clock.now
        assert store.load("chosen") == record

    def test_of_several_who_create_the_same_id_one_wins(self, store: Store) -> None:
        """Of several creations of one id at the same moment one succeeds, the rest are refused.

        Looking first and writing then lets two through, and one user's data replaces the other's.
        It must be one step: ``O_EXCL``, ``SET NX``, a unique key.
        """
        outcomes = at_once(4, lambda n: store.create({"n": n}, sid="chosen"))
        assert len(of_type(outcomes, SessionExists)) == 3
        [winner] = of_type(outcomes, SessionRecord)
        assert store.load("chosen") == winner

    def test_a_save_without_base_replaces_everything(self, store: Store) -> None:
        """Without a base what is given is the whole session; no old key stays.

        A store that updates key by key keeps what the app deleted, ``user_id`` at logout for one.
        """
        sid = store.create({"a": 1, "b": 2}).id
        store.save(sid, {"b": 3})
        assert loaded(store, sid).data == {"b": 3}

    def test_a_save_gives_what_is_loaded_next(self, store: Store, clock: ManualClock) -> None:
        """A save returns what ``load`` then gives: same id and creation, activity now.

        The record is the base of the request's next save and the source of the cookie's expiry.
        """
        record = store.create({"a": 1})
        clock.advance(100)
        saved = store.save(record.id, {"a": 2}, base=record)
        assert store.load(record.id) == saved
        assert saved.id == record.id
        assert saved.created_at == record.created_at
        assert saved.accessed_at == clock.now
        assert saved.expires_at == clock.now + 1800

    def test_the_version_counts_the_saves(self, store: Store) -> None:
        """The version is 1 when created and one more with each save.

        It is how a stale base is known: a version that stands still hides conflicts, one that jumps
        invents them.
        """
        sid = store.create().id
        assert [store.save(sid, {"n": n}).version for n in range(3)] == [2, 3, 4]
        assert loaded(store, sid).version == 4

    def test_a_save_of_the_same_data_is_a_save(self, store: Store, clock: ManualClock) -> None:
        """Saving what is stored already counts as a save and as activity.

        ``resave=True`` asks for it. A store that skips the write ends the session early.
        """
        record = store.create({"a": 1})
        clock.advance(1)
        assert store.save(record.id, {"a": 1}, base=record).version == 2
        assert loaded(store, record.id).accessed_at == clock.now

    def test_a_hundred_saves_of_one_session_leave_the_last(self, store: Store) -> None:
        """After many saves the last one is loaded, whole, however the store keeps them.

        Logs that are compacted and rows that are versioned go wrong here first: a user is thrown
        back to an older cart.
        """
        record = store.create({"n": -1})
        for n in range(100):
            record = store.save(record.id, {"n": n, "text": "x" * 400}, base=record)
        assert store.load(record.id) == record
        assert (record.version, record.data["n"]) == (101, 99)

    def test_an_unknown_conflict_mode_is_refused(self, store: Store) -> None:
        """A mode other than the three is a ``ConfigurationError``; nothing is written.

        A misspelt ``conflict`` that is taken for "overwrite" loses updates for as long as nobody
        looks.
        """
        record = store.create({"a": 1})
        with pytest.raises(ConfigurationError):
            store.save(record.id, {"a": 2}, conflict="newest")  # type: ignore[arg-type]
        assert store.load(record.id) == record

    def test_a_touch_changes_neither_data_nor_version(
        self, store: Store, clock: ManualClock
    ) -> None:
        """A touch sets the last activity and nothing else.

        It is made at the end of every request that changed nothing. If it counted as a save, each
        of them would be a conflict for all others.
        """
        record = store.create({"a": 1})
        clock.advance(100)
        assert store.touch(record.id) is True
        after = loaded(store, record.id)
        assert (after.data, after.version) == ({"a": 1}, 1)
        assert after.accessed_at == clock.now

    def test_a_touch_does_not_undo_a_save(self, store: Store, clock: ManualClock) -> None:
        """A touch with an old record as base leaves what others saved since.

        A store whose touch writes the record back, expiry and data in one value, loses an update
        with every page that was only read.
        """
        record = store.create({"a": 1})
        saved = store.save(record.id, {"a": 2})
        clock.advance(100)
        assert store.touch(record.id, base=record) is True
        after = loaded(store, record.id)
        assert (after.data, after.version) == ({"a": 2}, saved.version)

    def test_a_session_is_deleted_once(self, store: Store) -> None:
        """``delete`` is True for who removed a live session, and False from then on.

        The session is absent for all at once: a logout that leaves it readable, from a cache say,
        is none.
        """
        sid = store.create({"a": 1}).id
        assert store.delete(sid) is True
        assert store.load(sid) is None
        assert store.delete(sid) is False

    def test_of_several_who_delete_a_session_one_did_it(self, store: Store) -> None:
        """Of several at the same moment exactly one is told that it did.

        An audit log counts on it: a user's logout is recorded once.
        """
        sid = store.create().id
        outcomes = at_once(4, lambda _: store.delete(sid))
        assert sorted(of_type(outcomes, int)) == [False, False, False, True]

    def test_what_was_deleted_never_comes_back(self, store: Store, clock: ManualClock) -> None:
        """Neither save nor touch revives a deleted session, whatever base and mode they come with.

        A request still under way when the user logs out ends in such a save. Upserting here undoes
        the logout: the first flaw to look for in any store.
        """
        record = store.create({"a": 1})
        store.delete(record.id)
        clock.advance(100)
        with pytest.raises(SessionGone):
            store.save(record.id, {"a": 2})
        with pytest.raises(SessionGone):
            store.save(record.id, {"a": 2}, base=record)
        with pytest.raises(SessionGone):
            store.save(record.id, {"a": 2}, base=record, conflict="overwrite")
        assert store.touch(record.id) is False
        assert store.touch(record.id, base=record) is False
        assert store.load(record.id) is None

    def test_sessions_do_not_touch_one_another(self, store: Store, clock: ManualClock) -> None:
        """What is done to one session changes nothing of another, not even its last activity.

        One file, row or lock for several sessions lets a stranger's click keep a session alive, or
        mix two users.
        """
        one, two, three = (store.create({"n": n}) for n in range(3))
        clock.advance(100)
        store.save(one.id, {"n": 10})
        store.delete(two.id)
        assert store.load(three.id) == three

    def test_a_record_does_not_show_its_id(self, store: Store) -> None:
        """The ``repr`` of a record leaves the id out.

        Records end up in logs and error reports, and whoever reads an id there is logged in as that
        user.
        """
        record = store.create({"a": 1})
        assert record.id not in repr(record)
        assert record.id not in repr(store.save(record.id, {"a": 2}))

    @pytest.mark.parametrize("sid", MALFORMED.values(), ids=MALFORMED.keys())
    def test_a_malformed_id_is_absent(self, store: Store, sid: Any) -> None:  # noqa: ANN401
        """What can be no id is absent to every verb: None, False or ``SessionGone``.

        Ids come from cookies, so from anybody. A ``ValueError`` or a failed query is a way to fill
        the error log, an id used in a path a way out of the directory.
        """
        assert store.load(sid) is None
        assert store.touch(sid) is False
        assert store.delete(sid) is False
        with pytest.raises(SessionGone):
            store.save(sid, {"a": 1})

    @pytest.mark.parametrize(
        "sid",
        [sid for sid in MALFORMED.values() if sid is not None],
        ids=[name for name, sid in MALFORMED.items() if sid is not None],
    )
    def test_no_session_is_created_under_a_malformed_id(self, store: Store, sid: Any) -> None:  # noqa: ANN401
        """``create`` under what can be no id is a ``ConfigurationError``.

        It could be stored and then never be loaded, as no cookie can carry it: the app's ``genid``
        is at fault and should hear of it.
        """
        with pytest.raises(ConfigurationError):
            store.create({"a": 1}, sid=sid)
        assert store.load(sid) is None

    @pytest.mark.parametrize("sid", ODD, ids=lambda sid: ascii(sid)[:30])
    def test_an_id_may_be_any_text(self, store: Store, clock: ManualClock, sid: str) -> None:
        """Any text of 1 to 256 characters without control characters is an id to all verbs.

        Express apps choose their own. An id must be hashed or bound, never pasted, before it comes
        near a path, a query or a key pattern.
        """
        record = store.create({"n": 1}, sid=sid)
        assert record.id == sid
        assert store.load(sid) == record
        clock.advance(100)
        assert store.touch(sid, base=record) is True
        store.save(sid, {"n": 2}, base=record)
        assert loaded(store, sid).data == {"n": 2}
        assert store.delete(sid) is True
        assert store.load(sid) is None

    @pytest.mark.parametrize(("one", "other"), TWINS, ids=ascii)
    def test_ids_that_look_alike_are_different_sessions(
        self, store: Store, one: str, other: str
    ) -> None:
        """Ids are compared exactly: case, blanks, accents and slashes tell them apart.

        A file system or collation that folds them opens one user's session with another's id.
        """
        store.create({"n": 1}, sid=one)
        assert store.load(other) is None
        store.create({"n": 2}, sid=other)
        assert loaded(store, one).data == {"n": 1}
        store.delete(other)
        assert loaded(store, one).data == {"n": 1}
