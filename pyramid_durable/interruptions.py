"""Telling a job that failed from one that lost the store's database under its feet (daemon)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy.exc import DBAPIError, PendingRollbackError

from .exceptions import SchemaMismatch, StoreBusy, StoreUnavailable
from .outcomes import Outcome
from .records import SCHEDULED
from .store.outages import is_away, refuses_to_write

PAUSE: Final = 1.0
"""Seconds until an interrupted job is due again: a failover takes some, and claims wait for it."""

LOST_CONNECTION: Final = "8s2b"
"""SQLAlchemy's code of the error that follows a lost connection, where the job went on after it."""


def interruption(
    error: BaseException, store: Any, *, on_store: bool, started: bool = False
) -> Outcome | None:
    """The outcome of a job whose work the store's outage has cut short; None where it just failed.

    ``on_store`` tells whether the job's own session is on the store's database. Another database
    that is away is the job's own affair: it may be away for good. ``started``: its own code had been
    reached.

    An outage costs the job nothing. Where the store is there all the same, only this connection was
    lost. The job itself may have brought that about, again and again, so it counts as a crash. (Not
    so where the database says why: a nearly full disk may take a small write, and not the job's.)
    """
    if not any(_is_outage(one, on_store) for one in _chain(error)):
        return None
    crashed = not any(map(refuses_to_write, _chain(error))) and store.works()
    return Outcome(state=SCHEDULED, error=error, give_back=PAUSE, crashed=crashed, started=started)


def _is_outage(error: BaseException, on_store: bool) -> bool:
    if isinstance(error, StoreUnavailable):
        # A wait for somebody else's lock that was given up is no outage.
        cause = error.__cause__
        is_busy = isinstance(cause, DBAPIError) and not is_away(cause)
        return not isinstance(error, (SchemaMismatch, StoreBusy)) and not is_busy
    if not on_store:
        return False
    if isinstance(error, PendingRollbackError):
        return error.code == LOST_CONNECTION
    return isinstance(error, DBAPIError) and is_away(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from, or while handling."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
