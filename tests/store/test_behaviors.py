"""What each behavior promises, on every database: at the insert, at the claim, at the end."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.pool import NullPool

from pyramid_durable.behaviors import BINDS_SUCCESS, BINDS_WAITING
from pyramid_durable.exceptions import DuplicateJob, StoreBusy, StoreUnavailable
from pyramid_durable.records import Claim, Completion, JobSpec, ScheduleSpec
from pyramid_durable.store import Store, settling
from pyramid_durable.triggers import interval_trigger

from .conftest import register
from .test_conformance import add, claim, complete, ended, stored

Make = Callable[..., JobSpec]
UTC = timezone.utc

ALL = ("SCHEDULE_ONCE", "RUN_ONCE", "RUN_AND_SCHEDULE_ONCE", "LAST_ONLY")


@pytest.fixture
def equal(spec: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make jobs that are equal; twins look again at once."""
    monkeypatch.setattr(settling, "FIRST_PAUSE", 0.0)

    def make(behavior: str | None, key: str = "k", **changes: Any) -> JobSpec:
        options = {"key": key, **changes.pop("options", {})}
        if behavior is not None:
            options["behavior"] = behavior
        waiting_key = key if behavior in BINDS_WAITING else None
        return spec(options=options, waiting_key=waiting_key, **changes)

    return make


def end(claimed: Claim, **changes: Any) -> Completion:
    """The end of an attempt as outcomes.py makes it."""
    done = ended(claimed, **changes)
    if done.state != "succeeded" or claimed.options.get("behavior") not in BINDS_SUCCESS:
        return done
    return ended(claimed, **changes, once_key=claimed.options["key"])


def states(store: Store, *specs: JobSpec) -> list[str]:
    return [stored(store, one.id).state for one in specs]


def count(store: Store) -> Counter[str]:
    with store.read() as connection:
        return Counter(job.state for job in store.jobs.list(connection))


def errors(store: Store, one: JobSpec) -> str:
    return "".join(json.loads(stored(store, one.id).errors or "[]"))


def run(store: Store) -> list[str]:
    """Let a daemon run all that is due; the ids of what ran."""
    claims = claim(store)
    complete(store, *map(end, claims))
    return [one.id for one in claims]


# SCHEDULE_ONCE


@pytest.mark.parametrize("behavior", ["SCHEDULE_ONCE", "RUN_AND_SCHEDULE_ONCE"])
def test_schedule_once_refuses_while_an_equal_one_has_not_ended(
    store: Store, equal: Make, behavior: str
) -> None:
    first = equal(behavior)
    add(store, first, equal(behavior, "other"))

    def refused() -> None:
        with pytest.raises(DuplicateJob, match=first.id) as caught:
            add(store, equal(behavior))
        assert caught.value.id == first.id

    refused()
    claimed = next(one for one in claim(store) if one.id == first.id)
    refused()
    complete(store, end(claimed, state="scheduled", delay=3600.0))
    refused()
    with store.begin() as connection:
        assert store.jobs.cancel(connection, first.id)
    add(store, equal(behavior))


@pytest.mark.parametrize("other", [None, "RUN_ONCE", "LAST_ONLY"])
def test_schedule_once_sees_equal_ones_of_other_behaviors(
    store: Store, equal: Make, other: str | None
) -> None:
    """Another routine of the group may have no behavior, or another one."""
    first = equal(other)
    add(store, first)
    with pytest.raises(DuplicateJob, match=first.id):
        add(store, equal("SCHEDULE_ONCE"))
    assert run(store) == [first.id]
    add(store, equal("SCHEDULE_ONCE"))


def test_a_job_that_replaces_itself_is_not_its_own_duplicate(store: Store, equal: Make) -> None:
    mine = {"id": "mine", "chosen_id": True, "replace_existing": True}
    for priority in (1, 2):
        add(store, equal("SCHEDULE_ONCE", priority=priority, **mine))
    assert stored(store, "mine").priority == 2


