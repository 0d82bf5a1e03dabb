"""A real Pyramid application, put together in all the ways in which applications are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import transaction
import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.response import Response
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, func, select
from sqlalchemy.orm import Session, registry, sessionmaker
from webtest import TestApp

from pyramid_durable.scheduler import Scheduler
from pyramid_durable.store import Store

mapper = registry(metadata=MetaData())


@mapper.mapped
class Rental:
    """What the application keeps about its own business."""

    __table__ = Table(
        # One for each process: two runs at once share the database.
        f"web_test_rental_{os.getpid()}",
        mapper.metadata,
        Column("id", Integer, primary_key=True),
        Column("ski", String(50), nullable=False, unique=True),
    )

    def remind(self, *args: Any) -> None:
        """A job on one rental."""


@dataclass
class Site:
    """An application, and what can be seen of it from outside."""

    app: TestApp
    scheduler: Scheduler
    engine: Engine
    store: Store
    bodies: list[Callable[[Any], Any]] = field(default_factory=list)
    announced: list[tuple[frozenset[str], int]] = field(default_factory=list)
    """Each announcement, with the number of jobs that others could see at that moment."""

    def get(self, body: Callable[[Any], Any], path: str = "/") -> Any:
        """Let a view do this, as part of a request."""
        self.bodies.append(body)
        return self.app.get(path)

    def jobs(self) -> list[str]:
        """The names of the jobs' functions, as others see them."""
        with self.store.read() as connection:
            return sorted(job.func for job in self.store.jobs.list(connection))

    def schedules(self) -> list[str]:
        """The ids of the schedules, as others see them."""
        with self.store.read() as connection:
            return [schedule.id for schedule in self.store.schedules.list(connection)]

    def rentals(self) -> int:
        """The number of the application's own rows, as others see them."""
        with self.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(Rental)).scalar_one()

    def _announce(self, queues: Any) -> None:
        self.announced.append((frozenset(queues), len(self.jobs())))


def explicit_manager(request: Any) -> transaction.TransactionManager:
    return transaction.TransactionManager(explicit=True)


def make_site(
    *,
    store: Store,
    app_url: str,
    settings: dict[str, Any] | None = None,
    tm: str | None = "explicit",
    session: str | None = "zope",
    configure: Callable[[Configurator], None] | None = None,
) -> Site:
    """Build the application.

    ``tm``: ``explicit`` and ``thread`` with pyramid_tm, None without. ``session``: ``zope`` where
    zope.sqlalchemy knows it, ``plain`` where not, None where there is none.
    """
    all_settings = {
        "scheduler.jobstore.default.url": store.url.render_as_string(hide_password=False),
        "scheduler.jobstore.default.prefix": store.prefix,
        "scheduler.broker.url": "memory://",
        "scheduler.queues": "default mail",
        "scheduler.timezone": "UTC",
        **(settings or {}),
    }
    engine = create_engine(app_url)
    mapper.metadata.create_all(engine)
    config = Configurator(settings=all_settings)
    if tm is not None:
        config.include("pyramid_tm")
        if tm == "explicit":
            config.registry.settings["tm.manager_hook"] = explicit_manager
    if session is not None:
        _add_session(config, engine, session)
    config.include("pyramid_durable")
    bodies: list[Callable[[Any], Any]] = []
    config.add_route("all", "/{rest:.*}")
    config.add_view(lambda request: _respond(bodies.pop(0)(request)), route_name="all")
    if configure is not None:
        configure(config)
    app = config.make_wsgi_app()
    site = Site(
        app=TestApp(app),
        scheduler=app.registry.scheduler,
        engine=engine,
        store=store,
        bodies=bodies,
    )
    site.scheduler.broker.announce = site._announce  # type: ignore[method-assign]
    return site


def _respond(answer: Any) -> Response:
    return answer if isinstance(answer, Response) else Response("done")


def _add_session(config: Configurator, engine: Engine, kind: str) -> None:
    factory = sessionmaker(engine)

    def dbsession(request: Any) -> Session:
        made = factory()
        if kind == "zope":
            manager = getattr(request, "tm", transaction.manager)
            zope.sqlalchemy.register(made, transaction_manager=manager)
        else:
            request.add_finished_callback(lambda request: made.close())
        return made

    config.add_request_method(dbsession, reify=True)
