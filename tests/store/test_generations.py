"""Declared schedules: brought in line by what changed, and never by an older deployment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Row, func, select, update

from pyramid_durable.fingerprints import generation_of
from pyramid_durable.records import JobSpec, ScheduleSpec
from pyramid_durable.store import Standing, Store

from .conftest import register
from .test_conformance import every

Make = Callable[..., JobSpec]
AT = datetime(2030, 1, 1, tzinfo=timezone.utc)
MOVED = AT + timedelta(days=9)
LEASE = 15.0


@pytest.fixture
def declared(spec: Make) -> Callable[..., ScheduleSpec]:
    def make(id: str, job: dict[str, Any] | None = None, **changes: Any) -> ScheduleSpec:
        values: dict[str, Any] = {
            "kind": "interval",
            "trigger": every(60.0, AT),
            "next_run_at": AT,
            "timezone": "UTC",
        }
        pattern = spec(id=id, kind="interval", schedule_id=id, **(job or {}))
        return ScheduleSpec(id=id, job=pattern, declared=True, **{**values, **changes})

    return make


def settle(store: Store, *specs: ScheduleSpec) -> Standing:
    with store.begin() as connection:
        return store.generations.settle(connection, specs, lease=LEASE)


def start(store: Store, incarnation: str, *specs: ScheduleSpec) -> Standing:
    """As a daemon starts: registered before it settles."""
    register(store, incarnation, generation_of(specs))
    return settle(store, *specs)


def leave(store: Store, incarnation: str) -> None:
    with store.begin() as connection:
        store.daemons.leave(connection, incarnation)


def row(store: Store, id: str) -> Row[Any]:
    table = store.tables.schedule
    with store.read() as connection:
        return connection.execute(select(table).where(table.c.id == id)).one()


def change(store: Store, id: str, **values: Any) -> None:
    """As a schedule's running does."""
    table = store.tables.schedule
    with store.begin() as connection:
        connection.execute(update(table).where(table.c.id == id).values(values))


def ids(store: Store) -> list[str]:
    with store.read() as connection:
        return [one.id for one in store.schedules.list(connection)]


RUN: dict[str, Any] = {
    "next_run_at": MOVED,
    "due_at": MOVED,
    "last_run_at": AT,
    "iterations_left": 2,
    "userdata": '{"seen":7}',
    "account_id": "open",
}
"""What the running of a schedule has changed."""


def test_schedules_are_added_kept_and_retired(
    store: Store, declared: Callable[..., ScheduleSpec]
) -> None:
    with store.begin() as connection:
        store.schedules.add(connection, [replace(declared("by hand"), declared=False)])
    settle(store, declared("kept", iterations=3), declared("gone"))
    assert ids(store) == ["by hand", "gone", "kept"]
    change(store, "kept", **RUN)
    before = row(store, "kept")
    settle(store, declared("kept", iterations=3))
    assert ids(store) == ["by hand", "kept"]
    after = row(store, "kept")
    assert after._mapping.items() - before._mapping.items() == {("generation", 2)}


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "work": ({"job": {"priority": 1, "queue": "mail"}}, {"priority": 1, "queue": "mail"}),
    "options": ({"max_instances": 4}, {"max_instances": 4}),
    "iterations": ({"iterations": 5}, {"iterations_left": 5}),
    "no iterations": ({"iterations": None}, {"iterations_left": None}),
    "userdata": ({"job": {"userdata": '{"seen":0}'}}, {"userdata": '{"seen":0}'}),
    "trigger": (
        {"trigger": every(5.0, AT), "next_run_at": AT},
        {"next_run_at": AT, "due_at": AT},
    ),
    "end": (
        {"trigger": every(60.0, AT) | {"end_date": "2040"}, "end_date": MOVED, "next_run_at": AT},
        {"end_date": MOVED, "next_run_at": AT, "due_at": AT},
    ),
    "start": (
        {"trigger": every(60.0, MOVED), "start_date": MOVED, "next_run_at": MOVED},
        {"start_date": MOVED, "next_run_at": MOVED, "due_at": MOVED},
    ),
    "ended": (
        {"trigger": every(60.0, AT) | {"end_date": "2020"}, "next_run_at": None},
        {"next_run_at": None, "due_at": None},
    ),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_a_change_is_taken_over_and_nothing_else(
    store: Store, declared: Callable[..., ScheduleSpec], changed: str
) -> None:
    changes, expected = CHANGES[changed]
    settle(store, declared("s", iterations=3))
    change(store, "s", **RUN)
    before = dict(row(store, "s")._mapping)
    settle(store, declared("s", **{"iterations": 3, **changes}))
    after = dict(row(store, "s")._mapping)
    assert {name: after[name] for name in expected} == expected
    others = {name for name in RUN if after[name] != before[name]}
    assert others <= set(expected)
    assert after["declaration"] != before["declaration"]


