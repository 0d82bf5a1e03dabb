"""The pages (web)."""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound, HTTPSeeOther
from pyramid.request import Request
from pyramid.view import exception_view_config, notfound_view_config, view_config
from sqlalchemy import func, select, update

from pyramid_durable.records import STATES, JobInfo

from . import jobs
from .models import Charge, Customer, Rental, Report, Ski, utcnow

# As many as a person reads; an application would page.
JOBS_SHOWN = 50
ROWS_SHOWN = 8


class CardDeclined(Exception):
    """Raised when the deposit cannot be taken; the whole rental is rolled back."""


def includeme(config: Configurator) -> None:
    config.add_static_view("static", "demo:static")
    config.add_route("home", "/")
    config.add_route("rent", r"/skis/{id:\d+}/rent", request_method="POST")
    config.add_route("service", r"/skis/{id:\d+}/service", request_method="POST")
    config.add_route("return", r"/rentals/{id:\d+}/return", request_method="POST")
    config.add_route("reports", "/reports")
    config.add_route("jobs", "/jobs")
    config.add_route("cancel_job", "/jobs/{id}/cancel", request_method="POST")
    config.add_route("job", "/jobs/{id}")


@view_config(route_name="home", renderer="demo:templates/home.jinja2")
def home(request: Request) -> dict[str, Any]:
    """The jetty: which ski is where, and what was charged."""
    session = request.dbsession
    open_rentals = session.scalars(select(Rental).where(Rental.returned_at.is_(None)))
    balances = (
        select(Customer.name, func.sum(Charge.amount))
        .join(Customer.charges)
        .group_by(Customer.name)
        .order_by(Customer.name)
    )
    return {
        "skis": session.scalars(select(Ski).order_by(Ski.id)).all(),
        "rentals": {rental.ski_id: with_fee(request, rental) for rental in open_rentals},
        "customers": session.scalars(select(Customer).order_by(Customer.id)).all(),
        "charges": session.scalars(
            select(Charge).order_by(Charge.id.desc()).limit(ROWS_SHOWN)
        ).all(),
        "balances": session.execute(balances).all(),
        "fee": request.registry.settings["demo.late_fee"],
        "fee_after": request.registry.settings["demo.late_fee_after"],
    }


def with_fee(request: Request, rental: Rental) -> tuple[Rental, JobInfo | None]:
    """A rental and the job of its late fee."""
    job_id = rental.fee_job_id
    return rental, request.scheduler.get_job(job_id) if job_id else None


@view_config(route_name="rent")
def rent(request: Request) -> HTTPSeeOther:
    """Rent a ski out: the row that says so and the job of the late fee are one transaction."""
    session = request.dbsession
    ski = find(request, Ski, request.matchdict["id"])
    customer = find(request, Customer, request.POST.get("customer"))
    # Of two visitors at once only one changes this row.
    taken = session.execute(
        update(Ski).where(Ski.id == ski.id, Ski.out_for_rent.is_(False)).values(out_for_rent=True)
    )
    if not taken.rowcount:
        return back(request, "home", f"{ski.name} is out already.")
    rental = Rental(ski=ski, customer=customer)
    session.add(rental)
    session.flush()
    rental.fee_job_id = jobs.LateFee.schedule(
        datetime_scheduled=request.registry.settings["demo.late_fee_after"], args=[rental.id]
    )
    if customer.card_declined:
        raise CardDeclined(f"{customer.name}'s card was declined")
    return back(request, "home", f"{customer.name} is out with {ski.name}.")


@view_config(route_name="return")
def give_back(request: Request) -> HTTPSeeOther:
    """Take a ski back. The fee's job stays; when it is due it finds that it is void."""
    rental = find(request, Rental, request.matchdict["id"])
    if rental.returned_at is None:
        rental.returned_at = utcnow()
        rental.ski.out_for_rent = False
    return back(request, "home", f"{rental.ski.name} is back.")


