"""Removing what ended long ago, and taking turns with it, on every database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from pyramid_durable.records import ENDED, JobSpec, Progress, ScheduleSpec
from pyramid_durable.store import Store, retention
from pyramid_durable.store.database import STORE_ID
from pyramid_durable.store.deliveries import KEPT, Deliveries
from pyramid_durable.store.retention import TURN, Removed
from pyramid_durable.times import new_id, utcnow

from .conftest import register
from .test_conformance import claim, every
from .wire import recorded

Make = Callable[..., JobSpec]
DAY = 86400.0


def put(store: Store, spec: JobSpec, state: str, *, days: float) -> str:
    """A job that ended so many days ago."""
    job = store.tables.job
    with store.begin() as connection:
        store.jobs.add(connection, [spec])
        ended = store.now(connection) - timedelta(days=days)
        values = {"state": state, "finished_at": ended, "due_at": None, "waiting_key": None}
        connection.execute(update(job).where(job.c.id == spec.id).values(values))
    return spec.id


def ids(store: Store) -> set[str]:
    with store.read() as connection:
        return {job.id for job in store.jobs.list(connection)}


def remove(store: Store, days: float = 7, **which: Any) -> list[Removed]:
    batches = store.retention.remove(older_than=days * DAY, **which)
    return [job for batch in batches for job in batch]


def test_old_ended_jobs_go_and_all_others_stay(store: Store, spec: Make) -> None:
    old = {state: put(store, spec(), state, days=8) for state in ENDED}
    young = {put(store, spec(), state, days=6) for state in ENDED}
    register(store, "a")
    with store.begin() as connection:
        long_ago = utcnow() - timedelta(days=30)
        store.jobs.add(connection, [spec(id="waits"), spec(id="runs", queue="other")])
        times = update(store.tables.job).where(store.tables.job.c.finished_at.is_(None))
        connection.execute(times.values(run_at=long_ago, created_at=long_ago))
    assert [job.id for job in claim(store, queues=("other",))] == ["runs"]
    removed = remove(store)
    assert {job.id for job in removed} == set(old.values()) - {old["broken"]}
    assert {job.state for job in removed} == set(ENDED) - {"broken"}
    assert ids(store) == young | {"waits", "runs", old["broken"]}


def test_it_tells_what_it_removed(store: Store, spec: Make) -> None:
    id = put(store, spec(name="n", group="g", kind="date", max_attempts=3), "failed", days=8)
    (job,) = remove(store)
    assert (job.id, job.name, job.group, job.kind) == (id, "n", "g", "date")
    assert (job.func, job.queue, job.state) == ("tests.jobs:noop", "default", "failed")
    assert (job.attempt, job.max_attempts, job.schedule_id) == (0, 3, None)
    assert job.finished_at < utcnow() - timedelta(days=7)


def test_states_and_queues_can_be_chosen(store: Store, spec: Make) -> None:
    broken = put(store, spec(), "broken", days=8)
    mail = put(store, spec(queue="mail"), "failed", days=8)
    put(store, spec(), "failed", days=8)
    put(store, spec(), "succeeded", days=8)
    assert [job.id for job in remove(store, states=["broken"])] == [broken]
    assert [job.id for job in remove(store, queue="mail")] == [mail]
    assert len(remove(store, 0)) == 2
    assert remove(store, 0) == []


def test_an_age_from_before_the_calendar_removes_nothing(store: Store, spec: Make) -> None:
    put(store, spec(), "failed", days=8)
    assert remove(store, 365 * 5000) == []


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)


def test_many_go_in_batches_of_which_each_is_over_before_the_next(
    store: Store, spec: Make, small_batches: None
) -> None:
    for days in (8, 8, 8, 9, 9, 10):
        put(store, spec(), "succeeded", days=days)
    # All of the same moment, more than a batch has room for.
    with store.begin() as connection:
        same = datetime(2020, 1, 1, tzinfo=timezone.utc)
        connection.execute(update(store.tables.job).values(finished_at=same))
    left: list[int] = []
    for batch in store.retention.remove(older_than=7 * DAY):
        assert len(batch) <= 2
        left.append(len(ids(store)))
    assert left == [4, 2, 0]


def test_what_is_kept_beside_a_job_goes_with_it(store: Store, spec: Make) -> None:
    for state, days in (("succeeded", 8), ("succeeded", 1)):
        id = put(store, spec(), state, days=days)
        with store.begin() as connection:
            store.jobs.set_progress(connection, id, Progress(done=1, total=2))
            connection.execute(
                store.tables.cancel.insert().values(job_id=id, requested_at=utcnow())
            )
    assert len(remove(store)) == 1
    with store.read() as connection:
        for table in (store.tables.progress, store.tables.cancel):
            assert connection.execute(select(table.c.job_id)).scalars().all() == [id]


def test_what_is_left_of_jobs_that_are_gone_goes_too(
    store: Store, spec: Make, small_batches: None
) -> None:
    kept = put(store, spec(), "succeeded", days=1)
    with store.begin() as connection:
        for id in (kept, "gone 1", "gone 2", "gone 3"):
            store.jobs.set_progress(connection, id, Progress(done=1, total=2))
    assert store.retention.remove_orphans() == 3
    with store.read() as connection:
        assert connection.execute(select(store.tables.progress.c.job_id)).scalars().all() == [kept]


def test_a_schedules_open_account_stays_as_long_as_it_is_written(store: Store, spec: Make) -> None:
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    pattern = spec(id="s", kind="interval", schedule_id="s")
    schedule = ScheduleSpec(
        id="s", job=pattern, kind="interval", trigger=every(60.0, start), next_run_at=start,
        timezone="UTC", max_instances=0,
    )  # fmt: skip
    with store.begin() as connection:
        store.schedules.add(connection, [schedule])
    assert claim(store) == []
    with store.read() as connection:
        account = connection.execute(select(store.tables.schedule.c.account_id)).scalar_one()
    assert account in ids(store)
    long_ago = utcnow() - timedelta(days=8)
    with store.begin() as connection:
        connection.execute(update(store.tables.job).values(finished_at=long_ago))
    others = len(ids(store)) - 1
    assert len(remove(store)) == others
    assert ids(store) == {account}
    with store.begin() as connection:
        connection.execute(update(store.tables.schedule).values(account_id=None))
    assert [job.id for job in remove(store)] == [account]


def test_locked_rows_are_passed_over(store: Store, spec: Make) -> None:
    if not store.dialect.skip_locked:
        pytest.skip("SQLite locks no rows")
    locked = put(store, spec(), "failed", days=8)
    put(store, spec(), "failed", days=8)
    job = store.tables.job
    with store.begin() as connection:
        connection.execute(update(job).where(job.c.id == locked).values(name="somebody's"))
        assert len(remove(store)) == 1
    assert ids(store) == {locked}


def test_claims_go_on_while_a_batch_is_open(store: Store, spec: Make) -> None:
    if not store.dialect.skip_locked:
        pytest.skip("SQLite has one writer; its batches are short")
    register(store, "a")
    put(store, spec(), "failed", days=8)
    with store.begin() as connection:
        store.jobs.add(connection, [spec(id="due")])
    question = store.retention.question("failed", utcnow(), None, None)
    with store.begin() as connection:
        removed, _ = store.retention.remove_batch(connection, question)
        assert len(removed) == 1
        assert [job.id for job in claim(store)] == ["due"]


# Turns.


@pytest.fixture
def turns(store: Store) -> Iterator[Callable[[float], None]]:
    """Nobody has taken a turn yet; the function puts the last one so many seconds back."""
    meta = store.tables.meta

    def clear() -> None:
        with store.begin() as connection:
            connection.execute(delete(meta).where(meta.c.name == TURN))

    def set_back(seconds: float) -> None:
        with store.begin() as connection:
            last = store.now(connection) - timedelta(seconds=seconds)
            connection.execute(
                update(meta).where(meta.c.name == TURN).values(value=last.isoformat())
            )

    clear()
    yield set_back
    clear()


def test_the_first_turn_comes_after_an_interval_and_then_once_in_each(
    store: Store, turns: Callable[[float], None]
) -> None:
    assert store.retention.turn(60) == 60
    assert 50 < store.retention.turn(60) <= 60
    turns(61)
    assert store.retention.turn(60) == 0
    assert 50 < store.retention.turn(60) <= 60
    turns(30)
    assert 20 < store.retention.turn(60) <= 30
    assert store.retention.turn(20) == 0


def test_a_clock_that_was_set_back_stops_nothing(
    store: Store, turns: Callable[[float], None]
) -> None:
    store.retention.turn(60)
    turns(-3600)
    assert store.retention.turn(60) == 0
    assert store.retention.turn(60) > 0


def test_of_daemons_that_ask_together_one_gets_the_turn(
    store: Store, turns: Callable[[float], None]
) -> None:
    store.retention.turn(60)
    for _ in range(3):
        turns(61)
        ready = threading.Barrier(5)
        got: list[float] = []

        def ask(ready: threading.Barrier = ready, got: list[float] = got) -> None:
            ready.wait(10)
            got.append(store.retention.turn(60))

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert (len(got), got.count(0)) == (5, 1)


def test_asking_before_the_time_only_reads(store: Store, turns: Callable[[float], None]) -> None:
    store.retention.turn(60)
    with recorded(store.engine) as wire:
        store.retention.turn(60)
    assert all(text.startswith("SELECT") for text, _ in wire.statements)


# Commands that were delivered.


def test_commands_are_forgotten_after_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyramid_durable.store.deliveries.BATCH", 2)
    meta = store.tables.meta
    old = int((utcnow() - KEPT - timedelta(hours=1)).timestamp() * 1000)
    young = int((utcnow() - KEPT + timedelta(hours=1)).timestamp() * 1000)
    deliveries = Deliveries(store)
    names = []
    for moment in (old, old + 1, old + 2, young):
        digits = f"{moment:012x}"
        names.append(f"{digits[:8]}-{digits[8:]}-{new_id()[14:]}")
        with deliveries.receive(names[-1]) as connection:
            assert connection is not None
    assert deliveries.forget() == 3
    with store.read() as connection:
        known = set(connection.execute(select(meta.c.name)).scalars())
    assert STORE_ID in known
    assert [f"c:{name}" in known for name in names] == [False, False, False, True]