def test_times_that_count_from_the_start_are_compared_by_their_words(
    store: Store, declared: Callable[..., ScheduleSpec]
) -> None:
    settle(store, declared("s", times="in 5 days"))
    later = {"trigger": every(60.0, MOVED), "start_date": MOVED, "next_run_at": MOVED}
    assert settle(store, declared("s", times="in 5 days", **later)).number == 1
    assert row(store, "s").next_run_at == AT
    assert settle(store, declared("s", times="in 6 days", **later)).number == 2
    assert row(store, "s").next_run_at == MOVED


def test_one_that_has_ended_begins_again_when_its_iterations_change(
    store: Store, declared: Callable[..., ScheduleSpec]
) -> None:
    settle(store, declared("s", iterations=3))
    change(store, "s", next_run_at=None, due_at=None, iterations_left=0)
    settle(store, declared("s", iterations=3, job={"priority": 1}))
    assert row(store, "s").next_run_at is None
    settle(store, declared("s", iterations=4, job={"priority": 1}))
    assert (row(store, "s").due_at, row(store, "s").iterations_left) == (AT, 4)


def test_one_that_was_set_aside_gets_another_chance_and_a_paused_one_stays_so(
    store: Store, declared: Callable[..., ScheduleSpec]
) -> None:
    both = declared("aside"), declared("paused")
    settle(store, *both)
    change(store, "aside", due_at=None, error="unreadable", trigger_json='{"kind":"moon"}')
    change(store, "paused", due_at=None, paused=True, error="unreadable")
    settle(store, *both)
    aside, paused = row(store, "aside"), row(store, "paused")
    assert (aside.due_at, aside.error, "moon" in aside.trigger_json) == (AT, None, False)
    assert (paused.due_at, paused.next_run_at, paused.paused) == (None, AT, True)


def test_an_older_deployment_changes_nothing_while_a_newer_one_lives(
    store: Store, declared: Callable[..., ScheduleSpec]
) -> None:
    old = declared("same"), declared("changed"), declared("retired")
    new = declared("same"), declared("changed", trigger=every(5.0, AT)), declared("added")
    assert start(store, "old 1", *old) == Standing(number=1, behind=False)
    assert start(store, "new", *new) == Standing(number=2, behind=False)
    stand = [row(store, id) for id in ids(store)]
    assert [one.id for one in stand] == ["added", "changed", "same"]
    assert start(store, "old 2", *old) == Standing(number=1, behind=True)
    assert [row(store, id) for id in ids(store)] == stand
    assert start(store, "new 2", *new) == Standing(number=2, behind=False)
    with store.read() as connection:
        daemons = {one.label: one.generation for one in store.daemons.list(connection)}
    assert daemons == {"old 1": 1, "old 2": 1, "new": 2, "new 2": 2}


@pytest.mark.parametrize("gone", ["left", "silent"])
def test_an_older_deployment_stands_again_when_the_last_newer_daemon_has_gone(
    store: Store, declared: Callable[..., ScheduleSpec], gone: str
) -> None:
    old, new = (declared("old"),), (declared("new"),)
    start(store, "old", *old)
    start(store, "new 1", *new)
    start(store, "new 2", *new)
    leave(store, "new 1")
    assert settle(store, *old).behind
    if gone == "left":
        leave(store, "new 2")
    else:
        daemon = store.tables.daemon
        with store.begin() as connection:
            long_ago = store.now(connection) - timedelta(seconds=2 * LEASE)
            silent = update(daemon).where(daemon.c.incarnation == "new 2")
            connection.execute(silent.values(heartbeat_at=long_ago))
    with store.read() as connection:
        assert not store.generations.is_behind(connection, generation_of(old), lease=LEASE)
    assert settle(store, *old) == Standing(number=3, behind=False)
    assert ids(store) == ["old"]
    # And the other way round: what was newer is older now.
    assert start(store, "new 3", *new) == Standing(number=2, behind=True)
    assert ids(store) == ["old"]


def test_daemons_that_start_together_agree(
    store: Store, declared: Callable[..., ScheduleSpec]
) -> None:
    specs = declared("one"), declared("two")
    ready = threading.Barrier(6)
    standings: list[Standing] = []
    errors: list[Exception] = []

    def run(name: str) -> None:
        ready.wait(10)
        try:
            standings.append(start(store, name, *specs))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[f"d{number}"]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert standings == [Standing(number=1, behind=False)] * 6
    assert ids(store) == ["one", "two"]


def test_generations_of_long_ago_are_forgotten(
    store: Store, declared: Callable[..., ScheduleSpec]
) -> None:
    first = declared("s", iterations=1)
    settle(store, first)
    table = store.tables.generation
    with store.begin() as connection:
        rows = [{"digest": f"d{number}", "number": number, "since": AT} for number in range(2, 101)]
        connection.execute(table.insert(), rows)
    settle(store, declared("s", iterations=2))
    with store.read() as connection:
        count = connection.execute(select(func.count()).select_from(table)).scalar_one()
        known = connection.execute(select(table.c.digest)).scalars().all()
    assert count == 100
    assert generation_of([first]) not in known