@view_config(route_name="service")
def service(request: Request) -> HTTPSeeOther:
    """Send a ski to the workshop."""
    ski = find(request, Ski, request.matchdict["id"])
    job_id = request.scheduler.add_async_job(
        jobs.service_ski, args=[ski.id], name=f"service {ski.name}"
    )
    request.session.flash(f"{ski.name} goes to the workshop.")
    return HTTPSeeOther(request.route_path("job", id=job_id))


@view_config(route_name="reports", request_method="GET", renderer="demo:templates/reports.jinja2")
def reports(request: Request) -> dict[str, Any]:
    """The nightly reports."""
    newest = select(Report).order_by(Report.id.desc()).limit(ROWS_SHOWN)
    return {"reports": request.dbsession.scalars(newest).all()}


@view_config(route_name="reports", request_method="POST")
def report_now(request: Request) -> HTTPSeeOther:
    """Ask for the report without waiting for the night."""
    request.scheduler.add_async_job(jobs.nightly_report, name="report by hand")
    return back(request, "reports", "The report is being written.")


@view_config(route_name="jobs", renderer="demo:templates/jobs.jinja2")
def job_list(request: Request) -> dict[str, Any]:
    """The newest jobs and the schedules; the page refreshes itself."""
    state = request.GET.get("state") or None
    if state is not None and state not in STATES:
        raise HTTPBadRequest(f"There is no state {state!r}; there are {', '.join(STATES)}.")
    return {
        "jobs": request.scheduler.get_jobs(state=state, limit=JOBS_SHOWN),
        "schedules": request.scheduler.get_schedules(),
        "states": STATES,
        "chosen": state,
    }


@view_config(route_name="job", renderer="demo:templates/job.jinja2")
def job_page(request: Request) -> dict[str, Any]:
    """One job, with its progress and its tracebacks."""
    job = request.scheduler.get_job(request.matchdict["id"])
    if job is None:
        raise HTTPNotFound("There is no such job (any more).")
    return {"job": job, "can_cancel": job.state in ("scheduled", "running")}


@view_config(route_name="cancel_job")
def cancel_job(request: Request) -> HTTPSeeOther:
    """Cancel a job: one that waits never runs, one that runs is asked to stop."""
    job_id = request.matchdict["id"]
    changed = request.scheduler.cancel_job(job_id)
    request.session.flash("Cancelled." if changed else "There was nothing left to cancel.")
    return HTTPSeeOther(request.route_path("job", id=job_id))


@notfound_view_config(renderer="demo:templates/sorry.jinja2")
def not_found(exc: HTTPNotFound, request: Request) -> dict[str, Any]:
    request.response.status_int = 404
    return {"title": "Not found", "text": exc.detail or "There is no such page."}


@exception_view_config(HTTPBadRequest, renderer="demo:templates/sorry.jinja2")
def bad_request(exc: HTTPBadRequest, request: Request) -> dict[str, Any]:
    request.response.status_int = 400
    return {"title": "That did not work", "text": exc.detail or exc.explanation}


@exception_view_config(CardDeclined, renderer="demo:templates/sorry.jinja2")
def card_declined(exc: CardDeclined, request: Request) -> dict[str, Any]:
    """pyramid_tm has seen the exception: no rental was kept, and no job of a late fee."""
    request.response.status_int = 402
    return {
        "title": "Card declined",
        "text": f"{exc}. The view had rented the ski out and scheduled the late fee by then; "
        "with its transaction both are gone.",
    }


def find(request: Request, model: type[Any], key: str | None) -> Any:
    """The row with this id, or an answer that says there is none."""
    found = request.dbsession.get(model, int(key)) if key and key.isdecimal() else None
    if found is None:
        raise HTTPNotFound(f"There is no {model.__name__.lower()} {key!r}.")
    return found


def back(request: Request, route: str, message: str) -> HTTPSeeOther:
    """To a page, with a message on it."""
    request.session.flash(message)
    return HTTPSeeOther(request.route_path(route))
