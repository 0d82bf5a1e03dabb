"""Where the scheduler's verbs put what they are asked for: into the store (web, jobs)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import Connection

from .joining import News
from .records import JobSpec, ScheduleSpec
from .store import Store

HEAD_START: Final = 2.0
"""Seconds for which daemons leave a new inline job alone: for the rest of the caller's transaction
and its claim. It is due then for whoever finds it, should the caller not live to run it."""


class Outbox(Protocol):
    """Takes what one call asks for; all of it is kept, or nothing."""

    def now(self) -> datetime:
        """The clock that new schedules start from: the store's, where it can be reached."""

    def add(self, jobs: Sequence[JobSpec], schedules: Sequence[ScheduleSpec]) -> None:
        """Keep new jobs and schedules, for daemons."""

    def add_inline(self, jobs: Sequence[JobSpec]) -> None:
        """Keep new jobs that this process runs itself, when they are committed."""

    def cancel(self, id: str, queue: str | None) -> bool:
        """Cancel a job or end a schedule; tells whether that changed anything."""


class StoreOutbox:
    """Writes into the store, on the connection of the caller's transaction."""

    def __init__(self, store: Store, connection: Connection, news: News) -> None:
        self._store = store
        self._connection = connection
        self._news = news

    def now(self) -> datetime:
        return self._store.now(self._connection)

    def add(self, jobs: Sequence[JobSpec], schedules: Sequence[ScheduleSpec]) -> None:
        if jobs:
            self._store.jobs.add(self._connection, jobs)
            self._news.queues.update([job.queue for job in jobs])
        if schedules:
            self._store.schedules.add(self._connection, schedules)
            self._news.queues.update([schedule.job.queue for schedule in schedules])

    def add_inline(self, jobs: Sequence[JobSpec]) -> None:
        ids = [job.id for job in jobs]
        self._store.jobs.add(self._connection, jobs)
        self._store.jobs.hold(self._connection, ids, HEAD_START)
        self._news.add(News(inline=ids))

    def cancel(self, id: str, queue: str | None) -> bool:
        return self._store.jobs.cancel(self._connection, id, queue) or self._store.schedules.cancel(
            self._connection, id, queue
        )
