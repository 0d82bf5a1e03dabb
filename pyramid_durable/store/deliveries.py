"""Which commands are stored already, whatever became of their jobs since (daemon)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import DataError, IntegrityError

from ..exceptions import InvalidCommand
from ..times import utcnow
from .database import Database

MARK: Final = "c:"
"""Before a command's id in the meta table, whose names have room for 40 characters."""

KEPT: Final = timedelta(days=30)
"""How long a command is remembered. It can be delivered again as long as nobody acknowledges it,
which means as long as no daemon runs after one died between storing and acknowledging."""


BATCH: Final = 1000
"""Ids forgotten in one transaction."""


class Deliveries:
    """Makes storing a command idempotent: its id is written with what it asks for.

    The jobs' own ids would not do. A job that is deleted when it ends, or that replaces another,
    would come to life again with a second delivery.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._table = database.tables.meta
        self._insert = database.dialect.insert(self._table)

    @contextmanager
    def receive(self, id: str) -> Iterator[Connection | None]:
        """A transaction to store a command in, or None where it was stored before.

        Raises InvalidCommand where the database refuses a value, StoreUnavailable.
        """
        try:
            with self._db.begin() as connection:
                row = {"name": MARK + id, "value": utcnow().isoformat()}
                is_new = self._db.dialect.inserts(connection, self._insert, row)
                yield connection if is_new else None
        except (DataError, IntegrityError) as error:
            # The database's own words may quote a job's arguments.
            raise InvalidCommand(
                f"command {id}: the database refuses a value in it ({type(error.orig).__name__})"
            ) from error

    def forget(self) -> int:
        """Forget commands older than KEPT, a batch in each transaction; returns how many.

        Their ids tell: they grow with time.
        """
        with self._db.read() as connection:
            # By the database's clock: a daemon whose own runs ahead must not forget for all.
            oldest = int((self._db.now(connection) - KEPT).timestamp() * 1000)
        digits = f"{oldest:012x}"
        name = self._table.c.name
        old = (name >= MARK) & (name < f"{MARK}{digits[:8]}-{digits[8:]}")
        question = select(name).where(old).order_by(name).limit(BATCH)
        number = 0
        while True:
            with self._db.begin() as connection:
                found = connection.execute(question).scalars().all()
                if found:
                    connection.execute(delete(self._table).where(name.in_(found)))
            number += len(found)
            if len(found) < BATCH:
                return number
