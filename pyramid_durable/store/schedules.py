"""Verbs about schedules: add, look up, cancel, and fire (web and daemon)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, or_, select, update

from ..behaviors import compares
from ..exceptions import DuplicateJob, StoreBusy
from ..policies import REFUSED, FirePlan, Passed, plan_fires
from ..records import JobSpec, ScheduleSpec, StoredSchedule
from ..times import new_id
from ..triggers import from_json
from .accounts import Accounts
from .database import Database
from .jobs import Jobs
from .queues import is_active
from .rows import schedule_values, to_stored_schedule
from .waits import KEY_WAIT, waiting_for

log = logging.getLogger(__name__)

FIRE_BATCH = 100
"""Schedules that one claim fires; more would hold their rows long while others wait."""

FIRE_WAIT = 0.2
"""Seconds that a claim waits for a transaction that is adding a job equal to a schedule's. Longer
ones would hold up all other jobs; and an equal job is on its way."""


class Schedules:
    """The schedule table."""

    def __init__(self, database: Database, jobs: Jobs) -> None:
        self._db = database
        self._jobs = jobs
        self._accounts = Accounts(database)
        self._table = database.tables.schedule
        now = database.dialect.now()
        fresh = {"paused": False, "created_at": now}
        self._insert = database.dialect.insert(self._table).values(fresh)

    def add(self, connection: Connection, specs: Sequence[ScheduleSpec]) -> None:
        """Add schedules.

        Raises DuplicateJob when an id exists and is not to be replaced; then none was added.
        StoreBusy where another transaction is adding it, and does not end soon.
        """
        bound = [spec.id for spec in specs if spec.chosen_id or spec.replace_existing]
        if not bound:
            self._add(connection, specs)
            return
        with waiting_for(connection, bound, KEY_WAIT):
            self._add(connection, specs)

    def check(self, connection: Connection, specs: Sequence[ScheduleSpec]) -> None:
        """Raise DuplicateJob where an id is taken, and not to be replaced; nothing is written."""
        c = self._table.c
        ids = [spec.id for spec in specs if spec.chosen_id]
        taken: set[str] = set()
        if ids:
            taken.update(connection.execute(select(c.id).where(c.id.in_(ids))).scalars())
        for spec in specs:
            if spec.id in taken and not spec.replace_existing:
                raise _taken(spec.id)
            taken.add(spec.id)

    def _add(self, connection: Connection, specs: Sequence[ScheduleSpec]) -> None:
        if self._db.dialect.asks_first:
            # SQLite would not give back what was replaced before the one that is refused.
            self.check(connection, specs)
        added: list[str] = []
        for spec in specs:
            if spec.replace_existing:
                self._delete(connection, [spec.id])
            if self._db.dialect.inserts(connection, self._insert, schedule_values(spec)):
                added.append(spec.id)
                continue
            self._delete(connection, added)
            raise _taken(spec.id)

    def _delete(self, connection: Connection, ids: Collection[str]) -> int:
        if not ids:
            return 0
        return connection.execute(delete(self._table).where(self._table.c.id.in_(ids))).rowcount

    def get(self, connection: Connection, id: str) -> StoredSchedule | None:
        """Return the schedule, or None when there is none by that id."""
        question = select(self._table).where(self._table.c.id == id)
        row = connection.execute(question).one_or_none()
        return None if row is None else to_stored_schedule(row)

    def list(
        self,
        connection: Connection,
        *,
        queue: str | None = None,
        func: str | None = None,
        group: str | None = None,
        paused: bool | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[StoredSchedule]:
        """Return the schedules that match, by id."""
        c = self._table.c
        question = select(self._table).order_by(c.id).offset(offset).limit(limit)
        if offset and limit is None:
            question = question.limit(2**31)
        for column, value in ((c.queue, queue), (c.func, func), (c.group_name, group)):
            if value is not None:
                question = question.where(column == value)
        if paused is not None:
            question = question.where(c.paused.is_(paused))
        return [to_stored_schedule(row) for row in connection.execute(question)]

    def cancel(self, connection: Connection, id: str, queue: str | None = None) -> bool:
        """End a schedule: it makes no more jobs. False where it had ended, or there is none."""
        c = self._table.c
        here = [c.id == id] if queue is None else [c.id == id, c.queue == queue]
        alive = or_(c.due_at.is_not(None), c.next_run_at.is_not(None))
        over = {"due_at": None, "next_run_at": None, "paused": False}
        ended = update(self._table).where(*here, alive).values(over)
        return connection.execute(ended).rowcount == 1

    def fire(
        self, connection: Connection, queues: Sequence[str], *, now: datetime
    ) -> set[tuple[str, int]]:
        """Let schedules that are due ``now`` make their jobs and advance; returns where jobs were born.

        Those of a paused queue wait, as if no daemon ran. A schedule that cannot be read is set aside
        with its error; the others go on.
        """
        c = self._table.c
        question = (
            select(self._table)
            .where(c.due_at <= now, c.queue.in_(list(queues)))
            .where(is_active(self._db.tables, c.queue))
            .order_by(c.due_at)
            .limit(FIRE_BATCH)
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(question).all()
        alive = self._alive(connection, [row.id for row in rows])
        jobs: list[JobSpec] = []
        where: set[tuple[str, int]] = set()
        for row in rows:
            try:
                schedule = to_stored_schedule(row)
                plan = self._plan(schedule, row.due_at, now, alive.get(row.id, 0))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the rest fires
                self._set_aside(connection, row, error)
                continue
            pattern = schedule.job
            born: Sequence[JobSpec] = [
                pattern._replace(id=new_id(), run_at=at, fire_at=at) for at in plan.fires
            ]
            if compares(pattern.options):
                plan, born = self._bear(connection, born, plan)
            else:
                jobs += born
            where.update((job.queue, job.priority) for job in born)
            account = self._accounts.keep(connection, pattern, row.account_id, plan)
            self._advance(connection, row, plan, account)
        # One that exists already is passed over: a schedule makes one job for one time.
        self._jobs.add_new(connection, jobs)
        return where

    def _bear(
        self, connection: Connection, jobs: Sequence[JobSpec], plan: FirePlan
    ) -> tuple[FirePlan, Sequence[JobSpec]]:
        """Add jobs that their behavior may refuse, and account for those it does."""
        born: list[JobSpec] = []
        passed = list(plan.passed)
        for job in jobs:
            try:
                self._jobs.add(connection, [job], wait=FIRE_WAIT)
                born.append(job)
            except (DuplicateJob, StoreBusy):
                assert job.fire_at is not None
                at = job.fire_at
                passed.append(Passed(reason=REFUSED, number=1, first=at, last=at))
        fires = tuple(job.fire_at for job in born if job.fire_at is not None)
        return replace(plan, fires=fires, passed=tuple(passed)), born

    def _plan(
        self, schedule: StoredSchedule, due_at: datetime, now: datetime, alive: int
    ) -> FirePlan:
        return plan_fires(
            from_json(schedule.trigger),
            next_run_at=due_at,
            now=now,
            coalesce=schedule.coalesce,
            max_instances=schedule.max_instances,
            alive=alive,
            iterations_left=schedule.iterations_left,
            end_date=schedule.end_date,
        )

    def _alive(self, connection: Connection, ids: Sequence[str]) -> Mapping[str, int]:
        if not ids:
            return {}
        key = self._db.tables.job.c.overlap_key
        question = select(key, func.count()).where(key.in_(ids)).group_by(key)
        return {row[0]: row[1] for row in connection.execute(question)}

    def _advance(
        self, connection: Connection, row: Row[Any], plan: FirePlan, account: str | None
    ) -> None:
        changes: dict[str, Any] = {
            "account_id": account,
            "next_run_at": plan.next_at,
            "due_at": plan.next_at,
            "iterations_left": plan.iterations_left,
        }
        if plan.fires:
            changes["last_run_at"] = plan.fires[-1]
        statement = update(self._table).where(self._table.c.id == row.id).values(changes)
        connection.execute(statement)

    def _set_aside(self, connection: Connection, row: Row[Any], error: Exception) -> None:
        log.error(
            "schedule %s cannot be read and is set aside: %s",
            row.id,
            error,
            extra={"action": "schedule_broken", "schedule": row.id},
        )
        values = {"due_at": None, "error": f"{type(error).__name__}: {error}"}
        connection.execute(update(self._table).where(self._table.c.id == row.id).values(values))


def _taken(id: str) -> DuplicateJob:
    return DuplicateJob(
        f"a schedule with the id {id!r} exists already; choose another id, "
        "or pass replace_existing=True",
        id,
    )
