"""What sisy could do, row by row: crontabs, callables, ends, iterations, userdata, declarations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pyramid.config import Configurator

from pyramid_durable.exceptions import InvalidJob
from pyramid_durable.records import JobInfo
from pyramid_durable.store import DaemonInfo
from tests.features import sisy_jobs as jobs

from .conftest import Application, on_sqlite

Make = Callable[..., Application]
UTC = timezone.utc
HERE = "tests.features.sisy_jobs"
DAY = 86400.0
EVERY_MINUTE = "* * * * *"
YEARLY = "0 0 1 1 *"


@pytest.fixture(autouse=True)
def no_calls() -> None:
    jobs.calls.clear()


@pytest.fixture
def gate() -> Any:
    """What the jobs that wait are waiting for; opened at the end in any case."""
    opened = threading.Event()
    for name in ("import", "slow"):
        jobs.gates[name] = opened
    yield opened
    opened.set()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The scheduler of an application, for what is the same on every database."""
    folder = tmp_path_factory.mktemp("desk")
    config = Configurator(settings={"here": str(folder), "scheduler.timezone": "UTC"})
    config.include("pyramid_durable")
    scheduler = config.make_wsgi_app().registry.scheduler
    yield scheduler
    scheduler.store.dispose()


def add(application: Application, func: Any, **options: Any) -> str:
    """Add a recurring job in a view."""
    options = {"crontab": EVERY_MINUTE, **options}
    id: str = application.request(lambda request: request.scheduler.add_cron_job(func, **options))
    return id


def schedule(application: Application, id: str) -> Any:
    (found,) = [one for one in application.scheduler.get_schedules() if one.id == id]
    return found


def states(done: list[JobInfo]) -> list[str]:
    return [job.state for job in done]


# C1: crontabs.


@pytest.mark.parametrize(
    ("crontab", "expected"),
    [
        ("0,15,30,45 9-17 * * mon-fri", ["05-31 09:00:00", "05-31 09:15:00"]),
        ("30 0 * * * */15", ["05-30 00:30:00", "05-30 00:30:15"]),
        ("*/5 0,3,6,9 * * *", ["05-29 09:00:00", "05-29 09:05:00"]),
        ("0 12 l * *", ["05-31 12:00:00", "06-30 12:00:00"]),
        ("0 12 1-7/3 jun,aug *", ["06-01 12:00:00", "06-04 12:00:00"]),
        ("0 3 * * 0", ["05-30 03:00:00", "06-06 03:00:00"]),
        ("0 3 * * 7", ["05-30 03:00:00", "06-06 03:00:00"]),
        ("0 3 * * sun", ["05-30 03:00:00", "06-06 03:00:00"]),
    ],
)
def test_c1_crontabs(crontab: str, expected: list[str], desk: Any) -> None:
    """Of 2032-05-29, a Saturday."""
    after = datetime(2032, 5, 29, 8, 59, tzinfo=UTC)
    times = desk.next_run_times("cron", 2, after, crontab=crontab)
    assert [time.strftime("%m-%d %H:%M:%S") for time in times] == expected


def test_c1_a_crontab_runs(desk: Any) -> None:
    desk.add_cron_job(jobs.daily_maintenance, crontab="* * * * * */20", iterations=1)
    (job,) = desk.run_due("21s")
    assert (job.state, job.run_at.second % 20) == ("succeeded", 0)


# C2: what can be called, and what cannot.


@pytest.mark.parametrize(
    ("func", "called"),
    [
        (jobs.daily_maintenance, "maintained"),
        (f"{HERE}.daily_maintenance", "maintained"),
        (jobs.Foo.class_method, "of Foo"),
        (f"{HERE}.Foo.class_method", "of Foo"),
        (jobs.Foo.static_method, "static"),
        (f"{HERE}.Foo.static_method", "static"),
    ],
)
def test_c2_callables(desk: Any, func: Any, called: str) -> None:
    desk.add_cron_job(func, crontab=YEARLY, run_immediately=True)
    assert states(desk.run_due()) == ["succeeded"]
    assert jobs.calls == [called]


def foo_with(application: Application, add_method: Callable[[Any, jobs.Foo], str]) -> None:
    def view(request: Any) -> None:
        foo = jobs.Foo(name="test foo")
        request.dbsession.add(foo)
        request.dbsession.flush()
        add_method(request.scheduler, foo)

    application.request(view)


