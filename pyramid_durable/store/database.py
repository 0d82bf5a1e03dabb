"""The store's engine and transactions, and the question whose database a session is on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, cast
from uuid import uuid4
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, create_engine, inspect, literal, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..exceptions import InvalidSetting, StoreUnavailable
from ..times import utcnow
from .dialects import ALONE, BEGINS, READING, WRITING, StoreDialect, dialect_for
from .lone import LoneConnection
from .outages import is_outage
from .schema import make_tables

STORE_ID = "store_id"
"""The row of the meta table that tells one store from every other."""

TOUCHED = "touched"
"""The row that is written to see whether the database takes writes."""


class Database:
    """One database with the store's tables, reached through an engine of the store's own.

    Nothing is opened before the first use. ``url`` is a SQLAlchemy URL.

    Raises InvalidSetting when the URL cannot be read, its driver is not installed, or it names a
    database the store does not know.
    """

    def __init__(self, url: str, *, prefix: str = "durable_") -> None:
        self.prefix = prefix
        self.tables = make_tables(prefix)
        try:
            self.url = make_url(url)
            self.dialect: StoreDialect = dialect_for(self.url)
        except ArgumentError as error:
            raise InvalidSetting(
                "scheduler.jobstore.default.url: this is no database URL; "
                "expected something like postgresql+psycopg://user@host/name"
            ) from error
        self._lock = threading.Lock()
        self._held: WeakKeyDictionary[Engine, bool] = WeakKeyDictionary()

    @cached_property
    def engine(self) -> Engine:
        """The store's own engine; made at the first use."""
        options = self.dialect.engine_options(self.url)
        try:
            engine = create_engine(self.url, **options)
        except (NoSuchModuleError, ImportError) as error:
            raise InvalidSetting(
                f"scheduler.jobstore.default.url: no driver for {self.masked_url} ({error}); "
                "install the matching extra of pyramid_durable, or name an installed driver"
            ) from error
        self.dialect.prepare(engine)
        return engine

    @property
    def masked_url(self) -> str:
        """The URL as it may be shown: without the password, which may stand in its query too."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @property
    def place(self) -> str:
        """Where the store is: its masked URL, a file's path absolute."""
        file = self.url.database
        if self.url.get_backend_name() != "sqlite" or not file or file.startswith((":", "file:")):
            return self.masked_url
        return f"{self.url.drivername}:///{Path(file).absolute()}"

    @contextmanager
    def begin(self, purpose: str = WRITING) -> Iterator[Connection]:
        """A connection in a write transaction; commits at the end, rolls back on an error.

        ``purpose``: WRITING, ALONE, LOOKING or SWEEPING, which say how it begins.

        Raises StoreUnavailable when the database cannot be reached.
        """
        if purpose == ALONE and self.dialect.commits_alone:
            with self.alone() as lone:
                yield cast("Connection", lone)
            return
        if purpose == ALONE:
            purpose = WRITING
        with self._wrapping(), self.engine.connect() as connection:
            connection.execution_options(**{BEGINS: purpose})
            with connection.begin():
                yield connection

    @contextmanager
    def alone(self, *, slow: float = inf) -> Iterator[LoneConnection]:
        """For one statement that commits by itself, where ``dialect.commits_alone``.

        Raises StoreUnavailable when the database cannot be reached.
        """
        with self._wrapping():
            yield LoneConnection(self.engine, slow=slow)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection where each statement stands alone; takes no lock.

        Raises StoreUnavailable when the database cannot be reached.
        """
        with self._wrapping(), self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT", **{BEGINS: READING})

    @contextmanager
    def _wrapping(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if not is_outage(error):
                raise
            raise StoreUnavailable(
                f"the database of the store {self.masked_url}: {error.orig}"
            ) from error
        except PoolTimeout as error:
            raise StoreUnavailable(f"the store {self.masked_url}: {error}") from error
        except self._driver_errors as error:
            # As it is: SQLAlchemy was setting a connection up, or back before it is kept.
            wrapped = DBAPIError(None, None, error)
            if not is_outage(wrapped):
                raise
            raise StoreUnavailable(
                f"the database of the store {self.masked_url}: {error}"
            ) from wrapped

    @property
    def _driver_errors(self) -> tuple[type[Exception], ...]:
        if "engine" not in self.__dict__:
            return ()
        return (self.engine.dialect.loaded_dbapi.Error,)

    def works(self) -> bool:
        """Tell, by a small write, whether the database is there and takes writes."""
        meta = self.tables.meta
        # A new value: what is there already SQLite and MariaDB do not write again, and so they would
        # not see that the disk is full.
        row = {"name": TOUCHED, "value": str(uuid4())}
        touch = meta.update().where(meta.c.name == TOUCHED).values(value=row["value"])
        try:
            with self.begin() as connection:
                if connection.execute(touch).rowcount == 0:
                    self.dialect.inserts(connection, self.dialect.insert(meta), row)
        except StoreUnavailable:
            return False
        return True

    def now(self, connection: Connection) -> datetime:
        """Return the database's clock, aware, in UTC."""
        moment: datetime = connection.execute(select(self.dialect.now())).scalar_one()
        return moment

    def soon(self, seconds: float = 0.0) -> Any:
        """Return the moment ``seconds`` from now by the database's clock, as a value for SQL."""
        if self.dialect.local_clock:
            return utcnow() + timedelta(seconds=seconds)
        return self.dialect.after(literal(seconds)) if seconds else self.dialect.now()

    def is_held_by(self, bind: Engine | Connection) -> bool:
        """Tell whether an engine reaches this very database.

        The database is asked, once for each engine, over a connection of its own: two URLs may
        mean one database, and one URL different ones.
        """
        engine = bind.engine
        held = self._held.get(engine)
        if held is None:
            with self._lock:
                held = self._held[engine] = engine is self.engine or self._asks(engine)
        return held

    def _asks(self, engine: Engine) -> bool:
        meta = self.tables.meta
        question = select(meta.c.value).where(meta.c.name == STORE_ID)
        if engine.dialect.name not in self.dialect.names:
            return False
        with self.read() as connection:
            mine = connection.execute(question).scalar_one_or_none()
        with self._wrapping(), engine.connect() as connection:
            if not inspect(connection).has_table(meta.name, schema=meta.schema):
                return False
            theirs = connection.execute(question).scalar_one_or_none()
        return mine is not None and mine == theirs

    def dispose(self) -> None:
        """Close the engine's connections, if it was ever made."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    def after_fork(self) -> None:
        """Forget connections that belong to the parent process, without closing them."""
        if "engine" in self.__dict__:
            self.engine.dispose(close=False)
