"""What the hot statements cost beside many other jobs: index probes, never a walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from pyramid_durable.records import Claim, Completion, JobSpec
from pyramid_durable.store import LOOKING, SWEEPING, WRITING, Store
from pyramid_durable.store.retention import BATCH as REMOVED_AT_A_TIME
from pyramid_durable.store.retention import PURGED
from tests.services import service_url

from .conftest import drop_tables, register
from .wire import recorded

MILLION = 1_000_000
BATCH = 100

PAGES_A_JOB = 30
"""Pages that one statement may touch for each job of a batch: the row, its new version, and a
descent of each index it enters. A walk over a million rows touches tens of thousands."""

HELD = 150
"""Claims of one daemon: what a long row of short jobs makes it hold."""

RESTING = 10_000
"""Jobs of a store in which none runs; its statistics are what counts."""

# An equal share each: waiting for the future, ended and, of three, running elsewhere.
FILL = """
    INSERT INTO {prefix}job
        (id, kind, state, func, payload, codec, queue, priority, run_at, due_at, created_at,
         started_at, finished_at, attempt, crashes, owner, claim_no)
    SELECT 'old-' || n, 'date',
        CASE n % {kinds} WHEN 0 THEN 'scheduled' WHEN 1 THEN 'succeeded' ELSE 'running' END,
        'a:b', '{{}}', 'json', 'default', n % 10, now() + interval '1 day',
        CASE n % {kinds} WHEN 0 THEN now() + interval '1 day' END, now(),
        CASE n % {kinds} WHEN 0 THEN NULL ELSE now() END, CASE n % {kinds} WHEN 1 THEN now() END,
        0, 0, CASE n % {kinds} WHEN 2 THEN 'other' END, 1
    FROM generate_series(1, {number}) AS n
