"""The claim: due jobs become running ones that a daemon owns, due schedules make jobs (daemon)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, select, type_coerce, update
from sqlalchemy.sql.dml import Update

from ..policies import claim_alone
from ..records import RUNNING, Claim
from .cancels import Cancels
from .database import Database
from .holdings import Holdings
from .look import Due, Look
from .queues import is_active
from .rows import CLAIM_NAMES, Options, to_claims
from .schedules import Schedules
from .settling import Settling, by_pause
from .types import UtcDateTime

DUE, NAMED = "due", "named"
"""What a claim picks its jobs by: one queue, priority and time, or their ids."""

CLAIM_COLUMNS = tuple(name for name in Claim._fields if name not in ("claimed_at", "started"))
"""The fields of a Claim that are columns; the others are a clock's and ours to say."""

OWN_FIELDS: Final = Claim._fields.index("queue")
"""How many fields each has for itself, of those of one queue and priority."""

DISTANT_PAST: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""Before anything is due."""

_PLACE: Final = attrgetter("run_at", "id")
"""The order of claims of one priority."""


class Claims:
    """Claiming."""

    def __init__(
        self, database: Database, schedules: Schedules, settling: Settling, holdings: Holdings
    ) -> None:
        self._db = database
        self._holdings = holdings
        self._schedules = schedules
        self._settling = settling
        self._cancels = Cancels(database)
        self._job = database.tables.job
        now = database.dialect.now().label("claimed_at")
        columns: dict[str, Any] = {
            name: self._job.c[CLAIM_NAMES.get(name, name)] for name in CLAIM_COLUMNS
        }
        columns["options"] = type_coerce(columns["options"], Options())
        if not database.dialect.update_returning:
            # Read before they are changed.
            columns["owner"] = bindparam("claimant", type_=self._job.c.owner.type)
            columns["claim_no"] = self._job.c.claim_no + 1
        # The columns of a claim, in the fields' order; the last, ``started``, is ours to say.
        self.claimed: list[Any] = [
            {**columns, "claimed_at": now}[name] for name in Claim._fields[:-1]
        ]
        self._starting = (
            update(self._job)
            .where(self._job.c.id.in_(bindparam("picked", expanding=True)))
            .values(started_at=database.dialect.now())
        )
        # Building one, or telling that it is built already, takes longer than a database does to
        # answer it.
        self._kept: dict[str, tuple[Any, ...]] = {}

    def take(
        self,
        connection: Connection,
        owner: str,
        look: Look,
        limit: int,
        *,
        starting: int | None = None,
        aside: list[Claim] | None = None,
    ) -> list[Claim]:
        """Claim up to ``limit`` due jobs for ``owner``, by priority, then time.

        The first ``starting`` of them (default: all) start at once; the others wait, and a crash
        meanwhile is not charged to them.

        Due schedules make their jobs first, in the same transaction, and these may be among the
        claimed ones. Rows that another daemon is claiming are passed over where the database can.
        Jobs that were asked to stop while they ran, and wait again, end as cancelled instead. What
        was claimed and given back at once is put ``aside``.
        """
        self._db.dialect.begin_writing(connection)
        due, since = list(look.due), look.since
        now, claimed_at = look.now, look.clock_at(time.monotonic())
        if look.schedules_due:
            if look.is_real:
                # Asked again: on SQLite it may have waited long for the write lock.
                now = claimed_at = self._db.now(connection)
            born = self._schedules.fire(connection, look.queues, now=now)
            due = sorted({*due, *born}, key=lambda pair: pair[1])
            since = {pair: at for pair, at in since.items() if pair not in born}
        claims: Sequence[Claim] = ()
        twins: list[Claim] = []
        while not claims:
            picked = [(pair, since.get(pair, DISTANT_PAST)) for pair in due]
            times = (now, claimed_at)
            found = self._claim_due(connection, owner, picked, times, (starting, limit))
            claims, waiting = self._settle(connection, found)
            twins += waiting
            if not found:
                break
        # Only now: what is given back earlier would be claimed again.
        self._put_off(connection, twins)
        kept, given_back = claim_alone(claims)
        if given_back:
            self._holdings.release(connection, given_back)
        if aside is not None:
            aside += [*twins, *given_back]
        return kept

    def _claim_due(
        self,
        connection: Connection,
        owner: str,
        due: Sequence[tuple[Due, datetime]],
        times: tuple[datetime, datetime],
        numbers: tuple[int | None, int],
    ) -> list[Claim]:
        (now, claimed_at), (starting, limit) = times, numbers
        at_once = limit if starting is None else min(starting, limit)
        all_start = at_once >= limit
        claims: list[Claim] = []
        for (queue, priority), since in due:
            if len(claims) >= limit:
                break
            picked = {
                "from_queue": queue,
                "from_priority": priority,
                "since": since,
                "as_of": now,
                "wanted": limit - len(claims),
            }
            began = claimed_at if all_start else None
            rows = self._claim_rows(connection, DUE, picked, owner, began)
            shared = (queue, priority, owner, claimed_at, all_start)
            claims += sorted(to_claims(rows, shared), key=_PLACE)
        return claims if all_start else self._start(connection, claims, at_once)

    def take_named(
        self,
        connection: Connection,
        owner: str,
        ids: Sequence[str],
        *,
        aside: list[Claim] | None = None,
    ) -> list[Claim]:
        """Claim those of these jobs that wait, due or not, in the order of the ids.

        The first starts at once, the others after it; a crash before is not charged to them. Passed
        over are: cancelled and running ones, what another daemon is claiming, and the jobs of
        paused queues. What was claimed and given back at once is put ``aside``.
        """
        order = {id: place for place, id in enumerate(ids)}
        rows = self._claim_rows(connection, NAMED, {"named": list(ids)}, owner, None)
        found = to_claims(rows, (False,))
        found.sort(key=lambda claim: order[claim.id])
        claims, twins = self._settle(connection, self._start(connection, found, 1))
        self._put_off(connection, twins)
        if aside is not None:
            aside += twins
        return list(claims)

    def _start(self, connection: Connection, claims: list[Claim], number: int) -> list[Claim]:
        """Note that the first so many of these claims start at once."""
        first = [claim._replace(started=True) for claim in claims[:number]]
        if first:
            connection.execute(self._starting, {"picked": [claim.id for claim in first]})
        return first + claims[number:]

    def _settle(
        self, connection: Connection, claims: Sequence[Claim]
    ) -> tuple[Sequence[Claim], list[Claim]]:
        """Divide claims into those to run and those to put off; some end here instead."""
        unwanted = self._cancels.end(connection, claims)
        if unwanted:
            claims = [claim for claim in claims if claim.id not in unwanted]
        return self._settling.settle(connection, claims)

    def _put_off(self, connection: Connection, twins: Sequence[Claim]) -> None:
        for pause, group in by_pause(twins).items():
            self._holdings.release(connection, group, delay=pause)

    def _pick(self, pick: str, columns: Sequence[Any]) -> Select[Any]:
        c = self._job.c
        if pick == NAMED:
            named = c.id.in_(bindparam("named", expanding=True))
            active = is_active(self._db.tables, c.queue)
            picked = select(*columns).where(named, c.due_at.is_not(None), active)
        else:
            queue = bindparam("from_queue", type_=c.queue.type)
            as_of = bindparam("as_of", type_=UtcDateTime)
            picked = (
                select(*columns)
                .where(c.queue == queue, c.priority == bindparam("from_priority"))
                .where(c.due_at <= as_of)
                # What was claimed lies before it in the index until the database has cleaned up.
                .where(c.due_at >= bindparam("since", type_=UtcDateTime))
                # Once more: it may have been paused since the look.
                .where(is_active(self._db.tables, queue))
                .order_by(c.due_at)
                .limit(bindparam("wanted"))
            )
        if self._db.dialect.skip_locked:
            picked = picked.with_for_update(skip_locked=True, of=self._job)
        return picked

    def _claim_rows(
        self,
        connection: Connection,
        pick: str,
        values: Mapping[str, Any],
        owner: str,
        began: datetime | None,
    ) -> Sequence[Row[Any]]:
        change = {"claimant": owner, "began": began}
        first, *others = self._statements(pick)
        if not others:
            return connection.execute(first, {**values, **change}).all()
        rows: Sequence[Row[Any]] = connection.execute(first, {**values, "claimant": owner}).all()
        if rows:
            connection.execute(others[0], {**change, "picked": [row[0] for row in rows]})
        return rows

    def _statements(self, pick: str) -> tuple[Any, ...]:
        """What a claim executes: one statement, or two where an UPDATE cannot return rows."""
        kept = self._kept.get(pick)
        if kept is None:
            columns = self.claimed[:OWN_FIELDS] if pick == DUE else self.claimed
            began = bindparam("began", type_=UtcDateTime)
            if self._db.dialect.update_returning:
                picked = self._pick(pick, [self._job.c.id])
                kept = (self.claiming(picked, began).returning(*columns),)
            else:
                these = self._job.c.id.in_(bindparam("picked", expanding=True))
                kept = (self._pick(pick, columns), self._claiming(began).where(these))
            self._kept[pick] = kept
        return kept

    def claiming(self, picked: Select[tuple[str]], began: Any) -> Update:
        """Return the statement by which ``claimant`` claims what is picked, started as it ``began``."""
        among = self._db.dialect.among(self._job.c.id, picked)
        return self._claiming(began).where(among)

    def _claiming(self, began: Any) -> Update:
        return update(self._job).values(
            state=RUNNING,
            owner=bindparam("claimant"),
            claim_no=self._job.c.claim_no + 1,
            due_at=None,
            started_at=began,
        )
