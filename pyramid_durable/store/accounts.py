"""The account of fire times that became no job: a row that says how many, when and why (daemon)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, update

from ..policies import COALESCED, OVERLAP, PAUSED, REFUSED, FirePlan, Passed
from ..records import EXPIRED, JobSpec
from ..times import new_id
from .database import Database
from .rows import dump_options, job_values, load_options

WHY: Final = {
    COALESCED: "coalesced into the latest of them, which was due as well",
    OVERLAP: "the schedule's earlier jobs had not ended (max_instances)",
    REFUSED: "their behavior refused them, an equal job waits or has succeeded",
    PAUSED: "the schedule was paused",
}


class Accounts:
    """Rows of the job table, ``expired`` from the start, that stand for fire times without a job.

    While a schedule passes over one fire time after the other, for one reason, its open account
    grows; a schedule that runs every second beside an hour-long job leaves one row, not 3,600.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._job = database.tables.job

    def keep(
        self, connection: Connection, pattern: JobSpec, open_id: str | None, plan: FirePlan
    ) -> str | None:
        """Account for what a plan passes over; returns the id of the account left open, if any.

        The caller holds the schedule's row, so nobody else writes to its accounts.
        """
        for passed in plan.passed:
            known = None if open_id is None else self._known(connection, open_id)
            if open_id is not None and known is not None and known.reason == passed.reason:
                grown = Passed(
                    reason=passed.reason,
                    number=known.number + passed.number,
                    first=known.first,
                    last=passed.last,
                    more=known.more or passed.more,
                )
                changes = self._said(pattern, grown)
                connection.execute(
                    update(self._job).where(self._job.c.id == open_id).values(changes)
                )
            else:
                open_id = self._open(connection, pattern, passed)
        return None if plan.fires else open_id

    def _known(self, connection: Connection, id: str) -> Passed | None:
        question = select(self._job.c.options).where(self._job.c.id == id)
        said = load_options(connection.execute(question).scalar_one_or_none()).get("passed")
        if said is None:
            return None
        return Passed(
            reason=said["reason"],
            number=said["number"],
            first=datetime.fromisoformat(said["first"]),
            last=datetime.fromisoformat(said["last"]),
            more=said.get("more", False),
        )

    def _open(self, connection: Connection, pattern: JobSpec, passed: Passed) -> str:
        id = new_id()
        now = self._db.soon()
        values = {
            **job_values(pattern),
            "id": id,
            "state": EXPIRED,
            "overlap_key": None,
            "waiting_key": None,
            "equal_key": None,
            "run_at": passed.first,
            "created_at": now,
            "finished_at": now,
            "attempt": 0,
            "crashes": 0,
            "claim_no": 0,
            **self._said(pattern, passed),
        }
        connection.execute(self._job.insert().values(values))
        return id

    def _said(self, pattern: JobSpec, passed: Passed) -> dict[str, Any]:
        first, last = passed.first.isoformat(), passed.last.isoformat()
        at_least = "at least " if passed.more else ""
        text = (
            f"{at_least}{passed.number} fire time{'s' if passed.number > 1 else ''} between {first} and "
            f"{last} made no job: {WHY[passed.reason]}"
        )
        account = {
            "reason": passed.reason,
            "number": passed.number,
            "first": first,
            "last": last,
            **({"more": True} if passed.more else {}),
        }
        options = dump_options({**pattern.options, "passed": account})
        return {"options": options, "errors": json.dumps([text])}
