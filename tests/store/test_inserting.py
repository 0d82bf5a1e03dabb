"""New jobs are the same rows, and in the order of the call, whether they come alone or together."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from pyramid_durable.behaviors import KEY_OPTION
from pyramid_durable.exceptions import DuplicateJob
from pyramid_durable.records import JobSpec
from pyramid_durable.store import ALONE, Store
from pyramid_durable.store.inserting import BESIDE, LARGEST_TEXT
from pyramid_durable.store.schema import ID_LENGTH

from .acting import Make, add
from .wire import recorded

AT = datetime(2031, 5, 17, 8, 0, 0, 123456, tzinfo=timezone.utc)

PLACE = {"postgresql": "ctid", "sqlite": "rowid", "mysql": "id"}
"""Where a row is stored; on MariaDB that is by its id."""


def some_of_each(spec: Make) -> list[JobSpec]:
    return [
        spec(),
        spec(payload='["ü \\u0000 %s :rows"]', name="a name", userdata='{"x": "%(rows)s"}'),
        spec(kind="date", run_at=AT),
        spec(kind="date", run_at=AT.astimezone(timezone(timedelta(hours=2)))),
        spec(kind="date", delay=90.5),
        spec(priority=0, max_attempts=None, codec="pickle", queue="mail"),
        spec(options={"timeout": 5.0, "backoff": [1, 2]}, group="letters"),
        spec(options={"behavior": "SCHEDULE_ONCE", KEY_OPTION: "k" * 64}, waiting_key="k" * 64),
        spec(kind="cron", schedule_id="s", fire_at=AT, run_at=AT),
        spec(chosen_id=True),
        spec(),
    ]


def rows(store: Store) -> dict[str, Any]:
    """The stored jobs but for the clock's part in them."""
    with store.read() as connection:
        found = connection.execute(select(store.tables.job)).mappings().all()
    clocks = {"run_at", "due_at", "created_at"}
    kept = {}
    for row in found:
        late = {name: (row[name] - row["created_at"]).total_seconds() for name in clocks}
        seconds = {name: round(one, 1) if one < 1000 else row[name] for name, one in late.items()}
        kept[row["id"]] = {**row, **seconds}
    return kept


def test_jobs_are_the_same_rows_alone_and_together(store: Store, spec: Make) -> None:
    jobs = some_of_each(spec)
    for job in jobs:
        add(store, job)
    alone = rows(store)
    with store.begin() as connection:
        connection.execute(store.tables.job.delete())
    add(store, *jobs)
    assert rows(store) == alone
    assert len(alone) == len(jobs)


def test_jobs_that_share_most_are_the_same_rows_alone_and_together(
    store: Store, spec: Make
) -> None:
    batches = [[alike(job, number) for number in range(3)] for job in some_of_each(spec)]
    for batch in batches:
        for job in batch:
            add(store, job)
    alone = rows(store)
    with store.begin() as connection:
        connection.execute(store.tables.job.delete())
    for batch in batches:
        add(store, *batch)
    assert rows(store) == alone
    assert len(alone) == 3 * len(batches)


def alike(job: JobSpec, number: int) -> JobSpec:
    """Another such job, with another id and whatever no two jobs may have."""
    key = job.waiting_key and f"{number}{job.waiting_key[1:]}"
    return job._replace(
        id=f"{job.id}-{number}",
        fire_at=job.fire_at and job.fire_at + timedelta(hours=number),
        waiting_key=key,
        options={**job.options, KEY_OPTION: key} if key else job.options,
    )


AWKWARD = (
    *("", " ", "NULL", "null", "{}", '{"NULL"}', '"', '""', "\\", '\\"', "a,b", ",", "'", "''"),
    *("\n\t", "ü", "\u2028", "\U0001f600", "%s", "%(id)s", ":id", "$1", '[["a"],{}]'),
)


def test_texts_arrive_as_they_are(store: Store, spec: Make) -> None:
    jobs = [spec(payload=one) for one in AWKWARD]
    jobs += [spec(payload="plain", userdata=one) for one in (*AWKWARD, None)]
    add(store, *jobs)
    assert {id: (row["payload"], row["userdata"]) for id, row in rows(store).items()} == {
        job.id: (job.payload, job.userdata) for job in jobs
    }


def test_times_arrive_to_the_microsecond_however_far(store: Store, spec: Make) -> None:
    second, last = timedelta(seconds=1), timedelta(microseconds=1)
    far = datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=timezone.utc)
    long_ago = datetime(1902, 1, 1, 0, 0, 0, 1, tzinfo=timezone.utc)
    times = [
        far,
        far - last,
        far - second,
        AT,
        AT + last,
        long_ago,
        long_ago - last,
        long_ago - second,
    ]
    jobs = [spec(kind="date", run_at=at) for at in times]
    add(store, *jobs)
    job = store.tables.job.c
    with store.read() as connection:
        found = dict(tuple(row) for row in connection.execute(select(job.id, job.due_at)))
    assert [found[one.id] for one in jobs] == times


