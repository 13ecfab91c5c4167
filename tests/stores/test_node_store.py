"""The store shared with an Express app: the file's bytes, its expiry, and writes of both at once.

What the real packages wrote is in ``tests/vectors/session_file_store.json``.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from filesession import Janitor
from filesession.calls import Steps, StoreCall
from filesession.errors import (
    ConfigurationError,
    ConflictError,
    EncodeError,
    SessionExists,
    SessionGone,
    StoreFull,
    StoreUnavailable,
)
from filesession.locks import try_lock
from filesession.record import SessionRecord
from filesession.runner import BlockingRunner
from filesession.stores import FileStore, NodeFileStore
from filesession.stores.entry import handle_of
from filesession.stores.node.javascript import JavaScriptCodec, number_text
from filesession.testing import ManualClock
from filesession.testing.faults import SystemCall, SystemCalls
from tests.stores.conftest import Processes

VECTORS: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "session_file_store.json").read_text("utf-8")
)
PLAIN: Final = {case["label"]: case for case in VECTORS["plain"]}
EXPIRY: Final = {case["label"]: case for case in VECTORS["expiry"]}

NOW: Final = 1_795_321_400.0
"""POSIX seconds, some after the real packages wrote the vectors."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(directory: Path, clock: ManualClock) -> NodeFileStore:
    return NodeFileStore(directory, clock=clock)


def write(directory: Path, sid: str, content: str | bytes | dict[str, Any]) -> Path:
    """As a foreign writer does: beside it, and renamed."""
    text = json.dumps(content) if isinstance(content, dict) else content
    path = directory / f"{sid}.json"
    beside = directory / f"{sid}.json.123"
    beside.write_bytes(text.encode() if isinstance(text, str) else text)
    beside.rename(path)
    return path


