"""Which requests have a session, by path and method; however a client spells them."""

from __future__ import annotations

import re
import time
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesession.errors import ConfigurationError
from filesession.routes import Routes


def excluded(pattern: Any, path: str, method: str = "GET") -> bool:
    return not Routes(exclude=[pattern]).covers(path, method)


def included(pattern: Any, path: str, method: str = "GET") -> bool:
    return Routes(include=[pattern]).covers(path, method)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/", "/", True),
        ("/", "", True),
        ("/", "/a", False),
        ("/a", "/a", True),
        ("/a", "/ab", False),
        ("/a", "/a/b", False),
        ("/*", "/a", True),
        ("/*", "/", False),
        ("/*", "/a/b", False),
        ("/a*", "/a", True),
        ("/a*", "/abc", True),
        ("/a*c*e", "/abcde", True),
        ("/a*c*e", "/ace", True),
        ("/a*c*e", "/aec", False),
        ("/*.css", "/main.css", True),
        ("/*.css", "/mainxcss", False),
        ("/*.css", "/a/main.css", False),
        ("/{file}.css", "/.css", False),
        ("/{file}.css", "/main.css", True),
        ("/users/{id}", "/users/7", True),
        ("/users/{id}", "/users/7/cart", False),
        ("/users/{id}/cart", "/users/7/cart", True),
        ("/{one}-{other}", "/a-b-c", True),
        ("/{one}-{other}", "/-b", False),
        ("/**", "/", True),
        ("/**", "/a/b/c", True),
        ("/static/**", "/static", True),
        ("/static/**", "/static/", True),
        ("/static/**", "/static/a/b.css", True),
        ("/static/**", "/statics/a", False),
        ("/**/*.css", "/main.css", True),
        ("/**/*.css", "/a/b/main.css", True),
        ("/**/*.css", "/a/b/main.css/c", False),
        ("/a/**/b/**/c", "/a/b/c", True),
        ("/a/**/b/**/c", "/a/x/b/b/y/c", True),
        ("/a/**/b/**/c", "/a/x/c/y/b", False),
        ("/**/ab/**/c", "/abx/ab/c", True),
        ("/**/a*b/**/c", "/axbyy/azb/c", True),
        ("/**/**/a", "/b/a", True),
        ("/café/*", "/café/menü", True),
        ("/a b(c)+[d]|e.f$", "/a b(c)+[d]|e.f$", True),
        ("/a.b", "/axb", False),
        ("/v1/users:batch", "/v1/users:batch", True),
    ],
)
def test_a_pattern_is_the_whole_path(pattern: str, path: str, *, matches: bool) -> None:
    assert included(pattern, path) == excluded(pattern, path) == matches


def test_a_regular_expression_has_to_match_the_whole_path() -> None:
    pattern = re.compile(r"/users/\d+")
    for path, matches in (("/users/7", True), ("/users/7/cart", False), ("/x/users/7", False)):
        assert included(pattern, path) == excluded(pattern, path) == matches


def test_several_patterns_of_both_kinds_are_looked_at_together() -> None:
    routes = Routes(exclude=["/a", re.compile("/b+"), ("/c", "POST"), "/d/*"])
    left_out = {
        path for path in ("/a", "/bb", "/c", "/d/x", "/e") if not routes.covers(path, "GET")
    }
    assert left_out == {"/a", "/bb", "/d/x"}
    assert not routes.covers("/c", "POST")


def test_one_pattern_needs_no_list() -> None:
    for one in ("/a", re.compile("/a")):
        assert not Routes(include=one).covers("/b", "GET")
        assert not Routes(exclude=one).covers("/a", "GET")


def test_an_exclude_wins_over_an_include() -> None:
    routes = Routes(include="/shop/**", exclude="/shop/static/**")
    assert routes.covers("/shop/cart", "GET")
    assert not routes.covers("/shop/static/a.css", "GET")
    assert not routes.covers("/else", "GET")