"""


@contextmanager
def filled(number: int, kinds: int) -> Iterator[Store]:
    store = Store(service_url("postgresql"), prefix=f"m{uuid4().hex[:8]}_")
    store.migrate()
    try:
        with store.begin() as connection:
            fill = FILL.format(prefix=store.prefix, number=number, kinds=kinds)
            connection.execute(text(fill))
        yield store
    finally:
        drop_tables(store)
        store.dispose()


@pytest.fixture(scope="module")
def full_store() -> Iterator[Store]:
    with filled(MILLION, 3) as store:
        yield store


@pytest.fixture(scope="module")
def resting_store() -> Iterator[Store]:
    """One whose statistics were taken when nothing ran, as most are."""
    with filled(RESTING, 2) as store:
        analyze(store)
        yield store


def analyze(store: Store) -> None:
    with store.engine.connect() as connection:
        autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
        autocommit.execute(text(f"ANALYZE {store.prefix}job"))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def check_plans(
    store: Store,
    work: Callable[[Any], Any],
    pages: int,
    *,
    begin: Callable[[], Any] | None = None,
) -> None:
    """Run the work, then explain each of its statements on the same state of the table.

    None touches more pages; nor do all of them together look at more rows that they do not want.
    ``begin`` makes the transaction, as the work has it in a daemon: by default one kept to the indexes.
    """
    begin = begin or store.begin
    with begin() as connection, recorded(store.engine) as wire:
        work(connection)
        connection.rollback()
    in_vain: dict[str, int] = {}
    with begin() as connection:
        for statement, parameters in wire.statements:
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
            in_vain[statement] = in_vain.get(statement, 0) + passed_over(plan)
        connection.rollback()
    assert in_vain
    assert sum(in_vain.values()) <= pages, in_vain


def passed_over(plan: dict[str, Any]) -> int:
    """The rows that a statement looked at and did not want."""
    removed = ("Rows Removed by Filter", "Rows Removed by Join Filter")
    return sum(one.get(name, 0) * one["Actual Loops"] for one in nodes(plan) for name in removed)


def succeeded(claim: Claim) -> Completion:
    return Completion(
        id=claim.id,
        owner=claim.owner,
        claim_no=claim.claim_no,
        state="succeeded",
        attempt=1,
        started_at=claim.claimed_at,
    )


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "statistics"])
def test_look_claim_and_complete_touch_only_their_own_rows(
    full_store: Store, spec: Callable[..., JobSpec], analyzed: bool
) -> None:
    store = full_store
    if analyzed:
        analyze(store)
    with store.begin() as connection:
        store.jobs.add(connection, [spec(priority=n % 10) for n in range(BATCH)])
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    assert len(look.due) == 10
    check_plans(store, lambda c: store.looks.look(c, ["default"]), pages=200)
    check_plans(store, lambda c: store.looks.number_due(c, look, BATCH), pages=BATCH)
    check_plans(store, lambda c: store.claims.take(c, "me", look, BATCH), BATCH * PAGES_A_JOB)
    with store.begin() as connection:
        claims = store.claims.take(connection, "me", look, BATCH)
    assert len(claims) == BATCH
    ends = [succeeded(one) for one in claims]
    check_plans(store, lambda c: store.completions.write(c, ends), BATCH * PAGES_A_JOB)


def test_a_claim_without_a_look_touches_only_its_own_row(
    full_store: Store, spec: Callable[..., JobSpec]
) -> None:
    store = full_store
    with store.begin() as connection:
        store.jobs.add(connection, [spec(priority=9) for _ in range(BATCH)])

    statement = store.prompt.statement(["mail", "default"])

    def take(connection: Any) -> None:
        assert len(connection.execute(statement, {"claimant": "me"}).all()) == 1

    # As a look it probes each queue and priority.
    check_plans(store, take, pages=200, begin=store.engine.connect)


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


def test_new_jobs_are_compared_by_index_probes(
    full_store: Store, spec: Callable[..., JobSpec]
) -> None:
    store = full_store
    equal = {"key": "k"}
    with store.begin() as connection:
        store.jobs.add(connection, [spec(options={**equal, "behavior": "LAST_ONLY"})])
    for new in (
        spec(id="chosen", chosen_id=True),
        spec(id="old-3", chosen_id=True, replace_existing=True),
        spec(options={"key": "l", "behavior": "SCHEDULE_ONCE"}, waiting_key="l"),
        spec(options={"key": "m", "behavior": "RUN_ONCE"}),
    ):
        check_plans(store, lambda c, new=new: store.jobs.add(c, [new]), pages=10 * PAGES_A_JOB)


def test_what_is_left_beside_jobs_that_are_gone_is_found_by_index_probes(
    full_store: Store,
) -> None:
    store = full_store
    with store.begin() as connection:
        store.cancels.request(connection, "gone")
        store.cancels.request(connection, "old-1")
    with recorded(store.engine) as wire:
        assert store.retention.remove_orphans() == 1
    questions = [one for one in wire.statements if "NOT (EXISTS" in one[0]]
    assert len(questions) >= 4

    def ask(connection: Any) -> None:
        for statement, parameters in questions:
            connection.exec_driver_sql(statement, parameters)

    check_plans(store, ask, pages=10 * PAGES_A_JOB, begin=partial(store.begin, SWEEPING))


def take_many(store: Store, spec: Callable[..., JobSpec], owner: str) -> list[Claim]:
    """Claim many new jobs for a daemon, unanalyzed as ever."""
    return take(store, spec, owner, HELD)


def take(store: Store, spec: Callable[..., JobSpec], owner: str, number: int) -> list[Claim]:
    with store.begin() as connection:
        store.jobs.add(connection, [spec() for _ in range(number)])
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    with store.begin() as connection:
        claims = store.claims.take(connection, owner, look, number, starting=BATCH)
    assert len(claims) == number
    return claims


@pytest.mark.parametrize("number", [1, BATCH])
def test_ends_are_written_by_their_ids_beside_many_claims(
    resting_store: Store, spec: Callable[..., JobSpec], number: int
) -> None:
    store = resting_store
    claims = take_many(store, spec, register(store, f"ends {number}"))
    ends = [succeeded(one) for one in claims[:number]]
    check_plans(store, lambda c: store.completions.write(c, ends), number * PAGES_A_JOB)


@pytest.mark.parametrize("result", [None, '"kept"'])
def test_ends_are_written_by_their_ids_in_a_table_that_was_small(
    spec: Callable[..., JobSpec], result: str | None
) -> None:
    """As it is before the first rush."""
    with filled(0, 1) as store:
        for _ in range(12):
            ends = [succeeded(one)._replace(result=result) for one in take(store, spec, "few", 3)]
            with store.begin() as connection:
                assert len(store.completions.write(connection, ends)) == 3
        analyze(store)
        claims = take(store, spec, register(store, "many"), 20 * HELD)
        ends = [succeeded(one)._replace(result=result) for one in claims[:BATCH]]
        check_plans(store, lambda c: store.completions.write(c, ends), BATCH * PAGES_A_JOB)


def test_what_is_kept_of_a_plan_suits_the_table_when_it_has_grown(
    spec: Callable[..., JobSpec],
) -> None:
    """The server plans a prepared statement a few times, and keeps what it then has."""
    with filled(0, 1) as store:
        for _ in range(12):
            walked(store, spec, 3)
        # What is kept from before the statistics is thrown away; this makes new ones.
        analyze(store)
        walked(store, spec, 3)
        with store.begin() as connection:
            store.jobs.add(connection, [spec() for _ in range(20 * HELD)])
        scans, rows = walked(store, spec, BATCH)
        assert scans == 0
        # Each row is fetched for its claim, the note of its start and its end.
        assert rows <= 5 * BATCH


def walked(store: Store, spec: Callable[..., JobSpec], number: int) -> tuple[int, int]:
    """Add, claim and end jobs; the table's scans, and the rows fetched by its indexes, meanwhile."""
    figures = text(
        "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = :table"
    )
    table = {"table": store.tables.job.name}
    sums = [0, 0]

    @contextmanager
    def counted(purpose: str = WRITING) -> Iterator[Any]:
        with store.begin(purpose) as connection:
            before = connection.execute(figures, table).one()
            yield connection
            after = connection.execute(figures, table).one()
        sums[:] = [one + now - was for one, now, was in zip(sums, after, before, strict=True)]

    with store.begin() as connection:
        store.jobs.add(connection, [spec() for _ in range(number)])
    with counted(LOOKING) as connection:
        look = store.looks.look(connection, ["default"])
        claims = store.claims.take(connection, "walker", look, number, starting=number)
    assert len(claims) == number
    ends = [succeeded(one) for one in claims]
    with counted() as connection:
        assert len(store.completions.write(connection, ends)) == number
    return sums[0], sums[1]


