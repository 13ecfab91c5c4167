"""What lies in the directory and is listed: sessions, shards, notes, and what is none of these."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from filesession.errors import StoreUnavailable
from filesession.stores import FileStore
from filesession.stores.file.layout import Layout, is_handle, make_beside
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCall, SystemCalls
from tests.stores.conftest import manifest

if TYPE_CHECKING:
    from tests.stores.conftest import Faults, Raw


class TestNames:
    """Any file system takes them: one that tells no cases apart, or allows 143 bytes (eCryptfs)."""

    def test_no_name_is_long_or_has_capitals(self, directory: Path, clock: ManualClock) -> None:
        with SystemCalls(only=("open", "mkdir", "rename", "link")) as calls:
            store = FileStore(directory, clock=clock, regenerate_grace=5)
            store.signing_key()
            base = store.create({"text": "x" * 20_000}, sid="A" * 256)
            store.save(base.id, {"n": 1})  # the file is replaced
            store.regenerate(base.id)
            store.create(sid="\u00dc")
            for path in directory.glob("sessions/*/*"):
                path.write_bytes(b"damage")
            assert store.load("\u00dc") is None
            store.sweep()
        paths = {str(path) for call in calls.calls for path in call.arguments[:2]}
        names = {os.path.basename(path) for path in paths if path.startswith(f"{directory}/")}
        assert {name.rpartition(".")[2] for name in names} >= {"tmp", "json", "secret"}
        assert max(map(len, names)) <= 64
        assert all(name == name.lower() and name.isascii() for name in names)


class TestListing:
    def test_sessions_are_told_from_what_else_lies_there(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        path = raw.path(store.create(sid="chosen").id)
        temporary = path.with_name(f".{path.name}.0123456789ab.tmp")
        strangers = [
            path.with_name("editor~"),
            path.with_name(path.name + ".bak"),
            path.with_name(path.name.upper().replace("0", "O")),
            raw.sessions / path.name,  # not in its own shard
            raw.sessions / "lost+found",
        ]
        for other in [temporary, *strangers]:
            other.touch()
        (directory / "secret.0123456789ab.tmp").touch()
        (directory / "notes.txt").touch()
        layout = Layout(str(directory), 1)
        assert list(layout.sessions()) == [(path.name, str(path))]
        assert sorted(layout.strangers()) == sorted(map(str, strangers))
        assert sorted(layout.leftovers()) == [
            str(directory / "secret.0123456789ab.tmp"),
            str(temporary),
        ]

    def test_a_directory_at_a_shards_place_that_is_none_is_a_stranger(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        store.create()
        (raw.sessions / "zz").mkdir()
        (raw.sessions / "abc").mkdir()
        layout = Layout(str(directory), 1)
        assert len(list(layout.sessions())) == 1
        assert sorted(layout.strangers()) == [str(raw.sessions / name) for name in ("abc", "zz")]

    def test_a_shard_that_vanishes_under_the_listing_is_passed_over(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        for n in range(50):
            store.create(sid=str(n))
        listing = Layout(str(directory), 1).sessions()
        next(listing)
        for shard in list(raw.sessions.iterdir()):
            shutil.rmtree(shard)
        assert len(list(listing)) < 50

    def test_an_unreadable_shard_is_an_error(
        self, store: FileStore, directory: Path, faults: Faults
    ) -> None:
        store.create()
        with (
            faults.failing(OSError(errno.EIO, "Input/output error"), 2, only=("scandir",)),
            pytest.raises(StoreUnavailable, match=r"listing .*: Input/output error"),
        ):
            list(store.scan())

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("0123456789abcdef" * 2, True),
            ("0123456789abcdef" * 2 + "\n", False),
            ("0123456789ABCDEF" * 2, False),
            ("0123456789abcdef", False),
            ("../" * 10 + "ab", False),
            ("", False),
        ],
    )
    def test_a_handle_is_thirty_two_hex_digits(self, name: str, ours: bool) -> None:  # noqa: FBT001
        assert is_handle(name) is ours

    def test_by_a_name_that_is_no_handle_nothing_outside_is_reached(
        self, store: FileStore, directory: Path, tmp_path: Path
    ) -> None:
        store.create()
        precious = tmp_path / "precious"
        precious.write_text("precious")
        for way in ("../../precious", "../../../precious", str(precious), "../filesession.json"):
            assert store.evict(way) is False
            assert store.inspect(way) is None
        assert precious.read_text() == "precious"
        assert manifest(directory)["format"] == 1


def make_shards(directory: Path, *paths: str) -> list[str]:
    made = [directory / "sessions" / path for path in paths]
    for path in made:
        path.mkdir(parents=True)
    return [str(path) for path in made]


class TestShards:
    """The directories that hold session files, and what lies in one of them."""

    def test_at_no_depth_it_is_the_root_whether_it_is_there_or_not(
        self, store: FileStore, directory: Path
    ) -> None:
        layout = Layout(str(directory), 0)
        assert list(layout.shards()) == [str(directory / "sessions")]
        assert list(layout.shards(lambda name: False)) == [str(directory / "sessions")]
        assert list(layout.listed(str(directory / "sessions"))) == []

    def test_they_come_in_order_and_no_other_directory_does(
        self, store: FileStore, directory: Path, raw: Raw, tmp_path: Path
    ) -> None:
        shards = make_shards(directory, "ff", "00", "7a", "a0")
        make_shards(directory, "zz", "AB", "abc", "00/11")
        (raw.sessions / "ee").touch()
        (raw.sessions / "dd").symlink_to(tmp_path)
        assert list(Layout(str(directory), 1).shards()) == sorted(shards)

    def test_those_asked_for_are_told_by_the_name_below_the_root(
        self, store: FileStore, directory: Path
    ) -> None:
        shards = make_shards(directory, "00/ff", "00/0a", "ff/00", "ff/ff")
        asked: list[str] = []

        def first(name: str) -> bool:
            asked.append(name)
            return name == "ff"

        assert list(Layout(str(directory), 2).shards(first)) == sorted(shards)[2:]
        assert sorted(asked) == ["00", "ff"]

    def test_of_none_that_was_asked_for_nothing_is_listed(
        self, store: FileStore, directory: Path
    ) -> None:
        make_shards(directory, "00/11", "22/33")
        with SystemCalls(only=("scandir",)) as calls:
            assert list(Layout(str(directory), 2).shards(lambda name: False)) == []
        assert len(calls.calls) == 1

    def test_in_a_directory_that_vanished_there_are_none(
        self, store: FileStore, directory: Path
    ) -> None:
        shutil.rmtree(directory)
        with pytest.raises(StoreUnavailable, match="has vanished"):
            list(Layout(str(directory), 1).shards())

    def test_one_that_cannot_be_listed_is_told_when_the_rest_is(
        self, store: FileStore, directory: Path
    ) -> None:
        shards = make_shards(directory, "00/11", "22/33", "44/55")

        def act(call: SystemCall) -> Any:
            if call.arguments[0].endswith("/22"):
                raise OSError(errno.EIO, "Input/output error")
            return call.make()

        found: list[str] = []
        with (
            SystemCalls(act, only=("scandir",)),
            pytest.raises(StoreUnavailable, match=r"listing .*/22: Input/output error"),
        ):
            found.extend(iter(Layout(str(directory), 2).shards()))
        assert found == [shards[0], shards[2]]

    def test_one_that_vanishes_under_the_listing_is_passed_over(
        self, store: FileStore, directory: Path
    ) -> None:
        shards = make_shards(directory, "00/11", "22/33", "44/55")
        listing = Layout(str(directory), 2).shards()
        assert next(listing) == shards[0]
        shutil.rmtree(directory / "sessions" / "22")
        assert list(listing) == [shards[2]]

    def test_in_one_lie_sessions_and_what_writers_left(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        path = raw.path(store.create(sid="chosen").id)
        temporary = path.with_name(f".{path.name}.0123456789ab.tmp")
        for other in (
            temporary,
            path.with_name("editor~"),
            path.with_name(path.name + ".bak"),
            path.with_name(f"{path.name}.0123456789ab.tmp"),
            path.with_name(("0" if path.name[0] != "0" else "1") + path.name[1:]),
        ):
            other.touch()
        path.with_name("00").mkdir()
        found = dict(Layout(str(directory), 1).listed(str(path.parent)))
        assert found == {path.name: None, temporary.name: str(temporary)}

    def test_in_one_that_is_not_there_lies_nothing(self, store: FileStore, directory: Path) -> None:
        layout = Layout(str(directory), 1)
        assert list(layout.listed(f"{layout.root}/ab")) == []

    def test_one_that_cannot_be_read_is_an_error(
        self, store: FileStore, directory: Path, raw: Raw, faults: Faults
    ) -> None:
        shard = raw.path(store.create(sid="chosen").id).parent
        with (
            faults.failing(OSError(errno.EIO, "Input/output error"), only=("scandir",)),
            pytest.raises(StoreUnavailable, match=f"listing {shard}: Input/output error"),
        ):
            list(Layout(str(directory), 1).listed(str(shard)))


class TestBeside:
    """What lies beside the sessions: documents half written, notes, directories of ours."""

    def test_documents_that_were_left_half_written_are_told_from_all_else(
        self, store: FileStore, directory: Path, raw: Raw
    ) -> None:
        path = raw.path(store.create(sid="chosen").id)
        path.with_name(f".{path.name}.0123456789ab.tmp").touch()
        left = [
            directory / f"{name}.0123456789ab.tmp"
            for name in ("filesession.json", "janitor.json", "secret")
        ]
        for other in (*left, directory / "notes.0123456789ab.tmp", directory / "secret.tmp"):
            other.touch()
        layout = Layout(str(directory), 1)
        assert sorted(layout.document_leftovers()) == [str(one) for one in left]

    def test_in_a_directory_that_vanished_nothing_is_left(
        self, store: FileStore, directory: Path
    ) -> None:
        shutil.rmtree(directory)
        with pytest.raises(StoreUnavailable, match="has vanished"):
            list(Layout(str(directory), 1).document_leftovers())

    @pytest.mark.parametrize("where", ["moved", "sooner"])
    def test_notes_have_the_names_of_sessions(
        self, store: FileStore, directory: Path, tmp_path: Path, where: str
    ) -> None:
        layout = Layout(str(directory), 1)
        notes = directory / where
        assert list(layout.notes(str(notes))) == []
        notes.mkdir()
        handle = "0123456789abcdef" * 2
        ours = [notes / handle, notes / f"{handle}.0123456789ab.tmp"]
        for other in (*ours, notes / f"{handle}~", notes / "README", notes / f".{handle}.ab.tmp"):
            other.touch()
        assert sorted(layout.notes(str(notes))) == [str(one) for one in ours]
        shutil.move(notes, tmp_path / "elsewhere")
        notes.symlink_to(tmp_path / "elsewhere")
        assert list(layout.notes(str(notes))) == []

    def test_notes_that_cannot_be_listed_are_an_error(
        self, store: FileStore, directory: Path, faults: Faults
    ) -> None:
        layout = Layout(str(directory), 1)
        with (
            faults.failing(OSError(errno.EIO, "Input/output error"), only=("scandir",)),
            pytest.raises(StoreUnavailable, match="Input/output error"),
        ):
            list(layout.notes(layout.sooner))

    def test_a_directory_of_ours_is_ours_alone_whatever_the_umask(
        self, umask: int, tmp_path: Path, raw: Raw
    ) -> None:
        make_beside(str(tmp_path / "ours"))
        assert raw.mode(tmp_path / "ours") == 0o700
        make_beside(str(tmp_path / "ours"))

    def test_one_that_is_there_is_left_as_it_is(self, tmp_path: Path, raw: Raw) -> None:
        directory = tmp_path / "ours"
        directory.mkdir(0o750)
        (directory / "note").touch()
        before = directory.stat()
        make_beside(str(directory))
        assert directory.stat() == before
        assert os.listdir(directory) == ["note"]

    @pytest.mark.parametrize("dangling", [False, True])
    def test_a_symlink_is_refused(self, tmp_path: Path, dangling: bool) -> None:  # noqa: FBT001
        elsewhere = tmp_path / "elsewhere"
        if not dangling:
            elsewhere.mkdir(0o755)
        link = tmp_path / "ours"
        link.symlink_to(elsewhere)
        with pytest.raises(NotADirectoryError):
            make_beside(str(link))
        assert elsewhere.exists() is not dangling
        assert dangling or elsewhere.stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("call", ["mkdir", "chmod"])
    def test_one_that_cannot_be_made_is_an_error(
        self, tmp_path: Path, faults: Faults, call: str
    ) -> None:
        error = OSError(errno.EROFS, "Read-only file system")
        with faults.failing(error, only=(call,)), pytest.raises(OSError, match="Read-only"):
            make_beside(str(tmp_path / "ours"))
