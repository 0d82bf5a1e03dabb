"""The engine, ``request.dbsession`` and the first rows (web and daemon)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.request import Request
from sqlalchemy import Engine, engine_from_config, select
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from .models import Base, Customer, Ski

log = logging.getLogger(__name__)

# Web and daemon may start at the same moment on an empty database and both create the tables;
# the slower one fails and finds them there when it looks again.
CREATE_TRIES = 3


def includeme(config: Configurator) -> None:
    """Add ``registry.dbengine`` and ``request.dbsession``; no connection is opened here."""
    engine = engine_from_config(config.get_settings(), "sqlalchemy.")
    config.registry.dbengine = engine
    config.add_request_method(session_factory(engine), "dbsession", reify=True)


def session_factory(engine: Engine) -> Callable[[Request], Session]:
    """A function that gives each request a session living and ending with ``request.tm``."""
    new_session = sessionmaker(engine)

    def dbsession(request: Request) -> Session:
        session = new_session(info={"request": request})
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    return dbsession


def initialize(registry: Registry) -> None:
    """Create the demo's tables and first rows where they are missing.

    A real application has migrations for this. An unreachable database is reported and left to
    whoever needs it first, so that web and daemon may start before their database does.
    """
    engine: Engine = registry.dbengine
    try:
        create_tables(engine)
        add_first_rows(engine)
        # A server that forks its workers after this must not find a connection here to share out.
        engine.dispose()
    except OperationalError as error:
        log.error(
            "The demo's tables could not be made; start again when the database answers: %s",
            str(error.orig).partition("\n")[0],
        )


def create_tables(engine: Engine) -> None:
    """``create_all`` that bears another process doing the same."""
    for left in reversed(range(CREATE_TRIES)):
        try:
            Base.metadata.create_all(engine)
        except (IntegrityError, OperationalError, ProgrammingError):
            if not left:
                raise
        else:
            return


def add_first_rows(engine: Engine) -> None:
    """A few skis and customers. Their ids are fixed, so that a second writer is refused."""
    with Session(engine) as session:
        if session.scalar(select(Ski.id).limit(1)) is not None:
            return
        session.add_all(first_rows())
        try:
            session.commit()
        except IntegrityError:
            log.info("Another process has added the demo's first rows.")


def first_rows() -> list[Any]:
    """What the rental opens with."""
    skis = ["Kingfisher", "Sea Otter", "Storm Petrel", "Wave Runner", "Mistral", "Rusty"]
    return [
        *(Ski(id=n, name=name, needs_parts=name == "Rusty") for n, name in enumerate(skis, 1)),
        Customer(id=1, name="Ada"),
        Customer(id=2, name="Grace"),
        Customer(id=3, name="Katherine"),
        Customer(id=4, name="Charles", card_declined=True),
    ]
