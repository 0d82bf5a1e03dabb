"""Claiming jobs by their ids, holding them back from daemons, and who serves a queue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from pyramid_durable.records import JobSpec
from pyramid_durable.store import DaemonInfo, Store

from .conftest import register

Make = Callable[..., JobSpec]


def add(store: Store, *specs: JobSpec) -> None:
    with store.begin() as connection:
        store.jobs.add(connection, specs)


def take(store: Store, owner: str, *ids: str) -> list[str]:
    with store.begin() as connection:
        return [claim.id for claim in store.claims.take_named(connection, owner, ids)]


def test_named_jobs_are_claimed_due_or_not_in_the_order_of_the_names(
    store: Store, spec: Make
) -> None:
    register(store, "me")
    register(store, "other")
    add(store, spec(id="a"), spec(id="b", delay=60.0), spec(id="c", priority=0), spec(id="d"))
    add(store, spec(id="e", queue="mail"), spec(id="f"))
    assert take(store, "other", "d") == ["d"]
    with store.begin() as connection:
        assert store.jobs.cancel(connection, "f")
        connection.execute(store.tables.queue.insert().values(name="mail", paused=True))
    assert take(store, "me", "c", "b", "d", "e", "f", "unknown", "a") == ["c", "b", "a"]
    assert take(store, "me", "c", "b", "a") == []
    with store.read() as connection:
        job = store.jobs.get(connection, "b")
    assert job is not None
    assert (job.state, job.owner, job.claim_no, job.due_at) == ("running", "me", 1, None)


def test_a_job_that_is_held_keeps_its_time(store: Store, spec: Make) -> None:
    add(store, spec(id="a"), spec(id="b"))
    with store.begin() as connection:
        store.jobs.hold(connection, ["a"], 30.0)
        look = store.looks.look(connection, ["default"])
        now = store.now(connection)
        held, free = (store.jobs.get(connection, id) for id in "ab")
    assert held is not None
    assert free is not None
    assert free.due_at == free.run_at
    assert held.due_at is not None
    assert held.run_at <= now < held.due_at <= now + timedelta(seconds=30)
    assert look.due == (("default", 5),)
    assert look.next_at is None or look.next_at > now


def test_who_serves_a_queue(store: Store) -> None:
    with store.begin() as connection:
        info = DaemonInfo(incarnation="a", label="a", host="h", pid=1, queues=("mail", "default"))
        store.daemons.register(connection, info)
        inline = DaemonInfo(incarnation="b", label="b", host="h", pid=1, queues=())
        store.daemons.register(connection, inline)
        assert store.daemons.serves(connection, "mail", lease=15)
        assert not store.daemons.serves(connection, "mai", lease=15)
        assert not store.daemons.serves(connection, "mail", lease=-5)
