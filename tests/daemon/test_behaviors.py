"""Behaviors of routines, from the view that asks for a job to the job's end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pyramid_durable.exceptions import DuplicateJob
from pyramid_durable.records import StoredJob
from pyramid_durable.store import settling
from pyramid_durable.times import utcnow
from tests.web.site import Rental

from .conftest import Bench
from .routines import Again, Bill, Greet, Hail, Hint, Index, LateFee, Remind, Warn, Welcome, ran

Make = Callable[..., Bench]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "FIRST_PAUSE", 0.0)
    ran.clear()


@pytest.fixture(params=["same", "other"])
def one(request: pytest.FixtureRequest, bench: Make) -> Bench:
    """Applications whose jobs end in their own transaction, or after it."""
    made: Bench = bench(where=request.param)
    return made


def ask(bench: Bench, routine: Any, *args: Any, **options: Any) -> str | None:
    """Let a view ask for a job of a routine; its id, or None where it was refused in silence."""
    ids: list[str | None] = []
    bench.site.get(lambda request: ids.append(routine.schedule(args=list(args), **options)))
    return ids[0]


def run_due(bench: Bench) -> list[Any]:
    """Run what is due, also jobs that touch the store; returns what ran."""
    ran.clear()
    bench.scheduler.run_due()
    return list(ran)


def jobs(bench: Bench) -> dict[str, StoredJob]:
    with bench.store.read() as connection:
        return {job.id: job for job in bench.store.jobs.list(connection)}


def test_schedule_once(one: Bench) -> None:
    first = ask(one, LateFee, 1, datetime_scheduled="30d")
    assert first is not None
    assert ask(one, LateFee, 1, silent=True) is None
    with pytest.raises(DuplicateJob, match=first):
        ask(one, LateFee, 1)
    assert ask(one, LateFee, 2, silent=True) is not None
    assert run_due(one) == [("LateFee", 2)]


def test_run_once(one: Bench) -> None:
    assert ask(one, Welcome, 1, True)
    assert run_due(one) == [("Welcome", 1)]
    first, twin = ask(one, Welcome, 1), ask(one, Welcome, 1)
    other = ask(one, Welcome, 2)
    assert sorted(run_due(one)) == [("Welcome", 1), ("Welcome", 2)]
    found = jobs(one)
    assert first is not None
    assert twin is not None
    assert other is not None
    assert [found[id].state for id in (first, twin, other)] == [
        "succeeded",
        "cancelled",
        "succeeded",
    ]
    assert ask(one, Welcome, 1, silent=True) is None
    with pytest.raises(DuplicateJob, match=first):
        ask(one, Welcome, 1)


def test_run_once_counts_a_success_whose_row_is_deleted(one: Bench) -> None:
    first = ask(one, Welcome, 1, delete_after=True)
    assert run_due(one) == [("Welcome", 1)]
    assert jobs(one) == {}
    with pytest.raises(DuplicateJob, match=str(first)):
        ask(one, Welcome, 1)


def test_run_once_beside_an_end_that_is_rolled_back(bench: Make) -> None:
    """A success that was not committed is none."""
    one = bench(where="same")
    ask(one, Welcome, 1)
    claim = one.claim()
    outcome = one.runner.run(claim)
    assert outcome.completion is not None
    with pytest.raises(ZeroDivisionError), one.store.begin() as connection:
        one.store.completions.write(connection, [outcome.completion])
        raise ZeroDivisionError
    assert ask(one, Welcome, 1)


def test_run_and_schedule_once(one: Bench) -> None:
    assert ask(one, Bill, 1)
    assert ask(one, Bill, 1, silent=True) is None
    assert run_due(one) == [("Bill", 1)]
    assert ask(one, Bill, 1, silent=True) is None
    assert ask(one, Bill, 2, silent=True)


def test_last_only(one: Bench) -> None:
    ids = [ask(one, Index, 1, datetime_scheduled=f"{days}d") for days in (1, 2, 3)]
    found = jobs(one)
    states = [found[str(id)].state for id in ids]
    assert states == ["cancelled", "cancelled", "scheduled"]
    assert str(ids[2]) in str(found[str(ids[1])].errors)
    ask(one, Index, 1)
    assert run_due(one) == [("Index", 1)]


def test_a_group_is_compared_across_its_routines(one: Bench) -> None:
    hint = ask(one, Hint, 1, datetime_scheduled="1h")
    with pytest.raises(DuplicateJob, match=str(hint)):
        ask(one, Remind, 1)
    assert ask(one, Remind, 2)
    warn = ask(one, Warn, 2)
    assert ask(one, Warn, 1)
    found = jobs(one)
    assert sorted(job.state for job in found.values()) == [
        "cancelled",
        "cancelled",
        "scheduled",
        "scheduled",
    ]
    assert found[str(hint)].state == "cancelled"
    assert found[str(warn)].state == "scheduled"
    assert ask(one, Remind, 2, silent=True) is None
    # The same arguments in another group, or in none, are other jobs.
    assert ask(one, LateFee, 2)
    assert ask(one, Greet, 2)
    assert ask(one, Hail, 2)
    assert sorted(run_due(one)) in (
        [("Greet", 2), ("LateFee", 2), ("Warn", 1), ("Warn", 2)],
        [("Hail", 2), ("LateFee", 2), ("Warn", 1), ("Warn", 2)],
    )
    assert ask(one, Hail, 2, silent=True) is None


def test_mapped_objects_are_equal_by_their_key(bench: Make) -> None:
    one = bench(settings={"scheduler.serializer": "pickle", "scheduler.secret": "s"})

    def rent(request: Any) -> None:
        request.dbsession.add(Rental(ski="blue"))

    def charge(request: Any) -> None:
        rental = request.dbsession.query(Rental).one()
        answers.append(LateFee.schedule("1h", args=[rental], kwargs={"fails": False}, silent=True))

    answers: list[Any] = []
    one.site.get(rent)
    one.site.get(charge)
    one.site.get(charge)
    assert answers[0]
    assert answers[1:] == [None]


def test_a_refusal_leaves_the_views_transaction_usable(one: Bench) -> None:
    ask(one, LateFee, 1, datetime_scheduled="1h")

    def view(request: Any) -> None:
        request.dbsession.add(Rental(ski="blue"))
        request.dbsession.flush()
        with pytest.raises(DuplicateJob):
            LateFee.schedule(args=[1])
        Index.schedule("1h", args=[1])

    one.site.get(view)
    assert one.rentals() == 1
    assert len(jobs(one)) == 2


def test_a_view_that_raises_has_cancelled_nothing(one: Bench) -> None:
    first = ask(one, Index, 1, datetime_scheduled="1h")

    def view(request: Any) -> None:
        Index.schedule("1h", args=[1])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        one.site.get(view)
    assert {id: job.state for id, job in jobs(one).items()} == {first: "scheduled"}


def test_run_due_goes_on_beside_a_twin_of_a_job_that_another_daemon_runs(bench: Make) -> None:
    """Also as of a time at which the twin is due whenever it is looked at."""
    one = bench()
    ask(one, Welcome, 1)
    with one.store.begin() as connection:
        look = one.store.looks.look(connection, ["default"])
        assert one.store.claims.take(connection, one.owner, look, 1)
    ask(one, Welcome, 1)
    ask(one, LateFee, 7)
    ask(one, LateFee, 8)
    done = one.scheduler.run_due(now=utcnow() + timedelta(days=1))
    assert len(done) == 2
    assert sorted(ran) == [("LateFee", 7), ("LateFee", 8)]


@pytest.mark.parametrize("behavior", ["RUN_ONCE", "LAST_ONLY", "SCHEDULE_ONCE"])
def test_a_declared_schedule_keeps_the_behavior_of_its_jobs(bench: Make, behavior: str) -> None:
    one = bench()
    id = one.scheduler.add_interval_job(Hint, minutes=5, args=[1], behavior=behavior, group=None)
    with one.store.read() as connection:
        schedule = one.store.schedules.get(connection, id)
    assert schedule is not None
    job = schedule.job
    assert job.options["behavior"] == behavior
    assert (job.waiting_key == job.options["key"]) == (behavior == "SCHEDULE_ONCE")


def test_a_job_that_reschedules_itself_is_compared_by_what_the_new_one_is_given(
    bench: Make,
) -> None:
    one = bench()
    ask(one, Again, 3)
    assert run_due(one) == [("Again", 3)]
    assert sorted((job.state, job.options.get("behavior")) for job in jobs(one).values()) == [
        ("scheduled", "LAST_ONLY"),
        ("succeeded", "LAST_ONLY"),
    ]
    first, second = jobs(one).values()
    assert first.options["key"] != second.options["key"]
