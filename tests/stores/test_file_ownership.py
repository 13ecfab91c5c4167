"""Which directory may become or be a session directory, and what is said to those that may not."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from filesession.errors import ConfigurationError, StoreUnavailable
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
