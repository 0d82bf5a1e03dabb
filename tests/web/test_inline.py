"""executor="inline" and "auto": who runs the job, when, and what if the caller does not live."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import transaction
from pyramid.request import Request

from pyramid_durable.events import JobSucceeded
from pyramid_durable.exceptions import InvalidJob, InvalidSetting, StoreUnavailable
from pyramid_durable.interfaces import IRunInline
from pyramid_durable.outbox import HEAD_START
from pyramid_durable.records import JobInfo
from pyramid_durable.settings import read_settings
from pyramid_durable.store import DaemonInfo, Store
from pyramid_durable.store.daemons import Daemons
from tests.daemon.story import Story
from tests.web import inline_jobs as jobs
from tests.web.site import Rental, Site

MakeSite = Callable[..., Site]


@pytest.fixture(autouse=True)
def no_calls() -> None:
    jobs.calls.clear()


def the_job(site: Site) -> JobInfo:
    (job,) = site.scheduler.get_jobs()
    return job


def daemons(site: Site) -> list[DaemonInfo]:
    with site.store.read() as connection:
        return site.store.daemons.list(connection)


def test_it_has_run_when_the_request_is_over(site: MakeSite) -> None:
    one = site()

    def rent(request: Any) -> None:
        request.dbsession.add(Rental(ski="blue"))
        jobs.look.enqueue("blue")
        assert jobs.calls == []

    one.get(rent)
    assert jobs.calls == [{"seen": 1, "thread": "durable-inline", "manager": True}]
    job = the_job(one)
    assert (job.state, job.result, job.attempt) == ("succeeded", "blue", 1)
    assert job.started_at is not None
    assert job.run_at is not None
    assert job.created_at <= job.started_at
    assert one.rentals() == 2
    # No daemon is woken for it, and none is left.
    assert (one.announced, daemons(one)) == ([], [])


@pytest.mark.parametrize("kind", [{"where": "other"}, {"tm": None, "session": None}])
def test_also_where_the_store_is_another_database_or_outside_of_a_transaction(
    site: MakeSite, kind: dict[str, Any]
) -> None:
    one = site(**kind)
    one.get(lambda request: request.scheduler.add_async_job(jobs.note, args=[1]))
    assert (jobs.calls, the_job(one).state) == ([1], "succeeded")


def test_with_a_session_that_commits_by_itself(site: MakeSite) -> None:
    one = site(tm=None, session="plain")

    def rent(request: Any) -> None:
        request.dbsession.add(Rental(ski="blue"))
        request.dbsession.flush()
        request.scheduler.add_async_job(jobs.look, args=["blue"])
        assert jobs.calls == []
        request.dbsession.commit()
        assert jobs.calls[0]["seen"] == 1
        request.dbsession.add(Rental(ski="red"))
        request.dbsession.flush()
        request.scheduler.add_async_job(jobs.note, args=["gone"])
        request.dbsession.rollback()

    one.get(rent)
    assert len(jobs.calls) == 1


def test_a_call_outside_of_a_transaction_returns_when_it_has_ended(site: MakeSite) -> None:
    one = site()
    id = one.scheduler.add_async_job(jobs.note, args=["here"])
    assert jobs.calls == ["here"]
    job = one.scheduler.get_job(id)
    assert job is not None
    assert job.state == "succeeded"


def test_a_view_that_fails_runs_nothing(site: MakeSite) -> None:
    one = site()

    def fails(request: Any) -> None:
        jobs.note.enqueue("never")
        raise LookupError

    with pytest.raises(LookupError):
        one.get(fails)
    assert (jobs.calls, one.jobs()) == ([], [])


def test_what_is_rolled_back_to_a_savepoint_or_cancelled_does_not_run(site: MakeSite) -> None:
    one = site(where="other")

    def body(request: Any) -> None:
        jobs.note.enqueue(1)
        if one.store.dialect.skip_locked:
            savepoint = request.tm.savepoint()
            jobs.note.enqueue(2)
            savepoint.rollback()
        cancelled = jobs.note.enqueue(3)
        assert request.scheduler.cancel_job(cancelled)
        jobs.note.enqueue(4)

    one.get(body)
    assert jobs.calls == [1, 4]


def test_many_at_once_run_in_their_order(site: MakeSite) -> None:
    one = site()
    specs = [{"func": jobs.note, "args": [n], "id": f"{9 - n}"} for n in range(5)]
    one.get(lambda request: request.scheduler.add_jobs([*specs, {"func": jobs.ask_for_another}]))
    assert jobs.calls == [0, 1, 2, 3, 4]
    states = {job.func.partition(":")[2]: job.state for job in one.scheduler.get_jobs()}
    assert states == {"note": "succeeded", "ask_for_another": "scheduled"}


def test_its_events_are_told_here_before_the_request_is_over(site: MakeSite) -> None:
    one, story = site(), Story()
    one.scheduler.add_listener(story)
    one.get(lambda request: request.scheduler.add_async_job(jobs.note, args=[1]))
    assert list(story.words.values()) == ["CSs"]
    assert story.of(JobSucceeded)[0].job.id == the_job(one).id


def test_a_failure_is_kept_with_the_job_and_spares_the_request(site: MakeSite) -> None:
    one = site()
    one.get(lambda request: jobs.fail.enqueue() and None)
    job = the_job(one)
    assert job.state == "failed"
    assert "ValueError: the job fails" in (job.error or "")
    assert one.rentals() == 0


def test_a_later_attempt_is_a_daemons(site: MakeSite) -> None:
    one = site()
    jobs_before = one.scheduler.add_async_job(jobs.try_again)
    assert (jobs.calls, the_job(one).state) == ([1], "scheduled")
    assert [job.id for job in one.scheduler.run_due()] == [jobs_before]
    assert (jobs.calls, the_job(one).state) == ([1, 2], "succeeded")


def test_at_a_later_time_it_is_a_daemons_and_so_are_schedules(site: MakeSite) -> None:
    one = site()
    one.scheduler.add_date_job(jobs.note, "2020-01-01", args=["date"])
    one.scheduler.add_interval_job(jobs.note, minutes=10, run_immediately=True, args=["schedule"])
    assert jobs.calls == []
    one.scheduler.run_due()
    assert sorted(jobs.calls) == ["date", "schedule"]


def test_jobs_that_ask_for_jobs(site: MakeSite) -> None:
    one = site()
    one.scheduler.add_async_job(jobs.ask_for_another)
    one.scheduler.run_due()
    assert jobs.calls == ["asked", True]
    jobs.calls.clear()
    one.scheduler.add_async_job(jobs.chain, args=[3])
    assert [left for left, _ in jobs.calls] == [3, 2, 1, 0]
    assert len({thread for _, thread in jobs.calls}) == 1


def test_a_coroutine_runs_also_where_a_loop_is_running(site: MakeSite) -> None:
    one = site()

    async def ask() -> str:
        return one.scheduler.add_async_job(jobs.later)

    asyncio.run(ask())
    assert the_job(one).result == "later"


def test_a_paused_queue_keeps_it_waiting(site: MakeSite) -> None:
    one = site()
    with one.store.begin() as connection:
        connection.execute(one.store.tables.queue.insert().values(name="mail", paused=True))
    one.scheduler.add_async_job(jobs.note, args=[1], queue="mail")
    assert (jobs.calls, the_job(one).state) == ([], "scheduled")


def test_a_caller_that_dies_after_its_commit_leaves_it_to_a_daemon(site: MakeSite) -> None:
    one = site()
    one.scheduler.registry.registerUtility(lambda registry, ids: None, IRunInline)
    one.get(lambda request: jobs.note.enqueue("rescued") and None)
    # Daemons give the caller a head start ...
    assert one.scheduler.run_due() == []
    # ... and no more.
    after = datetime.now(timezone.utc) + timedelta(seconds=HEAD_START + 1)
    assert [job.state for job in one.scheduler.run_due(now=after)] == ["succeeded"]
    assert jobs.calls == ["rescued"]


DYING = """
import sys
from pathlib import Path
from pyramid_durable.store import Store
from tests.web.inline_jobs import die
from tests.web.site import make_site

