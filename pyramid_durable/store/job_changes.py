"""Verbs that change single jobs: pause, resume, run, retry, remove, rewrite (web and daemon).

None of them writes to the row of a running job, which is its owner's. A row that is about to be
claimed is locked by the claim, and one that is about to be changed is passed over by it: which of
the two comes first decides, and the other finds nothing to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy.exc import IntegrityError

from ..behaviors import KEY_OPTION, keys_of
from ..exceptions import DuplicateJob
from ..records import BROKEN, CANCELLED, ENDED, EXPIRED, FAILED, RUNNING, SCHEDULED, JobSpec
from .database import Database
from .rows import dump_options, load_options, to_job_spec, work_values

RETRIED: Final = (FAILED, BROKEN, CANCELLED, EXPIRED)
"""What can be tried again: all that ended without success."""


class JobChanges:
    """Changes to jobs that are in the store. Each verb returns the job's queue, None where there
    was nothing to change: an unknown id, or a job in another state."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._table = database.tables.job
        self._pause = database.tables.pause
        self._cancel = database.tables.cancel

    def pause(self, connection: Connection, id: str) -> str | None:
        """Keep a waiting job from being claimed; when it was due is remembered."""
        row = self._locked(connection, id, [SCHEDULED])
        if row is None or row.due_at is None:
            return None
        self._forget(connection, [self._pause], [id])
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
        self._forget(connection, [self._pause], [id])
        self._write(connection, id, {"due_at": due_at or row.run_at})
        return str(row.queue)

    def run(self, connection: Connection, id: str) -> str | None:
        """Make a waiting job due now, also a paused one; None where it is due already."""
        row = self._locked(connection, id, [SCHEDULED])
        if row is None or (row.due_at is not None and row.due_at <= self._db.now(connection)):
            return None
        self._forget(connection, [self._pause], [id])
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
        key, waiting_key = keys_of(
            options.get("behavior"), row.group_name, lambda: str(options.get(KEY_OPTION))
        )
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
            "waiting_key": waiting_key,
            "equal_key": key,
        }
        self._write(connection, id, values, key=waiting_key)
        # A request to stop was about the attempts before.
        self._forget_all(connection, [id])
        return str(row.queue)

    def remove(self, connection: Connection, id: str) -> str | None:
        """Delete a job. One that runs is asked to stop, and deleted as soon as it does not run."""
        row = self._locked(connection, id, [SCHEDULED, *ENDED])
        if row is not None:
            connection.execute(delete(self._table).where(self._table.c.id == id))
            self._forget_all(connection, [id])
            return str(row.queue)
        c = self._table.c
        running = select(c.queue).where(c.id == id, c.state == RUNNING)
        queue = connection.execute(running).scalar_one_or_none()
        if queue is None:
            return None
        now = self._db.soon()
        request = self._db.dialect.insert(self._cancel).values(requested_at=now, remove_at=now)
        if self._db.dialect.inserts(connection, request, {"job_id": id}):
            return str(queue)
        asked = (self._cancel.c.job_id == id, self._cancel.c.remove_at.is_(None))
        also = update(self._cancel).where(*asked).values(remove_at=now)
        return str(queue) if connection.execute(also).rowcount else None

    def sweep(self, connection: Connection) -> int:
        """Delete jobs that were to be removed while they ran, and do not run any more.

        Returns how many. Rows that others hold are left for the next time.
        """
        asked = select(self._cancel.c.job_id).where(self._cancel.c.remove_at.is_not(None))
        ids = connection.execute(asked).scalars().all()
        if not ids:
            return 0
        c = self._table.c
        over = select(c.id).where(c.id.in_(ids), c.state != RUNNING)
        gone = connection.execute(over.with_for_update(skip_locked=True)).scalars().all()
        connection.execute(delete(self._table).where(c.id.in_(gone)))
        left = set(connection.execute(select(c.id).where(c.id.in_(ids))).scalars())
        self._forget_all(connection, [id for id in ids if id not in left])
        return len(gone)

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
        values = work_values(new)
        values |= {"kind": new.kind, "waiting_key": new.waiting_key}
        values |= {"equal_key": new.options.get(KEY_OPTION)}
        if (new.run_at, new.delay) != (old.run_at, old.delay):
            at = self._db.soon(new.delay) if new.run_at is None else new.run_at
            values["run_at"] = at
            if row.due_at is not None:
                values["due_at"] = at
            else:
                paused = update(self._pause).where(self._pause.c.job_id == id)
                connection.execute(paused.values(due_at=at))
        key = new.waiting_key if new.waiting_key != old.waiting_key else None
        self._write(connection, id, values, key=key)
        return new.queue

    def _locked(self, connection: Connection, id: str, states: Collection[str]) -> Row[Any] | None:
        """The job's row, held until the transaction ends, where it is in one of the states."""
        c = self._table.c
        # Looked at first, since on MariaDB a row is also held when its state is another one; the
        # end of a running job would wait for the whole of an application's transaction.
        seen = connection.execute(select(c.state).where(c.id == id)).scalar_one_or_none()
        if seen is None or (seen == RUNNING and RUNNING not in states):
            return None
        question = select(self._table).where(c.id == id, c.state.in_(states))
        return connection.execute(question.with_for_update()).one_or_none()

    def _write(
        self,
        connection: Connection,
        id: str,
        values: Mapping[str, Any],
        *,
        key: str | None = None,
    ) -> None:
        """Write to the row, which is locked. ``key``: a waiting key that it has not had so far."""
        c = self._table.c
        statement = update(self._table).where(c.id == id).values(values)
        if key is None:
            connection.execute(statement)
            return
        # Elsewhere only the statement fails; and on SQLite, in an application's own session, the
        # end of a savepoint may be a commit.
        savepoint = self._db.dialect.errors_end_transaction
        try:
            with connection.begin_nested() if savepoint else contextlib.nullcontext():
                connection.execute(statement)
        except IntegrityError as error:
            equal = select(c.id).where(c.waiting_key == key)
            other = connection.execute(equal).scalar_one_or_none()
            raise DuplicateJob(
                f"job {id!r} cannot wait: an equal one waits already, {other}, and its behavior "
                "allows one at a time",
                other,
            ) from error

    def _forget_all(self, connection: Connection, ids: Collection[str]) -> None:
        self._forget(connection, self._db.tables.beside, ids)

    def _forget(
        self, connection: Connection, tables: Collection[Any], ids: Collection[str]
    ) -> None:
        for table in tables if ids else ():
            connection.execute(delete(table).where(table.c.job_id.in_(ids)))