def test_c2_a_method_of_a_model_object(application: Application) -> None:
    """By its primary key, loaded again for each run; an object that is gone is said to be."""
    foo_with(
        application,
        lambda scheduler, foo: scheduler.add_cron_job(foo.instance_method, crontab=EVERY_MINUTE),
    )
    application.request(lambda request: request.dbsession.query(jobs.Foo).update({"name": "new"}))
    assert states(application.run_due(after=61)) == ["succeeded"]
    assert jobs.calls == ["of new"]
    application.request(lambda request: request.dbsession.query(jobs.Foo).delete())
    (job,) = application.run_due(after=121)
    assert job.state == "broken"
    assert f"{HERE}:Foo" in str(job.error)
    assert "does not exist any more" in str(job.error)
    assert jobs.calls == ["of new"]


def test_c2_a_method_by_its_name_and_the_objects_key(application: Application) -> None:
    foo_with(
        application,
        lambda scheduler, foo: scheduler.add_cron_job(
            "instance_method", crontab=EVERY_MINUTE, content_object=foo
        ),
    )
    assert states(application.run_due(after=61)) == ["succeeded"]
    assert jobs.calls == ["of test foo"]
    changed = application.request(
        lambda request: request.dbsession.query(jobs.Foo).filter_by(name="TEST FOO").delete()
    )
    assert changed == 1


@pytest.mark.parametrize(
    ("func", "why"),
    [
        (HERE, "is a module; expected a callable in it"),
        (jobs, "is a module; expected a callable in it"),
        (f"{HERE}.Foo", "is a class; decorate it with @routine"),
        (jobs.Foo, "is a class; decorate it with @routine"),
        (f"{HERE}.Foo.instance_method", "is a method without its object"),
        (jobs.Foo.instance_method, "is a method without its object"),
        (jobs.Plain().method, "bound to a Plain, which a daemon cannot find again"),
        (f"{HERE}.HERE", "has no attribute 'HERE'"),
        (f"{HERE}.calls", "is not callable"),
        (7, "7 is not callable"),
        ("bogus", "there is no module 'bogus'"),
        ("bogus.foo", "there is no module 'bogus'"),
    ],
)
def test_c2_what_cannot_be_called(func: Any, why: str, desk: Any) -> None:
    with pytest.raises(InvalidJob, match=why):
        desk.add_cron_job(func, crontab=EVERY_MINUTE)


# C3: start and end.


def test_c3_it_runs_from_its_start_to_its_end_and_is_retired(application: Application) -> None:
    now = datetime.now(UTC)
    times = {"start_date": now + timedelta(days=1), "end_date": now + timedelta(days=2)}
    id = add(application, jobs.daily_maintenance, **times)
    assert application.run_due(after=DAY - 60) == []
    assert states(application.run_due(after=DAY + 120)) == ["succeeded"]
    assert schedule(application, id).next_run_at is not None
    application.run_due(after=2 * DAY + 120)
    retired = schedule(application, id)
    assert (retired.next_run_at, retired.iterations_left) == (None, None)
    assert application.run_due(after=3 * DAY) == []


def test_c3_the_end_beats_iterations(application: Application) -> None:
    end = datetime.now(UTC) + timedelta(seconds=90)
    id = application.scheduler.add_interval_job(
        jobs.daily_maintenance, minutes=1, iterations=5, end_date=end
    )
    assert states(application.run_due(after=61)) == ["succeeded"]
    assert application.run_due(after=121) == []
    assert application.run_due(after=DAY) == []
    over = schedule(application, id)
    assert (over.next_run_at, over.iterations_left, len(jobs.calls)) == (None, 4, 1)


@on_sqlite
def test_c3_an_interval_that_began_in_the_past_keeps_its_phase(application: Application) -> None:
    start = datetime.now(UTC) - timedelta(days=10, minutes=20)
    id = application.scheduler.add_interval_job(jobs.daily_maintenance, start, hours=1)
    due = start + timedelta(days=10, hours=1)
    assert schedule(application, id).next_run_at == due
    assert application.run_due(after=39 * 60) == []
    assert states(application.run_due(after=41 * 60)) == ["succeeded"]
    assert schedule(application, id).next_run_at == due + timedelta(hours=1)


# C4: iterations, and once.


