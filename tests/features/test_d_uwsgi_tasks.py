"""What uwsgi_tasks could do, row by row: decorated tasks, retries, timers and cron, introspection.

(D10, under a real uWSGI, is tested apart.)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pyramid_durable.exceptions import InvalidJob
from pyramid_durable.records import JobInfo
from pyramid_durable.store import DaemonInfo
from tests.features import uwsgi_jobs as jobs

from .conftest import Application

Make = Callable[..., Application]
UTC = timezone.utc


@pytest.fixture(autouse=True)
def no_calls() -> None:
    jobs.calls.clear()


@pytest.fixture
def scanned(make_application: Make) -> Application:
    """An application that has its schedules from decorators."""
    return make_application(configure=lambda config: config.scan("tests.features.uwsgi_jobs"))


def enqueue(application: Application, ask: Callable[[], str]) -> str:
    """Ask for a job in a view."""
    id: str = application.request(lambda request: ask())
    return id


def the_only(done: list[JobInfo]) -> JobInfo:
    (job,) = done
    return job


# D1: @task with an executor; at once where there is no other.


def test_d1_a_plain_call_stays_a_call_and_enqueue_is_a_daemons(application: Application) -> None:
    jobs.note("called")
    id = enqueue(application, lambda: jobs.note.enqueue("queued"))
    assert (jobs.calls, application.job(id).state) == (["called"], "scheduled")
    with application.serving():
        assert application.outcome(id).state == "succeeded"
    assert jobs.calls == ["called", "queued"]


def test_d1_inline_runs_in_the_calling_process_after_the_commit(application: Application) -> None:
    def view() -> str:
        id = jobs.at_once.enqueue("now")
        assert jobs.calls == []
        return id

    id = enqueue(application, view)
    assert jobs.calls == [("now", "durable-inline")]
    assert application.job(id).state == "succeeded"


def test_d1_auto_runs_at_once_where_there_is_no_daemon(application: Application) -> None:
    id = enqueue(application, lambda: jobs.somewhere.enqueue("here"))
    assert jobs.calls == [("here", "durable")]
    assert application.job(id).state == "succeeded"


def test_d1_auto_is_the_daemons_where_there_is_one(make_application: Make) -> None:
    application = make_application(settings={"scheduler.combined": "true"})
    id = enqueue(application, lambda: jobs.somewhere.enqueue("there"))
    assert application.outcome(id).state == "succeeded"
    assert jobs.calls == [("there", "durable-worker")]


# D2: at, priority, working_dir.


@pytest.mark.parametrize(
    "at",
    [
        lambda: time.time() + 60,
        lambda: datetime.now(UTC) + timedelta(seconds=60),
        lambda: timedelta(seconds=60),
    ],
    ids=["epoch", "datetime", "timedelta"],
)
def test_d2_at(application: Application, at: Callable[[], Any]) -> None:
    enqueue(application, lambda: jobs.note.using(date=at()).enqueue("later"))
    assert application.run_due(after=55) == []
    assert the_only(application.run_due(after=65)).state == "succeeded"


def test_d2_priority_lower_first(application: Application) -> None:
    def view() -> None:
        for priority in (9, 0, 5):
            jobs.note.using(priority=priority).enqueue(priority)

    application.request(lambda request: view())
    application.run_due()
    assert jobs.calls == [0, 5, 9]


def test_d2_working_dir(application: Application, tmp_path: Path) -> None:
    before = Path.cwd()

    def view() -> None:
        jobs.where_am_i.enqueue()
        jobs.where_am_i.using(working_dir=tmp_path).enqueue()
        jobs.at_the_root.enqueue()
        jobs.at_the_root.using(working_dir=None).enqueue()

    application.request(lambda request: view())
    application.run_due()
    assert jobs.calls == [before, tmp_path, Path("/"), before]
    assert Path.cwd() == before


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no directory of their own")
def test_d2_working_dir_on_a_daemons_threads(application: Application, tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(6)]
    for folder in folders:
        folder.mkdir()
        application.scheduler.add_async_job(jobs.where_am_i, working_dir=folder)
    before = Path.cwd()
    with application.serving():
        application.until(lambda: len(jobs.calls) == len(folders))
        plain = application.scheduler.add_async_job(jobs.where_am_i)
        assert application.outcome(plain).state == "succeeded"
    assert sorted(jobs.calls[:-1]) == folders
    assert jobs.calls[-1] == Path.cwd() == before


# D3: return codes, retry_count and retry_timeout, RetryTaskException.


@pytest.mark.parametrize(
    ("code", "state"), [("ok", "succeeded"), ("ignore", "succeeded"), ("retry", "scheduled")]
)
def test_d3_return_codes(application: Application, code: str, state: str) -> None:
    application.scheduler.add_async_job(jobs.spool, args=[code])
    job = the_only(application.run_due())
    assert (job.state, job.attempt, job.result) == (state, 1, None)


def test_d3_retry_count_and_timeout_and_the_last_failure_ends_it(
    application: Application,
) -> None:
    id = enqueue(application, lambda: jobs.spooler_task.enqueue("text"))
    for attempt, due in enumerate((0.0, 6.0, 12.0), 1):
        job = the_only(application.run_due(after=due))
        assert (job.attempt, job.state) == (attempt, "failed" if attempt == 3 else "scheduled")
        assert application.run_due(after=due + 4) == []
    assert len(application.job(id).errors) == 3
    assert application.run_due(after=3600) == []
    assert jobs.calls == ["text"] * 3


def test_d3_retry_raised_with_count_and_timeout(application: Application) -> None:
    application.scheduler.add_async_job(jobs.process_purchase, args=[7])
    assert the_only(application.run_due()).state == "scheduled"
    assert application.run_due(after=9) == []
    job = the_only(application.run_due(after=11))
    assert (job.state, job.result) == ("succeeded", "order 7")


# D4: arguments over 64 KB.


def test_d4_arguments_of_any_size(application: Application) -> None:
    large = "x" * 300_000
    application.scheduler.add_async_job(jobs.note, args=[large])
    application.run_due()
    assert jobs.calls == [large]


def test_d4_up_to_a_clear_limit(make_application: Make) -> None:
    application = make_application(settings={"scheduler.max_args_size": "64KB"})
    with pytest.raises(InvalidJob, match=r"scheduler\.max_args_size \(65,536\)"):
        application.scheduler.add_async_job(jobs.note, args=["x" * 65_536])


# D5: timers.


def test_d5_a_timer_with_iterations_and_a_target(scanned: Application) -> None:
    with scanned.serving():
        scanned.until(lambda: jobs.calls.count("three times") == 3)
        ran = scanned.scheduler.get_jobs(schedule_id="three times")
        assert {job.queue for job in ran} == {"mail"}
        (timer,) = [it for it in scanned.scheduler.get_schedules() if it.id == "three times"]
        assert (timer.iterations_left, timer.next_run_at) == (0, None)
    assert jobs.calls.count("three times") == 3


def test_d5_a_lazy_timer_starts_when_it_is_called(scanned: Application) -> None:
    assert scanned.run_due(after=60) == []
    id = enqueue(scanned, lambda: jobs.after_a_call("called"))
    for after in (6.0, 11.0):
        assert the_only(scanned.run_due(after=after)).queue == "mail"
        assert jobs.calls.pop() == "called"
    assert scanned.run_due(after=16) == []
    assert [one.id for one in scanned.scheduler.get_schedules() if one.next_run_at] == []
    assert id


def test_d5_a_lazy_timer_called_in_a_view_that_fails_does_not_start(scanned: Application) -> None:
    def fails() -> str:
        jobs.after_a_call("never")
        raise LookupError

    with pytest.raises(LookupError):
        enqueue(scanned, fails)
    assert scanned.scheduler.get_schedules() == []


# D6: cron, with uWSGI's numbers.


def test_d6_minus_n_is_every_n(scanned: Application) -> None:
    times = scanned.scheduler.next_run_times(
        "cron", 3, datetime(2030, 5, 1, 12, 1, tzinfo=UTC), minute=-2
    )
    assert [time.strftime("%H:%M:%S") for time in times] == ["12:02:00", "12:04:00", "12:06:00"]


def test_d6_minus_one_is_any(application: Application) -> None:
    noon = datetime(2030, 5, 1, 12, 0, 30, tzinfo=UTC)
    for fields in ({"minute": -1, "hour": -1}, {"minute": -1}, {"crontab": "* * * * *"}):
        times = application.scheduler.next_run_times("cron", 2, noon, **fields)
        assert [time.strftime("%H:%M:%S") for time in times] == ["12:01:00", "12:02:00"]
    times = application.scheduler.next_run_times("cron", 2, noon, hour=3, day=-1)
    assert [time.strftime("%d %H:%M") for time in times] == ["02 03:00", "03 03:00"]


def test_d6_a_decorated_function_is_declared(scanned: Application) -> None:
    with scanned.serving():
        (schedule,) = [
            one for one in scanned.scheduler.get_schedules() if one.id == "every two minutes"
        ]
    assert schedule.trigger["fields"] == {"minute": "*/2"}
    done = scanned.run_due(after=121)
    assert "every two minutes" in jobs.calls
    assert {job.state for job in done} == {"succeeded"}


def test_d6_lazy_cron_starts_when_it_is_called(scanned: Application) -> None:
    enqueue(scanned, lambda: cron_id(jobs.cron_after_a_call("called")))
    (schedule,) = scanned.scheduler.get_schedules()
    assert schedule.queue == "mail"
    times = scanned.scheduler.next_run_times(schedule.id, 4)
    assert {(time.minute, time.second % 20) for time in times} == {(30, 0)}
    scanned.run_due(after=3660)
    assert "called" in jobs.calls


def cron_id(begun: Any) -> str:
    assert isinstance(begun, str), "a lazy function returns the id of its schedule"
    return begun


def test_d6_a_step_that_does_not_exist_is_refused(application: Application) -> None:
    with pytest.raises(InvalidJob, match=r"cron field minute: '\*/90' cannot be read"):
        application.scheduler.add_cron_job(jobs.note, minute=-90)


# D7: the task from inside.


def test_d7_retry_count_and_timeout_changed_from_inside(application: Application) -> None:
    application.scheduler.add_async_job(jobs.never_done, max_attempts=9)
    assert the_only(application.run_due()).max_attempts == 2
    job = the_only(application.run_due(after=11))
    assert (job.state, job.attempt) == ("failed", 2)


def test_d7_the_buffer_lasts_and_the_task_calls_itself_again(application: Application) -> None:
    application.scheduler.add_async_job(jobs.remove_files, args=[["a", "locked", "b"]])
    results = []
    for step in range(4):
        job = the_only(application.run_due(after=step * 31))
        results.append(job.result if job.state == "succeeded" else job.state)
    assert jobs.calls == ["a", "locked", "locked", "b"]
    assert results[1] == "scheduled"
    assert results[-1] == "['a', 'locked', 'b'], errors: locked"
    assert application.run_due(after=3600) == []


# D8: add_setup before the call.


def test_d8_using(application: Application) -> None:
    setup = jobs.note.using(priority=1, name="set up").using(queue="mail", max_attempts=4)
    job = application.job(enqueue(application, lambda: setup.enqueue("w")))
    assert (job.priority, job.name, job.queue, job.max_attempts) == (1, "set up", "mail", 4)
    plain = application.job(enqueue(application, lambda: jobs.note.enqueue("w")))
    assert (plain.priority, plain.queue, plain.max_attempts) == (5, "default", 1)


# D9: crashes, restarts, other hosts.


def test_d9_a_task_outlives_the_process_that_asked_for_it(make_application: Make) -> None:
    first = make_application()
    id = enqueue(first, lambda: jobs.note.enqueue("kept"))
    first.scheduler.store.dispose()
    second = make_application()
    assert the_only(second.run_due()).id == id
    assert jobs.calls == ["kept"]


def test_d9_a_task_outlives_the_daemon_that_ran_it(make_application: Make) -> None:
    application = make_application()
    id = enqueue(application, lambda: jobs.note.enqueue("rescued"))
    store = application.store
    info = DaemonInfo(incarnation="dead", label="d", host="elsewhere", pid=1, queues=("default",))
    with store.begin() as connection:
        store.daemons.register(connection, info)
        look = store.looks.look(connection, ["default"])
        assert len(store.claims.take(connection, "dead", look, 1)) == 1
        long_ago = datetime.now(UTC) - timedelta(minutes=5)
        connection.execute(store.tables.daemon.update().values(heartbeat_at=long_ago))
    assert application.job(id).state == "running"
    with application.serving():
        job = application.outcome(id)
    assert (job.state, job.attempt, jobs.calls) == ("succeeded", 1, ["rescued"])


# D11: functions in __main__, and moved ones.

MAIN = """
import sys
from pyramid.config import Configurator
from pyramid_durable import job
from pyramid_durable.exceptions import InvalidJob

