"""Where one measurement of one contender takes place: empty services of its own, emptied after."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from kombu.connection import Connection
from redis import Redis
from sqlalchemy import Engine, create_engine, make_url, text

from ..stand import service_url

REDIS_NUMBER = 9
"""The Redis database that the measurements use, and empty."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Addresses, handed to the contender's processes in the environment."""

    folder: Path
    queue: str
    database: str
    """A SQLAlchemy URL; empty where the contender wants none."""

    @property
    def dsn(self) -> str:
        """The PostgreSQL database as libpq takes it."""
        return re.sub(r"^postgresql\+\w+:", "postgresql:", self.database)

    @property
    def redis(self) -> str:
        return redis_url()

    @property
    def amqp(self) -> str:
        return service_url("amqp")

    def environ(self) -> dict[str, str]:
        return {
            "BENCH_FOLDER": str(self.folder),
            "BENCH_QUEUE": self.queue,
            "BENCH_DATABASE": self.database,
            "BENCH_DSN": self.dsn,
            "BENCH_REDIS": self.redis,
            "BENCH_AMQP": self.amqp,
            "BENCH_WITNESS": str(self.witness),
        }

    @property
    def witness(self) -> Path:
        return self.folder / "witness"

    @cached_property
    def engine(self) -> Engine:
        """Kept, so that to ask is no more than a query."""
        return create_engine(self.database)

    def ask(self, question: str) -> int:
        """The one number that answers a question to the database."""
        with self.engine.connect() as connection:
            return int(connection.execute(text(question)).scalar_one())


@contextmanager
def empty_place(folder: Path, database: str, redis: bool, queues: Sequence[str]) -> Iterator[Place]:
    """Make the services ready; remove afterwards what the contender left in them."""
    folder.mkdir(parents=True)
    name = f"bench_{uuid4().hex[:12]}"
    with _database(database, name, folder) as url:
        place = Place(folder=folder, queue=name, database=url)
        if redis:
            empty_redis(place.redis)
        try:
            yield place
        finally:
            if database:
                place.engine.dispose()
            if redis:
                empty_redis(place.redis)
            if queues:
                _delete_queues(place.amqp, [queue.format(queue=name) for queue in queues])


@contextmanager
def _database(kind: str, name: str, folder: Path) -> Iterator[str]:
    if not kind:
        yield ""
        return
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'bench.sqlite'}"
        return
    url = make_url(service_url(kind))
    server = create_engine(url, isolation_level="AUTOCOMMIT")

    def tell(statement: str) -> None:
        with server.connect() as connection:
            connection.execute(text(statement))

    tell(f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        tell(f"DROP DATABASE {name}" + (" WITH (FORCE)" if kind == "postgresql" else ""))
        server.dispose()


def empty_redis(url: str) -> None:
    with Redis.from_url(url) as client:
        client.flushdb()


def redis_url() -> str:
    return re.sub(r"/\d*$", "", service_url("redis")) + f"/{REDIS_NUMBER}"


def check_redis() -> None:
    """Raise SystemExit when the database that will be emptied is somebody's, or another run's."""
    with Redis.from_url(redis_url()) as client:
        if client.dbsize():
            raise SystemExit(
                f"Redis database {REDIS_NUMBER} is not empty, and would be emptied. If it is left over "
                f"from a run that was killed: redis-cli -n {REDIS_NUMBER} flushdb"
            )


def _delete_queues(url: str, queues: list[str]) -> None:
    with Connection(url) as connection:
        for queue in queues:
            # A queue that does not exist counts as deleted.
            connection.channel().queue_delete(queue)
