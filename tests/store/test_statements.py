"""What the hot paths send to the database: so many statements and commits, however many jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

import pytest
from pyramid.config import Configurator
from pyramid.scripting import prepare
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.orm import Session

from pyramid_durable.heartbeat import Heartbeat
from pyramid_durable.jobstore import DurableJobStore
from pyramid_durable.pacing import SHARES
from pyramid_durable.records import Claim, Completion, JobSpec
from pyramid_durable.scheduler import Scheduler
from pyramid_durable.store import Store
from pyramid_durable.store.dialects import dialect_for
from tests.web.jobs import charge

from .conftest import register
from .wire import recorded

Cost = tuple[int, int]
"""Statements, of which a BEGIN is none, and commits."""

COSTS: dict[str, dict[str, Cost]] = {
    "add 1": {"sqlite": (1, 1), "postgresql": (1, 1), "mariadb": (1, 1)},
    "add 1000": {"sqlite": (1, 1), "postgresql": (1, 1), "mariadb": (1, 1)},
    "enqueue 1": {"sqlite": (1, 1), "postgresql": (1, 1), "mariadb": (1, 1)},
    "enqueue 100": {"sqlite": (2, 1), "postgresql": (2, 1), "mariadb": (2, 1)},
    "claim 1": {"sqlite": (3, 1), "postgresql": (3, 1), "mariadb": (4, 1)},
    "claim 100": {"sqlite": (3, 1), "postgresql": (3, 1), "mariadb": (4, 1)},
    "claim 1000": {"sqlite": (4, 1), "postgresql": (4, 1), "mariadb": (5, 1)},
    "complete 1": {"sqlite": (1, 1), "postgresql": (1, 1), "mariadb": (1, 1)},
    "complete 100": {"sqlite": (1, 1), "postgresql": (1, 1), "mariadb": (3, 1)},
    "remove 1": {"sqlite": (5, 1), "postgresql": (5, 1), "mariadb": (5, 1)},
    "remove 100": {"sqlite": (5, 1), "postgresql": (5, 1), "mariadb": (5, 1)},
    "beat, idle": {"sqlite": (5, 2), "postgresql": (5, 2), "mariadb": (5, 2)},
    "beat beside 1": {"sqlite": (6, 2), "postgresql": (6, 2), "mariadb": (6, 2)},
    "beat beside 100": {"sqlite": (6, 2), "postgresql": (6, 2), "mariadb": (6, 2)},
    "poll, idle": {"sqlite": (1, 1), "postgresql": (1, 1), "mariadb": (1, 1)},
}
"""What each costs, by the database."""

MANY = 100
THREADS = 10


class Room:
    """An executor with room for many jobs, a thread each for the first of them."""

    waiting = 0
    starting = THREADS

    def __init__(self, number: int) -> None:
        self._number = number

    def room(self) -> int:
        return self._number

    def fed(self, *, full: bool) -> None:
        """It does not matter."""

    def take_back(self) -> list[Claim]:
        return []

    def is_quiet(self) -> bool:
        return True


@pytest.fixture
def database(made_store: Store) -> str:
    name: str = made_store.url.get_backend_name()
    return "mariadb" if name == "mysql" else name


@pytest.fixture
def scheduler(store: Store) -> Iterator[Scheduler]:
    settings = {
        "scheduler.jobstore.default.url": store.url.render_as_string(hide_password=False),
        "scheduler.jobstore.default.prefix": store.prefix,
        "scheduler.broker.url": "memory://",
    }
    config = Configurator(settings=settings)
    config.include("pyramid_durable")
    config.commit()
    made: Scheduler = config.registry.scheduler
    yield made
    made.shutdown()
    made.store.dispose()


@contextmanager
def costing(what: str, database: str, *engines: Engine) -> Iterator[None]:
    """Check what goes over the wire meanwhile."""
    with recorded(*engines) as wire:
        yield
    assert wire.cost == COSTS[what][database], f"{what}: {wire}"


def claiming(store: Store, number: int = MANY) -> DurableJobStore:
    return DurableJobStore(
        store,
        queues=["default"],
        executor=Room(number),
        owner=lambda: "me",
        held=lambda: True,
        poll_interval=1.0,
    )


def end(claim: Claim) -> Completion:
    return Completion(
        id=claim.id,
        owner="me",
        claim_no=claim.claim_no,
        state="succeeded",
        attempt=1,
        started_at=claim.claimed_at,
    )


def test_many_jobs_are_added_at_the_cost_of_one(scheduler: Scheduler, database: str) -> None:
    for number in (1, 1000):
        with costing(f"add {number}", database, scheduler.store.engine):
            scheduler.add_jobs([{"func": charge}] * number)


@pytest.mark.parametrize("number", [1, MANY])
def test_jobs_of_a_transaction_are_one_or_two_statements_in_it(
    scheduler: Scheduler, database: str, number: int
) -> None:
    engine = create_engine(scheduler.store.url)
    with Session(engine) as session, prepare(registry=scheduler.registry) as env:
        request = env["request"]
        request.dbsession = session
        session.connection()
        # It is asked once for an engine whose database it is on.
        request.scheduler.add_async_job(charge)
        session.commit()
        session.connection()
        with costing(f"enqueue {number}", database, scheduler.store.engine, engine):
            for _ in range(number):
                request.scheduler.add_async_job(charge)
            session.commit()
    engine.dispose()
    with scheduler.store.read() as connection:
        assert len(scheduler.store.jobs.list(connection)) == 1 + number


@pytest.mark.parametrize("number", [1, MANY])
def test_many_jobs_are_claimed_and_completed_at_the_cost_of_one(
    store: Store, spec: Callable[..., JobSpec], database: str, number: int
) -> None:
    register(store, "me")
    with store.begin() as connection:
        store.jobs.add(connection, [spec() for _ in range(number)])
    with costing(f"claim {number}", database, store.engine):
        claims = [run.claim for run in claiming(store).take(datetime.now(timezone.utc))]
    assert len(claims) == number
    with costing(f"complete {number}", database, store.engine), store.begin() as connection:
        accepted = store.completions.write(connection, [end(claim) for claim in claims])
    assert len(accepted) == number


def test_a_large_claim_counts_what_is_due(
    store: Store, spec: Callable[..., JobSpec], database: str
) -> None:
    register(store, "me")
    with store.begin() as connection:
        store.jobs.add(connection, [spec() for _ in range(1200)])
    with costing("claim 1000", database, store.engine):
        assert len(claiming(store, 1000).take(datetime.now(timezone.utc))) == 1200 // SHARES


@pytest.mark.parametrize("number", [1, MANY])
def test_ends_that_remove_rows_cost_the_same_for_many(
    store: Store, spec: Callable[..., JobSpec], database: str, number: int
) -> None:
    register(store, "me")
    with store.begin() as connection:
        store.jobs.add(connection, [spec() for _ in range(number)])
    claims = [run.claim for run in claiming(store).take(datetime.now(timezone.utc))]
    ends = [end(claim)._replace(delete=True) for claim in claims]
    with costing(f"remove {number}", database, store.engine), store.begin() as connection:
        accepted = store.completions.write(connection, ends)
    assert len(accepted) == number
    with store.read() as connection:
        assert store.jobs.list(connection) == []


@pytest.mark.parametrize("number", [0, 1, MANY])
def test_a_heartbeat_costs_the_same_beside_many_running_jobs(
    store: Store, spec: Callable[..., JobSpec], database: str, number: int
) -> None:
    with store.begin() as connection:
        store.jobs.add(connection, [spec() for _ in range(number)])
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    heart = Heartbeat(
        store,
        queues=["default"],
        label=None,
        interval=3600.0,
        lease=3600.0,
        poison_limit=3,
        running=lambda: claims,
        holding=lambda: {(claim.id, claim.claim_no) for claim in claims},
    )
    heart.start()
    with store.begin() as connection:
        claims = store.claims.take(connection, heart.incarnation, look, number)
    assert len(claims) == number
    with costing(f"beat beside {number}" if number else "beat, idle", database, store.engine):
        heart.beat()
    heart.stop()


def test_an_idle_daemon_looks_with_one_statement(store: Store, database: str) -> None:
    with costing("poll, idle", database, store.engine):
        assert claiming(store).take(datetime.now(timezone.utc)) == ()


@pytest.mark.parametrize(
    ("driver", "alone"), [("", True), ("+psycopg", True), ("+psycopg2", True), ("+pg8000", False)]
)
def test_a_statement_commits_alone_with_drivers_that_are_known_to_do_so(
    driver: str, *, alone: bool
) -> None:
    assert dialect_for(make_url(f"postgresql{driver}://host/name")).commits_alone is alone
