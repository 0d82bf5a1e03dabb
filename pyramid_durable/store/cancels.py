"""Requests to stop jobs that run, in rows of their own beside the fenced ones (web and daemon)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, delete, select, update

from ..records import CANCELLED, Claim
from .database import Database
from .rows import ended_values


class Cancels:
    """The cancel table. A request is about the job's present life: until it has ended."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._table = database.tables.cancel
        self._job = database.tables.job

    def request(self, connection: Connection, id: str, *, remove: bool = False) -> bool:
        """Ask a job that runs to stop; with ``remove`` its row is to go when it does not run.

        False where that has been asked already.
        """
        now = self._db.soon()
        request = self._db.dialect.insert(self._table).values(requested_at=now)
        if remove:
            request = request.values(remove_at=now)
        if self._db.dialect.inserts(connection, request, {"job_id": id}):
            return True
        if not remove:
            return False
        c = self._table.c
        also = update(self._table).where(c.job_id == id, c.remove_at.is_(None))
        return connection.execute(also.values(remove_at=now)).rowcount == 1

    def to_remove(self, connection: Connection) -> list[str]:
        """Return the ids of those whose rows are to go."""
        c = self._table.c
        return list(connection.execute(select(c.job_id).where(c.remove_at.is_not(None))).scalars())

    def requested(self, connection: Connection, ids: Iterable[str]) -> set[str]:
        """Return those of the ids whose jobs were asked to stop."""
        listed = list(ids)
        if not listed:
            return set()
        question = select(self._table.c.job_id).where(self._table.c.job_id.in_(listed))
        return set(connection.execute(question).scalars())

    def forget(self, connection: Connection, ids: Collection[str]) -> None:
        """Forget requests: for a job that has ended, and is to run once more."""
        connection.execute(delete(self._table).where(self._table.c.job_id.in_(list(ids))))

    def end(self, connection: Connection, claims: Iterable[Claim]) -> set[str]:
        """End those of the jobs just claimed that were asked to stop; returns their ids.

        Only what had been claimed before can have been asked: it was to be tried again, given
        back or rescued at the moment of the request.
        """
        again = [claim.id for claim in claims if claim.claim_no > 1]
        asked = self.requested(connection, again)
        if asked:
            ended = {**ended_values(CANCELLED, self._db.dialect.now()), "owner": None}
            connection.execute(update(self._job).where(self._job.c.id.in_(asked)).values(ended))
        return asked
