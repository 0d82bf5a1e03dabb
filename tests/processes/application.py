"""A small application for tests with real processes: its jobs write down that they ran."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import Router
from pyramid.threadlocal import get_current_request
from sqlalchemy import (
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    engine_from_config,
    func,
)
from sqlalchemy.orm import sessionmaker

from pyramid_durable import Retry, current_job, job
from pyramid_durable.current import CurrentJob
from pyramid_durable.exceptions import DuplicateJob, InvalidSetting
from pyramid_durable.jobstore import DurableJobStore


class Unmade(DurableJobStore):
    """A job store that turns out to be wrong when a daemon starts, and not before."""

    def __init__(self, *args: Any, **options: Any) -> None:
        raise InvalidSetting("this job store cannot be made")


metadata = MetaData()
ran = Table(
    "ran",
    metadata,
    Column("number", Integer),
    Column("job", String(40)),
    Column("at", DateTime(timezone=True), server_default=func.now()),
)
asked = Table("asked", metadata, Column("number", Integer))


@job(pass_request=True)
def note(request: Request, number: int) -> None:
    """Note in the job's own transaction that it ran: no more and no less than once."""
    request.dbsession.execute(ran.insert().values(number=number, job=current_job().id))
    zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)


@job(pass_request=True)
def note_and_nap(request: Request, number: int, seconds: float) -> None:
    """Note, and take a while before the commit."""
    note(request, number)
    time.sleep(seconds)


@job(pass_request=True)
def note_when(request: Request, number: int, path: str) -> None:
    """Begin to wait until there is a file of this name, then note."""
    Path(f"{path}.waits").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    note(request, number)


@job(pass_request=True)
def note_at_second(request: Request, number: int, retry: dict[str, str]) -> None:
    """Ask for another attempt, then note."""
    if current_job().attempt == 1:
        raise Retry(**retry)
    note(request, number)


@job(pass_job=True)
def write_line(running: CurrentJob, path: str) -> None:
    """Add a line to a file, which no daemon shares a transaction with."""
    with Path(path).open("a") as lines:
        lines.write(f"{running.id}\n")


@job
def nap(seconds: float) -> None:
    """Take a while."""
    time.sleep(seconds)


@job
def nothing() -> None:
    """Do nothing."""


@job
def ask_for_it_again() -> None:
    """Fail with an error of pyramid_durable's own."""
    raise DuplicateJob("there is an equal one already")


@job(pass_request=True)
def sees(request: Request, number: int) -> int:
    """Return how many of the view's own rows the job sees."""
    query = asked.select().where(asked.c.number == number)
    return len(request.dbsession.execute(query).all())


def tidy() -> None:
    """Housekeeping of the application's own: note that it ran."""
    request = get_current_request()
    request.dbsession.execute(ran.insert().values(number=0, job="tidy"))
    zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)


def ask(request: Request) -> Response:
    """Write a row and ask for a job; then fail if told so."""
    number = int(request.params["number"])
    request.dbsession.execute(asked.insert().values(number=number))
    zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)
    work = {"note": note, "sees": sees, "nap": nap}[request.params.get("func", "note")]
    options = {"queue": request.params["queue"]} if "queue" in request.params else {}
    id = request.registry.scheduler.add_async_job(work, args=[number], **options)
    if request.params.get("fail"):
        raise RuntimeError("the view fails after it has asked for a job")
    return Response(id)


def failed(exception: Exception, request: Request) -> Response:
    return Response("failed", status=500)


def main(global_config: dict[str, str], **settings: Any) -> Router:
    settings = {"tm.manager_hook": "pyramid_tm.explicit_manager", **settings}
    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("pyramid_durable")
        engine = engine_from_config(settings)
        new_session = sessionmaker(engine)

        def dbsession(request: Request) -> Any:
            session = new_session()
            zope.sqlalchemy.register(session, transaction_manager=request.tm)
            return session

        config.add_request_method(dbsession, reify=True)
        config.add_route("ask", "/ask")
        config.add_view(ask, route_name="ask")
        config.add_exception_view(failed, context=RuntimeError)
        if "application.yearly" in settings:
            # On a queue of its own: the daemon that declares it need not be the one that runs it.
            config.add_cron_job(
                "yearly", note, args=[0], crontab="0 3 1 1 *", queue=settings["application.yearly"]
            )
        config.scan("tests.processes.application")
    return config.make_wsgi_app()
