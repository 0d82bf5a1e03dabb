"""The independent checker: from what was read, and nothing else, it tells whether the laws held.

It knows the kinds of jobs and the laws, and nothing of how the package keeps them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .book import COMMITTED, ROLLED_BACK
from .evidence import Evidence, Job, Limits, Loss
from .laws import (
    ATTEMPTS,
    CHARGED,
    DOUBLING,
    EXITED,
    FORGOTTEN,
    HALF,
    LATE,
    LOSING,
    NO_EFFECT,
    NOBODY,
    NOT_ENDED,
    NOT_THERE,
    NOT_UNDONE,
    ROLLED,
    TWICE,
    TWO_JOBS,
    WRONG_END,
    Found,
    Violation,
)
from .recurring import schedules_fire_once

SUCCEEDED, FAILED, CANCELLED, EXPIRED = "succeeded", "failed", "cancelled", "expired"
ENDED = frozenset((SUCCEEDED, FAILED, CANCELLED, EXPIRED, "broken"))

ENDS: Mapping[str, frozenset[str]] = {
    "note": frozenset((SUCCEEDED,)),
    "later": frozenset((SUCCEEDED,)),
    "nap": frozenset((SUCCEEDED,)),
    "again": frozenset((SUCCEEDED,)),
    "fail": frozenset((FAILED,)),
    "stoppable": frozenset((SUCCEEDED, CANCELLED)),
    "outside": frozenset((SUCCEEDED,)),
    "deadly": frozenset((SUCCEEDED,)),
    "poison": frozenset((FAILED,)),
    "tick": frozenset((SUCCEEDED,)),
}
"""How a job of each kind may end."""

POISONED = "its daemon died"
"""In the error of a job that was given up because its daemons died under it."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the checker found."""

    violations: tuple[Violation, ...]
    counts: Mapping[str, int]
    faults: Mapping[str, int] = field(default_factory=dict)
    slowest_rescue: float = 0.0

    @property
    def lost(self) -> int:
        return sum(one.rule in LOSING for one in self.violations)

    @property
    def doubled(self) -> int:
        return sum(one.rule in DOUBLING for one in self.violations)

    def lines(self) -> Iterator[str]:
        """The report as it is printed."""
        yield ", ".join(f"{name} {number}" for name, number in self.counts.items())
        yield "faults: " + ", ".join(f"{name} {n}" for name, n in sorted(self.faults.items()))
        yield f"lost {self.lost}, doubled {self.doubled}, slowest rescue {self.slowest_rescue:.1f} s"
        for name, number in Counter(one.rule for one in self.violations).items():
            yield f"VIOLATED {name}: {number}"
        yield from map(str, self.violations[:MOST_SHOWN])


MOST_SHOWN = 40
"""Violations that are printed one by one: a broken law breaks often."""


def check(evidence: Evidence) -> Report:
    """Judge a run."""
    violations = [found for rule in RULES for found in rule(evidence)]
    told = Counter(entry.told for entry in evidence.entries)
    states = Counter(job.state for job in evidence.jobs if job.passed is None)
    rescues = [rescue_time(one, evidence.dark) for one in evidence.losses if _was_rescued(one)]
    counts = {
        "jobs": sum(states.values()),
        **{state: states[state] for state in sorted(states)},
        "recurring": sum(1 for job in evidence.jobs if job.schedule and job.passed is None),
        "asked": len(evidence.entries),
        **{f"told {what}": told[what] for what in sorted(told)},
        "poisoned": sum(1 for job in evidence.jobs if POISONED in job.error),
        "innocents poisoned": len(_poisoned_innocents(evidence)),
        "charged unstarted": len(_charged_unstarted(evidence)),
        "crashes": sum(job.crashes for job in evidence.jobs),
        "rescued": len(rescues),
        "passed over": sum(job.passed[0] for job in evidence.jobs if job.passed),
    }
    return Report(
        violations=tuple(violations),
        counts=counts,
        faults=Counter(fault.kind for fault in evidence.faults),
        slowest_rescue=max(rescues, default=0.0),
    )


def committed_jobs_are_kept(evidence: Evidence) -> Found:
    """Every committed job is there, and none is left lying."""
    keys = {job.key for job in evidence.jobs if job.schedule is None}
    for entry in evidence.entries:
        if entry.told == COMMITTED and entry.key not in keys:
            yield Violation(rule=NOT_THERE, what=entry.key)
    for left in evidence.left:
        yield Violation(rule=FORGOTTEN, what=left)


def jobs_end(evidence: Evidence) -> Found:
    """Every job ran to an end, and to one that its kind allows."""
    asked = {entry.key: entry for entry in evidence.entries}
    for job in evidence.jobs:
        if job.passed is not None:
            continue
        if job.state not in ENDED:
            yield Violation(rule=NOT_ENDED, what=f"{_name(job)} is {job.state}")
            continue
        request = asked.get(job.key)
        if _is_poisoned(job, evidence.limits):
            continue
        ends = ENDS["tick" if request is None else request.kind]
        if job.state not in ends:
            why = f"{_name(job)} is {job.state}: {job.error[-300:]}"
            yield Violation(rule=WRONG_END, what=why)
        elif request and job.state != CANCELLED and job.attempt != request.attempts:
            what = f"{_name(job)}: {job.attempt} attempts, expected {request.attempts}"
            yield Violation(rule=ATTEMPTS, what=what)


