"""django-future's examples in this package's words; what they are called with is in ``calls``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pyramid.threadlocal import get_current_request

from pyramid_durable import current_job, job
from pyramid_durable.current import CurrentJob
from tests.web.site import Rental

calls: list[Any] = []
THREE_DAYS = timedelta(days=3)


def dosomething() -> None:
    calls.append("done")


def with_args(*args: Any, **kwargs: Any) -> None:
    calls.append((args, kwargs))


def of_content(rental: Rental, *args: Any) -> None:
    calls.append((rental.ski, args))


def do_job(self: Rental, *args: Any) -> None:
    """A method of Rental, for as long as a test."""
    calls.append((self.ski, "do_job", args))


@job(pass_job=True)
def with_job_and_content(running: CurrentJob, rental: Rental) -> None:
    calls.append((running.id, rental.ski))


@job(pass_job=True)
def handler(running: CurrentJob, n: int = 5) -> None:
    calls.append(n)
    running.reschedule("3d", kwargs={"n": n + 1})


@job(pass_job=True)
def every_three_days(running: CurrentJob) -> None:
    """As django-future counts: from the time it was scheduled for, however late it runs."""
    calls.append(running.run_at)
    running.reschedule(running.run_at + THREE_DAYS)


def rent(ski: str, fails: bool = False) -> str:
    request = get_current_request()
    request.dbsession.add(Rental(ski=ski))
    request.dbsession.flush()
    if fails:
        raise LookupError(f"{ski} is not there")
    calls.append(current_job().id)
    return f"rented {ski}"
