"""Verbs about single jobs: add, look up, list, cancel, progress (web and daemon)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    delete,
    select,
    update,
)

from ..behaviors import compares
from ..exceptions import DuplicateJob
from ..records import CANCELLED, RUNNING, SCHEDULED, JobSpec, Progress, StoredJob
from .behaviors import Behaviors, waits_already
from .cancels import Cancels
from .database import Database
from .gathering import Gathering
from .inserting import JobInsert
from .rows import ended_values, to_stored_job
from .waits import KEY_WAIT, waiting_for


class Jobs:
    """The job table, for those who ask for jobs and those who look at them.

    Each verb takes the connection to work on first: the store's, or the one of the application's
    session when its transaction is to decide.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._behaviors = Behaviors(database)
        self._table = database.tables.job
        self._cancels = Cancels(database)
        self._insert = JobInsert(database)
        self._gathering = Gathering(self._insert)

    def add(
        self, connection: Connection, specs: Sequence[JobSpec], *, wait: float = KEY_WAIT
    ) -> None:
        """Add jobs, all or none.

        Raises DuplicateJob, naming the id or key, when one exists (and is not to be replaced), or a
        behavior refuses it; StoreBusy where another transaction is adding the same id or key, and
        does not end within ``wait`` seconds.
        """
        bound = [spec.id for spec in specs if is_bound(spec)]
        if not bound:
            self._insert.all(connection, specs)
            return
        with waiting_for(connection, bound, wait):
            self._add_bound(connection, specs)

    def gather(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Add jobs as ``add`` does; those that need no answer together with what follows.

        It is as if each had been written at once, but for errors of the database, which may come
        with the next statement or the commit. ``write_gathered`` lets them come before that.
        """
        # A delay counts from now, and not from when it is written.
        if any(is_bound(spec) or spec.delay for spec in specs):
            self.add(connection, specs)
        else:
            self._gathering.add(connection, specs)

    def write_gathered(self, connection: Connection) -> None:
        """Write what is gathered for a connection."""
        self._gathering.write(connection)

    def _add_bound(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        self._behaviors.check(connection, specs)
        if not self._db.dialect.locks_exactly:
            self._behaviors.queue_up(connection, specs)
        if self._db.dialect.asks_first:
            self._check_ids(connection, specs)
        numbers = {
            spec.id: self._make_way(connection, spec) for spec in specs if spec.replace_existing
        }
        self._behaviors.make_last(connection, specs)
        added = self._insert.new(connection, specs, numbers)
        free = set(added)
        for spec in specs:
            if spec.id not in free:
                conflict = self._conflict(connection, spec)
                connection.execute(delete(self._table).where(self._table.c.id.in_(added)))
                raise conflict
            free.remove(spec.id)
        self._behaviors.settle_batch(connection, specs)

    def _check_ids(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        c = self._table.c
        ids = [spec.id for spec in specs if spec.chosen_id]
        states = select(c.id, c.state).where(c.id.in_(ids))
        known = {row.id: row.state for row in connection.execute(states)} if ids else {}
        for spec in specs:
            state = known.get(spec.id)
            if state == RUNNING or (state is not None and not spec.replace_existing):
                raise _taken(spec.id)

    def add_new(self, connection: Connection, specs: Sequence[JobSpec]) -> int:
        """Add jobs but for those whose id or key is taken; returns how many were added."""
        return len(self._insert.new(connection, specs))

    def _conflict(self, connection: Connection, spec: JobSpec) -> DuplicateJob:
        c = self._table.c
        equal = None
        if spec.waiting_key is not None:
            question = select(c.id).where(c.waiting_key == spec.waiting_key)
            equal = connection.execute(question).scalar_one_or_none()
        if equal is not None and equal != spec.id:
            return waits_already(equal)
        return _taken(spec.id)

    def _make_way(self, connection: Connection, spec: JobSpec) -> int:
        """Remove the job that is to be replaced; one that runs stays, and conflicts.

        Returns the number of its last claim. The new job goes on from there: its claims are not to
        be taken for those of the old one.
        """
        c = self._table.c
        there = select(c.claim_no).where(c.id == spec.id, c.state != RUNNING).with_for_update()
        number = connection.execute(there).scalar_one_or_none()
        if number is None:
            return 0
        connection.execute(delete(self._table).where(c.id == spec.id))
        self._forget(connection, [spec.id])
        return number

    def _forget(self, connection: Connection, ids: Collection[str]) -> None:
        for table in self._db.tables.beside:
            connection.execute(delete(table).where(table.c.job_id.in_(ids)))

    def get(self, connection: Connection, id: str) -> StoredJob | None:
        """Return the job, or None when there is none by that id."""
        row = connection.execute(self._question().where(self._table.c.id == id)).one_or_none()
        return None if row is None else to_stored_job(row)

    def exists(self, connection: Connection, id: str, queue: str | None = None) -> bool:
        """Tell whether there is a job by that id, in whatever state."""
        c = self._table.c
        here = [c.id == id] if queue is None else [c.id == id, c.queue == queue]
        return connection.execute(select(c.id).where(*here)).first() is not None

    def list(
        self,
        connection: Connection,
        *,
        queue: str | None = None,
        state: str | Collection[str] | None = None,
        func: str | None = None,
        group: str | None = None,
        schedule_id: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[StoredJob]:
        """Return the jobs that match, newest first (ids of the application's own: by id).

        ``before`` begins behind that id, so that pages neither overlap nor cost more and more.
        """
        c = self._table.c
        question = self._question().order_by(c.id.desc()).offset(offset).limit(limit)
        if offset and limit is None:
            question = question.limit(2**31)
        if isinstance(state, str):
            state = [state]
        if state is not None:
            question = question.where(c.state.in_(list(state)))
        equals = ((c.queue, queue), (c.func, func), (c.group_name, group))
        for column, value in (*equals, (c.schedule_id, schedule_id)):
            if value is not None:
                question = question.where(column == value)
        if before is not None:
            question = question.where(c.id < before)
        return [to_stored_job(row) for row in connection.execute(question)]

    def _question(self) -> Select[Any]:
        tables = self._db.tables
        job, progress, cancel, daemon = tables.job, tables.progress, tables.cancel, tables.daemon
        joined = (
            job.outerjoin(progress, progress.c.job_id == job.c.id)
            .outerjoin(cancel, cancel.c.job_id == job.c.id)
            .outerjoin(daemon, daemon.c.incarnation == job.c.owner)
        )
        return select(
            job,
            progress.c.done.label("progress_done"),
            progress.c.total.label("progress_total"),
            progress.c.message.label("progress_message"),
            cancel.c.requested_at.label("cancel_requested_at"),
            daemon.c.label.label("daemon_label"),
        ).select_from(joined)

    def cancel(self, connection: Connection, id: str, queue: str | None = None) -> bool:
        """Cancel a job that waits, ask one that runs to stop; False where there is neither."""
        c = self._table.c
        here = [c.id == id] if queue is None else [c.id == id, c.queue == queue]
        ended = ended_values(CANCELLED, self._db.dialect.now())
        waiting = update(self._table).where(*here, c.state == SCHEDULED).values(ended)
        if connection.execute(waiting).rowcount:
            paused = self._db.tables.pause
            connection.execute(delete(paused).where(paused.c.job_id == id))
            return True
        runs = connection.execute(select(c.id).where(*here, c.state == RUNNING)).one_or_none()
        if runs is None:
            return False
        return self._cancels.request(connection, id)

    def cancel_requested(self, connection: Connection, ids: Iterable[str]) -> set[str]:
        """Return those of the ids whose jobs were asked to stop."""
        return self._cancels.requested(connection, ids)

    def hold(self, connection: Connection, ids: Iterable[str], seconds: float) -> None:
        """Let daemons leave new jobs alone for so long; their own time stays as it is."""
        statement = update(self._table).where(self._table.c.id.in_(list(ids)))
        connection.execute(statement.values(due_at=self._db.soon(seconds)))

    def set_progress(self, connection: Connection, id: str, progress: Progress) -> None:
        """Keep how far a job is; its row of the job table is not touched."""
        table = self._db.tables.progress
        values = {
            "done": progress.done,
            "total": progress.total,
            "message": progress.message,
        }
        changed = connection.execute(update(table).where(table.c.job_id == id).values(values))
        if not changed.rowcount:
            connection.execute(table.insert().values(job_id=id, **values))


def is_bound(spec: JobSpec) -> bool:
    """Tell whether a job may be refused, wait for another transaction, or change other jobs."""
    unique = spec.chosen_id or spec.waiting_key is not None or spec.replace_existing
    return unique or compares(spec.options)


def _taken(id: str) -> DuplicateJob:
    return DuplicateJob(
        f"a job with the id {id!r} exists already; choose another id, or pass "
        "replace_existing=True",
        id,
    )
