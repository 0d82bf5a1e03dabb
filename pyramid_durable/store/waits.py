"""Waiting for another transaction's id or key: for a bounded time, and with a clear end (both)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from ..exceptions import StoreBusy
from .outages import deadlock_behind, is_lock_timeout

KEY_WAIT: Final = 5.0
"""Seconds that a call waits for another transaction's id or key. That transaction is a request's or
a job's, and decides when it ends; a web server's worker must not hang as long."""

NAMED: Final = 5
"""Ids that an error names; a batch may have thousands."""

SHORTER: Final = text(
    "SELECT before, set_config('lock_timeout', CASE WHEN before = '0'"
    " OR CAST(before AS interval) > make_interval(secs => CAST(:seconds AS double precision))"
    " THEN CAST(CAST(:seconds AS double precision) * 1000 AS integer) || 'ms'"
    " ELSE before END, true) FROM current_setting('lock_timeout') AS before"
)
AS_BEFORE: Final = text("SELECT set_config('lock_timeout', :before, true)")

SECONDS: Final = "@@SESSION.innodb_lock_wait_timeout"
"""MariaDB's setting, in whole seconds."""


@contextmanager
def waiting_for(connection: Connection, ids: Sequence[str], seconds: float) -> Iterator[None]:
    """Wait this long at most for a lock within; an error takes back what was done within.

    ``ids`` are those of the jobs or schedules that are being added. The transaction goes on as it
    was, with its own settings, also after an error. (SQLite does neither: the wait for its one
    writer is the connection's, and a savepoint of a session that is not ours might commit.)

    Raises StoreBusy when the time is up.
    """
    try:
        with _bounded(connection, seconds):
            yield
    except DBAPIError as error:
        if not is_lock_timeout(error):
            raise
        more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        raise StoreBusy(
            f"adding {', '.join(ids[:NAMED])}{more}: another transaction holds the same id, or the "
            f"key of an equal job, and has not ended within {seconds:g} s; try again when it has"
        ) from error


def kept_together(connection: Connection) -> AbstractContextManager[object]:
    """An error within takes back what was done within, where the database can do that.

    SQLite cannot: there ask first whether there will be one; nobody else writes meanwhile.
    """
    return nullcontext() if connection.dialect.name == "sqlite" else connection.begin_nested()


def _bounded(connection: Connection, seconds: float) -> AbstractContextManager[None]:
    if connection.dialect.name == "postgresql":
        return _on_postgresql(connection, seconds)
    if connection.dialect.name in ("mysql", "mariadb"):
        return _on_mariadb(connection, seconds)
    return nullcontext()


@contextmanager
def _on_postgresql(connection: Connection, seconds: float) -> Iterator[None]:
    with connection.begin_nested():
        before = connection.execute(SHORTER, {"seconds": seconds}).scalar_one()
        yield
        connection.execute(AS_BEFORE, {"before": before})


@contextmanager
def _on_mariadb(connection: Connection, seconds: float) -> Iterator[None]:
    shorter = f"LEAST({SECONDS}, {max(int(seconds), 1)})"
    connection.exec_driver_sql(f"SET @durable_wait = {SECONDS}, {SECONDS} = {shorter}")
    try:
        with connection.begin_nested():
            yield
    except DBAPIError as error:
        deadlock = deadlock_behind(error)
        if deadlock is None:
            raise
        # It has undone the whole transaction, savepoints too. What follows would be one of its
        # own, and might be committed without what went before.
        connection.invalidate()
        raise deadlock from None
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql(f"SET {SECONDS} = @durable_wait")
