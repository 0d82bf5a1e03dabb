"""What umeboshi could do, row by row: routines, far dates, statuses, behaviors, groups, retries.

(B8, the admin, is the dashboard's. How behaviors hold under concurrency is in tests/concurrent.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from pyramid_durable import routine
from pyramid_durable.exceptions import DuplicateJob, InvalidJob
from pyramid_durable.records import JobInfo
from tests.features import umeboshi_jobs as jobs

from .conftest import Application, on_sqlite

Make = Callable[..., Application]
UTC = timezone.utc
HERE = "tests.features.umeboshi_jobs"
DAY = 86400.0


@pytest.fixture(autouse=True)
def no_calls() -> None:
    jobs.calls.clear()


def ask(application: Application, routine: Any, *args: Any, **options: Any) -> str:
    """Schedule a routine in a view, where it is not refused."""
    id = application.request(lambda request: routine.schedule(args=list(args), **options))
    assert isinstance(id, str)
    return id


def refused(application: Application, routine: Any, *args: Any) -> str | None:
    """The id of the equal job for which a routine is refused, None if it is not."""

    def view(request: Any) -> str | None:
        quiet = routine.schedule(args=list(args), silent=True)
        if quiet is not None:
            return None
        with pytest.raises(DuplicateJob) as raised:
            routine.schedule(args=list(args))
        return raised.value.id

    found: str | None = application.request(view)
    return found


def run(application: Application, after: float = 0.0) -> JobInfo:
    """Run the one job that is due."""
    (job,) = application.run_due(after=after)
    return job


def rent_jetski(application: Application, user: str) -> tuple[int, str]:
    """umeboshi's example: a jetski goes out, and a late fee is due in 30 days."""

    def view(request: Any) -> tuple[int, str]:
        jetski = jobs.JetSki(renter=user, out_for_rent=True)
        request.dbsession.add(jetski)
        request.dbsession.flush()
        id = jobs.JetSkiLateFee.schedule(
            datetime_scheduled=datetime.now(UTC) + timedelta(days=30), args=[jetski.id, user]
        )
        return jetski.id, id

    found: tuple[int, str] = application.request(view)
    return found


# B1: routines.


def test_b1_the_late_fee_of_the_readme(application: Application) -> None:
    _, id = rent_jetski(application, "ann")
    job = application.job(id)
    assert (job.name, job.func) == ("ski-late-fee", f"{HERE}:JetSkiLateFee")
    assert application.run_due(after=29 * DAY) == []
    assert run(application, after=30 * DAY + 60).state == "succeeded"
    assert jobs.calls == [("ann", 600)]


def test_b1_a_jetski_that_was_returned_costs_nothing(application: Application) -> None:
    jetski, id = rent_jetski(application, "ann")

    def give_back(request: Any) -> None:
        request.dbsession.get(jobs.JetSki, jetski).out_for_rent = False

    application.request(give_back)
    assert run(application, after=31 * DAY).state == "cancelled"
    assert jobs.calls == []
    assert "check_validity()" in str(application.job(id).error)


@on_sqlite
def test_b1_arguments_of_schedule_by_their_place(application: Application) -> None:
    def view(request: Any) -> list[str | None]:
        return [jobs.ScheduleOnce.schedule("1h", [1], True) for _ in range(2)]

    id, none = application.request(view)
    assert none is None
    assert application.job(id).args == (1,)


def test_b1_what_is_missing_is_said() -> None:
    class Nameless:
        def run(self) -> None: ...

    class Idle:
        trigger_name = "idle"

    with pytest.raises(InvalidJob, match="Nameless has trigger_name None"):
        routine(Nameless)
    with pytest.raises(InvalidJob, match=r"Idle has no run\(\)"):
        routine()(Idle)


class Size(Enum):
    SMALL = "s"


@dataclass(frozen=True)
class Range:
    low: Decimal
    high: Decimal


VALUES = [
    ("a", ("tuple", 1)),
    {1, 2},
    frozenset({"x"}),
    datetime(2030, 7, 1, 12, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2030, 7, 1, 12, 30, tzinfo=timezone(timedelta(hours=5))),
    date(2030, 7, 1),
    timedelta(days=1, microseconds=1),
    Decimal("0.10"),
    Size.SMALL,
    Range(Decimal(1), Decimal("2.50")),
    {1: ["x"], (1, 2): b"bytes"},
]