url, prefix, path = sys.argv[1:]
site = make_site(store=Store(url, prefix=prefix), app_url=url)
site.get(lambda request: die.enqueue(path))
"""


def test_a_caller_that_dies_of_it_leaves_it_to_a_daemon(site: MakeSite, tmp_path: Path) -> None:
    quick = {"heartbeat": "0.1s", "lease": "0.5s", "poll_interval": "0.05s"}
    one = site(settings={f"scheduler.{name}": value for name, value in quick.items()})
    url = one.store.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", DYING, url, one.store.prefix, str(tmp_path / "died")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run(command, env=environ, timeout=60, check=False).returncode == 9
    assert the_job(one).state == "running"
    one.scheduler.start()
    end = time.monotonic() + 20
    while the_job(one).state != "succeeded" and time.monotonic() < end:
        time.sleep(0.02)
    assert (the_job(one).state, jobs.calls) == ("succeeded", ["after the death"])
    assert the_job(one).attempt == 1


def test_a_store_that_goes_away_after_the_commit_fails_no_request(
    site: MakeSite, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any) -> None:
        raise StoreUnavailable("the store is away")

    one = site()
    monkeypatch.setattr(Daemons, "register", away)
    one.get(lambda request: jobs.note.enqueue(1) and None)
    assert (jobs.calls, the_job(one).state) == ([], "scheduled")
    assert "inline_left_to_daemon" in [getattr(r, "action", None) for r in caplog.records]


def test_the_setting_is_the_default_of_all_jobs(site: MakeSite) -> None:
    one = site(settings={"scheduler.executor": "inline"})
    one.scheduler.add_async_job("tests.web.jobs:charge", args=[1])
    assert the_job(one).state == "succeeded"
    one.scheduler.add_async_job("tests.web.jobs:charge", args=[2], executor="thread")
    assert [job.state for job in one.scheduler.get_jobs()] == ["scheduled", "succeeded"]


def test_auto_is_inline_where_no_daemon_is(site: MakeSite) -> None:
    one = site()  # its broker is memory://: nobody else hears it
    one.get(lambda request: jobs.note_auto.enqueue(1) and None)
    assert (jobs.calls, the_job(one).state) == ([1], "succeeded")


def test_auto_is_a_daemons_where_one_serves_the_queue(site: MakeSite, store: Store) -> None:
    one = site()
    info = DaemonInfo(incarnation="a", label="a", host="h", pid=1, queues=("mail",))
    with store.begin() as connection:
        store.daemons.register(connection, info)
    one.scheduler.add_async_job(jobs.note_auto, args=["default"])
    one.scheduler.add_async_job(jobs.note_auto, args=["mail"], queue="mail")
    assert jobs.calls == ["default"]
    assert [job.state for job in one.scheduler.get_jobs(queue="mail")] == ["scheduled"]
    with store.begin() as connection:
        table = store.tables.daemon
        long_ago = datetime.now(timezone.utc) - timedelta(minutes=5)
        connection.execute(table.update().values(heartbeat_at=long_ago))
    one.scheduler.add_async_job(jobs.note_auto, args=["mail"], queue="mail")
    assert jobs.calls == ["default", "mail"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"scheduler.broker.url": "memory://"}, False),
        ({"scheduler.combined": "true"}, True),
        ({"scheduler.broker.url": "redis://localhost/0"}, True),
        ({"sqlalchemy.url": "postgresql://h/d", "scheduler.broker.url": "amqp://h//"}, True),
        ({"sqlalchemy.url": "postgresql://h/d", "scheduler.combined": "true"}, True),
    ],
)
def test_where_the_settings_name_a_daemon(settings: dict[str, str], expected: bool) -> None:
    assert read_settings(settings).daemon_expected is expected


def test_auto_is_a_daemons_where_the_settings_name_one(site: MakeSite) -> None:
    one = site(settings={"scheduler.combined": "true"})
    one.scheduler.add_async_job(jobs.note_auto, args=[1])
    assert (jobs.calls, the_job(one).state) == ([], "scheduled")
    assert one.announced == [(frozenset({"default"}), 1)]


BROKER = {
    "scheduler.producer": "broker",
    "scheduler.broker.url": "redis://127.0.0.1:9/0",
    "scheduler.secret": "s",
    "scheduler.broker.deadline": "0.1s",
}


def test_inline_does_not_go_with_a_web_process_that_does_not_reach_the_store(
    site: MakeSite,
) -> None:
    one = site(settings=BROKER)
    with pytest.raises(InvalidJob, match=r"note: executor='inline' needs the store"):
        one.scheduler.add_async_job(jobs.note, args=[1])
    with pytest.raises(InvalidSetting, match=r"scheduler\.executor = inline does not go with"):
        read_settings({**BROKER, "scheduler.executor": "inline"})


def test_the_thread_of_the_caller_is_as_it_was(site: MakeSite) -> None:
    one = site()
    request = Request.blank("/")
    before = transaction.manager.manager
    one.scheduler.add_async_job(jobs.note, args=[1])
    assert transaction.manager.manager is before
    assert request.environ.get("tm.active") is None
    assert one.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
