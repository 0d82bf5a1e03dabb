"""How a schedule goes on that was paused."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from pyramid_durable.policies import PAUSE_LIMIT, PAUSED, FirePlan, Passed, plan_resume
from pyramid_durable.triggers import interval_trigger

UTC = timezone.utc
START = datetime(2030, 1, 1, tzinfo=UTC)
TRIGGER = interval_trigger(seconds=10, start_date=START, now=START, zone=UTC)


def resume(now: datetime, end_date: datetime | None = None) -> FirePlan:
    return plan_resume(TRIGGER, next_run_at=START, now=now, end_date=end_date, iterations_left=3)


def test_the_times_of_the_pause_are_passed_over_also_the_one_that_is_due_now() -> None:
    last = START + timedelta(seconds=30)
    assert resume(last) == FirePlan(
        fires=(),
        passed=(Passed(reason=PAUSED, number=4, first=START, last=last),),
        next_at=last + timedelta(seconds=10),
        iterations_left=3,
    )


def test_a_pause_that_missed_nothing_changes_nothing() -> None:
    assert resume(START - timedelta(seconds=1)) == FirePlan(
        fires=(), passed=(), next_at=START, iterations_left=3
    )


def test_after_its_end_there_is_no_next_time() -> None:
    plan = resume(START + timedelta(seconds=60), end_date=START + timedelta(seconds=15))
    assert (plan.passed[0].number, plan.next_at) == (2, None)


def test_a_long_pause_is_not_counted_to_its_end() -> None:
    now = START + timedelta(days=300, seconds=1)
    plan = resume(now)
    assert plan.next_at == START + timedelta(days=300, seconds=10)
    (passed,) = plan.passed
    assert (passed.number, passed.first, passed.last, passed.more) == (
        PAUSE_LIMIT,
        START,
        now,
        True,
    )
