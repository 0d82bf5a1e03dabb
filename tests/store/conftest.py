"""One store on each database; its tables are made once and emptied before every test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from pyramid_durable.records import JobSpec
from pyramid_durable.store import DaemonInfo, Store
from pyramid_durable.store.migrate import version_table
from pyramid_durable.times import new_id
from tests.services import service_url

DATABASES = ("sqlite", "postgresql", "mariadb")


def store_url(database: str, folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}" if database == "sqlite" else service_url(database)


def drop_tables(store: Store) -> None:
    with store.begin() as connection:
        store.tables.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {version_table(store.prefix)}"))


@pytest.fixture(scope="session", params=DATABASES)
def made_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    url = store_url(request.param, tmp_path_factory.mktemp("store"))
    store = Store(url, prefix=f"t{uuid4().hex[:8]}_")
    store.migrate()
    yield store
    drop_tables(store)
    store.dispose()


@pytest.fixture
def store(made_store: Store) -> Store:
    tables = made_store.tables
    with made_store.begin() as connection:
        for table in tables.metadata.sorted_tables:
            if table is not tables.meta:
                connection.execute(table.delete())
    return made_store


@pytest.fixture
def spec() -> Callable[..., JobSpec]:
    def make(**changes: object) -> JobSpec:
        values: dict[str, object] = {
            "id": new_id(),
            "func": "tests.jobs:noop",
            "payload": '{"args":[],"kwargs":{}}',
            "queue": "default",
        }
        return JobSpec(**{**values, **changes})  # type: ignore[arg-type]

    return make


def register(store: Store, incarnation: str, declares: str | None = None) -> str:
    info = DaemonInfo(
        incarnation=incarnation,
        label=incarnation,
        host="here",
        pid=1,
        queues=("default",),
        declares=declares,
    )
    with store.begin() as connection:
        store.daemons.register(connection, info)
    return incarnation
