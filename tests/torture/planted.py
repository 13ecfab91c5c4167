"""Histories of a few lines in which something is that must not be.

Times are seconds; a session is idle after ten. Worker 9 is killed at 50, and what it began and did
not end may be done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

Lines: TypeAlias = list[dict[str, Any]]

KILLED: Final = 9


def call(  # noqa: PLR0917 - it reads as the line it makes
    verb: str,
    sid: str,
    began: float,
    ended: float | None,
    told: str = "ok",
    version: int = 0,
    keys: Iterable[str] = (),
    **more: Any,
) -> Lines:
    """A call and what it told; with an end of None its process was killed."""
    mark = f"{verb} {sid} {began}"
    begin = {"mark": mark, "verb": verb, "sid": sid, "began": began, "worker": 1}
    life = {} if verb in {"delete", "load"} else {"life": "A"}
    lines: Lines = [begin | life]
    for name in ("key", "drop", "new", "on", "whole", "carries", "carried", "patience", "age"):
        if name in more:
            lines[0][name] = more.pop(name)
    entered = {name: more.pop(name) for name in ("entered", "left") if name in more}
    if entered:
        lines.append({"mark": mark} | entered)
    if "life" in more:
        lines[0]["life"] = more["life"]
    if ended is None:
        lines[0]["worker"] = KILLED
        return lines
    done: dict[str, Any] = {"mark": mark, "ended": ended, "told": told}
    if version:
        done |= {"life": "A", "version": version, "keys": list(keys), "count": 0}
    return [*lines, done | more]


def event(event: str, **more: Any) -> Lines:
    return [{"event": event} | more]


def history(calls: Iterable[Lines], grace: float | None = None) -> list[str]:
    """A whole history in which these calls are made."""
    lines = [
        *event("round", idle=10, grace=grace),
        *event("kill", worker=KILLED, at=49.9),
        *event("ended", worker=KILLED, at=50, code=-9),
    ]
    return [
        json.dumps(line) + "\n" for line in [*lines, *(line for each in calls for line in each)]
    ]


CREATED = call("create", "a", 0, 1, version=1)
CREATED_LATE = call("create", "a", 44, 45, version=1)
ADDED = call("add", "a", 2, 3, version=2, keys=["k1"], key="k1")
MOVED = call("regenerate", "a", 2, 3, version=2, new="b")
LEFT = {
    "temporary": 0,
    "begun": 0,
    "aside": 0,
    "whole": [],
    "torn": [],
    "complaints": [],
    "threads": 2,
}

FOUND: Final[dict[str, tuple[str, list[Lines]]]] = {
    "a key whose save had come back is not there": (
        "lost",
        [CREATED, ADDED, call("load", "a", 4, 5, version=3)],
    ),
    "a key is not in what its own save returned": (
        "lost",
        [CREATED, call("add", "a", 2, 3, version=2, key="k1")],
    ),
    "a key that was seen is gone, after an overwrite that carried it": (
        "lost",
        [
            CREATED,
            ADDED,
            call("overwrite", "a", 4, 5, version=3, keys=["k1"], whole=True, carries=["k1"]),
            call("load", "a", 6, 7, version=4),
        ],
    ),
    "a key that was seen after an overwrite without it is gone": (
        "lost",
        [
            CREATED,
            ADDED,
            call("overwrite", "a", 4, 5, version=3, whole=True),
            call("load", "a", 6, 7, version=4, keys=["k1"]),
            call("load", "a", 8, 9, version=5),
        ],
    ),
    "a key is there again after its removal": (
        "lost",
        [
            CREATED,
            ADDED,
            call("remove", "a", 4, 5, version=3, drop=["k1"]),
            call("load", "a", 6, 7, version=4, keys=["k1"]),
        ],
    ),
    "a save that refuses conflicts goes over another's": (
        "lost",
        [CREATED, ADDED, call("error", "a", 4, 5, version=3, keys=["k1", "k2"], key="k2", on=1)],
    ),
    "a key was never saved": (
        "foreign",
        [CREATED, call("load", "a", 4, 5, version=2, keys=["k9"])],
    ),
    "a key is seen before its save began": (
        "foreign",
        [
            CREATED,
            call("load", "a", 2, 3, version=2, keys=["k1"]),
            call("add", "a", 4, 5, version=3, keys=["k1"], key="k1"),
        ],
    ),
    "a key whose save was refused": (
        "foreign",
        [
            CREATED,
            call("add", "a", 2, 3, told="conflict", key="k1"),
            call("load", "a", 4, 5, version=2, keys=["k1"]),
        ],
    ),
    "a key of another life": (
        "foreign",
        [
            CREATED,
            ADDED,
            call("create", "z", 4, 5, version=1, life="Z"),
            call("load", "z", 6, 7, version=2, keys=["k1"], life="Z"),
        ],
    ),
    "a life is seen under an id it never had": (
        "foreign",
        [CREATED, call("load", "z", 4, 5, version=1)],
    ),
    "a life is seen before it began": (
        "foreign",
        [call("load", "a", 0, 1, version=1), call("create", "a", 2, 3, version=1)],
    ),
    "an id is said to be taken that never was": (
        "foreign",
        [call("create", "a", 0, 1, told="exists")],
    ),
    "a load after a delete": (
        "revived",
        [CREATED, call("delete", "a", 2, 3), call("load", "a", 4, 5, version=1)],
    ),
    "a save after a delete": (
        "revived",
        [
            CREATED,
            call("delete", "a", 2, 3),
            call("add", "a", 4, 5, version=2, keys=["k1"], key="k1"),
        ],
    ),
    "a session is deleted, and goes on under its new id": (
        "revived",
        [CREATED, MOVED, call("delete", "b", 4, 5), call("touch", "b", 6, 7)],
    ),
    "the old id works after a regenerate": (
        "revived",
        [CREATED, MOVED, call("load", "a", 4, 5, version=2)],
    ),
    "the old id works after its successor was seen, whose maker was killed": (
        "revived",
        [
            CREATED,
            call("regenerate", "a", 2, None, new="b"),
            call("load", "b", 51, 52, version=2),
            call("load", "a", 53, 54, version=2),
        ],
    ),
    "a session that was refused as expired": (
        "revived",
        [
            CREATED,
            call("touch", "a", 11, 11.5),
            call("load", "a", 21.9, 22, told="gone"),
            call("load", "a", 22.01, 22.02, version=1),
        ],
    ),
    "a session is served long after it expired": (
        "revived",
        [CREATED, call("load", "a", 12, 13, version=1)],
    ),
    "a save succeeds long after the session expired": (
        "revived",
        [CREATED, call("add", "a", 12, 13, version=2, keys=["k1"], key="k1")],
    ),
    "two regenerates of one session succeed": (
        "two winners",
        [
            CREATED,
            call("regenerate", "a", 2, 4, version=2, new="b"),
            call("regenerate", "a", 3, 5, version=3, new="c"),
        ],
    ),
    "two deletes of one session succeed": (
        "two winners",
        [CREATED, call("delete", "a", 2, 4), call("delete", "a", 3, 5)],
    ),
    "two saves make one version": (
        "two winners",
        [
            CREATED,
            call("remove", "a", 2, 4, version=2),
            call("remove", "a", 3, 5, version=2),
        ],
    ),
    "a session is not there that was just made": (
        "vanished",
        [CREATED, call("load", "a", 4, 5, told="gone")],
    ),
    "a session is not there, and only then somebody began to end it": (
        "vanished",
        [CREATED, call("load", "a", 4, 5, told="gone"), call("delete", "a", 6, None)],
    ),
    "a save is refused soon after a touch": (
        "vanished",
        [
            CREATED,
            call("touch", "a", 9, 9.5),
            call("add", "a", 18, 18.9, told="gone", key="k1"),
        ],
    ),
    "a live session's id is given to another": (
        "vanished",
        [CREATED, call("create", "a", 4, 5, version=1, life="Z")],
    ),
    "a delete that was killed had not happened, as the session was seen since": (
        "vanished",
        [
            CREATED_LATE,
            call("delete", "a", 46, None),
            call("touch", "a", 51, 52),
            call("load", "a", 53, 54, told="gone"),
        ],
    ),
    "a session is under neither id after a regenerate that was killed": (
        "vanished",
        [
            CREATED_LATE,
            call("regenerate", "a", 48, None, new="b"),
            call("load", "a", 51, 52, told="gone"),
            call("load", "b", 51, 52, told="gone"),
        ],
    ),
    "an increment is lost": (
        "counted",
        [
            CREATED,
            call("count", "a", 2, 3, version=2, count=1, on=1, entered=2.1, left=2.2),
            call("count", "a", 4, 5, version=3, count=2, on=2, entered=4.1, left=4.2),
            call("load", "a", 6, 7, version=4, count=1),
        ],
    ),
    "the counter counts what was never counted": (
        "counted",
        [CREATED, call("load", "a", 6, 7, version=2, count=1)],
    ),
    "an overwrite leaves the counter that it replaced": (
        "counted",
        [
            CREATED,
            call("count", "a", 2, 3, version=2, count=1, on=1, entered=2.1, left=2.2),
            call("overwrite", "a", 4, 5, version=3, count=1, whole=True),
        ],
    ),
    "an increment after an overwrite is lost": (
        "counted",
        [
            CREATED,
            call("overwrite", "a", 2, 3, version=2, count=5, whole=True, carried=5),
            call("count", "a", 4, 5, version=3, count=6, on=2, entered=4.1, left=4.2),
            call("load", "a", 6, 7, version=4, count=5),
        ],
    ),
    "two are inside the lock": (
        "two holders",
        [
            CREATED,
            call("count", "a", 2, 5, version=2, count=1, on=1, entered=2.1, left=4.9),
            call("count", "a", 3, 6, version=3, count=2, on=2, entered=3.1, left=5.9),
        ],
    ),
    "another saves while the lock is held": (
        "two holders",
        [CREATED, call("count", "a", 2, 5, version=3, count=1, on=1, entered=2.1, left=4.9)],
    ),
    "an older version is seen after a newer one": (
        "order",
        [
            CREATED,
            call("load", "a", 2, 3, version=5),
            call("load", "a", 4, 5, version=4),
        ],
    ),
    "a save makes the version it went out from": (
        "order",
        [CREATED, call("remove", "a", 2, 3, version=1)],
    ),
    "one version is two": (
        "torn",
        [
            CREATED,
            call("add", "a", 2, 6, version=3, keys=["k1"], key="k1"),
            call("load", "a", 3, 4, version=3),
        ],
    ),
    "a value is cut": (
        "torn",
        [
            CREATED,
            call("add", "a", 2, 3, version=2, keys=["k1"], key="k1", odd=["k1"]),
        ],
    ),
    "a call fails that has no reason to": (
        "torn",
        [CREATED, call("load", "a", 2, 3, told="failed: StoreUnavailable: no")],
    ),
    "a lock is waited for that nobody keeps": (
        "torn",
        [CREATED, call("add", "a", 2, 8, told="timeout", key="k1")],
    ),
    "a session was set aside": ("torn", [event("left", **LEFT | {"torn": ["aa.1"]})]),
    "the janitor complains": ("torn", [event("left", **LEFT | {"complaints": ["Traceback"]})]),
    "the janitor ends": ("torn", [event("janitor ended", code=1)]),
    "a worker breaks down": ("torn", [event("ended", worker=3, at=4, code=70)]),
    "a worker does not end": ("torn", [event("stuck", worker=3)]),
    "more temporary files than kills can leave": (
        "leaked",
        [event("left", **LEFT | {"temporary": 3})],
    ),
    "more files begun than kills can leave": ("leaked", [event("left", **LEFT | {"begun": 3})]),
    "more files set aside than kills can leave": (
        "leaked",
        [event("left", **LEFT | {"aside": 3})],
    ),
    "a sweep leaves what has expired": ("leaked", [event("left", **LEFT | {"whole": ["aa"]})]),
    "descriptors stay open": (
        "leaked",
        [event("descriptors", of="janitor", before=8, after=9)],
    ),
}
"""What must be found, and as what."""

LED_ON = call("load", "a", 3.5, 4, version=2, forwarded=True)

GRACE_FOUND: Final[dict[str, tuple[str, list[Lines]]]] = {
    "an old id leads on after its grace": (
        "revived",
        [CREATED, MOVED, call("load", "a", 6.5, 7, version=2, forwarded=True)],
    ),
    "an old id leads to a session that was deleted": (
        "revived",
        [CREATED, MOVED, call("delete", "b", 3.1, 3.2), LED_ON],
    ),
    "a session goes on that was deleted by its old id": (
        "revived",
        [CREATED, MOVED, call("delete", "a", 3.1, 3.2), call("load", "b", 3.5, 4, version=2)],
    ),
    "a save by the old id succeeds": (
        "revived",
        [CREATED, MOVED, call("remove", "a", 3.5, 4, version=3)],
    ),
    "an old id leads to a session that is older than when it moved": (
        "order",
        [CREATED, MOVED, call("load", "a", 3.5, 4, version=1, forwarded=True)],
    ),
    "an old id leads to another's session": (
        "foreign",
        [
            CREATED,
            MOVED,
            call("create", "z", 0, 1, version=1, life="Z"),
            call("load", "a", 3.5, 4, version=1, life="Z", forwarded=True),
        ],
    ),
    "an old id leads nowhere within its grace": (
        "vanished",
        [CREATED, MOVED, call("load", "a", 3.5, 4, told="gone")],
    ),
}
