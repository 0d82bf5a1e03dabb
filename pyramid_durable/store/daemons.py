"""Verbs about daemons: register, beat, leave, and the rescue of a dead one's work (daemon)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, select, update

from ..records import FAILED, SCHEDULED
from .database import Database


@dataclass(frozen=True, kw_only=True)
class DaemonInfo:
    """A daemon as the store knows it; ``incarnation`` is new at every start of its process."""

    incarnation: str
    label: str
    host: str
    pid: int
    queues: tuple[str, ...]
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Rescued:
    """A job taken from a daemon that is gone. ``ended`` when it was its last allowed crash."""

    id: str
    queue: str
    owner: str
    claim_no: int
    crashes: int
    ended: bool


class Daemons:
    """The daemon table, and the running jobs of those who are gone."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._table = database.tables.daemon
        self._job = database.tables.job

    def register(self, connection: Connection, daemon: DaemonInfo) -> None:
        """Make a daemon known; from now on it has to beat."""
        now = self._db.soon()
        values = {
            "incarnation": daemon.incarnation,
            "label": daemon.label,
            "host": daemon.host,
            "pid": daemon.pid,
            "queues": json.dumps(daemon.queues),
        }
        row = self._table.insert().values(**values, started_at=now, heartbeat_at=now)
        connection.execute(row)

    def beat(self, connection: Connection, incarnation: str) -> bool:
        """Renew the lease on all that this incarnation has claimed.

        False: it was declared dead, its work is with others, and it needs a new incarnation.
        """
        self._db.dialect.limit_transaction(connection)
        statement = (
            update(self._table)
            .where(self._table.c.incarnation == incarnation)
            .values(heartbeat_at=self._db.soon())
        )
        return connection.execute(statement).rowcount == 1

    def leave(self, connection: Connection, incarnation: str) -> None:
        """Take a daemon off the list; what it still has claimed is rescued at the next look."""
        connection.execute(delete(self._table).where(self._table.c.incarnation == incarnation))

    def list(self, connection: Connection) -> list[DaemonInfo]:
        """Return the daemons on the list, the eldest first."""
        question = select(self._table).order_by(self._table.c.started_at)
        return [
            DaemonInfo(
                incarnation=row.incarnation,
                label=row.label,
                host=row.host,
                pid=row.pid,
                queues=tuple(json.loads(row.queues)),
                started_at=row.started_at,
                heartbeat_at=row.heartbeat_at,
            )
            for row in connection.execute(question)
        ]

    def rescue(
        self, connection: Connection, *, lease: float, poison_limit: int
    ) -> Sequence[Rescued]:
        """Take the work of daemons that have not beaten for ``lease`` seconds.

        Their rows go, and so does any claim whose owner has none: a claim that was committed by a
        daemon after it was declared dead is found here too. Rows that are locked, by a completion
        that is about to commit, are passed over until the next time.
        """
        self._db.dialect.limit_transaction(connection)
        name = self._table.c.incarnation
        silent = select(name).where(self._table.c.heartbeat_at < self._db.soon(-lease))
        # One that is beating at this moment holds its row: it is not dead, and not waited for.
        dead = connection.execute(silent.with_for_update(skip_locked=True)).scalars().all()
        if dead:
            connection.execute(delete(self._table).where(name.in_(dead)))
        living = exists().where(self._table.c.incarnation == self._job.c.owner)
        question = (
            select(self._job)
            .where(self._job.c.owner.is_not(None), ~living)
            .with_for_update(skip_locked=True, of=self._job)
        )
        rows = connection.execute(question).all()
        return [self._rescue(connection, row, poison_limit) for row in rows]

    def _rescue(self, connection: Connection, row: Row[Any], poison_limit: int) -> Rescued:
        crashes = row.crashes + (1 if row.started_at is not None else 0)
        ended = crashes >= poison_limit
        values: dict[str, Any] = {"owner": None, "crashes": crashes}
        if ended:
            reason = f"its daemon died {crashes} times while it ran (scheduler.poison_limit)"
            errors = [*json.loads(row.errors or "[]"), reason]
            values |= {"state": FAILED, "finished_at": self._db.soon(), "overlap_key": None}
            values |= {"waiting_key": None, "errors": json.dumps(errors)}
        else:
            values |= {"state": SCHEDULED, "due_at": self._db.soon(), "started_at": None}
        fence = (self._job.c.claim_no == row.claim_no, self._job.c.owner == row.owner)
        connection.execute(update(self._job).where(self._job.c.id == row.id, *fence).values(values))
        return Rescued(
            id=row.id,
            queue=row.queue,
            owner=row.owner,
            claim_no=row.claim_no,
            crashes=crashes,
            ended=ended,
        )
