from datetime import datetime, timedelta, timezone
from unittest.mock import Mock

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from pyramid_durable.exceptions import DurableError
from pyramid_durable.jobstore import DurableJobStore
from pyramid_durable.pacing import FIRST_CLAIM, HEAD_START, HUSH, SHARES

from .fakes import NOON, Clock, FakeStore, claim

DAY = timedelta(days=1)


class Executor:
    """An executor with as much room as it is told."""

    def __init__(self):
        self.space = 10
        self.waiting = 0
        self.full = None
        self.overdue = []
        self.quiet = True

    def is_quiet(self):
        return self.quiet

    @property
    def starting(self):
        return max(0, self.space - 5)

    def room(self):
        return self.space

    def fed(self, *, full):
        self.full = full

    def take_back(self):
        claims, self.overdue = self.overdue, []
        return claims


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def executor():
    return Executor()


@pytest.fixture
def lease():
    return {"held": True}


@pytest.fixture
def jobstore(store, executor, lease):
    return make(store, executor, lease)


def make(store, executor, lease, **options):
    return DurableJobStore(
        store,
        queues=["default"],
        executor=executor,
        owner=lambda: "me",
        held=lambda: lease["held"],
        poll_interval=1.0,
        **options,
    )


def now():
    return datetime.now(timezone.utc)


def pause(jobstore):
    """Seconds until the job store wants to be asked again."""
    at = jobstore.get_next_run_time()
    return None if at is None else (at - now()).total_seconds()


def test_due_jobs_are_claimed_within_the_room(jobstore, store, executor):
    store.due = [claim(f"job-{number}") for number in range(15)]
    runs = jobstore.take(now())
    assert [run.claim.id for run in runs] == [f"job-{number}" for number in range(10)]
    assert executor.full is True
    assert len(jobstore.take(now())) == 5
    assert executor.full is False


def test_of_many_jobs_a_share_is_claimed_and_more_is_expected(jobstore, store, executor):
    executor.space = 1000
    store.due = [claim(f"job-{number}") for number in range(5000)]
    assert [len(jobstore.take(now())) for _ in range(3)] == [1000, 1000, 1000]
    assert len(jobstore.take(now())) == 2000 // SHARES
    assert executor.full is True
    store.due = store.due[:300]
    assert [len(jobstore.take(now())) for _ in range(2)] == [FIRST_CLAIM, 100]
    assert executor.full is False


def test_more_is_expected_also_where_some_of_those_found_were_not_to_run(jobstore, store, executor):
    store.due = [claim(f"job-{number}") for number in range(6)]
    jobstore.take(now())
    assert executor.full is True


def test_runs_are_due_now_even_if_the_databases_clock_leads(jobstore, store):
    moment = NOON - timedelta(days=1)
    store.due = [claim("a", run_at=NOON), claim("b", run_at=NOON)]
    (handful,) = jobstore.get_due_jobs(moment)
    assert handful._get_run_times(moment) == [moment]
    assert [run.id for run in handful.id] == ["a#1", "b#1"]
    assert (repr(handful.id), repr(handful.id[0])) == ("<2 runs>", "<Run a#1>")
    assert handful.trigger.get_next_fire_time(moment, moment) is None
    with pytest.raises(RuntimeError, match="not called through APScheduler"):
        handful.func()


def test_apscheduler_gets_nothing_where_nothing_is_due(jobstore):
    assert jobstore.get_due_jobs(now()) == []


def test_no_transaction_is_opened_where_nothing_is_due(jobstore, store):
    assert jobstore.take(now()) == ()
    assert (store.look_count, store.takes) == (1, 0)
    assert pause(jobstore) == pytest.approx(1.0, abs=0.2)


def test_it_looks_again_when_the_next_job_is_due(jobstore, store):
    store.next_at = NOON + timedelta(seconds=0.4)
    jobstore.take(now())
    assert pause(jobstore) == pytest.approx(0.4, abs=0.1)
    store.next_at = NOON + timedelta(days=1)
    jobstore.take(now())
    assert pause(jobstore) == pytest.approx(1.0, abs=0.2)


def test_without_room_it_asks_nothing_and_looks_again_with_the_poll(jobstore, store, executor):
    executor.space = 0
    store.due = [claim()]
    assert jobstore.take(now()) == ()
    assert store.look_count == 0
    assert 0.2 < pause(jobstore) <= 1.0


