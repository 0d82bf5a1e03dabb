"""The application under fire: jobs that write down, in their own transaction, that they ran."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.router import Router
from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    engine_from_config,
    insert,
)
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from pyramid_durable import Cancel, Retry, current_job, job
from pyramid_durable.store.completions import Completions

from .unfenced import without_fence

metadata = MetaData()

INNODB: Any = {"mysql_engine": "InnoDB"}

effect = Table(
    "effect",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job", String(40)),
    Column("attempt", Integer),
    Column("pid", Integer),
    **INNODB,
)
"""What jobs did. Nothing here is unique: a second effect is to be seen."""

asked = Table(
    "asked", metadata, Column("asked_key", String(80)), Column("job", String(40)), **INNODB
)
"""What requests wrote in the transaction in which they asked for a job."""

fatal = Table(
    "fatal",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job", String(40)),
    Column("pid", Integer),
    Column("at", Float),
    **INNODB,
)
"""Daemons that were killed by a job, written in a transaction of its own, just before."""

TABLES = (effect, asked, fatal)


def started(request: Request) -> None:
    """Note, whatever becomes of this attempt, that the job's own code was reached."""
    with Path(request.registry.settings["chaos.starts"]).open("a") as book:
        book.write(f"{current_job().id}\n")


RETRY_AFTER = "200ms"

FAILS = 2
"""Attempts of a job that always fails."""

LOOK_EVERY = 0.05


def write_effect(request: Request) -> None:
    """Note in the job's own transaction that it ran."""
    current = current_job()
    values = {"job": current.id, "attempt": current.attempt, "pid": os.getpid()}
    request.dbsession.execute(effect.insert().values(values))
    zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)


@job(pass_request=True)
def note(request: Request) -> None:
    """Write, and be done."""
    started(request)
    write_effect(request)


@job(pass_request=True)
def nap(request: Request, seconds: float, write_first: bool) -> None:
    """Take a while, with the effect already written or still to be."""
    started(request)
    if write_first:
        write_effect(request)
    time.sleep(seconds)
    if not write_first:
        write_effect(request)


@job(pass_request=True)
def again(request: Request, failures: int) -> None:
    """Ask for another attempt so many times; what the failed ones wrote is not to stay."""
    started(request)
    write_effect(request)
    if current_job().attempt <= failures:
        raise Retry(RETRY_AFTER)


@job(pass_request=True, max_attempts=FAILS, backoff=RETRY_AFTER)
def fail(request: Request) -> None:
    """Write, and fail, in every attempt."""
    started(request)
    write_effect(request)
    raise ValueError("this job always fails")


@job(pass_request=True)
def stoppable(request: Request, seconds: float) -> None:
    """Run until asked to stop, or until the time is up."""
    started(request)
    write_effect(request)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if current_job().cancel_requested:
            raise Cancel("asked to stop")
        time.sleep(LOOK_EVERY)


@job(pass_request=True)
def deadly(request: Request, times: int) -> None:
    """Kill the daemon it runs in, so many times."""
    started(request)
    own = {"job": current_job().id, "pid": os.getpid(), "at": time.time()}
    engine: Engine = request.registry.chaos_engine
    with engine.begin() as connection:
        before = connection.execute(fatal.select().where(fatal.c.job == own["job"])).all()
        if len(before) < times:
            connection.execute(insert(fatal).values(own))
    if len(before) < times:
        os.kill(os.getpid(), signal.SIGKILL)
    write_effect(request)


@job(pass_request=True)
def outside(request: Request) -> None:
    """Do something that no transaction holds: at least once is all that can be had."""
    started(request)
    path = Path(request.registry.settings["chaos.outside"])
    with path.open("a") as book:
        book.write(f"{current_job().id}\n")


@job(pass_request=True)
def tick(request: Request, seconds: float = 0.0) -> None:
    """What the schedules ask for."""
    started(request)
    write_effect(request)
    if seconds:
        time.sleep(seconds)


SCHEDULES: dict[str, float] = {"every-second": 1.0, "even-seconds": 2.0, "slow": 3.0, "each": 1.0}
"""The schedules by name, with their period in seconds."""


def declare(config: Configurator) -> None:
    """Declare the schedules."""
    config.add_interval_job("every-second", tick, seconds=1)
    config.add_cron_job("even-seconds", tick, crontab="* * * * * */2")
    # Longer now and then than its period, so that fire times have to be passed over.
    config.add_interval_job("slow", tick, seconds=3, args=[2.5])
    config.add_interval_job("each", tick, seconds=1, coalesce=False, allow_overlap=True)


def main(global_config: dict[str, str], **settings: Any) -> Router:
    settings = {"tm.manager_hook": "pyramid_tm.explicit_manager", **settings}
    if settings.get("chaos.unfenced") == "true":
        without_fence(Completions)
    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("pyramid_durable")
        engine = engine_from_config(settings, pool_pre_ping=True, pool_size=12, max_overflow=20)
        new_session = sessionmaker(engine)
        config.registry.chaos_engine = engine_from_config(settings, poolclass=NullPool)

        def dbsession(request: Request) -> Any:
            session = new_session()
            zope.sqlalchemy.register(session, transaction_manager=request.tm)
            return session

        config.add_request_method(dbsession, reify=True)
        if settings.get("chaos.schedules", "true") == "true":
            declare(config)
        config.scan("tests.concurrent.application")
    return config.make_wsgi_app()
