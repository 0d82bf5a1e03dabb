"""Userdata that lasts from run to run: what a job leaves goes into its schedule's row (daemon)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, select, update

from .database import Database


class ScheduleUserdata:
    """The userdata that the next job of a schedule begins with.

    Only attempts that changed their job's userdata come here. Of runs that overlap the last one to
    end wins. A schedule that is gone by then is passed over.
    """

    def __init__(self, database: Database) -> None:
        self._table = database.tables.schedule

    def hold(self, connection: Connection, ids: Collection[str], *, wait: bool = True) -> bool:
        """Lock the schedules before any row of their jobs, as firing them does; else the two could
        wait for each other. False where ``wait`` is, and somebody else has locked one."""
        c = self._table.c
        question = select(c.id).where(c.id.in_(sorted(ids))).order_by(c.id)
        held = connection.execute(question.with_for_update(skip_locked=not wait)).scalars().all()
        return len(held) == len(ids)

    def put(self, connection: Connection, userdata: Mapping[str, str | None]) -> None:
        """Write the userdata of these schedules."""
        for id, text in userdata.items():
            statement = update(self._table).where(self._table.c.id == id)
            connection.execute(statement.values(userdata=text))