@pytest.mark.parametrize("behavior", ["SCHEDULE_ONCE", "RUN_ONCE", "LAST_ONLY"])
def test_what_is_refused_has_changed_nothing(store: Store, equal: Make, behavior: str) -> None:
    """Neither the job it was to replace is gone, nor an equal one cancelled, nor a part added."""
    one = equal("RUN_ONCE", "done")
    add(store, one)
    assert run(store) == [one.id]
    waiting = equal("SCHEDULE_ONCE", "w")
    add(store, equal(None, "x", id="mine", chosen_id=True, priority=3), waiting)
    add(store, equal("LAST_ONLY", "l", id="last", chosen_id=True))
    replacing = equal(None, "y", id="mine", chosen_id=True, replace_existing=True, priority=9)
    refused = {
        "SCHEDULE_ONCE": equal("SCHEDULE_ONCE", "w"),
        "RUN_ONCE": equal("RUN_ONCE", "done"),
        "LAST_ONLY": equal("LAST_ONLY", "l", id="last", chosen_id=True),
    }[behavior]
    beside = equal("LAST_ONLY", "w")
    with store.begin() as connection:
        for batch in ([replacing, beside, refused], [replacing, refused, beside]):
            with pytest.raises(DuplicateJob):
                store.jobs.add(connection, batch)
    assert stored(store, "mine").priority == 3
    assert states(store, waiting) == ["scheduled"]
    with store.read() as connection:
        assert len(store.jobs.list(connection)) == 4


# RUN_ONCE


@pytest.mark.parametrize("behavior", ["RUN_ONCE", "RUN_AND_SCHEDULE_ONCE"])
def test_run_once_refuses_once_an_equal_one_has_succeeded(
    store: Store, equal: Make, behavior: str
) -> None:
    first = equal(behavior)
    add(store, first)
    [claimed] = claim(store)
    complete(store, end(claimed, state="failed"))
    second = equal(behavior)
    add(store, second)
    assert run(store) == [second.id]
    with pytest.raises(DuplicateJob, match=f"{second.id}.*{behavior}") as caught:
        add(store, equal(behavior))
    assert caught.value.id == second.id
    add(store, equal(behavior, "other"))


@pytest.mark.parametrize("how", ["purged", "delete_after"])
def test_a_success_binds_when_its_job_is_gone(store: Store, equal: Make, how: str) -> None:
    first = equal("RUN_ONCE")
    add(store, first)
    [claimed] = claim(store)
    assert complete(store, end(claimed, delete=how == "delete_after"))
    removed = [job.id for batch in store.retention.remove(older_than=-60.0) for job in batch]
    assert removed == ([first.id] if how == "purged" else [])
    assert store.retention.remove_orphans() == 0
    with pytest.raises(DuplicateJob, match=first.id):
        add(store, equal("RUN_ONCE"))


def test_what_is_known_of_keys_goes_with_their_jobs(store: Store, equal: Make) -> None:
    add(store, equal("RUN_ONCE", "fails"), equal("LAST_ONLY", "last"), equal("LAST_ONLY", "waits"))
    add(store, equal("LAST_ONLY", "waits", delay=3600.0))
    complete(store, *(end(one, state="failed") for one in claim(store)))
    assert sum(map(len, store.retention.remove(older_than=-60.0))) == 3
    assert store.retention.remove_orphans() == 2
    with store.read() as connection:
        names = connection.execute(select(store.tables.holder.c.name)).scalars().all()
    assert names == ["last waits"]


def test_a_key_that_is_just_taken_is_not_cleared(store: Store, equal: Make) -> None:
    if not store.dialect.skip_locked:
        pytest.skip("SQLite has one writer")
    add(store, equal("LAST_ONLY"))
    with store.begin() as connection:
        connection.execute(store.tables.job.delete())
    with store.begin() as connection:
        store.jobs.add(connection, [equal("LAST_ONLY")])
        assert store.retention.remove_orphans() == 0
    assert store.retention.remove_orphans() == 0


def test_inline_claims_are_settled_too(store: Store, equal: Make) -> None:
    first, twin = equal("RUN_ONCE"), equal("RUN_ONCE")
    add(store, first, twin)
    for _ in range(2):
        with store.begin() as connection:
            claims = store.claims.take_named(connection, "a", [first.id, twin.id])
        assert [one.id for one in claims] in ([first.id], [])
    assert states(store, first, twin) == ["running", "scheduled"]


