"""Any order of calls by any daemons keeps the laws: the claim and the states of a job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text, update

from pyramid_durable.records import RUNNING
from pyramid_durable.store import Store
from pyramid_durable.times import utcnow

from .machine import Laws, end_of, make_spec

BOUNDED = settings(
    max_examples=16,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
"""The same orders of calls in every run, a few seconds for each database. One that breaks a law is
shown as it was found: to shrink it would take minutes."""

UNTIL_FOUND = settings(BOUNDED, max_examples=60)


def machine_on(store: Store) -> type[Laws]:
    return type("LawsOnStore", (Laws,), {"store": store})


def test_any_order_of_calls_keeps_the_laws(store: Store) -> None:
    run_state_machine_as_test(machine_on(store), settings=BOUNDED)


def test_the_clock_counts_again_after_a_claim_as_of_a_time(tmp_path: Path) -> None:
    """On SQLite, in a process whose first claim is one as of a time (run_due(now=...))."""
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    with store.begin() as connection:
        store.jobs.add(connection, [make_spec("one"), make_spec("two")])
    claims = []
    for now in (utcnow(), None):
        with store.read() as connection:
            look = store.looks.look(connection, ["default"], now=now)
        with store.begin() as connection:
            claims += store.claims.take(connection, "a", look, 1)
    store.dispose()
    assert len(claims) == 2


def test_the_end_of_a_replaced_job_is_not_the_new_ones(store: Store) -> None:
    """A completion whose answer was lost is written again, and the job may be another by then."""
    first = make_spec("chosen", chosen_id=True, replace_existing=True)
    claims = []
    for _ in range(2):
        with store.begin() as connection:
            store.jobs.add(connection, [first])
        with store.read() as connection:
            look = store.looks.look(connection, ["default"])
        with store.begin() as connection:
            claims += store.claims.take(connection, "a", look, 1)
        if len(claims) == 1:
            with store.begin() as connection:
                assert store.completions.write(connection, [end_of(claims[0], "succeeded")])
    with store.begin() as connection:
        assert not store.completions.write(connection, [end_of(claims[0], "succeeded")])


def completions_without_a_fence(store: Store) -> None:
    rewrite_completions(store, "AND +durable_job.owner = v.owner", "")
    of_each = "CASE WHEN v.claim_no IS NOT NULL THEN :owner END"
    rewrite_completions(store, f"AND +durable_job.owner = {of_each}", "")
    rewrite_completions(store, "AND durable_job.claim_no = v.claim_no", "")


def completions_that_ignore_the_claim_number(store: Store) -> None:
    rewrite_completions(store, "AND durable_job.claim_no = v.claim_no", "")


def a_retry_frees_its_key(store: Store) -> None:
    kept = "THEN durable_job.waiting_key END"
    rewrite_completions(store, kept, "THEN NULL END")


def a_retry_forgets_that_it_was_asked_to_stop(store: Store) -> None:
    rewrite_completions(store, "asked.job_id = v.id", "false")


def a_claim_forgets_that_it_was_asked_to_stop(store: Store) -> None:
    replace(store.claims._cancels, "end", lambda connection, claims: set())


def a_rescue_forgets_that_it_was_asked_to_stop(store: Store) -> None:
    replace(store.daemons._cancels, "requested", lambda connection, ids: set())


def claims_are_not_numbered(store: Store) -> None:
    numbered = store.claims._claiming
    same = {"claim_no": store.tables.job.c.claim_no}
    replace(store.claims, "_claiming", lambda began: numbered(began).values(same))


def release_without_a_fence(store: Store) -> None:
    def release(connection: Any, claims: Any, *, delay: float = 0.0) -> int:
        job, ids = store.tables.job, [claim.id for claim in claims]
        statement = update(job).where(job.c.id.in_(ids), job.c.state == RUNNING)
        values = {"state": "scheduled", "owner": None, "due_at": store.soon(delay)}
        return int(connection.execute(statement.values(values)).rowcount)

    replace(store.holdings, "release", release)


def rescue_takes_from_the_living(store: Store) -> None:
    rescue = store.daemons.rescue
    replace(
        store.daemons,
        "rescue",
        lambda connection, lease, poison_limit: rescue(
            connection, lease=-60.0, poison_limit=poison_limit
        ),
    )


def cancel_ends_what_runs(store: Store) -> None:
    def cancel(connection: Any, id: str, queue: str | None = None) -> bool:
        job = store.tables.job
        ended = {"state": "cancelled", "due_at": None, "finished_at": store.soon()}
        statement = update(job).where(job.c.id == id, job.c.finished_at.is_(None))
        return bool(connection.execute(statement.values(ended)).rowcount)

    replace(store.jobs, "cancel", cancel)


def missed_times_without_an_account(store: Store) -> None:
    replace(store.schedules._accounts, "keep", lambda *seen: None)


def replace(owner: Any, name: str, value: Any) -> None:
    """This store lives for one test: nothing has to be put back."""
    setattr(owner, name, value)


def rewrite_completions(store: Store, old: str, new: str) -> None:
    found = 0
    for name in ("_ends", "_retries", "_plain_ends"):
        form = getattr(store.completions, name)
        found += str(form.telling).count(old)
        setattr(
            store.completions, name, form._make(text(str(one).replace(old, new)) for one in form)
        )
    assert found


@pytest.mark.parametrize(
    "break_a_law",
    [
        completions_without_a_fence,
        completions_that_ignore_the_claim_number,
        a_retry_frees_its_key,
        claims_are_not_numbered,
        release_without_a_fence,
        rescue_takes_from_the_living,
        cancel_ends_what_runs,
        a_retry_forgets_that_it_was_asked_to_stop,
        a_claim_forgets_that_it_was_asked_to_stop,
        a_rescue_forgets_that_it_was_asked_to_stop,
        missed_times_without_an_account,
    ],
)
def test_a_broken_law_is_found(tmp_path: Path, break_a_law: Callable[[Store], None]) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    break_a_law(store)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine_on(store), settings=UNTIL_FOUND)
    store.dispose()
