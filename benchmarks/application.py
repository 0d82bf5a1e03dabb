"""The application that is measured: pyramid_tm, a session on the store's database, empty jobs."""

from __future__ import annotations

from typing import Any

import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import Router
from sqlalchemy import Column, Integer, MetaData, Table, engine_from_config
from sqlalchemy.orm import sessionmaker

from pyramid_durable import job

from .peers.witness import work

metadata = MetaData()
visit = Table("visit", metadata, Column("number", Integer))


@job
def nothing() -> None:
    """The empty job: what remains is what the package costs."""


@job
def numbered(request: Request, number: int) -> None:
    """The job that all contenders run beside us; ours asks for its transaction, and so it has one."""
    request.tm.get()
    work(number)


def page(request: Request) -> Response:
    """Write a row, as most views do, and ask for as many jobs as told."""
    request.dbsession.execute(visit.insert().values(number=1))
    zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)
    scheduler = request.registry.scheduler
    for _ in range(int(request.params["jobs"])):
        scheduler.add_async_job(nothing)
    return Response("")


def main(global_config: dict[str, str], **settings: Any) -> Router:
    """The paste application factory."""
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
        config.add_route("page", "/")
        config.add_view(page, route_name="page")
        config.registry.dbengine = engine
    return config.make_wsgi_app()