def test_what_a_daemon_holds_is_told_by_the_owners_index(
    resting_store: Store, spec: Callable[..., JobSpec]
) -> None:
    store = resting_store
    claims = take_many(store, spec, register(store, "holds"))
    fences = {(one.id, one.claim_no) for one in claims[:BATCH]}
    for work in (
        lambda c: store.holdings.owned(c, "holds"),
        lambda c: store.holdings.mark_started(c, claims[:10]),
        lambda c: store.holdings.release(c, claims[-BATCH:]),
        lambda c: store.holdings.release_owned(c, "holds", fences),
        lambda c: store.daemons.rescue(c, lease=15.0, poison_limit=3),
    ):
        check_plans(store, work, HELD * PAGES_A_JOB)


def test_a_rescue_frees_each_job_by_its_id(
    resting_store: Store, spec: Callable[..., JobSpec]
) -> None:
    store = resting_store
    take_many(store, spec, "nobody")

    def rescue(connection: Any) -> None:
        assert len(store.daemons.rescue(connection, lease=15.0, poison_limit=3)) == HELD

    check_plans(store, rescue, HELD * PAGES_A_JOB)


@pytest.mark.parametrize("result", [None, '"kept"'])
def test_ends_look_at_no_other_jobs_of_their_daemon(
    store: Store, spec: Callable[..., JobSpec], result: str | None
) -> None:
    if store.engine.dialect.name != "sqlite":
        pytest.skip("its plans tell how many rows were looked at; the others are measured above")
    claims = take_many(store, spec, register(store, "sqlite's ends"))
    ends = [succeeded(one)._replace(result=result) for one in claims[:2]]
    with recorded(store.engine) as wire, store.begin() as connection:
        assert len(store.completions.write(connection, ends)) == 2
    (statement, values), *_ = [said for said in wire.statements if said[0].startswith("UPDATE")]
    with store.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    assert "job_owner" not in str(plan), plan
