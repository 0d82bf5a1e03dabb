"""A single statement that is a transaction by itself (web and daemon)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from .standby import refuses_writes


class LoneConnection:
    """Stands in for a Connection where all that comes is one PlainStatement, which has no result.

    A Connection with its transaction and its results takes as long as the driver does for a small
    statement. What is kept of SQLAlchemy are the pool and the errors.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.dialect = engine.dialect

    def exec_driver_sql(self, statement: str, parameters: Any) -> None:
        """Execute it, committed by the server without being told."""
        pooled = self._engine.raw_connection()
        driver: Any = pooled.dbapi_connection
        failed = self.dialect.loaded_dbapi.Error
        try:
            driver.autocommit = True
            driver.cursor().execute(statement, parameters)
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
        pooled.close()
