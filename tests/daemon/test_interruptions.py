import sqlite3

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, PendingRollbackError

from pyramid_durable.exceptions import SchemaMismatch, StoreBusy, StoreUnavailable
from pyramid_durable.interruptions import interruption

from . import jobs
from .fakes import FakeStore

END_MYSELF = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
END = {"postgresql": "SELECT pg_terminate_backend({0})", "mysql": "KILL {0}"}


def cut():
    return OperationalError("SELECT 1", {}, ValueError("gone"), connection_invalidated=True)


def test_an_outage_costs_a_job_nothing():
    store = FakeStore()
    store.away = True
    outcome = interruption(cut(), store, on_store=True)
    assert outcome.give_back > 0
    assert not outcome.crashed
    assert outcome.completion is None


def test_a_connection_lost_beside_a_store_that_works_counts_as_a_crash():
    assert interruption(cut(), FakeStore(), on_store=True).crashed


@pytest.mark.parametrize("said", ["database or disk is full", "disk I/O error"])
def test_a_disk_with_room_for_small_writes_only_is_no_crash(said):
    full = OperationalError("INSERT", {}, sqlite3.OperationalError(said))
    assert not interruption(full, FakeStore(), on_store=True).crashed
    behind = StoreUnavailable("the database of the store")
    behind.__cause__ = full
    assert not interruption(behind, FakeStore(), on_store=True).crashed


def test_another_database_is_the_jobs_own_affair():
    assert interruption(cut(), FakeStore(), on_store=False) is None


def wrapped(*, hidden):
    """The job's own error, raised from an outage, or in spite of one."""
    error = ValueError("could not look it up")
    error.__cause__ = None if hidden else cut()
    error.__context__ = cut()
    return error


def test_an_outage_is_found_behind_the_jobs_own_error():
    assert interruption(wrapped(hidden=False), FakeStore(), on_store=True)
    assert not interruption(wrapped(hidden=True), FakeStore(), on_store=True), "raised `from None`"


@pytest.mark.parametrize(
    ("error", "interrupted"),
    [
        (StoreUnavailable("away"), True),
        (SchemaMismatch("old tables"), False),
        (StoreBusy("another transaction holds the key"), False),
        (PendingRollbackError("Can't reconnect until ...", code="8s2b"), True),
        (PendingRollbackError("rolled back by an error in a flush", code="7s2a"), False),
        (OperationalError("SELECT 1", {}, ValueError("no such column")), False),
        (ValueError("the job's own"), False),
    ],
)
def test_what_is_an_interruption(error, interrupted):
    assert (interruption(error, FakeStore(), on_store=True) is not None) == interrupted


@pytest.mark.parametrize("at_the_commit", [False, True])
def test_a_job_whose_connection_is_cut_runs_again_and_uses_up_no_attempt(bench, at_the_commit):
    one = bench()
    kind = one.store.engine.dialect.name
    if kind == "sqlite":
        pytest.skip("SQLite has no connection that somebody else could cut")

    def end(request):
        session = request.dbsession
        session.add(jobs.Rental(ski="before the cut"))
        session.flush()
        mine = session.execute(text(END_MYSELF[kind])).scalar_one()
        with one.store.begin() as other:
            other.execute(text(END[kind].format(mine)))
        if not at_the_commit:
            session.execute(text("SELECT 1"))

    jobs.hooks["cut"] = end
    one.scheduler.add_async_job(jobs.hooked, args=["cut"], max_attempts=1)
    for crashes in (1, 2, 3):
        outcome = one.runner.run(one.claim())
        assert outcome.crashed
        with one.store.begin() as connection:
            one.store.daemons.interrupt(connection, [one.last], poison_limit=3)
        assert (one.job.attempt, one.job.crashes) == (0, crashes)
    assert one.job.state == "failed"
    assert one.rentals() == 0
