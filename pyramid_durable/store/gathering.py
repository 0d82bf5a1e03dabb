"""New jobs of one transaction, written together (web and daemon)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.engine import TwoPhaseTransaction

from ..records import JobSpec
from .inserting import JobInsert

MOST: Final = 1000
"""Jobs that are gathered before they are written anyway."""


class Gathering:
    """Gathers jobs that follow each other in a transaction, as the ORM's unit of work does.

    They are written before the next statement on their connection, or before its commit: what one
    sees, undoes or keeps of them is the same as if each had been written at once. The first is, since
    most transactions have no other, and to listen to a connection costs about as much as a statement.
    All are where there is no commit to wait for, or a driver prepares one without a statement.
    """

    def __init__(self, insert: JobInsert) -> None:
        self._insert = insert
        self._gathered: WeakKeyDictionary[Connection, _Gathered | None] = WeakKeyDictionary()

    def add(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Add jobs that nothing can refuse, and whose time does not depend on when that is."""
        if connection not in self._gathered or not _is_plain(connection):
            self._gathered.setdefault(connection, None)
            self.write(connection)
            self._insert.all(connection, specs)
            return
        gathered = self._gathered[connection]
        if gathered is None:
            gathered = self._gathered[connection] = _Gathered(self._insert, connection)
        gathered.add(connection, specs)

    def write(self, connection: Connection) -> None:
        """Write what is gathered for a connection now."""
        gathered = self._gathered.get(connection)
        if gathered is not None:
            gathered.write(connection)


class _Gathered:
    """What is gathered for one connection, which it does not hold itself: that would be a cycle."""

    def __init__(self, insert: JobInsert, connection: Connection) -> None:
        self._insert = insert
        self._specs: list[JobSpec] = []
        self._is_writing = False
        event.listen(connection, "before_cursor_execute", self._before_statement)
        event.listen(connection, "commit", self._before_commit)
        event.listen(connection, "rollback", self._drop)

    def add(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        self._specs.extend(specs)
        if len(self._specs) >= MOST:
            self.write(connection)

    def write(self, connection: Connection) -> None:
        if self._is_writing or not self._specs:
            return
        self._is_writing = True
        try:
            self._insert.all(connection, self._specs)
        finally:
            self._is_writing = False
        # Only now: one that failed makes the commit fail too, whatever was done about the error.
        self._specs = []

    def _before_commit(self, connection: Connection) -> None:
        try:
            self.write(connection)
        except BaseException:
            # Where its event fails, SQLAlchemy sends neither COMMIT nor ROLLBACK, and would give the
            # connection to whoever comes next with all that is in the transaction.
            self._drop(connection)
            connection.dialect.do_rollback(connection.connection)
            raise

    def _before_statement(
        self, connection: Connection, cursor: Any, statement: str, *rest: Any
    ) -> None:
        # A rollback to a savepoint: whatever was there before it was written before it.
        if statement.startswith("ROLLBACK"):
            self._drop(connection)
        else:
            self.write(connection)

    def _drop(self, connection: Connection) -> None:
        self._specs = []


def _is_plain(connection: Connection) -> bool:
    """Whether this transaction ends by a COMMIT that one hears of."""
    is_twophase = isinstance(connection.get_transaction(), TwoPhaseTransaction)
    return not is_twophase and not connection._is_autocommit_isolation()