@on_sqlite
def test_b1_arguments_come_back_as_they_went_in(application: Application) -> None:
    application.request(lambda request: jobs.take.enqueue(*VALUES))
    run(application)
    assert jobs.calls == VALUES
    assert [type(value) for value in jobs.calls] == [type(value) for value in VALUES]
    assert jobs.calls[3].tzinfo == ZoneInfo("Europe/Berlin")
    assert jobs.calls[4].utcoffset() == timedelta(hours=5)
    assert type(jobs.calls[0][1]) is tuple


# B2: far ahead.


def test_b2_years_ahead_and_over_a_restart(make_application: Make) -> None:
    first = make_application()
    id = ask(first, jobs.Useful, 1, datetime_scheduled=datetime.now(UTC) + timedelta(days=800))
    months = ask(first, jobs.Useful, 2, datetime_scheduled="13w")
    first.scheduler.store.dispose()
    second = make_application()
    assert second.run_due(after=90 * DAY) == []
    assert [job.id for job in second.run_due(after=92 * DAY)] == [months]
    assert second.run_due(after=799 * DAY) == []
    assert [job.id for job in second.run_due(after=801 * DAY)] == [id]


# B3: statuses.


@on_sqlite
def test_b3_created_then_successful(application: Application) -> None:
    id = ask(application, jobs.Useful, 1)
    assert application.job(id).state == "scheduled"
    assert (run(application).state, application.job(id).state) == ("succeeded", "succeeded")


@on_sqlite
def test_b3_failed_where_run_raised(application: Application) -> None:
    ask(application, jobs.Useful, 1, True)
    job = run(application)
    assert job.state == "failed"
    assert "the run failed" in str(job.error)


def test_b3_cancelled_by_hand(application: Application) -> None:
    id = ask(application, jobs.Useful, 1)
    assert application.request(lambda request: request.scheduler.cancel_job(id))
    assert (application.run_due(), application.job(id).state) == ([], "cancelled")


def test_b3_broken_where_the_constructor_failed(application: Application) -> None:
    """And kept: after a fix it can be run."""
    id = ask(application, jobs.JetSkiLateFee, 1000, "nobody")
    job = run(application)
    assert job.state == "broken"
    assert "the constructor of JetSkiLateFee failed" in str(job.error)

    def repair(request: Any) -> None:
        request.dbsession.add(jobs.JetSki(id=1000, renter="nobody", out_for_rent=True))
        request.scheduler.retry_job(id)

    application.request(repair)
    assert run(application).state == "succeeded"
    application.request(lambda request: request.dbsession.query(jobs.JetSki).delete())


@on_sqlite
def test_b3_broken_where_its_class_is_gone(make_application: Make) -> None:
    application = make_application(settings={"scheduler.unknown_grace": "0s"})
    id = ask(application, jobs.Useful, 1)
    with application.store.begin() as connection:
        connection.execute(application.store.tables.job.update().values(func=f"{HERE}:Gone"))
    application.run_due()
    job = application.job(id)
    assert (job.state, jobs.calls) == ("broken", [])
    assert "has no attribute 'Gone'" in str(job.error)


# B4: behaviors. Equal are jobs with the same arguments.


def test_b4_default_allows_all(application: Application) -> None:
    assert refused(application, jobs.Useful, 1) is None
    assert refused(application, jobs.Useful, 1) is None
    assert len(application.run_due()) == 2


def test_b4_schedule_once_refuses_while_one_waits(application: Application) -> None:
    id = ask(application, jobs.ScheduleOnce, 1, datetime_scheduled="1h")
    assert refused(application, jobs.ScheduleOnce, 1) == id
    assert refused(application, jobs.ScheduleOnce, 2) is None
    application.run_due(after=3700)
    assert refused(application, jobs.ScheduleOnce, 1) is None


def test_b4_run_once_refuses_once_one_has_succeeded(application: Application) -> None:
    failing = ask(application, jobs.RunOnce, 1, True)
    run(application)
    assert application.job(failing).state == "failed"
    id = ask(application, jobs.RunOnce, 1)
    twin = ask(application, jobs.RunOnce, 1)
    assert [job.id for job in application.run_due(after=60) if job.state == "succeeded"] == [id]
    application.run_due(after=120)
    assert application.job(twin).state == "cancelled"
    assert refused(application, jobs.RunOnce, 1) == id
    assert refused(application, jobs.RunOnce, 2) is None


def test_b4_run_and_schedule_once_refuses_in_both_cases(application: Application) -> None:
    id = ask(application, jobs.RunAndScheduleOnce, 1)
    assert refused(application, jobs.RunAndScheduleOnce, 1) == id
    run(application)
    assert refused(application, jobs.RunAndScheduleOnce, 1) == id
    assert refused(application, jobs.RunAndScheduleOnce, 2) is None


