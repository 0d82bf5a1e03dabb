"""MariaDB and MySQL (web and daemon)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Engine, Select, event, func, literal, text
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.schema import Table

from ...exceptions import StoreUnavailable
from ..silence import SILENT_PEER
from ..standby import leave_standby
from ..types import UtcDateTime
from .base import SILENT_CLIENT, StoreDialect, defined

MIGRATION_WAIT = 20
"""Seconds that a migration on MariaDB waits for another process's, which takes a few: shorter than
ANSWER_WITHIN, so that it is the database that says why."""

LET_IDLE = "durable_let_idle"

IDLE_LIMIT = "SET SESSION /*M! idle_write_transaction_timeout = {0}, */ sql_mode = @@sql_mode"
"""For MariaDB; to MySQL, which has no such limit, it is a comment."""


class MariaDB(StoreDialect):
    """MariaDB and MySQL."""

    names = ("mysql", "mariadb")
    update_returning = False
    locks_exactly = False
    asks_first = True
    partial_indexes = False
    now_sql = "UTC_TIMESTAMP(6)"
    after_sql = "TIMESTAMPADD(MICROSECOND, {seconds} * 1000000, UTC_TIMESTAMP(6))"

    def engine_options(self, url: URL) -> dict[str, Any]:
        # Under REPEATABLE READ a claim locks the gaps beside its rows and blocks inserts.
        options = super().engine_options(url) | {"isolation_level": "READ COMMITTED"}
        if url.get_driver_name() in ("pymysql", "mysqldb"):
            given = {name: one for name, one in SILENT_PEER.items() if name not in url.query}
            options["connect_args"] = given
        return options

    def prepare(self, engine: Engine) -> None:
        leave_standby(engine)

        @event.listens_for(engine, "connect")
        def set_up(dbapi_connection: Any, record: Any) -> None:
            _run(dbapi_connection, IDLE_LIMIT.format(SILENT_CLIENT))

        @event.listens_for(engine, "checkin")
        def set_back(dbapi_connection: Any, record: Any) -> None:
            if record.info.pop(LET_IDLE, False) and dbapi_connection is not None:
                _run(dbapi_connection, IDLE_LIMIT.format(SILENT_CLIENT))

    def let_idle(self, connection: Connection) -> None:
        connection.exec_driver_sql(IDLE_LIMIT.format(0))
        connection.info[LET_IDLE] = True

    def now(self) -> ColumnElement[datetime]:
        return func.utc_timestamp(text("6"), type_=UtcDateTime)

    def after(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return func.timestampadd(
            text("MICROSECOND"), seconds * literal(1_000_000), self.now(), type_=UtcDateTime
        )

    def table_of_rows(self, columns: Sequence[Column[Any]]) -> str:
        types = defined(columns, mysql.dialect(), " PATH '$.{name}'")
        return f"JSON_TABLE(:rows, '$[*]' COLUMNS ({types})) AS v"

    def insert(self, table: Table) -> Insert:
        return table.insert()

    def by_primary_key(self, question: Select[Any], table: Table) -> Select[Any]:
        # Beside few rows, or for a state that is rare, it would walk others and lock them too.
        for name in self.names:
            question = question.with_hint(table, "FORCE INDEX (PRIMARY)", name)
        return question

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


def _run(dbapi_connection: Any, statement: str) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute(statement)
    cursor.close()
