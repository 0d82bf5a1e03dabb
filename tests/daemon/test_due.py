"""run_due: each job once, as of a given time, and how Ctrl-C ends it."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pyramid_durable.events import JobRetrying
from pyramid_durable.retry import Retry

from . import jobs
from .fakes import eventually
from .story import Story


def again_at(date):
    raise Retry(date=date)


def interrupted(ski):
    """Write a row, ask for another job, and be interrupted, as by Ctrl-C."""
    jobs.follow_up()
    jobs.rent(ski)
    jobs.calls.append(ski)
    raise KeyboardInterrupt


def where_am_i():
    jobs.calls.append((str(Path.cwd()), threading.current_thread() is threading.main_thread()))


@pytest.mark.parametrize("options", [{"max_attempts": 3, "backoff": "1h"}, {}])
def test_a_retry_counts_from_the_given_now(bench, options):
    one = bench()
    func = jobs.fail if options else jobs.again
    kwargs = {} if options else {"delay": "1h"}
    one.scheduler.add_async_job(func, kwargs=kwargs, **options)
    now = datetime.now(timezone.utc) + timedelta(days=31)
    (job,) = one.scheduler.run_due(now)
    assert (job.state, job.attempt, job.run_at) == ("scheduled", 1, now + timedelta(hours=1))
    assert one.scheduler.run_due(now + timedelta(minutes=59)) == []
    (job,) = one.scheduler.run_due(now + timedelta(minutes=61))
    assert job.attempt == 2


def test_a_retry_at_a_date_that_is_over_by_then_runs_once_and_keeps_the_date(bench):
    one = bench()
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    one.scheduler.add_async_job(again_at, args=[tomorrow])
    (job,) = one.scheduler.run_due(tomorrow + timedelta(days=1))
    assert (job.attempt, one.job.attempt, one.job.owner) == (1, 1, None)
    assert one.job.due_at == tomorrow
    assert one.scheduler.run_due() == []


def test_a_retry_in_a_relative_time_counts_from_the_given_now(bench):
    one = bench()
    one.scheduler.add_async_job(again_at, args=["5d"])
    now = datetime.now(timezone.utc) + timedelta(days=31)
    one.scheduler.run_due(now)
    assert one.job.due_at == now + timedelta(days=5)


def test_ctrl_c_undoes_the_job_and_gives_it_back(bench):
    one = bench()
    id = one.scheduler.add_async_job(interrupted, args=["blue"], priority=0)
    one.scheduler.add_async_job(jobs.add, args=[1])
    story = Story()
    one.scheduler.add_listener(story)
    with pytest.raises(KeyboardInterrupt):
        one.scheduler.run_due()
    assert jobs.calls == ["blue"]
    assert story.words == {id: "CSr"}
    assert story.of(JobRetrying)[0].reason == "the command that ran it was interrupted"
    job = one.scheduler.get_job(id)
    assert (job.state, job.attempt, job.errors) == ("scheduled", 0, ())
    assert (one.rentals(), len(one.scheduler.get_jobs())) == (0, 2)
    with one.store.read() as connection:
        assert one.store.jobs.get(connection, id).crashes == 0
        assert [daemon.label for daemon in one.store.daemons.list(connection)] == ["here"]
    with pytest.raises(KeyboardInterrupt):
        one.scheduler.run_due()
    assert jobs.calls == ["blue", "blue"]


def test_ctrl_c_between_two_jobs_gives_back_what_was_claimed(bench, monkeypatch):
    one = bench()
    one.scheduler.add_async_job(jobs.add, args=[1])

    def interrupt(self, claim, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("pyramid_durable.runner.Runner.run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        one.scheduler.run_due()
    assert (one.job.state, one.job.owner, one.job.crashes) == ("scheduled", None, 0)


def test_in_a_worker_an_interrupt_is_the_jobs_own_failure(bench):
    one = bench()
    one.scheduler.add_async_job(interrupted, args=["blue"])
    claim = one.claim()
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(one.runner.run(claim)))
    thread.start()
    thread.join(20)
    assert outcomes[0].state == "failed"


def test_a_working_dir_and_back(bench, tmp_path):
    one = bench()
    before = Path.cwd()
    one.scheduler.add_async_job(where_am_i, working_dir=tmp_path)
    one.scheduler.add_async_job(where_am_i)
    one.scheduler.run_due()
    assert jobs.calls == [(str(tmp_path), True), (str(before), True)]
    assert Path.cwd() == before


def test_in_a_worker_too_and_nobody_else_is_there(bench, tmp_path):
    one = bench(settings={"scheduler.poll_interval": "0.05s", "scheduler.threads": "1"})
    before = Path.cwd()
    one.scheduler.add_async_job(where_am_i, working_dir=str(tmp_path), priority=0)
    one.scheduler.add_async_job(where_am_i)
    one.scheduler.start()
    eventually(lambda: len(one.scheduler.get_jobs(state="succeeded")) == 2, timeout=20)
    assert jobs.calls == [(str(tmp_path), False), (str(before), False)]
    assert Path.cwd() == before


def test_a_folder_that_is_not_there_is_broken_and_named(bench, tmp_path):
    one = bench()
    folder = tmp_path / "later"
    one.scheduler.add_async_job(where_am_i, working_dir=folder)
    (job,) = one.scheduler.run_due()
    assert (job.state, job.attempt) == ("broken", 0)
    assert f"working_dir '{folder}' cannot be entered (No such file or directory)" in job.error
