"""Looking over all that is still to run, on every database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from sqlalchemy import text, update

from pyramid_durable.records import ENDED, RUNNING, JobSpec, ScheduleSpec
from pyramid_durable.store import Store
from pyramid_durable.store.survey import SHORT

Make = Callable[..., JobSpec]
LONG = f'["{"x" * SHORT}"]'


def add(store: Store, *specs: JobSpec) -> None:
    with store.begin() as connection:
        store.jobs.add(connection, specs)


def set_state(store: Store, id: str, state: str) -> None:
    job = store.tables.job
    with store.begin() as connection:
        connection.execute(update(job).where(job.c.id == id).values(state=state))


def add_schedules(store: Store, make: Make, **fires: bool) -> None:
    """Schedules by these ids, each with whether it fires again."""
    specs = [
        ScheduleSpec(
            id=id,
            job=make(func=f"app:{id}", userdata="{}"),
            kind="cron",
            trigger={"kind": "cron"},
            next_run_at=datetime(2999, 1, 1, tzinfo=timezone.utc) if again else None,
            timezone="UTC",
        )
        for id, again in fires.items()
    ]
    with store.begin() as connection:
        store.schedules.add(connection, specs)


def test_jobs_are_counted_by_function_serializer_and_queue(store: Store, spec: Make) -> None:
    add(
        store,
        *(spec(id=f"a{number}", func="app:a") for number in range(3)),
        spec(id="b", func="app:a", codec="pickle"),
        spec(id="c", func="app:a", queue="mail"),
    )
    set_state(store, "a0", RUNNING)
    with store.read() as connection:
        assert store.survey.job_groups(connection) == [
            ("app:a", "json", "default", 3, "a0"),
            ("app:a", "json", "mail", 1, "c"),
            ("app:a", "pickle", "default", 1, "b"),
        ]


@pytest.mark.parametrize("state", ENDED)
def test_what_is_over_is_left_out(store: Store, spec: Make, state: str) -> None:
    add(store, spec(id="over"))
    set_state(store, "over", state)
    with store.read() as connection:
        assert store.survey.job_groups(connection) == []
        assert list(store.survey.job_texts(connection)) == []


@pytest.mark.parametrize("number", [0, 1, 3, 4, 6, 7])
def test_texts_come_in_pages_and_each_once(store: Store, spec: Make, number: int) -> None:
    ids = [f"job-{n}" for n in range(number)]
    add(store, *(spec(id=id, payload=f'["{id}"]') for id in reversed(ids)))
    with store.read() as connection:
        found = list(store.survey.job_texts(connection, page=3))
    assert [(one.id, one.payload) for one in found] == [(id, f'["{id}"]') for id in ids]


def test_long_texts_are_read_one_by_one(store: Store, spec: Make) -> None:
    add(
        store,
        spec(id="a", payload=LONG, userdata='{"a":1}'),
        spec(id="b", payload="[]", userdata=LONG),
        spec(id="c", payload="[]"),
        spec(id="d", payload=LONG),
    )
    with store.read() as connection:
        texts = store.survey.job_texts(connection)
        assert next(texts) == ("a", "tests.jobs:noop", "json", LONG, '{"a":1}')
        # One that ends and is removed meanwhile is not there any more.
        with store.begin() as other:
            other.execute(text(f"DELETE FROM {store.tables.job.fullname} WHERE id = 'd'"))
        assert [one[:1] + one[3:] for one in texts] == [("b", "[]", LONG), ("c", "[]", None)]


def test_schedules_that_fire_again_and_are_not_declared(store: Store, spec: Make) -> None:
    add_schedules(store, spec, alive=True, over=False)
    declared = ScheduleSpec(
        id="declared",
        job=spec(),
        kind="cron",
        trigger={},
        next_run_at=datetime(2999, 1, 1, tzinfo=timezone.utc),
        timezone="UTC",
        declared=True,
    )
    aside = replace(declared, id="set-aside", declared=False, job=spec(func="app:aside"))
    with store.begin() as connection:
        store.schedules.add(connection, [declared, aside])
        table = store.tables.schedule
        broken = {"due_at": None, "error": "cannot be read", "trigger_json": "{"}
        connection.execute(update(table).where(table.c.id == "set-aside").values(broken))
    with store.read() as connection:
        groups = store.survey.schedule_groups(connection)
        assert [(group.func, group.example) for group in groups] == [
            ("app:alive", "alive"),
            ("app:aside", "set-aside"),
        ]
        payload = spec().payload
        assert list(store.survey.schedule_texts(connection, page=1)) == [
            ("alive", "app:alive", "json", payload, "{}"),
            ("set-aside", "app:aside", "json", payload, None),
        ]
        assert list(store.survey.triggers(connection)) == [
            ("alive", "app:alive", '{"kind": "cron"}'),
            ("set-aside", "app:aside", "{"),
        ]
