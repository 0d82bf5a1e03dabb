"""Housekeeping in a daemon: what it removes, what it calls, and that it disturbs nothing."""

import threading
import time

import pytest
import transaction
from sqlalchemy import delete

from pyramid_durable.daemon import Daemon
from pyramid_durable.events import JobRemoved
from pyramid_durable.exceptions import InvalidSetting
from pyramid_durable.housekeeping import Housekeeper
from pyramid_durable.store.retention import TURN
from pyramid_durable.telling import Telling
from tests.store.test_retention import put

from . import jobs
from .fakes import eventually
from .story import Story

NOW = {"scheduler.retention": "0s"}


def append(name):
    return {**NOW, "scheduler.housekeeping.append": f"tests.daemon.jobs.{name}"}


@pytest.fixture
def house(bench):
    def make(settings=NOW, **options):
        one = bench(settings=settings, **options)
        return one, Housekeeper(one.scheduler.registry)

    return make


@pytest.fixture
def no_turn_yet(store):
    with store.begin() as connection:
        connection.execute(delete(store.tables.meta).where(store.tables.meta.c.name == TURN))


def old_job(one, days=8.0, **options):
    return put(one.store, one.scheduler.specs.async_job(call(**options)), "succeeded", days=days)


def call(**options):
    from pyramid_durable.calls import Call

    return Call("add_async_job", jobs.nothing, None, None, None, options)


def test_it_removes_what_ended_longer_ago_than_retention(house):
    one, keeper = house({"scheduler.retention": "7d"})
    old_job(one)
    old_job(one, days=6, id="young")
    assert keeper.keep_house() == 1
    assert one.job.id == "young"


def test_what_it_removes_is_told(house):
    one, _ = house()
    story = Story()
    telling = Telling(one.scheduler.listeners)
    keeper = Housekeeper(one.scheduler.registry, telling)
    old_job(one, id="silent")
    keeper.keep_house()
    one.scheduler.add_listener(story, JobRemoved)
    old_job(one, id="old", group="g")
    keeper.keep_house()
    assert telling.stop(5)
    (event,) = story.events
    assert (event.job.id, event.job.group, event.job.func) == (
        "old",
        "g",
        "tests.daemon.jobs:nothing",
    )


def test_retention_may_be_none(house):
    one, keeper = house({"scheduler.retention": "none"})
    old_job(one, days=1000)
    assert keeper.keep_house() == 0
    assert len(one.site.jobs()) == 1


@pytest.mark.parametrize("where", ["same", "other"])
@pytest.mark.parametrize("session", ["zope", "plain"])
@pytest.mark.parametrize("name", ["tidy", "tidy_with_request", "tidy_later", "tidy_and_commit"])
def test_what_is_appended_has_a_request_and_a_transaction(house, where, session, name):
    if name == "tidy_and_commit" and session == "plain":
        pytest.skip("a session that takes no part in the transaction is not committed by it")
    before = transaction.manager.manager
    one, keeper = house(append(name), where=where, session=session)
    keeper.keep_house()
    assert jobs.calls == [("tidy", True, True)]
    assert one.rentals() == 1
    assert one.job.id == "from tidy"
    assert transaction.manager.manager is before


@pytest.mark.parametrize("where", ["same", "other"])
@pytest.mark.parametrize("name", ["tidy_and_fail", "tidy_and_exit"])
def test_an_error_in_it_is_logged_and_undone(house, where, name, caplog):
    one, keeper = house(append(name), where=where)
    old_job(one, id="old")
    assert keeper.keep_house() == 1
    assert (one.rentals(), one.site.jobs()) == (0, [])
    record = next(one for one in caplog.records if one.levelname == "ERROR")
    assert record.action == "housekeeping_failed"
    assert "tidied" in caplog.text or "SystemExit" in caplog.text


def test_what_is_appended_is_called_also_where_nothing_can_be_removed(house, monkeypatch, caplog):
    one, keeper = house(append("tidy"))
    monkeypatch.setattr(one.scheduler.store, "retention", None)
    assert keeper.keep_house() == 0
    assert jobs.calls == [("tidy", True, True)]
    assert "removing what is old failed" in caplog.text


def test_a_name_that_leads_nowhere_is_an_error(bench):
    one = bench()
    one.scheduler.registry.settings["scheduler.housekeeping.append"] = "tests.daemon.jobs.nope"
    one.scheduler._forget()
    with pytest.raises(InvalidSetting, match=r"housekeeping\.append.*nope"):
        Housekeeper(one.scheduler.registry)


FAST = {
    "scheduler.housekeeping": "0.3s",
    "scheduler.poll_interval": "0.2s",
    "scheduler.housekeeping.append": "tests.daemon.test_housekeeping.note_time",
}
times: list[float] = []
gate = threading.Event()


def note_time():
    times.append(time.monotonic())
    gate.wait(10)


def test_of_many_daemons_one_keeps_house_at_a_time_and_they_stop(bench, no_turn_yet):
    times.clear()
    gate.set()
    one = bench(settings={**NOW, **FAST})
    daemons = [Daemon(one.scheduler.registry) for _ in range(3)]
    began = time.monotonic()
    for daemon in daemons:
        daemon.start()
    try:
        job = old_job(one, days=0.001)
        eventually(lambda: len(times) >= 4, timeout=20)
        with one.store.read() as connection:
            assert one.store.jobs.get(connection, job) is None
    finally:
        for daemon in daemons:
            daemon.stop(5)
    calls, passed = len(times), time.monotonic() - began
    assert calls <= passed / 0.3
    assert not [t for t in threading.enumerate() if t.name == "durable-housekeeping"]


def test_what_is_appended_delays_neither_jobs_nor_heartbeats(bench, no_turn_yet):
    times.clear()
    gate.clear()
    quick = {"scheduler.heartbeat": "0.1s", "scheduler.lease": "3s"}
    one = bench(settings={**NOW, **FAST, **quick, "scheduler.retention": "1d"})
    daemon = Daemon(one.scheduler.registry)
    daemon.start()
    try:
        eventually(lambda: times, timeout=20)

        def beat():
            with one.store.read() as connection:
                found = one.store.daemons.list(connection)
            return max(each.heartbeat_at for each in found)

        first = beat()
        id = one.scheduler.add_async_job(jobs.nothing)
        eventually(lambda: one.scheduler.get_job(id).state == "succeeded", timeout=20)
        eventually(lambda: beat() > first, timeout=20)
        assert len(times) == 1
    finally:
        gate.set()
        daemon.stop(5)
