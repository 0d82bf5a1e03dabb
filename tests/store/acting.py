"""What the store's tests do again and again: add, claim, complete, look."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from pyramid_durable.records import Claim, Completion, JobSpec, ScheduleSpec, StoredJob
from pyramid_durable.store import Store
from pyramid_durable.triggers import interval_trigger

Make = Callable[..., JobSpec]
UTC = timezone.utc


def add(store: Store, *specs: JobSpec) -> None:
    with store.begin() as connection:
        store.jobs.add(connection, specs)


def claim(
    store: Store, owner: str = "a", limit: int = 100, queues: tuple[str, ...] = ("default",)
) -> list[Claim]:
    with store.read() as connection:
        look = store.looks.look(connection, queues)
    with store.begin() as connection:
        return store.claims.take(connection, owner, look, limit)


def complete(store: Store, *completions: Completion) -> set[tuple[str, int]]:
    with store.begin() as connection:
        return store.completions.write(connection, completions)


def ended(claimed: Claim, **changes: object) -> Completion:
    values: dict[str, object] = {
        "id": claimed.id,
        "owner": claimed.owner,
        "claim_no": claimed.claim_no,
        "state": "succeeded",
        "attempt": claimed.attempt + 1,
        "started_at": claimed.claimed_at,
    }
    return Completion(**{**values, **changes})  # type: ignore[arg-type]


def stored(store: Store, id: str) -> StoredJob:
    with store.read() as connection:
        job = store.jobs.get(connection, id)
    assert job is not None
    return job


def every(seconds: float, start: datetime) -> dict[str, Any]:
    return interval_trigger(seconds=seconds, start_date=start, now=start, zone=UTC).to_json()


def interval(job: JobSpec, seconds: float, **changes: object) -> ScheduleSpec:
    start = datetime.now(UTC) - timedelta(seconds=1)
    values: dict[str, object] = {
        "id": "s",
        "job": job,
        "kind": "interval",
        "trigger": every(seconds, start),
        "next_run_at": start,
        "timezone": "UTC",
    }
    return ScheduleSpec(**{**values, **changes})  # type: ignore[arg-type]
