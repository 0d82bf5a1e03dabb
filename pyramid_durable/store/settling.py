"""What behaviors do when jobs are claimed, and when they have succeeded (daemon)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, select, update

from ..behaviors import KEY_OPTION, LAST_ONLY, SETTLED
from ..records import CANCELLED, RUNNING, SCHEDULED, Claim
from .behaviors import last_name, once_name
from .database import Database
from .fencing import fence
from .rows import ended_values, load_options, with_reason

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds until a twin looks again, doubling with each look: it should go on soon after a short
job, and a thousand twins of one that takes hours must not keep the daemons busy."""


def twin_pause(claim: Claim) -> float:
    """How long the twin of a job that is at work waits until it looks again, in seconds."""
    return min(FIRST_PAUSE * 2.0 ** min(claim.claim_no - 1, 20), LONGEST_PAUSE)


@dataclass(kw_only=True)
class _Holder:
    job_id: str
    succeeded_at: datetime | None


class Settling:
    """Decides which of the claimed jobs may run, for the behaviors that two can wait with.

    Who holds a key is decided by the holder's own row: it counts while that job waits or runs. So
    nothing is to be freed when it fails, crashes, is cancelled or removed; only a success has to
    be written, and outlives the job.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._job = database.tables.job
        self._holder = database.tables.holder
        self._insert = database.dialect.insert(self._holder)

    def settle(
        self, connection: Connection, claims: Sequence[Claim]
    ) -> tuple[Sequence[Claim], list[Claim]]:
        """Divide claims into those to run and those that have to wait for an equal one.

        The others are ended, as cancelled. In the claim's own transaction, and without a statement
        where no claim has such a behavior.
        """
        asked = {
            claim.id: (claim.options["behavior"], claim.options[KEY_OPTION])
            for claim in claims
            if claim.options
            and claim.options.get("behavior") in SETTLED
            and KEY_OPTION in claim.options
        }
        if not asked:
            return claims, []
        once = [c for c in claims if c.id in asked and asked[c.id][0] != LAST_ONLY]
        last = [c for c in claims if c.id in asked and asked[c.id][0] == LAST_ONLY]
        over: dict[str, str] = {}
        if last:
            over |= self._passed(connection, last)
        waiting: list[Claim] = []
        if once:
            done, waiting = self._twins(connection, once)
            over |= done
        self._end(connection, [claim for claim in claims if claim.id in over], over)
        out = over.keys() | {claim.id for claim in waiting}
        return [claim for claim in claims if claim.id not in out], waiting

    def note_successes(self, connection: Connection, keys: Collection[str]) -> None:
        """Keep for good that the jobs which hold these keys have succeeded."""
        statement = update(self._holder).where(self._holder.c.name.in_(map(once_name, keys)))
        connection.execute(statement.values(succeeded_at=self._db.soon()))

    def _passed(self, connection: Connection, claims: Sequence[Claim]) -> dict[str, str]:
        """Those for which a newer one was asked for: they ran, and came back to wait."""
        names = {claim.id: last_name(claim.options[KEY_OPTION]) for claim in claims}
        c = self._holder.c
        question = select(c.name, c.job_id).where(c.name.in_(names.values()))
        newest = {row.name: row.job_id for row in connection.execute(question)}
        return {
            id: f"an equal job was asked for later: {newest[name]}"
            for id, name in names.items()
            if newest.get(name, id) != id
        }

    def _twins(
        self, connection: Connection, claims: Sequence[Claim]
    ) -> tuple[dict[str, str], list[Claim]]:
        """Those that end because an equal one has succeeded, and those that wait for one."""
        first: dict[str, str] = {}
        for claim in claims:
            first.setdefault(once_name(claim.options[KEY_OPTION]), claim.id)
        holders = self._lock(connection, first)
        alive = self._alive(connection, holders.values())
        done: dict[str, str] = {}
        waiting: list[Claim] = []
        taken: dict[str, str] = {}
        for claim in claims:
            name = once_name(claim.options[KEY_OPTION])
            holder = holders.get(name)
            if holder is None:
                # Another daemon is deciding about it, or writing that it has succeeded.
                waiting.append(claim)
            elif holder.succeeded_at is not None:
                done[claim.id] = f"an equal job has succeeded: {holder.job_id}"
            elif (
                holder.job_id != claim.id and alive.get(holder.job_id) == claim.options[KEY_OPTION]
            ):
                waiting.append(claim)
            elif holder.job_id != claim.id:
                holder.job_id = taken[name] = claim.id
                alive[claim.id] = claim.options[KEY_OPTION]
        if taken:
            statement = update(self._holder).where(self._holder.c.name == bindparam("known"))
            changes = [{"known": name, "id": id} for name, id in taken.items()]
            connection.execute(statement.values(job_id=bindparam("id")), changes)
        return done, waiting

    def _lock(self, connection: Connection, first: Mapping[str, str]) -> dict[str, _Holder]:
        """Lock the holders of these names, new ones made of ``first``; not those others lock."""
        c = self._holder.c
        known: Select[Any] = select(c.name, c.job_id, c.succeeded_at).where(c.name.in_(first))
        known = self._db.dialect.by_primary_key(known, self._holder)
        found = connection.execute(known.with_for_update(skip_locked=True))
        holders = {name: _Holder(job_id=id, succeeded_at=at) for name, id, at in found}
        if len(holders) == len(first):
            return holders
        there = set(connection.execute(select(c.name).where(c.name.in_(first))).scalars())
        # In one order, so that two daemons never wait for each other.
        for name in sorted(first.keys() - there):
            row = {"name": name, "job_id": first[name]}
            if self._db.dialect.inserts(connection, self._insert, row):
                holders[name] = _Holder(job_id=first[name], succeeded_at=None)
        return holders

    def _alive(self, connection: Connection, holders: Iterable[_Holder]) -> dict[str, str]:
        """The keys of holders that have not ended, by their id."""
        ids = [holder.job_id for holder in holders if holder.succeeded_at is None]
        if not ids:
            return {}
        c = self._job.c
        question = select(c.id, c.options).where(c.id.in_(ids), c.state.in_([SCHEDULED, RUNNING]))
        # Their keys as they were asked for: another job may have taken the place of a holder's id.
        return {
            row.id: load_options(row.options).get(KEY_OPTION, "")
            for row in connection.execute(question)
        }

    def _end(
        self, connection: Connection, claims: Sequence[Claim], reasons: Mapping[str, str]
    ) -> None:
        if not claims:
            return
        c = self._job.c
        is_ours = fence(self._job, bindparam("number"), bindparam("whose"))
        values = ended_values(CANCELLED, self._db.soon())
        values |= {"owner": None, "started_at": None, "errors": bindparam("said")}
        statement = update(self._job).where(c.id == bindparam("known"), *is_ours).values(values)
        changes: list[dict[str, Any]] = []
        for claim in claims:
            said = with_reason(claim.errors, reasons[claim.id])
            changes.append(
                {"known": claim.id, "number": claim.claim_no, "whose": claim.owner, "said": said}
            )
            log.info(
                "job %s is cancelled: %s",
                claim.id,
                reasons[claim.id],
                extra={"action": "job_settled", "job": claim.id, "queue": claim.queue},
            )
        connection.execute(statement, changes)


def by_pause(twins: Iterable[Claim]) -> Mapping[float, list[Claim]]:
    """Twins by the time after which they look again."""
    groups: dict[float, list[Claim]] = defaultdict(list)
    for claim in twins:
        groups[twin_pause(claim)].append(claim)
    return groups
