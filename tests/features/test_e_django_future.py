"""What django-future could do, row by row, from its README.

(E10, the admin's pages, waits for the dashboard.)
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pyramid_durable.records import JobInfo
from pyramid_durable.scripts import pscheduler
from tests.features import future_jobs as jobs
from tests.web.site import Rental

from .conftest import Application, on_sqlite

Make = Callable[..., Application]
UTC = timezone.utc
HERE = "tests.features.future_jobs"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@pytest.fixture(autouse=True)
def no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.calls.clear()
    monkeypatch.setattr(Rental, "do_job", jobs.do_job, raising=False)


@pytest.fixture
def rental(application: Application) -> Callable[..., str]:
    """Add a rental in a view, and call for a job on it there; returns the job's id."""

    def make(func: Any, **options: Any) -> str:
        def view(request: Any) -> str:
            it = Rental(ski="blue")
            request.dbsession.add(it)
            request.dbsession.flush()
            id: str = request.scheduler.add_date_job(func, "5d", content_object=it, **options)
            return id

        id: str = application.request(view)
        return id

    return make


def the_only(done: list[JobInfo]) -> JobInfo:
    (job,) = done
    return job


# E1: schedule_job(when, callable).


@on_sqlite
@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        (lambda: datetime.now(UTC).replace(tzinfo=None) + timedelta(days=5), 5 * DAY),
        (lambda: datetime.now(UTC) + timedelta(days=5), 5 * DAY),
        (lambda: timedelta(days=5), 5 * DAY),
        (lambda: "5d", 5 * DAY),
        (lambda: "3h", 3 * HOUR),
        (lambda: "10m", 10 * MINUTE),
        (lambda: "2w", 14 * DAY),
    ],
    ids=["naive", "aware", "timedelta", "5d", "3h", "10m", "2w"],
)
def test_e1_a_job_at_a_time_or_after_one(
    application: Application, date: Callable[[], Any], seconds: float
) -> None:
    id = application.scheduler.add_date_job(f"{HERE}.dosomething", date())
    assert application.run_due(after=seconds - 30) == []
    assert the_only(application.run_due(after=seconds + 30)).id == id
    assert jobs.calls == ["done"]


def test_e1_a_time_in_the_past_is_now(application: Application) -> None:
    application.scheduler.add_date_job(f"{HERE}.dosomething", datetime(2010, 10, 10))
    assert the_only(application.run_due()).run_at == datetime(2010, 10, 10, tzinfo=UTC)


# E2: expiry.


@pytest.mark.parametrize("expires", ["7d", timedelta(days=7)])
def test_e2_an_expired_job_is_never_run_and_marked(application: Application, expires: Any) -> None:
    id = application.scheduler.add_date_job(f"{HERE}.dosomething", "5d", expires=expires)
    job = application.job(id)
    assert job.expires_at - job.run_at == timedelta(days=7)
    assert application.run_due(after=12 * DAY + 30) == []
    assert application.job(id).state == "expired"
    assert application.run_due(after=30 * DAY) == jobs.calls == []


@on_sqlite
def test_e2_a_job_runs_until_it_expires(application: Application) -> None:
    application.scheduler.add_date_job(f"{HERE}.dosomething", "5d", expires="7d")
    assert the_only(application.run_due(after=12 * DAY - 30)).state == "succeeded"


@on_sqlite
def test_e2_an_expiry_for_all_jobs_as_it_had(make_application: Make) -> None:
    application = make_application(settings={"scheduler.misfire_grace_time": "7d"})
    id = application.scheduler.add_date_job(f"{HERE}.dosomething", "5d")
    assert application.run_due(after=12 * DAY + 30) == []
    assert application.job(id).state == "expired"


# E3: arguments, and the object it is about.


def test_e3_args_and_kwargs(application: Application) -> None:
    application.scheduler.add_date_job(
        f"{HERE}.with_args", "5d", args=[1, 2], kwargs={"foo": "bar"}
    )
    application.run_due(after=6 * DAY)
    assert jobs.calls == [((1, 2), {"foo": "bar"})]


def test_e3_the_content_object_comes_first(
    application: Application, rental: Callable[..., str]
) -> None:
    rental(f"{HERE}.of_content", args=[1])
    assert the_only(application.run_due(after=6 * DAY)).error is None
    assert jobs.calls == [("blue", (1,))]


def test_e3_a_method_of_the_content_object_by_its_name(
    application: Application, rental: Callable[..., str]
) -> None:
    rental("do_job", args=[1, 2])
    assert the_only(application.run_due(after=6 * DAY)).error is None
    assert jobs.calls == [("blue", "do_job", (1, 2))]


# E4: the job as a parameter; reschedule.


def test_e4_the_job_is_a_parameter_and_comes_before_the_content_object(
    application: Application, rental: Callable[..., str]
) -> None:
    id = rental(jobs.with_job_and_content)
    assert the_only(application.run_due(after=6 * DAY)).error is None
    assert jobs.calls == [(id, "blue")]


def test_e4_reschedule_copies_what_is_not_given(application: Application) -> None:
    options = {"queue": "mail", "priority": 2, "expires": "7d", "name": "again"}
    first = application.scheduler.add_date_job(jobs.handler, "5d", **options)
    for run in range(3):
        job = the_only(application.run_due(after=(5 + 3 * run) * DAY + MINUTE))
        assert (job.queue, job.priority, job.name) == ("mail", 2, "again")
        assert job.expires_at - job.run_at == timedelta(days=7)
        assert (job.id == first) == (run == 0)
    assert jobs.calls == [5, 6, 7]
    assert application.run_due(after=11 * DAY + 2 * MINUTE) == []


