"""Jobs that follow each other in an application's transaction are written together.

Whatever is done meanwhile, that shows in nothing but the number of statements.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from pyramid_durable.exceptions import DuplicateJob
from pyramid_durable.records import JobSpec
from pyramid_durable.store import Store
from pyramid_durable.store.gathering import MOST

from .acting import Make, add
from .wire import recorded

Gather = Callable[..., list[str]]


@pytest.fixture
def engine(store: Store) -> Iterator[Engine]:
    """The application's own."""
    made = create_engine(store.url)
    yield made
    made.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as made:
        yield made


@pytest.fixture
def gather(store: Store, spec: Make, session: Session) -> Gather:
    """Ask for a job after the other, in the session's transaction; returns their ids."""

    def ask(number: int = 3, *, on: Session = session, **changes: object) -> list[str]:
        jobs = [spec(**changes) for _ in range(number)]
        for job in jobs:
            store.jobs.gather(on.connection(), [job])
        return [job.id for job in jobs]

    return ask


def ids(store: Store) -> list[str]:
    """The jobs that others see."""
    with store.read() as connection:
        return sorted(job.id for job in store.jobs.list(connection))


def seen(store: Store, connection: Session | Connection) -> int:
    """The number of jobs that are seen from here."""
    return connection.execute(select(func.count()).select_from(store.tables.job)).scalar_one()


def inserts(wire: object) -> int:
    return str(wire).count("INSERT")


def test_they_are_two_statements_in_the_transaction(
    store: Store, engine: Engine, session: Session, gather: Gather
) -> None:
    with recorded(engine) as wire:
        asked = gather(10)
        assert inserts(wire) == 1
        assert ids(store) == []
        session.commit()
    assert inserts(wire) == 2
    assert ids(store) == asked
    # The next transaction has a connection of its own.
    again = gather(2)
    session.commit()
    assert ids(store) == sorted(asked + again)


def test_whoever_asks_in_the_transaction_sees_them(
    store: Store, session: Session, gather: Gather
) -> None:
    asked = gather()
    assert seen(store, session) == 3
    asked += gather()
    assert store.jobs.get(session.connection(), asked[-1]) is not None
    asked += gather()
    assert store.jobs.cancel(session.connection(), asked[-1]) is True
    session.commit()
    with store.read() as connection:
        (cancelled,) = store.jobs.list(connection, state="cancelled")
    assert (cancelled.id, len(ids(store))) == (asked[-1], 9)


def test_a_rollback_takes_them_along(store: Store, session: Session, gather: Gather) -> None:
    gather()
    session.rollback()
    asked = gather()
    session.commit()
    gather()
    session.close()
    session.connection()
    session.commit()
    assert ids(store) == asked


def test_a_savepoint_that_is_rolled_back_takes_its_own_along(
    store: Store, session: Session, gather: Gather
) -> None:
    asked = gather()
    with pytest.raises(ZeroDivisionError), session.begin_nested():
        gather()
        raise ZeroDivisionError
    asked += gather()
    with session.begin_nested():
        asked += gather()
    with pytest.raises(ZeroDivisionError), session.connection().begin_nested():
        gather()
        raise ZeroDivisionError
    asked += gather()
    session.execute(text("SAVEPOINT by_hand"))
    gather()
    session.execute(text("ROLLBACK TO SAVEPOINT by_hand"))
    asked += gather()
    session.commit()
    assert ids(store) == asked


def test_a_savepoint_is_rolled_back_also_where_no_job_can_be_written_any_more(
    store: Store, session: Session, gather: Gather
) -> None:
    asked = gather()
    savepoint = session.begin_nested()
    gather(1)
    with pytest.raises(DBAPIError):
        session.execute(text("SELECT no_such_column FROM " + store.tables.job.fullname))
    gather(1)  # on PostgreSQL, where the server takes nothing any more now
    savepoint.rollback()
    session.commit()
    assert ids(store) == asked


def test_one_that_cannot_be_written_fails_the_commit(
    store: Store, spec: Make, session: Session, gather: Gather
) -> None:
    taken = spec()
    add(store, taken)
    gather(2)
    store.jobs.gather(session.connection(), [taken])
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    assert ids(store) == [taken.id]


