"""Verbs about single jobs: add, look up, list, cancel, progress (web and daemon)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, select, update

from ..exceptions import DuplicateJob
from ..records import CANCELLED, RUNNING, SCHEDULED, JobSpec, Progress, StoredJob
from ..times import utcnow
from .database import Database
from .rows import job_values, to_stored_job

NEW = {"state": SCHEDULED, "attempt": 0, "crashes": 0, "claim_no": 0}
"""What is the same in every new job."""


class Jobs:
    """The job table, for those who ask for jobs and those who look at them.

    Each verb takes the connection to work on first: the store's, or the one of the application's
    session when its transaction is to decide.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._table = database.tables.job
        insert = self._table.insert()
        careful = database.dialect.insert(self._table)
        self._insert = {
            (False, False): insert.values(self._times(relative=False)),
            (False, True): insert.values(self._times(relative=True)),
            (True, False): careful.values(self._times(relative=False)),
            (True, True): careful.values(self._times(relative=True)),
        }

    def _times(self, *, relative: bool) -> dict[str, Any]:
        """The columns of a new job that SQL fills: its creation, and a time from now on."""
        dialect = self._db.dialect
        times: dict[str, Any] = {"created_at": dialect.now()}
        if relative and not dialect.local_clock:
            times["run_at"] = times["due_at"] = dialect.after(bindparam("delay"))
        return times

    def add(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Add jobs, all or none, in one statement for each kind of time and key.

        Raises DuplicateJob, naming the id or key, when one exists (and is not to be replaced).
        """
        groups: dict[tuple[bool, bool], list[dict[str, Any]]] = {}
        for spec in specs:
            if spec.replace_existing:
                self._make_way(connection, spec)
            keyed = spec.chosen_id or spec.waiting_key is not None
            groups.setdefault((keyed, spec.run_at is None), []).append(self._row(spec))
        added: list[str] = []
        for (keyed, relative), rows in sorted(groups.items(), reverse=True):
            statement = self._insert[keyed, relative]
            if keyed:
                self._add_keyed(connection, statement, rows, added)
            else:
                connection.execute(statement, rows)

    def _row(self, spec: JobSpec) -> dict[str, Any]:
        row = {**NEW, **job_values(spec)}
        run_at = spec.run_at
        if run_at is None and self._db.dialect.local_clock:
            run_at = utcnow() + timedelta(seconds=spec.delay)
        if run_at is None:
            row["delay"] = spec.delay
        else:
            row["run_at"] = row["due_at"] = run_at
        return row

    def _add_keyed(
        self, connection: Connection, statement: Any, rows: list[dict[str, Any]], added: list[str]
    ) -> None:
        """Insert rows whose id or key may be taken; on a conflict take back what was added."""
        for row in rows:
            if self._db.dialect.inserts(connection, statement, row):
                added.append(row["id"])
                continue
            taken = self._conflict(connection, row)
            if added:
                connection.execute(delete(self._table).where(self._table.c.id.in_(added)))
            raise taken

    def _conflict(self, connection: Connection, row: Mapping[str, Any]) -> DuplicateJob:
        c = self._table.c
        equal = None
        if row["waiting_key"] is not None:
            question = select(c.id).where(c.waiting_key == row["waiting_key"])
            equal = connection.execute(question).scalar_one_or_none()
        if equal is not None and equal != row["id"]:
            return DuplicateJob(
                f"an equal job waits already: {equal}; its behavior allows one at a time", equal
            )
        return DuplicateJob(
            f"a job with the id {row['id']!r} exists already; choose another id, "
            "or pass replace_existing=True",
            row["id"],
        )

    def _make_way(self, connection: Connection, spec: JobSpec) -> None:
        """Remove the job that is to be replaced; one that runs stays, and conflicts."""
        c = self._table.c
        connection.execute(delete(self._table).where(c.id == spec.id, c.state != RUNNING))
        self._forget(connection, [spec.id])

    def _forget(self, connection: Connection, ids: Collection[str]) -> None:
        for table in (self._db.tables.progress, self._db.tables.cancel):
            connection.execute(delete(table).where(table.c.job_id.in_(ids)))

    def get(self, connection: Connection, id: str) -> StoredJob | None:
        """Return the job, or None when there is none by that id."""
        row = connection.execute(self._question().where(self._table.c.id == id)).one_or_none()
        return None if row is None else to_stored_job(row)

    def list(
        self,
        connection: Connection,
        *,
        queue: str | None = None,
        state: str | Collection[str] | None = None,
        func: str | None = None,
        group: str | None = None,
        schedule_id: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[StoredJob]:
        """Return the jobs that match, newest first (ids of the application's own: by id)."""
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
        ended = {
            "state": CANCELLED,
            "finished_at": self._db.dialect.now(),
            "due_at": None,
            "overlap_key": None,
            "waiting_key": None,
        }
        waiting = update(self._table).where(*here, c.state == SCHEDULED).values(ended)
        if connection.execute(waiting).rowcount:
            return True
        runs = connection.execute(select(c.id).where(*here, c.state == RUNNING)).one_or_none()
        if runs is None:
            return False
        request = self._db.dialect.insert(self._db.tables.cancel)
        request = request.values(requested_at=self._db.dialect.now())
        return self._db.dialect.inserts(connection, request, {"job_id": id})

    def cancel_requested(self, connection: Connection, ids: Iterable[str]) -> set[str]:
        """Return those of the ids whose jobs were asked to stop."""
        cancel = self._db.tables.cancel
        question = select(cancel.c.job_id).where(cancel.c.job_id.in_(list(ids)))
        return set(connection.execute(question).scalars())

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

    def counts(self, connection: Connection) -> dict[str, dict[str, int]]:
        """Return the number of jobs, by queue and state."""
        c = self._table.c
        question = select(c.queue, c.state, func.count()).group_by(c.queue, c.state)
        counts: dict[str, dict[str, int]] = {}
        for queue, state, number in connection.execute(question):
            counts.setdefault(queue, {})[state] = number
        return counts
