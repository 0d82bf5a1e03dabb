"""SQLite (web and daemon)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Engine, bindparam, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.schema import Table

from ...exceptions import InvalidSetting
from ...times import utcnow
from ..types import UtcDateTime
from .base import BEGINS, LOOKING, READING, StoreDialect

BUSY_TIMEOUT = 15.0
"""Seconds that SQLite waits for its one writer; as long as a default lease, since a job's own
transaction may hold the lock that long and a daemon that gives up earlier gains nothing."""


class SQLite(StoreDialect):
    """One writer on one machine: the process's clock is the database's, and nothing is skipped."""

    names = ("sqlite",)
    skip_locked = False
    local_clock = True
    asks_first = True
    same_sql = "+{} = {}"
    now_sql = ":now"
    after_sql = ":now"

    def engine_options(self, url: URL) -> dict[str, Any]:
        if url.database in (None, "", ":memory:") or url.query.get("mode") == "memory":
            raise InvalidSetting(
                f"scheduler.jobstore.default.url: {url} is a database in memory, which each thread "
                "would have its own of; expected a file: sqlite:////folder/scheduler.sqlite"
            )
        return {"max_overflow": -1, "connect_args": {"timeout": BUSY_TIMEOUT}}

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
            if connection.get_execution_options().get(BEGINS) not in (READING, LOOKING):
                connection.exec_driver_sql("BEGIN IMMEDIATE")

    def begin_writing(self, connection: Connection) -> None:
        driver: Any = connection.connection.dbapi_connection
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def now(self) -> ColumnElement[datetime]:
        return bindparam(None, callable_=utcnow, type_=UtcDateTime, unique=True)

    def table_of_rows(self, columns: Sequence[Column[Any]]) -> str:
        named = ", ".join(f"json_extract(value, '$.{one.name}') AS {one.name}" for one in columns)
        return f"(SELECT {named} FROM json_each(:rows)) AS v"

    def insert(self, table: Table) -> Insert:
        return sqlite.insert(table).on_conflict_do_nothing()
