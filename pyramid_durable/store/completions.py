"""The end of an attempt, written under the claim's fence, many at a time (daemon)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Double,
    TextClause,
    delete,
    select,
    text,
    tuple_,
)

from ..records import CANCELLED, ENDED, SCHEDULED, Completion
from ..times import utcnow
from .database import Database
from .settling import Settling
from .userdata import ScheduleUserdata

Fence = tuple[str, int]

FENCE = ("id", "claim_no")
ALL = (None, None)
"""What an UPDATE that tells (``telling_update``) may say where it has changed all that were brought."""

WRITTEN = ("state", "attempt", "started_at", "max_attempts", "result", "errors", "userdata")
"""The columns that take what the completion says."""

SHARED = ("owner", "state", "attempt", "max_attempts")
"""What most ends of a batch have in common; many have nothing else to say than when it began."""

SAYS_MORE = slice(Completion._fields.index("result"), None)
NOTHING_MORE = tuple(Completion._field_defaults[name] for name in Completion._fields[SAYS_MORE])
"""The last fields, in which such an end has its defaults."""


class _Form(NamedTuple):
    """An UPDATE of ends: as it only counts the rows it has changed, and as it tells which."""

    counting: TextClause
    telling: TextClause


class Completions:
    """Writing how attempts ended, a batch in one statement."""

    def __init__(self, database: Database, settling: Settling) -> None:
        self._db = database
        self._settling = settling
        self._job = database.tables.job
        self._userdata = ScheduleUserdata(database)
        c, dialect = self._job.c, database.dialect
        key = [c.id, c.claim_no]
        rows = [*key, c.owner, c.due_at, *(c[name] for name in WRITTEN), Column("delay", Double)]
        said = {name: f"v.{name}" for name in WRITTEN}
        asked = (
            f"SELECT 1 FROM {database.tables.cancel.fullname} AS asked WHERE asked.job_id = v.id"
        )
        # Whoever was asked to stop is not tried again. (A request that comes at this very moment
        # is found when the job is claimed.) Only batches with another attempt in them ask.
        again = f"v.state = '{SCHEDULED}'"
        state = f"CASE WHEN {again} AND EXISTS ({asked}) THEN '{CANCELLED}' ELSE v.state END"
        retries = self._assignments(
            {**said, "state": state}, again=f"({again} AND NOT EXISTS ({asked}))"
        )
        everything = dialect.table_of_rows(rows)
        self._ends = self._form(everything, "v.owner", self._assignments(said))
        self._retries = self._form(everything, "v.owner", retries)
        shared = {name: f":{name}" for name in SHARED} | {"started_at": "v.started_at"}
        self._plain_ends = self._form(
            dialect.table_of_lists([*key, c.started_at]),
            # As if each row brought it. By itself it would be looked for first, in every job.
            "CASE WHEN v.claim_no IS NOT NULL THEN :owner END",
            self._assignments({name: shared.get(name, "NULL") for name in WRITTEN}),
        )

    def _assignments(self, said: Mapping[str, str], again: str | None = None) -> dict[str, str]:
        """What each column becomes, in SQL; ``again`` tells a job that is tried again."""
        dialect, job = self._db.dialect, self._job.fullname
        kept = ("overlap_key", "waiting_key", "equal_key")
        if again is None:
            gone = dict.fromkeys(("due_at", *kept, "owner"), "NULL")
            return {**said, "finished_at": dialect.now_sql, **gone}
        due_at = f"COALESCE(v.due_at, {dialect.after_sql.format(seconds='v.delay')})"
        # MariaDB assigns from left to right: what reads the row's owner or state stands before.
        return {
            **said,
            "due_at": f"CASE WHEN {again} THEN {due_at} END",
            "finished_at": f"CASE WHEN {again} THEN NULL ELSE {dialect.now_sql} END",
            **{name: f"CASE WHEN {again} THEN {job}.{name} END" for name in kept},
            "owner": "NULL",
        }

    def _form(self, rows: str, owner: str, assignments: Mapping[str, str]) -> _Form:
        dialect, job = self._db.dialect, self._job.fullname
        is_ours = dialect.same_sql.format(f"{job}.owner", owner)
        held = f"{job}.id = v.id AND {job}.claim_no = v.claim_no AND {is_ours}"
        if dialect.update_returning:
            changes = ", ".join(f"{name} = {value}" for name, value in assignments.items())
            update = f"UPDATE {job} SET {changes} FROM {rows}{dialect.limit_sql} WHERE {held}"
            return _Form(text(update), text(dialect.telling_update(update, job, FENCE)))
        changes = ", ".join(f"{job}.{name} = {value}" for name, value in assignments.items())
        # Beside few other jobs it would rather walk the table, and wait for every job that some
        # open transaction has just added.
        joined = f"{rows} STRAIGHT_JOIN {job} FORCE INDEX (PRIMARY) ON {held}"
        counting = text(f"UPDATE {joined} SET {changes}")
        return _Form(counting, counting)

    def write(self, connection: Connection, completions: Sequence[Completion]) -> set[Fence]:
        """Write these ends; returns the (id, claim_no) of those that were still the claimant's.

        The others matched nothing: another daemon has the job now, and nothing was changed.
        """
        plain, others = _divide(completions)
        accepted = self._write_others(connection, others) if others else set()
        if plain:
            accepted |= self._write_plain(connection, plain)
        return accepted

    def _write_others(
        self, connection: Connection, completions: Sequence[Completion]
    ) -> set[Fence]:
        accepted: set[Fence] = set()
        carried = [completion for completion in completions if completion.carry_to is not None]
        if carried:
            # Before any job's row, as whoever fires a schedule locks them.
            self._userdata.hold(connection, {completion.carry_to or "" for completion in carried})
        kept = [completion for completion in completions if not completion.delete]
        gone = [completion for completion in completions if completion.delete]
        if gone:
            accepted |= self._delete(connection, gone)
        if kept:
            retries = any(completion.state == SCHEDULED for completion in kept)
            form = self._retries if retries else self._ends
            accepted |= self._write(connection, form, kept, self._rows)
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

    def _delete(self, connection: Connection, completions: Sequence[Completion]) -> set[Fence]:
        """Remove the rows that are still the claimants', and what is kept beside them."""
        ours = self._lock(connection, completions)
        ids = [id for id, _ in ours]
        if ids:
            connection.execute(delete(self._job).where(self._job.c.id.in_(ids)))
            for beside in self._db.tables.beside:
                connection.execute(delete(beside).where(beside.c.job_id.in_(ids)))
        return ours

    def _write_plain(self, connection: Connection, completions: Sequence[Completion]) -> set[Fence]:
        return self._write(connection, self._plain_ends, completions, self._lists)

    def _lists(self, completions: Sequence[Completion]) -> dict[str, Any]:
        lists = self._db.dialect.lists(
            {
                "id": [one.id for one in completions],
                "claim_no": [one.claim_no for one in completions],
                "started_at": [one.started_at for one in completions],
            }
        )
        return {**lists, **{name: getattr(completions[0], name) for name in SHARED}}

    def _rows(self, completions: Sequence[Completion]) -> dict[str, Any]:
        return {"rows": self._db.dialect.document(map(self._row, completions))}

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

    def _write(
        self,
        connection: Connection,
        form: _Form,
        completions: Sequence[Completion],
        brought: Callable[[Sequence[Completion]], dict[str, Any]],
    ) -> set[Fence]:
        dialect = self._db.dialect
        fences = {(one.id, one.claim_no) for one in completions}
        now = {"now": dialect.moment(utcnow())} if dialect.local_clock else {}

        def count(some: Sequence[Completion]) -> int:
            return connection.execute(form.counting, brought(some) | now).rowcount

        if len(fences) == 1:
            return fences if count(completions) else set()
        if not dialect.update_returning:
            return self._write_counted(connection, completions, fences, count)
        values = brought(completions) | now | {"number": len(fences)}
        told: Sequence[Any] = connection.execute(form.telling, values).all()
        return fences if told and told[0] == ALL else {(id, number) for id, number in told}

    def _write_counted(
        self,
        connection: Connection,
        completions: Sequence[Completion],
        fences: set[Fence],
        count: Callable[[Sequence[Completion]], int],
    ) -> set[Fence]:
        """The same where an UPDATE tells only how many rows it has changed: all, as a rule."""
        # Not as a context: after a deadlock there is no savepoint to go back to, and that would be said.
        attempt = connection.begin_nested()
        if count(completions) == len(fences):
            attempt.commit()
            return fences
        attempt.rollback()
        ours = self._lock(connection, completions)
        left = [one for one in completions if (one.id, one.claim_no) in ours]
        if left:
            count(left)
        return ours

    def _lock(self, connection: Connection, completions: Sequence[Completion]) -> set[Fence]:
        """Lock the rows that are still the claimants', and only these; return their fences."""
        c = self._job.c
        fences = [(one.id, one.claim_no, one.owner) for one in completions]
        question = select(c.id, c.claim_no).where(tuple_(c.id, c.claim_no, c.owner).in_(fences))
        question = self._db.dialect.by_primary_key(question, self._job)
        found: Sequence[Any] = connection.execute(question.with_for_update()).all()
        return {(id, number) for id, number in found}


def _divide(completions: Sequence[Completion]) -> tuple[list[Completion], list[Completion]]:
    """Those that end for good, alike and without a text, and the others.

    They are most of what a busy daemon writes. The others' ends take the database half as long
    again, for all the columns that they may have something for.
    """
    plain: list[Completion] = []
    others: list[Completion] = []
    shared: tuple[Any, ...] | None = None
    for one in completions:
        if one[SAYS_MORE] == NOTHING_MORE and one.state in ENDED and one.started_at is not None:
            key = (one.owner, one.state, one.attempt, one.max_attempts)
            if shared is None or shared == key:
                shared = key
                plain.append(one)
                continue
        others.append(one)
    return plain, others
