"""What a janitor can tell of one directory in figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One directory's figures at one moment. What is counted is counted since the janitor started.

    Attributes:
        directory: its path; None: a store without one.
        leads: whether the janitor works there. One that stands by knows nothing else for certain.
        sessions: how many are known now; None: not yet.
        bytes: about what they take in the store; None: not known.
        created: new sessions that were noticed.
        expired: sessions deleted because they were due.
        freed: bytes of those.
        corrupt: files that held no session and were set aside.
        failed: attempts at a session that could not be read, deleted or set aside.
        sweeps: how many came to their end.
        sweep_seconds: how long they took, all together.
        lag: seconds by which the longest overdue session was late of those that the last sweep
            deleted, or is late of those that are held back; 0.0: there was none.
        full_looks: how often all sessions were looked at, whether due or not.
        overflows: how often events of new sessions were lost.
        held: why it deletes nothing at the moment; None: it does.
        dropped: expired sessions of which the hook was not told, because it was too slow.
    """

    directory: str | None
    leads: bool
    sessions: int | None
    bytes: int | None
    created: int
    expired: int
    freed: int
    corrupt: int
    failed: int
    sweeps: int
    sweep_seconds: float
    lag: float
    full_looks: int
    overflows: int
    held: str | None
    dropped: int
