"""Which deployment's declared schedules stand, and bringing the store in line with them (daemon)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, select, update

from ..fingerprints import (
    ITERATIONS,
    TIMES,
    USERDATA,
    WORK,
    changed_aspects,
    declaration_of,
    generation_of,
)
from ..records import ScheduleSpec
from .database import STORE_ID, Database
from .rows import schedule_values
from .schedules import Schedules

log = logging.getLogger(__name__)

KEPT: Final = 100
"""Generations that are remembered. One that was forgotten counts as new when it comes back, which
matters only to a daemon of a hundred deployments ago that starts beside today's."""

WORK_COLUMNS: Final = (
    *("name", "func", "payload", "codec", "queue", "priority", "max_attempts", "group_name"),
    *("options", "coalesce_missed", "max_instances"),
)
TIMES_COLUMNS: Final = ("kind", "trigger_json", "timezone", "start_date", "end_date")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a daemon's declarations stand: the generation's ``number``, and whether newer ones do.

    One that is ``behind`` has changed nothing.
    """

    number: int
    behind: bool


class Generations:
    """The generation table, and the declared schedules of the newest one.

    A generation is all that a deployment declares, known by its digest. The number grows when a new
    one comes, and when an old one comes back after the daemons of the newer ones have gone.
    """

    def __init__(self, database: Database, schedules: Schedules) -> None:
        self._db = database
        self._schedules = schedules
        self._table = database.tables.generation
        self._daemon = database.tables.daemon
        self._schedule = database.tables.schedule

    def settle(
        self, connection: Connection, specs: Sequence[ScheduleSpec], *, lease: float
    ) -> Standing:
        """Bring the declared schedules in line with ``specs``: add, change, retire.

        Where a daemon of a newer generation lives, which means that it has beaten within ``lease``
        seconds, nothing is changed. Call it in a transaction of its own, of a daemon that is
        registered with the digest: those that start together wait for each other here.
        """
        meta = self._db.tables.meta
        mutex = select(meta.c.name).where(meta.c.name == STORE_ID).with_for_update()
        connection.execute(mutex)
        digest = generation_of(specs)
        c = self._table.c
        known = {row.digest: row.number for row in connection.execute(select(c.digest, c.number))}
        newest = max(known.values(), default=0)
        mine = known.get(digest)
        if mine is not None and mine < newest and self.is_behind(connection, digest, lease=lease):
            return Standing(number=mine, behind=True)
        if mine is None or mine < newest:
            mine = newest + 1
            self._number(connection, digest, mine)
        self._bring_in_line(connection, specs, mine)
        return Standing(number=mine, behind=False)

    def is_behind(self, connection: Connection, digest: str, *, lease: float) -> bool:
        """Tell whether a daemon of a newer generation lives; takes no lock."""
        c, daemon = self._table.c, self._daemon.c
        mine = select(c.number).where(c.digest == digest).scalar_subquery()
        newer = (
            select(daemon.incarnation)
            .join(self._table, c.digest == daemon.declares)
            .where(c.number > mine, daemon.heartbeat_at >= self._db.soon(-lease))
            .limit(1)
        )
        return connection.execute(newer).first() is not None

    def _number(self, connection: Connection, digest: str, number: int) -> None:
        c = self._table.c
        connection.execute(
            delete(self._table).where((c.digest == digest) | (c.number <= number - KEPT))
        )
        row = {"digest": digest, "number": number, "since": self._db.soon()}
        connection.execute(self._table.insert().values(row))
        log.info(
            "the declared schedules are those of generation %d from now on",
            number,
            extra={"action": "generation", "generation": number},
        )

    def _bring_in_line(
        self, connection: Connection, specs: Sequence[ScheduleSpec], number: int
    ) -> None:
        c = self._schedule.c
        # In the order in which completions lock schedules, so that neither waits in a circle.
        question = select(self._schedule).where(c.declared.is_(True)).order_by(c.id)
        known = {row.id: row for row in connection.execute(question.with_for_update())}
        for spec in specs:
            spec = replace(spec, declared=True, generation=number)
            row = known.pop(spec.id, None)
            if row is None:
                self._schedules.add(connection, [replace(spec, replace_existing=True)])
            elif values := changes_to(row, spec):
                connection.execute(update(self._schedule).where(c.id == spec.id).values(values))
            else:
                continue
            _note("schedule_declared", "declared schedule %s brought in line", spec.id)
        if known:
            connection.execute(delete(self._schedule).where(c.id.in_(list(known))))
        for id in known:
            _note("schedule_retired", "schedule %s is declared no more, and retired", id)
        older = update(self._schedule).where(c.declared.is_(True), c.generation != number)
        connection.execute(older.values(generation=number))


def changes_to(row: Row[Any], spec: ScheduleSpec) -> dict[str, Any]:
    """What a declaration changes in the row of its schedule; nothing where it says what it said.

    What the schedule's running makes of the row (the next time, what is left of its iterations, its
    userdata) is set anew only where the declaration says something else about that very thing. One
    that had been set aside because it could not be read gets another chance.
    """
    changed = changed_aspects(row.declaration, declaration_of(spec))
    given = schedule_values(spec)
    times = TIMES in changed or row.error is not None
    names: list[str] = []
    if WORK in changed:
        names += WORK_COLUMNS
    if USERDATA in changed:
        names += ["userdata"]
    if ITERATIONS in changed:
        names += ["iterations_left"]
    if times:
        names += [*TIMES_COLUMNS, "next_run_at"]
    elif ITERATIONS in changed and row.next_run_at is None:
        names += ["next_run_at"]
    values = {name: given[name] for name in names}
    if "next_run_at" in values:
        values["due_at"] = None if row.paused else given["next_run_at"]
        values["error"] = None
    if changed:
        values["declaration"] = given["declaration"]
    return values


def _note(action: str, text: str, id: str) -> None:
    log.info(text, id, extra={"action": action, "schedule": id})
