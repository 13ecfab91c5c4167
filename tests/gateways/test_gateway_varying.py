"""A cookie that follows the request, under both gateways."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from filesession.errors import ConfigurationError

if TYPE_CHECKING:
    from tests.gateways.conftest import Here, Kind, RecordingStore, Site, Wire

MakeSite = Callable[..., "Site"]


def change(here: Here) -> None:
    here.session["seen"] = True


def path_of(request: Any) -> str:
    path: str = request.get("path") or request.get("PATH_INFO")
    return path


def embedded(request: Any) -> dict[str, Any]:
    """For another site's frame a cookie of its own, and a day long below ``/long``."""
    if path_of(request).startswith("/frame"):
        return {"same_site": "none", "secure": True, "partitioned": True}
    return {"max_age": 86400} if path_of(request).startswith("/long") else {}


def test_each_request_is_handed_the_cookie_that_the_function_gives_for_it(
    make_site: MakeSite,
) -> None:
    site = make_site(cookie=embedded)
    frame = site.request(change, path="/frame", https=True).set_cookie
    assert frame is not None
    assert frame.endswith("; Path=/; HttpOnly; Secure; Partitioned; SameSite=None")
    long = site.request(change, path="/long").set_cookie
    assert long is not None
    assert "; Max-Age=86400; " in long
    plain = site.request(change, path="/").set_cookie
    assert plain is not None
    assert plain.endswith("; Path=/; HttpOnly; SameSite=Lax")


@pytest.mark.parametrize(
    ("https", "end"), [(True, "Secure; SameSite=None"), (False, "SameSite=Lax")]
)
def test_auto_from_a_function_is_as_the_request_came(
    make_site: MakeSite, *, https: bool, end: str
) -> None:
    site = make_site(secure=False, cookie=lambda request: {"secure": "auto", "same_site": "auto"})
    cookie = site.request(change, https=https).set_cookie
    assert cookie is not None
    assert cookie.endswith(f"HttpOnly; {end}")


def test_a_session_destroyed_ends_the_cookie_of_that_request(
    make_site: MakeSite, sid: str, cookie_of: Callable[..., str]
) -> None:
    site = make_site(cookie=embedded)
    answer = site.request(
        lambda here: here.session.destroy(), path="/frame", https=True, cookie=cookie_of(sid)
    )
    assert answer.expires_the_cookie
    assert answer.set_cookie is not None
    assert "; Partitioned" in answer.set_cookie


def test_what_a_session_has_of_its_own_stands_above_it(make_site: MakeSite) -> None:
    def shorter(here: Here) -> None:
        here.session.cookie.max_age = 60

    cookie = make_site(cookie=embedded).request(shorter, path="/long").set_cookie
    assert cookie is not None
    assert "; Max-Age=60; " in cookie


def test_where_its_path_does_not_cover_the_request_there_is_no_session(
    make_site: MakeSite,
) -> None:
    site = make_site(cookie=lambda request: {"path": "/" + path_of(request).split("/")[1]})
    cookie = site.request(change, path="/one/page").set_cookie
    assert cookie is not None
    assert "; Path=/one; " in cookie
    site = make_site(cookie=lambda request: {"path": "/one"})
    found: list[bool] = []
    site.request(lambda here: found.append(here.key in here.place), path="/oneself")
    assert found == [False]


def test_what_it_gives_wrongly_is_an_error_before_the_application_runs(
    make_site: MakeSite, store: RecordingStore
) -> None:
    site = make_site(cookie=lambda request: {"same_site": "none"})
    with pytest.raises(
        ConfigurationError, match="what cookie gave for this request cannot be used"
    ):
        site.request(change)
    assert (site.here, site.events, store.calls) == (None, [], [])


def test_an_excluded_request_does_not_ask_it(make_site: MakeSite, kind: Kind) -> None:
    asked: list[object] = []

    def cookie(request: Any) -> dict[str, Any]:
        asked.append(path_of(request))
        return {}

    site = make_site(cookie=cookie, exclude="/static/**")
    site.request(path="/static/a")
    site.request(path="/page")
    assert asked == ["/page"]


def test_a_websockets_acceptance_carries_it(
    connect: Callable[..., Wire], store: RecordingStore
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["seen"] = True
        await send({"type": "websocket.accept"})

    wire = connect(kind="websocket", scheme="wss", path="/frame")
    wire.serve(app, cookie=embedded)
    (cookie,) = wire.all(b"set-cookie")
    assert b"; Partitioned" in cookie
