"""Leaving a server that does not take writes any more (web and daemon)."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext

READ_ONLY_STATE: Final = "25006"
READ_ONLY_NUMBERS: Final = (1290, 1792, 1836)
"""How PostgreSQL and MariaDB refuse to write on a server that has become a standby."""


def leave_standby(engine: Engine) -> None:
    """Drop an engine's connections when the server refuses to write.

    After a failover they may still lead to the old one, which answers well, so that nothing else
    would ever end them. New ones are made by the URL, which leads to the server that writes.
    """

    @event.listens_for(engine, "handle_error")
    def drop(context: ExceptionContext) -> None:
        if refuses_writes(context.original_exception):
            context.is_disconnect = True


def refuses_writes(error: Any) -> bool:
    """Tell whether a driver's error says that the server is read-only."""
    # As psycopg and psycopg2 call it; MariaDB's drivers give the number first.
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state == READ_ONLY_STATE or (bool(error.args) and error.args[0] in READ_ONLY_NUMBERS)
