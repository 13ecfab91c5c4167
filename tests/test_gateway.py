"""The keywords of both middlewares: a wrong one is refused when the application is built."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from filesession import asgi, wsgi
from filesession.codec import JSONCodec
from filesession.cookies.signing import Signer
from filesession.errors import ConfigurationError
from filesession.gateway import Gateway
from filesession.stores import FileStore, MemoryStore

MIDDLEWARES = [asgi.SessionMiddleware, wsgi.SessionMiddleware]


@pytest.fixture(params=MIDDLEWARES, ids=["asgi", "wsgi"])
def middleware(request: pytest.FixtureRequest) -> Any:
    return request.param


def an_app(*_: Any) -> Any:
    """Never called."""
    raise AssertionError


async def a_coroutine(_: Any) -> str:
    """Never called."""
    raise AssertionError


class Coroutines:
    """The shape of an asynchronous store."""

    async def load(self) -> None: ...

    create = save = touch = delete = load


def test_both_take_the_same_keywords() -> None:
    one, other = (inspect.signature(middleware) for middleware in MIDDLEWARES)
    assert one == other == inspect.signature(Gateway)


def test_every_keyword_is_described() -> None:
    for middleware in MIDDLEWARES:
        for name in inspect.signature(middleware).parameters:
            assert f"\n        {name}: " in (middleware.__doc__ or "")


def test_an_unknown_keyword_is_a_type_error(middleware: Any) -> None:
    with pytest.raises(TypeError, match="max_agee"):
        middleware(an_app, MemoryStore(), "secret", max_agee=60)


@pytest.mark.parametrize(
    ("keyword", "wrong", "said"),
    [
        ("key", "", "key must be non-empty text, not ''"),
        ("key", b"session", "key must be non-empty text, not b'session'"),
        ("offload", 1, "offload must be True, False or None, not 1"),
        ("offload", "auto", "offload must be True, False or None, not 'auto'"),
        ("rolling", "yes", "rolling must be True or False"),
        ("unset", None, "unset must be 'destroy' or 'keep'"),
        ("unset", [], "unset must be 'destroy' or 'keep'"),
        ("conflict", "theirs", "conflict must be one of"),
        ("conflict", {"merge"}, "conflict must be one of"),
        ("genid", "uuid4", "genid must be a plain function"),
        ("genid", a_coroutine, "genid must be a plain function"),
        ("trust_proxy", "proxy.example", "trust_proxy must be True, False or networks"),
        ("same_site", "none", "without Secure"),
        ("name", "__Host-sid", "refuse a cookie named"),
        ("max_age", 0, "max_age must be"),
        ("path", "shop", "path must start with '/'"),
        ("domain", "http://shop.example", "domain must be a host name"),
        ("secure", "yes", "secure must be"),
        ("http_only", None, "http_only must be"),
        ("partitioned", True, "partitioned cookie without Secure"),
        ("priority", "urgent", "priority must be"),
        ("cookie", {"max_age": 60}, "cookie must be a plain function of the scope or environ"),
        ("cookie", a_coroutine, "cookie must be a plain function of the scope or environ"),
        ("include", "cart", "include: 'cart' must start with '/'"),
        ("include", [], "would leave out everything"),
        ("exclude", [("/cart", ())], "must be a method such as 'POST'"),
        ("exclude", 7, "must be a pattern or several of them"),
        ("retries", -1, "retries must be a number of tries from 0, not -1"),
        ("retries", True, "retries must be a number of tries from 0, not True"),
        ("retries", None, "retries must be a number of tries from 0, not None"),
        ("retry_delay", 0.5, "retry_delay must be a plain function"),
        ("retry_delay", a_coroutine, "retry_delay must be a plain function"),
        ("unavailable", "ignore", "unavailable must be 'respond', 'raise' or 'skip'"),
        ("unavailable", ["skip"], "unavailable must be 'respond', 'raise' or 'skip'"),
    ],
)
def test_a_wrong_value_is_refused(middleware: Any, keyword: str, wrong: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        middleware(an_app, MemoryStore(), "secret", **{keyword: wrong})


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (None, "NoneType has no load, create, save, touch, delete"),
        ({}, "dict has no load, create, save, touch, delete"),
        (b"/srv/sessions", "bytes has no load"),
        (MemoryStore, "MemoryStore is a class; make one of it"),
        (FileStore, "FileStore is a class; make one of it"),
        (dict, "dict is a class; make one of it"),
    ],
    ids=repr,
)
def test_what_is_no_store_is_refused_by_what_it_lacks(
    middleware: Any, store: object, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"store must be a store or a path; {said}"):
        middleware(an_app, store, "secret")


@pytest.mark.parametrize("kind", [str, Path], ids=["text", "path"])
def test_a_path_is_a_file_store_with_a_key_of_its_own(
    middleware: Any, tmp_path: Path, kind: Any
) -> None:
    directory = tmp_path / "sessions"
    first = middleware(an_app, kind(directory))
    assert isinstance(first.store, FileStore)
    assert first.store.directory == str(directory)
    key = (directory / "secret").read_bytes()
    assert key
    signed = first.rules.signer.sign("abc")
    assert middleware(an_app, FileStore(directory)).rules.signer.unsign(signed) == ("abc", True)


def test_a_secret_that_is_given_counts_instead(middleware: Any, tmp_path: Path) -> None:
    gateway = middleware(an_app, tmp_path / "sessions", ["the newest", "the one before"])
    assert gateway.rules.signer.unsign(Signer("the newest").sign("abc")) == ("abc", True)
    assert gateway.rules.signer.unsign(Signer("the one before").sign("abc")) == ("abc", False)
    assert not (tmp_path / "sessions" / "secret").exists()


def test_a_store_that_keeps_no_key_needs_a_secret(middleware: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="secret is needed: a MemoryStore keeps no key of its own"
    ):
        middleware(an_app, MemoryStore())


@pytest.mark.parametrize("wrong", ["", [], [""], 7], ids=repr)
def test_a_secret_that_is_none_is_refused(middleware: Any, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="secret"):
        middleware(an_app, MemoryStore(), wrong)


def test_changes_are_told_by_the_stores_own_codec(middleware: Any) -> None:
    codec = JSONCodec()
    assert middleware(an_app, MemoryStore(codec=codec), "secret").rules.codec is codec


def test_a_store_of_coroutines_serves_asgi_and_needs_no_codec() -> None:
    store: Any = Coroutines()
    gateway = asgi.SessionMiddleware(an_app, store, "secret")
    assert gateway.store is store
    assert isinstance(gateway.rules.codec, JSONCodec)
    with pytest.raises(ConfigurationError, match=r"cannot serve WSGI; use filesession\.asgi"):
        wsgi.SessionMiddleware(an_app, store, "secret")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "sid"),
        ({"secure": True}, "__Host-sid"),
        ({"secure": True, "path": "/shop"}, "sid"),
        ({"secure": True, "domain": "shop.example"}, "sid"),
        ({"secure": True, "name": "shop"}, "shop"),
    ],
    ids=str,
)
def test_the_cookie_is_named_for_what_it_is(
    middleware: Any, options: dict[str, Any], name: str
) -> None:
    assert middleware(an_app, MemoryStore(), "secret", **options).rules.policy.name == name


@pytest.mark.parametrize(
    ("own", "path", "covered"),
    [
        ("/", b"/anything", True),
        ("/", b"\xff", True),
        ("/shop", b"/shop", True),
        ("/shop", b"/shop/cart", True),
        ("/shop", b"/shopping", False),
        ("/caf%C3%A9", "/café/menu".encode(), True),
        ("/a%20b", b"/a b", True),
        ("/a!$&'()*+,=:@b", b"/a!$&'()*+,=:@b/c", True),
    ],
)
def test_a_path_is_compared_as_the_url_has_it(
    middleware: Any,
    own: str,
    path: bytes,
    covered: bool,  # noqa: FBT001 - a row of the table
) -> None:
    gateway = middleware(an_app, MemoryStore(), "secret", path=own)
    policy = gateway._policy_of({}, path.decode("utf-8", "surrogateescape"), "GET")
    assert policy is (gateway.rules.policy if covered else None)