def members(directory: Path, sid: str) -> dict[str, Any]:
    found = json.loads((directory / f"{sid}.json").read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def loaded(store: NodeFileStore, sid: str) -> SessionRecord:
    record = store.load(sid)
    assert record is not None
    return record


class TestBytes:
    @pytest.mark.parametrize("label", PLAIN)
    def test_what_node_wrote_is_saved_as_node_would_save_it(
        self, store: NodeFileStore, directory: Path, label: str
    ) -> None:
        case = PLAIN[label]
        path = write(directory, case["session_id"], case["file_text"])
        record = loaded(store, case["session_id"])
        store.save(record.id, record.data, base=record)
        expected = json.loads(case["file_text"])
        age = expected["cookie"]["originalMaxAge"]
        if age is not None:
            moment = {3_600_000: "2026-11-22T05:23:20.000Z", 60_000: "2026-11-22T04:24:20.000Z"}
            expected["cookie"]["expires"] = moment[age]
        expected["__lastAccess"] = int(NOW * 1000)
        text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
        assert path.read_text("utf-8") == text

    def test_a_key_behind_the_last_access_stays_there_and_new_ones_follow(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        text = '{"cookie":{},"a":1,"__lastAccess":1795321399000,"b":2}'
        write(directory, "x", text)
        record = loaded(store, "x")
        store.save("x", {**record.data, "c": 3}, base=record)
        assert list(members(directory, "x")) == ["cookie", "a", "__lastAccess", "b", "c"]

    def test_a_touch_writes_the_last_access_and_the_expiry_and_nothing_else(
        self, store: NodeFileStore, clock: ManualClock, directory: Path
    ) -> None:
        store.create({"a": [1.5, "\u00e9"]}, sid="x", cookie={"max_age": 60})
        before = members(directory, "x")
        clock.advance(1.5)
        assert store.touch("x")
        assert members(directory, "x") == {
            **before,
            "cookie": {**before["cookie"], "expires": "2026-11-22T04:24:21.500Z"},
            "__lastAccess": before["__lastAccess"] + 1500,
        }

    def test_members_of_the_cookie_that_nobody_knows_are_kept(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        cookie = {"originalMaxAge": None, "expires": None, "path": "/", "custom": [1]}
        write(directory, "x", {"cookie": cookie, "__lastAccess": NOW * 1000})
        store.save("x", {"a": 1}, cookie={"secure": True})
        assert members(directory, "x")["cookie"] == {**cookie, "httpOnly": True, "secure": True}

    def test_a_new_session_has_all_that_express_needs(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        store.create({"a": 1}, sid="x")
        assert (directory / "x.json").read_text() == (
            '{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"a":1,'
            '"__lastAccess":1795321400000}'
        )


class TestValues:
    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (0.1, "0.1"),
            (1e21, "1e+21"),
            (-1e20, "-100000000000000000000"),
            (2.0**60, "1152921504606847000"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-7"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (0.0, "0"),
        ],
    )
    def test_a_number_is_written_as_javascript_writes_it(self, number: float, text: str) -> None:
        assert number_text(number) == text

    def test_whole_floats_are_ints_and_larger_ones_floats_at_every_depth(
        self, store: NodeFileStore
    ) -> None:
        data = {"a": [1.0, -0.0, (2.0, {"b": 2.0**60})]}
        expected = {"a": [1, 0, [2, {"b": 2.0**60}]]}
        record = store.create(data)
        assert repr(record.data) == repr(loaded(store, record.id).data) == repr(expected)
        again = store.save(record.id, record.data, base=record)
        assert repr(again.data) == repr(expected)

    def test_keys_that_are_numbers_come_first(self, store: NodeFileStore, directory: Path) -> None:
        sid = store.create({"b": {"x": 1, "10": 1, "9": 1, "01": 1}, "7": 1}).id
        assert list(members(directory, sid)) == ["7", "cookie", "b", "__lastAccess"]
        assert list(loaded(store, sid).data) == ["7", "b"]
        assert list(loaded(store, sid).data["b"]) == ["9", "10", "x", "01"]

    @pytest.mark.parametrize(
        ("data", "path"),
        [
            ({"cart": [{"n": 2**53}]}, "cart[0].n"),
            ({"n": -(2**53)}, "n"),
            ({"cookie": 1}, "cookie"),
            ({"__lastAccess": 1}, "__lastAccess"),
            ({"id": 1}, "id"),
            ({"toString": 1}, "toString"),
            ({"n": float("nan")}, "n"),
        ],
        ids=str,
    )
    def test_what_express_would_change_or_drop_is_refused(
        self, store: NodeFileStore, data: dict[str, Any], path: str
    ) -> None:
        before = store.create({"kept": 1})
        with pytest.raises(EncodeError) as refused:
            store.save(before.id, data)
        assert refused.value.path == path
        assert store.load(before.id) == before

    def test_what_express_would_not_load_is_no_data(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        write(directory, "x", {"cookie": {}, "save": 1, "a": 2, "__lastAccess": NOW * 1000})
        assert loaded(store, "x").data == {"a": 2}

    def test_an_integer_that_node_could_not_have_written_is_what_node_reads(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        write(
            directory,
            "x",
            '{"cookie":{},"n":9007199254740993,"w":1.0,"__lastAccess":1795321400000}',
        )
        record = loaded(store, "x")
        assert repr(record.data) == "{'n': 9007199254740992.0, 'w': 1}"
        store.save("x", record.data, base=record)
        assert '"n":9007199254740992,' in (directory / "x.json").read_text()

    def test_text_that_codecs_exchange_is_the_same_again(self) -> None:
        codec = JavaScriptCodec()
        data = {"a": [1, 0.5, None, True, "\u2028\x1f"], "1": {}}
        assert codec.encode(codec.decode(codec.encode(data))) == codec.encode(data)
        assert repr(codec.decode(b'{"a":[1.0]}')) == "{'a': [1]}"


class TestExpiry:
    @pytest.mark.parametrize("label", [name for name in EXPIRY if name != "ttl 0 means expired"])
    def test_it_is_as_session_file_store_has_it(self, directory: Path, label: str) -> None:
        case = EXPIRY[label]
        clock = ManualClock(case["now_ms"] / 1000)
        store = NodeFileStore(directory, ttl=case["ttl_seconds"], clock=clock)
        path = write(directory, "x", json.dumps(case["session"]))
        assert (store.load("x") is None) == case["expired"]
        assert store.touch("x") != case["expired"]
        if case["expired"] and case["session"] is not None:
            assert store.sweep().expired == 1
        else:
            assert store.sweep().expired == 0
            assert path.exists()

    def test_what_has_expired_is_neither_saved_nor_touched_and_its_id_is_free(
        self, store: NodeFileStore, clock: ManualClock
    ) -> None:
        record = store.create({"a": 1}, sid="x")
        clock.advance(3600)
        assert store.load("x") == record
        clock.advance(0.001)
        with pytest.raises(SessionGone):
            store.save("x", {"a": 2}, base=record)
        assert store.touch("x") is False
        assert store.delete("x") is False
        store.create({"b": 1}, sid="x")
        assert loaded(store, "x").data == {"b": 1}

    def test_activity_extends_by_the_sessions_own_age_or_the_ttl(
        self, store: NodeFileStore, clock: ManualClock
    ) -> None:
        store.create(sid="usual")
        store.create(sid="short", idle_timeout=10)
        assert loaded(store, "usual").expires_at == NOW + 3600
        assert loaded(store, "short").expires_at == NOW + 10
        clock.advance(9)
        assert store.touch("short")
        clock.advance(9)
        assert store.save("short", {}).expires_at == NOW + 28
        clock.advance(10.001)
        assert store.load("short") is None
        assert store.load("usual") is not None

    def test_a_janitor_removes_what_has_expired_and_nothing_else(
        self, store: NodeFileStore, clock: ManualClock, directory: Path
    ) -> None:
        store.create(sid="due")
        clock.advance(3000)
        store.create(sid="live")
        (directory / "odd.json").write_text("{")
        (directory / "due.json.4711").write_text("what a Node that was killed left")
        abandoned = directory / f"due.json.filesession-{'a' * 16}"
        written = directory / f"due.json.filesession-{'b' * 16}"
        for path in (abandoned, written):
            path.write_text("what a Python process writes")
        for path in (abandoned, directory / "due.json.4711"):
            os.utime(path, (1, 1))
        clock.advance(1000)
        report = Janitor(store).sweep_once()
        assert (report.examined, report.expired, report.leftovers) == (3, 1, 1)
        assert report.oldest_overdue == 400
        left = {path.name for path in directory.iterdir()}
        assert left == {"live.json", "odd.json", "due.json.4711", written.name}
        assert len(store) == 2

    def test_a_sweep_can_be_rehearsed_and_limited(
        self, store: NodeFileStore, clock: ManualClock
    ) -> None:
        for _ in range(3):
            store.create()
        clock.advance(10_000)
        assert store.sweep(dry_run=True).expired == 3
        assert store.sweep(limit=2).expired == 2
        assert len(store) == 1


class TestCookies:
    def test_an_attribute_that_is_not_as_usual_is_the_sessions_own(
        self, directory: Path, clock: ManualClock
    ) -> None:
        case = PLAIN["all cookie attributes"]
        plain = NodeFileStore(directory, clock=clock)
        write(directory, "x", case["file_text"])
        assert loaded(plain, "x").cookie == {
            "max_age": 60,
            "partitioned": True,
            "priority": "high",
            "secure": True,
            "http_only": False,
            "domain": ".example.com",
            "path": "/app",
            "same_site": "none",
        }
        usual = {"max_age": 60, "secure": True, "http_only": False, "path": "/app"}
        store = NodeFileStore(directory, clock=clock, cookie=usual)
        own = {"partitioned", "priority", "domain", "same_site"}
        assert set(loaded(store, "x").cookie) == own

    def test_new_sessions_have_the_cookie_of_the_express_app(self, directory: Path) -> None:
        store = NodeFileStore(directory, cookie={"max_age": timedelta(days=1).total_seconds()})
        record = store.create(sid="x")
        assert record.cookie == {}
        assert record.idle_timeout == 86_400
        assert members(directory, "x")["cookie"]["originalMaxAge"] == 86_400_000
        assert store.save("x", {}, idle_timeout=100).idle_timeout == 100
        assert store.save("x", {}, idle_timeout=None).idle_timeout == 86_400
        assert store.save("x", {}, cookie={"max_age": None}).idle_timeout == 3600
        assert loaded(store, "x").cookie == {"max_age": None}

    def test_the_idle_timeout_and_max_age_are_one(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        assert store.create(sid="x", idle_timeout=timedelta(days=1)).cookie == {"max_age": 86_400}
        assert members(directory, "x")["cookie"]["originalMaxAge"] == 86_400_000
        assert store.save("x", {}, cookie={"max_age": 50}).idle_timeout == 50
        assert store.save("x", {}, cookie={"max_age": 60}, idle_timeout=60).idle_timeout == 60
        with pytest.raises(ConfigurationError, match="one number"):
            store.save("x", {}, cookie={"max_age": 60}, idle_timeout=61)
        assert store.save("x", {}, idle_timeout=None).cookie == {}

    @pytest.mark.parametrize(
        "wrong",
        [
            {"absolute_timeout": 60},
            {"idle_timeout": float("inf")},
            {"cookie": {"expires": 1}},
            {"cookie": {"max_age": -1}},
            {"cookie": {"max_age": "1"}},
        ],
        ids=str,
    )
    def test_what_an_express_session_cannot_have_is_refused(
        self, store: NodeFileStore, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError):
            store.create(sid="x", **wrong)
        assert store.load("x") is None

    def test_a_session_that_gets_a_new_id_does_not_get_a_cookie_that_stays(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        record = store.create({"a": 1}, sid="old")

        def regenerated() -> Steps[SessionRecord]:
            arguments = {"base": record, "new_sid": "new", "conflict": "merge"}
            new: SessionRecord = yield StoreCall("regenerate", ("old", {"a": 2}), arguments)
            return new

        new = BlockingRunner(store).run(regenerated())
        assert (new.id, new.data, new.cookie) == ("new", {"a": 2}, {})
        assert members(directory, "new")["cookie"]["originalMaxAge"] is None
        assert [path.name for path in directory.iterdir()] == ["new.json"]


class TestBothAtOnce:
    def between(self, act: Callable[[], object]) -> SystemCalls:
        """Have something happen once, after a file of ours was written and before it is named."""
        acts = [act]

        def acting(call: SystemCall) -> Any:
            if acts:
                acts.pop()()
            return call.make()

        return SystemCalls(acting, only=("fsync",))

    def test_a_foreign_write_before_the_rename_is_merged(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        base = store.create({"a": 1, "b": 1}, sid="x")
        theirs = {**members(directory, "x"), "a": 2, "c": 3}
        with self.between(lambda: write(directory, "x", theirs)):
            saved = store.save("x", {"a": 1, "d": 4}, base=base)
        assert saved.data == {"a": 2, "c": 3, "d": 4}
        assert loaded(store, "x").data == saved.data

    def test_a_foreign_write_in_place_is_seen_too(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        base = store.create({"a": 1}, sid="x")
        theirs = json.dumps({**members(directory, "x"), "theirs": True})
        with self.between(lambda: (directory / "x.json").write_text(theirs)):
            assert store.save("x", {"a": 2}, base=base).data == {"a": 2, "theirs": True}

    def test_a_foreign_write_before_a_touch_is_kept(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        store.create({"a": 1}, sid="x")
        theirs = {**members(directory, "x"), "a": 2}
        with self.between(lambda: write(directory, "x", theirs)):
            assert store.touch("x")
        assert loaded(store, "x").data == {"a": 2}

    def test_with_error_a_foreign_write_is_a_conflict(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        base = store.create({"a": 1}, sid="x")
        theirs = {**members(directory, "x"), "a": 2}
        with (
            self.between(lambda: write(directory, "x", theirs)),
            pytest.raises(ConflictError) as refused,
        ):
            store.save("x", {"a": 3}, base=base, conflict="error")
        assert (refused.value.ours, refused.value.theirs) == ({"a": 3}, {"a": 2})
        assert members(directory, "x") == theirs

    def test_what_was_deleted_before_the_rename_does_not_come_back(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        store.create({"a": 1}, sid="x")
        path = directory / "x.json"
        with self.between(path.unlink), pytest.raises(SessionGone):
            store.save("x", {"a": 2})
        store.create({"a": 1}, sid="x")
        with self.between(path.unlink):
            assert store.touch("x") is False
        assert list(directory.iterdir()) == []

    def test_a_session_that_is_used_while_it_is_swept_stays(
        self, store: NodeFileStore, clock: ManualClock, directory: Path
    ) -> None:
        store.create({"a": 1}, sid="x")
        clock.advance(10_000)
        used = {**members(directory, "x"), "__lastAccess": clock.now * 1000}

        def acting(call: SystemCall) -> Any:
            write(directory, "x", used)
            return call.make()

        with SystemCalls(acting, only=("flock",)):
            assert store.sweep().expired == 0
        assert store.load("x") is not None

    def test_a_file_gets_and_loses_its_name_under_the_lock_that_it_is_looked_at_under(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        free: list[tuple[str, bool]] = []

        def acting(call: SystemCall) -> Any:
            descriptor = os.open(directory, os.O_RDONLY)
            free.append((call.name, try_lock(descriptor)))
            os.close(descriptor)
            return call.make()

        store.create({"a": 1}, sid="x")
        with SystemCalls(acting, only=("stat", "rename", "unlink")):
            store.save("x", {"a": 2})
            store.touch("x")
            store.create(sid="y")
            store.delete("x")
        named = [(name, False) for name in ("stat", "rename")]
        assert [each for each in free if not each[1]] == [
            *(*named, *named, ("rename", False)),
            *(("stat", False), ("unlink", False)),
        ]

    def test_of_what_processes_save_at_once_nothing_is_lost(
        self, directory: Path, processes: Processes
    ) -> None:
        store = NodeFileStore(directory)
        store.create({}, sid="x")
        program = (
            "import sys\n"
            "from filesession.stores import NodeFileStore\n"
            "store = NodeFileStore(sys.argv[2])\n"
            "for n in range(20):\n"
            "    record = store.load('x')\n"
            "    store.save('x', {**record.data, f'{sys.argv[1]}.{n}': n}, base=record)\n"
            "    assert store.touch('x')\n"
        )
        processes.run(program, directory, count=4)
        expected = {f"{process}.{n}": n for process in range(4) for n in range(20)}
        assert loaded(store, "x").data == expected
        assert [path.name for path in directory.iterdir()] == ["x.json"]


class TestFiles:
    def test_a_new_file_is_0600_and_one_that_is_replaced_keeps_its_mode(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        store.create(sid="x")
        path = directory / "x.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o640)
        store.save("x", {"a": 1})
        assert store.touch("x")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def test_one_that_is_replaced_keeps_its_owner(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        if os.geteuid():
            pytest.skip("only root can give a file away")
        store.create(sid="x")
        os.chown(directory / "x.json", 12_345, 54_321)
        store.save("x", {"a": 1})
        found = (directory / "x.json").stat()
        assert (found.st_uid, found.st_gid) == (12_345, 54_321)

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"null", b"[]", b'"x"', b"\xef\xbb\xbf{}", b"\x00\xff", b"NaN"]
    )
    def test_what_is_no_session_is_absent_and_stays(
        self, store: NodeFileStore, directory: Path, content: bytes
    ) -> None:
        path = write(directory, "x", content)
        assert store.load("x") is None
        assert (store.touch("x"), store.delete("x")) == (False, False)
        with pytest.raises(SessionGone):
            store.save("x", {})
        with pytest.raises(SessionExists):
            store.create(sid="x")
        assert (store.sweep().expired, store.clear()) == (0, 0)
        assert list(store.scan()) == []
        assert path.read_bytes() == content

    @pytest.mark.parametrize("case", VECTORS["filenames"], ids=lambda case: case["fileExtension"])
    def test_the_extension_says_what_is_a_session(
        self, directory: Path, clock: ManualClock, case: dict[str, Any]
    ) -> None:
        if not case["fileExtension"]:
            with pytest.raises(ConfigurationError, match="file_extension"):
                NodeFileStore(directory, file_extension="")
            return
        store = NodeFileStore(directory, file_extension=case["fileExtension"], clock=clock)
        for file in case["files"]:
            text = json.dumps({"cookie": {}, "__lastAccess": NOW * 1000})
            (directory / file["file"]).write_text(text)
        listed = {file["sessionId"] for file in case["files"] if file["listed"]} - {""}
        assert {info.handle for info in store.scan()} == {handle_of(sid) for sid in listed}
        assert len(store) == len(listed)

    def test_a_link_leads_nowhere(self, store: NodeFileStore, directory: Path) -> None:
        secret = directory.parent / "secret.json"
        secret.write_text('{"cookie":{},"a":1}')
        (directory / "x.json").symlink_to(secret)
        with pytest.raises(StoreUnavailable):
            store.load("x")
        assert store.sweep().failed == 1

    def test_a_directory_that_vanished_is_no_empty_one(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        directory.rmdir()
        for call in (store.load, store.touch, store.delete):
            with pytest.raises(StoreUnavailable, match="vanished"):
                call("x")
        with pytest.raises(StoreUnavailable):
            store.create(sid="x")
        assert not directory.exists()

    def test_a_directory_of_another_kind_is_refused(self, directory: Path) -> None:
        FileStore(directory)
        with pytest.raises(ConfigurationError, match="open it as a FileStore"):
            NodeFileStore(directory)
        (directory / "file").touch()
        with pytest.raises(ConfigurationError, match="not a directory"):
            NodeFileStore(directory / "file")
        wide = directory / "wide"
        wide.mkdir()
        wide.chmod(0o777)
        with pytest.raises(ConfigurationError, match="chmod o-w"):
            NodeFileStore(wide)

    @pytest.mark.parametrize("ttl", [0, -1, None, float("inf"), float("nan"), "60"])
    def test_a_ttl_that_is_no_time_is_refused(self, directory: Path, ttl: Any) -> None:
        with pytest.raises(ConfigurationError, match="ttl"):
            NodeFileStore(directory, ttl=ttl)

    def test_an_error_of_the_disk_leaves_the_session_and_no_file_behind(
        self, store: NodeFileStore, directory: Path
    ) -> None:
        record = store.create({"a": 1}, sid="x")

        def full(call: SystemCall) -> Any:
            raise OSError(28, "No space left on device")

        for name in ("write", "fsync", "rename", "flock"):
            with SystemCalls(full, only=(name,)), pytest.raises(StoreFull):
                store.save("x", {"a": 2})
            assert store.load("x") == record
            assert [path.name for path in directory.iterdir()] == ["x.json"]
