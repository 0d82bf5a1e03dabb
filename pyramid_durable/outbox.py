"""Where the scheduler's verbs put what they are asked for: into the store (web, jobs, intake)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import Connection

from .changed import Changer
from .changes import (
    CANCEL,
    MODIFY,
    PAUSE,
    PAUSE_QUEUE,
    REMOVE,
    RESCHEDULE,
    RESUME,
    RESUME_QUEUE,
    RETRY,
    RUN,
    Change,
)
from .joining import News
from .records import JobSpec, ScheduleSpec
from .store import Store
from .store.waits import kept_together

HEAD_START: Final = 2.0
"""Seconds for which daemons leave a new inline job alone: for the rest of the caller's transaction
and its claim. It is due then for whoever finds it, should the caller not live to run it."""

WAKING: Final = (RESUME, RUN, RETRY, MODIFY, RESCHEDULE, RESUME_QUEUE)
"""Verbs after which something may be due earlier than the daemons think."""


class Outbox(Protocol):
    """Takes what one call asks for; all of it is kept, or nothing."""

    def now(self) -> datetime:
        """The clock that new schedules start from: the store's, where it can be reached."""

    def add(self, jobs: Sequence[JobSpec], schedules: Sequence[ScheduleSpec]) -> None:
        """Keep new jobs and schedules, for daemons."""

    def add_inline(self, jobs: Sequence[JobSpec]) -> None:
        """Keep new jobs that this process runs itself, when they are committed."""

    def change(self, change: Change) -> bool:
        """Change something that is stored; tells whether that made a difference."""


class StoreOutbox:
    """Writes into the store, on the connection of the caller's transaction.

    ``news`` is filled with what is to be told; ``changer`` knows what modifying means.
    ``gathers``: the transaction goes on after this call, and may bring more jobs.
    """

    def __init__(
        self,
        store: Store,
        connection: Connection,
        news: News,
        changer: Changer,
        *,
        gathers: bool = False,
    ) -> None:
        self._store = store
        self._connection = connection
        self._news = news
        self._changer = changer
        self._gathers = gathers

    def now(self) -> datetime:
        return self._store.now(self._connection)

    def add(self, jobs: Sequence[JobSpec], schedules: Sequence[ScheduleSpec]) -> None:
        if jobs and schedules:
            with kept_together(self._connection):
                self._store.schedules.check(self._connection, schedules)
                self._store.jobs.add(self._connection, jobs)
                self._store.schedules.add(self._connection, schedules)
        elif jobs and self._gathers:
            self._store.jobs.gather(self._connection, jobs)
        elif jobs:
            self._store.jobs.add(self._connection, jobs)
        elif schedules:
            self._store.schedules.add(self._connection, schedules)
        self._news.queues.update([job.queue for job in jobs])
        self._news.queues.update([schedule.job.queue for schedule in schedules])

    def add_inline(self, jobs: Sequence[JobSpec]) -> None:
        ids = [job.id for job in jobs]
        self._store.jobs.add(self._connection, jobs)
        self._store.jobs.hold(self._connection, ids, HEAD_START)
        self._news.add(News(inline=ids))

    def change(self, change: Change) -> bool:
        """Change the job of that id; the schedule, where there is no such job in any state.

        Raises what the verb does for a change that is not possible: InvalidJob, DuplicateJob,
        TypeError.
        """
        if change.verb in (PAUSE_QUEUE, RESUME_QUEUE):
            paused = change.verb == PAUSE_QUEUE
            turned = self._store.queues.set_paused(self._connection, change.id, paused)
            queue = change.id if turned else None
        elif change.verb == CANCEL:
            return self._cancel(change)
        else:
            queue = self._of_job(change)
            if queue is None and not self._store.jobs.exists(self._connection, change.id):
                queue = self._of_schedule(change)
        if queue is not None and change.verb in WAKING:
            self._news.queues.add(queue)
        return queue is not None

    def _cancel(self, change: Change) -> bool:
        about = (self._connection, change.id, change.queue)
        if self._store.jobs.cancel(*about):
            return True
        if self._store.jobs.exists(*about):
            return False
        return self._store.schedules.cancel(*about)

    def _of_job(self, change: Change) -> str | None:
        """Change a job; returns its queue, None where there was nothing to change."""
        jobs, changer, changes = self._store.job_changes, self._changer, change.changes
        about = (self._connection, change.id)
        if change.verb == MODIFY:
            return jobs.rewrite(
                *about, lambda job: changer.modified_job(job, changes, change.codec)
            )
        if change.verb == RESCHEDULE:
            return jobs.rewrite(*about, lambda job: changer.rescheduled_job(job, changes))
        verbs = {
            PAUSE: jobs.pause,
            RESUME: jobs.resume,
            RUN: jobs.run,
            RETRY: jobs.retry,
            REMOVE: jobs.remove,
        }
        return verbs[change.verb](*about)

    def _of_schedule(self, change: Change) -> str | None:
        """Change a schedule; returns its queue, None where there was nothing to change."""
        schedules, changer, changes = self._store.schedule_changes, self._changer, change.changes
        about = (self._connection, change.id)
        if change.verb == MODIFY:
            return schedules.rewrite(
                *about,
                lambda old, now: changer.modified_schedule(old, changes, change.codec, now),
            )
        if change.verb == RESCHEDULE:
            return schedules.rewrite(
                *about, lambda old, now: changer.rescheduled_schedule(old, changes, now)
            )
        verbs = {
            PAUSE: schedules.pause,
            RESUME: schedules.resume,
            RUN: schedules.run,
            REMOVE: schedules.remove,
        }
        verb = verbs.get(change.verb)
        return None if verb is None else verb(*about)
