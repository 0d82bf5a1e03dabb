"""The schema's version: checked at start, brought up to date by Alembic (web and daemon)."""

from __future__ import annotations

import logging
from uuid import uuid4

from sqlalchemy import Connection, inspect, select, text

from ..exceptions import SchemaMismatch
from .database import STORE_ID, Database
from .dialects import SWEEPING
from .schema import split_prefix

log = logging.getLogger(__name__)

HEAD = "0001"
"""The newest migration; kept here so that a start needs no import of Alembic to compare."""


def version_table(prefix: str) -> str:
    """The name of the table in which Alembic keeps the version of this store."""
    return f"{split_prefix(prefix)[1]}alembic_version"


def current_version(database: Database, connection: Connection) -> str | None:
    """Return the schema's version, None where there are no tables yet."""
    schema, _ = split_prefix(database.prefix)
    name = version_table(database.prefix)
    if not inspect(connection).has_table(name, schema=schema):
        return None
    qualified = f"{schema}.{name}" if schema else name
    found: str | None = connection.execute(
        text(f"SELECT version_num FROM {qualified}")
    ).scalar_one_or_none()
    return found


def ensure_schema(database: Database, *, create: bool) -> None:
    """Check the schema's version; with ``create`` bring it up to date.

    Raises SchemaMismatch, naming what was found, what was expected and the command to run.
    """
    with database.read() as connection:
        found = current_version(database, connection)
    if found == HEAD:
        return
    if not create:
        raise SchemaMismatch(
            f"the store {database.masked_url} has "
            + ("no tables" if found is None else f"tables at version {found}")
            + f" with the prefix {database.prefix!r}, expected version {HEAD}; run "
            "'pscheduler CONFIG.ini --migrate', or set scheduler.jobstore.default.create = true"
        )
    migrate(database)


def migrate(database: Database) -> None:
    """Bring the tables up to the newest version, in one transaction, under a database lock."""
    from alembic import command  # only here: its import costs more than a web process's start
    from alembic.config import Config

    lock = f"{database.prefix}migrate"
    with database.begin(SWEEPING) as connection, database.dialect.schema_lock(connection, lock):
        schema, prefix = split_prefix(database.prefix)
        config = Config()
        config.set_main_option("script_location", "pyramid_durable:migrations")
        config.attributes.update(connection=connection, prefix=prefix, schema=schema)
        command.upgrade(config, "head")
        _name_store(database, connection)
    log.info("store schema at version %s", HEAD, extra={"action": "migrated", "version": HEAD})


def _name_store(database: Database, connection: Connection) -> None:
    """Give the store the random id by which any session can be asked whether it is on it."""
    meta = database.tables.meta
    if connection.execute(select(meta.c.value).where(meta.c.name == STORE_ID)).first() is None:
        connection.execute(meta.insert().values(name=STORE_ID, value=str(uuid4())))
