"""Which directory may become or be a session directory, and what is said to those that may not.

And whose the files in it may be: another user's is an error, one with a second name is ours.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from filesession.cli.doctor import examine
from filesession.errors import ConfigurationError, StoreUnavailable
from filesession.record import SessionRecord
from filesession.stores import FileStore
from filesession.stores.entry import handle_of
from filesession.stores.file.ownership import (
    MANIFEST,
    absolute,
    as_user,
    check_ours,
    fault_of,
    is_blank,
    prepare,
    user_text,
)
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCalls

if TYPE_CHECKING:
    from tests.stores.conftest import Raw

NOBODYS = 4_000_000
"""A number that no user has."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir(0o700)
    return place


def ours(place: Path) -> None:
    (place / MANIFEST).touch()


def others(place: Path) -> None:
    (place / "hosts").touch()


def message(place: Path, *, new: bool) -> str:
    """What a store that is made there, or opened, is refused with."""
    with pytest.raises(ConfigurationError) as refused:
        prepare(str(place)) if new else check_ours(str(place))
    return str(refused.value)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_can_be_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="the path of the session directory"):
        absolute(path)


def test_a_path_is_told_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a") == absolute(Path("a")) == absolute(tmp_path / "b" / ".." / "a")
    assert absolute("a") == str(tmp_path / "a")


@pytest.mark.parametrize("mode", [0o755, 0o711, 0o777, 0o1777])
def test_where_others_have_things_no_command_is_offered_but_another_place(
    place: Path, mode: int
) -> None:
    others(place)
    place.chmod(mode)
    assert message(place, new=True) == (
        f"{place} is open to other users (mode {mode:04o}) and has other things in it;"
        " name another directory"
    )
    assert "chmod" not in message(place, new=False)
    assert os.listdir(place) == ["hosts"]
    assert place.stat().st_mode & 0o7777 == mode


def test_etc_is_not_to_be_closed() -> None:
    for new in (True, False):
        assert "chmod" not in message(Path("/etc"), new=new)


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_session_directory_that_is_open_is_to_be_closed(place: Path, mode: int) -> None:
    ours(place)
    place.chmod(mode)
    for new in (True, False):
        assert message(place, new=new).endswith(f"; look at what is in it, then: chmod 700 {place}")


def test_an_empty_one_that_others_can_write_is_to_be_closed(place: Path) -> None:
    place.chmod(0o777)
    assert message(place, new=True).endswith(f": chmod 700 {place}")


def test_a_path_in_a_command_is_quoted(tmp_path: Path) -> None:
    place = tmp_path / "a b; true"
    place.mkdir()
    ours(place)
    place.chmod(0o755)
    assert message(place, new=False).endswith(f"chmod 700 '{place}'")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_without_a_manifest_it_is_none_to_be_opened_whatever_its_mode(
    place: Path, mode: int
) -> None:
    place.chmod(mode)
    for fill in (lambda _: None, others):
        fill(place)
        assert message(place, new=False).startswith(
            f"{place} is no session directory: it has no filesession.json; "
        )


def test_one_where_a_worker_writes_the_first_manifest_is_as_good_as_empty(place: Path) -> None:
    assert is_blank(str(place))
    (place / f"{MANIFEST}.0123456789ab.tmp").touch()
    assert is_blank(str(place))
    place.chmod(0o755)
    prepare(str(place))
    assert place.stat().st_mode & 0o777 == 0o700
    ours(place)
    assert not is_blank(str(place))
    assert not is_blank(str(place / "nowhere"))


@pytest.fixture
def as_another(monkeypatch: pytest.MonkeyPatch) -> int:
    """We are a user without a name, and nobody's directory is ours."""
    monkeypatch.setattr(os, "geteuid", lambda: NOBODYS)
    return NOBODYS


def test_another_users_session_directory_is_for_that_user(place: Path, as_another: int) -> None:
    ours(place)
    owner = place.stat().st_uid
    for new in (True, False):
        assert message(place, new=new) == (
            f"{place} belongs to user {user_text(owner)} and this process runs as {as_another};"
            f" run it as that user: {as_user(owner, 'status', str(place))}"
        )


def test_an_empty_one_of_another_user_may_be_given_to_us(place: Path, as_another: int) -> None:
    assert message(place, new=True).endswith(f": sudo chown {as_another} {place}")


def test_one_of_another_user_with_other_things_in_it_may_not(place: Path, as_another: int) -> None:
    others(place)
    assert message(place, new=True).endswith("; run it as that user, or name another directory")


