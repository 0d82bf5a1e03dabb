"""What the rental does without a visitor waiting for it (daemon)."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import ClassVar

from pyramid.request import Request
from sqlalchemy import func, select

from pyramid_durable import Cancel, TriggerBehavior, current_job, job, routine

from .models import Charge, Rental, Report, Ski, utcnow


@routine(trigger_name="late-fee", pass_request=True, behavior=TriggerBehavior.SCHEDULE_ONCE)
class LateFee:
    """Charges whoever has not brought the ski back by the time this is due."""

    # mypy cannot know what a class decorator adds.
    schedule: ClassVar[Callable[..., str | None]]

    def __init__(self, request: Request, rental_id: int) -> None:
        self.session = request.dbsession
        self.amount = Decimal(request.registry.settings["demo.late_fee"])
        # Locked, so that a ski returned at this very moment is returned before or after the
        # fee, never during. (A ski's id would not do: it may be out again with somebody else.)
        self.rental = self.session.scalars(
            select(Rental).where(Rental.id == rental_id).with_for_update(of=Rental)
        ).one()

    def check_validity(self) -> bool:
        """False ends the job as cancelled: the ski is back."""
        return self.rental.returned_at is None

    def run(self) -> str:
        """Charge. This row and the job's completion are one commit: exactly one fee."""
        self.session.add(
            Charge(
                rental=self.rental,
                customer_id=self.rental.customer_id,
                amount=self.amount,
                reason=f"late fee for {self.rental.ski.name}",
            )
        )
        return f"charged {self.rental.customer.name} {self.amount}"


@job(pass_request=True)
def nightly_report(request: Request) -> str:
    """Write down how the day went. Runs at night, by cron."""
    session = request.dbsession
    out = session.scalar(select(func.count()).where(Ski.out_for_rent)) or 0
    fees = session.scalar(select(func.coalesce(func.sum(Charge.amount), 0)))
    body = f"{out} jet skis are out. Late fees so far: {fees:.2f}."
    session.add(Report(made_at=utcnow(), body=body))
    return body


@job(pass_request=True)
def count_inventory(request: Request) -> dict[str, int]:
    """Walk along the jetty and count, which takes a while; the jobs page shows how far it is.

    The database is asked once, at the start: a job that sits on a write lock while it walks would
    make everybody else wait.
    """
    pause = float(request.registry.settings["demo.seconds_per_ski"])
    skis = request.dbsession.execute(select(Ski.name, Ski.out_for_rent).order_by(Ski.id)).all()
    found = {"at the jetty": 0, "out": 0}
    running = current_job()
    for done, (name, out) in enumerate(skis, 1):
        if running.cancel_requested:
            raise Cancel(f"stopped before {name}")
        time.sleep(pause)
        found["out" if out else "at the jetty"] += 1
        running.set_progress(done, len(skis), name)
    return found


class WorkshopError(Exception):
    """Raised when a ski cannot be serviced."""


@job(pass_request=True, max_attempts=2, backoff=5)
def service_ski(request: Request, ski_id: int) -> str:
    """Service a ski. Rusty never starts: its job shows a retry, then a failure and tracebacks."""
    ski = request.dbsession.get(Ski, ski_id)
    if ski.needs_parts:
        raise WorkshopError(f"{ski.name} has no spark; cylinder 1 wants a new plug")
    return f"{ski.name} runs like new"
