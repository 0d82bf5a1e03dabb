"""Verbs about daemons: register, beat, leave, and the rescue of a dead one's work (daemon)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, select, tuple_, update

from ..records import CANCELLED, FAILED, SCHEDULED, Claim
from .cancels import Cancels
from .database import Database
from .fencing import fence
from .rows import ended_values, with_reason


@dataclass(frozen=True, kw_only=True)
class DaemonInfo:
    """A daemon as the store knows it; ``incarnation`` is new at every start of its process.

    ``declares`` is the digest of the schedules it declares, None where it leaves them alone;
    ``generation`` is the number the store has for that.
    """

    incarnation: str
    label: str
    host: str
    pid: int
    queues: tuple[str, ...]
    declares: str | None = None
    generation: int | None = None
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Rescued:
    """A job taken from a daemon, or a process, that is gone.

    It waits again, unless it ``ended`` as failed, when it was its last allowed crash, or as
    ``cancelled``, when it had been asked to stop. ``started`` tells whether its attempt was known to
    have; otherwise this is no crash of it. ``attempt`` counts the attempts used up, which a crash
    does not add to.
    """

    id: str
    name: str | None
    func: str
    queue: str
    kind: str
    group: str | None
    schedule_id: str | None
    attempt: int
    max_attempts: int | None
    owner: str
    claim_no: int
    crashes: int
    started: bool
    ended: bool
    cancelled: bool = False


class Daemons:
    """The daemon table, and the running jobs of those who are gone."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._table = database.tables.daemon
        self._job = database.tables.job
        self._cancels = Cancels(database)

    def register(self, connection: Connection, daemon: DaemonInfo) -> None:
        """Make a daemon known; from now on it has to beat."""
        now = self._db.soon()
        values = {
            "incarnation": daemon.incarnation,
            "label": daemon.label,
            "host": daemon.host,
            "pid": daemon.pid,
            "queues": json.dumps(daemon.queues),
            "declares": daemon.declares,
        }
        row = self._table.insert().values(**values, started_at=now, heartbeat_at=now)
        connection.execute(row)

    def beat(self, connection: Connection, incarnation: str) -> bool:
        """Renew the lease on all that this incarnation has claimed.

        False: it was declared dead, its work is with others, and it needs a new incarnation.
        """
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
        known = self._db.tables.generation
        joined = self._table.outerjoin(known, known.c.digest == self._table.c.declares)
        question = select(self._table, known.c.number).select_from(joined)
        return [
            DaemonInfo(
                incarnation=row.incarnation,
                label=row.label,
                host=row.host,
                pid=row.pid,
                queues=tuple(json.loads(row.queues)),
                declares=row.declares,
                generation=row.number,
                started_at=row.started_at,
                heartbeat_at=row.heartbeat_at,
            )
            for row in connection.execute(question.order_by(self._table.c.started_at))
        ]

    def serves(self, connection: Connection, queue: str, *, lease: float) -> bool:
        """Tell whether a daemon that beats, within ``lease`` seconds, serves the queue."""
        alive = self._table.c.heartbeat_at >= self._db.soon(-lease)
        found = connection.execute(select(self._table.c.queues).where(alive)).scalars()
        return any(queue in json.loads(queues) for queues in found)

    def rescue(
        self, connection: Connection, *, lease: float, poison_limit: int
    ) -> Sequence[Rescued]:
        """Take the work of daemons that have not beaten for ``lease`` seconds.

        Their rows go, and so does any claim whose owner has none: a claim that was committed by a
        daemon after it was declared dead is found here too. Rows that are locked, by a completion
        that is about to commit, are passed over until the next time.
        """
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
        if not rows:
            return []
        # Asked again with the rows in hand: one that was being rescued and claimed anew meanwhile
        # is locked with its new owner, who may have come after the question's own snapshot.
        owners = {row.owner for row in rows}
        there = set(connection.execute(select(name).where(name.in_(owners))).scalars())
        gone = [(row, row.started_at is not None) for row in rows if row.owner not in there]
        return self._take_back(connection, gone, poison_limit)

    def interrupt(
        self, connection: Connection, claims: Iterable[Claim], *, poison_limit: int
    ) -> Sequence[Rescued]:
        """Take claims back whose attempt was cut short though their daemon lives.

        What cut it short, its process or its connection to the store, counts as a crash. Claims
        that are another daemon's by now are passed over.
        """
        c = self._job.c
        fences = [(claim.id, claim.claim_no, claim.owner) for claim in claims]
        question = (
            select(self._job).where(tuple_(c.id, c.claim_no, c.owner).in_(fences)).with_for_update()
        )
        rows = connection.execute(question).all()
        return self._take_back(connection, [(row, True) for row in rows], poison_limit)

    def _take_back(
        self, connection: Connection, rows: Sequence[tuple[Row[Any], bool]], poison_limit: int
    ) -> Sequence[Rescued]:
        """Free these rows; each comes with whether its job had started."""
        asked = self._cancels.requested(connection, [row.id for row, _ in rows])
        return [
            self._free(connection, row, poison_limit, started=started, asked=row.id in asked)
            for row, started in rows
        ]

    def _free(
        self,
        connection: Connection,
        row: Row[Any],
        poison_limit: int,
        *,
        started: bool,
        asked: bool,
    ) -> Rescued:
        crashes = row.crashes + started
        ended = crashes >= poison_limit and started and not asked
        state = CANCELLED if asked else FAILED if ended else SCHEDULED
        values: dict[str, Any] = {"owner": None, "crashes": crashes, "state": state}
        if ended:
            reason = (
                f"its daemon died {crashes} times while it ran, or its process or its connection "
                "to the store did (scheduler.poison_limit)"
            )
            values["errors"] = with_reason(row.errors, reason)
        if state == SCHEDULED:
            values |= {"due_at": self._db.soon(), "started_at": None}
        else:
            values |= ended_values(state, self._db.soon())
        is_its = fence(self._job, row.claim_no, row.owner)
        connection.execute(
            update(self._job).where(self._job.c.id == row.id, *is_its).values(values)
        )
        return Rescued(
            id=row.id,
            name=row.name,
            func=row.func,
            queue=row.queue,
            kind=row.kind,
            group=row.group_name,
            schedule_id=row.schedule_id,
            attempt=row.attempt,
            max_attempts=row.max_attempts,
            owner=row.owner,
            claim_no=row.claim_no,
            crashes=crashes,
            started=started,
            ended=ended,
            cancelled=asked,
        )
