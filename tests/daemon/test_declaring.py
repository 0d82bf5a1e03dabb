"""Which daemon's declared schedules stand, while old and new ones are at work."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from pyramid_durable.daemon import Daemon
from pyramid_durable.declaring import Declaring
from pyramid_durable.exceptions import InvalidJob
from pyramid_durable.store import DaemonInfo

from . import jobs
from .fakes import Clock, eventually

LEASE = 15.0


class Deployment:
    """One version of an application, as far as its declared schedules go."""

    def __init__(self, store, scheduler, clock):
        self.store = store
        self.clock = clock
        self.scheduler = scheduler

    def start(self, incarnation):
        """Start a daemon of it; returns what asks again at each heartbeat."""
        declaring = Declaring(self.store, self.scheduler.declared_at, lease=LEASE, clock=self.clock)
        info = DaemonInfo(
            incarnation=incarnation,
            label=incarnation,
            host="h",
            pid=1,
            queues=("default",),
            declares=declaring.digest,
        )
        with self.store.begin() as connection:
            self.store.daemons.register(connection, info)
        declaring.settle()
        return declaring


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def version(bench, clock):
    def make(name, **schedule):
        def configure(config):
            config.add_interval_job(name, jobs.nothing, minutes=10, **schedule)

        one = bench(configure=configure)
        return Deployment(one.store, one.scheduler, clock)

    return make


def leave(store, incarnation):
    with store.begin() as connection:
        store.daemons.leave(connection, incarnation)


def ids(store):
    with store.read() as connection:
        return [one.id for one in store.schedules.list(connection)]


def test_one_that_is_behind_takes_over_when_no_newer_one_has_lived_for_a_lease(
    version, store, clock, caplog
):
    old, new = version("old"), version("new")
    before = old.start("old 1")
    new.start("new 1")
    behind = old.start("old 2")
    assert caplog.records[-1].action == "generation_behind"
    clock.now += 10 * LEASE
    behind.ask_again()
    leave(store, "new 1")
    behind.ask_again()
    clock.now += LEASE - 1
    # Within the lease the new version is only restarted.
    behind.ask_again()
    new.start("new 2")
    clock.now += LEASE
    behind.ask_again()
    assert ids(store) == ["new"]
    leave(store, "new 2")
    clock.now += LEASE - 1
    behind.ask_again()
    assert ids(store) == ["new"]
    clock.now += 1
    before.ask_again()
    assert ids(store) == ["new"], "what was there before the new version is to be replaced"
    behind.ask_again()
    assert ids(store) == ["old"]
    # And now it asks no more.
    with store.begin() as connection:
        connection.execute(store.tables.generation.delete())
    behind.ask_again()


def test_a_rollback_stands_at_the_start_where_no_newer_daemon_lives(version, store):
    old, new = version("old"), version("new")
    old.start("old 1")
    new.start("new 1")
    leave(store, "new 1")
    old.start("old 2")
    assert ids(store) == ["old"]


def test_next_run_times_survive_restarts_and_relative_dates(version, store):
    one = version("often", start_date="1h", end_date="30d", userdata={"n": 1})
    one.start("first")
    with store.read() as connection:
        before = store.schedules.get(connection, "often")
    again = version("often", start_date="1h", end_date="30d", userdata={"n": 1})
    again.start("second")
    with store.read() as connection:
        assert store.schedules.get(connection, "often") == before
    changed = version("often", start_date="2h", end_date="30d", userdata={"n": 1})
    changed.start("third")
    with store.read() as connection:
        after = store.schedules.get(connection, "often")
    assert (after.next_run_at - before.next_run_at).total_seconds() == pytest.approx(3600, abs=60)


def test_a_declaration_that_cannot_be_used_starts_no_daemon(bench):
    one = bench(configure=lambda config: config.add_interval_job("a", jobs.nothing, minutes=1))
    one.scheduler.declare("interval", one.scheduler._declarations[0][1], None, {"minutes": -1})
    with pytest.raises(InvalidJob):
        Daemon(one.scheduler.registry).start()
    with one.store.read() as connection:
        assert [daemon.label for daemon in one.store.daemons.list(connection)] == ["here"]


def test_a_daemon_asks_again_at_its_heartbeats(version, store):
    fast = {"scheduler.heartbeat": "0.1s", "scheduler.lease": "0.5s"}
    old, new = version("old"), version("new")
    old.start("old 1")
    new.start("new 1")

    def last_beat(hours):
        row = store.tables.daemon
        with store.begin() as connection:
            moment = store.now(connection) + timedelta(hours=hours)
            last = update(row).where(row.c.incarnation == "new 1").values(heartbeat_at=moment)
            connection.execute(last)

    last_beat(+1)
    old.scheduler.registry.settings.update(fast)
    old.scheduler._forget()
    daemon = Daemon(old.scheduler.registry)
    daemon.start()
    try:
        assert ids(store) == ["new"]
        last_beat(-1)
        eventually(lambda: ids(store) == ["old"], timeout=20)
    finally:
        daemon.stop(5)
