"""Userdata from run to run of a schedule, on every database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, update

from pyramid_durable.records import Claim, JobSpec, ScheduleSpec
from pyramid_durable.store import Store

from .conftest import register
from .test_conformance import claim, complete, ended, every
from .wire import recorded

Make = Callable[..., JobSpec]
START = datetime(2024, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def scheduled(store: Store, spec: Make) -> Store:
    """A store with the schedule ``s``, whose userdata is ``{"n":0}``, and a job of it that waits."""
    register(store, "a")
    # So seldom that no time of its own falls between those that ``run`` gives it.
    seldom = every(1e9, START)
    pattern = spec(id="s", kind="interval", schedule_id="s", userdata='{"n":0}')
    schedule = ScheduleSpec(
        id="s", job=pattern, kind="interval", trigger=seldom, next_run_at=START,
        timezone="UTC", max_instances=None,
    )  # fmt: skip
    with store.begin() as connection:
        store.schedules.add(connection, [schedule])
    return store


def run(store: Store) -> Claim:
    """Let the schedule fire, and claim its job."""
    table = store.tables.schedule
    with store.begin() as connection:
        due = store.now(connection) - timedelta(seconds=1)
        connection.execute(update(table).values(due_at=due, next_run_at=due))
    (job,) = claim(store)
    return job


def kept(store: Store) -> Any:
    with store.read() as connection:
        return connection.execute(select(store.tables.schedule.c.userdata)).scalar_one()


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "scheduled", "deleted"])
def test_the_next_run_begins_with_what_this_one_left(scheduled: Store, state: str) -> None:
    job = run(scheduled)
    assert (job.schedule_id, job.userdata) == ("s", '{"n":0}')
    changes = {"state": "succeeded", "delete": True} if state == "deleted" else {"state": state}
    assert complete(scheduled, ended(job, userdata='{"n":1}', carry_to="s", delay=3600, **changes))
    assert kept(scheduled) == '{"n":1}'
    assert run(scheduled).userdata == '{"n":1}'


def test_an_end_that_changed_nothing_leaves_what_another_wrote(scheduled: Store) -> None:
    job, other = run(scheduled), run(scheduled)
    complete(scheduled, ended(other, userdata='{"n":5}', carry_to="s"))
    complete(scheduled, ended(job, userdata=job.userdata))
    assert kept(scheduled) == '{"n":5}'


def test_of_runs_that_overlap_the_last_end_counts(scheduled: Store) -> None:
    jobs = [run(scheduled) for _ in range(3)]
    ends = [
        ended(job, userdata=f'{{"n":{number}}}', carry_to="s") for number, job in enumerate(jobs, 1)
    ]
    ends[2] = ended(jobs[2], userdata='{"n":3}', carry_to="s", owner="somebody else")
    assert len(complete(scheduled, *ends)) == 2
    assert kept(scheduled) == '{"n":2}'


def test_a_claim_that_was_lost_carries_nothing(scheduled: Store) -> None:
    job = run(scheduled)
    lost = ended(job, userdata='{"n":1}', carry_to="s", claim_no=job.claim_no + 1)
    assert complete(scheduled, lost) == set()
    with scheduled.begin() as connection:
        stale = job._replace(claim_no=job.claim_no + 1)
        assert not scheduled.holdings.save_userdata(connection, stale, '{"n":1}')
    assert kept(scheduled) == '{"n":0}'


def test_a_schedule_that_is_gone_is_passed_over(scheduled: Store) -> None:
    job = run(scheduled)
    with scheduled.begin() as connection:
        connection.execute(scheduled.tables.schedule.delete())
    assert complete(scheduled, ended(job, userdata='{"n":1}', carry_to="s"))
    with scheduled.begin() as connection:
        again = scheduled.holdings.save_userdata(connection, job, "{}")
    assert not again, "the claim has ended"


def test_userdata_that_is_saved_at_once_is_the_schedules_too(scheduled: Store) -> None:
    job = run(scheduled)
    with scheduled.begin() as connection:
        assert scheduled.holdings.save_userdata(connection, job, '{"n":1}')
    assert kept(scheduled) == '{"n":1}'


def test_saving_does_not_wait_for_whoever_has_locked_the_schedule(scheduled: Store) -> None:
    if not scheduled.dialect.skip_locked:
        pytest.skip("SQLite has one writer, which is the job itself")
    job = run(scheduled)
    with scheduled.begin() as locking:
        assert scheduled.schedules.cancel(locking, "s")
        with scheduled.begin() as connection:
            assert scheduled.holdings.save_userdata(connection, job, '{"n":1}')
    assert kept(scheduled) == '{"n":0}'
    assert complete(scheduled, ended(job, userdata='{"n":1}', carry_to="s"))
    assert kept(scheduled) == '{"n":1}'


def test_jobs_without_userdata_touch_no_schedule(scheduled: Store) -> None:
    job = run(scheduled)
    with recorded(scheduled.engine) as wire:
        complete(scheduled, ended(job, userdata=job.userdata))
    assert not [text for text, _ in wire.statements if scheduled.tables.schedule.name in text]
