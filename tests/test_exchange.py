"""What a request does to its session, told by the store calls it asks for; none is made here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import pytest

from filesession.calls import Steps, StoreCall
from filesession.codec import JSONCodec
from filesession.cookies.header import encode_value
from filesession.cookies.policy import CookiePolicy
from filesession.cookies.signing import Signer
from filesession.errors import (
    ConfigurationError,
    ConflictError,
    EncodeError,
    LockTimeout,
    SessionExists,
    SessionGone,
    StoreFull,
    StoreUnavailable,
)
from filesession.exchange import Exchange, Headers, ProxyTrust, Rules, refusal
from filesession.record import SessionRecord
from filesession.runner import BlockingRunner
from filesession.session import Session
from filesession.stores import MemoryStore

NEWEST: Final = "the newest secret"
OLD: Final = "the secret before"

GONE: Final = SessionGone("the session was deleted or has expired; nothing was written")

ALIVE: Final = True
"""What ``touch`` and ``delete`` answer for a session that is there."""

NEW: Final = {"idle_timeout": None, "cookie": None}
"""The keywords of ``create``, but the id, for a session with nothing of its own."""


def record(sid: str = "abc", **changes: Any) -> SessionRecord:
    """A session as a store gives it."""
    values: dict[str, Any] = {
        "data": {"user": "ada"},
        "version": 1,
        "created_at": 1000.0,
        "accessed_at": 1000.0,
        "expires_at": 2800.0,
        "idle_timeout": 1800.0,
        "absolute_timeout": None,
    }
    return SessionRecord(sid, **{**values, **changes})


def cookie(sid: str, secret: str = NEWEST, name: str = "sid") -> str:
    """The cookie a browser holds for a session."""
    return f"{name}={encode_value(Signer(secret).sign(sid))}"


def rules(**options: Any) -> Rules:
    values: dict[str, Any] = {
        "policy": CookiePolicy(),
        "signer": Signer([NEWEST, OLD]),
        "codec": JSONCodec(),
        "proxies": ProxyTrust(trust=False),
    }
    return Rules(**{**values, **options})


def answered(steps: Steps[Any], *answers: object) -> list[StoreCall]:
    """The calls it asks for when each is answered so, or fails with that error; all must be used.

    Raises what the steps raise.
    """
    calls: list[StoreCall] = []
    left = list(answers)
    try:
        call = next(steps)
        while True:
            calls.append(call)
            answer = left.pop(0)
            call = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
    except StopIteration:
        assert left == []
        return calls


def verbs(calls: list[StoreCall]) -> list[str]:
    return [call.verb for call in calls]


def nothing(session: Session) -> None:
    """The application does not look at it."""


def look(session: Session) -> None:
    assert session.get("user") in {"ada", None}


def write(session: Session) -> None:
    session["n"] = 1


def leave(session: Session) -> None:
    session.destroy()


class Request:
    """One request, its session loaded and what the application did to it before its response."""

    def __init__(
        self,
        act: Callable[[Session], object] = nothing,
        found: SessionRecord | None = None,
        sent: str | None = None,
        *,
        https: bool = False,
        source: Any = None,
        **options: Any,
    ) -> None:
        if sent is None:  # what is sent verifies here
            sent = "" if found is None else cookie(found.id)
        self.exchange = Exchange(
            rules(**options),
            BlockingRunner(MemoryStore()),
            cookies=sent,
            https=https,
            source=source,
        )
        steps = self.exchange.begin()
        self.loads = answered(steps, *([found] if sent else []))
        self.session = self.exchange.session
        act(self.session)

    def commit(self, *answers: object) -> list[StoreCall]:
        return answered(self.exchange.commit(self.session), *answers)

    def finish(self, *answers: object, touch: bool = False) -> list[StoreCall]:
        return answered(self.exchange.finish(self.session, touch=touch), *answers)

    def headers(self, *said: tuple[str, str]) -> Headers:
        return self.exchange.headers([*said])

    def set_cookie(self) -> str | None:
        """The one Set-Cookie header; None: there is none."""
        values = [value for name, value in self.headers() if name == "set-cookie"]
        assert len(values) < 2
        return values[0] if values else None


def value_of(set_cookie: str | None) -> str:
    """The cookie a browser would send back."""
    assert set_cookie is not None
    return set_cookie.partition(";")[0]


def expires(set_cookie: str | None) -> bool:
    return set_cookie is not None and "; Max-Age=0" in set_cookie


# -- begin ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    ["", "other=1", "sid=abc", "sid=s%3Aabc.", cookie("abc", "a forger's"), cookie("abc")[:-1]],
    ids=["none", "another's", "unsigned", "no signature", "forged", "cut off"],
)
def test_a_cookie_that_does_not_verify_costs_no_store_call(sent: str) -> None:
    exchange = Exchange(
        rules(), BlockingRunner(MemoryStore()), cookies=sent, https=False, source=None
    )
    assert answered(exchange.begin()) == []
    assert exchange.session.is_new


def test_one_that_verifies_is_looked_up() -> None:
    request = Request(found=record())
    assert request.loads == [StoreCall("load", ("abc",))]
    assert request.session == {"user": "ada"}
    assert request.session.id == "abc"
    assert not request.session.is_new


def test_an_id_the_store_does_not_know_is_not_adopted() -> None:
    request = Request(write, sent=cookie("chosen"))
    assert request.loads == [StoreCall("load", ("chosen",))]
    assert request.session.is_new
    (call,) = request.commit(record("ours", data={"n": 1}))
    assert call.verb == "create"
    assert call.keywords["sid"] != "chosen"


@pytest.mark.parametrize("first", [NEWEST, OLD])
def test_of_several_cookies_by_our_name_the_first_that_verifies_counts(first: str) -> None:
    sent = ["sid=planted", cookie("x", "a forger's"), cookie("abc", first), cookie("other")]
    request = Request(found=record(), sent="; ".join(sent))
    assert request.loads == [StoreCall("load", ("abc",))]


def test_when_that_one_is_unknown_no_other_is_tried() -> None:
    request = Request(sent=f"{cookie('unknown')}; {cookie('abc')}")
    assert request.loads == [StoreCall("load", ("unknown",))]
    assert request.session.is_new


def test_a_store_that_cannot_be_read_is_no_empty_session() -> None:
    exchange = Exchange(
        rules(), BlockingRunner(MemoryStore()), cookies=cookie("abc"), https=False, source=None
    )
    with pytest.raises(StoreUnavailable):
        answered(exchange.begin(), StoreUnavailable("the disk fails"))


# -- the table: new -------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [nothing, look])
@pytest.mark.parametrize("sent", ["", cookie("unknown")], ids=["no cookie", "unknown id"])
@pytest.mark.parametrize("option", [{}, {"resave": True}, {"rolling": True}], ids=str)
def test_a_new_untouched_session_is_neither_stored_nor_announced(
    act: Callable[[Session], object], sent: str, option: dict[str, Any]
) -> None:
    request = Request(act, sent=sent, **option)
    assert request.commit() == []
    assert request.set_cookie() is None
    assert request.finish(touch=True) == []


@pytest.mark.parametrize("sent", ["", cookie("unknown")], ids=["no cookie", "unknown id"])
def test_with_save_uninitialized_it_is_stored_and_announced(sent: str) -> None:
    request = Request(sent=sent, save_uninitialized=True)
    assert request.commit(record("new")) == [StoreCall("create", ({},), {"sid": None, **NEW})]
    assert value_of(request.set_cookie()) == cookie("new")
    assert request.finish() == []


@pytest.mark.parametrize("sent", ["", cookie("unknown")], ids=["no cookie", "unknown id"])
def test_a_new_modified_session_is_stored_and_announced(sent: str) -> None:
    request = Request(write, sent=sent)
    assert request.commit(record("new", data={"n": 1})) == [
        StoreCall("create", ({"n": 1},), {"sid": None, **NEW})
    ]
    assert request.set_cookie() == f"{cookie('new')}; Path=/; HttpOnly; SameSite=Lax"


def test_the_id_that_was_shown_is_the_one_that_is_asked_for() -> None:
    request = Request(write)
    shown = request.session.id
    (call,) = request.commit(record("as shown", data={"n": 1}))
    assert call.keywords["sid"] == shown


def test_genid_is_given_the_request_and_asked_again_for_an_id_that_is_taken() -> None:
    place = object()
    asked: list[object] = []

    def genid(source: object) -> str:
        asked.append(source)
        return f"id-{len(asked)}"

    request = Request(write, source=place, genid=genid)
    calls = request.commit(SessionExists("taken"), record("id-2", data={"n": 1}))
    assert [call.keywords["sid"] for call in calls] == ["id-1", "id-2"]
    assert asked == [place, place]
    assert value_of(request.set_cookie()) == cookie("id-2")


# -- the table: loaded ----------------------------------------------------------------------------


@pytest.mark.parametrize("act", [nothing, look])
def test_an_unchanged_session_is_touched_and_not_announced(
    act: Callable[[Session], object],
) -> None:
    request = Request(act, record(), policy=CookiePolicy(max_age=60))
    assert request.commit(ALIVE) == [StoreCall("touch", ("abc",), {"base": record()})]
    assert request.set_cookie() is None
    assert request.finish() == []


def test_with_resave_it_is_saved_and_not_announced() -> None:
    request = Request(look, record(), resave=True, policy=CookiePolicy(max_age=60))
    assert request.commit(record(version=2)) == [
        StoreCall("save", ("abc", {"user": "ada"}), {"base": record(), "conflict": "merge"})
    ]
    assert request.set_cookie() is None


def test_with_rolling_it_is_announced_once_the_store_has_looked_that_it_is_there() -> None:
    request = Request(nothing, record(), rolling=True)
    assert request.commit(ALIVE) == [StoreCall("touch", ("abc",), {"base": None})]
    assert value_of(request.set_cookie()) == cookie("abc")


@pytest.mark.parametrize("conflict", ["merge", "overwrite", "error"])
def test_a_modified_session_is_saved_and_not_announced(conflict: str) -> None:
    request = Request(write, record(), conflict=conflict)
    data = {"user": "ada", "n": 1}
    assert request.commit(record(data=data, version=2)) == [
        StoreCall("save", ("abc", data), {"base": record(), "conflict": conflict})
    ]
    assert request.set_cookie() is None
    assert request.finish() == []


@pytest.mark.parametrize("option", [{"rolling": True}, {"policy": CookiePolicy(max_age=60)}])
def test_with_rolling_or_max_age_it_is_announced(option: dict[str, Any]) -> None:
    request = Request(write, record(), **option)
    request.commit(record(data={"user": "ada", "n": 1}, version=2))
    set_cookie = request.set_cookie()
    assert value_of(set_cookie) == cookie("abc")
    assert ("; Max-Age=60" in str(set_cookie)) == ("policy" in option)


def test_what_it_has_of_its_own_is_saved_and_its_cookie_announced() -> None:
    def remember(session: Session) -> None:
        session.cookie.max_age = 99
        session.idle_timeout = 99

    request = Request(remember, record())
    (call,) = request.commit(record(version=2, cookie={"max_age": 99}))
    assert call.keywords == {
        "base": record(),
        "conflict": "merge",
        "idle_timeout": 99.0,
        "cookie": {"max_age": 99},
    }
    assert "; Max-Age=99" in str(request.set_cookie())


def test_a_session_with_a_max_age_of_its_own_is_announced_when_it_changes() -> None:
    own = record(cookie={"max_age": 99})
    request = Request(write, own)
    (call,) = request.commit(own)
    assert "cookie" not in call.keywords
    assert "; Max-Age=99" in str(request.set_cookie())


def test_touch_extends_a_lasting_cookie_and_no_other() -> None:
    for policy, announced in ((CookiePolicy(), False), (CookiePolicy(max_age=60), True)):
        request = Request(Session.touch, record(), policy=policy)
        assert verbs(request.commit(ALIVE)) == ["touch"]
        assert (request.set_cookie() is not None) == announced
        assert not request.session.extended


def test_an_id_under_an_old_secret_is_signed_anew() -> None:
    request = Request(found=record(), sent=cookie("abc", OLD))
    assert request.commit(ALIVE) == [StoreCall("touch", ("abc",), {"base": None})]
    assert value_of(request.set_cookie()) == cookie("abc", NEWEST)


def test_an_unknown_id_under_an_old_secret_is_not() -> None:
    request = Request(sent=cookie("unknown", OLD))
    assert request.commit() == []
    assert request.set_cookie() is None


# -- the table: regenerated -----------------------------------------------------------------------


def test_a_regenerated_session_is_announced_under_its_new_id() -> None:
    request = Request(lambda session: session.regenerate(), record())
    assert request.commit(record("new")) == [
        StoreCall(
            "regenerate",
            ("abc", {"user": "ada"}),
            {"new_sid": None, "base": record(), "conflict": "merge"},
        )
    ]
    assert value_of(request.set_cookie()) == cookie("new")
    assert request.finish() == []


def test_regenerated_empty_it_takes_nothing_along() -> None:
    own = record(cookie={"max_age": 99})
    request = Request(lambda session: session.regenerate(keep_data=False), own)
    (call,) = request.commit(record("new", data={}))
    assert call.arguments == ("abc", {})
    assert call.keywords == {
        "new_sid": None,
        "base": own,
        "conflict": "overwrite",
        "idle_timeout": None,
        "cookie": {},
    }
    assert "Max-Age" not in str(request.set_cookie())


def test_a_new_session_that_is_regenerated_is_stored() -> None:
    request = Request(lambda session: session.regenerate())
    assert verbs(request.commit(record("new", data={}))) == ["create"]
    assert value_of(request.set_cookie()) == cookie("new")


# -- the table: destroyed -------------------------------------------------------------------------


def test_a_destroyed_session_is_deleted_and_its_cookie_expired() -> None:
    request = Request(leave, record())
    assert request.commit(ALIVE) == [StoreCall("delete", ("abc",))]
    set_cookie = request.set_cookie()
    assert value_of(set_cookie) == "sid="
    assert expires(set_cookie)
    assert request.finish() == []


@pytest.mark.parametrize(
    ("sent", "expired"),
    [("", False), (cookie("abc", "a forger's"), False), (cookie("unknown"), True)],
    ids=["no cookie", "forged", "unknown id"],
)
def test_destroying_no_session_expires_only_a_cookie_that_verified(
    sent: str,
    expired: bool,  # noqa: FBT001 - a row of the table
) -> None:
    exchange = Exchange(
        rules(), BlockingRunner(MemoryStore()), cookies=sent, https=False, source=None
    )
    answered(exchange.begin(), *([None] if expired else []))
    exchange.session.destroy()
    assert answered(exchange.commit(exchange.session)) == []
    assert bool(exchange.headers([])) == expired


def test_what_is_written_after_a_destroy_is_announced_in_its_place() -> None:
    def leave_with_a_word(session: Session) -> None:
        session.destroy()
        session["flash"] = "bye"

    request = Request(leave_with_a_word, record())
    assert request.commit(ALIVE, record("new", data={"flash": "bye"})) == [
        StoreCall("delete", ("abc",)),
        StoreCall("create", ({"flash": "bye"},), {"sid": None, **NEW}),
    ]
    assert value_of(request.set_cookie()) == cookie("new")
    assert not expires(request.set_cookie())


def test_a_cookie_is_expired_as_the_browser_holds_it() -> None:
    def change_and_leave(session: Session) -> None:
        session.cookie.domain = None
        session.destroy()

    held = record(cookie={"domain": "shop.example", "path": "/shop"})
    request = Request(change_and_leave, held)
    request.commit(ALIVE)
    assert "; Domain=shop.example; Path=/shop;" in str(request.set_cookie())


def test_with_save_uninitialized_a_destroyed_session_starts_no_other() -> None:
    request = Request(leave, record(), save_uninitialized=True)
    assert request.commit(ALIVE) == [StoreCall("delete", ("abc",))]
    assert expires(request.set_cookie())
    assert request.finish() == []


def test_with_save_uninitialized_what_is_written_after_a_destroy_does() -> None:
    def leave_with_a_word(session: Session) -> None:
        session.destroy()
        session["flash"] = "bye"

    request = Request(leave_with_a_word, record(), save_uninitialized=True)
    assert verbs(request.commit(ALIVE, record("new", data={"flash": "bye"}))) == [
        "delete",
        "create",
    ]
    assert value_of(request.set_cookie()) == cookie("new")


def test_a_session_that_was_destroyed_and_saved_is_not_stored_and_its_cookie_expires() -> None:
    request = Request(leave, record())
    assert answered(request.session.commit(explicit=True), ALIVE) == [StoreCall("delete", ("abc",))]
    assert request.commit() == []
    assert expires(request.set_cookie())


# -- the table: taken out -------------------------------------------------------------------------


def test_with_save_uninitialized_a_session_taken_out_starts_no_other() -> None:
    request = Request(nothing, record(), save_uninitialized=True)
    calls = answered(request.exchange.commit(None), ALIVE)
    assert calls == [StoreCall("delete", ("abc",))]
    assert expires(request.set_cookie())
    assert answered(request.exchange.finish(None, touch=True)) == []


def test_it_is_taken_out_once_so_that_a_late_change_is_warned_of_and_not_dropped_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(nothing, record())
    answered(request.exchange.commit(None), ALIVE)
    request.headers()
    request.session["late"] = 1
    for _ in range(2):
        assert answered(request.exchange.finish(None)) == []
    assert request.session == {"late": 1}
    assert [said.getMessage() for said in caplog.records] == [
        "the response had begun: the session gets no cookie, so it is not stored"
    ]


def test_a_session_taken_out_is_destroyed() -> None:
    request = Request(write, record())
    calls = answered(request.exchange.commit(None), ALIVE)
    assert calls == [StoreCall("delete", ("abc",))]
    assert expires(request.set_cookie())
    assert answered(request.exchange.finish(None)) == []


def test_with_keep_it_stays_as_it_was() -> None:
    request = Request(write, record(), unset="keep", rolling=True)
    assert answered(request.exchange.commit(None)) == []
    assert request.set_cookie() is None
    assert answered(request.exchange.finish(None, touch=True)) == []


def test_with_keep_a_session_destroyed_before_is_deleted_and_its_cookie_expired() -> None:
    request = Request(leave, record(), unset="keep")
    calls = answered(request.exchange.commit(None), ALIVE)
    assert calls == [StoreCall("delete", ("abc",))]
    assert expires(request.set_cookie())


def test_with_keep_what_was_stored_under_a_new_id_is_announced_all_the_same() -> None:
    def renew(session: Session) -> None:
        session.regenerate()
        answered(session.commit(explicit=True), record("new"))

    request = Request(renew, record(), unset="keep")
    assert answered(request.exchange.commit(None)) == []
    assert value_of(request.set_cookie()) == cookie("new")


def test_taken_out_while_the_body_is_sent_it_is_destroyed_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(nothing, record())
    request.commit(ALIVE)
    assert request.headers() == []
    calls = answered(request.exchange.finish(None), ALIVE)
    assert calls == [StoreCall("delete", ("abc",))]
    assert answered(request.exchange.finish(None)) == []
    (said,) = caplog.records
    assert said.getMessage() == (
        "the session's cookie changed after the response had begun: it is not sent"
    )


@pytest.mark.parametrize("stage", ["commit", "finish"])
def test_another_object_in_its_place_is_a_type_error_that_names_it(stage: str) -> None:
    request = Request(write, record())
    steps = getattr(request.exchange, stage)({"user": "eve"})
    with pytest.raises(TypeError, match="replaced by a dict; change it in place"):
        answered(steps)


# -- gone, conflicts and failures -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "answer", "lost"),
    [
        (nothing, False, False),
        (write, GONE, True),
        (lambda session: session.regenerate(), GONE, False),
        (lambda session: session.regenerate(keep_data=False), GONE, True),
    ],
    ids=["untouched", "modified", "regenerated", "regenerated empty"],
)
@pytest.mark.parametrize("sent", [cookie("abc"), cookie("abc", OLD)], ids=["", "old secret"])
def test_a_session_that_is_gone_gets_no_cookie_and_is_asked_for_no_more(
    act: Callable[[Session], object],
    answer: object,
    lost: bool,  # noqa: FBT001 - a row of the table
    sent: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    policy = CookiePolicy(max_age=60)
    request = Request(act, record(), sent, rolling=True, policy=policy)
    assert len(request.commit(answer)) == 1
    assert request.set_cookie() is None
    request.session["late"] = 1
    assert request.finish(touch=True) == []
    (said,) = caplog.records
    assert said.levelno == (logging.WARNING if lost else logging.INFO)
    assert "abc" not in said.getMessage()


def test_a_touch_that_fails_is_logged_and_the_response_goes_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(nothing, record(), rolling=True)
    assert verbs(request.commit(LockTimeout("it is locked"))) == ["touch"]
    assert value_of(request.set_cookie()) == cookie("abc")
    assert [said.levelno for said in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(
    "error", [StoreFull("no space"), ConflictError({}, {}), SessionExists("taken")], ids=repr
)
def test_a_save_that_fails_is_for_the_gateway_to_answer(error: Exception) -> None:
    request = Request(write, record())
    with pytest.raises(type(error)):
        request.commit(error)
    assert not request.session.gone


def test_what_cannot_be_stored_costs_no_store_call() -> None:
    request = Request(lambda session: session.update(n=object()), record())
    with pytest.raises(EncodeError, match="n"):
        request.commit()


# -- finish ---------------------------------------------------------------------------------------


def test_what_changes_while_the_body_is_sent_is_saved() -> None:
    request = Request(nothing, record())
    request.commit(ALIVE)
    request.headers()
    request.session["late"] = 1
    assert verbs(request.finish(record(version=2))) == ["save"]
    assert request.finish() == []
    assert request.finish(ALIVE, touch=True) == [
        StoreCall("touch", ("abc",), {"base": record(version=2)})
    ]


def late_cookie(session: Session) -> None:
    session.cookie.max_age = 60


@pytest.mark.parametrize(
    ("act", "answers"),
    [(late_cookie, [record(version=2)]), (leave, [True])],
    ids=["cookie", "destroyed"],
)
def test_a_change_too_late_for_its_cookie_is_made_and_one_warning_says_so(
    act: Callable[[Session], object], answers: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    request = Request(nothing, record())
    request.commit(ALIVE)
    request.headers()
    act(request.session)
    assert len(request.finish(*answers)) == 1
    assert request.finish() == []
    assert [said.getMessage() for said in caplog.records] == [
        "the session's cookie changed after the response had begun: it is not sent"
    ]


def test_a_late_regenerate_keeps_the_id_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(nothing, record())
    request.commit(ALIVE)
    request.headers()
    request.session.regenerate()
    for _ in range(2):
        assert request.finish() == []
    assert [said.getMessage() for said in caplog.records] == [
        "the response had begun: the session gets no new id and keeps the old one"
    ]


def test_a_session_first_changed_too_late_is_not_stored_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(nothing, save_uninitialized=False)
    assert request.commit() == []
    assert request.headers() == []
    for n in range(2):
        request.session["late"] = n
        assert request.finish() == []
    assert [said.getMessage() for said in caplog.records] == [
        "the response had begun: the session gets no cookie, so it is not stored"
    ]


def test_nor_is_it_when_there_was_no_response_to_carry_a_cookie(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert Request(write).finish(touch=True) == []
    assert len(caplog.records) == 1


def test_an_end_that_was_announced_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    request = Request(leave, record())
    request.commit(ALIVE)
    assert expires(request.set_cookie())
    assert request.finish() == []
    unverified = Request(leave)
    assert (unverified.commit(), unverified.headers(), unverified.finish()) == ([], [], [])
    assert caplog.records == []


def test_a_late_touch_is_made_and_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    request = Request(nothing, record())
    request.commit(ALIVE)
    request.headers()
    request.session.touch()
    assert verbs(request.finish(ALIVE)) == ["touch"]
    assert request.finish() == []
    assert caplog.records == []


def test_a_change_lost_as_the_session_is_gone_at_the_end_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    request = Request(nothing, record())
    request.commit(ALIVE)
    request.headers()
    request.session["late"] = 1
    assert verbs(request.finish(GONE)) == ["save"]
    assert [said.levelno for said in caplog.records] == [logging.WARNING]


# -- abandon --------------------------------------------------------------------------------------


def test_of_a_request_that_failed_nothing_is_saved_but_it_was_activity() -> None:
    request = Request(write, record())
    request.session.regenerate()
    assert answered(request.exchange.abandon(request.session), ALIVE) == [
        StoreCall("touch", ("abc",), {"base": record()})
    ]
    assert answered(Request(write).exchange.abandon({"user": "eve"})) == []


def test_a_destroy_is_carried_out_all_the_same() -> None:
    def leave_with_a_word(session: Session) -> None:
        session.destroy()
        session["flash"] = "bye"

    request = Request(leave_with_a_word, record())
    assert answered(request.exchange.abandon(request.session), ALIVE) == [
        StoreCall("delete", ("abc",))
    ]


@pytest.mark.parametrize(("unset", "verb"), [("destroy", "delete"), ("keep", "touch")])
def test_so_is_what_taking_it_out_means(unset: str, verb: str) -> None:
    request = Request(write, record(), unset=unset)
    assert verbs(answered(request.exchange.abandon(None), ALIVE)) == [verb]


@pytest.mark.parametrize(
    ("act", "answer", "level"),
    [
        (nothing, False, logging.INFO),
        (nothing, StoreUnavailable("the disk fails"), logging.WARNING),
        (leave, StoreUnavailable("the disk fails"), logging.ERROR),
    ],
    ids=["gone", "a failed touch", "a failed delete"],
)
def test_what_goes_wrong_then_is_logged_and_hides_no_error_of_the_application(
    act: Callable[[Session], object],
    answer: object,
    level: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    request = Request(act, record())
    assert len(answered(request.exchange.abandon(request.session), answer)) == 1
    assert [said.levelno for said in caplog.records] == [level]


def test_a_session_known_to_be_gone_is_not_touched() -> None:
    request = Request(write, record())
    with pytest.raises(SessionGone):
        answered(request.session.commit(explicit=True), GONE)
    assert answered(request.exchange.abandon(request.session)) == []


def saved(act: Callable[[Session], object], *answers: object) -> Callable[[Session], None]:
    """What the application does and has written at once."""

    def act_and_save(session: Session) -> None:
        act(session)
        answered(session.commit(explicit=True), *answers)

    return act_and_save


def test_a_session_the_application_stored_in_a_request_that_failed_is_deleted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(saved(write, record("new", data={"n": 1})))
    assert answered(request.exchange.abandon(request.session), ALIVE) == [
        StoreCall("delete", ("new",))
    ]
    assert request.session.is_new
    assert caplog.records == []


def test_one_it_gave_a_new_id_stays_and_a_warning_says_that_nobody_knows_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(saved(Session.regenerate, record("new")), record())
    assert answered(request.exchange.abandon(request.session), ALIVE) == [
        StoreCall("touch", ("new",), {"base": record("new")})
    ]
    (said,) = caplog.records
    assert (said.levelno, said.getMessage()) == (
        logging.WARNING,
        "a session's new cookie was not sent: its browser has only the old one",
    )


def test_one_it_stored_and_then_destroyed_is_deleted_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(saved(write, record("new", data={"n": 1})))
    request.session.destroy()
    assert answered(request.exchange.abandon(request.session), ALIVE) == [
        StoreCall("delete", ("new",))
    ]
    assert caplog.records == []


# -- a cookie that moves --------------------------------------------------------------------------


def move(session: Session) -> None:
    session.cookie.path = "/shop"


def set_cookies(request: Request) -> list[str]:
    return [value for name, value in request.headers() if name == "set-cookie"]


def test_a_cookie_in_a_new_place_is_announced_and_the_old_one_expired() -> None:
    request = Request(move, record())
    request.commit(record(version=2, cookie={"path": "/shop"}))
    old, new = set_cookies(request)
    assert expires(old)
    assert "; Path=/;" in old
    assert value_of(new) == cookie("abc")
    assert "; Path=/shop;" in new


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("max_age", 60), ("http_only", False), ("same_site", "strict"), ("secure", False)],
)
def test_one_that_changes_in_its_place_is_announced_alone(attribute: str, value: object) -> None:
    request = Request(lambda session: setattr(session.cookie, attribute, value), record())
    request.commit(record(version=2, cookie={attribute: value}))
    (new,) = set_cookies(request)
    assert value_of(new) == cookie("abc")


def test_of_a_session_without_a_cookie_none_is_expired_where_it_was() -> None:
    def move_and_write(session: Session) -> None:
        move(session)
        write(session)

    request = Request(move_and_write)
    request.commit(record("new", data={"n": 1}, cookie={"path": "/shop"}))
    (new,) = set_cookies(request)
    assert "; Path=/shop;" in new


@pytest.mark.parametrize("flash", [True, False])
def test_a_session_that_ended_takes_its_cookie_from_where_it_was(*, flash: bool) -> None:
    def end(session: Session) -> None:
        session.destroy()
        if flash:
            session["flash"] = "bye"

    request = Request(end, record(cookie={"path": "/shop"}))
    request.commit(ALIVE, *([record("new", data={"flash": "bye"})] if flash else []))
    old, *new = set_cookies(request)
    assert expires(old)
    assert "; Path=/shop;" in old
    assert [value_of(one) for one in new] == ([cookie("new")] if flash else [])
    assert all("; Path=/;" in one for one in new)


def test_regenerated_empty_a_session_has_its_cookie_where_all_have_it() -> None:
    own = record(cookie={"path": "/shop"})
    request = Request(lambda session: session.regenerate(keep_data=False), own)
    request.commit(record("new", data={}))
    old, new = set_cookies(request)
    assert expires(old)
    assert "; Path=/shop;" in old
    assert value_of(new) == cookie("new")
    assert "; Path=/;" in new


# -- what https means for the cookie --------------------------------------------------------------


def test_a_cookie_of_its_own_that_needs_tls_is_warned_of_over_plain_http(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def secure(session: Session) -> None:
        session.cookie.secure = True

    request = Request(secure, record())
    assert verbs(request.commit(record(version=2, cookie={"secure": True}))) == ["save"]
    assert request.set_cookie() is None
    (said,) = caplog.records
    assert (said.levelno, said.getMessage()) == (
        logging.WARNING,
        "over plain HTTP, with secure=True: the session's cookie is not sent",
    )


def test_an_old_cookie_over_plain_http_is_not_expired_when_it_needs_tls() -> None:
    request = Request(leave, record(cookie={"secure": True}))
    request.commit(ALIVE)
    assert set_cookies(request) == []


def test_a_secure_cookie_is_announced_and_expired_only_over_tls() -> None:
    policy = CookiePolicy(secure=True)
    for https in (True, False):
        held = cookie("abc", name="__Host-sid")
        request = Request(nothing, record(), held, https=https, policy=policy, rolling=True)
        request.commit(ALIVE)
        assert (request.set_cookie() is not None) == https
        request = Request(leave, record(), held, https=https, policy=policy)
        request.commit(ALIVE)
        assert (request.set_cookie() is not None) == https


def test_a_new_session_over_plain_http_costs_no_store_call_with_secure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = Request(write, policy=CookiePolicy(secure=True))
    assert request.commit() == []
    assert request.set_cookie() is None
    assert request.finish() == []
    assert len(caplog.records) == 1


# -- the other headers ----------------------------------------------------------------------------

PAGE: Final = ("Content-Type", "text/html")


def test_a_response_without_a_cookie_stays_as_it_is_unless_the_session_was_read() -> None:
    said = [PAGE, ("Cache-Control", "public")]
    request = Request(nothing, record())
    request.commit(ALIVE)
    assert request.headers(*said) == said
    request = Request(look, record())
    request.commit(ALIVE)
    assert request.headers(*said) == [*said, ("vary", "Cookie")]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], ["no-store"]),
        (["public, max-age=60"], ["no-store"]),
        (["PUBLIC"], ["no-store"]),
        (["max-age=0, s-maxage=60"], ["no-store"]),
        (["private", "public"], ["no-store"]),
        (["max-age=60"], ["no-store"]),
        (["no-transform"], ["no-store"]),
        (["no-store, s-maxage=60"], ["no-store"]),
        (["no-cache", "public"], ["no-store"]),
        (["private, max-age=60"], ["private, max-age=60"]),
        (['Private="set-cookie"'], ['Private="set-cookie"']),
        (["NO-STORE"], ["NO-STORE"]),
        (["no-cache", "max-age=0"], ["no-cache", "max-age=0"]),
    ],
)
def test_a_response_that_sets_the_cookie_is_stored_by_no_shared_cache(
    said: list[str], kept: list[str]
) -> None:
    request = Request(nothing, record(), rolling=True)
    request.commit(ALIVE)
    headers = request.headers(
        ("Set-Cookie", "a=1"), *(("Cache-Control", value) for value in said), PAGE
    )
    assert [value for name, value in headers if name.lower() == "cache-control"] == kept
    names = [name for name, _ in headers if name.lower() != "cache-control"]
    assert names == ["Set-Cookie", "Content-Type", "set-cookie"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], ["Cookie"]),
        (["Accept"], ["Accept", "Cookie"]),
        (["Accept, COOKIE"], ["Accept, COOKIE"]),
        (["Accept", "cookie"], ["Accept", "cookie"]),
        (["*"], ["*"]),
        (["X-Cookie"], ["X-Cookie", "Cookie"]),
    ],
)
def test_a_response_that_depends_on_the_session_varies_by_cookie(
    said: list[str], kept: list[str]
) -> None:
    request = Request(look)
    assert request.commit() == []
    headers = request.headers(*(("Vary", value) for value in said))
    assert [value for _, value in headers] == kept


def test_the_applications_own_list_of_headers_is_left_alone() -> None:
    said = [PAGE, ("Cache-Control", "public")]
    request = Request(write, save_uninitialized=True)
    request.commit(record("new", data={"n": 1}))
    assert request.exchange.headers(said) != said
    assert said == [PAGE, ("Cache-Control", "public")]


# -- whose word counts ----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["https", "wss"])
@pytest.mark.parametrize("trust", [True, False, ["10.0.0.0/8"]])
def test_a_request_over_tls_is_one_whatever_is_forwarded(scheme: str, trust: Any) -> None:
    assert ProxyTrust(trust).is_https(scheme, "198.51.100.1", "http")


@pytest.mark.parametrize(
    ("trust", "client", "forwarded", "https"),
    [
        (False, "10.0.0.1", "https", False),
        (True, "198.51.100.1", "https", True),
        (True, None, "https", True),
        (True, "198.51.100.1", " WSS , http", True),
        (True, "198.51.100.1", "http, https", False),
        (True, "198.51.100.1", "", False),
        ("10.0.0.0/8", "10.0.0.1", "https", True),
        (["10.0.0.0/8", "2001:db8::/32"], "10.1.2.3", "https", True),
        (("10.0.0.0/8", "2001:db8::/32"), "2001:db8::1", "https", True),
        ({"10.0.0.7"}, "10.0.0.7", "https", True),
        (["10.0.0.7"], "10.0.0.8", "https", False),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", "https", True),
        (["10.0.0.0/8"], "2001:db8::1", "https", False),
        (["10.0.0.0/8"], None, "https", False),
        (["10.0.0.0/8"], "", "https", False),
        (["10.0.0.0/8"], "/run/app.sock", "https", False),
        ([], "10.0.0.1", "https", False),
    ],
)
def test_what_is_forwarded_counts_from_whom_it_is_trusted(
    trust: Any,
    client: str | None,
    forwarded: str,
    https: bool,  # noqa: FBT001 - a row of the table
) -> None:
    assert ProxyTrust(trust).is_https("http", client, forwarded) == https


@pytest.mark.parametrize(
    "wrong",
    ["nonsense", ["10.0.0.1/8"], ["10.0.0.0/8", ""], None, 1, 0.5, b"10.0.0.0/8", [10]],
    ids=repr,
)
def test_networks_that_cannot_be_read_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="trust_proxy must be True, False or networks"):
        ProxyTrust(wrong)


# -- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "wrong", "said"),
    [
        ("rolling", 1, "rolling must be True or False, not 1"),
        ("resave", None, "resave must be True or False, not None"),
        ("save_uninitialized", "yes", "save_uninitialized must be True or False, not 'yes'"),
        ("unset", "delete", "unset must be 'destroy' or 'keep', not 'delete'"),
        ("unset", ["keep"], "unset must be 'destroy' or 'keep', not ['keep']"),
        ("genid", "uuid", "genid must be a plain function of the scope or environ, not 'uuid'"),
        ("conflict", "ours", "conflict must be one of error, merge, overwrite, not 'ours'"),
        ("conflict", {}, "conflict must be one of error, merge, overwrite, not {}"),
    ],
)
def test_a_wrong_rule_is_refused_when_it_is_made(option: str, wrong: object, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        rules(**{option: wrong})
    assert str(raised.value) == said


def test_ids_from_coroutines_are_refused() -> None:
    async def genid(scope: object) -> str:
        raise NotImplementedError

    with pytest.raises(ConfigurationError, match="genid must be a plain function of the scope"):
        rules(genid=genid)


def test_rules_are_made_once() -> None:
    with pytest.raises(AttributeError):
        rules().rolling = True  # type: ignore[misc]  # that is the point


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "reason", "level"),
    [
        (ConflictError({"a": 1}, {"a": 2}), 409, "Conflict", logging.WARNING),
        (StoreUnavailable("/srv/sessions"), 503, "Service Unavailable", logging.ERROR),
    ],
    ids=["conflict", "store"],
)
def test_a_refusal_tells_the_client_what_to_do_and_the_log_what_happened(
    error: Any, status: int, reason: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = refusal(error)
    assert (answer.status, answer.reason) == (status, reason)
    headers = dict(answer.headers)
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-length"] == str(len(answer.body))
    assert headers["cache-control"] == "no-store"
    assert headers.get("retry-after") == (None if status == 409 else "5")
    assert answer.body.endswith(b"Please try again.")
    assert str(error).encode() not in answer.body
    (said,) = caplog.records
    assert (said.levelno, said.getMessage()) == (level, str(error))


@pytest.mark.parametrize("error", [ConflictError({}, {}), StoreUnavailable("x")], ids=repr)
def test_a_refusal_tells_of_a_new_id_that_was_stored_before(error: Any) -> None:
    request = Request(saved(Session.regenerate, record("new")), record())
    answer = request.exchange.refused(error)
    cookies = [value for name, value in answer.headers if name == "set-cookie"]
    assert [value_of(one) for one in cookies] == [cookie("new")]
    assert dict(answer.headers)["cache-control"] == "no-store"
    assert answer.body == refusal(error).body
    assert request.finish() == []


def test_a_refusal_tells_of_a_new_session_that_was_stored_before() -> None:
    request = Request(saved(write, record("new", data={"n": 1})))
    answer = request.exchange.refused(StoreUnavailable("x"))
    assert value_of(dict(answer.headers)["set-cookie"]) == cookie("new")


@pytest.mark.parametrize("act", [nothing, write, Session.regenerate, leave])
def test_a_refusal_says_nothing_of_what_was_not_stored(act: Callable[[Session], object]) -> None:
    request = Request(act, record(), rolling=True)
    error = StoreUnavailable("x")
    assert request.exchange.refused(error).headers == refusal(error).headers


def test_a_refusal_may_have_no_session_to_tell_of() -> None:
    exchange = Exchange(
        rules(), BlockingRunner(MemoryStore()), cookies=cookie("abc"), https=False, source=None
    )
    error = StoreUnavailable("x")
    assert exchange.refused(error) == refusal(error)