def rolled_back_is_gone(evidence: Evidence) -> Found:
    """Nothing of a rolled-back transaction is there; of an unknown one all or nothing."""
    keys = Counter(job.key for job in evidence.jobs if job.schedule is None)
    for entry in evidence.entries:
        if entry.told == ROLLED_BACK and (keys[entry.key] or entry.key in evidence.asked):
            yield Violation(rule=ROLLED, what=entry.key)
        elif entry.in_request and bool(keys[entry.key]) != (entry.key in evidence.asked):
            there, missing = ("job", "row") if keys[entry.key] else ("row", "job")
            yield Violation(rule=HALF, what=f"{entry.key}: the {there}, not the {missing}")
        if keys[entry.key] > 1:
            yield Violation(rule=TWO_JOBS, what=entry.key)
    known = {entry.key for entry in evidence.entries}
    for job in evidence.jobs:
        if job.schedule is None and job.key not in known:
            yield Violation(rule=NOBODY, what=_name(job))


def effects_are_exactly_once(evidence: Evidence) -> Found:
    """A job that succeeded did what it does once; any other left nothing behind."""
    effects = Counter(evidence.effects)
    outside = Counter(evidence.outside)
    kinds = {entry.key: entry.kind for entry in evidence.entries}
    for job in evidence.jobs:
        if job.state not in ENDED or job.passed is not None:
            continue
        if kinds.get(job.key) == "outside":
            # At least once is what is promised here.
            done, most = outside[job.id], outside[job.id]
        else:
            done, most = effects[job.id], 1
        if job.state == SUCCEEDED and not done:
            yield Violation(rule=NO_EFFECT, what=_name(job))
        elif done > most:
            yield Violation(rule=TWICE, what=f"{_name(job)}: {done} times")
        elif job.state != SUCCEEDED and effects[job.id]:
            yield Violation(rule=NOT_UNDONE, what=f"{_name(job)} is {job.state}")
    known = {job.id for job in evidence.jobs}
    for id in (effects.keys() | outside.keys()) - known:
        yield Violation(rule=NOBODY, what=f"job {id}: it has an effect, and no row")


def rescues_are_in_time(evidence: Evidence) -> Found:
    """What a lost daemon had claimed was free again within lease, heartbeat and margin."""
    limit = evidence.limits.rescue
    for loss in evidence.losses:
        if loss.back_at is not None and loss.back_at - loss.lost_at < limit:
            continue
        ended = evidence.read_at if loss.freed_at is None else loss.freed_at
        took = rescue_time(loss, evidence.dark, ended)
        # When the lights go on again, daemons have to find their way back first.
        allowed = limit + evidence.limits.margin * len(
            list(_overlaps(loss.lost_at, ended, evidence.dark))
        )
        if took > allowed:
            what = f"job {loss.job}, claim {loss.claim_no}, of {loss.daemon}: {took:.1f} s"
            yield Violation(rule=LATE, what=f"{what}, at most {allowed:.1f}")


def rescue_time(
    loss: Loss, dark: tuple[tuple[float, float], ...], ended: float | None = None
) -> float:
    """How long a claim was nobody's, without the time in which nobody could have taken it."""
    freed = ended if loss.freed_at is None else loss.freed_at
    assert freed is not None
    return freed - loss.lost_at - sum(_overlaps(loss.lost_at, freed, dark))


def _overlaps(begin: float, end: float, dark: tuple[tuple[float, float], ...]) -> Iterator[float]:
    for began, ended in dark:
        common = min(end, ended) - max(begin, began)
        if common > 0:
            yield common


def _was_rescued(loss: Loss) -> bool:
    return loss.freed_at is not None and (loss.back_at is None or loss.freed_at < loss.back_at)


def crashes_are_their_own(evidence: Evidence) -> Found:
    """A job is charged only for crashes during which it ran."""
    for job in _charged_unstarted(evidence):
        yield Violation(rule=CHARGED, what=f"{_name(job)}: {job.crashes} crashes")


def _charged_unstarted(evidence: Evidence) -> list[Job]:
    starts = Counter(evidence.starts)
    return [job for job in evidence.jobs if job.crashes > starts[job.id]]


def _poisoned_innocents(evidence: Evidence) -> list[str]:
    guilty = {entry.key for entry in evidence.entries if entry.kind == "poison"}
    return [job.id for job in evidence.jobs if POISONED in job.error and job.key not in guilty]


def nobody_leaves(evidence: Evidence) -> Found:
    """Only what was killed ended: a daemon stays, whatever is away."""
    for name in evidence.exits:
        yield Violation(rule=EXITED, what=name)


def _is_poisoned(job: Job, limits: Limits) -> bool:
    return job.state == FAILED and POISONED in job.error and job.crashes >= limits.poison_limit


def _name(job: Job) -> str:
    return f"job {job.id} ({job.key})"


RULES: tuple[Callable[[Evidence], Found], ...] = (
    committed_jobs_are_kept,
    jobs_end,
    rolled_back_is_gone,
    effects_are_exactly_once,
    schedules_fire_once,
    rescues_are_in_time,
    crashes_are_their_own,
    nobody_leaves,
)
