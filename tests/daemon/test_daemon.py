import json
import sys
import threading
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from pyramid_durable.daemon import Daemon
from pyramid_durable.exceptions import DurableError, InvalidQueue, StoreUnavailable
from pyramid_durable.jobstore import DurableJobStore
from pyramid_durable.records import STATES
from tests.web.site import Rental

from . import jobs
from .fakes import eventually

FAST = {
    "scheduler.poll_interval": "0.2s",
    "scheduler.heartbeat": "0.2s",
    "scheduler.lease": "2s",
    "scheduler.threads": "4",
}


@pytest.fixture
def started(bench):
    """Make an application with a daemon that works."""
    daemons = []

    def start(*, settings=None, queues=None, one=None, **options):
        one = one or bench(settings={**FAST, **(settings or {})}, **options)
        daemon = Daemon(one.scheduler.registry, queues=queues)
        daemon.start()
        daemons.append(daemon)
        return one, daemon

    yield start
    for daemon in daemons:
        for gate in jobs.gates.values():
            gate.set()
        daemon.stop(5)


def states(one):
    with one.store.read() as connection:
        return sorted(job.state for job in one.store.jobs.list(connection))


def test_a_job_asked_for_in_a_view_runs_and_its_rows_are_there(started):
    one, _ = started()
    one.site.get(lambda request: request.scheduler.add_async_job(jobs.rent, args=["blue"]))
    eventually(lambda: one.job.state == "succeeded")
    assert one.rentals() == 1


def test_every_job_runs_once_and_each_of_many_is_recorded(started):
    one, _ = started()
    one.scheduler.add_jobs([{"func": jobs.add, "args": [number]} for number in range(300)])
    eventually(lambda: set(states(one)) == {"succeeded"}, timeout=20)
    assert sorted(jobs.calls) == [(number,) for number in range(300)]


def test_two_daemons_share_a_queue_and_each_job_runs_once(started):
    one, first = started()
    _, second = started(one=one)
    assert first.aps is not second.aps
    one.scheduler.add_jobs([{"func": jobs.rent, "args": [str(number)]} for number in range(200)])
    eventually(lambda: set(states(one)) == {"succeeded"}, timeout=30)
    assert one.rentals() == 200


def test_a_job_that_is_due_later_runs_then(started):
    one, _ = started()
    one.scheduler.add_date_job(jobs.add, "300ms")
    assert one.job.state == "scheduled"
    eventually(lambda: one.job.state == "succeeded")
    assert one.job.started_at >= one.job.run_at


OTHERS = [state for state in STATES if state != "succeeded"]


def test_a_schedule_makes_jobs(started):
    one, _ = started()
    id = one.scheduler.add_interval_job(jobs.add, seconds=0.2, iterations=3)
    eventually(lambda: states(one).count("succeeded") == 3, timeout=10)
    with one.store.read() as connection:
        made = one.store.jobs.list(connection, schedule_id=id, state="succeeded")
        # On a busy machine a fire time may have been passed over: then it is accounted for.
        others = one.store.jobs.list(connection, schedule_id=id, state=OTHERS)
    assert len({job.fire_at for job in made}) == 3
    assert all("passed" in job.options for job in others)


def test_declared_schedules_are_brought_in_line(started, bench):
    def configure(config):
        config.add_interval_job("poll", jobs.add, minutes=10)

    one, _ = started(configure=configure)
    assert one.site.schedules() == ["poll"]
    started(one=bench(settings=FAST))
    assert one.site.schedules() == []


def test_a_daemon_serves_only_the_queues_it_is_given(started):
    one, _ = started(queues=["mail"])
    one.scheduler.add_async_job(jobs.add, args=[1])
    one.scheduler.add_async_job(jobs.add, args=[2], queue="mail")
    eventually(lambda: jobs.calls == [(2,)])
    with one.store.read() as connection:
        (left,) = one.store.jobs.list(connection, state="scheduled")
    assert left.queue == "default"


