"""Statements whose text never changes, handed to the driver as they are (web and daemon)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, CursorResult, text
from sqlalchemy.engine import Compiled


class PlainStatement:
    """SQL with named parameters, put into the words of a driver once.

    Executed as a construct of SQLAlchemy it would be looked up and taken apart each time, which
    costs more than some of the databases take for it.
    """

    def __init__(self, sql: str) -> None:
        self._text = text(sql)
        self._compiled: dict[tuple[str, str, str], Compiled] = {}

    def execute(self, connection: Connection, parameters: Mapping[str, Any]) -> CursorResult[Any]:
        dialect = connection.dialect
        driver = dialect.name, dialect.driver, dialect.paramstyle
        compiled: Any = self._compiled.get(driver)
        if compiled is None:
            compiled = self._compiled[driver] = self._text.compile(dialect=dialect)
        values: Any = parameters
        if compiled.positional:
            values = tuple([parameters[name] for name in compiled.positiontup])
        return connection.exec_driver_sql(compiled.string, values)