def test_two_equal_ones_may_wait_and_one_succeeds(store: Store, equal: Make) -> None:
    first, twin, other = equal("RUN_ONCE"), equal("RUN_ONCE"), equal("RUN_ONCE", "other")
    add(store, first, twin)
    add(store, other)
    claims = claim(store)
    assert [one.id for one in claims] == [first.id, other.id]
    assert states(store, twin) == ["scheduled"]
    assert claim(store, "b") == []
    complete(store, end(claims[0]))
    assert claim(store, "b") == []
    assert states(store, first, twin) == ["succeeded", "cancelled"]
    assert first.id in errors(store, twin)
    assert stored(store, twin.id).attempt == 0


@pytest.mark.parametrize("state", ["failed", "cancelled", "expired", "broken"])
def test_a_twin_takes_over_when_the_holder_ended_otherwise(
    store: Store, equal: Make, state: str
) -> None:
    first, twin, third = (equal("RUN_ONCE") for _ in range(3))
    add(store, first, twin, third)
    [claimed] = claim(store)
    complete(store, end(claimed, state=state, delete=state == "failed"))
    [taken] = claim(store)
    assert taken.id == twin.id
    assert claim(store, "b") == []
    complete(store, end(taken))
    assert claim(store, "b") == []
    assert states(store, twin, third) == ["succeeded", "cancelled"]
    assert twin.id in errors(store, third)


def test_the_key_stays_with_a_job_through_its_retries(store: Store, equal: Make) -> None:
    first, twin = equal("RUN_ONCE"), equal("RUN_ONCE")
    add(store, first, twin)
    [claimed] = claim(store)
    complete(store, end(claimed, state="scheduled", delay=3600.0))
    assert claim(store) == []
    assert states(store, first, twin) == ["scheduled", "scheduled"]
    later = datetime.now(UTC) + timedelta(hours=2)
    with store.begin() as connection:
        look = store.looks.look(connection, ["default"], now=later)
        [again] = store.claims.take(connection, "a", look, 10)
    assert again.id == first.id
    complete(store, end(again, state="failed"))
    assert run(store) == [twin.id]


def test_the_key_stays_with_a_job_that_is_rescued_or_given_back(store: Store, equal: Make) -> None:
    first, twin = equal("RUN_ONCE"), equal("RUN_ONCE")
    add(store, first, twin)
    claims = claim(store, register(store, "dead"))
    with store.begin() as connection:
        store.holdings.release(connection, claims)
    assert [one.id for one in claim(store, "dead")] == [first.id]
    with store.begin() as connection:
        store.daemons.leave(connection, "dead")
        assert store.daemons.rescue(connection, lease=15.0, poison_limit=3)
    assert [one.id for one in claim(store, register(store, "b"))] == [first.id]
    assert states(store, twin) == ["scheduled"]


def test_a_late_success_of_one_who_lost_the_claim_counts_for_nothing(
    store: Store, equal: Make
) -> None:
    first, twin = equal("RUN_ONCE"), equal("RUN_ONCE")
    add(store, first, twin)
    [claimed] = claim(store, "dead")
    with store.begin() as connection:
        store.daemons.rescue(connection, lease=15.0, poison_limit=1)
    assert states(store, first) == ["failed"]
    assert not complete(store, end(claimed))
    assert run(store) == [twin.id]
    assert states(store, twin) == ["succeeded"]


def test_an_uncommitted_success_lets_the_twin_wait(store: Store, equal: Make) -> None:
    if not store.dialect.skip_locked:
        pytest.skip("SQLite has one writer")
    add(store, equal("RUN_ONCE"), equal("RUN_ONCE"))
    [claimed] = claim(store)
    with store.begin() as connection:
        store.completions.write(connection, [end(claimed)])
        began = time.monotonic()
        assert claim(store, "b") == []
        assert time.monotonic() - began < 1.0
        connection.rollback()
    assert claim(store, "b") == []
    complete(store, end(claimed))
    assert claim(store, "b") == []
    assert count(store) == {"succeeded": 1, "cancelled": 1}


