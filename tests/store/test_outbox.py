"""What StoreOutbox does with a transaction that goes on after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from pyramid_durable.changed import Changer
from pyramid_durable.changes import CANCEL, PAUSE, REMOVE, RUN, Change
from pyramid_durable.exceptions import DuplicateJob
from pyramid_durable.joining import News
from pyramid_durable.outbox import StoreOutbox
from pyramid_durable.serializers import JSONSerializer
from pyramid_durable.settings import read_settings
from pyramid_durable.store import Store

from .acting import Make, interval


@contextmanager
def outbox(store: Store) -> Iterator[tuple[StoreOutbox, Connection]]:
    """One in a transaction that is committed, whatever was caught within."""
    changer = Changer(read_settings({}), JSONSerializer())
    with store.begin() as connection:
        yield StoreOutbox(store, connection, News(), changer), connection


def schedule(spec: Make, id: str, **changes: Any) -> Any:
    return replace(interval(spec(), 60.0), id=id, chosen_id=True, **changes)


def there(store: Store) -> tuple[set[str], dict[str, Any]]:
    with store.read() as connection:
        jobs = {job.id for job in store.jobs.list(connection)}
        return jobs, {one.id: one.trigger for one in store.schedules.list(connection)}


def test_jobs_and_schedules_are_added_together_or_not_at_all(store: Store, spec: Make) -> None:
    with outbox(store) as (box, _):
        box.add([spec(id="job", chosen_id=True)], [schedule(spec, "taken")])
    before = there(store)
    fresh = spec(id="fresh", chosen_id=True)
    other = replace(interval(spec(), 5.0), id="taken", chosen_id=True)
    replacing = replace(other, replace_existing=True)
    for jobs, schedules, id in (
        ([fresh], [other], "taken"),
        ([fresh], [replacing, schedule(spec, "new"), schedule(spec, "new")], "new"),
        ([fresh, spec(id="job", chosen_id=True)], [replacing], "job"),
    ):
        with outbox(store) as (box, _), pytest.raises(DuplicateJob, match=f"'{id}'"):
            box.add(jobs, schedules)
        assert there(store) == before
    with outbox(store) as (box, _):
        box.add([fresh], [replacing])
    jobs, schedules = there(store)
    assert jobs == {"job", "fresh"}
    assert schedules["taken"] != before[1]["taken"]


def test_a_refused_batch_leaves_what_it_was_to_replace(store: Store, spec: Make) -> None:
    with outbox(store) as (box, _):
        box.add([], [schedule(spec, "one"), schedule(spec, "two")])
    before = there(store)
    again = [schedule(spec, "one", replace_existing=True), schedule(spec, "two")]
    with outbox(store) as (box, _), pytest.raises(DuplicateJob, match="'two'"):
        box.add([], again)
    assert there(store) == before


def test_a_verb_about_a_job_never_means_the_schedule_of_the_same_id(
    store: Store, spec: Make
) -> None:
    with outbox(store) as (box, connection):
        box.add([spec(id="same", chosen_id=True)], [schedule(spec, "same")])
        assert box.change(Change(verb=CANCEL, id="same")) is True
        before = store.schedules.get(connection, "same")
        # The job has ended: there is nothing to do for it.
        for verb in (CANCEL, PAUSE, RUN):
            assert box.change(Change(verb=verb, id="same")) is False
        assert store.schedules.get(connection, "same") == before
        assert box.change(Change(verb=REMOVE, id="same")) is True
        assert store.schedules.get(connection, "same") == before
        assert box.change(Change(verb=PAUSE, id="same")) is True
        assert store.schedules.get(connection, "same") != before
