"""What the three databases do differently, one small class each (web and daemon)."""

from __future__ import annotations

from sqlalchemy.engine import URL

from ...exceptions import InvalidSetting
from .base import ALONE, BEGINS, LOOKING, READING, SWEEPING, WRITING, StoreDialect
from .mariadb import MariaDB
from .postgresql import PostgreSQL
from .sqlite import SQLite

__all__ = [
    "ALONE",
    "BEGINS",
    "LOOKING",
    "READING",
    "SWEEPING",
    "WRITING",
    "StoreDialect",
    "dialect_for",
]

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
