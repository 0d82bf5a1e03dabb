import json
import threading

import pytest
import transaction
from pyramid.threadlocal import manager as threadlocals

from pyramid_durable import stopping
from pyramid_durable.daemon import Daemon

from . import async_work, jobs
from .fakes import eventually

FAST = {
    "scheduler.poll_interval": "0.2s",
    "scheduler.heartbeat": "0.2s",
    "scheduler.lease": "2s",
    "scheduler.threads": "2",
}


@pytest.fixture
def started(bench):
    daemons = []
    async_work.clear()

    def start(**settings):
        one = bench(settings={**FAST, **settings})
        daemon = Daemon(one.scheduler.registry)
        daemon.start()
        daemons.append(daemon)
        return one, daemon

    yield start
    for daemon in daemons:
        daemon.stop(5)


def all_jobs(one):
    with one.store.read() as connection:
        return one.store.jobs.list(connection)


def all_ended(one):
    return all(job.state not in ("scheduled", "running") for job in all_jobs(one))


def test_hundreds_wait_at_once_without_a_thread_each(started):
    one, _ = started()
    before = threading.active_count()
    number = 300
    one.scheduler.add_jobs([{"func": async_work.meet, "args": [number]} for _ in range(number)])
    eventually(lambda: len(async_work.waiting) == number, timeout=20)
    assert threading.active_count() < before + 20
    eventually(lambda: all_ended(one), timeout=20)
    assert {job.state for job in all_jobs(one)} == {"succeeded"}
    assert max(async_work.peak) == number
    assert len(async_work.threads) == 1


def test_what_is_current_is_each_jobs_own_at_every_step(started):
    one, _ = started()
    one.scheduler.add_jobs([{"func": async_work.look_around, "args": [20]} for _ in range(20)])
    eventually(lambda: all_ended(one), timeout=20)
    assert {json.loads(job.result) == job.id for job in all_jobs(one)} == {True}
    assert async_work.mixed == []
    assert threadlocals.stack == []


@pytest.mark.parametrize(
    ("then", "state", "rows", "attempts"),
    [("", "succeeded", 1, 1), ("fail", "failed", 0, 1), ("cancel", "cancelled", 0, 1)],
)
def test_its_transaction_ends_as_the_job_does(started, then, state, rows, attempts):
    one, _ = started()
    one.scheduler.add_async_job(async_work.rent, args=["blue", then])
    eventually(lambda: all_ended(one))
    assert (one.job.state, one.rentals(), one.job.attempt) == (state, rows, attempts)
    assert transaction.manager.manager is not None


def test_a_retry_is_another_attempt(started):
    one, _ = started()
    one.scheduler.add_async_job(async_work.rent, args=["blue", "retry"], max_attempts=2)
    eventually(lambda: all_ended(one))
    assert (one.job.state, one.rentals(), one.job.attempt) == ("succeeded", 1, 2)


def test_a_routine_may_run_async(started):
    one, _ = started()
    one.scheduler.add_async_job(async_work.Later, args=["word"])
    eventually(lambda: all_ended(one))
    assert json.loads(one.job.result) == "word"


def test_a_routine_whose_constructor_fails_is_broken(started):
    one, _ = started()
    one.scheduler.add_async_job(async_work.Later, args=["unknown"])
    eventually(lambda: one.job.state == "broken")


def test_a_timeout_ends_it_and_the_others_go_on(started):
    one, _ = started()
    one.scheduler.add_async_job(async_work.endure, args=[30], timeout=0.2)
    other = one.scheduler.add_async_job(async_work.endure, args=[0.5])
    eventually(lambda: all_ended(one))
    states = {job.id: job for job in all_jobs(one)}
    assert states.pop(other).state == "succeeded"
    (late,) = states.values()
    assert late.state == "failed"
    assert "timeout of 0.2 s" in late.errors
    assert set(async_work.ended) == {late.id, other}


def test_one_that_is_asked_to_stop_is_stopped(started, monkeypatch):
    monkeypatch.setattr(stopping, "CANCEL_GRACE", 0.1)
    one, _ = started()
    id = one.scheduler.add_async_job(async_work.endure, args=[30])
    eventually(lambda: one.job.state == "running")
    one.scheduler.cancel_job(id)
    eventually(lambda: one.job.state == "cancelled")
    assert async_work.ended == [id]


def test_a_stop_waits_for_what_is_in_the_loop(started):
    one, daemon = started()
    one.scheduler.add_async_job(async_work.endure, args=[0.5])
    # Running in the store it is when it is claimed; it may still wait for a thread then.
    eventually(lambda: async_work.waiting)
    assert daemon.stop(5)
    assert one.job.state == "succeeded"


def test_what_does_not_end_in_time_is_given_back_and_cancelled(started):
    one, daemon = started()
    id = one.scheduler.add_async_job(async_work.endure, args=[30])
    eventually(lambda: async_work.waiting)
    assert not daemon.stop(0.2)
    assert (one.job.state, one.job.attempt) == ("scheduled", 0)
    assert async_work.ended == [id]


def test_async_and_other_jobs_run_beside_each_other(started):
    one, _ = started()
    one.scheduler.add_async_job(async_work.endure, args=[1.0])
    one.scheduler.add_jobs([{"func": jobs.add, "args": [number]} for number in range(50)])
    eventually(lambda: len(jobs.calls) == 50)
    eventually(lambda: all_ended(one))
    assert {job.state for job in all_jobs(one)} == {"succeeded"}


def test_transactions_held_over_an_await_do_not_stop_the_loop(started):
    """Sessions block: one that waits for what a suspended job holds would wait for ever."""
    one, _ = started()
    number = 8
    one.scheduler.add_jobs(
        [{"func": async_work.hold, "args": [f"ski {n}", 0.05]} for n in range(number)]
        + [{"func": async_work.ask_and_wait, "args": [0.05]} for _ in range(number)]
    )
    eventually(lambda: len(all_jobs(one)) == 3 * number and all_ended(one), timeout=30)
    assert {job.state for job in all_jobs(one)} == {"succeeded"}
    assert one.rentals() == number


def test_what_is_cut_off_leaves_no_transaction_open(started):
    one, daemon = started()
    one.scheduler.add_async_job(async_work.hold, args=["blue", 30])
    eventually(daemon._runner.running)
    assert not daemon.stop(0.2)
    assert one.site.engine.pool.checkedout() == 0
    assert daemon._runner._running == {}
    assert (one.job.state, one.job.attempt, one.rentals()) == ("scheduled", 0, 0)


def test_beyond_the_room_in_the_loop_jobs_are_given_back(started, monkeypatch):
    one, daemon = started()
    daemon._async_jobs._most = 3
    one.scheduler.add_jobs([{"func": async_work.endure, "args": [0.3]} for _ in range(8)])
    eventually(lambda: all_ended(one), timeout=20)
    assert {job.state for job in all_jobs(one)} == {"succeeded"}
    assert {job.attempt for job in all_jobs(one)} == {1}
    assert sorted(async_work.ended) == sorted(job.id for job in all_jobs(one))


def test_a_closed_loop_takes_nothing(started):
    one, daemon = started()
    daemon._async_jobs.stop()
    one.scheduler.add_async_job(async_work.endure, args=[0])
    eventually(lambda: one.job.claim_no > 0 and one.job.state == "scheduled")
    assert async_work.ended == []
