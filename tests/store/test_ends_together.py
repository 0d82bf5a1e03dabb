"""Jobs that end at the same moment, each in a session of its own, are not in each other's way."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, select

from pyramid_durable.records import RUNNING, SUCCEEDED, Completion, JobSpec
from pyramid_durable.store import Store
from pyramid_durable.times import utcnow

ROUNDS = 25
"""Before a plan was laid down, every second pair met in a deadlock on MariaDB."""


def test_two_ends_in_an_almost_empty_table(store: Store, spec: Callable[..., JobSpec]) -> None:
    """Where a plan that reads, and locks, the whole table looks best; under the session's default
    isolation, which on MariaDB keeps these locks."""
    if store.dialect.local_clock:
        pytest.skip("one writer at a time")
    sessions = create_engine(store.url)
    job = store.tables.job
    errors: list[BaseException] = []

    def end(id: str, at_once: threading.Barrier) -> None:
        completion = Completion(
            id=id, owner="me", claim_no=1, state=SUCCEEDED, attempt=1, started_at=utcnow()
        )
        try:
            with sessions.begin() as connection:
                connection.execute(select(1))
                at_once.wait(10)
                assert store.completions.write(connection, [completion])
        except BaseException as error:
            errors.append(error)

    for _ in range(ROUNDS):
        pair = [spec(), spec()]
        with store.begin() as connection:
            connection.execute(job.delete())
            store.jobs.add(connection, pair)
            claimed = {"state": RUNNING, "owner": "me", "claim_no": 1, "due_at": None}
            connection.execute(job.update().values(claimed))
        at_once = threading.Barrier(2)
        threads = [threading.Thread(target=end, args=(one.id, at_once)) for one in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    sessions.dispose()
    assert not errors, f"{len(errors)} of {2 * ROUNDS} failed: {errors[0]!r}"
