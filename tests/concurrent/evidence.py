"""What is read after a run, for the checker to judge: values, and nothing of how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .book import Entry


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job's row. Times are seconds since 1970; ``passed`` is what an account's row accounts for."""

    id: str
    key: str
    state: str
    attempt: int = 1
    crashes: int = 0
    error: str = ""
    schedule: str | None = None
    fire_at: float | None = None
    created_at: float = 0.0
    finished_at: float | None = None
    passed: tuple[int, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule's row. ``next_at`` is the first fire time that is still to come."""

    id: str
    period: float
    created_at: float
    next_at: float
    alone: bool = True


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A claim whose daemon was lost, and when it was free for others.

    ``back_at``: the daemon was back by then, and what it still had was its own again.
    """

    job: str
    claim_no: int
    daemon: str
    lost_at: float
    freed_at: float | None = None
    back_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Fault:
    kind: str
    target: str
    at: float
    until: float | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The promises. ``margin`` (s) is for what a busy machine adds to lease and heartbeat.

    ``accounts``: times at which a schedule did not fire have to be accounted for.
    """

    lease: float
    heartbeat: float
    poison_limit: int
    margin: float
    accounts: bool = True

    @property
    def rescue(self) -> float:
        return self.lease + self.heartbeat + self.margin


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that was read after a run.

    ``effects`` and ``outside`` are job ids, one for each thing done, ``starts`` one for each time
    that a job's own code was reached; ``asked`` maps the keys that
    requests wrote beside their jobs to the jobs' ids. In a span of ``dark`` no daemon could have
    rescued anything: the store was away, or no daemon was up. ``left`` names jobs that had not ended
    long after the last fault, while all daemons were up. ``exits`` names processes that ended
    though nobody ended them.
    """

    jobs: tuple[Job, ...]
    effects: tuple[str, ...]
    outside: tuple[str, ...]
    starts: tuple[str, ...]
    entries: tuple[Entry, ...]
    asked: Mapping[str, str]
    schedules: tuple[Schedule, ...]
    losses: tuple[Loss, ...]
    faults: tuple[Fault, ...]
    limits: Limits
    dark: tuple[tuple[float, float], ...] = ()
    left: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()
    read_at: float = 0.0
