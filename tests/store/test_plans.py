"""What the hot statements cost beside a million other jobs: index probes, never a walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text

from pyramid_durable.records import Completion, JobSpec
from pyramid_durable.store import Store
from pyramid_durable.store.retention import BATCH as REMOVED_AT_A_TIME
from pyramid_durable.store.retention import PURGED
from tests.services import service_url

from .conftest import drop_tables

MILLION = 1_000_000
BATCH = 100

PAGES_A_JOB = 30
"""Pages that one statement may touch for each job of a batch: the row, its new version, and a
descent of each index it enters. A walk over a million rows touches tens of thousands."""

# A third each: waiting for the future, running elsewhere, ended.
FILL = """
    INSERT INTO {prefix}job
        (id, kind, state, func, payload, codec, queue, priority, run_at, due_at, created_at,
         started_at, finished_at, attempt, crashes, owner, claim_no)
    SELECT 'old-' || n, 'date',
        CASE n % 3 WHEN 0 THEN 'scheduled' WHEN 1 THEN 'running' ELSE 'succeeded' END,
        'a:b', '{{}}', 'json', 'default', n % 10, now() + interval '1 day',
        CASE n % 3 WHEN 0 THEN now() + interval '1 day' END, now(),
        CASE n % 3 WHEN 0 THEN NULL ELSE now() END, CASE n % 3 WHEN 2 THEN now() END,
        0, 0, CASE n % 3 WHEN 1 THEN 'other' END, 1
    FROM generate_series(1, {number}) AS n
"""


@pytest.fixture(scope="module")
def full_store() -> Iterator[Store]:
    store = Store(service_url("postgresql"), prefix=f"m{uuid4().hex[:8]}_")
    store.migrate()
    try:
        with store.begin() as connection:
            connection.execute(text(FILL.format(prefix=store.prefix, number=MILLION)))
        yield store
    finally:
        drop_tables(store)
        store.dispose()


@contextmanager
def recorded(store: Store) -> Iterator[list[tuple[str, Any]]]:
    statements: list[tuple[str, Any]] = []

    def record(conn: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        statements.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(store.engine, "before_cursor_execute", record)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def check_plans(store: Store, work: Callable[[Any], Any], pages: int) -> None:
    """Run the work, then explain each of its statements on the same state of the table."""
    with store.engine.connect() as connection:
        with recorded(store) as statements:
            work(connection)
        connection.rollback()
        store.dialect.plan_by_index(connection)
        explained = 0
        for statement, parameters in statements:
            if (
                not statement.lstrip()
                .upper()
                .startswith(("SELECT", "UPDATE", "WITH", "INSERT", "DELETE"))
            ):
                continue
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
            [answer] = connection.exec_driver_sql(explain, parameters).scalar_one()
            plan = answer["Plan"]
            scanned = [one for one in nodes(plan) if one["Node Type"] == "Seq Scan"]
            assert not [one for one in scanned if one["Relation Name"].endswith("job")], plan
            touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            assert touched <= pages, (touched, statement)
            explained += 1
        assert explained
        connection.rollback()


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "statistics"])
def test_look_claim_and_complete_touch_only_their_own_rows(
    full_store: Store, spec: Callable[..., JobSpec], analyzed: bool
) -> None:
    store = full_store
    if analyzed:
        with store.engine.connect() as connection:
            autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
            autocommit.execute(text(f"ANALYZE {store.prefix}job"))
    with store.begin() as connection:
        store.jobs.add(connection, [spec(priority=n % 10) for n in range(BATCH)])
    with store.read() as connection:
        look = store.claims.look(connection, ["default"])
    assert len(look.due) == 10
    check_plans(store, lambda c: store.claims.look(c, ["default"]), pages=200)
    check_plans(store, lambda c: store.claims.take(c, "me", look, BATCH), BATCH * PAGES_A_JOB)
    with store.begin() as connection:
        claims = store.claims.take(connection, "me", look, BATCH)
    assert len(claims) == BATCH
    ends = [
        Completion(
            id=one.id,
            owner="me",
            claim_no=one.claim_no,
            state="succeeded",
            attempt=1,
            started_at=one.claimed_at,
        )
        for one in claims
    ]
    check_plans(store, lambda c: store.completions.write(c, ends), BATCH * PAGES_A_JOB)


@pytest.mark.parametrize("queue", [None, "default"])
def test_removing_old_jobs_touches_only_the_batch(full_store: Store, queue: str | None) -> None:
    retention = full_store.retention
    with full_store.begin() as connection:
        now = full_store.now(connection)
    removed: dict[str, int] = {}

    def remove(connection: Any, state: str) -> None:
        question = retention.question(state, now, None, queue)
        removed[state] = len(retention.remove_batch(connection, question)[0])

    for state in PURGED:
        check_plans(full_store, partial(remove, state=state), REMOVED_AT_A_TIME * PAGES_A_JOB)
    assert removed == {state: REMOVED_AT_A_TIME * (state == "succeeded") for state in PURGED}


def test_figures_are_told_by_the_indexes(full_store: Store) -> None:
    store = full_store
    check_plans(store, lambda c: store.stats.oldest_due(c, ["default", "mail"]), pages=200)
    # Counting looks at every entry of an index, and beside it at what is paused.
    check_plans(store, store.stats.counts, pages=MILLION)
