"""Applications whose jobs run here, over a store on each database that is emptied before a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import transaction
from sqlalchemy import text, update

from pyramid_durable.outcomes import Outcome
from pyramid_durable.records import Claim, StoredJob
from pyramid_durable.runner import Runner
from pyramid_durable.store import DaemonInfo, Store
from pyramid_durable.store.migrate import version_table
from tests.services import service_url
from tests.web.site import Rental, Site, make_site, mapper

from . import jobs

DATABASES = ("sqlite", "postgresql", "mariadb")


@pytest.fixture(scope="session", params=DATABASES)
def made_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    kind = request.param
    folder = tmp_path_factory.mktemp("daemon")
    url = f"sqlite:///{folder / 'store.db'}" if kind == "sqlite" else service_url(kind)
    store = Store(url, prefix=f"d{uuid4().hex[:8]}_")
    store.migrate()
    yield store
    with store.begin() as connection:
        mapper.metadata.drop_all(connection)
        store.tables.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {version_table(store.prefix)}"))
    store.dispose()


@pytest.fixture
def store(made_store: Store) -> Iterator[Store]:
    mapper.metadata.create_all(made_store.engine)
    with made_store.begin() as connection:
        connection.execute(Rental.__table__.delete())
        for table in made_store.tables.metadata.sorted_tables:
            if table is not made_store.tables.meta:
                connection.execute(table.delete())
    jobs.calls.clear()
    yield made_store
    transaction.abort()


@dataclass
class Bench:
    """An application and its runner, as the one daemon there is."""

    site: Site
    store: Store
    runner: Runner
    owner: str = "the-owner"
    last: Any = None

    @property
    def scheduler(self) -> Any:
        return self.site.scheduler

    def claim(self) -> Claim:
        """Claim the one job that is due."""
        with self.store.begin() as connection:
            look = self.store.looks.look(connection, ["default", "mail"])
            (self.last,) = self.store.claims.take(connection, self.owner, look, 10)
        return self.last

    def run(self, func: Any, *args: Any, **options: Any) -> Outcome:
        """Add a job, claim it and run it; what it leaves to be written is written."""
        self.scheduler.add_async_job(func, args=list(args), **options)
        return self.run_claimed()

    def run_claimed(self) -> Outcome:
        outcome = self.runner.run(self.claim())
        if outcome.completion is not None:
            with self.store.begin() as connection:
                self.store.completions.write(connection, [outcome.completion])
        return outcome

    def fire(self, id: str) -> None:
        """Let a schedule's next fire time come."""
        table = self.store.tables.schedule
        with self.store.begin() as connection:
            due = self.store.now(connection) - timedelta(seconds=1)
            again = update(table).where(table.c.id == id).values(due_at=due, next_run_at=due)
            connection.execute(again)

    @property
    def job(self) -> StoredJob:
        """The one job there is, as it is stored."""
        with self.store.read() as connection:
            (job,) = self.store.jobs.list(connection)
        return job

    def rentals(self) -> int:
        return self.site.rentals()


@pytest.fixture
def bench(store: Store, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Make an application; ``where`` its data are: in the store's database, or in another one."""
    made: list[Bench] = []

    def make(*, where: str = "same", **options: Any) -> Bench:
        url = store.url.render_as_string(hide_password=False)
        if where == "other":
            url = f"sqlite:///{tmp_path / 'other.db'}"
        site = make_site(store=store, app_url=url, **options)
        owner = uuid4().hex
        with store.begin() as connection:
            info = DaemonInfo(incarnation=owner, label="here", host="h", pid=1, queues=("default",))
            store.daemons.register(connection, info)
        runner = Runner(site.scheduler.registry)
        made.append(Bench(site=site, store=store, runner=runner, owner=owner))
        return made[-1]

    yield make
    for one in made:
        one.site.engine.dispose()
        one.scheduler.shutdown()
        opened = one.scheduler._process.store
        if opened is not None:
            opened.dispose()
