from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

from apscheduler.events import EVENT_JOB_REMOVED, EVENT_JOB_SUBMITTED
from apscheduler.schedulers.base import STATE_RUNNING

from pyramid_durable.clock import DurableScheduler
from pyramid_durable.executors import DurableThreadExecutor
from pyramid_durable.jobstore import DurableJobStore
from pyramid_durable.runs import Run, Runs

from .fakes import NOON, FakeStore, claim, eventually


@contextmanager
def started(kind, listener=None):
    """APScheduler over a job store of this kind."""
    executor = DurableThreadExecutor(None, threads=0, may_start=lambda claim: True)
    store = kind(
        FakeStore(),
        queues=["default"],
        executor=executor,
        owner=lambda: "me",
        held=lambda: True,
        poll_interval=1.0,
    )
    scheduler = DurableScheduler(store, executor, timezone=timezone.utc, poll_interval=1.0)
    if listener is not None:
        scheduler.add_listener(listener, EVENT_JOB_SUBMITTED | EVENT_JOB_REMOVED)
    scheduler.start(paused=True)
    try:
        scheduler.state = STATE_RUNNING
        yield scheduler
    finally:
        scheduler.shutdown(wait=False)


def test_a_clock_set_back_in_the_midst_of_a_round_does_not_put_it_to_sleep():
    """The stock loop subtracts two looks at the wall clock, with the whole round in between."""

    class SetBack(DurableJobStore):
        def get_next_run_time(self):
            # What the store wants is a second from now; "now" was a year later when it was asked.
            return datetime.now(timezone.utc) + timedelta(days=365)

    with started(SetBack) as scheduler:
        assert scheduler._process_jobs() == 1.0


def test_listeners_hear_of_each_run_that_is_handed_on_by_the_handful():
    claims = [[claim("a"), claim("b")]]

    class Two(DurableJobStore):
        def take(self, now):
            return Runs(Run(one, NOON, 0.0) for one in (claims.pop() if claims else ()))

    heard = []
    with started(Two, listener=lambda event: heard.append((event.code, event.job_id))) as scheduler:
        scheduler._process_jobs()
        eventually(lambda: len(heard) == 4)
    assert heard == [
        (EVENT_JOB_REMOVED, "a#1"),
        (EVENT_JOB_REMOVED, "b#1"),
        (EVENT_JOB_SUBMITTED, "a#1"),
        (EVENT_JOB_SUBMITTED, "b#1"),
    ]
