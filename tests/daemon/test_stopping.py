"""Timeouts and cancelled jobs on threads, and what is refused where no process can be started."""

from __future__ import annotations

import importlib.util
import threading
import time

import pytest
from pyramid.threadlocal import get_current_request

from pyramid_durable import Retry, current_job, job, routine
from pyramid_durable.daemon import Daemon
from pyramid_durable.exceptions import InvalidJob, InvalidSetting, JobTimeout
from pyramid_durable.settings import read_settings
from tests.web.site import Rental

from . import jobs
from .fakes import eventually

SOON = 0.05


@pytest.fixture
def started(bench):
    daemons = []

    def start(one=None, **options):
        one = one or bench(
            settings={
                "scheduler.poll_interval": "0.1s",
                "scheduler.heartbeat": "0.1s",
                "scheduler.lease": "10s",
            }
        )
        daemon = Daemon(one.scheduler.registry, **options)
        daemon.start()
        daemon._runner.stopper.grace = SOON
        daemons.append(daemon)
        return one, daemon

    yield start
    for daemon in daemons:
        daemon.stop(5)


def loop(then=None):
    jobs.calls.append("loop")
    # Not flushed: on SQLite nobody could ask for its end while it holds the one write lock.
    get_current_request().dbsession.add(Rental(ski="in vain"))
    end = time.monotonic() + 20
    try:
        while time.monotonic() < end:
            time.sleep(0.001)
    finally:
        if then is not None:
            raise then


@job(timeout=SOON)
def late():
    loop()


async def asleep():
    import asyncio

    await asyncio.sleep(20)


@routine(trigger_name="slow")
class Slow:
    def __init__(self, where: str) -> None:
        self.where = where
        self.at("constructor")

    def at(self, where: str) -> None:
        if where == self.where:
            loop()

    def check_validity(self) -> bool:
        self.at("check_validity")
        return True

    def run(self) -> None:
        self.at("run")


def until_asked(then):
    while not current_job().cancel_requested:
        time.sleep(0.001)
    if then == "fail":
        raise ValueError("it was asked to stop")
    if then == "retry":
        raise Retry(delay=0)
    return then


def test_a_timeout_fails_the_attempt_and_undoes_what_it_did(bench):
    one = bench()
    outcome = one.run(late, max_attempts=2, backoff=0)
    assert isinstance(outcome.error, JobTimeout)
    assert (one.job.state, one.job.attempt) == ("scheduled", 1)
    outcome = one.run_claimed()
    assert (one.job.state, one.job.attempt) == ("failed", 2)
    assert one.rentals() == 0
    error = one.scheduler.get_job(one.job.id).error
    assert "JobTimeout: it was stopped after its timeout of 0.05 s" in error
    assert ", in loop" in error


@pytest.mark.parametrize("where", ["constructor", "check_validity", "run"])
def test_a_timeout_holds_for_all_of_a_routine(bench, where):
    one = bench()
    one.run(Slow, where, timeout=SOON)
    assert one.job.state == "failed"
    assert "JobTimeout" in one.job.errors


def test_a_timeout_holds_for_a_coroutine_and_in_run_due(bench):
    one = bench()
    one.scheduler.add_async_job(asleep, timeout=SOON, executor="process")
    (ran,) = one.scheduler.run_due()
    assert ran.state == "failed"
    assert "JobTimeout" in ran.error


def test_a_job_that_does_not_look_is_stopped(started):
    one, _ = started()
    id = one.scheduler.add_async_job(loop, max_attempts=3)
    eventually(lambda: jobs.calls == ["loop"])
    assert one.scheduler.cancel_job(id)
    eventually(lambda: one.job.state == "cancelled", timeout=20)
    assert one.scheduler.get_job(id).error == "asked to stop"
    assert (one.job.attempt, one.rentals()) == (1, 0)


@pytest.mark.parametrize(
    ("then", "state"), [("fail", "cancelled"), ("retry", "cancelled"), ("done", "succeeded")]
)
def test_a_job_that_was_asked_to_stop_is_not_tried_again(bench, then, state):
    one = bench()
    one.scheduler.add_async_job(until_asked, args=[then], max_attempts=5, backoff=0)
    claim = one.claim()
    threading.Timer(0.05, one.runner.ask_to_cancel, [[claim.id]]).start()
    outcome = one.runner.run(claim)
    assert outcome.state == state
    if outcome.completion is not None:
        with one.store.begin() as connection:
            assert one.store.completions.write(connection, [outcome.completion])
    assert one.job.state == state
    assert ("it was asked to stop" in (one.job.errors or "")) == (then == "fail")


def test_run_due_hears_that_its_job_is_cancelled(bench, monkeypatch):
    monkeypatch.setattr("pyramid_durable.stopping.CANCEL_GRACE", SOON)
    one = bench(settings={"scheduler.heartbeat": "0.05s", "scheduler.lease": "10s"})
    id = one.scheduler.add_async_job(loop)

    def cancel():
        eventually(lambda: jobs.calls == ["loop"])
        one.scheduler.cancel_job(id)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    (ran,) = one.scheduler.run_due()
    canceller.join(10)
    assert ran.state == "cancelled"


def test_without_an_ini_a_job_for_a_process_is_broken(started):
    one, _ = started()
    one.scheduler.add_async_job(jobs.nothing, executor="process")
    eventually(lambda: one.job.state == "broken")
    assert "scheduler.config_uri = %(__file__)s" in one.job.errors


def test_without_pebble_it_says_what_to_install(started, bench, tmp_path, monkeypatch):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pebble" else name
    )
    ini = tmp_path / "application.ini"
    one, _ = started(bench(settings={"scheduler.config_uri": str(ini)}))
    one.scheduler.add_async_job(jobs.nothing, executor="process")
    eventually(lambda: one.job.state == "broken")
    assert "pip install 'pyramid_durable[process]'" in one.job.errors


def test_an_application_that_cannot_be_loaded_leaves_its_jobs_to_others(
    started, bench, tmp_path, caplog
):
    one = bench(settings={"scheduler.config_uri": str(tmp_path / "no.ini")})
    if not one.store.dialect.local_clock:
        return  # a process takes a second to start: one database will do
    started(one)
    one.scheduler.add_async_job(jobs.nothing, executor="process")
    eventually(lambda: "cannot load the application" in caplog.text, timeout=30)
    eventually(lambda: one.job.state == "scheduled")
    assert (one.job.attempt, one.job.crashes) == (0, 0)


def test_processes_as_the_default_are_refused_at_start_without_an_ini(bench):
    one = bench(settings={"scheduler.executor": "process"})
    with pytest.raises(InvalidSetting, match=r"executor = process: .*scheduler\.config_uri"):
        Daemon(one.scheduler.registry).start()


def test_a_combined_process_without_an_ini_refuses_at_the_call(bench):
    one = bench(settings={"scheduler.combined": "true"})
    with pytest.raises(InvalidJob, match=r"scheduler\.config_uri"):
        one.scheduler.add_async_job(jobs.nothing, executor="process")
    with pytest.raises(InvalidSetting, match=r"config_uri is missing"):
        read_settings({"scheduler.combined": "true", "scheduler.executor": "process"})
