"""Files that are not what was written: an older state or no session, and never other data."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.codec import JSONCodec
from filesession.errors import SessionGone, StoreUnavailable
from filesession.stores import FileStore
from filesession.testing import ManualClock
from filesession.testing.faults import CALLS, SystemCall, SystemCalls

if TYPE_CHECKING:
    from tests.stores.conftest import Faults, Raw

DAMAGE: Final = {
    "empty": b"",
    "a blank": b" ",
    "a line break": b"\n",
    "zeros": bytes(4096),
    "text": b"not a session\n",
    "JSON null": b"null\n",
    "JSON of a session without a checksum": b'{"format":1,"version":1,"data":{}}\n',
    "a byte order mark": b"\xef\xbb\xbf{}\n",
    "no UTF-8": b"\xff\xfe\xfd\n",
    "a wrong checksum": b'00000000 {"format":1,"version":1,"lineage":"a","created":1,"saved":1,'
    b'"data":{}}\n',
}


@pytest.fixture
def two_lines(store: FileStore, raw: Raw) -> bytes:
    """A file that was saved once."""
    store.create({"n": 1}, sid="chosen")
    store.save("chosen", {"n": 2, "text": "abc"})
    return raw.path("chosen").read_bytes()


STATES: Final = (None, {"n": 1}, {"n": 2, "text": "abc"})


@pytest.fixture
def all_members(store: FileStore, raw: Raw) -> bytes:
    """A file of four lines that differ in all that a line may have."""
    store.create({"n": 1}, sid="chosen", absolute_timeout=900)
    store.save("chosen", {"n": 2, "text": "\u00fc"}, idle_timeout=600)
    store.save("chosen", {"n": 2, "text": "\u00fc"}, cookie={"max_age": 5})
    store.save("chosen", {"n": 3}, idle_timeout=None, cookie={})
    return raw.path("chosen").read_bytes()


def state_of(store: FileStore, path: Path, content: bytes) -> tuple[object, ...] | None:
    """All that is read from a file of that content, as one value."""
    path.write_bytes(content)
    record = store.load("chosen")
    if record is None:
        return None
    own = record.idle_timeout, record.absolute_timeout, repr(dict(record.cookie))
    return record.version, record.lineage, record.created_at, repr(record.data), *own


def data_of(store: FileStore, sid: str) -> dict[str, Any] | None:
    record = store.load(sid)
    return None if record is None else record.data


class TestDamaged:
    @pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE.keys())
    def test_a_damaged_file_is_no_session_and_set_aside_once(
        self, store: FileStore, raw: Raw, content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        store.create({"n": 2}, sid="other")
        raw.path("chosen").write_bytes(content)
        if not content:  # it might be in the making, were it young
            monkeypatch.setattr("filesession.stores.file.sessionfile.YOUNG", -1.0)
        assert store.load("chosen") is None
        assert raw.set_aside() == [content]
        assert raw.files() == [raw.path("other")]
        assert store.load("chosen") is None
        assert raw.set_aside() == [content]
        assert data_of(store, "other") == {"n": 2}

    @pytest.mark.parametrize(
        "verb",
        [
            lambda store: store.save("chosen", {"n": 2}),
            lambda store: store.regenerate("chosen"),
            lambda store: store.lock("chosen").__enter__(),
        ],
        ids=["save", "regenerate", "lock"],
    )
    def test_a_writer_that_finds_damage_sets_it_aside_too(
        self, store: FileStore, raw: Raw, verb: Callable[[FileStore], Any]
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        raw.path("chosen").write_bytes(b"damage")
        with pytest.raises(SessionGone):
            verb(store)
        assert raw.set_aside() == [b"damage"]
        assert raw.files() == []

    def test_damage_is_deleted_like_a_session(self, store: FileStore, raw: Raw) -> None:
        store.create({"n": 1}, sid="chosen")
        raw.path("chosen").write_bytes(b"damage")
        assert store.delete("chosen") is False
        assert raw.set_aside() == []
        assert raw.files() == []

    def test_an_empty_file_may_be_in_the_making(self, store: FileStore, raw: Raw) -> None:
        store.create({"n": 1}, sid="chosen")
        raw.path("chosen").write_bytes(b"")
        assert store.load("chosen") is None
        with pytest.raises(SessionGone):
            store.save("chosen", {"n": 2})
        assert raw.files() == [raw.path("chosen")]
        assert data_of(store, store.create({"n": 3}, sid="chosen").id) == {"n": 3}

    def test_the_id_of_a_damaged_session_is_free_again(self, store: FileStore, raw: Raw) -> None:
        store.create({"n": 1}, sid="chosen")
        store.create({"n": 2}, sid="other")
        raw.path("chosen").write_bytes(b"damage")
        store.create({"n": 3}, sid="chosen")
        assert data_of(store, "chosen") == {"n": 3}
        raw.path("chosen").write_bytes(b"more damage")
        store.regenerate("other", new_sid="chosen")
        assert data_of(store, "chosen") == {"n": 2}
        assert sorted(raw.set_aside()) == [b"damage", b"more damage"]

    def test_damage_is_listed_nowhere_and_touched_by_nobody(
        self, store: FileStore, raw: Raw, clock: ManualClock
    ) -> None:
        record = store.create({"n": 1}, sid="chosen")
        raw.path("chosen").write_bytes(b"damage")
        clock.advance(100)
        assert list(store.scan()) == []
        assert store.inspect(raw.name("chosen")) is None
        assert store.touch("chosen") is False
        assert raw.files() == [raw.path("chosen")]
        store.touch("chosen", base=record)
        assert store.load("chosen") is None

    @pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
    def test_what_is_no_file_is_set_aside_and_not_followed(
        self, store: FileStore, raw: Raw, tmp_path: Path, kind: str
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        content = path.read_bytes()
        path.unlink()
        for verb in (store.load, store.delete, store.load):
            if kind == "symlink":
                elsewhere.write_bytes(content)  # it would be a session, if it lay here
                path.symlink_to(elsewhere)
            elif kind == "directory":
                path.mkdir()
            else:
                os.mkfifo(path)
            assert not verb("chosen")
            assert not os.path.lexists(path)
        assert len(list(raw.corrupt.iterdir())) == 3
        if kind == "symlink":
            assert elsewhere.read_bytes() == content

    @pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
    def test_what_is_no_file_is_no_session_to_those_who_only_look(
        self, store: FileStore, raw: Raw, tmp_path: Path, clock: ManualClock, kind: str
    ) -> None:
        record = store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        path.rename(tmp_path / "elsewhere")
        if kind == "symlink":
            path.symlink_to(tmp_path / "elsewhere")
        elif kind == "directory":
            path.mkdir()
        else:
            os.mkfifo(path)
        clock.advance(100)
        assert list(store.scan()) == []
        assert store.inspect(raw.name("chosen")) is None
        assert store.touch("chosen") is False
        with pytest.raises(SessionGone):
            store.lock("chosen").__enter__()
        assert store.load("chosen") is None
        assert (tmp_path / "elsewhere").stat().st_mtime == record.accessed_at

    def test_a_file_copied_to_another_name_is_no_session_there(
        self, store: FileStore, raw: Raw
    ) -> None:
        store.create({"user": "ada"}, sid="ada")
        store.create({"user": "eve"}, sid="eve")
        shutil.copy(raw.path("ada"), raw.path("eve"))
        assert store.load("eve") is None
        assert data_of(store, "ada") == {"user": "ada"}

    def test_a_line_copied_into_another_file_is_passed_over(
        self, store: FileStore, raw: Raw
    ) -> None:
        store.create({"user": "ada"}, sid="ada")
        store.create({"user": "eve"}, sid="eve")
        with raw.path("eve").open("ab") as file:
            file.write(raw.path("ada").read_bytes())
        assert data_of(store, "eve") == {"user": "eve"}

    def test_two_files_swapped_are_no_sessions_and_two_more_are_as_they_were(
        self, store: FileStore, raw: Raw
    ) -> None:
        for sid in ("ada", "eve", "ann", "bob"):
            store.create({"user": sid}, sid=sid)
        one, other = raw.path("ada"), raw.path("eve")
        contents = sorted([one.read_bytes(), other.read_bytes()])
        one.rename(one.with_name("aside"))
        other.rename(one)
        one.with_name("aside").rename(other)
        assert [data_of(store, sid) for sid in ("ada", "eve")] == [None, None]
        assert sorted(raw.set_aside()) == contents
        assert [data_of(store, sid) for sid in ("ann", "bob")] == [{"user": "ann"}, {"user": "bob"}]

    def test_a_file_of_lines_of_both_has_only_its_own(self, store: FileStore, raw: Raw) -> None:
        for sid in ("ada", "eve"):
            store.create({"user": sid}, sid=sid)
            store.save(sid, {"user": sid, "admin": sid == "ada"})
        ours, theirs = (
            raw.path(sid).read_bytes().splitlines(keepends=True) for sid in ("eve", "ada")
        )
        raw.path("eve").write_bytes(ours[0] + theirs[0] + theirs[1])
        assert data_of(store, "eve") == {"user": "eve"}
        raw.path("eve").write_bytes(b"".join(theirs[:1] + ours[1:] + theirs[1:]))
        assert data_of(store, "eve") == {"user": "eve", "admin": False}
        raw.path("eve").write_bytes(b"".join(theirs))
        assert data_of(store, "eve") is None

    def test_an_older_copy_put_back_is_the_session_as_it_was_then(
        self, directory: Path, raw: Raw, clock: ManualClock
    ) -> None:
        store = FileStore(directory, absolute_timeout=7200, clock=clock)
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        backup, mark = path.read_bytes(), path.stat().st_mtime
        clock.advance(1000)
        base = store.save("chosen", {"n": 2, "mine": 2})
        clock.advance(1000)
        path.write_bytes(backup)
        os.utime(path, (mark, mark))  # as `cp -p` does: so it was last used long ago
        assert store.load("chosen") is None
        path.write_bytes(backup)
        os.utime(path, (clock.now, clock.now))
        assert data_of(store, "chosen") == {"n": 1}
        # Who loaded what was lost with it is merged, as with any other save that came between.
        merged = store.save("chosen", {"n": 2, "mine": 3}, base=base)
        assert (merged.version, merged.data) == (2, {"n": 1, "mine": 3})
        for _ in range(5):
            clock.advance(1000)
            store.touch("chosen")
        assert data_of(store, "chosen") is not None
        clock.advance(201)  # the login was 7,201 seconds ago
        assert store.load("chosen") is None

    def test_a_copy_of_the_directory_taken_at_any_moment_is_an_old_state_or_the_new_one(
        self, store: FileStore, directory: Path, tmp_path: Path, clock: ManualClock
    ) -> None:
        large, small = {"text": "x" * 20_000}, {"n": 1}
        copies: list[Path] = []

        def copy_first(call: SystemCall) -> Any:
            copies.append(tmp_path / f"copy {len(copies)}")
            with pytest.MonkeyPatch.context() as patch:
                for name, real in unwatched.items():
                    patch.setattr(os, name, real)
                shutil.copytree(directory, copies[-1])
            return call.make()

        unwatched = {name: getattr(os, name) for name in CALLS}
        store.create(large, sid="chosen")
        with SystemCalls(copy_first):
            store.save("chosen", small)  # the file is replaced
            store.save("chosen", {"n": 2})
            store.regenerate("chosen", new_sid="moved")
        found = []
        for copy in copies:
            copied = FileStore(copy, clock=clock)
            states = [data_of(copied, "chosen"), data_of(copied, "moved")]
            found.append(next(state for state in states if state is not None))
            assert states.count(None) == 1
        assert [state for n, state in enumerate(found) if state not in found[:n]] == [
            *(large, small, {"n": 2})
        ]

    @pytest.mark.parametrize("error", [ValueError("wrong key"), KeyError("key")], ids=repr)
    def test_a_codec_that_cannot_read_it_costs_no_session(
        self, store: FileStore, directory: Path, raw: Raw, clock: ManualClock, error: Exception
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        other = FileStore(directory, codec=Refusing(error), clock=clock)
        for verb in (
            lambda: other.load("chosen"),
            lambda: other.lock("chosen").__enter__(),
            lambda: other.inspect(raw.name("chosen")),
            lambda: other.regenerate("chosen"),  # or it would have an id that nobody was told
        ):
            with pytest.raises(StoreUnavailable, match=r"codec cannot read it .*key"):
                verb()
        assert raw.set_aside() == []
        assert data_of(store, "chosen") == {"n": 1}

    @pytest.mark.parametrize(
        "verb",
        [
            lambda store: store.load("chosen"),
            lambda store: store.save("chosen", {"n": 2}),
            lambda store: store.touch("chosen"),
            lambda store: store.create({"n": 2}, sid="chosen"),
        ],
        ids=["load", "save", "touch", "create"],
    )
    def test_a_session_of_a_newer_version_is_left_to_it(
        self,
        store: FileStore,
        raw: Raw,
        make_line: Callable[..., bytes],
        verb: Callable[[FileStore], Any],
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        content = path.read_bytes() + make_line(path.name, format=2, data={"n": 9})
        path.write_bytes(content)
        with pytest.raises(StoreUnavailable, match=r"saved by a newer version .* update this one"):
            verb(store)
        assert path.read_bytes() == content
        assert store.sweep().failed == 1
        assert list(store.scan()) == []
        assert store.delete("chosen") is True

    def test_damage_that_cannot_be_set_aside_is_no_error(
        self, store: FileStore, raw: Raw, faults: Faults, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        raw.path("chosen").write_bytes(b"damage")
        for code in (errno.ENOSPC, errno.EROFS):
            with faults.failing(OSError(code, os.strerror(code)), only=("rename",)):
                assert store.load("chosen") is None
            assert os.strerror(code) in caplog.text
        assert raw.files() == [raw.path("chosen")]
        assert store.load("chosen") is None
        assert raw.files() == []

    def test_damage_another_set_aside_and_made_good_is_left_alone(
        self, store: FileStore, raw: Raw, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        raw.path("chosen").write_bytes(b"damage")
        set_aside = store._access.set_aside

        def after_another(handle: str) -> None:
            store.create({"n": 2}, sid="chosen")
            set_aside(handle)

        monkeypatch.setattr(
            type(store._access), "set_aside", lambda _, handle: after_another(handle)
        )
        assert store.load("chosen") is None
        assert data_of(store, "chosen") == {"n": 2}
        assert raw.set_aside() == [b"damage"]


class TestEveryByte:
    def test_cut_short_anywhere_it_is_an_earlier_state_or_none(
        self, store: FileStore, raw: Raw, two_lines: bytes
    ) -> None:
        path, states = raw.path("chosen"), []
        for length in range(len(two_lines) + 1):
            path.write_bytes(two_lines[:length])
            states.append(data_of(store, "chosen"))
        first = two_lines.index(b"\n") + 1
        assert states[:first] == [None] * first
        assert states[first:-1] == [STATES[1]] * (len(two_lines) - first)
        assert states[-1] == STATES[2]

    def test_with_any_bit_flipped_it_is_a_whole_state_and_no_other(
        self, store: FileStore, raw: Raw, all_members: bytes
    ) -> None:
        path = raw.path("chosen")
        lines = all_members.splitlines(keepends=True)
        whole = [state_of(store, path, b"".join(lines[: n + 1])) for n in range(len(lines))]
        assert len(set(whole)) == len(lines) == 4
        last = len(b"".join(lines[:3]))
        for place in range(len(all_members)):
            expected = whole[3] if place < last else whole[2]
            if place == last - 1:  # the line break between the two: neither is whole without it
                expected = whole[1]
            for bit in range(8):
                damaged = bytearray(all_members)
                damaged[place] ^= 1 << bit
                assert state_of(store, path, bytes(damaged)) == expected, (place, bit)
        assert raw.set_aside() == []

    def test_one_line_with_any_bit_flipped_is_none_and_set_aside(
        self, store: FileStore, raw: Raw
    ) -> None:
        store.create({"n": 1}, sid="chosen")
        path = raw.path("chosen")
        line, damaged = path.read_bytes(), []
        for bit in range(8 * len(line)):
            content = bytearray(line)
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            damaged.append(bytes(content))
            assert store.load("chosen") is None
            assert not path.exists()
        assert sorted(raw.set_aside()) == sorted(damaged)

    def test_cut_short_anywhere_a_file_of_many_lines_is_the_last_whole_one(
        self, store: FileStore, raw: Raw, all_members: bytes
    ) -> None:
        path, lines = raw.path("chosen"), all_members.splitlines(keepends=True)
        whole = [state_of(store, path, b"".join(lines[: n + 1])) for n in range(len(lines))]
        for length in range(len(lines[0]), len(all_members) + 1):
            cut = all_members[:length]
            assert state_of(store, path, cut) == whole[cut.count(b"\n") - 1], length

    @pytest.mark.parametrize("block", [1, 16, 512])
    def test_a_block_that_never_arrived_is_an_earlier_state_or_none(
        self, store: FileStore, raw: Raw, all_members: bytes, block: int
    ) -> None:
        path, lines = raw.path("chosen"), all_members.splitlines(keepends=True)
        whole = [state_of(store, path, b"".join(lines[: n + 1])) for n in range(len(lines))]
        for start in range(0, len(all_members), block):
            end = min(start + block, len(all_members))
            content = all_members[:start] + bytes(end - start) + all_members[end:]
            assert state_of(store, path, content) in [*whole, None]

    def test_after_a_cut_tail_saves_go_on(
        self, store: FileStore, raw: Raw, two_lines: bytes
    ) -> None:
        path = raw.path("chosen")
        for length in range(two_lines.index(b"\n") + 1, len(two_lines)):
            path.write_bytes(two_lines[:length])
            assert store.save("chosen", {"n": 3}).version == 2
            assert data_of(store, "chosen") == {"n": 3}
            assert store.save("chosen", {"n": 4}).version == 3
            assert data_of(store, "chosen") == {"n": 4}


class Refusing(JSONCodec):
    """A codec with another key."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def decode(self, text: bytes) -> dict[str, Any]:
        raise self._error
