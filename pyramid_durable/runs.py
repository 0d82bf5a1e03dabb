"""Jobs as APScheduler sees them: claimed ones that it hands out, stored ones to look at (daemon)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from apscheduler.job import Job
from apscheduler.triggers.base import BaseTrigger

from .records import Claim, StoredJob, StoredSchedule
from .triggers import Trigger, describe, from_json


class Once(BaseTrigger):
    """Fires at one time and never again. A run's recurrence is the store's business."""

    def __init__(self, at: datetime | None = None) -> None:
        self.at = at

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        return self.at if previous is None else None

    def __str__(self) -> str:
        return "once" if self.at is None else f"date[{self.at.isoformat(' ', 'seconds')}]"


class Recurring(BaseTrigger):
    """The trigger of a stored schedule."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        return self.trigger.next_after(previous or now)

    def __str__(self) -> str:
        return describe(self.trigger)


def _by_the_runner(*args: Any, **kwargs: Any) -> None:
    """Stand in for the function of a job: only the runner knows how to call it."""
    raise RuntimeError(
        "a stored job is not called through APScheduler; use registry.scheduler.run_job(id)"
    )


class Run(NamedTuple):
    """One claimed job on its way to a thread, since ``taken_at`` by the monotonic clock.

    ``due_at`` is what APScheduler asked for. A tuple: one is made for every job.
    """

    claim: Claim
    due_at: datetime
    taken_at: float

    def __repr__(self) -> str:
        # Not the claim, which has the job's arguments.
        return f"<Run {self.id}>"

    @property
    def id(self) -> str:
        """Its name to APScheduler's listeners: a job may run more than once."""
        return f"{self.claim.id}#{self.claim.claim_no}"


class Runs(tuple[Run, ...]):
    """The runs of one claim. They are also the id by which APScheduler speaks of them, so that what
    it says of all can be told of each, to those who listen."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} runs>"


class Handful(Job):
    """What one claim has brought, as one job on its way through APScheduler to the executor.

    APScheduler handles a job with a lock, three lookups and an event, which is a tenth of what an
    empty one takes; so it has them by the handful. It is due at the very ``now`` it was asked for:
    the database's clock, which decided that it is due, may lead this machine's. What is the same in
    all stands on the class and hides the slots below it; ``Job``'s own constructor inspects the
    function's signature.
    """

    __slots__ = ("id", "name", "next_run_time")

    id: Runs

    trigger: Final = Once()
    coalesce: Final = True
    max_instances: Final = 1
    misfire_grace_time: Final = None
    executor: Final = "default"
    func: Final = staticmethod(_by_the_runner)
    func_ref: Final = "pyramid_durable.runs:_by_the_runner"
    args: Final = ()
    kwargs: Final[dict[str, Any]] = {}
    _scheduler: Final = None
    _jobstore_alias: Final = "default"

    def __init__(self, runs: Runs, now: datetime) -> None:
        self.id = runs
        self.name = f"{len(runs)} claimed"
        self.next_run_time = now

    def _get_run_times(self, now: datetime) -> list[datetime]:
        return [self.next_run_time]


class View(Job):
    """A stored job or schedule, to be read: whatever changes it goes to the store and is refused."""

    def __init__(
        self, scheduler: Any, alias: str, id: str, name: str, trigger: BaseTrigger
    ) -> None:
        self._scheduler = scheduler
        self._jobstore_alias = alias
        self.id = id
        self.name = name
        self.trigger = trigger
        self.func = _by_the_runner
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.coalesce = True
        self.max_instances: int | None = 1
        self.misfire_grace_time = None
        self.executor = "default"


def view_of_job(job: StoredJob, scheduler: Any, alias: str) -> View:
    """Show a stored job; it has a next run time while it waits."""
    view = View(scheduler, alias, job.id, job.name or job.func, Once(job.run_at))
    view.func_ref = job.func
    view.next_run_time = job.due_at
    return view


def view_of_schedule(schedule: StoredSchedule, scheduler: Any, alias: str) -> View:
    """Show a stored schedule; it has no next run time while it is paused, or when it has ended."""
    trigger = Recurring(from_json(schedule.trigger))
    view = View(scheduler, alias, schedule.id, schedule.job.name or schedule.job.func, trigger)
    view.func_ref = schedule.job.func
    view.coalesce = schedule.coalesce
    view.max_instances = schedule.max_instances
    view.next_run_time = None if schedule.paused else schedule.next_run_at
    return view
