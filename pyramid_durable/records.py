"""The values that travel between the floors (web and daemon): frozen, without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

SCHEDULED = "scheduled"
RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"
EXPIRED = "expired"
BROKEN = "broken"
STATES = (SCHEDULED, RUNNING, SUCCEEDED, FAILED, CANCELLED, EXPIRED, BROKEN)
ENDED = (SUCCEEDED, FAILED, CANCELLED, EXPIRED, BROKEN)

ASYNC = "async"
DATE = "date"
CRON = "cron"
INTERVAL = "interval"
KINDS = (ASYNC, DATE, CRON, INTERVAL)

PRIORITIES = range(10)

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})

HAS_CONTENT = "content_object"
"""In a job's options: true where the option was given, so that the object is its first argument
(after the one whose method it is)."""


class JobSpec(NamedTuple):
    """A job as it goes into the store: everything but its time is resolved and serialized.

    ``run_at`` is an aware datetime; where it is None the job is due ``delay`` seconds after the
    store's own clock at the insert. ``options`` holds JSON-ready values: ``backoff``, ``timeout``
    (s), ``executor``, ``expires`` (s after ``run_at``, or ISO text), ``misfire_grace_time`` (s),
    ``working_dir``, ``delete_after``, ``behavior``, HAS_CONTENT, and ``key``, which is the same for equal
    jobs, where the job may be compared with others. ``waiting_key`` is that key where it is unique.
    A tuple rather than one of the frozen dataclasses: one is made for every job.
    """

    id: str
    payload: str
    func: str
    queue: str
    codec: str = "json"
    name: str | None = None
    kind: str = ASYNC
    priority: int = 5
    max_attempts: int | None = 1
    group: str | None = None
    options: Mapping[str, Any] = NO_OPTIONS
    run_at: datetime | None = None
    delay: float = 0.0
    userdata: str | None = None
    schedule_id: str | None = None
    fire_at: datetime | None = None
    waiting_key: str | None = None
    chosen_id: bool = False
    replace_existing: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleSpec:
    """A schedule as it goes into the store. ``job`` is the pattern of the jobs it will make.

    ``trigger`` is the JSON-ready form of a trigger (see triggers.from_json), ``next_run_at`` its
    first fire time, None where it is declared and has ended. ``iterations`` is how many jobs it may
    still make, None without a limit. ``times`` says when it fires in the words of its declaration,
    which may be relative to a start; without it ``trigger`` says so. ``generation`` is that of the
    deployment that declared it.
    """

    id: str
    job: JobSpec
    kind: str
    trigger: Mapping[str, Any]
    next_run_at: datetime | None
    timezone: str
    start_date: datetime | None = None
    end_date: datetime | None = None
    iterations: int | None = None
    coalesce: bool = True
    max_instances: int | None = 1
    declared: bool = False
    generation: int = 0
    times: str | None = None
    chosen_id: bool = False
    replace_existing: bool = False


class Claim(NamedTuple):
    """A job that this daemon owns until its lease ends: what to run, and the fence of its writes.

    ``attempt`` counts the attempts before this one. ``claimed_at`` is the database's clock at the
    claim, asked then or shortly before and carried on. ``started``: the store knows it as started,
    so that its daemon's death counts as its crash. ``errors`` and ``userdata`` are the stored JSON
    texts. A tuple rather than one of the frozen dataclasses: one is made for every job that runs,
    straight from its row.
    """

    id: str
    claim_no: int
    func: str
    payload: str
    codec: str
    name: str | None
    kind: str
    run_at: datetime
    attempt: int
    max_attempts: int | None
    crashes: int
    group: str | None
    schedule_id: str | None
    fire_at: datetime | None
    userdata: str | None
    errors: str | None
    options: Mapping[str, Any]
    # The order counts: store.claims asks for no column of what follows, since it is the same in all
    # that one statement claims of a queue and priority.
    queue: str
    priority: int
    owner: str
    claimed_at: datetime
    started: bool


class Completion(NamedTuple):
    """How an attempt ended, as it goes into the store under the claim's fence.

    ``state`` is an ended state, or ``scheduled`` for another attempt: then at ``due_at``, or
    ``delay`` seconds after the database's clock. ``attempt`` is the number of attempts used up.
    ``delete`` removes the row instead (``delete_after``). ``carry_to`` is the schedule whose next run
    gets the userdata, where this attempt has changed it. ``once_key`` is the key under which a success
    is kept for good (``RUN_ONCE``). A tuple, as a Claim is: every job that runs has one.
    """

    id: str
    owner: str
    claim_no: int
    state: str
    attempt: int
    started_at: datetime | None
    due_at: datetime | None = None
    delay: float | None = None
    max_attempts: int | None = None
    result: str | None = None
    errors: str | None = None
    userdata: str | None = None
    carry_to: str | None = None
    delete: bool = False
    once_key: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a running job says it is."""

    done: float
    total: float | None
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredJob:
    """A job's row as the store gives it out: texts still serialized, times aware."""

    id: str
    name: str | None
    func: str
    payload: str
    codec: str
    queue: str
    priority: int
    kind: str
    state: str
    run_at: datetime
    due_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    max_attempts: int | None
    claim_no: int
    crashes: int
    owner: str | None
    daemon: str | None
    group: str | None
    schedule_id: str | None
    fire_at: datetime | None
    options: Mapping[str, Any]
    result: str | None
    errors: str | None
    userdata: str | None
    progress: Progress | None
    cancel_requested: bool
    paused: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSchedule:
    """A schedule's row as the store gives it out. ``job`` is the pattern of its jobs."""

    id: str
    kind: str
    job: JobSpec
    trigger: Mapping[str, Any]
    timezone: str
    next_run_at: datetime | None
    last_run_at: datetime | None
    paused: bool
    iterations_left: int | None
    start_date: datetime | None
    end_date: datetime | None
    coalesce: bool
    max_instances: int | None
    declared: bool
    generation: int


@dataclass(frozen=True, kw_only=True)
class JobInfo:
    """A job as people see it: a snapshot of its row at the moment of the question."""

    id: str
    name: str
    func: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    queue: str
    priority: int
    state: str
    kind: str
    run_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    max_attempts: int | None
    error: str | None
    errors: tuple[str, ...]
    result: Any
    userdata: Mapping[str, Any]
    progress: Progress | None
    group: str | None
    schedule_id: str | None
    expires_at: datetime | None
    daemon: str | None
    paused: bool = False


@dataclass(frozen=True, kw_only=True)
class ScheduleInfo:
    """A schedule as people see it: a snapshot of its row at the moment of the question."""

    id: str
    name: str
    func: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    queue: str
    trigger: Mapping[str, Any]
    timezone: str
    next_run_at: datetime | None
    last_run_at: datetime | None
    paused: bool
    iterations_left: int | None
    start_date: datetime | None
    end_date: datetime | None


@dataclass(frozen=True, kw_only=True)
class QueueStats:
    """How one queue is doing. ``jobs`` has the number of jobs in each state that occurs.

    ``oldest_due`` is for how many seconds the job that has waited longest has been due, by the
    store's clock; None where none is due. ``daemons`` is the number of living ones that serve it.
    """

    name: str
    paused: bool
    jobs: Mapping[str, int]
    oldest_due: float | None
    daemons: int


@dataclass(frozen=True, kw_only=True)
class Stats:
    """How the scheduler is doing, queue by queue; ``daemons`` is the number of living ones."""

    queues: Mapping[str, QueueStats]
    daemons: int
