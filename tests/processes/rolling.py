"""An application in two versions: ``version=1`` or ``version=2`` comes after the ini.

As a script it asks for jobs, as a web process of that version does:
``rolling INI version=1 FUNCTION=NUMBER ...``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.paster import bootstrap
from pyramid.request import Request
from pyramid.router import Router
from sqlalchemy import Column, Integer, MetaData, Table, engine_from_config
from sqlalchemy.orm import sessionmaker

metadata = MetaData()
ran = Table("ran", metadata, Column("number", Integer))


def note(request: Request, number: int) -> None:
    """Note in the job's own transaction that it ran."""
    request.dbsession.execute(ran.insert().values(number=number))
    zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)


def application(global_config: dict[str, str], **settings: Any) -> Router:
    sys.path.insert(0, str(Path(__file__).parent / f"version{global_config['version']}"))
    with Configurator(settings=settings) as config:
        config.include("pyramid_durable")
        new_session = sessionmaker(engine_from_config(settings))

        def dbsession(request: Request) -> Any:
            session = new_session()
            zope.sqlalchemy.register(session, transaction_manager=request.tm)
            return session

        config.add_request_method(dbsession, reify=True)
        config.include("shop")
        config.scan("shop")
    return config.make_wsgi_app()


def main() -> int:
    ini, version, *calls = sys.argv[1:]
    environment = bootstrap(ini, options=dict([version.split("=")]))
    scheduler = environment["registry"].scheduler
    pairs = [call.split("=") for call in calls]
    scheduler.add_jobs([{"func": f"shop.{func}", "args": [int(number)]} for func, number in pairs])
    environment["closer"]()
    return 0