def test_a_commit_that_fails_leaves_nothing_to_the_connections_next_user(
    store: Store, spec: Make
) -> None:
    taken = spec()
    add(store, taken)
    engine = create_engine(store.url, pool_size=1, max_overflow=0)
    first, second = spec(), spec()
    with Session(engine) as session:
        for job in (first, second, taken):
            store.jobs.gather(session.connection(), [job])
        with pytest.raises(IntegrityError):
            session.commit()
    with Session(engine) as session:
        assert seen(store, session) == 1
        session.commit()
    assert ids(store) == [taken.id]
    engine.dispose()


def test_where_a_commit_is_prepared_each_is_written_at_once(
    store: Store, engine: Engine, spec: Make
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite knows no prepared transactions")
    with engine.connect() as connection:
        prepared = connection.begin_twophase()
        with recorded(engine) as wire:
            for _ in range(3):
                store.jobs.gather(connection, [spec()])
        assert len(wire.statements) == 3
        prepared.rollback()
    assert ids(store) == []


def test_where_each_statement_commits_each_is_written_at_once(
    store: Store, engine: Engine, gather: Gather
) -> None:
    with Session(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        asked = gather(3, on=session)
    assert ids(store) == sorted(asked)


def test_it_fails_the_commit_also_if_somebody_has_seen_the_error(
    store: Store, spec: Make, session: Session, gather: Gather
) -> None:
    taken = spec()
    add(store, taken)
    gather(2)
    store.jobs.gather(session.connection(), [taken])
    with pytest.raises(IntegrityError):
        seen(store, session)
    with pytest.raises(DBAPIError):
        session.commit()
    session.rollback()
    session.connection()
    session.commit()
    assert ids(store) == [taken.id]


def test_what_needs_an_answer_is_asked_for_at_once(
    store: Store, spec: Make, engine: Engine, session: Session, gather: Gather
) -> None:
    asked = gather()
    store.jobs.gather(session.connection(), [spec(id="mine", chosen_id=True)])
    asked += gather()
    with pytest.raises(DuplicateJob):
        store.jobs.gather(session.connection(), [spec(id="mine", chosen_id=True)])
    with recorded(engine) as wire:
        asked += gather(1, kind="date", delay=60.0)
    assert inserts(wire) == 1
    session.commit()
    assert ids(store) == sorted([*asked, "mine"])


def test_they_do_not_pile_up(store: Store, engine: Engine, session: Session, spec: Make) -> None:
    with recorded(engine) as wire:
        for _ in range(4):
            store.jobs.gather(session.connection(), [spec() for _ in range(MOST)])
    assert inserts(wire) == 4
    session.commit()
    assert len(ids(store)) == 4 * MOST


def test_a_connection_that_outlives_the_session(
    store: Store, engine: Engine, gather: Gather
) -> None:
    # As where tests take back what the application has committed.
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="rollback_only") as session:
            gather(on=session)
            session.commit()
        assert seen(store, connection) == 3
        with Session(connection, join_transaction_mode="rollback_only") as session:
            gather(on=session)
            session.commit()
        outer.rollback()
        assert seen(store, connection) == 0
        connection.commit()
        with Session(connection) as session:
            gather(on=session)
            session.commit()
            asked = gather(on=session)
        assert seen(store, connection) == 3
    assert len(ids(store)) == 3
    assert not set(asked) & set(ids(store))


def test_a_connection_goes_without_the_garbage_collector(
    store: Store, session: Session, gather: Gather
) -> None:
    gc.collect()
    gc.disable()
    try:
        gather()
        assert len(store.jobs._gathering._gathered) == 1
        session.commit()
        assert len(store.jobs._gathering._gathered) == 0
    finally:
        gc.enable()


def test_jobs_are_in_the_order_of_the_calls(
    store: Store, session: Session, spec: Make, gather: Gather
) -> None:
    jobs: list[JobSpec] = [spec(payload=f'["{n}"]', name=f"{n % 3}") for n in range(20)]
    for job in jobs:
        store.jobs.gather(session.connection(), [job])
    session.commit()
    with store.read() as connection:
        found = store.jobs.list(connection)
    assert [job.payload for job in found] == [job.payload for job in reversed(jobs)]
