"""A single statement that is a transaction by itself (web and daemon)."""

from __future__ import annotations

import time
from math import inf
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from .standby import refuses_writes


class LoneConnection:
    """Stands in for a Connection where all that comes is one statement in the driver's words.

    A Connection with its transaction and its results takes as long as the driver does for a small
    statement. What is kept of SQLAlchemy are the pool and the errors. One whose statement took more
    than ``slow`` seconds is not used again: it may have kept a plan that is bad by now.
    """

    def __init__(self, engine: Engine, *, slow: float = inf) -> None:
        self._engine = engine
        self._slow = slow
        self.dialect = engine.dialect

    def exec_driver_sql(self, statement: str, parameters: Any) -> list[Any]:
        """Execute it, committed by the server without being told; returns the rows."""
        pooled = self._engine.raw_connection()
        driver: Any = pooled.dbapi_connection
        failed = self.dialect.loaded_dbapi.Error
        began = time.monotonic()
        try:
            driver.autocommit = True
            cursor = driver.cursor()
            cursor.execute(statement, parameters)
            rows = cursor.fetchall() if cursor.description else []
            driver.autocommit = False
        except failed as error:
            pooled.invalidate(error)
            if refuses_writes(error):
                self._engine.dispose()  # as leave_standby has it for Connections
            raise DBAPIError.instance(
                statement, None, error, failed, dialect=self.dialect
            ) from error
        except BaseException as error:
            pooled.invalidate(error)  # the server may still be at it
            raise
        if time.monotonic() - began > self._slow:
            pooled.invalidate()
        else:
            pooled.close()
        return rows