def test_claims_that_wait_are_looked_after_soon(jobstore, store, executor):
    executor.space, executor.waiting = 0, 3
    jobstore.take(now())
    assert pause(jobstore) <= 0.2


def test_an_empty_claim_does_not_spin(jobstore, store):
    store.due = [claim()]
    store.take = lambda connection, owner, look, limit: []
    store.next_at = NOON
    jobstore.take(now())
    assert pause(jobstore) == pytest.approx(1.0, abs=0.2)


def test_overdue_claims_are_given_back(jobstore, store, executor):
    executor.overdue = [claim("late")]
    executor.space = 0
    jobstore.take(now())
    assert [(each.id, delay) for each, delay in store.released] == [("late", 0.0)]


def test_nothing_is_claimed_on_a_lease_that_is_not_held(jobstore, store, lease):
    lease["held"] = False
    store.due = [claim()]
    assert jobstore.take(now()) == ()
    assert store.look_count == 0
    assert pause(jobstore) == pytest.approx(1.0, abs=0.2)


def test_an_outage_is_logged_once_and_its_end_too(jobstore, store, caplog):
    caplog.set_level("INFO")
    store.away = True
    for _ in range(5):
        assert jobstore.take(now()) == ()
        assert pause(jobstore) == pytest.approx(1.0, abs=0.2)
    assert caplog.text.count("waiting for the store: the store is away") == 1
    store.away = False
    store.due = [claim()]
    assert len(jobstore.take(now())) == 1
    assert caplog.text.count("the store is there again") == 1


def test_a_lease_that_ran_out_in_an_outage_is_not_its_end(jobstore, store, lease, caplog):
    caplog.set_level("INFO")
    store.away = True
    jobstore.take(now())
    lease["held"] = False
    jobstore.take(now())
    assert "there again" not in caplog.text
    lease["held"] = True
    store.away = False
    jobstore.take(now())
    assert caplog.text.count("the store is there again") == 1


def test_a_defect_does_not_end_the_loop(jobstore, store, caplog):
    store.look = None
    assert jobstore.take(now()) == ()
    assert "claiming failed" in caplog.text
    assert pause(jobstore) == pytest.approx(1.0, abs=0.2)


def test_closed_it_claims_nothing(jobstore, store):
    store.due = [claim()]
    jobstore.close()
    assert jobstore.take(now()) == ()
    assert jobstore.get_next_run_time() is None
    assert store.look_count == 0


def test_nothing_can_be_removed_here(jobstore, store):
    store.due = [claim("a")]
    (run,) = jobstore.take(now())
    for id in (run.id, "a"):
        with pytest.raises(DurableError, match=r"reading.*registry\.scheduler: remove_job\(id\)"):
            jobstore.remove_job(id)


def test_writing_through_apscheduler_is_refused_and_points_to_the_facade(jobstore):
    aps = BackgroundScheduler()
    aps.add_jobstore(jobstore, "default")
    aps.start(paused=True)
    try:
        with pytest.raises(DurableError, match="add_async_job"):
            aps.add_job(print, "date")
        with pytest.raises(DurableError, match="remove_job"):
            aps.remove_all_jobs()
    finally:
        aps.shutdown()


# What is announced while nothing else waits is claimed without a look, where the database can.


@pytest.fixture
def prompt(jobstore, store):
    """A job store that has looked, seen that nothing is due, and may claim without a look."""
    store.prompt.possible = True
    jobstore.start(Mock(), "default")
    jobstore.take(now())
    store.look_count = 0
    return jobstore


def test_an_announced_job_is_claimed_without_a_look_which_follows_its_start(
    prompt, store, executor
):
    store.due = [claim("a"), claim("b")]
    prompt.announced()
    assert [run.claim.id for run in prompt.take(now())] == ["a"]
    assert store.look_count == 0
    assert executor.full is False
    assert pause(prompt) <= HEAD_START
    assert [run.claim.id for run in prompt.take(now() + DAY)] == ["b"]
    assert store.look_count > 0


