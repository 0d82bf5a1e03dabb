"""The checker's rules about schedules: each time once, none without an account, no overlap."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from .evidence import Evidence, Job, Schedule
from .laws import FIRED_TWICE, OFF_TIME, OVERLAPPED, SKIPPED, STALLED, Found, Violation


def schedules_fire_once(evidence: Evidence) -> Found:
    """Each fire time of a schedule is one job's, or in one account; none is left out."""
    jobs: dict[str, list[Job]] = defaultdict(list)
    for job in evidence.jobs:
        if job.schedule is not None:
            jobs[job.schedule].append(job)
    for schedule in evidence.schedules:
        yield from _fires_once(schedule, jobs[schedule.id], evidence)


SAME = 0.001
"""Seconds within which two times are the same: databases round to microseconds, floats further."""


def _fires_once(schedule: Schedule, jobs: list[Job], evidence: Evidence) -> Found:
    fired: list[float] = []
    for job in jobs:
        if job.passed is not None:
            number, first, last = job.passed
            span = round((last - first) / schedule.period) + 1
            if number != span:
                what = f"{schedule.id}: an account of {number} for a span of {span}"
                yield Violation(rule=SKIPPED, what=what)
            fired += [first + step * schedule.period for step in range(span)]
        elif job.fire_at is not None:
            fired.append(job.fire_at)
    yield from _without_gaps(schedule, sorted(fired), evidence.limits.accounts)
    if evidence.read_at - schedule.next_at > schedule.period + evidence.limits.rescue:
        what = f"{schedule.id} waits for {schedule.next_at:.3f}, read at {evidence.read_at:.3f}"
        yield Violation(rule=STALLED, what=what)
    if schedule.alone:
        yield from _do_not_overlap(schedule, jobs)


def _without_gaps(schedule: Schedule, fired: list[float], accounts: bool) -> Found:
    last = schedule.created_at
    if fired and fired[0] <= last:
        # Its first time was worked out before the row was written.
        last = fired[0] - schedule.period
    for at in (*fired, schedule.next_at):
        steps = (at - fired[0]) / schedule.period if fired else 0.0
        if abs(steps - round(steps)) > SAME:
            yield Violation(rule=OFF_TIME, what=f"{schedule.id} at {at:.3f}")
        elif at - last < SAME:
            yield Violation(rule=FIRED_TWICE, what=f"{schedule.id} at {at:.3f}")
        elif accounts and at - last > schedule.period + SAME:
            what = f"{schedule.id}: nothing between {last:.3f} and {at:.3f}"
            yield Violation(rule=SKIPPED, what=what)
        last = at


def _do_not_overlap(schedule: Schedule, jobs: list[Job]) -> Found:
    born = sorted((job for job in jobs if job.passed is None), key=lambda job: job.created_at)
    for before, after in pairwise(born):
        if before.finished_at is None or after.created_at < before.finished_at - SAME:
            what = f"{schedule.id}: {before.id} had not ended when {after.id} was made"
            yield Violation(rule=OVERLAPPED, what=what)
