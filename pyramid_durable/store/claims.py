"""The claim: due jobs become running ones that a daemon owns, due schedules make jobs (daemon)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Select,
    Transaction,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.sql.dml import Update

from ..policies import claim_alone
from ..records import PRIORITIES, RUNNING, SCHEDULED, Claim
from ..times import utcnow
from .cancels import Cancels
from .database import Database
from .fencing import fence
from .queues import is_active
from .rows import CLAIM_NAMES, Options, to_claims
from .schedules import Schedules
from .settling import Settling, by_pause
from .types import UtcDateTime
from .userdata import ScheduleUserdata

Due = tuple[str, int]
"""A queue and a priority that have work."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the store holds for a daemon at this moment, seen without a lock.

    ``due`` is in the order to claim in: by priority, then by the time of the job that waits
    longest. ``next_at`` is the earliest time that is not due yet, None when nothing waits. ``as_of``
    is the time that took the clock's place, if one did. ``seen_in`` is the transaction, where it was
    in one: it is limited, and planned, as a claim's has to be.
    """

    now: datetime
    as_of: datetime | None
    queues: tuple[str, ...]
    due: tuple[Due, ...]
    next_at: datetime | None
    schedules_due: bool
    seen_in: Transaction | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to claim."""
        return not self.due and not self.schedules_due


DUE, DUE_AS_OF, NAMED = "due", "due as of", "named"
"""What a claim picks its jobs by: the database's clock, a time that takes its place, their ids."""

CLAIM_COLUMNS = tuple(name for name in Claim._fields if name not in ("claimed_at", "started"))
"""The fields of a Claim that are columns; the others are the database's clock and ours to say."""

_PLACE: Final = attrgetter("run_at", "id")
"""The order of claims of one priority."""


