"""Verbs about queues: pausing them, for all daemons at once (web and daemon)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from .database import Database
from .schema import Tables


class Queues:
    """The queue table: a queue has a row there once it has been paused."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._table = database.tables.queue
        self._insert = database.dialect.insert(self._table)

    def set_paused(self, connection: Connection, name: str, paused: bool) -> bool:
        """Let nothing of a queue start any more, or again; False where that was so already."""
        c = self._table.c
        turned = update(self._table).where(c.name == name, c.paused.is_(not paused))
        if connection.execute(turned.values(paused=paused)).rowcount:
            return True
        if not paused:
            return False
        return self._db.dialect.inserts(connection, self._insert, {"name": name, "paused": True})

    def paused(self, connection: Connection) -> set[str]:
        """Return the names of the paused queues."""
        c = self._table.c
        return set(connection.execute(select(c.name).where(c.paused.is_(True))).scalars())


def is_active(tables: Tables, queue: ColumnElement[Any]) -> ColumnElement[bool]:
    """Say in SQL that a queue is not paused."""
    c = tables.queue.c
    return queue.not_in(select(c.name).where(c.paused.is_(True)))
