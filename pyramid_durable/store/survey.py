"""Verbs that look over all that is still to run, for ``pscheduler --check`` (scripts)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, case, func, or_, select

from ..records import RUNNING, SCHEDULED
from .database import Database

PAGE: Final = 1000
"""Rows in one statement: enough that a million take seconds, few enough to hold in memory."""

SHORT: Final = 16 * 1024
"""Characters up to which texts come with their page. Longer ones are read one by one: a page of
them could be a thousand times ``max_args_size``."""


class Group(NamedTuple):
    """Jobs, or schedules, that are alike in what a daemon needs to run them."""

    func: str
    codec: str
    queue: str
    number: int
    example: str


class Texts(NamedTuple):
    """What is stored of one call, still serialized."""

    id: str
    func: str
    codec: str
    payload: str
    userdata: str | None


class Trigger(NamedTuple):
    """A schedule's trigger as it is stored, a JSON text."""

    id: str
    func: str
    trigger_json: str


class Survey:
    """Looks over jobs that wait or run, and schedules that fire again.

    Declared schedules are left out: a daemon that starts brings them in line with its code. It is
    no snapshot: what comes, goes or moves meanwhile may be seen or not.
    """

    def __init__(self, database: Database) -> None:
        job, schedule = database.tables.job, database.tables.schedule
        self._jobs = (job, job.c.state.in_([SCHEDULED, RUNNING]))
        fires = or_(schedule.c.due_at.is_not(None), schedule.c.next_run_at.is_not(None))
        self._schedules = (schedule, fires & schedule.c.declared.is_(False))

    def job_groups(self, connection: Connection) -> list[Group]:
        """Count the jobs by function, serializer and queue."""
        return _groups(connection, *self._jobs)

    def schedule_groups(self, connection: Connection) -> list[Group]:
        """Count the schedules by function, serializer and queue."""
        return _groups(connection, *self._schedules)

    def job_texts(self, connection: Connection, *, page: int = PAGE) -> Iterator[Texts]:
        """Go through the jobs' arguments and userdata, by id, a page at a time."""
        return _texts(connection, *self._jobs, page)

    def schedule_texts(self, connection: Connection, *, page: int = PAGE) -> Iterator[Texts]:
        """Go through the schedules' arguments and userdata, by id, a page at a time."""
        return _texts(connection, *self._schedules, page)

    def triggers(self, connection: Connection) -> Iterator[Trigger]:
        """Go through the schedules' triggers, by id."""
        table, alive = self._schedules
        c = table.c
        question = select(c.id, c.func, c.trigger_json).where(alive).order_by(c.id)
        for row in connection.execute(question):
            yield Trigger(*row)


def _groups(connection: Connection, table: Table, alive: ColumnElement[bool]) -> list[Group]:
    c = table.c
    by = (c.func, c.codec, c.queue)
    question = select(*by, func.count(), func.min(c.id)).where(alive).group_by(*by).order_by(*by)
    return [Group(*row) for row in connection.execute(question)]


def _texts(
    connection: Connection, table: Table, alive: ColumnElement[bool], page: int
) -> Iterator[Texts]:
    c = table.c
    size = func.length(c.payload) + func.coalesce(func.length(c.userdata), 0)
    payload: Any = case((size <= SHORT, c.payload))
    userdata: Any = case((size <= SHORT, c.userdata))
    question = select(c.id, c.func, c.codec, payload, userdata).where(alive).order_by(c.id)
    long = select(c.payload, c.userdata)
    rows = connection.execute(question.limit(page)).all()
    while rows:
        for id, ref, codec, text, extra in rows:
            if text is None:
                found = connection.execute(long.where(c.id == id)).one_or_none()
                if found is None:
                    continue
                text, extra = found
            yield Texts(id, ref, codec, text, extra)
        after = question.where(c.id > rows[-1][0]).limit(page)
        rows = connection.execute(after).all() if len(rows) == page else []