def test_c4_iterations_count_runs_that_fail_too(application: Application) -> None:
    id = add(application, jobs.failing, iterations=2)
    assert states(application.run_due(after=61)) == ["failed"]
    assert schedule(application, id).iterations_left == 1
    assert states(application.run_due(after=121)) == ["failed"]
    assert application.run_due(after=DAY) == []
    over = schedule(application, id)
    assert (over.iterations_left, over.next_run_at) == (0, None)


def test_c4_a_crash_makes_no_run_more(application: Application) -> None:
    """Iterations are counted in the claim, by whatever daemon, and not when it has run."""
    every = {"seconds": 0.05, "iterations": 3, "coalesce": False, "run_immediately": True}
    id = application.scheduler.add_interval_job(jobs.daily_maintenance, **every)
    store = application.store
    info = DaemonInfo(incarnation="dead", label="d", host="elsewhere", pid=1, queues=("default",))
    with store.begin() as connection:
        store.daemons.register(connection, info)
        look = store.looks.look(connection, ["default"])
        assert len(store.claims.take(connection, "dead", look, 1)) == 1
        long_ago = datetime.now(UTC) - timedelta(minutes=5)
        connection.execute(store.tables.daemon.update().values(heartbeat_at=long_ago))
    assert schedule(application, id).iterations_left == 2
    with application.serving():
        application.until(lambda: len(application.scheduler.get_jobs(state="succeeded")) == 3)
        assert schedule(application, id).next_run_at is None
    assert len(jobs.calls) == len(application.scheduler.get_jobs(state="succeeded")) == 3
    assert application.scheduler.get_jobs(state="scheduled") == []


@on_sqlite
def test_c4_once_now(application: Application) -> None:
    application.request(lambda request: request.scheduler.add_async_job(jobs.failing))
    assert states(application.run_due()) == ["failed"]
    assert application.run_due(after=DAY) == []


@on_sqlite
def test_c4_once_later(application: Application) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    application.scheduler.add_date_job(jobs.daily_maintenance, later)
    assert application.run_due(after=3500) == []
    assert states(application.run_due(after=3700)) == ["succeeded"]
    assert application.run_due(after=DAY) == []


@on_sqlite
def test_c4_a_date_in_the_past_runs_at_once_or_expires(application: Application) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    runs = application.scheduler.add_date_job(jobs.daily_maintenance, past)
    late = application.scheduler.add_date_job(
        jobs.daily_maintenance, past, misfire_grace_time="10m"
    )
    application.run_due()
    assert application.job(runs).state == "succeeded"
    assert application.job(late).state == "expired"
    assert jobs.calls == ["maintained"]


# C5: userdata.


def test_c5_userdata_is_kept_from_run_to_run(application: Application) -> None:
    add(application, jobs.count, userdata={"runs": 0, "label": "mine"})
    done = [application.run_due(after=61 + 60 * run)[0] for run in range(3)]
    assert states(done) == ["succeeded", "failed", "succeeded"]
    assert [job.userdata for job in done] == [{"runs": n, "label": "mine"} for n in (1, 2, 3)]
    assert done[2].result == 3


@on_sqlite
def test_c5_userdata_lasts_from_attempt_to_attempt(application: Application) -> None:
    application.scheduler.add_async_job(
        jobs.count, userdata={"runs": 1}, max_attempts=2, backoff="5s"
    )
    (job,) = application.run_due()
    assert (job.state, job.progress and job.progress.done) == ("scheduled", 2)
    (job,) = application.run_due(after=6)
    assert (job.result, job.userdata, job.attempt) == (3, {"runs": 3}, 2)
    assert job.progress is not None
    assert job.progress.done == 3


@pytest.mark.parametrize("rows", [[], ["a", "b"]], ids=["reading", "writing"])
def test_c5_others_see_what_a_running_job_saves(
    application: Application, gate: threading.Event, rows: list[str]
) -> None:
    """Before it commits, and while they cannot see what it has written to its own tables."""
    if rows and application.store.dialect.local_clock:
        pytest.skip("SQLite has one writer, which is the job itself; others see it at its end")
    id = application.scheduler.add_async_job(jobs.long_import, args=[rows])
    with application.serving():
        application.until(lambda: jobs.calls == ["import"])
        job = application.job(id)
        assert (job.state, job.userdata) == ("running", {"rows": len(rows)})
        assert job.progress is not None
        assert (job.progress.done, job.progress.total, job.progress.message) == (1, 2, "half")
        gate.set()
        assert application.outcome(id).state == "succeeded"
    assert application.job(id).progress == job.progress


# C6: enabled, overlap, at once, label.