class Claims:
    """Claiming and giving back."""

    def __init__(self, database: Database, schedules: Schedules, settling: Settling) -> None:
        self._db = database
        self._schedules = schedules
        self._settling = settling
        self._cancels = Cancels(database)
        self._job = database.tables.job
        self._userdata = ScheduleUserdata(database)
        now = database.dialect.now().label("claimed_at")
        columns: dict[str, Any] = {
            name: self._job.c[CLAIM_NAMES.get(name, name)] for name in CLAIM_COLUMNS
        }
        columns["options"] = type_coerce(columns["options"], Options())
        self._claimed = {
            started: [
                {**columns, "claimed_at": now, "started": literal_column(str(int(started)))}[name]
                for name in Claim._fields
            ]
            for started in (False, True)
        }
        self._questions: dict[tuple[str, ...], Select[Any]] = {}
        # By what they pick, and whether it starts at once: building one, or telling that it is
        # built already, takes longer than a database does to answer it.
        self._kept: dict[tuple[str, bool], tuple[Any, ...]] = {}

    def look(
        self, connection: Connection, queues: Sequence[str], *, now: datetime | None = None
    ) -> Look:
        """See what is due on these queues; one statement, whose cost is a few index probes.

        ``now`` takes the database's clock's place for what is due.

        One index over (queue, priority, due_at) answers for each queue and priority apart; a
        single range over priority and time would walk all jobs of the future.
        """
        names = tuple(queues)
        question = self._questions.get(names)
        if question is None:
            question = self._questions[names] = self._question(names)
        row = tuple(connection.execute(question).one())
        as_of, (now, schedule_at) = now, row[:2]
        now = as_of or now
        pairs: list[tuple[int, datetime, str]] = []
        waiting: list[datetime] = []
        width = 1 + len(PRIORITIES)
        for index, queue in enumerate(names):
            paused, *times = row[2 + index * width : 2 + (index + 1) * width]
            if paused:
                continue
            for priority, at in zip(PRIORITIES, times, strict=True):
                if at is not None and at <= now:
                    pairs.append((priority, at, queue))
                elif at is not None:
                    waiting.append(at)
        schedules_due = schedule_at is not None and schedule_at <= now
        if schedule_at is not None and not schedules_due:
            waiting.append(schedule_at)
        return Look(
            now=now,
            as_of=as_of,
            queues=names,
            due=tuple((queue, priority) for priority, _, queue in sorted(pairs)),
            next_at=min(waiting, default=None),
            schedules_due=schedules_due,
            seen_in=connection.get_transaction(),
        )

    def _question(self, queues: tuple[str, ...]) -> Select[Any]:
        job, queue, schedule = self._job.c, self._db.tables.queue.c, self._db.tables.schedule.c
        columns: list[Any] = [
            self._db.dialect.now().label("now"),
            select(func.min(schedule.due_at))
            # Not as IN, whose list would be written into the statement anew each time.
            .where(or_(*(schedule.queue == name for name in queues)), schedule.due_at.is_not(None))
            .where(is_active(self._db.tables, schedule.queue))
            .scalar_subquery(),
        ]
        for name in queues:
            columns.append(select(queue.paused).where(queue.name == name).scalar_subquery())
            columns.extend(
                select(job.due_at)
                .where(job.queue == name, job.priority == priority, job.due_at.is_not(None))
                .order_by(job.due_at)
                .limit(1)
                .scalar_subquery()
                for priority in PRIORITIES
            )
        return select(*columns, *map(literal_column, self._db.dialect.settings))

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
        if look.seen_in is not connection.get_transaction():
            self._db.dialect.plan_by_index(connection)
        self._db.dialect.begin_writing(connection)
        due = list(look.due)
        if look.schedules_due:
            born = self._schedules.fire(connection, look.queues, now=look.as_of)
            due = sorted({*due, *born}, key=lambda pair: pair[1])
        claims: Sequence[Claim] = ()
        twins: list[Claim] = []
        while not claims:
            found = self._claim_due(connection, owner, due, look.as_of, (starting, limit))
            claims, waiting = self._settle(connection, found)
            twins += waiting
            if not found:
                break
        # Only now: what is given back earlier would be claimed again.
        self._put_off(connection, twins)
        kept, given_back = claim_alone(claims)
        if given_back:
            self.release(connection, given_back)
        if aside is not None:
            aside += [*twins, *given_back]
        return kept

    def _claim_due(
        self,
        connection: Connection,
        owner: str,
        due: Sequence[Due],
        as_of: datetime | None,
        numbers: tuple[int | None, int],
    ) -> list[Claim]:
        starting, limit = numbers
        at_once = limit if starting is None else min(starting, limit)
        if as_of is None and self._db.dialect.local_clock:
            as_of = utcnow()
        pick, moment = (DUE, {}) if as_of is None else (DUE_AS_OF, {"as_of": as_of})
        claims: list[Claim] = []
        for queue, priority in due:
            if len(claims) >= limit:
                break
            for number, started in ((at_once - len(claims), True), (limit, False)):
                wanted = min(number, limit - len(claims))
                if wanted <= 0:
                    continue
                picked = {
                    "from_queue": queue,
                    "from_priority": priority,
                    "wanted": wanted,
                    **moment,
                }
                found = self._claim_rows(connection, owner, pick, picked, started=started)
                claims.extend(sorted(found, key=_PLACE))
                if len(found) < wanted:
                    break  # that was all of them
        return claims

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
        claims: Sequence[Claim] = []
        for part, started in ((ids[:1], True), (ids[1:], False)):
            if part:
                picked = {"named": list(part)}
                rows = self._claim_rows(connection, owner, NAMED, picked, started=started)
                claims = [*claims, *rows]
        claims, twins = self._settle(connection, claims)
        self._put_off(connection, twins)
        if aside is not None:
            aside += twins
        order = {id: place for place, id in enumerate(ids)}
        return sorted(claims, key=lambda claim: order[claim.id])

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
            self.release(connection, group, delay=pause)

    def _pick(self, pick: str) -> Select[tuple[str]]:
        c = self._job.c
        if pick == NAMED:
            named = c.id.in_(bindparam("named", expanding=True))
            active = is_active(self._db.tables, c.queue)
            picked = select(c.id).where(named, c.due_at.is_not(None), active)
        else:
            queue = bindparam("from_queue", type_=c.queue.type)
            now = bindparam("as_of", type_=UtcDateTime) if pick == DUE_AS_OF else self._db.soon()
            picked = (
                select(c.id)
                .where(c.queue == queue, c.priority == bindparam("from_priority"), c.due_at <= now)
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
        owner: str,
        pick: str,
        values: Mapping[str, Any],
        *,
        started: bool,
    ) -> list[Claim]:
        first, *others = self._statements(pick, started=started)
        if not others:
            return to_claims(connection.execute(first, {**values, "claimant": owner}).all())
        ids = connection.execute(first, values).scalars().all()
        if not ids:
            return []
        claiming, claimed = others
        connection.execute(claiming, {"picked": ids, "claimant": owner})
        return to_claims(connection.execute(claimed, {"picked": ids}).all())

    def _statements(self, pick: str, *, started: bool) -> tuple[Any, ...]:
        """What a claim executes: one statement, or three where an UPDATE cannot return rows."""
        kept = self._kept.get((pick, started))
        if kept is None:
            c, claimed = self._job.c, self._claimed[started]
            picked = self._pick(pick)
            claiming = self._claiming(bindparam("claimant"), started=started)
            if self._db.dialect.update_returning:
                among = self._db.dialect.among(c.id, picked)
                kept = (claiming.where(among).returning(*claimed),)
            else:
                these = c.id.in_(bindparam("picked", expanding=True))
                kept = (picked, claiming.where(these), select(*claimed).where(these))
            self._kept[pick, started] = kept
        return kept

    def _claiming(self, owner: Any, *, started: bool) -> Update:
        return update(self._job).values(
            state=RUNNING,
            owner=owner,
            claim_no=self._job.c.claim_no + 1,
            due_at=None,
            started_at=self._db.dialect.now() if started else None,
        )

    def mark_started(self, connection: Connection, claims: Iterable[Claim]) -> int:
        """Note that claimed jobs have started, or are about to; returns how many are still ours."""
        c = self._job.c
        fences = [(claim.id, claim.claim_no, claim.owner) for claim in claims]
        ours = (tuple_(c.id, c.claim_no, c.owner).in_(fences), c.started_at.is_(None))
        # One that is locked is about to end: the heartbeat must not wait for it.
        free = select(c.id).where(*ours).with_for_update(skip_locked=True)
        ids = connection.execute(free).scalars().all()
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
        c = self._job.c
        fences = [(claim.id, claim.claim_no, claim.owner) for claim in claims]
        statement = (
            update(self._job)
            .where(tuple_(c.id, c.claim_no, c.owner).in_(fences))
            .values(self._free(due_at or (self._db.soon(delay) if delay else c.run_at)))
        )
        return connection.execute(statement).rowcount

    def _free(self, due_at: Any) -> dict[str, Any]:
        return {"state": SCHEDULED, "owner": None, "started_at": None, "due_at": due_at}

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
        c = self._job.c
        statement = (
            update(self._job)
            .where(tuple_(c.id, c.claim_no).in_(list(fences)), c.owner == owner)
            .values(self._free(c.run_at))
        )
        return connection.execute(statement).rowcount

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
