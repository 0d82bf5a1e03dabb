"""Behaviors hold when several processes add, claim and end equal jobs at the same moment."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from pyramid_durable.records import RUNNING, SCHEDULED, SUCCEEDED
from pyramid_durable.store import Store
from tests.store.conftest import DATABASES, drop_tables, store_url

ROOT = Path(__file__).parents[2]
SECONDS = 1.5
PROCESSES = 2


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = Store(store_url(request.param, tmp_path), prefix=f"h{uuid4().hex[:8]}_")
    store.migrate()
    yield store
    drop_tables(store)
    store.dispose()


def keys_in(store: Store, *states: str, fresh: bool = False) -> Counter[str]:
    """How many jobs of each key are in one of these states, at one moment; ``fresh``: unclaimed."""
    c = store.tables.job.c
    question = select(c.equal_key, func.count()).where(c.equal_key.is_not(None))
    question = question.where(c.state.in_(states)).group_by(c.equal_key)
    if fresh:
        question = question.where(c.claim_no == 0)
    with store.read() as connection:
        return Counter({row[0]: row[1] for row in connection.execute(question)})


def free(store: Store, key: str) -> int:
    """How many fresh jobs of a key wait, and nobody is claiming them.

    Who adds another passes over one that is being claimed, where the database can: it runs, though
    until that claim commits it is seen to wait.
    """
    c = store.tables.job.c
    question = select(c.id).where(c.equal_key == key, c.state == SCHEDULED, c.claim_no == 0)
    if store.dialect.skip_locked and store.dialect.locks_exactly:
        question = question.with_for_update(read=True, key_share=True, skip_locked=True)
    with store.read() as connection:
        return len(connection.execute(question).all())


def check_moment(store: Store) -> None:
    living = keys_in(store, SCHEDULED, RUNNING)
    twice = {key for key, number in living.items() if number > 1}
    assert not {key for key in twice if key.startswith(("schedule", "both"))}, living
    running = keys_in(store, RUNNING)
    assert not {key for key in running if key.startswith("run") and running[key] > 1}, running
    # One that had been claimed and waits again is decided about at its next claim.
    waiting = keys_in(store, SCHEDULED, fresh=True)
    twice = {key for key in waiting if key.startswith("l") and waiting[key] > 1}
    assert not {key for key in twice if free(store, key) > 1}, waiting


def successes(store: Store) -> Counter[str]:
    with store.read() as connection:
        jobs = store.jobs.list(connection, state=SUCCEEDED)
    return Counter(job.options["key"] for job in jobs)


def test_behaviors_hold_between_processes(store: Store) -> None:
    url = store.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.concurrent.hammering", url, store.prefix]
    processes = [
        subprocess.Popen(
            [*command, str(number), str(SECONDS)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for number in range(PROCESSES)
    ]
    try:
        deadline = time.monotonic() + 60
        while any(process.poll() is None for process in processes):
            assert time.monotonic() < deadline
            check_moment(store)
            time.sleep(0.03)
        assert [process.returncode for process in processes] == [0] * PROCESSES
        counts: Counter[str] = Counter()
        for process in processes:
            assert process.stdout is not None
            counts.update(json.loads(process.stdout.read()))
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    check_moment(store)
    for behavior in ("SCHEDULE_ONCE", "RUN_ONCE", "RUN_AND_SCHEDULE_ONCE", "LAST_ONLY"):
        assert counts[f"{behavior} added"], counts
    assert counts["SCHEDULE_ONCE refused"], counts
    assert counts["ended"], counts
    assert not counts["deadlock"] or store.dialect.names[0] == "mysql", counts
    done = successes(store)
    once = {key: number for key, number in done.items() if key.startswith(("run", "both"))}
    assert once
    assert set(once.values()) == {1}, once
    # Nobody claims these: in the end the newest waits, and it alone.
    left = {key: n for key, n in keys_in(store, SCHEDULED).items() if key.startswith("left")}
    assert left == {"left-0": 1, "left-1": 1, "left-2": 1}
