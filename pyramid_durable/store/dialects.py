"""What the three databases do differently, one small class each (web and daemon)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, ClassVar

from sqlalchemy import (
    Column,
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
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.schema import Table

from ..exceptions import InvalidSetting, StoreUnavailable
from ..times import utcnow
from .silence import DEAD_PEER, READ_TIMEOUT, SILENT_PEER, read_timeout
from .standby import leave_standby
from .types import UtcDateTime

BUSY_TIMEOUT = 15.0
"""Seconds that SQLite waits for its one writer; as long as a default lease, since a job's own
transaction may hold the lock that long and a daemon that gives up earlier gains nothing."""

SILENT_CLIENT = 10
"""Seconds that a server lets one of our short transactions lie idle: a daemon that is frozen in the
midst of one holds rows that others need, and must lose them before its lease (15 s) is over."""

MIGRATION_WAIT = 20
"""Seconds that a migration on MariaDB waits for another process's, which takes a few: shorter than
ANSWER_WITHIN, so that it is the database that says why."""

READ_ONLY_OPTION = "durable_read"
LET_IDLE = "durable_let_idle"

IDLE_LIMIT = "SET SESSION /*M! idle_write_transaction_timeout = {0}, */ sql_mode = @@sql_mode"
"""For MariaDB; to MySQL, which has no such limit, it is a comment."""


class StoreDialect:
    """The behaviour that differs between databases, with what most of them do as the default."""

    def __init__(self, driver: str) -> None:
        """``driver`` is what the URL names, if it does."""

    names: ClassVar[tuple[str, ...]] = ()
    skip_locked: ClassVar[bool] = True
    update_returning: ClassVar[bool] = True
    local_clock: ClassVar[bool] = False
    partial_indexes: ClassVar[bool] = True

    def engine_options(self, url: URL) -> dict[str, Any]:
        """Return the arguments of ``create_engine`` for the store's own engine."""
        # Without a bound: a job that adds jobs holds a connection to its end, and the heartbeat
        # must never wait for one behind them.
        # The last one used is the next: the server is still there, and knows our statements.
        return {"pool_pre_ping": True, "pool_use_lifo": True, "max_overflow": -1}

    def prepare(self, engine: Engine) -> None:
        """Add what every connection of the store's own engine needs."""

    now_sql: ClassVar[str]
    """The database's clock in SQL; the parameter ``:now`` where the process's clock counts."""

    after_sql: ClassVar[str]
    """The moment ``{seconds}`` after it; where the process's clock counts, rows bring a later one."""

    def now(self) -> ColumnElement[datetime]:
        """Return the database's clock, fixed for one statement so that an index can serve it."""
        raise NotImplementedError

    def after(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        """Return the moment that many seconds after the database's clock (not with a local one)."""
        raise NotImplementedError

    def table_of_rows(
        self, columns: Sequence[Column[Any]], name: str = "v", document: str = "rows"
    ) -> str:
        """Return SQL for the table ``name`` of the rows in a JSON document, a parameter.

        A batch comes as one document, which the database takes apart in C: the statement's text
        does not depend on the number of rows, so it is compiled and planned once.
        """
        raise NotImplementedError

    def moment(self, value: datetime) -> str:
        """Return a moment as text in a document: in UTC, in the form the database keeps."""
        return value.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")

    def document(self, rows: Iterable[Mapping[str, Any]]) -> str:
        """Return rows as the document of ``table_of_rows``; what is None is read as NULL."""
        kept = [{name: one for name, one in row.items() if one is not None} for row in rows]
        return self.dump(kept)

    @cached_property
    def dump(self) -> Callable[[Any], str]:
        """Write a list of rows, without None among their values, as such a document."""
        return json.JSONEncoder(
            default=self.moment, separators=(",", ":"), check_circular=False
        ).encode

    def table_of_lists(self, columns: Sequence[Column[Any]]) -> str:
        """Return SQL for the table ``v`` of what ``lists`` makes of these columns."""
        return self.table_of_rows(columns)

    def lists(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Return the parameters that bring columns of equal length, without None among them."""
        rows = zip(*columns.values(), strict=True)
        return {"rows": self.dump([dict(zip(columns, row, strict=True)) for row in rows])}

    def insert(self, table: Table) -> Insert:
        """Return the INSERT that ``inserts`` takes: one that passes over rows that exist."""
        raise NotImplementedError

    def inserts(self, connection: Connection, statement: Insert, row: Mapping[str, Any]) -> bool:
        """Insert one row; False where its id or a key is taken. The transaction stays usable."""
        returning = statement.returning(statement.table.c[0])
        return connection.execute(returning, row).first() is not None

    same_sql: ClassVar[str] = "{} = {}"
    """SQL for a comparison that no index is to serve."""

    def among(self, column: ColumnElement[Any], chosen: Select[Any]) -> ColumnElement[bool]:
        """Say that a column is among the rows chosen by a query that is to run once."""
        return column.in_(chosen)

    limit_sql: ClassVar[str] = ""
    """What an UPDATE's FROM gains so that ``limit_transaction`` holds from this statement on."""

    def by_primary_key(self, question: Select[Any], table: Table) -> Select[Any]:
        """Keep a question that locks rows to their primary key, whatever else would find them."""
        return question

    def limit_transaction(self, connection: Connection) -> None:
        """Let the database end this transaction, which is short, if its client falls silent."""

    def let_idle(self, connection: Connection) -> None:
        """Let this transaction last as long as its client likes, silent or not."""

    def begin_writing(self, connection: Connection) -> None:
        """Begin to write in a transaction that may have looked only so far."""

    settings: ClassVar[tuple[str, ...]] = ()
    """SQL expressions that do what ``plan_by_index`` does, for a SELECT that is sent anyway."""

    def plan_by_index(self, connection: Connection) -> None:
        """Keep this transaction's statements to the indexes, whatever the statistics say.

        It is ended, too, as by ``limit_transaction``.
        """
        if self.settings:
            connection.execute(text(f"SELECT {', '.join(self.settings)}"))

    commits_alone = False
    """Whether it costs no question to let a single statement be a transaction by itself."""

    locks_exactly: ClassVar[bool] = True
    """Whether a locked row is one that somebody has chosen. MariaDB locks, for a moment, whatever
    a statement looks at; so one that is locked there may be nobody's."""

    asks_first: ClassVar[bool] = False
    """Whether an INSERT that meets a taken id leaves something behind, so that one asks before: what
    was done before it, or a lock on the row, which the end of a running job then waits for."""

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        """Hold the lock of this name, so that one process at a time migrates."""
        yield


LIMITED = f"set_config('idle_in_transaction_session_timeout', '{SILENT_CLIENT}s', true)"


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
        if engine.dialect.driver != "psycopg":
            return
        from .patience import make_patient  # only where this driver is installed

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
    # A queue's statistics are always out of date; after them a batch of ids may be planned as a
    # scan of the whole table.
    settings = ("set_config('enable_seqscan', 'off', true)", LIMITED)

    def table_of_rows(
        self, columns: Sequence[Column[Any]], name: str = "v", document: str = "rows"
    ) -> str:
        defined = _defined(columns, postgresql.dialect(), "")
        return f"json_to_recordset(CAST(:{document} AS json)) AS {name}({defined})"

    def table_of_lists(self, columns: Sequence[Column[Any]]) -> str:
        types = postgresql.dialect()
        # An array's elements have no collation of their own; they take the one they meet.
        kinds = [one.type.compile(types).partition(" COLLATE")[0] for one in columns]
        arrays = (
            f"CAST(:{one.name} AS {kind}[])" for one, kind in zip(columns, kinds, strict=True)
        )
        return f"unnest({', '.join(arrays)}) AS v({', '.join(one.name for one in columns)})"

    def lists(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        return {name: _array(self.moment, values) for name, values in columns.items()}

    def moment(self, value: datetime) -> str:
        return value.isoformat()

    def insert(self, table: Table) -> Insert:
        return postgresql.insert(table).on_conflict_do_nothing()

    def among(self, column: ColumnElement[Any], chosen: Select[Any]) -> ColumnElement[bool]:
        # As a join or an IN the query may be run again, and more than its limit claimed.
        return column == any_(func.array(chosen.scalar_subquery()))

    def limit_transaction(self, connection: Connection) -> None:
        connection.execute(text(f"SELECT {LIMITED}"))

    @contextmanager
    def schema_lock(self, connection: Connection, name: str) -> Iterator[None]:
        driver: Any = connection.connection.dbapi_connection
        patience = getattr(driver, "patience", None)
        if patience is not None:
            # Another process's migration of a large table, or ours, takes its time.
            driver.patience = None
        try:
            lock = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
            connection.execute(lock, {"name": name})
            yield
        finally:
            if patience is not None:
                driver.patience = patience


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
            if not connection.get_execution_options().get(READ_ONLY_OPTION):
                connection.exec_driver_sql("BEGIN IMMEDIATE")

    def begin_writing(self, connection: Connection) -> None:
        driver: Any = connection.connection.dbapi_connection
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def now(self) -> ColumnElement[datetime]:
        return bindparam(None, callable_=utcnow, type_=UtcDateTime, unique=True)

    def table_of_rows(
        self, columns: Sequence[Column[Any]], name: str = "v", document: str = "rows"
    ) -> str:
        named = ", ".join(f"json_extract(value, '$.{one.name}') AS {one.name}" for one in columns)
        return f"(SELECT {named} FROM json_each(:{document})) AS {name}"

    def insert(self, table: Table) -> Insert:
        return sqlite.insert(table).on_conflict_do_nothing()


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

    def table_of_rows(
        self, columns: Sequence[Column[Any]], name: str = "v", document: str = "rows"
    ) -> str:
        defined = _defined(columns, mysql.dialect(), " PATH '$.{name}'")
        return f"JSON_TABLE(:{document}, '$[*]' COLUMNS ({defined})) AS {name}"

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


def _array(moment: Callable[[datetime], str], values: Sequence[Any]) -> str:
    """Write texts, numbers or moments as PostgreSQL reads an array: half the work of a document."""
    if not values or not isinstance(values[0], str):
        texts = map(moment if values and isinstance(values[0], datetime) else str, values)
        return f"{{{','.join(texts)}}}"
    quoted = '","'.join(values)
    if "\\" in quoted or quoted.count('"') != 2 * len(values) - 2:
        escaped = (one.replace("\\", "\\\\").replace('"', '\\"') for one in values)
        quoted = '","'.join(escaped)
    return f'{{"{quoted}"}}'


def _defined(columns: Sequence[Column[Any]], dialect: Dialect, path: str) -> str:
    """Name columns with their types on this database, each followed by its path."""
    return ", ".join(
        f"{one.name} {one.type.compile(dialect)}{path.format(name=one.name)}" for one in columns
    )


DIALECTS: tuple[type[StoreDialect], ...] = (PostgreSQL, SQLite, MariaDB)


def dialect_for(url: URL) -> StoreDialect:
    """Return the store's dialect for a database.

    Raises InvalidSetting for a database the store has not been built for.
    """
    name, _, driver = url.drivername.partition("+")
    for dialect in DIALECTS:
        if name in dialect.names:
            return dialect(driver)
    known = ", ".join(name for dialect in DIALECTS for name in dialect.names)
    raise InvalidSetting(f"the store cannot live in {name!r}; it knows {known}")
