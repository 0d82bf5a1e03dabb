from datetime import datetime, timedelta, timezone

from apscheduler.schedulers.base import STATE_RUNNING

from pyramid_durable.clock import DurableScheduler
from pyramid_durable.executors import DurableThreadExecutor
from pyramid_durable.jobstore import DurableJobStore

from .fakes import FakeStore


def test_a_clock_set_back_in_the_midst_of_a_round_does_not_put_it_to_sleep():
    """The stock loop subtracts two looks at the wall clock, with the whole round in between."""

    class SetBack(DurableJobStore):
        def get_next_run_time(self):
            # What the store wants is a second from now; "now" was a year later when it was asked.
            return datetime.now(timezone.utc) + timedelta(days=365)

    executor = DurableThreadExecutor(None, threads=0, may_start=lambda claim: True)
    store = SetBack(
        FakeStore(),
        queues=["default"],
        executor=executor,
        owner=lambda: "me",
        held=lambda: True,
        poll_interval=1.0,
    )
    scheduler = DurableScheduler(store, executor, timezone=timezone.utc, poll_interval=1.0)
    scheduler.start(paused=True)
    try:
        scheduler.state = STATE_RUNNING
        assert scheduler._process_jobs() == 1.0
    finally:
        scheduler.shutdown(wait=False)
