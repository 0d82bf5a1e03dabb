"""A million rows in a minute: copies of a real job, made by the database itself."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    String,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    text,
)

from ..application import nothing
from ..stand import Stand

AT_A_TIME = 10_000
"""Rows in one statement; each has times and a priority of its own."""

PLACES = 1_000_000_000
"""Added to a row's number, so that all ids are equally long."""

PRIORITIES = 10


def fill_future(made: Stand, rows: int) -> None:
    """Add jobs that wait for times from tomorrow on, a minute after each ten thousand."""
    id = made.scheduler.add_date_job(nothing, timedelta(days=1))

    def changes(part: int) -> dict[str, Any]:
        at = _moment(made, timedelta(days=1, minutes=part))
        return {"run_at": at, "due_at": at, "priority": part % PRIORITIES}

    _copy(made, id, rows, changes)


def fill_ended(made: Stand, rows: int) -> None:
    """Add jobs that have succeeded: what one that a daemon ran looks like, in the last hours."""
    id = made.scheduler.add_async_job(nothing)
    made.scheduler.run_due()

    def changes(part: int) -> dict[str, Any]:
        at = _moment(made, -timedelta(hours=12) + timedelta(minutes=part))
        times = dict.fromkeys(("run_at", "created_at", "started_at", "finished_at"), at)
        return {**times, "priority": part % PRIORITIES}

    _copy(made, id, rows, changes)


def _moment(made: Stand, distance: timedelta) -> datetime:
    store = made.scheduler.store
    with store.read() as connection:
        now: datetime = store.now(connection)
    return now + distance


def _copy(made: Stand, id: str, rows: int, changes: Any) -> None:
    """Copy a job, with some columns changed for each part of the copies."""
    job = made.scheduler.store.tables.job
    size = min(AT_A_TIME, rows)
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < size))
    with made.engine.begin() as connection:
        if made.engine.dialect.name in ("mysql", "mariadb"):
            connection.execute(text(f"SET SESSION max_recursive_iterations = {size}"))
        for part in range(rows // size):
            changed: dict[str, Any] = {
                name: bindparam(None, value, type_=job.c[name].type, unique=True)
                for name, value in changes(part).items()
            }
            prefix = f"old-{uuid4().hex[:22]}-"
            changed["id"] = literal(prefix) + cast(numbers.c.n + PLACES, String(10))
            columns = [changed.get(column.name, column) for column in job.c]
            source = select(*columns).select_from(job.join(numbers, literal(1) == 1))
            source = source.where(job.c.id == id)
            connection.execute(insert(job).from_select([c.name for c in job.c], source))
        connection.execute(delete(job).where(job.c.id == id))
        (found,) = connection.execute(select(func.count()).select_from(job)).one()
        assert found == rows // size * size, found
    tidy(made)
    if made.engine.dialect.name == "postgresql":
        # What was filled in is written to the disk now, not beside what is measured.
        _alone(made, "CHECKPOINT")


def remove(made: Stand, ids: Iterable[str]) -> None:
    """Remove these jobs, and what they left behind in the table."""
    job = made.scheduler.store.tables.job
    with made.engine.begin() as connection:
        connection.execute(
            delete(job).where(job.c.id == bindparam("one")), [{"one": id} for id in ids]
        )
    tidy(made)


def tidy(made: Stand) -> None:
    """Bring the statistics up to date, as a server does by itself after a while."""
    statements = {"postgresql": "VACUUM ANALYZE {}", "sqlite": "ANALYZE {}"}
    statement = statements.get(made.engine.dialect.name, "ANALYZE TABLE {}")
    _alone(made, statement.format(made.scheduler.store.tables.job.name))


def _alone(made: Stand, statement: str) -> None:
    """Execute what is no part of a transaction."""
    with made.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))