def test_a_job_in_the_place_of_the_holder_is_not_the_holder(store: Store, equal: Make) -> None:
    mine = {"id": "mine", "chosen_id": True}
    twin = equal("RUN_ONCE", delay=3600.0)
    add(store, equal("RUN_ONCE", **mine))
    [claimed] = claim(store)
    complete(store, end(claimed, state="scheduled", delay=3600.0))
    add(store, twin, equal("RUN_ONCE", "other", replace_existing=True, delay=3600.0, **mine))
    with store.begin() as connection:
        look = store.looks.look(connection, ["default"], now=datetime.now(UTC) + timedelta(days=1))
        claims = store.claims.take(connection, "a", look, 10)
    assert {one.id for one in claims} == {"mine", twin.id}


def test_twins_do_not_keep_others_from_being_claimed(store: Store, equal: Make) -> None:
    """Also as of a time at which the twins are due again at once."""
    add(store, *(equal("RUN_ONCE") for _ in range(7)))
    other = equal(None, "other")
    add(store, other)
    for now in (None, datetime.now(UTC) + timedelta(days=1)):
        found = []
        for _ in range(2):
            with store.begin() as connection:
                look = store.looks.look(connection, ["default"], now=now)
                found += store.claims.take(connection, "a", look, 1)
        assert len(found) == 2
        assert other.id in {one.id for one in found}
        with store.begin() as connection:
            store.holdings.release(connection, found)


def test_a_twin_looks_again_ever_more_slowly(store: Store, spec: Make) -> None:
    options = {"behavior": "RUN_ONCE", "key": "k"}
    first, twin = spec(options=options), spec(options=options)
    add(store, first, twin)
    with store.read() as connection:
        before = store.now(connection)
    [claimed] = claim(store)
    with store.read() as connection:
        after = store.now(connection)
    due_at, pause = stored(store, twin.id).due_at, timedelta(seconds=settling.FIRST_PAUSE)
    assert due_at is not None
    assert before + pause <= due_at <= after + pause
    pauses = [settling.twin_pause(claimed._replace(claim_no=n)) for n in (1, 2, 3, 9, 10**6)]
    assert pauses == [0.5, 1.0, 2.0, 30.0, 30.0]


