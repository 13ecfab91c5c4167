"""What a janitor says of itself, as tests write it where one would."""

from __future__ import annotations

from typing import Final

from filesession.janitor.heartbeat import Heartbeat
from filesession.janitor.reading import Reading

READING: Final = Reading(
    directory="/sessions",
    leads=True,
    sessions=12,
    bytes=3400,
    created=20,
    expired=7,
    freed=1400,
    corrupt=1,
    failed=2,
    sweeps=30,
    sweep_seconds=0.75,
    lag=1.5,
    full_looks=3,
    overflows=4,
    held=None,
    dropped=5,
)
"""No figure is another's."""

BEAT: Final = Heartbeat(
    pid=4242,
    host="here",
    started_at=0.0,
    heartbeat_at=0.0,
    interval=60.0,
    cron=None,
    next_sweep_at=None,
    sweeping_since=None,
    looked=None,
    watch="events",
    last_sweep=None,
    last_error=None,
    reading=READING,
)
