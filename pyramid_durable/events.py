"""What a daemon tells subscribers and listeners (daemon).

For each job in this order: JobCreated; for each attempt JobStarted and one of JobRetrying,
JobSucceeded, JobFailed, JobCancelled; or JobExpired or JobBroken instead of a start; at last
JobRemoved. The order is as one process sees it; a rescue shows as JobRetrying.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol


class Described(Protocol):
    """What describes a job: any of the records that do."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def func(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def max_attempts(self) -> int | None: ...
    @property
    def group(self) -> str | None: ...
    @property
    def schedule_id(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EventJob:
    """The job an event is about.

    ``attempt`` is the number of the attempt the event belongs to, from 1; 0 before the first.
    """

    id: str
    name: str
    func: str
    queue: str
    kind: str
    attempt: int = 0
    max_attempts: int | None = 1
    group: str | None = None
    schedule_id: str | None = None


def event_job(job: Described, *, attempt: int = 0) -> EventJob:
    """The job of an event, from any of the records that describe it."""
    return EventJob(
        id=job.id,
        name=job.name or job.func,
        func=job.func,
        queue=job.queue,
        kind=job.kind,
        attempt=attempt,
        max_attempts=job.max_attempts,
        group=job.group,
        schedule_id=job.schedule_id,
    )


@dataclass(frozen=True, kw_only=True)
class DurableEvent:
    """Base of all events: subscribe to it to hear everything."""


@dataclass(frozen=True, kw_only=True)
class JobEvent(DurableEvent):
    """Base of the events about a job."""

    job: EventJob


@dataclass(frozen=True, kw_only=True)
class JobCreated(JobEvent):
    """A job is in the store, and a daemon has claimed it for the first time."""


@dataclass(frozen=True, kw_only=True)
class JobStarted(JobEvent):
    """An attempt begins: the job's own code comes next."""


@dataclass(frozen=True, kw_only=True)
class JobRetrying(JobEvent):
    """An attempt has failed, or its daemon was lost, and another one follows.

    It is due ``delay`` seconds from now, or at ``due_at``. ``reason`` says why in a line,
    ``error`` is the traceback's text where there is one.
    """

    reason: str
    error: str | None = None
    delay: float | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class JobSucceeded(JobEvent):
    """An attempt has returned ``result``, and is committed."""

    result: Any = None


@dataclass(frozen=True, kw_only=True)
class JobFailed(JobEvent):
    """The last attempt has failed. ``error`` is the traceback's text."""

    error: str
    exception: BaseException | None = None


@dataclass(frozen=True, kw_only=True)
class JobCancelled(JobEvent):
    """The job was cancelled, by itself or by somebody else."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class JobExpired(JobEvent):
    """The job was too late to run."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class JobBroken(JobEvent):
    """The job could not even be called; it is kept, and ``retry_job`` runs it after a fix."""

    error: str


@dataclass(frozen=True, kw_only=True)
class JobRemoved(JobEvent):
    """The job's row is gone from the store."""


@dataclass(frozen=True, kw_only=True)
class DaemonEvent(DurableEvent):
    """Base of the events about a daemon. ``daemon`` is its name, as JobInfo shows it."""

    daemon: str
    queues: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DaemonStarted(DaemonEvent):
    """The daemon of this process begins to take jobs."""


@dataclass(frozen=True, kw_only=True)
class DaemonStopping(DaemonEvent):
    """The daemon of this process takes no more jobs; those that run may finish."""


@dataclass(frozen=True, kw_only=True)
class MessageReceived(DurableEvent):
    """Somebody has sent ``text`` to the daemons of ``queue``."""

    text: str
    queue: str


EVENTS: Final[tuple[type[DurableEvent], ...]] = (
    JobCreated,
    JobStarted,
    JobRetrying,
    JobSucceeded,
    JobFailed,
    JobCancelled,
    JobExpired,
    JobBroken,
    JobRemoved,
    DaemonStarted,
    DaemonStopping,
    MessageReceived,
)
"""All that are sent, in the order in which a job meets them."""
