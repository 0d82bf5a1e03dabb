"""PostgreSQL (web and daemon)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Engine, Select, any_, event, func, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.schema import Table

from ...times import EPOCH
from ..silence import DEAD_PEER, READ_TIMEOUT, read_timeout
from ..standby import leave_standby
from ..types import UtcDateTime
from .base import (
    BEGINS,
    LOOKING,
    SILENT_CLIENT,
    SWEEPING,
    WRITING,
    StoreDialect,
    defined,
)

LIMITED = f"set_config('idle_in_transaction_session_timeout', '{SILENT_CLIENT}s', true)"

SHORT = f"""SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
SET LOCAL idle_in_transaction_session_timeout = '{SILENT_CLIENT}s'"""

# A queue's statistics are always out of date; after them a batch of ids may be planned as a scan of
# the whole table, and joined by looking at each row for each id. A plan that names such a scan all
# the same, of a small table, would be compiled for its supposed cost.
BY_INDEX = """SET LOCAL enable_seqscan = off;
SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off"""

# What the server keeps for a prepared statement may be from when there were a few rows. A look, and
# the claim of what it has seen, are kept: by index they are planned alike for any number of rows. Left
# to itself the server makes them anew each time where many rows wait, which takes as long as they do.
ANEW = "SET LOCAL plan_cache_mode = force_custom_plan"
KEPT = "SET LOCAL plan_cache_mode = force_generic_plan"

SETTINGS = {
    LOOKING: f"{SHORT}; {BY_INDEX}; {KEPT}",
    WRITING: f"{SHORT}; {BY_INDEX}; {ANEW}",
    SWEEPING: SHORT,
}
"""How a transaction of ours begins, by what it is for."""

MICROSECOND = timedelta(microseconds=1)
MOMENT = (
    "TIMESTAMPTZ 'epoch' + {0} / 1000000 * INTERVAL '1 second'"
    " + {0} % 1000000 * INTERVAL '1 microsecond' AS {0}"
)
"""A moment of an array, exact to the end of the calendar, where an interval times all microseconds is
not: it is computed in floating point. As text it took Python and the server a microsecond each."""


class PostgreSQL(StoreDialect):
    names = ("postgresql",)

    def __init__(self, driver: str) -> None:
        # With others the pool's ping may have begun a transaction, which would be rolled back.
        self.commits_alone = driver in ("", "psycopg", "psycopg2")

    def engine_options(self, url: URL) -> dict[str, Any]:
        options = super().engine_options(url)
        if url.get_driver_name() in ("psycopg", "psycopg2"):
            given: dict[str, Any]
            given = {name: one for name, one in DEAD_PEER.items() if name not in url.query}
            options["connect_args"] = given
        if url.get_driver_name() == "psycopg":
            given[READ_TIMEOUT] = read_timeout(url)
        return options

    def prepare(self, engine: Engine) -> None:
        leave_standby(engine)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            begins: Any = connection.get_execution_options().get(BEGINS)
            settings = SETTINGS.get(begins)
            if settings is None:
                return
            if engine.dialect.driver == "psycopg":
                # The driver's BEGIN would be a round trip of its own.
                settings = f"BEGIN; {settings}"
                driver: Any = connection.connection.dbapi_connection
                driver.autocommit = True
            connection.exec_driver_sql(settings)

        if engine.dialect.driver != "psycopg":
            return

        @event.listens_for(engine, "checkin")
        def set_back(dbapi_connection: Any, record: Any) -> None:
            # Whoever begins in another way, with two phases say, finds it as the driver makes it.
            driver = dbapi_connection
            if driver is not None and not driver.closed and driver.autocommit:
                driver.autocommit = False

        from ..patience import make_patient  # only where this driver is installed

        make_patient(engine)

    now_sql = "statement_timestamp()"
    same_sql = "{} IS NOT DISTINCT FROM {}"
    after_sql = "statement_timestamp() + make_interval(secs => {seconds})"

    def now(self) -> ColumnElement[datetime]:
        return func.statement_timestamp(type_=UtcDateTime)

    def after(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        interval = func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        return func.statement_timestamp(type_=UtcDateTime).op("+", return_type=UtcDateTime())(
            interval
        )

    limit_sql = f", (SELECT {LIMITED}) AS limited"

    def table_of_rows(self, columns: Sequence[Column[Any]]) -> str:
        types = defined(columns, postgresql.dialect(), "")
        return f"json_to_recordset(CAST(:rows AS json)) AS v({types})"

    def table_of_lists(self, columns: Sequence[Column[Any]]) -> str:
        moments = {one.name for one in columns if isinstance(one.type, UtcDateTime)}
        arrays = ", ".join(
            f"CAST(:{one.name} AS {'bigint' if one.name in moments else _kind(one)}[])"
            for one in columns
        )
        names = [one.name for one in columns]
        values = (MOMENT.format(name) if name in moments else name for name in names)
        brought = f"unnest({arrays}) AS brought({', '.join(names)})"
        return f"(SELECT {', '.join(values)} FROM {brought}) AS v"

    def lists(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        return {name: _array(values) for name, values in columns.items()}

    def moment(self, value: datetime) -> str:
        return value.isoformat()

    def telling_update(self, update: str, table: str, columns: Sequence[str]) -> str:
        # To send the rows, and make Python's of them, takes longer than to count them.
        update = super().telling_update(update, table, columns)
        counted = "SELECT count(*) AS number FROM changed HAVING count(*) > 0"
        return (
            f"WITH changed AS ({update}) SELECT {', '.join(f'changed.{name}' for name in columns)} "
            f"FROM ({counted}) AS counted LEFT JOIN changed ON counted.number <> :number"
        )

    def insert(self, table: Table) -> Insert:
        return postgresql.insert(table).on_conflict_do_nothing()

    def among(self, column: ColumnElement[Any], chosen: Select[Any]) -> ColumnElement[bool]:
        # As a join or an IN the query may be run again, and more than its limit claimed.
        return column == any_(func.array(chosen.scalar_subquery()))

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        driver: Any = connection.connection.dbapi_connection
        patience = getattr(driver, "patience", None)
        if patience is not None:
            # Another process's migration of a large table, or ours, takes its time.
            driver.patience = None
        try:
            # Nor does the server end it while a migration computes.
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            lock = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
            connection.execute(lock, {"name": name})
            yield
        finally:
            if patience is not None:
                driver.patience = patience


def _kind(column: Column[Any]) -> str:
    """The type of an array's elements: they have no collation of their own, and take another's. By a
    length of their own they would be cut without a word, where the column refuses what is too long."""
    return column.type.compile(postgresql.dialect()).partition("(")[0]


def _array(values: Sequence[Any]) -> str:
    """Write texts, numbers or moments as PostgreSQL reads an array: half the work of a document."""
    if None in values:
        texts = ("NULL" if one is None else _elements((one,)) for one in values)
        return f"{{{','.join(texts)}}}"
    return f"{{{_elements(values)}}}"


def _elements(values: Sequence[Any]) -> str:
    if not values or not isinstance(values[0], str):
        if values and isinstance(values[0], datetime):
            values = [(one - EPOCH) // MICROSECOND for one in values]
        return ",".join(map(str, values))
    quoted = '","'.join(values)
    if "\\" in quoted or quoted.count('"') != 2 * len(values) - 2:
        escaped = (one.replace("\\", "\\\\").replace('"', '\\"') for one in values)
        quoted = '","'.join(escaped)
    return f'"{quoted}"'
