"""Where the scheduler's verbs put what they are asked for: into the store (web, jobs)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection

from .records import JobSpec, ScheduleSpec
from .store import Store


class Outbox(Protocol):
    """Takes what one call asks for; all of it is kept, or nothing."""

    def now(self) -> datetime:
        """The clock that new schedules start from: the store's, where it can be reached."""

    def add(self, jobs: Sequence[JobSpec], schedules: Sequence[ScheduleSpec]) -> None:
        """Keep new jobs and schedules."""

    def cancel(self, id: str, queue: str | None) -> bool:
        """Cancel a job or end a schedule; tells whether that changed anything."""


class StoreOutbox:
    """Writes into the store, on the connection of the caller's transaction."""

    def __init__(self, store: Store, connection: Connection, queues: set[str]) -> None:
        self._store = store
        self._connection = connection
        self._queues = queues

    def now(self) -> datetime:
        return self._store.now(self._connection)

    def add(self, jobs: Sequence[JobSpec], schedules: Sequence[ScheduleSpec]) -> None:
        if jobs:
            self._store.jobs.add(self._connection, jobs)
            self._queues.update([job.queue for job in jobs])
        if schedules:
            self._store.schedules.add(self._connection, schedules)
            self._queues.update([schedule.job.queue for schedule in schedules])

    def cancel(self, id: str, queue: str | None) -> bool:
        return self._store.jobs.cancel(self._connection, id, queue) or self._store.schedules.cancel(
            self._connection, id, queue
        )
