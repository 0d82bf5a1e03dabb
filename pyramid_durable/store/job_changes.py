"""Verbs that change single jobs: pause, resume, run, retry, remove, rewrite (web and daemon).

None of them writes to the row of a running job, which is its owner's. A row that is about to be
claimed is locked by the claim, and one that is about to be changed is passed over by it: which of
the two comes first decides, and the other finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy.exc import IntegrityError

from ..behaviors import KEY_OPTION, compares, keys_of
from ..records import BROKEN, CANCELLED, ENDED, EXPIRED, FAILED, RUNNING, SCHEDULED, JobSpec
from .behaviors import Behaviors, waits_already
from .cancels import Cancels
from .database import Database
from .retention import Removed, removed_columns
from .rows import dump_options, load_options, to_job_spec, work_values
from .waits import KEY_WAIT, waiting_for

RETRIED: Final = (FAILED, BROKEN, CANCELLED, EXPIRED)
"""What can be tried again: all that ended without success."""


class JobChanges:
    """Changes to jobs that are in the store. Each verb returns the job's queue, None where there
    was nothing to change: an unknown id, or a job in another state."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._table = database.tables.job
        self._pause = database.tables.pause
        self._cancels = Cancels(database)
        self._behaviors = Behaviors(database)

    def pause(self, connection: Connection, id: str) -> str | None:
        """Keep a waiting job from being claimed; when it was due is remembered."""
        row = self._locked(connection, id, [SCHEDULED])
        if row is None or row.due_at is None:
            return None
        self._forget_pause(connection, id)
        connection.execute(self._pause.insert().values(job_id=id, due_at=row.due_at))
        self._write(connection, id, {"due_at": None})
        return str(row.queue)

    def resume(self, connection: Connection, id: str) -> str | None:
        """Let a paused job be claimed when it was due; at once, if that is over."""
        row = self._locked(connection, id, [SCHEDULED])
        if row is None or row.due_at is not None:
            return None
        remembered = select(self._pause.c.due_at).where(self._pause.c.job_id == id)
        # Locking, since it then sees the latest also in a transaction that repeats its reads.
        due_at = connection.execute(remembered.with_for_update()).scalar_one_or_none()
        self._forget_pause(connection, id)
        self._write(connection, id, {"due_at": due_at or row.run_at})
        return str(row.queue)

    def run(self, connection: Connection, id: str) -> str | None:
        """Make a waiting job due now, also a paused one; None where it is due already."""
        row = self._locked(connection, id, [SCHEDULED])
        if row is None or (row.due_at is not None and row.due_at <= self._db.now(connection)):
            return None
        self._forget_pause(connection, id)
        now = self._db.soon()
        # Its time too: a claim that is given back is due at it again.
        self._write(connection, id, {"due_at": now, "run_at": now})
        return str(row.queue)

    def retry(self, connection: Connection, id: str) -> str | None:
        """Let a job that ended without success wait again, due now, with all its attempts.

        An expiry date that is over does not count any more. Raises DuplicateJob where an equal job
        waits, and its behavior allows one.
        """
        row = self._locked(connection, id, RETRIED)
        if row is None:
            return None
        options = dict(load_options(row.options))
        if "passed" in options:
            return None  # the account of fire times that made no job
        expires = options.get("expires")
        if isinstance(expires, str) and datetime.fromisoformat(expires) < self._db.now(connection):
            del options["expires"]
        key = options.get(KEY_OPTION)
        _, waiting_key = keys_of(options.get("behavior"), row.group_name, lambda: str(key))
        again = to_job_spec(row)._replace(options=options, waiting_key=key and waiting_key)
        now = self._db.soon()
        values = {
            "state": SCHEDULED,
            # Its time too: lateness and relative expiry count from it.
            "run_at": now,
            "due_at": now,
            "started_at": None,
            "finished_at": None,
            "attempt": 0,
            "crashes": 0,
            "result": None,
            "options": dump_options(options),
            "overlap_key": row.schedule_id,
        }
        self._place(connection, again, values)
        self._cancels.forget(connection, [id])
        progress = self._db.tables.progress
        connection.execute(delete(progress).where(progress.c.job_id == id))
        return str(row.queue)

    def remove(self, connection: Connection, id: str) -> str | None:
        """Delete a job. One that runs is asked to stop, and deleted as soon as it does not run."""
        row = self._locked(connection, id, [SCHEDULED, *ENDED])
        if row is not None:
            connection.execute(delete(self._table).where(self._table.c.id == id))
            self._forget(connection, [id])
            return str(row.queue)
        c = self._table.c
        running = select(c.queue).where(c.id == id, c.state == RUNNING)
        queue = connection.execute(running).scalar_one_or_none()
        if queue is None:
            return None
        return str(queue) if self._cancels.request(connection, id, remove=True) else None

    def sweep(self, connection: Connection) -> list[Removed]:
        """Delete jobs that were to be removed while they ran, and do not run any more.

        Returns them. Rows that others hold are left for the next time.
        """
        ids = self._cancels.to_remove(connection)
        if not ids:
            return []
        c = self._table.c
        over = select(*removed_columns(self._table)).where(c.id.in_(ids), c.state != RUNNING)
        found = connection.execute(over.with_for_update(skip_locked=True))
        gone = [Removed._make(row) for row in found]
        connection.execute(delete(self._table).where(c.id.in_([job.id for job in gone])))
        left = set(connection.execute(select(c.id).where(c.id.in_(ids))).scalars())
        self._forget(connection, [id for id in ids if id not in left])
        return gone

    def rewrite(
        self, connection: Connection, id: str, change: Callable[[JobSpec], JobSpec]
    ) -> str | None:
        """Put the changed copy in a waiting job's place; returns the queue it is in now.

        Raises what ``change`` raises, and DuplicateJob where an equal job waits now.
        """
        row = self._locked(connection, id, [SCHEDULED])
        if row is None:
            return None
        old = to_job_spec(row)
        new = change(old)
        if new == old:
            return None
        values = {**work_values(new), "kind": new.kind}
        if (new.run_at, new.delay) != (old.run_at, old.delay):
            at = self._db.soon(new.delay) if new.run_at is None else new.run_at
            values["run_at"] = at
            if row.due_at is not None:
                values["due_at"] = at
            else:
                paused = update(self._pause).where(self._pause.c.job_id == id)
                connection.execute(paused.values(due_at=at))
        if all(new.options.get(name) == old.options.get(name) for name in (KEY_OPTION, "behavior")):
            self._write(connection, id, values)
        else:
            self._place(connection, new, values)
        return new.queue

    def _locked(self, connection: Connection, id: str, states: Collection[str]) -> Row[Any] | None:
        """The job's row, held until the transaction ends, where it is in one of the states."""
        c = self._table.c
        # Looked at first, since on MariaDB a row is also held when its state is another one; the
        # end of a running job would wait for the whole of an application's transaction.
        seen = connection.execute(select(c.state).where(c.id == id)).scalar_one_or_none()
        if seen is None or seen == RUNNING:
            return None
        question = select(self._table).where(c.id == id, c.state.in_(states))
        return connection.execute(question.with_for_update()).one_or_none()

    def _write(self, connection: Connection, id: str, values: Mapping[str, Any]) -> None:
        """Write to the row, which is locked."""
        connection.execute(update(self._table).where(self._table.c.id == id).values(values))

    def _place(self, connection: Connection, spec: JobSpec, values: Mapping[str, Any]) -> None:
        """Write to the row, which is locked, and let its behavior do what it does at adding.

        Raises DuplicateJob, StoreBusy; then nothing was written.
        """
        keys = {"waiting_key": spec.waiting_key, "equal_key": spec.options.get(KEY_OPTION)}
        if not compares(spec.options):
            self._write(connection, spec.id, {**values, **keys})
            return
        # It is not in its own way.
        own = [spec._replace(replace_existing=True)]
        try:
            with waiting_for(connection, [spec.id], KEY_WAIT):
                self._behaviors.check(connection, own)
                if not self._db.dialect.locks_exactly:
                    self._behaviors.queue_up(connection, own)
                self._write(connection, spec.id, dict.fromkeys(keys))
                self._behaviors.make_last(connection, own)
                self._write(connection, spec.id, {**values, **keys})
        except IntegrityError as error:
            # Another transaction was faster, and has ended by now.
            c = self._table.c
            equal = select(c.id).where(c.waiting_key == spec.waiting_key)
            other = connection.execute(equal).scalar_one_or_none()
            raise waits_already(str(other)) from error

    def _forget(self, connection: Connection, ids: Collection[str]) -> None:
        for table in self._db.tables.beside if ids else ():
            connection.execute(delete(table).where(table.c.job_id.in_(ids)))

    def _forget_pause(self, connection: Connection, id: str) -> None:
        connection.execute(delete(self._pause).where(self._pause.c.job_id == id))
