"""What the three databases do differently, one small class each (web and daemon)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    any_,
    bindparam,
    event,
    func,
    literal,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.schema import Table

from ..exceptions import InvalidSetting, StoreUnavailable
from ..times import utcnow
from .types import UtcDateTime

BUSY_TIMEOUT = 15.0
"""Seconds that SQLite waits for its one writer; as long as a default lease, since a job's own
transaction may hold the lock that long and a daemon that gives up earlier gains nothing."""

MIGRATION_WAIT = 60
"""Seconds that a migration waits for another process's; it takes a few."""

READ_ONLY_OPTION = "durable_read"


class StoreDialect:
    """The behaviour that differs between databases, with what most of them do as the default."""

    names: ClassVar[tuple[str, ...]] = ()
    skip_locked: ClassVar[bool] = True
    update_returning: ClassVar[bool] = True
    local_clock: ClassVar[bool] = False

    def engine_options(self, url: URL) -> dict[str, Any]:
        """Return the arguments of ``create_engine`` for the store's own engine."""
        return {"pool_pre_ping": True}

    def prepare(self, engine: Engine) -> None:
        """Add what every connection of the store's own engine needs."""

    def now(self) -> ColumnElement[datetime]:
        """Return the database's clock, fixed for one statement so that an index can serve it."""
        raise NotImplementedError

    def after(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        """Return the moment that many seconds after the database's clock (not with a local one)."""
        raise NotImplementedError

    def insert(self, table: Table) -> Insert:
        """Return the INSERT that ``inserts`` takes: one that passes over rows that exist."""
        raise NotImplementedError

    def inserts(self, connection: Connection, statement: Insert, row: Mapping[str, Any]) -> bool:
        """Insert one row; False where its id or a key is taken. The transaction stays usable."""
        returning = statement.returning(statement.table.c[0])
        return connection.execute(returning, row).first() is not None

    def among(self, column: ColumnElement[Any], chosen: Select[Any]) -> ColumnElement[bool]:
        """Say that a column is among the rows chosen by a query that is to run once."""
        return column.in_(chosen)

    def plan_by_index(self, connection: Connection) -> None:
        """Keep this transaction's statements to the indexes, whatever the statistics say."""

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        """Hold the lock of this name, so that one process at a time migrates."""
        yield


class PostgreSQL(StoreDialect):
    names = ("postgresql",)

    def now(self) -> ColumnElement[datetime]:
        return func.statement_timestamp(type_=UtcDateTime)

    def after(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        interval = func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        return func.statement_timestamp(type_=UtcDateTime).op("+", return_type=UtcDateTime())(
            interval
        )

    def insert(self, table: Table) -> Insert:
        return postgresql.insert(table).on_conflict_do_nothing()

    def among(self, column: ColumnElement[Any], chosen: Select[Any]) -> ColumnElement[bool]:
        # As a join or an IN the query may be run again, and more than its limit claimed.
        return column == any_(func.array(chosen.scalar_subquery()))

    def plan_by_index(self, connection: Connection) -> None:
        # A queue's statistics are always out of date; after them a batch of ids may be planned
        # as a scan of the whole table.
        connection.execute(text("SET LOCAL enable_seqscan = off"))

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": name})
        yield


class SQLite(StoreDialect):
    """One writer on one machine: the process's clock is the database's, and nothing is skipped."""

    names = ("sqlite",)
    skip_locked = False
    local_clock = True

    def engine_options(self, url: URL) -> dict[str, Any]:
        return {"connect_args": {"timeout": BUSY_TIMEOUT}}

    def prepare(self, engine: Engine) -> None:
        @event.listens_for(engine, "connect")
        def set_up(dbapi_connection: Any, record: Any) -> None:
            # The driver's own idea of when a transaction begins is switched off; see begin().
            dbapi_connection.isolation_level = None
            dbapi_connection.execute("PRAGMA journal_mode=WAL")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A reader that turns writer fails at once when another wrote meanwhile, whatever the
            # timeout; so writers ask for the lock at the start.
            if not connection.get_execution_options().get(READ_ONLY_OPTION):
                connection.exec_driver_sql("BEGIN IMMEDIATE")

    def now(self) -> ColumnElement[datetime]:
        return bindparam(None, callable_=utcnow, type_=UtcDateTime, unique=True)

    def insert(self, table: Table) -> Insert:
        return sqlite.insert(table).on_conflict_do_nothing()


class MariaDB(StoreDialect):
    """MariaDB and MySQL."""

    names = ("mysql", "mariadb")
    update_returning = False

    def engine_options(self, url: URL) -> dict[str, Any]:
        # Under REPEATABLE READ a claim locks the gaps beside its rows and blocks inserts.
        return {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}

    def now(self) -> ColumnElement[datetime]:
        return func.utc_timestamp(text("6"), type_=UtcDateTime)

    def after(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return func.timestampadd(
            text("MICROSECOND"), seconds * literal(1_000_000), self.now(), type_=UtcDateTime
        )

    def insert(self, table: Table) -> Insert:
        return table.insert()

    def inserts(self, connection: Connection, statement: Insert, row: Mapping[str, Any]) -> bool:
        # IGNORE would hide other errors too, and cut texts that are too long.
        try:
            with connection.begin_nested():
                connection.execute(statement, row)
        except IntegrityError:
            return False
        return True

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        question = text("SELECT GET_LOCK(:name, :wait)")
        got = connection.execute(question, {"name": name, "wait": MIGRATION_WAIT}).scalar_one()
        if got != 1:
            raise StoreUnavailable(f"another process has held the lock {name!r} for too long")
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})


DIALECTS: tuple[type[StoreDialect], ...] = (PostgreSQL, SQLite, MariaDB)


def dialect_for(name: str) -> StoreDialect:
    """Return the store's dialect for a SQLAlchemy dialect name.

    Raises InvalidSetting for a database the store has not been built for.
    """
    for dialect in DIALECTS:
        if name in dialect.names:
            return dialect()
    known = ", ".join(name for dialect in DIALECTS for name in dialect.names)
    raise InvalidSetting(f"the store cannot live in {name!r}; it knows {known}")
