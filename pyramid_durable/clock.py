"""The daemon's APScheduler instance: the stock one, made fit for runs that pass through (daemon)."""

from __future__ import annotations

import logging
from copy import copy
from datetime import tzinfo

from apscheduler.events import EVENT_JOB_REMOVED, JobEvent, SchedulerEvent
from apscheduler.schedulers.background import BackgroundScheduler

from .executors import DurableThreadExecutor
from .jobstore import DurableJobStore
from .runs import Runs

log = logging.getLogger(__name__)


class DurableScheduler(BackgroundScheduler):
    """A BackgroundScheduler over the durable job store.

    Runs leave the job store as they are handed on. The stock ``remove_job`` takes a lock and writes
    a line at level INFO, and raises out of the loop's thread when the scheduler is being stopped
    meanwhile. What it says of a handful of runs, its listeners hear of each.
    """

    def __init__(
        self,
        jobstore: DurableJobStore,
        executor: DurableThreadExecutor,
        *,
        timezone: tzinfo,
        poll_interval: float,
    ) -> None:
        self._poll_interval = poll_interval
        super().__init__(
            jobstores={"default": jobstore},
            executors={"default": executor},
            jobstore_retry_interval=poll_interval,
            timezone=timezone,
            logger=log,
            daemon=True,
        )

    def remove_job(self, job_id: str | Runs, jobstore: str | None = None) -> None:
        """Let go of runs that were handed on; anything else is the stock method's."""
        if not isinstance(job_id, Runs):
            super().remove_job(job_id, jobstore)
        else:
            self._dispatch_event(JobEvent(EVENT_JOB_REMOVED, job_id, "default"))

    def _process_jobs(self) -> float | None:
        """The seconds to wait for the next round: never longer than between two polls.

        The stock loop subtracts one look at the wall clock from another. A clock that is set back
        between the two would have it sleep for as long as the clock was set back.
        """
        seconds: float | None = super()._process_jobs()
        return None if seconds is None else min(seconds, self._poll_interval)

    def _dispatch_event(self, event: SchedulerEvent) -> None:
        runs = getattr(event, "job_id", None)
        if not isinstance(runs, Runs):
            super()._dispatch_event(event)
        elif any(mask & event.code for _, mask in self._listeners):
            for run in runs:
                one = copy(event)
                one.job_id = run.id
                super()._dispatch_event(one)
