"""A store on each database, emptied before every test, and applications on top of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import transaction
from sqlalchemy import create_engine, text

from pyramid_durable.store import Store
from pyramid_durable.store.migrate import version_table
from tests.services import service_url
from tests.web.site import Rental, Site, make_site, mapper

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session", params=DATABASES)
def made_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("web")
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{folder / 'store.db'}" if sqlite else service_url("postgresql")
    store = Store(url, prefix=f"w{uuid4().hex[:8]}_")
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
    yield made_store
    # What one test leaves in the thread's manager must not reach the next.
    transaction.abort()


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make an application; ``where`` its data are: in the store's database, or in another one."""
    made: list[Site] = []

    def make(*, where: str = "same", **options: object) -> Site:
        url = store.url.render_as_string(hide_password=False)
        if where == "other":
            url = f"sqlite:///{tmp_path / 'other.db'}"
            create_engine(url).dispose()
        made.append(make_site(store=store, app_url=url, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.engine.dispose()
        one.scheduler.shutdown()
        opened = one.scheduler._process.store
        if opened is not None:
            opened.dispose()
