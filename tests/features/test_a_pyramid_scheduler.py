"""What pyramid_scheduler could do, row by row, from its README and its wishes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationExecutionError
from pyramid.paster import get_app
from pyramid.response import Response
from pyramid.scripting import prepare
from sqlalchemy import select
from webtest import TestApp

from pyramid_durable.events import (
    DaemonEvent,
    DaemonStarted,
    DaemonStopping,
    JobCreated,
    JobEvent,
    JobFailed,
    JobRemoved,
    JobStarted,
    JobSucceeded,
    MessageReceived,
)
from pyramid_durable.exceptions import InvalidJob, InvalidQueue
from pyramid_durable.records import JobInfo
from pyramid_durable.scripts import pscheduler
from tests.features import scheduler_jobs as jobs
from tests.processes.application import nap, nothing
from tests.processes.deployment import Deployment, deployed, wait_for

from .conftest import Application, on_sqlite

Make = Callable[..., Application]
UTC = timezone.utc
HERE = "tests.features.scheduler_jobs"


@pytest.fixture(autouse=True)
def no_calls() -> None:
    jobs.calls.clear()
    jobs.gate.clear()


def the_only(done: list[JobInfo]) -> JobInfo:
    (job,) = done
    return job


# A1: including it.


@pytest.mark.parametrize("how", ["config.include", "pyramid.includes"])
def test_a1_including_it_gives_the_registry_a_scheduler(tmp_path: Any, how: str) -> None:
    def handle_request_quickly(request: Any) -> Response:
        assert request.scheduler.get_jobs() == []
        request.registry.scheduler.add_async_job(jobs.slow_process, args=("my-first-arg", 2))
        return Response("quick")

    settings = {
        "scheduler.combined": "false",
        "scheduler.queues": "jobs",
        "sqlalchemy.url": f"sqlite:///{tmp_path / 'application.sqlite'}",
    }
    if how == "pyramid.includes":
        settings["pyramid.includes"] = "pyramid_durable"
    config = Configurator(settings=settings)
    if how == "config.include":
        config.include("pyramid_durable")
    config.add_view(handle_request_quickly)
    app = config.make_wsgi_app()
    TestApp(app).get("/")
    assert the_only(app.registry.scheduler.run_due()).queue == "jobs"
    assert jobs.calls == [("my-first-arg", 2)]
    app.registry.scheduler.store.dispose()


# A2: async, date, interval and cron jobs.


def test_a2_an_async_job(application: Application) -> None:
    id = application.request(
        lambda request: request.registry.scheduler.add_async_job(
            jobs.slow_process, args=("my-first-arg", 2)
        )
    )
    assert (jobs.calls, type(id)) == ([], str)
    with application.serving():
        assert application.outcome(id).state == "succeeded"
    assert jobs.calls == [("my-first-arg", 2)]


@on_sqlite
@pytest.mark.parametrize(
    "in_an_hour",
    [
        lambda: time.time() + 3600,
        lambda: int(time.time()) + 3601,
        lambda: datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1),
        lambda: datetime.now(UTC) + timedelta(hours=1),
        lambda: datetime.now(timezone(timedelta(hours=-7))) + timedelta(hours=1),
    ],
    ids=["epoch", "whole epoch", "naive", "aware", "elsewhere"],
)
def test_a2_a_date_job(application: Application, in_an_hour: Callable[[], Any]) -> None:
    id = application.request(
        lambda request: request.scheduler.add_date_job(jobs.delayed_process, in_an_hour())
    )
    assert application.run_due(after=3540) == []
    assert the_only(application.run_due(after=3660)).id == id
    assert jobs.calls == ["later"]


@on_sqlite
def test_a2_an_interval_job_of_all_units(application: Application) -> None:
    noon = datetime(2030, 1, 1, 12)
    id = application.request(
        lambda request: request.scheduler.add_interval_job(
            jobs.interval_process, noon, kwargs={"reason": "often"},
            weeks=1, days=1, hours=1, minutes=1, seconds=1,
        )
    )  # fmt: skip
    first, second, third = application.scheduler.next_run_times(id, 3)
    assert first == noon.replace(tzinfo=UTC)
    unit = timedelta(weeks=1, days=1, hours=1, minutes=1, seconds=1)
    assert second - first == third - second == unit


def test_a2_an_interval_job_runs_again_and_again(application: Application) -> None:
    id = application.scheduler.add_interval_job(jobs.interval_process, args=["often"], minutes=10)
    assert application.run_due(after=590) == []
    for minutes in (10, 20, 30):
        assert the_only(application.run_due(after=minutes * 60 + 1)).schedule_id == id
    assert jobs.calls == ["often"] * 3


def test_a2_a_cron_job(application: Application) -> None:
    id = application.request(
        lambda request: request.scheduler.add_cron_job(
            jobs.interval_process, datetime(2030, 5, 1), ["cron"], day_of_week="mon-fri", hour=17
        )
    )
    times = application.scheduler.next_run_times(id, 4)
    assert [time.strftime("%a %d %H:%M:%S") for time in times] == [
        "Wed 01 17:00:00",
        "Thu 02 17:00:00",
        "Fri 03 17:00:00",
        "Mon 06 17:00:00",
    ]
    assert the_only(application.scheduler.run_due(times[0])).schedule_id == id
    assert jobs.calls == ["cron"]


@on_sqlite
def test_a2_options_are_passed_through(application: Application) -> None:
    id = application.scheduler.add_interval_job(
        jobs.interval_process, hours=1, queue="mail", name="often",
        misfire_grace_time=60, coalesce=False, max_instances=3, iterations=2,
    )  # fmt: skip
    (schedule,) = application.scheduler.get_schedules()
    assert (schedule.id, schedule.name, schedule.queue) == (id, "often", "mail")
    assert schedule.iterations_left == 2
    # Two hours at once, one of them beyond the grace time.
    late, in_time = application.run_due(after=7201), application.scheduler.get_jobs(state="expired")
    assert (len(late), len(in_time)) == (1, 1)
    assert application.scheduler.get_schedules()[0].iterations_left == 0
    for wrong, error in (({"queue": "nope"}, InvalidQueue), ({"no_option": 1}, TypeError)):
        with pytest.raises(error, match=r"nope|no_option"):
            application.scheduler.add_async_job(jobs.delayed_process, **wrong)


# A3: cancelling.


def test_a3_cancel_by_id_in_a_view(application: Application) -> None:
    scheduler = application.scheduler
    date = scheduler.add_date_job(jobs.delayed_process, time.time() + 3600)
    often = scheduler.add_interval_job(jobs.interval_process, minutes=10)
    for one in (date, often):
        assert application.request(lambda request, one=one: request.scheduler.cancel_job(one))
    assert application.run_due(after=7200) == []
    assert application.job(date).state == "cancelled"


def test_a3_cancel_by_id_and_queue(application: Application) -> None:
    scheduler = application.scheduler
    id = scheduler.add_async_job(jobs.delayed_process, queue="mail")
    assert not scheduler.cancel_job(id, queue="default")
    assert application.job(id).state == "scheduled"
    assert scheduler.cancel_job(id, queue="mail")
    assert application.job(id).state == "cancelled"
    with pytest.raises(InvalidQueue, match="nope"):
        scheduler.cancel_job(id, queue="nope")


@on_sqlite
def test_a3_an_unknown_id_is_no_error(application: Application) -> None:
    assert application.scheduler.cancel_job("never heard of it") is False
    assert application.request(lambda request: request.scheduler.cancel_job("nor of it")) is False


def test_a3_a_running_job_is_asked_to_stop(application: Application) -> None:
    id = application.scheduler.add_async_job(jobs.long_process)
    with application.serving():
        application.until(lambda: jobs.calls == ["begun"])
        assert application.scheduler.cancel_job(id)
        assert application.outcome(id).state in ("succeeded", "cancelled")
    assert not jobs.gate.is_set()


# A4: combined mode.


def test_a4_combined_runs_jobs_in_the_web_process(make_application: Make) -> None:
    application = make_application(settings={"scheduler.combined": "true"})
    assert application.scheduler.aps is None
    id = application.request(
        lambda request: request.registry.scheduler.add_async_job(jobs.delayed_process)
    )
    assert application.outcome(id).state == "succeeded"
    assert application.scheduler.aps is not None


@on_sqlite
def test_a4_scripts_never_start_it(make_application: Make) -> None:
    application = make_application(settings={"scheduler.combined": "true"})
    with prepare(registry=application.registry) as environment:  # pshell and all the others
        id = environment["request"].registry.scheduler.add_async_job(jobs.delayed_process)
        application.request(lambda request: None)
    assert application.scheduler.aps is None
    assert application.job(id).state == "scheduled"


def test_a4_combined_applications_on_one_store_run_a_job_once(make_application: Make) -> None:
    """Each has a daemon of its own, as each process of a server has."""
    applications = [make_application(settings={"scheduler.combined": "true"}) for _ in range(2)]
    ids = [
        application.request(
            lambda request, n=n: request.scheduler.add_async_job(jobs.slow_process, args=["n", n])
        )
        for n, application in enumerate(applications * 10)
    ]
    for id in ids:
        assert applications[0].outcome(id).attempt == 1
    assert sorted(jobs.calls) == [("n", number) for number in range(20)]


# A5 and A7: queues and the command; they share a ``pscheduler CONFIG.ini -q mail``.


class Deployed:
    """An application deployed with a daemon for one of its queues."""

    def __init__(self, made: Deployment) -> None:
        self.made = made
        self.scheduler = get_app(str(made.ini)).registry.scheduler
        self.start()

    def start(self) -> None:
        """Start the daemon, unless it runs."""
        running = self.made.processes.get("daemon")
        if running is None or running.poll() is not None:
            self.made.start(
                "pscheduler", "-q", "mail", "--reload", "--restart", "--app-name", "main",
                name="daemon",
            )  # fmt: skip
            self.wait_for_log("listening to", 1)

    def command(self, *arguments: str) -> int:
        """Another ``pscheduler CONFIG.ini``, to its end; returns the exit code."""
        return pscheduler.main([str(self.made.ini), *arguments])

    def logged(self, text: str) -> int:
        """How often the daemon has said so."""
        return self.made.log("daemon").count(text)

    def wait_for_log(self, text: str, times: int) -> None:
        wait_for(f"{times} times {text!r}", lambda: self.logged(text) >= times)

    def wait_for_state(self, id: str, state: str) -> None:
        wait_for(state, lambda: self.scheduler.get_job(id).state == state)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    settings = {"scheduler__queues": "default mail", "scheduler__poll_interval": "0.1s"}
    folder = tmp_path_factory.mktemp("deployed")
    sigterm = signal.getsignal(signal.SIGTERM)
    with deployed(
        folder, "tests.processes.application:main", "sqlite", "embedded", **settings
    ) as made:
        one = Deployed(made)
        yield one
        one.scheduler.broker.close()
        one.scheduler.store.dispose()
    signal.signal(signal.SIGTERM, sigterm)


def test_a5_a_daemon_restricted_to_queues(deployment: Deployed) -> None:
    deployment.start()
    plain = deployment.scheduler.add_async_job(nothing)
    mail = deployment.scheduler.add_async_job(nothing, queue="mail")
    deployment.wait_for_state(mail, "succeeded")
    assert deployment.scheduler.get_job(plain).state == "scheduled"
    assert deployment.command("--once", "-q", "mail") == 0
    assert deployment.scheduler.get_job(plain).state == "scheduled"
    assert deployment.command("--once", "-q", "default", "-q", "mail") == 0
    assert deployment.scheduler.get_job(plain).state == "succeeded"


def test_a5_several_daemons_serve_one_queue(make_application: Make) -> None:
    one, other = (make_application(settings={"scheduler.id": id}) for id in ("one", "other"))
    with one.serving(), other.serving():
        # Three threads each, and a fourth job that does not wait for them.
        ids = [one.scheduler.add_async_job(jobs.long_process, queue="mail") for _ in range(4)]
        one.until(lambda: len(jobs.calls) == 4)
        daemons = {one.job(id).daemon for id in ids}
        jobs.gate.set()
        assert {one.outcome(id).result for id in ids} == {"done"}
    assert daemons == {"one", "other"}


def test_a7_a_message_and_print_jobs(deployment: Deployed) -> None:
    deployment.start()
    deployment.scheduler.add_date_job(nothing, "1h", queue="mail", name="an hour from now")
    assert deployment.command("--message", "hello there") == 0
    assert deployment.command("--message", "print-jobs", "--app-name", "main") == 0
    deployment.wait_for_log("hello there", 1)
    deployment.wait_for_log("an hour from now (trigger: date", 1)


def test_a7_reload_restart_and_a_gentle_end(deployment: Deployed) -> None:
    deployment.start()
    starts = deployment.logged("daemon started")
    for (pid,) in deployment.made.ask("SELECT pid FROM durable_daemon"):
        os.kill(pid, signal.SIGKILL)
    deployment.wait_for_log("daemon started", starts + 1)
    # hupper hears of files some time after the start: a change before that is none to it.
    ini, changes = deployment.made.ini, deployment.logged("changed; reloading")
    wait_for("notice", lambda: ini.touch() or deployment.logged("changed; reloading") > changes)
    deployment.wait_for_log("daemon started", starts + 2)
    running = deployment.scheduler.add_async_job(nap, args=[0.5], queue="mail")
    deployment.wait_for_state(running, "running")
    assert deployment.made.stop("daemon", signal.SIGTERM) == 0
    job = deployment.scheduler.get_job(running)
    assert (job.state, job.attempt) == ("succeeded", 1)


# A6: events.


def test_a6_events_in_a_reliable_order(application: Application) -> None:
    told: dict[str, list[type]] = {}
    application.scheduler.add_listener(
        lambda event: told.setdefault(event.job.id, []).append(type(event)), JobEvent
    )
    deferred = application.scheduler.add_date_job(
        jobs.delayed_process, time.time() + 0.05, delete_after=True
    )
    failing = application.scheduler.add_async_job(jobs.fail)
    with application.serving():
        application.until(lambda: [len(events) for events in told.values()] in ([4, 3], [3, 4]))
    assert told == {
        deferred: [JobCreated, JobStarted, JobSucceeded, JobRemoved],
        failing: [JobCreated, JobStarted, JobFailed],
    }


@on_sqlite
def test_a6_a_listener_for_some_events_with_arguments_until_it_is_removed(
    application: Application,
) -> None:
    heard = []

    def listener(event: Any, *args: Any, **kwargs: Any) -> None:
        heard.append((type(event), args, kwargs))

    scheduler = application.scheduler
    scheduler.add_listener(listener, [JobSucceeded, JobFailed], args=[1], kwargs={"how": "loud"})
    scheduler.add_async_job(jobs.delayed_process)
    application.run_due()
    assert heard == [(JobSucceeded, (1,), {"how": "loud"})]
    scheduler.remove_listener(listener)
    scheduler.add_async_job(jobs.delayed_process)
    application.run_due()
    assert len(heard) == 1


# A8: settings.


@on_sqlite
def test_a8_a_delegator(make_application: Make) -> None:
    application = make_application(settings={"scheduler.delegator": f"{HERE}.delegate"})
    application.scheduler.add_async_job(jobs.slow_process, args=["a", 1], priority=0)
    application.scheduler.add_async_job(jobs.delayed_process)
    assert {job.state for job in application.run_due()} == {"succeeded"}
    assert jobs.calls == [
        ("delegated", "slow_process", ("a", 1)),
        ("delegated", "delayed_process", ()),
        "later",
    ]


def test_a8_housekeeping_and_what_is_appended(make_application: Make) -> None:
    settings = {
        "scheduler.housekeeping": "0.2s",
        "scheduler.housekeeping.append": f"{HERE}.clean_up",
        "scheduler.retention": "0s",
    }
    application = make_application(settings=settings)
    application.scheduler.add_async_job(jobs.delayed_process)
    application.run_due()
    assert application.site.jobs() != []
    with application.serving():
        application.until(lambda: application.site.rentals() and not application.site.jobs())


@on_sqlite
@pytest.mark.parametrize("grace", ["setting", "option"])
def test_a8_misfire_grace_time(make_application: Make, grace: str) -> None:
    setting = {"scheduler.misfire_grace_time": "60"} if grace == "setting" else {}
    option = {"misfire_grace_time": 60} if grace == "option" else {}
    application = make_application(settings=setting)
    add = application.scheduler.add_date_job
    late = add(jobs.delayed_process, time.time() - 90, **option)
    in_time = add(jobs.delayed_process, time.time() - 30, **option)
    assert the_only(application.run_due()).id == in_time
    assert application.job(late).state == "expired"
    assert jobs.calls == ["later"]


@on_sqlite
def test_a8_serializer_and_compressor_of_the_broker(make_application: Make) -> None:
    settings = {
        "scheduler.broker.serializer": "pickle",
        "scheduler.broker.compressor": "bzip2",
        "scheduler.secret": "of all its processes",
    }
    application = make_application(settings=settings)
    heard = []
    application.scheduler.add_listener(lambda event: heard.append(event.text), MessageReceived)
    with application.serving():
        application.until(
            lambda: application.scheduler.send_message("hello", queue="mail") or heard
        )
    assert set(heard) == {"hello"}


@on_sqlite
def test_a8_a_jobstore_class_of_its_own(make_application: Make) -> None:
    setting = {"scheduler.jobstore.default.class": f"{HERE}.OwnJobStore"}
    application = make_application(settings=setting)
    id = application.scheduler.add_async_job(jobs.delayed_process)
    with application.serving():
        assert application.outcome(id).state == "succeeded"
    assert "looked" in jobs.calls


# A9: what a job runs in.


def test_a9_a_job_has_the_applications_registry(application: Application) -> None:
    id = application.scheduler.add_async_job(jobs.find_registry)
    with application.serving():
        assert application.outcome(id).state == "succeeded"
    assert jobs.calls == [(application.registry, application.registry)]


def test_a9_a_job_has_a_transaction(application: Application) -> None:
    application.scheduler.add_async_job(jobs.rent, args=["blue"])
    application.scheduler.add_async_job(jobs.rent, args=["red", True])
    states = sorted(job.state for job in application.run_due())
    assert states == ["failed", "succeeded"]
    assert application.site.rentals() == 1


def test_a9_it_is_the_threads_transaction_too(make_application: Make) -> None:
    application = make_application(tm="thread")
    application.registry.engine = application.site.engine
    application.scheduler.add_async_job(jobs.rent_by_a_session_of_the_threads, args=["blue"])
    assert the_only(application.run_due()).error is None
    assert application.site.rentals() == 1


# A10: what it wished for.


@pytest.mark.parametrize("where", ["same", "other"])
def test_a10_a_job_runs_only_after_the_commit(make_application: Make, where: str) -> None:
    application = make_application(where=where)

    def view(request: Any, fails: bool) -> str:
        ski = "red" if fails else "blue"
        id: str = request.registry.scheduler.add_async_job(jobs.count_rentals)
        request.dbsession.add(application_rental(ski))
        request.dbsession.flush()
        if fails:
            raise LookupError(ski)
        return id

    with application.serving():
        with pytest.raises(LookupError):
            application.request(lambda request: view(request, fails=True))
        id = application.request(lambda request: view(request, fails=False))
        assert application.outcome(id).result == 1
    assert [job.id for job in application.scheduler.get_jobs()] == [id]


def application_rental(ski: str) -> Any:
    return jobs.Rental(ski=ski)


@on_sqlite
def test_a10_cron_by_utc_or_any_other_timezone(make_application: Make) -> None:
    scheduler = make_application(settings={"scheduler.timezone": "America/New_York"}).scheduler
    start = datetime(2030, 1, 1, tzinfo=UTC)
    hours = {}
    for zone in ({}, {"timezone": "UTC"}, {"timezone": "Europe/Berlin"}):
        id = scheduler.add_cron_job(jobs.interval_process, start, hour=3, **zone)
        (first,) = scheduler.next_run_times(id, 1)
        hours[zone.get("timezone")] = first.astimezone(UTC).hour
    assert hours == {None: 8, "UTC": 3, "Europe/Berlin": 2}


@on_sqlite
def test_a10_delivered_messages_are_cleaned_out(make_application: Make, tmp_path: Any) -> None:
    folder = tmp_path / "broker"
    setting = {"scheduler.broker.url": f"filesystem://{folder}"}
    application = make_application(settings=setting)
    heard: list[str] = []
    application.scheduler.add_listener(lambda event: heard.append(event.text), MessageReceived)
    with application.serving():
        application.until(lambda: application.scheduler.send_message("hello") or heard)
        application.until(lambda: not [path for path in folder.rglob("*.msg") if path.is_file()])
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a10_a_broker_in_sql_is_refused_with_what_does_instead(tmp_path: Any) -> None:
    """Its rows would stay, and it cannot broadcast."""
    settings = {"scheduler.broker.url": f"sqla+sqlite:///{tmp_path / 'broker.sqlite'}"}
    config = Configurator(settings=settings)
    config.include("pyramid_durable")
    with pytest.raises(ConfigurationExecutionError, match=r"'sqla', .* filesystem:///a/folder"):
        config.commit()


@on_sqlite
def test_a10_lifecycle_events(application: Application) -> None:
    told: list[type] = []
    application.scheduler.add_listener(lambda event: told.append(type(event)), DaemonEvent)
    with application.serving():
        application.until(lambda: told == [DaemonStarted])
    assert told == [DaemonStarted, DaemonStopping]


@on_sqlite
@pytest.mark.parametrize(
    "func", [lambda: None, f"{HERE}.no_such_thing", f"{HERE}:calls", "no.such.module", jobs]
)
def test_a10_what_cannot_be_found_again_is_refused_at_the_call(
    application: Application, func: Any
) -> None:
    with pytest.raises(InvalidJob):
        application.scheduler.add_async_job(func)


@on_sqlite
def test_a10_arguments_that_cannot_be_read_again_are_refused_at_the_call(
    application: Application,
) -> None:
    with pytest.raises(InvalidJob, match=r"argument 1: a builtins\.object cannot be stored"):
        application.scheduler.add_async_job(jobs.interval_process, args=[object()])


def test_a10_nothing_is_dropped_silently(application: Application) -> None:
    """A job of long ago runs, unless it is told not to; then it is there to be seen, and tells."""
    told: list[Any] = []
    application.scheduler.add_listener(told.append, JobEvent)
    long_ago = datetime(2013, 12, 18)
    runs = application.scheduler.add_date_job(jobs.delayed_process, long_ago)
    late = application.scheduler.add_date_job(jobs.delayed_process, long_ago, misfire_grace_time=1)
    assert the_only(application.run_due()).id == runs
    job = application.job(late)
    assert job.state == "expired"
    (reason,) = [event.reason for event in told if hasattr(event, "reason")]
    assert reason.endswith("s late, its misfire_grace_time is 1 s")


def test_a10_the_functions_name_is_a_column(application: Application) -> None:
    scheduler = application.scheduler
    scheduler.add_async_job(jobs.delayed_process)
    id = scheduler.add_async_job(jobs.interval_process)
    name = f"{HERE}:interval_process"
    assert [job.id for job in scheduler.get_jobs(func=name)] == [id]
    with application.store.read() as connection:
        table = application.store.tables.job
        query = select(table.c.func).where(table.c.id == id)
        assert connection.execute(query).scalar_one() == name
