"""The end of an attempt, written under the claim's fence, many at a time (daemon)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Column, Connection, Double, TextClause, delete, select, text, tuple_

from ..records import CANCELLED, SCHEDULED, Completion
from ..times import utcnow
from .database import Database
from .settling import Settling
from .userdata import ScheduleUserdata

Fence = tuple[str, int]

WRITTEN = ("state", "attempt", "started_at", "max_attempts", "result", "errors", "userdata")
"""The columns that take what the completion says."""


class Completions:
    """Writing how attempts ended, a batch in one statement."""

    def __init__(self, database: Database, settling: Settling) -> None:
        self._db = database
        self._settling = settling
        self._job = database.tables.job
        self._userdata = ScheduleUserdata(database)
        delay: Column[float] = Column("delay", Double)
        columns = [self._job.c[name] for name in ("id", "owner", "claim_no", "due_at", *WRITTEN)]
        rows = database.dialect.table_of_rows([*columns, delay])
        job = self._job.fullname
        fence = f"{job}.id = v.id AND {job}.claim_no = v.claim_no AND {job}.owner = v.owner"
        tables = database.tables
        asked = f"SELECT 1 FROM {tables.cancel.fullname} AS asked WHERE asked.job_id = v.id"
        # Whoever was asked to stop is not tried again. (A request that comes at this very moment
        # is found when the job is claimed.) Only batches with another attempt in them ask.
        again = f"v.state = '{SCHEDULED}'"
        self._ends = self._statement(rows, fence, again, "v.state")
        self._retries = self._statement(
            rows,
            fence,
            f"({again} AND NOT EXISTS ({asked}))",
            f"CASE WHEN {again} AND EXISTS ({asked}) THEN '{CANCELLED}' ELSE v.state END",
        )

    def _statement(self, rows: str, fence: str, again: str, state: str) -> TextClause:
        job = self._job.fullname
        if self._db.dialect.update_returning:
            return text(
                f"UPDATE {job} SET {self._changes(again, state)} FROM {rows}{self._db.dialect.limit_sql} "
                f"WHERE {fence} RETURNING {job}.id, {job}.claim_no"
            )
        changes = self._changes(again, state, f"{job}.")
        # Beside few other jobs it would rather walk the table, and wait for every job that some
        # open transaction has just added.
        joined = f"{rows} STRAIGHT_JOIN {job} FORCE INDEX (PRIMARY) ON {fence}"
        return text(f"UPDATE {joined} SET {changes}")

    def _changes(self, again: str, state: str, target: str = "") -> str:
        dialect, job = self._db.dialect, self._job.fullname
        due_at = f"COALESCE(v.due_at, {dialect.after_sql.format(seconds='v.delay')})"
        changes = {
            **{name: f"v.{name}" for name in WRITTEN},
            "state": state,
            "due_at": f"CASE WHEN {again} THEN {due_at} END",
            "finished_at": f"CASE WHEN {again} THEN NULL ELSE {dialect.now_sql} END",
            "overlap_key": f"CASE WHEN {again} THEN {job}.overlap_key END",
            "waiting_key": f"CASE WHEN {again} THEN {job}.waiting_key END",
            "equal_key": f"CASE WHEN {again} THEN {job}.equal_key END",
            "owner": "NULL",
        }
        # MariaDB assigns from left to right: what reads the row's owner or state stands before.
        return ", ".join(f"{target}{name} = {value}" for name, value in changes.items())

    def write(self, connection: Connection, completions: Sequence[Completion]) -> set[Fence]:
        """Write these ends; returns the (id, claim_no) of those that were still the claimant's.

        The others matched nothing: another daemon has the job now, and nothing was changed.
        """
        accepted: set[Fence] = set()
        carried = [completion for completion in completions if completion.carry_to is not None]
        if carried:
            self._userdata.hold(connection, {completion.carry_to or "" for completion in carried})
        kept = [completion for completion in completions if not completion.delete]
        for completion in completions:
            if completion.delete and self._delete(connection, completion):
                accepted.add((completion.id, completion.claim_no))
        if kept:
            accepted |= self._write(connection, [self._row(completion) for completion in kept])
        if carried:
            self._carry(connection, [one for one in carried if (one.id, one.claim_no) in accepted])
        once = [completion for completion in completions if completion.once_key is not None]
        if once:
            self._note_successes(connection, once, accepted)
        return accepted

    def _carry(self, connection: Connection, completions: Sequence[Completion]) -> None:
        by_schedule = {one.carry_to: one.userdata for one in completions if one.carry_to}
        self._userdata.put(connection, by_schedule)

    def _note_successes(
        self, connection: Connection, once: Sequence[Completion], accepted: Collection[Fence]
    ) -> None:
        found = (one.once_key for one in once if (one.id, one.claim_no) in accepted)
        keys = [key for key in found if key is not None]
        if keys:
            self._settling.note_successes(connection, keys)

    def _delete(self, connection: Connection, completion: Completion) -> bool:
        c = self._job.c
        fence = (c.claim_no == completion.claim_no, c.owner == completion.owner)
        gone = connection.execute(delete(self._job).where(c.id == completion.id, *fence))
        if gone.rowcount != 1:
            return False
        for beside in self._db.tables.beside:
            connection.execute(delete(beside).where(beside.c.job_id == completion.id))
        return True

    def _row(self, completion: Completion) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": completion.id,
            "owner": completion.owner,
            "claim_no": completion.claim_no,
            "state": completion.state,
            "attempt": completion.attempt,
            "started_at": completion.started_at,
            "max_attempts": completion.max_attempts,
            "result": completion.result,
            "errors": completion.errors,
            "userdata": completion.userdata,
        }
        if completion.state == SCHEDULED:
            delay = completion.delay or 0.0
            row["due_at"] = completion.due_at
            if completion.due_at is None and self._db.dialect.local_clock:
                row["due_at"] = utcnow() + timedelta(seconds=delay)
            row["delay"] = delay
        return row

    def _write(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> set[Fence]:
        dialect = self._db.dialect
        retries = any(row["state"] == SCHEDULED for row in rows)
        statement = self._retries if retries else self._ends
        if not dialect.update_returning:
            # What is still ours is locked first, and only that is written.
            c = self._job.c
            fence = tuple_(c.id, c.claim_no, c.owner)
            question = select(c.id, c.claim_no, c.owner).where(fence.in_(map(_fence, rows)))
            question = dialect.by_primary_key(question, self._job)
            ours = {tuple(row) for row in connection.execute(question.with_for_update())}
            rows = [row for row in rows if _fence(row) in ours]
            if rows:
                connection.execute(statement, {"rows": dialect.document(rows)})
            return {(row["id"], row["claim_no"]) for row in rows}
        if len(rows) > 1:
            dialect.plan_by_index(connection)
        values = {"rows": dialect.document(rows)}
        if dialect.local_clock:
            values["now"] = dialect.moment(utcnow())
        return {(id, number) for id, number in connection.execute(statement, values)}


def _fence(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["id"], row["claim_no"], row["owner"]