@pytest.mark.parametrize("methods", ["POST", "post", ["POST"], {"POST", "PUT"}, ("put", "Post")])
def test_a_pattern_with_methods_is_of_those_alone_in_any_case(methods: Any) -> None:
    for method in ("POST", "post"):
        assert included(("/cart", methods), "/cart", method)
        assert excluded(("/cart", methods), "/cart", method)
    assert not included(("/cart", methods), "/cart", "GET")
    assert not excluded(("/cart", methods), "/cart", "GET")


def test_get_is_head_too_as_routers_take_it() -> None:
    for matches in (included, excluded):
        assert matches(("/cart", "GET"), "/cart", "HEAD")
        assert not matches(("/cart", "HEAD"), "/cart", "GET")


@pytest.mark.parametrize("path", ["/cart/", "/Cart", "/CART/", "/cArt"])
def test_an_include_regards_neither_case_nor_a_slash_at_the_end_but_an_exclude_both(
    path: str,
) -> None:
    for pattern in ("/cart", "/cart/"):
        assert included(pattern, path)
    assert not excluded("/cart", path)
    assert not Routes(include=["/cart"], exclude=["/x"]).covers("/X", "GET")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "//static/a",
            "/static//a",
            "/static/a//",
            "/static/../cart",
            "/static/./a",
            "/static/..",
        ),
        *("/static/a/.", "/static\\a", "/static/a\x00", "/static/%2e%2e/cart", "/static/..;/cart"),
        *("static/a", "*", "http://other/static/a", "/static/a\n", "/static/a;b", "//", "/."),
    ],
)
def test_what_others_may_read_as_another_path_is_never_left_out(path: str) -> None:
    assert not excluded("/static/**", path)
    assert not excluded(re.compile(r"(?s)/static.*|.*"), path)
    assert included("/cart", path)
    assert included(("/cart", "POST"), path)


