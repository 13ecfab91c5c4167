"""Ids and their handles, merges, and what a save makes of an entry."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.codec import JSONCodec
from filesession.errors import ConfigurationError, ConflictError, SessionGone, StoreUnavailable
from filesession.lifetime import UNSET, Lifetime
from filesession.record import NO_OVERRIDES, SessionRecord
from filesession.stores.entry import (
    Entry,
    accessed_at,
    check_conflict,
    decoded,
    handle_of,
    merged,
    new_handle,
    new_id,
)

CODEC: Final = JSONCodec()
STORE: Final = Lifetime(1800.0, None, None)

# Values that are easily taken for one another.
values = st.sampled_from([None, False, True, 0, 1, 1.0, "", "1", [], [1], [True], {}, {"a": 1}])
mappings = st.dictionaries(st.sampled_from("abcde"), values)


def entry(**more: Any) -> Entry:
    return Entry(3, "aa", 100.0, 200.0, b'{"a":1}', **more)


def record_of(one: Entry) -> SessionRecord:
    return one.record("sid", one.saved, STORE, CODEC)


def saved(one: Entry, data: Any = MappingProxyType({"a": 2}), **how: Any) -> Entry:
    wanted = {"base": None, "conflict": "merge"} | how
    encoded = None if data is None else CODEC.encode(data)
    return one.saved_as(data, encoded, 300.0, codec=CODEC, **wanted)


class TestIds:
    def test_an_id_is_forty_three_characters_for_a_cookie(self) -> None:
        ids = {new_id() for _ in range(100)}
        assert len(ids) == 100
        assert {len(sid) for sid in ids} == {43}
        assert all(sid.replace("-", "a").replace("_", "a").isalnum() for sid in ids)

    def test_a_handle_is_half_the_sha_256_of_the_id(self) -> None:
        assert handle_of("abc") == "ba7816bf8f01cfea414140de5dae2223"
        assert handle_of("\u00fc") == hashlib.sha256(b"\xc3\xbc").hexdigest()[:32]

    @given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=256))
    def test_any_text_without_control_characters_is_an_id(self, sid: str) -> None:
        assert handle_of(sid) == hashlib.sha256(sid.encode()).hexdigest()[:32]
        assert new_handle(sid) == handle_of(sid)

    @pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0xD800, 0xDFFF])
    def test_no_control_character_or_half_a_pair_is_in_an_id(self, code: int) -> None:
        for sid in (chr(code), f"a{chr(code)}", f"{chr(code)}a", f"a{chr(code)}a"):
            assert handle_of(sid) is None
            with pytest.raises(ConfigurationError, match="1 to 256 characters"):
                new_handle(sid)

    @pytest.mark.parametrize("sid", ["", "x" * 257, None, 7, b"abc", ["abc"], 1.5], ids=repr)
    def test_what_is_no_text_of_that_length_is_no_id(self, sid: Any) -> None:
        assert handle_of(sid) is None

    def test_a_refused_id_is_not_in_the_message(self) -> None:
        with pytest.raises(ConfigurationError) as refused:
            new_handle("secret\n")
        assert "secret" not in str(refused.value)


class TestMerged:
    @given(mappings, mappings, mappings)
    def test_each_key_is_ours_if_we_changed_it_and_theirs_if_not(
        self, base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
    ) -> None:
        def text(data: dict[str, Any], key: str) -> str | None:
            return json.dumps(data[key]) if key in data else None

        expected = {}
        for key in "abcde":
            ours_changed = text(base, key) != text(ours, key)
            chosen = ours if ours_changed else theirs
            if key in chosen:
                expected[key] = text(chosen, key)
        found = merged(base, ours, theirs, CODEC)
        assert {key: json.dumps(value) for key, value in found.items()} == expected

    @given(mappings, mappings)
    def test_who_changed_nothing_gets_theirs(
        self, base: dict[str, Any], theirs: dict[str, Any]
    ) -> None:
        assert repr(merged(base, dict(base), theirs, CODEC)) == repr(theirs)

    @given(mappings, mappings)
    def test_where_they_changed_nothing_ours_stays(
        self, base: dict[str, Any], ours: dict[str, Any]
    ) -> None:
        found = merged(base, ours, dict(base), CODEC)
        assert repr(sorted(found.items())) == repr(sorted(ours.items()))

    def test_a_merge_changes_none_of_the_three(self) -> None:
        base, ours, theirs = {"a": [1]}, {"a": [1], "b": 1}, {"a": [2]}
        merged(base, ours, theirs, CODEC)["a"].append(3)
        assert (base, ours) == ({"a": [1]}, {"a": [1], "b": 1})


class TestSavedAs:
    def test_a_save_counts_and_keeps_what_is_not_given(self) -> None:
        before = entry(idle=60.0, absolute=None, cookie={"max_age": 1})
        after = saved(before)
        assert after == Entry(4, "aa", 100.0, 300.0, b'{"a":2}', 60.0, None, {"max_age": 1})

    def test_without_data_the_content_stays(self) -> None:
        after = saved(entry(), None)
        assert (after.version, after.data) == (4, b'{"a":1}')

    @pytest.mark.parametrize("conflict", ["merge", "overwrite", "error"])
    @pytest.mark.parametrize("data", [None, {"a": 2}], ids=["kept", "given"])
    def test_a_base_of_another_lineage_is_gone(self, conflict: str, data: Any) -> None:
        other = record_of(Entry(3, "bb", 100.0, 200.0, b'{"a":1}'))
        with pytest.raises(SessionGone):
            saved(entry(), data, base=other, conflict=conflict)

    def test_a_conflict_holds_both_sides(self) -> None:
        base = record_of(entry())
        later = saved(entry(), {"a": 5})
        with pytest.raises(ConflictError) as refused:
            saved(later, {"a": 6}, base=base, conflict="error")
        assert (refused.value.ours, refused.value.theirs) == ({"a": 6}, {"a": 5})

    def test_content_that_is_kept_conflicts_with_nothing(self) -> None:
        base = record_of(entry())
        later = saved(entry(), {"a": 5})
        assert saved(later, None, base=base, conflict="error").data == b'{"a":5}'

    def test_the_idle_timeout_is_the_sessions_the_stores_or_none(self) -> None:
        given_one = saved(entry(), idle_timeout=timedelta(minutes=1))
        assert given_one.idle == 60
        assert given_one.lifetime(STORE).idle_timeout == 60
        without = saved(entry(), idle_timeout=math.inf)
        assert without.idle is None
        assert without.lifetime(STORE).idle_timeout is None
        back = saved(given_one, idle_timeout=None)
        assert back.idle is UNSET
        assert back.lifetime(STORE).idle_timeout == 1800

    def test_no_cookie_attributes_are_one_and_the_same(self) -> None:
        assert saved(entry(cookie={"max_age": 1}), cookie={}).cookie is NO_OVERRIDES

    def test_cookie_attributes_of_two_are_merged_by_name(self) -> None:
        before = entry(cookie={"max_age": 1, "path": "/", "priority": "low"})
        base = record_of(before)
        later = saved(before, cookie={"max_age": 2, "path": "/", "secure": True})
        ours = {"max_age": 1, "path": "/shop", "priority": "low"}
        assert saved(later, base=base, cookie=ours).cookie == {
            "max_age": 2,
            "secure": True,
            "path": "/shop",
        }

    def test_true_is_another_attribute_than_one(self) -> None:
        before = entry(cookie={"secure": 1})
        base = record_of(before)
        later = saved(before, cookie={"secure": False})
        assert saved(later, base=base, cookie={"secure": True}).cookie == {"secure": True}

    @pytest.mark.parametrize("how", [{"conflict": "overwrite"}, {"base": None}], ids=repr)
    def test_without_a_merge_they_are_replaced_as_a_whole(self, how: Any) -> None:
        before = entry()
        later = saved(before, cookie={"max_age": 2})
        how = {"base": record_of(before)} | how
        assert saved(later, cookie={"secure": True}, **how).cookie == {"secure": True}

    def test_a_record_does_not_hand_out_the_cookie_attributes_to_change(self) -> None:
        kept = saved(entry(), cookie={"max_age": 1})
        with pytest.raises(TypeError):
            record_of(kept).cookie["max_age"] = 2  # type: ignore[index]

    def test_an_unknown_mode_is_named_with_those_there_are(self) -> None:
        with pytest.raises(ConfigurationError, match="error, merge, overwrite, not 'newest'"):
            check_conflict("newest")

    @pytest.mark.parametrize("wrong", [[], {}, {"merge"}, None, 1], ids=repr)
    def test_so_is_what_is_no_text(self, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match="conflict must be one of error, merge"):
            check_conflict(wrong)


class TestDecoded:
    def test_what_its_codec_cannot_read_is_whole_and_unavailable(self) -> None:
        with pytest.raises(StoreUnavailable, match="the codec that wrote it") as raised:
            decoded(b"not json", CODEC)
        assert raised.value.__cause__ is not None


class TestAccessed:
    def test_a_past_mark_is_believed(self) -> None:
        assert accessed_at(150.0, 250.0) == 150.0
        assert accessed_at(250.0, 250.0) == 250.0

    def test_a_future_mark_counts_as_now(self) -> None:
        assert accessed_at(250.001, 250.0) == 250.0


class TestEnded:
    def test_one_that_was_refused_is_over_by_any_clock(self) -> None:
        ended = entry().as_ended()
        assert not entry().is_over(STORE, 200.0, 200.0)
        assert ended.is_over(STORE, 200.0, 200.0)
        assert ended.version == entry().version + 1

    def test_it_is_due_when_the_session_would_have_been(self) -> None:
        due = STORE.due_at(100.0, 200.0)
        assert due is not None
        ended = entry().as_ended()
        just_over = 200.0 + 1800 + STORE.slack + 1
        assert ended.overdue(STORE, just_over, 200.0) is None
        assert ended.overdue(STORE, due + 5, 200.0) == 5

    def test_it_is_due_at_once_when_the_clock_would_have_it_alive(self) -> None:
        assert entry().as_ended().overdue(STORE, 300.0, 200.0) == 0
        assert entry().overdue(STORE, 300.0, 200.0) is None


lifetimes = st.builds(
    Lifetime,
    st.none() | st.floats(0.001, 1e6),
    st.none() | st.floats(0.001, 1e6),
    st.none() | st.floats(0, 1e5),
)
timeouts = st.sampled_from([UNSET, None]) | st.floats(0.001, 1e6)


class TestDueAt:
    def test_it_is_told_by_the_stores_timeouts(self) -> None:
        assert entry().due_at(STORE, 200.0, 200.0) == 200 + 1800 + 2 * 60
        assert entry().due_at(STORE, 10_000.0, 200.0) == 200 + 1800 + 2 * 60
        assert entry().due_at(Lifetime(None), 200.0, 200.0) is None

    def test_it_is_told_by_its_own_timeouts_first(self) -> None:
        assert entry(idle=100.0).due_at(STORE, 200.0, 200.0) == 200 + 100 + 2 * 5
        assert entry(idle=None).due_at(STORE, 200.0, 200.0) is None
        assert entry(absolute=500.0).due_at(STORE, 200.0, 200.0) == 100 + 500 + 60
        both = entry(idle=100.0, absolute=150.0)
        assert both.due_at(STORE, 200.0, 200.0) == 100 + 150 + 5
        strict = Lifetime(1800.0, 300.0)
        assert entry().due_at(strict, 200.0, 200.0) == 100 + 300 + 60
        assert entry(absolute=None).due_at(strict, 200.0, 200.0) == 200 + 1800 + 120

    def test_one_that_was_refused_and_would_be_alive_was_due_at_any_time(self) -> None:
        assert entry(ended=True).due_at(STORE, 300.0, 200.0) == -math.inf
        assert entry(ended=True, idle=None).due_at(STORE, 1e12, 200.0) == -math.inf

    def test_one_that_was_refused_and_is_over_is_due_when_it_would_have_been(self) -> None:
        over = 200.0 + 1800 + 60
        assert entry(ended=True).due_at(STORE, over, 200.0) == -math.inf  # still alive
        assert entry(ended=True).due_at(STORE, math.nextafter(over, math.inf), 200.0) == 2120

    @given(
        lifetimes,
        st.tuples(timeouts, timeouts),
        st.booleans(),
        st.tuples(st.floats(0, 1e7), st.floats(0, 1e7)),
    )
    def test_past_it_one_is_overdue_and_not_before(
        self,
        store: Lifetime,
        own_ones: tuple[Any, Any],
        ended: bool,  # noqa: FBT001 - drawn
        times: tuple[float, float],
    ) -> None:
        (idle, absolute), (created, since) = own_ones, times
        one = Entry(1, "aa", created, created, b"{}", idle, absolute, ended=ended)
        accessed = created + since
        due = one.due_at(store, accessed, accessed)
        own = one.lifetime(store)
        if ended and not own.is_over(accessed, created, accessed):
            assert due == -math.inf
            assert one.overdue(store, accessed, accessed) == 0
            return
        assert due == own.due_at(created, accessed)
        if due is None:
            assert one.overdue(store, 1e15, accessed) is None
            return
        late = math.nextafter(due, math.inf)
        assert one.overdue(store, late, accessed) == late - due
        if not ended:
            assert one.overdue(store, due, accessed) is None
            assert one.is_over(store, late, accessed)


class TestAt:
    def test_a_clock_that_goes_on_changes_nothing(self) -> None:
        assert entry().at(entry().created) == entry()

    def test_by_a_clock_set_back_it_is_as_old_as_it_was_when_saved(self) -> None:
        before = entry()
        back = before.at(before.created - 10_000)
        assert back.saved == before.created - 10_000
        assert back.saved - back.created == before.saved - before.created

    def test_a_save_keeps_that(self) -> None:
        before = entry()
        now = before.created - 10_000
        following = before.saved_as({}, b"{}", now, codec=JSONCodec(), base=None, conflict="merge")
        assert now - following.created == before.saved - before.created
