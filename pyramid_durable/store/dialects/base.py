"""What most databases do, and what is asked of each (web and daemon)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, ClassVar, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
)
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.schema import Table

SILENT_CLIENT = 10
"""Seconds that a server lets one of our short transactions lie idle: a daemon that is frozen in the
midst of one holds rows that others need, and must lose them before its lease (15 s) is over."""

BEGINS = "durable_begins"
"""The option of a connection of ours that tells what its transaction is for, from the following; a
session that begins by itself has none."""

READING: Final = "reading"
"""Each statement stands alone."""

WRITING: Final = "writing"
"""Most of them: kept to the indexes, and planned for the tables as they are now."""

ALONE: Final = "alone"
"""Writing, by one PlainStatement without a result, which a database that ``commits_alone`` commits
without being told."""

LOOKING: Final = "looking"
"""A look that may turn writer: it keeps no writer out before the dialect's ``begin_writing``."""

SWEEPING: Final = "sweeping"
"""Writing, by questions that go over whole tables, planned as the database likes."""


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

    def table_of_rows(self, columns: Sequence[Column[Any]]) -> str:
        """Return SQL for the table ``v`` of the rows in a JSON document, the parameter ``rows``.

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
        """Return the parameters that bring columns of equal length; what is None is read as NULL."""
        rows = (zip(columns, row, strict=True) for row in zip(*columns.values(), strict=True))
        kept = [{name: one for name, one in row if one is not None} for row in rows]
        return {"rows": self.dump(kept)}

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
    """What an UPDATE's FROM gains so that the database ends its transaction, from this statement on,
    if its client falls silent: an application's; ``Database.begin`` limits those of our own."""

    def by_primary_key(self, question: Select[Any], table: Table) -> Select[Any]:
        """Keep a question that locks rows to their primary key, whatever else would find them."""
        return question

    def telling_update(self, update: str, table: str, columns: Sequence[str]) -> str:
        """Return SQL for an UPDATE that tells these columns of the rows it has changed.

        Where that are as many as ``:number`` it may tell one row of NULLs instead.
        """
        return f"{update} RETURNING {', '.join(f'{table}.{name}' for name in columns)}"

    def let_idle(self, connection: Connection) -> None:
        """Let this transaction last as long as its client likes, silent or not."""

    def begin_writing(self, connection: Connection) -> None:
        """Begin to write in a transaction that may have looked only so far."""

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


def defined(columns: Sequence[Column[Any]], dialect: Dialect, path: str) -> str:
    """Name columns with their types on this database, each followed by its path."""
    return ", ".join(
        f"{one.name} {one.type.compile(dialect)}{path.format(name=one.name)}" for one in columns
    )
