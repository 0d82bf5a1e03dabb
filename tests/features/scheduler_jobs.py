"""pyramid_scheduler's examples in this package's words; what they are called with is in ``calls``."""

from __future__ import annotations

import threading
from typing import Any

import transaction
import zope.sqlalchemy
from pyramid.threadlocal import get_current_registry, get_current_request
from sqlalchemy.orm import Session

from pyramid_durable import current_job
from pyramid_durable.jobstore import DurableJobStore
from tests.web.site import Rental

calls: list[Any] = []
gate = threading.Event()


def slow_process(name: str, id: int) -> None:
    calls.append((name, id))


def delayed_process() -> None:
    calls.append("later")


def interval_process(reason: str | None = None) -> None:
    calls.append(reason)


def long_process() -> str:
    """Work until it is let go, or asked to stop."""
    calls.append("begun")
    while not (gate.wait(0.01) or current_job().cancel_requested):
        pass
    return "asked to stop" if current_job().cancel_requested else "done"


def fail() -> None:
    calls.append("failed")
    raise LookupError("it went wrong")


def find_registry() -> None:
    calls.append((get_current_registry(), get_current_request().registry))


def rent(ski: str, fails: bool = False) -> None:
    request = get_current_request()
    request.dbsession.add(Rental(ski=ski))
    request.dbsession.flush()
    if fails:
        raise LookupError("no such customer")


def rent_by_a_session_of_the_threads(ski: str) -> None:
    """As code that knows no request does it: with the thread's transaction manager."""
    session = Session(get_current_registry().engine)
    zope.sqlalchemy.register(session, transaction_manager=transaction.manager)
    session.add(Rental(ski=ski))


def count_rentals() -> int:
    return int(get_current_request().dbsession.query(Rental).count())


def delegate(func: Any, args: Any, kwargs: Any) -> bool:
    calls.append(("delegated", func.__name__, args))
    return func is slow_process


def clean_up() -> None:
    """What ``scheduler.housekeeping.append`` names."""
    calls.append("cleaned up")
    get_current_request().dbsession.add(Rental(ski=f"ski {len(calls)}"))


class OwnJobStore(DurableJobStore):
    """What ``scheduler.jobstore.default.class`` names."""

    def get_due_jobs(self, now: Any) -> Any:
        calls.append("looked")
        return super().get_due_jobs(now)