def test_b4_last_only_cancels_those_that_wait(application: Application) -> None:
    first = ask(application, jobs.LastOnly, 1, datetime_scheduled="1d")
    other = ask(application, jobs.LastOnly, 2, datetime_scheduled="1d")
    last = ask(application, jobs.LastOnly, 1, datetime_scheduled="2d")
    states = [application.job(id).state for id in (first, other, last)]
    assert states == ["cancelled", "scheduled", "scheduled"]


def test_b4_delete_after_processing(application: Application) -> None:
    first = ask(application, jobs.DeleteAfter, 1)
    second = ask(application, jobs.DeleteAfter, 1, datetime_scheduled="1h")
    application.run_due()
    assert application.scheduler.get_job(first) is None
    assert application.job(second).state == "scheduled"
    assert jobs.calls == [("DeleteAfter", 1)]


# B5: task groups.


def test_b5_schedule_once_over_the_routines_of_a_group(application: Application) -> None:
    id = ask(application, jobs.FirstMail, "ann", datetime_scheduled="1h")
    assert refused(application, jobs.SecondMail, "ann") == id
    assert refused(application, jobs.SecondMail, "bob") is None
    assert refused(application, jobs.ScheduleOnce, "ann") is None, "it is in no group"


def test_b5_last_only_over_the_routines_of_a_group(application: Application) -> None:
    first = ask(application, jobs.FirstMail, "ann", datetime_scheduled="1h")
    newest = ask(application, jobs.NewestMail, "ann", datetime_scheduled="1h")
    assert [application.job(id).state for id in (first, newest)] == ["cancelled", "scheduled"]


def test_b5_run_once_over_the_routines_of_a_group(application: Application) -> None:
    id = ask(application, jobs.WelcomeByMail, "ann")
    run(application)
    assert refused(application, jobs.WelcomeByLetter, "ann") == id
    assert refused(application, jobs.WelcomeByLetter, "bob") is None


# B6: retries from inside.


def test_b6_one_job_whose_attempt_failed_and_which_waits_an_hour(application: Application) -> None:
    id = ask(application, jobs.Retried, 2)
    job = run(application)
    assert (job.state, job.attempt) == ("scheduled", 1)
    assert "Retry" in str(job.error)
    assert application.run_due(after=3500) == []
    again = run(application, after=3700)
    assert (again.id, again.state, again.result, again.attempt) == (id, "succeeded", "done", 2)


def test_b6_with_a_new_time(application: Application) -> None:
    ask(application, jobs.Retried, 2, datetime.now(UTC) + timedelta(days=2))
    run(application)
    assert application.run_due(after=2 * DAY - 60) == []
    assert run(application, after=2 * DAY + 60).state == "succeeded"


# B7: a serializer of one's own.


@on_sqlite
def test_b7_a_serializer_of_ones_own(make_application: Make) -> None:
    application = make_application(settings={"scheduler.serializer": f"{HERE}.CustomSerializer"})
    id = ask(application, jobs.Useful, {"a": (1, 2)})
    assert application.job(id).args == ({"a": (1, 2)},)
    run(application)
    assert jobs.calls == [("Useful", {"a": (1, 2)})]
    with application.store.read() as connection:
        stored = application.store.jobs.get(connection, id)
    assert stored is not None
    assert stored.codec == f"{HERE}.CustomSerializer"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (f"{HERE}.EmptySerializer", r"has no dumps\(\) and loads\(\)"),
        (f"{HERE}.NoSerializer", "has no attribute 'NoSerializer'"),
        ("nonexist.serializer.Own", "there is no module 'nonexist'"),
    ],
)
def test_b7_what_is_no_serializer_is_an_error_at_start(name: str, why: str, tmp_path: Path) -> None:
    config = Configurator(settings={"scheduler.serializer": name, "here": str(tmp_path)})
    config.include("pyramid_durable")
    with pytest.raises(ConfigurationError, match=f"scheduler.serializer = '{name}'.*{why}"):
        config.make_wsgi_app()


# B9: no two workers process one event.


def test_b9_two_daemons_run_each_job_once(make_application: Make) -> None:
    first, second = (make_application(settings={"scheduler.id": name}) for name in ("a", "b"))
    specs = [{"func": jobs.take, "args": [number]} for number in range(40)]
    with first.serving(), second.serving():
        first.scheduler.add_jobs(specs)
        first.until(lambda: len(first.scheduler.get_jobs(state="succeeded")) == len(specs))
    assert sorted(jobs.calls) == list(range(40))
