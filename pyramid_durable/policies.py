"""Decisions about schedules and crashes, as pure functions of their input (daemon)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .records import Claim
from .triggers import Trigger

BIRTH_LIMIT = 1000
"""Jobs that one schedule makes in one claim; the next claim goes on from there. It bounds the
transaction of a schedule that fires every second, does not coalesce, and was away for a day."""

COUNT_LIMIT = 100_000
"""Missed fire times that one claim counts in order to coalesce them: about a second of walking."""

SUSPECT_CRASHES = 2
"""Crashes after which a job is claimed alone: if it is to blame, it takes nobody along again."""

UNCHARGED_RETURNS = 3
"""How often a claimed job may come back, with nothing charged for it, until it is noted as started
before it starts."""

COALESCED = "coalesced"
OVERLAP = "overlap"
REFUSED = "refused"
PAUSED = "paused"

PAUSE_LIMIT = 10_000
"""Fire times that a pause may have missed and still be counted, in a tenth of a second: it is a
request that resumes a schedule. Beyond it the account says "at least"."""


@dataclass(frozen=True, kw_only=True)
class Passed:
    """Fire times that became no job: how many, the first and the last of them, and why.

    With ``more`` there were more of them than were counted, up to ``last``.
    """

    reason: str
    number: int
    first: datetime
    last: datetime
    more: bool = False


@dataclass(frozen=True, kw_only=True)
class FirePlan:
    """What a due schedule does now.

    ``fires`` are the fire times that become jobs, ``passed`` accounts for the others. ``next_at``
    is None when the schedule has ended.
    """

    fires: tuple[datetime, ...]
    passed: tuple[Passed, ...]
    next_at: datetime | None
    iterations_left: int | None


def plan_fires(
    trigger: Trigger,
    *,
    next_run_at: datetime,
    now: datetime,
    coalesce: bool,
    max_instances: int | None,
    alive: int,
    iterations_left: int | None,
    end_date: datetime | None,
) -> FirePlan:
    """Decide which of the fire times up to ``now`` become jobs.

    With ``coalesce`` several missed ones become the latest of them. ``alive`` is the number of the
    schedule's jobs that have not ended; fire times beyond ``max_instances`` are passed over, the
    earlier ones first. The end date beats the iterations.
    """
    limit = COUNT_LIMIT if coalesce else BIRTH_LIMIT
    times, at = _due_times(trigger, next_run_at, now, end_date, limit)
    passed: list[Passed] = []
    fires = times
    if coalesce:
        # Where more are due than were looked at, the latest is still to come.
        kept = 0 if at is not None and at <= now else 1
        fires = _pass_over(fires, kept, COALESCED, passed)
    if max_instances is not None:
        fires = _pass_over(fires, max(max_instances - alive, 0), OVERLAP, passed)
    if iterations_left is not None:
        fires = fires[:iterations_left]
        iterations_left -= len(fires)
        if iterations_left <= 0:
            at = None
    return FirePlan(
        fires=tuple(fires), passed=tuple(passed), next_at=at, iterations_left=iterations_left
    )


def plan_resume(
    trigger: Trigger,
    *,
    next_run_at: datetime,
    now: datetime,
    end_date: datetime | None,
    iterations_left: int | None,
) -> FirePlan:
    """Decide how a paused schedule goes on: none of the fire times up to ``now`` becomes a job."""
    times, at = _due_times(trigger, next_run_at, now, end_date, PAUSE_LIMIT)
    more = at is not None and at <= now
    if more:
        at = trigger.next_after(now)
    passed: tuple[Passed, ...] = ()
    if times:
        last = now if more else times[-1]
        passed = (Passed(reason=PAUSED, number=len(times), first=times[0], last=last, more=more),)
    return FirePlan(fires=(), passed=passed, next_at=at, iterations_left=iterations_left)


def _due_times(
    trigger: Trigger, first: datetime, now: datetime, end_date: datetime | None, limit: int
) -> tuple[list[datetime], datetime | None]:
    """The fire times up to ``now``, and the one after them; None when there is no more."""
    times: list[datetime] = []
    at: datetime | None = first
    while at is not None and at <= now and len(times) < limit:
        if end_date is not None and at > end_date:
            return times, None
        times.append(at)
        at = trigger.next_after(at)
    if at is not None and end_date is not None and at > end_date:
        at = None
    return times, at


def _pass_over(
    times: list[datetime], kept: int, reason: str, passed: list[Passed]
) -> list[datetime]:
    """Keep the latest ``kept`` times and account for the others."""
    number = len(times) - kept
    if number <= 0:
        return times
    passed.append(Passed(reason=reason, number=number, first=times[0], last=times[number - 1]))
    return times[number:]


def is_noted_first(claim: Claim) -> bool:
    """Whether the store must know that a job has started before its code is reached.

    Most jobs that wait behind others in their daemon are over before anybody could note it, and
    their daemon's death would be charged to nobody. One that kills it at once, always from behind,
    would never be known for it: this holds for jobs with a crash, and those that come back too
    often.
    """
    returns = claim.claim_no - 1 - claim.attempt - claim.crashes
    return not claim.started and (claim.crashes > 0 or returns > UNCHARGED_RETURNS)


def claim_alone(claims: Sequence[Claim]) -> tuple[list[Claim], list[Claim]]:
    """Divide freshly claimed jobs into those to keep and those to give back at once.

    A suspect, whose daemons have died under it, is kept only as the single one: where it stands
    first, everything else is given back; elsewhere it is.
    """
    suspects = [claim for claim in claims if claim.crashes >= SUSPECT_CRASHES]
    if not suspects or len(claims) == 1:
        return list(claims), []
    if claims[0].crashes >= SUSPECT_CRASHES:
        return [claims[0]], list(claims[1:])
    return [claim for claim in claims if claim.crashes < SUSPECT_CRASHES], suspects