def test_an_unknown_queue_is_refused(bench):
    one = bench()
    with pytest.raises(InvalidQueue, match=r"'nope'.*default mail"):
        Daemon(one.scheduler.registry, queues=["nope"])


def test_a_failed_job_is_retried_by_the_daemon(started):
    one, _ = started()
    one.scheduler.add_async_job(jobs.fail, max_attempts=3, backoff="50ms")
    eventually(lambda: one.job.state == "failed", timeout=10)
    assert len(json.loads(one.job.errors)) == 3


def test_stopping_lets_running_jobs_end_and_gives_back_the_others(started):
    one, daemon = started(settings={"scheduler.threads": "1"})
    jobs.gates["slow"] = threading.Event()
    running = one.scheduler.add_async_job(jobs.wait, args=["slow"])
    eventually(lambda: jobs.calls == ["slow"])
    waiting = one.scheduler.add_async_job(jobs.add, args=[1])
    stopper = threading.Thread(target=daemon.stop)
    stopper.start()
    eventually(lambda: daemon._executor._closed)
    jobs.gates["slow"].set()
    stopper.join(10)
    assert not stopper.is_alive()
    assert one.scheduler.get_job(running).state == "succeeded"
    assert one.scheduler.get_job(waiting).state == "scheduled"
    with one.store.read() as connection:
        left = {info.incarnation for info in one.store.daemons.list(connection)}
    assert left == {one.owner}


def test_what_does_not_end_in_time_is_given_back_without_a_crash(started):
    one, daemon = started()
    jobs.gates["slow"] = threading.Event()
    one.scheduler.add_async_job(jobs.wait, args=["slow"])
    eventually(lambda: jobs.calls == ["slow"])
    assert not daemon.stop(0)
    job = one.job
    assert (job.state, job.attempt, job.crashes) == ("scheduled", 0, 0)
    jobs.gates["slow"].set()
    eventually(lambda: not daemon._executor.running())
    assert one.job.state == "scheduled"


def test_claims_behind_slow_jobs_go_to_another_daemon(started):
    one, _ = started(settings={"scheduler.threads": "1"})
    jobs.gates["slow"] = threading.Event()
    one.scheduler.add_jobs(
        [{"func": jobs.wait, "args": ["slow"], "priority": 0}]
        + [{"func": jobs.add, "args": [number]} for number in range(3)]
    )
    eventually(lambda: jobs.calls == ["slow"])
    started(one=one)
    eventually(lambda: len(jobs.calls) == 4)
    jobs.gates["slow"].set()
    eventually(lambda: set(states(one)) == {"succeeded"})
    with one.store.read() as connection:
        assert {job.crashes for job in one.store.jobs.list(connection)} == {0}


def test_the_work_of_a_dead_daemon_is_taken_over(started):
    one, _ = started()
    one.scheduler.add_async_job(jobs.add, queue="mail")
    # Claimed by an owner that does not beat: the bench's own.
    with one.store.begin() as connection:
        connection.execute(one.store.tables.daemon.delete().where(
            one.store.tables.daemon.c.incarnation == one.owner))  # fmt: skip
    eventually(lambda: one.job.state == "succeeded", timeout=10)


def test_cancelling_a_running_job_reaches_it(started):
    one, daemon = started()
    jobs.gates["slow"] = threading.Event()
    id = one.scheduler.add_async_job(jobs.wait, args=["slow"])
    eventually(lambda: jobs.calls == ["slow"])
    assert one.scheduler.cancel_job(id)
    attempt = daemon._runner._running[id]
    eventually(lambda: attempt.current.cancel_requested)
    jobs.gates["slow"].set()