@job
def here():
    pass

settings = {"here": sys.argv[1]}
with Configurator(settings=settings) as config:
    config.include("pyramid_durable")
config.begin()
for ask in (here.enqueue, lambda: config.registry.scheduler.add_async_job(here)):
    try:
        ask()
    except InvalidJob as error:
        print(error)
"""


def test_d11_a_function_in_main_is_refused_clearly(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(MAIN)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    refusal = (
        "__main__:here is in the program that was started, which the daemon does not import; "
        "move it into a module"
    )
    assert done.stdout.splitlines() == [refusal] * 2


def test_d11_what_no_daemon_can_find_is_refused(application: Application) -> None:
    def inner() -> None:
        """Nobody else can import it."""

    for func, why in ((inner, "defined inside of a function"), (lambda: None, "is a lambda")):
        with pytest.raises(InvalidJob, match=why):
            application.scheduler.add_async_job(func)


def test_d11_a_moved_function_is_found_by_its_alias(make_application: Make) -> None:
    def configure(config: Any) -> None:
        config.add_job_alias("old.place:before", jobs.renamed)

    application = make_application(configure=configure)
    id = application.scheduler.add_async_job(jobs.renamed)
    with application.store.begin() as connection:
        table = application.store.tables.job
        connection.execute(table.update().values(func="old.place:before"))
    application.run_due()
    assert (application.job(id).state, jobs.calls) == ("succeeded", ["renamed"])
