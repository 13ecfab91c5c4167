"""Which requests have a session, by path and method: ``include`` and ``exclude``.

A pattern is the whole path, decoded, with whatever the application is mounted under. In it

- ``*`` is anything within a segment, and by itself a whole segment;
- ``{name}`` is one character or more within a segment, as in a route;
- ``**``, a segment by itself, is any number of segments, also none: ``/static/**`` is ``/static``
  and all below it.

A compiled regular expression has to match the whole path, too. A pattern with methods,
``("/cart/**", "POST")`` or ``("/cart/**", ["POST", "PUT"])``, counts for those alone: those of the
request itself, whatever a header asks to take it for. GET is HEAD as well, and a websocket is a
GET, as its handshake is.

Rules, as who sends a request chooses how its path is spelled:

1. What is excluded has no session, also where it is included.
2. An exclude that is text is exact: case and a slash at the end count. An include that is text
   regards neither, as there are routers that do not.
3. A path that some reader may take for another one is never left out: one with an empty or a dot
   segment, a backslash, ``;``, a control character, or a ``%`` that is left after decoding.

So no request gets round the session of a path by another spelling of it, unless a regular
expression in ``include`` lets it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from filesession.errors import ConfigurationError, shown

Pattern: TypeAlias = str | re.Pattern[str]
Route: TypeAlias = Pattern | tuple[Pattern, str | Iterable[str]]

_Test: TypeAlias = Callable[[str], object]
_Parsed: TypeAlias = tuple[Pattern, frozenset[str] | None]

_GRAMMAR: Final = "'*' within a segment, '**' for any number of them, {name} for one"

_is_plain = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/\\%;\x00-\x1f\x7f]++)*+/?").fullmatch
"""No reader takes it for another path (rule 3)."""

_is_method = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch

_WILD: Final = re.compile(r"(\*|\{[^\W\d]\w*\})")

_WRONG: Final = (
    (re.compile(r"\A(?!/)"), "must start with '/'"),
    (re.compile(r"//"), "has an empty segment, and no path with one is ever left out"),
    (re.compile(r"/\.{1,2}(?:/|\Z)"), "has a dot segment, and no path with one is ever left out"),
    (re.compile(r"[?#]"), "must be a path without a query"),
    (re.compile(r"%[0-9A-Fa-f]{2}"), "must be decoded"),
    (re.compile(r"[\\%;\x00-\x1f\x7f]"), "has a character with which no path is ever left out"),
    (re.compile(r"/:\w"), "names a part as Express does; write {name} for :name"),
    (
        re.compile(r"[^/]\*\*|\*\*[^/]"),
        "has '**' beside other text; write '/**/*.css' for '**.css'",
    ),
)
"""What can be no pattern, and why."""


class Routes:
    """Tells which requests have a session; one look takes a time linear in the path's length.

    Args:
        include: a pattern, or several: no other requests have one; None: all have.
        exclude: likewise: these have none.

    Raises:
        ConfigurationError: one is no pattern or no method; or ``include`` is empty.
    """

    __slots__ = ("_exclude", "_include")

    def __init__(
        self,
        include: Iterable[Route] | Pattern | None = None,
        exclude: Iterable[Route] | Pattern | None = None,
    ) -> None:
        self._include = None if include is None else _Table("include", include)
        self._exclude = None if exclude is None else _Table("exclude", exclude)

    def covers(self, path: str, method: str) -> bool:
        """Whether a request has a session.

        Args:
            path: decoded, the whole one of the URL; an empty one is ``/``.
            method: in whatever case; of a websocket GET.
        """
        path, method = path or "/", method.upper()
        exclude, include = self._exclude, self._include
        if exclude is not None and exclude.has(path, method):
            return not _is_plain(path)
        return include is None or include.has(path, method) or not _is_plain(path)


class _Table:
    """The patterns of one option, by method."""

    __slots__ = ("_any", "_of")

    def __init__(self, option: str, routes: Iterable[Route] | Pattern) -> None:
        lenient = option == "include"
        given = [routes] if isinstance(routes, (str, re.Pattern)) else routes
        try:
            parsed = [_parsed(option, route) for route in given]
        except TypeError:
            raise _refused(option, given, "must be a pattern or several of them") from None
        if lenient and not parsed:
            raise _refused(option, given, "would leave out everything; None is all requests")
        methods = frozenset().union(*(of for _, of in parsed if of is not None))
        self._any = _test(parsed, None, lenient=lenient)
        self._of = {method: _test(parsed, method, lenient=lenient) for method in methods}

    def has(self, path: str, method: str) -> bool:
        """Whether one of them is of that path and method."""
        return bool(self._of.get(method, self._any)(path))


def _refused(option: str, value: object, why: str) -> ConfigurationError:
    return ConfigurationError(f"{option}: {shown(value)} {why}")


def _parsed(option: str, route: object) -> _Parsed:
    pattern, methods = route if isinstance(route, tuple) and len(route) == 2 else (route, None)  # noqa: PLR2004
    if isinstance(pattern, str):
        why = next((why for wrong, why in _WRONG if wrong.search(pattern)), None)
        if why is None and re.search(r"[{}]", _WILD.sub("", pattern)):
            why = f"has a brace that names nothing; there is {_GRAMMAR}"
        if why is not None:
            raise _refused(option, pattern, why)
    elif not isinstance(pattern, re.Pattern) or not isinstance(pattern.pattern, str):
        why = "must be a path, a compiled regular expression of text, or a pair of one and methods"
        raise _refused(option, route, why)
    return pattern, None if methods is None else _methods(option, methods)


def _methods(option: str, methods: object) -> frozenset[str]:
    named = [methods] if isinstance(methods, str) else methods
    found = list(named) if isinstance(named, Iterable) else []
    if not found or not all(isinstance(name, str) and _is_method(name) for name in found):
        raise _refused(option, methods, "must be a method such as 'POST', or several of them")
    upper = {name.upper() for name in found}
    return frozenset(upper | {"HEAD"} if "GET" in upper else upper)


def _test(parsed: Sequence[_Parsed], method: str | None, *, lenient: bool) -> _Test:
    """What tells the paths of a method; the patterns that are text in one expression."""
    of_it = [pattern for pattern, of in parsed if of is None or method in of]
    texts = [_expression(pattern, lenient=lenient) for pattern in of_it if isinstance(pattern, str)]
    flags = re.DOTALL | (re.IGNORECASE if lenient else re.NOFLAG)
    tests = [re.compile("|".join(texts), flags).fullmatch] if texts else []
    tests += [pattern.fullmatch for pattern in of_it if isinstance(pattern, re.Pattern)]
    return tests[0] if len(tests) == 1 else lambda path: any(test(path) for test in tests)


def _expression(pattern: str, *, lenient: bool) -> str:
    """A pattern as a regular expression, in which no wildcard is tried twice for one path.

    Where what stands between two wildcards was found is settled by its first place, which leaves
    the most for the rest: the groups are atomic. Else a path could be made that takes for ever.
    """
    _, *segments = pattern.split("/")
    slash = segments[-1] == ""
    if slash:
        segments.pop()
    if not segments:
        return "/"
    blocks = [""]
    for segment in segments:
        if segment == "**":
            blocks.append("")
        else:
            blocks[-1] += "/" + _segment(segment)
    first, *others = blocks
    between = [f"(?>(?:/[^/]+)*?{block}(?=/|\\Z))" for block in others[:-1] if block]
    below = segments[-1] == "**"  # of a path that is no plain one, more than is below: see rule 3
    last = "(?:/.*)?" if below else f"(?:/[^/]+)*?{others[-1]}" if others else ""
    end = "" if below else "/?" if lenient else "/" if slash else ""
    return "".join([first, *between, last, end])


def _segment(segment: str) -> str:
    if segment == "*":
        return "[^/]+"
    start, *rest = _WILD.split(segment)
    wilds = ["*" if wild == "*" else "+" for wild in rest[::2]]
    texts = [re.escape(text) for text in rest[1::2]]
    pieces = [f"[^/]{wild}?{text}" for wild, text in zip(wilds, texts, strict=True)]
    if pieces:
        pieces[-1] = f"[^/]{wilds[-1]}{texts[-1]}"
    settled = [f"(?>{piece})" for piece in pieces[:-1]]
    return "".join([re.escape(start), *settled, *pieces[-1:]])