def test_an_outage_of_the_store_is_waited_out(started, monkeypatch, caplog):
    caplog.set_level("INFO")
    one, _ = started(session=None)
    store = one.scheduler.store
    away = threading.Event()
    whole = store.begin, store.read

    def begin(*purpose):
        if away.is_set():
            raise StoreUnavailable("gone for a moment")
        return whole[0](*purpose)

    def read():
        if away.is_set():
            raise StoreUnavailable("gone for a moment")
        return whole[1]()

    monkeypatch.setattr(store, "begin", begin)
    monkeypatch.setattr(store, "read", read)
    jobs.gates["slow"] = threading.Event()
    one.scheduler.add_async_job(jobs.wait, args=["slow"])
    eventually(lambda: jobs.calls == ["slow"])
    away.set()
    jobs.gates["slow"].set()
    eventually(lambda: "ends of jobs wait for the store" in caplog.text)
    eventually(lambda: "waiting for the store" in caplog.text)
    away.clear()
    eventually(lambda: one.job.state == "succeeded", timeout=10)
    one.scheduler.add_async_job(jobs.add, args=[1])
    eventually(lambda: jobs.calls == ["slow", (1,)])


def test_a_store_class_of_the_applications_own(started):
    _, daemon = started(settings={"scheduler.jobstore.default.class": f"{__name__}.OwnStore"})
    assert isinstance(daemon._jobstore, OwnStore)


class OwnStore(DurableJobStore):
    pass


def test_apschedulers_view_is_for_reading(started, capsys):
    one, daemon = started()
    one.scheduler.add_date_job(jobs.add, "1h", id="later", name="an addition")
    one.scheduler.add_cron_job(jobs.add, crontab="0 3 * * *", id="nightly")
    views = daemon.aps.get_jobs()
    assert [view.id for view in views] in (["later", "nightly"], ["nightly", "later"])
    assert daemon.aps.get_job("later").name == "an addition"
    assert daemon.aps.get_job("nope") is None
    daemon.aps.print_jobs()
    assert "an addition" in capsys.readouterr().out
    for write in (
        lambda: daemon.aps.add_job(jobs.add, "date"),
        lambda: daemon.aps.remove_job("later"),
        lambda: daemon.aps.pause_job("nightly"),
        daemon.aps.remove_all_jobs,
    ):
        with pytest.raises(DurableError, match=r"registry\.scheduler"):
            write()
    assert len(daemon.aps.get_jobs()) == 2


def test_the_facade_knows_the_running_daemon(bench):
    one = bench(settings=FAST)
    assert one.scheduler.aps is None
    one.scheduler.start()
    assert one.scheduler.aps.running
    one.scheduler.shutdown()
    assert one.scheduler.aps is None


def test_run_due_runs_by_priority_then_time(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.add, args=[3], priority=9)
    one.scheduler.add_date_job(jobs.add, "2020-01-02T00:00:00Z", args=[2])
    one.scheduler.add_date_job(jobs.add, "2020-01-01T00:00:00Z", args=[1])
    one.scheduler.add_async_job(jobs.add, args=[0], priority=0)
    one.scheduler.add_date_job(jobs.add, "1h", args=[9])
    done = one.scheduler.run_due()
    assert jobs.calls == [(0,), (1,), (2,), (3,)]
    assert [job.state for job in done] == ["succeeded"] * 4
    assert one.scheduler.run_due() == []


def test_run_due_stops_at_the_first_failure_where_it_is_asked_to(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.fail, args=["first"], priority=0)
    one.scheduler.add_async_job(jobs.add, args=[1])
    with pytest.raises(ValueError, match="first"):
        one.scheduler.run_due(ignore_errors=False)
    assert jobs.calls == []
    assert states(one) == ["failed", "scheduled"]
    assert [job.state for job in one.scheduler.run_due()] == ["succeeded"]


def test_run_due_deletes_what_succeeded(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.rent, args=["blue"])
    one.scheduler.add_async_job(jobs.add, args=[1])
    one.scheduler.add_async_job(jobs.fail)
    done = one.scheduler.run_due(delete_completed=True)
    assert sorted(job.state for job in done) == ["failed", "succeeded", "succeeded"]
    assert states(one) == ["failed"]
    assert one.rentals() == 1


