"""The checker can fail: each rule is broken here on purpose, and each is seen to be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from . import laws
from .book import ASKING, COMMITTED, ROLLED_BACK, UNKNOWN, Book, Entry, read_books
from .checker import check
from .evidence import Evidence, Fault, Job, Limits, Loss, Schedule

LIMITS = Limits(lease=3.0, heartbeat=0.5, poison_limit=3, margin=1.0)

BEGAN = 1000.0


def entry(key: str, kind: str = "note", told: str = COMMITTED, **values: Any) -> Entry:
    return Entry(key=key, kind=kind, told=told, **values)


def job(key: str, **values: Any) -> Job:
    return Job(**{"id": f"id-{key}", "key": key, "state": "succeeded", **values})


def tick(second: int, **values: Any) -> Job:
    at = BEGAN + second
    times = {"fire_at": at, "created_at": at + 0.01, "finished_at": at + 0.02}
    return job(f"tick{second}", **{"schedule": "every-second", **times, **values})


def account(number: int, first: float, last: float) -> Job:
    values: dict[str, Any] = {"state": "expired", "schedule": "every-second"}
    return job(f"passed{first}", passed=(number, BEGAN + first, BEGAN + last), **values)


SCHEDULE = Schedule(
    id="every-second", period=1.0, created_at=BEGAN + 0.5, next_at=BEGAN + 6, alone=True
)


def lawful() -> Evidence:
    """A run in which everything that may happen has happened."""
    jobs = (
        job("plain"),
        job("retried", attempt=3),
        job("failed", state="failed", attempt=2, error="ValueError"),
        job("stopped", state="cancelled"),
        job("file"),
        job("poison", state="failed", crashes=3, attempt=0, error="its daemon died 3 times"),
        job("alone"),
        job("luck"),
        tick(1),
        tick(2),
        account(2, 3, 4),
        tick(5),
    )
    done = ("plain", "retried", "alone", "luck", "tick1", "tick2", "tick5")
    in_request = ("plain", "retried", "failed", "stopped", "file", "poison", "luck")
    return Evidence(
        jobs=jobs,
        effects=tuple(f"id-{key}" for key in done),
        outside=("id-file", "id-file"),
        starts=("id-poison", "id-poison", "id-poison", "id-plain"),
        entries=(
            entry("plain"),
            entry("retried", "again", attempts=3),
            entry("failed", "fail", attempts=2),
            entry("stopped", "stoppable"),
            entry("file", "outside"),
            entry("poison", "poison"),
            entry("alone", in_request=False),
            entry("luck", told=UNKNOWN),
            entry("no luck", told=ASKING),
            entry("undone", told=ROLLED_BACK),
        ),
        asked={key: f"id-{key}" for key in in_request},
        schedules=(SCHEDULE,),
        losses=(
            Loss(job="id-plain", claim_no=1, daemon="d1", lost_at=10.0, freed_at=14.0),
            Loss(job="id-luck", claim_no=1, daemon="d1", lost_at=10.0, freed_at=20.0, back_at=13.0),
        ),
        faults=(Fault(kind="kill daemon", target="d1", at=10.0),),
        limits=LIMITS,
        read_at=BEGAN + 7,
    )


def rules_broken_by(evidence: Evidence) -> set[str]:
    return {violation.rule for violation in check(evidence).violations}


def with_job(key: str, **changes: Any) -> Evidence:
    evidence = lawful()
    jobs = tuple(replace(one, **changes) if one.key == key else one for one in evidence.jobs)
    return replace(evidence, jobs=jobs)


def without_job(key: str) -> Evidence:
    evidence = lawful()
    return replace(evidence, jobs=tuple(one for one in evidence.jobs if one.key != key))


def plus(evidence: Evidence, **more: Any) -> Evidence:
    longer: dict[str, Any] = {name: (*getattr(evidence, name), *add) for name, add in more.items()}
    return replace(evidence, **longer)


def test_a_lawful_run_breaks_nothing() -> None:
    report = check(lawful())
    assert report.violations == ()
    assert (report.lost, report.doubled, report.slowest_rescue) == (0, 0, 4.0)
    assert report.counts["jobs"] == 11
    assert report.counts["passed over"] == 2
    assert report.counts["poisoned"] == 1
    assert report.counts["innocents poisoned"] == 0
    assert report.counts["charged unstarted"] == 0
    assert report.faults == {"kill daemon": 1}


LATE = Loss(job="id-plain", claim_no=2, daemon="d1", lost_at=10.0, freed_at=14.6)

BROKEN = {
    "no row": (without_job("alone"), laws.NOT_THERE),
    "still waits": (with_job("plain", state="scheduled"), laws.NOT_ENDED),
    "forgotten": (replace(lawful(), left=("plain running d1",)), laws.FORGOTTEN),
    "still runs": (with_job("tick2", state="running"), laws.NOT_ENDED),
    "failed": (with_job("plain", state="failed", error="KeyError"), laws.WRONG_END),
    "failed tick": (with_job("tick2", state="failed", error="KeyError"), laws.WRONG_END),
    "succeeded": (with_job("failed", state="succeeded"), laws.WRONG_END),
    "poisoned too early": (with_job("poison", crashes=2), laws.ATTEMPTS),
    "poisoned plain job": (
        with_job("plain", state="failed", error="its daemon died 2 times", crashes=2),
        laws.WRONG_END,
    ),
    "an attempt too many": (with_job("retried", attempt=4), laws.ATTEMPTS),
    "rolled back, job": (plus(lawful(), jobs=[job("undone")]), laws.ROLLED),
    "rolled back, row": (
        replace(lawful(), asked={**lawful().asked, "undone": "x"}),
        laws.ROLLED,
    ),
    "unknown, row only": (
        replace(lawful(), asked={**lawful().asked, "no luck": "x"}),
        laws.HALF,
    ),
    "unknown, job only": (plus(lawful(), jobs=[job("no luck")]), laws.HALF),
    "nobody asked": (plus(lawful(), jobs=[job("stranger")]), laws.NOBODY),
    "an effect without a job": (plus(lawful(), effects=["id-gone"]), laws.NOBODY),
    "two jobs": (plus(lawful(), jobs=[job("plain", id="other")]), laws.TWO_JOBS),
    "no effect": (replace(lawful(), effects=lawful().effects[1:]), laws.NO_EFFECT),
    "no outside effect": (replace(lawful(), outside=()), laws.NO_EFFECT),
    "two effects": (plus(lawful(), effects=["id-plain"]), laws.TWICE),
    "two effects of a tick": (plus(lawful(), effects=["id-tick1"]), laws.TWICE),
    "failed, with effect": (plus(lawful(), effects=["id-failed"]), laws.NOT_UNDONE),
    "cancelled, with effect": (plus(lawful(), effects=["id-stopped"]), laws.NOT_UNDONE),
    "fired twice": (
        plus(lawful(), jobs=[replace(tick(2), id="again")], effects=["again"]),
        laws.FIRED_TWICE,
    ),
    "fired and accounted for": (plus(lawful(), jobs=[account(1, 2, 2)]), laws.FIRED_TWICE),
    "skipped": (without_job("tick2"), laws.SKIPPED),
    "skipped the first": (without_job("tick1"), laws.SKIPPED),
    "skipped the last": (without_job("tick5"), laws.SKIPPED),
    "a wrong account": (with_job("passed3", passed=(1, BEGAN + 3, BEGAN + 4)), laws.SKIPPED),
    "off time": (with_job("tick2", fire_at=BEGAN + 2.3), laws.OFF_TIME),
    "overlap": (with_job("tick1", finished_at=BEGAN + 2.5), laws.OVERLAPPED),
    "stalled": (replace(lawful(), read_at=BEGAN + 20), laws.STALLED),
    "late": (plus(lawful(), losses=[LATE]), laws.LATE),
    "never rescued": (
        replace(plus(lawful(), losses=[replace(LATE, freed_at=None)])),
        laws.LATE,
    ),
    "charged": (with_job("alone", crashes=1), laws.CHARGED),
    "left by itself": (replace(lawful(), exits=("daemon1 with 1",)), laws.EXITED),
}


@pytest.mark.parametrize(("evidence", "rule"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_law_is_reported(evidence: Evidence, rule: str) -> None:
    assert rule in rules_broken_by(evidence)


def test_every_rule_is_broken_by_some_case() -> None:
    rules = {rule for _, rule in BROKEN.values()}
    assert rules == laws.LOSING | laws.DOUBLING | laws.OTHERS


@pytest.mark.parametrize(
    ("case", "lost", "doubled"),
    [("no row", 1, 0), ("two effects", 0, 1), ("fired twice", 0, 1), ("late", 0, 0)],
)
def test_what_is_lost_and_doubled_is_counted(case: str, lost: int, doubled: int) -> None:
    report = check(BROKEN[case][0])
    assert (report.lost, report.doubled) == (lost, doubled)


def test_a_rescue_is_not_late_when_nobody_could_have_come_sooner() -> None:
    dark = ((11.0, 30.0),)
    loss = replace(LATE, freed_at=33.0)
    assert rules_broken_by(replace(plus(lawful(), losses=[loss]), dark=dark)) == set()
    late = replace(loss, freed_at=36.0)
    assert rules_broken_by(replace(plus(lawful(), losses=[late]), dark=dark)) == {laws.LATE}


def test_accounts_are_a_rule_that_can_be_switched() -> None:
    lenient = replace(without_job("tick2"), limits=replace(LIMITS, accounts=False))
    assert rules_broken_by(replace(lenient, effects=without_tick2())) == set()


def without_tick2() -> tuple[str, ...]:
    return tuple(id for id in lawful().effects if id != "id-tick2")


def test_the_book_keeps_what_was_told_last(tmp_path: Any) -> None:
    asked = [entry("a", told=ASKING), entry("b", told=ASKING), entry("c", told=ASKING)]
    path = tmp_path / "producer.book"
    with Book(path) as book:
        book.asking(asked)
        book.told(asked[:1], COMMITTED)
        book.told(asked[1:2], ROLLED_BACK)
    with path.open("a") as torn:
        torn.write('{"keys": ["c"], "tol')
    told = {one.key: one.told for one in read_books(tmp_path)}
    assert told == {"a": COMMITTED, "b": ROLLED_BACK, "c": ASKING}