def test_what_jobs_have_in_common_is_said_once(store: Store, spec: Make) -> None:
    with recorded(store.engine) as wire:
        add(store, *(spec(payload=f'["{number}"]', name="a name") for number in range(100)))
    [(statement, values)] = wire.statements
    assert str(values).count("a name") == str(values).count("tests.jobs:noop") == 1
    assert "userdata" not in statement


@pytest.mark.parametrize("kinds", [2, 205])
def test_jobs_are_stored_in_the_order_of_the_call(store: Store, spec: Make, kinds: int) -> None:
    jobs = [spec(name=f"kind {n % kinds}", payload=f'["{n}"]') for n in range(600)]
    add(store, *jobs)
    c = store.tables.job.c
    with store.read() as connection:
        question = select(c.id, c.name, c.payload).order_by(text(PLACE[store.engine.dialect.name]))
        found = connection.execute(question).all()
    assert [tuple(row) for row in found] == [(one.id, one.name, one.payload) for one in jobs]


@pytest.mark.parametrize(
    ("number", "job", "largest", "statements"),
    [
        (3, {"payload": "x" * (LARGEST_TEXT // 2 - BESIDE)}, LARGEST_TEXT, 2),
        (100, {"payload": "[[],{}]"}, 10 * BESIDE, 12),
        (700, {"name": "名" * 200, "group": "組" * 250}, LARGEST_TEXT, 2),
    ],
    ids=["much text", "many", "names that become longer on their way"],
)
def test_much_is_several_statements(
    store: Store,
    spec: Make,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    job: dict[str, Any],
    largest: int,
    statements: int,
) -> None:
    monkeypatch.setattr("pyramid_durable.store.inserting.LARGEST_TEXT", largest)
    jobs = [spec(**job) for _ in range(number)]
    with recorded(store.engine) as wire:
        add(store, *jobs)
    assert len(wire.statements) == statements
    assert set(rows(store)) == {job.id for job in jobs}


def test_one_that_is_refused_takes_back_all_parts(
    store: Store, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyramid_durable.store.inserting.LARGEST_TEXT", 10 * BESIDE)
    add(store, spec(id="taken", chosen_id=True))
    many = [spec(name=f"kind {n}") for n in range(25)]
    with pytest.raises(DuplicateJob):
        add(store, *many, spec(id="taken", chosen_id=True))
    assert set(rows(store)) == {"taken"}


def test_of_all_forms_that_jobs_come_in_some_are_kept(
    store: Store, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyramid_durable.store.inserting.MOST_STATEMENTS", 3)
    more: list[dict[str, Any]]
    more = [{}, {"name": "a"}, {"group": "b"}, {"userdata": "{}"}, {"delay": 5.0}, {"run_at": AT}]
    for one in more:
        add(store, spec(**one))
    assert len(store.jobs._insert._statements) <= 3
    assert len(rows(store)) == len(more)


def test_equal_jobs_are_not_one(store: Store, spec: Make) -> None:
    job = spec()
    with pytest.raises(IntegrityError):
        add(store, job, job)
    with pytest.raises(DuplicateJob):
        add(store, *[job._replace(chosen_id=True)] * 2)
    assert rows(store) == {}


def test_ids_that_are_too_long_are_refused_and_not_cut(store: Store, spec: Make) -> None:
    if store.engine.dialect.name != "postgresql":
        pytest.skip("SQLite keeps texts of any length, MariaDB cuts what stands in a document")
    with pytest.raises(DBAPIError):
        add(store, spec(), spec(id="i" * (ID_LENGTH + 1)))
    assert rows(store) == {}


def test_a_job_alone_is_there_without_a_commit(store: Store, spec: Make) -> None:
    job = spec()
    with store.begin(ALONE) as connection:
        store.jobs.add(connection, [job])
    assert set(rows(store)) == {job.id}
    with store.begin() as connection:
        assert connection.get_isolation_level() != "AUTOCOMMIT"


def test_a_job_alone_that_fails_leaves_connections_as_they_were(store: Store, spec: Make) -> None:
    job = spec()
    add(store, job)
    with pytest.raises(IntegrityError), store.begin(ALONE) as connection:
        store.jobs.add(connection, [job])
    other = spec()
    with pytest.raises(ZeroDivisionError), store.begin() as connection:
        store.jobs.add(connection, [other])
        raise ZeroDivisionError
    assert set(rows(store)) == {job.id}
