"""Removing jobs that ended long ago, a batch in each transaction (daemon, scripts)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, Connection, Select, Table, and_, delete, exists, select, update

from ..records import BROKEN, ENDED, EXPIRED
from .database import Database
from .dialects import SWEEPING

BATCH: Final = 500
"""Rows in one transaction: a few milliseconds, in which SQLite lets nobody else write."""

TURN: Final = "housekeeping"
"""The row of the meta table that says when housekeeping was begun last."""

PURGED: Final = tuple(state for state in ENDED if state != BROKEN)
"""The states whose jobs go by themselves. A broken one has not run yet; it waits for a fix."""


class Removed(NamedTuple):
    """A job that was removed."""

    id: str
    name: str | None
    func: str
    queue: str
    kind: str
    state: str
    attempt: int
    max_attempts: int | None
    group: str | None
    schedule_id: str | None
    finished_at: datetime | None


def removed_columns(job: Table) -> list[Column[Any]]:
    """The columns of a Removed, in its order."""
    return [job.c["group_name" if name == "group" else name] for name in Removed._fields]


class Retention:
    """What goes after a while, and whose turn it is to see to that.

    Each batch is a transaction of its own, over rows that no claim looks at.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._job = database.tables.job
        self._removed = removed_columns(self._job)

    def turn(self, every: float) -> float:
        """Take the turn that comes every so many seconds, by the store's clock.

        0.0 where it has come, and is ours; otherwise the seconds until it comes. The first one
        comes a full ``every`` after somebody asked first.
        """
        meta = self._db.tables.meta
        question = select(meta.c.value).where(meta.c.name == TURN)
        with self._db.read() as connection:
            left = self._left(connection, question, every)
        if left:
            return left
        with self._db.begin() as connection:
            now = self._db.now(connection).isoformat()
            row = {"name": TURN, "value": now}
            if self._db.dialect.inserts(connection, self._db.dialect.insert(meta), row):
                return every
            left = self._left(connection, question.with_for_update(), every)
            if not left:
                connection.execute(update(meta).where(meta.c.name == TURN).values(value=now))
        return left

    def _left(self, connection: Connection, question: Select[Any], every: float) -> float:
        last = connection.execute(question).scalar_one_or_none()
        if last is None:
            return 0.0
        # A clock that was set back must not put it off for as long as it was ahead.
        passed = abs(self._db.now(connection) - datetime.fromisoformat(last)).total_seconds()
        return max(every - passed, 0.0)

    def remove(
        self, *, older_than: float, states: Sequence[str] = PURGED, queue: str | None = None
    ) -> Iterator[list[Removed]]:
        """Remove jobs that ended more than so many seconds ago; gives each batch when it is gone.

        One kind stays: the account of a schedule's fire times that is still being written. (A
        success that binds, RUN_ONCE, is remembered without its job.)
        """
        with self._db.read() as connection:
            now = self._db.now(connection)
        if older_than >= (now - datetime.min.replace(tzinfo=timezone.utc)).total_seconds():
            return
        before = now - timedelta(seconds=older_than)
        for state in states:
            # The next batch begins where the last one ended: at the index's head lie the entries
            # of what was removed, until nobody's snapshot needs them.
            after: datetime | None = None
            removed: list[Removed] | None = None
            while removed or removed is None:
                question = self.question(state, before, after, queue)
                with self._db.begin() as connection:
                    removed, after = self.remove_batch(connection, question)
                if removed:
                    yield removed
                if after is None:
                    break

    def question(
        self, state: str, before: datetime, after: datetime | None, queue: str | None
    ) -> Select[Any]:
        """The next batch: jobs that ended between two moments, the oldest first."""
        c = self._job.c
        question = select(*self._removed).where(c.state == state, c.finished_at <= before)
        if after is not None:
            question = question.where(c.finished_at >= after)
        if queue is not None:
            question = question.where(c.queue == queue)
        if state == EXPIRED:
            schedule = self._db.tables.schedule.c
            refers = and_(schedule.id == c.schedule_id, schedule.account_id == c.id)
            question = question.where(~exists().where(refers))
        return question.order_by(c.finished_at).limit(BATCH)

    def remove_batch(
        self, connection: Connection, question: Select[Any]
    ) -> tuple[list[Removed], datetime | None]:
        """Remove the jobs that a question finds, with what is kept beside them.

        Also returns where the next batch begins, None where this was the last one.
        """
        found = [Removed._make(row) for row in connection.execute(question)]
        # Locked by their ids, in a second step: MariaDB locks one entry of the index beyond those
        # that it finds, which may be a waiting job's, and stop its claim.
        c = self._job.c
        ids = [job.id for job in found]
        same = select(c.id, c.state, c.finished_at).where(c.id.in_(ids))
        locked = set(map(tuple, connection.execute(same.with_for_update(skip_locked=True))))
        removed = [job for job in found if (job.id, job.state, job.finished_at) in locked]
        gone = [job.id for job in removed]
        if gone:
            connection.execute(delete(self._job).where(c.id.in_(gone)))
            for beside in self._db.tables.beside:
                connection.execute(delete(beside).where(beside.c.job_id.in_(gone)))
        return removed, found[-1].finished_at if len(found) == BATCH else None

    def remove_orphans(self) -> int:
        """Remove what is beside jobs that are gone; returns how many rows there were.

        Somebody may ask a job to stop, or the job say how far it is, when its row is just going.
        """
        removed = sum(self._remove_orphans(table) for table in self._db.tables.beside)
        return removed + self._remove_holders()

    def _remove_holders(self) -> int:
        """Remove what is known of keys whose jobs are gone; a success is known for good."""
        holder = self._db.tables.holder
        owned = exists().where(self._job.c.id == holder.c.job_id)
        unheld = select(holder.c.name).where(holder.c.succeeded_at.is_(None), ~owned)
        number = 0
        while True:
            with self._db.begin(SWEEPING) as connection:
                found = connection.execute(unheld.limit(BATCH)).scalars().all()
                # Locked first and asked again: a key may just be taken by a job that no question
                # from before its commit can see.
                mine = select(holder.c.name).where(holder.c.name.in_(found))
                mine = self._db.dialect.by_primary_key(mine, holder)
                locked = connection.execute(mine.with_for_update(skip_locked=True)).scalars().all()
                names = connection.execute(unheld.where(holder.c.name.in_(locked))).scalars().all()
                if names:
                    connection.execute(delete(holder).where(holder.c.name.in_(names)))
            number += len(names)
            if len(names) < BATCH:
                return number

    def _remove_orphans(self, table: Table) -> int:
        owned = exists().where(self._job.c.id == table.c.job_id)
        question = select(table.c.job_id).where(~owned).limit(BATCH)
        number = 0
        while True:
            with self._db.begin(SWEEPING) as connection:
                ids = connection.execute(question).scalars().all()
                if ids:
                    connection.execute(delete(table).where(table.c.job_id.in_(ids)))
            number += len(ids)
            if len(ids) < BATCH:
                return number
