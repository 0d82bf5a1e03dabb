"""The end of an attempt, written under the claim's fence, many at a time (daemon)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import Connection, delete, select, text, tuple_

from ..records import SCHEDULED, Completion
from ..times import utcnow
from .database import Database
from .dialects import PostgreSQL, SQLite

Fence = tuple[str, int]

COLUMNS = (
    ("id", "text", "VARCHAR(120)"),
    ("owner", "text", "VARCHAR(36)"),
    ("claim_no", "integer", "INTEGER"),
    ("state", "text", "VARCHAR(10)"),
    ("attempt", "integer", "INTEGER"),
    ("started_at", "timestamptz", "DATETIME(6)"),
    ("due_at", "timestamptz", "DATETIME(6)"),
    ("max_attempts", "integer", "INTEGER"),
    ("result", "text", "LONGTEXT"),
    ("errors", "text", "LONGTEXT"),
    ("userdata", "text", "LONGTEXT"),
)
"""What a completion carries: its name, and its type on PostgreSQL and MariaDB."""

CHANGES = """
    state = v.state,
    attempt = v.attempt,
    started_at = v.started_at,
    due_at = v.due_at,
    max_attempts = v.max_attempts,
    result = v.result,
    errors = v.errors,
    userdata = v.userdata,
    owner = NULL,
    finished_at = CASE WHEN v.state = 'scheduled' THEN NULL ELSE {now} END,
    overlap_key = CASE WHEN v.state = 'scheduled' THEN j.overlap_key END,
    waiting_key = CASE WHEN v.state = 'scheduled' THEN j.waiting_key END
"""

FENCE = "j.id = v.id AND j.claim_no = v.claim_no AND j.owner = v.owner"


class Completions:
    """Writing how attempts ended.

    A batch is one statement whose text does not depend on its size: arrays on PostgreSQL, one
    JSON document on the others.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._job = database.tables.job

    def write(self, connection: Connection, completions: Sequence[Completion]) -> set[Fence]:
        """Write these ends; returns the (id, claim_no) of those that were still the claimant's.

        The others matched nothing: another daemon has the job now, and nothing was changed.
        """
        accepted: set[Fence] = set()
        kept = [completion for completion in completions if not completion.delete]
        for completion in completions:
            if completion.delete and self._delete(connection, completion):
                accepted.add((completion.id, completion.claim_no))
        if kept:
            accepted |= self._write(connection, kept)
        return accepted

    def _delete(self, connection: Connection, completion: Completion) -> bool:
        c = self._job.c
        fence = (c.claim_no == completion.claim_no, c.owner == completion.owner)
        gone = connection.execute(delete(self._job).where(c.id == completion.id, *fence))
        return gone.rowcount == 1

    def _write(self, connection: Connection, completions: Sequence[Completion]) -> set[Fence]:
        rows = [self._row(connection, completion) for completion in completions]
        name = connection.dialect.name
        if name in PostgreSQL.names:
            return self._write_arrays(connection, rows)
        if name in SQLite.names:
            return self._write_sqlite(connection, rows)
        return self._write_mariadb(connection, rows)

    def _row(self, connection: Connection, completion: Completion) -> dict[str, Any]:
        row = {name: getattr(completion, name) for name, _, _ in COLUMNS}
        if completion.state == SCHEDULED and completion.due_at is None:
            # Rare enough (a retry) to ask for the clock apart.
            now = utcnow() if self._db.dialect.local_clock else self._db.now(connection)
            row["due_at"] = now + timedelta(seconds=completion.delay or 0.0)
        return row

    def _write_arrays(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> set[Fence]:
        arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind, _ in COLUMNS)
        names = ", ".join(name for name, _, _ in COLUMNS)
        statement = text(
            f"UPDATE {self._name} AS j SET {CHANGES.format(now='statement_timestamp()')} "
            f"FROM unnest({arrays}) AS v({names}) "
            f"WHERE {FENCE} AND j.id = ANY(CAST(:id AS text[])) RETURNING j.id, j.claim_no"
        )
        values = {name: [row[name] for row in rows] for name, _, _ in COLUMNS}
        if len(rows) > 1:
            self._db.dialect.plan_by_index(connection)
        return {(id, number) for id, number in connection.execute(statement, values)}

    def _write_sqlite(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> set[Fence]:
        names = ", ".join(
            f"json_extract(value, '$[{index}]') AS {name}"
            for index, (name, _, _) in enumerate(COLUMNS)
        )
        statement = text(
            f"UPDATE {self._name} AS j SET {CHANGES.format(now=':now')} "
            f"FROM (SELECT {names} FROM json_each(:rows)) AS v "
            f"WHERE {FENCE} RETURNING id, claim_no"
        )
        values = {"rows": _document(rows), "now": _plain(utcnow())}
        return {(id, number) for id, number in connection.execute(statement, values)}

    def _write_mariadb(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> set[Fence]:
        # Without RETURNING, what still is ours is locked first, and only that is written.
        c = self._job.c
        fence = tuple_(c.id, c.claim_no, c.owner)
        question = select(c.id, c.claim_no, c.owner).where(fence.in_([_fence(row) for row in rows]))
        found = {tuple(row) for row in connection.execute(question.with_for_update())}
        ours = [row for row in rows if _fence(row) in found]
        if ours:
            names = ", ".join(
                f"{name} {kind} PATH '$[{index}]'" for index, (name, _, kind) in enumerate(COLUMNS)
            )
            statement = text(
                f"UPDATE {self._name} AS j "
                f"JOIN JSON_TABLE(:rows, '$[*]' COLUMNS ({names})) AS v ON {FENCE} "
                f"SET {CHANGES.format(now='UTC_TIMESTAMP(6)').replace('    ', '    j.')}"
            )
            connection.execute(statement, {"rows": _document(ours)})
        return {(row["id"], row["claim_no"]) for row in ours}

    @property
    def _name(self) -> str:
        return self._job.fullname


def _fence(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["id"], row["claim_no"], row["owner"]


def _plain(value: Any) -> Any:
    """A datetime as both SQLite and MariaDB keep it: UTC, without its zone."""
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).replace(tzinfo=None).isoformat(" ", "microseconds")
    return value


def _document(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps([[_plain(row[name]) for name, _, _ in COLUMNS] for row in rows])
