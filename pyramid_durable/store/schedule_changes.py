"""Verbs that change schedules: pause, resume, run, remove, rewrite (web and daemon)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from ..policies import plan_resume
from ..records import ScheduleSpec
from ..times import new_id
from ..triggers import from_json
from .accounts import Accounts
from .database import Database
from .jobs import Jobs
from .rows import schedule_values, to_schedule_spec, to_stored_schedule


class ScheduleChanges:
    """Changes to schedules that are in the store. Each verb returns the schedule's queue, None
    where there was nothing to change: an unknown id, or a schedule that has ended."""

    def __init__(self, database: Database, jobs: Jobs) -> None:
        self._db = database
        self._jobs = jobs
        self._accounts = Accounts(database)
        self._table = database.tables.schedule

    def pause(self, connection: Connection, id: str) -> str | None:
        """Keep a schedule from firing."""
        row = self._locked(connection, id)
        if row is None or row.paused or row.next_run_at is None:
            return None
        self._write(connection, id, {"paused": True, "due_at": None})
        return str(row.queue)

    def resume(self, connection: Connection, id: str) -> str | None:
        """Let a paused schedule go on from its next fire time; those it missed are accounted for.

        Raises InvalidJob where its trigger cannot be read.
        """
        row = self._locked(connection, id)
        if row is None or not row.paused:
            return None
        schedule = to_stored_schedule(row)
        values: dict[str, Any] = {"paused": False}
        if schedule.next_run_at is not None:
            plan = plan_resume(
                from_json(schedule.trigger),
                next_run_at=schedule.next_run_at,
                now=self._db.now(connection),
                end_date=schedule.end_date,
                iterations_left=schedule.iterations_left,
            )
            account = self._accounts.keep(connection, schedule.job, row.account_id, plan)
            values |= {"account_id": account, "next_run_at": plan.next_at, "due_at": plan.next_at}
        self._write(connection, id, values)
        return str(row.queue)

    def run(self, connection: Connection, id: str) -> str | None:
        """Make one more job, due now; the fire times and what limits them stay as they are."""
        row = connection.execute(select(self._table).where(self._table.c.id == id)).one_or_none()
        if row is None:
            return None
        pattern = to_stored_schedule(row).job
        self._jobs.add(connection, [pattern._replace(id=new_id())])
        return pattern.queue

    def remove(self, connection: Connection, id: str) -> str | None:
        """Delete a schedule; jobs that it has made stay."""
        row = self._locked(connection, id)
        if row is None:
            return None
        connection.execute(delete(self._table).where(self._table.c.id == id))
        return str(row.queue)

    def rewrite(
        self,
        connection: Connection,
        id: str,
        change: Callable[[ScheduleSpec, datetime], ScheduleSpec],
    ) -> str | None:
        """Put the changed copy in a schedule's place; returns the queue it is in now.

        ``change`` is given the database's clock. Raises what it raises.
        """
        row = self._locked(connection, id)
        if row is None:
            return None
        old = to_schedule_spec(row)
        new = change(old, self._db.now(connection))
        if new == old:
            return None
        values = schedule_values(new)
        for kept in ("due_at", "declared", "generation", "declaration"):
            del values[kept]
        if new.next_run_at != old.next_run_at:
            # It can be read again, where it was set aside.
            values |= {"due_at": None if row.paused else new.next_run_at, "error": None}
        self._write(connection, id, values)
        return new.job.queue

    def _locked(self, connection: Connection, id: str) -> Row[Any] | None:
        question = select(self._table).where(self._table.c.id == id)
        return connection.execute(question.with_for_update()).one_or_none()

    def _write(self, connection: Connection, id: str, values: dict[str, Any]) -> None:
        connection.execute(update(self._table).where(self._table.c.id == id).values(values))
