"""The look before a claim: which queues have work, seen without a lock (daemon)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, or_, select

from ..records import PRIORITIES
from .database import Database
from .queues import is_active
from .types import UtcDateTime

Due = tuple[str, int]
"""A queue and a priority that have work."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the store holds for a daemon at this moment, seen without a lock.

    ``due`` is in the order to claim in: by priority, then by the time of the job that waits
    longest, which ``since`` gives. ``next_at`` is the earliest time that is not due yet, None when
    nothing waits. ``now`` is what counts as now for that: the database's ``clock``, unless another
    time took its place. ``answered`` is when its answer came, by this process's monotonic clock.
    """

    now: datetime
    clock: datetime
    answered: float
    queues: tuple[str, ...]
    due: tuple[Due, ...]
    since: Mapping[Due, datetime]
    next_at: datetime | None
    schedules_due: bool

    @property
    def is_real(self) -> bool:
        """Whether the clock counts, and no time that took its place."""
        return self.now is self.clock

    @property
    def idle(self) -> bool:
        """Whether there is nothing to claim."""
        return not self.due and not self.schedules_due

    def clock_at(self, moment: float) -> datetime:
        """The database's clock at a later moment of the monotonic one, without asking again.

        It is behind by as long as the answer took: a claim then seems a little earlier than it was,
        never later than what follows from it.
        """
        return self.clock + timedelta(seconds=moment - self.answered)


class Looks:
    """Seeing what is due."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._job = database.tables.job
        self._questions: dict[tuple[str, ...], Select[Any]] = {}
        c = self._job.c
        since, now = (bindparam(name, type_=UtcDateTime) for name in ("since", "now"))
        due = (
            select(c.due_at)
            .where(c.queue == bindparam("queue"), c.priority == bindparam("priority"))
            .where(c.due_at.between(since, now))
            .limit(bindparam("most"))
        )
        self._number = select(func.count()).select_from(due.subquery())

    def look(
        self, connection: Connection, queues: Sequence[str], *, now: datetime | None = None
    ) -> Look:
        """See what is due on these queues; one statement, whose cost is a few index probes.

        ``now`` takes the database's clock's place for what is due.

        One index over (queue, priority, due_at) answers for each queue and priority apart; a
        single range over priority and time would walk all jobs of the future.
        """
        names = tuple(queues)
        question = self._questions.get(names)
        if question is None:
            question = self._questions[names] = self._question(names)
        row = tuple(connection.execute(question).one())
        answered = time.monotonic()
        clock, schedule_at = row[:2]
        now = now or clock
        pairs: list[tuple[int, datetime, str]] = []
        waiting: list[datetime] = []
        width = 1 + len(PRIORITIES)
        for index, queue in enumerate(names):
            paused, *times = row[2 + index * width : 2 + (index + 1) * width]
            if paused:
                continue
            for priority, at in zip(PRIORITIES, times, strict=True):
                if at is not None and at <= now:
                    pairs.append((priority, at, queue))
                elif at is not None:
                    waiting.append(at)
        schedules_due = schedule_at is not None and schedule_at <= now
        if schedule_at is not None and not schedules_due:
            waiting.append(schedule_at)
        return Look(
            now=now,
            clock=clock,
            answered=answered,
            queues=names,
            due=tuple((queue, priority) for priority, _, queue in sorted(pairs)),
            since={(queue, priority): at for priority, at, queue in pairs},
            next_at=min(waiting, default=None),
            schedules_due=schedules_due,
        )

    def number_due(self, connection: Connection, look: Look, most: int) -> int:
        """Count what a look has seen to be due, up to ``most``."""
        number = 0
        for queue, priority in look.due:
            if number >= most:
                break
            lane = {"queue": queue, "priority": priority, "since": look.since[queue, priority]}
            asked = {**lane, "now": look.now, "most": most - number}
            number += connection.execute(self._number, asked).scalar_one()
        return number

    def _question(self, queues: tuple[str, ...]) -> Select[Any]:
        job, queue, schedule = self._job.c, self._db.tables.queue.c, self._db.tables.schedule.c
        columns: list[Any] = [
            self._db.dialect.now().label("now"),
            select(func.min(schedule.due_at))
            # Not as IN, whose list would be written into the statement anew each time.
            .where(or_(*(schedule.queue == name for name in queues)), schedule.due_at.is_not(None))
            .where(is_active(self._db.tables, schedule.queue))
            .scalar_subquery(),
        ]
        for name in queues:
            columns.append(select(queue.paused).where(queue.name == name).scalar_subquery())
            columns.extend(
                select(job.due_at)
                .where(job.queue == name, job.priority == priority, job.due_at.is_not(None))
                .order_by(job.due_at)
                .limit(1)
                .scalar_subquery()
                for priority in PRIORITIES
            )
        return select(*columns)