def test_run_due_tries_each_job_once(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.again, kwargs={"delay": 0})
    (job,) = one.scheduler.run_due()
    assert (job.state, job.attempt) == ("scheduled", 1)
    assert one.job.state == "scheduled"
    assert one.job.owner is None


def test_run_due_as_of_another_time(bench):
    one = bench()
    in_an_hour = one.scheduler.add_date_job(jobs.add, "1h", args=[1])
    expires = one.scheduler.add_date_job(jobs.add, "1h", args=[2], expires="1h")
    in_a_day = one.scheduler.add_date_job(jobs.add, "24h", args=[3])
    one.scheduler.add_interval_job(jobs.add, hours=3, args=[4], id="often")
    now = datetime.now(timezone.utc)
    assert one.scheduler.run_due(now - timedelta(hours=1)) == []
    done = one.scheduler.run_due(now + timedelta(hours=4))
    assert sorted(jobs.calls) == [(1,), (4,)]
    assert len(done) == 2
    assert one.scheduler.get_job(in_an_hour).state == "succeeded"
    assert one.scheduler.get_job(expires).state == "expired"
    assert one.scheduler.get_job(in_a_day).state == "scheduled"
    (often,) = one.scheduler.get_schedules()
    assert often.next_run_at > now + timedelta(hours=4)


def test_run_due_in_a_transaction_is_an_error(bench):
    one = bench()

    def body(request):
        with pytest.raises(DurableError, match="inside a transaction"):
            request.scheduler.run_due()

    one.site.get(body)


def test_a_view_that_fails_leaves_no_job(started):
    one, _ = started()

    def body(request):
        request.dbsession.add(Rental(ski="blue"))
        request.scheduler.add_async_job(jobs.add)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        one.site.get(body)
    assert one.site.jobs() == []


def test_suspects_run_one_by_one(started):
    one, _ = started()
    ids = one.scheduler.add_jobs([{"func": jobs.add, "args": [number]} for number in range(5)])
    eventually(lambda: set(states(one)) == {"succeeded"})
    table = one.store.tables.job
    with one.store.begin() as connection:
        connection.execute(
            table.update()
            .where(table.c.id != ids[0])
            .values(state="scheduled", due_at=table.c.run_at, crashes=2, finished_at=None)
        )
    eventually(lambda: len(jobs.calls) == 9, timeout=20)
    eventually(lambda: set(states(one)) == {"succeeded"}, timeout=20)


def test_a_running_job_that_is_removed_is_gone_when_it_has_ended(started):
    one, _ = started()
    jobs.gates["removed"] = threading.Event()
    id = one.scheduler.add_async_job(jobs.wait, ["removed"])
    eventually(lambda: one.job.state == "running")
    assert one.scheduler.remove_job(id)
    assert one.job.cancel_requested
    jobs.gates["removed"].set()
    eventually(lambda: states(one) == [])


def test_a_paused_queue_starts_nothing_until_it_is_resumed(started):
    one, _ = started()
    one.scheduler.pause_queue("default")
    one.scheduler.add_async_job(jobs.add, [1])
    one.scheduler.add_interval_job(jobs.add, start_date="0s", args=[3], minutes=5)
    one.scheduler.add_async_job(jobs.add, [2], queue="mail")
    eventually(lambda: jobs.calls == [(2,)])
    one.scheduler.resume_queue("default")
    eventually(lambda: sorted(jobs.calls) == [(1,), (2,), (3,)])


@pytest.mark.parametrize("has_threads", [0, 1])
def test_a_uwsgi_without_threads_is_refused(bench, monkeypatch, has_threads):
    # What uWSGI puts into its processes; 1 and 0 are what it says there.
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(has_threads=has_threads))
    daemon = Daemon(bench(settings=FAST).scheduler.registry)
    if has_threads:
        daemon.start()
        daemon.stop(5)
    else:
        with pytest.raises(DurableError, match="enable-threads = true"):
            daemon.start()
