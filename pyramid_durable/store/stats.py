"""Figures about the queues, told by the indexes rather than by walks over the rows (web)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, literal, select, union_all

from ..records import PRIORITIES, RUNNING, SCHEDULED
from .database import Database


class Stats:
    """Counts and ages. What they cost grows with the number of entries in an index at most."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._job = database.tables.job

    def counts(self, connection: Connection) -> dict[str, dict[str, int]]:
        """Return the number of jobs, by queue and state; a state without jobs is left out."""
        counts: dict[str, dict[str, int]] = {}
        for queue, state, number in connection.execute(self._counting()):
            states = counts.setdefault(queue, {})
            states[state] = states.get(state, 0) + number
        return counts

    def _counting(self) -> Any:
        """One question, so that a job which is just changing its state is counted once."""
        c, pause = self._job.c, self._db.tables.pause.c
        if not self._db.dialect.partial_indexes:
            # The index of the ended ones has all jobs here, and all columns that are asked for.
            return select(c.queue, c.state, func.count()).group_by(c.queue, c.state)
        paused = (c.state == SCHEDULED) & c.due_at.is_(None)
        return union_all(
            self._count(c.due_at.is_not(None), SCHEDULED),
            self._count(paused & c.id.in_(select(pause.job_id)), SCHEDULED),
            self._count(c.owner.is_not(None), RUNNING),
            select(c.queue, c.state, func.count())
            .where(c.finished_at.is_not(None))
            .group_by(c.queue, c.state),
        )

    def _count(self, which: Any, state: str) -> Select[Any]:
        c = self._job.c
        return select(c.queue, literal(state), func.count()).where(which).group_by(c.queue)

    def oldest_due(
        self, connection: Connection, queues: Sequence[str]
    ) -> dict[str, tuple[datetime, datetime | None]]:
        """Return, for each queue, the database's clock and the earliest time a job is due."""
        c = self._job.c
        columns: list[Any] = [self._db.dialect.now()]
        # A probe for each priority: a range over all of them would walk all waiting jobs.
        columns += [
            select(func.min(c.due_at))
            .where(c.queue == queue, c.priority == priority, c.due_at.is_not(None))
            .scalar_subquery()
            for queue in queues
            for priority in PRIORITIES
        ]
        now, *times = connection.execute(select(*columns)).one()
        width = len(PRIORITIES)
        return {
            queue: (
                now,
                min(filter(None, times[index * width : (index + 1) * width]), default=None),
            )
            for index, queue in enumerate(queues)
        }