def test_one_we_cannot_look_into_may_not_either(
    place: Path, as_another: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    for new in (True, False):
        told = message(place, new=new)
        assert "run it as that user: sudo -u " in told
        assert "chown" not in told


def test_root_is_never_told_to_take_a_directory_away(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    status = os.stat(place)
    anothers = os.stat_result((*status[:4], NOBODYS, *status[5:]))
    monkeypatch.setattr(os, "lstat", lambda path: anothers)
    for fill in (lambda _: None, others, ours):
        fill(place)
        fault = fault_of(str(place), new=True)
        assert fault is not None
        assert f"belongs to user {NOBODYS} and this process runs as root" in fault.what
        assert "chown" not in fault.mend
    assert fault is not None
    assert fault.mend.endswith(f"sudo -u '#{NOBODYS}' filesession status {place}")


def test_a_user_is_told_by_name_where_there_is_one() -> None:
    assert user_text(0) == pwd.getpwuid(0).pw_name
    assert user_text(NOBODYS) == str(NOBODYS)
    assert as_user(0, "ls", "/a b") == f"sudo -u {user_text(0)} filesession ls '/a b'"


def test_what_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match=r"looking at .*: Not a directory"):
        check_ours(str(tmp_path / "file" / "below"))


VERBS: Final[dict[str, Callable[[FileStore, Any], Any]]] = {
    "load": lambda store, base: store.load("chosen"),
    "save": lambda store, base: store.save("chosen", {"n": 2}, base=base),
    "touch": lambda store, base: store.touch("chosen"),
    "regenerate": lambda store, base: store.regenerate("chosen", base=base),
    "lock": lambda store, base: store.lock("chosen").acquire(),
    "create": lambda store, base: store.create(sid="chosen"),
    "regenerate to": lambda store, base: store.regenerate("other", new_sid="chosen"),
    "inspect": lambda store, base: store.inspect(handle_of("chosen") or ""),
}


@pytest.fixture
def base(store: FileStore, clock: ManualClock) -> SessionRecord:
    """A session as it was loaded, another beside it."""
    store.create({"other": True}, sid="other")
    base = store.create({"n": 1}, sid="chosen")
    clock.advance(100)  # a touch is wanted
    return base


def data_of(store: FileStore, sid: str) -> dict[str, Any] | None:
    record = store.load(sid)
    return None if record is None else record.data


def seen(path: Path) -> tuple[bytes, int, int, int, int]:
    status = path.stat()
    return (
        path.read_bytes(),
        status.st_mode,
        status.st_mtime_ns,
        status.st_uid,
        status.st_nlink,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
class TestAnotherUsersFile:
    """It may be of a backup that root restored, so it is an error, and nothing is moved aside."""

    @pytest.fixture(params=["alone", "with a second name outside"])
    def path(self, request: pytest.FixtureRequest, raw: Raw, base: object, tmp_path: Path) -> Path:
        path = raw.path("chosen")
        os.chown(path, NOBODYS, NOBODYS)
        if request.param != "alone":
            os.link(path, tmp_path / "outside")
        return path

    @pytest.mark.parametrize("verb", VERBS)
    def test_it_is_neither_read_nor_written_and_stays(
        self, store: FileStore, raw: Raw, base: SessionRecord, path: Path, verb: str
    ) -> None:
        before = seen(path)
        with (
            SystemCalls() as calls,
            pytest.raises(StoreUnavailable, match=f"{path} belongs to user {NOBODYS} and this"),
        ):
            VERBS[verb](store, base)
        assert not {"read", "pread", "write"} & set(calls.names())
        assert seen(path) == before
        assert raw.set_aside() == []
        assert data_of(store, "other") == {"other": True}

    def test_a_sweep_says_why_it_was_left_and_goes_on(
        self, store: FileStore, raw: Raw, path: Path, clock: ManualClock
    ) -> None:
        before = seen(path)
        clock.advance(10_000)
        report = store.sweep()
        assert (report.expired, report.failed, report.corrupt) == (1, 1, 0)
        assert f"{path} belongs to user {NOBODYS}" in (report.failure or "")
        assert list(store.scan()) == []
        assert raw.files() == [path]
        assert seen(path) == before

    def test_the_command_in_the_message_brings_the_session_back(
        self, store: FileStore, base: SessionRecord, path: Path
    ) -> None:
        with pytest.raises(StoreUnavailable) as refused:
            store.load("chosen")
        command = str(refused.value).rpartition("then: sudo ")[2]
        assert command.startswith("chown -h ")
        assert os.system(command) == 0  # noqa: S605 - it is the message's own
        assert data_of(store, "chosen") == {"n": 1}
        assert store.save("chosen", {"n": 2}, base=base).version == 2

    def test_who_logs_out_is_logged_out_and_the_file_keeps_its_other_name(
        self, store: FileStore, path: Path, tmp_path: Path
    ) -> None:
        content = path.read_bytes()
        assert store.delete("chosen") is True
        assert store.load("chosen") is None
        assert not path.exists()
        for other in tmp_path.glob("outside"):
            assert other.read_bytes() == content

    def test_the_doctor_tells_of_it(self, store: FileStore, path: Path) -> None:
        wrong = {each.check: each for each in examine(store.directory) if each.level == "wrong"}
        assert path.name in wrong["permissions"].what
        assert f"belongs to user {NOBODYS}" in wrong["reading"].what


class TestASecondName:
    """A backup may be made of hard links (``cp -al``), and nobody is logged out by one."""

    @pytest.fixture
    def copy(self, raw: Raw, base: object, tmp_path: Path) -> Path:
        """The backup's name for the session."""
        copy = tmp_path / "copy"
        os.link(raw.path("chosen"), copy)
        return copy

    @pytest.mark.parametrize(
        ("verb", "expected"),
        [
            (VERBS["load"], {"n": 1}),
            (VERBS["save"], {"n": 2}),
            (VERBS["touch"], True),
            (VERBS["regenerate"], {"n": 1}),
            (VERBS["lock"], {"n": 1}),
            (lambda store, base: store.touch("chosen", base=base), True),
            (lambda store, base: store.sweep().corrupt, 0),
            (lambda store, base: len(list(store.scan())), 2),
            (lambda store, base: store.delete("chosen"), True),
        ],
    )
    def test_a_session_with_one_is_a_session(  # noqa: PLR0917 - fixtures
        self,
        store: FileStore,
        raw: Raw,
        base: SessionRecord,
        copy: Path,
        verb: Callable[[FileStore, Any], Any],
        expected: Any,
    ) -> None:
        answer = verb(store, base)
        assert getattr(answer, "data", answer) == expected
        assert raw.set_aside() == []

    @pytest.mark.parametrize("verb", ["save", "regenerate"])
    def test_what_is_written_later_is_not_written_into_the_backup(
        self, store: FileStore, base: SessionRecord, copy: Path, verb: str
    ) -> None:
        before = copy.read_bytes()
        written = VERBS[verb](store, base)
        for _ in range(3):
            written = store.save(written.id, written.data | {"more": 1})
        assert copy.read_bytes() == before
        assert copy.stat().st_nlink == 1
        assert data_of(store, written.id) == written.data

    def test_a_copy_of_the_directory_made_of_links_is_a_directory_of_its_own(
        self, store: FileStore, directory: Path, base: SessionRecord, tmp_path: Path
    ) -> None:
        assert os.system(f"cp -al {directory} {tmp_path / 'copy'}") == 0  # noqa: S605
        copy = FileStore(tmp_path / "copy", clock=store.clock)
        store.save("chosen", {"n": 2}, base=base)
        copy.save("chosen", {"n": 3}, base=base)
        store.delete("other")
        assert (data_of(store, "chosen"), data_of(store, "other")) == ({"n": 2}, None)
        assert (data_of(copy, "chosen"), data_of(copy, "other")) == ({"n": 3}, {"other": True})

    def test_a_backup_put_back_is_the_session_as_it_was(
        self, store: FileStore, raw: Raw, base: SessionRecord, copy: Path
    ) -> None:
        store.save("chosen", {"n": 2}, base=base)
        copy.rename(raw.path("chosen"))
        assert data_of(store, "chosen") == {"n": 1}

    def test_as_another_sessions_name_it_is_none(self, store: FileStore, raw: Raw) -> None:
        store.create({"user": "ada"}, sid="ada")
        store.create({"user": "eve"}, sid="eve")
        raw.path("eve").unlink()
        os.link(raw.path("ada"), raw.path("eve"))
        assert store.load("eve") is None
        assert data_of(store, "ada") == {"user": "ada"}
        assert store.save("ada", {"user": "ada", "n": 2}).version == 2


@pytest.mark.parametrize("mode", [0o666, 0o640, 0o4600, 0o2755, 0o1777], ids=oct)
def test_a_session_others_might_read_is_served_and_told_of(
    store: FileStore, raw: Raw, base: SessionRecord, mode: int
) -> None:
    path = raw.path("chosen")
    path.chmod(mode)
    assert store.save("chosen", {"n": 2}, base=base).data == {"n": 2}
    assert data_of(store, "chosen") == {"n": 2}
    told = [each.what for each in examine(store.directory) if each.check == "permissions"]
    assert (path.name in told[0]) is bool(mode & 0o077)