@pytest.mark.parametrize(
    "path", ["/static/.well", "/static/..a", "/static/a..", "/static/...", "/~a"]
)
def test_dots_that_are_part_of_a_name_are_nothing_odd(path: str) -> None:
    assert excluded("/**", path)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "must start with '/'"),
        ("cats", "must start with '/'"),
        ("*", "must start with '/'"),
        ("https://shop/cart", "must start with '/'"),
        ("/a//b", "empty segment"),
        ("/a/../b", "dot segment"),
        ("/a/.", "dot segment"),
        ("/a?b=1", "without a query"),
        ("/a b%20c", "must be decoded"),
        (r"/users/\d+", "no path is ever left out"),
        ("/a;b", "no path is ever left out"),
        ("/100%", "no path is ever left out"),
        ("/users/:id", "write {name} for :name"),
        ("/a**", "write '/\\*\\*/\\*.css'"),
        ("/**.css", "write '/\\*\\*/\\*.css'"),
        ("/***", "write '/\\*\\*/\\*.css'"),
        ("/{id:int}", "a brace that names nothing"),
        ("/{}", "a brace that names nothing"),
        ("/{1}", "a brace that names nothing"),
        ("/{a", "a brace that names nothing"),
        (b"/a", "must be a path, a compiled"),
        (re.compile(b"/a"), "must be a path, a compiled"),
        (None, "must be a path, a compiled"),
        (("/a", "GET", "POST"), "must be a path, a compiled"),
        (("/a", "/b"), "must be a method"),
        (("/a", ["GET", 1]), "must be a method"),
        (("/a", []), "must be a method"),
        (("/a", 1), "must be a method"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("option", ["include", "exclude"])
def test_what_is_no_pattern_is_refused(option: str, pattern: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        Routes(**{option: ["/good", pattern]})
    assert str(caught.value).startswith(f"{option}: ")


def test_patterns_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="include: 7 must be a pattern or several"):
        Routes(include=7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="would leave out everything"):
        Routes(include=[])
    assert Routes(exclude=[]).covers("/a", "GET")


# -- laws -----------------------------------------------------------------------------------------

LETTERS: Final = "abA"
segments = st.text(LETTERS, min_size=1, max_size=4)
wild_segments = st.lists(
    st.one_of(st.text(LETTERS, min_size=1, max_size=2), st.sampled_from(["*", "{x}"])),
    min_size=1,
    max_size=4,
).map(lambda parts: "*".join("".join(parts).split("**")))
pattern_parts = st.lists(
    st.one_of(segments, st.just("**"), wild_segments.filter(lambda text: "**" not in text)),
    min_size=1,
    max_size=6,
)
paths = st.lists(segments, max_size=7).map(lambda parts: "/" + "/".join(parts))


def fits(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """By definition, segment by segment, in any time it takes."""
    if not pattern:
        return not path
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(fits(rest, path[skipped:]) for skipped in range(len(path) + 1))
    return (
        bool(path)
        and (bool(path[0]) if first == "*" else fits_segment(first, path[0]))
        and fits(rest, path[1:])
    )


def fits_segment(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern.startswith("*"):
        return any(fits_segment(pattern[1:], text[at:]) for at in range(len(text) + 1))
    if pattern.startswith("{x}"):
        return any(fits_segment(pattern[3:], text[at:]) for at in range(1, len(text) + 1))
    return text[:1] == pattern[0] and fits_segment(pattern[1:], text[1:])


def parts_of(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


@given(pattern_parts, paths)
def test_it_is_what_the_patterns_are_by_definition(parts: list[str], path: str) -> None:
    pattern = "/" + "/".join(parts)
    assert excluded(pattern, path) == fits(tuple(parts), parts_of(path))
    lower = tuple(part.lower() for part in parts)
    assert included(pattern, path) == fits(lower, parts_of(path.lower()))


@st.composite
def spelled_otherwise(draw: Any) -> tuple[str, str]:
    """A path, and another spelling that some router takes for the same."""
    parts = draw(st.lists(segments, min_size=1, max_size=4))
    spelled = ""
    for part in parts:
        detour = draw(
            st.sampled_from(["", "", "/.", "/", "/static/..", "/..;", "/%2e", "/static/x/../.."])
        )
        spelled += detour + draw(st.sampled_from(["/", "/", "\\", "/", "%2f"])) + part
    spelled += draw(st.sampled_from(["", "", "/", "//", "/.", ";x", "\x00"]))
    if draw(st.booleans()):
        spelled = spelled.swapcase().replace("/STATIC", "/static")
    return "/" + "/".join(parts), spelled


@given(spelled_otherwise())
def test_no_other_spelling_gets_round_the_session_of_a_path(paths: tuple[str, str]) -> None:
    path, spelled = paths
    assert Routes(include=[path]).covers(spelled, "GET")
    assert Routes(exclude=["/static/**", re.compile("/static/.*")]).covers(spelled, "GET")


@given(st.text(), st.text())
def test_any_path_and_method_is_answered(path: str, method: str) -> None:
    routes = Routes(include=["/a/**", "/*"], exclude=[("/b/**/c", "GET")])
    assert isinstance(routes.covers(path, method), bool)
    assert Routes().covers(path, method)


@pytest.mark.parametrize(
    "path", ["/a" * 20000, "/a/b" * 10000, "/x" + "a" * 40000, "/x" + "abcd" * 10000, "/ab" * 13000]
)
def test_no_path_takes_long_however_many_wildcards_there_are(path: str) -> None:
    patterns = ["/**/a/**/b/**/c/**/d", "/x*a*b*c*d*e", "/{q}a{r}b{s}z/**/z", "/**/a*b*z/**/z"]
    started = time.process_time()
    assert not included(patterns[0], path)
    assert not Routes(include=patterns).covers(path, "GET")
    assert Routes(exclude=patterns).covers(path, "GET")
    assert time.process_time() - started < 2  # with wildcards tried again and again, hours