def test_claims_and_ends_without_such_a_behavior_cost_nothing(store: Store, equal: Make) -> None:
    seen: list[str] = []
    holder = store.tables.holder.name

    def look(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    event.listen(store.engine, "before_cursor_execute", look)
    try:
        add(store, equal(None), equal(None))
        inserts = len(seen)
        assert len(run(store)) == 2
    finally:
        event.remove(store.engine, "before_cursor_execute", look)
    assert inserts == 1
    assert not [statement for statement in seen if holder in statement]


# LAST_ONLY


def test_last_only_cancels_the_equal_ones_that_wait(store: Store, equal: Make) -> None:
    first, other, second = equal("LAST_ONLY"), equal("LAST_ONLY", "o"), equal("LAST_ONLY")
    add(store, first)
    add(store, other)
    add(store, second)
    assert states(store, first, other, second) == ["cancelled", "scheduled", "scheduled"]
    assert second.id in errors(store, first)
    assert run(store) == [other.id, second.id]
    third = equal("LAST_ONLY")
    add(store, third)
    assert states(store, second, third) == ["succeeded", "scheduled"]


@pytest.mark.parametrize("other", [None, "SCHEDULE_ONCE", "RUN_ONCE", "RUN_AND_SCHEDULE_ONCE"])
def test_last_only_cancels_equal_ones_of_other_behaviors(
    store: Store, equal: Make, other: str | None
) -> None:
    before, last = [equal(other)], equal("LAST_ONLY")
    if other not in BINDS_WAITING:
        before.append(equal(other))
    add(store, *before)
    add(store, last)
    assert states(store, *before) == ["cancelled"] * len(before)
    assert run(store) == [last.id]
    add(store, equal(other))


def test_last_only_leaves_a_running_one_alone(store: Store, equal: Make) -> None:
    first, second, third = (equal("LAST_ONLY") for _ in range(3))
    add(store, first)
    [claimed] = claim(store)
    add(store, second)
    add(store, third)
    assert states(store, first, second, third) == ["running", "cancelled", "scheduled"]
    assert complete(store, end(claimed))
    assert run(store) == [third.id]


@pytest.mark.parametrize("newer", ["waits", "is over"])
def test_of_a_retry_and_a_newer_one_the_newer_one_runs(
    store: Store, equal: Make, newer: str
) -> None:
    first, second = equal("LAST_ONLY"), equal("LAST_ONLY", delay=0.0 if newer == "is over" else 60)
    add(store, first)
    [claimed] = claim(store)
    add(store, second)
    if newer == "is over":
        assert run(store) == [second.id]
    complete(store, end(claimed, state="scheduled", delay=0.0, errors='["the first error"]'))
    assert states(store, first) == ["scheduled"]
    assert claim(store) == []
    assert states(store, first) == ["cancelled"]
    assert "the first error" in errors(store, first)
    assert second.id in errors(store, first)


def test_a_retry_that_waits_is_cancelled_by_a_newer_one(store: Store, equal: Make) -> None:
    first, second = equal("LAST_ONLY"), equal("LAST_ONLY")
    add(store, first)
    [claimed] = claim(store)
    complete(store, end(claimed, state="scheduled", delay=3600.0))
    add(store, second)
    assert states(store, first, second) == ["cancelled", "scheduled"]


def test_a_lone_last_only_job_is_retried(store: Store, equal: Make) -> None:
    first = equal("LAST_ONLY")
    add(store, first)
    [claimed] = claim(store)
    complete(store, end(claimed, state="scheduled", delay=0.0))
    assert run(store) == [first.id]


# Several at once


@pytest.mark.parametrize(
    "behaviors",
    [
        ("SCHEDULE_ONCE", "SCHEDULE_ONCE"),
        (None, "SCHEDULE_ONCE"),
        ("SCHEDULE_ONCE", None),
        ("SCHEDULE_ONCE", "LAST_ONLY", None),
        ("LAST_ONLY", "SCHEDULE_ONCE"),
        ("LAST_ONLY", "LAST_ONLY", "LAST_ONLY"),
        ("RUN_ONCE", "RUN_ONCE"),
        ("RUN_ONCE", "RUN_AND_SCHEDULE_ONCE"),
        ("RUN_AND_SCHEDULE_ONCE", "RUN_ONCE", "LAST_ONLY"),
    ],
)
def test_a_batch_does_the_same_as_one_by_one(
    store: Store, equal: Make, behaviors: tuple[str | None, ...]
) -> None:
    one_by_one = [equal(behavior, "a") for behavior in behaviors]
    batch = [equal(behavior, "b") for behavior in behaviors]
    try:
        for one in one_by_one:
            add(store, one)
    except DuplicateJob:
        with pytest.raises(DuplicateJob):
            add(store, equal(None, "c"), *batch)
        return
    add(store, equal(None, "c"), *batch)
    assert states(store, *batch) == states(store, *one_by_one)


def test_a_thousand_last_only_jobs_in_one_batch(store: Store, equal: Make) -> None:
    add(store, *(equal("LAST_ONLY", f"k{number}") for number in range(500)))
    add(store, *(equal("LAST_ONLY", f"k{number % 500}") for number in range(1000)))
    assert count(store) == {"scheduled": 500, "cancelled": 1000}


# Schedules


@pytest.mark.parametrize("behavior", ALL)
def test_the_jobs_of_a_schedule_have_its_behavior(store: Store, equal: Make, behavior: str) -> None:
    start = datetime.now(UTC) - timedelta(seconds=15)
    trigger = interval_trigger(seconds=10, start_date=start, now=start, zone=UTC)
    schedule = ScheduleSpec(
        id="often",
        job=equal(behavior, id="often", kind="interval", schedule_id="often"),
        kind="interval",
        trigger=trigger.to_json(),
        next_run_at=start,
        timezone="UTC",
        max_instances=None,
        coalesce=False,
    )
    with store.begin() as connection:
        store.schedules.add(connection, [schedule])
    before = equal(behavior, delay=3600.0)
    add(store, before)
    claims = claim(store)
    with store.read() as connection:
        jobs = store.jobs.list(connection, schedule_id="often")
    by_state = sorted(job.state for job in jobs)
    if behavior in BINDS_WAITING:
        assert not claims
        assert by_state == ["expired"]
        assert "2 fire times" in str(jobs[0].errors)
        assert "behavior refused them" in str(jobs[0].errors)
    elif behavior == "LAST_ONLY":
        assert states(store, before) == ["cancelled"]
        assert by_state == ["cancelled", "running"]
    else:
        assert by_state == ["running", "scheduled"]


# Other transactions


def wait_bounds(store: Store, equal: Make) -> dict[str, tuple[JobSpec, JobSpec]]:
    mine = {"id": "mine", "chosen_id": True}
    return {
        "id": (equal(None, "a", **mine), equal(None, "b", **mine)),
        "waiting key": (equal("SCHEDULE_ONCE"), equal("SCHEDULE_ONCE")),
        "newest": (equal("LAST_ONLY"), equal("LAST_ONLY")),
    }


@pytest.mark.parametrize("what", ["id", "waiting key", "newest"])
def test_the_wait_for_another_transaction_is_bounded(store: Store, equal: Make, what: str) -> None:
    """In the application's own transaction, which goes on as it was."""
    if not store.dialect.skip_locked:
        pytest.skip("SQLite has one writer: its wait is the connection's own, for anything")
    postgresql = store.dialect.names == ("postgresql",)
    setting = "lock_timeout" if postgresql else "@@SESSION.innodb_lock_wait_timeout"
    show = text(f"SHOW {setting}" if postgresql else f"SELECT {setting}")
    here, there = wait_bounds(store, equal)[what]
    engine = create_engine(store.url, poolclass=NullPool)
    try:
        with engine.connect() as app, store.engine.connect() as other:
            store.jobs.add(other, [here])
            app.execute(text(f"SET {setting} = 77000" if postgresql else f"SET {setting} = 77"))
            app.commit()
            before = app.execute(show).scalar_one()
            own = equal(None, "own")
            store.jobs.add(app, [own])
            began = time.monotonic()
            with pytest.raises(StoreBusy, match=f"{there.id}.*another transaction") as caught:
                store.jobs.add(app, [there], wait=0.3)
            assert time.monotonic() - began < 3.0
            assert isinstance(caught.value, StoreUnavailable)
            assert app.execute(show).scalar_one() == before
            other.rollback()
            store.jobs.add(app, [there], wait=0.3)
            assert app.execute(show).scalar_one() == before
            app.commit()
            assert app.execute(show).scalar_one() == before
    finally:
        engine.dispose()
    assert states(store, own, there) == ["scheduled", "scheduled"]


def test_a_shorter_wait_of_the_application_stays(store: Store, equal: Make) -> None:
    if store.dialect.names != ("postgresql",):
        pytest.skip("MariaDB counts in seconds, SQLite has one writer")
    here, there = wait_bounds(store, equal)["waiting key"]
    with store.engine.connect() as app, store.engine.connect() as other:
        store.jobs.add(other, [here])
        app.execute(text("SET LOCAL lock_timeout = '50ms'"))
        began = time.monotonic()
        with pytest.raises(StoreBusy):
            store.jobs.add(app, [there])
        assert time.monotonic() - began < 3.0
        assert app.execute(text("SHOW lock_timeout")).scalar_one() == "50ms"


def test_a_schedules_id_is_not_waited_for_either(
    store: Store, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not store.dialect.skip_locked:
        pytest.skip("SQLite has one writer")
    monkeypatch.setattr("pyramid_durable.store.schedules.KEY_WAIT", 0.3)
    start = datetime.now(UTC) + timedelta(hours=1)
    often = ScheduleSpec(
        id="often",
        job=spec(id="often"),
        kind="interval",
        trigger={},
        next_run_at=start,
        timezone="UTC",
        chosen_id=True,
    )
    with store.engine.connect() as one, store.engine.connect() as two:
        store.schedules.add(one, [often])
        with pytest.raises(StoreBusy, match="often"):
            store.schedules.add(two, [often])


@pytest.mark.parametrize("behavior", ["SCHEDULE_ONCE", "LAST_ONLY"])
def test_who_waited_sees_what_the_other_transaction_did(
    store: Store, equal: Make, behavior: str
) -> None:
    if not store.dialect.skip_locked:
        pytest.skip("SQLite has one writer")
    first, second = equal(behavior), equal(behavior)
    outcome: list[str] = []

    def wait() -> None:
        try:
            add(store, second)
            outcome.append("added")
        except DuplicateJob as error:
            outcome.append(str(error.id))

    thread = threading.Thread(target=wait)
    with store.begin() as connection:
        store.jobs.add(connection, [first])
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it did not wait for the transaction that decides"
    thread.join(10)
    if behavior == "LAST_ONLY":
        assert outcome == ["added"]
        assert states(store, first, second) == ["cancelled", "scheduled"]
    else:
        assert outcome == [first.id]


def test_adding_is_not_in_the_way_of_the_running_equal_ones_end(store: Store, equal: Make) -> None:
    """An application's transaction may be long, and at MariaDB's own isolation level."""
    if not store.dialect.skip_locked:
        pytest.skip("SQLite has one writer")
    mine = {"id": "mine", "chosen_id": True}
    first, again = equal("LAST_ONLY", "a"), equal("SCHEDULE_ONCE", "b", **mine)
    add(store, first, again)
    claims = claim(store)
    engine = create_engine(store.url, poolclass=NullPool, isolation_level="REPEATABLE READ")
    try:
        with engine.connect() as app:
            app.execute(select(store.tables.job.c.id)).all()
            store.jobs.add(app, [equal("LAST_ONLY", "a")])
            for refused in (equal("SCHEDULE_ONCE", "b"), equal(None, "c", **mine)):
                with pytest.raises(DuplicateJob):
                    store.jobs.add(app, [refused])
            began = time.monotonic()
            assert len(complete(store, *map(end, claims))) == 2
            assert time.monotonic() - began < 5.0
            app.commit()
    finally:
        engine.dispose()
    assert states(store, first, again) == ["succeeded", "succeeded"]


def test_last_only_sees_what_was_committed_after_its_transaction_began(
    store: Store, equal: Make
) -> None:
    """MariaDB's own isolation level shows what was there before; PostgreSQL refuses it then."""
    if store.dialect.names[0] != "mysql":
        pytest.skip("PostgreSQL raises a serialization failure, SQLite has one writer")
    first, second = equal("LAST_ONLY"), equal("LAST_ONLY")
    engine = create_engine(store.url, poolclass=NullPool, isolation_level="REPEATABLE READ")
    try:
        with engine.connect() as app:
            app.execute(select(store.tables.job.c.id)).all()
            add(store, first)
            store.jobs.add(app, [second])
            app.commit()
    finally:
        engine.dispose()
    assert states(store, first, second) == ["cancelled", "scheduled"]


def test_a_deadlock_is_told_and_ends_the_transaction(store: Store, equal: Make) -> None:
    """MariaDB undoes all of it; what came after must not be committed alone."""
    if store.dialect.names[0] != "mysql":
        pytest.skip("PostgreSQL's transaction is over by itself, SQLite has one writer")
    one, two, after = equal("LAST_ONLY", "a"), equal("LAST_ONLY", "b"), equal(None, "c")
    failed: list[BaseException] = []

    def cross(connection: Any, second: JobSpec) -> None:
        try:
            store.jobs.add(connection, [second])
        except Exception as error:
            failed.append(error)
            with pytest.raises(PendingRollbackError):
                store.jobs.add(connection, [after])
            connection.rollback()

    with store.engine.connect() as here, store.engine.connect() as there:
        store.jobs.add(here, [one])
        store.jobs.add(there, [two])
        thread = threading.Thread(target=cross, args=(here, equal("LAST_ONLY", "b")))
        thread.start()
        cross(there, equal("LAST_ONLY", "a"))
        thread.join(20)
    assert ["Deadlock" in str(error) for error in failed] == [True]