def test_c6_enabled_or_not(application: Application) -> None:
    id = add(application, jobs.daily_maintenance)
    assert application.request(lambda request: request.scheduler.pause_job(id))
    assert schedule(application, id).paused
    assert application.run_due(after=61) == []
    assert application.request(lambda request: request.scheduler.resume_job(id))
    assert states(application.run_due(after=121)) == ["succeeded"]


def test_c6_overlap(application: Application, gate: threading.Event) -> None:
    often = {"seconds": 0.05, "args": ["slow"]}
    alone = application.scheduler.add_interval_job(jobs.wait, id="alone", **often)

    def running(id: str) -> int:
        return len(application.scheduler.get_jobs(schedule_id=id, state="running"))

    with application.serving():
        application.until(lambda: running(alone) == 1)
        several = application.scheduler.add_interval_job(jobs.wait, allow_overlap=True, **often)
        application.until(lambda: running(several) == 2)
        # By now the other one has been due several times.
        assert running(alone) == 1
        gate.set()


def test_c6_at_once_or_by_the_schedule(desk: Any) -> None:
    desk.add_cron_job(jobs.daily_maintenance, crontab=YEARLY)
    assert desk.run_due() == []
    desk.add_cron_job(jobs.daily_maintenance, crontab=YEARLY, run_immediately=True)
    assert states(desk.run_due()) == ["succeeded"]
    assert desk.run_due() == []


def test_c6_label(desk: Any) -> None:
    label = "weekday-business-hours-function"
    id = desk.add_cron_job(jobs.daily_maintenance, crontab=YEARLY, name=label)
    assert desk.run_job(id)
    assert [job.name for job in desk.run_due()] == [label]
    assert [one.name for one in desk.get_schedules() if one.id == id] == [label]


def test_c6_pauses_hold_in_every_daemon(make_application: Make) -> None:
    """Of a queue, a job and a schedule, asked for in one process, and for all of them."""
    quick = {"scheduler.threads": "1"}
    first, second = (
        make_application(settings={**quick, "scheduler.id": name}) for name in ("a", "b")
    )
    scheduler = first.scheduler
    paused = [
        scheduler.add_async_job(jobs.meet, args=["queue"], queue="mail"),
        scheduler.add_async_job(jobs.meet, args=["job"]),
        scheduler.add_interval_job(jobs.meet, args=["schedule"], seconds=0.05, iterations=1),
    ]
    for kind in ("queue", "job", "schedule"):
        jobs.meeting[kind] = threading.Barrier(1)
    assert scheduler.pause_queue("mail")
    assert all(scheduler.pause_job(id) for id in paused[1:])
    with first.serving(), second.serving():
        for turn in ("once", "twice"):
            # Each daemon has one thread, so both have looked for work when these are through.
            jobs.meeting[turn] = threading.Barrier(2)
            scheduler.add_jobs([{"func": jobs.meet, "args": [turn]}] * 2)
            first.until(lambda turn=turn: jobs.calls.count(turn) == 2)
        assert set(jobs.calls) == {"once", "twice"}
        jobs.calls.clear()
        assert second.scheduler.resume_queue("mail")
        assert all(second.scheduler.resume_job(id) for id in paused[1:])
        first.until(lambda: sorted(jobs.calls) == ["job", "queue", "schedule"])
        assert scheduler.stats().daemons == 2


# C7: the task reaches the function.


def test_c7_a_function_disables_its_own_task(application: Application) -> None:
    id = add(application, jobs.disable_itself, name="once is enough")
    (job,) = application.run_due(after=61)
    assert (job.state, job.result) == ("succeeded", "once is enough"), job.error
    assert schedule(application, id).paused
    assert application.run_due(after=DAY) == []


# C8: declared, by label.


def test_c8_declared_by_label_and_retired_with_the_declaration(make_application: Make) -> None:
    def declare(config: Any) -> None:
        config.add_cron_job("setup-static-task", f"{HERE}.Foo.static_method", crontab=EVERY_MINUTE)
        config.scan(HERE)

    def names(application: Application) -> set[str]:
        return {one.name for one in application.scheduler.get_schedules() if one.next_run_at}

    first = make_application(configure=declare)
    with first.serving():
        assert names(first) == {"setup-static-task", "Daily data maintenance"}
    first.run_due(after=61)
    assert "static" in jobs.calls
    second = make_application()
    with second.serving():
        second.until(lambda: not names(second))