def test_e4_reschedule_from_the_time_it_was_scheduled_for(application: Application) -> None:
    id = application.scheduler.add_date_job(jobs.every_three_days, "5d")
    planned = application.job(id).run_at
    for late in (5.4, 8.9):
        assert the_only(application.run_due(after=late * DAY)).error is None
    assert jobs.calls == [planned, planned + timedelta(days=3)]
    (waiting,) = application.scheduler.get_jobs(state="scheduled")
    assert waiting.run_at == planned + timedelta(days=6)


# E5: the command.


@pytest.fixture
def once(application: Application, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """``pscheduler CONFIG.ini --once``, on an ini for the store; returns the exit code."""
    url = application.store.url.render_as_string(hide_password=False).replace("%", "%%")
    ini = tmp_path / "application.ini"
    ini.write_text(
        "[app:main]\nuse = call:tests.processes.application:main\n"
        f"sqlalchemy.url = {url}\nscheduler.broker.url = filesystem://{tmp_path / 'broker'}\n"
        f"scheduler.jobstore.default.prefix = {application.store.prefix}\n"
        "scheduler.queues = default mail\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    yield lambda *options: pscheduler.main([str(ini), "--once", *options])
    signal.signal(signal.SIGTERM, before)


def three_jobs(application: Application) -> tuple[str, str, str]:
    """One that succeeds, one that fails, and one more, in this order."""
    add = application.scheduler.add_async_job
    return (
        add(f"{HERE}.dosomething", priority=1),
        add("tests.processes.application.nap", args=["not a number"], priority=2),
        add(f"{HERE}.dosomething", priority=3),
    )


def states(application: Application, ids: tuple[str, ...]) -> list[str | None]:
    found = [application.scheduler.get_job(id) for id in ids]
    return [job.state if job else None for job in found]


def test_e5_once_stops_at_an_error_with_its_traceback(
    application: Application, once: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    later = application.scheduler.add_date_job(f"{HERE}.dosomething", "1h")
    ids = three_jobs(application)
    assert once() == 1
    assert states(application, (*ids, later)) == ["succeeded", "failed", "scheduled", "scheduled"]
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "TypeError: 'str' object cannot be interpreted" in shown
    assert "TypeError" in application.job(ids[1]).error


def test_e5_once_i_ignores_errors_and_d_deletes_what_is_completed(
    application: Application, once: Callable[..., int]
) -> None:
    ids = three_jobs(application)
    assert once("-d", "-i") == 0
    assert states(application, ids) == [None, "failed", None]
    assert jobs.calls == ["done"] * 2
    ids = three_jobs(application)
    assert once("-i") == 0
    assert states(application, ids) == ["succeeded", "failed", "succeeded"]


# E6: as of a given time.


@pytest.mark.parametrize("now", [lambda: datetime.now(UTC) + timedelta(days=6), lambda: "6d"])
def test_e6_run_jobs_as_of_a_given_time(application: Application, now: Callable[[], Any]) -> None:
    scheduler = application.scheduler
    early, late = (scheduler.add_date_job(jobs.dosomething, date) for date in ("5d", "7d"))
    assert scheduler.run_due() == []
    assert the_only(scheduler.run_due(now=now())).id == early
    assert application.job(late).state == "scheduled"


# E7: transactions; what is kept.


def test_e7_each_job_in_its_own_transaction_and_its_end_is_kept(application: Application) -> None:
    for ski, fails in (("red", True), ("blue", False)):
        application.scheduler.add_async_job(jobs.rent, args=[ski, fails])
    done = {job.args[0]: job for job in application.run_due()}
    assert application.site.rentals() == 1
    assert (done["blue"].state, done["blue"].result) == ("succeeded", "rented blue")
    assert (done["red"].state, done["red"].result) == ("failed", None)
    assert done["red"].error.startswith("Traceback")
    assert done["red"].error.rstrip().endswith("LookupError: red is not there")


# E8: sticky jobs.


def test_e8_of_a_sticky_job_one_instance_is_always_queued(make_application: Make) -> None:
    def configure(config: Any) -> None:
        config.add_interval_job("sticky", jobs.rent, args=["same", True], minutes=10)

    application = make_application(configure=configure)
    for _ in range(2):  # each start brings the store in line, and adds no second one
        with application.serving():
            pass
    assert application.site.schedules() == ["sticky"]
    for run in (1, 2, 3):
        job = the_only(application.run_due(after=run * 600 + 1))
        assert (job.schedule_id, job.state) == ("sticky", "failed")
        (schedule,) = application.scheduler.get_schedules()
        assert schedule.next_run_at > job.run_at


# E9: its caveats.


def test_e9_a_second_runner_runs_nothing_twice(application: Application) -> None:
    ids = [
        application.scheduler.add_async_job(jobs.rent, args=[f"ski {number}"])
        for number in range(20)
    ]
    together = threading.Barrier(2)
    done: list[list[str]] = []

    def run() -> None:
        together.wait(10)
        done.append([job.id for job in application.run_due()])

    runners = [threading.Thread(target=run) for _ in range(2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join(60)
    assert sorted(done[0] + done[1]) == sorted(jobs.calls) == sorted(ids)
    assert application.site.rentals() == 20


def test_e9_an_error_stops_no_runner(application: Application) -> None:
    application.scheduler.add_async_job(jobs.rent, args=["red", True], priority=0)
    application.scheduler.add_async_job(jobs.dosomething)
    assert [job.state for job in application.run_due()] == ["failed", "succeeded"]
    application.scheduler.add_async_job(jobs.rent, args=["red", True], priority=0)
    id = application.scheduler.add_async_job(jobs.dosomething)
    with application.serving():
        assert application.outcome(id).state == "succeeded"
