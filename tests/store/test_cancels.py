"""A job that runs and was asked to stop runs no more, whatever becomes of this attempt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyramid_durable.records import Claim
from pyramid_durable.store import Store

from .conftest import register
from .test_conformance import Make, add, claim, complete, ended, stored


def ask_to_stop(store: Store, id: str) -> bool:
    with store.begin() as connection:
        return store.jobs.cancel(connection, id)


def crash(store: Store, claimed: Claim) -> None:
    with store.begin() as connection:
        assert store.daemons.interrupt(connection, [claimed], poison_limit=3)


def rescue(store: Store, claimed: Claim) -> None:
    with store.begin() as connection:
        store.daemons.leave(connection, claimed.owner)
        store.daemons.rescue(connection, lease=15.0, poison_limit=3)


def retry(store: Store, claimed: Claim) -> None:
    assert complete(store, ended(claimed, state="scheduled", delay=60.0))


@pytest.mark.parametrize("leave", [retry, crash, rescue])
def test_whoever_was_asked_to_stop_is_not_run_again(
    store: Store, spec: Make, leave: Callable[[Store, Claim], None]
) -> None:
    register(store, "a")
    asked, other = spec(waiting_key="k"), spec(queue="other")
    add(store, asked, other)
    for claimed in claim(store, queues=("default", "other")):
        if claimed.id == asked.id:
            assert ask_to_stop(store, asked.id)
        leave(store, claimed)
    job = stored(store, asked.id)
    assert (job.state, job.due_at, job.owner) == ("cancelled", None, None)
    assert job.finished_at is not None
    assert stored(store, other.id).state == "scheduled"
    add(store, spec(waiting_key="k"))


def test_one_given_back_ends_at_its_next_claim(store: Store, spec: Make) -> None:
    specs = [spec(), spec()]
    add(store, *specs)
    claims = claim(store)
    ask_to_stop(store, specs[0].id)
    with store.begin() as connection:
        store.holdings.release(connection, claims)
    # One at a time: an empty answer would mean that nothing is due.
    [left] = claim(store, limit=1)
    assert left.id == specs[1].id
    assert stored(store, specs[0].id).state == "cancelled"
    assert claim(store) == []


def test_an_end_stands_and_a_later_life_is_not_stopped(store: Store, spec: Make) -> None:
    asked = spec()
    add(store, asked)
    [claimed] = claim(store)
    ask_to_stop(store, asked.id)
    assert complete(store, ended(claimed))
    assert stored(store, asked.id).state == "succeeded"
    with store.begin() as connection:
        store.cancels.forget(connection, [asked.id])
        assert store.cancels.requested(connection, [asked.id]) == set()