def test_what_is_claimed_without_a_look_is_told_too(store, executor, lease):
    told = []
    jobstore = make(store, executor, lease, claimed=told.extend)
    jobstore.start(Mock(), "default")
    store.prompt.possible = True
    jobstore.take(now())
    store.due = [claim("a")]
    jobstore.announced()
    jobstore.take(now())
    assert [each.id for each in told] == ["a"]


def test_what_cannot_be_claimed_without_a_look_is_claimed_after_one(prompt, store):
    store.prompt.broken = True
    store.due = [claim("a")]
    prompt.announced()
    assert prompt.take(now()) == ()
    assert pause(prompt) <= HEAD_START
    assert [run.claim.id for run in prompt.take(now() + DAY)] == ["a"]


def test_an_announcement_wakes_the_loop(prompt):
    prompt.announced()
    prompt._scheduler.wakeup.assert_called_once_with()


def test_announcements_do_not_put_the_look_off(prompt, store):
    prompt.announced()
    prompt.take(now())
    looks_at = prompt.get_next_run_time()
    store.due = [claim("a")]
    prompt.announced()
    prompt.take(looks_at - timedelta(microseconds=1))
    assert prompt.get_next_run_time() <= looks_at
    prompt.announced()
    prompt.take(looks_at)
    assert store.look_count == 1


def test_the_daemon_that_had_the_last_job_goes_first(prompt, store):
    def announce():
        prompt.announced()
        return prompt.take(now())

    assert announce() == ()
    prompt.take(now() + DAY)
    store.due = [claim("a")]
    assert announce() == ()
    assert store.prompt.takes == 1
    assert len(prompt.take(now() + DAY)) == 1
    store.due = [claim("b")]
    assert len(announce()) == 1
    assert store.prompt.takes == 2


@pytest.mark.parametrize(
    "hindrance", ["the database", "other jobs", "a suspect that waits", "a full claim", "a poll"]
)
def test_otherwise_it_looks_first(prompt, store, executor, hindrance):
    if hindrance == "the database":
        store.prompt.possible = False
    elif hindrance == "other jobs":
        executor.space = 5  # no thread is idle
    elif hindrance == "a suspect that waits":
        prompt._hush_until = float("inf")
    elif hindrance == "a full claim":
        store.due = [claim(f"job-{number}") for number in range(10)]
        prompt.take(now())
    store.due = [claim("last")]
    if hindrance != "a poll":
        prompt.announced()
    assert [run.claim.id for run in prompt.take(now())] == ["last"]
    assert store.prompt.takes == 0
    assert store.look_count > 0


def test_an_outage_in_a_claim_without_a_look_is_an_outage(prompt, store, caplog):
    store.away = True
    prompt.announced()
    assert prompt.take(now()) == ()
    assert "waiting for the store" in caplog.text
    assert pause(prompt) == pytest.approx(1.0, abs=0.2)


# A job with two crashes behind it runs alone; the store claims it alone.


def test_a_suspect_is_run_where_nothing_else_runs(jobstore, store):
    store.due = [claim("suspect", crashes=2)]
    assert [run.claim.id for run in jobstore.take(now())] == ["suspect"]
    assert store.released == []


def test_a_busy_daemon_makes_room_for_a_suspect_and_then_lets_others_go_first(
    store, executor, lease
):
    clock = Clock()
    jobstore = make(store, executor, lease, clock=clock)
    executor.quiet = False
    store.due = [claim("suspect", crashes=2)]
    assert jobstore.take(now()) == ()
    ((left, soon),) = store.released
    assert left.id == "suspect"
    store.due = [claim("b")]
    clock.now += soon
    assert jobstore.take(now()) == ()
    assert pause(jobstore) <= 0.2
    clock.now += HUSH
    assert [run.claim.id for run in jobstore.take(now())] == ["b"]
    store.due = [claim("suspect", crashes=2)]
    assert jobstore.take(now()) == ()
    assert store.released[-1][1] > soon
    store.due = [claim("c")]
    assert [run.claim.id for run in jobstore.take(now())] == ["c"]


def test_a_daemon_that_has_become_quiet_claims_at_once(jobstore, store, executor):
    executor.quiet = False
    store.due = [claim("suspect", crashes=2)]
    assert jobstore.take(now()) == ()
    executor.quiet = True
    store.due = [claim("suspect", crashes=2)]
    assert len(jobstore.take(now())) == 1
