"""What a daemon holds: claims that are noted as started, kept up, and given back (daemon)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from ..records import SCHEDULED, Claim
from .database import Database
from .fencing import fence
from .userdata import ScheduleUserdata


class Holdings:
    """Claims from the moment they are somebody's to their end."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._job = database.tables.job
        self._userdata = ScheduleUserdata(database)

    def mark_started(self, connection: Connection, claims: Iterable[Claim]) -> int:
        """Note that claimed jobs have started, or are about to; returns how many are still ours."""
        c, ids = self._job.c, list[str]()
        for ours in self._rows_of((claim.id, claim.claim_no, claim.owner) for claim in claims):
            # One that is locked is about to end: the heartbeat must not wait for it.
            free = select(c.id).where(*ours, c.started_at.is_(None))
            ids += connection.execute(free.with_for_update(skip_locked=True)).scalars()
        if ids:
            now = self._db.dialect.now()
            connection.execute(update(self._job).where(c.id.in_(ids)).values(started_at=now))
        return len(ids)

    def release(
        self,
        connection: Connection,
        claims: Iterable[Claim],
        *,
        delay: float = 0.0,
        due_at: datetime | None = None,
    ) -> int:
        """Give back claimed jobs that have not started; returns how many were still ours.

        They are due again when they were first, so that they keep their place, or after ``delay``
        seconds, or at ``due_at``; it costs them no attempt.
        """
        fences = ((claim.id, claim.claim_no, claim.owner) for claim in claims)
        again = due_at or (self._db.soon(delay) if delay else self._job.c.run_at)
        return self._release(connection, fences, again)

    def _release(
        self, connection: Connection, fences: Iterable[tuple[str, int, str]], due_at: Any
    ) -> int:
        free = {"state": SCHEDULED, "owner": None, "started_at": None, "due_at": due_at}
        updates = (update(self._job).where(*ours).values(free) for ours in self._rows_of(fences))
        return sum(connection.execute(statement).rowcount for statement in updates)

    def _rows_of(
        self, fences: Iterable[tuple[str, int, str]]
    ) -> Iterator[tuple[ColumnElement[bool], ...]]:
        """What holds for the rows of these claims, for those together whose fence is the same.

        A database would try a list of (id, number, owner) one by one, in the plan and in each row.
        """
        alike: dict[tuple[int, str], list[str]] = defaultdict(list)
        for id, number, owner in fences:
            alike[number, owner].append(id)
        for (number, owner), ids in alike.items():
            yield self._job.c.id.in_(ids), *fence(self._job, number, owner)

    def owned(self, connection: Connection, owner: str) -> set[tuple[str, int]]:
        """Return what a daemon has claimed and not ended, as (id, claim_no)."""
        c = self._job.c
        question = select(c.id, c.claim_no).where(c.owner == owner)
        found: Sequence[Any] = connection.execute(question).all()
        return {(id, number) for id, number in found}

    def release_owned(
        self, connection: Connection, owner: str, fences: Collection[tuple[str, int]]
    ) -> int:
        """Give back claims of ``owner`` that are known by (id, claim_no) only; returns how many."""
        ours = ((id, number, owner) for id, number in fences)
        return self._release(connection, ours, self._job.c.run_at)

    def save_userdata(self, connection: Connection, claim: Claim, userdata: str) -> bool:
        """Keep a running job's userdata; False when the claim is another daemon's by now.

        Its schedule gets it too, unless somebody has locked that: the job itself may have, in its
        own transaction. Then it gets it when the attempt ends.
        """
        schedule = claim.schedule_id
        carry = schedule is not None and self._userdata.hold(connection, [schedule], wait=False)
        is_ours = fence(self._job, claim.claim_no, claim.owner)
        ours = update(self._job).where(self._job.c.id == claim.id, *is_ours)
        statement = ours.values(userdata=userdata)
        if connection.execute(statement).rowcount != 1:
            return False
        if carry and schedule is not None:
            self._userdata.put(connection, {schedule: userdata})
        return True
